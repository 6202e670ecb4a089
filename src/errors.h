/*-------------------------------------------------------------------------
 *
 * errors.h
 *	  The three classes of errors, and the one place where errors are caught.
 *
 * An error belongs to a row (it becomes a dead letter), to an outage (retry),
 * or to the definition (source or stream fails until it is repaired).  The
 * SQLSTATE decides, by an allow-list for rows.  In a stream it can be told
 * more exactly: whatever only some rows raise belongs to them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_ERRORS_H
#define WEIR_ERRORS_H

#include "nodes/pg_list.h"
#include "utils/elog.h"

typedef enum ErrorClass
{
	ERROR_OF_ROW,
	ERROR_OF_OUTAGE,
	ERROR_OF_DEFINITION
} ErrorClass;

extern ErrorClass error_class(int sqlerrcode);

/*
 * May the error be raised by some rows and not by others?  So may those of
 * class definition, by a cast, say, or a function with SQLSTATEs of its own.
 * Only trying without any row can tell.
 */
extern bool error_may_be_of_row(int sqlerrcode);

/*
 * Call fn(arg) in an internal subtransaction.  Returns NULL when it went
 * well (the subtransaction is released, or rolled back when rollback_always)
 * or a copy of the error, made in the caller's memory context, after the
 * subtransaction has been rolled back.  Cancel and shutdown requests
 * (class 57) are rethrown.
 */
extern ErrorData *error_guard(void (*fn) (void *arg), void *arg,
							  bool rollback_always);

/* "message: detail" for tables and views; palloc'd. */
extern char *error_text(const ErrorData *edata);

/* Five letters; static buffer as unpack_sql_state. */
extern const char *error_sqlstate(int sqlerrcode);

#endif							/* WEIR_ERRORS_H */
