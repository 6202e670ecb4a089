/*-------------------------------------------------------------------------
 *
 * stream_each.c
 *	  What the target refuses: rows written one by one.
 *
 * One statement gives the rows, in order; it is run once, and they are kept
 * in a tuplestore.  Another one writes a single row, so that every error,
 * that of a foreign key or trigger included, belongs to the row at work.
 *
 * Rows are written in runs, a subtransaction each.  A run that goes well
 * stays.  One that fails at a row is rolled back, and written again up to
 * that row.  When the first row of a run fails, it is refused.  So each row is
 * written in order, after all those before it that are not refused, and most
 * of them are written once.
 *
 * A run costs a transaction id, and its rows, when it fails, room in the
 * target: with a failing row in g, runs of about the square root of g keep
 * both low.  Where nothing fails, runs become longer and longer.
 *
 * Several rows may come of one staged row; they are written or refused
 * together.  Groups go the same way: those that a batch has touched into the
 * target, or those to be closed.
 *
 * It ends: a run that fails is followed by a shorter one, until one goes well
 * or its first row is refused.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type_d.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "stream_careful.h"

/* Memory for the rows, in kB; beyond that they go to disk. */
#define STORE_KB Max(work_mem, 4096)

/* Rows before the first that fails, when nothing is known of how many do. */
#define FIRST_GAP 1000

/* The rows that belong together. */
typedef struct Unit
{
	ItemPointerData tid;
	int32		rows;
} Unit;

typedef struct Each
{
	DestReceiver pub;			/* of the first statement */
	Search	   *search;
	Tuplestorestate *store;		/* read pointer 0 stands at units[at], 1 at
								 * the begin of the run */
	TupleDesc	tupdesc;
	Unit	   *units;
	int64		nunits;
	int64		room;
	StepKind	rows;			/* gives the rows: the first column is the TID
								 * of a staged row, or of a group in state */
	const StepArgs *args;
	TimestampTz window_end;		/* of the last row that came */
	TimestampTz window_start;
	EachCounts *counts;

	StatementPlan *one;
	DestReceiver one_result;
	int64		at;
	int64		run_units;
	int64		done;			/* units of the run that are written */
	int64		written;
	int64		deleted;
} Each;

static void
rows_startup(DestReceiver *self, int operation, TupleDesc tupdesc)
{
	Each	   *each = (Each *) self;
	MemoryContext old = MemoryContextSwitchTo(each->search->w->batch_cxt);

	each->tupdesc = CreateTupleDescCopy(tupdesc);
	MemoryContextSwitchTo(old);
}

/* Windows come one after another. */
static void
count_window(Each *each, TupleTableSlot *slot)
{
	bool		isnull;
	TimestampTz end = DatumGetTimestampTz(slot_getattr(slot, 1, &isnull));
	TimestampTz start = DatumGetTimestampTz(slot_getattr(slot, 2, &isnull));

	if (each->counts->rows == 1 || end != each->window_end ||
		start != each->window_start)
		each->counts->windows++;
	each->window_end = end;
	each->window_start = start;
}

static bool
rows_receive(TupleTableSlot *slot, DestReceiver *self)
{
	Each	   *each = (Each *) self;
	Datum		d;
	ItemPointerData tid;
	bool		isnull;

	d = slot_getattr(slot, 1, &isnull);
	if (each->rows == STEP_MERGE_GROUPS)
	{
		bool		no_count;

		each->counts->rows = DatumGetInt64(slot_getattr(slot, 2, &no_count));
		each->counts->late = DatumGetInt64(slot_getattr(slot, 3, &no_count));
	}
	else
		each->counts->rows++;
	if (isnull)
		return true;			/* no group */
	tid = *(ItemPointer) DatumGetPointer(d);
	if (each->rows == STEP_CLOSING)
		count_window(each, slot);
	tuplestore_puttupleslot(each->store, slot);
	if (each->nunits > 0 &&
		ItemPointerEquals(&each->units[each->nunits - 1].tid, &tid))
	{
		each->units[each->nunits - 1].rows++;
		return true;
	}
	if (each->nunits == each->room)
	{
		each->room *= 2;
		each->units = repalloc_huge(each->units, sizeof(Unit) * each->room);
	}
	each->units[each->nunits].tid = tid;
	each->units[each->nunits++].rows = 1;
	return true;
}

static void
one_startup(DestReceiver *self, int operation, TupleDesc tupdesc)
{
}

static bool
one_receive(TupleTableSlot *slot, DestReceiver *self)
{
	Each	   *each = (Each *) ((char *) self - offsetof(Each, one_result));
	bool		isnull;

	each->written += DatumGetInt64(slot_getattr(slot, 1, &isnull));
	each->deleted += DatumGetInt64(slot_getattr(slot, 2, &isnull));
	return true;
}

static void
receive_nothing(DestReceiver *self)
{
}

static void
fetch(Each *each, TupleTableSlot *slot)
{
	if (!tuplestore_gettupleslot(each->store, true, true, slot))
		elog(ERROR, "a row to be written is missing");
	slot_getallattrs(slot);
}

/* In a subtransaction: the next run_units units. */
static void
write_run(void *arg)
{
	Each	   *each = arg;
	StreamWorker *w = each->search->w;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(each->tupdesc,
													&TTSOpsMinimalTuple);
	int			skip = each->rows == STEP_PLACED_ROWS ? 1 : 0;
	UserContext user;

	catalog_enter_user(&user, w->def->owner, &w->def->settings);
	for (; each->done < each->run_units; each->done++)
	{
		for (int i = 0; i < each->units[each->at + each->done].rows; i++)
		{
			CHECK_FOR_INTERRUPTS();
			fetch(each, slot);
			statement_execute(each->one, &each->one_result,
							  slot->tts_values + skip, slot->tts_isnull + skip,
							  each->search->batch->snapshot);
		}
	}
	catalog_leave_user(&user);
	ExecDropSingleTupleTableSlot(slot);
}

/*
 * Write the next units.  An error: done tells how many of them can be written
 * before the one that fails, and nothing has happened.
 */
static ErrorData *
try_run(Each *each, int64 units)
{
	ErrorData  *error;

	each->run_units = Min(units, each->nunits - each->at);
	each->done = each->written = each->deleted = 0;
	tuplestore_copy_read_pointer(each->store, 0, 1);
	error = search_try(each->search, write_run, each, false);
	if (error)
	{
		tuplestore_copy_read_pointer(each->store, 1, 0);
		return error;
	}
	each->at += each->run_units;
	each->counts->written += each->written;
	each->counts->deleted += each->deleted;
	return NULL;
}

/* The unit that comes next is refused. */
static void
refuse(Each *each, const ErrorData *error, EachRefused refused)
{
	const Unit *unit = &each->units[each->at++];
	TupleTableSlot *slot = MakeSingleTupleTableSlot(each->tupdesc,
													&TTSOpsMinimalTuple);

	for (int i = 0; i < unit->rows; i++)
		fetch(each, slot);
	refused(each->search, &unit->tid, error);
	ExecDropSingleTupleTableSlot(slot);
}

/* The parameters are the columns of a staged row, or a group's place. */
static void
plan_one(Each *each, StepKind one)
{
	bool		placed = each->rows == STEP_PLACED_ROWS;
	int			n = placed ? each->tupdesc->natts - 1 : 1;
	Oid		   *types = palloc(sizeof(Oid) * n);

	for (int i = 0; i < n; i++)
		types[i] = TupleDescAttr(each->tupdesc, placed ? i + 1 : i)->atttypid;
	each->one = step_plan(each->search->w, each->search->batch, one, types,
						  n);
}

static void
write_all(Each *each, EachRefused refused)
{
	int64		refusals = 0;
	int64		since = 0;		/* units since the last refusal */

	while (each->at < each->nunits)
	{
		int64		gap = Max(since, refusals == 0 ? FIRST_GAP :
							  each->at / refusals);
		int64		start = each->at;
		ErrorData  *error = try_run(each, 4 + (int64) sqrt((double) gap));

		while (error && each->done > 0)
			error = try_run(each, each->done);
		since += each->at - start;
		if (error == NULL)
			continue;
		refuse(each, error, refused);
		refusals++;
		since = 0;
	}
}

static void
run_rows(void *arg)
{
	Each	   *each = arg;

	step_run_into(each->search->w, each->search->batch, each->rows,
				  each->args, &each->pub);
}

/*
 * NULL, or the error of the statement that gives the rows, which has done
 * nothing then.  Without refused, all is written in the caller's transaction
 * and any error thrown.
 */
ErrorData *
each_row(Search *search, StepKind rows, StepKind one, const StepArgs *args,
		 EachRefused refused, EachCounts *counts)
{
	MemoryContext old = MemoryContextSwitchTo(search->w->batch_cxt);
	Each	   *each = palloc0(sizeof(Each));
	ErrorData  *error;
	static const DestReceiver receiver = {NULL, NULL, receive_nothing,
	receive_nothing, DestNone};

	memset(counts, 0, sizeof(*counts));
	each->pub = each->one_result = receiver;
	each->pub.receiveSlot = rows_receive;
	each->pub.rStartup = rows_startup;
	each->one_result.receiveSlot = one_receive;
	each->one_result.rStartup = one_startup;
	each->search = search;
	each->counts = counts;
	each->rows = rows;
	each->args = args;
	each->room = 1024;
	each->units = palloc(sizeof(Unit) * each->room);
	each->store = tuplestore_begin_heap(false, false, STORE_KB);
	tuplestore_alloc_read_pointer(each->store, 0);
	if (refused == NULL)
	{
		run_rows(each);
		plan_one(each, one);
		each->run_units = each->nunits;
		write_run(each);
		counts->written = each->written;
		counts->deleted = each->deleted;
		error = NULL;
	}
	else if ((error = search_try(search, run_rows, each, false)) == NULL)
	{
		plan_one(each, one);
		write_all(each, refused);
	}
	counts->groups = each->nunits;
	tuplestore_end(each->store);
	pfree(each->units);
	MemoryContextSwitchTo(old);
	return error;
}
