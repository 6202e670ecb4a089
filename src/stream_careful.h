/*-------------------------------------------------------------------------
 *
 * stream_careful.h
 *	  Shared by the files that run a batch in which something fails.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_STREAM_CAREFUL_H
#define WEIR_STREAM_CAREFUL_H

#include "access/htup_details.h"
#include "errors.h"
#include "stream_batch.h"
#include "stream_execute.h"
#include "utils/hsearch.h"

/* A row that fails. */
typedef struct Culprit
{
	ItemPointerData tid;		/* key */
	DeadLetterReason reason;
	int			sqlerrcode;
	char	   *message;
} Culprit;

/* What has been found so far. */
typedef struct Search
{
	StreamWorker *w;
	StreamBatch *batch;
	HTAB	   *culprits;		/* of Culprit */
	MemoryContext try_cxt;		/* one try's, the error it gave included */
	StatementPlan *probe;
	StatementPlan *discard;		/* NULL: not planned yet */
	int64		at_fault;		/* groups that an error of class definition
								 * keeps from being closed */
	char	   *fault;			/* the last one's */
	int64		counts[5];		/* what the last try that went well gave */
} Search;

/* A TID as a number, so that ranges can be halved. */
#define TIDS_PER_BLOCK ((int64) MaxHeapTuplesPerPage + 1)

/* stream_search.c */
extern void search_init(Search *search, StreamWorker *w, StreamBatch *batch);
extern ErrorData *search_try(Search *search, void (*fn) (void *), void *arg,
							 bool rollback);
extern ErrorData *search_try_step(Search *search, StepKind step,
								  const StepArgs *args, bool rollback);
extern void search_args(const Search *search, StepArgs *args, int64 from,
						int64 to);
extern void search_add(Search *search, const ItemPointerData *tid,
					   DeadLetterReason reason, const ErrorData *error);
extern void search_leave_out(Search *search);
extern void search_row_stage(Search *search, int64 from, int64 to);
extern void search_writes(Search *search, StepKind step,
						  DeadLetterReason reason, int64 from, int64 to);

/*
 * stream_each.c: the rows of one statement, each written by another.  refused
 * is told what fails, by the TID of the staged row, or of the group in state;
 * NULL: nothing may fail.
 */
typedef void (*EachRefused) (Search *search, const ItemPointerData *tid,
							 const ErrorData *error);

typedef struct EachCounts
{
	int64		rows;			/* of the first statement, or as it says */
	int64		groups;			/* or staged rows that they are of */
	int64		late;			/* as it says */
	int64		windows;		/* of groups to be closed */
	int64		written;
	int64		deleted;
} EachCounts;

extern ErrorData *each_row(Search *search, StepKind rows, StepKind one,
						   const StepArgs *args, EachRefused refused,
						   EachCounts *counts);

#endif							/* WEIR_STREAM_CAREFUL_H */
