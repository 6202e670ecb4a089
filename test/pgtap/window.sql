-- The window functions keep the invariants of src/stream_window.c, around
-- changes of the clocks in several zones, and equal date_bin in UTC.
BEGIN;
CREATE EXTENSION IF NOT EXISTS weir;
CREATE EXTENSION IF NOT EXISTS pgtap;
SELECT plan(11);
SET LOCAL TimeZone = 'UTC';
SELECT setseed(0.42);

-- Points in time near changes of the clocks: Lord Howe moves by half an hour,
-- Troll by two, Apia skipped a day, Casablanca goes back for Ramadan.
CREATE TEMP TABLE zone (zone text, change timestamptz);
INSERT INTO zone VALUES
	('UTC', '2024-02-29 00:00Z'),
	('Europe/Berlin', '2024-03-31 01:00Z'),
	('Europe/Berlin', '2024-10-27 01:00Z'),
	('America/New_York', '1987-10-25 06:00Z'),
	('Australia/Lord_Howe', '2024-04-06 15:00Z'),
	('Australia/Lord_Howe', '2024-10-05 15:30Z'),
	('Antarctica/Troll', '2024-10-27 01:00Z'),
	('Africa/Casablanca', '2024-03-10 02:00Z'),
	('Asia/Kathmandu', '1985-12-31 18:30Z'),
	('Pacific/Apia', '2011-12-30 10:00Z');
CREATE TEMP TABLE grid (size interval, slide interval, origin timestamp);
INSERT INTO grid VALUES
	('10 minutes', '10 minutes', NULL), ('1 hour', '20 minutes', NULL),
	('1 hour', '25 minutes', '2000-01-01 00:07'), ('1 day', '6 hours', NULL),
	('7 days', '1 day', '2000-01-05 12:00'), ('90 minutes', '50 minutes', NULL),
	('1 month', '1 month', NULL), ('3 months', '1 month', '1999-12-31 06:00');
CREATE TEMP TABLE point AS
SELECT z.zone, z.change + (random() - 0.5) * interval '30 hours' AS ts
FROM zone z, generate_series(1, 120)
UNION SELECT zone, change FROM zone
UNION SELECT zone, change - interval '1 microsecond' FROM zone
UNION SELECT zone, change + h * interval '30 minutes' FROM zone, generate_series(-6, 6) h;

-- Tumbling.
CREATE TEMP TABLE tumbled AS
SELECT p.*, g.size, g.origin, w.*
FROM point p CROSS JOIN grid g
	CROSS JOIN weir.tumble(p.ts, g.size, g.origin, p.zone) w;
SELECT is_empty(
	'SELECT * FROM tumbled WHERE NOT (window_start <= ts AND ts < window_end)
		OR window_start IS NULL',
	'W2: a tumbling window contains its time');
SELECT is_empty(
	'SELECT t.* FROM tumbled t
		CROSS JOIN weir.tumble(t.window_start, t.size, t.origin, t.zone) s
		CROSS JOIN weir.tumble(t.window_end - interval ''1 microsecond'', t.size, t.origin, t.zone) e
		CROSS JOIN weir.tumble(t.window_end, t.size, t.origin, t.zone) n
	WHERE s IS DISTINCT FROM e OR s.window_start <> t.window_start
		OR s.window_end <> t.window_end OR n.window_start <> t.window_end',
	'W3: from first to last instant it is one window, and the next begins at its end');
SELECT is_empty(
	'SELECT * FROM tumbled WHERE zone = ''UTC'' AND size < ''1 month''
		AND window_start <> date_bin(size, ts, coalesce(origin, ''2000-01-03''))',
	'in UTC it is date_bin');
SELECT is_empty(
	'SELECT * FROM tumbled WHERE size = ''1 day''
		AND ((window_start - interval ''1 microsecond'') AT TIME ZONE zone)::date
			>= (window_start AT TIME ZONE zone)::date',
	'days begin when the date of the zone changes');
SELECT is_empty(
	'SELECT * FROM tumbled WHERE size = ''1 month''
		AND (window_start AT TIME ZONE zone)::date <> date_trunc(''month'', ts AT TIME ZONE zone)::date',
	'months are calendar months');

-- Hopping, and the panes that its windows share.
CREATE TEMP TABLE hopped AS
SELECT p.*, g.size, g.slide, g.origin, w.*
FROM point p CROSS JOIN grid g
	CROSS JOIN weir.hop(p.ts, g.size, g.slide, g.origin, p.zone) w;
SELECT is_empty(
	'SELECT * FROM hopped WHERE NOT (window_start <= ts AND ts < window_end)',
	'W2: a hopping window contains its time');
SELECT is_empty(
	'SELECT p.zone, p.ts, g.* FROM point p CROSS JOIN grid g
	WHERE (SELECT array_agg(w ORDER BY w)
			FROM weir.hop(p.ts, g.size, g.slide, g.origin, p.zone) w)
		IS DISTINCT FROM
		(SELECT array_agg(w ORDER BY w)
			FROM weir_internal.pane_start(p.ts, g.size, g.slide, g.origin, p.zone) s
			CROSS JOIN weir.hop(s, g.size, g.slide, g.origin, p.zone) w)',
	'the windows of a pane are those of all its rows');
SELECT is_empty(
	'SELECT a.* FROM (SELECT DISTINCT zone, size, slide, origin, window_start, window_end FROM hopped) a
		JOIN point p ON p.zone = a.zone AND p.ts >= a.window_start AND p.ts < a.window_end
		LEFT JOIN hopped b ON b.zone = a.zone AND b.size = a.size AND b.slide = a.slide
			AND b.origin IS NOT DISTINCT FROM a.origin AND b.ts = p.ts
			AND b.window_start = a.window_start AND b.window_end = a.window_end
	WHERE b.ts IS NULL',
	'a hopping window has all times between its start and end');
SELECT is_empty(
	'SELECT p.*, g.size FROM point p CROSS JOIN grid g
		CROSS JOIN weir.tumble(p.ts, g.size, g.origin, p.zone) t
		CROSS JOIN weir.hop(p.ts, g.size, g.size, g.origin, p.zone) h
	WHERE t IS DISTINCT FROM h',
	'hopping by the whole size is tumbling');

-- Cumulating.
SELECT is_empty(
	'SELECT p.ts FROM point p
		CROSS JOIN weir.tumble(p.ts, ''1 day'', NULL, p.zone) t
		CROSS JOIN weir.cumulate(p.ts, ''1 day'', ''6 hours'', NULL, p.zone) c
	GROUP BY p.zone, p.ts, t.window_start, t.window_end
	HAVING min(c.window_start) <> t.window_start
		OR max(c.window_start) <> t.window_start
		OR max(c.window_end) <> t.window_end
		OR min(c.window_end) <= p.ts',
	'cumulating windows grow to the tumbling one');
SELECT results_eq(
	'SELECT window_end FROM weir.cumulate(''2024-10-27 03:30Z'', ''1 day'', ''6 hours'', timezone => ''Europe/Berlin'')',
	$$VALUES ('2024-10-27 05:00Z'::timestamptz), ('2024-10-27 11:00Z'),
		('2024-10-27 17:00Z'), ('2024-10-27 23:00Z')$$,
	'cumulating windows follow the zone''s clock');
SELECT * FROM finish();
ROLLBACK;
