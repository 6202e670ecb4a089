-- How things go: weir.stat_source, weir.stat_stream, weir.stat_worker.
--
-- The functions under the views can be called by everybody, as functions in
-- a view are called with the rights of its reader; they decide themselves
-- what to show (src/stats.c): names and states to all, the rest to the owner
-- and to pg_read_all_stats.

CREATE FUNCTION weir_internal.stat_source(
	OUT source name, OUT stream name, OUT kafka_partition int, OUT state text,
	OUT applied_offset bigint, OUT fetched_offset bigint, OUT end_offset bigint, OUT lag bigint,
	OUT max_event_time timestamptz, OUT idle boolean,
	OUT rows_in bigint, OUT bytes_in bigint, OUT rows_staged bigint, OUT rows_filtered bigint,
	OUT rows_dead bigint, OUT rows_null bigint, OUT rows_future bigint,
	OUT staging_bytes bigint, OUT segments int, OUT columns_never_found text, OUT held_by name,
	OUT last_row_at timestamptz,
	OUT last_error text, OUT last_error_sqlstate text, OUT last_error_at timestamptz,
	OUT next_retry_at timestamptz, OUT epoch bigint, OUT stats_reset timestamptz)
RETURNS SETOF record LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'weir_stat_source';
COMMENT ON FUNCTION weir_internal.stat_source() IS
'rows of weir.stat_source; NULL to whoever may not see them';

CREATE FUNCTION weir_internal.stat_stream(
	OUT stream name, OUT state text, OUT lag bigint, OUT lag_time interval,
	OUT watermark timestamptz, OUT watermark_held_by int,
	OUT rows_in bigint, OUT rows_filtered bigint, OUT rows_late bigint, OUT rows_dead bigint,
	OUT rows_out bigint, OUT groups_failed bigint,
	OUT batches bigint, OUT last_batch_rows bigint, OUT last_batch_at timestamptz,
	OUT commit_ms_p50 float8, OUT commit_ms_p95 float8, OUT commit_ms_p99 float8, OUT commit_ms_max float8,
	OUT visible_ms_p50 float8, OUT visible_ms_p99 float8,
	OUT windows_closed bigint, OUT retries bigint,
	OUT last_error text, OUT last_error_sqlstate text, OUT last_error_at timestamptz,
	OUT next_retry_at timestamptz, OUT stats_reset timestamptz, OUT state_table regclass)
RETURNS SETOF record LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'weir_stat_stream';
COMMENT ON FUNCTION weir_internal.stat_stream() IS
'rows of weir.stat_stream, with the state table in place of what it holds; NULL to whoever may not see them';

CREATE FUNCTION weir_internal.stat_worker(
	OUT pid int, OUT kind text, OUT source name, OUT stream name, OUT worker_number int,
	OUT state text, OUT activity text, OUT started_at timestamptz, OUT restarts bigint,
	OUT last_exit_reason text, OUT cpu_ms bigint, OUT memory_bytes bigint, OUT kafka_queue_bytes bigint)
RETURNS SETOF record LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'weir_stat_worker';
COMMENT ON FUNCTION weir_internal.stat_worker() IS
'rows of weir.stat_worker; NULL to whoever may not see them';

-- STABLE and one column each, so that only those run which a query asks for.
CREATE FUNCTION weir_internal.count_open_windows(state_table regclass) RETURNS bigint
	LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'weir_count_open_windows';
COMMENT ON FUNCTION weir_internal.count_open_windows(regclass) IS
'windows in a state table, counted up to 10,000, one index descent each; NULL: no windows in this kind of stream, the table is locked, or the caller may not see it';

CREATE FUNCTION weir_internal.find_oldest_window(state_table regclass) RETURNS timestamptz
	LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'weir_find_oldest_window';
COMMENT ON FUNCTION weir_internal.find_oldest_window(regclass) IS
'start of the window in a state table that ends first, one index descent; NULL: none, the table is locked, or the caller may not see it';

CREATE FUNCTION weir_internal.count_groups(state_table regclass) RETURNS bigint
	LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'weir_count_groups';
COMMENT ON FUNCTION weir_internal.count_groups(regclass) IS
'rows of a state table: counted, or in one larger than 2,048 blocks (16 MB) estimated from so many of them; NULL: the table is locked, or the caller may not see it';

CREATE FUNCTION weir_internal.measure_state(state_table regclass) RETURNS bigint
	LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'weir_measure_state';
COMMENT ON FUNCTION weir_internal.measure_state(regclass) IS
'bytes of a state table with its indexes; NULL: the table is locked, or the caller may not see it';

------------------------------------------------------------------------
-- Sources
------------------------------------------------------------------------

CREATE VIEW weir.stat_source AS
SELECT source, stream, kafka_partition, state,
	applied_offset, fetched_offset, end_offset, lag,
	max_event_time, idle,
	rows_in, bytes_in, rows_staged, rows_filtered, rows_dead, rows_null, rows_future,
	staging_bytes, segments, columns_never_found, held_by, last_row_at,
	last_error, last_error_sqlstate, last_error_at, next_retry_at,
	epoch, stats_reset
FROM weir_internal.stat_source();
COMMENT ON VIEW weir.stat_source IS
'how ingest goes: a row per source, Kafka partition and slot (the shared staging ring, or the private one of a stream that catches up). Everybody sees source, stream, kafka_partition and state; the rest is NULL unless the caller has the rights of the source''s owner, of the stream''s on its private ring, or of pg_read_all_stats. Counters begin at stats_reset, or when the server started; they are NULL on a standby';
COMMENT ON COLUMN weir.stat_source.source IS 'bare name of the source';
COMMENT ON COLUMN weir.stat_source.stream IS 'stream that catches up through a private ring; NULL: the shared ring';
COMMENT ON COLUMN weir.stat_source.kafka_partition IS 'partition of the topic; NULL: the topic has not been seen yet';
COMMENT ON COLUMN weir.stat_source.state IS
'of the slot: starting, running, back_pressure (the ring is full), paused (by weir.pause(), by weir.autostart, or until weir.adopt_database()), retrying (see last_error), stopped (until weir.resume()), preview (no stream reads it: one segment is staged)';
COMMENT ON COLUMN weir.stat_source.applied_offset IS
'all records below it have been applied by the streams attached to the slot (none attached: by all without a ring of their own); NULL: no stream has a position';
COMMENT ON COLUMN weir.stat_source.fetched_offset IS 'all records below it have been read, and those that pass staged; lost with a restart';
COMMENT ON COLUMN weir.stat_source.end_offset IS 'end of the partition as its leader said it last (last stable offset), or fetched_offset if that is past it; NULL: not known';
COMMENT ON COLUMN weir.stat_source.lag IS 'end_offset - applied_offset, in offsets, of which some may hold no record: at least so much while the leader does not answer; NULL: not known, as when all of that has been applied and the leader does not answer';
COMMENT ON COLUMN weir.stat_source.max_event_time IS 'greatest event time read that moves the watermark';
COMMENT ON COLUMN weir.stat_source.idle IS 'at its end for idle_timeout without a doubt: does not hold the watermark of streams that have applied all of it';
COMMENT ON COLUMN weir.stat_source.rows_in IS 'records read';
COMMENT ON COLUMN weir.stat_source.bytes_in IS 'bytes of their keys and payloads';
COMMENT ON COLUMN weir.stat_source.rows_staged IS 'rows staged';
COMMENT ON COLUMN weir.stat_source.rows_filtered IS 'records that did not pass the source''s filter';
COMMENT ON COLUMN weir.stat_source.rows_dead IS 'records that became dead letters; again with each time they are read';
COMMENT ON COLUMN weir.stat_source.rows_null IS 'records with a null payload (tombstones), skipped';
COMMENT ON COLUMN weir.stat_source.rows_future IS 'records with an event time past now + max_future_skew, which does not move the watermark';
COMMENT ON COLUMN weir.stat_source.staging_bytes IS 'bytes staged in the slot''s ring, the same in all rows of a slot';
COMMENT ON COLUMN weir.stat_source.segments IS 'segments of the slot''s ring that are not empty, the same in all rows of a slot';
COMMENT ON COLUMN weir.stat_source.columns_never_found IS 'columns whose path was in no record so far, separated by commas, the same in all rows of a slot; NULL: none';
COMMENT ON COLUMN weir.stat_source.held_by IS 'stream that the full ring waits for, the same in all rows of a slot; NULL: none';
COMMENT ON COLUMN weir.stat_source.last_row_at IS 'when the last record was read';
COMMENT ON COLUMN weir.stat_source.last_error IS 'why the source is stopped, or what keeps its worker from running, else the slot''s last error; NULL: none since it went well';
COMMENT ON COLUMN weir.stat_source.last_error_sqlstate IS 'its SQLSTATE';
COMMENT ON COLUMN weir.stat_source.last_error_at IS 'when; NULL: none, or before the server started';
COMMENT ON COLUMN weir.stat_source.next_retry_at IS 'when the slot is tried again; NULL: nothing to retry, or not known';
COMMENT ON COLUMN weir.stat_source.epoch IS 'grows with each start of the slot''s ingest, which empties its ring; NULL: not started since the server did';
COMMENT ON COLUMN weir.stat_source.stats_reset IS 'since when the slot''s counters count; NULL: not started since the server did';

------------------------------------------------------------------------
-- Streams
------------------------------------------------------------------------

CREATE VIEW weir.stat_stream AS
SELECT stream, state, lag, lag_time, watermark, watermark_held_by,
	rows_in, rows_filtered, rows_late, rows_dead, rows_out, groups_failed,
	batches, last_batch_rows, last_batch_at,
	commit_ms_p50, commit_ms_p95, commit_ms_p99, commit_ms_max,
	visible_ms_p50, visible_ms_p99,
	weir_internal.count_open_windows(state_table) AS open_windows,
	weir_internal.find_oldest_window(state_table) AS oldest_window_start,
	weir_internal.count_groups(state_table) AS groups,
	weir_internal.measure_state(state_table) AS state_bytes,
	windows_closed, retries,
	last_error, last_error_sqlstate, last_error_at, next_retry_at,
	stats_reset
FROM weir_internal.stat_stream();
COMMENT ON VIEW weir.stat_stream IS
'how streams go, a row each. Everybody sees stream and state; the rest is NULL unless the caller has the rights of the stream''s owner or of pg_read_all_stats. Counters begin at stats_reset, or when the server started; they are NULL on a standby. open_windows, oldest_window_start, groups and state_bytes are looked up in the stream''s state table when a query asks for them: groups reads up to 16 MB of it, the others a few pages; they wait for no lock';
COMMENT ON COLUMN weir.stat_stream.stream IS 'name of the stream';
COMMENT ON COLUMN weir.stat_stream.state IS
'starting, running, catching_up (through a ring of its own), waiting (for its source, see last_error, or its first position), paused (by weir.pause(), by weir.autostart, or until weir.adopt_database()), retrying (see last_error), failed (until weir.resume())';
COMMENT ON COLUMN weir.stat_stream.lag IS 'end of all partitions, as their leaders said it last, less what is applied, in offsets, of which some may hold no record; NULL: not known, as when a leader does not answer';
COMMENT ON COLUMN weir.stat_stream.lag_time IS
'how far in event time the results are behind, at most, over the partitions with a lag: from the greatest event time applied to the greatest read, or to now where records have not been read yet; 0 without a lag, NULL: not known';
COMMENT ON COLUMN weir.stat_stream.watermark IS 'as committed: all rows with an event time below it have been applied; NULL: none yet';
COMMENT ON COLUMN weir.stat_stream.watermark_held_by IS 'partition with the least event time, which holds the watermark; NULL: none, all are idle, or the stream does not run';
COMMENT ON COLUMN weir.stat_stream.rows_in IS 'staged rows read by batches that committed';
COMMENT ON COLUMN weir.stat_stream.rows_filtered IS 'rows of them that WHERE and joins dropped; estimated where a join multiplies rows';
COMMENT ON COLUMN weir.stat_stream.rows_late IS 'rows that came too late for a window or more';
COMMENT ON COLUMN weir.stat_stream.rows_dead IS 'rows that failed in the query or in the target';
COMMENT ON COLUMN weir.stat_stream.rows_out IS 'rows written to the target';
COMMENT ON COLUMN weir.stat_stream.groups_failed IS 'groups whose result could not be computed or written';
COMMENT ON COLUMN weir.stat_stream.batches IS 'micro-batches that committed and moved the position';
COMMENT ON COLUMN weir.stat_stream.last_batch_rows IS 'staged rows of the last of them';
COMMENT ON COLUMN weir.stat_stream.last_batch_at IS 'when it committed';
COMMENT ON COLUMN weir.stat_stream.commit_ms_p50 IS 'milliseconds from begin to commit of a batch, median, to about 20 %; NULL: no batch yet';
COMMENT ON COLUMN weir.stat_stream.commit_ms_p95 IS 'the same, 95th percentile';
COMMENT ON COLUMN weir.stat_stream.commit_ms_p99 IS 'the same, 99th percentile';
COMMENT ON COLUMN weir.stat_stream.commit_ms_max IS 'the same, greatest, exactly';
COMMENT ON COLUMN weir.stat_stream.visible_ms_p50 IS 'milliseconds from the oldest Kafka timestamp in a batch to its commit, median over batches, to about 20 %; NULL: no batch with rows yet';
COMMENT ON COLUMN weir.stat_stream.visible_ms_p99 IS 'the same, 99th percentile';
COMMENT ON COLUMN weir.stat_stream.open_windows IS 'windows not closed yet, counted up to 10,000; NULL: a stream without windows, or its state is locked';
COMMENT ON COLUMN weir.stat_stream.oldest_window_start IS 'start of the open window that ends first; NULL: none';
COMMENT ON COLUMN weir.stat_stream.groups IS 'rows of state: groups of open windows, groups, or keys; estimated where the state is larger than 16 MB; NULL: a stream without state, or its state is locked';
COMMENT ON COLUMN weir.stat_stream.state_bytes IS 'bytes of the state table with its indexes; NULL: a stream without state, or its state is locked';
COMMENT ON COLUMN weir.stat_stream.windows_closed IS 'windows closed';
COMMENT ON COLUMN weir.stat_stream.retries IS 'times that a batch was put off by an outage';
COMMENT ON COLUMN weir.stat_stream.last_error IS 'why the stream has failed or what it waits for (its source''s error, a worker), else its last error; NULL: none since it went well';
COMMENT ON COLUMN weir.stat_stream.last_error_sqlstate IS 'its SQLSTATE';
COMMENT ON COLUMN weir.stat_stream.last_error_at IS 'when; NULL: none, or before the server started';
COMMENT ON COLUMN weir.stat_stream.next_retry_at IS 'when the batch is tried again; NULL: nothing to retry';
COMMENT ON COLUMN weir.stat_stream.stats_reset IS 'since when the counters count; NULL: its worker has not run since the server started';

------------------------------------------------------------------------
-- Workers
------------------------------------------------------------------------

CREATE VIEW weir.stat_worker AS
SELECT pid, kind, source, stream, worker_number, state, activity,
	started_at, restarts, last_exit_reason, cpu_ms, memory_bytes, kafka_queue_bytes
FROM weir_internal.stat_worker();
COMMENT ON VIEW weir.stat_worker IS
'the processes that work for this database, a row each, and the launcher. Everybody sees pid, kind, source, stream, worker_number and state; the rest is NULL unless the caller has the rights of the source''s owner (ingest, catch_up), of the stream''s (stream, catch_up), of the extension''s (launcher, manager), or of pg_read_all_stats';
COMMENT ON COLUMN weir.stat_worker.pid IS 'process id, as in pg_stat_activity';
COMMENT ON COLUMN weir.stat_worker.kind IS 'launcher, manager, ingest, catch_up (ingest for one stream), stream';
COMMENT ON COLUMN weir.stat_worker.source IS 'source it reads, or whose stream it runs; NULL: launcher, manager';
COMMENT ON COLUMN weir.stat_worker.stream IS 'stream it runs or catches up for; NULL: none';
COMMENT ON COLUMN weir.stat_worker.worker_number IS 'which of the ingest workers of its slot, from 1; NULL: another kind';
COMMENT ON COLUMN weir.stat_worker.state IS 'of its slot or stream, as in weir.stat_source and weir.stat_stream; running for launcher and manager';
COMMENT ON COLUMN weir.stat_worker.activity IS 'what it is doing, as in pg_stat_activity; NULL: nothing, or track_activities is off';
COMMENT ON COLUMN weir.stat_worker.started_at IS 'when this process started';
COMMENT ON COLUMN weir.stat_worker.restarts IS 'times that its manager has started it again';
COMMENT ON COLUMN weir.stat_worker.last_exit_reason IS 'why the process before it ended; NULL: there was none, or not known';
COMMENT ON COLUMN weir.stat_worker.cpu_ms IS 'milliseconds of CPU that the process has used, all its threads together';
COMMENT ON COLUMN weir.stat_worker.memory_bytes IS 'bytes of it in memory, shared ones included';
COMMENT ON COLUMN weir.stat_worker.kafka_queue_bytes IS 'bytes that the Kafka client has fetched and ingest has not taken yet; NULL: another kind';

GRANT SELECT ON weir.stat_source, weir.stat_stream, weir.stat_worker TO PUBLIC;
