/*-------------------------------------------------------------------------
 *
 * stream_execute.c
 *	  Run a statement that weir has made, as the owner of a stream.
 *
 * A compiled statement has names of two kinds of people in it: weir's, and
 * those of the query's owner, deparsed.  Both were written for a search_path
 * of pg_catalog alone, where what is elsewhere is qualified, so that path is
 * what the statement is analyzed under.  Under any longer one, an operator or
 * function of somebody else's that fits the types better would be taken in
 * place of PostgreSQL's, pg_catalog being first or not.
 *
 * Bodies of functions are another matter: the owner's path is what they were
 * written for.  The planner inlines the bodies of SQL functions, and the
 * executor runs the others, so planning and execution are under the settings
 * captured at creation.
 *
 * PostgreSQL's cache of plans analyzes and executes under one path, hence
 * this way around it.  Each run is parsed and analyzed anew, which takes
 * the locks, sees what is in the catalog now, and costs a third of what
 * planning does (0.13 ms for windows and a join); and it is planned anew, for
 * the batch's own range of rows: a generic plan, made for a few rows, joins
 * by nested loops.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "nodes/params.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "tcop/tcopprot.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "objects.h"
#include "stream_execute.h"

/* Keeps the rows of a result in its context. */
typedef struct ResultReceiver
{
	DestReceiver pub;
	StatementResult *result;
} ResultReceiver;

static const Oid parameter_types[STREAM_NPARAMS] = {
	TIDOID, TIDOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZOID, TIDARRAYOID,
	INT8OID, INT8OID, TIMESTAMPTZOID
};

static void
receive_startup(DestReceiver *self, int operation, TupleDesc tupdesc)
{
	StatementResult *result = ((ResultReceiver *) self)->result;
	MemoryContext old = MemoryContextSwitchTo(result->cxt);

	result->tupdesc = CreateTupleDescCopy(tupdesc);
	result->room = 16;
	result->rows = palloc(sizeof(HeapTuple) * result->room);
	MemoryContextSwitchTo(old);
}

static bool
receive_slot(TupleTableSlot *slot, DestReceiver *self)
{
	StatementResult *result = ((ResultReceiver *) self)->result;
	MemoryContext old = MemoryContextSwitchTo(result->cxt);

	if (result->nrows == result->room)
	{
		result->room *= 2;
		result->rows = repalloc_huge(result->rows,
									 sizeof(HeapTuple) * result->room);
	}
	result->rows[result->nrows++] = ExecCopySlotHeapTuple(slot);
	MemoryContextSwitchTo(old);
	return true;
}

static void
receive_nothing(DestReceiver *self)
{
}

/* A position in weir's own text says nothing to anybody. */
static void
hide_position(void *arg)
{
	if (geterrposition() > 0)
		errposition(0);
}

static Query *
analyze_text(const char *sql, const Oid *types, int ntypes)
{
	ErrorContextCallback callback;
	int			nest_level = catalog_enter_neutral();
	List	   *raw;
	Query	   *query;

	callback.callback = hide_position;
	callback.arg = NULL;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	raw = raw_parser(sql, RAW_PARSE_DEFAULT);
	query = parse_analyze_fixedparams(linitial_node(RawStmt, raw), sql, types,
									  ntypes, NULL);
	if (list_length(raw) != 1)
		elog(ERROR, "not one statement: %s", sql);

	error_context_stack = callback.previous;
	catalog_leave_neutral(nest_level);
	return query->commandType == CMD_UTILITY ? NULL : query;
}

/* The view of the segment that the statement reads in the source's place. */
typedef struct SegmentReference
{
	Oid			viewid;
	Oid			owner;			/* weir's */
} SegmentReference;

/* It is read with weir's own rights; stream_rights.c says how much of it. */
static bool
segment_walker(Node *node, SegmentReference *segment)
{
	ListCell   *lc;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, segment_walker, segment);
	foreach(lc, ((Query *) node)->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_RELATION && rte->relid == segment->viewid)
			compat_check_as_user((Query *) node, rte, segment->owner);
	}
	return query_tree_walker((Query *) node, segment_walker, segment, 0);
}

/* Under a search_path of pg_catalog; takes the locks. */
Query *
statement_analyze(const char *sql)
{
	return analyze_text(sql, parameter_types, STREAM_NPARAMS);
}

/*
 * A statement with views expanded, if it calls what the stream may call: what
 * was created since, and fits better, is never called.
 */
static Query *
analyze(const char *sql, const Oid *types, int ntypes, const List *objects,
		const char *what, Oid segment)
{
	Query	   *query = analyze_text(sql, types, ntypes);
	List	   *rewritten;

	if (query == NULL)
		elog(ERROR, "not a statement to be planned: %s", sql);
	objects_check(objects_add_called(NIL, query), objects, what);
	if (OidIsValid(segment))
	{
		SegmentReference reference = {segment, catalog_extension_owner()};

		segment_walker((Node *) query, &reference);
	}
	rewritten = pg_rewrite_query(query);
	if (list_length(rewritten) != 1)
		elog(ERROR, "not one statement: %s", sql);
	return linitial_node(Query, rewritten);
}

static ParamListInfo
make_parameters(const Oid *types, int ntypes)
{
	ParamListInfo params = makeParamList(ntypes);

	for (int i = 0; i < ntypes; i++)
	{
		params->params[i].value = (Datum) 0;
		params->params[i].isnull = true;
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = types[i];
	}
	return params;
}

/*
 * Rows that triggers skip
 */

static bool watching = false;
static bool skipped = false;

void
statement_watch_rows(bool watch)
{
	watching = watch;
}

bool
statement_rows_skipped(void)
{
	bool		result = skipped;

	skipped = false;
	return result;
}

/*
 * Has a BEFORE trigger kept the node from writing a row that came to it?
 * What it writes, it returns.  (One that is to leave rows out is of the state,
 * which has no triggers.)
 */
static void
look_for_skipped(PlanState *state)
{
	ModifyTable *plan = (ModifyTable *) state->plan;
	PlanState  *rows = outerPlanState(state);

	if (!IsA(state, ModifyTableState) || plan->returningLists == NIL ||
		plan->onConflictAction == ONCONFLICT_NOTHING ||
		plan->onConflictWhere != NULL)
		return;
	InstrEndLoop(state->instrument);
	InstrEndLoop(rows->instrument);
	if (state->instrument->ntuples < rows->instrument->ntuples)
		skipped = true;
}

static void
set_parameters(ParamListInfo params, const Datum *values, const bool *nulls)
{
	for (int i = 0; i < params->numParams; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = nulls != NULL && nulls[i];
	}
}

static void
execute(DestReceiver *dest, PlannedStmt *plan, const char *sql,
		ParamListInfo params, Snapshot snapshot)
{
	QueryDesc  *desc;

	/* The caller's snapshot, and what this transaction has written. */
	PushCopiedSnapshot(snapshot);
	CommandCounterIncrement();
	UpdateActiveSnapshotCommandId();
	desc = CreateQueryDesc(plan, sql, GetActiveSnapshot(), InvalidSnapshot,
						   dest, params, NULL,
						   watching ? INSTRUMENT_ROWS : 0);
	ExecutorStart(desc, 0);
	compat_executor_run(desc);
	ExecutorFinish(desc);
	if (watching)
	{
		ListCell   *lc;

		look_for_skipped(desc->planstate);
		foreach(lc, desc->estate->es_subplanstates)
			if (lfirst(lc))
			look_for_skipped(lfirst(lc));
	}
	ExecutorEnd(desc);
	FreeQueryDesc(desc);
	PopActiveSnapshot();
	CommandCounterIncrement();
}

StatementPlan *
statement_plan(const StreamDef *def, const StreamPlan *plan, const char *sql,
			   const Oid *types, int ntypes, Oid segment)
{
	StatementPlan *statement = palloc(sizeof(StatementPlan));
	Query	   *query;

	if (types == NULL)
	{
		types = parameter_types;
		ntypes = STREAM_NPARAMS;
	}
	query = analyze(sql, types, ntypes, plan->objects,
					psprintf("stream \"%s\"", def->name), segment);
	statement->sql = sql;
	statement->plan = pg_plan_query(query, sql, CURSOR_OPT_PARALLEL_OK, NULL);
	statement->params = make_parameters(types, ntypes);
	return statement;
}

void
statement_execute(StatementPlan *statement, DestReceiver *dest,
				  const Datum *values, const bool *nulls, Snapshot snapshot)
{
	set_parameters(statement->params, values, nulls);
	execute(dest, statement->plan, statement->sql, statement->params,
			snapshot);
}

DestReceiver *
statement_receiver(StatementResult *result)
{
	ResultReceiver *receiver = palloc0(sizeof(ResultReceiver));
	MemoryContext cxt = result->cxt;

	/* What a failed run has left goes now. */
	MemoryContextReset(cxt);
	memset(result, 0, sizeof(*result));
	result->cxt = cxt;
	receiver->pub.receiveSlot = receive_slot;
	receiver->pub.rStartup = receive_startup;
	receiver->pub.rShutdown = receive_nothing;
	receiver->pub.rDestroy = receive_nothing;
	receiver->pub.mydest = DestNone;
	receiver->result = result;
	return &receiver->pub;
}

void
statement_run_into(DestReceiver *dest, const StreamDef *def,
				   const StreamPlan *plan, const char *sql,
				   const Datum *values, const bool *nulls, Snapshot snapshot,
				   Oid segment)
{
	ParamListInfo params = make_parameters(parameter_types, STREAM_NPARAMS);
	MemoryContext work;
	MemoryContext old;
	UserContext user;
	Query	   *query;

	set_parameters(params, values, nulls);
	work = AllocSetContextCreate(CurrentMemoryContext, "weir statement",
								 ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(work);
	catalog_enter_user(&user, def->owner, &def->settings);
	query = analyze(sql, parameter_types, STREAM_NPARAMS, plan->objects,
					psprintf("stream \"%s\"", def->name), segment);
	execute(dest, pg_plan_query(query, sql, CURSOR_OPT_PARALLEL_OK, params),
			sql, params, snapshot);
	catalog_leave_user(&user);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(work);
}

void
statement_run(StatementResult *result, const StreamDef *def,
			  const StreamPlan *plan, const char *sql, const Datum *values,
			  const bool *nulls, Snapshot snapshot, Oid segment)
{
	statement_run_into(statement_receiver(result), def, plan, sql, values,
					   nulls, snapshot, segment);
}

void
statement_check(const char *sql, Oid owner, const CapturedSettings *settings,
				const List *objects)
{
	UserContext user;
	PlannedStmt *plan;
	QueryDesc  *desc;

	catalog_enter_user(&user, owner, settings);
	plan = pg_plan_query(analyze(sql, parameter_types, STREAM_NPARAMS, objects,
								 "the query", InvalidOid), sql, 0, NULL);
	desc = CreateQueryDesc(plan, sql, GetActiveSnapshot(), InvalidSnapshot,
						   None_Receiver, NULL, NULL, 0);
	ExecutorStart(desc, EXEC_FLAG_EXPLAIN_ONLY);
	ExecutorEnd(desc);
	FreeQueryDesc(desc);
	catalog_leave_user(&user);
}
