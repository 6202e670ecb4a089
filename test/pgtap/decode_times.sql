-- Times: epochs in the coarsest unit that is not past the year 9999, in days
-- where the column says so; texts that say their zone, in columns that have
-- none.
\set QUIET on
SET client_min_messages = warning;
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS weir;
SELECT no_plan();
SET LOCAL TimeZone = 'UTC';
SET LOCAL DateStyle = 'ISO, MDY';
SELECT setseed(0.10011) \g /dev/null

CREATE FOREIGN DATA WRAPPER decode_test;
CREATE SERVER decode_test FOREIGN DATA WRAPPER decode_test;
CREATE DOMAIN day AS date CHECK (VALUE > '1900-01-01');
CREATE DOMAIN moment AS timestamp;
CREATE TYPE visit AS (at timestamp, day date, clock time, n int, "Odd ""name" text);
CREATE TYPE trip AS (first visit, visits visit[], "é" moment);

CREATE FUNCTION decoded(type text, jsons text[])
RETURNS TABLE (json text, answer text)
LANGUAGE plpgsql AS $$
BEGIN
    DROP FOREIGN TABLE IF EXISTS src;
    EXECUTE format('CREATE FOREIGN TABLE src (v %s, kafka_topic text,
        kafka_partition int, kafka_offset bigint, kafka_timestamp timestamptz,
        kafka_key bytea, kafka_headers weir.kafka_header[])
        SERVER decode_test', type);
    RETURN QUERY
    SELECT jsons[d.record], coalesce('!' || d.sqlstate, d.staged[4])
    FROM weir_internal.decode_json('src',
        (SELECT array_agg(convert_to('{"v":' || j || '}', 'UTF8') ORDER BY o)
         FROM unnest(jsons) WITH ORDINALITY u(j, o))) d;
END $$;
CREATE FUNCTION decodes(type text, pairs text[], name text) RETURNS text
LANGUAGE sql AS $$
    SELECT results_eq(
        format('SELECT answer FROM decoded(%L, %L)', type, (SELECT array_agg(pairs[i] ORDER BY i) FROM generate_series(1, cardinality(pairs), 2) i)),
        (SELECT array_agg(pairs[i] ORDER BY i) FROM generate_series(2, cardinality(pairs), 2) i),
        type || ': ' || name)
$$;

--
-- Epochs
--

SELECT decodes(t, ARRAY[
    '253402300799', '9999-12-31 23:59:59', '253402300799999', '9999-12-31 23:59:59.999', '253402300799999999', '9999-12-31 23:59:59.999999',
    '253402300799000000000', '9999-12-31 23:59:59', '"253402300799999"', '9999-12-31 23:59:59.999', '253402300799.5', '9999-12-31 23:59:59.5', '2.53402300799e11', '9999-12-31 23:59:59', '2.53402300799999e14', '9999-12-31 23:59:59.999',
    '253402300800', '1978-01-11 21:31:40.8', '253402300800000', '1978-01-11 21:31:40.8', '253402300800000000', '1978-01-11 21:31:40.8', '253402300800000000000', '!22008', '1e21', '!22008', '1e400', '!22008',
    '-210866803200', '4714-11-24 00:00:00 BC', '-210866803201', '1963-04-27 09:53:16.799', '-210866803200.5', '!22008', '-253402300800', '1961-12-21 02:28:19.2', '-253402300800000', '1961-12-21 02:28:19.2',
    '1784041200', '2026-07-14 15:00:00', '1784041200000', '2026-07-14 15:00:00', '1784041200000000', '2026-07-14 15:00:00', '1784041200000000000', '2026-07-14 15:00:00', '17840412e2', '2026-07-14 15:00:00', '17840412e5', '2026-07-14 15:00:00', '0', '1970-01-01 00:00:00'],
    'the coarsest unit that is not past the year 9999')
FROM unnest(ARRAY['timestamp', 'moment']) t;

-- in any unit, what is between 1978 and 9999 needs no option
SELECT is_empty(
    format($$SELECT * FROM decoded('timestamp', %L) WITH ORDINALITY d(json, answer, o)
        JOIN unnest(%L::timestamp[]) WITH ORDINALITY w(wanted, o) USING (o)
        WHERE wanted::text IS DISTINCT FROM answer$$,
        array_agg((extract(epoch FROM t) * unit)::numeric(40, 0)::text), array_agg(t)),
    'random times in the unit ' || unit)
FROM (SELECT date_trunc('second', timestamp '1978-01-12' + random() * (timestamp '9999-12-31' - timestamp '1978-01-12')) AS t FROM generate_series(1, 500)) x,
    unnest(ARRAY[1, 1e3, 1e6, 1e9]) unit
GROUP BY unit;

-- days
SELECT decodes('date OPTIONS (epoch ''d'')', ARRAY['0', '1970-01-01', '20454', '2026-01-01', '"20454"', '2026-01-01', '-1', '1969-12-31', '20454.99', '2026-01-01', '-0.5', '1969-12-31', '2.0454e4', '2026-01-01', '2932896', '9999-12-31', '-2440588', '4714-11-24 BC', '-2440589', '!22008',
    '2145042906', '!22008', '2145042905', '5874897-12-31', '1e30', '!22008', '"2026-01-01"', '2026-01-01', 'null', NULL], 'days');
SELECT decodes('timestamp OPTIONS (epoch ''d'')', ARRAY['20454', '2026-01-01 00:00:00', '20454.5', '2026-01-01 12:00:00', '-0.25', '1969-12-31 18:00:00', '1e-20', '1970-01-01 00:00:00', '20454.123456789012345678', '2026-01-01 02:57:46.666571', '106762939', '294276-12-31 00:00:00', '106762940', '!22008', '1e18', '!22008'], 'days');
SELECT decodes('timestamp OPTIONS (epoch ''s'')', ARRAY['9224318015999', '294276-12-31 23:59:59', '9224318016000', '!22008', '18446744073709551615', '!22008', '-210866803200', '4714-11-24 00:00:00 BC', '-210866803201', '!22008', '253402300800', '10000-01-01 00:00:00'], 'to both ends');
SELECT decodes('date OPTIONS (epoch ''ms'')', ARRAY['1767225599999', '2025-12-31', '1767225600000', '2026-01-01', '-1', '1969-12-31', '0', '1970-01-01', '1e30', '!22008'], 'milliseconds');
SELECT decodes('day OPTIONS (epoch ''d'')', ARRAY['20454', '2026-01-01', '-40000', '!23514'], 'days');
SELECT decodes('date[] OPTIONS (epoch ''d'')', ARRAY['[20454, null, "0"]', '{2026-01-01,NULL,1970-01-01}'], 'days');
SELECT decodes('date', ARRAY['20260101', '2026-01-01', '"20260101"', '2026-01-01', '20454', '!22007', '1767225600000', '!22008'], 'no epochs without the option');

--
-- Zones
--

SELECT decodes(t, ARRAY[
    '"2026-01-01T10:00:00+02:00"', '2026-01-01 08:00:00', '"2026-01-01T10:00:00Z"', '2026-01-01 10:00:00', '"2026-01-01t10:00:00z"', '2026-01-01 10:00:00', '"2026-01-01T10:00:00-08"', '2026-01-01 18:00:00', '"2026-01-01T10:00:00+15:30"', '2025-12-31 18:30:00', '"2026-01-01 10:00:00 +02"', '2026-01-01 08:00:00',
    '"2026-07-01 10:00:00 Europe/Berlin"', '2026-07-01 08:00:00', '"2026-07-01 10:00:00 EST"', '2026-07-01 15:00:00', '"2026-01-01T24:00:00+02"', '2026-01-01 22:00:00', '"2026-01-01T23:59:60Z"', '2026-01-02 00:00:00', '"2026-01-01T10:00:00.1234567+01"', '2026-01-01 09:00:00.123457',
    '"0044-03-15 12:00:00+02 BC"', '0044-03-15 10:00:00 BC', '"infinity"', 'infinity', '"-infinity"', '-infinity', '"12026-01-01T10:00:00+02"', '12026-01-01 08:00:00', '"20260101T100000+02"', '2026-01-01 08:00:00', '"Jan 2 2026 3:04 PM PST"', '2026-01-02 23:04:00',
    '"2026-01-01"', '2026-01-01 00:00:00', '"2026-01-01T10:00:00+16"', '!22009', '"2026-01-01T10:00:00 Mars/Phobos"', '!22023', '"4714-11-24 00:00:00+02 BC"', '!22008', '"294276-12-31 23:59:59-02"', '!22008'], 'a zone is looked at')
FROM unnest(ARRAY['timestamp', 'moment']) t;
SELECT decodes('timestamp(1)', ARRAY['"2026-01-01T10:00:00.96+02"', '2026-01-01 08:00:01', '"2026-01-01 10:00:00.96 Europe/Berlin"', '2026-01-01 09:00:01'], 'and the precision');
SELECT decodes('timestamp[]', ARRAY['["2026-01-01T10:00:00+02", "2026-07-01 10:00 Europe/Berlin"]', '{"2026-01-01 08:00:00","2026-07-01 08:00:00"}'], 'elements');
SELECT decodes('date', ARRAY[
    '"2026-01-01T01:00:00+02:00"', '2025-12-31', '"2026-01-01T00:00:00+02:00"', '2025-12-31', '"2026-01-01T23:00:00-02"', '2026-01-02', '"2026-01-01T23:00:00Z"', '2026-01-01', '"2026-01-01 23:00:00 America/New_York"', '2026-01-02', '"2026-01-01 01:00:00 Asia/Tokyo"', '2025-12-31', '"2026-01-01 00:00 Asia/Tokyo"', '2025-12-31',
    '"2026-01-01+02"', '2026-01-01', '"2026-01-01 Asia/Tokyo"', '2026-01-01', '"2026-01-01T01:00:00"', '2026-01-01', '"2026-01-01T24:00:00"', '2026-01-01', '"2026-01-01T24:00:00Z"', '2026-01-02', '"2026-01-01T23:59:60z"', '2026-01-02', '"2026-01-01T23:59:59.9999999Z"', '2026-01-02', '"2026-01-01T23:59:59.9999999"', '2026-01-01',
    '"0001-01-01T01:00:00+02"', '0001-12-31 BC', '"4714-11-24 00:00:00+02 BC"', '!22008', '"5874897-12-31 23:00:00-02"', '!22008', '"5874897-12-31 01:00:00+02"', '5874897-12-30', '"20260101T010000+02"', '2025-12-31', '"20260101T000000 Asia/Tokyo"', '2025-12-31', '"infinity"', 'infinity', '"epoch"', '1970-01-01'], 'the day at UTC, where there is a time');
SELECT decodes('time', ARRAY['"10:00:00+02"', '08:00:00', '"01:00+02"', '23:00:00', '"23:00-02"', '01:00:00', '"10:00Z"', '10:00:00', '"24:00:00"', '24:00:00', '"2026-07-01 10:00 Europe/Berlin"', '08:00:00', '"2026-01-01 10:00:00.1234567+02:00"', '08:00:00.123457', '"24:00:00Z"', '00:00:00', '"2026-01-01 24:00:00"', '24:00:00', '"10:00"', '10:00:00', '"x"', '!22007', '100000', '10:00:00', 'null', NULL], 'the time of day at UTC');
SELECT decodes('time(0)', ARRAY['"10:00:00.5+02"', '08:00:01'], 'and its precision');
SELECT decodes('timetz', ARRAY['"10:00:00+02"', '10:00:00+02'], 'keeps its zone');

-- inside of others
SELECT decodes('timestamp[]', ARRAY['[["2026-01-01T10:00:00+02"], [1767261600000]]', '{{"2026-01-01 08:00:00"},{"2026-01-01 10:00:00"}}', '"{2026-01-01T10:00:00+02, infinity, NULL}"', '{"2026-01-01 08:00:00",infinity,NULL}', '[[["2026-01-01T10:00:00+02"], [null]]]', '{{{"2026-01-01 08:00:00"},{NULL}}}', '[["2026-01-01"], []]', '!22P02', '[["2026-01-01"], "2026-01-01"]', '!22P02', '[["2026-01-01"], null]', '!22P02', '[[]]', '{}', '[[[[[[1]]]]]]', '{{{{{{"1970-01-01 00:00:01"}}}}}}', '[[[[[[[1]]]]]]]', '!54000', '[1, [2]]', '!22007'], 'arrays');
SELECT decodes('tsrange', ARRAY['"[2026-01-01T10:00:00+02, 2026-01-02T10:00:00Z)"', '["2026-01-01 08:00:00","2026-01-02 10:00:00")', '"empty"', 'empty', '"[2026-01-01,)"', '["2026-01-01 00:00:00",)', '"x"', '!22P02'], 'ranges');
SELECT decodes('tsmultirange', ARRAY['"{[2026-01-01T10:00:00+02, 2026-01-02T10:00:00Z)}"', '{["2026-01-01 08:00:00","2026-01-02 10:00:00")}'], 'multiranges');
SELECT decodes('visit', ARRAY['{"at":"2026-01-01T01:00:00+02","day":"2026-01-01T01:00:00+02","clock":"01:00+02","n":42.0,"Odd \"name":{"a" : 1}}', '("2025-12-31 23:00:00",2025-12-31,23:00:00,42,"{""a"" : 1}")', '{"at":1767261600000,"at":1767261600,"x":[{}],"n" : "7"  }', '("2026-01-01 10:00:00",,,7,)',
    '{"\u0061t":"2026-01-01"}', '("2026-01-01 00:00:00",,,,)', '{ }', '(,,,,)', '{"n":"x"}', '!22P02', '{"n":null,"\ud800":1}', '(,,,,)', '[]', '!22023', '1', '!22023', '"(2026-01-01,,,,)"', '("2026-01-01 00:00:00",,,,)', 'null', NULL], 'composites');
SELECT decodes('trip', ARRAY['{"first":{"n":1},"visits":[{"day":"2026-01-01T01:00:00+02"},null],"é":"2026-01-01T01:00:00+02"}', '("(,,,1,)","{""(,2025-12-31,,,)"",NULL}","2025-12-31 23:00:00")'], 'and all of it');
SELECT decodes('visit[]', ARRAY['[{"at":"2026-01-01T01:00:00+02"},{"n":1}]', '{"(\"2025-12-31 23:00:00\",,,,)","(,,,1,)"}', '[1]', '!22023', '[[{"n":1}],[{"n":2}]]', '{{"(,,,1,)"},{"(,,,2,)"}}'], 'composites in arrays');

-- in strings that stand for a whole one
CREATE DOMAIN early AS timestamp CHECK (VALUE < '2030-01-01');
CREATE DOMAIN odd AS json CHECK (VALUE ->> 'a' <> '2');
CREATE TYPE part AS (at early, gone int, j json, o odd, "day" date);
ALTER TYPE part DROP ATTRIBUTE gone;
CREATE TYPE plain AS (a int, b json);
SELECT decodes('date[]', ARRAY['"{2026-01-01T01:00:00+02,NULL,\"2026-01-01 23:00 -02\"}"', '{2025-12-31,NULL,2026-01-02}', '"[0:1]={2026-01-01,infinity}"', '[0:1]={2026-01-01,infinity}', '"{{2026-01-01},{2026-01-01T01:00:00+02}}"', '{{2026-01-01},{2025-12-31}}', '"{}"', '{}', '"{x}"', '!22007', '"{2026-01-01"', '!22P02'], 'a string');
SELECT decodes('date[] OPTIONS (epoch ''d'')', ARRAY['"{20454,2026-01-01}"', '{2026-01-01,2026-01-01}'], 'a string of days');
SELECT decodes('time[]', ARRAY['"{01:00+02,01:00}"', '{23:00:00,01:00:00}'], 'a string');
SELECT decodes('early[]', ARRAY['"{2026-01-01T01:00:00+02,NULL,1767225600}"', '{"2025-12-31 23:00:00",NULL,"2026-01-01 00:00:00"}', '"{2030-01-01T01:00:00+02}"', '{"2029-12-31 23:00:00"}', '"{2030-01-01T01:00:00}"', '!23514'], 'a string');
SELECT decodes('part', ARRAY['"(2026-01-01T01:00:00+02,\"{\"\"a\"\" : 1}\",\"{\"\"a\"\":1}\",2026-01-01T01:00:00+02)"', '("2025-12-31 23:00:00","{""a"" : 1}","{""a"":1}",2025-12-31)', '"(,,,)"', '(,,,)', '"(,,\"{\"\"a\"\":2}\",)"', '!23514', '"(,x,,)"', '!22P02', '"(,,)"', '!22P02', '"(2031-01-01,,,)"', '!23514'], 'a string');
SELECT decodes('part[]', ARRAY['"{\"(2026-01-01T01:00:00+02,,,)\",NULL}"', '{"(\"2025-12-31 23:00:00\",,,)",NULL}'], 'a string');
SELECT decodes('trip', ARRAY['"(\"(2026-01-01T01:00:00+02,,,,)\",\"{\"\"(,2026-01-01T01:00:00+02,,,)\"\"}\",2026-01-01T01:00:00+02)"', '("(""2025-12-31 23:00:00"",,,,)","{""(,2025-12-31,,,)""}","2025-12-31 23:00:00")'], 'a string');
CREATE TYPE span AS (r tsrange);
SELECT decodes('span', ARRAY['"(\"[2026-01-01T01:00:00+02,)\")"', '("[""2025-12-31 23:00:00"",)")'], 'a string');
SELECT decodes('tsrange[]', ARRAY['"{\"[2026-01-01T01:00:00+02,)\",NULL}"', '{"[\"2025-12-31 23:00:00\",)",NULL}'], 'a string');
SELECT decodes('plain', ARRAY['"(1,\"{\"\"a\"\" : 1}\")"', '(1,"{""a"" : 1}")'], 'a string without times');
SELECT decodes('timestamp(0)', ARRAY['"294276-12-31 23:59:59.4"', '294276-12-31 23:59:59', '"294276-12-31 23:59:59.9"', '!22008', '"294276-12-31 23:59:59.9Z"', '!22008', '"infinity"', 'infinity'], 'not rounded past the end');
SELECT decodes('timestamptz(0)', ARRAY['"294276-12-31 23:59:59.9Z"', '!22008'], 'not rounded past the end');

-- random texts against PostgreSQL's own reading
CREATE FUNCTION pick(VARIADIC choices text[]) RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT choices[1 + floor(random() * cardinality(choices))::int] $$;
CREATE FUNCTION below(n int) RETURNS int LANGUAGE sql VOLATILE AS
$$ SELECT floor(random() * n)::int $$;
CREATE FUNCTION two(n int) RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT lpad(below(n)::text, 2, '0') $$;
CREATE FUNCTION any_date() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT lpad(pick(below(10000)::text, (1960 + below(100))::text, (1960 + below(100))::text, below(300000)::text), 4, '0') || '-' || two(13) || '-' || two(32) $$;
CREATE FUNCTION any_clock() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT pick(two(25) || ':' || two(60), two(24) || ':' || two(61) || ':' || two(62), '23:59:59.' || repeat('9', below(12)), '24:00:00', '00:00:00', two(24) || ':' || two(60) || ':' || two(60) || '.' || (1 + below(999999999))) $$;
CREATE FUNCTION any_zone() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT pick('Z', 'z', ' UTC', ' zulu', '+' || two(17), '-' || two(17) || ':' || two(61), '+' || two(15) || two(60), ' +05:45:30', ' Europe/Berlin', ' america/new_york', ' Australia/Lord_Howe', ' CEST', ' pst', ' EST5EDT') $$;
CREATE FUNCTION reading(type text, t text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE answer text;
BEGIN
    EXECUTE format(CASE type
        WHEN 'timestamp' THEN 'SELECT (%L::timestamptz AT TIME ZONE ''UTC'')::text'
        WHEN 'timestamp(2)' THEN 'SELECT (%L::timestamptz(2) AT TIME ZONE ''UTC'')::text'
        WHEN 'timestamptz' THEN 'SELECT %L::timestamptz::text'
        WHEN 'date' THEN 'SELECT (%L::timestamptz AT TIME ZONE ''UTC'')::date::text'
        WHEN 'time' THEN 'SELECT (%L::timetz AT TIME ZONE ''UTC'')::time::text' END, t) INTO answer;
    RETURN answer;
EXCEPTION WHEN OTHERS THEN
    RETURN '!' || SQLSTATE;
END $$;
CREATE TEMP TABLE texts AS
SELECT any_date() || pick('T', 't', ' ', '  ') || any_clock() || any_zone() || pick('', '', '', '', ' BC') AS t FROM generate_series(1, 2500);
SELECT is_empty(format(
    'SELECT json, answer, reading(%1$L, json::jsonb #>> ''{}'') AS wanted
     FROM decoded(%1$L, (SELECT array_agg(to_jsonb(t)::text) FROM texts))
     WHERE answer IS DISTINCT FROM reading(%1$L, json::jsonb #>> ''{}'')
     AND NOT (%1$L = ''date'' AND reading(%1$L, json::jsonb #>> ''{}'') = ''!22008'')', type),
    type || ' of random texts with a zone')
FROM unnest(ARRAY['timestamp', 'timestamp(2)', 'timestamptz', 'date', 'time']) type;
SELECT cmp_ok((SELECT count(*) FROM texts WHERE reading('timestamp', t) !~ '!'), '>', 1000::bigint, 'most of them are times');

SELECT * FROM finish();
ROLLBACK;
