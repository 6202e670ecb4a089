/*-------------------------------------------------------------------------
 *
 * stream_search.c
 *	  Which rows of a batch make a statement fail?
 *
 * Statements are tried over ranges of TIDs in internal subtransactions.
 *
 *	Row stage.  The probe is read-only, so that trying it costs no transaction
 *	id.  When it fails, the row that it had seen last (stream_support.c) is
 *	suspected, and tried alone; if that fails, too, it is a culprit, and the
 *	probe goes on behind it.  So k culprits cost about 2 k tries, and each
 *	other row is looked at about once.  Where plans do not work row by row the
 *	suspicion is wrong: then the range is halved until a failing one is a
 *	single row.  At the end the probe must be able to do the whole batch
 *	without the culprits; otherwise it is halved as well.
 *
 *	Writes.  Whether a row can be merged depends on those before it, so the
 *	culprit is the last row of the shortest failing prefix in the order of
 *	staging; found with writes that are rolled back.
 *
 * Every search ends: a range that is searched shrinks, a culprit is left out
 * of all further tries, and one that is found again is an error.  What a try
 * needs of memory is given back before the next one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "stream_careful.h"

typedef struct GuardedStep
{
	Search	   *search;
	StepKind	step;
	const StepArgs *args;
} GuardedStep;

static void
tid_of(int64 number, ItemPointerData *tid)
{
	ItemPointerSet(tid, number / TIDS_PER_BLOCK, number % TIDS_PER_BLOCK);
}

static int64
number_of(const ItemPointerData *tid)
{
	return ItemPointerGetBlockNumberNoCheck(tid) * TIDS_PER_BLOCK +
		ItemPointerGetOffsetNumberNoCheck(tid);
}

void
search_init(Search *search, StreamWorker *w, StreamBatch *batch)
{
	HASHCTL		ctl = {0};

	memset(search, 0, sizeof(*search));
	search->w = w;
	search->batch = batch;
	ctl.keysize = sizeof(ItemPointerData);
	ctl.entrysize = sizeof(Culprit);
	ctl.hcxt = w->batch_cxt;
	search->culprits = hash_create("weir culprits", 256, &ctl,
								   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	search->try_cxt = AllocSetContextCreate(w->batch_cxt, "weir try",
											ALLOCSET_DEFAULT_SIZES);
}

static void
run_step(void *arg)
{
	GuardedStep *g = arg;
	Search	   *search = g->search;

	step_run(search->w, search->batch, g->step, g->args);
	memset(search->counts, 0, sizeof(search->counts));
	if (step_rows() == 1)
		for (int i = 0; i < Min(lengthof(search->counts), step_columns()); i++)
			search->counts[i] = step_int8(i + 1);
}

/*
 * Run fn(arg) in a subtransaction.  NULL: it went well.  The error is good
 * until the next try.  One that can be no row's is thrown on.
 */
ErrorData *
search_try(Search *search, void (*fn) (void *), void *arg, bool rollback)
{
	MemoryContext old;
	ErrorData  *error;

	CHECK_FOR_INTERRUPTS();
	MemoryContextReset(search->try_cxt);
	support_forget_seen();
	old = MemoryContextSwitchTo(search->try_cxt);
	error = error_guard(fn, arg, rollback);
	MemoryContextSwitchTo(old);
	if (error && !error_may_be_of_row(error->sqlerrcode))
		ReThrowError(error);
	return error;
}

ErrorData *
search_try_step(Search *search, StepKind step, const StepArgs *args,
				bool rollback)
{
	GuardedStep g = {search, step, args};

	return search_try(search, run_step, &g, rollback);
}

/* Arguments for [from, to), without what has been found so far. */
void
search_args(const Search *search, StepArgs *args, int64 from, int64 to)
{
	step_args_init(args, search->w, search->batch);
	args->without = search->batch->culprits;
	args->nwithout = search->batch->nculprits;
	tid_of(from, &args->from);
	tid_of(to, &args->to);
}

void
search_add(Search *search, const ItemPointerData *tid,
		   DeadLetterReason reason, const ErrorData *error)
{
	Culprit    *culprit;
	bool		found;
	MemoryContext old;

	if (search->w->def->stop_on_error)
		ReThrowError(unconstify(ErrorData *, error));
	culprit = hash_search(search->culprits, tid, HASH_ENTER, &found);
	if (found)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("a row that was left out has failed again: %s",
						error_text(error)),
				 errdetail("The row at %u/%u of the segment is known to fail; a statement read it all the same.",
						   ItemPointerGetBlockNumber(tid),
						   ItemPointerGetOffsetNumber(tid))));
	old = MemoryContextSwitchTo(search->w->batch_cxt);
	culprit->reason = reason;
	culprit->sqlerrcode = error->sqlerrcode;
	culprit->message = error_text(error);
	MemoryContextSwitchTo(old);
	failures_count(search->w, search->batch, error);
}

static int
compare_tids(const void *a, const void *b)
{
	return ItemPointerCompare((ItemPointer) a, (ItemPointer) b);
}

/* The culprits' TIDs become $6 of the statements that follow. */
void
search_leave_out(Search *search)
{
	StreamBatch *batch = search->batch;
	HASH_SEQ_STATUS seq;
	Culprit    *culprit;
	long		n = hash_get_num_entries(search->culprits);

	if (batch->nculprits == n)
		return;
	if (batch->culprits)
		pfree(batch->culprits);
	batch->culprits = MemoryContextAllocHuge(search->w->batch_cxt,
											 sizeof(ItemPointerData) * n);
	batch->nculprits = 0;
	hash_seq_init(&seq, search->culprits);
	while ((culprit = hash_seq_search(&seq)) != NULL)
		batch->culprits[batch->nculprits++] = culprit->tid;
	qsort(batch->culprits, n, sizeof(ItemPointerData), compare_tids);
}

typedef struct GuardedProbe
{
	Search	   *search;
	const StepArgs *args;
} GuardedProbe;

static void
run_probe(void *arg)
{
	GuardedProbe *g = arg;

	step_run_planned(g->search->w, g->search->batch, g->search->probe,
					 g->args, None_Receiver);
}

static ErrorData *
try_probe(Search *search, int64 from, int64 to)
{
	StepArgs	args;
	GuardedProbe g = {search, &args};

	search_args(search, &args, from, to);
	return search_try(search, run_probe, &g, true);
}

/* Is the row at number a culprit, taken by itself? */
static bool
probe_row(Search *search, int64 number)
{
	ErrorData  *error = try_probe(search, number, number + 1);
	ItemPointerData tid;

	if (error == NULL)
		return false;
	tid_of(number, &tid);
	search_add(search, &tid, DEAD_QUERY, error);
	return true;
}

/*
 * Halve [from, to).  known says that it fails for sure, so that only its
 * halves need to be probed.  Returns whether a culprit was found.
 */
static bool
probe_halves(Search *search, int64 from, int64 to, bool known)
{
	int64		middle;
	bool		found;

	if (to - from == 1)
		return probe_row(search, from);
	if (!known && try_probe(search, from, to) == NULL)
		return false;
	middle = from + (to - from) / 2;

	/* Between blocks first: that needs fewer probes. */
	if (to - from > TIDS_PER_BLOCK)
		middle = middle / TIDS_PER_BLOCK * TIDS_PER_BLOCK;
	if (middle <= from)
		middle = from + (to - from) / 2;
	found = probe_halves(search, from, middle, false);
	return probe_halves(search, middle, to, !found) || found;
}

/*
 * Find the culprits of the row stage in [from, to), and leave them out.
 */
void
search_row_stage(Search *search, int64 from, int64 to)
{
	int64		start = from;
	bool		suspected = false;

	/* For ever smaller ranges, so planned only once, for whatever range. */
	search->probe = step_plan(search->w, search->batch, STEP_PROBE, NULL, 0);
	while (start < to && try_probe(search, start, to) != NULL)
	{
		ItemPointerData seen;
		int64		number;

		number = support_last_seen(&seen) ? number_of(&seen) : -1;
		if (number < start || number >= to || !probe_row(search, number))
		{
			(void) probe_halves(search, start, to, true);
			break;
		}
		suspected = true;
		start = number + 1;
	}
	search_leave_out(search);
	if (suspected && try_probe(search, from, to) != NULL)
	{
		(void) probe_halves(search, from, to, true);
		search_leave_out(search);
	}
}

typedef struct Runs
{
	Search	   *search;
	StatementPlan *plan;
	DeadLetterReason reason;
	int64		from;
	int64		to;
	StepArgs	args;			/* of the run at work */
} Runs;

/* TIDs of the first run, and of the first one behind a culprit. */
#define FIRST_RUN 64

static void
write_run(void *arg)
{
	Runs	   *runs = arg;

	step_run_planned(runs->search->w, runs->search->batch, runs->plan,
					 &runs->args, None_Receiver);
}

/* Runs that go well stay; one that fails is halved down to a single row. */
static void
write_runs(void *arg)
{
	Runs	   *runs = arg;
	int64		start = runs->from;
	int64		length = FIRST_RUN;

	while (start < runs->to)
	{
		int64		end = Min(start + length, runs->to);
		ErrorData  *error;
		ItemPointerData tid;

		search_args(runs->search, &runs->args, start, end);
		error = search_try(runs->search, write_run, runs, false);
		if (error && end - start > 1)
		{
			length = (end - start) / 2;
			continue;
		}
		length = error ? FIRST_RUN : length * 2;
		if (error)
		{
			tid_of(start, &tid);
			search_add(runs->search, &tid, runs->reason, error);
		}
		start = end;
	}
}

/*
 * The culprits that a step finds which writes [from, to) in runs, one upon
 * another; all of it is rolled back.
 */
static void
search_runs(Search *search, StepKind step, DeadLetterReason reason,
			int64 from, int64 to)
{
	Runs		runs = {search, NULL, reason, from, to};
	MemoryContext old = MemoryContextSwitchTo(search->w->batch_cxt);
	ErrorData  *error;

	runs.plan = step_plan(search->w, search->batch, step, NULL, 0);
	error = error_guard(write_runs, &runs, true);
	if (error)
		ReThrowError(error);
	search_leave_out(search);
	MemoryContextSwitchTo(old);
}

/*
 * Find culprits until a step that writes can do the whole of [from, to); each
 * try is rolled back.  Most are found in runs; what goes well in runs may
 * still fail at once, by rounding, and then one culprit after another is
 * found by its prefix.
 */
void
search_writes(Search *search, StepKind step, DeadLetterReason reason,
			  int64 from, int64 to)
{
	int64		start = from;

	search_runs(search, step, reason, from, to);
	for (;;)
	{
		StepArgs	args;
		ErrorData  *error;
		ItemPointerData tid;
		int64		good = start;	/* the prefix before it can be written */
		int64		bad = to;	/* the prefix before it cannot */

		search_args(search, &args, from, to);
		if (search_try_step(search, step, &args, true) == NULL)
			return;
		while (bad - good > 1)
		{
			int64		middle = good + (bad - good) / 2;

			search_args(search, &args, from, middle);
			if (search_try_step(search, step, &args, true) != NULL)
				bad = middle;
			else
				good = middle;
		}

		/* once more, for the error that belongs to it */
		search_args(search, &args, from, bad);
		error = search_try_step(search, step, &args, true);
		if (error == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("a statement fails at one time and works at another")));
		tid_of(bad - 1, &tid);
		search_add(search, &tid, reason, error);
		search_leave_out(search);
		start = bad;
	}
}
