package pgstore

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

func TestNewValidatesConfig(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), "postgres://127.0.0.1:1/none") // connects on first use only
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // in the error; "" for none
	}{
		{"zero value", Config{}, ""},
		{"everything set", Config{UserLimit: 5, LimitPolicy: Reject, TouchAfter: time.Second, Timeout: time.Second, MaxBatch: 1, Notify: true, Schema: "My-Schema"}, ""},
		{"negative limit", Config{UserLimit: -1}, "Config.UserLimit is -1"},
		{"unknown policy", Config{LimitPolicy: 3}, "Config.LimitPolicy is 3"},
		{"negative policy", Config{LimitPolicy: -1}, "Config.LimitPolicy is -1"},
		{"negative touch", Config{TouchAfter: -time.Second}, "Config.TouchAfter is -1s"},
		{"negative timeout", Config{Timeout: -time.Second}, "Config.Timeout is -1s"},
		{"negative batch", Config{MaxBatch: -1}, "Config.MaxBatch is -1"},
		{"long schema", Config{Schema: strings.Repeat("s", 64)}, "Config.Schema has 64 bytes"},
		{"schema of 63 bytes", Config{Schema: strings.Repeat("s", 63)}, ""},
		{"NUL in schema", Config{Schema: "a\x00b"}, "NUL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(pool, tt.cfg)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	if _, err := New(nil, Config{}); err == nil {
		t.Error("a nil pool was accepted")
	}
}

func TestConfigTouchAfter(t *testing.T) {
	for _, tt := range []struct {
		name                  string
		set, window, expected time.Duration
	}{
		{"5% by default", 0, 10 * time.Minute, 30 * time.Second},
		{"at most a minute by default", 0, 24 * time.Hour, time.Minute},
		{"as set", 10 * time.Second, time.Hour, 10 * time.Second},
		{"never more than half the window", time.Hour, time.Minute, 30 * time.Second},
	} {
		cfg := Config{TouchAfter: tt.set}
		if got := cfg.touchAfter(tt.window); got != tt.expected {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.expected)
		}
	}
}

func TestConfigLimitOf(t *testing.T) {
	boom := errors.New("boom")
	limits := func(_ context.Context, user string) (int, error) {
		switch user {
		case "broken":
			return 0, boom
		case "negative":
			return -1, nil
		default:
			return len(user), nil
		}
	}
	cfg := Config{UserLimit: 9, UserLimitFunc: limits}
	if n, err := cfg.limitOf(t.Context(), "bob"); n != 3 || err != nil {
		t.Errorf("limit %d, %v: the function takes precedence", n, err)
	}
	if _, err := cfg.limitOf(t.Context(), "broken"); !errors.Is(err, boom) {
		t.Errorf("error %v does not unwrap to the function's", err)
	}
	if _, err := cfg.limitOf(t.Context(), "negative"); err == nil {
		t.Error("a negative limit was accepted")
	}
	if (&Config{}).limited() || !cfg.limited() || !(&Config{UserLimit: 1}).limited() {
		t.Error("limited is wrong")
	}
}
