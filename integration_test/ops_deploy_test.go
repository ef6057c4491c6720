package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	batchv1 "k8s.io/api/batch/v1"
	"sigs.k8s.io/yaml"

	"github.com/scspg/scspg/internal/pgtest"
)

// deployFile reads a file of cmd/sweeper/deploy.
func deployFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../cmd/sweeper/deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// find returns the first group of a pattern that must be there.
func find(t *testing.T, text, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("%s is not in\n%s", pattern, text)
	}
	return m[1]
}

// sweepsOnce checks that flags do what a schedule wants.
func sweepsOnce(t *testing.T, flags []string) {
	t.Helper()
	pool := migrated(t)
	insertSessions(t, pool, 0, 10, "-3 days", "")
	leaveOrphans(t, pool)
	if stdout, stderr, status := output(t, sweeperCommand(t, pool, flags...)); status != 0 {
		t.Errorf("%q: status %d, %s%s", flags, status, stdout, stderr)
	}
	if n, _ := left(t, pool); n != 0 || (orphans(t, pool) == 0) != slices.Contains(flags, "-orphans") {
		t.Errorf("%q: %d sessions are left, and %d orphans", flags, n, orphans(t, pool))
	}
}

// needs is the path of a program that a test cannot do without.
func needs(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		skip(t, err)
	}
	return path
}

// leaveOrphans leaves a user index row and a user without a session.
func leaveOrphans(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	pgtest.Exec(t, pool, `INSERT INTO scs_user_sessions (user_id, id, created_at) VALUES ('orphan', gen_random_uuid(), now() - interval '1 hour')`)
	pgtest.Exec(t, pool, `INSERT INTO scs_users (user_id) VALUES ('orphan')`)
}

// orphans is how many there are.
func orphans(t *testing.T, pool *pgxpool.Pool) int {
	t.Helper()
	return pgtest.Query[int](t, pool, `SELECT (SELECT count(*) FROM scs_user_sessions WHERE user_id = 'orphan') + (SELECT count(*) FROM scs_users WHERE user_id = 'orphan')`)
}

func TestCrontab(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	insertSessions(t, pool, 0, 10, "-3 days", "")
	leaveOrphans(t, pool)
	env := filepath.Join(t.TempDir(), "sweeper.env")
	if err := os.WriteFile(env, fmt.Appendf(nil, "DATABASE_URL='%s'\n", dsnOf(t, schemaOf(t, pool))), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(pattern string) {
		t.Helper()
		file := strings.ReplaceAll(deployFile(t, "crontab"), "/usr/local/bin", filepath.Dir(sweeperBinary(t)))
		command := strings.ReplaceAll(find(t, file, pattern), "/etc/sweeper.env", env)
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", command)
		cmd.Env = []string{find(t, file, `(?m)^(PATH=.+)$`)} // all that cron gives it
		if stdout, stderr, status := output(t, cmd); status != 0 || stdout+stderr != "" {
			t.Errorf("status %d, %s%s: cron would mail it", status, stdout, stderr)
		}
	}
	run(`(?m)^\*/10 \* \* \* \* sweeper (.+)$`)
	if n, _ := left(t, pool); n != 0 || orphans(t, pool) != 2 {
		t.Errorf("%d sessions are left, and %d orphans", n, orphans(t, pool))
	}
	run(`(?m)^\d+ \d+ \* \* 0 sweeper (.+)$`) // weekly
	if n := orphans(t, pool); n != 0 {
		t.Errorf("%d orphans are left", n)
	}
}

func TestSystemdUnits(t *testing.T) {
	t.Parallel()
	service, weekly := deployFile(t, "sweeper.service"), deployFile(t, "sweeper-orphans.service")
	for _, unit := range []string{service, weekly} {
		sweepsOnce(t, strings.Fields(find(t, unit, `(?m)^ExecStart=/usr/local/bin/sweeper (.+)$`)))
	}
	// One is the other with another sweep.
	hardening := regexp.MustCompile(`(?ms)^DynamicUser=.*`)
	if strings.ReplaceAll(hardening.FindString(service), find(t, service, `(?m)(^# With -metrics-file.*\n#.*\n)`), "") != hardening.FindString(weekly) {
		t.Error("the two services are confined differently")
	}

	analyze := needs(t, "systemd-analyze")
	dir := t.TempDir()
	service = strings.Replace(service, "/usr/local/bin/sweeper", sweeperBinary(t), 1)
	weekly = strings.Replace(weekly, "/usr/local/bin/sweeper", sweeperBinary(t), 1)
	// What is in it for those who want metrics must be right too.
	service = strings.Replace(service, "#ReadWritePaths=/var/lib/node_exporter", "ReadWritePaths="+dir, 1)
	if !strings.Contains(service, "\nReadWritePaths=") {
		t.Error("it does not say how to let the metrics file be written")
	}
	for name, text := range map[string]string{"sweeper.service": service, "sweeper.timer": deployFile(t, "sweeper.timer"),
		"sweeper-orphans.service": weekly, "sweeper-orphans.timer": deployFile(t, "sweeper-orphans.timer")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stdout, stderr, status := output(t, exec.CommandContext(t.Context(), analyze, "verify", "--man=no",
		filepath.Join(dir, "sweeper.service"), filepath.Join(dir, "sweeper.timer"),
		filepath.Join(dir, "sweeper-orphans.service"), filepath.Join(dir, "sweeper-orphans.timer")))
	if strings.Contains(stdout+stderr, "sweeper") || status != 0 {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
	// Exposure is between 0 and 10, and the threshold in tenths.
	stdout, stderr, status = output(t, exec.CommandContext(t.Context(), analyze, "security", "--offline=yes", "--no-pager",
		"--threshold=20", filepath.Join(dir, "sweeper.service")))
	if status != 0 {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
	for _, timer := range []string{"sweeper.timer", "sweeper-orphans.timer"} {
		if _, stderr, status := output(t, exec.CommandContext(t.Context(), analyze, "calendar",
			find(t, deployFile(t, timer), `(?m)^OnCalendar=(.+)$`))); status != 0 {
			t.Error(stderr)
		}
	}
}

func TestCronJobs(t *testing.T) {
	t.Parallel()
	jobs := strings.Split(deployFile(t, "cronjob.yaml"), "\n---\n")
	if len(jobs) != 2 {
		t.Errorf("%d jobs", len(jobs))
	}
	for _, job := range jobs {
		checkCronJob(t, job)
	}
}

func checkCronJob(t *testing.T, text string) {
	t.Helper()
	var job batchv1.CronJob
	if err := yaml.UnmarshalStrict([]byte(text), &job); err != nil {
		t.Fatal(err)
	}
	pod := job.Spec.JobTemplate.Spec.Template.Spec
	if job.APIVersion != "batch/v1" || job.Kind != "CronJob" || job.Spec.ConcurrencyPolicy != batchv1.ForbidConcurrent ||
		job.Spec.StartingDeadlineSeconds == nil || job.Spec.JobTemplate.Spec.ActiveDeadlineSeconds == nil ||
		len(pod.Containers) != 1 || !*pod.SecurityContext.RunAsNonRoot {
		t.Fatalf("%+v", job)
	}
	c := pod.Containers[0]
	if !*c.SecurityContext.ReadOnlyRootFilesystem || *c.SecurityContext.AllowPrivilegeEscalation ||
		c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() || c.EnvFrom[0].SecretRef.Name == "" {
		t.Errorf("%+v", c)
	}
	rule := job.Spec.JobTemplate.Spec.PodFailurePolicy.Rules[0]
	if rule.Action != batchv1.PodFailurePolicyActionFailJob || *rule.OnExitCodes.ContainerName != c.Name ||
		!slices.Equal(rule.OnExitCodes.Values, []int32{2, 3}) {
		t.Errorf("%+v", rule)
	}
	sweepsOnce(t, c.Args)
}

func TestImage(t *testing.T) {
	t.Parallel()
	docker := needs(t, "docker")
	if _, stderr, status := output(t, exec.CommandContext(t.Context(), docker, "info")); status != 0 {
		t.Skip(stderr)
	}
	pool := migrated(t)
	insertSessions(t, pool, 0, 10, "-3 days", "")
	image := "scspg-test-" + schemaOf(t, pool)
	build := exec.CommandContext(t.Context(), docker, "build", "-q", "-f", "../cmd/sweeper/deploy/Dockerfile", "-t", image, filepath.Dir(sweeperBinary(t)))
	if stdout, stderr, status := output(t, build); status != 0 {
		t.Fatalf("%s%s", stdout, stderr)
	}
	t.Cleanup(func() { _, _, _ = output(t, exec.Command(docker, "rmi", "-f", image)) })
	run := func(args ...string) (string, string, int) {
		return output(t, exec.CommandContext(t.Context(), docker, append([]string{"run", "--rm", "--network", "host", "--read-only",
			"--cap-drop", "ALL", "-e", "DATABASE_URL=" + dsnOf(t, schemaOf(t, pool)), image}, args...)...))
	}
	if stdout, stderr, status := run("-version"); status != 0 || !strings.HasPrefix(stdout, "sweeper ") {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
	if stdout, stderr, status := run("-json"); status != 0 || !strings.Contains(stdout, `"rows":10`) {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
	if _, _, status := run("-nonsense"); status != 2 {
		t.Errorf("wrong usage: status %d", status)
	}
}

// The statements for pg_cron keep to the same rule.
func TestPgCron(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"pg_cron.sql", "pg_cron_citus.sql"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			insertSessions(t, pool, 0, 100, "-26 hours", "")
			insertSessions(t, pool, 100, 100, "-25 hours -1 minute", "signed_out")
			insertSessions(t, pool, 200, 100, "-23 hours", "")
			insertSessions(t, pool, 300, 100, "1 hour", "")
			for range 2 { // the second has nothing to do
				pgtest.Exec(t, pool, find(t, deployFile(t, file), `(?s)\$job\$(.+)\$job\$`))
			}
			if sessions, userRows := left(t, pool); sessions != 200 || userRows != 150 {
				t.Errorf("%d sessions and %d user rows are left", sessions, userRows)
			}
			if n := pgtest.Query[int](t, pool, `SELECT count(*) FROM scs_sessions WHERE expiry < now() - interval '24 hours'`); n != 0 {
				t.Errorf("%d past the grace are left", n)
			}
		})
	}
}

// psql reads the files as they stand.
func TestRolesInPsql(t *testing.T) {
	t.Parallel()
	psql := needs(t, "psql")
	schema := schemaOf(t, migrated(t))
	for _, file := range []string{"roles.sql", "roles_citus.sql"} {
		run := func(args ...string) (stdout, stderr string, status int) {
			return output(t, exec.CommandContext(t.Context(), psql, append([]string{pgtest.DSN(t), "-X", "-q", "-f", "../cmd/sweeper/deploy/" + file}, args...)...))
		}
		for _, args := range [][]string{{"-v", "schema=" + schema}, nil} {
			stdout, stderr, status := run(append(args, "-v", "app=nobody_1", "-v", "sweeper=nobody_2")...)
			// It stops at the first role that does not exist, having read all that psql itself reads.
			if status == 0 || !strings.Contains(stderr, `role "nobody_1" does not exist`) || strings.Contains(stderr, "syntax") {
				t.Errorf("%s, %q: status %d, %s%s", file, args, status, stdout, stderr)
			}
		}
		for set, want := range map[string]string{"sweeper=nobody": "which role is the app's?", "app=nobody": "which role is the sweeper's?"} {
			stdout, stderr, status := run("-v", set)
			if status == 0 || !strings.Contains(stderr, want) || !strings.Contains(stderr, "-v app=NAME -v sweeper=NAME") || strings.Contains(stderr, "syntax") {
				t.Errorf("%s, %q: status %d, %s%s", file, set, status, stdout, stderr)
			}
		}
	}
}
