-- Aggregates of floats over many small merges: as near to the true value as
-- PostgreSQL's own over all the rows at once, however far from zero the
-- values are; infinities, NaN, overflow and the smallest numbers as there.
BEGIN;
CREATE EXTENSION IF NOT EXISTS weir;
CREATE EXTENSION IF NOT EXISTS pgtap;
\ir include/stream_sim.psql
SELECT no_plan();
SELECT setseed(0.9);

-- State of values, made of batches of so many, merged one after the other, or
-- as a tree: halves first.
CREATE FUNCTION merged(v float8[], size int) RETURNS float8[]
LANGUAGE plpgsql AS $$
DECLARE
	state float8[] := '{0,0,0,0}';
BEGIN
	FOR i IN 0..(cardinality(v) - 1) / size LOOP
		state := weir_internal.float_combine(state, (
			SELECT weir_internal.float_partial(x)
			FROM unnest(v[i * size + 1:(i + 1) * size]) x));
	END LOOP;
	RETURN state;
END $$;
CREATE FUNCTION tree(v float8[]) RETURNS float8[]
LANGUAGE plpgsql AS $$
DECLARE
	n int := cardinality(v);
BEGIN
	IF n < 3 THEN
		RETURN (SELECT weir_internal.float_partial(x) FROM unnest(v) x);
	END IF;
	RETURN weir_internal.float_combine(tree(v[:n / 2]), tree(v[n / 2 + 1:]));
END $$;
CREATE FUNCTION near(a float8, b float8, part float8 DEFAULT 1e-14) RETURNS boolean
LANGUAGE sql AS $$
	SELECT a IS NOT DISTINCT FROM b OR abs(a - b) <= part * greatest(abs(a), abs(b));
$$;

-- The true variance is numeric's: a float of 15 digits is a numeric.
CREATE TABLE cases AS
SELECT base, kind, size, v,
	(SELECT var_pop(x::numeric)::float8 FROM unnest(v) x) AS truth,
	(SELECT var_samp(x::numeric)::float8 FROM unnest(v) x) AS sample
FROM (VALUES (0::float8), (1), (-1e6), (1e6), (1.7e9), (1.7e12), (-4e14)) b (base)
	CROSS JOIN (VALUES (1), (2), (5), (13), (1000)) s (size)
	CROSS JOIN LATERAL (
		SELECT 'in turn', array_agg(base + i % 5 ORDER BY i) FROM generate_series(0, 499) i
		UNION ALL
		SELECT 'random', array_agg(base + i * 0 + floor(random() * 1000)) FROM generate_series(1, 400) i
		UNION ALL
		SELECT 'rising', array_agg(base + i ORDER BY i) FROM generate_series(1, 600) i
		UNION ALL
		SELECT 'an outlier', array_agg(CASE i WHEN 7 THEN 0 ELSE base + i % 3 END ORDER BY i)
		FROM generate_series(1, 300) i) d (kind, v);
SELECT is_empty($$
	SELECT base, kind, size, truth, m.var_pop, m.var_samp FROM cases,
		LATERAL (SELECT float8_var_pop(s[1:3]), float8_var_samp(s[1:3])
			FROM merged(v, size) s) m (var_pop, var_samp)
	WHERE NOT near(m.var_pop, truth) OR NOT near(m.var_samp, sample) $$,
	'merged in turn, the variance is true to the last digits');
SELECT is_empty($$
	SELECT base, kind, truth, float8_var_pop(s[1:3]) FROM cases, tree(v) s
	WHERE NOT near(float8_var_pop(s[1:3]), truth) $$, 'and merged as a tree');
SELECT is_empty($$
	SELECT base, kind, float8_stddev_pop(s[1:3]), d FROM cases, merged(v, 7) s,
		LATERAL (SELECT stddev_pop(x) FROM unnest(v) x) q (d)
	WHERE base > -1e14 AND kind <> 'an outlier' AND NOT near(float8_stddev_pop(s[1:3]), d, 1e-9) $$,
	'so it is what PostgreSQL has for all rows at once, as far as that is right');
SELECT is_empty($$
	SELECT base, kind FROM cases, merged(v, size) s,
		LATERAL (SELECT sum(x::numeric) FROM unnest(v) x) q (t)
	WHERE s[2]::numeric <> t::float8::numeric $$, 'and the sum is rounded once');

-- What is not finite, in whatever batches: as PostgreSQL has it.
CREATE TABLE odd AS
SELECT v FROM (VALUES ('{Infinity}'::float8[]), ('{-Infinity,1}'), ('{1,2,Infinity,3}'),
	('{Infinity,-Infinity,1}'), ('{NaN}'), ('{1,NaN,2}'), ('{NaN,Infinity}'), ('{1}'), ('{}'),
	('{0,0,0}'), ('{-0,0}'), ('{5e-324,5e-324}'), ('{5e-324,0,1e-320}'), ('{1e-160,3e-160,2e-160}'),
	('{1e150,-1e150,5}'), ('{1e307,1e307,1e307}')) o (v);
SELECT is_empty($$
	SELECT v, size, float8_var_pop(s[1:3]), p FROM odd, generate_series(1, 4) size, merged(v, size) s,
		LATERAL (SELECT var_pop(x), var_samp(x), stddev(x) FROM unnest(v) x) q (p, a, d)
	WHERE NOT near(float8_var_pop(s[1:3]), p) OR NOT near(float8_var_samp(s[1:3]), a)
		OR NOT near(float8_stddev_samp(s[1:3]), d) $$, 'infinities, NaN, the smallest and large numbers');
SELECT throws_ok(format('SELECT merged(%L, %s)', v, size), '22003', NULL,
	format('overflow of %s by %s', v, size))
FROM (VALUES ('{1e308,1e308}'), ('{1e200,-1e200}')) o (v), generate_series(1, 2) size;

-- The whole way, in hundreds of batches.
SELECT fill(2000, '2024-03-30 12:00Z', '6 hours');
\set floats 'SELECT zone_id, count(*) AS n, sum(f8) AS s8, avg(f8) AS a8, sum(f4) AS s4, avg(f4) AS a4, var_pop(f4) AS v4, stddev(f4 + 16777000) AS d4, var_pop(f8) AS v8, var_samp(f8 + 1e6) AS v6, stddev_pop(small + 1.7e9::float8) AS v9, var_pop(small + 1.7e12::float8) AS v12, avg(small + 1.7e12::float8) AS a12, stddev(f8) FILTER (WHERE ride_id < 3) AS few, avg(f8) FILTER (WHERE ride_id < 0) AS none FROM rides GROUP BY zone_id'
\set truth 'SELECT zone_id, count(*) AS n, sum(f8::numeric) AS s8, avg(f8::numeric) AS a8, sum(f4::numeric) AS s4, avg(f4::numeric) AS a4, var_pop(f4::numeric) AS v4, stddev(f4::float8::numeric + 16777000) AS d4, var_pop(f8::numeric) AS v8, var_samp(f8::numeric + 1000000) AS v6, stddev_pop(small + 1.7e9::numeric) AS v9, var_pop(small + 1.7e12::numeric) AS v12, avg(small + 1.7e12::numeric) AS a12, stddev(f8::numeric) FILTER (WHERE ride_id < 3) AS few, NULL::numeric AS none FROM rides GROUP BY zone_id'
UPDATE rides SET f8 = round(f8);
SELECT compile(:'floats');
SELECT play(300);
CREATE FUNCTION far(query text, part float8) RETURNS TABLE (zone jsonb, name text, a float8, b float8)
LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format($q$
		SELECT t -> 'zone_id', k, (t ->> k)::float8, (q ->> k)::float8
		FROM (SELECT to_jsonb(x) FROM (%s) x) q (q)
			LEFT JOIN (SELECT to_jsonb(x) FROM target x) t (t) ON t -> 'zone_id' = q -> 'zone_id'
			CROSS JOIN jsonb_object_keys(q) k
		WHERE near((t ->> k)::float8, (q ->> k)::float8,
			CASE WHEN k IN ('s4') THEN 1e-6 WHEN k = 'd4' THEN 1e-6 ELSE %s END) IS NOT TRUE $q$, query, part);
END $$;
SELECT is_empty(format('SELECT * FROM far(%L, 1e-12)', :'truth'), 'three hundred batches: the true values');
SELECT is_empty(format('SELECT * FROM far(%L, 1e-9)', :'floats'), 'and PostgreSQL''s own');
SELECT cmp_ok((SELECT count(*) FROM target), '=', (SELECT count(DISTINCT coalesce(zone_id, -1)) FROM rides),
	'of every group');

-- An average below the smallest number is 0, and no error.
SELECT compile('SELECT zone_id, avg(f8) AS a, var_pop(f8) AS v, sum(f4) AS s FROM rides GROUP BY 1');
UPDATE rides SET f8 = CASE ride_id % 2 WHEN 0 THEN 5e-324 ELSE 0 END, f4 = CASE ride_id % 3 WHEN 0 THEN 1e-45 ELSE 0 END;
SELECT play(50);
SELECT is_empty('SELECT differences($$ SELECT zone_id, avg(f8) AS a, var_pop(f8) AS v, sum(f4) AS s FROM rides GROUP BY 1 $$)',
	'the smallest numbers');

-- Values that are not finite, in some groups.
UPDATE rides SET f8 = CASE WHEN zone_id = 3 AND ride_id % 50 = 0 THEN 'Infinity'::float8
	WHEN zone_id = 4 AND ride_id % 40 = 0 THEN 'NaN'
	WHEN zone_id = 5 AND ride_id % 40 = 0 THEN '-Infinity'
	WHEN zone_id = 5 AND ride_id % 40 = 1 THEN 'Infinity' ELSE ride_id END, f4 = 0;
SELECT stream_equals('SELECT zone_id, sum(f8) AS s, avg(f8) AS a, var_samp(f8) IS NULL AS v, var_pop(f8) = ''NaN'' AS n, min(f8) AS i, max(f8) AS m FROM rides GROUP BY 1',
	'infinities and NaN in streams');
SELECT * FROM finish();
ROLLBACK;
