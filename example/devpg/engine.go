package devpg

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"
)

// engineTimeout is how long the engine that DOCKER_HOST names may take to answer.
const engineTimeout = 5 * time.Second

// checkEngine returns an error where DOCKER_HOST names an engine that does not answer.
// testcontainers would look for others; whoever sets it wants this one or none.
func checkEngine(ctx context.Context) error {
	host := os.Getenv("DOCKER_HOST")
	if host == "" {
		return nil
	}
	u, err := url.Parse(host)
	if err != nil {
		return fmt.Errorf("DOCKER_HOST: %w", err)
	}
	network, addr := "tcp", u.Host
	switch u.Scheme {
	case "unix":
		network, addr = "unix", u.Path
	case "tcp", "http", "https":
		if u.Port() == "" {
			addr = net.JoinHostPort(u.Hostname(), "2375")
		}
	default:
		return nil // such as ssh, which only the client can reach
	}
	dialer := net.Dialer{Timeout: engineTimeout}
	conn, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return fmt.Errorf("the engine that DOCKER_HOST names: %w", err)
	}
	return conn.Close()
}
