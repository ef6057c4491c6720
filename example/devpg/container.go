package devpg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
	"github.com/testcontainers/testcontainers-go/wait"

	"github.com/scspg/scspg/internal/pgtest/pglocal"
)

// Container starts a container through testcontainers-go. It needs a container engine,
// and the image locally or a registry to pull it from. Stop removes the container. A
// process that is killed before it calls Stop leaves a container named devpg-… behind:
// testcontainers' reaper, which would remove it, is off by default, because its own
// image would have to be pulled. Set TESTCONTAINERS_RYUK_DISABLED=false to use it.
func Container(opts ...Option) Source {
	o := collect(opts)
	return Source{
		name:  "a container of " + o.image,
		hint:  "start Docker or Podman (see DOCKER_HOST), and let it pull the image, or build one of that name",
		start: func(ctx context.Context) (*Server, error) { return startContainer(ctx, o) },
	}
}

func startContainer(ctx context.Context, o options) (_ *Server, err error) {
	if err := checkEngine(ctx); err != nil {
		return nil, err
	}
	const ryuk = "TESTCONTAINERS_RYUK_DISABLED"
	if _, set := os.LookupEnv(ryuk); !set {
		if err := os.Setenv(ryuk, "true"); err != nil {
			return nil, err
		}
	}
	log.SetDefault(quiet{})
	defer func() {
		// testcontainers panics where it finds no engine at all.
		if r := recover(); r != nil {
			err = fmt.Errorf("no container engine: %v", r)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, 2*pglocal.StartTimeout) // a pull takes its time
	defer cancel()
	name := containerPrefix + strings.ToLower(rand.Text())
	server, err := runContainer(ctx, name, o)
	if err != nil {
		return nil, errors.Join(err, removeContainer(ctx, name))
	}
	return server, nil
}

// runContainer leaves the container to its caller where it fails.
func runContainer(ctx context.Context, name string, o options) (*Server, error) {
	password := rand.Text()
	var args []string
	for _, s := range o.settings {
		args = append(args, "-c", s)
	}
	container, err := testcontainers.Run(ctx, o.image,
		testcontainers.WithName(name),
		testcontainers.WithEnv(map[string]string{"POSTGRES_USER": "postgres", "POSTGRES_PASSWORD": password, "POSTGRES_DB": "postgres"}),
		testcontainers.WithExposedPorts("5432/tcp"),
		testcontainers.WithCmd(append([]string{"postgres"}, args...)...),
		testcontainers.WithLogger(quiet{}),
		// Once while the image prepares the cluster, once for good.
		testcontainers.WithWaitStrategy(wait.ForLog("database system is ready to accept connections").WithOccurrence(2)),
	)
	if err != nil {
		return nil, err
	}
	addrs, err := addresses(ctx, container)
	if err != nil {
		return nil, err
	}
	stop := func(ctx context.Context) error {
		return testcontainers.TerminateContainer(container, testcontainers.StopContext(ctx))
	}
	var causes []error
	for _, addr := range addrs {
		dsn := pglocal.DSN(password, addr)
		pinging, cancel := context.WithTimeout(ctx, dialTimeout)
		err := pglocal.AwaitReady(pinging, dsn, nil)
		cancel()
		if err == nil {
			return &Server{DSN: dsn, Source: "a container of " + o.image, stop: stop}, nil
		}
		causes = append(causes, err)
	}
	return nil, errors.Join(causes...)
}

// dialTimeout is how long an address of the container may take to answer.
const dialTimeout = 5 * time.Second

// addresses are those at which the container may be reached: the loopback address,
// what testcontainers makes of DOCKER_HOST (which is wrong on machines that look like
// a container themselves), and the container's own.
func addresses(ctx context.Context, c *testcontainers.DockerContainer) ([]string, error) {
	port, err := c.MappedPort(ctx, "5432/tcp")
	if err != nil {
		return nil, err
	}
	addrs := []string{net.JoinHostPort("127.0.0.1", port.Port())}
	if host, err := c.Host(ctx); err == nil {
		addrs = append(addrs, net.JoinHostPort(host, port.Port()))
	}
	if ip, err := c.ContainerIP(ctx); err == nil && ip != "" {
		addrs = append(addrs, net.JoinHostPort(ip, "5432"))
	}
	return addrs, nil
}

// quiet keeps testcontainers from telling its doings on our standard error.
type quiet struct{}

func (quiet) Printf(string, ...any) {}
