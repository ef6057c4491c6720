-- For those who prefer the database's own cron (https://github.com/citusdata/pg_cron) to a
-- binary. (On Citus: pg_cron_citus.sql.) Each run deletes up to 10,000 sessions that expired a day ago and more; it
-- has neither budget nor metrics, and one transaction a run. For what sessions left behind
-- that were deleted by hand, run sweeper -orphans once a week all the same.
SELECT cron.schedule('sweep-sessions', '* * * * *', $job$
    WITH held AS MATERIALIZED (
        SELECT ctid FROM scs_sessions
        WHERE sweep_at <= now() - interval '1 hour' - interval '24 hours' AND expiry <= now()
        ORDER BY sweep_at LIMIT 10000 FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM scs_sessions WHERE ctid = ANY(ARRAY(SELECT ctid FROM held))
            AND sweep_at <= now() - interval '1 hour' - interval '24 hours' AND expiry <= now()
        RETURNING id, user_id
    )
    DELETE FROM scs_user_sessions u USING gone g WHERE u.user_id = g.user_id AND u.id = g.id
$job$);
