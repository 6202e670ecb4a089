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
'makes a source, a Kafka topic with typed columns, and returns its foreign table. name: may have a schema; server: a server of weir_kafka; columns: as in CREATE FOREIGN TABLE, with column options path and epoch (d, s, ms, us, ns); format: json; event_time: a timestamp column, default the record''s Kafka timestamp; max_out_of_orderness, idle_timeout (NULL: never idle), max_future_skew (NULL: no limit): durations without months; start_from: earliest, latest, a timestamp, or offsets {"0": 42}, which must be there, else the source stops; filter: condition that a row must pass to be staged; on_error: dead_letter or stop; workers: 1; options: staging_limit (bytes or a size), dead_letter_limit (rows). Errors: 42710 or 42P07 the name is taken, 42704 no such server, 42501 no USAGE on it, 22023 a bad argument, 42601 a bad column list, 0A000 not supported';

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

CREATE FUNCTION weir.pause(name text) RETURNS void
	LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'weir_pause';
COMMENT ON FUNCTION weir.pause(text) IS
'stops a source or a stream at commit, until weir.resume(); name: of a source or stream that the caller owns. Errors: 42704 no such name, 42501 not the owner';

CREATE FUNCTION weir.resume(name text) RETURNS void
	LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'weir_resume';
COMMENT ON FUNCTION weir.resume(text) IS
'lets a paused, stopped or failed source or stream go on from where it was; name: of a source or stream that the caller owns. Errors: 42704 no such name, 42501 not the owner';

CREATE FUNCTION weir.drop_source(name text, cascade boolean DEFAULT false) RETURNS void
	LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'weir_drop_source';
COMMENT ON FUNCTION weir.drop_source(text, boolean) IS
'drops a source and its foreign table; cascade: also the streams that read it and views on it. Dead letters stay. Errors: 42704 no such source, 42501 not the owner, 2BP01 streams or views read it';

CREATE FUNCTION weir.drop_stream(name text, drop_target boolean DEFAULT false) RETURNS void
	LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'weir_drop_stream';
COMMENT ON FUNCTION weir.drop_stream(text, boolean) IS
'drops a stream and its state, with a notice of the open windows discarded; drop_target: also the target, if weir made it. Dead letters stay. Errors: 42704 no such stream, 42501 not the owner, 55000 weir did not make the target, 2BP01 something else needs it';

CREATE FUNCTION weir.seek(stream text, "to" text) RETURNS void
	LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'weir_seek';
COMMENT ON FUNCTION weir.seek(text, text) IS
'moves a stream to another position at commit; to: earliest, latest, a timestamp (first record at or after it), or offsets {"0": 42} (other partitions stay). Clears state, and target rows of windows that start at or after it; windows begun earlier are not emitted. Running aggregates: earliest or forward only; rows without a key: back only into a target that weir made and nothing else writes. Errors: 42704 no such stream, 42501 not the owner, 22023 a bad position, 0A000 not possible for this stream';

CREATE FUNCTION weir.advance_watermark(source text, to_time timestamptz DEFAULT NULL, force boolean DEFAULT false) RETURNS void
	LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'weir_advance_watermark';
COMMENT ON FUNCTION weir.advance_watermark(text, timestamptz, boolean) IS
'advances the watermark of the streams of a source when they have applied all that stands in Kafka now; to_time: NULL or infinity closes what is open and goes no further; force: allow a time past now + max_future_skew. Errors: 42704 no such source, 42501 not the owner, 22023 a time too far ahead';

CREATE FUNCTION weir.wait_for(stream text, timeout interval DEFAULT '1 minute') RETURNS void
	LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'weir_wait_for';
COMMENT ON FUNCTION weir.wait_for(text, interval) IS
'returns when the stream has applied all that stood in Kafka at the call, and earlier calls of weir.advance_watermark(); timeout: NULL waits without end. Errors: 42704 no such stream, 42501 not the owner, 55000 it is paused, failed, or was made or changed in this transaction, or no worker may run, 57014 the timeout, with the lag and what it waits for in DETAIL, 25001 not in READ COMMITTED, 25006 on a standby';

CREATE FUNCTION weir.explain(stream text, OUT step text, OUT purpose text, OUT statement text) RETURNS SETOF record
	LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'weir_explain';
COMMENT ON FUNCTION weir.explain(text) IS
'the statements that a stream runs, in order; weir_internal.segment stands for a staging segment. They are written for search_path = pg_catalog, pg_temp, under which the worker analyzes them. Errors: 42704 no such stream, 42501 not the owner, and those of a query that no longer works';

CREATE FUNCTION weir.watermark(stream text) RETURNS timestamptz
	LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'weir_watermark';
COMMENT ON FUNCTION weir.watermark(text) IS
'the committed watermark of a stream: all rows with an event time below it have been applied; NULL: none yet. Errors: 42704 no such stream, 42501 neither owner nor pg_read_all_stats';

CREATE FUNCTION weir.stat_reset(name text DEFAULT NULL) RETURNS void
	LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'weir_stat_reset';
COMMENT ON FUNCTION weir.stat_reset(text) IS
'sets the counters of a source or stream to zero; name: NULL for all that the caller owns. Errors: 42704 no such name, 42501 not the owner';

CREATE FUNCTION weir.adopt_database() RETURNS void
	LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'weir_adopt_database';
COMMENT ON FUNCTION weir.adopt_database() IS
'makes this database, restored or cloned from another, the one its sources belong to: their workers start at commit. Errors: 42501 not the owner of the extension, 55000 the database has not been restored completely';
REVOKE ALL ON FUNCTION weir.adopt_database() FROM PUBLIC;

CREATE FUNCTION weir.sample(
	server text, topic text, n int DEFAULT 10,
	OUT kafka_partition int, OUT kafka_offset bigint, OUT kafka_timestamp timestamptz,
	OUT kafka_key bytea, OUT payload text)
RETURNS SETOF record LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'weir_sample';
COMMENT ON FUNCTION weir.sample(text, text, int) IS
'the newest records of a topic, read with the caller''s user mapping, for 30 seconds at most; server: a server of weir_kafka; n: how many at most, over all partitions; payload: as by weir.dead_letter_text(). Errors: 42704 no such server, 42501 no USAGE on it, 08000 the broker cannot be reached, 42704 no such topic';
