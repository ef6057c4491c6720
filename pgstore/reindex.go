package pgstore

import (
	"context"
	"errors"
	"slices"

	"github.com/scspg/scspg/pgstore/internal/rules"
)

// Reindex gives live sessions of this store that were written before the app's Codec had a
// UserKey to their users: to list, limit and revoke them, until then each must have been
// committed once. It returns how many it has given. codec is the SessionManager's now, with
// the UserKey; without one it is an error. Call it, from anywhere, once every node of the
// app has that Codec: a node without fails to write to a session that has a user.
//
// It goes through all sessions in pages, in transactions of at most 200, each under the locks
// of its users, beside traffic, and ends with ctx. To call it again, after an error or in
// several processes at once, does no harm. Limits apply from the user's next sign-in, which
// evicts what is too much; CreatedAt is the time of the call. A session whose user has been
// revoked by RevokeAll or RevokeOthers in the meantime is ended as Revoked, as it may have
// been there before. A session that cannot be decoded is logged, and left as it is.
func (s *Store) Reindex(ctx context.Context, codec Codec) (int, error) {
	const op = "reindex sessions"
	if codec.UserKey == "" {
		return 0, errors.New("pgstore: " + op + ": the codec has no UserKey to find the users under")
	}
	given := 0
	for page, err := range s.pages(ctx, op, true) {
		if err != nil {
			return given, err
		}
		var list []arrival
		for _, listed := range page {
			if listed.User != "" || !s.readable(ctx, listed.ID, listed.Data, listed.Unreadable) {
				continue
			}
			deadline, values, err := codec.read(listed.Data)
			var in rules.Incoming
			if err == nil {
				in, err = codec.incoming(deadline, values)
			}
			if err != nil {
				s.cfg.Logger.WarnContext(ctx, "pgstore: a session cannot be decoded; it stays nobody's",
					"session", listed.ID.String(), "error", err)
			}
			if err == nil && in.User != "" {
				in.Expiry, in.Read = listed.Expiry, listed.Version
				list = append(list, arrival{Incoming: in, id: listed.ID})
			}
		}
		for chunk := range slices.Chunk(list, maxArrivals) {
			ends, err := s.takeOver(ctx, op, chunk, false)
			given += ends[rules.Changes]
			if err != nil {
				return given, err
			}
		}
	}
	return given, nil
}
