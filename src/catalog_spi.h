/*-------------------------------------------------------------------------
 *
 * catalog_spi.h
 *	  Running SQL on the catalog tables, for catalog*.c, api_*.c, ddl_hook.c.
 *
 *	CatalogAccess access;
 *
 *	catalog_begin(&access);
 *	n = catalog_execute("SELECT ... WHERE source_id = $1", 1,
 *						(CatalogArg[]) {CATALOG_INT4(id)});
 *	... SPI_tuptable, or catalog_row_begin() and catalog_next_*() ...
 *	catalog_end(&access);
 *
 * Between begin and end the current user is the extension's owner and
 * search_path is pg_catalog; memory is the SPI procedure's, except that the
 * catalog_next_*() functions copy into the caller's context.  An ERROR on
 * the way undoes all of it with the (sub)transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_CATALOG_SPI_H
#define WEIR_CATALOG_SPI_H

#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "catalog.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

typedef struct CatalogAccess
{
	Oid			save_userid;
	int			save_sec_context;
	int			guc_level;
	MemoryContext caller;		/* where results go */
} CatalogAccess;

/* A parameter of a statement. */
typedef struct CatalogArg
{
	Oid			type;
	Datum		value;
	bool		isnull;
} CatalogArg;

#define CATALOG_BOOL(v)		{BOOLOID, BoolGetDatum(v), false}
#define CATALOG_INT4(v)		{INT4OID, Int32GetDatum(v), false}
#define CATALOG_INT8(v)		{INT8OID, Int64GetDatum(v), false}
#define CATALOG_OID(v)		{OIDOID, ObjectIdGetDatum(v), !OidIsValid(v)}
#define CATALOG_TEXT(v)		{TEXTOID, (v) ? CStringGetTextDatum(v) : (Datum) 0, (v) == NULL}
#define CATALOG_INTERVAL(v) {INTERVALOID, IntervalPGetDatum(v), (v) == NULL}
#define CATALOG_TIME(v, n)	{TIMESTAMPTZOID, TimestampTzGetDatum(v), (n)}
#define CATALOG_INT8S(v, n)	{INT8ARRAYOID, catalog_int8_array((v), (n)), false}
#define CATALOG_TIMES(v, n, none) \
	{TIMESTAMPTZARRAYOID, catalog_time_array((v), (n), (none)), false}
#define CATALOG_JSONB(v)	{JSONBOID, JsonbPGetDatum(v), (v) == NULL}
#define CATALOG_TEXTS(v)	{TEXTARRAYOID, (v), (v) == (Datum) 0}

extern void catalog_begin(CatalogAccess *access);
extern void catalog_end(const CatalogAccess *access);

/* Run one statement; returns the rows returned, or else those written. */
extern uint64 catalog_execute(const char *sql, int nargs,
							  const CatalogArg *args);

/* Run DDL on weir's own relations (catalog_define.c): no event triggers. */
extern void catalog_define(const char *sql);

/* Delete streams and all that belongs to them but the tables. */
extern uint64 catalog_delete_streams(const char *condition, int nargs,
									 const CatalogArg *args);

/* The columns of a result row, one after another. */
typedef struct CatalogRow
{
	MemoryContext caller;
	uint64		row;
	int			column;			/* last one read */
} CatalogRow;

extern void catalog_row_begin(CatalogRow *r, const CatalogAccess *access,
							  uint64 row);
extern Datum catalog_next_datum(CatalogRow *r, bool *isnull);	/* not copied */
extern bool catalog_next_bool(CatalogRow *r);
extern int32 catalog_next_int4(CatalogRow *r);
extern int64 catalog_next_int8(CatalogRow *r);
extern Oid	catalog_next_oid(CatalogRow *r);	/* NULL: InvalidOid */
extern char *catalog_next_text(CatalogRow *r);	/* NULL: NULL; of any type */

/*
 * Arrays by partition.  "none" stands for NULL elements of times; a column
 * that is NULL is NULL with *n = 0.  What is read is in the caller's context.
 */
extern Datum catalog_int8_array(const int64 *values, int n);
extern Datum catalog_time_array(const TimestampTz *values, int n,
								TimestampTz none);
extern int64 *catalog_next_int8_array(CatalogRow *r, int *n);
extern TimestampTz *catalog_next_time_array(CatalogRow *r, int *n,
											TimestampTz none);

/* A List of char * as a text[] datum; 0 for NIL. */
extern Datum catalog_text_array(List *texts);
extern Datum catalog_objects_datum(List *objects);

/*
 * A condition, of a stream m and its stream_state e: it was never resolved
 * where to begin, but there is state already, or, for a stream without state,
 * rows in the target that weir made and no other writes.  Such a position is
 * lost, not new, and nobody may resolve it: to begin anew with results that
 * are there would count records twice.
 */
#define CATALOG_POSITION_LOST \
	"(e.applied_offsets IS NULL AND e.seek_to IS NULL" \
	" AND pg_relation_size(coalesce(m.state::oid," \
	"	CASE WHEN m.target_created AND NOT EXISTS (SELECT" \
	"	  FROM weir_internal.stream o WHERE o.target = m.target" \
	"	  AND o.stream_id <> m.stream_id) THEN m.target::oid END)) > 0)"

/*
 * Nobody else makes, renames or drops sources and streams until the end of
 * this transaction; workers go on.
 */
extern void catalog_lock_names(void);

/*
 * Keep batches, seeks, first positions and a drop of a stream apart, until
 * the end of this transaction.  A lock, not a locked row: each batch would
 * write that row once more.  What the stream's row says is to be read after
 * it, by a new snapshot.
 */
extern void catalog_lock_stream(int32 stream_id);

/* What the session has now, palloc'd. */
extern void catalog_capture_settings(CapturedSettings *settings);
extern Datum catalog_settings_datum(const CapturedSettings *settings);
extern void catalog_settings_read(CapturedSettings *settings, Datum datum);

#endif							/* WEIR_CATALOG_SPI_H */
