package pgstore_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgfault"
	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/migrations"
	"github.com/scspg/scspg/pgstore"
)

// checked wants the error of Check to say all that is wanted; of nothing, that there is none.
func checked(t *testing.T, store *pgstore.Store, want ...string) string {
	t.Helper()
	err := store.Check(t.Context())
	if len(want) == 0 {
		if err != nil {
			t.Errorf("all is well, and it says %v", err)
		}
		return ""
	}
	if err == nil || !strings.HasPrefix(err.Error(), "pgstore: check: ") {
		t.Fatalf("%v, want %q", err, want)
	}
	for _, part := range want {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v, want %q", err, part)
		}
	}
	return err.Error()
}

func TestCheckTakesOneRoundTripInEveryMode(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			var gate pgtest.Gate
			schema := pgtest.Schema(t)
			migrate(t, pgtest.PoolIn(t, schema))
			pool := pgtest.PoolIn(t, schema, pgtest.ExecMode(mode), gate.Option())
			for _, cfg := range []pgstore.Config{{}, {Schema: schema}} {
				gate.Shut(t)
				gate.Open()
				checked(t, newStore(t, pool, cfg))
				if trips := gate.Trips(); len(trips) != 1 {
					t.Errorf("%d trips", len(trips))
				}
			}
			checked(t, newStore(t, pool, pgstore.Config{Schema: "No such Schema"}), `migrations.Schema("No such Schema")`)
			pgtest.Exec(t, pool, `DROP TABLE scs_users`)
			checked(t, newStore(t, pool, pgstore.Config{}), "scs_users")
		})
	}
}

func TestCheckSaysHowToMigrate(t *testing.T) {
	t.Parallel()
	empty := pgtest.Pool(t)
	schema := schemaOf(t, empty)
	checked(t, newStore(t, empty, pgstore.Config{}), "missing in the search_path", "scs_sessions, scs_user_sessions, scs_users:", "run migrations.Up", pgfault.Goose)
	checked(t, newStore(t, empty, pgstore.Config{Schema: schema}), `missing in the schema "`+schema+`"`, `run migrations.Up with migrations.Schema("`+schema+`")`)
	checked(t, newStore(t, empty, pgstore.Config{Schema: "no_such_schema"}), "no schema of the name in Config.Schema", `migrations.Schema("no_such_schema"), which creates it`)
	checked(t, newStore(t, pgtest.PoolIn(t, "no_such_schema"), pgstore.Config{}), "no schema of the search_path", "CREATE SCHEMA", "Config.Schema", pgfault.Goose)

	// The release before the last one; and what Check asks for is what migrates it.
	pool := pgtest.Pool(t)
	store := newStore(t, pool, pgstore.Config{})
	for _, step := range []func(context.Context, *pgxpool.Pool, ...migrations.Option) error{migrations.Up, migrations.Down} {
		if err := step(t.Context(), pool); err != nil {
			t.Fatal(err)
		}
	}
	if text := checked(t, store, "missing in the search_path (Config.Schema is not set): scs_user_sessions.label: run migrations.Up"); strings.Contains(text, "scs_users") {
		t.Error(text)
	}
	if err := migrations.Up(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	checked(t, store)
}

func schemaOf(t *testing.T, pool *pgxpool.Pool) string {
	return pgtest.Query[string](t, pool, `SELECT current_schema()`)
}

// The role has nothing at first. What the error says is run as it stands, and is enough for all
// that the store does.
func TestCheckNamesAllMissingGrantsAtOnce(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"plain", "My-Schema", `we"ird; schema`, "in the path"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			admin := pgtest.Pool(t)
			role, schema := strings.Replace(schemaOf(t, admin), "t_", `R"o le_`, 1), schemaOf(t, admin)
			cfg := pgstore.Config{}
			if name == "in the path" {
				migrate(t, admin)
			} else {
				schema = name + " " + schema
				cfg.Schema = schema
				if err := migrations.Up(t.Context(), admin, migrations.Schema(schema)); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { pgtest.Exec(t, admin, `DROP SCHEMA `+pgx.Identifier{schema}.Sanitize()+` CASCADE`) })
			}
			quoted := pgx.Identifier{role}.Sanitize()
			pgtest.Exec(t, admin, `CREATE ROLE `+quoted+` LOGIN PASSWORD 'verysecret'`)
			t.Cleanup(func() {
				pgtest.Exec(t, admin, `DROP OWNED BY `+quoted)
				pgtest.Exec(t, admin, `DROP ROLE `+quoted)
			})
			pool := pgtest.PoolIn(t, schema, func(c *pgxpool.Config) { c.ConnConfig.User, c.ConnConfig.Password = role, "verysecret" })
			store := newStore(t, pool, cfg)
			text := checked(t, store, "GRANT USAGE ON SCHEMA", "GRANT INSERT, SELECT, UPDATE ON ", "GRANT DELETE, INSERT, SELECT, UPDATE ON ", quoted)
			_, grants, _ := strings.Cut(text, "run as the owner of the tables: ")
			pgtest.Exec(t, admin, grants, pgx.QueryExecModeSimpleProtocol)
			checked(t, store)
			everything(t, pool, cfg)

			pgtest.Exec(t, admin, `REVOKE UPDATE ON `+pgx.Identifier{schema, "scs_users"}.Sanitize()+` FROM `+quoted)
			if text := checked(t, store, "GRANT UPDATE ON "); strings.Count(text, "GRANT") != 1 {
				t.Error(text)
			}
		})
	}
}

func TestCheckSaysThatTheServerTakesNoWrites(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	admin := pgtest.PoolIn(t, schema)
	migrate(t, admin)
	readOnly := newStore(t, pgtest.PoolIn(t, schema, pgtest.Param("default_transaction_read_only", "on")), pgstore.Config{})
	checked(t, readOnly, "takes no writes", "default_transaction_read_only", "ALTER ROLE")
	pgtest.Exec(t, admin, `DROP TABLE scs_users`)
	checked(t, readOnly, "default_transaction_read_only", "; and missing in the search_path", "scs_users", "migrations.Up") // all that is wrong
	// A standby says so of itself.
	pgtest.Exec(t, admin, `CREATE FUNCTION pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true'`)
	standby := newStore(t, pgtest.PoolIn(t, schema, pgtest.Param("search_path", `"`+schema+`", pg_catalog`)), pgstore.Config{})
	checked(t, standby, "the server is a standby", "target_session_attrs=read-write")
}

func TestCheckOfAServerThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	gone := newStore(t, pgtest.PoolOn(t, "postgres://u:verysecret@127.0.0.1:1/db", ""), pgstore.Config{Timeout: time.Minute})
	err := gone.Check(t.Context())
	if _, ok := errors.AsType[*pgconn.ConnectError](err); !ok || !strings.HasPrefix(err.Error(), "pgstore: check: ") || strings.Contains(err.Error(), "verysecret") {
		t.Error(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") // it accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	silent := newStore(t, pgtest.PoolOn(t, "postgres://u:verysecret@"+listener.Addr().String()+"/db", ""), pgstore.Config{Timeout: 50 * time.Millisecond})
	if err := silent.Check(t.Context()); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "Config.Timeout (50ms)") || strings.Contains(err.Error(), "verysecret") {
		t.Error(err)
	}
}
