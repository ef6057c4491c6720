package main

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/pgstore"
)

// storeWithoutDatabase is for what asks the database nothing.
func storeWithoutDatabase(t *testing.T) *pgstore.Store {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), "host=127.0.0.1 port=1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	store, err := pgstore.New(pool, pgstore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestPlainDuration(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		24 * time.Hour:                "24h",
		30 * time.Minute:              "30m",
		90 * time.Minute:              "1h30m",
		3 * time.Second:               "3s",
		time.Minute + 10*time.Second:  "1m10s",
		time.Hour + 10*time.Second:    "1h0m10s",
		10 * time.Minute:              "10m",
		10*time.Hour + 20*time.Minute: "10h20m",
		1500 * time.Millisecond:       "1.5s",
	} {
		if got := plain(d); got != want {
			t.Errorf("plain(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestRule(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	store := storeWithoutDatabase(t)
	for policy, want := range map[pgstore.LimitPolicy]string{
		pgstore.EvictOldest:      "ends the oldest session.",
		pgstore.EvictLeastRecent: "ends the session unused for longest.",
		pgstore.Reject:           "a sign-in is refused.",
	} {
		cfg.policy = policy
		s := server{cfg: cfg, store: store}
		got := s.rule()
		if !strings.Contains(got, "after 30m without a request, and in any case 24h after its sign-in. You can be signed in on 5 devices at once;") ||
			!strings.HasSuffix(got, want) {
			t.Errorf("the rule of policy %d is %q", policy, got)
		}
	}
	cfg.limit, cfg.idleTimeout = 0, 0
	if got, want := (&server{cfg: cfg, store: store}).rule(), "A session ends 24h after its sign-in."; got != want {
		t.Errorf("without limit and idle timeout the rule is %q, want %q", got, want)
	}
}

func TestFigures(t *testing.T) {
	t.Parallel()
	store := storeWithoutDatabase(t)
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	list := figures(pgstore.Overview{Live: 1234, Expired: 5, OldestExpired: at, Estimated: true}, store.Stat())
	got := map[string]string{}
	for _, f := range list {
		got[f.Name] = f.Value
	}
	for name, want := range map[string]string{
		"Live sessions":          "about 1234",
		"Expired, not swept yet": "about 5",
		"Oldest of those":        "4 Mar 2026 05:06:07 UTC",
		"Reads":                  "0",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	for _, f := range figures(pgstore.Overview{}, store.Stat()) {
		if f.Name == "Oldest of those" && f.Value != "none" {
			t.Errorf("%s: %q, want none", f.Name, f.Value)
		}
	}
}
