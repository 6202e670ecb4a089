/*-------------------------------------------------------------------------
 *
 * ingest_follow.h
 *	  A compiled source follows the catalog.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_INGEST_FOLLOW_H
#define WEIR_INGEST_FOLLOW_H

#include "ingest.h"
#include "nodes/primnodes.h"

extern void follow_compile(Ingest *ingest);
extern bool follow_outdated(void);
extern Expr *follow_plan(Expr *expression);

#endif							/* WEIR_INGEST_FOLLOW_H */
