// Package conninfo keeps passwords out of what is said about a DSN.
package conninfo

import "strings"

// WellFormed reports whether the parts of a URL can be told apart. If a password has an @
// or a / in it, pgx takes what follows for the host or the database, whose names then
// stand in its errors. (net/url refuses sockets and several hosts, which pgx takes.)
func WellFormed(dsn string) bool {
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
