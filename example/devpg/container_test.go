package devpg_test

import (
	"strings"
	"testing"

	"github.com/scspg/scspg/example/devpg"
)

// Without an engine, the source must fail and say so, so that the next one is tried.
// A container that does start is tested by everything that runs on one.
func TestContainerWithoutAnEngine(t *testing.T) {
	server, err := devpg.Start(t.Context(), devpg.Container(devpg.Image("scspg.invalid/nothing:none")))
	if err == nil {
		t.Fatalf("it started %s", server.Source)
	}
	if !strings.Contains(err.Error(), "scspg.invalid/nothing:none") || !strings.Contains(err.Error(), "way out") {
		t.Errorf("error %q", err)
	}
}
