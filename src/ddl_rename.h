/*-------------------------------------------------------------------------
 *
 * ddl_rename.h
 *	  Keeping the texts in the catalog right when something is renamed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_DDL_RENAME_H
#define WEIR_DDL_RENAME_H

#include "nodes/nodes.h"

typedef struct StoredTexts StoredTexts;

/*
 * Before a RENAME, SET SCHEMA or RENAME VALUE: lock and analyze the stored
 * texts that hold what it names.  NULL: it names nothing that can be in one.
 * Afterwards write those anew that have changed.
 */
extern StoredTexts *ddl_rename_begin(Node *stmt);
extern void ddl_rename_end(StoredTexts *texts);

/*
 * Read the catalog without a trace: fn(arg) runs in a subtransaction that is
 * rolled back, so that no lock on weir's tables is held to the end of the
 * user's transaction.  Raises its error.
 */
extern void ddl_peek(void (*fn) (void *arg), void *arg);

#endif							/* WEIR_DDL_RENAME_H */
