package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/scspg/scspg/pgstore"
)

// The session stores that -store knows.
const (
	storePostgres = "postgres"
	storeMemory   = "memory"
	storeRedis    = "redis"
)

var stores = []string{storePostgres, storeMemory, storeRedis}

var policies = map[string]pgstore.LimitPolicy{
	"evict-oldest":       pgstore.EvictOldest,
	"evict-least-recent": pgstore.EvictLeastRecent,
	"reject":             pgstore.Reject,
}

// config is what the command line says.
type config struct {
	addr        string
	store       string
	redisAddr   string
	idleTimeout time.Duration // 0: none
	lifetime    time.Duration
	limit       int // 0: none
	policy      pgstore.LimitPolicy
	secure      bool
	proxies     []netip.Prefix // those whose X-Forwarded-For is believed
}

const usageHead = `A small web app whose sign-in sessions live in PostgreSQL: see where you are
signed in, and sign out any of those devices from another.

  example [flags]

It starts a throwaway PostgreSQL and removes it again when it stops. Set
DATABASE_URL to use a database of yours instead: the session tables are created
in it and stay.

Flags:
`

// parseFlags reads the command line. It writes the usage, where that was asked
// for, to stderr; the error is then flag.ErrHelp. Any other error is the user's to
// mend, and says how.
func parseFlags(args []string, stderr io.Writer) (config, error) {
	var c config
	var policy string
	fs := flag.NewFlagSet("example", flag.ContinueOnError)
	// The caller prints the error; the flag package would print it a second time,
	// above the whole usage.
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	fs.StringVar(&c.addr, "addr", "127.0.0.1:8080", "`host:port` to listen on; port 0 picks a free one")
	fs.StringVar(&c.store, "store", storePostgres, "where sessions live: "+oneOf(stores))
	fs.StringVar(&c.redisAddr, "redis-addr", "127.0.0.1:6379", "`host:port` of the server for -store redis")
	fs.DurationVar(&c.idleTimeout, "idle-timeout", 30*time.Minute, "a session ends after this long without a request; 0 means never")
	fs.DurationVar(&c.lifetime, "lifetime", 24*time.Hour, "a session ends this long after its sign-in, used or not")
	fs.IntVar(&c.limit, "limit", 5, "how many devices a user may be signed in on; 0 means any number")
	fs.StringVar(&policy, "policy", "evict-oldest", "what a sign-in beyond -limit does: "+oneOf(policyNames()))
	fs.BoolVar(&c.secure, "secure", false, "send the cookie over HTTPS only, with the __Host- prefix; for use behind a TLS proxy (see -trusted-proxy)")
	fs.Func("trusted-proxy", "`address` or network, such as 10.0.0.0/8, of a proxy whose X-Forwarded-For says where a device is; "+
		"several with commas, or by repeating the flag (else the proxy's address is shown for every device)", c.trust)

	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stderr, usageHead)
			fs.SetOutput(stderr)
			fs.PrintDefaults()
		}
		return config{}, err
	}
	if fs.NArg() > 0 {
		return config{}, fmt.Errorf("unexpected argument %q: everything is set by flags", fs.Arg(0))
	}
	var known bool
	if c.policy, known = policies[policy]; !known {
		return config{}, fmt.Errorf("-policy %q: use %s", policy, oneOf(policyNames()))
	}
	return c, c.validate()
}

// trust adds the proxies of one -trusted-proxy.
func (c *config) trust(list string) error {
	for text := range strings.SplitSeq(list, ",") {
		text = strings.TrimSpace(text)
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return fmt.Errorf("%q is no address or network: use for instance 192.0.2.1 or 10.0.0.0/8", text)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		c.proxies = append(c.proxies, prefix)
	}
	return nil
}

func (c config) validate() error {
	if !slices.Contains(stores, c.store) {
		return fmt.Errorf("-store %q: use %s", c.store, oneOf(stores))
	}
	if _, _, err := net.SplitHostPort(c.addr); err != nil {
		return fmt.Errorf("-addr %q: use host:port, for instance 127.0.0.1:8080 (%w)", c.addr, err)
	}
	if _, _, err := net.SplitHostPort(c.redisAddr); err != nil {
		return fmt.Errorf("-redis-addr %q: use host:port, for instance 127.0.0.1:6379 (%w)", c.redisAddr, err)
	}
	if c.idleTimeout < 0 {
		return fmt.Errorf("-idle-timeout %v: it must not be negative (0 means never)", c.idleTimeout)
	}
	if c.lifetime <= 0 {
		return fmt.Errorf("-lifetime %v: it must be more than 0", c.lifetime)
	}
	if c.limit < 0 {
		return fmt.Errorf("-limit %d: it must not be negative (0 means any number)", c.limit)
	}
	return nil
}

func policyNames() []string {
	return slices.SortedFunc(maps.Keys(policies), func(a, b string) int {
		return cmp.Compare(policies[a], policies[b])
	})
}

// oneOf lists names in a sentence: "a, b or c".
func oneOf(names []string) string {
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
