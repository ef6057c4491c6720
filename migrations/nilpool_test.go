package migrations

import "testing"

func TestANilPoolIsAnError(t *testing.T) {
	ctx := t.Context()
	_, versionErr := Version(ctx, nil)
	_, statusErr := Status(ctx, nil)
	for op, err := range map[string]error{"up": Up(ctx, nil), "down": Down(ctx, nil), "version": versionErr, "status": statusErr} {
		if want := "migrations: " + op + ": the pool is nil"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
