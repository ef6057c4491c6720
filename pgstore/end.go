package pgstore

import (
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// EndReason says why a session was ended before it timed out. It is "" for a session
// that is alive or has timed out.
type EndReason string

const (
	// SignedOut: SessionManager.Destroy was called, as a rule by the user signing out.
	SignedOut EndReason = "signed_out"
	// Revoked: Revoke, RevokeOthers, RevokeAll or Forget ended it.
	Revoked EndReason = "revoked"
	// Evicted: a later sign-in of the same user needed its place under the limit.
	Evicted EndReason = "evicted"
	// Renewed: the session continues under a new token.
	Renewed EndReason = "renewed"
)

// newMark returns a number that identifies one ending. It is stored in the version
// column of the tombstones, so that if the server's answer is lost, the next attempt
// recognizes the sessions that the first one ended. Marks are negative; versions of
// live sessions are positive.
func newMark() int64 { return -1 - rand.Int64() }

// queueEnd queues the one statement that ends sessions. It ends those of ids whose
// end reason is from ("" for live sessions) and, unless user is "", that belong to
// user. If n is not nil, it receives how many ended.
func (s *Store) queueEnd(b *pgx.Batch, ids []pgtype.UUID, reason, from EndReason, user string, mark int64, n *int) {
	sql, which := s.sql.endAll, any(ids)
	if len(ids) == 1 {
		sql, which = s.sql.end, ids[0]
	}
	b.Queue(sql, which, string(reason), nullable(string(from)), nullable(user), mark).Query(func(rows pgx.Rows) error {
		count := 0
		for rows.Next() {
			count++
		}
		if n != nil {
			*n = count
		}
		return rows.Err()
	})
}

// queueMarked replaces *n by the number of ids that carry mark: those that the
// queueEnd before it has just ended, and those that an earlier attempt ended.
func (s *Store) queueMarked(b *pgx.Batch, ids []pgtype.UUID, mark int64, n *int) {
	b.Queue(s.sql.marked, ids, mark).QueryRow(func(r pgx.Row) error { return r.Scan(n) })
}

// queueLapse makes sure that sessions which have just timed out stay so. A write that
// began before they timed out may still be waiting for the row and would extend it;
// see sqlLapse. Queue it before the queueEnd for the same ids.
func (s *Store) queueLapse(b *pgx.Batch, ids []pgtype.UUID, user string) {
	underWay := max(minUnderWay, 2*s.cfg.Timeout)
	b.Queue(s.sql.lapse, ids, float64(underWay.Microseconds()), nullable(user))
}

// minUnderWay is the shortest time that a write is assumed to be under way, even if
// this store's Timeout is shorter: other processes may have a longer one.
const minUnderWay = time.Minute

// queueUnindex removes index rows of sessions that have ended.
func (s *Store) queueUnindex(b *pgx.Batch, user string, ids []pgtype.UUID) {
	switch len(ids) {
	case 0:
	case 1:
		b.Queue(s.sql.unindex, user, ids[0])
	default:
		b.Queue(s.sql.unindexAll, user, ids)
	}
}
