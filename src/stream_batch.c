/*-------------------------------------------------------------------------
 *
 * stream_batch.c
 *	  A micro-batch: choose marks, then one transaction from rows to results.
 *
 * Choose: under the slot's lock, the marks of one segment that hold rows (or
 * offsets, or event times) past what is applied, whole marks, up to
 * weir.max_batch_rows.  Where rows become many (windows, joins, functions
 * that return sets) no more than that shall come out of a batch, either: by
 * what came out of the last one, fewer go into the next, and a mark may be
 * read in part.
 *
 * Then one transaction:
 *	1. AccessShareLock on the segment, held to commit
 *	2. only now: is the epoch the same, are the floors at or below applied?
 *	   If not, the batch ends without progress (I3)
 *	3. lock the stream: no seek meanwhile; have its tables changed?
 *	   (stream_follow.c, and again before 8)
 *	4. one snapshot for all that follows
 *	5. rows late for a window become dead letters
 *	6. apply: row stage, state, target
 *	7. the new watermark; windows that it closes
 *	8. offsets, event times and watermark, with what they stand for (I1)
 * Commit, publish.
 *
 * The fast way runs without subtransactions.  When it fails with an error
 * that may belong to rows or groups, the caller runs the same batch again
 * with careful = true (stream_careful.c).
 *
 * I8: the marks chosen depend on applied offsets only, and offsets bound the
 * statements, so a row is in one committed batch.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "settings.h"
#include "stream_batch.h"

/* Where it is not known how many rows come of one, the first batch is small. */
#define FIRST_BATCH_FRACTION 100

/*
 * Up to where a mark may be read: a recorded advance of the watermark is
 * applied before any row after its end offsets.
 */
static int64
mark_end(const StreamWorker *w, int p, int place)
{
	int64		next = worker_slot_partitions(w->slot)[p].mark_next[place];

	return w->advance_id == 0 ? next : Min(next, w->cap[p]);
}

/* Does the mark bring anything past high?  Caller holds the slot's lock. */
static bool
mark_is_new(const StreamWorker *w, const StreamBatch *batch, int place)
{
	for (int p = 0; p < w->slot->npartitions; p++)
		if (mark_end(w, p, place) > batch->high[p])
			return true;
	return false;
}

/* Does it bring anything that has not been applied, read now or later? */
static bool
mark_is_needed(const StreamWorker *w, int place)
{
	PartitionShared *parts = worker_slot_partitions(w->slot);

	for (int p = 0; p < w->slot->npartitions; p++)
		if (parts[p].mark_next[place] > w->applied[p])
			return true;
	return false;
}

/*
 * How many offsets of each partition may be read of a mark that has more rows
 * than the limit, of which each may become many.
 */
static int64
offsets_allowed(const StreamWorker *w, const StreamBatch *batch, int place,
				int64 limit)
{
	const MarkShared *mark = &w->slot->marks[place];
	int			n = 0;

	if (mark->rows <= limit || limit >= weir_max_batch_rows)
		return PG_INT64_MAX;
	for (int p = 0; p < w->slot->npartitions; p++)
		n += mark_end(w, p, place) > batch->high[p] ? 1 : 0;
	return Max(1, (int64) ((double) limit / Max(n, 1) *
						   Max(1.0, (double) mark->records / mark->rows)));
}

/* Up to "offsets" of each partition past what is applied. */
static void
take_mark(const StreamWorker *w, StreamBatch *batch, int place, int64 offsets)
{
	const MarkShared *mark = &w->slot->marks[place];
	PartitionShared *parts = worker_slot_partitions(w->slot);

	if (mark->rows > 0)
	{
		if (batch->nrows == 0)
		{
			batch->block_from = mark->block_from;
			batch->block_to = mark->block_to;
		}
		batch->block_from = Min(batch->block_from, mark->block_from);
		batch->block_to = Max(batch->block_to, mark->block_to);
	}
	batch->nrows += mark->rows;
	batch->min_event = Min(batch->min_event, mark->min_event);
	batch->min_kafka = Min(batch->min_kafka, mark->min_kafka);
	for (int p = 0; p < w->slot->npartitions; p++)
	{
		int64		end = mark_end(w, p, place);

		if (end <= batch->high[p])
			continue;
		if (end - w->applied[p] > offsets)
		{
			end = w->applied[p] + offsets;
			batch->full = true;
		}
		batch->high[p] = end;
		batch->newest[p] = Max(batch->newest[p], parts[p].mark_newest[place]);
		if (end < parts[p].mark_next[place])
		{
			/* Only the rows can tell these; see find_latest_events(). */
			batch->last[p] = DT_NOBEGIN;
			batch->staged[p] = -1;
			continue;
		}
		batch->last[p] = parts[p].mark_last[place];
		batch->staged[p] = parts[p].mark_rows[place];
		batch->max_event[p] = Max(batch->max_event[p],
								  parts[p].mark_event[place]);
	}
	batch->moved = true;
}

/* Marks of one segment; caller holds the slot's lock. */
static void
choose_marks(StreamWorker *w, StreamBatch *batch)
{
	SlotShared *slot = w->slot;
	int64		limit = Min(w->row_limit, weir_max_batch_rows);
	uint64		needed = slot->filling >= 0 ?
	slot->segments[slot->filling].seq : slot->next_seq;

	w->shared->batch_first = w->shared->batch_end = slot->next_mark;

	/* Without rows, statements on the state are those of any segment. */
	batch->relid = slot->segments[0].relid;
	batch->viewid = slot->segments[0].viewid;
	for (int i = 0; i < slot->nmarks; i++)
	{
		int			place = (slot->first_mark + i) % WEIR_MARKS;
		const MarkShared *mark = &slot->marks[place];

		if (mark_is_needed(w, place))
			needed = Min(needed, mark->seq);
		if (!mark_is_new(w, batch, place))
			continue;
		if (batch->moved &&
			(batch->full || mark->seq != batch->seq ||
			 batch->nrows + mark->rows > limit))
		{
			batch->full = true;
			w->shared->batch_end = mark->number;
			break;
		}
		if (!batch->moved)
		{
			w->shared->batch_first = mark->number;
			batch->segment = mark->segment;
			batch->seq = mark->seq;
			batch->relid = slot->segments[mark->segment].relid;
			batch->viewid = slot->segments[mark->segment].viewid;
		}
		take_mark(w, batch, place, batch->moved ? PG_INT64_MAX :
				  offsets_allowed(w, batch, place, limit));
	}
	batch->rows = batch->nrows > 0;
	w->shared->held_seq = needed;
}

/*
 * Fill in the next batch.  False: the slot is lost (a new epoch, or the
 * stream was let go), look for one again.
 */
bool
batch_choose(StreamWorker *w, StreamBatch *batch)
{
	uint64		held = w->shared->held_seq;
	Latch	   *ingest = NULL;
	bool		mine;

	memset(batch, 0, sizeof(*batch));
	batch->min_event = batch->min_kafka = DT_NOEND;
	batch->high = palloc(sizeof(int64) * w->npartitions);
	batch->max_event = palloc(sizeof(TimestampTz) * w->npartitions);
	memcpy(batch->high, w->applied, sizeof(int64) * w->npartitions);
	batch->staged = palloc(sizeof(int64) * w->npartitions);
	memcpy(batch->staged, w->staged, sizeof(int64) * w->npartitions);
	batch->last = palloc(sizeof(TimestampTz) * w->npartitions);
	batch->newest = palloc(sizeof(TimestampTz) * w->npartitions);
	for (int p = 0; p < w->npartitions; p++)
		batch->max_event[p] = batch->last[p] = batch->newest[p] = DT_NOBEGIN;
	batch->new_bounds = palloc(sizeof(TimestampTz) * w->npartitions);
	memcpy(batch->new_bounds, w->floor_bounds,
		   sizeof(TimestampTz) * w->npartitions);
	batch->has_rows = w->has_rows;
	batch->new_watermark = w->watermark;
	batch->closed_to = w->closed_to;
	batch->new_floor = w->floor;
	batch->new_floor_pending = w->floor_pending;
	if (w->slot == NULL)
		return true;
	if (w->row_limit == 0)
		w->row_limit = Max(1, weir_max_batch_rows /
						   Max(w->plan->multiplies ? FIRST_BATCH_FRACTION : 1,
							   w->plan->windows_per_row));

	LWLockAcquire(&w->slot->lock, LW_SHARED);
	mine = w->slot->epoch == w->epoch &&
		w->shared->slot == w->slot - weir_shared->slots &&
		w->slot->npartitions <= w->npartitions;
	if (mine)
		choose_marks(w, batch);
	if (w->shared->held_seq != held)
		ingest = w->slot->latch;
	LWLockRelease(&w->slot->lock);
	if (ingest)
		SetLatch(ingest);
	return mine;
}

/*
 * I3: after the segment's lock, are its rows still what the marks said?  The
 * floors tell for marks without rows as well: offsets below them are of
 * records that this stream has not seen.
 */
static bool
batch_still_valid(StreamWorker *w, const StreamBatch *batch)
{
	PartitionShared *parts;
	bool		valid;

	if (w->slot == NULL || !batch->moved)
		return true;
	LWLockAcquire(&w->slot->lock, LW_SHARED);
	parts = worker_slot_partitions(w->slot);
	valid = w->slot->epoch == w->epoch;
	if (batch->rows)
		valid = valid &&
			w->slot->segments[batch->segment].seq == batch->seq &&
			w->slot->segments[batch->segment].relid == batch->relid;
	for (int p = 0; valid && p < w->slot->npartitions; p++)
		valid = parts[p].floor <= w->applied[p];
	LWLockRelease(&w->slot->lock);
	return valid;
}

/* Late rows: counted, and kept unless late_rows is 'drop'. */
void
batch_collect_late(StreamWorker *w, StreamBatch *batch)
{
	StepArgs	args;
	DeadLetter *letters;
	uint64		n;
	bool		isnull;

	if (batch->late_pairs == 0)
		return;
	step_args_init(&args, w, batch);
	args.without = batch->culprits;
	args.nwithout = batch->nculprits;
	step_run(w, batch, STEP_LATE, &args);
	n = step_rows();
	batch->late = n;
	if (n == 0 || w->def->drop_late_rows)
		return;
	letters = palloc0(sizeof(DeadLetter) * n);
	for (uint64 i = 0; i < n; i++)
	{
		DeadLetter *l = &letters[i];

		l->reason = DEAD_LATE;
		step_row_position(i, l);
		l->window_start = DatumGetTimestampTz(step_datum(i, 5, &isnull));
		l->window_end = DatumGetTimestampTz(step_datum(i, 6, &isnull));
		l->partly_applied = DatumGetBool(step_datum(i, 7, &isnull));
		l->staged_row = step_text(i, 8);
		l->message = l->partly_applied ?
			"row came after some of its windows were closed" :
			"row came after its window was closed";
	}
	stream_dead_letters(w, batch, letters, n);
}

/*
 * How many rows the batch has.  The marks say it, but for one that was
 * applied in part: what was merged later, or the first one after the stream
 * came to this ring.
 */
static void
count_rows(StreamWorker *w, StreamBatch *batch)
{
	StepArgs	args;
	int64		rows = 0;

	for (int p = 0; p < w->npartitions; p++)
	{
		if (batch->high[p] == w->applied[p])
			continue;
		if (w->staged[p] < 0 || batch->staged[p] < 0)
		{
			step_args_init(&args, w, batch);
			step_run(w, batch, STEP_COUNT, &args);
			rows = step_int8(1);
			break;
		}
		rows += batch->staged[p] - w->staged[p];
	}
	batch->nrows = rows;
}

/*
 * Has a row come?  One past max_future_skew says no more of the time than a
 * row that the filter drops.
 */
static void
note_rows(StreamWorker *w, StreamBatch *batch)
{
	for (int p = 0; p < w->npartitions && batch->nrows > 0; p++)
		batch->has_rows |= !TIMESTAMP_IS_NOBEGIN(batch->max_event[p]);
}

/*
 * How far event times have come in a mark that is read in part, only its rows
 * can tell.  Those past max_future_skew are left out, as when it is read as a
 * whole.
 */
static void
find_latest_events(StreamWorker *w, StreamBatch *batch)
{
	bool	   *partial = palloc0(sizeof(bool) * w->npartitions);
	bool		any = false;
	StepArgs	args;
	bool		isnull;

	for (int p = 0; p < w->npartitions; p++)
	{
		partial[p] = batch->staged[p] < 0 && batch->high[p] > w->applied[p];
		any |= partial[p];
	}
	if (!any || !step_exists(w, batch, STEP_LATEST_EVENTS))
		return;
	step_args_init(&args, w, batch);
	args.watermark = w->source->max_future_skew == WEIR_NO_DURATION ?
		DT_NOEND : GetCurrentTimestamp() + w->source->max_future_skew;
	step_run(w, batch, STEP_LATEST_EVENTS, &args);
	for (uint64 i = 0; i < step_rows(); i++)
	{
		int32		p = DatumGetInt32(step_datum(i, 1, &isnull));
		TimestampTz event = DatumGetTimestampTz(step_datum(i, 2, &isnull));

		if (!isnull && p < w->npartitions && partial[p])
			batch->max_event[p] = Max(batch->max_event[p], event);
	}
}

static void
apply_fast(StreamWorker *w, StreamBatch *batch)
{
	StepArgs	args;

	if (w->in_order)
	{
		careful_in_order(w, batch);
		return;
	}
	step_args_init(&args, w, batch);
	step_run(w, batch, STEP_APPLY, &args);
	batch->rows_out_of_stage = step_int8(1);
	batch->groups = step_int8(2);
	batch->written = step_int8(3);
	batch->deleted = step_int8(4);
	batch->late_pairs = step_int8(5);
}

/*
 * The end of the last open window, DT_NOBEGIN when none is; of those that
 * start no later than the greatest event time that moves the watermark.  What
 * rows past max_future_skew have opened lies beyond: *beyond is the end of the
 * first such window, DT_NOEND when there is none.
 */
static TimestampTz
newest_end(StreamWorker *w, StreamBatch *batch, TimestampTz *beyond)
{
	TimestampTz event = DT_NOBEGIN;
	StepArgs	args;
	bool		isnull;
	Datum		d;

	*beyond = DT_NOEND;
	if (!step_exists(w, batch, STEP_NEWEST))
		return DT_NOBEGIN;
	for (int p = 0; p < w->npartitions; p++)
		event = Max(event, Max(w->max_event[p], batch->max_event[p]));
	step_args_init(&args, w, batch);
	args.watermark = zone_upper(w->plan->event_zone, event);
	step_run(w, batch, STEP_NEWEST, &args);
	d = step_datum(0, 2, &isnull);
	if (!isnull)
		*beyond = DatumGetTimestampTz(d);
	d = step_datum(0, 1, &isnull);
	return isnull ? DT_NOBEGIN : DatumGetTimestampTz(d);
}

static void
advance_watermark(StreamWorker *w, StreamBatch *batch)
{
	TimestampTz advanced;
	TimestampTz beyond;

	batch->new_watermark = watermark_compute(w, batch, &batch->held_by);
	if (!progress_advance_due(w, batch))
		return;
	progress_advance_done(w);
	batch->advanced = true;
	advanced = w->advance_to;
	if (TIMESTAMP_IS_NOEND(advanced))
	{
		/* close what is open, and go no further */
		advanced = newest_end(w, batch, &beyond);
		if (!TIMESTAMP_IS_NOBEGIN(advanced))
			advanced = zone_reach(w->plan->event_zone,
								  watermark_shift(w, advanced,
												  w->def->allowed_lateness));
	}
	else
		advanced = watermark_shift(w, advanced, 0);
	batch->new_watermark = Max(batch->new_watermark, advanced);
	Assert(batch->new_watermark >= w->watermark);	/* I4 */
}

/* The new watermark, on the time line of the windows. */
TimestampTz
batch_closing_time(const StreamWorker *w, const StreamBatch *batch)
{
	return zone_lower(w->plan->event_zone, batch->new_watermark);
}

/* Windows that are open now may have groups whose last emission failed. */
void
batch_emission_failed(StreamWorker *w, StreamBatch *batch)
{
	TimestampTz beyond;
	TimestampTz until = newest_end(w, batch, &beyond);

	w->failed_until = TIMESTAMP_IS_NOEND(w->failed_until) ? until :
		Max(w->failed_until, until);
	w->failed_from = Min(w->failed_from, beyond);
}

/*
 * How to close: usually the target rows are right already (on_change).  After
 * an emission failed, or not knowing whether one did before this start, they
 * are written once more.
 */
StepKind
batch_close_step(StreamWorker *w, const StreamBatch *batch)
{
	TimestampTz limit = batch_closing_time(w, batch) - w->def->allowed_lateness;

	return (w->oldest_end <= w->failed_until || w->failed_from <= limit) &&
		step_exists(w, batch, STEP_CLOSE_AGAIN) ?
		STEP_CLOSE_AGAIN : STEP_CLOSE;
}

/* Close the windows that the new watermark has passed. */
static void
close_windows(StreamWorker *w, StreamBatch *batch, bool careful)
{
	StepArgs	args;
	bool		isnull;
	Datum		d;

	if (w->plan->kind != STREAM_WINDOW ||
		TIMESTAMP_IS_NOBEGIN(batch->new_watermark))
		return;
	if (batch->rows)
		w->oldest_end = Min(w->oldest_end,
							zone_lower(w->plan->event_zone, batch->min_event));
	step_args_init(&args, w, batch);
	args.watermark = batch_closing_time(w, batch);
	if (TIMESTAMP_IS_NOBEGIN(args.watermark) ||
		w->oldest_end > args.watermark - w->def->allowed_lateness ||
		!step_exists(w, batch, STEP_CLOSE))
		return;

	if (TIMESTAMP_IS_NOEND(w->failed_until))
		batch_emission_failed(w, batch);
	if (careful)
		careful_close(w, batch);
	else
	{
		step_run(w, batch, batch_close_step(w, batch), &args);
		batch->written += step_int8(2);
		batch->windows_closed += step_int8(3);
	}
	batch->closed_to = args.watermark - w->def->allowed_lateness;
	step_run(w, batch, STEP_OLDEST, &args);
	d = step_rows() > 0 ? step_datum(0, 1, &isnull) : (isnull = true, 0);
	w->oldest_end = isnull ? DT_NOEND : DatumGetTimestampTz(d);
}

/*
 * How many rows the next batch may have, so that what comes out of it keeps to
 * weir.max_batch_rows, if each row brings as many as those of this one did.
 */
static void
set_row_limit(StreamWorker *w, const StreamBatch *batch)
{
	int64		out = Max(batch->groups,
						  Max(batch->rows_out_of_stage, batch->written));
	double		limit;

	if (batch->nrows == 0 || out == 0)
		return;
	limit = (double) weir_max_batch_rows * batch->nrows / out;

	/* Groups grow less than rows do, which is found out in steps. */
	limit = Min(limit, 4.0 * w->row_limit);
	w->row_limit = Max(1, (int64) Min(limit, weir_max_batch_rows));
}

/* After the commit: what the batch did is the stream's position now. */
static void
publish(StreamWorker *w, StreamBatch *batch, TimestampTz started)
{
	StreamShared *s = w->shared;
	TimestampTz now = GetCurrentTimestamp();

	w->place = batch->place;
	for (int p = 0; p < w->npartitions; p++)
	{
		if (batch->high[p] != w->applied[p])
			w->last[p] = batch->last[p];
		w->applied[p] = batch->high[p];
		w->staged[p] = batch->staged[p];
		w->max_event[p] = Max(w->max_event[p], batch->max_event[p]);
		w->newest[p] = Max(w->newest[p], batch->newest[p]);
		w->floor_bounds[p] = batch->new_bounds[p];
		s->max_event_time = Max(s->max_event_time, w->max_event[p]);
	}
	set_row_limit(w, batch);
	w->watermark = batch->new_watermark;
	w->closed_to = batch->closed_to;
	if (batch->advanced)
	{
		w->advance_id = 0;
		w->advance_stale = true;	/* there may be another */
	}
	w->floor_pending = batch->new_floor_pending;
	w->floor = batch->new_floor;
	w->has_rows = batch->has_rows;
	s->watermark = w->watermark;
	s->watermark_held_by = batch->held_by;
	s->rows_in += batch->nrows;
	s->rows_filtered += Max(0, batch->nrows - batch->dead -
							batch->rows_out_of_stage);
	s->rows_late += batch->late;
	s->rows_dead += batch->dead;
	s->rows_out += batch->written;
	failures_commit(w, batch);
	s->groups_failed += batch->groups_failed;
	s->windows_closed += batch->windows_closed;
	if (batch->moved)
	{
		s->batches++;
		s->last_batch_rows = batch->nrows;
		s->last_batch_at = now;
		worker_histogram_add(&s->commit_us, now - started);
		if (batch->rows && !TIMESTAMP_IS_NOEND(batch->min_kafka))
			worker_histogram_add(&s->visible_us, now - batch->min_kafka);
	}
}

/*
 * May the owner still read the source?  The rights on dimensions and target
 * are checked by the statements themselves; the statements read a segment's
 * view instead of the source.
 */
static void
check_source_privilege(const StreamWorker *w)
{
	Oid			relid = w->def->source_relid;

	if (pg_class_aclcheck(relid, w->def->owner, ACL_SELECT) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(relid, w->def->owner, ACL_SELECT,
								  ACLMASK_ANY) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for source \"%s\"",
						w->source->name),
				 errhint("Grant SELECT on the source to the owner of stream "
						 "\"%s\" and call weir.resume().", w->def->name)));
}

/* Steps 3 to 8, connected to SPI. */
static bool
run_steps(StreamWorker *w, StreamBatch *batch, bool careful)
{
	if (!progress_lock(w))
		return false;
	check_source_privilege(w);
	if (!rights_check(w))
		return false;
	follow_check(w, false);
	batch->snapshot = RegisterSnapshot(GetTransactionSnapshot());
	PushActiveSnapshot(batch->snapshot);
	floor_begin(w);
	if (batch->rows)
	{
		count_rows(w, batch);
		find_latest_events(w, batch);
		note_rows(w, batch);
	}
	floor_find(w, batch);
	if (batch->rows)
	{
		if (careful)
			careful_apply(w, batch);
		else
		{
			apply_fast(w, batch);
			batch_collect_late(w, batch);
		}
	}
	advance_watermark(w, batch);
	floor_settle(w, batch);
	close_windows(w, batch, careful);
	follow_check(w, true);
	progress_write(w, batch);
	PopActiveSnapshot();
	UnregisterSnapshot(batch->snapshot);
	return true;
}

/*
 * Run a batch.  False: it ended without progress, since its ring or its
 * position has gone; the caller looks for them again.
 */
bool
batch_run(StreamWorker *w, StreamBatch *batch, bool careful)
{
	TimestampTz started = GetCurrentTimestamp();
	bool		done = false;

	SetCurrentStatementStartTimestamp();
	rights_prepare(w);
	StartTransactionCommand();
	MemoryContextSwitchTo(w->batch_cxt);
	if (batch->rows)
		LockRelationOid(batch->relid, AccessShareLock);
	if (batch_still_valid(w, batch))
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		SPI_connect();
		done = run_steps(w, batch, careful);
		SPI_finish();
		PopActiveSnapshot();
	}
	CommitTransactionCommand();
	if (done)
		publish(w, batch, started);
	pgstat_report_stat(false);
	return done;
}
