-- Closing windows costs what is closed, not what was closed before: rows that
-- are gone stay in the index while somebody's snapshot sees them, here the
-- transaction that removed them.
BEGIN;
CREATE EXTENSION IF NOT EXISTS weir;
CREATE EXTENSION IF NOT EXISTS pgtap;
\ir include/stream_sim.psql
SELECT no_plan();

-- Pages that a step reads.
CREATE FUNCTION pages(step text, watermark timestamptz, closed timestamptz) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	plan json;
	n bigint;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT json) '
		|| execution(step, watermark, closed => closed) INTO plan;
	n := plan -> 0 -> 'Plan' ->> 'Shared Hit Blocks';
	RETURN n + (plan -> 0 -> 'Plan' ->> 'Shared Read Blocks')::bigint;
END $$;

SELECT format('SELECT w.window_start, fare, count(*) AS n, sum(ride_id) AS s
	FROM rides CROSS JOIN weir.tumble(pickup_at, ''1 minute'') w GROUP BY 1, 2') AS query \gset
SELECT compile(:'query');
INSERT INTO state (window_end, window_start, k1, s1, s2)
SELECT '2024-01-01Z'::timestamptz + (m + 1) * interval '1 minute',
	'2024-01-01Z'::timestamptz + m * interval '1 minute', g, 1, 1
FROM generate_series(0, 60) m, generate_series(1, 500) g;
ANALYZE state;
SET LOCAL enable_sort = off;
CREATE TEMP TABLE closed AS SELECT * FROM run('close', '2024-01-01 01:00Z');
SELECT results_eq('SELECT count(*), min(window_end) FROM state',
	$$ VALUES (500::bigint, timestamptz '2024-01-01 01:01Z') $$, 'an hour is closed');
SELECT results_eq('SELECT written FROM closed', 'VALUES (60::bigint)', 'sixty windows of it');

SELECT cmp_ok(pages('oldest', '2024-01-01 01:00Z', '-infinity'), '<', 20::bigint,
	'the oldest window is found without passing what was closed');
SELECT cmp_ok(pages('close', '2024-01-01 01:00:30Z', '2024-01-01 01:00Z'), '<', 40::bigint,
	'and closing nothing passes none of it');
SELECT cmp_ok(pages('close', '2024-01-01 01:00:30Z', '-infinity'), '>', 200::bigint,
	'which is what it takes without knowing');
SELECT run('close', 'infinity');
SELECT is_empty('TABLE state', 'all is closed in the end');

-- On close, too, and one by one.
SELECT compile(:'query', 'on_close');
INSERT INTO state (window_end, window_start, k1, s1, s2)
SELECT '2024-01-01Z'::timestamptz + (m + 1) * interval '1 minute',
	'2024-01-01Z'::timestamptz + m * interval '1 minute', g, 1, 1
FROM generate_series(0, 60) m, generate_series(1, 500) g;
ANALYZE state;
SELECT run('close', '2024-01-01 01:00Z');
SELECT is((SELECT count(*) FROM target), 30000::bigint, 'on_close emits what it closes');
SELECT cmp_ok(pages('close', '2024-01-01 01:00:30Z', '2024-01-01 01:00Z'), '<', 40::bigint,
	'and passes nothing of it again');
SELECT cmp_ok(pages('closing', '2024-01-01 01:00:30Z', '2024-01-01 01:00Z'), '<', 40::bigint,
	'nor when groups are closed one by one');
SELECT run('close', 'infinity');
SELECT is((SELECT count(*) FROM target), 30500::bigint, 'until all is closed');
SELECT * FROM finish();
ROLLBACK;
