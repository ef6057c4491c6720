package devpg

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

// containerPrefix begins the names of our containers.
const containerPrefix = "devpg-"

const (
	removeTimeout = 15 * time.Second
	// lateCreate is how long an engine may take to make a container that nobody waits
	// for any more.
	lateCreate    = 4 * time.Second
	removeRetries = 200 * time.Millisecond
)

// removeContainer removes the container of this name, if there is one. Where ctx has
// ended, the engine may have been in the middle of making it, and show it only later.
func removeContainer(ctx context.Context, name string) error {
	detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	engine, err := testcontainers.NewDockerClientWithOpts(detached)
	if err != nil {
		return nil //nolint:nilerr // No engine, and so no container; the caller knows.
	}
	defer engine.Close()
	for late := time.Now().Add(lateCreate); ; {
		_, err := engine.ContainerRemove(detached, name, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if err == nil {
			return nil
		}
		if !errdefs.IsNotFound(err) {
			return fmt.Errorf("removing the container %s: %w", name, err)
		}
		if ctx.Err() == nil || time.Now().After(late) {
			return nil
		}
		time.Sleep(removeRetries)
	}
}
