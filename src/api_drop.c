/*-------------------------------------------------------------------------
 *
 * api_drop.c
 *	  weir.drop_source() and weir.drop_stream().
 *
 * Locking: names, then the stream, which keeps its worker out of a batch
 * (worker_hold.c), then the state table and the target.  The worker takes them
 * in the same order.
 *
 * Dead letters stay: they are what did not get in, and their record outlives
 * the stream.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "api.h"
#include "catalog_spi.h"
#include "ddl_hook.h"
#include "settings.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(weir_drop_source);
PG_FUNCTION_INFO_V1(weir_drop_stream);

/*
 * Windows that a window stream's state holds.  The table is its owner's, who
 * may have made it run code of his: it is not read with SQL here, as the
 * extension's owner.
 */
static int64
open_windows(const StreamDef *stream)
{
	int64		n;
	CatalogRow	r;
	CatalogArg	state = CATALOG_OID(stream->state);
	CatalogAccess access;

	catalog_begin(&access);
	catalog_execute("SELECT weir_internal.count_open_windows($1)", 1, &state);
	catalog_row_begin(&r, &access, 0);
	n = catalog_next_int8(&r);
	catalog_end(&access);
	return n;
}

/* Drop a stream and its state, with what somebody has made of that. */
static void
drop_stream(const StreamDef *stream)
{
	CatalogArg	id = CATALOG_INT4(stream->stream_id);
	char	   *state = NULL;
	CatalogAccess access;

	worker_lock_stream(stream->stream_id, stream->source_id);

	if (OidIsValid(stream->state))
		state = api_qualified_name(stream->state);
	if (state)
	{
		int64		n = open_windows(stream);

		if (n > 0)
			ereport(NOTICE,
					errmsg_plural("stream \"%s\" discards " INT64_FORMAT " open window",
								  "stream \"%s\" discards " INT64_FORMAT " open windows",
								  n, stream->name, n));
	}

	catalog_begin(&access);
	if (catalog_delete_streams("m.stream_id = $1", 1, &id) != 1)
		ereport(ERROR,
				errcode(ERRCODE_UNDEFINED_OBJECT),
				errmsg("stream \"%s\" does not exist", stream->name));
	if (state)
		ddl_hook_define(psprintf("DROP TABLE %s CASCADE", state));
	catalog_end(&access);
	catalog_revoke_usage(stream->owner);
}

Datum
weir_drop_stream(PG_FUNCTION_ARGS)
{
	StreamDef  *stream;
	char	   *name;
	char	   *target = NULL;
	bool		drop_target;

	api_require_writable("weir.drop_stream()");
	name = api_text_arg(fcinfo, 0, "name");
	drop_target = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);

	catalog_lock_names();
	stream = api_own_stream(name);
	if (drop_target && OidIsValid(stream->target))
		target = api_qualified_name(stream->target);
	if (target && !stream->target_created)
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("target of stream \"%s\" was not made by weir",
					   stream->name),
				errhint("Drop the stream without its target, and the table with DROP TABLE."));
	drop_stream(stream);
	if (target)
	{
		CatalogArg	arg = CATALOG_OID(stream->target);
		CatalogAccess access;
		uint64		others;

		catalog_begin(&access);
		others = catalog_execute("SELECT 1 FROM weir_internal.stream"
								 " WHERE target = $1", 1, &arg);
		catalog_end(&access);
		if (others > 0)
			ereport(ERROR,
					errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					errmsg("cannot drop target %s: another stream writes it",
						   target),
					errhint("Drop the stream without its target."));
		ddl_hook_execute(psprintf("DROP TABLE %s", target));
	}
	worker_wakeup_at_commit();
	PG_RETURN_VOID();
}

/* Names of streams for a message. */
static char *
stream_names(List *streams)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, streams)
		appendStringInfo(&buf, "%s\"%s\"", buf.len ? ", " : "",
						 ((StreamDef *) lfirst(lc))->name);
	return buf.data;
}

Datum
weir_drop_source(PG_FUNCTION_ARGS)
{
	SourceDef  *source;
	List	   *streams;
	ListCell   *lc;
	char	   *name;
	bool		cascade;
	CatalogAccess access;
	CatalogArg	id;

	api_require_writable("weir.drop_source()");
	name = api_text_arg(fcinfo, 0, "name");
	cascade = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);

	catalog_lock_names();
	source = api_own_source(name);
	streams = catalog_streams_of_source(source->source_id);
	if (streams != NIL && !cascade)
		ereport(ERROR,
				errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				errmsg("cannot drop source \"%s\": streams read it",
					   source->name),
				errdetail("It is read by %s.", stream_names(streams)),
				errhint("Drop them with weir.drop_stream(), or use cascade => true."));
	foreach(lc, streams)
	{
		StreamDef  *stream = lfirst(lc);

		ereport(NOTICE,
				errmsg("drop cascades to stream \"%s\"", stream->name));
		drop_stream(stream);
	}

	id = (CatalogArg) CATALOG_INT4(source->source_id);
	catalog_begin(&access);
	catalog_execute("DELETE FROM weir_internal.source WHERE source_id = $1",
					1, &id);
	catalog_end(&access);
	ddl_hook_execute(psprintf("DROP FOREIGN TABLE %s%s",
							  api_qualified_name(source->relid),
							  cascade ? " CASCADE" : ""));
	worker_wakeup_at_commit();
	PG_RETURN_VOID();
}
