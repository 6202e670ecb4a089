-- Random documents, seeded: what the decoder makes of them equals what
-- jsonb_populate_record() makes of them, and broken ones are refused exactly
-- when the jsonb type refuses them.
\set QUIET on
SET client_min_messages = warning;
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS weir;
SELECT no_plan();
SET LOCAL TimeZone = 'UTC';
SET LOCAL DateStyle = 'ISO, MDY';
SELECT setseed(0.4711) \g /dev/null

CREATE FOREIGN DATA WRAPPER decode_test;
CREATE SERVER decode_test FOREIGN DATA WRAPPER decode_test;
CREATE DOMAIN small AS int CHECK (VALUE < 1000);
CREATE TYPE pair AS (x int, y text);
CREATE TYPE abc AS (a jsonb, b jsonb[], c float8);
CREATE TYPE nest AS (a abc, b abc[], c boolean);

CREATE FUNCTION pick(VARIADIC choices text[]) RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT choices[1 + floor(random() * cardinality(choices))::int] $$;
CREATE FUNCTION below(n int) RETURNS int LANGUAGE sql VOLATILE AS
$$ SELECT floor(random() * n)::int $$;
CREATE FUNCTION digits(n int) RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT coalesce(string_agg(below(10)::text, ''), '') FROM generate_series(1, n) $$;

-- A number, of integral value or not.
CREATE FUNCTION any_number(integral boolean) RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT pick('', '', '-') || pick('0', (1 + below(9)) || digits(below(6)), (1 + below(9)) || digits(below(21)))
        || CASE WHEN integral THEN '' ELSE pick('', '.' || digits(1 + below(4)), '.' || digits(1 + below(22))) END
        || CASE WHEN integral THEN '' ELSE pick('', '', '', 'e' || below(5), 'E-' || below(40), 'e+' || below(40), 'e' || below(330), 'e-' || below(340)) END $$;
CREATE FUNCTION any_string() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT '"' || coalesce(string_agg(pick('a', 'Z', '0', ' ', '  ', 'é', '漢', '😀', '\n', '\"', '\\', '\/', '\u00e9', '\ud83d\ude00', '{', ']', ',', ':', '''', repeat('x', below(70))), ''), '') || '"'
    FROM generate_series(1, below(7)) $$;
CREATE FUNCTION any_time() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT format('"%s-%s-%s%s%s%s"', lpad(pick((1900 + below(200))::text, below(10000)::text), 4, '0'), lpad(below(14)::text, 2, '0'), lpad(below(33)::text, 2, '0'),
        pick('', 'T', ' ', 'T', 'T'), t, pick('', 'Z', 'Z', '+02', '-0330', '+05:45', '+15:59', ' UTC', 'z', ' EST'))
    FROM (SELECT format('%s:%s%s', lpad(below(25)::text, 2, '0'), lpad(below(61)::text, 2, '0'), pick('', ':' || lpad(below(61)::text, 2, '0'), ':' || lpad(below(60)::text, 2, '0') || '.' || digits(1 + below(9)), ':' || lpad(below(60)::text, 2, '0') || '.' || digits(1 + below(16)))) AS t) x $$;
CREATE FUNCTION any_json(depth int) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE r float8 := random();
    w text := pick('', '', '', ' ', E'\n\t');
BEGIN
    IF depth > 0 AND r < 0.3 THEN
        RETURN '{' || w || coalesce((SELECT string_agg(pick('"a"', '"b"', '"c"', '"\u0061"', any_string()) || w || ':' || any_json(depth - 1), ',' || w) FROM generate_series(1, below(5))), '') || w || '}';
    ELSIF depth > 0 AND r < 0.5 THEN
        RETURN '[' || w || coalesce((SELECT string_agg(any_json(depth - 1), w || ',') FROM generate_series(1, below(5))), '') || w || ']';
    END IF;
    RETURN w || pick(any_number(true), any_number(false), any_string(), any_time(), 'true', 'false', 'null') || w;
END $$;
-- The same with bytes changed, taken out, put in or cut off.
CREATE FUNCTION damaged(document text) RETURNS bytea LANGUAGE plpgsql VOLATILE AS $$
DECLARE b bytea := convert_to(document, 'UTF8');
    at int;
BEGIN
    FOR i IN 1..1 + below(3) LOOP
        EXIT WHEN length(b) = 0;
        at := 1 + below(length(b));
        b := CASE below(5)
            WHEN 0 THEN overlay(b PLACING '' FROM at FOR 1)
            WHEN 1 THEN overlay(b PLACING convert_to(pick('{', '}', '[', ']', '"', ',', ':', '\', '0', 'e', '.', '-', 't', ' ', E'\n', E'\x01'), 'UTF8') FROM at FOR below(2))
            WHEN 2 THEN substr(b, 1, at)
            WHEN 3 THEN set_byte(b, at - 1, get_byte(b, at - 1) # (1 << below(8)))
            ELSE b || substr(b, at) END;
    END LOOP;
    RETURN b;
END $$;

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

-- Values of random documents, a column a type; times without a zone are at UTC.
CREATE FUNCTION populated(type text, jsons text[]) RETURNS TABLE (json text, answer text)
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
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM source('v ' || type);
    RETURN is_empty(format(
        'SELECT p.json, coalesce(''!'' || d.sqlstate, d.staged[4]) AS have, p.answer AS want
         FROM weir_internal.decode_json(''src'', (SELECT array_agg(convert_to(''{"v":'' || j || ''}'', ''UTF8'') ORDER BY o) FROM unnest(%2$L::text[]) WITH ORDINALITY u(j, o))) d
              JOIN populated(%1$L, %2$L) WITH ORDINALITY p(json, answer, o) ON p.o = d.record
         WHERE coalesce(''!'' || d.sqlstate, d.staged[4]) IS DISTINCT FROM p.answer', type, jsons),
        format('%s, %s random values', type, cardinality(jsons)));
END $$;

SELECT same_as_populated(t, ARRAY(SELECT any_number(false) FROM generate_series(1, 600)) || ARRAY(SELECT '"' || any_number(false) || '"' FROM generate_series(1, 200)) || ARRAY(SELECT any_json(2) FROM generate_series(1, 100)))
FROM unnest(ARRAY['float4', 'float8', 'numeric', 'numeric(8,2)', 'numeric(20,5)', 'boolean']) t;
SELECT same_as_populated(t, ARRAY(SELECT any_number(true) FROM generate_series(1, 300)) || ARRAY(SELECT pick('"', '" ', '"+') || any_number(pick('t', 'f')::boolean) || pick('"', ' "') FROM generate_series(1, 300)))
FROM unnest(ARRAY['int2', 'int4', 'int8', 'small', 'text', 'varchar(5)', 'char(7)', 'json']) t;
SELECT same_as_populated(t, ARRAY(SELECT any_string() FROM generate_series(1, 500)))
FROM unnest(ARRAY['text', 'varchar(5)', 'char(7)', 'json', 'jsonb', 'bytea', 'name']) t;
SELECT same_as_populated(t, ARRAY(SELECT any_time() FROM generate_series(1, 1500)))
FROM unnest(ARRAY['timestamp', 'timestamptz', 'timestamptz(3)', 'date', 'time']) t;
SELECT same_as_populated(t, ARRAY(SELECT any_json(3) FROM generate_series(1, 500)))
FROM unnest(ARRAY['jsonb', 'pair', 'pair[]', 'boolean[]', 'jsonb[]', 'date[]', 'float8[]', 'numeric[]']) t;
SELECT same_as_populated(t, ARRAY(SELECT any_json(4) FROM generate_series(1, 1000)))
FROM unnest(ARRAY['abc', 'abc[]', 'nest']) t;

-- Documents: accepted or refused as the jsonb type does, but for what only
-- matters in a declared column; and the fields are found.
CREATE TEMP TABLE documents AS
    SELECT i AS n, CASE WHEN i % 3 = 0 THEN convert_to(d, 'UTF8') ELSE damaged(d) END AS document
    FROM (SELECT i, any_json(4) AS d FROM generate_series(1, 6000) i) x;
ALTER TABLE documents ADD valid boolean, ADD j jsonb;
DO $$
DECLARE d record;
    state text;
    parsed jsonb;
BEGIN
    FOR d IN SELECT * FROM documents LOOP
        parsed := NULL;
        BEGIN
            parsed := convert_from(d.document, 'UTF8')::jsonb;
            state := '';
        EXCEPTION WHEN OTHERS THEN
            state := SQLSTATE || SQLERRM;
        END;
        -- numbers beyond numeric, surrogates and \u0000 are JSON
        IF state <> '' THEN
            BEGIN
                PERFORM convert_from(d.document, 'UTF8')::json;
                state := '';
            EXCEPTION WHEN OTHERS THEN
                NULL;
            END;
        END IF;
        UPDATE documents SET valid = state = '', j = parsed WHERE n = d.n;
    END LOOP;
END $$;
SELECT cmp_ok((SELECT count(*) FROM documents WHERE valid), '>', 2000::bigint, 'enough are valid');
SELECT cmp_ok((SELECT count(*) FROM documents WHERE NOT valid), '>', 1000::bigint, 'enough are not');
SELECT is_empty($$
    SELECT convert_from(document, 'SQL_ASCII'), valid, d.sqlstate, d.message
    FROM documents JOIN weir_internal.decode_json(source('zz int'), (SELECT array_agg(document ORDER BY n) FROM documents)) d ON d.record = n
    WHERE CASE WHEN NOT valid THEN 'dead' WHEN json_typeof(convert_from(document, 'UTF8')::json) = 'object' THEN 'staged' ELSE 'dead' END <> d.result
        OR (valid AND d.result = 'dead') <> (d.sqlstate IS NOT DISTINCT FROM '22023')$$, 'refused just when they are no objects');
SELECT is_empty($$
    SELECT j, d.staged, d.message
    FROM (SELECT row_number() OVER (ORDER BY n) AS n, document, j FROM documents WHERE j IS NOT NULL) x
    JOIN weir_internal.decode_json(source('a jsonb, ab jsonb OPTIONS (path ''$.a.b''), a0 jsonb OPTIONS (path ''$.a[0]''), e1a jsonb OPTIONS (path ''$[1].a''), bcc jsonb OPTIONS (path ''$.b.c.c''), d jsonb OPTIONS (path ''$'')'),
        (SELECT array_agg(document ORDER BY n) FROM documents WHERE j IS NOT NULL)) d ON d.record = x.n
    WHERE result <> 'staged' OR ROW(staged[4]::jsonb, staged[5]::jsonb, staged[6]::jsonb, staged[7]::jsonb, staged[8]::jsonb, staged[9]::jsonb)
    IS DISTINCT FROM ROW(jsonb_path_query_first(j, 'strict $ ? (@.type() == "object").a ? (@ != null)', '{}', true),
        jsonb_path_query_first(j, 'strict $ ? (@.type() == "object").a ? (@.type() == "object").b ? (@ != null)', '{}', true),
        jsonb_path_query_first(j, 'strict $ ? (@.type() == "object").a ? (@.type() == "array")[0] ? (@ != null)', '{}', true),
        jsonb_path_query_first(j, 'strict $ ? (@.type() == "array")[1] ? (@.type() == "object").a ? (@ != null)', '{}', true),
        jsonb_path_query_first(j, 'strict $ ? (@.type() == "object").b ? (@.type() == "object").c ? (@.type() == "object").c ? (@ != null)', '{}', true),
        nullif(j, 'null'))$$, 'fields are found where the jsonb type finds them');

SELECT * FROM finish();
ROLLBACK;
