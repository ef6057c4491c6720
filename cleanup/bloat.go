package cleanup

// sqlRelations reads the tables and their indexes, and estimates from the statistics
// how many of their bytes are of no use to the rows that live.
//
// What those need is their number times the bytes of one, over how full pages are made:
//
//   - A row of a table has 4 bytes in the page's directory, a header of 24, and its
//     columns' average width, rounded up to 8.
//   - An entry of a btree has 4 bytes in the directory, a header of 8, and its columns'
//     width, rounded up to 8. Where values repeat, each is stored once, and every row
//     adds 6. One page more describes the index.
//
// The rest is bloat: dead rows, and space that will be used again. Where inserts hit
// an index at random, as ids do, a quarter of it is normal. The statistics are those of
// the last ANALYZE, and of the columns that the role may read: without them, and for
// other kinds of indexes, the estimate is NULL.
const sqlRelations = `WITH relation AS (
		SELECT c.oid, t.oid AS table_oid, n.nspname, t.relname AS tablename, c.relname, pg_relation_size(c.oid) AS bytes,
			i.indexrelid IS NOT NULL AS is_index, i.indisunique AS is_unique, i.indkey::int2[] AS key,
			i.indexrelid IS NULL OR a.amname = 'btree' AND i.indexprs IS NULL AND i.indpred IS NULL AS known,
			-- A standby does not count rows.
			CASE WHEN pg_is_in_recovery() THEN greatest(t.reltuples, 0) ELSE coalesce(s.n_live_tup, 0) END::bigint AS live,
			coalesce(s.n_dead_tup, 0) AS dead,
			(current_setting('block_size')::float8 - 24) / 100 *
				coalesce((SELECT option_value::float8 FROM pg_options_to_table(c.reloptions) WHERE option_name = 'fillfactor'),
					CASE WHEN i.indexrelid IS NULL THEN 100 ELSE 90 END) AS filled
		FROM pg_catalog.pg_class c
			JOIN pg_catalog.pg_am a ON a.oid = c.relam
			LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
			JOIN pg_catalog.pg_class t ON t.oid = coalesce(i.indrelid, c.oid)
			JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
			LEFT JOIN pg_catalog.pg_stat_user_tables s ON s.relid = t.oid
		WHERE t.oid = ANY(ARRAY[to_regclass($1)::oid, to_regclass($2)::oid])
	), sized AS (
		SELECT r.*, w.* FROM relation r CROSS JOIN LATERAL (
			SELECT CASE WHEN known AND count(*) = count(p.avg_width) THEN 8 * ceil(sum(p.avg_width * (1 - p.null_frac)) / 8) END AS width,
				-- A negative number of values is a share of the rows.
				least(live, max(CASE WHEN p.n_distinct < 0 THEN -p.n_distinct * live ELSE p.n_distinct END)) AS distinct_keys
			FROM pg_catalog.pg_attribute a
				LEFT JOIN pg_catalog.pg_stats p ON p.schemaname = r.nspname AND p.tablename = r.tablename
					AND p.attname = a.attname AND NOT p.inherited
			WHERE a.attrelid = r.table_oid AND a.attnum > 0 AND NOT a.attisdropped AND (NOT is_index OR a.attnum = ANY(r.key))) w
	)
	SELECT relname, is_index, bytes, live, dead,
		CASE WHEN width IS NOT NULL THEN greatest(0, bytes - current_setting('block_size')::int * (is_index::int + ceil(CASE
			WHEN NOT is_index THEN live * (28 + width)
			WHEN is_unique THEN live * (12 + width)
			ELSE live * 6 + distinct_keys * (12 + width) END / filled)))::bigint END
	FROM sized ORDER BY table_oid, is_index, relname`
