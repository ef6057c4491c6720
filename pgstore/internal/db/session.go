package db

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/row"
)

// Find reads a session. A missing one is the zero Row.
func (d *DB) Find(ctx context.Context, id pgtype.UUID) (row.Row, error) {
	o := &op{asked: asked{id: id}}
	if err := d.reads.do(ctx, o); err != nil {
		return row.Row{}, err
	}
	d.open(id, &o.row)
	return o.row, nil
}

// Find is DB.Find within a batch.
func (b *Batch) Find(id pgtype.UUID, r *row.Row) { b.read(sqlFind, id, r) }

// Lock locks the row of a session and reads it.
func (b *Batch) Lock(id pgtype.UUID, r *row.Row) { b.read(sqlLock, id, r) }

func (b *Batch) read(sql string, id pgtype.UUID, r *row.Row) {
	b.add(sql, id).QueryRow(func(from pgx.Row) error {
		err := scanRow(r)(from)
		b.db.open(id, r)
		return err
	})
}

func scanRow(r *row.Row) func(pgx.Row) error {
	return func(from pgx.Row) error {
		*r = row.Row{}
		err := from.Scan(fields(r)...)
		r.Present = err == nil
		return ignoreNoRows(err)
	}
}

// fields are what a statement has found of a row.
func fields(r *row.Row, before ...any) []any {
	return append(before, &r.Data, &r.User, &r.Version, &r.EndReason, (*instant)(&r.Expiry), (*instant)(&r.LastSeen), &r.Now)
}

// instant is a time that may be infinite in the database, where somebody has set it by
// hand: row.Forever, or the zero time.
type instant time.Time

// ScanTimestamptz implements pgtype.TimestamptzScanner.
func (i *instant) ScanTimestamptz(v pgtype.Timestamptz) error {
	switch v.InfinityModifier {
	case pgtype.Infinity:
		*i = instant(row.Forever)
	case pgtype.NegativeInfinity:
		*i = instant{}
	default:
		*i = instant(v.Time)
	}
	return nil
}

// Write is what is written to the row of a session.
type Write struct {
	ID   pgtype.UUID
	User string // "" while anonymous
	Data []byte // not nil
	TTL  time.Duration
	// Unseen leaves the last-seen time alone, and does not move expiry forward.
	Unseen bool
}

// AnyVersion, as the version that Update expects, lets it overwrite whatever is there.
const AnyVersion = 0

// Written is the row after a write. Its Now is its LastSeen, which an Unseen update does
// not set.
type Written struct {
	row.Stamp
	OK bool // false: no row met the conditions, and nothing was written
}

func (w *Written) scan(from pgx.Row) error {
	*w = Written{}
	err := from.Scan(&w.Version, (*instant)(&w.Expiry), (*instant)(&w.LastSeen))
	w.Now, w.OK = w.LastSeen, err == nil
	return ignoreNoRows(err)
}

// Insert writes a new anonymous session, unless the row is there.
func (d *DB) Insert(ctx context.Context, w Write) (out Written, err error) {
	if err := d.seal(&w); err != nil {
		return out, err
	}
	err = d.queryRow(ctx, d.pool, out.scan, sqlInsert, w.ID, w.Data, w.TTL.Microseconds())
	return out, err
}

// Update writes the data of a live session whose user stays. After an error, the data may
// still be read until the timeout has passed.
func (d *DB) Update(ctx context.Context, w Write, version int64) (Written, error) {
	if err := d.seal(&w); err != nil {
		return Written{}, err
	}
	o := &op{asked: asked{id: w.ID, version: version}, write: &w}
	if err := d.updates.do(ctx, o); err != nil {
		return Written{}, err
	}
	return o.out, nil
}

// Update is DB.Update within a transaction.
func (b *Batch) Update(w Write, version int64, out *Written) {
	b.seal(&w)
	sql, args := w.update(version)
	b.add(sql, args...).QueryRow(out.scan)
}

func (w *Write) update(version int64) (sql string, args []any) {
	if sql = sqlUpdate; w.Unseen {
		sql = sqlUpdateUnseen
	}
	return sql, []any{w.ID, w.Data, w.TTL.Microseconds(), nullable(w.User), version}
}

// SignIn inserts a session of a user. If the row is there, it is a unique violation.
func (b *Batch) SignIn(w Write, out *Written) {
	b.seal(&w)
	b.add(sqlSignIn, w.ID, nullable(w.User), w.Data, w.TTL.Microseconds()).QueryRow(out.scan)
}

// SwitchUser writes a live session and whose it is.
func (b *Batch) SwitchUser(w Write, out *Written) {
	b.seal(&w)
	b.add(sqlSwitchUser, w.ID, nullable(w.User), w.Data, w.TTL.Microseconds()).QueryRow(out.scan)
}

// Touch moves expiry to ttl from now, but not back, and sets the last-seen time, if the
// session has this user and version. It may be lost in a crash of the server.
func (d *DB) Touch(ctx context.Context, id pgtype.UUID, user string, version int64, ttl time.Duration) (Written, error) {
	o := &op{asked: asked{id: id, user: user, version: version}, ttl: ttl}
	if err := d.touches.do(ctx, o); err != nil {
		return Written{}, err
	}
	return o.out, nil
}

// Ending says which sessions end, and why.
type Ending struct {
	Reason string
	User   string // whose they must be, "" for nobody's
	Any    bool   // whoever has them

	Ended *[]pgtype.UUID // if not nil, gets those that have really ended
}

// End ends sessions: those that are alive and, since one may be renewed in between, then
// those that were renewed and have no successor yet. It counts both, unless there is nil.
func (b *Batch) End(ids []pgtype.UUID, e Ending, alive, pending *int) {
	if e.Ended != nil {
		*e.Ended = nil
	}
	b.end(ids, e, nil, alive)
	b.end(ids, e, nullable(row.Renewed), pending)
}

func (b *Batch) end(ids []pgtype.UUID, e Ending, from *string, n *int) {
	if n != nil {
		*n = 0
	}
	if len(ids) == 0 {
		return
	}
	sql, which := sqlEndAll, any(ids)
	if len(ids) == 1 {
		sql, which = sqlEnd, ids[0]
	}
	b.add(sql, which, e.Reason, from, pgtype.Text{String: e.User, Valid: !e.Any}).Query(count(n, e.Ended))
}

// Renew ends a live session as renewed, and counts it in n.
func (b *Batch) Renew(id pgtype.UUID, n *int) { b.add(sqlRenew, id).Query(count(n, nil)) }

// count counts the rows in n, and appends their ids, unless it is nil.
func count(n *int, ids *[]pgtype.UUID) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		found := 0
		for rows.Next() {
			found++
			if ids == nil {
				continue
			}
			var id pgtype.UUID
			if err := rows.Scan(&id); err != nil {
				return err
			}
			*ids = append(*ids, id)
		}
		if n != nil {
			*n = found
		}
		return rows.Err()
	}
}

// Link enters the session that goes on in the stead of one whose row is locked.
func (b *Batch) Link(id pgtype.UUID, reason string, to row.Link) {
	b.add(sqlLink, id, reason, to.Encode())
}

// TimeOut ends those of the sessions that have timed out by the start of the transaction
// or, if that is later, by clock. Add it before End for the same ids: a write that was
// under way may just have extended one.
func (b *Batch) TimeOut(ids []pgtype.UUID, user string, clock time.Time) {
	if len(ids) == 0 {
		return
	}
	b.add(sqlTimeOut, ids, nullable(user), pgtype.Timestamptz{Time: clock, Valid: !clock.IsZero()})
}

// Anonymize takes the user out of tombstones.
func (b *Batch) Anonymize(user string, ids []pgtype.UUID) { b.add(sqlAnonymize, ids, user) }

// Client is who signs in.
type Client struct {
	IP        netip.Addr // zero: unknown
	UserAgent string     // "": unknown
	Label     string     // "": what the session keeps
}

// Enlist puts a session into the user's index, or updates it there. A zero Since is now.
func (b *Batch) Enlist(user string, id pgtype.UUID, keeps row.Place, c Client) {
	var ip string
	if c.IP.IsValid() {
		ip = c.IP.String()
	}
	b.add(sqlEnlist, user, id, pgtype.Timestamptz{Time: keeps.Since, Valid: !keeps.Since.IsZero()},
		nullable(ip), nullable(c.UserAgent), nullable(cmp.Or(c.Label, keeps.Label)))
}

// Relabel gives a session of the user's index another label, or none.
func (b *Batch) Relabel(user string, id pgtype.UUID, label string) {
	b.add(sqlRelabel, user, id, nullable(label))
}

// Delist takes sessions out of the user's index, if there is a user.
func (b *Batch) Delist(user string, ids ...pgtype.UUID) {
	switch {
	case user == "" || len(ids) == 0:
	case len(ids) == 1:
		b.add(sqlDelist, user, ids[0])
	default:
		b.add(sqlDelistAll, user, ids)
	}
}

// nullable returns s as a column value, NULL for "".
func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// ignoreNoRows returns err, or nil if err says that there was no row.
func ignoreNoRows(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	return err
}
