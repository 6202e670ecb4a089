/*-------------------------------------------------------------------------
 *
 * fdw.h
 *	  The foreign data wrapper weir_kafka, as the rest of weir sees it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_FDW_H
#define WEIR_FDW_H

#include "nodes/pg_list.h"

/*
 * Options for kafka_open(): the server's, then those of userid's mapping on
 * it (or PUBLIC's), of DefElem.  No mapping is no error.
 */
extern List *fdw_kafka_options(Oid server_id, Oid userid);

/* Is the relation a foreign table of weir_kafka? */
extern bool fdw_is_source_table(Oid relid);

#endif							/* WEIR_FDW_H */
