/*-------------------------------------------------------------------------
 *
 * ingest_decode_path.h
 *	  Column options of a source: path and epoch.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_INGEST_DECODE_PATH_H
#define WEIR_INGEST_DECODE_PATH_H

#include "ingest_decode_json.h"
#include "ingest_decode_value.h"
#include "nodes/pg_list.h"

/*
 * The steps of a path, as a palloc'd array; their number in *nsteps.
 * ERROR 22023 when it is none.
 */
extern DocStep *column_path_parse(const char *path, int *nsteps);

/* The path of a field of the document with this name. */
extern char *column_path_of_name(const char *name);

/* The unit that an epoch option names.  ERROR 22023 when it is none. */
extern EpochUnit column_epoch_parse(const char *unit);

/* A column's options, or their defaults. */
extern DocStep *column_path(Oid relid, AttrNumber attnum, const char *name,
							int *nsteps, EpochUnit *epoch);

#endif							/* WEIR_INGEST_DECODE_PATH_H */
