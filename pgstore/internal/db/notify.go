package db

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/internal/pgfault"
)

// Ended are sessions that have ended for one reason.
type Ended struct {
	IDs    []pgtype.UUID
	User   string // whose they were, "" for nobody's
	Reason string
}

// idsPerPayload: so many, in base64 and beside the longest reason and user id, stay below the
// 8,000 bytes that a payload of NOTIFY may have, even where the server's encoding makes a user
// id twice as long.
const idsPerPayload = 350

// Notify tells whoever listens, once the transaction commits. It is a statement of its own:
// with the session table in it, Citus would run it on another server.
func (b *Batch) Notify(e Ended) {
	for ids := range slices.Chunk(e.IDs, idsPerPayload) {
		raw := make([]byte, 0, idsPerPayload*len(ids[0].Bytes))
		for _, id := range ids {
			raw = append(raw, id.Bytes[:]...)
		}
		b.add(sqlNotify, e.Reason+" "+base64.RawStdEncoding.EncodeToString(raw)+" "+e.User)
	}
}

// heard reads what Notify has sent.
func heard(payload string) (e Ended, ok bool) {
	reason, rest, _ := strings.Cut(payload, " ")
	ids, user, _ := strings.Cut(rest, " ")
	raw, err := base64.RawStdEncoding.DecodeString(ids)
	e = Ended{User: user, Reason: reason}
	if err != nil || len(raw) == 0 || len(raw)%len(pgtype.UUID{}.Bytes) != 0 {
		return e, false
	}
	for id := range slices.Chunk(raw, len(pgtype.UUID{}.Bytes)) {
		e.IDs = append(e.IDs, pgtype.UUID{Bytes: [16]byte(id), Valid: true})
	}
	return e, true
}

// Listener is told what Listen hears.
type Listener struct {
	// Gap: sessions may have ended unheard until now. It is called whenever a connection
	// begins to listen, the first one included.
	Gap   func()
	Ended func(Ended)
	Broke func(error) // the connection, or an attempt to have one
}

// maxPause bounds the pause between two attempts. A connection that has lasted longer is not
// taken for one of a series that fails.
const maxPause = 5 * time.Second

// Listen listens until ctx ends, and connects again if it has to. It returns an error only if
// it has never listened, and another attempt cannot mend that.
func (d *DB) Listen(ctx context.Context, l Listener) error {
	listened, pause := false, firstBackoff
	for ctx.Err() == nil {
		began := time.Now()
		err := d.listen(ctx, !listened, Listener{Gap: func() { listened = true; l.Gap() }, Ended: l.Ended})
		switch {
		case ctx.Err() != nil:
		case !listened && !pgfault.IsTransient(err) && !errors.Is(err, context.DeadlineExceeded):
			return err
		default:
			l.Broke(err)
			if time.Since(began) > maxPause {
				pause = firstBackoff
			}
			sleep(ctx, pause)
			pause = min(pause*backoffGrows, maxPause)
		}
	}
	return nil
}

// errMoved: the tables are in another schema than they were.
var errMoved = errors.New("the session tables have moved")

// listen listens on one connection, until that breaks. It takes it out of the pool, which makes
// another if it needs one: so it is set up as the others are, and not one of theirs.
func (d *DB) listen(ctx context.Context, first bool, l Listener) error {
	begin, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	pooled, err := d.pool.Acquire(begin)
	if err != nil {
		return err
	}
	conn := pooled.Hijack()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.timeout)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if first {
		if err := d.probe(ctx, conn); err != nil {
			return err
		}
	}
	channel, err := d.channel(ctx, conn)
	if err == nil {
		_, err = conn.Exec(begin, `LISTEN `+channel)
	}
	if err != nil {
		return err
	}
	l.Gap()
	for {
		n, err := d.wait(ctx, conn)
		switch {
		case err == nil && n.Channel == channel:
			if e, ok := heard(n.Payload); ok {
				l.Ended(e)
			} else {
				l.Gap() // what a later release has sent, or somebody else
			}
		case err == nil:
		case ctx.Err() == nil && pgconn.Timeout(err): // silence, or the connection is dead
			if now, err := d.channel(ctx, conn); err != nil {
				return err
			} else if now != channel {
				return errMoved
			}
		default:
			return err
		}
	}
}

// errDeaf is for a connection that LISTENs in vain.
var errDeaf = errors.New("LISTEN hears nothing on this connection: a pooler in transaction mode is in between " +
	"(make a second Store for Watch, on a pool that leads to the server itself), or the pool's ConnConfig has OnNotification")

// probe has another connection of the pool send something, and returns nil if it arrives. The
// channel is nobody else's: a pooler goes on to listen to it for whoever comes next.
func (d *DB) probe(ctx context.Context, conn *pgx.Conn) error {
	channel := "scs_probe_" + strings.ToLower(rand.Text())
	begin, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	_, err := conn.Exec(begin, `LISTEN `+channel)
	if err == nil {
		_, err = d.pool.Exec(begin, `NOTIFY `+channel)
	}
	if err == nil {
		if _, err = d.wait(ctx, conn); pgconn.Timeout(err) {
			err = errDeaf
		}
	}
	return err
}

// channel reads the name of the channel on which the endings of these tables are announced.
func (d *DB) channel(ctx context.Context, conn *pgx.Conn) (name string, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	err = conn.QueryRow(ctx, d.q(sqlChannel)).Scan(&name)
	return name, err
}

func (d *DB) wait(ctx context.Context, conn *pgx.Conn) (*pgconn.Notification, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	n, err := conn.WaitForNotification(ctx)
	if err == nil && n == nil { // OnNotification has it
		return nil, errDeaf
	}
	return n, err
}
