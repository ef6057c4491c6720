package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/pgstore"
)

// The whole set-up: at most five sessions a user, the rest as scs has it.
func Example() {
	pool, err := pgxpool.New(context.Background(), os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	store, err := pgstore.New(pool, pgstore.Config{UserLimit: 5})
	if err != nil {
		log.Fatal(err)
	}
	sm := scs.New()
	sm.Store = store
	sm.Codec = pgstore.Codec{UserKey: "userID"}
	sm.IdleTimeout = 30 * time.Minute
	sm.Cookie.Persist = false // or the browser drops the cookie at the timeout, and nobody can be told why

	mux := http.NewServeMux()
	mux.HandleFunc("GET /me", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, sm.GetString(r.Context(), "userID"))
	})
	log.Print(http.ListenAndServe("127.0.0.1:8080", store.Track(sm.LoadAndSave(mux))))
}

// At start-up an app that cannot work says so and stops; a readiness probe keeps requests away.
func ExampleStore_Check() {
	var store *pgstore.Store

	if err := store.Check(context.Background()); err != nil {
		log.Fatal(err) // it says which command to run
	}
	http.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := store.Check(r.Context()); err != nil {
			log.Print(err)
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	})
}

// A login handler, where the limit refuses instead of evicting.
func ExampleStore_SignIn() {
	var store *pgstore.Store // with Config.LimitPolicy = pgstore.Reject
	var sm *scs.SessionManager

	http.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		userID := "alice" // once the password has been checked
		switch err := store.SignIn(r.Context(), sm, userID); {
		case errors.Is(err, pgstore.ErrUserLimit):
			http.Error(w, "signed in on too many devices", http.StatusConflict)
		case errors.Is(err, pgstore.ErrEnded):
			http.Error(w, "signed out meanwhile, try again", http.StatusConflict)
		case err != nil:
			http.Error(w, "cannot sign in", http.StatusInternalServerError)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
}

// A page that lists where its user is signed in.
func ExampleStore_Sessions() {
	var store *pgstore.Store
	var sm *scs.SessionManager

	http.HandleFunc("GET /devices", func(w http.ResponseWriter, r *http.Request) {
		userID := sm.GetString(r.Context(), "userID")
		if userID == "" {
			http.Error(w, "sign in first", http.StatusUnauthorized)
			return
		}
		sessions, err := store.Sessions(r.Context(), userID)
		if err != nil {
			http.Error(w, "cannot list sessions", http.StatusInternalServerError)
			return
		}
		current := store.StatusOf(r.Context()).ID
		for _, s := range sessions {
			fmt.Fprintln(w, s.ID == current, s.IP, s.UserAgent, s.LastSeenAt.Format(time.RFC3339))
		}
	})
}

// After a change of password, sign the user out everywhere else.
func ExampleStore_RevokeOthers() {
	var store *pgstore.Store
	var sm *scs.SessionManager

	http.HandleFunc("POST /password", func(w http.ResponseWriter, r *http.Request) {
		userID := sm.GetString(r.Context(), "userID") // requires a signed-in user
		// ... check the old password and store the new one, then:
		n, err := store.RevokeOthers(r.Context(), userID, sm.Token(r.Context()))
		switch {
		case errors.Is(err, pgstore.ErrNotLive):
			http.Error(w, "you were signed out from another device", http.StatusUnauthorized)
		case err != nil:
			http.Error(w, "cannot sign the other devices out", http.StatusInternalServerError)
		default:
			fmt.Fprintf(w, "%d other devices signed out\n", n)
		}
	})
}

// Telling a visitor why the session is gone.
func ExampleStore_StatusOf() {
	var store *pgstore.Store

	http.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		switch st := store.StatusOf(r.Context()); {
		case st.State == pgstore.Expired:
			fmt.Fprintln(w, "You were away for too long.")
		case st.EndReason == pgstore.Revoked:
			fmt.Fprintln(w, "You were signed out from another device.")
		case st.EndReason == pgstore.Evicted:
			fmt.Fprintln(w, "You signed in on another device, and this one was the oldest.")
		case st.State == pgstore.Active:
			fmt.Fprintf(w, "%.0f minutes left\n", st.Remaining.Minutes())
		default:
			fmt.Fprintln(w, "Please sign in.")
		}
	})
}

// A page that only those who have just typed their password may see.
func ExampleStore_SignedInAt() {
	var store *pgstore.Store

	http.HandleFunc("POST /email", func(w http.ResponseWriter, r *http.Request) {
		switch at, err := store.SignedInAt(r.Context()); {
		case err != nil:
			http.Error(w, "cannot tell when you signed in", http.StatusInternalServerError)
		case time.Since(at) > 10*time.Minute: // also if nobody is signed in
			http.Redirect(w, r, "/login?next=/email", http.StatusSeeOther) // where SignIn makes it recent
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
}

// A user gives one of his devices another name.
func ExampleStore_Rename() {
	var store *pgstore.Store
	var sm *scs.SessionManager

	http.HandleFunc("PATCH /devices/{id}", func(w http.ResponseWriter, r *http.Request) {
		userID := sm.GetString(r.Context(), "userID") // requires a signed-in user
		switch renamed, err := store.Rename(r.Context(), userID, r.PathValue("id"), r.FormValue("name")); {
		case err != nil:
			http.Error(w, "cannot rename the device", http.StatusInternalServerError)
		case !renamed:
			http.NotFound(w, r)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
}

// A sign-in whose method the user's list will show.
func ExampleWithLabel() {
	var store *pgstore.Store
	var sm *scs.SessionManager

	http.HandleFunc("POST /login/passkey", func(w http.ResponseWriter, r *http.Request) {
		if err := store.SignIn(pgstore.WithLabel(r.Context(), "passkey"), sm, "alice"); err != nil {
			http.Error(w, "cannot sign in", http.StatusInternalServerError)
		}
	})
}

// A poll must not keep its session alive.
func ExampleNoTouch() {
	http.HandleFunc("GET /notifications", func(w http.ResponseWriter, r *http.Request) {
		pgstore.NoTouch(r.Context()) // marks the request, which runs under Track
		fmt.Fprintln(w, "[]")
	})
}

// What is stored of a session comes back with its Go types.
func ExampleCodec() {
	codec := pgstore.Codec{UserKey: "userID"}
	deadline := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	stored, err := codec.Encode(deadline, map[string]any{"userID": 42, "seen": 90 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	until, values, err := codec.Decode(stored)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("until", until)
	fmt.Printf("%T %v, %T %v\n", values["userID"], values["userID"], values["seen"], values["seen"])
	// Output:
	// until 2026-01-31 12:00:00 +0000 UTC
	// int 42, time.Duration 1m30s
}

// A session's id may be logged: it does not lead to the token.
func ExampleIDOf() {
	fmt.Println(pgstore.IDOf("kGz6-JCTTvKGTQTRxvw_CzIuMeVhhFSWlUKGLj3Oyw4"))
	// Output: e681609f-d0f9-2a6d-b087-3b440cdedb3f
}

// Behind two proxies, of which the first appends its client to X-Forwarded-For, and the second
// the first. What the client has sent itself is not believed.
func ExampleTrustedProxies() {
	cfg := pgstore.Config{
		UserLimit:   5,
		LimitPolicy: pgstore.EvictLeastRecent,
		ClientIP:    pgstore.TrustedProxies(netip.MustParsePrefix("10.0.0.0/8")),
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "10.0.0.2:4711"
	r.Header.Set("X-Forwarded-For", "6.6.6.6, 192.0.2.1, 10.0.0.1")
	fmt.Println(cfg.ClientIP(r))
	// Output: 192.0.2.1
}

// Behind a CDN that has its client's address in a header of its own.
func ExampleProxies() {
	cdn := pgstore.Proxies{
		Trusted: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, // as it publishes them
		Header:  "CF-Connecting-IP",
	}
	cfg := pgstore.Config{ClientIP: cdn.ClientIP}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "198.51.100.7:4711"
	r.Header.Set("CF-Connecting-IP", "2001:db8::1")
	fmt.Println(cfg.ClientIP(r))
	r.RemoteAddr = "203.0.113.9:4711" // past the CDN, with the same header
	fmt.Println(cfg.ClientIP(r))
	// Output:
	// 2001:db8::1
	// 203.0.113.9
}

// Signing out one device from a list of them.
func ExampleStore_Revoke() {
	var store *pgstore.Store
	var sm *scs.SessionManager

	http.HandleFunc("DELETE /devices/{id}", func(w http.ResponseWriter, r *http.Request) {
		userID := sm.GetString(r.Context(), "userID") // requires a signed-in user
		// Revoke ends sessions of this user only, so the id needs no check.
		switch ended, err := store.Revoke(r.Context(), userID, r.PathValue("id")); {
		case err != nil:
			http.Error(w, "cannot sign the device out", http.StatusInternalServerError)
		case !ended:
			http.NotFound(w, r)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
}

// Signing a user in outside HTTP, for instance in a gRPC handler.
func ExampleWithClient() {
	var store *pgstore.Store
	var sm *scs.SessionManager

	ctx, err := sm.Load(context.Background(), "") // a new session
	if err != nil {
		log.Print(err)
		return
	}
	ctx = pgstore.WithClient(ctx, pgstore.Client{IP: netip.MustParseAddr("192.0.2.1"), UserAgent: "myapp/1.0"})
	if err := store.SignIn(ctx, sm, "alice"); err != nil {
		log.Print(err)
		return
	}
	fmt.Println(sm.Token(ctx)) // for the client to send with its next call
}

// Walking over all sessions, in constant memory.
func ExampleStore_Each() {
	var store *pgstore.Store
	byUser := make(map[string]int)
	for sess, err := range store.Each(context.Background()) {
		if err != nil {
			log.Print(err)
			return
		}
		byUser[sess.UserID]++
	}
}

// Taking over the sessions of pgxstore, before the app serves.
func ExampleStore_Import() {
	var store *pgstore.Store
	var sm *scs.SessionManager

	sm.Store, sm.Codec = store, pgstore.Codec{UserKey: "userID"}
	r, err := store.Import(context.Background(), pgstore.ImportOptions{
		Codec:    pgstore.Codec{UserKey: "userID"},
		Lifetime: sm.Lifetime, // as it was, so that CreatedAt is when the user signed in
		Progress: func(r pgstore.ImportResult) { log.Printf("%d sessions read", r.Read) },
	})
	if err != nil {
		log.Fatalf("after %d sessions: %v", r.Read, err) // the next call goes on
	}
	log.Printf("%d imported, %d updated, %d signed out, %d unreadable", r.Imported, r.Updated, r.SignedOut, r.Unreadable)
}

// Giving sessions to their users, once a UserKey has been added to the Codec of a live app.
func ExampleStore_Reindex() {
	var store *pgstore.Store

	n, err := store.Reindex(context.Background(), pgstore.Codec{UserKey: "userID"})
	if err != nil {
		log.Print(err)
		return
	}
	log.Printf("%d sessions can be listed, limited and revoked", n)
}
