-- The decoder within reach of SQL, for tests and measurements.

CREATE FUNCTION weir_internal.decode_json(
    relation regclass, payloads bytea[], filter text DEFAULT NULL,
    event_time text DEFAULT NULL, timestamp_ms bigint DEFAULT 1700000000000)
RETURNS TABLE (record int, result text, is_constraint boolean, sqlstate text,
    message text, event_time timestamptz, has_event_time boolean,
    is_future boolean, staged text[])
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'weir_decode_json';
COMMENT ON FUNCTION weir_internal.decode_json(regclass, bytea[], text, text, bigint) IS
'for tests: decode JSON payloads as if they were records of a source with the columns of relation; staged holds the texts of the segment''s columns';

CREATE FUNCTION weir_internal.decode_benchmark(
    relation regclass, payloads bytea[], rounds int DEFAULT 1000,
    filter text DEFAULT NULL, event_time text DEFAULT NULL)
RETURNS double precision
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'weir_decode_benchmark';
COMMENT ON FUNCTION weir_internal.decode_benchmark(regclass, bytea[], int, text, text) IS
'for measurements: decode batches of 1,000 records, rounds times; nanoseconds a record';

CREATE FUNCTION weir_internal.segment_columns(relation regclass)
RETURNS text
LANGUAGE c STABLE STRICT
AS 'MODULE_PATHNAME', 'weir_segment_columns';
COMMENT ON FUNCTION weir_internal.segment_columns(regclass) IS
'for tests: the column definitions of the segments of a source';

REVOKE ALL ON FUNCTION
    weir_internal.decode_json(regclass, bytea[], text, text, bigint),
    weir_internal.decode_benchmark(regclass, bytea[], int, text, text),
    weir_internal.segment_columns(regclass)
FROM PUBLIC;
