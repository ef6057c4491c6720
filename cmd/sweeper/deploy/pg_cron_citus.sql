-- pg_cron.sql for Citus, which neither locks rows across shards nor joins the two tables. Run it on the coordinator.
-- Each run deletes up to 10,000 sessions that expired a day ago and more. Rows that others hold cannot be skipped: they are waited
-- for as long as lock_timeout says, and then the run ends, and the next one tries again.
SELECT cron.schedule('sweep-sessions', '* * * * *', $job$
    DO $do$
    DECLARE
        due uuid[];
        gone record;
        users text[] := '{}';
        ids uuid[] := '{}';
    BEGIN
        SET LOCAL lock_timeout = '5s';
        due := ARRAY(SELECT id FROM scs_sessions
            WHERE sweep_at <= now() - interval '1 hour' - interval '24 hours' AND expiry <= now()
            ORDER BY sweep_at LIMIT 10000);
        FOR gone IN DELETE FROM scs_sessions WHERE id = ANY(due)
                AND sweep_at <= now() - interval '1 hour' - interval '24 hours' AND expiry <= now()
            RETURNING user_id, id LOOP
            users := users || gone.user_id;
            ids := ids || gone.id;
        END LOOP;
        DELETE FROM scs_user_sessions WHERE user_id = ANY(users)
            AND (user_id, id) IN (SELECT g.user_id, g.id FROM unnest(users, ids) AS g (user_id, id));
    END $do$
$job$);
