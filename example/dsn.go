package main

import (
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/conninfo"
)

// errMalformed stands for whatever pgx says of a DSN that it cannot parse. pgx masks
// the passwords that it recognizes; in what is malformed, any piece may be one.
var errMalformed = errors.New("it is malformed, or a PG* variable is: use postgres://user:password@host:5432/database, " +
	"and percent-encode special characters (@ is %40, / is %2F)")

func parseDSN(dsn string) (*pgxpool.Config, error) {
	if !conninfo.WellFormed(dsn) {
		return nil, errMalformed
	}
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, errMalformed
	}
	return cfg, nil
}
