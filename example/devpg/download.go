package devpg

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// Download fetches PostgreSQL's programs, once, and starts a private cluster from
// them. It does not work as root.
func Download(opts ...Option) Source {
	o := collect(opts)
	return Source{
		name:  "a download of PostgreSQL",
		hint:  "run it as a user other than root, with access to Maven Central",
		start: func(ctx context.Context) (*Server, error) { return startDownload(ctx, o) },
	}
}

func startDownload(ctx context.Context, o options) (*Server, error) {
	if os.Geteuid() == 0 {
		return nil, errors.New("we are root, and the downloaded server would be")
	}
	dir, err := os.MkdirTemp("", "devpg-")
	if err != nil {
		return nil, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	parameters := map[string]string{"listen_addresses": "127.0.0.1"}
	for _, s := range o.settings {
		name, value, _ := strings.Cut(s, "=")
		parameters[name] = value
	}
	config := embeddedpostgres.DefaultConfig().
		Port(uint32(port)).
		Password(rand.Text()).
		RuntimePath(filepath.Join(dir, "run")).
		DataPath(filepath.Join(dir, "data")).
		StartParameters(parameters).
		StartTimeout(startTimeout).
		Logger(io.Discard)
	server := embeddedpostgres.NewDatabase(config)
	if err := server.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	stop := func(context.Context) error { return errors.Join(server.Stop(), os.RemoveAll(dir)) }
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, stop(ctx))
	}
	return &Server{DSN: config.GetConnectionURL() + "?sslmode=disable", Source: "a downloaded PostgreSQL", stop: stop}, nil
}
