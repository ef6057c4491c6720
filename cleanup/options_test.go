package cleanup

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestOptions(t *testing.T) {
	o, err := Options{}.withDefaults()
	if err != nil || o.Batch != DefaultBatch || o.Grace != DefaultGrace || o.StatementTimeout != DefaultStatementTimeout ||
		o.LockTimeout != DefaultLockTimeout || o.Logger == nil || o.Pause != 0 || o.MaxDuration != 0 || o.MaxRows != 0 {
		t.Errorf("%+v, %v", o, err)
	}
	for want, o := range map[string]Options{
		"Options.Batch is -1":                                           {Batch: -1},
		"Options.Batch is 100001":                                       {Batch: 100_001},
		"Options.Pause is -1ns":                                         {Pause: -1},
		"Options.Grace is -1h0m0s":                                      {Grace: -time.Hour},
		"Options.MaxDuration is -1ns":                                   {MaxDuration: -1},
		"Options.MaxRows is -1":                                         {MaxRows: -1},
		"Options.StatementTimeout is -1s":                               {StatementTimeout: -time.Second},
		"Options.LockTimeout is -1s":                                    {LockTimeout: -time.Second},
		"Options.StatementTimeout is 596h31m23.648s: PostgreSQL allows": {StatementTimeout: MaxTimeout + time.Millisecond},
		"Options.LockTimeout is 2562047h47m16.854775807s: PostgreSQL":   {LockTimeout: math.MaxInt64},
		"Options.Schema has 64 bytes":                                   {Schema: strings.Repeat("s", 64)},
		"Options.Schema contains a NUL":                                 {Schema: "a\x00b"},
	} {
		if _, err := o.withDefaults(); err == nil || !strings.HasPrefix(err.Error(), "cleanup: "+want) {
			t.Errorf("%s: %v", want, err)
		}
		if _, err := Sweep(t.Context(), nil, o); err == nil {
			t.Errorf("%s: swept", want)
		}
		if err := Every(t.Context(), nil, time.Hour, o); err == nil {
			t.Errorf("%s: swept every hour", want)
		}
	}
}

func TestSchemasAreQuoted(t *testing.T) {
	s := newStatements(`a"b`)
	for _, sql := range []string{s.list, s.delete, s.deleteFree, s.listIDs, s.deleteIDs, s.left, s.dryRun, s.byAge, s.probes[0], s.deleteProbes[0]} {
		if !strings.Contains(sql, `"a""b"."scs_sessions"`) || strings.Contains(sql, "{") {
			t.Errorf("%s", sql)
		}
	}
}

// Whatever deletes or counts goes by the one rule.
func TestTheRuleIsInEveryStatement(t *testing.T) {
	s := newStatements("")
	for _, sql := range []string{s.list, s.delete, s.deleteFree, s.listIDs, s.deleteIDs, s.left, s.dryRun, s.byAge} {
		if !strings.Contains(sql, due) {
			t.Errorf("not in %s", sql)
		}
	}
	if strings.Count(s.deleteFree, due) != 2 { // on what is locked, and on what is deleted
		t.Errorf("%s", s.deleteFree)
	}
}

func TestPlacesAsAnArray(t *testing.T) {
	if got := arrayOf([]string{"(0,1)", "(23,4)"}); got != `{"(0,1)","(23,4)"}` {
		t.Error(got)
	}
	if got := arrayOf(nil); got != "{}" {
		t.Error(got)
	}
}

// The first ones wait as long as they were told; those after them would make it hours.
func TestWaitsForLocksBecomeShort(t *testing.T) {
	s := &sweep{Options: Options{StatementTimeout: time.Minute, LockTimeout: 5 * time.Second}}
	if got := s.settings(); got[0] != "60000" || got[1] != "5000" {
		t.Errorf("%v", got)
	}
	s.hasty = true
	if got := s.settings(); got[0] != "60000" || got[1] != "50" {
		t.Errorf("%v", got)
	}
}

func TestSettingsAreNeverUnlimited(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "1", time.Nanosecond: "1", time.Second: "1000", 1500 * time.Microsecond: "1"} {
		if got := milliseconds(d); got != want {
			t.Errorf("%v: %s", d, got)
		}
	}
}

func TestUnknownReasons(t *testing.T) {
	var r Result
	for _, reason := range []string{"signed_out", "revoked", "evicted", "renewed"} {
		if err := r.count(&reason); err != nil {
			t.Error(err)
		}
	}
	if err := r.count(nil); err != nil || r.Rows() != 5 {
		t.Errorf("%v, %v", r, err)
	}
	// From a later release: what was counted so far must not be lost to a panic.
	if unknown := "teleported"; r.count(&unknown) == nil {
		t.Error("counted")
	}
}
