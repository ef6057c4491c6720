package pgstore

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Session is a live session as its user, or an operator, may see it. It holds
// neither token nor data.
type Session struct {
	ID     string // see IDOf
	UserID string // "" while anonymous
	// CreatedAt is when the user signed in; a renewal keeps it. Zero while anonymous.
	CreatedAt time.Time
	// LastSeenAt is when the session was last written or touched. The last request may
	// be up to Config.TouchAfter later.
	LastSeenAt time.Time
	// Expiry is when the session times out if it is not used again: by its idle timeout
	// or its absolute deadline, whichever is earlier.
	Expiry time.Time
	// IP and UserAgent are the client's at the last sign-in or renewal, as Track or
	// WithClient gave them. Zero if unknown.
	IP        netip.Addr
	UserAgent string
}

// Sessions returns the user's live sessions, the most recently seen first. The list
// is exact: it is read in one snapshot, in one round trip. (On Citus each shard has
// its own snapshot, so a session that is being renewed at that instant may be
// missing.) For a user without sessions the list is empty, not nil. An empty userID
// is an error.
func (s *Store) Sessions(ctx context.Context, userID string) ([]Session, error) {
	if err := checkUserID("list sessions", userID); err != nil {
		return nil, err
	}
	var list []Session
	err := s.do(ctx, "list sessions", func(ctx context.Context) error {
		index := make(map[pgtype.UUID]Session)
		list = []Session{}
		b := &pgx.Batch{}
		b.Queue(sqlBeginRead)
		b.Queue(s.sql.indexRows, userID).Query(func(rows pgx.Rows) error {
			for rows.Next() {
				var id pgtype.UUID
				sess := Session{UserID: userID}
				if err := scanIndexRow(rows, nil, &id, &sess); err != nil {
					return err
				}
				index[id] = sess
			}
			return rows.Err()
		})
		b.Queue(s.sql.liveRows, userID).Query(func(rows pgx.Rows) error {
			var id pgtype.UUID
			var expiry, seen time.Time
			_, err := pgx.ForEachRow(rows, []any{&id, &expiry, &seen}, func() error {
				sess := index[id]
				sess.ID, sess.Expiry, sess.LastSeenAt = id.String(), expiry, seen
				list = append(list, sess)
				return nil
			})
			return err
		})
		b.Queue(sqlCommit)
		return send(ctx, s.pool, b)
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(x, y Session) int {
		return cmp.Or(y.LastSeenAt.Compare(x.LastSeenAt), y.CreatedAt.Compare(x.CreatedAt), cmp.Compare(x.ID, y.ID))
	})
	return list, nil
}

// scanIndexRow reads an index row, with its user id first where user is not nil.
func scanIndexRow(rows pgx.Rows, user *string, id *pgtype.UUID, sess *Session) error {
	var ip string
	dest := []any{id, &sess.CreatedAt, &ip, &sess.UserAgent}
	if user != nil {
		dest = append([]any{user}, dest...)
	}
	if err := rows.Scan(dest...); err != nil {
		return err
	}
	if ip != "" {
		addr, err := netip.ParseAddr(ip)
		if err != nil {
			return fmt.Errorf("address of a session: %w", err)
		}
		sess.IP = addr
	}
	return nil
}

// Count returns how many live sessions the user has. An empty userID is an error.
func (s *Store) Count(ctx context.Context, userID string) (int, error) {
	if err := checkUserID("count sessions", userID); err != nil {
		return 0, err
	}
	var n int
	err := s.do(ctx, "count sessions", func(ctx context.Context) error {
		return s.pool.QueryRow(ctx, s.sql.countLive, userID).Scan(&n)
	})
	return n, err
}

// checkUserID refuses what cannot be a user id, and "", which stands for nobody.
func checkUserID(op, userID string) error {
	if userID == "" {
		return fmt.Errorf("pgstore: %s: the user id is empty", op)
	}
	if err := validUserID(userID); err != nil {
		return fmt.Errorf("pgstore: %s: %w", op, err)
	}
	return nil
}

// addrText is ip as an inet literal, NULL where unknown.
func addrText(ip netip.Addr) *string {
	if !ip.IsValid() {
		return nil
	}
	text := ip.String()
	return &text
}
