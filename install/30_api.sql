-- The functions that users call, but for the window functions and views.

CREATE FUNCTION weir.create_source(
	name					text,
	server					text,
	topic					text,
	columns					text,
	format					text DEFAULT 'json',
	event_time				text DEFAULT NULL,
	max_out_of_orderness	interval DEFAULT '0',
	idle_timeout			interval DEFAULT '30 seconds',
	max_future_skew			interval DEFAULT '1 hour',
	start_from				text DEFAULT 'earliest',
	filter					text DEFAULT NULL,
	on_error				text DEFAULT 'dead_letter',
	workers					int DEFAULT 1,
	options					jsonb DEFAULT '{}',
	if_not_exists			boolean DEFAULT false)
RETURNS regclass LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'weir_create_source';
COMMENT ON FUNCTION weir.create_source(text, text, text, text, text, text, interval, interval, interval, text, text, text, int, jsonb, boolean) IS
'makes a source, a Kafka topic with typed columns, and returns its foreign table. name: may have a schema; server: a server of weir_kafka; columns: as in CREATE FOREIGN TABLE, with column options path and epoch (s, ms, us, ns); format: json; event_time: a timestamp column, default the record''s Kafka timestamp; max_out_of_orderness, idle_timeout (NULL: never idle), max_future_skew (NULL: no limit): durations without months; start_from: earliest, latest, a timestamp, or offsets {"0": 42}; filter: condition that a row must pass to be staged; on_error: dead_letter or stop; workers: 1; options: staging_limit (bytes or a size), dead_letter_limit (rows). Errors: 42710 or 42P07 the name is taken, 42704 no such server, 42501 no USAGE on it, 22023 a bad argument, 42601 a bad column list, 0A000 not supported';

CREATE FUNCTION weir.create_stream(
	name					text,
	query					text,
	target					text DEFAULT NULL,
	emit					text DEFAULT 'on_change',
	allowed_lateness		interval DEFAULT '0',
	late_rows				text DEFAULT 'dead_letter',
	on_error				text DEFAULT 'dead_letter',
	batch_interval			interval DEFAULT '0',
	options					jsonb DEFAULT '{}',
	if_not_exists			boolean DEFAULT false)
RETURNS regclass LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'weir_create_stream';
COMMENT ON FUNCTION weir.create_stream(text, text, text, text, interval, text, text, interval, jsonb, boolean) IS
'makes a stream, a query over a source that keeps a table up to date, and returns that table. name: without a schema; query: a SELECT over one source, see the manual; target: default the stream''s name, created with its key when missing; emit: on_change or on_close; allowed_lateness: how long after its end a window takes rows; late_rows: dead_letter or drop; on_error: dead_letter or stop; batch_interval: least time between micro-batches, 0 adapts; options: key, start_from, on_idle (hold or advance), max_dead_ratio (0 to 1), dead_letter_limit (rows), fillfactor. Errors: 42710 the name is taken, 42501 no privilege on what it reads or writes, 0A000 a query that cannot be kept, 22023 a bad argument, 55006 the target has another stream with a key';
