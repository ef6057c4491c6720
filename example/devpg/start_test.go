package devpg

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func failing(name string, err error) Source {
	return Source{name: name, hint: "mend it", start: func(context.Context) (*Server, error) { return nil, err }}
}

func TestStartSaysWhatItSkipped(t *testing.T) {
	t.Parallel()
	works := Source{start: func(context.Context) (*Server, error) { return &Server{Source: "the third"}, nil }}
	server, err := Start(t.Context(), failing("first", errNotSet), failing("second", errors.New("broken\nin detail")), works)
	if err != nil {
		t.Fatal(err)
	}
	if want := "the third (second failed: broken)"; server.Source != want {
		t.Errorf("Source is %q, want %q", server.Source, want)
	}
}

func TestStartKeepsItsListReadable(t *testing.T) {
	t.Parallel()
	_, err := Start(t.Context(), failing("first", errors.New("broken\nin detail\n")), failing("second", errors.New("gone")))
	const want = "\n  - first: broken\n      in detail\n    way out: mend it\n  - second: gone\n    way out: mend it"
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("error %v, want it to end in %s", err, want)
	}
}
