/*-------------------------------------------------------------------------
 *
 * stream_window.c
 *	  Window arithmetic: which windows a point in time lies in.
 *
 * There are two kinds of grids.
 *
 * Elapsed time: sizes of less than a day, and all that are given (size and
 * slide) in hours and smaller units only.  Boundary n is the instant of the
 * origin + n * slide, whatever the clocks do meanwhile.  So each window lasts
 * exactly its size, and an instant lies in size / slide windows, on every day
 * of every zone.  Of the zone only its offset at the origin matters: windows
 * that start at full hours go on to do so where clocks are moved by whole
 * hours; those of two hours start at odd ones in the other half of the year.
 *
 * Local clock: days and weeks (a slide or step in hours, too, when the size
 * is in days), months and years.  Boundary n is origin + n * slide as the
 * clock of the time zone shows it, so a window of a day has 23 or 25 hours
 * when the clocks change, and windows in months follow the calendar.  A row
 * must nevertheless lie inside its window, and the windows of a tumbling grid
 * must share out time without gaps or overlaps, or a watermark would close a
 * window too early.  A wall clock does not give that by itself: it repeats an
 * hour in autumn and skips one in spring.  So:
 *
 *	 clock(t)  what the local clock shows at t, except that it stands still
 *			   while an hour is repeated: it never goes back
 *	 B(l)	   the first instant at which the clock shows l or later; a time
 *			   that is skipped begins at the change
 *
 * Invariants, which the tests check around changes of the clocks:
 *	 W1	 B(l) <= t if and only if l <= clock(t); both never decrease
 *	 W2	 a window [B(l), B(l + size)) of t contains t
 *	 W3	 a grid of tumbling windows shares out all of time
 *	 W4	 a window of elapsed time lasts its size
 *	 W5	 a window comes once
 *
 * By W3 the start of a tumbling window tells its end, and the end its start,
 * in any zone.  So it is with hopping windows of elapsed time, or where the
 * clock never changes.  On a local clock that changes, different boundaries
 * can be one instant, all those that are skipped at a time: then two hopping
 * windows may share their start or their end (stream_analyze.c asks), and
 * even both: that is one window (W5).
 *
 * A pane is the span between two neighbouring boundaries, starts or ends, of
 * overlapping windows: all rows of a pane lie in the same windows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/int.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "stream_window.h"

/* Monday 2000-01-03, and 2000-01-01 for months; 2000-01-01 is zero. */
#define DEFAULT_ORIGIN (INT64CONST(2) * USECS_PER_DAY)
#define DEFAULT_ORIGIN_MONTHS INT64CONST(0)

#define MAX_SIZE_DAYS 100000000

/*
 * Two instants that the clocks of a zone show alike, or in the wrong order,
 * are less than this apart: offsets are less than a week (167 hours, in
 * POSIX's notation), and times as instants are off by less than one, too.
 */
#define LOOK_BACK (14 * USECS_PER_DAY)

#define UNIX_EPOCH_SECS \
	((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (int64) SECS_PER_DAY)

typedef enum GridKind
{
	GRID_TUMBLE,
	GRID_HOP,
	GRID_CUMULATE
} GridKind;

typedef struct WindowGrid
{
	bool		months;			/* units are months, else microseconds */
	int64		size;
	int64		slide;			/* step of a cumulating window */
	Timestamp	origin;			/* as the local clock shows it, or (zone is
								 * NULL) an instant */
	pg_tz	   *zone;			/* of the local clock; NULL: elapsed time */
} WindowGrid;

PG_FUNCTION_INFO_V1(weir_window_start);
PG_FUNCTION_INFO_V1(weir_window_end);
PG_FUNCTION_INFO_V1(weir_pane_start);
PG_FUNCTION_INFO_V1(weir_hop);
PG_FUNCTION_INFO_V1(weir_cumulate);
PG_FUNCTION_INFO_V1(weir_session);

static int64
floor_div(int64 a, int64 b)
{
	int64		q = a / b;

	return (a % b < 0) ? q - 1 : q;
}

/*
 * The first change of the clocks after `from`; false when there is none, and
 * then only *before is set.  Offsets in microseconds east of Greenwich.
 */
bool
window_next_change(pg_tz *zone, TimestampTz from, int64 *before,
				   TimestampTz *change, int64 *after)
{
	pg_time_t	start = (pg_time_t) (floor_div(from, USECS_PER_SEC) +
									 UNIX_EPOCH_SECS);
	long int	before_off;
	long int	after_off;
	int			before_dst;
	int			after_dst;
	pg_time_t	boundary;
	int			res;

	res = pg_next_dst_boundary(&start, &before_off, &before_dst, &boundary,
							   &after_off, &after_dst, zone);
	*before = res < 0 ? 0 : before_off * USECS_PER_SEC;
	if (res <= 0)
		return false;
	*change = ((int64) boundary - UNIX_EPOCH_SECS) * USECS_PER_SEC;
	*after = after_off * USECS_PER_SEC;
	return true;
}

/* clock(t) of the banner. */
static Timestamp
clock_at(pg_tz *zone, TimestampTz t)
{
	TimestampTz from = t - LOOK_BACK;
	int64		shown = PG_INT64_MIN;	/* the most before the last change */
	int64		before;
	int64		change;
	int64		after;

	if (zone == NULL)
		return t;
	while (window_next_change(zone, from, &before, &change, &after) && change <= t)
	{
		shown = Max(shown, change + before - 1);
		from = change;
	}
	return Max(shown, t + before);
}

/* B(l) of the banner. */
static TimestampTz
instant_of(pg_tz *zone, Timestamp l)
{
	TimestampTz from = l - LOOK_BACK;
	int64		since = PG_INT64_MIN;	/* the last change */
	int64		before;
	int64		change;
	int64		after;

	if (zone == NULL)
		return l;
	while (window_next_change(zone, from, &before, &change, &after) &&
		   change <= l - before)
	{
		since = change;
		from = change;
	}
	return Max(since, l - before);
}

static void
out_of_range(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
			 errmsg("timestamp out of range")));
}

static int64
add_units(int64 a, int64 b)
{
	int64		sum;

	if (pg_add_s64_overflow(a, b, &sum))
		out_of_range();
	return sum;
}

/* The grid's point n: units (microseconds or months) after the origin. */
static Timestamp
grid_point(const WindowGrid *grid, int64 n)
{
	Interval	span = {0};

	if (!grid->months)
		return add_units(grid->origin, n);
	if (n != (int32) n)
		out_of_range();
	span.month = (int32) n;
	return DatumGetTimestamp(DirectFunctionCall2(timestamp_pl_interval,
												 TimestampGetDatum(grid->origin),
												 IntervalPGetDatum(&span)));
}

/* The instant of the grid's point n. */
static TimestampTz
grid_instant(const WindowGrid *grid, int64 n)
{
	TimestampTz t = instant_of(grid->zone, grid_point(grid, n));

	if (!IS_VALID_TIMESTAMP(t))
		out_of_range();
	return t;
}

/* The greatest n = phase + k * step whose point is at or before l. */
static int64
grid_floor(const WindowGrid *grid, Timestamp l, int64 step, int64 phase)
{
	int64		n;

	if (!grid->months)
		n = add_units(l, -grid->origin);
	else
	{
		struct pg_tm tm1;
		struct pg_tm tm2;
		fsec_t		fsec;

		if (timestamp2tm(l, NULL, &tm1, &fsec, NULL, NULL) != 0 ||
			timestamp2tm(grid->origin, NULL, &tm2, &fsec, NULL, NULL) != 0)
			out_of_range();
		n = (tm1.tm_year - tm2.tm_year) * (int64) MONTHS_PER_YEAR +
			tm1.tm_mon - tm2.tm_mon;
		if (grid_point(grid, n) > l)
			n--;
	}
	return phase + floor_div(add_units(n, -phase), step) * step;
}

/* An interval as microseconds (a day is 24 hours) or as months. */
static int64
interval_units(const Interval *span, const char *what, bool *months)
{
	int64		units;

	*months = span->month != 0;
	if (*months && (span->day != 0 || span->time != 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of a window mixes months with days", what),
				 errhint("Give it in months, or in days, hours and smaller units.")));
	if (*months)
		units = span->month;
	else if (span->day > MAX_SIZE_DAYS || span->day < -MAX_SIZE_DAYS ||
			 pg_add_s64_overflow(span->day * USECS_PER_DAY, span->time,
								 &units))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of a window is too large", what)));
	if (units <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of a window must be greater than zero", what)));
	return units;
}

/*
 * Is the grid one of elapsed time?  Days and months are times of the local
 * clock, if there is at least one of them in a window.
 */
static bool
elapsed_time(const WindowGrid *grid, const Interval *size,
			 const Interval *slide)
{
	if (grid->months)
		return false;
	return grid->size < USECS_PER_DAY ||
		(size->day == 0 && (slide == NULL || slide->day == 0));
}

/* NULL for UTC. */
static pg_tz *
find_zone(const text *zone)
{
	char	   *name = text_to_cstring(zone);
	pg_tz	   *found = NULL;

	if (pg_strcasecmp(name, "UTC") != 0)
	{
		found = pg_tzset(name);
		if (found == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("time zone \"%s\" not recognized", name),
					 errhint("Names of time zones are in the view pg_timezone_names.")));
	}
	pfree(name);
	return found;
}

/* slide is NULL for a tumbling grid; origin is NULL for the default. */
static void
make_grid(WindowGrid *grid, GridKind kind, const Interval *size,
		  const Interval *slide, const Timestamp *origin, const text *zone)
{
	const char *slide_word = kind == GRID_CUMULATE ? "step" : "slide";
	bool		slide_months;

	grid->size = interval_units(size, "size", &grid->months);
	grid->slide = grid->size;
	if (kind != GRID_TUMBLE)
	{
		grid->slide = interval_units(slide, slide_word, &slide_months);
		if (slide_months != grid->months)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("size and %s of a window mix months with days",
							slide_word),
					 errhint("Give both in months, or both in days, hours and smaller units.")));
		if (grid->slide > grid->size)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s of a window is greater than its size",
							slide_word),
					 errhint("The size comes before the %s: are the arguments swapped?",
							 slide_word)));
		if (kind == GRID_CUMULATE && grid->size % grid->slide != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("size of a cumulating window must be a multiple of its step")));
	}

	if (origin == NULL)
		grid->origin = grid->months ? DEFAULT_ORIGIN_MONTHS : DEFAULT_ORIGIN;
	else if (TIMESTAMP_NOT_FINITE(*origin))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("origin of a window must be finite")));
	else
		grid->origin = *origin;

	grid->zone = zone ? find_zone(zone) : NULL;
	if (elapsed_time(grid, size, kind == GRID_TUMBLE ? NULL : slide))
	{
		grid->origin = instant_of(grid->zone, grid->origin);
		grid->zone = NULL;
	}
}

void
stream_window_check(WindowArgs *args)
{
	WindowGrid	grid;
	long int	offset;

	make_grid(&grid, args->hop ? GRID_HOP : GRID_TUMBLE, args->size,
			  args->slide, args->origin, args->zone);
	args->months = grid.months;
	args->units = grid.size;
	args->per_row = (grid.size - 1) / grid.slide + 1;
	args->local_clock = grid.zone != NULL &&
		!pg_get_timezone_offset(grid.zone, &offset);
}

/*
 * The grid of a call (ts, size, [slide,] origin, timezone); NULL when an
 * argument that it needs is NULL.  Kept in fn_extra when all but ts are
 * constants, as they are in a stream.
 */
static const WindowGrid *
call_grid(FunctionCallInfo fcinfo, GridKind kind)
{
	FmgrInfo   *flinfo = fcinfo->flinfo;
	int			n = kind == GRID_TUMBLE ? 2 : 3;
	WindowGrid *grid;
	Timestamp	origin = 0;
	bool		stable = true;

	Assert(PG_NARGS() == n + 2);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(n - 1) ||
		TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(0)))
		return NULL;
	if (flinfo->fn_extra != NULL)
		return flinfo->fn_extra;

	for (int i = 1; i < PG_NARGS(); i++)
		stable = stable && get_fn_expr_arg_stable(flinfo, i);
	grid = MemoryContextAlloc(stable ? flinfo->fn_mcxt : CurrentMemoryContext,
							  sizeof(WindowGrid));
	if (!PG_ARGISNULL(n))
		origin = PG_GETARG_TIMESTAMP(n);
	make_grid(grid, kind, PG_GETARG_INTERVAL_P(1),
			  PG_GETARG_INTERVAL_P(n - 1),
			  PG_ARGISNULL(n) ? NULL : &origin,
			  PG_ARGISNULL(n + 1) ? NULL : PG_GETARG_TEXT_PP(n + 1));

	if (stable)
		flinfo->fn_extra = grid;
	return grid;
}

/* (ts, size, origin, timezone): start of the tumbling window of ts. */
Datum
weir_window_start(PG_FUNCTION_ARGS)
{
	const WindowGrid *grid = call_grid(fcinfo, GRID_TUMBLE);
	int64		n;

	if (grid == NULL)
		PG_RETURN_NULL();
	n = grid_floor(grid, clock_at(grid->zone, PG_GETARG_TIMESTAMPTZ(0)),
				   grid->size, 0);
	PG_RETURN_TIMESTAMPTZ(grid_instant(grid, n));
}

/* (ts, size, origin, timezone): end of the tumbling window of ts. */
Datum
weir_window_end(PG_FUNCTION_ARGS)
{
	const WindowGrid *grid = call_grid(fcinfo, GRID_TUMBLE);
	int64		n;

	if (grid == NULL)
		PG_RETURN_NULL();
	n = grid_floor(grid, clock_at(grid->zone, PG_GETARG_TIMESTAMPTZ(0)),
				   grid->size, 0) + grid->size;
	PG_RETURN_TIMESTAMPTZ(grid_instant(grid, n));
}

/* (ts, size, slide, origin, timezone): start of the pane of ts. */
Datum
weir_pane_start(PG_FUNCTION_ARGS)
{
	const WindowGrid *grid = call_grid(fcinfo, GRID_HOP);
	Timestamp	now;
	int64		start;
	int64		end;

	if (grid == NULL)
		PG_RETURN_NULL();
	now = clock_at(grid->zone, PG_GETARG_TIMESTAMPTZ(0));
	start = grid_floor(grid, now, grid->slide, 0);
	end = grid_floor(grid, now, grid->slide, grid->size % grid->slide);
	PG_RETURN_TIMESTAMPTZ(grid_instant(grid, Max(start, end)));
}

/*
 * The window between two points of the grid, unless it is the last one that
 * was put (W5): boundaries never decrease, so equal ones are neighbours.
 */
static void
put_window(ReturnSetInfo *rsinfo, const WindowGrid *grid, int64 start,
		   int64 end, Datum *last)
{
	bool		nulls[2] = {false, false};
	Datum		values[2];

	values[0] = TimestampTzGetDatum(grid_instant(grid, start));
	values[1] = TimestampTzGetDatum(grid_instant(grid, end));
	if (values[0] == last[0] && values[1] == last[1])
		return;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	last[0] = values[0];
	last[1] = values[1];
}

/* (ts, size, slide, origin, timezone): the windows of ts, earliest first. */
Datum
weir_hop(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const WindowGrid *grid = call_grid(fcinfo, GRID_HOP);
	Datum		put[2] = {0, 0};
	Timestamp	now;
	int64		last;
	int64		n;

	InitMaterializedSRF(fcinfo, 0);
	if (grid == NULL)
		PG_RETURN_NULL();
	now = clock_at(grid->zone, PG_GETARG_TIMESTAMPTZ(0));
	last = grid_floor(grid, now, grid->slide, 0);
	n = add_units(last, -((grid->size - 1) / grid->slide * grid->slide));
	for (; n <= last; n += grid->slide)
	{
		CHECK_FOR_INTERRUPTS();
		if (grid_point(grid, add_units(n, grid->size)) > now)
			put_window(rsinfo, grid, n, n + grid->size, put);
	}
	PG_RETURN_NULL();
}

/* (ts, size, step, origin, timezone): the windows of ts, shortest first. */
Datum
weir_cumulate(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const WindowGrid *grid = call_grid(fcinfo, GRID_CUMULATE);
	Datum		put[2] = {0, 0};
	Timestamp	now;
	int64		start;
	int64		last;
	int64		n;

	InitMaterializedSRF(fcinfo, 0);
	if (grid == NULL)
		PG_RETURN_NULL();
	now = clock_at(grid->zone, PG_GETARG_TIMESTAMPTZ(0));
	start = grid_floor(grid, now, grid->size, 0);
	last = add_units(start, grid->size);
	n = add_units(grid_floor(grid, now, grid->slide, 0), grid->slide);
	for (; n <= last; n += grid->slide)
	{
		CHECK_FOR_INTERRUPTS();
		put_window(rsinfo, grid, start, n, put);
	}
	PG_RETURN_NULL();
}

/* Sessions depend on other rows, so no function of one row can give them. */
Datum
weir_session(PG_FUNCTION_ARGS)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("weir.session() is not supported in this release")));
	PG_RETURN_NULL();
}
