package devpg

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"

	"github.com/scspg/scspg/internal/pgtest/pglocal"
)

// newDownload fetches from the server at url.
func newDownload(t *testing.T, url string) (d *download, tmp string) {
	t.Helper()
	tmp = t.TempDir()
	t.Setenv("TMPDIR", tmp)
	dir := filepath.Join(tmp, "devpg-test")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w, err := pglocal.Watch(dir)
	if err != nil {
		t.Fatal(err)
	}
	port, err := pglocal.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	config := downloadConfig(dir, port, "secret", options{}).BinaryRepositoryURL(url).CachePath(t.TempDir())
	return &download{dir: dir, watchdog: w, server: embeddedpostgres.NewDatabase(config)}, tmp
}

func entries(t *testing.T, dir string) int {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	return len(left)
}

func TestDownloadThatFailsLeavesNothing(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	d, tmp := newDownload(t, "http://"+nobody.Addr().String())
	if err := d.start(t.Context()); err == nil {
		t.Fatal("no error")
	}
	if n := entries(t, tmp); n > 0 {
		t.Errorf("it left %d files", n)
	}
}

// A start that takes long must not hold up Ctrl-C, and cleans up once it ends.
func TestDownloadGivesUpWithItsContext(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-release
		w.WriteHeader(http.StatusNotFound)
	}))
	defer srv.Close()
	d, tmp := newDownload(t, srv.URL)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if err := d.start(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	close(release)
	for deadline := time.Now().Add(time.Minute); entries(t, tmp) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it left files")
		}
	}
}
