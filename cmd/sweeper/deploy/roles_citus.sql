-- roles.sql for Citus, which refuses to grant columns. Run it on the coordinator, as the owner of the tables, once they are
-- distributed; Citus grants the same on the workers:
--
--   psql "$DATABASE_URL" -v app=app -v sweeper=sweeper -f cmd/sweeper/deploy/roles_citus.sql
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

-- The sweeper can read what is in a session here: that cannot be kept from it column by column. It
-- locks no rows, so it needs no right to update.
GRANT SELECT, DELETE ON :"schema".scs_sessions, :"schema".scs_user_sessions TO :"sweeper";
-- For -orphans.
GRANT SELECT, DELETE ON :"schema".scs_users TO :"sweeper";
