package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/conninfo"
)

// connectTimeout bounds the way to a server.
const connectTimeout = 10 * time.Second

var errMalformed = errors.New("the DSN is malformed: use postgres://user:password@host:5432/database " +
	"with special characters percent-encoded, or \"host=db user=app dbname=app\"")

// mayBeDSN reports whether text may be a DSN, and so hold a password: errors must not
// repeat it.
func mayBeDSN(text string) bool { return dsnPattern.MatchString(text) }

var dsnPattern = regexp.MustCompile(`(?i)://|password\s*=|:.*@`)

// source returns the DSN to connect with: that of -dsn, else that of DATABASE_URL, else
// "", which makes pgx use the PG* variables. ok is false if none of them is set.
func (c *config) source(env []string) (dsn string, ok bool) {
	ok = c.dsn != ""
	dsn = c.dsn
	for _, pair := range env {
		name, value, _ := strings.Cut(pair, "=")
		if value == "" {
			continue
		}
		switch name {
		case "DATABASE_URL":
			if c.dsn == "" {
				dsn, ok = value, true
			}
		case "PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE": // pgx reads them by itself
			ok = true
		}
	}
	return dsn, ok
}

// poolConfig is for a pool of one connection.
func poolConfig(dsn string) (*pgxpool.Config, error) {
	if !conninfo.WellFormed(dsn) {
		return nil, errMalformed
	}
	c, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, describe(err)
	}
	params := c.ConnConfig.RuntimeParams
	for name := range params {
		if !paramPattern.MatchString(name) {
			return nil, errMalformed // a piece of a password, as like as not
		}
	}
	// The mode for which no pooler need keep statements, and whose results are binary, so that
	// no setting of a role can spoil them. (In exec mode they are text, and pgx loses why a
	// connection broke.) pgxpool.ParseConfig removes the setting, so look whether the DSN chose
	// a mode in pgconn's result.
	if all, err := pgconn.ParseConfig(dsn); err == nil && all.RuntimeParams["default_query_exec_mode"] == "" {
		c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	c.MaxConns, c.MinConns, c.MinIdleConns = 1, 0, 0
	if c.ConnConfig.ConnectTimeout == 0 {
		c.ConnConfig.ConnectTimeout = connectTimeout
	}
	if params["application_name"] == "" {
		params["application_name"] = "sweeper"
	}
	return c, nil
}

var paramPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)

// describe says what is wrong with a setting, without the DSN that pgx puts in front:
// it masks the passwords that it recognizes, but what it could not even parse may hold
// one anywhere.
func describe(err error) error {
	parse, ok := errors.AsType[*pgconn.ParseConfigError](err)
	if !ok {
		return errMalformed
	}
	text, ok := strings.CutPrefix(parse.Error(), pgconn.NewParseConfigError(parse.ConnString, "", nil).Error())
	if !ok || strings.HasPrefix(text, "failed to parse") {
		return errMalformed
	}
	return fmt.Errorf("the DSN or the PG* variables are wrong: %s", text)
}
