-- A timestamp that a query takes at a zone: bounds of event times bound the
-- times of all rows before and after them, around changes of the clocks, by
-- brute force (src/stream_zone.c).
BEGIN;
CREATE EXTENSION IF NOT EXISTS weir;
CREATE EXTENSION IF NOT EXISTS pgtap;
SELECT no_plan();
SET LOCAL TimeZone = 'UTC';
SELECT setseed(0.3);

-- Abbreviations, too: of one offset, and with a history.
CREATE TEMP TABLE change (zone text, at timestamptz);
INSERT INTO change VALUES
	('America/New_York', '2024-03-10 07:00Z'), ('America/New_York', '2024-11-03 06:00Z'),
	('Europe/Dublin', '2024-10-27 01:00Z'), ('Australia/Lord_Howe', '2024-04-06 15:00Z'),
	('Australia/Lord_Howe', '2024-10-05 15:30Z'), ('Antarctica/Troll', '2024-03-31 01:00Z'),
	('Antarctica/Troll', '2024-10-27 01:00Z'), ('Africa/Casablanca', '2024-03-10 02:00Z'),
	('Africa/Casablanca', '2024-04-14 02:00Z'), ('Pacific/Apia', '2011-12-30 10:00Z'),
	('Pacific/Kwajalein', '1969-09-30 13:00Z'), ('Africa/Monrovia', '1972-01-07 00:44:30Z'),
	('Europe/Amsterdam', '1937-06-30 23:40Z'), ('Asia/Pyongyang', '2018-05-04 15:00Z'),
	('Europe/Moscow', '2011-03-26 23:00Z'), ('MSK', '2011-03-26 23:00Z'),
	('MSK', '2014-10-25 22:00Z'), ('EST', '2024-03-10 07:00Z'), ('EDT', '2024-11-03 06:00Z'),
	('EST5EDT', '2024-03-10 07:00Z'), ('UTC', '2024-03-10 07:00Z'),
	('<+20>-20<-20>20,M3.2.0,M11.1.0', '2024-03-09 06:00Z'),
	('<+20>-20<-20>20,M3.2.0,M11.1.0', '2024-11-03 22:00Z');

-- Every 15 minutes for some days, and the microseconds next to them; as event
-- times of local rows they are timestamps in UTC.
CREATE TEMP TABLE point AS
SELECT c.zone, c.at, c.at + i * interval '15 minutes' + e * interval '1 microsecond' AS event
FROM change c CROSS JOIN generate_series(-200, 200) i CROSS JOIN (VALUES (0), (-1)) e (e);
CREATE TEMP TABLE bound AS
SELECT p.zone, p.at, p.event, t.twice, b.*
FROM point p CROSS JOIN (VALUES (false), (true)) t (twice)
	CROSS JOIN weir_internal.event_bounds(p.event, p.zone, t.twice) b;
SELECT is_empty(
	$$SELECT * FROM bound WHERE "time" IS DISTINCT FROM CASE
		WHEN twice THEN event AT TIME ZONE zone AT TIME ZONE zone
		ELSE event AT TIME ZONE 'UTC' AT TIME ZONE zone END$$,
	'the time of a row is PostgreSQL''s');

CREATE TEMP TABLE true_bound AS
SELECT *, min("time") OVER (later ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS least,
	max("time") OVER (later ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS greatest,
	lag(lower) OVER later AS lower_before, lag(upper) OVER later AS upper_before
FROM bound
WINDOW later AS (PARTITION BY zone, at, twice ORDER BY event);
SELECT is_empty(
	$$SELECT zone, twice, event, "time", lower, least FROM true_bound WHERE lower > least$$,
	'no later row has an earlier time than the lower bound: none is late');
SELECT is_empty(
	$$SELECT zone, twice, event, "time", upper, greatest FROM true_bound WHERE upper < greatest$$,
	'no earlier row has a later time than the upper bound');
SELECT is_empty(
	$$SELECT zone, twice, event, lower, upper FROM true_bound WHERE lower < lower_before OR upper < upper_before$$,
	'the bounds never go back');
SELECT is_empty(
	$$SELECT zone, event, "time", lower, upper FROM bound
	WHERE abs(extract(epoch FROM event - at)) > 43 * 3600 AND zone !~ '20'
		AND (lower <> "time" OR upper <> "time")$$,
	'far from a change all are the same');

-- Both passes of a repeated hour are on time: rows whose instants are no
-- earlier than that of a row which moved the watermark.
SELECT is_empty(
	$$SELECT w.zone, w.event AS instant, r.event AS later
	FROM point w JOIN point r ON r.zone = w.zone AND r.at = w.at AND r.event > w.event
		AND r.event < w.event + interval '3 hours'
	WHERE w.zone IN ('America/New_York', 'Australia/Lord_Howe', 'Europe/Dublin')
		AND abs(extract(epoch FROM w.event - w.at)) < 3 * 3600
		AND (weir_internal.event_bounds((w.event AT TIME ZONE w.zone) AT TIME ZONE 'UTC', w.zone)).lower
			> (r.event AT TIME ZONE w.zone) AT TIME ZONE w.zone$$,
	'rows in the order of their instants are on time in both passes');

-- The way back.
SELECT is_empty(
	$$SELECT b.zone, b.twice, b.event, reach
	FROM (SELECT *, weir_internal.event_reaching(event, zone, twice) AS reach FROM bound WHERE random() < 0.1) b
		CROSS JOIN weir_internal.event_bounds(reach, b.zone, b.twice) r
		CROSS JOIN weir_internal.event_bounds(reach - interval '1 microsecond', b.zone, b.twice) before
	WHERE r.lower < b.event OR before.lower >= b.event$$,
	'the least event time that bounds a time');

-- The ends of time.
SELECT results_eq(
	$$SELECT b.lower, b.upper FROM (VALUES ('-infinity'::timestamptz), ('infinity')) e (event)
		CROSS JOIN weir_internal.event_bounds(e.event, 'Europe/Berlin') b$$,
	$$VALUES ('-infinity'::timestamptz, '-infinity'::timestamptz), ('infinity', 'infinity')$$,
	'no time is no bound');
SELECT * FROM finish();
ROLLBACK;
