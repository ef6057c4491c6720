package cleanup

import "time"

func init() { secondLook, backoff, idleTimeout = SecondLook, 5*time.Millisecond, IdleTimeout }

// What tests wait for instead of a minute, and of a quarter of one.
const (
	SecondLook  = 100 * time.Millisecond
	IdleTimeout = 2 * time.Second
)
