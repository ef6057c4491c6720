package pglocal

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// overrides are the settings that a client would otherwise take from the PG* variables
// of whoever runs us. Those are meant for another server than a throwaway one. Only what
// pgx, libpq and lib/pq all understand is here: psql and pg_dump get this DSN, too. What
// cannot be overridden so, such as PGSERVICE and PGTZ, has to be valid.
var overrides = url.Values{
	"sslmode":              {"disable"},
	"sslcert":              {""},
	"sslkey":               {""},
	"sslrootcert":          {""},
	"connect_timeout":      {"0"}, // none
	"target_session_attrs": {"any"},
	"options":              {""},
}

// DSN is the URL of a server of ours that listens on addr.
func DSN(password, addr string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword("postgres", password),
		Host: addr, Path: "/postgres", RawQuery: overrides.Encode(),
	}
	return u.String()
}

// Ping connects to a server.
func Ping(ctx context.Context, dsn string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// pingInterval is how often a starting server is asked whether it is ready.
const pingInterval = 50 * time.Millisecond

// AwaitReady returns once the server answers, or with an error once it is gone, or
// where waiting cannot help.
func AwaitReady(ctx context.Context, dsn string, gone <-chan struct{}) error {
	for {
		err := Ping(ctx, dsn)
		if err == nil {
			return nil
		}
		if err := hopeless(err); err != nil {
			return err
		}
		select {
		case <-gone:
			return errors.New("the server ended while starting")
		case <-ctx.Done():
			return fmt.Errorf("not ready in time: %w", err)
		case <-time.After(pingInterval):
		}
	}
}

// hopeless returns why connecting to a server of ours is no use, however long one waits:
// the environment holds what pgx or the server refuses. It returns nil for other errors.
func hopeless(err error) error {
	why := ""
	if parse, ok := errors.AsType[*pgconn.ParseConfigError](err); ok {
		// The whole text would show the DSN.
		why = strings.TrimPrefix(parse.Error(), pgconn.NewParseConfigError(parse.ConnString, "", nil).Error())
	}
	const invalidParameterValue = "22023" // of a time zone, for one
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == invalidParameterValue {
		why = refused.Message
	}
	if why == "" {
		return nil
	}
	return fmt.Errorf("the environment keeps us from connecting (set are %s): %s", strings.Join(pgVariables(), ", "), why)
}

// pgVariables are the names of the PG* variables that are set.
func pgVariables() []string {
	var names []string
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "PG") && !strings.Contains(name, "_TEST_") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
