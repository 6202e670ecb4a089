/*-------------------------------------------------------------------------
 *
 * ddl_durable.h
 *	  DDL that would leave a stream's tables less durable than its position.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_DDL_DURABLE_H
#define WEIR_DDL_DURABLE_H

#include "nodes/parsenodes.h"

/* Before such a command: ERROR 0A000 when a stream writes the table. */
extern void ddl_durable_create(CreateStmt *stmt);
extern void ddl_durable_attach(RangeVar *parent, RangeVar *child);
extern void ddl_durable_set_unlogged(RangeVar *rv);

#endif							/* WEIR_DDL_DURABLE_H */
