/*-------------------------------------------------------------------------
 *
 * stream_watermark.c
 *	  The watermark: up to when all rows have been applied.
 *
 * I4: it never goes back, across restarts too, unless its stream is sought.
 * It is a function of the rows applied, of evidence of idleness, of recorded
 * advances, and of the wall clock for on_idle; max_future_skew was judged
 * when the row was decoded.
 *
 * An input from which no row has come since its stream began, or was sought,
 * or only rows past max_future_skew, has no time of its own: on_idle does not
 * move it.
 *
 * A partition's watermark is its greatest event time applied less
 * max_out_of_orderness; the stream's is the least over its active
 * partitions.  A partition that has not given an event time yet is active
 * and holds the watermark where it is, unless it is idle: that is how a
 * replay, where some partitions are read later than others, closes nothing
 * too early.  Idle is a partition with continuous evidence for idle_timeout
 * that its position is its end, and with all of it applied by this stream.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "settings.h"
#include "stream_batch.h"

/* on_idle => 'advance' writes the watermark this often, in us. */
#define ON_IDLE_STEP_US (10 * USECS_PER_SEC)

/* Caller holds the slot's lock. */
static bool
partition_idle(const StreamWorker *w, const StreamBatch *batch, int p,
			   TimestampTz now)
{
	const PartitionShared *part;

	/* another epoch, and even another source's slot, is no evidence (I4) */
	if (w->slot == NULL || w->slot->epoch != w->epoch ||
		p >= w->slot->npartitions ||
		w->source->idle_timeout == WEIR_NO_DURATION)
		return false;
	part = &worker_slot_partitions(w->slot)[p];
	return part->idle_since != 0 &&
		part->idle_as_of - part->idle_since >= w->source->idle_timeout &&
		now - part->idle_as_of <= WORKER_IDLE_GAP &&
		batch->high[p] >= part->next;
}

/*
 * A watermark of t + by.  Where timestamps begin and end it is none, or the
 * last one, that lateness and zones can be reckoned with.
 */
TimestampTz
watermark_shift(const StreamWorker *w, TimestampTz t, int64 by)
{
	int64		margin = 2 * USECS_PER_DAY;

	if (TIMESTAMP_IS_NOBEGIN(t) ||
		t < MIN_TIMESTAMP + w->def->allowed_lateness + margin - by)
		return DT_NOBEGIN;
	if (by > 0 && t > END_TIMESTAMP - margin - by)
		return END_TIMESTAMP - margin;
	return Min(t + by, END_TIMESTAMP - margin);
}

/* What a partition with this greatest event time allows. */
static TimestampTz
partition_watermark(const StreamWorker *w, TimestampTz event)
{
	return watermark_shift(w, event, -w->source->max_out_of_orderness);
}

/*
 * on_idle: is it time to go on with the wall clock?  Each step is a
 * transaction, so only when it closes a window, or when the watermark has
 * fallen behind.
 */
static bool
worth_a_batch(const StreamWorker *w, TimestampTz watermark)
{
	if (TIMESTAMP_IS_NOBEGIN(watermark))
		return false;
	return watermark - ON_IDLE_STEP_US >= w->watermark ||
		(w->plan->kind == STREAM_WINDOW &&
		 w->oldest_end <= zone_lower(w->plan->event_zone, watermark) -
		 w->def->allowed_lateness);
}

/*
 * The watermark after the batch; batch->high and ->max_event are its
 * positions.  *held_by is the partition that is least, or -1.
 */
TimestampTz
watermark_compute(StreamWorker *w, const StreamBatch *batch, int32 *held_by)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz least = DT_NOEND;

	*held_by = -1;
	if (w->slot)
		LWLockAcquire(&w->slot->lock, LW_SHARED);
	for (int p = 0; p < w->npartitions; p++)
	{
		TimestampTz event = Max(w->max_event[p], batch->max_event[p]);
		TimestampTz mark = partition_watermark(w, event);

		if (partition_idle(w, batch, p, now))
			continue;
		if (*held_by < 0 || mark < least)
		{
			least = mark;
			*held_by = p;
		}
	}
	if (w->slot)
		LWLockRelease(&w->slot->lock);

	if (*held_by < 0)
	{
		/* all idle */
		if (!w->def->on_idle_advance || w->slot == NULL || !batch->has_rows)
			return w->watermark;
		least = partition_watermark(w, now);
		if (!worth_a_batch(w, least))
			return w->watermark;
	}
	return Max(w->watermark, least);
}
