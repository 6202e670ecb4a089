/*-------------------------------------------------------------------------
 *
 * stream_careful.c
 *	  A batch in which something fails: find the culprits, do without them.
 *
 * The batch failed as a whole with an error that is neither an outage nor of
 * the definition.  It is run again, under the watermark of its start, in
 * these steps:
 *
 *	Row stage.  The probe, a read-only statement, is run in subtransactions
 *	(without a transaction id) over ranges of TIDs, halved until a failing
 *	range is one row: a culprit, dead letter with reason 'query'.
 *
 *	Write stage of a row stream.  What the target refuses (unique, foreign
 *	key, CHECK, trigger) depends on what was written before, so the culprit
 *	is the last row of the shortest failing prefix, in the order of staging;
 *	found by halving, with writes that are rolled back.  Reason 'target'.
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
 * When more than max_dead_ratio of at least 100 rows fail with one SQLSTATE,
 * the query is at fault, not the data: the stream fails.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "dead_letter.h"
#include "errors.h"
#include "settings.h"
#include "stream_batch.h"

/* Batches smaller than this are never a definition error by their number. */
#define MIN_ROWS_FOR_RATIO 100

/* A TID as a number, so that ranges can be halved. */
#define TIDS_PER_BLOCK ((int64) MaxHeapTuplesPerPage + 1)

/* A step over part of the batch, for error_guard(). */
typedef struct GuardedStep
{
	StreamWorker *w;
	StreamBatch *batch;
	StepKind	step;
	StepArgs	args;
	int64		counts[5];
} GuardedStep;

typedef struct Culprit
{
	ItemPointerData tid;
	DeadLetterReason reason;
	int			sqlerrcode;
	char	   *message;
} Culprit;

/* What has been found so far. */
typedef struct Search
{
	StreamWorker *w;
	StreamBatch *batch;
	List	   *culprits;		/* of Culprit * */
} Search;

static void
tid_of(int64 number, ItemPointerData *tid)
{
	ItemPointerSet(tid, number / TIDS_PER_BLOCK, number % TIDS_PER_BLOCK);
}

static void
run_guarded(void *arg)
{
	GuardedStep *g = arg;

	step_run(g->w, g->batch, g->step, &g->args);
	if (step_rows() == 1)
		for (int i = 0; i < Min(5, step_columns()); i++)
			g->counts[i] = step_int8(i + 1);
}

/*
 * Run a step over [from, to) in a subtransaction.  NULL: it went well.  An
 * error that is not a row's is thrown on.
 */
static ErrorData *
try_step(GuardedStep *g, bool rollback)
{
	ErrorData  *error;

	CHECK_FOR_INTERRUPTS();
	error = error_guard(run_guarded, g, rollback);
	if (error && error_class(error->sqlerrcode) != ERROR_OF_ROW)
		ReThrowError(error);
	return error;
}

static void
guarded_init(GuardedStep *g, StreamWorker *w, StreamBatch *batch,
			 StepKind step)
{
	memset(g, 0, sizeof(*g));
	g->w = w;
	g->batch = batch;
	g->step = step;
	step_args_init(&g->args, w, batch);
	g->args.without = batch->culprits;
	g->args.nwithout = batch->nculprits;
}

/* Too many rows of a batch with one SQLSTATE: the query is at fault. */
static void
check_ratio(const Search *search, const Culprit *last)
{
	const StreamDef *def = search->w->def;
	int			same = 0;
	ListCell   *lc;

	if (search->batch->nrows < MIN_ROWS_FOR_RATIO)
		return;
	if (list_length(search->culprits) <=
		def->max_dead_ratio * search->batch->nrows)
		return;
	foreach(lc, search->culprits)
		if (((Culprit *) lfirst(lc))->sqlerrcode == last->sqlerrcode)
		same++;
	if (same <= def->max_dead_ratio * search->batch->nrows)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%d of %lld rows failed with SQLSTATE %s: %s", same,
					(long long) search->batch->nrows,
					error_sqlstate(last->sqlerrcode), last->message),
			 errdetail("That is more than max_dead_ratio %g allows.",
					   def->max_dead_ratio),
			 errhint("Repair the query or the target and call "
					 "weir.resume(), or raise options.max_dead_ratio.")));
}

static void
add_culprit(Search *search, int64 number, DeadLetterReason reason,
			const ErrorData *error)
{
	Culprit    *culprit = palloc(sizeof(*culprit));

	if (search->w->def->stop_on_error)
		ReThrowError(unconstify(ErrorData *, error));
	tid_of(number, &culprit->tid);
	culprit->reason = reason;
	culprit->sqlerrcode = error->sqlerrcode;
	culprit->message = error_text(error);
	search->culprits = lappend(search->culprits, culprit);
	check_ratio(search, culprit);
}

/* The culprits' TIDs become $6 of the statements that follow. */
static void
set_without(Search *search)
{
	StreamBatch *batch = search->batch;
	ListCell   *lc;

	batch->nculprits = 0;
	batch->culprits = palloc(sizeof(ItemPointerData) *
							 Max(1, list_length(search->culprits)));
	foreach(lc, search->culprits)
		batch->culprits[batch->nculprits++] = ((Culprit *) lfirst(lc))->tid;
}

/*
 * Row stage: halve [from, to).  known says that it fails for sure, so that
 * only its halves need to be probed.  Returns whether a culprit was found.
 */
static bool
probe_range(Search *search, int64 from, int64 to, bool known)
{
	GuardedStep g;
	ErrorData  *error;
	int64		middle;
	bool		found;

	if (!known || to - from == 1)
	{
		guarded_init(&g, search->w, search->batch, STEP_PROBE);
		tid_of(from, &g.args.from);
		tid_of(to, &g.args.to);
		error = try_step(&g, true);
		if (error == NULL)
			return false;
		if (to - from == 1)
		{
			add_culprit(search, from, DEAD_QUERY, error);
			return true;
		}
		FreeErrorData(error);
	}
	middle = from + (to - from) / 2;

	/* Between blocks first: that needs fewer probes. */
	if (to - from > TIDS_PER_BLOCK)
		middle = middle / TIDS_PER_BLOCK * TIDS_PER_BLOCK;
	if (middle <= from)
		middle = from + (to - from) / 2;
	found = probe_range(search, from, middle, false);
	return probe_range(search, middle, to, !found) || found;
}

/* Is the prefix up to "to" refused by a step that writes?  Rolled back. */
static ErrorData *
try_prefix(Search *search, StepKind step, int64 to)
{
	GuardedStep g;

	guarded_init(&g, search->w, search->batch, step);
	tid_of(to, &g.args.to);
	return try_step(&g, true);
}

/* Find one culprit after another until the whole batch can be written. */
static void
search_writes(Search *search, StepKind step, DeadLetterReason reason,
			  int64 from, int64 to, ErrorData *error)
{
	while (error)
	{
		int64		good = from;	/* the prefix before it can be written */
		int64		bad = to;	/* the prefix before it cannot */

		while (bad - good > 1)
		{
			int64		middle = good + (bad - good) / 2;
			ErrorData  *e = try_prefix(search, step, middle);

			if (e)
			{
				error = e;
				bad = middle;
			}
			else
				good = middle;
		}
		add_culprit(search, bad - 1, reason, error);
		set_without(search);
		from = bad;
		error = try_prefix(search, step, to);
	}
}

/* Dead letters, the limit, the count. */
void
stream_dead_letters(StreamWorker *w, StreamBatch *batch, DeadLetter *letters,
					int n)
{
	int64		limit = w->def->dead_letter_limit > 0 ?
	w->def->dead_letter_limit : weir_dead_letter_limit;

	if (w->dead_letters + n > limit)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream \"%s\" has reached its limit of %lld dead "
						"letters", w->def->name, (long long) limit),
				 errhint("Look at weir.dead_letter, delete what is not needed "
						 "any more, and call weir.resume().")));
	w->dead_letters += dead_letter_write(w->source, w->def, letters, n);
}

static int
compare_culprits(const ListCell *a, const ListCell *b)
{
	return ItemPointerCompare(&((Culprit *) lfirst(a))->tid,
							  &((Culprit *) lfirst(b))->tid);
}

/* By halving; the list is in the order of TIDs. */
static const Culprit *
find_culprit(const Search *search, ItemPointer tid)
{
	int			lo = 0;
	int			hi = list_length(search->culprits) - 1;

	while (lo <= hi)
	{
		int			middle = (lo + hi) / 2;
		Culprit    *culprit = list_nth(search->culprits, middle);
		int			order = ItemPointerCompare(&culprit->tid, tid);

		if (order == 0)
			return culprit;
		if (order < 0)
			lo = middle + 1;
		else
			hi = middle - 1;
	}
	elog(ERROR, "row at (%u,%u) is no culprit",
		 ItemPointerGetBlockNumber(tid), ItemPointerGetOffsetNumber(tid));
	return NULL;
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

	if (search->culprits == NIL)
		return;
	list_sort(search->culprits, compare_culprits);
	step_args_init(&args, w, batch);
	args.without = batch->culprits;
	args.nwithout = batch->nculprits;
	step_run(w, batch, STEP_CULPRITS, &args);
	n = step_rows();
	letters = palloc0(sizeof(DeadLetter) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		DeadLetter *l = &letters[i];
		const Culprit *culprit;
		ItemPointer tid;

		tid = (ItemPointer) DatumGetPointer(step_datum(i, 6, &isnull));
		culprit = find_culprit(search, tid);
		l->reason = culprit->reason;
		l->sqlerrcode = culprit->sqlerrcode;
		l->message = culprit->message;
		step_row_position(i, l);
		l->staged_row = step_text(i, 5);
		l->window_start = l->window_end = DT_NOBEGIN;
	}
	if (n != (uint64) list_length(search->culprits))
		elog(ERROR, "found " UINT64_FORMAT " of %d culprits", n,
			 list_length(search->culprits));
	stream_dead_letters(w, batch, letters, n);
	batch->dead = n;
}

/* Write the touched groups, hash range by hash range; count what fails. */
static void
emit_range(StreamWorker *w, StreamBatch *batch, int64 lo, int64 hi)
{
	GuardedStep g;
	ErrorData  *error;
	int64		middle;

	guarded_init(&g, w, batch, STEP_EMIT_TOUCHED);
	g.args.hash_lo = lo;
	g.args.hash_hi = hi;
	error = try_step(&g, false);
	if (error == NULL)
	{
		batch->written += g.counts[2];
		batch->deleted += g.counts[3];
		return;
	}
	if (w->def->stop_on_error)
		ReThrowError(error);
	if (lo == hi)
	{
		batch->groups_failed++;
		w->failed_until = Max(w->failed_until, batch_newest_end(w, batch));
		worker_set_error(&w->shared->error, error->sqlerrcode,
						 error_text(error));
		return;
	}
	middle = (int64) (((__int128) lo + hi) >> 1);
	emit_range(w, batch, lo, middle);
	emit_range(w, batch, middle + 1, hi);
}

/* The batch without the culprits; the group stage apart when it fails. */
static void
apply_rest(Search *search, int64 from, int64 to)
{
	StreamWorker *w = search->w;
	StreamBatch *batch = search->batch;
	int			known = list_length(search->culprits);
	GuardedStep g;
	ErrorData  *error;

	guarded_init(&g, w, batch, STEP_APPLY_WITHOUT);
	error = try_step(&g, false);
	if (error && w->plan->kind == STREAM_ROW)
		search_writes(search, STEP_APPLY_WITHOUT, DEAD_TARGET, from, to,
					  error);
	else if (error && step_exists(w, batch, STEP_MERGE_STATE))
	{
		/* what cannot be added to what is there: an overflow, say */
		search_writes(search, STEP_MERGE_STATE, DEAD_QUERY, from, to,
					  try_prefix(search, STEP_MERGE_STATE, to));
	}
	if (error && list_length(search->culprits) > known)
	{
		guarded_init(&g, w, batch, STEP_APPLY_WITHOUT);
		error = try_step(&g, false);
	}
	if (error == NULL)
	{
		batch->rows_out_of_stage = g.counts[0];
		batch->written = g.counts[2];
		batch->deleted = g.counts[3];
		batch->late_pairs = g.counts[4];
		return;
	}
	if (w->plan->kind == STREAM_ROW ||
		!step_exists(w, batch, STEP_MERGE_STATE))
		ReThrowError(error);
	guarded_init(&g, w, batch, STEP_MERGE_STATE);
	step_run(w, batch, STEP_MERGE_STATE, &g.args);
	batch->rows_out_of_stage = step_int8(1);
	batch->late_pairs = step_int8(5);
	if (step_exists(w, batch, STEP_EMIT_TOUCHED))
		emit_range(w, batch, PG_INT64_MIN, PG_INT64_MAX);
}

void
careful_apply(StreamWorker *w, StreamBatch *batch)
{
	Search		search = {w, batch, NIL};
	int64		from = batch->block_from * TIDS_PER_BLOCK;
	int64		to = batch->block_to * TIDS_PER_BLOCK;

	(void) probe_range(&search, from, to, false);
	set_without(&search);
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
}

static void
close_groups(StreamWorker *w, StreamBatch *batch, int64 lo, int64 hi)
{
	GuardedStep g;
	ErrorData  *error;
	int64		middle;

	guarded_init(&g, w, batch, batch_close_step(w, batch));
	g.args.watermark = batch->new_watermark;
	g.args.hash_lo = lo;
	g.args.hash_hi = hi;
	error = try_step(&g, false);
	if (error == NULL)
	{
		batch->written += g.counts[1];
		batch->windows_closed += g.counts[2];
		return;
	}
	if (lo == hi)
	{
		discard_groups(w, batch, &g.args, error);
		return;
	}
	middle = (int64) (((__int128) lo + hi) >> 1);
	close_groups(w, batch, lo, middle);
	close_groups(w, batch, middle + 1, hi);
}

void
careful_close(StreamWorker *w, StreamBatch *batch)
{
	close_groups(w, batch, PG_INT64_MIN, PG_INT64_MAX);
}
