package main

import (
	"bytes"
	"errors"
	"flag"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/scspg/scspg/pgstore"
)

func TestParseFlagsDefaults(t *testing.T) {
	t.Parallel()
	got, err := parseFlags(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		addr: "127.0.0.1:8080", store: storePostgres, redisAddr: "127.0.0.1:6379",
		idleTimeout: 30 * time.Minute, lifetime: 24 * time.Hour, limit: 5, policy: pgstore.EvictOldest,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("parseFlags() = %+v, want %+v", got, want)
	}
}

func TestParseFlagsAll(t *testing.T) {
	t.Parallel()
	got, err := parseFlags([]string{
		"-addr", ":0", "-store", "redis", "-redis-addr", "[::1]:1", "-idle-timeout", "0",
		"-lifetime", "1h", "-limit", "0", "-policy", "evict-least-recent", "-secure",
		"-trusted-proxy", "10.0.0.0/8, 192.0.2.1", "-trusted-proxy", "2001:db8::1",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		addr: ":0", store: storeRedis, redisAddr: "[::1]:1", lifetime: time.Hour,
		policy: pgstore.EvictLeastRecent, secure: true,
		proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::1/128")},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("parseFlags = %+v, want %+v", got, want)
	}
}

func TestParseFlagsRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"-addr", "8080"}, "-addr"},
		{[]string{"-store", "postgresql"}, "postgres, memory or redis"},
		{[]string{"-store", ""}, "postgres, memory or redis"},
		{[]string{"-redis-addr", "localhost"}, "-redis-addr"},
		{[]string{"-idle-timeout", "-1s"}, "-idle-timeout -1s"},
		{[]string{"-idle-timeout", "30"}, "-idle-timeout"},
		{[]string{"-lifetime", "0"}, "-lifetime 0s"},
		{[]string{"-limit", "-1"}, "-limit -1"},
		{[]string{"-limit", "five"}, "-limit"},
		{[]string{"-policy", "evict"}, "evict-oldest, evict-least-recent or reject"},
		{[]string{"-trusted-proxy", "10.0.0.1,proxy.example"}, `"proxy.example" is no address or network`},
		{[]string{"-trusted-proxy", "10.0.0.0/33"}, "10.0.0.0/33"},
		{[]string{"-trusted-proxy", ""}, "-trusted-proxy"},
		{[]string{"-colour"}, "-colour"},
		{[]string{"8080"}, `"8080"`},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			t.Parallel()
			_, err := parseFlags(test.args, nil)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("parseFlags(%q) = %v, want an error that says %s", test.args, err, test.says)
			}
			var out, errOut bytes.Buffer
			code := run(t.Context(), nil, test.args, noEnv, &out, &errOut)
			if code != 2 || out.Len() > 0 || !strings.Contains(errOut.String(), test.says) {
				t.Errorf("run(%q) = %d, printed %q and %q, want 2 and the error", test.args, code, &out, &errOut)
			}
		})
	}
}

func TestParseFlagsHelp(t *testing.T) {
	t.Parallel()
	var help bytes.Buffer
	if _, err := parseFlags([]string{"-h"}, &help); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("parseFlags(-h) = %v, want flag.ErrHelp", err)
	}
	for _, name := range []string{
		"-addr", "-store", "-redis-addr", "-idle-timeout", "-lifetime", "-limit", "-policy", "-secure", "-trusted-proxy", "DATABASE_URL",
	} {
		if !strings.Contains(help.String(), name) {
			t.Errorf("the usage does not name %s:\n%s", name, &help)
		}
	}
	if code := run(t.Context(), nil, []string{"-h"}, noEnv, &bytes.Buffer{}, &help); code != 0 {
		t.Errorf("run(-h) = %d, want 0", code)
	}
}

func noEnv(string) string { return "" }
