/* test/modules/test_kafka/test_kafka--1.0.sql */

-- A client is a number, good until the session ends.
CREATE FUNCTION kafka_open(options text[], topic text,
						   partitions int DEFAULT 0,
						   memory_limit bigint DEFAULT 134217728,
						   ends_interval_ms int DEFAULT 200,
						   client_id text DEFAULT 'test_kafka',
						   log_level int DEFAULT 4)
RETURNS int AS 'MODULE_PATHNAME', 'test_kafka_open' LANGUAGE C;

CREATE FUNCTION kafka_close(client int)
RETURNS void AS 'MODULE_PATHNAME', 'test_kafka_close' LANGUAGE C STRICT;

-- kind: metadata, low, end, time
CREATE FUNCTION kafka_request(client int, kind text, partitions int DEFAULT 0,
							  time_ms bigint DEFAULT 0,
							  timeout_ms int DEFAULT 10000,
							  OUT partition_count int, OUT cluster_id text,
							  OUT offsets bigint[], OUT class text,
							  OUT sqlstate text, OUT message text,
							  OUT hint text)
AS 'MODULE_PATHNAME', 'test_kafka_request' LANGUAGE C STRICT;

CREATE FUNCTION kafka_start(client int, partition int, start bigint)
RETURNS void AS 'MODULE_PATHNAME', 'test_kafka_start' LANGUAGE C STRICT;

CREATE FUNCTION kafka_stop(client int, partition int)
RETURNS void AS 'MODULE_PATHNAME', 'test_kafka_stop' LANGUAGE C STRICT;

-- Until n messages of any kind have come, or so long.
CREATE FUNCTION kafka_consume(client int, n int, timeout_ms int DEFAULT 10000,
							  OUT kind text, OUT partition int,
							  OUT "offset" bigint, OUT timestamp_ms bigint,
							  OUT key text, OUT payload text,
							  OUT headers text, OUT error text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'test_kafka_consume' LANGUAGE C STRICT;

-- Count n records, spending so much time on each.
CREATE FUNCTION kafka_count(client int, n bigint, work_us float8 DEFAULT 0,
							timeout_ms int DEFAULT 60000,
							OUT records bigint, OUT bytes bigint,
							OUT ms float8)
AS 'MODULE_PATHNAME', 'test_kafka_count' LANGUAGE C STRICT;

-- Serve the client for so long, reading no messages.
CREATE FUNCTION kafka_serve(client int, ms int)
RETURNS void AS 'MODULE_PATHNAME', 'test_kafka_serve' LANGUAGE C STRICT;

CREATE FUNCTION kafka_last_error(client int, OUT class text,
								 OUT sqlstate text, OUT partition int,
								 OUT "offset" bigint, OUT message text,
								 OUT hint text)
AS 'MODULE_PATHNAME', 'test_kafka_last_error' LANGUAGE C STRICT;

CREATE FUNCTION kafka_at_end(client int, partition int, OUT at_end bool,
							 OUT end_offset bigint, OUT as_of timestamptz)
AS 'MODULE_PATHNAME', 'test_kafka_at_end' LANGUAGE C STRICT;

CREATE FUNCTION kafka_queue_bytes(client int)
RETURNS bigint AS 'MODULE_PATHNAME', 'test_kafka_queue_bytes' LANGUAGE C STRICT;

CREATE FUNCTION kafka_option(name text, value text, OUT kind text,
							 OUT near text, OUT complaint text)
AS 'MODULE_PATHNAME', 'test_kafka_option' LANGUAGE C STRICT;

CREATE FUNCTION kafka_version()
RETURNS text AS 'MODULE_PATHNAME', 'test_kafka_version' LANGUAGE C STRICT;

-- The server process's threads, sockets, pipes and eventfds, and resident bytes.
CREATE FUNCTION kafka_process(OUT threads int, OUT fds int, OUT rss bigint)
AS 'MODULE_PATHNAME', 'test_kafka_process' LANGUAGE C STRICT;
