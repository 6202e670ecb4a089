-- Which window columns the output of a stream must have: one where it tells
-- the other, else both.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS weir;
RESET client_min_messages;

CREATE TABLE readings (at timestamptz, value int, kafka_topic text,
	kafka_partition int, kafka_offset bigint, kafka_timestamp timestamptz,
	kafka_key bytea, kafka_headers text[]);

-- "ok", or the error, detail and hint.
CREATE FUNCTION output_of(windows text, output text,
	keys text DEFAULT 'w.window_start, w.window_end') RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	PERFORM weir_internal.compile_query(format('SELECT %s, count(*) AS n
		FROM readings r CROSS JOIN weir.%s w GROUP BY %s', output, windows, keys),
		'readings', 'at');
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', sqlstate || ' ' || sqlerrm, nullif(detail, ''), nullif(hint, ''));
END $$;

-- Tumbling windows share out time, on any clock.
SELECT windows, output_of(windows, 'w.window_start'), output_of(windows, 'w.window_end'),
	output_of(windows, 'w.window_start', 'w.window_start'), output_of(windows, 'w.window_end', 'w.window_end')
FROM (VALUES ($$tumble(r.at, '1 hour')$$), ($$tumble(r.at, '1 day')$$),
	($$tumble(r.at, '15 minutes', timezone => 'Europe/Paris')$$),
	($$tumble(r.at, '1 day', timezone => 'America/New_York')$$),
	($$tumble(r.at, '7 days', timezone => 'Pacific/Apia')$$),
	($$tumble(r.at, '36:00', timezone => 'Australia/Lord_Howe')$$)) t (windows);

-- So do hopping windows of elapsed time, and where the clock never changes.
SELECT windows, output_of(windows, 'w.window_start'), output_of(windows, 'w.window_end'),
	output_of(windows, 'w.window_start', 'w.window_start'), output_of(windows, 'w.window_end', 'w.window_end')
FROM (VALUES ($$hop(r.at, '2 hours', '1 hour')$$), ($$hop(r.at, '7 days', '1 day')$$),
	($$hop(r.at, '2 hours', '1 hour', timezone => 'America/New_York')$$),
	($$hop(r.at, '24 hours', '1 hour', timezone => 'America/New_York')$$),
	($$hop(r.at, '1 day', '1 hour', timezone => 'Etc/GMT+5')$$)) t (windows);

-- Hopping windows on a clock that changes need both.
\t
\x
SELECT windows, output_of(windows, 'w.window_start') AS start, output_of(windows, 'w.window_end') AS end,
	output_of(windows, 'w.window_start', 'w.window_start') AS by_start, output_of(windows, 'w.window_end', 'w.window_end') AS by_end,
	output_of(windows, 'w.window_start AS s, w.window_end AS e') AS both
FROM (VALUES ($$hop(r.at, '1 day', '1 hour', timezone => 'America/New_York')$$),
	($$hop(r.at, '2 days', '1 day', timezone => 'Pacific/Apia')$$),
	($$hop(r.at, '36:00', '1 day', timezone => 'Europe/Berlin')$$)) t (windows);
\x
\t

-- A target must keep apart what the key does.
CREATE COLLATION no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE FUNCTION fits(key text, type text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	hint text;
BEGIN
	EXECUTE format('CREATE TABLE t (k %s PRIMARY KEY, n bigint)', type);
	PERFORM weir_internal.check_target(format('SELECT %s AS k, count(*) AS n
		FROM readings r %s GROUP BY 1', key,
		CASE WHEN key ^@ 'w.' THEN ', weir.tumble(r.at, ''1 hour'') w' ELSE '' END),
		'readings', 'at', 't');
	DROP TABLE t;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', sqlstate || ' ' || sqlerrm, nullif(hint, ''));
END $$;
SELECT key, type, fits(key, type)
FROM (VALUES ('w.window_start', 'timestamptz'), ('w.window_start', 'timestamptz(6)'),
	('w.window_start', 'text'), ('value', 'bigint'), ('value::bigint', 'int'), ('value', 'numeric'),
	('value::text', 'varchar(100)'), ('value::numeric(9,2)', 'numeric(9,2)'),
	('w.window_start', 'date'), ('w.window_start', 'timestamp'),
	('w.window_end', 'timestamptz(0)'), ('value::numeric', 'numeric(9,2)'),
	('value', 'real'), ('value::text', 'name'),
	('value::text', 'text COLLATE no_case'), ('value::text COLLATE no_case', 'text COLLATE no_case')) t (key, type);
DROP COLLATION no_case;

DROP FUNCTION fits;
DROP TABLE readings;
