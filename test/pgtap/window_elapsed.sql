-- Windows of elapsed time last their size in every zone and at every change
-- of the clocks, and every instant lies in size / slide of them: they equal
-- date_bin() from the instant of the origin.  Windows of the local clock come
-- once.  Of both kinds, one of window_start and window_end tells the other
-- where creating a stream relies on it.
BEGIN;
CREATE EXTENSION IF NOT EXISTS weir;
CREATE EXTENSION IF NOT EXISTS pgtap;
SELECT no_plan();
SET LOCAL TimeZone = 'UTC';
SET LOCAL IntervalStyle = 'postgres';
SELECT setseed(0.17);

-- Zones that move by an hour, half an hour, two hours, backwards (Dublin,
-- Casablanca), that once did, that changed their offset by seconds, minutes
-- or a day, and rules in POSIX's notation.
CREATE TEMP TABLE zone (zone text);
INSERT INTO zone VALUES ('Europe/Paris'), ('America/Chicago'),
	('America/New_York'), ('Australia/Lord_Howe'), ('Europe/Dublin'),
	('Africa/Casablanca'), ('Antarctica/Troll'), ('Asia/Tokyo'),
	('Asia/Shanghai'), ('Europe/Amsterdam'), ('Asia/Kathmandu'),
	('America/Caracas'), ('Pacific/Apia'), ('Pacific/Kwajalein'),
	('America/Sao_Paulo'), ('Africa/Monrovia'), ('UTC'), ('EST5EDT'),
	('<+14>-14<-10>10,M3.2.0,M11.1.0');

-- Days on which the clocks of a zone changed, seven of them each, and times
-- around the changes: from months before to months after, most within hours.
CREATE TEMP TABLE change AS
SELECT zone, day
FROM (SELECT z.zone, day, row_number() OVER (PARTITION BY z.zone
			ORDER BY day > '1945-01-01', random()) AS n
		FROM zone z CROSS JOIN generate_series(timestamp '1880-01-01', '2037-12-31', '1 day') day
		WHERE day AT TIME ZONE z.zone - (day - interval '1 day') AT TIME ZONE z.zone <> '24 hours') s
WHERE n <= 3 OR n % 40 = 0
UNION VALUES ('Europe/Paris', timestamp '2025-10-26'), ('Europe/Paris', '2025-03-30'),
	('America/Chicago', '2025-11-02'), ('America/New_York', '2024-03-10'),
	('Australia/Lord_Howe', '2024-04-07'), ('Australia/Lord_Howe', '2024-10-06'),
	('Pacific/Apia', '2011-12-30'), ('UTC', '2024-02-29');
CREATE TEMP TABLE point AS
SELECT DISTINCT zone, ts
FROM (SELECT zone, day AT TIME ZONE 'UTC' + (random() - 0.4) * interval '60 hours' AS ts
		FROM change, generate_series(1, 8)
	UNION ALL
	SELECT zone, date_trunc('minute', day AT TIME ZONE zone) + h * interval '30 minutes'
	FROM change, generate_series(-4, 8) h
	UNION ALL
	SELECT zone, day AT TIME ZONE zone + (random() - 0.5) * interval '400 days'
	FROM change, generate_series(1, 3)) p;
SELECT cmp_ok(count(*), '>', 2000::bigint, 'there are points enough') FROM point;

CREATE TEMP TABLE grid (size interval, slide interval, origin timestamp);
INSERT INTO grid VALUES
	('15 minutes', '15 minutes', NULL), ('1 hour', '1 hour', '2024-07-01'),
	('1 hour', '15 minutes', NULL), ('2 hours', '1 hour', '2024-07-01 00:30'),
	('7 hours', '2 hours', NULL), ('23:59:59.999999', '6 hours', '1950-01-01'),
	('1 second', '1 second', '2000-03-26 02:30'), ('12 hours', '12 hours', '1999-10-31 02:30'),
	('24 hours', '1 hour', '2010-07-01'), ('36 hours', '12 hours', NULL),
	('1 day -6 hours', '1 hour', NULL);

-- The instant of the origin: a time of the local clock; where that skips it,
-- or shows it twice, the first instant that shows it or a later one.
CREATE TEMP TABLE placed AS
SELECT z.zone, g.*, (SELECT min(t)
		FROM generate_series(minute - interval '1 minute', minute, '1 second') t
		WHERE t AT TIME ZONE z.zone >= o) AS origin_at
FROM zone z CROSS JOIN grid g
	CROSS JOIN coalesce(g.origin, '2000-01-03') o
	CROSS JOIN LATERAL (SELECT min(t)
		FROM generate_series(o AT TIME ZONE 'UTC' - interval '27 hours',
			o AT TIME ZONE 'UTC' + interval '27 hours', '1 minute') t
		WHERE t AT TIME ZONE z.zone >= o) m (minute);

-- Tumbling.
CREATE TEMP TABLE tumbled AS
SELECT p.zone, p.ts, g.size, g.origin_at, w.*
FROM point p JOIN placed g USING (zone)
	CROSS JOIN weir.tumble(p.ts, g.size, g.origin, p.zone) w;
SELECT is_empty(
	'SELECT * FROM tumbled WHERE extract(epoch FROM window_end - window_start) IS DISTINCT FROM extract(epoch FROM size)',
	'W4: a window lasts exactly its size');
SELECT is_empty(
	'SELECT * FROM tumbled WHERE NOT coalesce(window_start <= ts AND ts < window_end, false)',
	'W2: and contains its time');
SELECT is_empty(
	'SELECT * FROM tumbled WHERE window_start <> date_bin(size, ts, origin_at)',
	'it is date_bin from the instant of the origin');

-- Hopping.
CREATE TEMP TABLE hopped AS
SELECT p.zone, p.ts, g.size, g.slide, g.origin, g.origin_at, w.*
FROM (SELECT * FROM point WHERE random() < 0.25) p JOIN placed g USING (zone)
	CROSS JOIN weir.hop(p.ts, g.size, g.slide, g.origin, p.zone) w;
SELECT is_empty(
	'SELECT zone, ts, size, slide FROM hopped GROUP BY zone, ts, size, slide, origin
	HAVING count(DISTINCT (window_start, window_end)) <> count(*)
		OR count(*) NOT IN (floor(extract(epoch FROM size) / extract(epoch FROM slide)),
			ceil(extract(epoch FROM size) / extract(epoch FROM slide)))',
	'every instant lies in size / slide windows, each once');
SELECT is_empty(
	'SELECT * FROM hopped WHERE NOT (window_start <= ts AND ts < window_end)
		OR extract(epoch FROM window_end - window_start) <> extract(epoch FROM size)
		OR window_start <> date_bin(slide, window_start, origin_at)',
	'W2, W4: each contains it, lasts its size, and starts at the origin and whole slides');
SELECT is_empty(
	'SELECT DISTINCT p.zone, p.ts, g.size FROM point p JOIN placed g USING (zone)
		CROSS JOIN weir_internal.pane_start(p.ts, g.size, g.slide, g.origin, p.zone) s
	WHERE random() < 0.1 AND (SELECT array_agg(w) FROM weir.hop(p.ts, g.size, g.slide, g.origin, p.zone) w)
		IS DISTINCT FROM (SELECT array_agg(w) FROM weir.hop(s, g.size, g.slide, g.origin, p.zone) w)
		OR s > p.ts',
	'the windows of a pane are those of its start');

-- Cumulating.
SELECT is_empty(
	'SELECT p.zone, p.ts, g.size, g.slide
	FROM point p JOIN placed g USING (zone)
		CROSS JOIN weir.tumble(p.ts, g.size, g.origin, p.zone) t
	WHERE mod(extract(epoch FROM size), extract(epoch FROM slide)) = 0
		AND (SELECT array_agg((window_start, window_end) ORDER BY window_end)
			FROM weir.cumulate(p.ts, g.size, g.slide, g.origin, p.zone))
		IS DISTINCT FROM
		(SELECT array_agg((t.window_start, e) ORDER BY e)
			FROM generate_series(t.window_start + g.slide, t.window_end, g.slide) e
			WHERE e > p.ts)',
	'cumulating windows grow by exactly a step');

-- Days, and what they are measured in, are times of the local clock.
CREATE TEMP TABLE local (size interval, slide interval, origin timestamp);
INSERT INTO local VALUES ('1 day', '1 day', NULL), ('1 day', '1 hour', NULL),
	('1 day 12 hours', '30 minutes', NULL), ('2 days', '1 day', NULL),
	('364 days', '4 days', '2024-03-10 02:00'), ('1 month', '1 month', NULL);
CREATE TEMP TABLE hopped_local AS
SELECT p.zone, p.ts, g.*, w.*
FROM (SELECT * FROM point WHERE random() < 0.25) p CROSS JOIN local g
	CROSS JOIN weir.hop(p.ts, g.size, g.slide, g.origin, p.zone) w;
SELECT is_empty(
	'SELECT zone, ts, size, slide FROM hopped_local GROUP BY zone, ts, size, slide, origin, window_start, window_end
	HAVING count(*) > 1',
	'W5: no window comes twice');
SELECT is_empty(
	'SELECT * FROM hopped_local WHERE NOT (window_start <= ts AND ts < window_end)',
	'W2: each contains its time');
SELECT isnt_empty(
	'SELECT zone, window_start FROM hopped_local WHERE size = ''1 day'' AND slide < size
	GROUP BY zone, window_start HAVING count(DISTINCT window_end) > 1',
	'windows of the local clock may share their start');
SELECT isnt_empty(
	'SELECT zone, window_end FROM hopped_local WHERE size = ''1 day'' AND slide < size
	GROUP BY zone, window_end HAVING count(DISTINCT window_start) > 1',
	'or their end');
-- 52 weeks lie between two changes of New York: all that is skipped at the
-- one starts then, and ends at the other.
SELECT results_eq(
	$$SELECT count(*), count(DISTINCT w) FROM weir.hop('2024-06-01', '364 days', '30 minutes', timezone => 'America/New_York') w$$,
	'VALUES (364 * 48 - 2::bigint, 364 * 48 - 2::bigint)',
	'windows that coincide at both ends are one');
SELECT results_eq(
	$$SELECT window_start, window_end FROM weir.cumulate('2024-03-10 06:00Z', '1 day', '30 minutes', timezone => 'America/New_York') LIMIT 4$$,
	$$VALUES ('2024-03-10 05:00Z'::timestamptz, '2024-03-10 06:30Z'::timestamptz), ('2024-03-10 05:00Z', '2024-03-10 07:00Z'),
		('2024-03-10 05:00Z', '2024-03-10 07:30Z'), ('2024-03-10 05:00Z', '2024-03-10 08:00Z')$$,
	'cumulating, too');

-- Which column tells the other; stream_analyze.c relies on it.
CREATE TEMP TABLE told AS
SELECT zone, 'hop ' || size || ' ' || slide || coalesce(origin::text, '') AS windows, window_start, window_end FROM hopped
UNION ALL
SELECT zone, 'tumble ' || size || ' ' || origin_at, window_start, window_end FROM tumbled
UNION ALL
SELECT p.zone, 'tumble ' || size, w.*
FROM point p, (VALUES ('1 day'::interval), ('2 days'), ('7 days'), ('1 month'), ('1 year')) s (size),
	weir.tumble(p.ts, size, timezone => p.zone) w;
SELECT is_empty(
	'SELECT zone, windows, window_start FROM told GROUP BY 1, 2, 3 HAVING count(DISTINCT window_end) > 1',
	'the start of a tumbling window, or of one of elapsed time, tells its end');
SELECT is_empty(
	'SELECT zone, windows, window_end FROM told GROUP BY 1, 2, 3 HAVING count(DISTINCT window_start) > 1',
	'and the end its start');

-- By hand.
SELECT results_eq(
	$$SELECT DISTINCT window_start, window_end FROM generate_series('2025-10-26 00:15Z'::timestamptz, '2025-10-26 02:14Z', '1 minute') ts,
		weir.tumble(ts, '30 minutes', timezone => 'Europe/Paris') ORDER BY 1$$,
	$$SELECT s, s + interval '30 minutes' FROM generate_series('2025-10-26 00:00Z'::timestamptz, '2025-10-26 02:00Z', '30 minutes') s$$,
	'the repeated hour has windows of its own');
SELECT results_eq(
	$$SELECT to_char(window_start AT TIME ZONE 'Australia/Lord_Howe', 'HH24:MI') FROM (VALUES ('2024-01-15 12:10Z'::timestamptz), ('2024-07-15 12:10Z')) t (ts),
		weir.tumble(ts, '1 hour', timezone => 'Australia/Lord_Howe') ORDER BY ts$$,
	$$VALUES ('23:00'), ('22:30')$$,
	'where clocks move by half an hour, hours start at the half hour in the other half of the year');
SELECT results_eq(
	$$SELECT window_end - window_start FROM (VALUES ('24 hours'::interval), ('1 day')) s (size), weir.tumble('2025-10-26 12:00Z', size, timezone => 'Europe/Paris')$$,
	$$VALUES ('24:00:00'::interval), ('1 day 01:00:00')$$,
	'24 hours are elapsed time, a day is one of the calendar');

-- What lies past the ends of time is refused.
PREPARE past_end AS SELECT * FROM weir.tumble('294276-12-31', '10000 days');
PREPARE before_start AS SELECT * FROM weir.hop('4714-11-24 00:00Z BC', '10 days', '1 day');
PREPARE too_long AS SELECT * FROM weir.tumble('2024-01-01', '100000000 days 2000000000 hours');
SELECT throws_ok('past_end', '22008');
SELECT throws_ok('before_start', '22008');
SELECT throws_ok('too_long', '22023');
SELECT * FROM finish();
ROLLBACK;
