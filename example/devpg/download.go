package devpg

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"

	"github.com/scspg/scspg/internal/pgtest/pglocal"
)

// Download downloads PostgreSQL's programs, which it keeps for the next time, and starts
// a private cluster from them, through fergusstrange/embedded-postgres. It does not work
// as root. The library cannot be interrupted: if ctx ends during the start, it is undone
// in the background or, if the process exits first, by a watchdog.
func Download(opts ...Option) Source {
	o := collect(opts)
	return Source{
		name:  "a download of PostgreSQL",
		hint:  "run it as a user other than root, with access to Maven Central",
		start: func(ctx context.Context) (*Server, error) { return startDownload(ctx, o) },
	}
}

// download is a private folder and the server that the library runs in it.
type download struct {
	dir      string
	watchdog *pglocal.Watchdog
	server   *embeddedpostgres.EmbeddedPostgres
}

func startDownload(ctx context.Context, o options) (_ *Server, err error) {
	if os.Geteuid() == 0 {
		return nil, errors.New("we are root, and the downloaded server would be")
	}
	port, err := pglocal.FreePort(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", pglocal.Prefix)
	if err != nil {
		return nil, err
	}
	d := &download{dir: dir}
	if d.watchdog, err = pglocal.Watch(dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	password := rand.Text()
	d.server = embeddedpostgres.NewDatabase(downloadConfig(dir, port, password, o))
	if err := d.start(ctx); err != nil {
		return nil, err
	}
	return &Server{
		DSN:    pglocal.DSN(password, net.JoinHostPort("127.0.0.1", strconv.Itoa(port))),
		Source: "a downloaded PostgreSQL",
		stop:   func(context.Context) error { return d.stop() },
	}, nil
}

func downloadConfig(dir string, port int, password string, o options) embeddedpostgres.Config {
	parameters := map[string]string{"listen_addresses": "127.0.0.1"}
	for _, s := range o.settings {
		name, value, _ := strings.Cut(s, "=")
		parameters[name] = value
	}
	return embeddedpostgres.DefaultConfig().
		Port(uint32(port)).
		Password(password).
		RuntimePath(filepath.Join(dir, "run")).
		DataPath(filepath.Join(dir, "data")).
		StartParameters(parameters).
		StartTimeout(pglocal.StartTimeout).
		Logger(io.Discard)
}

// start returns once the server is up, or ctx has ended. It cleans up where it fails.
func (d *download) start(ctx context.Context) error {
	started := make(chan error, 1)
	go func() { started <- d.server.Start() }()
	select {
	case err := <-started:
		if err != nil {
			return errors.Join(err, d.cleanUp())
		}
		return nil
	case <-ctx.Done():
		go d.abandon(started)
		return ctx.Err()
	}
}

// abandon waits for a start that nobody wants any more, and undoes it.
func (d *download) abandon(started <-chan error) {
	if err := <-started; err != nil {
		_ = d.cleanUp()
		return
	}
	_ = d.stop()
}

func (d *download) stop() error { return errors.Join(d.server.Stop(), d.cleanUp()) }

func (d *download) cleanUp() error {
	err := errors.Join(d.watchdog.Stop(), os.RemoveAll(d.dir))
	if name := logName(d.server); name != "" {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// logName is the file that the library logs to, which it never removes, and whose name
// it does not tell: it is looked up among the library's own fields. It is "" where those
// are no longer as they were, or there is no file.
func logName(server *embeddedpostgres.EmbeddedPostgres) string {
	v := reflect.ValueOf(server)
	for _, field := range []string{"syncedLogger", "file", "file", "name"} { // the last two of os.File
		if v = reflect.Indirect(v); v.Kind() != reflect.Struct {
			return ""
		}
		v = v.FieldByName(field)
	}
	if v.Kind() != reflect.String || !strings.HasPrefix(filepath.Base(v.String()), "embedded_postgres_log") {
		return ""
	}
	return v.String()
}
