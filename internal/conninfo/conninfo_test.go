package conninfo

import "testing"

func TestWellFormedRefusesAPasswordInTheHost(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]bool{
		"postgres://u:pw@127.0.0.1:5432/db":               true,
		"postgresql://u:p%40w@a:1,b:2/db?sslmode=disable": true,
		"postgres://u:pw@[::1]:5432/db":                   true,
		"postgres://localhost/db":                         true,
		"postgres://localhost?user=u":                     true,
		"postgres:///db?host=/tmp":                        true,
		"host=h user=user password='p@w/x' dbname=db":     true,
		"": true,

		"postgres://u:a@s3cr3t@127.0.0.1:1/x":    false,
		"postgres://u:ab@s3cr3t/q@127.0.0.1:1/x": false,
		"postgres://u:a/s3cr3t@127.0.0.1:1/x":    false,
		"postgres://u:s3cr3t@127.0.0.1:port/x":   false,
		"postgres://u:s3cr3t@[::1]:port/x":       false,
	} {
		if got := WellFormed(dsn); got != want {
			t.Errorf("WellFormed(%q) = %t", dsn, got)
		}
	}
}
