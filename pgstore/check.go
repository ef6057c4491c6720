package pgstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/scspg/scspg/internal/pgfault"
	"github.com/scspg/scspg/pgstore/internal/db"
)

// Check reports whether the store can work: for the start of an app, and for readiness probes.
// It returns nil if the server answers and takes writes, the tables are there with all columns
// of this release, and the role has every privilege that the store uses. Otherwise the error
// names all that is wrong, and the commands that mend it; one that comes from the server or the
// way to it unwraps to its cause. It holds no password, but names of hosts, roles and schemas:
// log it, and do not show it to everybody.
//
// Check reads the system catalog alone, in one round trip, within Config.Timeout.
func (s *Store) Check(ctx context.Context) error {
	var f db.Faults
	err := s.do(ctx, "check", func(ctx context.Context) (err error) {
		f, err = s.db.Check(ctx)
		return err
	})
	if err != nil {
		return err
	}
	var faults []string
	switch {
	case f.Standby:
		faults = append(faults, "the server is a standby: connect to the primary, for instance with target_session_attrs=read-write in the DSN")
	case f.ReadOnly:
		faults = append(faults, "the server takes no writes from here: set default_transaction_read_only to off where it is on, "+
			"in the DSN, by ALTER ROLE or ALTER DATABASE, or for the whole server")
	}
	where, up := "the search_path (Config.Schema is not set)", "migrations.Up or, where your app's go.mod is, "+pgfault.Goose
	if s.cfg.Schema != "" {
		where, up = fmt.Sprintf("the schema %q", s.cfg.Schema), fmt.Sprintf("migrations.Up with migrations.Schema(%q)", s.cfg.Schema)
	}
	switch {
	case f.NoSchema && s.cfg.Schema != "":
		faults = append(faults, "there is no schema of the name in Config.Schema: correct it, or run "+up+", which creates it")
	case f.NoSchema:
		faults = append(faults, "no schema of the search_path exists that the role may use: set Config.Schema, or run CREATE SCHEMA and "+up)
	case len(f.Missing) > 0:
		faults = append(faults, "missing in "+where+": "+strings.Join(f.Missing, ", ")+": run "+up)
	}
	if len(f.Grants) > 0 {
		faults = append(faults, "the role lacks privileges: run as the owner of the tables: "+strings.Join(f.Grants, "; "))
	}
	if len(faults) == 0 {
		return nil
	}
	return errors.New("pgstore: check: " + strings.Join(faults, "; and "))
}
