package integration_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

const userKey = "userID"

// device is a browser of an app on a store. What it does is a request each.
type device struct {
	t     testing.TB
	store *pgstore.Store
	sm    *scs.SessionManager
	token string
}

func newStore(t testing.TB, pool *pgxpool.Pool, cfg pgstore.Config) *pgstore.Store {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	if cfg.MaxBatch == 0 && pgtest.Citus() {
		cfg.MaxBatch = 1
	}
	store, err := pgstore.New(pool, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func newDevice(t testing.TB, store *pgstore.Store) *device {
	d := &device{t: t, store: store, sm: scs.New()}
	d.sm.Store, d.sm.Codec = store, pgstore.Codec{UserKey: userKey}
	d.sm.IdleTimeout = 30 * time.Minute
	return d
}

// request serves f, and returns its error, or that of loading or saving the session.
func (d *device) request(f func(context.Context) error) (err error) {
	d.sm.ErrorFunc = func(_ http.ResponseWriter, _ *http.Request, e error) { err = errors.Join(err, e) }
	h := d.store.Track(d.sm.LoadAndSave(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { err = f(r.Context()) })))
	r, w := httptest.NewRequestWithContext(d.t.Context(), http.MethodGet, "/", nil), httptest.NewRecorder()
	r.AddCookie(&http.Cookie{Name: d.sm.Cookie.Name, Value: d.token})
	h.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		d.token = c.Value
	}
	return err
}

// must is a request that has to succeed.
func (d *device) must(f func(context.Context) error) {
	d.t.Helper()
	if err := d.request(f); err != nil {
		d.t.Error(err)
	}
}

func (d *device) signIn(user string) {
	d.t.Helper()
	d.must(func(ctx context.Context) error { return d.store.SignIn(ctx, d.sm, user) })
}

func (d *device) put(key, value string) {
	d.t.Helper()
	d.must(func(ctx context.Context) error { d.sm.Put(ctx, key, value); return nil })
}

// user is who is signed in, as the app sees it.
func (d *device) user() (user string) {
	d.t.Helper()
	d.must(func(ctx context.Context) error { user = d.sm.GetString(ctx, userKey); return nil })
	return user
}
