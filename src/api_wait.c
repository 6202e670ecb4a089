/*-------------------------------------------------------------------------
 *
 * api_wait.c
 *	  weir.wait_for(): wait until a stream has applied all there is.
 *
 * "All" is what stood in Kafka at the call, up to the last stable offset of
 * each partition.  Only the broker knows, so the source's ingest worker is
 * asked (slot.ends_asked) and answers with end_asked a partition under
 * ends_generation.  After that the stream's committed progress is read again
 * and again until it has come that far, and until the advances recorded
 * before the call have been applied, too.  A source that is not served for a
 * while (restart, broker down) is asked again when it is back.
 *
 * A statement's snapshot keeps old row versions from being removed in all of
 * the database, as long as it runs.  The usual "SELECT weir.wait_for(...)"
 * reads nothing by its snapshot, so while it waits it does not claim any.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/plannodes.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "api.h"
#include "catalog_spi.h"
#include "settings.h"
#include "stats.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(weir_wait_for);

/* Between two looks at the progress; it is committed in micro-batches. */
#define POLL_MS 20

typedef struct Wait
{
	StreamDef  *def;
	int64		last_advance;	/* newest recorded before the call; 0: none */
	TimestampTz deadline;
	uint64		asked;			/* generation of the question; 0: not asked */
	int			npartitions;	/* 0: no answer yet */
	int64	   *ends;
	int			behind;			/* partitions */
	int64		lag;			/* records */
} Wait;

static void
not_now(const char *name, const char *why, const char *hint)
{
	ereport(ERROR,
			errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			errmsg("cannot wait for stream \"%s\": %s", name, why),
			errhint("%s", hint));
}

/* Refuse what would never end. */
static void
check_progresses(const StreamDef *def)
{
	SourceDef  *source = catalog_source_by_id(def->source_id, false);
	StreamShared *shared = worker_stream_find(MyDatabaseId, def->stream_id);
	StatsReason paused = stats_workers_paused();

	if (RecoveryInProgress())
		ereport(ERROR,
				errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				errmsg("cannot wait for stream \"%s\" on a standby",
					   def->name),
				errhint("Call weir.wait_for() on the primary; what has been applied there is replicated here."));
	if (paused.message && (shared == NULL || shared->pid == 0))
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("cannot wait for stream \"%s\": no worker may run",
					   def->name),
				errdetail_internal("%s", paused.message));
	if (def->paused)
		not_now(def->name, "it is paused", "Use weir.resume().");
	if (def->failed_message)
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("cannot wait for stream \"%s\": it has failed",
					   def->name),
				errdetail("%s", def->failed_message),
				errhint("Repair the cause, then use weir.resume()."));
	if (source->paused)
		not_now(def->name, "its source is paused", "Use weir.resume().");
	if (source->stopped_message)
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("cannot wait for stream \"%s\": its source is stopped",
					   def->name),
				errdetail("%s", source->stopped_message),
				errhint("Repair the cause, then use weir.resume()."));
}

/*
 * Workers see nothing of this transaction: neither a stream made in it nor
 * an advance or a seek.
 */
static void
check_committed(Wait *wait)
{
	CatalogArg	id = CATALOG_INT4(wait->def->stream_id);
	CatalogAccess access;
	bool		own = false;
	uint64		n;

	catalog_begin(&access);
	n = catalog_execute("SELECT xmin FROM weir_internal.stream"
						" WHERE stream_id = $1"
						" UNION ALL SELECT xmin FROM weir_internal.stream_state"
						" WHERE stream_id = $1"
						" UNION ALL SELECT xmin FROM weir_internal.advance"
						" WHERE stream_id = $1", 1, &id);
	for (uint64 i = 0; i < n; i++)
	{
		CatalogRow	r;
		bool		isnull;

		catalog_row_begin(&r, &access, i);
		own |= TransactionIdIsCurrentTransactionId(DatumGetTransactionId(catalog_next_datum(&r, &isnull)));
	}
	catalog_execute("SELECT coalesce(max(advance_id), 0)"
					" FROM weir_internal.advance WHERE stream_id = $1",
					1, &id);
	{
		CatalogRow	r;

		catalog_row_begin(&r, &access, 0);
		wait->last_advance = catalog_next_int8(&r);
	}
	catalog_end(&access);
	if (own)
		not_now(wait->def->name, "it was made or changed in this transaction",
				"Commit first.");
}

/* Ask the source's ingest worker, and take its answer when it is there. */
static void
ask_ends(Wait *wait)
{
	SlotShared *slot = worker_slot_find(MyDatabaseId, wait->def->source_id, 0);
	PartitionShared *parts;

	if (slot == NULL)
		return;
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	if (wait->asked == 0 || wait->asked > slot->ends_asked)
	{
		/* anew as well when the slot is another's since */
		wait->asked = ++slot->ends_asked;
		worker_wake(&slot->latch);
	}
	else if (slot->ends_generation >= wait->asked && slot->npartitions > 0)
	{
		parts = worker_slot_partitions(slot);
		wait->ends = palloc(sizeof(int64) * slot->npartitions);
		for (int p = 0; p < slot->npartitions; p++)
			wait->ends[p] = parts[p].end_asked;
		wait->npartitions = slot->npartitions;
	}
	LWLockRelease(&slot->lock);
}

/* Look at what is committed by now. */
static bool
is_applied(Wait *wait)
{
	CatalogAccess access;
	CatalogArg	args[] = {
		CATALOG_INT4(wait->def->stream_id), CATALOG_INT8(wait->last_advance)
	};
	CatalogRow	r;
	int64	   *applied;
	int			n;
	bool		pending;

	catalog_begin(&access);
	if (catalog_execute("SELECT applied_offsets, seek_to IS NOT NULL OR EXISTS ("
						" SELECT FROM weir_internal.advance"
						" WHERE stream_id = $1 AND advance_id <= $2)"
						" FROM weir_internal.stream_state"
						" WHERE stream_id = $1", lengthof(args), args) != 1)
		elog(ERROR, "stream %d has no state", wait->def->stream_id);
	catalog_row_begin(&r, &access, 0);
	applied = catalog_next_int8_array(&r, &n);
	pending = catalog_next_bool(&r);
	catalog_end(&access);

	wait->lag = 0;
	wait->behind = 0;
	for (int p = 0; p < wait->npartitions; p++)
	{
		int64		missing = wait->ends[p] - (p < n ? applied[p] : 0);

		wait->lag += Max(missing, 0);
		wait->behind += missing > 0;
	}
	return wait->behind == 0 && !pending;
}

static void
timed_out(const Wait *wait)
{
	Stats	   *stats = stats_read();
	StreamStats *stream = stats_stream(stats, wait->def->stream_id);
	StatsReason reason = {NULL};
	StringInfoData detail;

	if (stream)
		reason = stats_stream_reason(stats, stream);
	initStringInfo(&detail);
	if (wait->npartitions == 0)
		appendStringInfoString(&detail, "The end offsets are not known yet.");
	else if (wait->behind == 0)
		appendStringInfoString(&detail, "The lag is 0; a recorded advance of the watermark or a seek has not been applied.");
	else
		appendStringInfo(&detail, "The lag is " INT64_FORMAT " records in %d partitions.",
						 wait->lag, wait->behind);
	if (reason.message)
		appendStringInfo(&detail, " The stream is %s: %s.",
						 stats_stream_state(stats, stream), reason.message);
	ereport(ERROR,
			errcode(ERRCODE_QUERY_CANCELED),
			errmsg("timeout while waiting for stream \"%s\"",
				   wait->def->name),
			errdetail_internal("%s", detail.data),
			errhint("weir.stat_source and weir.stat_stream show what holds it; or give a longer \"timeout\"."));
}

/*
 * Is the statement that runs nothing but this call, with constants, outside of
 * a transaction block?  Then nothing will be read by its snapshot, nor by
 * another one, unless a portal is still open that was begun before in the same
 * pipeline.
 */
static bool
is_whole_statement(FunctionCallInfo fcinfo)
{
	PlannedStmt *plan;
	FuncExpr   *call;
	ListCell   *lc;

	/* it is registered, too, but is nobody's */
	InvalidateCatalogSnapshot();
	if (IsTransactionBlock() || IsSubTransaction() || ActivePortal == NULL ||
		!ThereAreNoPriorRegisteredSnapshots() ||
		ActivePortal->strategy != PORTAL_ONE_SELECT ||
		ActivePortal->queryDesc == NULL)
		return false;
	plan = ActivePortal->queryDesc->plannedstmt;
	if (plan->commandType != CMD_SELECT || plan->subplans != NIL ||
		!IsA(plan->planTree, Result) ||
		list_length(plan->planTree->targetlist) != 1)
		return false;
	foreach(lc, plan->rtable)
		if (lfirst_node(RangeTblEntry, lc)->rtekind != RTE_RESULT)
		return false;
	call = (FuncExpr *) linitial_node(TargetEntry,
									  plan->planTree->targetlist)->expr;
	if (!IsA(call, FuncExpr) || call->funcid != fcinfo->flinfo->fn_oid)
		return false;
	foreach(lc, call->args)
		if (!IsA(lfirst(lc), Const) && !IsA(lfirst(lc), Param))
		return false;
	return true;
}

/*
 * Wait for the next look.  Each look takes a snapshot of its own; without a
 * claim of its own before it, that is the oldest one this process claims.
 */
static void
wait_a_while(bool release_snapshot)
{
	if (release_snapshot)
	{
		InvalidateCatalogSnapshot();
		MyProc->xmin = InvalidTransactionId;
	}
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
					 WL_EXIT_ON_PM_DEATH, POLL_MS, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

Datum
weir_wait_for(PG_FUNCTION_ARGS)
{
	Wait		wait = {0};
	char	   *name;
	int64		timeout;
	MemoryContext poll_cxt;
	bool		whole = is_whole_statement(fcinfo);

	weir_require_preload();
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				errmsg("weir.wait_for() needs isolation level READ COMMITTED"),
				errdetail("With an older snapshot this transaction would not see what it waited for."));
	name = api_text_arg(fcinfo, 0, "stream");
	if (PG_ARGISNULL(1))
		timeout = 0;
	else
		timeout = options_duration(PG_GETARG_INTERVAL_P(1), "timeout");
	wait.def = api_own_stream(name);
	wait.deadline = PG_ARGISNULL(1) ? DT_NOEND :
		worker_clock() + timeout;
	check_committed(&wait);

	poll_cxt = AllocSetContextCreate(CurrentMemoryContext, "weir wait_for",
									 ALLOCSET_SMALL_SIZES);
	for (;;)
	{
		bool		done;
		MemoryContext old = MemoryContextSwitchTo(poll_cxt);

		CHECK_FOR_INTERRUPTS();
		wait.def = api_own_stream(name);
		check_progresses(wait.def);
		done = wait.npartitions > 0 && is_applied(&wait);
		if (!done && worker_clock() >= wait.deadline)
			timed_out(&wait);
		MemoryContextSwitchTo(old);
		if (done)
			break;
		if (wait.npartitions == 0)
			ask_ends(&wait);
		MemoryContextReset(poll_cxt);
		wait_a_while(whole);
	}
	PG_RETURN_VOID();
}
