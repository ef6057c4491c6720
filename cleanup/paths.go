package cleanup

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// path is a way to find and to delete rows.
type path[K any] interface {
	// list returns the next n rows that are due, oldest first. It does not return to
	// rows that remove has left: they are locked, or another sweep has them.
	list(ctx context.Context, n int) ([]row[K], error)
	remove(ctx context.Context, rows []row[K]) error
}

// row is a session that is due, by the key that its path deletes it by.
type row[K any] struct {
	Key  K
	Hour pgtype.Timestamptz
}

func keysOf[K any](rows []row[K]) []K {
	keys := make([]K, len(rows))
	for i, r := range rows {
		keys[i] = r.Key
	}
	return keys
}

const (
	// patience is how many batches of a sweep wait for locked rows as long as LockTimeout
	// says, and how many locked orphans are singled out. The others wait for a hundredth of
	// it, or are left with their batch: a sweep that meets many would take hours.
	patience       = 5
	shortWaitShare = 100
)

// passOver leaves a batch that others were in the way of to the next pass.
func (s *sweep) passOver(err error) error {
	if !isContention(err) {
		return err
	}
	s.met++
	return nil
}

// byPlace deletes by the place of a row in its table, the fastest way there is. If a
// batch meets a row that somebody else has locked, it is tried again without such rows,
// and so is the rest of its listing. If it meets a locked row of the user index, which a
// sign-in deletes from too, it is passed over as a whole.
type byPlace struct {
	s         *sweep
	last      row[string] // of the listing before
	contended bool        // the listing in hand has met rows that others hold
}

func (p *byPlace) list(ctx context.Context, n int) ([]row[string], error) {
	rows, err := query[row[string]](ctx, p.s, sqlList, p.s.graceMicros(), p.last.Hour, p.last.Key, n)
	if len(rows) > 0 {
		p.last = rows[len(rows)-1]
	}
	p.contended = false
	return rows, err
}

func (p *byPlace) remove(ctx context.Context, rows []row[string]) error {
	// pgx has no array of places that would work in all its query modes.
	places := `{"` + strings.Join(keysOf(rows), `","`) + `"}`
	if !p.contended {
		err := p.delete(ctx, sqlDelete, places, true)
		if p.contended = isContention(err); !p.contended {
			return err
		}
		p.s.met++
	}
	return p.s.passOver(p.delete(ctx, sqlDeleteFree, places, p.s.met > patience))
}

func (p *byPlace) delete(ctx context.Context, sql, places string, hurry bool) error {
	start := time.Now()
	p.s.shortLockWait = hurry
	gone, err := query[struct {
		Kind           string
		Rows, UserRows int64
	}](ctx, p.s, sql, p.s.graceMicros(), places)
	p.s.shortLockWait = false
	if err != nil {
		return err
	}
	n, userRows := make(kinds), int64(0)
	for _, g := range gone {
		n[g.Kind], userRows = g.Rows, g.UserRows
	}
	p.s.done(n, userRows, time.Since(start))
	return nil
}

// secondLook is how long after it was found an orphan is deleted where a commit becomes
// visible server by server, and a row of the index before its session.
var secondLook = time.Minute

// byID deletes by id, the portable way. If tables are distributed over servers, neither
// can rows be deleted by place nor locked ones be skipped: a batch that meets a lock is
// passed over as a whole.
type byID struct {
	s      *sweep
	hour   pgtype.Timestamptz // where the next listing begins
	passed []pgtype.UUID      // what was passed over: the next listing leaves it out
	before int64              // progress before the last listing
}

func (p *byID) list(ctx context.Context, n int) ([]row[pgtype.UUID], error) {
	progress := p.s.result.Rows() + int64(p.s.met)
	if progress == p.before {
		// Nothing was deleted or passed over since the last listing. Something else keeps
		// these rows, a trigger for instance: listing them again would not end.
		return nil, nil
	}
	p.before = progress
	rows, err := query[row[pgtype.UUID]](ctx, p.s, sqlListIDs, p.s.graceMicros(), p.hour, n, p.passed)
	if len(rows) > 0 {
		p.hour = rows[len(rows)-1].Hour
	}
	return rows, err
}

func (p *byID) remove(ctx context.Context, rows []row[pgtype.UUID]) error {
	ids := keysOf(rows)
	p.s.shortLockWait = p.s.met >= patience
	err := p.delete(ctx, ids)
	p.s.shortLockWait = false
	if isContention(err) {
		p.passed = append(p.passed, ids...)
	}
	return p.s.passOver(err)
}

func (p *byID) delete(ctx context.Context, ids []pgtype.UUID) error {
	var n kinds
	userRows, start := int64(0), time.Now()
	err := p.s.inTransaction(ctx, func(ctx context.Context, c *pgxpool.Conn) error {
		n = make(kinds)                                                      // there may have been an attempt
		rows, _ := c.Query(ctx, p.s.q(sqlDeleteIDs), p.s.graceMicros(), ids) // its error is that of ForEachRow, too
		var kind string
		var o orphan
		var orphans []orphan
		_, err := pgx.ForEachRow(rows, []any{&o.User, &o.ID, &kind}, func() error {
			n[kind]++
			orphans = append(orphans, o)
			return nil
		})
		if err != nil {
			return err
		}
		tag, err := c.Exec(ctx, p.s.q(sqlUnindex), named(orphans))
		userRows = tag.RowsAffected()
		return err
	})
	if err == nil {
		p.s.done(n, userRows, time.Since(start))
	}
	return err
}

// orphan is a row of the user index without its session or, without an ID, a user
// without a session.
type orphan struct {
	User string
	ID   pgtype.UUID
}

// byKey deletes the orphans of one table, in the order of its key. It deletes a batch first,
// and then checks it in the same transaction: what those who held its rows before have
// committed is visible by then, and those who come later wait, and insert their rows anew.
// A batch that meets either is halved, again and again, until only that row is left.
type byKey struct {
	s                  *sweep
	page, kept, delete string // the next rows, which of them have what they need, and their deletion
	count              *int64
	more               bool   // there is another page
	last               orphan // of the page before
	met                int    // orphans that others held
}

// sweepOrphans deletes orphans, or counts them if nothing may be deleted.
func (s *sweep) sweepOrphans(ctx context.Context) (err error) {
	first := orphan{ID: pgtype.UUID{Valid: true}}
	for _, p := range []*byKey{
		{s, sqlPageIndex, sqlKeptIndex, sqlDeleteIndex, &s.result.OrphanUserRows, true, first, 0},
		{s, sqlPageUsers, sqlKeptUsers, sqlDeleteUsers, &s.result.OrphanUsers, true, first, 0},
	} {
		for err == nil && p.more {
			err = inBatches(ctx, s, p)
		}
	}
	return err
}

// list returns the orphans of the next page that has any. Where these have to settle, it
// collects more of them first.
func (p *byKey) list(ctx context.Context, n int) (found []row[orphan], err error) {
	settle := time.Duration(0)
	if p.s.distributed {
		settle = secondLook
	}
	for began := time.Now(); p.more && len(found) < n && (len(found) == 0 || time.Since(began) < settle); {
		if _, err := p.s.pauseBefore(ctx, 1); err != nil {
			return nil, err
		}
		start := time.Now()
		page, err := query[orphan](ctx, p.s, p.page, pgx.NamedArgs{"user": p.last.User, "id": p.last.ID, "n": p.s.opts.Batch})
		if err != nil {
			return nil, err
		}
		kept, err := query[orphan](ctx, p.s, p.kept, named(page))
		if err != nil {
			return nil, err
		}
		p.s.tempo.last, p.more = time.Since(start), len(page) == p.s.opts.Batch
		is := make(map[orphan]bool, len(kept))
		for _, o := range kept {
			is[o] = true
		}
		for _, p.last = range page {
			if !is[orphan{User: p.last.User}] && !is[orphan{ID: p.last.ID}] {
				found = append(found, row[orphan]{Key: p.last})
			}
		}
	}
	if len(found) > 0 {
		p.s.rest(ctx, settle)
	}
	return found, nil
}

// errKept ends a transaction that has deleted what is no orphan.
var errKept = errors.New("cleanup: no orphan")

func (p *byKey) remove(ctx context.Context, rows []row[orphan]) error {
	if p.s.readOnly {
		*p.count += int64(len(rows))
		return nil
	}
	start, args, gone := time.Now(), named(keysOf(rows)), int64(0)
	p.s.shortLockWait = true
	err := p.s.inTransaction(ctx, func(ctx context.Context, tx *pgxpool.Conn) error {
		tag, err := tx.Exec(ctx, p.s.q(p.delete), args)
		if err != nil {
			return err
		}
		gone = tag.RowsAffected()
		if err = tx.QueryRow(ctx, p.s.q(p.kept), args).Scan(nil, nil); errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return cmp.Or(err, errKept)
	})
	p.s.shortLockWait = false
	switch {
	case err == nil:
		*p.count += gone
		p.s.done(nil, 0, time.Since(start))
		return nil
	case !isContention(err) && !errors.Is(err, errKept):
		return err
	case len(rows) == 1 || p.met >= patience:
		p.met++
		return nil
	}
	if err := p.remove(ctx, rows[:len(rows)/2]); err != nil {
		return err
	}
	return p.remove(ctx, rows[len(rows)/2:])
}

func named(list []orphan) pgx.NamedArgs {
	users, ids := make([]string, len(list)), make([]pgtype.UUID, len(list))
	for i, o := range list {
		users[i], ids[i] = o.User, o.ID
	}
	return pgx.NamedArgs{"users": users, "ids": ids}
}
