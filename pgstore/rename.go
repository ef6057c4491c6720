package pgstore

import (
	"context"

	"github.com/scspg/scspg/pgstore/internal/db"
	"github.com/scspg/scspg/pgstore/internal/row"
)

// Rename gives one session of the user another label, as Client.Label has it; "" removes it. id
// is a Session.ID, or the result of IDOf. Rename reports false, and does nothing, if id is not
// that of a live session of this user: it is safe to pass an id that came from a client. A
// session that has been renewed since has another id: list the sessions anew. An empty userID
// is an error.
func (s *Store) Rename(ctx context.Context, userID, id, label string) (renamed bool, err error) {
	if err := checkUserID("rename session", userID); err != nil {
		return false, err
	}
	uid, ok := parseID(id)
	if !ok {
		return false, nil
	}
	err = s.do(ctx, "rename session", func(ctx context.Context) error {
		return s.db.InTx(ctx, func(t *db.Tx) error {
			// The lock of the row keeps a renewal out, which carries over the label that it finds.
			var current row.Row
			b := t.Begin()
			b.Lock(uid, &current)
			if err := t.Send(ctx, b); err != nil {
				return err
			}
			if renamed = current.Alive() && current.User == userID; !renamed {
				return nil
			}
			b = t.Batch()
			b.Relabel(userID, uid, cleanText(label, maxLabelBytes))
			return t.Commit(ctx, b)
		})
	})
	return renamed && err == nil, err
}
