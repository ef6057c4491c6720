package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// relay is a process of its own, so that its work is not taken for the app's: a TCP
// proxy that makes the round trip to a server longer. It outlives an interrupt, since
// what follows one goes through it, too.
type relay struct {
	cmd   *exec.Cmd
	stdin io.Closer // closed, also by our death, it ends the relay
	addr  string
}

func startRelay(ctx context.Context, rtt time.Duration, network, target string) (*relay, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, relayCommand, rtt.String(), network, target)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &relay{cmd: cmd, stdin: stdin}
	if _, err := fmt.Fscan(stdout, &r.addr); err != nil {
		return nil, errors.Join(fmt.Errorf("relay: %w", err), r.stop())
	}
	return r, nil
}

func (r *relay) stop() error {
	r.stdin.Close()
	return r.cmd.Wait()
}

// withRTT runs f while the pools that are made have a longer round trip to their servers.
func (b *bench) withRTT(ctx context.Context, rtt time.Duration, f func(note string) error) (err error) {
	if rtt == 0 {
		return f("")
	}
	direct, err := b.ping(ctx)
	if err != nil {
		return err
	}
	config, err := pgconn.ParseConfig(b.postgres.DSN)
	if err != nil {
		return err
	}
	network, target := pgconn.NetworkAddress(config.Host, config.Port)
	if b.relay, err = startRelay(ctx, rtt, network, target); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.relay.stop()); b.relay = nil }()
	if b.redis != nil {
		if b.redis.relay, err = startRelay(ctx, rtt, "tcp", b.redis.addr); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.redis.relay.stop()); b.redis.relay = nil }()
	}
	relayed, err := b.ping(ctx)
	if err != nil {
		return err
	}
	return f(fmt.Sprintf("On an idle connection it is %v, and %v without the relay.\n\n", short(relayed), short(direct)))
}

// ping is how long a round trip to PostgreSQL takes on an idle connection.
func (b *bench) ping(ctx context.Context) (time.Duration, error) {
	pool, err := b.pool(ctx, "", 1)
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	times := make([]time.Duration, 500)
	for i := range times {
		start := time.Now()
		if err := pool.Ping(ctx); err != nil {
			return 0, err
		}
		times[i] = time.Since(start)
	}
	return middle(times), nil
}

const relayCommand = "relay"

// handing is about what a piece costs in the relay besides its delay: two more hops.
const handing = 40 * time.Microsecond

// serveRelay is what the relay's process does: its arguments are the time, and where to.
func serveRelay(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("relay: three arguments, please")
	}
	rtt, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		l.Close()
	}()
	fmt.Println(l.Addr())
	for {
		near, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		far, err := (&net.Dialer{}).DialContext(ctx, args[1], args[2])
		if err != nil {
			near.Close() // as the server would
			continue
		}
		go forward(far, near, rtt/2-handing)
		go forward(near, far, rtt/2-handing)
	}
}

// forward hands on what it reads, each piece after the same delay: while one waits, the
// next are read, so that no throughput is lost.
func forward(to, from net.Conn, delay time.Duration) {
	type piece struct {
		due  time.Time
		data []byte
	}
	pieces := make(chan piece, 256)
	go func() {
		defer close(pieces)
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				pieces <- piece{time.Now().Add(delay), bytes.Clone(buf[:n])}
			}
			if err != nil {
				return
			}
		}
	}()
	alarm, err := newAlarm()
	defer alarm.close()
	for p := range pieces {
		if err == nil {
			err = alarm.wait(p.due)
		}
		if err == nil {
			_, err = to.Write(p.data)
		}
		if err != nil {
			from.Close() // and let the reader come to its end
		}
	}
	to.Close()
}
