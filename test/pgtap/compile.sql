-- A stream equals its query: random batches of random interleavings, through
-- the compiled statements, against the same query over the stored rows.
BEGIN;
CREATE EXTENSION IF NOT EXISTS weir;
CREATE EXTENSION IF NOT EXISTS pgtap;
\ir include/stream_sim.psql
SELECT no_plan();
SET LOCAL TimeZone = 'UTC';
SELECT setseed(0.7);
SELECT fill(3000, '2024-03-30 12:00Z', '1 day');

-- Windows.
SELECT stream_equals($$
	SELECT w.window_start, w.window_end, z.name AS zone, count(*) AS rides,
		avg(r.fare) AS avg_fare, max(r.pickup_at) - min(r.pickup_at) AS span
	FROM rides r CROSS JOIN weir.tumble(r.pickup_at, '15 minutes') w
		JOIN zones z ON z.id = r.zone_id
	WHERE r.fare > 0
	GROUP BY w.window_start, w.window_end, z.name $$,
	'tumbling windows with a dimension, on change');
SELECT stream_equals($$
	SELECT w.window_start, w.window_end, z.name AS zone, count(*) AS rides
	FROM rides r CROSS JOIN weir.tumble(r.pickup_at, '15 minutes') w
		JOIN zones z ON z.id = r.zone_id
	GROUP BY w.window_start, w.window_end, z.name $$,
	'the same on close', 'on_close');
SELECT stream_equals($$
	SELECT w.window_end AS until, zone_id, count(*) AS rides
	FROM rides, weir.tumble(pickup_at, '1 day', timezone => 'Europe/Berlin') w
	GROUP BY until, zone_id $$,
	'days of a zone whose clocks change, only their end', 'on_close');
SELECT stream_equals($$
	SELECT w.window_start, w.window_end, zone_id, count(*) AS rides,
		sum(fare) AS fares, stddev(fare) AS dev, count(fare) FILTER (WHERE small > 0) AS some
	FROM rides, weir.hop(pickup_at, '1 hour', '10 minutes') w
	GROUP BY 1, 2, 3 $$,
	'hopping windows', 'on_close');
SELECT stream_equals($$
	SELECT w.window_start, zone_id, var_pop(f8) IS NULL AS none, min(tags) AS tags
	FROM rides, weir.hop(pickup_at, '1 hour', '25 minutes', '2000-01-01 00:07') w
	GROUP BY 1, 2 HAVING count(*) > 2 $$,
	'a slide that does not divide the size, an origin, HAVING');
SELECT stream_equals($$
	SELECT w.window_start AS s, w.window_end AS e, zone_id, count(*) AS rides
	FROM rides, weir.hop(pickup_at, '3 hours', '50 minutes', timezone => 'Europe/Berlin') w
	GROUP BY 1, 2, 3 $$,
	'hopping windows across a change of the clocks', 'on_close');
SELECT stream_equals($$
	SELECT w.window_start, w.window_end,
		w.window_end - pickup_at < '30 minutes' AS near, count(*) AS rides
	FROM rides, weir.hop(pickup_at, '1 hour', '25 minutes') w
	WHERE w.window_start > '2024-03-30 13:00Z'
	GROUP BY 1, 2, 3 $$,
	'hopping windows whose columns are used below the aggregation', 'on_close');
SELECT stream_equals($$
	SELECT w.window_start, count(*) AS n, sum(extract(epoch FROM w.window_end - pickup_at)) AS s
	FROM rides, weir.tumble(pickup_at, '20 minutes') w
	GROUP BY 1 $$,
	'a window column in an aggregate');

-- Groups.
SELECT stream_equals($$
	SELECT zone_id, fare > 50 AS dear, count(*) AS n FROM rides
	GROUP BY zone_id, fare > 50 $$,
	'running aggregates; NULL is a group');
SELECT stream_equals($$
	SELECT zone_id, w.window_start, count(*) AS n
	FROM rides, weir.tumble(pickup_at, '1 hour') w
	GROUP BY 1, 2 HAVING count(*) % 2 = 0 OR NULL $$,
	'groups come and go with HAVING');
SELECT stream_equals($$
	SELECT zone_id AS a, zone_id + 1 AS b, coalesce(zone_id, 0) AS c, count(*) * 2 + zone_id AS d
	FROM rides GROUP BY zone_id $$,
	'expressions over group keys and aggregates');
SELECT stream_equals('SELECT zone_id FROM rides GROUP BY zone_id',
	'groups without aggregates');
SELECT stream_equals($$
	SELECT zone_id FROM rides GROUP BY zone_id HAVING count(*) % 3 > 0 $$,
	'nothing but a key, and HAVING');
SELECT stream_equals($$
	SELECT tag, count(*) AS n FROM rides r LEFT JOIN LATERAL unnest(r.tags) tag ON true
	GROUP BY tag $$,
	'set-returning functions in FROM');
SELECT stream_equals($$
	SELECT unnest(tags) AS tag, count(*) AS n FROM rides GROUP BY tag $$,
	'set-returning functions as group keys');
SELECT stream_equals($$
	SELECT word, count(*) AS n, min(length(word)) AS l
	FROM rides CROSS JOIN LATERAL regexp_split_to_table(array_to_string(tags, ' ', 'none'), '\s+') AS word
	WHERE word <> '' GROUP BY word $$,
	'words');

-- FROM.
SELECT stream_equals($$
	SELECT coalesce(z.name, 'zone ' || zone_id) AS zone, count(*) AS n
	FROM rides r LEFT JOIN zones z ON z.id = r.zone_id GROUP BY 1 $$,
	'a left join');
SELECT stream_equals($$
	SELECT id, name, count(*) AS n
	FROM rides LEFT JOIN (zones z JOIN zones y USING (id, name)) ON id = zone_id
	GROUP BY id, name $$,
	'columns of a join with USING');
SELECT stream_equals($$
	SELECT j.id, count(*) AS n, min(j.name) AS m
	FROM (zones a JOIN zones b USING (id, name)) AS j, rides
	WHERE j.id = zone_id GROUP BY j.id $$,
	'an aliased join');
SELECT stream_equals($$
	SELECT src.zone_id AS f, s.n, count(*) AS c
	FROM rides src, (SELECT count(*) AS n FROM zones) s, (VALUES (1), (2)) delta (k)
	WHERE EXISTS (SELECT FROM zones r WHERE r.id = src.zone_id)
	GROUP BY src.zone_id, s.n $$,
	'sub-selects over tables, and names that the statements use themselves');
SELECT stream_equals($$
	SELECT zone_id, (SELECT name FROM zones WHERE id = r.zone_id) AS zone, count(*) AS n
	FROM rides r GROUP BY zone_id $$,
	'a sub-select over a group key');
SELECT stream_equals($$
	SELECT date_trunc('hour', pickup_at) AS hour, count(*) AS n FROM rides
	WHERE pickup_at < now() AND kafka_partition > 0 GROUP BY hour $$,
	'stable functions and Kafka columns');
SELECT stream_equals($$
	SELECT "zone id", count(*) AS "a ""count""" FROM rides AS "R r" (a, "zone id")
	GROUP BY "zone id" $$,
	'quoted names and column aliases of the source');

SELECT stream_equals($$
	SELECT zone_id, timestamptz '2024-05-01 10:00+02' AS t, interval '-1 day 02:00' AS i,
		date '2024-02-01' AS d, '1e-300'::float8 AS f, E'it''s \\ a "string"' AS s, count(*) AS n
	FROM rides WHERE span > interval '2 minutes' AND pickup_at > '2024-03-30 13:00'
	GROUP BY zone_id $$,
	'constants are read as they were meant');

-- Rows.
SELECT stream_equals($$
	SELECT ride_id, upper(unnest(tags)) AS tag, w.window_start, z.name
	FROM rides r LEFT JOIN zones z ON z.id = zone_id, weir.tumble(pickup_at, '1 hour') w
	WHERE fare > 10 $$,
	'rows');

-- The last row of a key, in any order of arrival.
CREATE FUNCTION keyed_equals(what text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM compile('SELECT zone_id, small % 5 AS five, ride_id, fare FROM rides',
		key => '{zone_id,five}');
	FOR i IN 1..3 LOOP
		DELETE FROM state;
		DELETE FROM target;
		PERFORM play(5 * i);
		RETURN NEXT is_empty($q$ SELECT differences('
			SELECT DISTINCT ON (zone_id, five) zone_id, five, ride_id, fare
			FROM (SELECT *, small % 5 AS five,
					max(kafka_timestamp) OVER p AS newest,
					row_number() OVER (p ORDER BY kafka_offset DESC) AS place
				FROM rides
				WINDOW p AS (PARTITION BY zone_id, small % 5, kafka_partition)) r
			WHERE place = 1
			ORDER BY zone_id, five, newest DESC, kafka_partition DESC') $q$,
			what || ', ' || 5 * i || ' batches');
	END LOOP;
END $$;
SELECT keyed_equals('the last row of a key');
SELECT * FROM finish();
ROLLBACK;
