package devpg_test

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"

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

// Ctrl-C while the container is being made must leave none.
func TestContainerLeavesNothingWhenCancelled(t *testing.T) {
	engine, err := testcontainers.NewDockerClientWithOpts(t.Context())
	if err == nil {
		defer engine.Close()
		_, err = engine.Ping(t.Context(), client.PingOptions{})
	}
	if err != nil {
		t.Logf("no engine answers: %v", err)
		return
	}
	// Ours is told from those of others by its settings.
	mark := strings.ToLower(rand.Text())
	ours := func() int {
		list, err := engine.ContainerList(t.Context(), client.ContainerListOptions{All: true})
		if err != nil {
			t.Error(err)
		}
		n := 0
		for _, c := range list.Items {
			if strings.Contains(c.Command, mark) {
				n++
			}
		}
		return n
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var watching sync.WaitGroup
	watching.Go(func() {
		for ctx.Err() == nil {
			if ours() > 0 {
				cancel()
			}
		}
	})
	server, err := devpg.Start(ctx, devpg.Container(devpg.Set("cluster_name", mark)))
	cancel()
	watching.Wait()
	if err == nil {
		_ = server.Stop(t.Context())
		t.Fatal("it started before it could be cancelled")
	}
	if !errors.Is(err, context.Canceled) {
		t.Logf("no container was made here: %v", err) // such as where the image is not to be had
	}
	if n := ours(); n > 0 {
		t.Errorf("it left %d containers", n)
	}
}
