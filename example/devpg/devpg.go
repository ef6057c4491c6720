// Package devpg finds or starts a PostgreSQL server for demos and tests. It is not
// meant for production.
//
//	server, err := devpg.Start(ctx, devpg.Env("DATABASE_URL"), devpg.Local(), devpg.Container())
//	if err != nil {
//		return err
//	}
//	defer server.Stop(context.WithoutCancel(ctx))
package devpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scspg/scspg/internal/pgtest/pglocal"
)

// Server is a running PostgreSQL. Whoever started it calls Stop.
type Server struct {
	// DSN is a postgres:// URL of a database that its role may do anything in. It
	// holds a password: do not print it.
	DSN string
	// Source describes for people where the server comes from, and which sources failed
	// before it.
	Source string

	stop    func(context.Context) error
	kill    func(context.Context) error
	restart func(context.Context) error
	once    sync.Once
	err     error
}

// Stop ends the server and removes everything that Start has created. A server that
// Start only found (see Env) is left alone. Further calls do nothing and return the
// result of the first.
func (s *Server) Stop(ctx context.Context) error {
	s.once.Do(func() { s.err = s.stop(ctx) })
	return s.err
}

// ErrUnsupported is returned by Kill and Restart if the server is not one of Local.
var ErrUnsupported = errors.New("devpg: only a server from local binaries can be killed and restarted")

// Kill stops the server without letting it clean up, as a crash would.
func (s *Server) Kill(ctx context.Context) error {
	if s.kill == nil {
		return ErrUnsupported
	}
	return s.kill(ctx)
}

// Restart starts the server again after Kill, on the same port and with the same data.
func (s *Server) Restart(ctx context.Context) error {
	if s.restart == nil {
		return ErrUnsupported
	}
	return s.restart(ctx)
}

// Source is one way to get a server: Env, Local, Container or Download.
type Source struct {
	name  string
	hint  string // the way out, where it did not work
	start func(context.Context) (*Server, error)
}

// Option configures the server that a source starts.
type Option func(*options)

type options struct {
	settings []string
	image    string
}

// Set sets a parameter of postgresql.conf, such as max_connections.
func Set(name, value string) Option {
	return func(o *options) { o.settings = append(o.settings, name+"="+value) }
}

// Image chooses the image of Container. Default: postgres:17-alpine.
func Image(name string) Option { return func(o *options) { o.image = name } }

func collect(opts []Option) options {
	o := options{image: "postgres:17-alpine"}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// Start tries the sources in order and returns the server of the first that works. If
// none works, the error says what was tried, why each source failed, and what to do
// about it. If ctx ends before a server is ready, Start gives up and leaves nothing
// behind; once Start has returned, ctx no longer matters to the server.
func Start(ctx context.Context, sources ...Source) (*Server, error) {
	var report strings.Builder
	var skipped string
	var causes []error
	for _, src := range sources {
		server, err := src.start(ctx)
		if err == nil {
			server.Source += skipped
			return server, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("devpg: gave up while trying %s: %w", src.name, ctx.Err())
		}
		fmt.Fprintf(&report, "\n  - %s: %s\n    way out: %s", src.name, indented(err), src.hint)
		if !errors.Is(err, errNotSet) {
			skipped += fmt.Sprintf(" (%s failed: %s)", src.name, firstLine(err))
		}
		causes = append(causes, err)
	}
	return nil, &startError{text: report.String(), causes: causes}
}

// indented is the text of err, kept within its item of the list.
func indented(err error) string {
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "\n      ")
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(strings.TrimSpace(err.Error()), "\n")
	return line
}

type startError struct {
	text   string
	causes []error
}

func (e *startError) Error() string   { return "devpg: no PostgreSQL to be had; tried" + e.text }
func (e *startError) Unwrap() []error { return e.causes }

var errNotSet = errors.New("it is not set")

// Env uses the server whose DSN is in the environment variable name.
func Env(name string) Source {
	return Source{
		name: "the environment's " + name,
		hint: fmt.Sprintf("set %s=postgres://user:password@host:5432/database", name),
		start: func(ctx context.Context) (*Server, error) {
			dsn := os.Getenv(name)
			if dsn == "" {
				return nil, errNotSet
			}
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			err := pglocal.Ping(ctx, dsn)
			if _, malformed := errors.AsType[*pgconn.ParseConfigError](err); malformed {
				return nil, errMalformed
			}
			if err != nil {
				return nil, err
			}
			return &Server{DSN: dsn, Source: "the server that " + name + " names", stop: func(context.Context) error { return nil }}, nil
		},
	}
}

// errMalformed stands for what pgx says of a DSN that it cannot parse: any piece of
// that may be the password.
var errMalformed = errors.New("it is malformed, or a PG* variable is: use postgres://user:password@host:5432/database, " +
	"and percent-encode special characters")
