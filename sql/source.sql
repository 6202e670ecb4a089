-- weir.create_source(): what it takes, what it refuses, what it leaves.
-- Everything happens in one transaction that is rolled back, so no worker
-- ever sees it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS weir;
RESET client_min_messages;
\set VERBOSITY default
\pset null '(null)'
BEGIN;
\set ON_ERROR_ROLLBACK on
CREATE SCHEMA src;
SET LOCAL search_path = src, public;
CREATE SERVER kafka FOREIGN DATA WRAPPER weir_kafka
	OPTIONS (bootstrap_servers 'localhost:1');

-- All arguments at once.
SELECT weir.create_source('rides', server => 'kafka', topic => 'rides.v1',
	columns => $$ ride_id   bigint NOT NULL,
				  zone_id   int OPTIONS (path '$.pickup.zone'),
				  fare      numeric(8,2) CHECK (fare >= 0) DEFAULT 1.5,
				  cents     int GENERATED ALWAYS AS (fare * 100) STORED,
				  pickup_at timestamptz OPTIONS (epoch 'ms'), -- the event
				  CONSTRAINT sane CHECK (fare < 1000 OR zone_id = 1) -- end $$,
	event_time => 'pickup_at', max_out_of_orderness => '5 seconds',
	idle_timeout => NULL, max_future_skew => '1 day',
	start_from => '2024-02-29 12:00+01', filter => 'fare IS NOT NULL',
	on_error => 'stop', workers => 1,
	options => '{"staging_limit": "32 MB", "dead_letter_limit": 100}');
\d rides
\x on
SELECT source, relation, owner = current_user::regrole AS mine, server, topic,
	format, event_time, max_out_of_orderness, idle_timeout, max_future_skew,
	start_from, filter, on_error, workers, options, paused, streams
FROM weir.sources;
\x off

-- Nothing is staged, and a look at it says so.
SELECT * FROM rides;
SELECT count(*) FROM rides a JOIN rides b USING (ride_id) WHERE a.fare > 1;
EXPLAIN (COSTS OFF) SELECT ride_id FROM rides WHERE fare > 1;
INSERT INTO rides (ride_id) VALUES (1);
DELETE FROM rides;
TRUNCATE rides;
ANALYZE rides;

-- Defaults, another schema, a name to quote, an event time of Kafka.
CREATE SCHEMA "Other";
SELECT weir.create_source('"Other"."All Rides"', 'kafka', 'rides', 'a int');
SELECT source, relation, event_time, max_out_of_orderness, idle_timeout,
	max_future_skew, start_from, filter, on_error, options
FROM weir.sources WHERE source = 'All Rides';
SELECT weir.create_source('ts', 'kafka', 'x', 'a timestamp', event_time => 'a',
	start_from => '{"3": 7, "0": 42}');
SELECT event_time, start_from FROM weir.sources WHERE source = 'ts';

-- Names.
SELECT weir.create_source('rides', 'kafka', 'x', 'a int');
SELECT weir.create_source('rides', 'kafka', 'x', 'a int', if_not_exists => true);
SELECT weir.create_source('public.rides', 'kafka', 'x', 'a int');
CREATE TABLE taken (a int);
SELECT weir.create_source('taken', 'kafka', 'x', 'a int');
SELECT weir.create_source('taken', 'kafka', 'x', 'a int', if_not_exists => true);
SELECT weir.create_source('a.b.c', 'kafka', 'x', 'a int');
SELECT weir.create_source('a b', 'kafka', 'x', 'a int');
SELECT weir.create_source('', 'kafka', 'x', 'a int');
SELECT weir.create_source('nowhere.s', 'kafka', 'x', 'a int');
SELECT weir.create_source('pg_temp.s', 'kafka', 'x', 'a int');
SELECT weir.create_source(NULL, 'kafka', 'x', 'a int');

-- Servers and topics.
SELECT weir.create_source('s', 'nowhere', 'x', 'a int');
CREATE FOREIGN DATA WRAPPER other_fdw;
CREATE SERVER other FOREIGN DATA WRAPPER other_fdw;
SELECT weir.create_source('s', 'other', 'x', 'a int');
SELECT weir.create_source('s', 'kafka', 'no spaces', 'a int');
SELECT weir.create_source('s', 'kafka', '..', 'a int');

-- One list of columns and nothing else.
SELECT weir.create_source('s', 'kafka', 'x', '');
SELECT weir.create_source('s', 'kafka', 'x', 'a int b int');
SELECT weir.create_source('s', 'kafka', 'x', 'a int) SERVER kafka; DROP TABLE taken; CREATE FOREIGN TABLE t (a int');
SELECT weir.create_source('s', 'kafka', 'x', 'a int) INHERITS (taken');
SELECT weir.create_source('s', 'kafka', 'x', 'a int) SERVER other --');
SELECT weir.create_source('s', 'kafka', 'x', 'a int /*');
SELECT weir.create_source('s', 'kafka', 'x', 'LIKE taken');
SELECT weir.create_source('s', 'kafka', 'x', 'a no_such_type');
SELECT weir.create_source('s', 'kafka', 'x', 'a int PRIMARY KEY');
SELECT weir.create_source('s', 'kafka', 'x', 'a int GENERATED ALWAYS AS IDENTITY');
SELECT weir.create_source('s', 'kafka', 'x', 'a float8 DEFAULT random()');
SELECT weir.create_source('s', 'kafka', 'x', 'kafka_key text');
SELECT weir.create_source('s', 'kafka', 'x', $$a int OPTIONS (pth '$')$$);
SELECT weir.create_source('s', 'kafka', 'x', $$a int OPTIONS (path 'a.b')$$);
SELECT weir.create_source('s', 'kafka', 'x', $$a int OPTIONS (epoch 's')$$);
SELECT weir.create_source('s', 'kafka', 'x', $$a timestamptz OPTIONS (epoch 'h')$$);

-- Event time and filter.
SELECT weir.create_source('s', 'kafka', 'x', 'a int', event_time => 'a');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', event_time => 'b');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', filter => 'a');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', filter => 'b > 1');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', filter => 'a >');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', filter => 'a > 1) FROM taken WHERE (true');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', filter => 'a > 1; DROP TABLE taken');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', filter => 'a > random()');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', filter => 'a IN (SELECT 1)');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', filter => 'max(a) > 1');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', filter => 'generate_series(1, a) > 1');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', filter => 'tableoid > 1');
SELECT weir.create_source('s', 'kafka', 'x', 'a int, b int GENERATED ALWAYS AS (a + 1) STORED', filter => 'b > 1');

-- Choices, durations, positions, options.
SELECT weir.create_source('s', 'kafka', 'x', 'a int', format => 'avro');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', format => 'xml');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', on_error => 'skip');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', workers => 2);
SELECT weir.create_source('s', 'kafka', 'x', 'a int', workers => 0);
SELECT weir.create_source('s', 'kafka', 'x', 'a int', max_out_of_orderness => '-1 s');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', max_out_of_orderness => NULL);
SELECT weir.create_source('s', 'kafka', 'x', 'a int', idle_timeout => '1 month');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', start_from => 'erliest');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', start_from => '2024-02-30');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', start_from => '{"0": "x"}');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', start_from => '{"0": -1}');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', start_from => '{"-1": 1}');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', start_from => '{}');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', options => '[]');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', options => '{"staging_limits": 1}');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', options => '{"colour": 1}');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', options => '{"staging_limit": "much"}');
SELECT weir.create_source('s', 'kafka', 'x', 'a int', options => '{"dead_letter_limit": 1.5}');

-- Nothing of what was refused is left.
SELECT count(*) FROM weir.sources;
SELECT count(*) FROM pg_foreign_table t JOIN pg_class c ON c.oid = t.ftrelid
WHERE c.relnamespace = 'src'::regnamespace;

-- A foreign table that is no source.
CREATE FOREIGN TABLE loose (a int) SERVER kafka;
SELECT * FROM loose;
CREATE FOREIGN TABLE bad (a int) SERVER kafka OPTIONS (topic 'x');

-- Options of servers and user mappings.
CREATE SERVER s FOREIGN DATA WRAPPER weir_kafka;
CREATE SERVER s FOREIGN DATA WRAPPER weir_kafka OPTIONS (bootstrap_server 'x');
CREATE SERVER s FOREIGN DATA WRAPPER weir_kafka
	OPTIONS (bootstrap_servers 'x', sasl_password 'x');
CREATE SERVER s FOREIGN DATA WRAPPER weir_kafka
	OPTIONS (bootstrap_servers 'x', group_id 'x');
CREATE SERVER s FOREIGN DATA WRAPPER weir_kafka
	OPTIONS (bootstrap_servers 'x', fetch_wait_max_ms 'soon');
CREATE USER MAPPING FOR current_user SERVER kafka
	OPTIONS (sasl_username 'u', sasl_password 'p');
ALTER USER MAPPING FOR current_user SERVER kafka
	OPTIONS (ADD bootstrap_servers 'x');
ALTER SERVER kafka OPTIONS (DROP bootstrap_servers);
ROLLBACK;
