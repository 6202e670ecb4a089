/*-------------------------------------------------------------------------
 *
 * stream_failures.c
 *	  How many of the last rows failed: is the query at fault, not the data?
 *
 * When more than max_dead_ratio of at least 100 rows fail with one SQLSTATE,
 * the stream fails instead of making dead letters of everything.  A batch of
 * 100 rows and more is judged by itself, a smaller one together with those
 * before it that make up 100: so it does not matter how rows happen to come.
 * What a worker has not seen since its start does not count.
 *
 * The first dead letter of each SQLSTATE since the start of the worker is
 * told in last_error, and stays there until another error takes its place.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "errors.h"
#include "stream_batch.h"

static int64
rows_of_kind(const BatchFailures *failures, int sqlerrcode)
{
	for (int i = 0; i < failures->nkinds; i++)
		if (failures->kinds[i].sqlerrcode == sqlerrcode)
			return failures->kinds[i].rows;
	return 0;
}

static void
check_ratio(const StreamWorker *w, const StreamBatch *batch,
			const ErrorData *error)
{
	double		ratio = w->def->max_dead_ratio;
	int64		rows = batch->nrows;
	int64		failed = rows_of_kind(&batch->failures, error->sqlerrcode);

	for (int i = 0; i < w->nfailures && rows < FAILURE_ROWS; i++)
	{
		rows += w->failures[i].rows;
		failed += rows_of_kind(&w->failures[i], error->sqlerrcode);
	}
	if (rows < FAILURE_ROWS || failed <= ratio * rows)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%lld of %lld rows failed with SQLSTATE %s: %s",
					(long long) failed, (long long) rows,
					error_sqlstate(error->sqlerrcode), error_text(error)),
			 errdetail("That is more than max_dead_ratio %g allows.", ratio),
			 errhint("Repair the query or the target and call "
					 "weir.resume(), or raise options.max_dead_ratio.")));
}

/* Is it the first dead letter of its kind?  Told when the batch commits. */
void
failures_first(StreamWorker *w, StreamBatch *batch, const ErrorData *error)
{
	if (batch->first_sqlerrcode != 0)
		return;
	for (int i = 0; i < w->nkinds_shown; i++)
		if (w->kinds_shown[i] == error->sqlerrcode)
			return;
	batch->first_sqlerrcode = error->sqlerrcode;
	batch->first_message = MemoryContextStrdup(w->batch_cxt,
											   psprintf("dead letter: %s",
														error_text(error)));
}

/* One more row of the batch fails; ERROR when that is too many. */
void
failures_count(StreamWorker *w, StreamBatch *batch, const ErrorData *error)
{
	BatchFailures *failures = &batch->failures;
	int			i = 0;

	while (i < failures->nkinds &&
		   failures->kinds[i].sqlerrcode != error->sqlerrcode)
		i++;
	if (i == FAILURE_KINDS)
		return;
	if (i == failures->nkinds)
	{
		failures->kinds[i].sqlerrcode = error->sqlerrcode;
		failures->kinds[i].rows = 0;
		failures->nkinds++;
	}
	failures->kinds[i].rows++;
	check_ratio(w, batch, error);
	failures_first(w, batch, error);
}

/* The batch is committed. */
void
failures_commit(StreamWorker *w, StreamBatch *batch)
{
	if (batch->nrows > 0)
	{
		int64		rows = batch->nrows;
		int			keep = 0;

		/* those before it that are needed to make up the number */
		while (keep < w->nfailures && keep < FAILURE_ROWS - 1 &&
			   rows < FAILURE_ROWS)
			rows += w->failures[keep++].rows;
		memmove(&w->failures[1], &w->failures[0],
				sizeof(w->failures[0]) * keep);
		w->failures[0] = batch->failures;
		w->failures[0].rows = batch->nrows;
		w->nfailures = keep + 1;
	}
	if (batch->first_sqlerrcode == 0)
		return;
	w->kinds_shown[w->nkinds_shown % FAILURE_KINDS] = batch->first_sqlerrcode;
	w->nkinds_shown = Min(w->nkinds_shown + 1, FAILURE_KINDS);
	w->letter_shown = true;
	worker_set_error(&w->shared->error, batch->first_sqlerrcode,
					 batch->first_message);
}
