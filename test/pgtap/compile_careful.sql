-- The other statements of a stream: late rows, probes, leaving rows out,
-- emission apart from the merge, closing in parts, seek.
BEGIN;
CREATE EXTENSION IF NOT EXISTS weir;
CREATE EXTENSION IF NOT EXISTS pgtap;
\ir include/stream_sim.psql
SELECT no_plan();
SET LOCAL TimeZone = 'UTC';
SELECT setseed(0.33);
SELECT fill(2000, '2024-05-01 00:00Z', '6 hours');
SELECT deal(1, false);
SELECT stage(0);
\set hop '$$SELECT w.window_start, w.window_end, zone_id, count(*) AS n, sum(fare) AS s FROM rides, weir.hop(pickup_at, \'1 hour\', \'25 minutes\') w WHERE fare > 0 GROUP BY 1, 2, 3 HAVING count(*) > 3$$'
\set hop_from '$$SELECT w.window_start, w.window_end, zone_id, count(*) AS n, sum(fare) AS s FROM rides, weir.hop(pickup_at, \'1 hour\', \'25 minutes\') w WHERE fare > 0 AND %s GROUP BY 1, 2, 3 HAVING count(*) > 3$$'

-- Late: by the window's end and allowed lateness; a row may be late for one
-- window and in time for the next.
SELECT compile(:hop, lateness => '10 minutes');
SELECT results_eq(
	$$ SELECT late FROM run('apply', '2024-05-01 03:10Z') $$,
	$$ SELECT count(*) FROM rides, weir.hop(pickup_at, '1 hour', '25 minutes') w
		WHERE fare > 0 AND w.window_end <= '2024-05-01 03:00Z' $$,
	'apply counts the windows that late rows miss');
SELECT is_empty(format('SELECT differences(%L)',
	format(:hop_from, 'w.window_end > ''2024-05-01 03:00Z''')),
	'a row counts in the windows that are open');
SELECT execution('late', '2024-05-01 03:10Z') AS late_query \gset
CREATE TEMP TABLE late AS :late_query;
SELECT bag_eq(
	'SELECT kafka_partition, kafka_offset, kafka_timestamp, window_start, window_end, partly_applied FROM late',
	$$ SELECT kafka_partition, kafka_offset, kafka_timestamp,
			min(w.window_start) FILTER (WHERE w.window_end <= '2024-05-01 03:00Z'),
			max(w.window_end) FILTER (WHERE w.window_end <= '2024-05-01 03:00Z'),
			bool_or(w.window_end > '2024-05-01 03:00Z')
		FROM rides, weir.hop(pickup_at, '1 hour', '25 minutes') w
		WHERE fare > 0
		GROUP BY kafka_partition, kafka_offset, kafka_timestamp
		HAVING bool_or(w.window_end <= '2024-05-01 03:00Z') $$,
	'late rows, once each, with the first and last window missed');
SELECT results_eq('SELECT count(*) FROM late l JOIN rides r USING (kafka_partition, kafka_offset)
	WHERE l.staged_row ->> ''ride_id'' = r.ride_id::text AND NOT l.staged_row ? ''kafka_offset''',
	'SELECT count(*) FROM late', 'with what was staged');

-- Merge and emission apart.
SELECT compile(:hop);
SELECT run('merge_state');
SELECT is_empty('TABLE target', 'merge_state writes no target');
SELECT compile(:hop);
SELECT execution('merge_groups') AS groups_query \gset
CREATE TEMP TABLE touched (place tid, rows bigint, late bigint);
CREATE FUNCTION touch() RETURNS SETOF touched LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE execution('merge_groups');
END $$;
INSERT INTO touched SELECT * FROM touch();
SELECT bag_eq('SELECT s.window_end, s.window_start, s.k1 FROM state s JOIN touched t ON t.place = s.ctid', $$
	SELECT DISTINCT w.window_end, w.window_start, zone_id
	FROM rides, weir.hop(pickup_at, '1 hour', '25 minutes') w WHERE fare > 0 $$,
	'touched are the groups of the batch');
CREATE FUNCTION one(step text, places text) RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
	place tid;
BEGIN
	FOR place IN EXECUTE places LOOP
		RETURN QUERY EXECUTE statement_of(step) USING place;
	END LOOP;
END $$;
SELECT results_eq(
	$$ SELECT sum(written) FROM one('emit_one', 'SELECT place FROM touched') c (written bigint, deleted bigint) $$,
	format('SELECT count(*)::numeric FROM (%s) q', :hop), 'each is written by itself');
SELECT is_empty(format('SELECT differences(%L)', :hop), 'and they are right');

-- Leaving rows out.
SELECT compile(:hop);
CREATE TEMP TABLE culprits AS SELECT array_agg(ctid) AS tids FROM staged WHERE ride_id % 10 = 0;
SELECT run('apply_without', without => tids) FROM culprits;
SELECT is_empty(format('SELECT differences(%L)', format(:hop_from, 'ride_id % 10 <> 0')),
	'apply_without leaves rows out');
SELECT execution('culprits', without => tids) AS culprit_query FROM culprits \gset
CREATE TEMP TABLE found AS :culprit_query;
SELECT bag_eq('SELECT kafka_partition, kafka_offset, kafka_timestamp, (staged_row ->> ''ride_id'')::bigint FROM found',
	'SELECT kafka_partition, kafka_offset, kafka_timestamp, ride_id FROM rides WHERE ride_id % 10 = 0',
	'culprits gives them for dead letters');

-- The bounds of the batch: blocks, and offsets of a partition.
SELECT compile('SELECT ride_id, kafka_partition AS p, kafka_offset AS o FROM rides');
EXECUTE st_apply ('(0,0)', '(100000,0)', '{10,20,30}', '{15,20}', NULL, '{}', 0, 0);
SELECT results_eq('SELECT p, min(o), max(o) FROM target GROUP BY p',
	'SELECT 0, 10::bigint, 14::bigint', 'offsets in [applied, high)');
EXECUTE st_apply ('(1,0)', '(2,0)', '{0,0,0}', '{100000,100000,100000}', NULL, '{}', 0, 0);
SELECT results_eq('SELECT count(*) - 5 FROM target',
	$$ SELECT count(*) FROM staged WHERE ctid >= '(1,0)' AND ctid < '(2,0)' $$,
	'blocks of the batch');

-- The probe throws what the row stage throws, and only for rows in it.
SELECT compile('SELECT zone_id, sum(1 / (ride_id - 7)) AS s, min(fare / small) AS m FROM rides
	WHERE small > 0 OR ride_id = 7 GROUP BY 1');
UPDATE staged SET small = abs(small) + 1;
SELECT throws_ok(execution('apply'), '22012', NULL, 'a row that fails');
SELECT throws_ok(execution('probe'), '22012', NULL, 'the probe finds it');
SELECT lives_ok(format('%s', execution('probe', without => array_agg(ctid))),
	'and nothing without it') FROM staged WHERE ride_id = 7;
SELECT throws_ok(
	$$ EXECUTE st_probe ('(0,0)', '(100000,0)', '{0,0,0}', '{100000,100000,100000}', NULL, '{}', 0, 0) $$,
	'22012', NULL, 'over any range');
SELECT compile('SELECT kafka_topic, w.window_start, count(*) AS n FROM rides, weir.tumble(pickup_at, ''1 day'') w GROUP BY 1, 2');
UPDATE staged SET kafka_topic = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 84) i)
	WHERE ride_id = 8;
SELECT throws_ok(execution('apply'), '54000', NULL, 'a group key too large for the index');
SELECT throws_ok(execution('probe'), '54000', NULL, 'is found by the probe');
UPDATE staged SET kafka_topic = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 83) i)
	WHERE ride_id = 8;
SELECT lives_ok(execution('apply'), 'the largest that is let through can be stored');

-- Closing, with what is left to see.
SELECT stage(0);
SELECT compile(:hop);
SELECT run('apply');
SELECT execution('open_windows') AS open_query \gset
CREATE TEMP TABLE open_windows AS :open_query;
SELECT results_eq('TABLE open_windows', $$
	SELECT min(window_end), min(window_start), count(DISTINCT window_end), sum(n)::bigint
	FROM (SELECT w.window_start, w.window_end, count(DISTINCT coalesce(zone_id, -1)) AS n
		FROM rides, weir.hop(pickup_at, '1 hour', '25 minutes') w WHERE fare > 0
		GROUP BY 1, 2) g $$, 'open windows and groups');
CREATE TEMP TABLE closed AS SELECT 0::bigint AS groups, 0::bigint AS written;
INSERT INTO closed SELECT rows, groups FROM run('close', '2024-05-01 03:00Z');
SELECT results_eq('SELECT min(window_end) > ''2024-05-01 03:00Z'' FROM state', 'SELECT true',
	'what the watermark has passed is closed');
SELECT results_eq('SELECT sum(written) FROM closed', 'SELECT 0::numeric',
	'closing an on_change stream writes nothing');
SELECT is_empty(format('SELECT differences(%L)', :hop), 'and leaves the target as it is');
UPDATE target SET n = 0;
SELECT run('close_again', 'infinity');
SELECT is_empty('SELECT * FROM target WHERE n = 0 AND window_end > ''2024-05-01 03:00Z''',
	'close_again makes target rows right');
SELECT compile(:hop, 'on_close');
SELECT run('apply');
CREATE TEMP TABLE closing (place tid, window_end timestamptz, window_start timestamptz);
CREATE FUNCTION to_close() RETURNS SETOF closing LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE execution('closing', 'infinity');
END $$;
INSERT INTO closing SELECT * FROM to_close();
SELECT bag_eq('TABLE closing', 'SELECT ctid AS place, window_end, window_start FROM state', 'closing are all groups, in the end');
SELECT results_eq(
	$$ SELECT sum(written) FROM one('close_one', 'SELECT ctid FROM state WHERE k1 < 5') c (written bigint, deleted bigint) $$,
	format('SELECT count(*)::numeric FROM (%s) q WHERE zone_id < 5', :hop), 'each is closed by itself');
SELECT count(*) AS left_over FROM state \gset
SELECT results_eq(
	$$ SELECT count(*), bool_and(group_key ? 'zone_id') FROM one('discard_one', 'SELECT ctid FROM state')
		c (window_start timestamptz, window_end timestamptz, group_key jsonb) $$,
	format('SELECT %s::bigint, true', :left_over),
	'discard_one tells which group it was');
SELECT is_empty('TABLE state', 'and they are gone');

-- Seek: windows that began before are neither emitted nor late.
SELECT compile(:hop, windows_from => '2024-05-01 02:00Z');
SELECT results_eq($$ SELECT late FROM run('apply', '2024-05-01 03:00Z') $$,
	$$ SELECT count(*) FROM rides, weir.hop(pickup_at, '1 hour', '25 minutes') w
		WHERE fare > 0 AND w.window_end <= '2024-05-01 03:00Z'
			AND w.window_start >= '2024-05-01 02:00Z' $$, 'not late');
SELECT is_empty(format('SELECT differences(%L)', format(:hop_from,
	'w.window_end > ''2024-05-01 03:00Z'' AND w.window_start >= ''2024-05-01 02:00Z''')),
	'not emitted');
SELECT execution('clear_target', '2024-05-01 04:00Z') \gexec
SELECT is_empty('SELECT * FROM target WHERE window_start >= ''2024-05-01 04:00Z''',
	'clear_target removes windows from a time on');
SELECT isnt_empty('SELECT * FROM target', 'and no others');
SELECT compile('SELECT w.window_end, count(*) AS n FROM rides, weir.tumble(pickup_at, ''1 hour'') w GROUP BY 1');
SELECT run('apply');
SELECT execution('clear_target', '2024-05-01 04:00Z') \gexec
SELECT results_eq('SELECT max(window_end) FROM target', 'SELECT ''2024-05-01 04:00Z''::timestamptz',
	'also where only the end is in the target');
SELECT * FROM finish();
ROLLBACK;
