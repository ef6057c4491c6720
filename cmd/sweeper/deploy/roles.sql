-- Two roles with just what they need. (On Citus: roles_citus.sql.) Run it as the owner of the tables:
--
--   psql "$DATABASE_URL" -v app=app -v sweeper=sweeper -f cmd/sweeper/deploy/roles.sql
--
-- with -v schema=sessions where the tables are in a schema of their own. The roles have
-- to exist: CREATE ROLE app LOGIN PASSWORD '...'. What is not granted is refused.
\set ON_ERROR_STOP on
\if :{?schema}
\else
\set schema public
\endif
\if :{?app}
\else
DO $$ BEGIN RAISE EXCEPTION 'which role is the app''s? Use psql -v app=NAME -v sweeper=NAME'; END $$;
\endif
\if :{?sweeper}
\else
DO $$ BEGIN RAISE EXCEPTION 'which role is the sweeper''s? Use psql -v app=NAME -v sweeper=NAME'; END $$;
\endif

GRANT USAGE ON SCHEMA :"schema" TO :"app", :"sweeper";

-- The app never deletes a session: it ends sessions, and they stay until the sweeper
-- takes them. Migrations are the owner's.
GRANT SELECT, INSERT, UPDATE ON :"schema".scs_sessions TO :"app";
GRANT SELECT, INSERT, UPDATE, DELETE ON :"schema".scs_user_sessions, :"schema".scs_users TO :"app";

-- The sweeper cannot read what is in a session. PostgreSQL wants a right to update for
-- SELECT ... FOR UPDATE; of the columns that the app itself may change, last_seen_at
-- is the one that matters least.
GRANT SELECT (ctid, id, user_id, end_reason, expiry, sweep_at), UPDATE (last_seen_at), DELETE ON :"schema".scs_sessions TO :"sweeper";
GRANT SELECT (user_id, id, created_at), DELETE ON :"schema".scs_user_sessions TO :"sweeper";
-- For -orphans.
GRANT SELECT (user_id, fence), DELETE ON :"schema".scs_users TO :"sweeper";
