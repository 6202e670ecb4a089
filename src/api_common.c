/*-------------------------------------------------------------------------
 *
 * api_common.c
 *	  What the SQL-callable functions have in common: arguments, names,
 *	  ownership.
 *
 * Bare names of sources and streams are one namespace.  A name given to a
 * control function is looked up among the streams first, then as a relation
 * under the caller's search_path, and last, for a bare name, among the bare
 * names of all sources, so that weir.pause('rides') works whatever the
 * search_path is.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "postmaster/bgworker_internals.h"
#include "replication/logicallauncher.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/varlena.h"

#include "api.h"
#include "catalog_spi.h"
#include "settings.h"

PG_FUNCTION_INFO_V1(weir_check_preload);

Datum
weir_check_preload(PG_FUNCTION_ARGS)
{
	weir_require_preload();
	PG_RETURN_VOID();
}

/*
 * A function that changes something is refused before it looks at anything,
 * where nothing can be changed: else what it meets first, a lock for
 * instance, would be the reason.
 */
void
api_require_writable(const char *function)
{
	weir_require_preload();
	if (RecoveryInProgress())
		ereport(ERROR,
				errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				errmsg("cannot execute %s on a standby", function),
				errhint("Call it on the primary; its effect is replicated here."));
	if (XactReadOnly)
		ereport(ERROR,
				errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				errmsg("cannot execute %s in a read-only transaction",
					   function),
				errhint("Use a transaction that can write, as by SET TRANSACTION READ WRITE."));
}

char *
api_text_arg(FunctionCallInfo fcinfo, int n, const char *what)
{
	if (PG_ARGISNULL(n))
	{
		if (what)
			ereport(ERROR,
					errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("\"%s\" must not be NULL", what));
		return NULL;
	}
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

Jsonb *
api_options_arg(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		return DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
												  CStringGetDatum("{}")));
	return PG_GETARG_JSONB_P(n);
}

Interval *
api_duration_arg(FunctionCallInfo fcinfo, int n, const char *what,
				 bool null_ok)
{
	if (PG_ARGISNULL(n))
	{
		if (!null_ok)
			ereport(ERROR,
					errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("\"%s\" must not be NULL", what));
		return NULL;
	}
	(void) options_duration(PG_GETARG_INTERVAL_P(n), what);
	return PG_GETARG_INTERVAL_P(n);
}

/*
 * Names
 */

static List *
name_parts(const char *text, const char *what)
{
	List	   *parts;
	char	   *rawstring = pstrdup(text);
	ListCell   *lc;

	if (!SplitIdentifierString(rawstring, '.', &parts) || parts == NIL)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_NAME),
				errmsg("invalid name for \"%s\": \"%s\"", what, text),
				errhint("Quote a name with other than lower-case letters, digits and underscores in double quotes."));
	foreach(lc, parts)
	{
		if (((char *) lfirst(lc))[0] == '\0')
			ereport(ERROR,
					errcode(ERRCODE_INVALID_NAME),
					errmsg("invalid name for \"%s\": \"%s\"", what, text));
	}
	return parts;
}

/* name_parts() as a List of String nodes. */
RangeVar *
api_relation_name(const char *text, const char *what)
{
	List	   *strings = NIL;
	ListCell   *lc;

	foreach(lc, name_parts(text, what))
		strings = lappend(strings, makeString(pstrdup(lfirst(lc))));
	return makeRangeVarFromNameList(strings);
}

char *
api_bare_name(const char *text, const char *what)
{
	List	   *parts = name_parts(text, what);

	if (list_length(parts) != 1)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_NAME),
				errmsg("invalid name for \"%s\": \"%s\"", what, text),
				errdetail("It cannot have a schema."));
	return linitial(parts);
}

/* The schema to create rv in; no temporary one. */
Oid
api_creation_schema(RangeVar *rv)
{
	Oid			nsp = RangeVarGetCreationNamespace(rv);

	if (isAnyTempNamespace(nsp))
		ereport(ERROR,
				errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("\"%s\" must not be temporary", rv->relname),
				errdetail("Background workers cannot see temporary tables."));
	if (rv->schemaname == NULL)
		rv->schemaname = get_namespace_name(nsp);
	return nsp;
}

void
api_check_name_free(const char *name)
{
	CatalogAccess access;
	CatalogArg	arg = CATALOG_TEXT(name);
	char	   *kind = NULL;

	catalog_begin(&access);
	if (catalog_execute("SELECT 'stream' FROM weir_internal.stream"
						" WHERE name = $1"
						" UNION ALL SELECT 'source' FROM weir_internal.source"
						" JOIN pg_class c ON c.oid = relation"
						" WHERE c.relname = $1", 1, &arg) > 0)
	{
		CatalogRow	r;

		catalog_row_begin(&r, &access, 0);
		kind = catalog_next_text(&r);
	}
	catalog_end(&access);

	if (kind)
		ereport(ERROR,
				errcode(ERRCODE_DUPLICATE_OBJECT),
				errmsg("%s \"%s\" already exists", kind, name),
				errdetail("Bare names of sources and streams are one namespace."));
}

/*
 * Definitions by name
 */

SourceDef *
api_find_source(const char *name, bool missing_ok)
{
	RangeVar   *rv = api_relation_name(name, "source");
	Oid			relid = RangeVarGetRelid(rv, NoLock, true);
	SourceDef  *source = NULL;

	if (OidIsValid(relid))
		source = catalog_source_by_relid(relid, true);
	if (source == NULL && rv->schemaname == NULL)
	{
		CatalogAccess access;
		CatalogArg	arg = CATALOG_TEXT(rv->relname);

		relid = InvalidOid;
		catalog_begin(&access);
		if (catalog_execute("SELECT c.oid FROM weir_internal.source"
							" JOIN pg_class c ON c.oid = relation"
							" WHERE c.relname = $1", 1, &arg) > 0)
		{
			CatalogRow	r;

			catalog_row_begin(&r, &access, 0);
			relid = catalog_next_oid(&r);
		}
		catalog_end(&access);
		if (OidIsValid(relid))
			source = catalog_source_by_relid(relid, true);
	}
	if (source == NULL && !missing_ok)
		ereport(ERROR,
				errcode(ERRCODE_UNDEFINED_OBJECT),
				errmsg("source \"%s\" does not exist", name),
				errhint("weir.sources lists the sources."));
	return source;
}

void
api_check_source_owner(const SourceDef *source)
{
	if (!has_privs_of_role(GetUserId(), source->owner))
		ereport(ERROR,
				errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("must be owner of source \"%s\"", source->name));
}

void
api_check_stream_owner(const StreamDef *stream)
{
	if (!has_privs_of_role(GetUserId(), stream->owner))
		ereport(ERROR,
				errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("must be owner of stream \"%s\"", stream->name));
}

SourceDef *
api_own_source(const char *name)
{
	SourceDef  *source = api_find_source(name, false);

	api_check_source_owner(source);
	return source;
}

StreamDef *
api_own_stream(const char *name)
{
	StreamDef  *stream = catalog_stream_by_name(api_bare_name(name, "stream"),
												false);

	api_check_stream_owner(stream);
	return stream;
}

void
api_own_either(const char *name, SourceDef **source, StreamDef **stream)
{
	List	   *parts = name_parts(name, "name");

	*source = NULL;
	*stream = NULL;
	if (list_length(parts) == 1)
		*stream = catalog_stream_by_name(linitial(parts), true);
	if (*stream)
	{
		api_check_stream_owner(*stream);
		return;
	}
	*source = api_find_source(name, true);
	if (*source == NULL)
		ereport(ERROR,
				errcode(ERRCODE_UNDEFINED_OBJECT),
				errmsg("source or stream \"%s\" does not exist", name),
				errhint("weir.sources and weir.streams list them."));
	api_check_source_owner(*source);
}

void
api_execute(const char *sql)
{
	int			rc;

	if ((rc = SPI_connect()) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed: %s", SPI_result_code_string(rc));
	if ((rc = SPI_execute(sql, false, 0)) < 0)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(rc));
	if ((rc = SPI_finish()) != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed: %s", SPI_result_code_string(rc));
}

/* Nobody else is there between two commands, but event triggers are. */
void
api_changed_meanwhile(const char *message)
{
	CatalogAccess access;
	CatalogRow	r;
	char	   *names;

	catalog_begin(&access);
	catalog_execute("SELECT string_agg(quote_ident(evtname), ', ' ORDER BY evtname)"
					" FROM pg_event_trigger WHERE evtenabled <> 'D'", 0, NULL);
	catalog_row_begin(&r, &access, 0);
	names = catalog_next_text(&r);
	catalog_end(&access);
	ereport(ERROR,
			errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			errmsg("%s", message),
			errdetail("An event trigger did it. Those of this database are: %s.",
					  names ? names : "(none)"),
			errhint("Have it leave what weir makes alone, or disable it with ALTER EVENT TRIGGER meanwhile."));
}

char *
api_qualified_name(Oid relid)
{
	char	   *name = OidIsValid(relid) ? get_rel_name(relid) : NULL;

	if (name == NULL)
		return NULL;
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  name);
}

StreamStatements *
api_compile(const StreamDef *def, StreamPlan **plan)
{
	StreamOptions options;
	char	   *target = api_qualified_name(def->target);
	StreamStatements *statements;
	UserContext save;

	if (target == NULL)
		ereport(ERROR,
				errcode(ERRCODE_UNDEFINED_TABLE),
				errmsg("target of stream \"%s\" has been dropped", def->name),
				errhint("Drop the stream and make it anew."));
	*plan = stream_read_stored(def, &options);
	catalog_enter_user(&save, def->owner, &def->settings);
	statements = stream_compile(*plan, &options,
								WEIR_INTERNAL_SCHEMA ".segment",
								api_qualified_name(def->state), target);
	catalog_leave_user(&save);
	return statements;
}

/*
 * A launcher, a manager for this database, a worker for each source and
 * stream; other databases and parallel query come on top, so this is the
 * least that is needed.
 */
void
api_warn_worker_slots(void)
{
	CatalogAccess access;
	CatalogRow	r;
	int			sources;
	int			streams;
	int			needed;

	catalog_begin(&access);
	catalog_execute("SELECT coalesce(sum(workers), 0)::int4,"
					"  (SELECT count(*)::int4 FROM weir_internal.stream)"
					" FROM weir_internal.source", 0, NULL);
	catalog_row_begin(&r, &access, 0);
	sources = catalog_next_int4(&r);
	streams = catalog_next_int4(&r);
	catalog_end(&access);

	needed = 2 + sources + streams;
	if (max_logical_replication_workers > 0)
		needed++;				/* its launcher takes a slot too */
	if (needed > max_worker_processes)
		ereport(WARNING,
				errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				errmsg("not enough worker slots: this database's sources and streams need %d, \"max_worker_processes\" is %d",
					   needed, max_worker_processes),
				errdetail("What has no worker waits."),
				errhint("Set \"max_worker_processes\" to at least %d, more with other databases or parallel query, and restart the server.",
						needed));
	if (sources > weir_max_sources || streams > weir_max_streams)
		ereport(WARNING,
				errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				errmsg("more sources or streams than \"weir.max_sources\" or \"weir.max_streams\" allow"),
				errhint("Set \"weir.max_sources\" to at least %d and \"weir.max_streams\" to at least %d, and restart the server.",
						sources, streams));
}
