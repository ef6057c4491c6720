// Package testserver finds or starts the PostgreSQL that tests share.
package testserver

import (
	"context"
	"os"
	"strings"

	"github.com/scspg/scspg/example/devpg"
	"github.com/scspg/scspg/internal/pgtest/pglocal"
)

// EnvDSN is the environment variable that names a server for tests.
const EnvDSN = "PGSTORE_TEST_DSN"

// Start uses the server of PGSTORE_TEST_DSN, else a container of PGSTORE_TEST_IMAGE, the
// programs on this machine, or a download of them.
func Start(ctx context.Context) (*devpg.Server, error) {
	var opts []devpg.Option
	for _, setting := range pglocal.ForTests {
		name, value, _ := strings.Cut(setting, "=")
		opts = append(opts, devpg.Set(name, value))
	}
	if image := os.Getenv("PGSTORE_TEST_IMAGE"); image != "" {
		opts = append(opts, devpg.Image(image))
	}
	return devpg.Start(ctx, devpg.Env(EnvDSN), devpg.Container(opts...), devpg.Local(opts...), devpg.Download(opts...))
}
