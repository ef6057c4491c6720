// Command example is a small web app whose sign-in sessions live in PostgreSQL,
// and a JSON API beside it. It shows pgstore at work: a user's devices, signing one
// out from another, a limit, and why a session ended.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// shutdownTimeout bounds the wait for requests in flight. Beyond it they are cut off.
const shutdownTimeout = 10 * time.Second

func main() {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup does
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, hurry := onSignals(signals)
	os.Exit(run(ctx, hurry, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// onSignals returns a context that ends with the first signal, and a channel that is
// closed with the second. More do nothing: they would leave the database behind.
func onSignals(signals []os.Signal) (context.Context, <-chan struct{}) {
	ctx, stop := context.WithCancel(context.Background())
	hurry := make(chan struct{})
	received := make(chan os.Signal, 2)
	signal.Notify(received, signals...)
	go func() {
		<-received
		stop()
		<-received
		close(hurry)
	}()
	return ctx, hurry
}

// run is main without the process around it. It returns the exit status: 0 once
// ctx has ended and everything is cleaned up, 2 for a wrong command line, 1 for
// anything else that failed. Once hurry is closed, it no longer waits for requests.
func run(ctx context.Context, hurry <-chan struct{}, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	cfg, err := parseFlags(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "example: %v\nRun it with -h to see all flags.\n", err)
		return 2
	}
	if err := serve(ctx, hurry, cfg, getenv, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "example: %v\n", err)
		return 1
	}
	return 0
}

// serve answers requests until ctx ends.
func serve(ctx context.Context, hurry <-chan struct{}, cfg config, getenv func(string) string, stdout, stderr io.Writer) (err error) {
	log := slog.New(slog.NewTextHandler(stderr, nil))

	// Before the database: where the port is taken, there is nothing to start.
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", cfg.addr)
	if err != nil {
		if ctx.Err() != nil {
			return nil // told to stop while starting
		}
		return listenError(cfg.addr, err)
	}
	defer listener.Close()

	sessions, err := openBackend(ctx, cfg, getenv, log)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer func() { err = errors.Join(err, sessions.close()) }()

	httpServer := newHTTPServer(newServer(cfg, sessions.store, log).handler(), log)
	printWelcome(stdout, listener.Addr(), cfg, sessions.where)

	failed := make(chan error, 1)
	go func() { failed <- httpServer.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	fmt.Fprintln(stdout, "Stopping (once more to cut off requests).")
	return shutDown(ctx, hurry, httpServer, log)
}

// shutDown lets requests finish until hurry is closed, or the time is up.
func shutDown(ctx context.Context, hurry <-chan struct{}, httpServer *http.Server, log *slog.Logger) error {
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	go func() {
		select {
		case <-hurry:
			cancel()
		case <-stopping.Done():
		}
	}()
	if err := httpServer.Shutdown(stopping); err != nil {
		log.Warn("requests in flight were cut off", slog.Any("error", err))
		return httpServer.Close()
	}
	return nil
}

func listenError(addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("the address %s is in use: stop what listens there, or choose another with -addr (port 0 picks a free one)", addr)
	}
	return fmt.Errorf("cannot listen on -addr %s: %w", addr, err)
}

func printWelcome(w io.Writer, addr net.Addr, cfg config, where string) {
	fmt.Fprintf(w, "Sessions: %s\n", where)
	fmt.Fprintln(w, "Demo users:")
	for _, p := range demoPasswords {
		role := ""
		if users[p.username].Operator {
			role = "   (operator)"
		}
		fmt.Fprintf(w, "  %-6s %s%s\n", p.username, p.password, role)
	}
	if cfg.secure {
		fmt.Fprintln(w, "The cookie is for HTTPS only: put a TLS proxy in front.")
	}
	fmt.Fprintf(w, "Open %s   (Ctrl-C stops)\n", pageURL(addr))
}

// pageURL is where to point a browser: a server on all addresses is reached by name.
func pageURL(addr net.Addr) string {
	host := addr.String()
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		host = fmt.Sprintf("localhost:%d", tcp.Port)
	}
	return "http://" + host
}
