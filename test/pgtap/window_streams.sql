-- Streams over windows in time zones equal their queries, in spring and in
-- autumn, with the least columns in the output that they may have.
BEGIN;
CREATE EXTENSION IF NOT EXISTS weir;
CREATE EXTENSION IF NOT EXISTS pgtap;
\ir include/stream_sim.psql
SELECT no_plan();
SET LOCAL TimeZone = 'UTC';
SELECT setseed(0.9);

CREATE FUNCTION equal_in(season text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	emit text;
BEGIN
	FOREACH emit IN ARRAY ARRAY['on_change', 'on_close'] LOOP
		RETURN QUERY SELECT stream_equals(format(
			'SELECT w.%s AS w, zone_id, count(*) AS n FROM rides, weir.%s w GROUP BY w.window_start, w.window_end, zone_id',
			t.shown, t.windows), concat_ws(', ', season, t.windows, emit), emit)
		FROM (VALUES
			('window_start', $w$tumble(pickup_at, '15 minutes', timezone => 'Europe/Paris')$w$),
			('window_end', $w$tumble(pickup_at, '1 hour', timezone => 'Australia/Lord_Howe')$w$),
			('window_end', $w$tumble(pickup_at, '1 day', timezone => 'America/New_York')$w$),
			('window_start', $w$hop(pickup_at, '2 hours', '1 hour', timezone => 'America/New_York')$w$),
			('window_end', $w$hop(pickup_at, '24 hours', '3 hours', timezone => 'America/New_York')$w$)) t (shown, windows);
		RETURN QUERY SELECT stream_equals(format(
			'SELECT w.window_start AS s, w.window_end AS e, zone_id, count(*) AS n FROM rides, weir.%s w GROUP BY 1, 2, 3',
			windows), concat_ws(', ', season, windows, emit), emit)
		FROM (VALUES ($w$hop(pickup_at, '1 day', '1 hour', timezone => 'America/New_York')$w$),
			($w$hop(pickup_at, '2 days', '12 hours', timezone => 'Europe/Berlin')$w$)) t (windows);
	END LOOP;
END $$;

SELECT fill(200, '2024-03-09 12:00Z', '36 hours');
SELECT equal_in('spring in New York');
SELECT fill(200, '2024-11-02 12:00Z', '36 hours');
SELECT equal_in('autumn in New York');
SELECT fill(200, '2024-10-26 06:00Z', '40 hours');
SELECT equal_in('autumn in Europe');
SELECT fill(200, '2024-10-05 06:00Z', '30 hours');
SELECT equal_in('spring in Lord Howe');

-- What would be told apart by its start alone, were it not for the change:
-- two windows that start when clocks are set forward.
SELECT results_eq(
	$$SELECT count(*), count(DISTINCT window_start) FROM weir.hop('2024-03-10 12:00Z', '1 day', '1 hour', timezone => 'America/New_York')$$,
	'VALUES (24::bigint, 23::bigint)',
	'two windows, one start');
SELECT * FROM finish();
ROLLBACK;
