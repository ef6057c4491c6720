package pgstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/db"
	"github.com/scspg/scspg/pgstore/internal/row"
	"github.com/scspg/scspg/pgstore/internal/rules"
)

// ImportOptions says what Import takes over.
type ImportOptions struct {
	// Codec is that of the SessionManager that will use the sessions: they are stored as it
	// encodes them. With a limit it must have a UserKey.
	Codec Codec

	// OldCodec decodes the rows of the old table. It must return an error, and not panic,
	// for data that it cannot decode. Default (nil): what scs.GobCodec or Codec has written.
	OldCodec scs.Codec

	// Table is the old table's name, if need be with that of its schema before it. It is
	// quoted, so case matters. Default (nil): {"sessions"}, in the search_path.
	Table pgx.Identifier

	// Lifetime is that of the old SessionManager. It tells when a session was given its
	// token, which for a signed-in one is, as a rule, when its user signed in: CreatedAt, and
	// who EvictOldest ends first. Default (0): unknown, and the time of the import stands
	// for it. Negative values are refused.
	Lifetime time.Duration

	// DryRun counts, and changes nothing. It takes the same locks.
	DryRun bool

	// Progress, if not nil, is called after each transaction with what has been done so far.
	Progress func(ImportResult)
}

// ImportResult counts sessions. If an answer of the database was lost, some that came over
// may be missing in Imported and Updated.
type ImportResult struct {
	// Read: the live rows of the old table that have been looked at.
	Read int
	// Imported: those that were not there yet.
	Imported int
	// Updated: those that an earlier import had brought over, and that the old app has used
	// since, but not the new one.
	Updated int
	// SignedOut: those that an earlier import had brought over, and that the old app has
	// deleted since. They were ended, with SignedOut as their reason.
	SignedOut int
	// Fenced: those that were left behind because RevokeAll or RevokeOthers has been called
	// for their user here. When they began is not known.
	Fenced int
	// Unreadable: those that were left behind because OldCodec could not decode them, or
	// Codec could not encode them. Each was logged, with its IDOf.
	Unreadable int
}

// Import takes over the live sessions of a table of scs's own pgxstore or postgresstore,
// under the tokens that they have, so that a switch to this store signs nobody out. It must
// be the only such table of this store's schema, and in the same database; it is only read.
// HashTokenInStore must be as it was. What rows hold that needs gob.Register must be
// registered, which is why this is no program of its own.
//
// Call it as often as you like, while either app serves, and in several processes too. Each
// call brings over what the old app has written since the last one, but for sessions that
// the new app has written or ended. It ends those that the old app has deleted since, as it
// does if somebody signs out. (If a session was touched here, and its old row was due to
// expire by now, that may have been swept: the session stays. A table without live rows ends
// nothing.) To switch:
//
//  1. Make the tables with package migrations.
//  2. Import while the old app serves.
//  3. Stop the old app, or hold back its requests; Import once more, which writes only what
//     has changed; and let the new app serve. Nobody notices more than a pause.
//
// If both serve instead, as in a rolling deployment, Import again and again, more often than
// sessions time out, and once after the old app's last write. Until then a session that
// begins in the old app is unknown to the new one before the next Import, and one that
// begins in the new app is unknown to the old one, so its user may have to sign in once more.
// Of a session that both have written, what the new app wrote is kept. A session that was
// ended in the new app lives on in the old one.
//
// To go back, let the old app serve again: its table is as it was. Those who were signed in
// there still are, if their rows have not expired; also those who have signed out in the new
// app, or were revoked. What has begun or changed in the new app is not known there.
//
// Import works in transactions of at most 200 sessions, under the locks of their users, each
// bounded by Config.Timeout. Limits apply from the user's next sign-in, which evicts what is
// too much. Import ends with ctx or at the first error, and returns what it has counted. The
// next call goes on, as it skips what has not changed. It holds 16 bytes a row in memory.
func (s *Store) Import(ctx context.Context, o ImportOptions) (ImportResult, error) {
	const op = "import sessions"
	im := importing{ImportOptions: o, store: s}
	switch {
	case s.cfg.limited() && o.Codec.UserKey == "":
		return im.result, errors.New("pgstore: " + op + ": a user limit is set, but ImportOptions.Codec has no UserKey")
	case o.Lifetime < 0:
		return im.result, fmt.Errorf("pgstore: "+op+": ImportOptions.Lifetime is %v: it must not be negative (0 means unknown)", o.Lifetime)
	}
	if len(o.Table) == 0 {
		im.Table = pgx.Identifier{"sessions"}
	}
	err := im.arrive(ctx, op)
	if err == nil && len(im.seen) > 0 {
		err = im.depart(ctx, op)
	}
	return im.result, err
}

// importing is a call of Import.
type importing struct {
	ImportOptions
	store   *Store
	result  ImportResult
	seen    [][16]byte // the ids of the old table
	started time.Time  // by the database's clock
}

// arrive brings over what the old table holds.
func (im *importing) arrive(ctx context.Context, op string) error {
	s, after := im.store, ""
	for n := maxArrivals; n == maxArrivals; {
		if err := ctx.Err(); err != nil {
			return opError(op, err)
		}
		var page []db.Old
		err := s.db.Do(ctx, func(ctx context.Context) (err error) {
			page, err = s.db.OldPage(ctx, im.Table, after, maxArrivals)
			return err
		})
		if err != nil { // what opError advises is about our tables
			return fmt.Errorf("pgstore: %s: the table %s: %w", op, im.Table.Sanitize(), err)
		}
		if n = len(page); n == 0 {
			return nil
		}
		after = page[n-1].Token
		if im.started.IsZero() {
			im.started = page[0].Now
		}
		ends, err := s.takeOver(ctx, op, im.decode(ctx, page), im.DryRun)
		if err != nil {
			return err
		}
		im.result.Read += n
		im.result.Imported += ends[rules.Comes]
		im.result.Updated += ends[rules.Changes]
		im.result.Fenced += ends[rules.Barred]
		if im.Progress != nil {
			im.Progress(im.result)
		}
	}
	return nil
}

// decode returns what the rows hold.
func (im *importing) decode(ctx context.Context, page []db.Old) (list []arrival) {
	read := im.Codec.read
	if im.OldCodec != nil {
		read = im.OldCodec.Decode
	}
	for _, old := range page {
		id, _, _ := idOf(old.Token)
		im.seen = append(im.seen, id.Bytes)
		a := arrival{id: id}
		deadline, values, err := read(old.Data)
		if err == nil {
			a.Incoming, err = im.Codec.incoming(deadline, values)
		}
		if err != nil {
			im.result.Unreadable++
			im.store.cfg.Logger.WarnContext(ctx, "pgstore: a session of the old table cannot be read; it is left behind",
				"session", id.String(), "error", err)
			continue
		}
		a.Expiry = old.Expiry
		if since := deadline.Add(-im.Lifetime); im.Lifetime > 0 && since.Before(old.Now) {
			a.since = since
		}
		list = append(list, a)
	}
	return list
}

// depart ends what earlier imports have brought over and the old table no longer holds,
// unless it may have expired there.
func (im *importing) depart(ctx context.Context, op string) error {
	s := im.store
	compare := func(x, y [16]byte) int { return bytes.Compare(x[:], y[:]) }
	slices.SortFunc(im.seen, compare)
	for page, err := range s.pages(ctx, op, false) {
		if err != nil {
			return err
		}
		var gone []pgtype.UUID
		for _, listed := range page {
			_, there := slices.BinarySearchFunc(im.seen, listed.ID.Bytes, compare)
			// An import beside this one may have brought over what has come after we read.
			if !there && row.ImportedUntil(listed.Version).After(im.started) && listed.LastSeen.Before(im.started) {
				gone = append(gone, listed.ID)
			}
		}
		ended := len(gone)
		if ended > 0 && !im.DryRun {
			err = s.do(ctx, op, func(ctx context.Context) error {
				b := s.db.Batch()
				b.End(gone, db.Ending{Reason: row.SignedOut, Any: true}, &ended, nil)
				return s.db.Send(ctx, b)
			})
			if err != nil {
				return err
			}
		}
		im.result.SignedOut += ended
	}
	return nil
}
