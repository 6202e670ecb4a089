/*-------------------------------------------------------------------------
 *
 * stream_zone.c
 *	  From event times to the time line of windows, and back.
 *
 * Ingest takes a timestamp as UTC.  A query may take it at another zone,
 *
 *	 weir.tumble(ts AT TIME ZONE 'America/New_York', ...)
 *
 * and then watermarks, which are event times, and the times of windows are
 * on two time lines.  The way from one to the other, t(e) here, is whatever
 * PostgreSQL makes of it, and it is not monotonic: a local time that is
 * skipped in spring is taken at the offset before the change, so 02:30 lies
 * after 03:15; and in autumn an hour of event times comes twice.  So a bound
 * of event times is not moved as a time is, but to what bounds the times of
 * all rows that it bounds:
 *
 *	 lower(e)	at or before t(x) for each x >= e: a watermark.  Hence no row
 *				that is on time by its event time is late for a window, and
 *				what is closed is closed for good
 *	 upper(e)	at or after t(x) for each x <= e: where a seek found the first
 *				rows
 *
 * The second pass of a repeated hour has lower event times than the end of
 * the first.  Rows of it are on time, too: while a bound lies in such an
 * hour, lower() stays at its beginning and upper() at its end.
 *
 * t(e) - e changes only where the zone's offset does, which is at a few event
 * times near e, and between these t(e) grows with e.  So the bounds are those
 * of t() at e and on either side of these.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "nodes/makefuncs.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "stream_window.h"
#include "stream_zone.h"

/*
 * An event time and the time made of it are less than a week apart (167
 * hours, in POSIX's notation of zones); where the offset changes further away
 * from e than this concerns no time near that of e.
 */
#define REACH (16 * USECS_PER_DAY)

/* So far from where timestamps begin and end, nothing below leaves them. */
#define MARGIN (2 * REACH)

/* One walk over the changes near an event time. */
typedef struct ZoneBounds
{
	const EventZone *zone;
	TimestampTz event;
	TimestampTz lower;
	TimestampTz upper;
} ZoneBounds;

PG_FUNCTION_INFO_V1(weir_event_bounds);
PG_FUNCTION_INFO_V1(weir_event_reaching);

static TimestampTz
at_time_zone(const EventZone *zone, Oid of_text, Oid of_interval, Datum time)
{
	bool		is_text = zone->zone->consttype == TEXTOID;

	return DatumGetTimestampTz(OidFunctionCall2(is_text ? of_text : of_interval,
												zone->zone->constvalue, time));
}

TimestampTz
zone_time(const EventZone *zone, TimestampTz event)
{
	Timestamp	local = event;

	if (zone == NULL || TIMESTAMP_NOT_FINITE(event))
		return event;
	if (zone->twice)
		local = at_time_zone(zone, F_TIMEZONE_TEXT_TIMESTAMPTZ,
							 F_TIMEZONE_INTERVAL_TIMESTAMPTZ,
							 TimestampTzGetDatum(event));
	return at_time_zone(zone, F_TIMEZONE_TEXT_TIMESTAMP,
						F_TIMEZONE_INTERVAL_TIMESTAMP,
						TimestampGetDatum(local));
}

/* t() may jump at this event time. */
static void
add_jump(ZoneBounds *b, TimestampTz at)
{
	if (at > b->event)
		b->lower = Min(b->lower, zone_time(b->zone, at));
	else
		b->upper = Max(b->upper, zone_time(b->zone, at - 1));
}

static void
add_change(ZoneBounds *b, TimestampTz change, int64 before, int64 after)
{
	int64		first = change + Min(before, after);
	int64		last = change + Max(before, after);

	if (b->zone->twice)
	{
		add_jump(b, change);
		add_jump(b, change - (last - first));
		add_jump(b, change + (last - first));
		return;
	}
	add_jump(b, first);
	add_jump(b, last);
	if (first <= b->event && b->event < last)
	{
		b->lower = Min(b->lower, change);
		b->upper = Max(b->upper, zone_time(b->zone, last - 1));
	}
}

static ZoneBounds
find_bounds(const EventZone *zone, TimestampTz event)
{
	ZoneBounds	b = {zone, event};
	pg_tz	   *tz = NULL;
	TimestampTz from = event - REACH;
	int64		before;
	int64		change;
	int64		after;

	b.lower = b.upper = zone_time(zone, event);
	if (zone->zone->consttype == TEXTOID)
		tz = compat_zone_that_changes(TextDatumGetCString(zone->zone->constvalue));
	if (tz == NULL)
		return b;
	while (window_next_change(tz, from, &before, &change, &after) &&
		   change <= event + REACH)
	{
		if (before != after)
			add_change(&b, change, before, after);
		from = change;
	}
	return b;
}

TimestampTz
zone_lower(const EventZone *zone, TimestampTz event)
{
	if (zone == NULL || TIMESTAMP_NOT_FINITE(event))
		return event;
	if (event < MIN_TIMESTAMP + MARGIN)
		return DT_NOBEGIN;
	return find_bounds(zone, Min(event, END_TIMESTAMP - MARGIN)).lower;
}

TimestampTz
zone_upper(const EventZone *zone, TimestampTz event)
{
	if (zone == NULL || TIMESTAMP_NOT_FINITE(event))
		return event;
	if (event > END_TIMESTAMP - MARGIN)
		return DT_NOEND;
	return find_bounds(zone, Max(event, MIN_TIMESTAMP + MARGIN)).upper;
}

TimestampTz
zone_reach(const EventZone *zone, TimestampTz t)
{
	TimestampTz below;
	TimestampTz reached;

	if (zone == NULL || TIMESTAMP_NOT_FINITE(t) ||
		t < MIN_TIMESTAMP + MARGIN || t > END_TIMESTAMP - MARGIN)
		return t;
	below = t - REACH;
	reached = t + REACH;
	while (reached - below > 1)
	{
		TimestampTz middle = below + (reached - below) / 2;

		if (zone_lower(zone, middle) >= t)
			reached = middle;
		else
			below = middle;
	}
	return reached;
}

/*
 * For tests
 */

static Datum
bounds_row(FunctionCallInfo fcinfo, const EventZone *zone)
{
	TimestampTz event = PG_GETARG_TIMESTAMPTZ(0);
	bool		nulls[3] = {false};
	Datum		values[3];
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = TimestampTzGetDatum(zone_time(zone, event));
	values[1] = TimestampTzGetDatum(zone_lower(zone, event));
	values[2] = TimestampTzGetDatum(zone_upper(zone, event));
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values,
											 nulls));
}

/* The second and third argument as a zone. */
static EventZone
argument_zone(FunctionCallInfo fcinfo)
{
	EventZone	zone;

	zone.zone = makeConst(TEXTOID, -1, DEFAULT_COLLATION_OID, -1,
						  PG_GETARG_DATUM(1), false, false);
	zone.twice = PG_GETARG_BOOL(2);
	return zone;
}

/* (event, zone, twice) -> (time, lower, upper) */
Datum
weir_event_bounds(PG_FUNCTION_ARGS)
{
	EventZone	zone = argument_zone(fcinfo);

	return bounds_row(fcinfo, &zone);
}

/* (time, zone, twice) -> the least event time that bounds it */
Datum
weir_event_reaching(PG_FUNCTION_ARGS)
{
	EventZone	zone = argument_zone(fcinfo);

	PG_RETURN_TIMESTAMPTZ(zone_reach(&zone, PG_GETARG_TIMESTAMPTZ(0)));
}
