package cleanup

import (
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

func TestEveryEndsInAnOrderlyWay(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), "postgres://u@127.0.0.1:1/db") // where nobody listens
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	stop := make(chan struct{})
	close(stop)
	if err := Every(t.Context(), pool, time.Hour, Options{Stop: stop, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Error(err)
	}
}
