package db_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore/internal/db"
	"github.com/scspg/scspg/pgstore/internal/row"
)

// Whatever f returns, the connection goes back without a transaction, and what was not
// committed is not there.
func TestInTxRollsBackWhatIsNotCommitted(t *testing.T) {
	t.Parallel()
	x := open(t, pgtest.MaxConns(1))
	failed := errors.New("failed")
	pgtest.Exec(t, x.pool, `SELECT 1`)
	made := x.pool.Stat().NewConnsCount()
	signIn := func(b *db.Batch, n int) {
		b.SignIn(db.Write{ID: id(n), Data: []byte{}, TTL: time.Hour}, new(db.Written))
	}
	for n, tt := range []struct {
		name      string
		f         func(n int, tx *db.Tx) error
		want      error
		committed bool
	}{
		{"committed", func(n int, tx *db.Tx) error {
			b := tx.Begin()
			signIn(b, n)
			return tx.Commit(t.Context(), b)
		}, nil, true},
		{"committed by a second batch", func(n int, tx *db.Tx) error {
			b := tx.Begin()
			signIn(b, n)
			if err := tx.Send(t.Context(), b); err != nil {
				return err
			}
			return tx.Commit(t.Context(), tx.Batch())
		}, nil, true},
		{"abandoned", func(n int, tx *db.Tx) error {
			b := tx.Begin()
			signIn(b, n)
			return tx.Send(t.Context(), b)
		}, nil, false},
		{"failed", func(n int, tx *db.Tx) error {
			b := tx.Begin()
			signIn(b, n)
			return errors.Join(tx.Send(t.Context(), b), failed)
		}, failed, false},
		{"failed before it began", func(int, *db.Tx) error { return failed }, failed, false},
		{"never begun", func(int, *db.Tx) error { return nil }, nil, false},
		// The transaction has failed: PostgreSQL takes nothing but a rollback.
		{"failed in the database", func(n int, tx *db.Tx) error {
			b := tx.Begin()
			signIn(b, n)
			signIn(b, n)
			if err := tx.Commit(t.Context(), b); err == nil {
				return errors.New("no unique violation")
			}
			return failed
		}, failed, false},
	} {
		if err := x.InTx(t.Context(), func(tx *db.Tx) error { return tt.f(n, tx) }); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
		}
		conn, err := x.pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if status := conn.Conn().PgConn().TxStatus(); status != 'I' {
			t.Errorf("%s: the transaction status is %c", tt.name, status)
		}
		if n := x.pool.Stat().NewConnsCount(); n != made { // the pool closes those that come back in one
			t.Errorf("%s: it has cost the connection", tt.name)
			made = n
		}
		conn.Release()
		if r, err := x.Find(t.Context(), id(n)); err != nil || r.Present != tt.committed {
			t.Errorf("%s: in the table %t, %v", tt.name, r.Present, err)
		}
	}
}

func TestInTxSurvivesTheLossOfItsConnection(t *testing.T) {
	t.Parallel()
	x := open(t, pgtest.MaxConns(1))
	admin := pgtest.PoolIn(t, "")
	pid := pgtest.Query[int](t, x.pool, `SELECT pg_backend_pid()`)
	err := x.InTx(t.Context(), func(tx *db.Tx) error {
		if err := tx.Send(t.Context(), tx.Begin()); err != nil {
			return err
		}
		pgtest.Exec(t, admin, `SELECT pg_terminate_backend($1::int)`, pid)
		return tx.Commit(t.Context(), tx.Batch())
	})
	if err == nil {
		t.Error("no error")
	}
	if _, err := x.Find(t.Context(), id(1)); err != nil {
		t.Error(err)
	}
}

// It sees what was committed before each statement began, not before the transaction did.
func TestTransactionsReadWhatOthersHaveCommitted(t *testing.T) {
	t.Parallel()
	x := open(t)
	err := x.InTx(t.Context(), func(tx *db.Tx) error {
		var before, after row.Row
		b := tx.Begin()
		b.Find(id(1), &before)
		if err := tx.Send(t.Context(), b); err != nil {
			return err
		}
		x.put(session{n: 1, left: time.Hour})
		b = tx.Batch()
		b.Find(id(1), &after)
		err := tx.Commit(t.Context(), b)
		if before.Present || !after.Present {
			t.Errorf("before %t, after %t", before.Present, after.Present)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A batch is one transaction even if nothing begins one.
func TestBatchIsOneTransaction(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, x *tables) {
		x.put(session{n: 1, left: time.Hour})
		before := x.row(1)
		b := x.Batch()
		b.Renew(id(1), new(int))
		b.SignIn(db.Write{ID: id(1), Data: []byte{}}, new(db.Written))
		if err := x.Send(t.Context(), b); err == nil || x.row(1) != before {
			t.Errorf("error %v; the row was %s and is %s", err, before, x.row(1))
		}
	})
}

func TestInTxGivesUpWithTheContext(t *testing.T) {
	t.Parallel()
	x := open(t, pgtest.MaxConns(1))
	conn, err := x.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := x.InTx(ctx, func(*db.Tx) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// A host that vanishes holds its locks for half the timeout, or less if the role says so.
func TestTransactionsBoundThemselves(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol} {
		for role, want := range map[string]string{"0": "2500ms", "1d": "2500ms", "2500ms": "2500ms", "2s": "2s", "1ms": "1ms"} {
			x := open(t, pgtest.ExecMode(mode), pgtest.MaxConns(1), pgtest.Param("idle_in_transaction_session_timeout", role))
			pgtest.Exec(t, x.pool, `CREATE TABLE noted (idle text, whole text)`)
			pgtest.Exec(t, x.pool, `CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				INSERT INTO noted VALUES (current_setting('idle_in_transaction_session_timeout'), current_setting('transaction_timeout', true));
				RETURN NEW; END $$`)
			pgtest.Exec(t, x.pool, `CREATE TRIGGER note BEFORE INSERT ON scs_users FOR EACH ROW EXECUTE FUNCTION note()`)
			if err := x.InTx(t.Context(), func(tx *db.Tx) error {
				b := tx.Begin()
				b.LockUser("alice", new(time.Time))
				return tx.Commit(t.Context(), b)
			}); err != nil {
				t.Fatal(err)
			}
			if got := pgtest.Query[string](t, x.pool, `SELECT idle || coalesce(' ' || whole, ' 7500ms') FROM noted`); got != want+" 7500ms" { // there is none before PostgreSQL 17
				t.Errorf("%s, role with %s: %s, want %s", mode, role, got, want)
			}
			if got := pgtest.Query[string](t, x.pool, `SELECT current_setting('idle_in_transaction_session_timeout')`); got != role {
				t.Errorf("%s, role with %s: afterwards %s", mode, role, got)
			}
		}
	}
}
