-- Windows: set-returning functions, used LATERAL, that give each row its
-- windows.  weir.tumble is inlined by the planner; the arithmetic, and what
-- happens when clocks change, is in src/stream_window.c.

CREATE FUNCTION weir_internal.window_start(ts timestamptz, size interval,
	origin timestamp, timezone text)
RETURNS timestamptz
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'weir_window_start';

CREATE FUNCTION weir_internal.window_end(ts timestamptz, size interval,
	origin timestamp, timezone text)
RETURNS timestamptz
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'weir_window_end';

CREATE FUNCTION weir_internal.pane_start(ts timestamptz, size interval,
	slide interval, origin timestamp, timezone text)
RETURNS timestamptz
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'weir_pane_start';

COMMENT ON FUNCTION weir_internal.pane_start(timestamptz, interval, interval, timestamp, text) IS
'start of the span between two window boundaries that ts lies in';

-- In a compiled statement it takes the place of weir.hop: one row instead of
-- one a window, and its only use is as the group key window_start.
CREATE FUNCTION weir_internal.pane(ts timestamptz, size interval,
	slide interval, origin timestamp DEFAULT NULL, timezone text DEFAULT 'UTC',
	OUT window_start timestamptz, OUT window_end timestamptz)
RETURNS SETOF record
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1
BEGIN ATOMIC
	SELECT weir_internal.pane_start(ts, size, slide, origin, timezone),
		NULL::timestamptz;
END;

CREATE FUNCTION weir.tumble(ts timestamptz, size interval,
	origin timestamp DEFAULT NULL, timezone text DEFAULT 'UTC',
	OUT window_start timestamptz, OUT window_end timestamptz)
RETURNS SETOF record
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1
BEGIN ATOMIC
	SELECT weir_internal.window_start(ts, size, origin, timezone),
		weir_internal.window_end(ts, size, origin, timezone);
END;

COMMENT ON FUNCTION weir.tumble(timestamptz, interval, timestamp, text) IS
'the tumbling window of ts: windows of the given size, one after the other. origin (local time in timezone; default Monday 2000-01-03 00:00, for sizes in months 2000-01-01) is where some window starts. Sizes of less than a day, or given in hours and smaller units only, are elapsed time from the instant of the origin: each window lasts its size whatever the clocks do. Days, weeks, months and years are of the clock of timezone: a day has 23 or 25 hours when clocks change. A ts that is NULL or infinite gives NULLs. Errors: 22023 for a size that is not positive or mixes months with days';

CREATE FUNCTION weir.hop(ts timestamptz, size interval, slide interval,
	origin timestamp DEFAULT NULL, timezone text DEFAULT 'UTC',
	OUT window_start timestamptz, OUT window_end timestamptz)
RETURNS SETOF record
LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 10
AS 'MODULE_PATHNAME', 'weir_hop';

COMMENT ON FUNCTION weir.hop(timestamptz, interval, interval, timestamp, text) IS
'the hopping windows of ts, earliest first: windows of the given size, one starting every slide. Windows of days may start or end together when clocks are set forward. origin and timezone as for weir.tumble. Errors: 22023 for a slide greater than the size, sizes that are not positive or mix months with days';

CREATE FUNCTION weir.cumulate(ts timestamptz, size interval, step interval,
	origin timestamp DEFAULT NULL, timezone text DEFAULT 'UTC',
	OUT window_start timestamptz, OUT window_end timestamptz)
RETURNS SETOF record
LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 10
AS 'MODULE_PATHNAME', 'weir_cumulate';

COMMENT ON FUNCTION weir.cumulate(timestamptz, interval, interval, timestamp, text) IS
'the cumulating windows of ts, shortest first: they share the start of the tumbling window of the given size and end a step further each. origin and timezone as for weir.tumble. Errors: 22023 for a size that is no multiple of the step, sizes that are not positive or mix months with days';

-- A timestamp without time zone is taken as UTC, as ingest takes it; a cast
-- would take it at the session's zone.
CREATE FUNCTION weir.tumble(ts timestamp, size interval,
	origin timestamp DEFAULT NULL, timezone text DEFAULT 'UTC',
	OUT window_start timestamptz, OUT window_end timestamptz)
RETURNS SETOF record
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1
BEGIN ATOMIC
	SELECT weir_internal.window_start(ts AT TIME ZONE 'UTC', size, origin, timezone),
		weir_internal.window_end(ts AT TIME ZONE 'UTC', size, origin, timezone);
END;

COMMENT ON FUNCTION weir.tumble(timestamp, interval, timestamp, text) IS
'as weir.tumble(timestamptz, ...), ts in UTC';

CREATE FUNCTION weir.hop(ts timestamp, size interval, slide interval,
	origin timestamp DEFAULT NULL, timezone text DEFAULT 'UTC',
	OUT window_start timestamptz, OUT window_end timestamptz)
RETURNS SETOF record
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 10
BEGIN ATOMIC
	SELECT w.window_start, w.window_end
	FROM weir.hop(ts AT TIME ZONE 'UTC', size, slide, origin, timezone) w;
END;

COMMENT ON FUNCTION weir.hop(timestamp, interval, interval, timestamp, text) IS
'as weir.hop(timestamptz, ...), ts in UTC';

CREATE FUNCTION weir_internal.pane(ts timestamp, size interval,
	slide interval, origin timestamp DEFAULT NULL, timezone text DEFAULT 'UTC',
	OUT window_start timestamptz, OUT window_end timestamptz)
RETURNS SETOF record
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1
BEGIN ATOMIC
	SELECT weir_internal.pane_start(ts AT TIME ZONE 'UTC', size, slide, origin, timezone),
		NULL::timestamptz;
END;

CREATE FUNCTION weir.cumulate(ts timestamp, size interval, step interval,
	origin timestamp DEFAULT NULL, timezone text DEFAULT 'UTC',
	OUT window_start timestamptz, OUT window_end timestamptz)
RETURNS SETOF record
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 10
BEGIN ATOMIC
	SELECT w.window_start, w.window_end
	FROM weir.cumulate(ts AT TIME ZONE 'UTC', size, step, origin, timezone) w;
END;

COMMENT ON FUNCTION weir.cumulate(timestamp, interval, interval, timestamp, text) IS
'as weir.cumulate(timestamptz, ...), ts in UTC';

CREATE FUNCTION weir.session(ts timestamptz, gap interval,
	OUT window_start timestamptz, OUT window_end timestamptz)
RETURNS SETOF record
LANGUAGE c STABLE
AS 'MODULE_PATHNAME', 'weir_session';

COMMENT ON FUNCTION weir.session(timestamptz, interval) IS
'not supported in this release: raises 0A000';
