-- No condition of a user's runs on a row that is not in the batch, or that is
-- known to fail, however cheap it is and wherever it stands.
BEGIN;
CREATE EXTENSION IF NOT EXISTS weir;
CREATE EXTENSION IF NOT EXISTS pgtap;
\ir include/stream_sim.psql
SELECT no_plan();
SET LOCAL TimeZone = 'UTC';
SELECT setseed(0.4);
SELECT fill(600, '2024-05-01 00:00Z', '6 hours');
SELECT deal(1, false);
SELECT stage(0);
-- small is the divisor: 0 in every seventh row
UPDATE rides SET small = ride_id % 7, f8 = ride_id % 7 - 1;
UPDATE staged SET small = ride_id % 7, f8 = ride_id % 7 - 1;

CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE FUNCTION fussy(small smallint) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	IF small = 0 THEN RAISE EXCEPTION 'not 0'; END IF;
	RETURN true;
END $$;
-- with each cost, the same
CREATE FUNCTION fussy_cheap(small smallint) RETURNS boolean IMMUTABLE COST 0.0000001
LANGUAGE plpgsql AS $$ BEGIN RETURN sim.fussy(small); END $$;
CREATE FUNCTION fussy_1(small smallint) RETURNS boolean IMMUTABLE COST 1
LANGUAGE plpgsql AS $$ BEGIN RETURN sim.fussy(small); END $$;
CREATE FUNCTION fussy_10000(small smallint) RETURNS boolean IMMUTABLE COST 10000
LANGUAGE plpgsql AS $$ BEGIN RETURN sim.fussy(small); END $$;

CREATE TEMP TABLE conditions (condition text);
INSERT INTO conditions VALUES
	('100 / small > 0'), ('1 / small IS NOT NULL'), ('1 / small IS NULL'),
	('(1 / small) IN (0, 1)'), ('(1 / small = 1) IS NOT UNKNOWN'),
	('sqrt(f8) IS NOT NULL'), ('small::int::sim.positive IS NOT NULL'),
	('sim.fussy_cheap(small)'), ('sim.fussy_1(small)'), ('sim.fussy_10000(small)'),
	('NOT sim.fussy_1(small) OR fare > 3'),
	('EXISTS (SELECT FROM sim.zones z WHERE z.id = 10 / small)');

-- A query that has the condition in each place.
CREATE TEMP TABLE places (place text, query text, key text[]);
INSERT INTO places VALUES
	('WHERE', 'SELECT ride_id, zone_id FROM rides WHERE %s', NULL),
	('WHERE of a stream with a key', 'SELECT zone_id, ride_id FROM rides WHERE %s', '{zone_id}'),
	('ON', 'SELECT ride_id, o.name FROM rides JOIN sim.zones o ON o.id = 1 AND %s', NULL),
	('ON, with the rows', 'SELECT ride_id, o.name FROM sim.zones o JOIN rides ON o.id = zone_id AND %s', NULL),
	('ON of an outer join', 'SELECT ride_id, o.name FROM rides LEFT JOIN sim.zones o ON o.id = zone_id AND %s', NULL),
	('LATERAL', 'SELECT ride_id, l.q FROM rides CROSS JOIN LATERAL (SELECT %s AS q) l WHERE l.q', NULL),
	('the output', 'SELECT ride_id, %s AS q FROM rides', NULL),
	('WHERE before a window', 'SELECT w.window_start, zone_id, count(*) AS n FROM rides, weir.tumble(pickup_at, ''1 hour'') w WHERE %s GROUP BY 1, 2', NULL),
	('WHERE before hopping windows', 'SELECT w.window_start, zone_id, count(*) AS n FROM rides, weir.hop(pickup_at, ''1 hour'', ''30 minutes'') w WHERE %s GROUP BY 1, 2', NULL),
	('WHERE before groups', 'SELECT zone_id, count(*) AS n FROM rides WHERE %s GROUP BY 1', NULL),
	('FILTER', 'SELECT zone_id, count(*) FILTER (WHERE %s) AS n FROM rides GROUP BY 1', NULL),
	('a group key', 'SELECT %1$s AS q, count(*) AS n FROM rides GROUP BY %1$s', NULL),
	('an argument', 'SELECT zone_id, bool_and(%s) AS q FROM rides GROUP BY 1', NULL);

-- Runs a step over the rows that do not fail, and tells what goes wrong:
-- rows that fail are left out as culprits, or lie outside of the offsets, or
-- outside of the part of the blocks that is looked at.
CREATE FUNCTION wrong(step text, how text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	args text[] := ARRAY['(0,0)', '(100000,0)', '{0,0,0}', '{100000,100000,100000}'];
	culprits tid[] := '{}';
BEGIN
	IF how = 'culprits' THEN
		SELECT array_agg(ctid ORDER BY ctid) INTO culprits FROM staged WHERE small = 0;
	ELSIF how = 'offsets' THEN
		-- one offset of partition 0, whose row is good
		SELECT ARRAY['(0,0)', '(100000,0)', format('{%s,0,0}', o), format('{%s,0,0}', o + 1)] INTO args
		FROM (SELECT min(kafka_offset) AS o FROM staged
			WHERE kafka_partition = 0 AND small <> 0) s;
	ELSE
		args[1] := (SELECT min(ctid) FROM staged WHERE small <> 0);
		args[2] := (SELECT min(ctid) FROM staged WHERE ctid > args[1]::tid);
	END IF;
	EXECUTE format('EXECUTE %I (%L, %L, %L, %L, ''-infinity'', %L, 0, 0)',
		'st_' || step, args[1], args[2], args[3], args[4], culprits);
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	RETURN step || ', ' || how || ': ' || SQLERRM;
END $$;

CREATE FUNCTION all_wrong(query text, key text[]) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM compile(query, key => key);
	RETURN QUERY SELECT w.message FROM (VALUES
		('apply', 'offsets'), ('apply_without', 'offsets'), ('probe', 'offsets'),
		('apply_without', 'part'), ('probe', 'part'),
		('probe', 'culprits'), ('apply_without', 'culprits')) t (step, how),
		LATERAL (SELECT wrong(t.step, t.how) AS message OFFSET 0) w
	WHERE w.message IS NOT NULL;
END $$;

SELECT is_empty(format('SELECT all_wrong(%L, %L)', format(query, condition), key),
	format('%s: %s', place, condition))
FROM places, conditions ORDER BY place, condition;

-- and without leaving anything out it does fail
SELECT compile('SELECT ride_id FROM rides WHERE 1 / small IS NOT NULL');
SELECT throws_ok(execution('apply'), '22012', NULL, 'the whole batch fails');
SELECT throws_ok(execution('probe'), '22012', NULL, 'so does its probe');
SELECT * FROM finish();
ROLLBACK;
