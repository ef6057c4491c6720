package devpg_test

import (
	"strings"
	"testing"

	"github.com/scspg/scspg/example/devpg"
)

// Where DOCKER_HOST names an engine that does not answer, no other is looked for.
func TestContainerKeepsToDockerHost(t *testing.T) {
	for _, host := range []string{"tcp://127.0.0.1:1", "unix:///nowhere/docker.sock"} {
		t.Setenv("DOCKER_HOST", host)
		server, err := devpg.Start(t.Context(), devpg.Container())
		if err == nil {
			t.Fatalf("%s: it started %s", host, server.Source)
		}
		if !strings.Contains(err.Error(), "DOCKER_HOST") {
			t.Errorf("%s: error %q", host, err)
		}
	}
}

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
