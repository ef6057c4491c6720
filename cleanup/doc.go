// Package cleanup removes the sessions that nobody needs any more: expired ones, and
// the tombstones of those that were ended, once they are past their expiry and a
// grace period. [Sweep] does it once, as the sweeper command does from cron;
// [Every] keeps doing it, for those who want it inside their app.
//
// Every statement that deletes sessions applies one rule: the session's expiry has passed,
// and the hour that it falls into (the column sweep_at) ended more than the grace period
// ago, both by the database's clock. Each batch is a short transaction that locks its
// rows and checks the rule again on what it has locked. So a live session is never
// deleted, not even one that is extended while the sweep looks at it. What sessions leave
// behind that were deleted in other ways goes with [Options.Orphans].
//
// A sweep may be killed at any moment: a session and its row in the user index are
// deleted together or not at all. A connection that breaks is replaced, for half a minute, if
// the budget allows. Any number of sweeps may run at the same time; they
// skip each other's rows.
package cleanup
