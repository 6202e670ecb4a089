-- Every type: a JSON value decodes to what jsonb_populate_record() makes of
-- it, errors included; then the listed exceptions.
\set QUIET on
SET client_min_messages = warning;
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS weir;
SELECT no_plan();
SET LOCAL TimeZone = 'UTC';
SET LOCAL DateStyle = 'ISO, MDY';
SET LOCAL extra_float_digits = 1;

CREATE FOREIGN DATA WRAPPER decode_test;
CREATE SERVER decode_test FOREIGN DATA WRAPPER decode_test;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (x int, y text);
CREATE DOMAIN posint AS int CHECK (VALUE > 0);
CREATE DOMAIN strict_text AS text NOT NULL;
CREATE DOMAIN short_text AS varchar(3);
CREATE DOMAIN ints AS int[] CHECK (cardinality(VALUE) < 3);
CREATE DOMAIN good_pair AS pair CHECK ((VALUE).x > 0);

-- A foreign table of the columns given, with the Kafka columns after them.
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

-- What the decoder makes of values as column v: its text, or an SQLSTATE.
CREATE FUNCTION decoded(type text, jsons text[])
RETURNS TABLE (json text, answer text)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM source(format('v %s', type));
    RETURN QUERY
    SELECT jsons[d.record], coalesce('!' || d.sqlstate, d.staged[4])
    FROM weir_internal.decode_json('src',
        (SELECT array_agg(convert_to('{"v":' || j || '}', 'UTF8') ORDER BY o)
         FROM unnest(jsons) WITH ORDINALITY u(j, o))) d;
END $$;

-- A text that says its zone, moved to UTC; others as they are.
CREATE FUNCTION at_utc(type text, json text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    t text := json::jsonb #>> '{}';
    here timestamptz;
    there timestamptz;
BEGIN
    IF jsonb_typeof(json::jsonb) <> 'string' THEN
        RETURN json;
    END IF;
    IF type ^@ 'time' AND type !~ 'stamp' THEN
        RETURN CASE WHEN extract(timezone FROM t::timetz) = 0 THEN json ELSE to_jsonb((t::timetz AT TIME ZONE 'UTC')::text)::text END;
    END IF;
    IF t !~ ':|\d[Tt]\d' THEN
        RETURN json;
    END IF;
    here := t::timestamptz;
    PERFORM set_config('TimeZone', '<+01>-01', true);
    there := t::timestamptz;
    PERFORM set_config('TimeZone', 'UTC', true);
    RETURN CASE WHEN here = there AND isfinite(here) THEN to_jsonb((here AT TIME ZONE 'UTC')::text)::text ELSE json END;
EXCEPTION WHEN OTHERS THEN
    RETURN json;
END $$;

-- What jsonb_populate_record() makes of them; times without a zone are at UTC.
CREATE FUNCTION populated(type text, jsons text[])
RETURNS TABLE (json text, answer text)
LANGUAGE plpgsql AS $$
BEGIN
    DROP TYPE IF EXISTS populated_row;
    EXECUTE format('CREATE TYPE populated_row AS (v %s)', type);
    FOREACH json IN ARRAY jsons LOOP
        BEGIN
            EXECUTE 'SELECT CASE WHEN num_nonnulls((r).v) = 1 THEN format(''%s'', (r).v) END
                FROM jsonb_populate_record(NULL::populated_row, $1) r'
            INTO answer USING ('{"v":' || CASE WHEN type ~ '^(timestamp|date|time)(\(|$)' THEN at_utc(type, json) ELSE json END || '}')::jsonb;
        EXCEPTION WHEN OTHERS THEN
            answer := '!' || SQLSTATE;
        END;
        RETURN NEXT;
    END LOOP;
END $$;

CREATE FUNCTION same_as_populated(type text, jsons text[]) RETURNS text
LANGUAGE sql AS $$
    SELECT is_empty(format(
        'SELECT d.json, d.answer, p.answer AS wanted
         FROM decoded(%1$L, %2$L) WITH ORDINALITY d(json, answer, o)
              JOIN populated(%1$L, %2$L) WITH ORDINALITY p(json, answer, o) USING (o)
         WHERE d.answer IS DISTINCT FROM p.answer', type, jsons),
        format('%s, %s values', type, cardinality(jsons)));
$$;

CREATE TEMP TABLE numbers AS SELECT ARRAY[
    '0', '-0', '1', '-1', '42', '127', '128', '32767', '32768', '-32768', '-32769',
    '2147483647', '2147483648', '-2147483648', '-2147483649',
    '9223372036854775807', '9223372036854775808', '-9223372036854775808', '-9223372036854775809',
    '99999999999999999999999', '123456789012345678', '1234567890123456789',
    '1e2', '1E2', '1e+2', '4.2e1', '1e18', '1e19', '1e30', '1e38', '1e39', '1e308', '1e309', '1e400',
    '1e-3', '1e-45', '1e-46', '1e-300', '1e-323', '1e-324', '1e-400',
    '1.5', '-1.5', '0.1', '0.10', '-0.0', '0.0000001', '12.345', '12.344999', '-12.345', '999999.99', '999999.994',
    '999999.995', '-999999.995', '3.141592653589793238462643383279', '0.30000000000000004', '9007199254740993',
    '1.7976931348623157e308', '16777217', '16777216.5', '3.4028235e38', '3.5e38', '1.17549435e-38', '0.000001234',
    '123456789012345678901234567890.123456789', '5e-1', '50e-1', '100000000000000000000e-20', '8.5', '0.5', '2.5e0'] AS v;
CREATE TEMP TABLE strings AS SELECT ARRAY[
    '""', '"a"', '" "', '"abc"', '"abcd  "', '"abc d"', '"äöü"', '"äöüß"', '"漢字かな"', '"\u00e4b"', '"\ud83d\ude00"', '"a\nb\t\"\\\/\b\f\r"',
    '"42"', '" 42 "', '"+42"', '"-42"', '"042"', '"- 42"', '"4 2"', '"42x"', '"32768"', '"2147483648"', '"9223372036854775808"', '"1.5"', '"1."', '".5"', '"1e2"', '"-0"', '"-0.0"',
    '"NaN"', '"nan"', '"Infinity"', '"-infinity"', '"inf"', '"1e400"', '"1e-400"', '" 1.5 "', '"1.5.5"', '"--1"', '"+"', '"e5"', '"1e"', '"1_000"',
    '"t"', '"true"', '"TRUE"', '" yes "', '"on"', '"of"', '"o"', '"0"', '"1"', '"off"', '"maybe"', '"tru"',
    '"{1,2}"', '"{}"', '"{1,NULL}"', '"{a,b"', '"(1,x)"', '"(1,2,3)"', '"null"', '"happy"', '"Happy"', '"\\x6162"', '"[1,3)"', '"1 day"', '"10.0.0.0/8"',
    '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"', '"{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"', '"A0EEBC999C0B4EF8BB6D6BB9BD380A11"',
    '"a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11"', '"a0eebc99-9c0b4ef8-bb6d-6bb9bd380a1"', '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 "', '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1g"', '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-"', '"{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"', '"a0eebc999-c0b-4ef8-bb6d-6bb9bd380a11"'] AS v;
CREATE TEMP TABLE times AS SELECT ARRAY[
    '"2024-01-01"', '"2024-02-29"', '"2023-02-29"', '"2024-13-01"', '"2024-00-01"', '"2024-01-32"', '"0001-01-01"', '"0000-01-01"', '"9999-12-31"', '"10000-01-01"',
    '"2024-01-01T10:00:00"', '"2024-01-01 10:00:00"', '"2024-01-01T10:00"', '"2024-01-01T10:00Z"', '"2024-01-01T10:00:00Z"', '"2024-01-01t10:00:00z"', '"2024-01-01T10:00:00.5Z"',
    '"2024-01-01T10:00:00.123456Z"', '"2024-01-01T10:00:00.1234564Z"', '"2024-01-01T10:00:00.1234565Z"', '"2024-01-01T10:00:00.1234575Z"', '"2024-01-01T10:00:00.123456789Z"', '"2024-01-01T10:00:00.9999995Z"', '"2024-01-01T23:59:59.9999999"',
    '"2024-01-01T10:00:00.12345678901234567890Z"', '"2024-01-01T10:00:00.Z"', '"2024-01-01T10:00:00,5Z"',
    '"2024-01-01T10:00:00+02"', '"2024-01-01T10:00:00+0230"', '"2024-01-01T10:00:00+02:30"', '"2024-01-01T10:00:00-11:30"', '"2024-01-01T10:00:00+15:00"', '"2024-01-01T10:00:00+16:00"', '"2024-01-01T10:00:00+02:60"', '"2024-01-01T10:00:00+2"',
    '"2024-01-01 10:00:00 +02"', '"2024-01-01T10:00:00 Z"', '"2024-01-01T10:00:00 UTC"', '"2024-01-01 10:00:00 America/New_York"', '"2024-06-01 10:00:00 Europe/Berlin"', '"2024-01-01 10:00:00 EST"', '"2024-01-01 10:00:00+01:30:15"',
    '"2024-01-01T24:00:00"', '"2024-01-01T24:00:01"', '"2024-01-01T23:59:60"', '"2024-01-01T23:60:00"', '"2024-01-01T25:00:00"', '"2024-01-01T1:00:00"', '"2024-1-1 1:2:3"', '"2024-01-01T100000"', '"20240101T100000Z"', '"2024-01-01T10"', '"2024-01-01T"', '"2024-01-01 "', '" 2024-01-01"',
    '"01/02/2024"', '"Jan 2 2024 3:04 PM"', '"2024-001"', '"4713-01-01 BC"', '"4714-11-24 BC"', '"4715-01-01 BC"', '"294276-12-31 23:59:59"', '"294277-01-01"', '"5874897-12-31"', '"5874898-01-01"', '"infinity"', '"-infinity"', '"epoch"', '"x"', '""', '"2024-01-01x"', '"2024-01-01T10:00:00Zx"'] AS v;
CREATE TEMP TABLE others AS SELECT ARRAY['null', 'true', 'false', '{}', '[]', '{"x": 1, "y": "a"}', '{"x":"7","z":3}', '{"x":"q"}', '{"x":0}',
    '[1,2]', '[1, null, "3"]', '["a","b"]', '[[1,2],[3,4]]', '[[1,2],[3]]', '[[1],2]', '[1,[2]]', '[[]]', '[[[1]]]', '[{"x":1,"y":null}]', '[{"x":1},{"x":2,"y":"b"}]', '[1,2,3,4]', '["x"]', '[true]', '[null]', '[[null]]', '[{}]', '[1.5]', '["happy","sad"]'] AS v;

-- all but what has rules of its own
SELECT same_as_populated(t, n.v || s.v || c.v || o.v)
FROM numbers n, strings s, times c, others o,
     unnest(ARRAY['numeric', 'numeric(8,2)', 'numeric(3)', 'numeric(2,-2)', 'numeric(30,10)', 'float4', 'float8', 'boolean', 'date', 'uuid', 'jsonb', 'mood', 'bytea', 'interval', 'interval(0)', 'time', 'timetz', 'inet', 'int4range', 'int4multirange', 'money', 'bit(3)', 'varbit',
        'oid', 'regclass', 'xid8', 'point', 'pair', 'pair[]', 'good_pair', 'good_pair[]', 'mood[]', 'float8[]', 'numeric(8,2)[]', 'boolean[]', 'date[]', 'uuid[]', 'jsonb[]', 'tsvector', 'pg_lsn', 'macaddr', 'jsonpath', '"char"', 'name']) t;

-- integers: numbers with a zero fraction are judged below
SELECT same_as_populated(t, array(SELECT j FROM unnest(n.v) j WHERE j NOT IN ('-0.0', '50e-1', '100000000000000000000e-20')) || s.v || c.v || o.v)
FROM numbers n, strings s, times c, others o,
     unnest(ARRAY['int2', 'int4', 'int8', 'posint', 'int4[]', 'ints', 'int8[]', 'posint[]']) t;

-- text: objects and arrays are judged below
SELECT same_as_populated(t, n.v || s.v || c.v || ARRAY['null', 'true', 'false'])
FROM numbers n, strings s, times c,
     unnest(ARRAY['text', 'varchar', 'varchar(3)', 'char(3)', 'char', 'short_text', 'strict_text', 'json']) t;
SELECT same_as_populated(t, ARRAY['["a","b",null,"\u00e4\n",1,1.50,1e2,true,-0.0]', '[]', '[["a"],["b"]]', '["x",["y"]]', '"{a,b}"', '1', '{}', 'null', '["abcd"]', '["ab  "]'])
FROM unnest(ARRAY['text[]', 'varchar(3)[]', 'char(3)[]', 'short_text[]', 'strict_text[]', 'json[]']) t;

-- times: numbers and numeric strings are judged below
SELECT same_as_populated(t, c.v || o.v)
FROM times c, others o,
     unnest(ARRAY['timestamp', 'timestamptz', 'timestamp(3)', 'timestamptz(0)', 'timestamp(6)']) t;
SELECT same_as_populated(t, ARRAY['["2024-01-01T10:00:00Z",null,"infinity"]', '[["2024-01-01"]]', '"{2024-01-01}"', '["x"]', '[]'])
FROM unnest(ARRAY['timestamp[]', 'timestamptz[]', 'timestamptz(0)[]']) t;

-- Exceptions.

-- an integral number is an integer
SELECT results_eq(
    $$SELECT answer FROM decoded('int', ARRAY['42.0', '-42.00', '-0.0', '4.20e1', '42.50e1', '0.0', '1e9', '1e10', '42.01', '0.5', '"42.0"', '2147483647.0', '2147483648.0'])$$,
    ARRAY['42', '-42', '0', '42', '425', '0', '1000000000', '!22003', '!22P02', '!22P02', '!22P02', '2147483647', '!22003'],
    'int of numbers with a zero fraction');
SELECT results_eq(
    $$SELECT answer FROM decoded('bigint', ARRAY['9223372036854775807.0', '-9223372036854775808.00', '9223372036854775808.0', '1.0000000000000000000000000', '1.00000000000000000000000001', '123e17', '12300000000000000000e-17', '[1]'])$$,
    ARRAY['9223372036854775807', '-9223372036854775808', '!22003', '1', '!22P02', '!22003', '123', '!22P02'],
    'bigint of numbers with a zero fraction');
SELECT results_eq($$SELECT answer FROM decoded('int[]', ARRAY['[42.0, "7"]'])$$, ARRAY['{42,7}'], 'elements too');
SELECT results_eq($$SELECT answer FROM decoded('posint', ARRAY['42.0', '-1.0'])$$, ARRAY['42', '!23514'], 'domains too');

-- objects and arrays keep the message's own text
SELECT results_eq(
    format($$SELECT answer FROM decoded(%L, ARRAY['{"b" : 1e2,"a":[ 1,2 ],"b":"\u00e4"}', '[ 1, {} ]', '{}', '[]'])$$, t),
    ARRAY['{"b" : 1e2,"a":[ 1,2 ],"b":"\u00e4"}', '[ 1, {} ]', '{}', '[]'], format('%s keeps the text', t))
FROM unnest(ARRAY['text', 'varchar', 'json', 'varchar(40)', 'strict_text']) t;
SELECT results_eq($$SELECT answer FROM decoded('varchar(3)', ARRAY['{"a":1}', '[]'])$$, ARRAY['!22001', '[]'], 'varchar(3) still has its length');
SELECT results_eq($$SELECT answer FROM decoded('text[]', ARRAY['["a", {"b" : 1}, [ 2 ]]'])$$, ARRAY[ARRAY['a', '{"b" : 1}', '[ 2 ]']::text], 'elements keep theirs');

-- epochs
SELECT results_eq(
    $$SELECT answer FROM decoded('timestamptz', ARRAY['0', '-0.0', '1', '1.5', '"1.5"', '-1', '1700000000', '"1700000000"', '1700000000.123456', '1700000000.1234565', '1700000000.9999999', '17e8', '1700000000123', '"1700000000123"', '1700000000123.4567', '1700000000123456', '1700000000123456789', '1700000000123456500', '-1700000000123',
        '99999999999', '100000000000', '99999999999999', '100000000000000', '99999999999999999', '100000000000000000', '99999999999.9', '1e30', '1e400', '-1e18', '"+5"', '"20200101"', '"1e3"', '9999999999999999999'])$$,
    ARRAY['1970-01-01 00:00:00+00', '1970-01-01 00:00:00+00', '1970-01-01 00:00:01+00', '1970-01-01 00:00:01.5+00', '1970-01-01 00:00:01.5+00', '1969-12-31 23:59:59+00', '2023-11-14 22:13:20+00', '2023-11-14 22:13:20+00', '2023-11-14 22:13:20.123456+00', '2023-11-14 22:13:20.123457+00', '2023-11-14 22:13:21+00', '2023-11-14 22:13:20+00',
        '2023-11-14 22:13:20.123+00', '2023-11-14 22:13:20.123+00', '2023-11-14 22:13:20.123457+00', '2023-11-14 22:13:20.123456+00', '2023-11-14 22:13:20.123457+00', '2023-11-14 22:13:20.123457+00', '1916-02-18 01:46:39.877+00',
        '5138-11-16 09:46:39+00', '5138-11-16 09:46:40+00', '5138-11-16 09:46:39.999+00', '5138-11-16 09:46:40+00', '5138-11-16 09:46:39.999999+00', '5138-11-16 09:46:40+00', '5138-11-16 09:46:39.9+00', '!22008', '!22008', '1938-04-24 22:13:20+00', '1970-01-01 00:00:05+00', '1970-08-22 19:08:21+00', '1970-01-01 00:16:40+00', '2286-11-20 17:46:40+00'],
    'epochs by magnitude');
SELECT results_eq($$SELECT answer FROM decoded('timestamp(0)', ARRAY['1700000000.5', '-1700000000.5'])$$, ARRAY['2023-11-14 22:13:21', '1916-02-18 01:46:39'], 'precision applies to epochs');
SELECT results_eq($$SELECT answer FROM decoded('timestamptz[]', ARRAY['[0, "1700000000123", null]'])$$, ARRAY['{"1970-01-01 00:00:00+00","2023-11-14 22:13:20.123+00",NULL}'], 'elements too');
SELECT results_eq(
    format($$SELECT answer FROM decoded(%L, ARRAY['1700000000', '"1500"', '0.5', '"2024-01-01"'])$$,
        format('timestamptz OPTIONS (epoch %L)', unit)),
    wanted, 'epoch ' || unit)
FROM (VALUES ('s', ARRAY['2023-11-14 22:13:20+00', '1970-01-01 00:25:00+00', '1970-01-01 00:00:00.5+00', '2024-01-01 00:00:00+00']),
    ('ms', ARRAY['1970-01-20 16:13:20+00', '1970-01-01 00:00:01.5+00', '1970-01-01 00:00:00.0005+00', '2024-01-01 00:00:00+00']),
    ('us', ARRAY['1970-01-01 00:28:20+00', '1970-01-01 00:00:00.0015+00', '1970-01-01 00:00:00.000001+00', '2024-01-01 00:00:00+00']),
    ('ns', ARRAY['1970-01-01 00:00:01.7+00', '1970-01-01 00:00:00.000002+00', '1970-01-01 00:00:00+00', '2024-01-01 00:00:00+00'])) u(unit, wanted);
SELECT throws_ok($$SELECT decoded('timestamptz OPTIONS (epoch ''min'')', ARRAY['1'])$$, '22023', 'invalid epoch unit "min"');

-- the session's settings are not the input's
SET LOCAL TimeZone = 'America/New_York';
SET LOCAL DateStyle = 'ISO, DMY';
SELECT results_eq(
    $$SELECT answer::timestamptz FROM decoded('timestamptz', ARRAY['"2024-01-01T10:00:00"', '"01/02/2024 10:00"', '"2024-01-01 10:00:00.0 "', '1700000000'])$$,
    ARRAY['2024-01-01 10:00:00+00', '2024-01-02 10:00:00+00', '2024-01-01 10:00:00+00', '2023-11-14 22:13:20+00']::timestamptz[],
    'times are read under UTC and ISO, MDY');
SELECT results_eq($$SELECT answer FROM decoded('date', ARRAY['"01/02/2024"'])$$, ARRAY['2024-01-02'], 'dates too');
SELECT is(current_setting('DateStyle') || current_setting('TimeZone') || '2024-01-01 00:00+00'::timestamptz::text || '03/04/2024'::date::text,
    'ISO, DMYAmerica/New_York2023-12-31 19:00:00-052024-04-03', 'and the settings are as before');
SET LOCAL TimeZone = 'UTC';
SET LOCAL DateStyle = 'ISO, MDY';

-- NUL and lone surrogates
SELECT results_eq(
    format($$SELECT answer FROM decoded(%L, ARRAY['"a\u0000b"', '"\ud800"', '"\udc00x"', '"\ud800\ud800"', '"\ud800\u0041"', '"\ud83d\ude00"'])$$, t),
    ARRAY['!22P05', '!22P02', '!22P02', '!22P02', '!22P02', CASE t WHEN 'text' THEN '😀' ELSE '"😀"' END], format('escapes that are no text, %s', t))
FROM unnest(ARRAY['text', 'jsonb', 'json']) t;

-- a missing value for a domain is judged as NULL
SELECT is((SELECT array_agg(coalesce(sqlstate, 'ok')) FROM weir_internal.decode_json(source('v strict_text'), ARRAY['{}', '{"v":null}', '{"v":"x"}']::bytea[])),
    ARRAY['23502', '23502', 'ok'], 'NOT NULL of a domain');

SELECT * FROM finish();
ROLLBACK;
