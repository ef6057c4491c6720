package main

import "testing"

func TestParseDSN(t *testing.T) {
	t.Parallel()
	for dsn, good := range map[string]bool{
		"postgres://u:pw@127.0.0.1:5432/db":               true,
		"postgresql://u:p%40w@a:1,b:2/db?sslmode=disable": true,
		"postgres://u:pw@[::1]:5432/db":                   true,
		"postgres://localhost/db":                         true,
		"postgres:///db?host=/tmp":                        true,
		"host=h user=u password='p@w/x' dbname=db":        true,

		"host=h password = s3cr3t foo":                false,
		"postgres://u:s3cr3t:5432/x":                  false,
		"postgres://u:a@s3cr3t@127.0.0.1:1/x":         false,
		"postgres://u:ab@s3cr3t/q@127.0.0.1:1/x":      false,
		"postgres://u:a/s3cr3t@127.0.0.1:1/x":         false,
		"postgres://u:s3cr3t@127.0.0.1:port/x":        false,
		"postgres://u:s3cr3t@127.0.0.1:1/x?sslmode=y": false,
		"mysql://u:s3cr3t@127.0.0.1:1/x":              false,
	} {
		if _, err := parseDSN(dsn); (err == nil) != good {
			t.Errorf("parseDSN(%q): %v, want it taken: %t", dsn, err, good)
		}
	}
}
