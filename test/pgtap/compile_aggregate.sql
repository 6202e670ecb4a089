-- Every supported aggregate over every type: exact for numbers that are exact,
-- 1e-9 relative for floats, merged over batches and over panes.
BEGIN;
CREATE EXTENSION IF NOT EXISTS weir;
CREATE EXTENSION IF NOT EXISTS pgtap;
\ir include/stream_sim.psql
SELECT no_plan();
SELECT setseed(0.21);
SELECT fill(2000, '2024-03-30 12:00Z', '6 hours');

SELECT stream_equals(format($$
	SELECT zone_id, count(*) AS n, count(%1$s) AS c, sum(%1$s) AS sum,
		avg(%1$s) AS avg, stddev(%1$s) AS sd, stddev_samp(%1$s) AS ss,
		stddev_pop(%1$s) AS sp, variance(%1$s) AS v, var_samp(%1$s) AS vs,
		var_pop(%1$s) AS vp, min(%1$s) AS min, max(%1$s) AS max,
		sum(%1$s) FILTER (WHERE wide > 0) AS fs,
		var_samp(%1$s) FILTER (WHERE ride_id < 3) AS few
	FROM rides GROUP BY zone_id $$, arg), 'numbers: ' || arg)
FROM unnest(ARRAY['small', 'zone_id', 'wide', 'fare', 'wide::numeric / 1000',
	'fare * 0', '(fare / 7)::numeric(20,15)', 'power(10::numeric, ride_id % 40 - 20)']) arg;
SELECT stream_equals(format($$
	SELECT w.window_start, w.window_end, sum(%1$s) AS sum, avg(%1$s) AS avg,
		stddev(%1$s) AS sd, var_pop(%1$s) FILTER (WHERE wide > 0) AS vp, max(%1$s) AS max
	FROM rides, weir.hop(pickup_at, '1 hour', '25 minutes') w
	GROUP BY 1, 2 $$, arg), 'numbers over panes: ' || arg)
FROM unnest(ARRAY['small', 'zone_id', 'wide', 'fare']) arg;
SELECT stream_equals($$
	SELECT zone_id, sum(span) AS s, avg(span) AS a, sum(price) AS p,
		min(span) AS i, max(price) AS m FROM rides GROUP BY 1 $$,
	'interval and money');
SELECT stream_equals($$
	SELECT zone_id, bool_and(fare > 2) AS b, every(fare > 0) AS e,
		bool_or(fare < 0) AS o, bit_and(small) AS ba, bit_or(wide) AS bo,
		bit_and(zone_id) FILTER (WHERE fare > 90) AS f
	FROM rides GROUP BY zone_id $$,
	'booleans and bits');
SELECT stream_equals($$
	SELECT zone_id, min(tags) AS tags, max(kafka_topic) AS topic, min(pickup_at) AS ts,
		max(pickup_at::date) AS d, min(pickup_at::time) AS t,
		max(inet '10.0.0.0' + ride_id) AS ip, min((kafka_topic || small) COLLATE "C") AS c,
		max(kafka_offset::text::varchar) AS v, max(fare::float8) AS f
	FROM rides GROUP BY zone_id $$,
	'least and greatest of many types');
SELECT stream_equals($$
	SELECT zone_id, sum('NaN'::numeric) FILTER (WHERE ride_id = 5) AS s,
		avg(CASE ride_id WHEN 5 THEN 'Infinity' WHEN 9 THEN '-Infinity' ELSE fare END) AS a,
		stddev(CASE ride_id WHEN 5 THEN 'NaN' ELSE fare END) AS sd,
		var_pop(CASE ride_id WHEN 5 THEN 'Infinity' ELSE fare END) AS vp
	FROM rides GROUP BY zone_id $$,
	'NaN and infinity');

-- Floats: the sum depends on the order of additions.
SELECT compile($$
	SELECT zone_id, sum(f4) AS s4, avg(f4) AS a4, sum(f8) AS s8, avg(f8) AS a8,
		stddev(f4) AS d4, var_pop(f8) AS v8, stddev_pop(f8 + 1e9) AS far
	FROM rides GROUP BY zone_id $$);
SELECT play(9);
CREATE FUNCTION near(a float8, b float8) RETURNS boolean
LANGUAGE sql AS $$
	SELECT coalesce(abs(a - b) <= 1e-9 * greatest(abs(a), abs(b)),
		a IS NULL AND b IS NULL);
$$;
SELECT is_empty($$
	SELECT t.*, q.* FROM target t RIGHT JOIN (
		SELECT zone_id, sum(f4) AS s4, avg(f4) AS a4, sum(f8) AS s8, avg(f8) AS a8,
			stddev(f4) AS d4, var_pop(f8) AS v8, stddev_pop(f8 + 1e9) AS far
		FROM rides GROUP BY zone_id) q
	ON t.zone_id IS NOT DISTINCT FROM q.zone_id
	WHERE (near(t.s4, q.s4) AND near(t.a4, q.a4) AND near(t.s8, q.s8)
		AND near(t.a8, q.a8) AND near(t.d4, q.d4) AND near(t.v8, q.v8)
		AND abs(t.far - q.far) <= 1e-6 * q.far) IS NOT TRUE $$,
	'floats');

-- A sum that overflows fails when it is emitted, not when it is merged.
SELECT compile('SELECT zone_id, sum(wide::numeric::int) AS s FROM rides GROUP BY 1');
UPDATE rides SET wide = 2147483647;
SELECT deal(1, false);
SELECT stage(0);
SELECT lives_ok(execution('merge_state'), 'an overflow does not hinder the merge');
UPDATE state SET s1 = s1 + 9223372036854775807;
SELECT throws_ok($$
	DO $do$ BEGIN EXECUTE statement_of('emit_one') USING (SELECT ctid FROM state LIMIT 1); END $do$ $$,
	'22003', NULL, 'it is an error of the group stage');
SELECT lives_ok(execution('merge_state'), 'and the state goes on');
SELECT * FROM finish();
ROLLBACK;
