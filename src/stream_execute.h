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
#include "stream.h"
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
