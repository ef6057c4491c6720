package main

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

// errMalformed stands for whatever pgx says of a DSN that it cannot parse. pgx masks
// the passwords that it recognizes; in what is malformed, any piece may be one.
var errMalformed = errors.New("it is malformed, or a PG* variable is: use postgres://user:password@host:5432/database, " +
	"and percent-encode special characters (@ is %40, / is %2F)")

func parseDSN(dsn string) (*pgxpool.Config, error) {
	if !wellFormed(dsn) {
		return nil, errMalformed
	}
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, errMalformed
	}
	return cfg, nil
}

// wellFormed says whether the parts of a URL can be told apart. In a password with an @
// or a / in it, pgx takes what follows for the host or the database, whose names are no
// secrets: it prints them.
func wellFormed(dsn string) bool {
	scheme, rest, isURL := strings.Cut(dsn, "://")
	if !isURL || scheme != "postgres" && scheme != "postgresql" {
		return true
	}
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		rest = rest[i+1:]
	}
	hosts := rest
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		hosts = rest[:i]
	}
	for host := range strings.SplitSeq(hosts, ",") {
		host = host[strings.LastIndexByte(host, ']')+1:] // of an IPv6 address
		if _, port, _ := strings.Cut(host, ":"); strings.Trim(port, "0123456789") != "" {
			return false
		}
	}
	return !strings.Contains(rest, "@")
}
