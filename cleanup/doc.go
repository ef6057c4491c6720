// Package cleanup removes the sessions that nobody needs any more: expired ones, and
// the tombstones of those that were ended, once they are past their expiry and a
// grace period. [Sweep] does it once, as the sweeper command does from cron;
// [Every] keeps doing it, for those who want it inside their app.
//
// One rule decides, in every statement that deletes: the session's hour
// (sweep_at) ended longer than the grace period ago, and its expiry has passed, by
// the database's clock. Each batch is a short transaction that checks the rule
// again on the row versions it holds locked, so a session that lives is never
// deleted, even one that is extended while the sweep looks at it.
//
// A sweep may be killed at any moment: a session goes with its row in the user
// index or not at all. Any number of sweeps may run at the same time.
package cleanup
