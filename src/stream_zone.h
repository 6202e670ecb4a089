/*-------------------------------------------------------------------------
 *
 * stream_zone.h
 *	  From event times to the time line of windows, and back.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_STREAM_ZONE_H
#define WEIR_STREAM_ZONE_H

#include "datatype/timestamp.h"
#include "nodes/primnodes.h"

/*
 * How a query makes the times of its windows from event times: a timestamp
 * AT TIME ZONE, or a timestamptz AT TIME ZONE twice.  NULL: they are the
 * same.
 */
typedef struct EventZone
{
	const Const *zone;			/* text, or an interval */
	bool		twice;			/* to a local time and back */
} EventZone;

/* The time that the query makes of an event time. */
extern TimestampTz zone_time(const EventZone *zone, TimestampTz event);

/* No row with this event time or a later one has an earlier time. */
extern TimestampTz zone_lower(const EventZone *zone, TimestampTz event);

/* No row with this event time or an earlier one has a later time. */
extern TimestampTz zone_upper(const EventZone *zone, TimestampTz event);

/* The least event time whose zone_lower() is at or after t. */
extern TimestampTz zone_reach(const EventZone *zone, TimestampTz t);

#endif							/* WEIR_STREAM_ZONE_H */
