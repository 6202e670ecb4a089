-- What is not known to work in a continuous query is refused by its name when
-- the stream is made, wherever it stands.  What is known is in
-- test/pgtap/capture_constructs.sql.
\set VERBOSITY default
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS weir;
RESET client_min_messages;
CREATE SCHEMA refuse_constructs;
SET search_path = refuse_constructs;

CREATE TABLE rides (ride_id bigint, zone_id int, at timestamptz,
	kafka_topic text, kafka_partition int, kafka_offset bigint,
	kafka_timestamp timestamptz, kafka_key bytea, kafka_headers text[]);
CREATE TABLE zones (id int PRIMARY KEY, name text);
CREATE SEQUENCE numbers;

CREATE FUNCTION refused(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	hint text;
BEGIN
	PERFORM weir_internal.compile_query(query, 'refuse_constructs.rides', 'at');
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE,
		message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RETURN format('%s %s (%s)', state, message, hint);
END $$;
\pset tuples_only on
\pset format unaligned

-- GROUPING of the query itself.
SELECT refused('SELECT zone_id, grouping(zone_id) AS g FROM rides GROUP BY zone_id');
SELECT refused('SELECT zone_id, count(*) AS n FROM rides GROUP BY zone_id HAVING grouping(zone_id) = 0');
SELECT refused('SELECT zone_id, (SELECT grouping(zone_id)) AS g FROM rides GROUP BY zone_id');
SELECT refused('SELECT zone_id, count(*) AS n FROM rides GROUP BY GROUPING SETS (zone_id)');
SELECT refused('SELECT count(*) AS n FROM rides GROUP BY ()');

-- Rows that differ each time they are read.
SELECT refused('SELECT ride_id, name FROM rides JOIN zones TABLESAMPLE bernoulli (50) ON id = zone_id');
SELECT refused('SELECT ride_id FROM rides WHERE zone_id IN (SELECT id FROM zones TABLESAMPLE system (50) REPEATABLE (1))');
SELECT refused('SELECT ride_id, last_value FROM rides, numbers');
SELECT refused('SELECT ride_id FROM rides WHERE ride_id > (SELECT last_value FROM numbers)');

-- Locks.
SELECT refused('SELECT ride_id, name FROM rides JOIN zones ON id = zone_id FOR UPDATE OF zones');
SELECT refused('SELECT ride_id, (SELECT name FROM zones WHERE id = zone_id FOR SHARE) AS name FROM rides');
SELECT refused('SELECT ride_id, name FROM rides JOIN (SELECT * FROM zones FOR NO KEY UPDATE) z ON id = zone_id');

-- Commands.
SELECT refused('INSERT INTO zones SELECT 1');
SELECT refused('UPDATE zones SET name = NULL');
SELECT refused('MERGE INTO zones USING rides ON id = zone_id WHEN MATCHED THEN DO NOTHING');
SELECT refused('VALUES (1)');
SELECT refused('TABLE rides') ~ '^0A000|accepted' AS named;
SELECT refused('EXPLAIN SELECT 1');
SELECT refused('DECLARE c CURSOR FOR SELECT ride_id FROM rides');
SELECT refused('CREATE TABLE t AS SELECT ride_id FROM rides');
SELECT refused('SELECT ride_id FROM rides WHERE CURRENT OF c');
SELECT refused('WITH gone AS (DELETE FROM zones RETURNING id) SELECT ride_id FROM rides');
SELECT refused('SELECT ride_id FROM rides, (WITH gone AS (DELETE FROM zones RETURNING id) SELECT * FROM gone) g');
SELECT refused('SELECT $1 AS one FROM rides');
SELECT refused('SELECT ride_id FROM rides WHERE zone_id IN (SELECT id FROM zones WHERE id > $2 ORDER BY id LIMIT 1)');
SELECT refused('SELECT DEFAULT AS one FROM rides');
SELECT refused('');

-- Clauses of the query itself.
SELECT refused('SELECT DISTINCT ON (zone_id) zone_id FROM rides');
SELECT refused('SELECT ride_id FROM rides FETCH FIRST 1 ROW WITH TIES');
SELECT refused('SELECT ride_id FROM rides OFFSET 1');
SELECT refused('SELECT ride_id FROM rides EXCEPT SELECT 1');
SELECT refused('SELECT ride_id FROM rides INTERSECT ALL SELECT 1');
SELECT refused('WITH RECURSIVE r AS (SELECT 1) SELECT ride_id FROM rides');
SELECT refused('SELECT zone_id, sum(count(*)) OVER () AS n FROM rides GROUP BY zone_id');
SELECT refused('SELECT zone_id, count(*) AS n FROM rides GROUP BY zone_id WINDOW w AS (ORDER BY zone_id)');
SELECT refused('SELECT z.name, count(*) AS n FROM rides JOIN zones z ON z.id = zone_id GROUP BY z.id');
SELECT refused('SELECT zone_id, generate_series(1, count(*)) AS n FROM rides GROUP BY zone_id');
SELECT refused('SELECT zone_id, array_agg(ride_id ORDER BY ride_id) AS n FROM rides GROUP BY zone_id');
SELECT refused('SELECT zone_id, count(DISTINCT ride_id) AS n FROM rides GROUP BY zone_id');
SELECT refused('SELECT zone_id, (SELECT sum(r.ride_id) FROM zones) AS n FROM rides r GROUP BY zone_id');
SELECT refused('SELECT zone_id, mode() WITHIN GROUP (ORDER BY ride_id) AS n FROM rides GROUP BY zone_id');
SELECT refused('SELECT x.a FROM rides r, ROWS FROM (weir.tumble(r.at, ''1 hour''), generate_series(1, 2)) AS x (a, b, c)');

SET client_min_messages = warning;
DROP SCHEMA refuse_constructs CASCADE;
