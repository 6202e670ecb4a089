/*-------------------------------------------------------------------------
 *
 * api_control.c
 *	  weir.pause(), resume(), explain(), watermark(), stat_reset(),
 *	  adopt_database().
 *
 * Pausing and resuming write the catalog; the manager acts on it at commit.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid_d.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "api.h"
#include "catalog_spi.h"
#include "settings.h"
#include "stream.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(weir_pause);
PG_FUNCTION_INFO_V1(weir_resume);
PG_FUNCTION_INFO_V1(weir_explain);
PG_FUNCTION_INFO_V1(weir_watermark);
PG_FUNCTION_INFO_V1(weir_stat_reset);
PG_FUNCTION_INFO_V1(weir_adopt_database);

/* Run for_source or for_stream, with the definition's id as $1. */
static void
update_either(const char *name, const char *for_source,
			  const char *for_stream)
{
	SourceDef  *source;
	StreamDef  *stream;
	CatalogAccess access;
	CatalogArg	id;

	api_own_either(name, &source, &stream);
	id = (CatalogArg) CATALOG_INT4(source ? source->source_id :
								   stream->stream_id);
	catalog_begin(&access);
	if (catalog_execute(source ? for_source : for_stream, 1, &id) != 1)
		ereport(ERROR,
				errcode(ERRCODE_UNDEFINED_OBJECT),
				errmsg("source or stream \"%s\" does not exist", name));
	catalog_end(&access);
	worker_wakeup_at_commit();
}

Datum
weir_pause(PG_FUNCTION_ARGS)
{
	api_require_writable("weir.pause()");
	update_either(api_text_arg(fcinfo, 0, "name"),
				  "UPDATE weir_internal.source SET paused = true"
				  " WHERE source_id = $1",
				  "UPDATE weir_internal.stream SET paused = true"
				  " WHERE stream_id = $1");
	PG_RETURN_VOID();
}

Datum
weir_resume(PG_FUNCTION_ARGS)
{
	api_require_writable("weir.resume()");
	update_either(api_text_arg(fcinfo, 0, "name"),
				  "UPDATE weir_internal.source SET paused = false,"
				  "  stopped_message = NULL, stopped_sqlstate = NULL"
				  " WHERE source_id = $1",
				  "UPDATE weir_internal.stream SET paused = false,"
				  "  failed_message = NULL, failed_sqlstate = NULL"
				  " WHERE stream_id = $1");
	PG_RETURN_VOID();
}

Datum
weir_explain(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	StreamDef  *def;
	StreamPlan *plan;
	StreamStatements *statements;
	ListCell   *lc;

	weir_require_preload();
	def = api_own_stream(api_text_arg(fcinfo, 0, "stream"));
	InitMaterializedSRF(fcinfo, 0);
	statements = api_compile(def, &plan);
	foreach(lc, stream_steps(statements))
	{
		StreamStep *step = lfirst(lc);
		Datum		values[] = {
			CStringGetTextDatum(step->step),
			CStringGetTextDatum(step->purpose),
			CStringGetTextDatum(step->statement)
		};
		bool		nulls[] = {false, false, false};

		tuplestore_putvalues(result->setResult, result->setDesc, values,
							 nulls);
	}
	return (Datum) 0;
}

Datum
weir_watermark(PG_FUNCTION_ARGS)
{
	StreamDef  *def;
	CatalogAccess access;
	CatalogRow	r;
	CatalogArg	id;
	Datum		watermark;
	bool		isnull;

	weir_require_preload();
	def = catalog_stream_by_name(api_bare_name(api_text_arg(fcinfo, 0, "stream"),
											   "stream"), false);
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS))
		api_check_stream_owner(def);
	id = (CatalogArg) CATALOG_INT4(def->stream_id);
	catalog_begin(&access);
	catalog_execute("SELECT watermark FROM weir_internal.stream_state"
					" WHERE stream_id = $1", 1, &id);
	catalog_row_begin(&r, &access, 0);
	watermark = catalog_next_datum(&r, &isnull);
	catalog_end(&access);
	if (isnull)
		PG_RETURN_NULL();
	return watermark;
}

/*
 * Statistics.  Each counter has one writer, the worker; a worker that adds
 * to one at this very moment may bring its old value back.
 */
static void
reset_source(const SourceDef *source)
{
	SlotShared *slot = worker_slot_find(MyDatabaseId, source->source_id, 0);
	PartitionShared *parts;

	if (slot == NULL)
		return;
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	parts = worker_slot_partitions(slot);
	for (int p = 0; p < slot->npartitions; p++)
	{
		parts[p].rows_in = parts[p].bytes_in = 0;
		parts[p].rows_staged = parts[p].rows_filtered = 0;
		parts[p].rows_dead = parts[p].rows_null = parts[p].rows_future = 0;
	}
	slot->stats_reset = GetCurrentTimestamp();
	LWLockRelease(&slot->lock);
	worker_clear_error(&slot->error);
}

static void
reset_stream(const StreamDef *def)
{
	StreamShared *stream = worker_stream_find(MyDatabaseId, def->stream_id);

	if (stream == NULL)
		return;
	stream->rows_in = stream->rows_filtered = stream->rows_late = 0;
	stream->rows_dead = stream->rows_out = stream->groups_failed = 0;
	stream->batches = stream->windows_closed = stream->retries = 0;
	memset(&stream->commit_us, 0, sizeof(stream->commit_us));
	memset(&stream->visible_us, 0, sizeof(stream->visible_us));
	worker_clear_error(&stream->error);
	stream->stats_reset = GetCurrentTimestamp();
}

Datum
weir_stat_reset(PG_FUNCTION_ARGS)
{
	ListCell   *lc;

	weir_require_preload();
	if (!PG_ARGISNULL(0))
	{
		SourceDef  *source;
		StreamDef  *stream;

		api_own_either(api_text_arg(fcinfo, 0, "name"), &source, &stream);
		if (source)
			reset_source(source);
		else
			reset_stream(stream);
		PG_RETURN_VOID();
	}
	foreach(lc, catalog_sources())
	{
		SourceDef  *source = lfirst(lc);

		if (has_privs_of_role(GetUserId(), source->owner))
			reset_source(source);
	}
	foreach(lc, catalog_streams())
	{
		StreamDef  *stream = lfirst(lc);

		if (has_privs_of_role(GetUserId(), stream->owner))
			reset_stream(stream);
	}
	PG_RETURN_VOID();
}

static char *
text_of(const char *sql)
{
	CatalogAccess access;
	CatalogRow	r;
	char	   *text;

	catalog_begin(&access);
	catalog_execute(sql, 0, NULL);
	catalog_row_begin(&r, &access, 0);
	text = catalog_next_text(&r);

	catalog_end(&access);
	return text;
}

/*
 * What was restored must be all of it: a state table without its stream says
 * that definitions are missing, for example since a role is; and running
 * aggregates with results but without state, which goes only with a seek,
 * would go on from zero.
 */
static void
check_restored(void)
{
	char	   *tables;
	char	   *streams;

	tables = text_of("SELECT string_agg(c.relname, ', ' ORDER BY c.relname)"
					 " FROM pg_class c WHERE c.relnamespace ="
					 "  'weir_internal'::regnamespace AND c.relkind = 'r'"
					 " AND c.relname ~ '^state_[0-9]+$' AND NOT EXISTS"
					 "  (SELECT FROM weir_internal.stream m"
					 "	WHERE m.state::oid = c.oid)");
	if (tables)
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("the database has not been restored completely"),
				errdetail("In schema weir_internal there is state without a stream: %s.",
						  tables),
				errhint("Restore the data of extension weir, after the roles that own streams; or drop these tables to do without those streams."));

	streams = text_of("SELECT string_agg(m.name, ', ' ORDER BY m.name)"
					  " FROM weir_internal.stream m"
					  "  JOIN weir_internal.stream_state e USING (stream_id)"
					  " WHERE m.kind = 'aggregate' AND m.target_created"
					  " AND e.seek_to IS NULL"
					  " AND pg_relation_size(m.state) = 0"
					  " AND pg_relation_size(m.target) > 0");
	if (streams)
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("the database has not been restored completely"),
				errdetail("Streams with results, but without state: %s.",
						  streams),
				errhint("Restore the data of the state tables in schema weir_internal, or let weir.seek(stream, 'earliest') make it anew."));
}

Datum
weir_adopt_database(PG_FUNCTION_ARGS)
{
	api_require_writable("weir.adopt_database()");
	if (!has_privs_of_role(GetUserId(), catalog_extension_owner()))
		ereport(ERROR,
				errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("must be owner of extension \"weir\""));
	check_restored();
	catalog_write_cookie();
	worker_wakeup_at_commit();
	PG_RETURN_VOID();
}
