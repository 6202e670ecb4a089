-- Window functions: weir.tumble, weir.hop, weir.cumulate.
-- They are ordinary set-returning functions, used LATERAL over any table.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS weir;
RESET client_min_messages;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, YMD';
SET IntervalStyle = 'postgres';

-- A tumbling window: one a row.
SELECT * FROM weir.tumble('2024-05-01 10:07:30', '15 minutes');

-- Hopping windows overlap; cumulating ones share their start.
SELECT * FROM weir.hop('2024-05-01 10:07:30', '15 minutes', '5 minutes');
SELECT * FROM weir.cumulate('2024-05-01 10:07:30', '1 hour', '20 minutes');

-- A slide that does not divide the size.
SELECT * FROM weir.hop('2024-05-01 10:07:30', '10 minutes', '4 minutes');

-- A boundary begins a window; it is not in the one before.
SELECT * FROM weir.tumble('2024-05-01 10:15:00', '15 minutes');
SELECT * FROM weir.tumble('2024-05-01 10:14:59.999999', '15 minutes');

-- Weeks begin on Mondays, also before the origin; origin is another start.
SELECT * FROM weir.tumble('1999-12-29 12:00', '7 days');
SELECT * FROM weir.tumble('2024-05-01 10:07:30', '7 days',
	origin => '2024-01-07');
SELECT * FROM weir.tumble('2024-05-01 10:07:30', '1 hour',
	origin => '2000-01-03 00:30');

-- Months and years follow the calendar.
SELECT * FROM weir.tumble('2024-02-29 12:00', '1 month');
SELECT * FROM weir.tumble('2024-02-29 12:00', '1 year');
SELECT * FROM weir.hop('2024-02-29 12:00', '3 months', '1 month');
SELECT * FROM weir.tumble('2024-02-29 12:00', '1 month',
	origin => '2000-01-31');

-- Windows are in UTC whatever the session's zone, unless told otherwise.
SET TimeZone = 'America/New_York';
SELECT window_start AT TIME ZONE 'UTC' AS utc
FROM weir.tumble('2024-05-01 22:00-04', '1 day');
SELECT window_start AT TIME ZONE 'Europe/Berlin' AS berlin
FROM weir.tumble('2024-05-01 22:00-04', '1 day', timezone => 'Europe/Berlin');
SET TimeZone = 'UTC';

-- When clocks change, a day has 23 or 25 hours, 24 hours have 24 ...
SELECT w.*, window_end - window_start AS length
FROM (VALUES ('2024-03-31 12:00Z'::timestamptz), ('2024-10-27 12:00Z')) t (ts)
	CROSS JOIN weir.tumble(t.ts, '1 day', timezone => 'Europe/Berlin') w;

-- ... but an hour is an hour: 02:00 to 03:00 comes twice on this day, and so
-- does its window.
SELECT DISTINCT w.*, window_end - window_start AS length
FROM generate_series('2024-10-26 23:00Z'::timestamptz, '2024-10-27 02:30Z',
		'10 minutes') ts
	CROSS JOIN weir.tumble(ts, '1 hour', timezone => 'Europe/Berlin') w
ORDER BY 1;

-- In spring 02:00 to 03:00 does not come, and has no window.
SELECT DISTINCT w.*, window_end - window_start AS length
FROM generate_series('2024-03-31 00:00Z'::timestamptz, '2024-03-31 02:30Z',
		'10 minutes') ts
	CROSS JOIN weir.tumble(ts, '30 minutes', timezone => 'Europe/Berlin') w
ORDER BY 1;

-- A timestamp without time zone is in UTC whatever the session's zone.
SET TimeZone = 'Asia/Tokyo';
SELECT window_start AT TIME ZONE 'UTC' AS utc
FROM weir.tumble('2024-05-01 10:07:30'::timestamp, '1 hour');
SELECT count(*) FROM weir.hop('2024-05-01 10:07:30'::timestamp, '1 hour', '7 minutes');
SELECT count(*) FROM weir.cumulate('2024-05-01 10:07:30'::timestamp, '1 hour', '5 minutes');
SET TimeZone = 'UTC';

-- No time, no window.
SELECT * FROM weir.tumble(NULL, '1 hour');
SELECT * FROM weir.hop('infinity', '1 hour', '10 minutes');

-- What is refused.
SELECT * FROM weir.tumble(now(), '0');
SELECT * FROM weir.tumble(now(), '-1 hour');
SELECT * FROM weir.tumble(now(), '1 month 1 day');
SELECT * FROM weir.hop(now(), '1 minute', '10 minutes');
SELECT * FROM weir.hop(now(), '1 month', '1 day');
SELECT * FROM weir.cumulate(now(), '1 hour', '25 minutes');
SELECT * FROM weir.tumble(now(), '1 hour', timezone => 'Europe/Atlantis');
SELECT * FROM weir.tumble(now(), '1 hour', origin => 'infinity');
SELECT * FROM weir.session(now(), '1 hour');

-- The planner sees through weir.tumble: no function scan is left.
CREATE TABLE readings (at timestamptz, value int);
EXPLAIN (COSTS OFF)
SELECT w.window_start, sum(r.value)
FROM readings r CROSS JOIN weir.tumble(r.at, '1 hour') w
GROUP BY w.window_start;
DROP TABLE readings;
