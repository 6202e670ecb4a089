-- Whatever the analysis of a query accepts runs, and gives what the query
-- gives: each kind of expression, of entry in FROM and of sub-select, in
-- every place it may stand.
BEGIN;
CREATE EXTENSION IF NOT EXISTS weir;
CREATE EXTENSION IF NOT EXISTS pgtap;
\ir include/stream_sim.psql
SELECT no_plan();
SET LOCAL TimeZone = 'UTC';
SELECT setseed(0.3);
SELECT fill(60, '2024-03-30 12:00Z', '2 hours');

CREATE DOMAIN small AS int CHECK (VALUE < 1000);
CREATE TYPE pair AS (a int, b text);
CREATE TYPE triple AS (a int, b text, c int);
CREATE FUNCTION make_pair(int) RETURNS pair IMMUTABLE LANGUAGE sql AS
	$$ SELECT ROW($1, 'p' || $1)::sim.pair $$;
CREATE FUNCTION named(a int, b int DEFAULT 7) RETURNS int IMMUTABLE LANGUAGE sql AS
	'SELECT a * 10 + b';
CREATE FUNCTION summed(VARIADIC int[]) RETURNS bigint IMMUTABLE LANGUAGE sql AS
	'SELECT sum(v) FROM unnest($1) v';
CREATE TABLE parted (id int, name text) PARTITION BY LIST (id);
CREATE TABLE parted_1 PARTITION OF parted DEFAULT;
INSERT INTO parted SELECT * FROM zones;
CREATE VIEW zone_view AS SELECT id, name FROM zones WHERE id > 1;
CREATE MATERIALIZED VIEW zone_matview AS TABLE zones;
CREATE FOREIGN DATA WRAPPER nothing;
CREATE TABLE tree (id int, parent int);
INSERT INTO tree SELECT i, i / 2 FROM generate_series(1, 10) i;

-- Each expression stands in the output of a row stream, in its WHERE, as a
-- group key, as an argument and in FILTER of an aggregate, and over keys in
-- the output of an aggregate and in HAVING.
CREATE FUNCTION everywhere(what text, e text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY SELECT stream_equals(format('SELECT r.ride_id, %s AS e FROM rides r LEFT JOIN zones z ON z.id = r.zone_id', e),
		what || ' in the output');
	RETURN QUERY SELECT stream_equals(format('SELECT r.ride_id FROM rides r LEFT JOIN zones z ON z.id = r.zone_id WHERE (%s)::text > ''2''', e),
		what || ' in WHERE');
	RETURN QUERY SELECT stream_equals(format('SELECT (%s)::text AS k, count(*) AS n FROM rides r LEFT JOIN zones z ON z.id = r.zone_id GROUP BY 1', e),
		what || ' as a group key');
	RETURN QUERY SELECT stream_equals(format('SELECT r.zone_id, count(%s) AS n, max((%1$s)::text) AS m, count(*) FILTER (WHERE (%1$s)::text > ''2'') AS f
		FROM rides r LEFT JOIN zones z ON z.id = r.zone_id GROUP BY r.zone_id', e),
		what || ' in an aggregate');
	-- a row depends on all columns of its table
	RETURN QUERY SELECT stream_equals(format('SELECT r.zone_id, r.small, r.tags, z.name, z.id, (%s)::text AS e, count(*) AS n
		FROM rides r LEFT JOIN zones z ON z.id = r.zone_id
		GROUP BY r.zone_id, r.small, r.tags, z.name, z.id HAVING count(*) > 0 OR (%1$s) IS NULL', e),
		what || ' over group keys')
	WHERE e !~ '[(]z[)]';
END $$;

SELECT everywhere(what, e) FROM (VALUES
	('a constant', $$ 'x'::text $$),
	('an operator', 'r.zone_id + r.small'),
	('a prefix operator', '- r.zone_id'),
	('a function', 'abs(r.small)'),
	('a function with named arguments', 'named(b => r.zone_id, a => 1)'),
	('a function with a default', 'named(r.zone_id)'),
	('a variadic function', 'summed(r.zone_id, 2, 3)'),
	('a variadic function of an array', 'summed(VARIADIC ARRAY[r.zone_id, 2])'),
	('IS DISTINCT FROM', 'r.zone_id IS DISTINCT FROM 3'),
	('NULLIF', 'NULLIF(r.zone_id, 3)'),
	('IN', 'r.zone_id IN (1, 2, 3)'),
	('= ANY', 'r.zone_id = ANY (ARRAY[1, 2, r.small])'),
	('<> ALL', 'r.zone_id <> ALL (ARRAY[1, 2])'),
	('AND, OR, NOT', '(r.zone_id > 3 AND NOT r.small > 0) OR r.small IS NULL'),
	('a subscript', 'r.tags[1]'),
	('a slice', 'r.tags[1:2]'),
	('a subscript of jsonb', $$ (jsonb_build_object('a', r.zone_id))['a'] $$),
	('a field of a composite', '(make_pair(r.zone_id)).b'),
	('a field of a row of a table', '(z).name'),
	('a row of a table', '(z)::text'),
	('a cast', 'r.small::bigint'),
	('a cast by text', 'r.small::text::varchar(3)'),
	('a cast of arrays', 'ARRAY[r.small, r.zone_id]::text[]'),
	('a domain', '(r.zone_id)::small'),
	('a collation', $$ z.name COLLATE "C" $$),
	('CASE', $$ CASE WHEN r.zone_id > 3 THEN 'many' WHEN r.zone_id IS NULL THEN NULL ELSE 'few' END $$),
	('CASE of a value', $$ CASE r.zone_id WHEN 1 THEN 'one' WHEN 2 THEN 'two' ELSE z.name END $$),
	('an array', 'ARRAY[r.zone_id, r.small]'),
	('arrays of arrays', 'ARRAY[[r.zone_id], [r.small::int]]'),
	('a row of a type', 'ROW(r.zone_id, z.name)::pair'),
	('a comparison of rows', '(r.zone_id, r.small) < (3, 100)'),
	('an equality of rows', '(r.zone_id, r.small) = (3, 100)'),
	('COALESCE', 'coalesce(r.zone_id, r.small, 0)'),
	('GREATEST', 'greatest(r.zone_id, r.small, 5)'),
	('current_user', 'current_user'),
	('current_date', '(current_date - current_date) + r.zone_id'),
	('XMLELEMENT', 'xmlelement(name a, xmlattributes(r.zone_id AS z), r.small)::text'),
	('XMLFOREST, XMLCONCAT', 'xmlconcat(xmlforest(r.zone_id AS z), xmlpi(name p))::text'),
	('IS DOCUMENT', $$ xmlparse(content 'a' || r.zone_id) IS DOCUMENT $$),
	('IS NULL', 'r.zone_id IS NULL'),
	('a row IS NULL', '(r.zone_id, r.small) IS NOT NULL'),
	('IS TRUE', '(r.zone_id > 3) IS NOT TRUE'),
	('BETWEEN', 'r.zone_id BETWEEN SYMMETRIC 5 AND 2'),
	('LIKE', $$ z.name LIKE 'zone%3' ESCAPE '!' $$),
	('AT TIME ZONE', $$ ('2024-01-01'::timestamp + r.zone_id * '1 day'::interval) AT TIME ZONE 'Asia/Tokyo' $$),
	('EXTRACT', $$ extract(day FROM '2024-01-01'::date + r.zone_id) $$),
	('OVERLAY, POSITION, TRIM', $$ overlay(trim(both 'z' from z.name) placing 'x' from position('n' in z.name)) $$),
	('an intersection of ranges', 'int4range(1, 5) * int4range(2, 2 + abs(r.zone_id))')
	) x (what, e);

-- Sub-selects.
SELECT stream_equals(format('SELECT r.ride_id, %s AS e FROM rides r', e), what || ' in the output')
FROM (VALUES
	('EXISTS', 'EXISTS (SELECT FROM zones z WHERE z.id = r.zone_id)'),
	('IN', 'r.zone_id IN (SELECT id FROM zones)'),
	('IN of rows', '(r.zone_id, r.small) IN (SELECT id, id FROM zones)'),
	('NOT IN', 'r.zone_id NOT IN (SELECT id FROM zones)'),
	('> ALL', 'r.zone_id > ALL (SELECT id FROM zones)'),
	('a comparison of rows', '(r.zone_id, r.small) < (SELECT id, id FROM zones WHERE id = 3)'),
	('a value', '(SELECT name FROM zones z WHERE z.id = r.zone_id)'),
	('an array', 'ARRAY(SELECT id FROM zones z WHERE z.id < r.zone_id ORDER BY id DESC)'),
	('an aggregate', '(SELECT count(*) + max(z.id) FROM zones z WHERE z.id < r.zone_id)'),
	('an ordered-set aggregate', '(SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY z.id) FROM zones z WHERE z.id < r.zone_id)'),
	('a window function', '(SELECT max(n) FROM (SELECT rank() OVER (PARTITION BY name ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) n FROM zones) s)'),
	('DISTINCT ON, ORDER BY, LIMIT', '(SELECT s.id FROM (SELECT DISTINCT ON (name) name, id FROM zones ORDER BY name, id DESC LIMIT 2 OFFSET 1) s ORDER BY 1 LIMIT 1)'),
	('FETCH WITH TIES', '(SELECT count(*) FROM (SELECT name FROM zones ORDER BY name FETCH FIRST 1 ROW WITH TIES) s)'),
	('UNION, EXCEPT', '(SELECT count(*) FROM (SELECT id FROM zones UNION ALL SELECT 1 EXCEPT SELECT 2) s)'),
	('WITH', '(WITH a AS MATERIALIZED (SELECT id FROM zones), b AS (SELECT id FROM a) SELECT max(id) FROM b)'),
	('WITH RECURSIVE', '(WITH RECURSIVE up (id, parent) AS (SELECT id, parent FROM tree WHERE id = r.zone_id UNION ALL SELECT t.id, t.parent FROM tree t JOIN up ON t.id = up.parent) SELECT count(*) FROM up)'),
	('GROUPING SETS and GROUPING', '(SELECT sum(g) FROM (SELECT grouping(name) g FROM zones GROUP BY ROLLUP (name)) s)'),
	('VALUES', '(SELECT column2 FROM (VALUES (1, ''a''), (2, ''b'')) v WHERE column1 = r.zone_id)'),
	('a system column', '(SELECT min(z.ctid::text || z.tableoid::regclass) FROM zones z)'),
	('GROUP BY a primary key', '(SELECT z.name FROM zones z WHERE z.id = r.zone_id GROUP BY z.id)'),
	('a row', '(SELECT z::text FROM zones z WHERE z.id = r.zone_id)')
	) x (what, e);
SELECT stream_equals($$ SELECT zone_id, count(*) AS n, (SELECT name FROM zones z WHERE z.id = r.zone_id) AS name
	FROM rides r GROUP BY zone_id HAVING zone_id IN (SELECT id FROM zones) AND count(*) > (SELECT min(id) FROM zones) $$,
	'sub-selects over group keys');
SELECT stream_equals($$ SELECT (SELECT name FROM zones z WHERE z.id = r.zone_id) AS name, count(*) AS n,
	max((SELECT name FROM zones z WHERE z.id = r.zone_id)) AS m,
	count(*) FILTER (WHERE EXISTS (SELECT FROM zones z WHERE z.id = r.zone_id)) AS f
	FROM rides r GROUP BY 1 $$, 'sub-selects as group key, in arguments and in FILTER');

-- FROM.
SELECT stream_equals(format('SELECT r.ride_id, %s FROM %s', columns, f), what)
FROM (VALUES
	('a partitioned table', 'p.name', 'rides r JOIN parted p ON p.id = r.zone_id'),
	('a view', 'p.name', 'rides r LEFT JOIN zone_view p ON p.id = r.zone_id'),
	('a materialized view', 'p.name', 'rides r LEFT JOIN zone_matview p ON p.id = r.zone_id'),
	('a system catalog', 't.typname', $$ rides r JOIN pg_type t ON t.oid = 'text'::regtype $$),
	('aliases of columns', 'r.zone, p.n', 'rides r (ride_id, zone) JOIN zones p (i, n) ON p.i = r.zone'),
	('JOIN ... USING', 'id, j.name', 'rides r JOIN (SELECT id AS zone_id, id, name FROM zones) j USING (zone_id)'),
	('an alias of a join', 'j.name', '(rides JOIN zones ON id = zone_id) AS j CROSS JOIN LATERAL (SELECT j.ride_id) r'),
	('an alias of a join with columns', 'j.c', '(rides JOIN zones ON id = zone_id) AS j (a, b, c) CROSS JOIN LATERAL (SELECT j.a AS ride_id) r'),
	('aliases of joins that hide the same name', 'a.name, b.id', '(rides JOIN zones z ON z.id = zone_id) AS a JOIN (zones z JOIN tree t USING (id)) AS b ON b.id = a.id CROSS JOIN LATERAL (SELECT a.ride_id) r'),
	('an alias of USING', 'u.zone_id', 'rides r JOIN (SELECT id AS zone_id FROM zones) j USING (zone_id) AS u'),
	('NATURAL JOIN', 'j.x', 'rides r NATURAL JOIN (SELECT id AS zone_id, id * 2 AS x FROM zones) j'),
	('nested joins', 'a.name, b.name AS other', 'rides r LEFT JOIN (zones a JOIN zones b ON b.id = a.id + 1) ON a.id = r.zone_id'),
	('a sub-select', 's.n', 'rides r JOIN (SELECT name, count(*) AS n, min(id) AS i FROM zones GROUP BY name) s ON s.i = r.zone_id'),
	('LATERAL', 's.name', 'rides r CROSS JOIN LATERAL (SELECT name FROM zones z WHERE z.id < r.zone_id ORDER BY id DESC LIMIT 1) s'),
	('VALUES', 'v.b', $$ rides r JOIN (VALUES (1, 'a'), (2, 'b')) v (a, b) ON v.a = r.zone_id $$),
	('a function', 'g', 'rides r, generate_series(1, r.zone_id) g'),
	('a function WITH ORDINALITY', 't, o', 'rides r, unnest(r.tags) WITH ORDINALITY AS u (t, o)'),
	('ROWS FROM', 'x, y, o', 'rides r, ROWS FROM (unnest(r.tags), generate_series(1, r.zone_id)) WITH ORDINALITY AS f (x, y, o)'),
	('unnest of several arrays', 'x, y', 'rides r, unnest(r.tags, ARRAY[1, 2]) AS f (x, y)'),
	('a function with a column list', 'x.a, x.b', $$ rides r, json_to_record(json_build_object('a', r.zone_id, 'b', 'c')) AS x (a int, b text) $$),
	('ROWS FROM with a column list', 'x.a, x.n', $$ rides r, ROWS FROM (json_to_recordset('[{"a":1},{"a":2}]') AS (a int), generate_series(1, 3)) AS x (a, n) $$),
	('a function of a composite', 'p.b', 'rides r, make_pair(r.zone_id) p'),
	('XMLTABLE', 'x.a, x.n', $$ rides r, XMLTABLE('/r/a' PASSING xmlparse(document '<r><a>' || coalesce(r.zone_id, 0) || '</a></r>') COLUMNS n FOR ORDINALITY, a int PATH '.' DEFAULT 5) x $$),
	('jsonpath', 'j', $$ rides r, jsonb_path_query(jsonb_build_array(r.zone_id, r.small), '$[*] ? (@ > 3)') j $$)
	) x (what, columns, f);
SELECT stream_equals($$ SELECT j.name, j.id, count(*) AS n, max(j.small) AS s, (SELECT min(t.id) FROM tree t WHERE t.id > j.id) AS above
	FROM (rides JOIN zones ON id = zone_id) AS j GROUP BY j.name, j.id HAVING max(j.fare) > 0 OR j.id > 3 $$,
	'an alias of a join, grouped');
SELECT stream_equals($$ SELECT j.name, w.window_start, count(*) AS n
	FROM (rides r JOIN (SELECT id AS zone_id, name FROM zones) z USING (zone_id)) AS j CROSS JOIN weir.tumble(j.pickup_at, '10 minutes') w
	GROUP BY j.name, w.window_start $$, 'an alias of a join with USING, in a window');
SELECT stream_equals($$ SELECT u.t, count(*) AS n FROM rides r, unnest(r.tags) u (t) GROUP BY u.t $$,
	'a function in FROM as a group key');
SELECT stream_equals('SELECT unnest(tags) AS t, count(*) AS n FROM rides GROUP BY 1',
	'a set-returning group key');
SELECT stream_equals('SELECT ride_id, unnest(tags) AS t, generate_series(1, 2) AS g FROM rides',
	'set-returning functions in the output');
SELECT stream_equals('SELECT ride_id FROM ONLY rides', 'ONLY');
SELECT stream_equals('SELECT zone_id, small, count(*) AS n FROM rides GROUP BY DISTINCT zone_id, small',
	'GROUP BY DISTINCT without sets');
SELECT stream_equals('SELECT ALL zone_id, count(ALL small) AS n FROM rides GROUP BY zone_id', 'ALL');

SELECT * FROM finish();
ROLLBACK;
