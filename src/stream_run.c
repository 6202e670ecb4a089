/*-------------------------------------------------------------------------
 *
 * stream_run.c
 *	  One compiled statement of a batch: run it as the owner.
 *
 * Texts are compiled when first used and kept, one set a segment of the
 * ring, since they differ in the view they name.  They all take the
 * parameters of stream.h.  All statements of a batch see the batch's
 * snapshot (and what earlier statements of it wrote), and run with the
 * stream owner's rights and the settings captured at its creation, in a
 * security-restricted context (stream_execute.c).
 *
 * A statement's result stays until the next one, and is read with the
 * functions below.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "stream_batch.h"
#include "stream_execute.h"

/* Of the statement run last. */
static StatementResult result;

static const char *
step_sql(const StreamStatements *s, StepKind step)
{
	switch (step)
	{
		case STEP_APPLY:
			return s->apply;
		case STEP_APPLY_WITHOUT:
			return s->apply_without;
		case STEP_MERGE_STATE:
			return s->merge_state;
		case STEP_PLACED_ROWS:
			return s->placed_rows;
		case STEP_ONE_ROW:
			return s->one_row;
		case STEP_MERGE_GROUPS:
			return s->merge_groups;
		case STEP_EMIT_ONE:
			return s->emit_one;
		case STEP_COUNT:
			return s->count;
		case STEP_PROBE:
			return s->probe;
		case STEP_LATE:
			return s->late;
		case STEP_CULPRITS:
			return s->culprits;
		case STEP_CLOSE:
			return s->close;
		case STEP_CLOSE_AGAIN:
			return s->close_again;
		case STEP_CLOSING:
			return s->closing;
		case STEP_CLOSE_ONE:
			return s->close_one;
		case STEP_DISCARD_ONE:
			return s->discard_one;
		case STEP_OLDEST:
			return s->oldest;
		case STEP_NEWEST:
			return s->newest;
		case STEP_CLEAR_TARGET:
			return s->clear_target;
		case STEP_FIRST_EVENTS:
			return s->first_events;
		case STEP_LATEST_EVENTS:
			return s->latest_events;
		case STEP_CLEAR_INCOMPLETE:
			return s->clear_incomplete;
		case STREAM_NSTEPS:
			break;
	}
	return NULL;
}

static void
free_plans(SegmentPlans *plans)
{
	if (plans->cxt)
		MemoryContextDelete(plans->cxt);
	memset(plans, 0, sizeof(*plans));
}

/* Forget all statements, when the definition has changed. */
void
step_forget(StreamWorker *w)
{
	for (int i = 0; i < WEIR_MAX_SEGMENTS; i++)
	{
		free_plans(&w->segments[i]);
		free_plans(&w->private_segments[i]);
	}
}

static SegmentPlans *
plans_of(StreamWorker *w, const StreamBatch *batch)
{
	return w->on_private ? &w->private_segments[batch->segment] :
		&w->segments[batch->segment];
}

/* The statements of the batch's segment. */
static SegmentPlans *
segment_plans(StreamWorker *w, const StreamBatch *batch)
{
	SegmentPlans *plans = plans_of(w, batch);
	MemoryContext old;

	if (plans->viewid == batch->viewid && plans->statements)
		return plans;
	free_plans(plans);
	plans->cxt = AllocSetContextCreate(w->cxt, "weir segment statements",
									   ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(plans->cxt);
	plans->statements = stream_compile(w->plan, &w->options,
									   rights_segment_text(w, batch->viewid),
									   w->state_name, w->target_name);
	plans->viewid = batch->viewid;
	MemoryContextSwitchTo(old);
	return plans;
}

bool
step_exists(StreamWorker *w, const StreamBatch *batch, StepKind step)
{
	return OidIsValid(batch->viewid) &&
		step_sql(segment_plans(w, batch)->statements, step) != NULL;
}

void
step_args_init(StepArgs *args, const StreamWorker *w,
			   const StreamBatch *batch)
{
	memset(args, 0, sizeof(*args));
	ItemPointerSet(&args->from, batch->block_from, 0);
	ItemPointerSet(&args->to, batch->block_to, 0);
	args->closed_to = w->closed_to;
	args->watermark = zone_lower(w->plan->event_zone, w->watermark);
}

static Datum
offsets_array(const int64 *offsets, int n)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		values[i] = Int64GetDatum(offsets[i]);
	return PointerGetDatum(construct_array(values, n, INT8OID, 8,
										   FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

static Datum
tids_array(const ItemPointerData *tids, int n)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		values[i] = PointerGetDatum(unconstify(ItemPointerData *,
											   &tids[i]));
	return PointerGetDatum(construct_array(values, n, TIDOID,
										   sizeof(ItemPointerData), false,
										   TYPALIGN_SHORT));
}

static StatementResult *
result_of(const StreamWorker *w)
{
	if (result.cxt == NULL)
		result.cxt = AllocSetContextCreate(w->cxt, "weir result",
										   ALLOCSET_DEFAULT_SIZES);
	return &result;
}

static const char *
step_text_of(StreamWorker *w, const StreamBatch *batch, StepKind step)
{
	return step_sql(segment_plans(w, batch)->statements, step);
}

static void
step_values(const StreamWorker *w, const StreamBatch *batch,
			const StepArgs *args, Datum *values)
{
	values[0] = PointerGetDatum(unconstify(ItemPointerData *,
										   &args->from));
	values[1] = PointerGetDatum(unconstify(ItemPointerData *,
										   &args->to));
	values[2] = offsets_array(w->applied, w->npartitions);
	values[3] = offsets_array(batch->high, w->npartitions);
	values[4] = TimestampTzGetDatum(args->watermark);
	values[5] = tids_array(args->without, args->nwithout);
	values[6] = Int64GetDatum(args->number);
	values[7] = Int64GetDatum(0);
	values[8] = TimestampTzGetDatum(args->closed_to);
}

/*
 * Run a step.  It runs as the stream's owner; on an ERROR the
 * (sub)transaction's abort puts the user back.
 */
void
step_run(StreamWorker *w, StreamBatch *batch, StepKind step,
		 const StepArgs *args)
{
	Datum		values[STREAM_NPARAMS];

	step_values(w, batch, args, values);
	statement_run(result_of(w), w->def, w->plan, step_text_of(w, batch, step),
				  values, NULL, batch->snapshot, batch->viewid);
}

/* The same, with the result somewhere else. */
void
step_run_into(StreamWorker *w, StreamBatch *batch, StepKind step,
			  const StepArgs *args, DestReceiver *dest)
{
	Datum		values[STREAM_NPARAMS];

	step_values(w, batch, args, values);
	statement_run_into(dest, w->def, w->plan, step_text_of(w, batch, step),
					   values, NULL, batch->snapshot, batch->viewid);
}

/*
 * A step that is run many times in a batch, planned once: call it outside of
 * any subtransaction, so that the locks are held.  types as statement_plan().
 */
StatementPlan *
step_plan(StreamWorker *w, StreamBatch *batch, StepKind step,
		  const Oid *types, int ntypes)
{
	MemoryContext old = MemoryContextSwitchTo(w->batch_cxt);
	StatementPlan *plan;
	UserContext user;

	catalog_enter_user(&user, w->def->owner, &w->def->settings);
	plan = statement_plan(w->def, w->plan, step_text_of(w, batch, step),
						  types, ntypes, batch->viewid);
	catalog_leave_user(&user);
	MemoryContextSwitchTo(old);
	return plan;
}

/* Run a step that is planned and has the parameters of all steps. */
void
step_run_planned(StreamWorker *w, StreamBatch *batch, StatementPlan *plan,
				 const StepArgs *args, DestReceiver *dest)
{
	Datum		values[STREAM_NPARAMS];
	UserContext user;

	step_values(w, batch, args, values);
	catalog_enter_user(&user, w->def->owner, &w->def->settings);
	statement_execute(plan, dest, values, NULL, batch->snapshot);
	catalog_leave_user(&user);
}

/* Run a step that is planned, with parameters of its own. */
void
step_run_one(StreamWorker *w, StreamBatch *batch, StatementPlan *plan,
			 const Datum *values, const bool *nulls)
{
	UserContext user;

	catalog_enter_user(&user, w->def->owner, &w->def->settings);
	statement_execute(plan, statement_receiver(result_of(w)), values, nulls,
					  batch->snapshot);
	catalog_leave_user(&user);
}

uint64
step_rows(void)
{
	return result.nrows;
}

int
step_columns(void)
{
	return result.tupdesc != NULL ? result.tupdesc->natts : 0;
}

/* A column of the first row of the last result; 0 when NULL or no row. */
int64
step_int8(int column)
{
	bool		isnull;
	Datum		d;

	if (result.nrows == 0)
		return 0;
	d = step_datum(0, column, &isnull);
	return isnull ? 0 : DatumGetInt64(d);
}

Datum
step_datum(uint64 row, int column, bool *isnull)
{
	Assert(row < result.nrows && column <= result.tupdesc->natts);
	return heap_getattr(result.rows[row], column, result.tupdesc, isnull);
}

char *
step_text(uint64 row, int column)
{
	Oid			output;
	bool		is_varlena;
	bool		isnull;
	Datum		d = step_datum(row, column, &isnull);

	if (isnull)
		return NULL;
	getTypeOutputInfo(TupleDescAttr(result.tupdesc, column - 1)->atttypid,
					  &output, &is_varlena);
	return OidOutputFunctionCall(output, d);
}

/*
 * Where a row of the last result stands in Kafka: its first four columns are
 * kafka_partition, kafka_offset, kafka_timestamp and kafka_key.
 */
void
step_row_position(uint64 row, DeadLetter *letter)
{
	bool		isnull;
	Datum		d;

	letter->partition = DatumGetInt32(step_datum(row, 1, &isnull));
	letter->offset = DatumGetInt64(step_datum(row, 2, &isnull));
	d = step_datum(row, 3, &isnull);
	letter->kafka_timestamp = isnull ? DT_NOBEGIN : DatumGetTimestampTz(d);
	d = step_datum(row, 4, &isnull);
	if (!isnull)
	{
		bytea	   *key = DatumGetByteaPCopy(d);

		letter->key = VARDATA(key);
		letter->key_len = VARSIZE(key) - VARHDRSZ;
	}
}
