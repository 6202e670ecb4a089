/*-------------------------------------------------------------------------
 *
 * stream_window.c
 *	  Window arithmetic: which windows a point in time lies in.
 *
 * Windows are laid out on a local clock: boundary n is origin + n * slide (or
 * size, or step) as the clock of the time zone shows it, so a window of a day
 * has 23 or 25 hours when the clocks change, and windows in months follow the
 * calendar.  A row must nevertheless lie inside its window, and the windows of
 * a tumbling grid must share out time without gaps or overlaps, or a watermark
 * would close a window too early.  A wall clock does not give that by itself:
 * it repeats an hour in autumn and skips one in spring.  So:
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
 *
 * Hence rows of the repeated hour belong to the window that was open when the
 * clock was set back, which is longer by that hour.  With the default zone,
 * UTC, none of this happens, and a day is 24 hours.
 *
 * A pane is the span between two neighbouring boundaries, starts or ends, of
 * overlapping windows: all rows of a pane lie in the same windows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

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
	Timestamp	origin;			/* as the local clock shows it */
	pg_tz	   *zone;			/* NULL: UTC */
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

/* Whole seconds since 1970 at or before ts. */
static pg_time_t
unix_seconds(int64 ts)
{
	return (pg_time_t) (floor_div(ts, USECS_PER_SEC) + UNIX_EPOCH_SECS);
}

static int64
from_unix_seconds(pg_time_t t)
{
	return ((int64) t - UNIX_EPOCH_SECS) * USECS_PER_SEC;
}

/*
 * The first change of the clocks after `from`; false when there is none, and
 * then only *before is set.  Offsets in microseconds east of Greenwich.
 */
static bool
next_change(pg_tz *zone, pg_time_t from, int64 *before, int64 *change,
			int64 *after)
{
	long int	before_off;
	long int	after_off;
	int			before_dst;
	int			after_dst;
	pg_time_t	boundary;
	int			res;

	res = pg_next_dst_boundary(&from, &before_off, &before_dst, &boundary,
							   &after_off, &after_dst, zone);
	*before = res < 0 ? 0 : before_off * USECS_PER_SEC;
	if (res <= 0)
		return false;
	*change = from_unix_seconds(boundary);
	*after = after_off * USECS_PER_SEC;
	return true;
}

/* clock(t) of the banner. */
static Timestamp
clock_at(const WindowGrid *grid, TimestampTz t)
{
	int64		before;
	int64		change;
	int64		after;

	if (grid->zone == NULL)
		return t;
	if (!next_change(grid->zone, unix_seconds(t) - SECS_PER_DAY,
					 &before, &change, &after) || t < change)
		return t + before;
	return Max(t + after, change + before - 1);
}

/* B(l) of the banner. */
static TimestampTz
instant_of(const WindowGrid *grid, Timestamp l)
{
	int64		before;
	int64		change;
	int64		after;

	if (grid->zone == NULL)
		return l;
	if (!next_change(grid->zone, unix_seconds(l) - SECS_PER_DAY,
					 &before, &change, &after) || l - before < change)
		return l - before;
	return Max(l - after, change);
}

/* The grid's point n: units (microseconds or months) after the origin. */
static Timestamp
grid_point(const WindowGrid *grid, int64 n)
{
	Interval	span = {0};

	if (!grid->months)
		return grid->origin + n;
	span.month = (int32) n;
	return DatumGetTimestamp(DirectFunctionCall2(timestamp_pl_interval,
												 TimestampGetDatum(grid->origin),
												 IntervalPGetDatum(&span)));
}

/* The greatest n = phase + k * step whose point is at or before l. */
static int64
grid_floor(const WindowGrid *grid, Timestamp l, int64 step, int64 phase)
{
	int64		n;

	if (!grid->months)
		n = l - grid->origin;
	else
	{
		struct pg_tm tm1;
		struct pg_tm tm2;
		fsec_t		fsec;

		if (timestamp2tm(l, NULL, &tm1, &fsec, NULL, NULL) != 0 ||
			timestamp2tm(grid->origin, NULL, &tm2, &fsec, NULL, NULL) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
					 errmsg("timestamp out of range")));
		n = (tm1.tm_year - tm2.tm_year) * (int64) MONTHS_PER_YEAR +
			tm1.tm_mon - tm2.tm_mon;
		if (grid_point(grid, n) > l)
			n--;
	}
	return phase + floor_div(n - phase, step) * step;
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
	units = *months ? span->month :
		(int64) span->day * USECS_PER_DAY + span->time;
	if (units <= 0 || span->day > 100000000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of a window must be greater than zero", what)));
	return units;
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

	grid->zone = NULL;
	if (zone != NULL)
	{
		char	   *name = text_to_cstring(zone);

		if (pg_strcasecmp(name, "UTC") != 0)
		{
			grid->zone = pg_tzset(name);
			if (grid->zone == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("time zone \"%s\" not recognized", name),
						 errhint("Names of time zones are in the view pg_timezone_names.")));
		}
		pfree(name);
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
	args->clocks_change = grid.zone != NULL &&
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
	n = grid_floor(grid, clock_at(grid, PG_GETARG_TIMESTAMPTZ(0)),
				   grid->size, 0);
	PG_RETURN_TIMESTAMPTZ(instant_of(grid, grid_point(grid, n)));
}

/* (ts, size, origin, timezone): end of the tumbling window of ts. */
Datum
weir_window_end(PG_FUNCTION_ARGS)
{
	const WindowGrid *grid = call_grid(fcinfo, GRID_TUMBLE);
	int64		n;

	if (grid == NULL)
		PG_RETURN_NULL();
	n = grid_floor(grid, clock_at(grid, PG_GETARG_TIMESTAMPTZ(0)),
				   grid->size, 0) + grid->size;
	PG_RETURN_TIMESTAMPTZ(instant_of(grid, grid_point(grid, n)));
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
	now = clock_at(grid, PG_GETARG_TIMESTAMPTZ(0));
	start = grid_floor(grid, now, grid->slide, 0);
	end = grid_floor(grid, now, grid->slide, grid->size % grid->slide);
	PG_RETURN_TIMESTAMPTZ(instant_of(grid,
									 grid_point(grid, Max(start, end))));
}

static void
put_window(ReturnSetInfo *rsinfo, const WindowGrid *grid, int64 start,
		   int64 end)
{
	Datum		values[2];
	bool		nulls[2] = {false, false};

	CHECK_FOR_INTERRUPTS();
	values[0] = TimestampTzGetDatum(instant_of(grid, grid_point(grid, start)));
	values[1] = TimestampTzGetDatum(instant_of(grid, grid_point(grid, end)));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* (ts, size, slide, origin, timezone): the windows of ts, earliest first. */
Datum
weir_hop(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const WindowGrid *grid = call_grid(fcinfo, GRID_HOP);
	Timestamp	now;
	int64		last;
	int64		n;

	InitMaterializedSRF(fcinfo, 0);
	if (grid == NULL)
		PG_RETURN_NULL();
	now = clock_at(grid, PG_GETARG_TIMESTAMPTZ(0));
	last = grid_floor(grid, now, grid->slide, 0);
	n = last - (grid->size - 1) / grid->slide * grid->slide;
	for (; n <= last; n += grid->slide)
	{
		if (grid_point(grid, n + grid->size) > now)
			put_window(rsinfo, grid, n, n + grid->size);
	}
	PG_RETURN_NULL();
}

/* (ts, size, step, origin, timezone): the windows of ts, shortest first. */
Datum
weir_cumulate(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const WindowGrid *grid = call_grid(fcinfo, GRID_CUMULATE);
	Timestamp	now;
	int64		start;
	int64		n;

	InitMaterializedSRF(fcinfo, 0);
	if (grid == NULL)
		PG_RETURN_NULL();
	now = clock_at(grid, PG_GETARG_TIMESTAMPTZ(0));
	start = grid_floor(grid, now, grid->size, 0);
	n = grid_floor(grid, now, grid->slide, 0) + grid->slide;
	for (; n <= start + grid->size; n += grid->slide)
		put_window(rsinfo, grid, start, n);
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
