package cleanup

import "time"

func init() { secondLook = SecondLook }

// SecondLook is what tests wait for instead of a minute.
const SecondLook = 100 * time.Millisecond
