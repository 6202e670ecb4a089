-- DDL on sources and on what streams use: what is refused, what the catalog
-- follows.  One transaction that is rolled back, so no worker ever sees it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS weir;
RESET client_min_messages;
\set VERBOSITY default
\pset null '(null)'
BEGIN;
\set ON_ERROR_ROLLBACK on
CREATE SCHEMA ddl;
SET LOCAL search_path = ddl, public;
CREATE SERVER kafka FOREIGN DATA WRAPPER weir_kafka
	OPTIONS (bootstrap_servers 'localhost:1');
CREATE DOMAIN euros AS numeric;
CREATE FUNCTION known(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 > 0';
SELECT weir.create_source('rides', 'kafka', 'rides',
	$$ id bigint NOT NULL, zone int OPTIONS (path '$.a.zone'), fare euros,
	   "a ""b\" text, at timestamptz $$,
	event_time => 'at', filter => 'known(zone) AND fare IS NOT NULL');
CREATE TABLE zones (id int PRIMARY KEY, name text);
SELECT weir.create_stream('named', $$
	SELECT r.id, z.name, known(zone) AS known FROM rides r JOIN zones z ON z.id = r.zone $$);
SELECT weir.create_stream('totals', 'SELECT zone, sum(fare) AS fares FROM rides GROUP BY zone');

-- Refused.
ALTER FOREIGN TABLE rides ADD COLUMN x int;
ALTER TABLE rides DROP COLUMN zone;
ALTER FOREIGN TABLE rides ALTER COLUMN zone TYPE bigint;
ALTER FOREIGN TABLE rides ALTER COLUMN zone OPTIONS (SET path '$.zone');
ALTER FOREIGN TABLE rides OPTIONS (ADD topic 'x');
ALTER FOREIGN TABLE rides ADD CHECK (fare > 0);
ALTER FOREIGN TABLE rides RENAME TO totals;
ALTER FOREIGN TABLE rides RENAME COLUMN zone TO kafka_zone;
ALTER FOREIGN TABLE rides RENAME COLUMN kafka_key TO key;
DROP FOREIGN TABLE rides;
DROP TABLE IF EXISTS rides CASCADE;
DROP DOMAIN euros CASCADE;
CREATE TABLE parent (LIKE rides) PARTITION BY LIST (zone);
ALTER TABLE parent ATTACH PARTITION rides DEFAULT;

-- Renames: the stored texts follow.
ALTER FOREIGN TABLE rides RENAME TO trips;
ALTER FOREIGN TABLE trips RENAME COLUMN zone TO area;
ALTER TABLE trips RENAME COLUMN fare TO price;
ALTER FOREIGN TABLE trips RENAME COLUMN "a ""b\" TO c;
ALTER FOREIGN TABLE trips RENAME COLUMN at TO "When";
ALTER FUNCTION known(int) RENAME TO is_known;
ALTER TABLE zones RENAME TO areas;
ALTER TABLE areas RENAME COLUMN name TO label;
CREATE SCHEMA elsewhere;
ALTER FOREIGN TABLE trips SET SCHEMA elsewhere;
ALTER TABLE areas SET SCHEMA elsewhere;
ALTER SCHEMA elsewhere RENAME TO "Elsewhere";
SELECT source, relation, event_time, filter FROM weir.sources;
SELECT query FROM weir.streams ORDER BY stream;
SELECT attname, attfdwoptions FROM pg_attribute
WHERE attrelid = '"Elsewhere".trips'::regclass AND attnum > 0
	AND attname !~ '^kafka_' ORDER BY attnum;
SELECT weir.explain('named') IS NOT NULL AS compiles LIMIT 1;

-- A text that is broken keeps nobody from renaming.
UPDATE weir_internal.stream SET query = 'SELECT nonsense FROM nowhere' WHERE name = 'named';
ALTER TABLE "Elsewhere".areas RENAME TO zones;
SELECT query FROM weir.streams WHERE stream = 'named';

-- What goes, goes from the catalog.
SAVEPOINT before_drops;
DROP TABLE named;
SELECT name, target, failed_sqlstate, failed_message FROM weir_internal.stream WHERE name = 'named';
DO $$ BEGIN
	EXECUTE (SELECT 'DROP TABLE ' || state FROM weir_internal.stream WHERE name = 'totals');
END $$;
SELECT name, state, failed_sqlstate, failed_message FROM weir_internal.stream WHERE name = 'totals';
SELECT weir.explain('named');
SELECT weir.drop_stream('named'), weir.drop_stream('totals');
ROLLBACK TO before_drops;
DROP SCHEMA "Elsewhere" CASCADE;
SELECT (SELECT count(*) FROM weir.sources) AS sources, (SELECT count(*) FROM weir.streams) AS streams;
ROLLBACK TO before_drops;
DROP SERVER kafka CASCADE;
SELECT (SELECT count(*) FROM weir.sources) AS sources, (SELECT count(*) FROM weir.streams) AS streams;
ROLLBACK TO before_drops;

-- Owners.
CREATE ROLE regress_weir_a;
CREATE ROLE regress_weir_b;
GRANT ALL ON SCHEMA "Elsewhere", ddl TO regress_weir_a, regress_weir_b;
ALTER FOREIGN TABLE "Elsewhere".trips OWNER TO regress_weir_a;
SELECT source, owner FROM weir.sources;
GRANT SELECT ON "Elsewhere".trips TO PUBLIC;
GRANT USAGE ON FOREIGN SERVER kafka TO regress_weir_a;
SET LOCAL ROLE regress_weir_a;
SELECT weir.create_stream('mine', 'SELECT id FROM "Elsewhere".trips', target => 'ddl.mine');
SELECT weir.pause('trips');
RESET ROLE;
DROP ROLE regress_weir_a;
REASSIGN OWNED BY regress_weir_a TO regress_weir_b;
SELECT stream, owner FROM weir.streams WHERE stream = 'mine';
SELECT source, owner FROM weir.sources;
DROP OWNED BY regress_weir_b;
SELECT (SELECT count(*) FROM weir.sources) AS sources, (SELECT count(*) FROM weir.streams) AS streams;
DROP ROLE regress_weir_b;
ROLLBACK;
