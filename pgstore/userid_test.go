package pgstore

import (
	"strings"
	"testing"
	"time"

	"github.com/scspg/scspg/pgstore/internal/frame"
)

type (
	namedString string
	namedInt    int64
	namedUint   uint16
	printingInt int
	pointerID   struct{ id string }
)

func (i printingInt) String() string { return "no. " + string(rune('0'+i)) }

func (p *pointerID) String() string { return p.id }

func TestUserIDOf(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		v    any
		want string
	}{
		{nil, ""},
		{"", ""},
		{"alice", "alice"},
		{namedString("alice"), "alice"},
		{0, "0"},
		{-1, "-1"},
		{int8(-128), "-128"},
		{int64(1) << 62, "4611686018427387904"},
		{uint64(1) << 63, "9223372036854775808"},
		{namedInt(7), "7"},
		{namedUint(7), "7"},
		{printingInt(7), "no. 7"},
		{hexID{0xab}, "ab000000"},
		{&pointerID{"alice"}, "alice"},
		{&pointerID{}, ""},
		{(*pointerID)(nil), ""},
		{frame.Opaque{User: "alice"}, "alice"},
		{frame.Opaque{}, ""},
	} {
		if got, err := userIDOf("user", test.v); got != test.want || err != nil {
			t.Errorf("%#v: got %q, %v, want %q", test.v, got, err, test.want)
		}
	}
}

func TestUserIDOfRefuses(t *testing.T) {
	t.Parallel()
	for _, v := range []any{true, 1.5, []byte("alice"), cart{}, &cart{}, []string{"alice"}, map[string]any{}, time.Time.Unix} {
		id, err := userIDOf("the user", v)
		if id != "" || err == nil {
			t.Errorf("%T: got %q, %v, want an error", v, id, err)
			continue
		}
		for _, part := range []string{"pgstore: ", `"the user"`} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not contain %q", err, part)
			}
		}
	}
}

func TestValidUserID(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"alice":                                 "",
		"0":                                     "",
		strings.Repeat("x", maxUserIDBytes):     "",
		strings.Repeat("x", maxUserIDBytes+1):   "256 bytes",
		strings.Repeat("é", maxUserIDBytes/2+1): "256 bytes",
		"secret\xff":                            "UTF-8",
		"secret\xc3":                            "UTF-8",
		"secret\x00":                            "NUL",
		"\ufffd":                                "",
	} {
		err := validUserID(id)
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", id, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: got %v, want an error that says %q", id, err, want)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%q gives the id away", err)
		}
	}
}
