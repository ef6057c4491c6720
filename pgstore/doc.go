// Package pgstore is a session store for [github.com/alexedwards/scs/v2] on
// PostgreSQL that knows which user a session belongs to. It limits, lists and ends
// a user's sessions, never lets an ended session come back, and serves a request
// that changes nothing with one indexed read.
//
// # Setting it up
//
// Three things are mounted on an [scs.SessionManager]: a [Store], from [New]; a
// [Codec], which tells the store whose session it is (limits and listings need it);
// and [Store.Track], a middleware around LoadAndSave. The package example shows all
// three. The tables come from package migrations; [Store.Check] tells whether they, the server
// and the role's privileges are as the store needs them. Nothing here deletes expired rows:
// run the sweeper command, or package cleanup, on a schedule. [Store.Import] takes over the
// live sessions of an app that was on scs's pgxstore or postgresstore.
//
// # With and without Track
//
// Without Track the store enforces limits, lists exactly, stores durably and keeps ended
// sessions ended. But each call stands for itself, so a renewal is a sign-out and a
// sign-in, as with every other scs store: the session gets a new age and a new place in the
// limit, and a revocation that comes in between does not stop it. Track tells the store
// which calls belong to one request. That adds:
//
//   - a request that changed nothing writes nothing,
//   - requests that overlap on one session are merged key by key,
//   - a renewed session keeps its age, its place in the limit, and what other requests wrote
//     meanwhile; if it is signed out or revoked meanwhile, it stays so,
//   - a sign-in that began before [Store.RevokeAll] or [Store.RevokeOthers] does not
//     survive it,
//   - an answer that comes late does not put an old cookie back,
//   - [Store.StatusOf] can say why a session ended,
//   - an ended session stays ended even after its row has been swept.
//
// # Words
//
// To touch a session is to move its expiry and last-seen time forward without
// writing its data. A tombstone is the row of an ended session; it stays until the
// sweeper deletes it. A renewal gives a session a new token (RenewToken); once the session
// is stored under that, the old row holds a link to the new one in place of its data. A
// fence is the instant up to which a user's sign-ins are void; RevokeAll and RevokeOthers
// move it.
//
// # Time
//
// The database's now() decides whether a session has expired: it is alive while
// expiry > now(). The store sends a time to live and the database adds it to its own
// clock, so idle timeouts are exact even if the app servers' clocks are wrong.
// Absolute deadlines (SessionManager.Lifetime) are computed by scs on the app
// server, so a deadline set by one server and applied by another is off by the
// difference between their clocks.
//
// # Encryption
//
// Config.Seal encrypts what sessions hold; package keyring has keys for it, and
// [Store.Reseal] retires old ones.
//
// # Concurrency
//
// A Store and a Codec are safe for concurrent use. Every operation runs under
// Config.Timeout instead of the caller's cancellation, except [Store.Overview],
// [Store.AllCtx], [Store.Each], [Store.Reseal], [Store.Import], [Store.Reindex] and
// [Store.Watch], which run until their context ends (Config.Timeout then bounds each page,
// and each attempt to connect).
package pgstore
