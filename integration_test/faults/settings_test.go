//go:build linux

package faults

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// set gives the app's role settings, "" for none: all connections are new ones with these.
func (b *bed) set(t *testing.T, settings ...string) {
	t.Helper()
	sql := []string{`ALTER ROLE ` + appRole + ` RESET ALL`}
	for _, s := range settings {
		sql = append(sql, `ALTER ROLE `+appRole+` SET `+s)
	}
	b.server.exec(t, append(sql, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '`+appRole+`'`)...)
}

// beside runs statements for a while, again and again, one transaction for each user: %d is
// its number.
func (b *bed) beside(t *testing.T, d time.Duration, sql ...string) {
	t.Helper()
	var running sync.WaitGroup
	end := time.Now().Add(d)
	for n := range users {
		conn := b.server.connect(t)
		running.Go(func() {
			defer conn.Close(t.Context())
			for time.Now().Before(end) {
				for _, stmt := range sql {
					_, _ = conn.Exec(t.Context(), fmt.Sprintf(stmt, n)) // it may be the victim
				}
			}
		})
	}
	running.Wait()
}

const (
	lockUser     = `SELECT 'user%[1]d' FROM scs_users WHERE user_id = 'user%[1]d' FOR UPDATE`
	lockSessions = `SELECT 'user%[1]d' FROM scs_sessions WHERE user_id = 'user%[1]d' AND end_reason IS NULL FOR UPDATE`
	moment       = `SELECT pg_sleep(0.05), %d`
)

// lowTimeouts has the server give up statements, waits for locks and idle transactions far
// earlier than the store would.
func lowTimeouts(t *testing.T, j *judgement) {
	b := onServer(t, j, newServer(t))
	hold := []string{`BEGIN; SELECT %d`, lockSessions, lockUser, moment, `COMMIT; SELECT %d`, moment}
	for _, n := range b.app {
		n.codes.pause.Store(int64(30 * time.Millisecond))
	}
	b.set(t, `statement_timeout = '20ms'`, `idle_in_transaction_session_timeout = '20ms'`)
	b.beside(t, 2*time.Second, hold...)
	b.set(t, `lock_timeout = '20ms'`, `idle_in_transaction_session_timeout = '20ms'`)
	b.beside(t, 2*time.Second, hold...)
	for _, n := range b.app {
		n.codes.pause.Store(0)
	}
	b.healed()
	b.set(t)
	b.finish(t)
	b.mustHaveSeen(t, "57014", "55P03", "25P03") // query_canceled, lock_not_available, idle_in_transaction_session_timeout
}

// deadlocks has somebody take the locks of a sign-in the other way round. The store's
// transaction is the one that looks, and so the victim.
func deadlocks(t *testing.T, j *judgement) {
	b := onServer(t, j, newServer(t))
	b.set(t, `deadlock_timeout = '2ms'`)
	b.beside(t, 4*time.Second, `BEGIN; SELECT %d`, lockSessions, `SELECT pg_sleep(0.01), %d`, lockUser, `COMMIT; SELECT %d`)
	b.healed()
	b.set(t)
	b.finish(t)
	b.mustHaveSeen(t, "40P01") // deadlock_detected
}

// serialization has all that the store does not run at READ COMMITTED fail where somebody
// was faster.
func serialization(t *testing.T, j *judgement) {
	b := onServer(t, j, newServer(t))
	b.set(t, `default_transaction_isolation = 'serializable'`)
	b.beside(t, 4*time.Second, `BEGIN; SELECT %d`, `UPDATE scs_sessions SET last_seen_at = last_seen_at WHERE user_id = 'user%d' AND end_reason IS NULL`,
		`SELECT pg_sleep(0.01), %d`, `COMMIT; SELECT %d`)
	b.healed()
	b.set(t)
	b.finish(t)
	b.mustHaveSeen(t, "40001") // serialization_failure
}
