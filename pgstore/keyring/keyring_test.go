package keyring_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/scspg/scspg/pgstore"
	"github.com/scspg/scspg/pgstore/keyring"
)

var _ pgstore.AEAD = (*keyring.Ring)(nil)

func key(id uint32) keyring.Key {
	return keyring.Key{ID: id, Secret: bytes.Repeat([]byte{byte(id)}, 32)}
}

func ring(t *testing.T, ids ...uint32) *keyring.Ring {
	t.Helper()
	var keys []keyring.Key
	for _, id := range ids {
		keys = append(keys, key(id))
	}
	r, err := keyring.New(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func encrypt(t *testing.T, r *keyring.Ring, text, associated string) []byte {
	t.Helper()
	b, err := r.Encrypt([]byte(text), []byte(associated))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFirstKeyEncryptsAndAllDecrypt(t *testing.T) {
	t.Parallel()
	r := ring(t, 1)
	var sealed [][]byte
	for _, text := range []string{"", "a", strings.Repeat("x", 1<<20)} {
		sealed = append(sealed, encrypt(t, r, text, "row"))
	}
	if err := r.Rotate(key(2), key(1)); err != nil {
		t.Fatal(err)
	}
	newer := encrypt(t, r, "newer", "row")
	for i, want := range []string{"", "a", strings.Repeat("x", 1<<20)} {
		if got, err := r.Decrypt(sealed[i], []byte("row")); string(got) != want || err != nil || !r.Outdated(sealed[i]) {
			t.Errorf("%d: %d bytes, %v", i, len(got), err)
		}
	}
	if got, err := r.Decrypt(newer, []byte("row")); string(got) != "newer" || err != nil || r.Outdated(newer) {
		t.Errorf("%q, %v", got, err)
	}
	var unknown *keyring.UnknownKeyError
	if _, err := ring(t, 2).Decrypt(sealed[1], []byte("row")); !errors.As(err, &unknown) || unknown.ID != 1 || unknown.UnknownKey() != "1" {
		t.Errorf("without the key: %v", err)
	}
}

func TestNothingThatWasChangedDecrypts(t *testing.T) {
	t.Parallel()
	r := ring(t, 1, 2)
	good := encrypt(t, r, "text", "row")
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 3
		if got, err := r.Decrypt(bad, []byte("row")); err == nil {
			t.Errorf("byte %d: %q", i, got)
		}
		if got, err := r.Decrypt(good[:i], []byte("row")); err == nil {
			t.Errorf("cut after %d: %q", i, got)
		}
	}
	if got, err := r.Decrypt(good, []byte("other row")); err == nil {
		t.Errorf("elsewhere: %q", got)
	}
	if again := encrypt(t, r, "text", "row"); bytes.Equal(again, good) || bytes.Contains(good, []byte("text")) {
		t.Error("it can be recognized")
	}
}

func TestUnusableKeysAreRefused(t *testing.T) {
	t.Parallel()
	for want, keys := range map[string][]keyring.Key{
		"there is no key": nil,
		"the secret of key 2 has 16 bytes: it needs 32": {key(1), {ID: 2, Secret: make([]byte, 16)}},
		"there are two keys with the id 1":              {key(1), key(2), key(1)},
	} {
		if r, err := keyring.New(keys...); r != nil || fmt.Sprint(err) != "keyring: "+want {
			t.Errorf("%v, want %s", err, want)
		}
		r := ring(t, 9)
		if err := r.Rotate(keys...); err == nil {
			t.Error("no error")
		}
		if r.Outdated(encrypt(t, ring(t, 9), "", "")) {
			t.Error("a key that was refused is in use")
		}
	}
}

func TestRotateIsSafeWhileInUse(t *testing.T) {
	t.Parallel()
	r := ring(t, 1, 2)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				if _, err := r.Decrypt(encrypt(t, r, "text", ""), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 200 {
		first, second := key(uint32(1+i%2)), key(uint32(2-i%2))
		if err := r.Rotate(first, second); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}
