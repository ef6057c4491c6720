package migrations_test

import (
	"context"
	"fmt"
	"io/fs"
	"log"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/migrations"
)

// At the start of an app, in any number of instances.
func ExampleUp() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Print(err)
		return
	}
	defer pool.Close()
	if err := migrations.Up(ctx, pool, migrations.Schema("sessions")); err != nil {
		log.Print(err)
	}
}

// What a deployment would change.
func ExampleStatus() {
	var pool *pgxpool.Pool
	list, err := migrations.Status(context.Background(), pool)
	if err != nil {
		log.Print(err)
		return
	}
	for _, m := range list {
		fmt.Println(m.Version, m.Name, m.Applied)
	}
}

// The files, for a goose.Provider of your own: give it VersionTable as well.
func ExampleFS() {
	files, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(files[0], "recorded in", migrations.VersionTable)
	// Output: 00001_create_sessions.sql recorded in scspg_goose_db_version
}
