package db_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/db"
	"github.com/scspg/scspg/pgstore/internal/row"
)

// PostgreSQL refuses a payload that is too long, so they must be cut, whatever they hold.
func TestNotifyReachesListenWhole(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, x *tables) {
		gaps, heard := make(chan bool, 9), make(chan db.Ended, 99)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- x.Listen(ctx, db.Listener{
				Gap:   func() { gaps <- true },
				Ended: func(e db.Ended) { heard <- e },
				Broke: func(err error) { t.Error(err) },
			})
		}()
		<-gaps
		for _, want := range []db.Ended{
			{Reason: row.Evicted, User: "alice"},
			{Reason: row.Revoked, User: "", IDs: ids(1)},
			{Reason: row.Revoked, User: "a b  c\n", IDs: ids(1, 2, 3)},
			{Reason: row.SignedOut, User: strings.Repeat("ä", 127) + "'", IDs: many(350)},
			{Reason: row.SignedOut, User: strings.Repeat("ä", 127) + "'", IDs: many(1001)},
		} {
			x.send(func(b *db.Batch) { b.Notify(want) })
			var got []pgtype.UUID
			for len(got) < len(want.IDs) {
				select {
				case e := <-heard:
					if e.Reason != want.Reason || e.User != want.User {
						t.Errorf("%q of %q, want %q of %q", e.Reason, e.User, want.Reason, want.User)
					}
					got = append(got, e.IDs...)
				case <-time.After(time.Minute):
					t.Fatalf("heard of %d, want %d", len(got), len(want.IDs))
				}
			}
			if !slices.Equal(got, want.IDs) {
				t.Errorf("%s, want %s", numbers(got), numbers(want.IDs))
			}
		}
		cancel()
		if err := <-done; err != nil || len(gaps)+len(heard) != 0 {
			t.Errorf("%d gaps and %d ended besides, %v", len(gaps), len(heard), err)
		}
	})
}

func many(n int) (list []pgtype.UUID) {
	for i := range n {
		list = append(list, id(i))
	}
	return list
}
