package pgstore

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/pgstore/internal/frame"
)

// merged returns the data to store, and its time to live: what the request commits,
// merged with what others have changed meanwhile, in the session itself or in the one
// that it continues. Nothing that was written for one user is carried over to another.
// conflict reports whether others had changed anything, and merged whether it could be
// merged.
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

// mergeInto merges mine with current, relative to base, key by key. The time to live is
// the longer of the two, cut to the merged deadline. Data that is not Codec's cannot be
// merged: then mine is returned, and the last write wins.
func mergeInto(base, mine []byte, current *row, ttl time.Duration) ([]byte, time.Duration, bool) {
	data, ok := frame.Merge(base, mine, current.data)
	if !ok {
		return mine, ttl, false
	}
	ttl = max(ttl, current.expiry.Sub(current.now))
	if deadline, ok := frame.Deadline(data); ok {
		ttl = min(ttl, time.Until(deadline))
	}
	return data, ttl, true
}

// merge commits a over a newer version of its session. It locks the row, merges, and
// updates, so no other write can come in between and there is nothing to repeat.
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
