/*-------------------------------------------------------------------------
 *
 * stream_execute.h
 *	  Run a statement that weir has made, as the owner of a stream.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_STREAM_EXECUTE_H
#define WEIR_STREAM_EXECUTE_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "nodes/params.h"
#include "stream.h"
#include "tcop/dest.h"
#include "utils/snapshot.h"

/* What a statement returned; stays until it is run into again. */
typedef struct StatementResult
{
	MemoryContext cxt;			/* the caller's, for this alone: holds the
								 * rows, reset at the start of each run */
	TupleDesc	tupdesc;		/* NULL: the statement returns no rows */
	HeapTuple  *rows;
	uint64		nrows;
	uint64		room;			/* rows that the array has place for */
} StatementResult;

/*
 * Run a statement of a stream, whose plan is by stream_read_stored(), with
 * the parameters of stream.h (nulls: NULL for none of them) under a snapshot,
 * which is left as it is, and after which what this transaction has written
 * is seen.  The caller is in a transaction; it need not be connected to SPI.
 * segment: the view that is read with weir's own rights; InvalidOid: none.
 */
extern void statement_run(StatementResult *result, const StreamDef *def,
						  const StreamPlan *plan, const char *sql,
						  const Datum *values, const bool *nulls,
						  Snapshot snapshot, Oid segment);

/* The same, into a receiver. */
extern void statement_run_into(DestReceiver *dest, const StreamDef *def,
							   const StreamPlan *plan, const char *sql,
							   const Datum *values, const bool *nulls,
							   Snapshot snapshot, Oid segment);

/*
 * A statement to be run many times in one transaction, which holds its locks:
 * analyzed and planned once.  The caller has entered the owner's context, and
 * is in a memory context that lives as long as the plan is used.  types: of
 * the parameters, NULL for those of stream.h.
 */
typedef struct StatementPlan
{
	const char *sql;
	struct PlannedStmt *plan;
	ParamListInfo params;
} StatementPlan;

extern StatementPlan *statement_plan(const StreamDef *def,
									 const StreamPlan *plan, const char *sql,
									 const Oid *types, int ntypes,
									 Oid segment);
extern void statement_execute(StatementPlan *statement, DestReceiver *dest,
							  const Datum *values, const bool *nulls,
							  Snapshot snapshot);

/* A receiver that keeps rows as statement_run() does. */
extern DestReceiver *statement_receiver(StatementResult *result);

/*
 * From now on, see whether triggers skip rows that statements were to write;
 * and have they done so since this was last asked?
 */
extern void statement_watch_rows(bool watch);
extern bool statement_rows_skipped(void);

/* Analyze it, and no more; NULL: it is none that is planned. */
extern Query *statement_analyze(const char *sql);

/*
 * Make a query ready to run, which asks for every privilege that running it
 * would need, those behind views and inlined functions included, and do not
 * run it.  objects: all that it may call.
 */
extern void statement_check(const char *sql, Oid owner,
							const CapturedSettings *settings,
							const List *objects);

#endif							/* WEIR_STREAM_EXECUTE_H */
