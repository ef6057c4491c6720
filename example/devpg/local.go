package devpg

import (
	"context"

	"github.com/scspg/scspg/internal/pgtest/pglocal"
)

// Local starts a private cluster from the PostgreSQL programs on this machine, in a
// temporary folder, on a free port of the loopback address. Run as root, the server
// runs as an unprivileged user. Should this process be killed, a watchdog ends the
// server and removes the folder.
func Local(opts ...Option) Source {
	o := collect(opts)
	return Source{
		name:  "PostgreSQL's programs on this machine",
		hint:  pglocal.WayOut,
		start: func(ctx context.Context) (*Server, error) { return startLocal(ctx, o) },
	}
}

func startLocal(ctx context.Context, o options) (*Server, error) {
	s, err := pglocal.Start(ctx, o.settings...)
	if err != nil {
		return nil, err
	}
	return &Server{
		DSN:     s.DSN,
		Source:  "a throwaway server from " + s.Bin,
		stop:    func(context.Context) error { return s.Stop() },
		kill:    func(context.Context) error { return s.Kill() },
		restart: s.Restart,
	}, nil
}
