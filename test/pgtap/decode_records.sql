-- A record's way : documents that are none, paths,
-- duplicates, defaults, filter, generated columns, constraints, event time,
-- and that an error costs its own record only.
\set QUIET on
SET client_min_messages = warning;
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS weir;
SELECT no_plan();
SET LOCAL TimeZone = 'UTC';
SET LOCAL DateStyle = 'ISO, MDY';

CREATE FOREIGN DATA WRAPPER decode_test;
CREATE SERVER decode_test FOREIGN DATA WRAPPER decode_test;

CREATE FUNCTION source(columns text) RETURNS regclass
LANGUAGE plpgsql AS $$
BEGIN
    DROP FOREIGN TABLE IF EXISTS src;
    EXECUTE format('CREATE FOREIGN TABLE src (%s, kafka_topic text,
        kafka_partition int, kafka_offset bigint, kafka_timestamp timestamptz,
        kafka_key bytea, kafka_headers weir.kafka_header[])
        SERVER decode_test', columns);
    RETURN 'src';
END $$;

CREATE FUNCTION bytes(jsons text[]) RETURNS bytea[] LANGUAGE sql AS $$
    SELECT array_agg(convert_to(j, 'UTF8') ORDER BY o)
    FROM unnest(jsons) WITH ORDINALITY u(j, o) $$;

-- One text a record: the declared columns, or why there are none.
CREATE FUNCTION decoded(columns text, jsons text[], filter text DEFAULT NULL,
    event_time text DEFAULT NULL)
RETURNS SETOF text LANGUAGE sql AS $$
    SELECT CASE d.result
        WHEN 'staged' THEN d.staged[4:cardinality(d.staged) - 2]::text
        WHEN 'dead' THEN '!' || d.sqlstate || CASE WHEN is_constraint THEN ' constraint' ELSE '' END
        ELSE d.result END
    FROM weir_internal.decode_json(source(columns), bytes(jsons), filter, event_time) d
    ORDER BY record $$;

-- Documents.
CREATE TEMP TABLE documents (document bytea, good boolean);
INSERT INTO documents SELECT convert_to(d, 'UTF8'), true FROM unnest(ARRAY[
    '{}', '[]', '0', '"a"', 'null', 'true', ' {} ', E'\t\r\n{}\n', '{"a":[{"b":[]}]}', '{"a":{"a":{"a":1}}}', '[[[]],{}]', '-0.5e-7',
    '{"a" : "b" , "c" : [ 1 , 2 ] }', '"\u0000"', '"\ud800"', '{"\ud800":"\u0000"}', '{"a":1,"a":2}', '{"":1}', '"\\\""', '"é漢😀"', '["\\","\\"]',
    '{"x":"' || repeat('y', 200) || '\n"}', repeat('[', 20000) || repeat(']', 20000), '[' || repeat('{"a":', 20000) || '1' || repeat('}', 20000) || ']']) d;
INSERT INTO documents SELECT convert_to(d, 'UTF8'), false FROM unnest(ARRAY[
    '', ' ', E'\n', '{', '}', '[', ']', '"', '"a', '{"a"', '{"a":', '{"a":1', '{"a":1,', '{"a":1,}', '{,}', '{"a"}', '{"a",1}', '{a:1}', '{''a'':1}', '{1:2}', '{"a":1 "b":2}', '{"a":1]', '[1}', '[1,]', '[,1]', '[1 2]', '[1,,2]',
    '{} {}', '{}x', '{},', '1 2', 'x', 'tru', 'truee', 'True', 'nul', 'nulll', 'falsetrue', 'NaN', 'Infinity', '-', '+1', '01', '-01', '1.', '.5', '1.e5', '1e', '1e+', '0x10', '1_000', '--1', '1-', '12a', '1"a"', '"a"1', '"a""b"', '"a"b', 'a"b"',
    '"\q"', '"\u12"', '"\u12g4"', '"\"', E'"a\nb"', E'"a\tb"', E'"\x01"', E'{"a\nb":1}', '\', '{\}', '{"a"\:1}', '[1\n]', E'\uFEFF{}', '{"a":"\x"}', '{"\x":1}', '{"z":{"a":[1,{"b":"\x"}]}}', '{"z":[1,{"b":tru}]}', '{"z":{"a" 1}}', '{"a":1}}', '[[1]', E'\u00a0{}',
    '/* c */ {}', '{} // c', repeat('[', 20000), repeat('[', 20000) || repeat(']', 19999), repeat('{"a":', 3000) || '1' || repeat('}', 2999) || ']']) d;
INSERT INTO documents VALUES ('\x00', false), ('\x7b7d00', false), ('\x22610022', false), ('\x7b0022', false),
    ('\x22ff22', false), ('\x22c322', false), ('\x22c0af22', false), ('\x22eda08022', false), ('\x22f490808022', false), ('\x22f5808022', false), ('\xff7b7d', false), ('\x7b7dc3', false), ('\x22e28222', false), ('\x2280bf22', false), ('\xefbbbf7b7d', false);
-- An array or a scalar is for columns whose paths look into it.
SELECT is_empty(
    format($$SELECT encode(substr(x.document, 1, 40), 'escape'), x.good, x.kind, d.result, d.message
      FROM (SELECT row_number() OVER () AS n, document, good, kind, good AND kind = ANY (%L) AS takes
          FROM (SELECT *, CASE WHEN good THEN CASE left(ltrim(convert_from(document, 'UTF8'), E' \t\r\n'), 1) WHEN '{' THEN 'object' WHEN '[' THEN 'array' ELSE 'scalar' END END AS kind FROM documents) y) x
      JOIN weir_internal.decode_json(source(%L), (SELECT array_agg(document) FROM documents)) d ON d.record = x.n
      WHERE takes <> (d.result = 'staged') OR takes <> (d.result <> 'dead') OR (good AND NOT takes) <> (d.sqlstate IS NOT DISTINCT FROM '22023')
         OR d.sqlstate NOT IN ('22P02', '22021', '22023') OR (d.sqlstate IS NULL) <> takes OR is_constraint$$,
        CASE WHEN c ~ '\$\[' THEN '{object,array}' WHEN c ~ '''\$''' THEN '{object,array,scalar}' ELSE '{object}' END, c),
    'documents: ' || c)
FROM unnest(ARRAY['a text', 'zz int', 'n int OPTIONS (path ''$.z.a[1].b'')', 'w text OPTIONS (path ''$[0][0]'')', 'j text OPTIONS (path ''$[7]''), zz int', 'g int GENERATED ALWAYS AS (1) STORED']) c;
SELECT is((SELECT array_agg(DISTINCT sqlstate) FROM weir_internal.decode_json(source('a text'), ARRAY['\x22ff22', '\x22eda08022', '\xc3']::bytea[])), ARRAY['22021'], 'not UTF-8 is 22021');
SELECT is((SELECT result FROM weir_internal.decode_json('src', ARRAY[NULL]::bytea[])), 'tombstone', 'no payload: a tombstone');
SELECT results_eq($$SELECT decoded('a int, w text OPTIONS (path ''$'')', ARRAY['[1]', '"x"', 'null', ' 5 ', '{"a":1}'])$$, ARRAY['{NULL,[1]}', '{NULL,x}', '{NULL,NULL}', '{NULL,5}', '{1,"{\"a\":1}"}'], 'the whole document');
SELECT results_eq($$SELECT decoded('a int DEFAULT 1', ARRAY['[1]', '{}', '1'], 'a = 1')$$, ARRAY['!22023', '{1}', '!22023'], 'no default in place of a document');
SELECT is((SELECT array_agg(message ORDER BY record) FROM weir_internal.decode_json(source('a int'), ARRAY['[]', ' 1', '"x"']::bytea[])),
    ARRAY['JSON document is an array, not an object: A column with the path ''$'' takes whole documents.', 'JSON document is a scalar, not an object: A column with the path ''$'' takes whole documents.', 'JSON document is a scalar, not an object: A column with the path ''$'' takes whole documents.'], 'the message says what it is');

-- What other things look like.
SELECT results_eq(
    $$SELECT sqlstate || ' ' || message FROM weir_internal.decode_json(source('a int'), ARRAY['\x000000002a7b7d', '\x00000186a07b7d', '\x00000000010206ff', '\x0000000001', '\xefbbbf7b7d', '\xfffe7b007d00', '\xfeff007b007d', '\xefbbbf', '\x0061']::bytea[]) ORDER BY record$$,
    ARRAY['22P02 invalid input syntax for type json: The message is in Confluent''s wire format, a zero byte and the schema''s number (42) before the value: the producer has to write plain JSON, without a schema registry.',
        '22021 invalid input syntax for type json: The message is in Confluent''s wire format, a zero byte and the schema''s number (100000) before the value: the producer has to write plain JSON, without a schema registry.',
        '22021 invalid input syntax for type json: The message is in Confluent''s wire format, a zero byte and the schema''s number (1) before the value: the producer has to write plain JSON, without a schema registry.',
        '22P02 invalid input syntax for type json: Unexpected "" at byte 0.',
        '22P02 invalid input syntax for type json: The message begins with a byte-order mark, which JSON does not have: the producer has to leave it out.',
        '22021 invalid input syntax for type json: The message begins with a byte-order mark of UTF-16: the producer has to write UTF-8.',
        '22021 invalid input syntax for type json: The message begins with a byte-order mark of UTF-16: the producer has to write UTF-8.',
        '22P02 invalid input syntax for type json: The message begins with a byte-order mark, which JSON does not have: the producer has to leave it out.',
        '22P02 invalid input syntax for type json: Unexpected "" at byte 0.'], 'other formats are named');
SELECT matches((SELECT message FROM weir_internal.decode_json('src', ARRAY['{"a":tru}']::bytea[])), 'type json.*"tru}" at byte 5', 'the message says where');

-- Depth: a value too deep for its type is a row's error, and no more.
SELECT results_eq(
    $$SELECT left(d, 9) FROM decoded('j jsonb, t text', ARRAY['{"j":1,"t":"a"}', '{"j":' || repeat('[', 100000) || repeat(']', 100000) || '}', '{"t":' || repeat('[', 100000) || repeat(']', 100000) || '}', '{"j":2,"t":"b"}']) d$$,
    ARRAY['{1,a}', '!54001', '{NULL,[[[', '{2,b}'], 'deep values');
SELECT is((SELECT length(staged[4]) FROM weir_internal.decode_json(source('t text, j jsonb'), ARRAY[convert_to('{"t":"' || repeat('x', 10000000) || '","j":[' || repeat('1,', 100000) || '1]}', 'UTF8')])), 10000000, 'a message of 10 MB');
SELECT is((SELECT array_agg(result ORDER BY record) FROM weir_internal.decode_json('src', (SELECT array_agg(convert_to(CASE WHEN i = 2 THEN '{"t":"' || repeat('x', 3000000) || '"}' ELSE '{"t":"a"}' END, 'UTF8') ORDER BY i) FROM generate_series(1, 4) i))), array_fill('staged'::text, ARRAY[4]), 'large among small');

-- Paths.
SELECT results_eq(
    $$SELECT decoded('a int OPTIONS (path ''$.p.q''), b int OPTIONS (path ''$["p"].r[1]''), c text OPTIONS (path ''$.p''), d int OPTIONS (path ''$."a b"[''''c.d'''']''), e jsonb OPTIONS (path ''$''), "F" int, f int, g int OPTIONS (path ''$.""''), h int OPTIONS (path ''$[''''it\''''s'''']''), i int OPTIONS (path ''$.é'')',
        ARRAY['{"p":{"q":1,"r":[2,3]},"a b":{"c.d":4},"F":5,"f":6,"":7,"it''s":8,"é":9}', '{"\u0070":{"\u0071":1},"\u00e9":9}', '[1]', '5', '{"p":[{"q":1}]}'])$$,
    ARRAY[$${1,3,"{\"q\":1,\"r\":[2,3]}",4,"{\"\": 7, \"F\": 5, \"f\": 6, \"p\": {\"q\": 1, \"r\": [2, 3]}, \"é\": 9, \"a b\": {\"c.d\": 4}, \"it's\": 8}",5,6,7,8,9}$$,
        $${1,NULL,"{\"\\u0071\":1}",NULL,"{\"p\": {\"q\": 1}, \"é\": 9}",NULL,NULL,NULL,NULL,9}$$,
        '{NULL,NULL,NULL,NULL,[1],NULL,NULL,NULL,NULL,NULL}', '{NULL,NULL,NULL,NULL,5,NULL,NULL,NULL,NULL,NULL}',
        $${NULL,NULL,"[{\"q\":1}]",NULL,"{\"p\": [{\"q\": 1}]}",NULL,NULL,NULL,NULL,NULL}$$], 'paths');
SELECT results_eq(
    $$SELECT decoded('a int OPTIONS (path ''$[0]''), b int OPTIONS (path ''$[2].x''), c text OPTIONS (path ''$''), d int OPTIONS (path ''$[1][1]'')', ARRAY['[1,[2,3],{"x":4}]', '[]', '[1]', '{"0":1}', ' [ 7 ] ', '"str\n"', 'null'])$$,
    ARRAY['{1,4,"[1,[2,3],{\"x\":4}]",3}', '{NULL,NULL,[],NULL}', '{1,NULL,[1],NULL}', '{NULL,NULL,"{\"0\":1}",NULL}', '{7,NULL,"[ 7 ]",NULL}', E'{NULL,NULL,"str\n",NULL}', '{NULL,NULL,NULL,NULL}'], 'arrays, and the document itself');
SELECT results_eq($$SELECT decoded('a int OPTIONS (path ''$.x''), b text OPTIONS (path ''$.x''), c jsonb OPTIONS (path ''$.x'')', ARRAY['{"x":"5"}'])$$, ARRAY['{5,5,"\"5\""}'], 'one path, three columns');
SELECT throws_ok(format($$SELECT decoded(%L, ARRAY['{}'])$$, format('a int OPTIONS (path %L)', p)), '22023', NULL, 'bad path ' || p)
FROM unnest(ARRAY['', 'a', '.a', '$.', '$a', '$..a', '$.a.', '$[', '$[a]', '$[-1]', '$[1', '$["a"', '$["a]', '$."a', '$.a b', '$[99999999999]', '$ .a', '$' || repeat('.a', 65)]) p;

-- Duplicates: the last wins, with all below it.
SELECT results_eq(
    $$SELECT decoded('a int, b int OPTIONS (path ''$.n.b''), c int OPTIONS (path ''$.n.c''), n jsonb', ARRAY['{"a":1,"a":2}', '{"a":1,"a":null}', '{"a":"x","a":3}', '{"n":{"b":1,"c":2},"n":{"c":3}}', '{"n":{"b":1},"n":5}', '{"n":{"b":1,"b":2}}', '{"n":5,"n":{"b":1}}', '{"n":{"b":1},"a":1,"n":[]}', '{"n":{"b":1},"\u006e":{}}'])$$,
    ARRAY['{2,NULL,NULL,NULL}', '{NULL,NULL,NULL,NULL}', '{3,NULL,NULL,NULL}', '{NULL,NULL,3,"{\"c\": 3}"}', '{NULL,NULL,NULL,5}', '{NULL,2,NULL,"{\"b\": 2}"}', '{NULL,1,NULL,"{\"b\": 1}"}', '{1,NULL,NULL,[]}', '{NULL,NULL,NULL,"{}"}'], 'duplicates');

-- Defaults: for what is missing, not for null.
CREATE DOMAIN dom_default AS int DEFAULT 9;
SELECT results_eq(
    $$SELECT decoded('a int DEFAULT 7, b text DEFAULT ''x'' || ''y'', c dom_default, d text DEFAULT current_setting(''decode.test'', true), e int', ARRAY['{}', '{"a":null,"b":null,"c":null,"d":null}', '{"a":1,"b":"z","c":2,"d":"d"}'])$$,
    ARRAY['{7,xy,9,NULL,NULL}', '{NULL,NULL,NULL,NULL,NULL}', '{1,z,2,d,NULL}'], 'defaults');
SELECT results_eq($$SELECT decoded('a int DEFAULT 5', ARRAY['{}', '{"a":1}'], 'a = 5')$$, ARRAY['{5}', 'filtered'], 'the filter sees defaults');

-- The filter.
SELECT results_eq(
    $$SELECT decoded('a int, b int', ARRAY['{"a":1}', '{"a":2,"b":"bad"}', '{}', '{"a":"bad"}', '{"a":1,"b":"bad"}', '{"a":0}'], '10 / a = 10')$$,
    ARRAY['{1,NULL}', 'filtered', 'filtered', '!22P02', '!22P02', '!22012'], 'a filter: true, false, NULL, undecodable, thrown');
SELECT results_eq($$SELECT decoded('a text', ARRAY['{"a":"x"}', '{"a":"y"}'], $f$kafka_topic = 'test' AND kafka_offset = 0 AND kafka_partition = 0 AND kafka_key = '\x6b6579' AND kafka_timestamp > '2020-01-01' AND a IS NOT NULL$f$)$$,
    ARRAY['{x}', 'filtered'], 'Kafka columns in a filter');
SELECT results_eq($$SELECT decoded('a text', ARRAY['{}'], 'true')$$, ARRAY['{NULL}'], 'filter true');
SELECT results_eq($$SELECT decoded('a text', ARRAY['{}'], 'null')$$, ARRAY['filtered'], 'filter null');
SELECT throws_ok(format($$SELECT decoded('a int, g int GENERATED ALWAYS AS (a + 1) STORED', ARRAY['{}'], %L)$$, f), s, NULL, 'bad filter ' || f)
FROM (VALUES ('g = 1', '42P10'), ('nope = 1', '42703'), ('a', '42804'), ('a = 1, a = 2', '42804'), ('a = 1 AS x', '42601'), ('a = 1 FROM src', '42601'), ('a = (SELECT 1)', '0A000'), ('count(*) > 1', '42803'), ('a = 1; SELECT 1', '42601'), ('generate_series(1, a) = 1', '0A000'), ('src IS NULL', '0A000'), ('tableoid = 1', '0A000'), ('', '42601')) x(f, s);

-- Generated columns, NOT NULL, CHECK.
SELECT results_eq(
    $$SELECT decoded('a int NOT NULL, b int CHECK (b > 0), g int GENERATED ALWAYS AS (100 / a) STORED NOT NULL, CHECK (g < 50 OR a IS NULL)', ARRAY['{"a":5,"b":1}', '{"a":5}', '{"b":1}', '{"a":5,"b":0}', '{"a":1}', '{"a":0}', '{"a":5,"g":7}'])$$,
    ARRAY['{5,1,20}', '{5,NULL,20}', '!23502 constraint', '!23514 constraint', '!23514 constraint', '!22012', '{5,NULL,20}'], 'generated columns and constraints');
SELECT results_eq($$SELECT decoded('a int CHECK (10 / a > 0)', ARRAY['{"a":1}', '{"a":0}', '{}'])$$, ARRAY['{1}', '!22012 constraint', '{NULL}'], 'a CHECK that throws');
SELECT is((SELECT message FROM weir_internal.decode_json(source('a int NOT NULL'), ARRAY['{}']::bytea[])), 'null value in column "a" of relation "src" violates not-null constraint', 'message of NOT NULL');
SELECT is((SELECT message FROM weir_internal.decode_json(source('a int CONSTRAINT positive CHECK (a > 0)'), ARRAY['{"a":0}']::bytea[])), 'new row for relation "src" violates check constraint "positive"', 'message of CHECK');
SELECT is((SELECT message FROM weir_internal.decode_json('src', ARRAY['{"a":"q"}']::bytea[])), 'invalid input syntax for type integer: "q" (column "a")', 'message of a bad value');

-- Event time.
CREATE FUNCTION timed(columns text, jsons text[], filter text DEFAULT NULL, event_time text DEFAULT 't')
RETURNS SETOF text LANGUAGE sql AS $$
    SELECT concat_ws(' ', result || coalesce(' ' || sqlstate, ''), CASE WHEN is_constraint THEN 'constraint' END, event_time::timestamp, CASE WHEN has_event_time THEN 'moves' END, CASE WHEN is_future THEN 'future' END)
    FROM weir_internal.decode_json(source(columns), bytes(jsons), filter, event_time) ORDER BY record $$;
SELECT results_eq(
    $$SELECT timed('t timestamptz, a int', ARRAY['{"t":"2024-01-01T00:00:00Z","a":1}', '{"a":1}', '{"t":null}', '{"t":"infinity"}', '{"t":"-infinity","a":1}', '{"t":"9999-01-01"}', '{"t":"bad"}', '{"t":[]}', '{"t":"2024-01-01"}'])$$,
    ARRAY['staged 2024-01-01 00:00:00 moves', 'dead 23502 constraint', 'dead 23502 constraint', 'dead 22008 constraint', 'dead 22008 constraint', 'staged 9999-01-01 00:00:00 future', 'dead 22007', 'dead 22007', 'staged 2024-01-01 00:00:00 moves'], 'event times');
SELECT results_eq(
    $$SELECT timed('t timestamptz, a int', ARRAY['{"t":"2024-01-01T00:00:00Z","a":1}', '{"t":"2024-01-01T00:00:00Z","a":2}', '{"a":2}', '{"t":"infinity","a":2}', '{"t":"9999-01-01","a":2}', '{"t":"bad","a":2}', '{"t":[],"a":2}', '{"t":1e400,"a":2}', '{"t":"bad","a":1}', '{"t":"bad","a":"x"}', '{"t":"2024-01-01","a":2}'], 'a = 1')$$,
    ARRAY['staged 2024-01-01 00:00:00 moves', 'filtered 2024-01-01 00:00:00 moves', 'filtered', 'filtered', 'filtered 9999-01-01 00:00:00 future', 'filtered', 'filtered', 'filtered', 'dead 22007', 'dead 22P02', 'filtered 2024-01-01 00:00:00 moves'], 'event times of filtered rows');
SELECT results_eq($$SELECT timed('t timestamptz', ARRAY['{"t":"bad"}', '{"t":"2024-01-01"}', '{}'], 't IS NOT NULL')$$,
    ARRAY['dead 22007', 'staged 2024-01-01 00:00:00 moves', 'filtered'], 'an event time that the filter names');
SELECT results_eq($$SELECT timed('t timestamp, a int', ARRAY['{"t":"2024-01-01T10:00:00+05"}'])$$, ARRAY['staged 2024-01-01 05:00:00 moves'], 'timestamp without time zone');
SELECT results_eq($$SELECT timed('t date, a int', ARRAY['{"t":"2024-01-01"}', '{"t":"infinity"}'])$$, ARRAY['staged 2024-01-01 00:00:00 moves', 'dead 22008 constraint'], 'date');
SELECT results_eq(
    $$SELECT timed('s bigint, t timestamptz GENERATED ALWAYS AS (to_timestamp(1000000 / s)) STORED, a int', ARRAY['{"s":1,"a":1}', '{"s":0,"a":1}', '{"s":0,"a":2}', '{"s":"x","a":1}', '{"s":"x","a":2}', '{"a":1}', '{"s":1,"a":2}'], 'a = 1')$$,
    ARRAY['staged 1970-01-12 13:46:40 moves', 'dead 22012', 'filtered', 'dead 22P02', 'filtered', 'dead 23502 constraint', 'filtered 1970-01-12 13:46:40 moves'], 'a generated event time');
SELECT is((SELECT concat_ws(' ', result, sqlstate, event_time::timestamp, staged[3]) FROM weir_internal.decode_json(source('a int'), bytes(ARRAY['{}']), NULL, NULL, ms)), wanted, 'Kafka timestamp ' || ms)
FROM (VALUES (1700000000123, 'staged 2023-11-14 22:13:20.123 2023-11-14 22:13:20.123+00'), (-1, 'staged'), (0, 'staged 1970-01-01 00:00:00 1970-01-01 00:00:00+00'), (1750000000000000000, 'dead 22008'), (9223372036854775807, 'dead 22008'), (9224318016000000, 'dead 22008'), (-5, 'staged')) x(ms, wanted);
SELECT throws_ok($$SELECT timed('t text', ARRAY['{}'])$$, '42804', NULL, 'an event time of type text');

-- An error ends a run, not the batch; other classes end the batch.
CREATE DOMAIN even AS int CHECK (VALUE % 2 = 0);
SELECT results_eq(
    $$SELECT string_agg(d, ' ' ORDER BY o) FROM decoded('e even, u interval', ARRAY(SELECT format('{"e":%s,"u":"%s"}', i, CASE WHEN i % 5 = 0 THEN 'x' ELSE i || ' s' END) FROM generate_series(1, 30) i), 'e <> 4') WITH ORDINALITY x(d, o)$$,
    ARRAY[(SELECT string_agg(CASE WHEN i % 2 = 1 THEN '!23514 constraint' WHEN i = 4 THEN 'filtered' WHEN i % 5 = 0 THEN '!22007' ELSE format('{%s,00:00:%s}', i, to_char(i, 'FM00')) END, ' ' ORDER BY i) FROM generate_series(1, 30) i)], 'runs go on after their culprits');
SELECT is((SELECT count(*) FILTER (WHERE result = 'staged') || ' ' || count(*) FILTER (WHERE sqlstate = '22007') FROM weir_internal.decode_json(source('t timestamptz'), bytes(ARRAY(SELECT format('{"t":"%s"}', CASE WHEN i % 10 = 0 THEN 'x' ELSE '2024-01-01' END) FROM generate_series(1, 5000) i)), NULL, 't')), '4500 500', 'one in ten');
CREATE FUNCTION broken(int) RETURNS boolean STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN no_such_function($1); END $$;
SELECT throws_ok($$SELECT decoded('a int', ARRAY['{"a":1}'], 'broken(a)')$$, '42883', NULL, 'a definition error is thrown on');
CREATE FUNCTION starved(int) RETURNS boolean STABLE LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE '53200'; END $$;
SELECT throws_ok($$SELECT decoded('a int', ARRAY['{"a":1}'], 'starved(a)')$$, '53200', NULL, 'so is an outage');
CREATE FUNCTION raised(int) RETURNS boolean STABLE LANGUAGE plpgsql AS $$ BEGIN IF $1 = 2 THEN RAISE 'no twos'; END IF; RETURN true; END $$;
SELECT results_eq($$SELECT decoded('a int', ARRAY['{"a":1}', '{"a":2}', '{"a":3}'], 'raised(a)')$$, ARRAY['{1}', '!P0001', '{3}'], 'RAISE is a row''s error');

-- Segments.
CREATE DOMAIN amount AS numeric(8,2);
CREATE COLLATION decode_c FROM "C";
SELECT is(weir_internal.segment_columns(source('a int NOT NULL DEFAULT 3 CHECK (a > 0), "B c" varchar(10)[], d amount, e text COLLATE decode_c, f timestamptz(3)')),
    format('kafka_partition integer, kafka_offset bigint, kafka_timestamp timestamp with time zone, a integer, "B c" character varying(10)[], d %1$s.amount, e pg_catalog.text COLLATE %1$s.decode_c, f timestamp(3) with time zone, kafka_key bytea, kafka_headers weir.kafka_header[]', current_schema()), 'segment columns');
SELECT lives_ok(format('CREATE TEMP TABLE segment (%s)', weir_internal.segment_columns('src')), 'and they make a table');
ALTER FOREIGN TABLE src DROP COLUMN a;
SELECT results_eq($$SELECT staged[4:5]::text FROM weir_internal.decode_json('src', bytes(ARRAY['{"B c":["x"],"d":1}']), 'd > 0')$$, ARRAY['{"{x}",1.00}'], 'dropped columns are skipped');

SELECT * FROM finish();
ROLLBACK;
