-- What a continuous query may not contain, and what is said about it.
-- weir_internal.compile_query compiles a query as weir.create_stream does, over
-- a relation that stands in for a source.
\set VERBOSITY default
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS weir;
RESET client_min_messages;
CREATE SCHEMA refuse;
SET search_path = refuse;

CREATE TABLE rides (ride_id bigint, zone_id int, fare numeric(8,2),
	pickup_at timestamptz, meta json, kafka_topic text, kafka_partition int,
	kafka_offset bigint, kafka_timestamp timestamptz, kafka_key bytea,
	kafka_headers text[]);
CREATE TABLE zones (id int PRIMARY KEY, name text);
CREATE VIEW rides_view AS SELECT * FROM rides;

CREATE FUNCTION refused(query text, emit text DEFAULT 'on_change',
	key text[] DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	detail text;
	hint text;
BEGIN
	PERFORM weir_internal.compile_query(query, 'refuse.rides', 'pickup_at',
		emit, key => key);
	RAISE INFO 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE,
		message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
		hint = PG_EXCEPTION_HINT;
	RAISE INFO '% %', state, message;
	IF detail <> '' THEN RAISE INFO '  detail: %', detail; END IF;
	IF hint <> '' THEN RAISE INFO '  hint: %', hint; END IF;
END $$;
\pset tuples_only on
\pset format unaligned

-- Not one SELECT over one source.
SELECT refused('SELECT 1 AS one; SELECT 2 AS two');
SELECT refused('DELETE FROM rides');
SELECT refused('SELECT * INTO copied FROM rides');
SELECT refused('SELECT ride_id FRM rides');
SELECT refused('SELECT id FROM zones');
SELECT refused('SELECT a.ride_id FROM rides a JOIN rides b USING (ride_id)');
SELECT refused('SELECT id FROM zones WHERE id IN (SELECT zone_id FROM rides)');
SELECT refused('SELECT ride_id FROM rides_view');
SELECT refused('SELECT ride_id FROM rides r
	WHERE fare > (SELECT avg(fare) FROM rides)');
SELECT refused('SELECT r.ride_id FROM rides r JOIN rides_view v USING (ride_id)');
CREATE TEMP TABLE scratch (id int);
SELECT refused('SELECT ride_id FROM rides JOIN scratch ON id = zone_id');

-- Clauses.
SELECT refused('SELECT ride_id FROM rides UNION ALL SELECT 1');
SELECT refused('WITH z AS (SELECT 1) SELECT ride_id FROM rides');
SELECT refused('SELECT DISTINCT zone_id FROM rides');
SELECT refused('SELECT ride_id FROM rides ORDER BY 1');
SELECT refused('SELECT ride_id FROM rides LIMIT 10');
SELECT refused('SELECT rank() OVER (ORDER BY fare) FROM rides');
SELECT refused('SELECT zone_id, count(*) FROM rides GROUP BY ROLLUP (zone_id)');
SELECT refused('SELECT ride_id FROM rides FOR UPDATE');
SELECT refused('SELECT ride_id FROM rides TABLESAMPLE system (10)');

-- Outer joins that would have to take rows back.
SELECT refused('SELECT name FROM zones LEFT JOIN rides ON id = zone_id');
SELECT refused('SELECT name FROM rides RIGHT JOIN zones ON id = zone_id');
SELECT refused('SELECT name FROM rides FULL JOIN zones ON id = zone_id');

-- Columns.
SELECT refused('SELECT ride_id + 1 FROM rides');
SELECT refused('SELECT ride_id, zone_id AS ride_id FROM rides');
SELECT refused('SELECT ROW(ride_id, fare) AS pair FROM rides');
SELECT refused('SELECT to_jsonb(r) AS ride FROM rides r');
SELECT refused('SELECT r.ctid AS place FROM rides r');
SELECT refused('SELECT FROM rides');

-- What would give another result each time it is read.
SELECT refused('SELECT ride_id FROM rides WHERE random() < 0.1');
SELECT refused('SELECT zone_id, count(*) FROM rides
	GROUP BY zone_id, floor(random() * 3)');
SELECT refused('SELECT zone_id, sum(random()) FROM rides GROUP BY zone_id');
SELECT refused('SELECT zone_id, count(*) FROM rides GROUP BY zone_id
	HAVING count(*) > random()');
SELECT refused('SELECT ride_id, s FROM rides, generate_series(1, (random() * 3)::int) s');

-- Windows.
SELECT refused($$SELECT w.window_start, count(*) FROM rides,
	weir.tumble(now(), '1 hour') w GROUP BY 1$$);
SELECT refused($$SELECT w.window_start, count(*) FROM rides,
	weir.tumble(kafka_timestamp, '1 hour') w GROUP BY 1$$);
SELECT refused($$SELECT w.window_start, count(*) FROM rides,
	weir.tumble(pickup_at AT TIME ZONE 'Europe/Berlin', '1 hour') w GROUP BY 1$$);
SELECT refused($$SELECT w.window_start, count(*) FROM rides,
	weir.tumble(pickup_at::timestamp, '1 hour') w GROUP BY 1$$);
SELECT refused($$SELECT w.window_start, count(*) FROM rides,
	weir.tumble(pickup_at, fare * '1 hour'::interval) w GROUP BY 1$$);
SELECT refused($$SELECT w.window_start, count(*) FROM rides,
	weir.tumble(pickup_at, NULL) w GROUP BY 1$$);
SELECT refused($$SELECT w.window_start, count(*) FROM rides,
	weir.tumble(pickup_at, '0') w GROUP BY 1$$);
SELECT refused($$SELECT w.window_start, count(*) FROM rides,
	weir.tumble(pickup_at, '1 month') w GROUP BY 1$$);
SELECT refused($$SELECT w.window_start, count(*) FROM rides,
	weir.hop(pickup_at, '1 minute', '1 hour') w GROUP BY 1$$);
SELECT refused($$SELECT w.window_start, count(*) FROM rides,
	weir.cumulate(pickup_at, '1 hour', '10 minutes') w GROUP BY 1$$);
SELECT refused($$SELECT w.window_start, count(*) FROM rides,
	weir.session(pickup_at, '1 hour') w GROUP BY 1$$);
SELECT refused($$SELECT v.window_start, count(*) FROM rides,
	weir.tumble(pickup_at, '1 hour') v, weir.tumble(pickup_at, '2 hours') w
	GROUP BY 1$$);
SELECT refused($$SELECT w.window_start, count(*) FROM rides,
	weir.tumble(pickup_at, '1 hour') WITH ORDINALITY w GROUP BY 1$$);
SELECT refused($$SELECT w.window_start, count(*) FROM rides
	LEFT JOIN weir.tumble(pickup_at, '1 hour') w ON fare > 0 GROUP BY 1$$);
SELECT refused($$SELECT zone_id, count(*) FROM rides,
	weir.tumble(pickup_at, '1 hour') w GROUP BY 1$$);
SELECT refused($$SELECT w.window_start, w::text AS x, count(*) FROM rides,
	weir.tumble(pickup_at, '1 hour') w GROUP BY w.window_start, w$$);
SELECT refused($$SELECT w.window_start, count(*) FROM rides,
	weir.hop(pickup_at, '1 day', '6 hours', timezone => 'Europe/Berlin') w
	GROUP BY 1$$);

-- Group keys.
SELECT refused('SELECT count(*) FROM rides');
SELECT refused('SELECT count(*) FROM rides GROUP BY zone_id');
SELECT refused($$SELECT w.window_start, count(*) FROM rides,
	weir.tumble(pickup_at, '1 hour') w GROUP BY 1, fare * 2$$);
SELECT refused('SELECT point(fare::float8, 0) AS p, count(*) FROM rides GROUP BY 1');
SELECT refused('SELECT zone_id::text::xid AS x, count(*) FROM rides GROUP BY 1');
SELECT refused('SELECT z.id, z.name, count(*) FROM rides JOIN zones z ON z.id = zone_id
	GROUP BY z.id');

-- Aggregates.
SELECT refused('SELECT zone_id, count(DISTINCT fare) FROM rides GROUP BY 1');
SELECT refused('SELECT zone_id, sum(fare ORDER BY fare) FROM rides GROUP BY 1');
SELECT refused('SELECT zone_id, array_agg(fare) FROM rides GROUP BY 1');
SELECT refused('SELECT zone_id, corr(fare, ride_id) FROM rides GROUP BY 1');
SELECT refused('SELECT zone_id, percentile_cont(0.5) WITHIN GROUP (ORDER BY fare)
	FROM rides GROUP BY 1');
SELECT refused('SELECT zone_id, generate_series(1, count(*)) AS s FROM rides GROUP BY 1');
SELECT refused('SELECT zone_id, (SELECT count(r.fare) + id FROM zones LIMIT 1) AS n
	FROM rides r GROUP BY 1');

-- Options.
SELECT refused('SELECT zone_id, count(*) FROM rides GROUP BY 1', 'on_close');
SELECT refused('SELECT ride_id FROM rides', 'on_close');
SELECT refused('SELECT zone_id, count(*) FROM rides GROUP BY 1', key => '{zone_id}');
SELECT refused('SELECT ride_id FROM rides', key => '{id}');
SELECT refused('SELECT ride_id FROM rides', key => '{ride_id,ride_id}');
SELECT refused('SELECT ride_id, meta FROM rides', key => '{meta}');
SELECT refused('SELECT ride_id, unnest(kafka_headers) AS h FROM rides', key => '{ride_id}');

-- An existing target must fit.
CREATE FUNCTION check_target(query text, key text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	hint text;
BEGIN
	PERFORM weir_internal.check_target(query, 'refuse.rides', 'pickup_at',
		'refuse.target', key);
	RAISE INFO 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE,
		message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RAISE INFO '% %', state, message;
	IF hint <> '' THEN RAISE INFO '  hint: %', hint; END IF;
END $$;
CREATE TABLE target (zone_id int, n text, at timestamptz, note text DEFAULT 'none');
SELECT check_target('SELECT zone_id, fare FROM rides');
SELECT check_target('SELECT zone_id, fare AS at FROM rides');
SELECT check_target('SELECT zone_id, pickup_at AS n FROM rides');
SELECT check_target('SELECT zone_id, count(*) AS n FROM rides GROUP BY 1');
CREATE UNIQUE INDEX ON target (zone_id);
SELECT check_target('SELECT zone_id, count(*) AS n FROM rides GROUP BY 1');
ALTER TABLE target ALTER zone_id SET NOT NULL;
SELECT check_target('SELECT zone_id, count(*) AS n FROM rides GROUP BY 1');
SELECT check_target('SELECT count(*) AS zone_id, fare AS n FROM rides GROUP BY 2');
ALTER TABLE target ALTER note SET NOT NULL, ALTER note DROP DEFAULT;
SELECT check_target('SELECT zone_id, count(*) AS n FROM rides GROUP BY 1');
ALTER TABLE target DROP note, ADD CONSTRAINT later UNIQUE (n)
	DEFERRABLE INITIALLY DEFERRED;
SELECT check_target('SELECT zone_id, count(*) AS n FROM rides GROUP BY 1');
DROP TABLE target;
CREATE TABLE target (zone_id int PRIMARY KEY,
	n text GENERATED ALWAYS AS ('x') STORED);
SELECT check_target('SELECT zone_id, count(*) AS n FROM rides GROUP BY 1');
DROP TABLE target;
CREATE VIEW target AS SELECT 1 AS zone_id;
SELECT check_target('SELECT zone_id FROM rides');

\pset tuples_only off
SET client_min_messages = warning;
DROP SCHEMA refuse CASCADE;
