package keyring_test

import (
	"bytes"
	"fmt"

	"github.com/scspg/scspg/pgstore"
	"github.com/scspg/scspg/pgstore/keyring"
)

// The secrets come from where the app keeps its others, not from its code.
func Example() {
	secret := func(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

	ring, err := keyring.New(keyring.Key{ID: 1, Secret: secret('a')})
	if err != nil {
		panic(err)
	}
	_ = pgstore.Config{Seal: ring, AllowPlain: true} // until Reseal has run

	old, _ := ring.Encrypt([]byte("a session"), nil)

	// A year later: the new key seals, and both open.
	err = ring.Rotate(
		keyring.Key{ID: 2, Secret: secret('b')},
		keyring.Key{ID: 1, Secret: secret('a')},
	)
	plain, _ := ring.Decrypt(old, nil)
	fmt.Println(err, string(plain), ring.Outdated(old))
	// Output: <nil> a session true
}
