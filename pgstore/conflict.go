package pgstore

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// merged returns the data to store: what this request commits, with what others
// have changed meanwhile in the session or in the one it continues. Nothing that was
// written for one user is carried over to another.
func (a *admission) merged() (data []byte, ttl time.Duration, conflict, merged bool) {
	data, ttl = a.data, a.ttl
	if a.prior != nil && a.own.present && (a.prior.user == a.user || a.prior.user == "") && !(a.prior.exact && a.own.version == a.prior.version) {
		conflict = true
		data, ttl, merged = mergeInto(a.prior.base, data, &a.own, ttl)
	}
	if a.renews != nil && a.renews.loaded && a.renews.took.state() == Active &&
		a.renews.took.user == a.renews.user && !(a.renews.exact && a.renews.version == a.renews.took.version) {
		var carried bool
		data, ttl, carried = mergeInto(a.renews.base, data, &a.renews.took, ttl)
		conflict, merged = true, merged || carried
	}
	return data, ttl, conflict, merged
}

// mergeInto merges by key. The time to live is the longer of the two, as far as the
// merged deadline allows. Data that cannot be merged is mine: last write wins.
func mergeInto(base, mine []byte, current *row, ttl time.Duration) ([]byte, time.Duration, bool) {
	data, ok := mergeSession(base, mine, current.data)
	if !ok {
		return mine, ttl, false
	}
	ttl = max(ttl, current.expiry.Sub(current.now))
	if deadline, ok := frameDeadline(data); ok {
		ttl = min(ttl, time.Until(deadline))
	}
	return data, ttl, true
}

// merge writes data on top of a newer version of the session, whose user stays. It
// holds the row from the read to the write, so it always ends.
func (s *Store) merge(ctx context.Context, a *admission) (out outcome, err error) {
	err = s.onConn(ctx, func(conn *pgxpool.Conn) error {
		out = outcome{}
		b := &pgx.Batch{}
		b.Queue(sqlBegin)
		b.Queue(s.sql.lock, a.id).QueryRow(a.own.scan)
		if err := send(ctx, conn, b); err != nil {
			return err
		}
		if a.own.state() != Active || a.own.user != a.prior.user {
			out.found = a.own
			return nil
		}
		data, ttl, conflict, merged := a.merged()
		b = &pgx.Batch{}
		b.Queue(s.updateOf(a.write), a.id, data, ttl.Microseconds(), nullable(a.user), a.own.version).QueryRow(out.scanStamp)
		b.Queue(sqlCommit)
		if err := send(ctx, conn, b); err != nil {
			return err
		}
		out.data, out.conflict, out.merged = data, conflict, merged
		return nil
	})
	return out, err
}
