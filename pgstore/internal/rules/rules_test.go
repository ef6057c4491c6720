package rules_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/frame"
	"github.com/scspg/scspg/pgstore/internal/request"
	"github.com/scspg/scspg/pgstore/internal/row"
	"github.com/scspg/scspg/pgstore/internal/rules"
)

// In these tables sessions are numbered. The one that is committed is 9; what the request
// has left begins with 1. By the database's clock it is noon.
const mine = 9

var (
	noon  = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)
	heard = time.Now() // when we heard that it was noon
)

func id(n byte) pgtype.UUID { return pgtype.UUID{Bytes: [16]byte{15: n}, Valid: true} }

func number(id pgtype.UUID) byte { return id.Bytes[15] }

// since is since when its user has had session n.
func since(n byte) time.Time { return noon.Add(-time.Duration(n) * time.Hour) }

// data is an encoded session: "key=value" each.
func data(user string, fields ...string) []byte {
	return encoded(user, true, noon.AddDate(1, 0, 0), fields)
}

func unkeyed(fields ...string) []byte { return encoded("", false, noon.AddDate(1, 0, 0), fields) }

func encoded(user string, keyed bool, deadline time.Time, fields []string) []byte {
	values := make(map[string]any)
	for _, f := range fields {
		key, value, _ := strings.Cut(f, "=")
		values[key] = value
	}
	b, err := frame.Encode(deadline, user, keyed, values)
	if err != nil {
		panic(err)
	}
	return b
}

// The rows that a commit may meet.

func alive(user string, fields ...string) row.Row {
	stamp := row.Stamp{Version: 1, Now: noon, LastSeen: noon.Add(-time.Minute), Expiry: noon.Add(time.Hour)}
	return row.Row{Present: true, User: user, Data: data(user, fields...), Stamp: stamp}
}

func expired(user string) row.Row {
	r := alive(user)
	r.Expiry = noon
	return r
}

func ended(reason, user string) row.Row {
	r := alive(user)
	r.EndReason, r.Data = reason, nil
	return r
}

// pending is renewed, and has no successor yet.
func pending(user string, fields ...string) row.Row {
	r := alive(user, fields...)
	r.EndReason = row.Renewed
	return r
}

func linked(reason, user string, link row.Link) row.Row {
	r := ended(reason, user)
	r.Version, r.Data = 0, link.Encode()
	return r
}

func renewedTo(n byte, user string) row.Row { return linked(row.Renewed, user, row.Link{To: id(n)}) }

func signedInTo(n byte, user string) row.Row {
	return linked(row.Renewed, user, row.Link{SignIn: true, To: id(n)})
}

// What the request knows of a session.

func live(n byte, r row.Row) request.Session {
	return request.Session{ID: id(n), Phase: request.Live, User: r.User, Stamp: r.Stamp, Base: r.Data, RowHoldsBase: true}
}

// renewed is a session that the request has had alive and renewed away, just now.
func renewed(n byte, user string, fields ...string) request.Session {
	s := live(n, alive(user, fields...))
	s.Phase, s.Reason, s.DeletedAt = request.Renewing, row.Renewed, noon
	return s
}

// renewedUnseen is session 1 of alice, which it has not loaded.
func renewedUnseen() request.Session {
	s := renewed(1, "alice")
	s.Base = nil
	return s
}

func signedOut(n byte, user string) request.Session {
	s := live(n, alive(user))
	s.Phase, s.Reason = request.Closed, row.SignedOut
	return s
}

// factsOf are the facts of a commit of session 9 by a request that began a minute ago,
// before any row is read. What is missing is gone.
func factsOf(c rules.Commit) *rules.Facts {
	c.ID, c.TTL = id(mine), time.Hour
	f := &rules.Facts{Commit: c, Began: heard.Add(-time.Minute), Clock: row.Clock{Read: noon, Heard: heard}, Tries: rules.Patience}
	f.Continues, f.Renewal = c.Continues()
	return f
}

// commitFor is a commit of a new token.
func commitFor(user string, left ...request.Session) rules.Commit {
	return rules.Commit{User: user, Keyed: true, Data: data(user), Left: rules.LeftOf(left)}
}

func signInFor(user string, left ...request.Session) rules.Commit {
	c := commitFor(user, left...)
	c.SignIn = true
	return c
}

// rows are the session table; a row that is not in it is gone.
type rows map[byte]row.Row

// read enters the rows as the sign-in transaction does.
func read(f *rules.Facts, table rows) *rules.Facts {
	indexed := func(n byte) row.Place {
		if table[n].User == "" {
			return row.Place{}
		}
		return row.Place{Since: since(n), Label: fmt.Sprint("device ", n)}
	}
	if f.Current = table[mine]; f.Current.User == f.User {
		f.Place = indexed(mine)
	}
	for i := range f.Left {
		n := number(f.Left[i].ID)
		f.Left[i].Row, f.Left[i].Place = table[n], indexed(n)
	}
	for i, to, ok := f.Follow(); ok; i, to, ok = f.Follow() {
		f.Followed(i, to, table[number(to)], indexed(number(to)))
	}
	return f
}

// told says what becomes of the commit, and which sessions point to it afterwards:
// "dropped: revoked", "new; 1 renewed by sign-in", "in place of 2; 2 renewed".
func told(f *rules.Facts) string {
	v := f.Verdict()
	switch v.Outcome {
	case rules.Granted:
	case rules.Lost:
		if reason := v.Met.Over(); reason != "" {
			return "dropped: " + reason
		}
		return "dropped"
	default:
		return [...]string{rules.Refused: "refused", rules.Unkeyed: "unkeyed", rules.Unsettled: "unsettled", rules.Done: "done", rules.InDoubt: "in doubt"}[v.Outcome]
	}
	text := "new"
	if at := f.Keeps().Since; !at.IsZero() {
		text = fmt.Sprintf("in place of %d", noon.Sub(at)/time.Hour)
	} else if f.Renewal {
		text = "goes on" // nobody's has no place
	}
	for _, s := range f.Successions() {
		text += fmt.Sprintf("; %d %s", number(s.ID), s.Reason)
		if s.Link.SignIn {
			text += " by sign-in"
		}
		if s.Link.To != f.ID {
			text += " to another"
		}
	}
	return text
}
