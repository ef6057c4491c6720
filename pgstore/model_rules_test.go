package pgstore_test

import (
	"cmp"
	"maps"
	"slices"

	"github.com/scspg/scspg/pgstore"
)

// values are what a session holds.
type values map[string]string

func (v values) user() string { return v[userKey] }

// merge is what the documentation says of it: what mine changed since base is as
// in mine, the rest as in current.
func merge(base, mine, current values) values {
	merged := values{}
	for _, from := range []values{base, mine, current} {
		for key := range from {
			b, inBase := base[key]
			m, inMine := mine[key]
			v, ok := current[key]
			if inBase != inMine || b != m {
				v, ok = m, inMine
			}
			if ok {
				merged[key] = v
			}
		}
	}
	return merged
}

// mergeDeadline is the same for the deadline, but if both have changed it, the earlier wins.
func mergeDeadline(base, mine, current int) int {
	switch {
	case mine == base:
		return current
	case current == base:
		return mine
	default:
		return min(mine, current)
	}
}

// world is the model: what requests do to sessions, all in memory and one step at a time.
type world struct {
	now      int // counts steps
	limit    int // 0: none
	policy   pgstore.LimitPolicy
	sessions []*modelSession
	fences   map[string]modelFence // by user
}

// modelFence is the latest of a user.
type modelFence struct {
	at int
	by *modelRequest // nil: no request
}

// modelSession is a session as it should be stored.
type modelSession struct {
	token    string
	stored   bool
	values   values
	user     string // whose it is, or was when it ended
	version  int
	ended    pgstore.EndReason
	expired  bool // while it was alive
	next     *successor
	deadline int // the absolute one: the step that set it
	since    int // when its user signed in
	seen     int // when it was last written
}

// successor is the session that goes on in the stead of one that is over.
type successor struct {
	session int
	signIn  bool // a sign-in made it, not a renewal
}

// maxLinks is how many successors are followed.
const maxLinks = 8

func (s *modelSession) alive() bool { return s.stored && s.ended == "" && !s.expired }

// pending: renewed, and the session that continues it has not been stored yet.
func (s *modelSession) pending() bool { return s.ended == pgstore.Renewed && s.next == nil }

// goesOn reports whether there is something to continue or to end.
func (s *modelSession) goesOn() bool { return s.alive() || s.pending() }

func (s *modelSession) write(now, deadline int, v values) {
	s.stored, s.values, s.user, s.seen, s.deadline = true, maps.Clone(v), v.user(), now, deadline
	s.version++
}

// phase is what a request may do with a session that it knows.
type phase string

const (
	isLive      phase = "live"
	isOver      phase = "over"      // somebody else ended it, or a commit was dropped
	isClosed    phase = "closed"    // the request has ended it itself
	isRenewing  phase = "renewing"  // the request has renewed or merged it
	isContinued phase = "continued" // and stored what continues it
)

// knowledge is what a request knows of a session.
type knowledge struct {
	session           int
	phase             phase
	base              values // as found or as last committed; nil: never found alive, nor stored
	user              string // whose it was then
	version, deadline int    // then
	deleted           int    // while renewing: since when
	written           bool   // the request has stored it
	wasRenewed        bool   // when it was looked for; whose it was is user
}

// modelRequest is what scs and the store keep of a request.
type modelRequest struct {
	began    int
	session  int // of scs's token; -1: none yet
	values   values
	deadline int
	modified bool
	known    []*knowledge
	first    int // the session that StatusOf speaks of; -1: none yet
}

func (r *modelRequest) of(session int) *knowledge {
	for _, k := range r.known {
		if k.session == session {
			return k
		}
	}
	return nil
}

// know is of for a session that it may not know yet.
func (r *modelRequest) know(session int) *knowledge {
	k := r.of(session)
	if k == nil {
		k = &knowledge{session: session, phase: isOver}
		r.known = append(r.known, k)
	}
	return k
}

// becomes is what StatusOf speaks of once the request has stored, or lost, the session.
func (r *modelRequest) becomes(session int) {
	if k := r.of(r.first); k == nil || k.phase != isLive {
		r.first = session
	}
}

func (w *world) add() int {
	w.sessions = append(w.sessions, &modelSession{})
	return len(w.sessions) - 1
}

// begin is a request's Load.
func (w *world) begin(session int) *modelRequest {
	r := &modelRequest{began: w.now, session: -1, values: values{}, deadline: w.now, first: -1}
	if session >= 0 {
		r.first = session
		if w.find(r, session) {
			s := w.sessions[session]
			r.session, r.values, r.deadline, r.modified = session, maps.Clone(s.values), s.deadline, true
		}
	}
	return r
}

// find reports whether the session is found.
func (w *world) find(r *modelRequest, session int) bool {
	s, k := w.sessions[session], r.of(session)
	switch {
	case !s.stored:
	case k != nil && k.phase == isLive && !s.alive():
		k.phase = isOver
	case k == nil && !s.alive():
		k = r.know(session)
		k.user, k.wasRenewed = s.user, s.ended == pgstore.Renewed
	case k == nil:
		k = r.know(session)
		k.phase = isLive
		k.had(s, s.values, s.deadline)
	}
	return s.alive()
}

// had records what the request has found or stored.
func (k *knowledge) had(s *modelSession, v values, deadline int) {
	k.base, k.user, k.version, k.deadline = maps.Clone(v), v.user(), s.version, deadline
}

func (r *modelRequest) put(key, value string) { r.values[key], r.modified = value, true }

func (r *modelRequest) remove(key string) {
	if _, ok := r.values[key]; ok {
		delete(r.values, key)
		r.modified = true
	}
}

func (r *modelRequest) clear() {
	r.modified = r.modified || len(r.values) > 0
	clear(r.values)
}

func (w *world) renewToken(r *modelRequest) {
	if r.session >= 0 {
		w.leave(r, r.session)
	}
	r.session, r.deadline, r.modified = w.add(), w.now, true
}

func (w *world) mergeSession(r *modelRequest, session int) {
	if !w.find(r, session) || r.session == session {
		return
	}
	maps.Copy(r.values, w.sessions[session].values)
	r.deadline = max(r.deadline, w.sessions[session].deadline)
	r.modified = true
	w.leave(r, session)
}

// leave is what RenewToken and MergeSession do to the old session.
func (w *world) leave(r *modelRequest, session int) {
	if s := w.sessions[session]; s.alive() {
		s.ended = pgstore.Renewed
	}
	if k := r.of(session); k != nil && k.base != nil && (k.phase == isLive || k.phase == isOver) {
		k.phase, k.deleted = isRenewing, w.now
	}
}

func (w *world) destroy(r *modelRequest) {
	if k := r.of(r.session); k != nil {
		w.signOut(k)
	} else { // a token that nobody has stored, or none: what it stands for ends
		for _, k := range r.known {
			if k.phase == isRenewing || k.phase == isClosed || k.wasRenewed {
				w.signOut(k)
			}
		}
	}
	r.session, r.values, r.deadline, r.modified = -1, values{}, w.now, false
}

// signOut ends a session, or what renewals have made of it.
func (w *world) signOut(k *knowledge) {
	s := w.sessions[k.session]
	for hops := 0; ; hops++ {
		if s.goesOn() {
			s.ended = pgstore.SignedOut
		}
		if s.next == nil || s.next.signIn || k.base == nil || hops == maxLinks || w.sessions[s.next.session].user != k.user {
			break
		}
		s = w.sessions[s.next.session]
	}
	k.phase = isClosed
}

// verdict is what becomes of a commit.
type verdict string

const (
	wasStored  verdict = "stored"
	wasKept    verdict = "kept" // nothing had changed
	wasDropped verdict = "dropped"
	wasRefused verdict = "refused" // by the limit
)

// commit is all of the rules on one page. signIn: it is SignIn's.
func (w *world) commit(r *modelRequest, signIn bool) verdict {
	if r.session < 0 {
		r.session = w.add()
	}
	s, k, user := w.sessions[r.session], r.of(r.session), r.values.user()
	drop := func() verdict {
		if !signIn { // else what is left may still become nobody's session
			r.know(r.session).phase = isOver
			r.becomes(r.session)
		}
		return wasDropped
	}
	switch {
	case k == nil:
	case k.phase != isLive:
		return wasDropped
	case k.user == user && maps.Equal(k.base, r.values) && k.deadline == r.deadline && (!k.written || s.alive() && s.user == user):
		return wasKept // if this request has stored it, its cookie goes out only if it is alive
	case !s.alive() || s.user != k.user: // ended stays ended, and changed hands
		return drop()
	case k.user == user:
		s.write(w.now, mergeDeadline(k.deadline, r.deadline, s.deadline), merge(k.base, r.values, s.values))
		k.had(s, r.values, r.deadline)
		k.written = true
		return wasStored
	}

	// A new token, or a known one that changes user.
	w.now++ // what happens in one step is not at one time
	mine, deadline := r.values, r.deadline
	take := func(k *knowledge, from *modelSession) {
		mine, deadline = merge(k.base, mine, from.values), mergeDeadline(k.deadline, deadline, from.deadline)
	}
	if k != nil && k.user == "" {
		take(k, s)
	}
	var from *knowledge // what it continues
	var left []*knowledge
	if k == nil || user != "" {
		from, left = r.continues(user), r.left(user, signIn)
	}
	renewal := from != nil && from.user == user && !signIn
	if !renewal && !signIn && user != "" && slices.ContainsFunc(r.known, func(k *knowledge) bool {
		return k.phase == isOver && k.base != nil && k.user == user
	}) {
		return drop() // the user came from a session that is over
	}

	// What has become of the sessions that the request has left.
	since, fenced := w.now, r.began
	var ending []*modelSession
	for _, l := range left {
		last := w.last(l, s, user, renewal, signIn)
		if l == from && last.goesOn() && (last.user == user || last.user == "" && l.user == "") {
			take(l, last)
		}
		if l == from && renewal {
			if !last.goesOn() || last.user != user {
				return drop()
			}
			since = last.since
			if last == w.sessions[l.session] {
				fenced = l.deleted
			}
		}
		// One that is over points to the sign-in, too, so that another one in the same browser
		// finds it.
		if last.goesOn() || last.next == nil && user != "" && l.base != nil {
			ending = append(ending, last)
		}
	}
	if f, ok := w.fences[user]; ok && f.at > fenced && f.by != r {
		return drop()
	}
	victims, ok := w.victims(user, append(ending, s), renewal)
	if !ok {
		return wasRefused
	}
	for _, v := range victims {
		v.ended = pgstore.Evicted
	}
	for _, e := range ending {
		signIn := !renewal || e.user != user || !e.goesOn()
		if e.goesOn() {
			e.ended = pgstore.Renewed
			if e.user != "" && e.user != user {
				e.ended = pgstore.SignedOut
			}
		}
		e.next, e.values = &successor{session: r.session, signIn: signIn}, nil
	}
	for _, l := range r.known {
		if slices.Contains(left, l) && l.phase == isRenewing {
			l.phase = isContinued
		}
	}
	s.write(w.now, deadline, mine)
	s.since = since
	k = r.know(r.session)
	k.phase, k.written = isLive, true
	k.had(s, r.values, r.deadline)
	r.becomes(r.session)
	return wasStored
}

// continues returns the last session of the user that the request has renewed away,
// else the last anonymous one, or nil.
func (r *modelRequest) continues(user string) (found *knowledge) {
	for _, whose := range []string{user, ""} {
		for _, k := range r.known {
			if k.phase == isRenewing && k.user == whose {
				found = k
			}
		}
		if found != nil {
			break
		}
	}
	return found
}

// left are the sessions that a commit for user takes the place of: those renewed away and,
// at a sign-in, those that the request has ended itself. SignIn, which has the password, may
// also end what has become of a session that was being renewed when the request began.
func (r *modelRequest) left(user string, signIn bool) (list []*knowledge) {
	for _, k := range r.known {
		if k.phase == isRenewing || k.phase == isClosed && user != "" ||
			signIn && k.phase == isOver && k.wasRenewed && (k.user == "" || k.user == user) {
			list = append(list, k)
		}
	}
	return list
}

// last follows the successors of a session that the request has left, as far as a commit
// for user may: to sessions of the user that it had, not across a sign-in. A sign-in ends
// what it finds, and so follows sign-ins, of its own user, too.
func (w *world) last(l *knowledge, mine *modelSession, user string, renewal, signIn bool) *modelSession {
	s := w.sessions[l.session]
	for hops := 0; s.next != nil && (l.base != nil || signIn) && hops < maxLinks; hops++ {
		next := w.sessions[s.next.session]
		if next == mine || (next.user != l.user || l.base == nil) && (renewal || next.user != user) || s.next.signIn && (renewal || user == "") {
			break
		}
		s = next
	}
	return s
}

// victims are the user's sessions that make room for one more. besides are those that do
// not count. ok is false if the limit refuses it.
func (w *world) victims(user string, besides []*modelSession, renewal bool) (victims []*modelSession, ok bool) {
	var others []*modelSession
	for _, s := range w.sessions {
		if s.alive() && s.user == user && !slices.Contains(besides, s) {
			others = append(others, s)
		}
	}
	surplus := len(others) - w.limit + 1
	if user == "" || w.limit == 0 || surplus <= 0 {
		return nil, true
	}
	slices.SortFunc(others, func(a, b *modelSession) int {
		switch w.policy {
		case pgstore.EvictLeastRecent:
			return cmp.Compare(a.seen, b.seen)
		case pgstore.Reject:
			return cmp.Compare(b.since, a.since)
		default:
			return cmp.Compare(a.since, b.since)
		}
	})
	return others[:surplus], renewal || w.policy != pgstore.Reject
}

// isOf reports whether the request comes from a session of a user for whom is returns true.
func (r *modelRequest) isOf(is func(string) bool) bool {
	return is(r.values.user()) || slices.ContainsFunc(r.known, func(k *knowledge) bool { return k.phase == isRenewing && is(k.user) })
}

// signIn is what SignIn does once it has renewed the token.
func (w *world) signIn(r *modelRequest, user string) verdict {
	owned := r.isOf(func(u string) bool { return u != "" })
	if r.isOf(func(u string) bool { return u != "" && u != user }) {
		r.clear()
	}
	r.put(userKey, user)
	v := w.commit(r, true)
	if v != wasStored {
		r.remove(userKey)
		if owned { // what is left would become nobody's, and then the next user's
			r.clear()
		}
	}
	return v
}

// revoke ends one session of the user, or what it has been renewed to. What has been signed
// in after the session had ended is not meant.
func (w *world) revoke(user string, session int) (ok bool) {
	s := w.sessions[session]
	for hops := 0; s.user == user; hops++ {
		if s.goesOn() {
			s.ended, ok = pgstore.Revoked, true
		}
		if s.next == nil || s.ended != pgstore.Renewed || hops == maxLinks {
			break
		}
		s = w.sessions[s.next.session]
	}
	return ok
}

// revokeAll ends the user's sessions except keep, by request r, which may be nil, and sets
// a fence. What r is renewing goes on, and so does what other renewals have made of it.
func (w *world) revokeAll(user string, keep int, r *modelRequest) (n int) {
	var spared []*modelSession
	spare := func(s *modelSession) {
		for spared = append(spared, s); s.next != nil && !s.next.signIn; spared = append(spared, s) {
			s = w.sessions[s.next.session]
		}
	}
	if keep >= 0 {
		spare(w.sessions[keep])
	}
	if r != nil && keep >= 0 {
		for _, k := range r.known {
			if k.phase == isRenewing && k.user == user {
				spare(w.sessions[k.session])
			}
		}
	}
	for _, s := range w.sessions {
		if !s.goesOn() || s.user != user || slices.Contains(spared, s) {
			continue
		}
		if s.alive() {
			n++
		}
		s.ended = pgstore.Revoked
	}
	if r != nil {
		for _, k := range r.known {
			if (k.phase == isLive || k.phase == isRenewing && keep < 0) && k.user == user && k.session != keep {
				k.phase = isOver
			}
		}
	}
	w.fences[user] = modelFence{at: w.now, by: r}
	return n
}

// mayKeep reports whether RevokeOthers takes the token of r.
func (w *world) mayKeep(user string, r *modelRequest) bool {
	if r.session < 0 {
		return false
	}
	s := w.sessions[r.session]
	return s.alive() && s.user == user || !s.stored &&
		slices.ContainsFunc(r.known, func(k *knowledge) bool { return k.phase == isRenewing && k.user == user })
}

// forget erases the user.
func (w *world) forget(user string) (n int) {
	n = w.revokeAll(user, -1, nil)
	for _, s := range w.sessions {
		if s.stored && s.next == nil && s.user == user {
			s.user, s.values = "", nil
		}
	}
	delete(w.fences, user)
	return n
}
