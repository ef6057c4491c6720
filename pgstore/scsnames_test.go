package pgstore

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
)

// callers is a store that notes how calledToRenew sees its Delete being called.
type callers struct {
	scs.Store
	renewing []bool
}

func (c *callers) Delete(string) error {
	c.renewing = append(c.renewing, calledToRenew())
	return nil
}

func (c *callers) Find(string) ([]byte, bool, error) {
	data, err := scs.GobCodec{}.Encode(time.Now().Add(time.Hour), map[string]any{"key": "value"})
	return data, true, err
}

// ctxCallers is one that has methods with a context, as Store has.
type ctxCallers struct{ callers }

func (c *ctxCallers) DeleteCtx(context.Context, string) error { return c.Delete("") }
func (c *ctxCallers) FindCtx(_ context.Context, token string) ([]byte, bool, error) {
	return c.Find(token)
}
func (c *ctxCallers) CommitCtx(context.Context, string, []byte, time.Time) error { return nil }

// scs says by no argument why it deletes a session: the names of its methods do.
func TestScsDeletesUnderTheNamesThatDeleteKnows(t *testing.T) {
	const advice = `scs calls Store.Delete in another way than delete.go expects:
%s was taken for a renewal %v, want %t (once).
If scs has renamed or split the method, put the name under which the runtime knows the new
one (runtime.FuncForPC) into the constants at the end of delete.go. Until then every renewal
is taken for a sign-out: RenewToken and MergeSession lose a session's age, its place and what
other requests write meanwhile.`
	for name, tt := range map[string]struct {
		call func(*scs.SessionManager, context.Context) error
		want bool
	}{
		"RenewToken":   {(*scs.SessionManager).RenewToken, true},
		"MergeSession": {func(sm *scs.SessionManager, ctx context.Context) error { return sm.MergeSession(ctx, "lost") }, true},
		"Destroy":      {(*scs.SessionManager).Destroy, false},
	} {
		plain, withContext := &callers{}, &ctxCallers{}
		for store, seen := range map[scs.Store]*callers{plain: plain, withContext: &withContext.callers} {
			sm := scs.New()
			sm.Store = store
			ctx, err := sm.Load(t.Context(), "token")
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.call(sm, ctx); err != nil {
				t.Fatal(err)
			}
			if len(seen.renewing) != 1 || seen.renewing[0] != tt.want {
				t.Errorf(advice, name, seen.renewing, tt.want)
			}
		}
	}
}

// Paths are cut out of the binary, names are not.
func TestScsNamesAreTheSameWithTrimpath(t *testing.T) {
	const nested = "PGSTORE_TEST_NESTED"
	if os.Getenv(nested) != "" {
		return
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "test", "-trimpath", "-count=1", "-v", "-run", "^TestScsDeletesUnderTheNamesThatDeleteKnows$", ".")
	cmd.Env = append(os.Environ(), nested+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestScsDeletes") {
		t.Errorf("%v\n%s", err, out)
	}
}
