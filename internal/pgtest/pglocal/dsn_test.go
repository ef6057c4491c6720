package pglocal_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/scspg/scspg/internal/pgtest/pglocal"
)

// The shell's settings for another server must not reach a throwaway one.
func TestEnvironmentDoesNotReachTheServer(t *testing.T) {
	for name, value := range map[string]string{
		"PGOPTIONS":            "-c default_transaction_read_only=on",
		"PGTARGETSESSIONATTRS": "read-only",
		"PGCONNECT_TIMEOUT":    "x",
		"PGSSLMODE":            "verify-full",
		"PGSSLROOTCERT":        "/nowhere/ca.pem",
		"PGHOST":               "nowhere.invalid",
		"PGUSER":               "nobody",
	} {
		t.Setenv(name, value)
	}
	server := start(t)
	conn, err := pgx.Connect(t.Context(), server.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var got string
	if err := conn.QueryRow(t.Context(), "SHOW default_transaction_read_only").Scan(&got); err != nil || got != "off" {
		t.Errorf("default_transaction_read_only is %q, %v", got, err)
	}
}

// What cannot be overridden is an error at once, and not once patience is over.
func TestUnusableEnvironmentIsAnErrorAtOnce(t *testing.T) {
	for name, value := range map[string]string{"PGSERVICE": "absent", "PGTZ": "Nowhere/Land"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			_, err := pglocal.Start(t.Context())
			if err == nil || strings.Contains(err.Error(), "postgres://") {
				t.Fatalf("error %v, want one without the DSN", err)
			}
			// It would end otherwise once patience is over: "not ready in time".
			if want := "environment keeps us from connecting"; !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
				t.Errorf("error %v, want one that says %q, and names %s", err, want, name)
			}
		})
	}
}
