//go:build linux

package faults

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// killed kills all processes of the server: it recovers from its log.
func killed(down time.Duration) func(*testing.T, *judgement) {
	return func(t *testing.T, j *judgement) {
		s := newServer(t)
		b := onServer(t, j, s)
		s.kill(t)
		time.Sleep(down)
		b.healed()
		s.restart(t)
		b.finish(t)
	}
}

// terminated has a superuser terminate the app's backends, three at a time.
func terminated(t *testing.T, j *judgement) {
	s := newServer(t)
	b := onServer(t, j, s)
	conn := s.connect(t)
	defer conn.Close(t.Context())
	n := 0
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		rows, err := conn.Query(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE application_name = $1 ORDER BY random() LIMIT 3`, appRole)
		if err != nil {
			t.Fatal(err)
		}
		ended, err := pgx.CollectRows(rows, pgx.RowTo[bool])
		if err != nil {
			t.Fatal(err)
		}
		n += len(ended)
	}
	b.healed()
	if n == 0 {
		t.Error("no backend was terminated")
	}
	b.finish(t)
}

// frozen stops processes for longer than the store waits: what they have been sent, they
// carry out afterwards.
func frozen(whole bool) func(*testing.T, *judgement) {
	return func(t *testing.T, j *judgement) {
		s := newServer(t)
		b := onServer(t, j, s)
		thaw := s.freeze(t, whole)
		time.Sleep(5 * time.Second)
		b.healed()
		thaw()
		b.finish(t)
	}
}
