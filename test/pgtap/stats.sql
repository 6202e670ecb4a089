-- The views weir.stat_*: columns as documented, what they tell of sources and
-- streams without a worker, who sees what, and a comment on everything that
-- users see.  Without a broker: nothing here commits, so no worker starts.
\set QUIET on
SET client_min_messages = warning;
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS weir;
SELECT no_plan();
SET LOCAL TimeZone = 'UTC';
SET LOCAL DateStyle = 'ISO, MDY';

-- Columns of a view in order, with types.
CREATE FUNCTION pg_temp.columns_of(rel regclass) RETURNS SETOF text
LANGUAGE sql AS $$
	SELECT attname || ' ' || format_type(atttypid, atttypmod)
	FROM pg_attribute
	WHERE attrelid = rel AND attnum > 0 AND NOT attisdropped
	ORDER BY attnum;
$$;

-- "a type, b type ..." as rows, white space aside.
CREATE FUNCTION pg_temp.listed(list text) RETURNS SETOF text
LANGUAGE sql AS $$
	SELECT regexp_replace(trim(item, E' \t\n'), '\s+', ' ', 'g')
	FROM regexp_split_to_table(list, ',') item;
$$;

SELECT results_eq($$ SELECT pg_temp.columns_of('weir.stat_source') $$,
$$ SELECT pg_temp.listed('
	source name, stream name, kafka_partition integer, state text,
	applied_offset bigint, fetched_offset bigint, end_offset bigint,
	lag bigint, max_event_time timestamp with time zone, idle boolean,
	rows_in bigint, bytes_in bigint, rows_staged bigint,
	rows_filtered bigint, rows_dead bigint, rows_null bigint,
	rows_future bigint, staging_bytes bigint, segments integer,
	columns_never_found text, held_by name,
	last_row_at timestamp with time zone, last_error text,
	last_error_sqlstate text, last_error_at timestamp with time zone,
	next_retry_at timestamp with time zone, epoch bigint,
	stats_reset timestamp with time zone') $$,
	'columns of stat_source');
SELECT results_eq($$ SELECT pg_temp.columns_of('weir.stat_stream') $$,
$$ SELECT pg_temp.listed('
	stream name, state text, lag bigint, lag_time interval,
	watermark timestamp with time zone, watermark_held_by integer,
	rows_in bigint, rows_filtered bigint, rows_late bigint,
	rows_dead bigint, rows_out bigint, groups_failed bigint,
	batches bigint, last_batch_rows bigint,
	last_batch_at timestamp with time zone,
	commit_ms_p50 double precision, commit_ms_p95 double precision,
	commit_ms_p99 double precision, commit_ms_max double precision,
	visible_ms_p50 double precision, visible_ms_p99 double precision,
	open_windows bigint, oldest_window_start timestamp with time zone,
	groups bigint, state_bytes bigint, windows_closed bigint,
	retries bigint, last_error text, last_error_sqlstate text,
	last_error_at timestamp with time zone,
	next_retry_at timestamp with time zone,
	stats_reset timestamp with time zone') $$,
	'columns of stat_stream');
SELECT results_eq($$ SELECT pg_temp.columns_of('weir.stat_worker') $$,
$$ SELECT pg_temp.listed('
	pid integer, kind text, source name, stream name,
	worker_number integer, state text, activity text,
	started_at timestamp with time zone, restarts bigint,
	last_exit_reason text, cpu_ms bigint, memory_bytes bigint,
	kafka_queue_bytes bigint') $$,
	'columns of stat_worker');

-- A source and streams of one role, looked at by itself, by a stranger, and
-- by one that monitors.
CREATE ROLE weir_stats_owner;
CREATE ROLE weir_stats_stranger;
CREATE ROLE weir_stats_monitor IN ROLE pg_monitor;
CREATE SERVER weir_stats FOREIGN DATA WRAPPER weir_kafka
	OPTIONS (bootstrap_servers '127.0.0.1:1');
GRANT USAGE ON FOREIGN SERVER weir_stats TO weir_stats_owner;
CREATE SCHEMA weir_stats AUTHORIZATION weir_stats_owner;
SET LOCAL search_path = weir_stats, public;
SET LOCAL ROLE weir_stats_owner;
SELECT weir.create_source('st_rides', server => 'weir_stats',
	topic => 'st_rides', columns => 'zone int, at timestamptz',
	event_time => 'at') \g /dev/null
SELECT weir.create_stream('st_windows', $$
	SELECT w.window_start, w.window_end, r.zone, count(*)
	FROM st_rides r CROSS JOIN weir.tumble(r.at, '1 minute') w
	GROUP BY w.window_start, w.window_end, r.zone $$) \g /dev/null
SELECT weir.create_stream('st_rows', $$
	SELECT r.zone, r.at FROM st_rides r $$) \g /dev/null

-- Never started.
CREATE FUNCTION weir_stats.states() RETURNS text
LANGUAGE sql AS $$
	SELECT string_agg(name || ' ' || state, ', ' ORDER BY name)
	FROM (SELECT source AS name, state FROM weir.stat_source
		  WHERE source = 'st_rides'
		  UNION SELECT stream, state FROM weir.stat_stream
		  WHERE stream LIKE 'st\_%') s;
$$;
SELECT is(weir_stats.states(),
	'st_rides starting, st_rows starting, st_windows starting',
	'what was just made is starting');
SELECT results_eq($$ SELECT stream, kafka_partition, applied_offset,
		fetched_offset, end_offset, lag, idle, rows_in, staging_bytes,
		segments, last_error, epoch, stats_reset
	FROM weir.stat_source WHERE source = 'st_rides' $$,
	$$ VALUES (NULL::name, NULL::int, NULL::bigint, NULL::bigint,
		NULL::bigint, NULL::bigint, false, 0::bigint, 0::bigint, 0,
		NULL::text, NULL::bigint, NULL::timestamptz) $$,
	'a source that was never read has one row');
SELECT results_eq($$ SELECT lag, lag_time, watermark, watermark_held_by,
		rows_in, batches, last_batch_at, commit_ms_p50, commit_ms_max,
		visible_ms_p99, open_windows, oldest_window_start, groups,
		last_error, next_retry_at
	FROM weir.stat_stream WHERE stream = 'st_windows' $$,
	$$ VALUES (NULL::bigint, NULL::interval, NULL::timestamptz, NULL::int,
		0::bigint, 0::bigint, NULL::timestamptz, NULL::float8, NULL::float8,
		NULL::float8, 0::bigint, NULL::timestamptz, 0::bigint, NULL::text,
		NULL::timestamptz) $$,
	'a stream that never ran has no state and no position');
SELECT results_eq($$ SELECT open_windows, oldest_window_start, groups,
		state_bytes
	FROM weir.stat_stream WHERE stream = 'st_rows' $$,
	$$ VALUES (NULL::bigint, NULL::timestamptz, NULL::bigint,
		NULL::bigint) $$,
	'a stream without state has none of its columns');

-- The catalog decides.
SELECT weir.pause('st_rows') \g /dev/null
SELECT is(weir_stats.states(),
	'st_rides starting, st_rows paused, st_windows starting',
	'a paused stream');
SELECT weir.pause('st_rides') \g /dev/null
SELECT is(weir_stats.states(),
	'st_rides paused, st_rows paused, st_windows waiting',
	'streams of a paused source wait');
SELECT weir.resume('st_rides') \g /dev/null
SELECT weir.resume('st_rows') \g /dev/null
RESET ROLE;
UPDATE weir_internal.source
	SET stopped_message = 'gone', stopped_sqlstate = '55W01'
	WHERE relation = 'weir_stats.st_rides'::regclass;
UPDATE weir_internal.stream
	SET failed_message = 'no column', failed_sqlstate = '42703'
	WHERE name = 'st_rows';
SET LOCAL ROLE weir_stats_owner;
SELECT is(weir_stats.states(),
	'st_rides stopped, st_rows failed, st_windows waiting',
	'a stopped source and a failed stream');
SELECT results_eq($$ SELECT last_error, last_error_sqlstate
	FROM weir.stat_source WHERE source = 'st_rides' $$,
	$$ VALUES ('gone', '55W01') $$, 'why a source is stopped');
SELECT results_eq($$ SELECT last_error, last_error_sqlstate
	FROM weir.stat_stream WHERE stream = 'st_rows' $$,
	$$ VALUES ('no column', '42703') $$, 'why a stream has failed');

-- Positions and state.
RESET ROLE;
UPDATE weir_internal.stream_state SET watermark = '2024-01-01 00:02Z',
	applied_offsets = CASE s.name WHEN 'st_rows' THEN '{10,10}' ELSE '{20,5}' END::bigint[],
	max_event_times = '{NULL,NULL}'
	FROM weir_internal.stream s
	WHERE s.stream_id = stream_state.stream_id AND s.name LIKE 'st\_%';
SELECT set_config('weir_stats.state', state::text, true)
	FROM weir_internal.stream WHERE name = 'st_windows' \g /dev/null
DO $$
BEGIN
	EXECUTE format('INSERT INTO %s (window_end, window_start)
		SELECT t + interval ''1 minute'', t
		FROM generate_series(timestamptz ''2024-01-01 00:02Z'',
			''2024-01-01 00:04Z'', ''1 minute'') t',
		current_setting('weir_stats.state'));
END $$;
SET LOCAL ROLE weir_stats_owner;
SELECT results_eq($$ SELECT kafka_partition, applied_offset, end_offset, lag
	FROM weir.stat_source WHERE source = 'st_rides' ORDER BY 1 $$,
	$$ VALUES (0, 10::bigint, NULL::bigint, NULL::bigint),
		(1, 5, NULL, NULL) $$,
	'applied is the least of the streams; the end is not known');
SELECT results_eq($$ SELECT lag, watermark, open_windows,
		oldest_window_start, groups, state_bytes > 0
	FROM weir.stat_stream WHERE stream = 'st_windows' $$,
	$$ VALUES (NULL::bigint, timestamptz '2024-01-01 00:02Z', 3::bigint,
		timestamptz '2024-01-01 00:02Z', 3::bigint, true) $$,
	'watermark, open windows, groups and bytes');

-- Who sees what: the columns of a row that are not NULL.
CREATE FUNCTION weir_stats.seen(r anyelement) RETURNS text
LANGUAGE sql AS $$
	SELECT string_agg(key, ' ' ORDER BY key)
	FROM jsonb_each_text(to_jsonb(r)) WHERE value IS NOT NULL;
$$;
GRANT USAGE ON SCHEMA weir_stats TO PUBLIC;
SET LOCAL ROLE weir_stats_stranger;
SELECT is(weir_stats.states(),
	'st_rides stopped, st_rows failed, st_windows waiting',
	'everybody sees names and states');
SELECT bag_eq($$ SELECT weir_stats.seen(s) FROM weir.stat_source s
	WHERE source = 'st_rides' $$,
	$$ VALUES ('kafka_partition source state'),
		('kafka_partition source state') $$,
	'nothing else of a source of another role');
SELECT bag_eq($$ SELECT weir_stats.seen(s) FROM weir.stat_stream s
	WHERE stream LIKE 'st\_%' $$,
	$$ VALUES ('state stream'), ('state stream') $$,
	'nothing else of a stream of another role');
SELECT is((SELECT weir_stats.seen(s) FROM weir.stat_worker s
	WHERE kind = 'launcher'), 'kind pid state', 'nothing else of a worker');
SELECT throws_ok(format($$ SELECT weir_internal.count_groups(%L) $$,
	current_setting('weir_stats.state')), '42501', NULL,
	'no right on the schema of state');
RESET ROLE;
GRANT USAGE ON SCHEMA weir_internal TO weir_stats_stranger;
SET LOCAL ROLE weir_stats_stranger;
SELECT results_eq(format($$ SELECT weir_internal.count_open_windows(s),
		weir_internal.find_oldest_window(s), weir_internal.count_groups(s),
		weir_internal.measure_state(s)
	FROM (SELECT %L::regclass AS s) x $$,
	current_setting('weir_stats.state')),
	$$ VALUES (NULL::bigint, NULL::timestamptz, NULL::bigint,
		NULL::bigint) $$,
	'no way around by the functions for state');
SELECT throws_ok($$ SELECT weir.watermark('st_windows') $$, '42501', NULL,
	'nor by weir.watermark()');
SELECT throws_ok($$ SELECT weir.stat_reset('st_windows') $$, '42501', NULL,
	'only the owner resets');
SELECT lives_ok($$ SELECT weir.stat_reset() $$,
	'without a name it means what one owns');

SET LOCAL ROLE weir_stats_monitor;
SELECT results_eq($$ SELECT rows_in, groups, last_error FROM weir.stat_stream
	WHERE stream LIKE 'st\_%' ORDER BY stream $$,
	$$ VALUES (0::bigint, NULL::bigint, 'no column'), (0, 3, 'gone') $$,
	'pg_read_all_stats sees all of a stream');
SELECT is((SELECT count(last_error) FROM weir.stat_source
	WHERE source = 'st_rides'), 2::bigint, 'and of a source');
SELECT ok((SELECT started_at IS NOT NULL FROM weir.stat_worker
	WHERE kind = 'launcher'), 'and of a worker');
SELECT is(weir.watermark('st_windows'), '2024-01-01 00:02Z',
	'and the watermark');
RESET ROLE;

-- The functions for state, by themselves.
CREATE TABLE weir_stats.not_state AS SELECT now() AS window_end;
SELECT is(weir_internal.count_groups('weir_stats.not_state'), NULL,
	'only tables in weir_internal are looked at');
SELECT is(weir_internal.count_groups('weir_internal.cookie'), 1::bigint,
	'rows are counted');
SELECT is(weir_internal.count_open_windows('weir_internal.cookie'), NULL,
	'a table without windows');

-- A large state is estimated, from all over it.
CREATE TABLE weir_internal.large_state (window_end timestamptz,
	filler text) WITH (fillfactor = 10);
INSERT INTO weir_internal.large_state
	SELECT NULL, repeat('x', 700) FROM generate_series(1, 3000);
DELETE FROM weir_internal.large_state
	WHERE ctid < '(2000,0)' AND ctid >= '(1000,0)';
SELECT cmp_ok(weir_internal.count_groups('weir_internal.large_state'),
	'>=', 1900::bigint, 'an estimate is not far below');
SELECT cmp_ok(weir_internal.count_groups('weir_internal.large_state'),
	'<=', 2100::bigint, 'and not far above');

-- Everything that users see has a comment, and so have the relations that
-- they do not see.
CREATE TEMP VIEW ours AS
SELECT d.classid, d.objid
FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
WHERE d.refclassid = 'pg_extension'::regclass AND e.extname = 'weir'
	AND d.deptype = 'e';
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM ours o JOIN pg_proc p ON p.oid = o.objid
	WHERE o.classid = 'pg_proc'::regclass
		AND (p.pronamespace = 'weir'::regnamespace
			OR p.probin IS NOT NULL AND p.prosrc ~ '^weir_(stat|count|find|measure)_')
		AND obj_description(p.oid, 'pg_proc') IS NULL $$,
	'every function has a comment');
SELECT is_empty($$
	SELECT c.oid::regclass FROM ours o JOIN pg_class c ON c.oid = o.objid
	WHERE o.classid = 'pg_class'::regclass AND c.relkind <> 'c'
		AND c.relname NOT LIKE 'segment\_%'
		AND obj_description(c.oid, 'pg_class') IS NULL $$,
	'every table, view and sequence has a comment');
SELECT is_empty($$
	SELECT t.oid::regtype FROM ours o JOIN pg_type t ON t.oid = o.objid
	LEFT JOIN pg_class c ON c.oid = t.typrelid
	WHERE o.classid = 'pg_type'::regclass
		AND t.typelem = 0 AND coalesce(c.relkind, 'c') = 'c'
		AND obj_description(t.oid, 'pg_type') IS NULL $$,
	'every type has a comment');
SELECT is_empty($$
	SELECT c.oid::regclass, a.attname
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
	WHERE c.relnamespace IN ('weir'::regnamespace,
			'weir_internal'::regnamespace)
		AND c.relkind IN ('r', 'v', 'c') AND c.relname !~ '^(segment|state|large)_'
		AND a.attnum > 0 AND NOT a.attisdropped
		AND col_description(c.oid, a.attnum) IS NULL $$,
	'every column has a comment');
SELECT is_empty($$
	SELECT o.classid::regclass, pg_describe_object(o.classid, o.objid, 0)
	FROM ours o
	WHERE o.classid NOT IN ('pg_proc'::regclass, 'pg_class'::regclass,
			'pg_type'::regclass, 'pg_cast'::regclass)
		AND obj_description(o.objid, o.classid::regclass::text::name) IS NULL
	$$, 'everything else has a comment');

SELECT * FROM finish();
ROLLBACK;
