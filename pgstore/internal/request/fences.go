package request

import (
	"slices"
	"sync"
	"time"
)

// Fences are those that a request has set, and that its own sign-ins may pass.
type Fences struct {
	mu  sync.Mutex
	set []fence
}

type fence struct {
	user string
	at   time.Time
}

// Fenced records a fence that the request has set.
func (f *Fences) Fenced(user string, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set = append(f.set, fence{user, at})
}

// Exempt reports whether the request has set this very fence itself.
func (f *Fences) Exempt(user string, at time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.set, func(g fence) bool { return g.user == user && g.at.Equal(at) })
}
