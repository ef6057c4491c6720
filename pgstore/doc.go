// Package pgstore is a session store for [github.com/alexedwards/scs/v2] on
// PostgreSQL that knows whose sessions it keeps: it limits, lists and ends the
// sessions of a user, never lets a session that has ended come back, and costs a
// request that changes nothing one indexed read.
//
// # The one rule
//
// A session becomes a live session of a user in one place: the sign-in
// transaction (admit.go), under that user's lock. Every other write is an UPDATE
// of the row by id, for as long as the row is alive and its user unchanged. It
// never inserts, revives, or changes the user. (Anonymous sessions are inserted
// freely.) The limit, the listing and "sign out everywhere" all rest on it.
//
// # Time
//
// The database's now() judges expiry everywhere: a session is alive while
// expiry > now(). The store sends the time to live and the database adds it to its
// own clock, so idle timeouts are exact whatever the clocks of the app servers
// say. Absolute deadlines are computed by scs, and shift by the difference between
// the clocks of the app servers that computed and applied them.
//
// # With and without Track
//
// As a plain scs store it keeps its promises on limits, listings, durability and
// ended sessions. [Store.Track], a middleware around LoadAndSave, adds what needs
// to know which request a call belongs to: unchanged sessions are not written,
// overlapping requests are merged by key, a renewed session keeps its place, a
// sign-in that began before [Store.RevokeAll] does not survive it, and
// [Store.StatusOf] can say why a session ended.
package pgstore
