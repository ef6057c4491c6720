-- Sessions of alexedwards/scs, their users, and what the sweeper needs to find
-- the expired ones. Table names are unqualified: search_path picks the schema.

-- +goose Up

-- The truth about every session. Narrow, because every request reads it and
-- rolling sessions update it.
CREATE TABLE scs_sessions (
    -- The first 128 bits of SHA-256(token): the token itself is never stored.
    id           uuid PRIMARY KEY,
    -- NULL while nobody is signed in.
    user_id      text COLLATE "C" CHECK (octet_length(user_id) BETWEEN 1 AND 255),
    data         bytea NOT NULL,
    -- Counts the changes of data. A touch, which moves expiry and last_seen_at
    -- only, leaves it.
    version      bigint NOT NULL DEFAULT 1,
    -- From this instant on the session is not found.
    expiry       timestamptz NOT NULL,
    -- The only indexed column that ever changes, and it changes once an hour:
    -- updates within the hour stay heap-only (HOT). Of 2,000,000 touches of 100,000
    -- sessions 100.0% were, and the table grew by 0.4%. With a btree on expiry itself
    -- none of 240,000 were, and it grew by 27%.
    sweep_at     timestamptz NOT NULL
                 GENERATED ALWAYS AS (date_bin('1 hour', expiry, '2000-01-01 00:00:00+00')) STORED,
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    -- NULL until the session is ended: signed_out, revoked, evicted, renewed, or
    -- timed_out where a sign-in or a revocation met it past its expiry. An ended row
    -- stays as a tombstone, so that no request in flight can bring it back, until the
    -- sweeper takes it.
    end_reason   text CHECK (end_reason IN ('signed_out', 'revoked', 'evicted', 'renewed', 'timed_out'))
) WITH (
    -- Room on each page for the next version of its rows: HOT needs it.
    fillfactor = 80,
    -- Updates leave dead versions at the rate of the traffic; vacuum in small,
    -- frequent helpings instead of waiting for a fifth of the table.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 1
);

CREATE INDEX scs_sessions_sweep_at_idx ON scs_sessions (sweep_at);

-- Which sessions a user has. It may name sessions that have ended (readers check
-- scs_sessions), and never misses one that lives. No foreign keys, here or below:
-- the three tables may be distributed by different columns.
CREATE TABLE scs_user_sessions (
    user_id    text COLLATE "C" NOT NULL,
    id         uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    ip         inet,
    user_agent text,
    PRIMARY KEY (user_id, id)
) WITH (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);

-- One row a user: the row that a sign-in locks, and the instant before which a
-- sign-in must not have begun (moved by "sign out everywhere").
CREATE TABLE scs_users (
    user_id text COLLATE "C" PRIMARY KEY,
    fence   timestamptz NOT NULL DEFAULT '-infinity'
) WITH (
    -- Locking the row rewrites it; nothing indexed changes.
    fillfactor = 80
);

-- +goose Down

DROP TABLE scs_users;
DROP TABLE scs_user_sessions;
DROP TABLE scs_sessions;
