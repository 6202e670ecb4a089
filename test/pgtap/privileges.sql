-- Who may do what: sources, streams, their control, the catalog, dead
-- letters.  Runs as a superuser; everything is rolled back, so no worker
-- sees it.
\set QUIET on
SET client_min_messages = warning;
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS weir;
SELECT no_plan();

CREATE ROLE weir_owner;
CREATE ROLE weir_reader;
CREATE ROLE weir_other;
CREATE ROLE weir_member IN ROLE weir_owner;
CREATE SCHEMA shop;
GRANT ALL ON SCHEMA shop TO weir_owner, weir_reader, weir_other, weir_member;
SET LOCAL search_path = shop, public;
CREATE SERVER kafka FOREIGN DATA WRAPPER weir_kafka
	OPTIONS (bootstrap_servers 'localhost:1');

-- A run as a role, the SQLSTATE expected (NULL: it works).
CREATE FUNCTION as_role(role name, sql text, state char(5), what text)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	got text;
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', role);
	BEGIN
		EXECUTE sql;
	EXCEPTION WHEN OTHERS THEN
		got := SQLSTATE || ' ' || SQLERRM;
	END;
	EXECUTE 'RESET ROLE';
	RETURN is(left(got, 5), state::text, role || ': ' || what || coalesce(' (' || got || ')', ''));
END $$;

-- Servers.
SELECT as_role('weir_owner', $$CREATE SERVER mine FOREIGN DATA WRAPPER weir_kafka
	OPTIONS (bootstrap_servers 'x')$$, '42501', 'a server needs USAGE on the wrapper');
SELECT as_role('weir_owner', $$SELECT weir.create_source('rides', 'kafka', 'rides', 'id int, at timestamptz')$$,
	'42501', 'a source needs USAGE on its server');
SELECT as_role('weir_owner', $$SELECT * FROM weir.sample('kafka', 'rides')$$,
	'42501', 'and so does a sample');
GRANT USAGE ON FOREIGN SERVER kafka TO weir_owner;
GRANT USAGE ON FOREIGN DATA WRAPPER weir_kafka TO weir_owner;
SELECT as_role('weir_owner', $$CREATE SERVER mine FOREIGN DATA WRAPPER weir_kafka
	OPTIONS (bootstrap_servers 'x')$$, NULL, 'with USAGE a server');
SELECT as_role('weir_owner', $$CREATE SERVER bad FOREIGN DATA WRAPPER weir_kafka
	OPTIONS (bootstrap_servers 'x', plugin_library_paths '/tmp/x')$$,
	'42501', 'no server that loads a library');
SELECT as_role('weir_owner', $$CREATE USER MAPPING FOR weir_owner SERVER mine
	OPTIONS (sasl_username 'u', sasl_password 'p')$$, NULL, 'a user mapping of its own');

-- Sources.
SELECT as_role('weir_owner', $$SELECT weir.create_source('rides', 'kafka', 'rides', 'id int, at timestamptz')$$,
	NULL, 'a source');
SELECT as_role('weir_owner', $$SELECT weir.create_source('weir_internal.x', 'kafka', 'rides', 'id int')$$,
	'42501', 'no source in a schema without CREATE');
SELECT as_role('weir_owner', 'SELECT * FROM rides', NULL, 'its owner looks at it');
SELECT as_role('weir_reader', 'SELECT * FROM rides', '42501', 'nobody else does');
SELECT as_role('weir_other', 'SELECT weir.' || f, '42501', f)
FROM unnest(ARRAY[$$pause('rides')$$, $$resume('rides')$$, $$drop_source('rides')$$,
	$$advance_watermark('rides')$$, $$stat_reset('rides')$$]) f;
SELECT as_role('weir_member', 'SELECT weir.' || f, NULL, f)
FROM unnest(ARRAY[$$pause('rides')$$, $$resume('rides')$$, $$advance_watermark('rides')$$]) f;
SELECT as_role('weir_other', 'ALTER FOREIGN TABLE rides RENAME TO x', '42501', 'no rename');

-- Streams: what they read.
CREATE TABLE zones (id int PRIMARY KEY, name text, secret text);
CREATE VIEW zone_view AS SELECT id, secret FROM zones;
CREATE FUNCTION hidden(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
REVOKE ALL ON FUNCTION hidden(int) FROM PUBLIC;
SELECT as_role('weir_reader', $$SELECT weir.create_stream('s', 'SELECT id FROM rides')$$,
	'42501', 'a stream needs SELECT on its source');
GRANT SELECT ON rides TO weir_reader;
SELECT as_role('weir_reader', 'SELECT * FROM rides', NULL, 'SELECT granted');
SELECT as_role('weir_reader', $$SELECT weir.create_stream('s', 'SELECT r.id, z.name FROM rides r JOIN zones z ON z.id = r.id')$$,
	'42501', 'and on its dimensions');
GRANT SELECT (id, name) ON zones TO weir_reader;
SELECT as_role('weir_reader', $$SELECT weir.create_stream('s', 'SELECT r.id, z.secret FROM rides r JOIN zones z ON z.id = r.id')$$,
	'42501', 'each column of them');
SELECT as_role('weir_reader', $$SELECT weir.create_stream('s', 'SELECT r.id, z.secret FROM rides r JOIN zone_view z ON z.id = r.id')$$,
	'42501', 'and on views');
SELECT as_role('weir_reader', $$SELECT weir.create_stream('s', 'SELECT hidden(id) AS h FROM rides')$$,
	'42501', 'and EXECUTE on functions');
SELECT as_role('weir_reader', $$SELECT weir.create_stream('s', 'SELECT r.id, z.name FROM rides r JOIN zones z ON z.id = r.id')$$,
	NULL, 'columns suffice');
SELECT is((SELECT relowner::regrole::text FROM pg_class WHERE oid = 'shop.s'::regclass), 'weir_reader',
	'the target is the caller''s');
SELECT as_role('weir_reader', $$SELECT weir.create_stream('sums', 'SELECT id, count(*) AS n FROM rides GROUP BY id')$$,
	NULL, 'an aggregate');
SELECT is((SELECT c.relowner::regrole::text FROM weir_internal.stream m JOIN pg_class c ON c.oid = m.state
	WHERE m.name = 'sums'), 'weir_reader', 'and so is the state');

-- Streams: what they write.
CREATE TABLE theirs (id int UNIQUE NULLS NOT DISTINCT, n bigint);
SELECT as_role('weir_reader', $$SELECT weir.create_stream('w', 'SELECT id FROM rides', target => 'theirs')$$,
	'42501', 'a target needs INSERT');
GRANT INSERT ON theirs TO weir_reader;
SELECT as_role('weir_reader', $$SELECT weir.create_stream('w', 'SELECT id FROM rides', target => 'theirs')$$,
	NULL, 'and no more for rows without a key');
SELECT as_role('weir_reader', $$SELECT weir.create_stream('k', 'SELECT id, count(*) AS n FROM rides GROUP BY id', target => 'theirs')$$,
	'42501', 'with a key also SELECT, UPDATE and DELETE');
GRANT SELECT, UPDATE, DELETE ON theirs TO weir_reader;
SELECT as_role('weir_reader', $$SELECT weir.create_stream('k', 'SELECT id, count(*) AS n FROM rides GROUP BY id', target => 'theirs')$$,
	NULL, 'which it has now');

-- Control of streams.
SELECT as_role('weir_other', 'SELECT weir.' || f, '42501', f)
FROM unnest(ARRAY[$$pause('k')$$, $$resume('k')$$, $$drop_stream('k')$$, $$seek('k', 'earliest')$$,
	$$wait_for('k', '1 s')$$, $$explain('k')$$, $$watermark('k')$$, $$stat_reset('k')$$]) f;
SELECT as_role('weir_owner', $$SELECT weir.pause('k')$$, '42501', 'the source''s owner is not the stream''s');
SELECT as_role('weir_reader', 'SELECT weir.' || f, NULL, f)
FROM unnest(ARRAY[$$pause('k')$$, $$resume('k')$$, $$seek('k', 'earliest')$$, $$explain('k')$$,
	$$watermark('k')$$, $$stat_reset('k')$$]) f;
GRANT pg_read_all_stats TO weir_other;
SELECT as_role('weir_other', $$SELECT weir.watermark('k')$$, NULL, 'the watermark is a statistic');
SELECT as_role('weir_owner', $$SELECT weir.drop_source('rides')$$, '2BP01', 'a source that is read');

-- The catalog is closed, its views are open.
SELECT as_role('weir_owner', format('SELECT * FROM %I.%I', n.nspname, c.relname), '42501', c.relname::text)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
WHERE n.nspname = 'weir_internal' AND c.relkind IN ('r', 'S')
	AND c.relname !~ '^segment' AND c.relname <> 'dead_letter' ORDER BY c.relname;
SELECT as_role('weir_owner', s, '42501', s) FROM unnest(ARRAY[
	'DELETE FROM weir_internal.dead_letter', 'TRUNCATE weir_internal.dead_letter',
	'LOCK TABLE weir_internal.dead_letter',
	'LOCK TABLE weir.dead_letter', 'LOCK TABLE weir.dead_letter IN ROW EXCLUSIVE MODE',
	'SELECT * FROM weir.dead_letter FOR SHARE',
	'CREATE TRIGGER t INSTEAD OF DELETE ON weir.dead_letter FOR EACH ROW
		EXECUTE FUNCTION weir_internal.count_deleted_letters()']) s;
SELECT as_role('weir_owner', 'CREATE TABLE weir_internal.x (a int)', '42501', 'nothing of its own in weir_internal');
SELECT as_role('weir_owner', 'CREATE TABLE weir.x (a int)', '42501', 'nor in weir');
SELECT as_role('weir_owner', 'SELECT * FROM weir_internal.' || relname, '42501', 'another''s state')
FROM weir_internal.stream m JOIN pg_class c ON c.oid = m.state WHERE m.name = 'sums';
SELECT as_role('weir_other', 'SELECT * FROM weir.sources', NULL, 'the sources');
SELECT as_role('weir_other', 'SELECT * FROM weir.streams', NULL, 'the streams');
SELECT as_role('weir_owner', 'SELECT weir.adopt_database()', '42501', 'adopt_database is the extension owner''s');

-- Dead letters: each sees its own, and may delete them.
INSERT INTO weir.dead_letter (source, stream, kafka_topic, reason, source_id, stream_id, owner)
VALUES ('rides', NULL, 'rides', 'decode', 1, NULL, 'weir_owner'),
	   ('rides', 'k', 'rides', 'late', 1, 1, 'weir_reader');
CREATE FUNCTION seen(role name) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', role);
	SELECT count(*) INTO n FROM weir.dead_letter WHERE source = 'rides';
	EXECUTE 'RESET ROLE';
	RETURN n;
END $$;
SELECT is(seen('weir_owner'), 1::bigint, 'the source''s owner sees what ingest could not decode');
SELECT is(seen('weir_member'), 1::bigint, 'and so do members of that role');
SELECT is(seen('weir_reader'), 1::bigint, 'the stream''s owner sees the stream''s');
SELECT is(seen('weir_other'), 0::bigint, 'others see none');
SELECT as_role('weir_other', $$DELETE FROM weir.dead_letter$$, NULL, 'deletes what it sees');
SELECT is((SELECT count(*) FROM weir.dead_letter WHERE source = 'rides'), 2::bigint, 'that is nothing');
SELECT as_role('weir_reader', $$DELETE FROM weir.dead_letter$$, NULL, 'deletes its own');
SELECT is((SELECT string_agg(reason, ',') FROM weir.dead_letter WHERE source = 'rides'), 'decode', 'and no other');
SELECT as_role('weir_owner', $$INSERT INTO weir.dead_letter (source, kafka_topic, reason, source_id, owner)
	VALUES ('x', 'x', 'decode', 1, 'weir_owner')$$, '42501', 'nobody adds any');
SELECT as_role('weir_owner', $$UPDATE weir.dead_letter SET reason = 'late'$$, '42501', 'nor changes them');

-- What create_source captured is no way to more rights: the filter's
-- functions run as the owner, not as whoever looks.
SELECT as_role('weir_reader', $$SELECT weir.create_source('nope', 'kafka', 'x', 'a int')$$,
	'42501', 'USAGE is asked of the caller');

SELECT * FROM finish();
ROLLBACK;
