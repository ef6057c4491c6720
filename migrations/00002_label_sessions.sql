-- A short text of the app's own for each session of a user: a device's name, or how the
-- user signed in. Releases that do not know the column leave it alone.

-- +goose Up

-- It changes no row, so it is instant on a table of any size. (It waits for transactions
-- that use the table, such as that of pg_dump, and sign-ins wait behind it.)
ALTER TABLE scs_user_sessions ADD COLUMN label text;

-- +goose Down

ALTER TABLE scs_user_sessions DROP COLUMN label;
