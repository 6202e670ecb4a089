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
 *	key, CHECK, trigger) depends on what was written before, so rows are
 *	written one by one in the order of staging (stream_each.c).  Reason
 *	'target'.
 *
 *	Merging.  A row that can be aggregated, but not be added to what is there
 *	(a sum overflows), is found as the last row of the shortest prefix that
 *	cannot be merged; reason 'query'.
 *
 *	Group stage.  An error in finalizing or writing a group belongs to no row.
 *	State is merged alone; then the touched groups are written one by one.
 *	One that fails is counted and left as it was until it changes again.  When
 *	a window is closed there is no again: the group becomes a dead letter with
 *	reason 'group'.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
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

/* The target does not take a row. */
static void
refused_row(Search *search, const ItemPointerData *tid,
			const ErrorData *error)
{
	search_add(search, tid, DEAD_TARGET, error);
}

/*
 * A row stream, row by row.  refused: NULL, the first row that the target does
 * not take is an error.
 */
static void
write_rows(Search *search, EachRefused refused)
{
	StreamBatch *batch = search->batch;
	StepArgs	args;
	EachCounts	counts;
	ErrorData  *error;

	whole_batch(search, &args);
	error = each_row(search, STEP_PLACED_ROWS, STEP_ONE_ROW, &args,
					 refused, &counts);
	if (error)
		ReThrowError(error);	/* the row stage has been probed */
	search_leave_out(search);
	batch->rows_out_of_stage = counts.rows;
	batch->written = counts.written;
}

/* A group cannot be finalized or written: it stays as it is in the target. */
static void
failed_group(Search *search, const ItemPointerData *tid,
			 const ErrorData *error)
{
	StreamWorker *w = search->w;

	if (w->def->stop_on_error)
		ReThrowError(unconstify(ErrorData *, error));
	if (search->batch->groups_failed++ > 0)
		return;
	batch_emission_failed(w, search->batch);
	w->letter_shown = false;
	worker_set_error(&w->shared->error, error->sqlerrcode, error_text(error));
}

/*
 * Into state only, then the touched groups into the target, one by one.  An
 * error is one of merging.
 */
static ErrorData *
write_groups(Search *search)
{
	StreamBatch *batch = search->batch;
	StepArgs	args;
	EachCounts	counts;
	ErrorData  *error;

	whole_batch(search, &args);
	error = each_row(search, STEP_MERGE_GROUPS, STEP_EMIT_ONE, &args,
					 failed_group, &counts);
	batch->rows_out_of_stage = counts.rows;
	batch->groups = counts.groups;
	batch->late_pairs = counts.late;
	batch->written = counts.written;
	batch->deleted = counts.deleted;
	return error;
}

/* The batch without the culprits, in one statement. */
static ErrorData *
apply_at_once(Search *search)
{
	StreamBatch *batch = search->batch;
	StepArgs	args;
	ErrorData  *error;

	whole_batch(search, &args);
	error = search_try_step(search, STEP_APPLY_WITHOUT, &args, false);
	if (error)
		return error;
	batch->rows_out_of_stage = search->counts[0];
	batch->groups = search->counts[1];
	batch->written = search->counts[2];
	batch->deleted = search->counts[3];
	batch->late_pairs = search->counts[4];
	return NULL;
}

/*
 * The batch without the culprits of the row stage.  At once only where those
 * were the reason for being careful: what an attempt writes in vain takes
 * room in the tables until they are vacuumed.
 */
static void
apply_rest(Search *search, int64 from, int64 to)
{
	StreamWorker *w = search->w;
	StreamBatch *batch = search->batch;
	int			known = batch->nculprits;
	bool		groups = step_exists(w, batch, STEP_MERGE_GROUPS);
	ErrorData  *error;

	if (known > 0 && !w->target_refuses && !w->in_order &&
		apply_at_once(search) == NULL)
		return;
	if (w->plan->kind == STREAM_ROW)
	{
		write_rows(search, refused_row);
		w->target_refuses = batch->nculprits > known;
		return;
	}
	error = groups ? write_groups(search) : apply_at_once(search);
	if (error)
	{
		/* what cannot be added to what is there: an overflow, say */
		search_writes(search, STEP_MERGE_STATE, DEAD_QUERY, from, to);
		error = groups ? write_groups(search) : apply_at_once(search);
	}
	if (error)
		ReThrowError(error);
	w->target_refuses = batch->groups_failed > 0;
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

/*
 * Not careful at all, but row by row: what is in the target or hangs on it
 * sees more than the last row of each key.
 */
void
careful_in_order(StreamWorker *w, StreamBatch *batch)
{
	Search		search;

	search_init(&search, w, batch);
	write_rows(&search, NULL);
}

/* A group that cannot be finalized at its window's end. */
static void
discard_group(Search *search, const ItemPointerData *tid,
			  const ErrorData *error)
{
	StreamWorker *w = search->w;
	StreamBatch *batch = search->batch;
	DeadLetter	letter = {0};
	Datum		place = PointerGetDatum(unconstify(ItemPointerData *, tid));
	Oid			place_type = TIDOID;
	bool		isnull;
	char	   *key;

	if (w->def->stop_on_error)
		ReThrowError(unconstify(ErrorData *, error));
	if (search->discard == NULL)
		search->discard = step_plan(w, batch, STEP_DISCARD_ONE, &place_type,
									1);
	step_run_one(w, batch, search->discard, &place, NULL);
	if (step_rows() != 1)
		elog(ERROR, "a group to be closed is missing");
	key = step_text(0, 3);
	letter.reason = DEAD_GROUP;
	letter.partition = -1;
	letter.window_start = DatumGetTimestampTz(step_datum(0, 1, &isnull));
	letter.window_end = DatumGetTimestampTz(step_datum(0, 2, &isnull));
	letter.payload = key;
	letter.payload_len = key ? strlen(key) : 0;
	letter.sqlerrcode = error->sqlerrcode;
	letter.message = error_text(error);
	stream_dead_letters(w, batch, &letter, 1);
	batch->groups_failed++;
	failures_first(w, batch, error);
	if (error_class(error->sqlerrcode) == ERROR_OF_DEFINITION)
	{
		search->at_fault++;
		search->fault = MemoryContextStrdup(w->batch_cxt, letter.message);
	}
}

/*
 * A definition that is broken for groups only (a trigger of the target calls
 * what is no more) must not make dead letters of all.
 */
static void
check_groups_at_fault(Search *search, int64 closed)
{
	StreamWorker *w = search->w;

	w->groups_closed += closed;
	w->groups_at_fault += search->at_fault;
	if (w->groups_closed < FAILURE_ROWS)
		return;
	if (search->at_fault > 0 &&
		w->groups_at_fault > w->def->max_dead_ratio * w->groups_closed)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%lld of %lld groups could not be closed: %s",
						(long long) w->groups_at_fault,
						(long long) w->groups_closed, search->fault),
				 errdetail("That is more than max_dead_ratio %g allows.",
						   w->def->max_dead_ratio),
				 errhint("Repair the query or the target and call "
						 "weir.resume(), or raise options.max_dead_ratio.")));
	w->groups_closed /= 2;
	w->groups_at_fault /= 2;
}

/* At once; group by group when that fails. */
void
careful_close(StreamWorker *w, StreamBatch *batch)
{
	Search		search;
	StepArgs	args;
	EachCounts	counts;
	ErrorData  *error;
	StepKind	step = batch_close_step(w, batch);

	search_init(&search, w, batch);
	step_args_init(&args, w, batch);
	args.watermark = DT_NOBEGIN;
	check_without_rows(&search, step, &args);
	args.watermark = batch_closing_time(w, batch);
	if (search_try_step(&search, step, &args, false) == NULL)
	{
		batch->written += search.counts[1];
		batch->windows_closed += search.counts[2];
		return;
	}
	error = each_row(&search, STEP_CLOSING, STEP_CLOSE_ONE, &args,
					 discard_group, &counts);
	if (error)
		ReThrowError(error);
	check_groups_at_fault(&search, counts.groups);
	batch->written += counts.written;
	batch->windows_closed += counts.windows;
}
