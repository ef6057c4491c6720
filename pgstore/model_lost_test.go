package pgstore_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
)

// losingAny makes connections that, when told to, lose an answer of the database, whatever
// the statement: the server has done it, and the client cannot know.
type losingAny struct{ next atomic.Pointer[losingNext] }

type losingNext struct {
	after, changes int // how many answers pass
	then           func(reply)
}

// reply is what the database says of a round trip.
type reply struct {
	idle      bool // no transaction is open now
	committed bool // one was
	undone    bool // one was rolled back: the store has decided by what it had read
	changed   bool // rows, durably
}

// arm loses the next answer but so many that change nothing, or that change something. It
// calls then when the connection is closed, before the client learns of it.
func (l *losingAny) arm(after, changes int, then func(reply)) {
	l.next.Store(&losingNext{after: after, changes: changes, then: then})
}

func (l *losingAny) disarm() { l.next.Store(nil) }

func (l *losingAny) option() pgtest.Option {
	return func(c *pgxpool.Config) {
		c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // one round trip each
		c.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
		dial := c.ConnConfig.DialFunc
		c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return &losingAnyConn{Conn: conn, losing: l}, err
		}
	}
}

type losingAnyConn struct {
	net.Conn
	losing *losingAny
	read   []byte // of the answer that is coming in
	ready  bool   // the connection is made
}

func (c *losingAnyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		return n, err
	}
	c.read = append(c.read, p[:n]...)
	a, ok := readReply(c.read)
	if !ok {
		return n, nil
	}
	c.read = c.read[:0]
	if !c.ready {
		c.ready = true
		return n, nil
	}
	next := c.losing.next.Load()
	if next == nil {
		return n, nil
	}
	passes := &next.after
	if a.changed {
		passes = &next.changes
	}
	if *passes > 0 {
		*passes--
		return n, nil
	}
	c.losing.disarm()
	_ = c.Close()
	next.then(a)
	return 0, io.ErrUnexpectedEOF
}

// readReply reads messages of the server up to ReadyForQuery
// (https://www.postgresql.org/docs/current/protocol-message-formats.html). ok is false as
// long as they do not end with one.
func readReply(b []byte) (a reply, ok bool) {
	for len(b) >= 5 {
		size := 1 + int(binary.BigEndian.Uint32(b[1:]))
		if len(b) < size {
			return a, false
		}
		body := b[5:size]
		switch b[0] {
		case 'C': // CommandComplete
			tag := strings.TrimRight(string(body), "\x00")
			word, _, _ := strings.Cut(tag, " ")
			switch word {
			case "COMMIT":
				a.committed = true
			case "ROLLBACK":
				a.undone = true
			case "INSERT", "UPDATE", "DELETE":
				a.changed = a.changed || !strings.HasSuffix(tag, " 0")
			}
		case 'Z': // ReadyForQuery
			a.idle = body[0] == 'I'
			a.changed = a.changed && a.idle
			ok = true
		}
		b = b[size:]
	}
	return a, ok && len(b) == 0
}
