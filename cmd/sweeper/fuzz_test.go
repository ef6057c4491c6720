package main

import (
	"errors"
	"flag"
	"strings"
	"testing"
)

const fuzzedPassword = "s3cr3tpw"

// Whatever stands around it in a password, also unquoted, what is said of the DSN does not
// have it.
func FuzzDSN(f *testing.F) {
	for _, around := range [][2]string{
		{"", ""}, {"12?", ""}, {"a@", ""}, {"12/", "#x"}, {"a ", ""}, {"", " connect_timeout=x"}, {"a ", "' sslmode=x"},
		{"12?connect_timeout=", ""}, {"", "@h:port/db?sslmode=x"}, {"a' '", ""}, {"\\", "%"}, {"12,", ":x"}, {"[", "]:x"},
	} {
		f.Add(around[0], around[1])
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		password := before + fuzzedPassword + after
		dsns := []string{"postgres://u:" + password + "@h:1/db"}
		if !strings.Contains(before, "=") { // else it is the value of another setting, which may be said
			dsns = append(dsns, "host=h password="+password+" port=1", "host=h password='"+password+"' port=1")
		}
		for _, dsn := range dsns {
			if _, err := poolConfig(dsn); err != nil && strings.Contains(err.Error(), fuzzedPassword) {
				t.Errorf("%q: %v", dsn, err)
			}
		}
	})
}

// Any flags are taken or refused in words of ours, which hold no password.
func FuzzFlags(f *testing.F) {
	for _, args := range []string{
		"", "-h", "-version", "-dry-run\n-json", "-batch\n0", "-grace\n-1s", "-dsn\npostgres://u:" + fuzzedPassword + "@h/db",
		"postgres://u:" + fuzzedPassword + "@h/db", "-batch\npostgres://u:" + fuzzedPassword + "@h/db", "-max-rows=99999999999999999999",
		"--\n-x", "-=", "-\xff", "-interval\n1e9h", "-metrics-file\n\x00", "-schema\n" + strings.Repeat("x", 100),
	} {
		f.Add(args)
	}
	f.Fuzz(func(t *testing.T, args string) {
		c, err := parse(strings.Split(args, "\n"))
		if _, ok := errors.AsType[usageError](err); err != nil && !ok && !errors.Is(err, flag.ErrHelp) {
			t.Errorf("%q: %T %v", args, err, err)
		}
		if err != nil && strings.Contains(args, "://u:"+fuzzedPassword+"@") && strings.Contains(err.Error(), fuzzedPassword) {
			t.Errorf("%q: %v", args, err)
		}
		if err == nil && (c.Batch <= 0 || c.Grace < 0 || c.StatementTimeout <= 0 || c.LockTimeout <= 0 || c.interval < 0) {
			t.Errorf("%q: %+v", args, c)
		}
	})
}
