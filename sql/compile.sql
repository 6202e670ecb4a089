-- What a query compiles to; weir.explain() shows the same for a stream.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS weir;
RESET client_min_messages;
CREATE SCHEMA compile;
SET search_path = compile;
CREATE TABLE rides (zone_id int, fare numeric(8,2), pickup_at timestamptz,
	kafka_topic text, kafka_partition int, kafka_offset bigint,
	kafka_timestamp timestamptz, kafka_key bytea, kafka_headers text[]);
CREATE TABLE zones (id int PRIMARY KEY, name text);
\pset format unaligned
\pset tuples_only on
\pset recordsep '\n----\n'
\pset fieldsep '\n'

-- A window, a dimension, HAVING: emitted on change.
SELECT step, '-- ' || purpose, statement
FROM weir_internal.compile_query($$
	SELECT w.window_start, w.window_end, z.name AS zone, count(*) AS rides,
		avg(r.fare) FILTER (WHERE r.fare > 0) AS avg_fare
	FROM rides r
		CROSS JOIN weir.tumble(r.pickup_at, '15 minutes') w
		JOIN zones z ON z.id = r.zone_id
	GROUP BY w.window_start, w.window_end, z.name
	HAVING count(*) > 1 $$, 'rides', 'pickup_at',
	allowed_lateness => '1 minute')
WHERE step IN ('query', 'state', 'target', 'apply', 'merge_groups', 'emit_one',
	'late',
	'close', 'oldest');

-- Hopping windows share panes; emitted on close.
SELECT step, '-- ' || purpose, statement
FROM weir_internal.compile_query($$
	SELECT w.window_start, w.window_end, r.zone_id, max(r.fare) AS dearest
	FROM rides r
		CROSS JOIN weir.hop(r.pickup_at, '1 hour', '10 minutes') w
	GROUP BY w.window_start, w.window_end, r.zone_id $$, 'rides', 'pickup_at',
	emit => 'on_close', windows_from => '2024-05-01 00:00Z')
WHERE step IN ('apply', 'close');

-- A timestamp taken at a zone: the watermark comes as a time of the windows.
CREATE TABLE local_rides (pickup_at timestamp, kafka_topic text,
	kafka_partition int, kafka_offset bigint, kafka_timestamp timestamptz,
	kafka_key bytea, kafka_headers text[]);
SELECT step, '-- ' || purpose, statement
FROM weir_internal.compile_query($$
	SELECT w.window_start, count(*) AS rides
	FROM local_rides
		CROSS JOIN weir.tumble(pickup_at AT TIME ZONE 'Europe/Berlin', '1 hour') w
	GROUP BY w.window_start $$, 'local_rides', 'pickup_at', emit => 'on_close')
WHERE step IN ('oldest', 'close');
SELECT step, '-- ' || purpose, statement
FROM weir_internal.compile_query($$
	SELECT w.window_start, count(*) AS rides
	FROM local_rides CROSS JOIN weir.hop(pickup_at, '1 hour', '30 minutes') w
	GROUP BY w.window_start $$, 'local_rides', 'pickup_at', emit => 'on_close')
WHERE step IN ('query', 'oldest', 'closing', 'close_one', 'discard_one');

-- Rows, and the last row of a key.
SELECT step, '-- ' || purpose, statement
FROM weir_internal.compile_query($$
	SELECT zone_id, fare FROM rides WHERE fare > 0 $$, 'rides', 'pickup_at')
WHERE step IN ('apply', 'probe', 'culprits', 'placed_rows', 'one_row');
SELECT step, '-- ' || purpose, statement
FROM weir_internal.compile_query($$
	SELECT zone_id, fare FROM rides WHERE fare > 0 $$, 'rides', 'pickup_at',
	key => '{zone_id}')
WHERE step IN ('state', 'target', 'apply', 'one_row');

\pset tuples_only off
SET client_min_messages = warning;
DROP SCHEMA compile CASCADE;
