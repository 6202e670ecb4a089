-- Names of columns: those that PostgreSQL cuts, the event time's, and what
-- is reserved.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS weir;
\set VERBOSITY default
\pset null '(null)'
BEGIN;
\set ON_ERROR_ROLLBACK on
CREATE SCHEMA named;
SET LOCAL search_path = named, public;
CREATE SERVER kafka FOREIGN DATA WRAPPER weir_kafka
	OPTIONS (bootstrap_servers 'localhost:1');

-- A column's name is cut after 63 bytes, its path is not.
SELECT weir.create_source('long', 'kafka', 'x', $$
	short int,
	A_Name_Of_Sixty_Three_Bytes_Which_Is_The_Longest_That_Is_Ok_012 int,
	A_Name_Of_Sixty_Four_Bytes_Which_Is_One_Byte_Longer_Than_Is_Okay int,
	"Mixed case, ""quotes"" and \ and 'apostrophes' beyond the 63 bytes that a name has" text,
	/* comment */ ääääääääääääääääääääääääääääääääÖ$1 int,
	U&"d\0061t\+000061 and what follows makes it very much longer than 63 bytes \d83d\de00"   timestamptz,
	U&"d!0061t!0061 again, with an escape of its own, very much longer than 63 bytes ""!!" UESCAPE
		'!' timestamptz,
	with_a_path_of_its_own_that_stays_as_it_is_although_the_name_is_cut int OPTIONS (path '$.x'),
	generated_and_longer_than_what_postgresql_takes_for_the_name_of_one int GENERATED ALWAYS AS (short) STORED $$,
	event_time => 'data and what follows makes it very much longer than 63 bytes 😀');
SELECT a.attname, a.attfdwoptions
FROM pg_attribute a
WHERE a.attrelid = 'long'::regclass AND a.attnum > 0 AND a.attname !~ '^kafka_'
ORDER BY a.attnum;
SELECT d.result, d.message, d.staged[4:12]
FROM weir_internal.decode_json('long', ARRAY[convert_to('{"short":1,
	"a_name_of_sixty_three_bytes_which_is_the_longest_that_is_ok_012":2,
	"a_name_of_sixty_four_bytes_which_is_one_byte_longer_than_is_okay":3,
	"Mixed case, \"quotes\" and \\ and ''apostrophes'' beyond the 63 bytes that a name has":"text",
	"ääääääääääääääääääääääääääääääääÖ$1":4,
	"data and what follows makes it very much longer than 63 bytes 😀":"2026-01-01Z",
	"data again, with an escape of its own, very much longer than 63 bytes \"!":"2026-01-02Z",
	"x":5}', 'UTF8')]) d;
ALTER FOREIGN TABLE long RENAME COLUMN a_name_of_sixty_four_bytes_which_is_one_byte_longer_than_is_oka TO sixty_four;
SELECT attfdwoptions FROM pg_attribute
WHERE attrelid = 'long'::regclass AND attname = 'sixty_four';

-- The event time's name: as it stands, as SQL takes it, or the nearest.
SELECT weir.create_source('exact', 'kafka', 'x', '"createDate" timestamptz, createdate timestamptz', event_time => 'createDate');
SELECT weir.create_source('quoted', 'kafka', 'x', '"createDate" timestamptz, createdate timestamptz', event_time => '"createDate"');
SELECT weir.create_source('folded', 'kafka', 'x', 'createDate timestamptz', event_time => 'createDate');
SELECT weir.create_source('odd', 'kafka', 'x', '"my ""odd"" one" timestamptz', event_time => 'my "odd" one');
SELECT source, event_time FROM weir.sources WHERE source <> 'long' ORDER BY 1;
SELECT weir.create_source('none', 'kafka', 'x', '"createDate" timestamptz', event_time => 'CREATEDATE');
SELECT weir.create_source('none', 'kafka', 'x', '"createDate" timestamptz', event_time => 'created_ate');
SELECT weir.create_source('none', 'kafka', 'x', 'create_date timestamptz', event_time => 'createDate');
SELECT weir.create_source('none', 'kafka', 'x', 'a timestamptz', event_time => 'nothing_like_it');
SELECT weir.create_source('none', 'kafka', 'x', 'a timestamptz', event_time => 'a.b');

-- The key of a stream, in the same way.
SELECT weir.create_stream('keyed_' || n, q, options => jsonb_build_object('key', k))
FROM (VALUES (1, 'SELECT createdate AS createDate FROM exact', 'createDate'),
	(2, 'SELECT createdate AS "createDate", 1 AS createdate FROM exact', 'createDate'),
	(3, 'SELECT createdate AS a_name_of_sixty_four_bytes_which_is_one_byte_longer_than_is_okay FROM exact', 'a_name_of_sixty_four_bytes_which_is_one_byte_longer_than_is_okay')) x (n, q, k);
SELECT stream, key_columns FROM weir.streams ORDER BY 1;

-- As many columns as there can be.
SELECT weir.create_source('many', 'kafka', 'x', string_agg('c' || i || ' int', ', '))
FROM generate_series(1, 1594) i;
SELECT weir.create_source('many', 'kafka', 'x', string_agg('c' || i || ' int', ', '))
FROM generate_series(1, 1593) i;

-- Units of epochs.
SELECT weir.create_source('days', 'kafka', 'x',
	'a date OPTIONS (epoch ''d''), b timestamp OPTIONS (epoch ''d''), c date[] OPTIONS (epoch ''ms'')');
SELECT weir.create_source('none', 'kafka', 'x', 'a int OPTIONS (epoch ''d'')');
SELECT weir.create_source('none', 'kafka', 'x', 'a time OPTIONS (epoch ''s'')');
SELECT weir.create_source('none', 'kafka', 'x', 'a date OPTIONS (epoch ''w'')');

-- What is reserved.
SELECT weir.create_source('none', 'kafka', 'x', 'kafka_tid int');
SELECT weir.create_source('none', 'kafka', 'x', '"Kafka_tid" int, tid int');
ROLLBACK;
