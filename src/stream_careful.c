/*-------------------------------------------------------------------------
 *
 * stream_careful.c
 *	  A batch in which something fails: find the culprits, do without them.
 *
 * The batch failed as a whole with an error that may be of its rows.  It is
 * run again, under the watermark of its start, in these steps:
 *
 *	No rows.  A statement that fails without any row fails the stream: it is
 *	at fault, not the data.
 *
 *	Row stage.  Rows that make the probe fail are culprits (stream_search.c),
 *	dead letters with reason 'query'.
 *
 *	Write stage of a row stream.  What the target refuses (unique, foreign
 *	key, CHECK, trigger) depends on what was written before, so the culprit
 *	is the last row of the shortest failing prefix, in the order of staging.
 *	Reason 'target'.
 *
 *	Merging.  A row that can be aggregated, but not be added to what is there
 *	(a sum overflows), is found as the last row of the shortest prefix that
 *	cannot be merged, likewise; reason 'query'.
 *
 *	Group stage.  An error in finalizing or writing a group belongs to no row.
 *	State is merged alone; then the touched groups are written by ranges of
 *	their hash, halved until a failing range is one group, which is counted
 *	and left as it was until it changes again.  When a window is closed there
 *	is no again: the group becomes a dead letter with reason 'group'.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "settings.h"
#include "stream_careful.h"

/* In the batch's transaction. */
void
stream_dead_letters(StreamWorker *w, StreamBatch *batch, DeadLetter *letters,
					int n)
{
	dead_letter_write(w->source, w->def, letters, n);
}

static void
whole_batch(const Search *search, StepArgs *args)
{
	search_args(search, args,
				search->batch->block_from * TIDS_PER_BLOCK,
				search->batch->block_to * TIDS_PER_BLOCK);
}

/* The culprits' rows, as they were staged. */
static void
write_culprits(Search *search)
{
	StreamWorker *w = search->w;
	StreamBatch *batch = search->batch;
	StepArgs	args;
	DeadLetter *letters;
	bool		isnull;
	uint64		n;

	if (batch->nculprits == 0)
		return;
	search_args(search, &args, 0, 0);
	step_run(w, batch, STEP_CULPRITS, &args);
	n = step_rows();
	if (n != (uint64) batch->nculprits)
		elog(ERROR, "found " UINT64_FORMAT " of %d culprits", n,
			 batch->nculprits);
	letters = palloc0(sizeof(DeadLetter) * n);
	for (uint64 i = 0; i < n; i++)
	{
		DeadLetter *l = &letters[i];
		const Culprit *culprit;
		ItemPointer tid;

		tid = (ItemPointer) DatumGetPointer(step_datum(i, 6, &isnull));
		culprit = hash_search(search->culprits, tid, HASH_FIND, NULL);
		if (culprit == NULL)
			elog(ERROR, "row at (%u,%u) is no culprit",
				 ItemPointerGetBlockNumber(tid),
				 ItemPointerGetOffsetNumber(tid));
		l->reason = culprit->reason;
		l->sqlerrcode = culprit->sqlerrcode;
		l->message = culprit->message;
		step_row_position(i, l);
		l->staged_row = step_text(i, 5);
		l->window_start = l->window_end = DT_NOBEGIN;
	}
	stream_dead_letters(w, batch, letters, n);
	batch->dead = n;
}

/* Write the touched groups, hash range by hash range; count what fails. */
static void
emit_range(Search *search, int64 lo, int64 hi)
{
	StreamWorker *w = search->w;
	StreamBatch *batch = search->batch;
	StepArgs	args;
	ErrorData  *error;
	int64		middle;

	whole_batch(search, &args);
	args.hash_lo = lo;
	args.hash_hi = hi;
	error = search_try_step(search, STEP_EMIT_TOUCHED, &args, false);
	if (error == NULL)
	{
		batch->written += search->counts[2];
		batch->deleted += search->counts[3];
		return;
	}
	if (w->def->stop_on_error)
		ReThrowError(error);
	if (lo == hi)
	{
		batch->groups_failed++;
		batch_emission_failed(w, batch);
		w->letter_shown = false;
		worker_set_error(&w->shared->error, error->sqlerrcode,
						 error_text(error));
		return;
	}
	middle = (int64) (((__int128) lo + hi) >> 1);
	emit_range(search, lo, middle);
	emit_range(search, middle + 1, hi);
}

/* The batch without the culprits; the group stage apart when it fails. */
static void
apply_rest(Search *search, int64 from, int64 to)
{
	StreamWorker *w = search->w;
	StreamBatch *batch = search->batch;
	int			known = batch->nculprits;
	StepArgs	args;
	ErrorData  *error;

	whole_batch(search, &args);
	error = search_try_step(search, STEP_APPLY_WITHOUT, &args, false);
	if (error && w->plan->kind == STREAM_ROW)
		search_writes(search, STEP_APPLY_WITHOUT, DEAD_TARGET, from, to);
	else if (error)
	{
		/* what cannot be added to what is there: an overflow, say */
		search_writes(search, STEP_MERGE_STATE, DEAD_QUERY, from, to);
	}
	if (error && batch->nculprits > known)
	{
		whole_batch(search, &args);
		error = search_try_step(search, STEP_APPLY_WITHOUT, &args, false);
	}
	if (error == NULL)
	{
		batch->rows_out_of_stage = search->counts[0];
		batch->groups = search->counts[1];
		batch->written = search->counts[2];
		batch->deleted = search->counts[3];
		batch->late_pairs = search->counts[4];
		return;
	}
	if (!step_exists(w, batch, STEP_EMIT_TOUCHED))
		ReThrowError(error);
	step_run(w, batch, STEP_MERGE_STATE, &args);
	batch->rows_out_of_stage = step_int8(1);
	batch->groups = step_int8(2);
	batch->late_pairs = step_int8(5);
	emit_range(search, PG_INT64_MIN, PG_INT64_MAX);
}

/*
 * Does a step fail without any row?  Then no row is to blame.
 */
static void
check_without_rows(Search *search, StepKind step, const StepArgs *args)
{
	ErrorData  *error = search_try_step(search, step, args, true);

	if (error)
		ReThrowError(error);
}

void
careful_apply(StreamWorker *w, StreamBatch *batch)
{
	Search		search;
	StepArgs	args;
	int64		from = batch->block_from * TIDS_PER_BLOCK;
	int64		to = batch->block_to * TIDS_PER_BLOCK;

	search_init(&search, w, batch);
	search_args(&search, &args, from, from);
	check_without_rows(&search, STEP_APPLY_WITHOUT, &args);
	search_row_stage(&search, from, to);
	apply_rest(&search, from, to);
	batch_collect_late(w, batch);
	write_culprits(&search);
}

/* A group that cannot be finalized at its window's end. */
static void
discard_groups(StreamWorker *w, StreamBatch *batch, const StepArgs *args,
			   const ErrorData *error)
{
	DeadLetter *letters;
	uint64		n;
	bool		isnull;

	if (w->def->stop_on_error)
		ReThrowError(unconstify(ErrorData *, error));
	step_run(w, batch, STEP_CLOSE_DISCARD, args);
	n = step_rows();
	letters = palloc0(sizeof(DeadLetter) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		char	   *key = step_text(i, 3);

		letters[i].reason = DEAD_GROUP;
		letters[i].partition = -1;
		letters[i].window_start = DatumGetTimestampTz(step_datum(i, 1, &isnull));
		letters[i].window_end = DatumGetTimestampTz(step_datum(i, 2, &isnull));
		letters[i].payload = key;
		letters[i].payload_len = key ? strlen(key) : 0;
		letters[i].sqlerrcode = error->sqlerrcode;
		letters[i].message = error_text(error);
	}
	stream_dead_letters(w, batch, letters, n);
	batch->groups_failed += n;
	failures_first(w, batch, error);
}

static void
close_groups(Search *search, int64 lo, int64 hi)
{
	StreamWorker *w = search->w;
	StreamBatch *batch = search->batch;
	StepArgs	args;
	ErrorData  *error;
	int64		middle;

	step_args_init(&args, w, batch);
	args.watermark = batch_closing_time(w, batch);
	args.hash_lo = lo;
	args.hash_hi = hi;
	error = search_try_step(search, batch_close_step(w, batch), &args, false);
	if (error == NULL)
	{
		batch->written += search->counts[1];
		batch->windows_closed += search->counts[2];
		return;
	}
	if (lo == hi)
	{
		discard_groups(w, batch, &args, error);
		return;
	}
	middle = (int64) (((__int128) lo + hi) >> 1);
	close_groups(search, lo, middle);
	close_groups(search, middle + 1, hi);
}

void
careful_close(StreamWorker *w, StreamBatch *batch)
{
	Search		search;
	StepArgs	args;

	search_init(&search, w, batch);
	step_args_init(&args, w, batch);
	args.watermark = batch->new_watermark;
	args.hash_lo = 1;
	args.hash_hi = 0;
	check_without_rows(&search, batch_close_step(w, batch), &args);
	close_groups(&search, PG_INT64_MIN, PG_INT64_MAX);
}
