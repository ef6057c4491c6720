package main

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/scspg/scspg/pgstore"
)

//go:embed templates/*.html
var templateFS embed.FS

var pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"machineTime": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"humanTime":   func(t time.Time) string { return t.UTC().Format("2 Jan 2006 15:04:05 UTC") },
}).ParseFS(templateFS, "templates/*.html"))

// page is what the template shows.
type page struct {
	Notice     notice
	User       *user // nil: nobody is signed in
	Store      string
	IsPostgres bool
	Rule       string // when sessions end, in a sentence
	Sessions   []pageSession
	Others     int // sessions other than this one
	Figures    []figure
}

type pageSession struct {
	ID, Device, UserAgent string
	IP                    netip.Addr
	CreatedAt, LastSeenAt time.Time
	Current               bool
}

// Where names the session in a sentence: the labels of the buttons must not all be
// alike to those who hear them.
func (p pageSession) Where() string {
	if !p.IP.IsValid() {
		return p.Device
	}
	return p.Device + ", " + p.IP.String()
}

// figure is one line of what the operator sees.
type figure struct{ Name, Value string }

// notice is one sentence at the top of the page.
type notice struct {
	Text  string
	Alert bool // something went wrong, or happened to the user
}

// Names of the notices that are no error codes.
const (
	noticeSignedOut     = "signed-out"
	noticeRevoked       = "revoked"
	noticeOthersRevoked = "others-revoked"
)

// notices are what a redirect may ask the page to show. The URL carries the name
// only, so that no link can put words in our mouth.
var notices = map[string]notice{
	noticeSignedOut:      {Text: "You are signed out on this device."},
	noticeRevoked:        {Text: "That device is signed out."},
	noticeOthersRevoked:  {Text: "You are signed out on all other devices."},
	codeBadCredentials:   {Text: "Wrong username or password.", Alert: true},
	codeSessionLimit:     {Text: "You are signed in on as many devices as you may be. Sign out on one of them first.", Alert: true},
	codeNotFound:         {Text: "That device was signed out already.", Alert: true},
	codeNotSupported:     {Text: "This session store cannot do that.", Alert: true},
	codeBadRequest:       {Text: "The form could not be read.", Alert: true},
	codeTooLarge:         {Text: "That was too much text.", Alert: true},
	codeSessionTimeout:   {Text: "Your session timed out. Please sign in again.", Alert: true},
	codeSessionRevoked:   {Text: "You were signed out from another device.", Alert: true},
	codeSessionEvicted:   {Text: "You were signed out because you signed in on another device, and reached the limit.", Alert: true},
	codeSessionSignedOut: {Text: "You signed out of this session.", Alert: true},
}

func (s *server) page(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	p := page{
		Store:      s.cfg.store,
		IsPostgres: s.store != nil,
		Rule:       s.rule(),
		Notice:     notices[r.URL.Query().Get("notice")],
	}
	if u, ok := s.currentUser(ctx); !ok {
		if p.Notice.Text == "" {
			p.Notice = notices[s.whyNot(ctx)]
		}
	} else {
		p.User = &u
		if err := s.fill(ctx, &p, u, s.currentIDOrNone(r)); err != nil {
			s.internalError(w, r, "showing the page", err)
			return
		}
	}
	var body bytes.Buffer
	if err := pageTemplate.Execute(&body, p); err != nil {
		s.internalError(w, r, "showing the page", err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(body.Bytes()) //nolint:errcheck // The client is gone: nobody to tell.
}

// fill adds what only a signed-in user sees, as far as the store knows it.
func (s *server) fill(ctx context.Context, p *page, u user, current string) error {
	if s.store == nil {
		return nil
	}
	list, err := s.store.Sessions(ctx, u.Username)
	if err != nil {
		return fmt.Errorf("listing sessions: %w", err)
	}
	for _, session := range list {
		row := pageSession{
			ID: session.ID, Device: device(session.UserAgent), UserAgent: session.UserAgent,
			IP: session.IP, CreatedAt: session.CreatedAt, LastSeenAt: session.LastSeenAt,
			Current: session.ID == current,
		}
		if !row.Current {
			p.Others++
		}
		p.Sessions = append(p.Sessions, row)
	}
	if u.Operator {
		overview, err := s.store.Overview(ctx)
		if err != nil {
			return fmt.Errorf("reading the overview: %w", err)
		}
		p.Figures = figures(overview, s.store.Stat())
	}
	return nil
}

func (s *server) currentIDOrNone(r *http.Request) string {
	if s.store == nil {
		return ""
	}
	return s.currentID(r)
}

// rule says when a session ends.
func (s *server) rule() string {
	var parts []string
	if s.cfg.idleTimeout > 0 {
		parts = append(parts, "after "+plain(s.cfg.idleTimeout)+" without a request")
	}
	parts = append(parts, plain(s.cfg.lifetime)+" after its sign-in")
	rule := "A session ends " + strings.Join(parts, ", and in any case ") + "."
	if s.store == nil || s.cfg.limit == 0 {
		return rule
	}
	rule += " You can be signed in on " + devices(s.cfg.limit) + " at once; "
	switch s.cfg.policy {
	case pgstore.Reject:
		return rule + "beyond that, a sign-in is refused."
	case pgstore.EvictLeastRecent:
		return rule + "beyond that, a sign-in ends the session unused for longest."
	default:
		return rule + "beyond that, a sign-in ends the oldest session."
	}
}

func figures(o pgstore.Overview, stat pgstore.Stat) []figure {
	about := ""
	if o.Estimated {
		about = "about "
	}
	oldest := "none"
	if !o.OldestExpired.IsZero() {
		oldest = o.OldestExpired.UTC().Format("2 Jan 2006 15:04:05 UTC")
	}
	count := func(n int64) string { return strconv.FormatInt(n, 10) }
	return []figure{
		{"Live sessions", about + count(o.Live)},
		{"Signed in", about + count(o.SignedIn)},
		{"Users signed in", about + count(o.Users)},
		{"Expired, not swept yet", about + count(o.Expired)},
		{"Oldest of those", oldest},
		{"Reads", count(stat.Finds)},
		{"Reads that found no live session", count(stat.Misses)},
		{"Writes of data", count(stat.Writes)},
		{"Writes of the last-seen time only", count(stat.Touches)},
		{"Requests that needed no write", count(stat.Skips)},
		{"Sign-ins and renewals", count(stat.SignIns)},
		{"Sign-ins refused at the limit", count(stat.Refusals)},
		{"Sessions ended at the limit", count(stat.Evictions)},
		{"Sessions signed out, revoked or renewed", count(stat.Ended)},
		{"Late writes dropped", count(stat.Dropped)},
		{"Overlapping writes", count(stat.Conflicts)},
		{"Overlapping writes merged", count(stat.Merges)},
		{"Database retries", count(stat.Retries)},
		{"Unreadable rows", count(stat.BadRows)},
	}
}

// plain is a duration without its empty parts: 30m, where String says 30m0s.
func plain(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func devices(n int) string {
	if n == 1 {
		return "1 device"
	}
	return strconv.Itoa(n) + " devices"
}
