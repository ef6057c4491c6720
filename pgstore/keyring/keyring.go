// Package keyring encrypts the data of sessions, with keys that can be rotated while the
// app runs. A Ring is what pgstore's Config.Seal takes.
//
// It is XChaCha20-Poly1305 (https://datatracker.ietf.org/doc/html/draft-irtf-cfrg-xchacha):
// its nonces of 24 bytes are so long that they can be drawn at random for as many writes as
// there will ever be, where AES-GCM's 12 bytes allow 2^32 writes a key (NIST SP 800-38D,
// section 8.3), which a busy app reaches in weeks.
//
// To rotate, add the new key as the second one on every node, then make it the first, then
// call pgstore's Reseal, and then remove the old one: so no node ever meets a key that it
// does not have.
package keyring

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/crypto/chacha20poly1305"
)

// Key is a secret and its name.
type Key struct {
	// ID names the key in what it has encrypted. It is no secret, and must not be used
	// again for another one.
	ID uint32
	// Secret is 32 bytes from a cryptographic random number generator, not a password.
	Secret []byte
}

// Ring is a set of keys, of which the first encrypts and all decrypt. Make one with New.
// It is safe for concurrent use.
type Ring struct {
	keys atomic.Pointer[[]opener]
}

type opener struct {
	id   uint32
	aead cipher.AEAD
}

// New returns a Ring, or an error that says which key is not usable.
func New(keys ...Key) (*Ring, error) {
	r := new(Ring)
	if err := r.Rotate(keys...); err != nil {
		return nil, err
	}
	return r, nil
}

// Rotate replaces the keys. If one of the new ones is not usable, it returns an error that
// names it, and the keys stay as they were.
func (r *Ring) Rotate(keys ...Key) error {
	if len(keys) == 0 {
		return errors.New("keyring: there is no key")
	}
	list := make([]opener, len(keys))
	for i, k := range keys {
		aead, err := chacha20poly1305.NewX(k.Secret)
		if err != nil {
			return fmt.Errorf("keyring: the secret of key %d has %d bytes: it needs %d", k.ID, len(k.Secret), chacha20poly1305.KeySize)
		}
		if slices.ContainsFunc(list[:i], func(o opener) bool { return o.id == k.ID }) {
			return fmt.Errorf("keyring: there are two keys with the id %d", k.ID)
		}
		list[i] = opener{k.ID, aead}
	}
	r.keys.Store(&list)
	return nil
}

// What is encrypted begins with the key's id, which is authenticated, too, as it picks the
// key. The nonce and the rest follow.
const (
	idBytes   = 4
	headBytes = idBytes + chacha20poly1305.NonceSizeX
)

// Encrypt encrypts plaintext with the first key. Decrypt needs the same associatedData.
func (r *Ring) Encrypt(plaintext, associatedData []byte) ([]byte, error) {
	first := (*r.keys.Load())[0]
	head := make([]byte, headBytes, headBytes+len(plaintext)+chacha20poly1305.Overhead)
	binary.BigEndian.PutUint32(head, first.id)
	_, _ = rand.Read(head[idBytes:]) // it never fails
	return first.aead.Seal(head, head[idBytes:], plaintext, associatedData), nil
}

// UnknownKeyError says that data was encrypted with a key that the Ring does not have.
type UnknownKeyError struct{ ID uint32 }

func (e *UnknownKeyError) Error() string {
	return fmt.Sprintf("keyring: it was encrypted with key %d, which is not in the ring", e.ID)
}

// UnknownKey returns the key's id. By this method, pgstore knows such an error.
func (e *UnknownKeyError) UnknownKey() string { return fmt.Sprint(e.ID) }

// Decrypt decrypts what Encrypt has returned. It returns an *UnknownKeyError if the key is
// missing, and another error if the data or associatedData is not what it was.
func (r *Ring) Decrypt(ciphertext, associatedData []byte) ([]byte, error) {
	if len(ciphertext) < headBytes {
		return nil, errors.New("keyring: it is cut short")
	}
	id := binary.BigEndian.Uint32(ciphertext)
	for _, k := range *r.keys.Load() {
		if k.id == id {
			plaintext, err := k.aead.Open(nil, ciphertext[idBytes:headBytes], ciphertext[headBytes:], associatedData)
			if err != nil {
				return nil, fmt.Errorf("keyring: it is damaged, or belongs to something else: %w", err)
			}
			return plaintext, nil
		}
	}
	return nil, &UnknownKeyError{id}
}

// Outdated reports whether the first key is not the one that ciphertext was encrypted with.
// By this method, pgstore's Reseal knows what it can skip.
func (r *Ring) Outdated(ciphertext []byte) bool {
	return len(ciphertext) < headBytes || binary.BigEndian.Uint32(ciphertext) != (*r.keys.Load())[0].id
}
