-- weir.create_stream() and the control functions, without a broker: one
-- transaction that is rolled back, so no worker ever sees it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS weir;
RESET client_min_messages;
\set VERBOSITY default
\pset null '(null)'
BEGIN;
\set ON_ERROR_ROLLBACK on
CREATE SCHEMA str;
SET LOCAL search_path = str, public;
SET LOCAL TimeZone = 'Europe/Berlin';
SET LOCAL IntervalStyle = 'iso_8601';
CREATE SERVER kafka FOREIGN DATA WRAPPER weir_kafka
	OPTIONS (bootstrap_servers 'localhost:1');
SELECT weir.create_source('rides', 'kafka', 'rides',
	'id bigint NOT NULL, zone int, fare numeric, at timestamptz',
	event_time => 'at');
CREATE TABLE zones (id int PRIMARY KEY, name text);

-- Each kind, with its target and its key.
SELECT weir.create_stream('windows', $$
	SELECT w.window_start, w.window_end, z.name AS zone, count(*) AS rides
	FROM rides r CROSS JOIN weir.tumble(r.at, '15 minutes') w
		JOIN zones z ON z.id = r.zone
	GROUP BY w.window_start, w.window_end, z.name $$,
	emit => 'on_close', allowed_lateness => '1 minute', late_rows => 'drop',
	options => '{"fillfactor": 50, "on_idle": "advance"}');
SELECT weir.create_stream('totals',
	'SELECT zone, sum(fare) AS fares FROM rides GROUP BY zone',
	on_error => 'stop', batch_interval => '1 second');
SELECT weir.create_stream('log', 'SELECT id, fare FROM rides WHERE fare > 1');
SELECT weir.create_stream('latest', 'SELECT id, fare FROM rides',
	options => '{"key": "id", "start_from": {"0": 5}, "max_dead_ratio": 0.1}');
\d windows
\d totals
\d latest
\x on
SELECT stream, kind, window_kind, sources, target, target_created, key_columns,
	query, emit, allowed_lateness, late_rows, on_error, batch_interval,
	options, start_from, settings[1:4], paused
FROM weir.streams ORDER BY stream;
\x off
SELECT source, streams FROM weir.sources;
SELECT m.name, c.relnamespace::regnamespace AS schema, c.relreplident,
	c.relowner = m.owner AS owned
FROM weir_internal.stream m JOIN pg_class c ON c.oid = m.state ORDER BY 1;

-- Names: one namespace with sources.
SELECT weir.create_stream('totals', 'SELECT id FROM rides');
SELECT weir.create_stream('totals', 'SELECT id FROM rides', if_not_exists => true);
SELECT weir.create_stream('rides', 'SELECT id FROM rides');
SELECT weir.create_source('totals', 'kafka', 'x', 'a int');
SELECT weir.create_stream('str.s', 'SELECT id FROM rides');

-- Arguments.
SELECT weir.create_stream('s', NULL);
SELECT weir.create_stream('s', 'SELECT id FROM zones');
SELECT weir.create_stream('s', 'SELECT id FROM rides', emit => 'always');
SELECT weir.create_stream('s', 'SELECT id FROM rides', late_rows => 'keep');
SELECT weir.create_stream('s', 'SELECT id FROM rides', on_error => 'skip');
SELECT weir.create_stream('s', 'SELECT id FROM rides', allowed_lateness => '1 month');
SELECT weir.create_stream('s', 'SELECT id FROM rides', options => '{"keys": "id"}');
SELECT weir.create_stream('s', 'SELECT id FROM rides', options => '{"state_ttl": "1 day"}');
SELECT weir.create_stream('s', 'SELECT id FROM rides', options => '{"key": 5}');
SELECT weir.create_stream('s', 'SELECT id FROM rides', options => '{"on_idle": "stop"}');
SELECT weir.create_stream('s', 'SELECT id FROM rides', options => '{"max_dead_ratio": 2}');
SELECT weir.create_stream('s', 'SELECT id FROM rides', options => '{"fillfactor": 5}');
SELECT weir.create_stream('s', 'SELECT id FROM rides', options => '{"start_from": "soon"}');

-- Targets that exist.
CREATE VIEW a_view AS SELECT 1 AS id;
SELECT weir.create_stream('s', 'SELECT id FROM rides', target => 'a_view');
CREATE UNLOGGED TABLE fast (id bigint);
SELECT weir.create_stream('s', 'SELECT id FROM rides', target => 'fast');
SELECT weir.create_stream('s', 'SELECT id FROM rides', target => 'weir.dead_letter');
SELECT weir.create_stream('s', 'SELECT id FROM rides', target => 'rides');
SELECT weir.create_stream('s', 'SELECT id FROM rides', target => 'nowhere.t');
SELECT weir.create_stream('s', 'SELECT zone, count(*) AS fares FROM rides GROUP BY zone', target => 'totals');
CREATE TABLE own (id bigint, note text);
SELECT weir.create_stream('s', 'SELECT id FROM rides', target => 'own');
SELECT weir.create_stream('s2', 'SELECT id FROM rides', target => 'own');
SELECT stream, target, target_created FROM weir.streams WHERE stream ~ '^s';

-- Compiled statements: that there are some; sql/compile.sql has the texts.
SELECT bool_and(step <> '' AND purpose <> '' AND statement <> '')
FROM weir.explain('windows');
SELECT weir.explain('nothing');

-- Pause and resume, whichever it is.
SELECT weir.pause('rides'), weir.pause('log'), weir.pause('str.rides');
SELECT source, paused FROM weir.sources;
SELECT stream FROM weir.streams WHERE paused;
UPDATE weir_internal.stream SET failed_message = 'x', failed_sqlstate = '42000' WHERE name = 'log';
SELECT weir.wait_for('log');
SELECT weir.resume('rides'), weir.resume('log');
SELECT stream FROM weir.streams WHERE paused;
SELECT failed_message FROM weir_internal.stream WHERE name = 'log';
SELECT weir.pause('nothing');
SELECT weir.watermark('windows');
SELECT weir.stat_reset(), weir.stat_reset('log');

-- Seek: what it clears, by kind.
CREATE FUNCTION filled() RETURNS void LANGUAGE sql AS $$
	DELETE FROM windows; DELETE FROM totals; DELETE FROM log; DELETE FROM latest;
	INSERT INTO windows VALUES
		('2024-01-01 00:00Z', '2024-01-01 00:15Z', 'a', 1),
		('2024-01-01 00:15Z', '2024-01-01 00:30Z', 'a', 1);
	INSERT INTO totals VALUES (1, 1);
	INSERT INTO log VALUES (1, 1);
	INSERT INTO latest VALUES (1, 1);
	UPDATE weir_internal.stream_state SET applied_offsets = '{100,101}', max_event_times = '{NULL,NULL}',
		max_record_timestamps = '{2024-01-01 00:20Z,2024-01-01 00:20Z}';
$$;
CREATE VIEW sought AS SELECT m.name, e.seek_generation, e.seek_to, e.seek_forward, e.seek_floor
	FROM weir_internal.stream_state e JOIN weir_internal.stream m USING (stream_id);
SELECT filled();
SELECT weir.seek('windows', '2024-01-01 00:10Z');
SELECT window_start FROM windows;
SELECT weir.seek('windows', '{"1": 7}');
SELECT * FROM sought WHERE name = 'windows';
SELECT weir.seek('windows', 'earliest');
SELECT window_start FROM windows;
SELECT weir.seek('windows', 'latest');
SELECT * FROM sought WHERE name = 'windows';

SELECT weir.seek('totals', '2024-01-01 00:10Z');
SELECT weir.seek('totals', '{"0": 99}');
SELECT weir.seek('totals', '{"0": 100, "1": 200}');
SELECT weir.seek('totals', 'latest');
SELECT count(*) FROM totals;
SELECT weir.seek('totals', '2024-01-01 00:30Z');
SELECT * FROM sought WHERE name = 'totals';
SELECT weir.seek('totals', 'earliest');
SELECT count(*) FROM totals;

SELECT weir.seek('log', 'latest');
SELECT count(*) FROM log;
SELECT weir.seek('log', '{"1": 3}');
SELECT count(*) FROM log;
SELECT weir.seek('s', 'earliest');
SELECT weir.seek('latest', 'earliest');
SELECT count(*) FROM latest;
SELECT * FROM sought ORDER BY name;
SELECT weir.seek('log', 'somewhere');
SELECT weir.seek('nothing', 'earliest');

-- A source that stopped since its topic is another one.
UPDATE weir_internal.source SET stopped_sqlstate = '55W01', stopped_message = 'x';
SELECT weir.seek('log', 'earliest');
SELECT topic_incarnation, stopped_message FROM weir_internal.source;

-- Advances are recorded for the streams of now.
SELECT weir.advance_watermark('rides');
SELECT weir.advance_watermark('rides', 'infinity');
SELECT weir.advance_watermark('rides', '-infinity');
SELECT weir.advance_watermark('rides', now() + '2 hours');
SELECT weir.advance_watermark('rides', '2024-01-01Z');
SELECT weir.advance_watermark('rides', '2999-01-01Z', force => true);
SELECT m.name, a.to_time, a.end_offsets FROM weir_internal.advance a
	JOIN weir_internal.stream m USING (stream_id)
WHERE m.name IN ('log', 'windows') ORDER BY advance_id;

-- Waiting for what is not committed.
SELECT weir.wait_for('log', '1 second');

-- Drop.
SELECT weir.drop_source('rides');
SELECT weir.drop_stream('s', drop_target => true);
INSERT INTO weir.dead_letter (source, stream, kafka_topic, reason, source_id, stream_id, owner)
	SELECT 'rides', name, 'rides', 'late', source_id, stream_id, owner
	FROM weir_internal.stream WHERE name = 'log';
SELECT weir.drop_stream('log', drop_target => true);
SELECT to_regclass('log');
SELECT stream, reason FROM weir.dead_letter WHERE stream = 'log';
DO $$ BEGIN
	EXECUTE (SELECT format('INSERT INTO %s (window_start, window_end) VALUES
		(''2024-01-01Z'', ''2024-01-02Z'')', state)
		FROM weir_internal.stream WHERE name = 'windows');
END $$;
SELECT weir.drop_stream('windows');
SELECT to_regclass('windows');
SELECT weir.drop_stream('windows');
SELECT weir.drop_source('rides', cascade => true);
SELECT count(*) FROM weir.streams;
SELECT count(*) FROM pg_class WHERE relname ~ '^state_' AND relnamespace = 'weir_internal'::regnamespace;
SELECT to_regclass('rides'), to_regclass('totals');
ROLLBACK;
