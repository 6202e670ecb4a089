/*-------------------------------------------------------------------------
 *
 * stream_floor.c
 *	  After a seek: which windows are complete.
 *
 * Records before the position are missing.  Windows that may lack some of
 * them are not emitted, and stay in the target as they were; windows that
 * start at or after the floor have all their rows, are made anew, and their
 * old target rows go.  For a window stream that was sought to offsets, to the
 * latest or to a time of Kafka's, only the partitions can tell the floor, in
 * this order:
 *
 *	at the position's resolution (ingest_position.c)
 *		A partition that begins at its first record lacks nothing: it is
 *		settled.  One that does not go back lacks what has been applied of it,
 *		whose greatest event time is known: its bound.
 *	with the first batch (floor_find)
 *		The floor is above all bounds.
 *	with the first event of a partition since the seek (floor_find)
 *		What is missing lies at most max_out_of_orderness above any row after
 *		it in its partition.  The position being a time of Kafka's, and no row
 *		being ahead of its Kafka timestamp, what is missing is before that
 *		time as well.  The partition is settled.
 *	with the first watermark (floor_settle)
 *		There is none while some partition holds it that has not shown an
 *		event.  When those are idle, or it is advanced by hand, they are
 *		settled by what is known of them: from now on windows close without
 *		them, and should they bring rows of that time after all, those are
 *		late.
 *
 * I5: while the floor may move there is no watermark, so no window is closed;
 * windows that turn out to be incomplete go, state and target rows.
 *
 * Bounds are in stream_state.floor_bounds: NULL (DT_NOEND here) for a
 * partition that is settled, else its bound, -infinity where none is known.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "stream_batch.h"

/* Compile the statements for a floor. */
static void
use_floor(StreamWorker *w, TimestampTz floor)
{
	bool		has_floor = !TIMESTAMP_IS_NOBEGIN(floor);

	if (w->options.has_windows_from == has_floor &&
		(!has_floor || w->options.windows_from == floor))
		return;
	w->options.has_windows_from = has_floor;
	w->options.windows_from = floor;
	step_forget(w);
}

/* At the start of a batch: one that failed may have had another floor. */
void
floor_begin(StreamWorker *w)
{
	use_floor(w, w->floor);
}

/*
 * A floor for the time being, the wall clock, found by rows past
 * max_future_skew that came before all others?
 */
static bool
is_provisional(const StreamWorker *w)
{
	for (int p = 0; p < w->npartitions; p++)
		if (!TIMESTAMP_IS_NOBEGIN(w->max_event[p]) ||
			!TIMESTAMP_NOT_FINITE(w->floor_bounds[p]))
			return false;
	return !TIMESTAMP_IS_NOBEGIN(w->floor);
}

/*
 * The floor is found, or moves: clear what is made anew from there on, or
 * what turns out to be incomplete, or not to be.
 */
static void
move_floor(StreamWorker *w, StreamBatch *batch, TimestampTz floor)
{
	TimestampTz old = batch->new_floor;
	StepArgs	args;

	if (floor == old)
		return;
	Assert(TIMESTAMP_IS_NOBEGIN(w->watermark));
	step_args_init(&args, w, batch);
	if (TIMESTAMP_IS_NOBEGIN(old))
	{
		args.watermark = floor;
		step_run(w, batch, STEP_CLEAR_TARGET, &args);
	}
	else
	{
		args.watermark = Min(old, floor);
		args.number = Max(old, floor);
		step_run(w, batch, STEP_CLEAR_INCOMPLETE, &args);
	}
	batch->new_floor = floor;
	use_floor(w, floor);
}

/* What a partition says by the first event that it has shown. */
static TimestampTz
floor_of_event(const StreamWorker *w, TimestampTz event, bool ahead)
{
	TimestampTz last = END_TIMESTAMP - 1;
	TimestampTz floor = event < last - w->source->max_out_of_orderness ?
	event + w->source->max_out_of_orderness : last;

	if (!ahead)
		floor = Min(floor, w->seek_time);
	return zone_upper(w->plan->event_zone, floor);
}

/*
 * The first event times of the partitions in this batch, DT_NOBEGIN where it
 * has none.  Rows past max_future_skew are not the first ones.  Where the
 * filter let no others pass, the greatest event time is an upper bound as
 * well.
 */
static void
first_events(StreamWorker *w, StreamBatch *batch, TimestampTz *first,
			 bool *ahead)
{
	StepArgs	args;
	bool		isnull;

	for (int p = 0; p < w->npartitions; p++)
	{
		first[p] = batch->max_event[p];
		ahead[p] = true;
	}
	if (!batch->rows)
		return;
	step_args_init(&args, w, batch);
	step_run(w, batch, STEP_FIRST_EVENTS, &args);
	for (uint64 i = 0; i < step_rows(); i++)
	{
		int32		p = DatumGetInt32(step_datum(i, 1, &isnull));
		TimestampTz event = DatumGetTimestampTz(step_datum(i, 2, &isnull));

		if (isnull || p >= w->npartitions || event > batch->max_event[p])
			continue;
		first[p] = event;
		ahead[p] = DatumGetBool(step_datum(i, 3, &isnull));
	}
}

/* Before the rows are applied: what does the batch tell of the floor? */
void
floor_find(StreamWorker *w, StreamBatch *batch)
{
	TimestampTz floor = is_provisional(w) ? DT_NOBEGIN : w->floor;
	TimestampTz *first;
	bool	   *ahead;
	bool		pending = false;
	bool		on_time = false;

	if (!batch->new_floor_pending || !batch->moved ||
		!step_exists(w, batch, STEP_FIRST_EVENTS))
		return;
	first = palloc(sizeof(TimestampTz) * w->npartitions);
	ahead = palloc(sizeof(bool) * w->npartitions);
	first_events(w, batch, first, ahead);
	for (int p = 0; p < w->npartitions; p++)
	{
		TimestampTz bound = batch->new_bounds[p];

		on_time |= !TIMESTAMP_IS_NOBEGIN(first[p]);
		if (TIMESTAMP_IS_NOEND(bound))
			continue;
		if (!TIMESTAMP_IS_NOBEGIN(bound))
			floor = Max(floor, zone_upper(w->plan->event_zone, bound + 1));
		if (!TIMESTAMP_IS_NOBEGIN(first[p]))
		{
			floor = Max(floor, floor_of_event(w, first[p], ahead[p]));
			batch->new_bounds[p] = DT_NOEND;
		}
		else
			pending = true;
	}
	batch->new_floor_pending = pending;
	if (!TIMESTAMP_IS_NOBEGIN(floor))
		move_floor(w, batch, floor);
	else if (pending)
	{
		/* rows past max_future_skew that come before all others */
		if (batch->rows && !on_time && TIMESTAMP_IS_NOBEGIN(w->floor))
			move_floor(w, batch, zone_upper(w->plan->event_zone,
											GetCurrentTimestamp()));
	}
	else
	{
		/* nothing is missing anywhere: all of it is made anew */
		StepArgs	args;

		step_args_init(&args, w, batch);
		args.watermark = DT_NOBEGIN;
		step_run(w, batch, STEP_CLEAR_TARGET, &args);
	}
}

/* With the first watermark, and before it closes windows. */
void
floor_settle(StreamWorker *w, StreamBatch *batch)
{
	if (!batch->new_floor_pending ||
		TIMESTAMP_IS_NOBEGIN(batch->new_watermark))
		return;
	if (TIMESTAMP_IS_NOBEGIN(batch->new_floor) &&
		step_exists(w, batch, STEP_CLEAR_TARGET))
		move_floor(w, batch, zone_upper(w->plan->event_zone,
										batch->new_watermark));
	for (int p = 0; p < w->npartitions; p++)
		batch->new_bounds[p] = DT_NOEND;
	batch->new_floor_pending = false;
}
