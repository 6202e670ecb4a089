/*-------------------------------------------------------------------------
 *
 * catalog.c
 *	  Reading and writing weir's catalog tables.
 *
 * The tables are closed to everybody but the owner of the extension.  All
 * access goes through catalog_begin() and catalog_end(), which switch to
 * that role and to search_path pg_catalog; every name in a statement is
 * qualified all the same, since the tables are not in pg_catalog.
 *
 * Whoever calls has checked what the user may do (api_*.c); nothing here
 * does.
 *
 * Locking: names are made, changed and dropped under
 * ShareUpdateExclusiveLock on weir_internal.source (catalog_lock_names),
 * which conflicts with itself, but not with the row updates of the workers.
 * Taken first, before any lock on a user's relation, so that two DDL calls
 * cannot deadlock over it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "catalog_spi.h"
#include "compat.h"

/*
 * The extension itself
 */

Oid
catalog_extension_oid(bool missing_ok)
{
	return get_extension_oid("weir", missing_ok);
}

Oid
catalog_extension_owner(void)
{
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner = InvalidOid;

	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("weir"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (!OidIsValid(owner))
		ereport(ERROR,
				errcode(ERRCODE_UNDEFINED_OBJECT),
				errmsg("extension \"weir\" does not exist"),
				errhint("Run CREATE EXTENSION weir in this database."));
	return owner;
}

Oid
catalog_internal_schema(void)
{
	return get_namespace_oid(WEIR_INTERNAL_SCHEMA, false);
}

bool
catalog_tables_exist(void)
{
	Oid			nsp;

	if (!OidIsValid(catalog_extension_oid(true)))
		return false;
	nsp = get_namespace_oid(WEIR_INTERNAL_SCHEMA, true);
	return OidIsValid(nsp) &&
		OidIsValid(get_relname_relid("stream_state", nsp)) &&
		OidIsValid(get_relname_relid("source", nsp));
}

/*
 * SQL as the extension's owner
 */

void
catalog_begin(CatalogAccess *access)
{
	Oid			owner = catalog_extension_owner();
	int			rc;

	access->caller = CurrentMemoryContext;
	GetUserIdAndSecContext(&access->save_userid, &access->save_sec_context);
	SetUserIdAndSecContext(owner, access->save_sec_context |
						   SECURITY_LOCAL_USERID_CHANGE);
	access->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	if ((rc = SPI_connect()) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed: %s", SPI_result_code_string(rc));
}

void
catalog_end(const CatalogAccess *access)
{
	int			rc;

	if ((rc = SPI_finish()) != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed: %s", SPI_result_code_string(rc));
	AtEOXact_GUC(true, access->guc_level);
	SetUserIdAndSecContext(access->save_userid, access->save_sec_context);
	MemoryContextSwitchTo(access->caller);
}

#define CATALOG_MAX_ARGS 32

uint64
catalog_execute(const char *sql, int nargs, const CatalogArg *args)
{
	Oid			types[CATALOG_MAX_ARGS];
	Datum		values[CATALOG_MAX_ARGS];
	char		nulls[CATALOG_MAX_ARGS] = {0};
	int			rc;

	Assert(nargs <= CATALOG_MAX_ARGS);
	for (int i = 0; i < nargs; i++)
	{
		types[i] = args[i].type;
		values[i] = args[i].value;
		nulls[i] = args[i].isnull ? 'n' : ' ';
	}
	rc = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);
	if (rc < 0)
		elog(ERROR, "statement on the catalog failed: %s: %s",
			 SPI_result_code_string(rc), sql);
	return SPI_processed;
}

void
catalog_row_begin(CatalogRow *r, const CatalogAccess *access, uint64 row)
{
	Assert(row < SPI_processed);
	r->caller = access->caller;
	r->row = row;
	r->column = 0;
}

Datum
catalog_next_datum(CatalogRow *r, bool *isnull)
{
	r->column++;
	return SPI_getbinval(SPI_tuptable->vals[r->row], SPI_tuptable->tupdesc,
						 r->column, isnull);
}

bool
catalog_next_bool(CatalogRow *r)
{
	bool		isnull;
	Datum		value = catalog_next_datum(r, &isnull);

	return !isnull && DatumGetBool(value);
}

int32
catalog_next_int4(CatalogRow *r)
{
	bool		isnull;
	Datum		value = catalog_next_datum(r, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

int64
catalog_next_int8(CatalogRow *r)
{
	bool		isnull;
	Datum		value = catalog_next_datum(r, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

Oid
catalog_next_oid(CatalogRow *r)
{
	bool		isnull;
	Datum		value = catalog_next_datum(r, &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(value);
}

char *
catalog_next_text(CatalogRow *r)
{
	char	   *value;

	r->column++;
	value = SPI_getvalue(SPI_tuptable->vals[r->row], SPI_tuptable->tupdesc,
						 r->column);
	return value ? MemoryContextStrdup(r->caller, value) : NULL;
}

Datum
catalog_text_array(List *texts)
{
	Datum	   *elements;
	ListCell   *lc;
	int			n = 0;

	if (texts == NIL)
		return (Datum) 0;
	elements = palloc(sizeof(Datum) * list_length(texts));
	foreach(lc, texts)
		elements[n++] = CStringGetTextDatum((char *) lfirst(lc));
	return PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

Datum
catalog_objects_datum(List *objects)
{
	return objects != NIL ? catalog_text_array(objects) :
		PointerGetDatum(construct_empty_array(TEXTOID));
}

void
catalog_lock_names(void)
{
	Oid			relid = get_relname_relid("source", catalog_internal_schema());

	if (!OidIsValid(relid))
		elog(ERROR, "table weir_internal.source is missing");
	LockRelationOid(relid, ShareUpdateExclusiveLock);
}

void
catalog_lock_stream(int32 stream_id)
{
	Oid			relid = get_relname_relid("stream_state",
										  catalog_internal_schema());

	if (!OidIsValid(relid))
		elog(ERROR, "table weir_internal.stream_state is missing");
	LockDatabaseObject(relid, stream_id, 0, ExclusiveLock);
}

/*
 * Definitions
 */

#define MICROSECONDS(column) \
	"coalesce((extract(epoch FROM " column ") * 1000000)::bigint, -1)"

static void
next_settings(CatalogRow *r, CapturedSettings *settings)
{
	bool		isnull;
	Datum		array = catalog_next_datum(r, &isnull);
	MemoryContext old;

	if (isnull)
		elog(ERROR, "catalog row without settings");
	old = MemoryContextSwitchTo(r->caller);
	catalog_settings_read(settings, array);
	MemoryContextSwitchTo(old);
}

static TransactionId
next_xid(CatalogRow *r)
{
	bool		isnull;

	return DatumGetTransactionId(catalog_next_datum(r, &isnull));
}

static List *
next_names(CatalogRow *r)
{
	bool		isnull;
	Datum		array = catalog_next_datum(r, &isnull);
	Datum	   *elements;
	int			n;
	List	   *names = NIL;
	MemoryContext old;

	if (isnull)
		return NIL;
	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, NULL, &n);
	old = MemoryContextSwitchTo(r->caller);
	for (int i = 0; i < n; i++)
		names = lappend(names, TextDatumGetCString(elements[i]));
	MemoryContextSwitchTo(old);
	return names;
}

/* In the order in which read_source() takes them. */
#define SELECT_SOURCE \
	"SELECT s.source_id, s.relation::oid, c.relname, c.relowner, v.oid," \
	"  v.srvname, s.topic, s.format, s.event_time::int4, " \
	MICROSECONDS("s.max_out_of_orderness") ", " \
	MICROSECONDS("s.idle_timeout") ", " \
	MICROSECONDS("s.max_future_skew") ", " \
	"  s.start_from, s.filter, s.on_error = 'stop', s.workers," \
	"  coalesce(pg_size_bytes(s.options ->> 'staging_limit'), 0)," \
	"  coalesce(nullif(s.options -> 'dead_letter_limit', 'null')::int8, 0)," \
	"  s.paused, x.n = 0, x.uses_key, x.uses_headers," \
	"  s.stopped_message, s.stopped_sqlstate, s.topic_incarnation," \
	"  s.settings, s.objects IS NOT NULL, s.objects, s.xmin" \
	" FROM weir_internal.source s" \
	" JOIN pg_class c ON c.oid = s.relation" \
	" JOIN pg_foreign_table t ON t.ftrelid = c.oid" \
	" JOIN pg_foreign_server v ON v.oid = t.ftserver" \
	" CROSS JOIN LATERAL (" \
	"   SELECT count(*) AS n, coalesce(bool_or(uses_key), false) AS uses_key," \
	"	  coalesce(bool_or(uses_headers), false) AS uses_headers" \
	"   FROM weir_internal.stream m WHERE m.source_id = s.source_id) x "

static SourceDef *
read_source(const CatalogAccess *access, uint64 row)
{
	SourceDef  *def = MemoryContextAllocZero(access->caller,
											 sizeof(SourceDef));
	CatalogRow	r;

	catalog_row_begin(&r, access, row);
	def->source_id = catalog_next_int4(&r);
	def->relid = catalog_next_oid(&r);
	def->name = catalog_next_text(&r);
	def->owner = catalog_next_oid(&r);
	def->server_id = catalog_next_oid(&r);
	def->server_name = catalog_next_text(&r);
	def->topic = catalog_next_text(&r);
	def->format = catalog_next_text(&r);
	def->event_time = (AttrNumber) catalog_next_int4(&r);
	def->max_out_of_orderness = catalog_next_int8(&r);
	def->idle_timeout = catalog_next_int8(&r);
	def->max_future_skew = catalog_next_int8(&r);
	def->start_from = catalog_next_text(&r);
	def->filter = catalog_next_text(&r);
	def->stop_on_error = catalog_next_bool(&r);
	def->workers = catalog_next_int4(&r);
	def->staging_limit = catalog_next_int8(&r);
	def->dead_letter_limit = catalog_next_int8(&r);
	def->paused = catalog_next_bool(&r);
	def->preview = catalog_next_bool(&r);
	def->needs_key = catalog_next_bool(&r);
	def->needs_headers = catalog_next_bool(&r);
	def->stopped_message = catalog_next_text(&r);
	def->stopped_sqlstate = catalog_next_text(&r);
	def->topic_incarnation = catalog_next_int4(&r);
	next_settings(&r, &def->settings);
	def->objects_recorded = catalog_next_bool(&r);
	def->objects = next_names(&r);
	def->version = next_xid(&r);
	return def;
}

/*
 * In the order in which read_stream() takes them.
 *
 * A stream without its position has failed, whatever its row says.
 */
#define SELECT_STREAM \
	"SELECT m.stream_id, m.name, m.owner::oid, m.source_id," \
	"  s.relation::oid, m.query, m.target::oid, m.target_created," \
	"  m.state::oid, m.key_columns::text[]," \
	"  CASE jsonb_typeof(m.options -> 'key')" \
	"	WHEN 'array' THEN ARRAY(" \
	"	  SELECT jsonb_array_elements_text(m.options -> 'key'))" \
	"	WHEN 'string' THEN ARRAY[m.options ->> 'key'] END," \
	"  m.emit = 'on_close', " \
	MICROSECONDS("m.allowed_lateness") ", " \
	"  m.late_rows = 'drop', m.on_error = 'stop', " \
	MICROSECONDS("m.batch_interval") ", " \
	"  m.start_from, coalesce(m.options ->> 'on_idle' = 'advance', false)," \
	"  coalesce(nullif(m.options -> 'max_dead_ratio', 'null')::float8, 0.5)," \
	"  coalesce(nullif(m.options -> 'dead_letter_limit', 'null')::int8, 0)," \
	"  coalesce(nullif(m.options -> 'fillfactor', 'null')::int4, 70)," \
	"  m.paused, coalesce(m.failed_message, x.message)," \
	"  CASE WHEN m.failed_message IS NOT NULL THEN m.failed_sqlstate" \
	"	WHEN x.message IS NOT NULL THEN '55000' END, e.seek_generation," \
	"  m.settings, m.objects IS NOT NULL, m.objects, m.xmin" \
	" FROM weir_internal.stream m" \
	" LEFT JOIN weir_internal.source s USING (source_id)" \
	" LEFT JOIN weir_internal.stream_state e USING (stream_id)" \
	" CROSS JOIN LATERAL (SELECT CASE" \
	"	WHEN s.source_id IS NULL THEN" \
	"	  'its source is missing, as after a restore of a part'" \
	"	WHEN e.stream_id IS NULL OR " CATALOG_POSITION_LOST " THEN" \
	"	  'its position is missing, as after a restore of a part:" \
	" weir.seek() says where to begin' END AS message) x "

static StreamDef *
read_stream(const CatalogAccess *access, uint64 row)
{
	StreamDef  *def = MemoryContextAllocZero(access->caller,
											 sizeof(StreamDef));
	CatalogRow	r;
	bool		isnull;
	Datum		ratio;

	catalog_row_begin(&r, access, row);
	def->stream_id = catalog_next_int4(&r);
	def->name = catalog_next_text(&r);
	def->owner = catalog_next_oid(&r);
	def->source_id = catalog_next_int4(&r);
	def->source_relid = catalog_next_oid(&r);
	def->query = catalog_next_text(&r);
	def->target = catalog_next_oid(&r);
	def->target_created = catalog_next_bool(&r);
	def->state = catalog_next_oid(&r);
	def->key_columns = next_names(&r);
	def->option_key = next_names(&r);
	def->emit_on_close = catalog_next_bool(&r);
	def->allowed_lateness = catalog_next_int8(&r);
	def->drop_late_rows = catalog_next_bool(&r);
	def->stop_on_error = catalog_next_bool(&r);
	def->batch_interval = catalog_next_int8(&r);
	def->start_from = catalog_next_text(&r);
	def->on_idle_advance = catalog_next_bool(&r);
	ratio = catalog_next_datum(&r, &isnull);
	def->max_dead_ratio = DatumGetFloat8(ratio);
	def->dead_letter_limit = catalog_next_int8(&r);
	def->fillfactor = catalog_next_int4(&r);
	def->paused = catalog_next_bool(&r);
	def->failed_message = catalog_next_text(&r);
	def->failed_sqlstate = catalog_next_text(&r);
	def->seek_generation = catalog_next_int8(&r);
	next_settings(&r, &def->settings);
	def->objects_recorded = catalog_next_bool(&r);
	def->objects = next_names(&r);
	def->version = next_xid(&r);
	return def;
}

/* One source, or NULL. */
static SourceDef *
source_where(const char *sql, CatalogArg arg)
{
	CatalogAccess access;
	SourceDef  *def = NULL;

	catalog_begin(&access);
	if (catalog_execute(sql, 1, &arg) > 0)
		def = read_source(&access, 0);
	catalog_end(&access);
	return def;
}

/* One stream, or NULL. */
static StreamDef *
stream_where(const char *sql, CatalogArg arg)
{
	CatalogAccess access;
	StreamDef  *def = NULL;

	catalog_begin(&access);
	if (catalog_execute(sql, 1, &arg) > 0)
		def = read_stream(&access, 0);
	catalog_end(&access);
	return def;
}

SourceDef *
catalog_source_by_id(int32 source_id, bool missing_ok)
{
	SourceDef  *def = source_where(SELECT_SOURCE "WHERE s.source_id = $1",
								   (CatalogArg) CATALOG_INT4(source_id));

	if (def == NULL && !missing_ok)
		ereport(ERROR,
				errcode(ERRCODE_UNDEFINED_OBJECT),
				errmsg("source %d does not exist", source_id));
	return def;
}

SourceDef *
catalog_source_by_relid(Oid relid, bool missing_ok)
{
	SourceDef  *def = source_where(SELECT_SOURCE "WHERE s.relation = $1",
								   (CatalogArg) CATALOG_OID(relid));

	if (def == NULL && !missing_ok)
	{
		char	   *name = get_rel_name(relid);

		if (name == NULL)
			ereport(ERROR,
					errcode(ERRCODE_UNDEFINED_OBJECT),
					errmsg("relation with OID %u is not a source", relid));
		ereport(ERROR,
				errcode(ERRCODE_UNDEFINED_OBJECT),
				errmsg("\"%s\" is not a source", name),
				errhint("weir.sources lists the sources."));
	}
	return def;
}

StreamDef *
catalog_stream_by_id(int32 stream_id, bool missing_ok)
{
	StreamDef  *def = stream_where(SELECT_STREAM "WHERE m.stream_id = $1",
								   (CatalogArg) CATALOG_INT4(stream_id));

	if (def == NULL && !missing_ok)
		ereport(ERROR,
				errcode(ERRCODE_UNDEFINED_OBJECT),
				errmsg("stream %d does not exist", stream_id));
	return def;
}

StreamDef *
catalog_stream_by_name(const char *name, bool missing_ok)
{
	StreamDef  *def = stream_where(SELECT_STREAM "WHERE m.name = $1",
								   (CatalogArg) CATALOG_TEXT(name));

	if (def == NULL && !missing_ok)
		ereport(ERROR,
				errcode(ERRCODE_UNDEFINED_OBJECT),
				errmsg("stream \"%s\" does not exist", name),
				errhint("weir.streams lists the streams."));
	return def;
}

List *
catalog_sources(void)
{
	CatalogAccess access;
	List	   *defs = NIL;
	uint64		n;

	catalog_begin(&access);
	n = catalog_execute(SELECT_SOURCE "ORDER BY s.source_id", 0, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		SourceDef  *def = read_source(&access, i);
		MemoryContext old = MemoryContextSwitchTo(access.caller);

		defs = lappend(defs, def);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&access);
	return defs;
}

static List *
streams_where(const char *sql, int nargs, const CatalogArg *args)
{
	CatalogAccess access;
	List	   *defs = NIL;
	uint64		n;

	catalog_begin(&access);
	n = catalog_execute(sql, nargs, args);
	for (uint64 i = 0; i < n; i++)
	{
		StreamDef  *def = read_stream(&access, i);
		MemoryContext old = MemoryContextSwitchTo(access.caller);

		defs = lappend(defs, def);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&access);
	return defs;
}

List *
catalog_streams(void)
{
	return streams_where(SELECT_STREAM "ORDER BY m.stream_id", 0, NULL);
}

List *
catalog_streams_of_source(int32 source_id)
{
	CatalogArg	arg = CATALOG_INT4(source_id);

	return streams_where(SELECT_STREAM
						 "WHERE m.source_id = $1 ORDER BY m.stream_id",
						 1, &arg);
}

bool
catalog_source_changed(const SourceDef *source)
{
	SourceDef  *now = catalog_source_by_id(source->source_id, true);

	return now == NULL || now->version != source->version;
}

bool
catalog_stream_changed(const StreamDef *stream)
{
	StreamDef  *now = catalog_stream_by_id(stream->stream_id, true);

	return now == NULL || now->version != stream->version;
}

/*
 * Delete the streams for which condition holds, of stream m and source s,
 * with what belongs to them.  Within catalog_begin() and catalog_end(); the
 * result are (name, state::oid, owner::oid) of those deleted.
 */
uint64
catalog_delete_streams(const char *condition, int nargs,
					   const CatalogArg *args)
{
	return catalog_execute(psprintf("WITH gone AS ("
									"  DELETE FROM weir_internal.stream m"
									"  USING (SELECT o.stream_id AS id, s.relation"
									"	FROM weir_internal.stream o"
									"	LEFT JOIN weir_internal.source s"
									"	 USING (source_id)) s"
									"  WHERE m.stream_id = s.id AND %s"
									"  RETURNING m.*),"
									" position AS ("
									"  DELETE FROM weir_internal.stream_state e"
									"  USING gone WHERE e.stream_id = gone.stream_id),"
									" advance AS ("
									"  DELETE FROM weir_internal.advance a"
									"  USING gone WHERE a.stream_id = gone.stream_id)"
									" SELECT name, state::oid, owner::oid FROM gone"
									" ORDER BY stream_id", condition),
						   nargs, args);
}

/*
 * What workers write
 */

/* The statement's row count must be one. */
static void
update_one(const char *sql, int32 id, const char *sqlstate,
		   const char *message)
{
	CatalogAccess access;
	CatalogArg	args[] = {
		CATALOG_INT4(id), CATALOG_TEXT(sqlstate), CATALOG_TEXT(message)
	};

	catalog_begin(&access);
	if (catalog_execute(sql, lengthof(args), args) != 1)
		elog(ERROR, "no definition with id %d", id);
	catalog_end(&access);
}

void
catalog_stop_source(int32 source_id, const char *sqlstate,
					const char *message)
{
	update_one("UPDATE weir_internal.source"
			   " SET stopped_sqlstate = $2, stopped_message = $3"
			   " WHERE source_id = $1", source_id, sqlstate, message);
}

void
catalog_fail_stream(int32 stream_id, const char *sqlstate,
					const char *message)
{
	update_one("UPDATE weir_internal.stream"
			   " SET failed_sqlstate = $2, failed_message = $3"
			   " WHERE stream_id = $1", stream_id, sqlstate, message);
}

/*
 * Rights on the schema
 */

void
catalog_grant_usage(Oid owner)
{
	CatalogAccess access;

	if (compat_schema_aclcheck(catalog_internal_schema(), owner,
							   ACL_USAGE) == ACLCHECK_OK)
		return;
	catalog_lock_names();
	catalog_begin(&access);
	catalog_define(psprintf("GRANT USAGE ON SCHEMA " WEIR_INTERNAL_SCHEMA
							" TO %s",
							quote_identifier(GetUserNameFromId(owner,
															   false))));
	CommandCounterIncrement();
	catalog_end(&access);
}

void
catalog_revoke_usage(Oid owner)
{
	CatalogAccess access;
	CatalogArg	arg = CATALOG_OID(owner);

	catalog_begin(&access);
	if (catalog_execute("SELECT FROM pg_namespace n, aclexplode(n.nspacl) a"
						" WHERE n.nspname = '" WEIR_INTERNAL_SCHEMA "'"
						" AND a.grantee = $1 AND a.grantee <> n.nspowner"
						" AND NOT EXISTS (SELECT FROM weir_internal.stream"
						"  WHERE owner::oid = $1)", 1, &arg) > 0)
		catalog_define(psprintf("REVOKE ALL ON SCHEMA " WEIR_INTERNAL_SCHEMA
								" FROM %s",
								quote_identifier(GetUserNameFromId(owner,
																   false))));
	catalog_end(&access);
}

/*
 * The cookie
 */

bool
catalog_cookie_matches(void)
{
	CatalogAccess access;
	CatalogArg	args[] = {
		CATALOG_INT8((int64) GetSystemIdentifier()),
		CATALOG_INT8((int64) MyDatabaseId),
		CATALOG_INT8((int64) catalog_extension_oid(false))
	};
	CatalogRow	r;
	bool		matches;

	catalog_begin(&access);
	catalog_execute("SELECT EXISTS (SELECT FROM weir_internal.cookie"
					" WHERE (system_identifier, database_oid, extension_oid)"
					"	= ($1, $2, $3)) OR NOT EXISTS"
					" (SELECT FROM weir_internal.cookie UNION ALL"
					"  SELECT FROM weir_internal.source UNION ALL"
					"  SELECT FROM weir_internal.stream)",
					lengthof(args), args);
	catalog_row_begin(&r, &access, 0);
	matches = catalog_next_bool(&r);
	catalog_end(&access);
	return matches;
}

void
catalog_write_cookie(void)
{
	CatalogAccess access;
	CatalogArg	args[] = {
		CATALOG_INT8((int64) GetSystemIdentifier()),
		CATALOG_INT8((int64) MyDatabaseId),
		CATALOG_INT8((int64) catalog_extension_oid(false))
	};

	catalog_begin(&access);
	catalog_execute("INSERT INTO weir_internal.cookie"
					" (system_identifier, database_oid, extension_oid)"
					" VALUES ($1, $2, $3)"
					" ON CONFLICT (only_row) DO UPDATE SET"
					"  system_identifier = excluded.system_identifier,"
					"  database_oid = excluded.database_oid,"
					"  extension_oid = excluded.extension_oid",
					lengthof(args), args);
	catalog_end(&access);
}
