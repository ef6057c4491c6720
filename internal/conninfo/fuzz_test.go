package conninfo

import (
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// Whatever a password is, and however it is written: what is well-formed, pgx takes apart
// as it was meant, or refuses.
func FuzzWellFormed(f *testing.F) {
	for _, password := range []string{
		"pw", "p%40w", "a@s3cr3t", "12/s3cr3t", "12?connect_timeout=s3cr3t", "12#s3cr3t", "12/x?sslmode=s3cr3t", "[::1]:5432/s3cr3t",
		"12,s3cr3t", "%", "%2F", "a b", "\x00", "é", ":", "12?host=s3cr3t&port=x", "12?password=x&s3cr3t",
	} {
		f.Add(password)
	}
	f.Fuzz(func(t *testing.T, password string) {
		dsn := "postgres://user:" + password + "@127.0.0.1:5432/db"
		if !WellFormed(dsn) {
			return
		}
		c, err := pgconn.ParseConfig(dsn)
		if err != nil {
			return // and nobody repeats what it says
		}
		want, err := url.PathUnescape(password)
		trim := strings.TrimSpace // pgx leaves out some of the spaces around it
		if c.Host != "127.0.0.1" || c.Port != 5432 || c.Database != "db" || c.User != "user" || trim(c.Password) != trim(want) || err != nil {
			t.Errorf("%q: %s:%d/%s, user %q, password %q, %v", dsn, c.Host, c.Port, c.Database, c.User, c.Password, c.RuntimeParams)
		}
	})
}
