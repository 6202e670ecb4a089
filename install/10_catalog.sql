-- weir's catalog: the truth about sources and streams, their progress, and
-- the dead letters.  C reads and writes it as the owner of the extension
-- (src/catalog.c); users see it through the views in 35_definitions.sql.
--
-- A relation is held as regclass and a role as regrole, so that a dump names
-- them; nothing else refers to an oid.  A column that names a relation which
-- has been dropped is NULL, never a dangling number (src/ddl_hook.c).
--
-- There are no foreign keys: the rows are restored in any order, by several
-- connections at once.  What belongs together is written and deleted together
-- by src/catalog.c and src/api_*.c, under the lock of names or of the stream;
-- what is missing after a restore keeps a stream from running.

-- The first statement that needs the library: it refuses with 55000 and a
-- hint when shared_preload_libraries does not name it.
CREATE FUNCTION weir_internal.check_preload() RETURNS void
	LANGUAGE C AS 'MODULE_PATHNAME', 'weir_check_preload';
COMMENT ON FUNCTION weir_internal.check_preload() IS
'raises 55000 unless the library was loaded by shared_preload_libraries';
REVOKE ALL ON FUNCTION weir_internal.check_preload() FROM PUBLIC;

DO $$
BEGIN
	PERFORM weir_internal.check_preload();
	IF pg_catalog.getdatabaseencoding() <> 'UTF8' THEN
		RAISE EXCEPTION 'weir needs a database with encoding UTF8'
			USING ERRCODE = '0A000',
				  DETAIL = pg_catalog.format('This database has encoding %s.',
											 pg_catalog.getdatabaseencoding()),
				  HINT = 'Create a database WITH ENCODING ''UTF8'' TEMPLATE template0.';
	END IF;
END
$$;

CREATE TYPE weir.kafka_header AS (key text, value bytea);
COMMENT ON TYPE weir.kafka_header IS
'one header of a Kafka record; the column kafka_headers of a source is an array of them';
COMMENT ON COLUMN weir.kafka_header.key IS 'name of the header; not unique in a record';
COMMENT ON COLUMN weir.kafka_header.value IS 'its value as received; NULL when the record has a null value';

------------------------------------------------------------------------
-- Definitions
------------------------------------------------------------------------

CREATE SEQUENCE weir_internal.source_id_seq AS int;
COMMENT ON SEQUENCE weir_internal.source_id_seq IS 'numbers the sources';

CREATE TABLE weir_internal.source (
	source_id				int PRIMARY KEY DEFAULT pg_catalog.nextval('weir_internal.source_id_seq'),
	relation				regclass NOT NULL UNIQUE,
	topic					text NOT NULL,
	format					text NOT NULL,
	event_time				smallint NOT NULL,
	max_out_of_orderness	interval NOT NULL,
	idle_timeout			interval,
	max_future_skew			interval,
	start_from				text NOT NULL,
	filter					text,
	on_error				text NOT NULL CHECK (on_error IN ('dead_letter', 'stop')),
	workers					int NOT NULL,
	options					jsonb NOT NULL,
	settings				text[] NOT NULL,
	objects					text[],
	paused					boolean NOT NULL DEFAULT false,
	stopped_message			text,
	stopped_sqlstate		text,
	topic_incarnation		int NOT NULL DEFAULT 1,
	created_at				timestamptz NOT NULL DEFAULT pg_catalog.now()
);
ALTER SEQUENCE weir_internal.source_id_seq OWNED BY weir_internal.source.source_id;
COMMENT ON TABLE weir_internal.source IS 'one row a source; shown by weir.sources';
COMMENT ON COLUMN weir_internal.source.source_id IS 'its number, never used again';
COMMENT ON COLUMN weir_internal.source.relation IS 'the foreign table; its owner is the source''s, its server the connection';
COMMENT ON COLUMN weir_internal.source.topic IS 'Kafka topic';
COMMENT ON COLUMN weir_internal.source.format IS 'how payloads are decoded: json';
COMMENT ON COLUMN weir_internal.source.event_time IS 'attribute number of the event-time column; of kafka_timestamp when none was named';
COMMENT ON COLUMN weir_internal.source.max_out_of_orderness IS 'how far the watermark stays behind the greatest event time';
COMMENT ON COLUMN weir_internal.source.idle_timeout IS 'after this long at its end a partition no longer holds the watermark; NULL: never';
COMMENT ON COLUMN weir_internal.source.max_future_skew IS 'an event time further past the wall clock does not move the watermark; NULL: no limit';
COMMENT ON COLUMN weir_internal.source.start_from IS 'first position of its streams: earliest, latest, a time, or offsets';
COMMENT ON COLUMN weir_internal.source.filter IS 'condition a row must pass to be staged, every name qualified; NULL: all';
COMMENT ON COLUMN weir_internal.source.on_error IS 'what a record that cannot be decoded does: dead_letter or stop';
COMMENT ON COLUMN weir_internal.source.workers IS 'ingest workers';
COMMENT ON COLUMN weir_internal.source.options IS 'options as given to create_source';
COMMENT ON COLUMN weir_internal.source.settings IS 'name=value of search_path, TimeZone and all other settings that change how texts are read or values computed, at creation: what its expressions see';
COMMENT ON COLUMN weir_internal.source.objects IS 'functions, operators and conversions outside pg_catalog that the filter used at creation: whatever is created later, it may use no others; NULL: not recorded';
COMMENT ON COLUMN weir_internal.source.paused IS 'by weir.pause()';
COMMENT ON COLUMN weir_internal.source.stopped_message IS 'why it is stopped; NULL: it is not';
COMMENT ON COLUMN weir_internal.source.stopped_sqlstate IS 'SQLSTATE of that reason';
COMMENT ON COLUMN weir_internal.source.topic_incarnation IS 'grows when weir.seek() accepts another topic or cluster under the same name';
COMMENT ON COLUMN weir_internal.source.created_at IS 'when it was made';

CREATE SEQUENCE weir_internal.stream_id_seq AS int;
COMMENT ON SEQUENCE weir_internal.stream_id_seq IS 'numbers the streams';

CREATE TABLE weir_internal.stream (
	stream_id				int PRIMARY KEY DEFAULT pg_catalog.nextval('weir_internal.stream_id_seq'),
	name					name NOT NULL UNIQUE,
	owner					regrole NOT NULL,
	source_id				int NOT NULL,
	kind					text NOT NULL CHECK (kind IN ('row', 'aggregate', 'window')),
	window_kind				text CHECK (window_kind IN ('tumble', 'hop')),
	query					text NOT NULL,
	target					regclass,
	target_created			boolean NOT NULL,
	state					regclass,
	key_columns				name[],
	emit					text NOT NULL CHECK (emit IN ('on_change', 'on_close')),
	allowed_lateness		interval NOT NULL,
	late_rows				text NOT NULL CHECK (late_rows IN ('dead_letter', 'drop')),
	on_error				text NOT NULL CHECK (on_error IN ('dead_letter', 'stop')),
	batch_interval			interval NOT NULL,
	options					jsonb NOT NULL,
	start_from				text,
	settings				text[] NOT NULL,
	objects					text[],
	uses_key				boolean NOT NULL,
	uses_headers			boolean NOT NULL,
	paused					boolean NOT NULL DEFAULT false,
	failed_message			text,
	failed_sqlstate			text,
	created_at				timestamptz NOT NULL DEFAULT pg_catalog.now()
);
ALTER SEQUENCE weir_internal.stream_id_seq OWNED BY weir_internal.stream.stream_id;
CREATE INDEX stream_source_id_idx ON weir_internal.stream (source_id);
COMMENT ON TABLE weir_internal.stream IS 'one row a stream; shown by weir.streams';
COMMENT ON COLUMN weir_internal.stream.stream_id IS 'its number, never used again';
COMMENT ON COLUMN weir_internal.stream.name IS 'its name; one namespace with the bare names of sources';
COMMENT ON COLUMN weir_internal.stream.owner IS 'who made it: its query runs with this role''s rights';
COMMENT ON COLUMN weir_internal.stream.source_id IS 'the source it reads';
COMMENT ON COLUMN weir_internal.stream.kind IS 'row, aggregate (running) or window';
COMMENT ON COLUMN weir_internal.stream.window_kind IS 'tumble or hop; NULL: no window';
COMMENT ON COLUMN weir_internal.stream.query IS 'the query, every name qualified; written anew when a relation or column in it is renamed';
COMMENT ON COLUMN weir_internal.stream.target IS 'the table it keeps; NULL: it has been dropped';
COMMENT ON COLUMN weir_internal.stream.target_created IS 'weir made the target';
COMMENT ON COLUMN weir_internal.stream.state IS 'table of partial states of open windows or groups; NULL: the kind has none';
COMMENT ON COLUMN weir_internal.stream.key_columns IS 'the target''s key; NULL: rows are only ever added';
COMMENT ON COLUMN weir_internal.stream.emit IS 'on_change or on_close';
COMMENT ON COLUMN weir_internal.stream.allowed_lateness IS 'how long after its end a window still takes rows';
COMMENT ON COLUMN weir_internal.stream.late_rows IS 'dead_letter or drop';
COMMENT ON COLUMN weir_internal.stream.on_error IS 'what a row that fails does: dead_letter or stop';
COMMENT ON COLUMN weir_internal.stream.batch_interval IS 'least time between micro-batches; 0: adapts';
COMMENT ON COLUMN weir_internal.stream.options IS 'options as given to create_stream';
COMMENT ON COLUMN weir_internal.stream.start_from IS 'its own first position; NULL: the source''s';
COMMENT ON COLUMN weir_internal.stream.settings IS 'name=value of search_path, TimeZone and all other settings that change how texts are read or values computed, at creation: what the query sees';
COMMENT ON COLUMN weir_internal.stream.objects IS 'functions, operators and conversions outside pg_catalog that the query and its statements used at creation: whatever is created later, they may use no others; NULL: not recorded';
COMMENT ON COLUMN weir_internal.stream.uses_key IS 'the query reads kafka_key';
COMMENT ON COLUMN weir_internal.stream.uses_headers IS 'the query reads kafka_headers';
COMMENT ON COLUMN weir_internal.stream.paused IS 'by weir.pause()';
COMMENT ON COLUMN weir_internal.stream.failed_message IS 'why it has failed; NULL: it has not';
COMMENT ON COLUMN weir_internal.stream.failed_sqlstate IS 'SQLSTATE of that reason';
COMMENT ON COLUMN weir_internal.stream.created_at IS 'when it was made';

------------------------------------------------------------------------
-- Progress: written in the transaction of the results it stands for
------------------------------------------------------------------------

-- One row a stream, so that a batch writes one version of one row.  Elements
-- partition + 1 of the arrays are the partition's.
CREATE TABLE weir_internal.stream_state (
	stream_id				int PRIMARY KEY,
	watermark				timestamptz,
	seek_generation			bigint NOT NULL DEFAULT 0,
	seek_to					text,
	seek_forward			boolean NOT NULL DEFAULT false,
	seek_floor				timestamptz,
	floor_pending			boolean NOT NULL DEFAULT false,
	floor_bounds			timestamptz[],
	seek_time				timestamptz,
	has_rows				boolean NOT NULL DEFAULT false,
	applied_offsets			bigint[],
	max_event_times			timestamptz[],
	last_record_timestamps	timestamptz[],
	max_record_timestamps	timestamptz[],
	cluster_id				text,
	topic_incarnation		int
) WITH (fillfactor = 50, toast_tuple_target = 4080,
	autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE weir_internal.stream_state IS
'one row a stream, updated each batch: the durable position, committed with the results it stands for; whoever applies a batch or seeks locks the stream first';
COMMENT ON COLUMN weir_internal.stream_state.stream_id IS 'the stream';
COMMENT ON COLUMN weir_internal.stream_state.watermark IS 'all rows with an event time below it have been applied; NULL: none yet';
COMMENT ON COLUMN weir_internal.stream_state.seek_generation IS 'grows with each seek; a batch begun under another is void';
COMMENT ON COLUMN weir_internal.stream_state.seek_to IS 'position asked for by weir.seek() and not resolved to offsets yet; NULL: none';
COMMENT ON COLUMN weir_internal.stream_state.seek_forward IS 'seek_to keeps what is in state and target: no partition is resolved to below its applied offset';
COMMENT ON COLUMN weir_internal.stream_state.seek_floor IS
'since the last seek: windows that start before it are incomplete and are not emitted; NULL: none, or not found yet';
COMMENT ON COLUMN weir_internal.stream_state.floor_pending IS
'partitions still have to tell the floor of the last seek';
COMMENT ON COLUMN weir_internal.stream_state.floor_bounds IS
'of partitions that have to: records up to this event time are missing, -infinity when not known; NULL: the partition has told it, or falls idle, or lacks nothing';
COMMENT ON COLUMN weir_internal.stream_state.seek_time IS 'the last seek was to this time of Kafka''s; NULL: it was not to a time';
COMMENT ON COLUMN weir_internal.stream_state.has_rows IS 'a row has come since the last seek';
COMMENT ON COLUMN weir_internal.stream_state.applied_offsets IS
'all records below it are in the results, in the dead letters, or filtered; NULL: the first position is not resolved yet';
COMMENT ON COLUMN weir_internal.stream_state.max_event_times IS 'greatest event time applied that moves the watermark';
COMMENT ON COLUMN weir_internal.stream_state.last_record_timestamps IS 'Kafka timestamp of the last record applied';
COMMENT ON COLUMN weir_internal.stream_state.max_record_timestamps IS
'greatest Kafka timestamp of a record applied; infinity: one without a timestamp was; NULL: none was';
COMMENT ON COLUMN weir_internal.stream_state.cluster_id IS 'Kafka cluster the offsets belong to; NULL: not known';
COMMENT ON COLUMN weir_internal.stream_state.topic_incarnation IS 'the source''s topic_incarnation the offsets belong to';

CREATE VIEW weir_internal.progress AS
SELECT s.stream_id, (p.part - 1)::int AS kafka_partition, p.applied_offset,
	p.max_event_time, p.last_record_timestamp, p.max_record_timestamp
FROM weir_internal.stream_state s
	CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(s.applied_offsets),
		pg_catalog.unnest(s.max_event_times),
		pg_catalog.unnest(s.last_record_timestamps),
		pg_catalog.unnest(s.max_record_timestamps))
		WITH ORDINALITY AS p (applied_offset, max_event_time,
			last_record_timestamp, max_record_timestamp, part);
COMMENT ON VIEW weir_internal.progress IS
'the positions in weir_internal.stream_state, one row a stream and partition';
COMMENT ON COLUMN weir_internal.progress.stream_id IS 'the stream';
COMMENT ON COLUMN weir_internal.progress.kafka_partition IS 'partition of the source''s topic';
COMMENT ON COLUMN weir_internal.progress.applied_offset IS 'element of applied_offsets';
COMMENT ON COLUMN weir_internal.progress.max_event_time IS 'element of max_event_times';
COMMENT ON COLUMN weir_internal.progress.last_record_timestamp IS 'element of last_record_timestamps';
COMMENT ON COLUMN weir_internal.progress.max_record_timestamp IS 'element of max_record_timestamps';

CREATE SEQUENCE weir_internal.advance_id_seq;
COMMENT ON SEQUENCE weir_internal.advance_id_seq IS 'numbers the recorded advances';

CREATE TABLE weir_internal.advance (
	advance_id				bigint PRIMARY KEY DEFAULT pg_catalog.nextval('weir_internal.advance_id_seq'),
	source_id				int NOT NULL,
	stream_id				int NOT NULL,
	to_time					timestamptz,
	end_offsets				bigint[],
	created_at				timestamptz NOT NULL DEFAULT pg_catalog.now()
);
ALTER SEQUENCE weir_internal.advance_id_seq OWNED BY weir_internal.advance.advance_id;
CREATE INDEX advance_stream_id_idx ON weir_internal.advance (stream_id);
CREATE INDEX advance_source_id_idx ON weir_internal.advance (source_id);
COMMENT ON TABLE weir_internal.advance IS
'one row a call of weir.advance_watermark() and stream, until the stream has applied it';
COMMENT ON COLUMN weir_internal.advance.advance_id IS 'order of the calls';
COMMENT ON COLUMN weir_internal.advance.source_id IS 'the source named in the call';
COMMENT ON COLUMN weir_internal.advance.stream_id IS 'a stream that read it at the call';
COMMENT ON COLUMN weir_internal.advance.to_time IS 'new watermark; NULL: close what is open';
COMMENT ON COLUMN weir_internal.advance.end_offsets IS
'end of each partition at the call, element partition + 1; NULL: not asked of the broker yet. Applied when the stream''s applied offsets have reached them';
COMMENT ON COLUMN weir_internal.advance.created_at IS 'when it was called';

CREATE TABLE weir_internal.cookie (
	only_row				boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	system_identifier		bigint NOT NULL,
	database_oid			bigint NOT NULL,
	extension_oid			bigint NOT NULL
);
COMMENT ON TABLE weir_internal.cookie IS
'the database the sources were made in: a restored or cloned one differs, and stays paused until weir.adopt_database()';
COMMENT ON COLUMN weir_internal.cookie.only_row IS 'there is one row at most';
COMMENT ON COLUMN weir_internal.cookie.system_identifier IS 'of the cluster';
COMMENT ON COLUMN weir_internal.cookie.database_oid IS 'of the database';
COMMENT ON COLUMN weir_internal.cookie.extension_oid IS 'of the extension: made anew, what is in the catalog has been restored';

------------------------------------------------------------------------
-- Dead letters
------------------------------------------------------------------------

CREATE SEQUENCE weir_internal.dead_letter_id_seq;
COMMENT ON SEQUENCE weir_internal.dead_letter_id_seq IS 'numbers the dead letters';

CREATE TABLE weir_internal.dead_letter (
	dead_letter_id			bigint PRIMARY KEY DEFAULT pg_catalog.nextval('weir_internal.dead_letter_id_seq'),
	source					name NOT NULL,
	stream					name,
	kafka_topic				text NOT NULL,
	topic_incarnation		int NOT NULL DEFAULT 1,
	kafka_partition			int,
	kafka_offset			bigint,
	kafka_timestamp			timestamptz,
	kafka_key				bytea,
	payload					bytea,
	staged_row				jsonb,
	reason					text NOT NULL CHECK (reason IN ('decode', 'constraint', 'query', 'target', 'late', 'group')),
	sqlstate				text,
	message					text,
	window_start			timestamptz,
	window_end				timestamptz,
	partly_applied			boolean NOT NULL DEFAULT false,
	recorded_at				timestamptz NOT NULL DEFAULT pg_catalog.now(),
	source_id				int NOT NULL,
	stream_id				int,
	owner					regrole NOT NULL
);
COMMENT ON TABLE weir_internal.dead_letter IS 'what weir.dead_letter shows';

-- Ingest reads again after every start: ON CONFLICT DO NOTHING on this.
CREATE UNIQUE INDEX dead_letter_ingest_key ON weir_internal.dead_letter
	(source_id, topic_incarnation, kafka_partition, kafka_offset)
	WHERE stream_id IS NULL;
CREATE INDEX dead_letter_stream_id_idx ON weir_internal.dead_letter (stream_id) WHERE stream_id IS NOT NULL;

ALTER TABLE weir_internal.dead_letter ENABLE ROW LEVEL SECURITY;
CREATE POLICY dead_letter_owner ON weir_internal.dead_letter
	USING (pg_catalog.pg_has_role(owner, 'USAGE'));
COMMENT ON POLICY dead_letter_owner ON weir_internal.dead_letter IS
'a role sees and deletes the dead letters of its own sources and streams';

-- What everybody has rights on is a view, and the table under it may only be
-- read: the right to delete from a table is the right to lock it against all
-- others, weir's workers too.  The view reads it as its caller, so that
-- LOCK TABLE finds no more rights through the view either; the rule deletes
-- as its owner what the caller sees.
CREATE VIEW weir.dead_letter WITH (security_invoker = true) AS
	SELECT dead_letter_id, source, stream, kafka_topic, topic_incarnation,
		kafka_partition, kafka_offset, kafka_timestamp, kafka_key, payload,
		staged_row, reason, sqlstate, message, window_start, window_end,
		partly_applied, recorded_at, source_id, stream_id, owner
	FROM weir_internal.dead_letter;
CREATE RULE dead_letter_delete AS ON DELETE TO weir.dead_letter DO INSTEAD
	DELETE FROM weir_internal.dead_letter d
	WHERE d.dead_letter_id OPERATOR(pg_catalog.=) OLD.dead_letter_id
	RETURNING d.dead_letter_id, d.source, d.stream, d.kafka_topic,
		d.topic_incarnation, d.kafka_partition, d.kafka_offset,
		d.kafka_timestamp, d.kafka_key, d.payload, d.staged_row, d.reason,
		d.sqlstate, d.message, d.window_start, d.window_end,
		d.partly_applied, d.recorded_at, d.source_id, d.stream_id, d.owner;
COMMENT ON RULE dead_letter_delete ON weir.dead_letter IS
'deletes the dead letters that the caller sees';

COMMENT ON VIEW weir.dead_letter IS
'records and groups that could not be processed, and late rows; row security shows a role those of its own sources and streams, and lets it delete them';
COMMENT ON COLUMN weir.dead_letter.dead_letter_id IS 'its number';
COMMENT ON COLUMN weir.dead_letter.source IS 'bare name of the source when it was recorded';
COMMENT ON COLUMN weir.dead_letter.stream IS 'name of the stream when it was recorded; NULL: ingest could not decode it, so no stream got it';
COMMENT ON COLUMN weir.dead_letter.kafka_topic IS 'topic of the record';
COMMENT ON COLUMN weir.dead_letter.topic_incarnation IS 'which topic of that name; grows when weir.seek() accepts a recreated one';
COMMENT ON COLUMN weir.dead_letter.kafka_partition IS 'its partition; NULL for a group';
COMMENT ON COLUMN weir.dead_letter.kafka_offset IS 'its offset; NULL for a group';
COMMENT ON COLUMN weir.dead_letter.kafka_timestamp IS 'its Kafka timestamp';
COMMENT ON COLUMN weir.dead_letter.kafka_key IS 'its key as received, when known';
COMMENT ON COLUMN weir.dead_letter.payload IS 'as received, see weir.dead_letter_text(); NULL when only the staged row is known; of a group: its key and window as JSON';
COMMENT ON COLUMN weir.dead_letter.staged_row IS 'the decoded row, when it was decoded';
COMMENT ON COLUMN weir.dead_letter.reason IS
'decode, constraint (ingest); query, target, late (row); group (a group that could not be emitted at close)';
COMMENT ON COLUMN weir.dead_letter.sqlstate IS 'SQLSTATE of the error; NULL for a late row';
COMMENT ON COLUMN weir.dead_letter.message IS 'the error with its detail';
COMMENT ON COLUMN weir.dead_letter.window_start IS 'start of the first window it missed, or of the group''s';
COMMENT ON COLUMN weir.dead_letter.window_end IS 'end of the last window it missed, or of the group''s';
COMMENT ON COLUMN weir.dead_letter.partly_applied IS 'another window took the row';
COMMENT ON COLUMN weir.dead_letter.recorded_at IS 'when';
COMMENT ON COLUMN weir.dead_letter.source_id IS 'number of the source';
COMMENT ON COLUMN weir.dead_letter.stream_id IS 'number of the stream; NULL: ingest';
COMMENT ON COLUMN weir.dead_letter.owner IS 'owner of the stream, or of the source, who may see and delete it';

DO $$
DECLARE
	c record;
BEGIN
	FOR c IN SELECT attname, pg_catalog.col_description(attrelid, attnum) AS comment
		FROM pg_catalog.pg_attribute
		WHERE attrelid OPERATOR(pg_catalog.=) 'weir.dead_letter'::pg_catalog.regclass
			AND attnum OPERATOR(pg_catalog.>) 0
	LOOP
		EXECUTE pg_catalog.format('COMMENT ON COLUMN weir_internal.dead_letter.%I IS %L',
								  c.attname, c.comment);
	END LOOP;
END
$$;

-- How many there are, of a source's ingest and of a stream, for their limits:
-- the sum of letters.  Who writes or deletes letters adds a row in the same
-- transaction and changes none, so that nobody waits for anybody; those who
-- write put rows together (src/dead_letter.c).
CREATE TABLE weir_internal.dead_letter_count (
	source_id				int NOT NULL,
	stream_id				int NOT NULL,
	letters					bigint NOT NULL
);
CREATE INDEX dead_letter_count_idx ON weir_internal.dead_letter_count (source_id, stream_id);
COMMENT ON TABLE weir_internal.dead_letter_count IS 'how many dead letters there are: the sum over a source''s and stream''s rows';
COMMENT ON COLUMN weir_internal.dead_letter_count.source_id IS 'number of the source';
COMMENT ON COLUMN weir_internal.dead_letter_count.stream_id IS 'number of the stream; 0: ingest';
COMMENT ON COLUMN weir_internal.dead_letter_count.letters IS 'so many written, or deleted when negative';

CREATE FUNCTION weir_internal.count_deleted_letters() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'TRUNCATE' THEN
		DELETE FROM weir_internal.dead_letter_count;
	ELSE
		INSERT INTO weir_internal.dead_letter_count (source_id, stream_id, letters)
		SELECT source_id, coalesce(stream_id, 0), -count(*)
		FROM gone GROUP BY 1, 2;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION weir_internal.count_deleted_letters() IS
'trigger: keeps weir_internal.dead_letter_count when letters are deleted';
REVOKE ALL ON FUNCTION weir_internal.count_deleted_letters() FROM PUBLIC;
CREATE TRIGGER count_deleted AFTER DELETE ON weir_internal.dead_letter
	REFERENCING OLD TABLE AS gone FOR EACH STATEMENT
	EXECUTE FUNCTION weir_internal.count_deleted_letters();
CREATE TRIGGER count_truncated AFTER TRUNCATE ON weir_internal.dead_letter
	FOR EACH STATEMENT EXECUTE FUNCTION weir_internal.count_deleted_letters();
-- in sessions that are replicas, too
ALTER TABLE weir_internal.dead_letter ENABLE ALWAYS TRIGGER count_deleted;
ALTER TABLE weir_internal.dead_letter ENABLE ALWAYS TRIGGER count_truncated;

------------------------------------------------------------------------
-- Rights and dumps
------------------------------------------------------------------------

REVOKE ALL ON ALL TABLES IN SCHEMA weir_internal FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA weir_internal FROM PUBLIC;
REVOKE ALL ON weir.dead_letter FROM PUBLIC;
GRANT SELECT, DELETE ON weir.dead_letter TO PUBLIC;
GRANT SELECT ON weir_internal.dead_letter TO PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('weir_internal.source', '');
SELECT pg_catalog.pg_extension_config_dump('weir_internal.source_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('weir_internal.stream', '');
SELECT pg_catalog.pg_extension_config_dump('weir_internal.stream_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('weir_internal.stream_state', '');
SELECT pg_catalog.pg_extension_config_dump('weir_internal.advance', '');
SELECT pg_catalog.pg_extension_config_dump('weir_internal.advance_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('weir_internal.cookie', '');
SELECT pg_catalog.pg_extension_config_dump('weir_internal.dead_letter', '');
SELECT pg_catalog.pg_extension_config_dump('weir_internal.dead_letter_count', '');
SELECT pg_catalog.pg_extension_config_dump('weir_internal.dead_letter_id_seq', '');
