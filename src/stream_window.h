/*-------------------------------------------------------------------------
 *
 * stream_window.h
 *	  Checks of a window function's constant arguments; changes of clocks.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_STREAM_WINDOW_H
#define WEIR_STREAM_WINDOW_H

#include "c.h"
#include "datatype/timestamp.h"
#include "pgtime.h"

typedef struct WindowArgs
{
	bool		hop;
	const Interval *size;
	const Interval *slide;		/* NULL unless hop */
	const Timestamp *origin;	/* NULL: default */
	const text *zone;			/* NULL: UTC */

	/* Found by the check. */
	bool		months;			/* units are months, else microseconds */
	int64		units;			/* size */
	int64		per_row;		/* so many windows has an instant, at most */
	bool		local_clock;	/* windows follow a clock that changes */
} WindowArgs;

/* ERROR 22023 when the arguments make no windows. */
extern void stream_window_check(WindowArgs *args);

/*
 * The first change of a zone's clocks after "from"; false when there is none,
 * and then only *before is set.  Offsets in microseconds east of Greenwich.
 */
extern bool window_next_change(pg_tz *zone, TimestampTz from, int64 *before,
							   TimestampTz *change, int64 *after);

#endif							/* WEIR_STREAM_WINDOW_H */
