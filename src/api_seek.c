/*-------------------------------------------------------------------------
 *
 * api_seek.c
 *	  weir.seek() and weir.advance_watermark().
 *
 * Both are transactional and ask no broker.  seek() locks the stream, as its
 * worker does at the start of each batch, so no batch is under way; then it
 * clears what the new position makes wrong, and
 * leaves the position as a request (seek_to) that the ingest worker resolves
 * to offsets before the stream reads on.  The generation voids batches that
 * were prepared before.
 *
 * What is kept and cleared, by kind:
 *
 *	window			state goes; target rows of windows that start at or after
 *					the position go; windows begun earlier are incomplete and
 *					not emitted (seek_floor).  For 'earliest' the floor is
 *					-infinity.  A position is a time of Kafka's, or offsets:
 *					for a source whose event time is Kafka's, the floor is
 *					that time; else only the rows there can tell, so it stays
 *					NULL, and the stream's worker finds it and clears the
 *					target then (stream_floor.c).
 *	aggregate		'earliest' clears state and target rows; forward keeps
 *					both and skips what lies between (seek_forward).
 *	row, unkeyed	forward keeps all; back empties a target that weir made
 *					and nothing else writes.
 *	row, keyed		nothing to clear: rows are written by key.
 *
 * Whether a position is forward is judged without the broker: offsets by the
 * applied ones, a time by the greatest Kafka timestamps applied, and
 * seek_forward keeps the ingest worker from resolving to below what is
 * applied.  What cannot be compared is not forward: a time, when a record
 * without a timestamp was applied; offsets, when the topic is another one.
 *
 * advance_watermark() records a row a stream; the ingest worker notes the
 * end offsets in it, the stream's worker applies it when it has applied all
 * rows below those.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "catalog_spi.h"
#include "settings.h"
#include "stream_execute.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(weir_seek);
PG_FUNCTION_INFO_V1(weir_advance_watermark);

/* What a seek does. */
typedef struct Seek
{
	StreamDef  *def;
	StreamPlan *plan;
	StreamStatements *statements;
	Position   *to;
	char	   *target;			/* qualified */
	bool		forward;
	bool		clear_state;
	bool		clear_target;	/* by statement, windows from floor on */
	bool		empty_target;	/* by TRUNCATE */
	TimestampTz floor;
	bool		floor_known;
} Seek;

/* Lock out the worker, and see the definition as it is then. */
static StreamDef *
lock_stream(const char *name)
{
	StreamDef  *def = api_own_stream(name);

	worker_lock_stream(def->stream_id, def->source_id);
	return api_own_stream(name);
}

/*
 * Is a position at or after all that has been applied?  Offsets: those of
 * partitions that are not named stay where they are.
 */
static bool
is_forward(const Seek *seek)
{
	CatalogAccess access;
	CatalogArg	args[] = {
		CATALOG_INT4(seek->def->stream_id),
		CATALOG_TIME(seek->to->time, seek->to->kind != POSITION_TIME),
		CATALOG_JSONB((Jsonb *) NULL),
		CATALOG_INT4(seek->def->source_id),
		CATALOG_TEXT(WEIR_SQLSTATE_IDENTITY)
	};
	uint64		behind;

	if (seek->to->kind == POSITION_LATEST)
		return true;
	if (seek->to->kind == POSITION_EARLIEST)
		return false;
	if (seek->to->kind == POSITION_OFFSETS)
	{
		args[2].value = DirectFunctionCall1(jsonb_in,
											CStringGetDatum(seek->to->text));
		args[2].isnull = false;
	}
	catalog_begin(&access);
	behind = catalog_execute("SELECT 1 WHERE NOT EXISTS (SELECT"
							 "  FROM weir_internal.stream_state"
							 "  WHERE stream_id = $1"
							 "  AND applied_offsets IS NOT NULL)"
							 " UNION ALL SELECT 1 FROM weir_internal.progress"
							 " WHERE stream_id = $1"
							 " AND (max_record_timestamp >= $2"
							 "	OR ($3 -> kafka_partition::text)::int8"
							 "	  < applied_offset)"
							 " UNION ALL"
							 " SELECT 1 FROM weir_internal.source"
							 " WHERE source_id = $4 AND stopped_sqlstate = $5"
							 " AND $3 IS NOT NULL",
							 lengthof(args), args);
	catalog_end(&access);
	return behind == 0;
}

static bool
another_stream_writes(const StreamDef *def)
{
	CatalogAccess access;
	CatalogArg	args[] = {
		CATALOG_OID(def->target), CATALOG_INT4(def->stream_id)
	};
	uint64		n;

	catalog_begin(&access);
	n = catalog_execute("SELECT 1 FROM weir_internal.stream"
						" WHERE target = $1 AND stream_id <> $2",
						lengthof(args), args);
	catalog_end(&access);
	return n > 0;
}

/* Is the event time of a stream's rows their Kafka timestamp? */
static bool
event_time_is_kafkas(const StreamDef *def)
{
	const SourceDef *source = catalog_source_by_id(def->source_id, false);
	char	   *name = get_attname(def->source_relid, source->event_time, false);

	return strcmp(name, "kafka_timestamp") == 0;
}

static void
plan_window_seek(Seek *seek)
{
	seek->clear_state = true;
	switch (seek->to->kind)
	{
		case POSITION_EARLIEST:
			seek->floor = DT_NOBEGIN;
			seek->floor_known = true;
			break;
		case POSITION_TIME:
			seek->floor = seek->to->time;
			seek->floor_known = event_time_is_kafkas(seek->def);
			break;
		case POSITION_LATEST:
		case POSITION_OFFSETS:
			seek->floor_known = false;
			break;
	}
	seek->clear_target = seek->floor_known;
}

static void
plan_aggregate_seek(Seek *seek)
{
	if (seek->to->kind == POSITION_EARLIEST)
	{
		seek->floor = DT_NOBEGIN;
		seek->clear_state = seek->clear_target = true;
	}
	else if (is_forward(seek))
		seek->forward = true;
	else
		ereport(ERROR,
				errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("running aggregate \"%s\" cannot be sought back to the middle",
					   seek->def->name),
				errdetail("Its results hold rows from before that position."),
				errhint("Seek to 'earliest', or forward."));
}

static void
plan_row_seek(Seek *seek)
{
	if (seek->plan->key_columns != NIL)
		return;
	if (is_forward(seek))
	{
		seek->forward = true;
		return;
	}
	if (!seek->def->target_created || another_stream_writes(seek->def))
		ereport(ERROR,
				errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("row stream \"%s\" without a key cannot be sought back",
					   seek->def->name),
				errdetail("Its rows would be in target %s twice.",
						  seek->target),
				errhint("Make another stream with a target of its own, or with the option \"key\"."));
	seek->empty_target = true;
}

/* Analyze the stream as its worker does, and decide. */
static void
plan_seek(Seek *seek)
{
	seek->statements = api_compile(seek->def, &seek->plan);
	seek->target = api_qualified_name(seek->def->target);

	switch (seek->plan->kind)
	{
		case STREAM_WINDOW:
			plan_window_seek(seek);
			break;
		case STREAM_AGGREGATE:
			plan_aggregate_seek(seek);
			break;
		case STREAM_ROW:
			plan_row_seek(seek);
			break;
	}
}

/* Run one of the compiled statements as the owner, with the floor as $5. */
static void
run_statement(const Seek *seek, const char *sql)
{
	StatementResult result = {0};
	Datum		values[STREAM_NPARAMS] = {0};
	bool		nulls[STREAM_NPARAMS];

	if (sql == NULL)
		return;
	memset(nulls, true, sizeof(nulls));
	values[4] = TimestampTzGetDatum(seek->floor);
	nulls[4] = false;
	result.cxt = AllocSetContextCreate(CurrentMemoryContext, "weir seek",
									   ALLOCSET_DEFAULT_SIZES);
	statement_run(&result, seek->def, seek->plan, sql, values, nulls,
				  GetTransactionSnapshot(), InvalidOid);
	MemoryContextDelete(result.cxt);
}

/* As the stream's owner: clear state and target. */
static void
clear(const Seek *seek)
{
	UserContext save;

	if (seek->clear_target)
		run_statement(seek, seek->statements->clear_target);
	if (seek->clear_state)
		run_statement(seek, seek->statements->clear_state);
	if (!seek->empty_target)
		return;
	catalog_enter_user(&save, seek->def->owner, &seek->def->settings);
	api_execute(psprintf("TRUNCATE %s", seek->target));
	catalog_leave_user(&save);
}

/*
 * The position as text.  Offsets are completed by the applied ones, since a
 * partition that is not named stays where it is.
 */
static char *
request_text(const Seek *seek)
{
	CatalogAccess access;
	CatalogRow	r;
	CatalogArg	args[] = {
		CATALOG_INT4(seek->def->stream_id),
		CATALOG_TEXT(seek->to->text)
	};
	char	   *text;

	if (seek->to->kind != POSITION_OFFSETS)
		return seek->to->text;
	catalog_begin(&access);
	catalog_execute("SELECT (coalesce(jsonb_object_agg("
					"  kafka_partition, applied_offset), '{}')"
					" || $2::jsonb)::text"
					" FROM weir_internal.progress WHERE stream_id = $1"
					" AND applied_offset >= 0",
					lengthof(args), args);
	catalog_row_begin(&r, &access, 0);
	text = catalog_next_text(&r);

	catalog_end(&access);
	return text;
}

/*
 * Leave the request.  Of a source that is stopped because its topic is not
 * the one it was reading, the new topic is accepted with this.
 */
static void
record_seek(const Seek *seek)
{
	char	   *to = request_text(seek);
	CatalogAccess access;
	CatalogArg	args[] = {
		CATALOG_INT4(seek->def->stream_id),
		CATALOG_TEXT(to),
		CATALOG_BOOL(seek->forward),
		CATALOG_TIME(seek->floor, !seek->floor_known),
		CATALOG_TIME(seek->to->time, seek->to->kind != POSITION_TIME)
	};
	CatalogArg	source[] = {
		CATALOG_INT4(seek->def->source_id),
		CATALOG_TEXT(WEIR_SQLSTATE_IDENTITY)
	};

	catalog_begin(&access);
	/* A restore may have left it out. */
	catalog_execute("INSERT INTO weir_internal.stream_state (stream_id)"
					" VALUES ($1) ON CONFLICT DO NOTHING", 1, args);
	if (catalog_execute("UPDATE weir_internal.stream_state SET"
						" seek_generation = seek_generation + 1,"
						" seek_to = $2, seek_forward = $3, seek_floor = $4,"
						" floor_pending = $4 IS NULL,"
						" seek_time = $5, has_rows = false,"
						" watermark = CASE WHEN $3 THEN watermark END"
						" WHERE stream_id = $1",
						lengthof(args), args) != 1)
		elog(ERROR, "stream %d has no state row", seek->def->stream_id);

	/* The ends of the topic before say nothing of the new one. */
	if (catalog_execute("UPDATE weir_internal.source SET"
						" topic_incarnation = topic_incarnation + 1,"
						" stopped_message = NULL, stopped_sqlstate = NULL"
						" WHERE source_id = $1 AND stopped_sqlstate = $2",
						lengthof(source), source) > 0)
		catalog_execute("DELETE FROM weir_internal.advance"
						" WHERE source_id = $1", 1, source);
	catalog_end(&access);
}

Datum
weir_seek(PG_FUNCTION_ARGS)
{
	Seek		seek = {0};
	char	   *name;

	api_require_writable("weir.seek()");
	name = api_text_arg(fcinfo, 0, "stream");
	seek.to = position_parse(api_text_arg(fcinfo, 1, "to"), "to");
	seek.def = lock_stream(name);
	seek.floor_known = true;
	seek.floor = DT_NOBEGIN;
	plan_seek(&seek);
	clear(&seek);
	record_seek(&seek);
	worker_wakeup_at_commit();
	PG_RETURN_VOID();
}

/*
 * Is to_time further ahead than the source lets event times be?
 */
static bool
too_far(const SourceDef *source, TimestampTz to_time)
{
	if (source->max_future_skew == WEIR_NO_DURATION)
		return false;
	return to_time > GetCurrentTimestamp() +
		source->max_future_skew;
}

Datum
weir_advance_watermark(PG_FUNCTION_ARGS)
{
	SourceDef  *source;
	TimestampTz to_time = 0;
	bool		everything;
	bool		force;
	CatalogAccess access;

	api_require_writable("weir.advance_watermark()");
	source = api_own_source(api_text_arg(fcinfo, 0, "source"));
	everything = PG_ARGISNULL(1);
	if (!everything)
		to_time = PG_GETARG_TIMESTAMPTZ(1);
	force = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);

	if (!everything && TIMESTAMP_IS_NOBEGIN(to_time))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("\"to_time\" must not be -infinity"),
				errdetail("A watermark never goes back."));
	if (!everything && TIMESTAMP_IS_NOEND(to_time))
		everything = true;
	if (!everything && !force && too_far(source, to_time))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("\"to_time\" is more than \"max_future_skew\" ahead of the wall clock"),
				errdetail("All rows up to then would be late."),
				errhint("Use force => true if that is meant."));

	{
		CatalogArg	args[] = {
			CATALOG_INT4(source->source_id),
			CATALOG_TIME(to_time, everything)
		};

		catalog_begin(&access);
		catalog_execute("INSERT INTO weir_internal.advance"
						" (source_id, stream_id, to_time)"
						" SELECT source_id, stream_id, $2"
						" FROM (SELECT source_id, stream_id"
						"  FROM weir_internal.stream WHERE source_id = $1"
						"  ORDER BY stream_id FOR KEY SHARE) m",
						lengthof(args), args);
		catalog_end(&access);
	}
	worker_wakeup_at_commit();
	PG_RETURN_VOID();
}
