/*-------------------------------------------------------------------------
 *
 * stream_explain.c
 *	  What a query compiles to, for people and for tests.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "stream_internal.h"

#define DEFAULT_FILLFACTOR 70

PG_FUNCTION_INFO_V1(weir_compile_query);
PG_FUNCTION_INFO_V1(weir_check_target);

static List *
add_step(List *steps, const char *step, const char *purpose,
		 const char *statement)
{
	StreamStep *new;

	if (statement == NULL)
		return steps;
	new = palloc(sizeof(StreamStep));
	new->step = step;
	new->purpose = purpose;
	new->statement = statement;
	return lappend(steps, new);
}

List *
stream_steps(const StreamStatements *st)
{
	List	   *steps = NIL;

	steps = add_step(steps, "apply", "a micro-batch: into state and target",
					 st->apply);
	steps = add_step(steps, "apply_without", "the same without rows that fail",
					 st->apply_without);
	steps = add_step(steps, "merge_state",
					 "a micro-batch: into state only, when the target fails",
					 st->merge_state);
	steps = add_step(steps, "merge_groups",
					 "the same, and which groups it touched",
					 st->merge_groups);
	steps = add_step(steps, "emit_one",
					 "one of them, from state into the target", st->emit_one);
	steps = add_step(steps, "placed_rows",
					 "the rows to write, when the target fails",
					 st->placed_rows);
	steps = add_step(steps, "one_row", "one of them into the target",
					 st->one_row);
	steps = add_step(steps, "probe", "looks for rows that fail; writes nothing",
					 st->probe);
	steps = add_step(steps, "late", "rows late for a window", st->late);
	steps = add_step(steps, "culprits", "staged rows for dead letters",
					 st->culprits);
	steps = add_step(steps, "close",
					 "windows that the watermark has passed", st->close);
	steps = add_step(steps, "close_again",
					 "the same, writing the target again after a failure",
					 st->close_again);
	steps = add_step(steps, "closing",
					 "groups that the watermark has passed", st->closing);
	steps = add_step(steps, "close_one", "one of them, when closing fails",
					 st->close_one);
	steps = add_step(steps, "discard_one", "a group that cannot be finalized",
					 st->discard_one);
	steps = add_step(steps, "open_windows", "what is open, for statistics",
					 st->open_windows);
	steps = add_step(steps, "oldest", "the window that closes next",
					 st->oldest);
	steps = add_step(steps, "newest", "the last window that is open, and the first one past it",
					 st->newest);
	steps = add_step(steps, "clear_state", "seek: forget open windows",
					 st->clear_state);
	steps = add_step(steps, "clear_target", "seek: rows to be made again",
					 st->clear_target);
	return steps;
}

/* The source that a test names. */
typedef struct NamedSource
{
	Oid			relid;
	AttrNumber	event_time;
} NamedSource;

static bool
is_named_source(Oid relid, AttrNumber *event_time, void *arg)
{
	const NamedSource *source = arg;

	if (relid != source->relid)
		return false;
	*event_time = source->event_time;
	return true;
}

static List *
text_array_list(ArrayType *array)
{
	Datum	   *elems;
	int			nelems;
	List	   *list = NIL;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elems, NULL,
					  &nelems);
	for (int i = 0; i < nelems; i++)
		list = lappend(list, TextDatumGetCString(elems[i]));
	return list;
}

static void
put_step(ReturnSetInfo *rsinfo, const char *step, const char *purpose,
		 const char *statement)
{
	Datum		values[3];
	bool		nulls[3] = {false, false, false};

	values[0] = CStringGetTextDatum(step);
	values[1] = CStringGetTextDatum(purpose);
	values[2] = CStringGetTextDatum(statement);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
weir_compile_query(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	StreamOptions options = {0};
	NamedSource source;
	StreamPlan *plan;
	char	   *state = text_to_cstring(PG_GETARG_TEXT_PP(6));
	char	   *target = text_to_cstring(PG_GETARG_TEXT_PP(7));
	Interval   *lateness = PG_GETARG_INTERVAL_P(4);
	ListCell   *lc;

	source.relid = PG_GETARG_OID(1);
	source.event_time = get_attnum(source.relid, NameStr(*PG_GETARG_NAME(2)));
	options.emit_on_close =
		strcmp(text_to_cstring(PG_GETARG_TEXT_PP(3)), "on_close") == 0;
	options.allowed_lateness = lateness->day * USECS_PER_DAY + lateness->time;
	if (!PG_ARGISNULL(8))
		options.key = text_array_list(PG_GETARG_ARRAYTYPE_P(8));
	options.has_windows_from = !PG_ARGISNULL(9);
	if (options.has_windows_from)
		options.windows_from = PG_GETARG_TIMESTAMPTZ(9);

	InitMaterializedSRF(fcinfo, 0);
	plan = stream_analyze_with(text_to_cstring(PG_GETARG_TEXT_PP(0)),
							   &options, is_named_source, &source);
	put_step(rsinfo, "query", "the query with all names qualified",
			 stream_deparse(plan));
	foreach(lc, stream_state_ddl(plan, state, DEFAULT_FILLFACTOR))
		put_step(rsinfo, "state", "made with the stream", lfirst(lc));
	foreach(lc, stream_target_ddl(plan, target, DEFAULT_FILLFACTOR))
		put_step(rsinfo, "target", "made if missing", lfirst(lc));
	foreach(lc, stream_steps(stream_compile(plan, &options,
											text_to_cstring(PG_GETARG_TEXT_PP(5)),
											state, target)))
	{
		StreamStep *step = lfirst(lc);

		put_step(rsinfo, step->step, step->purpose, step->statement);
	}
	PG_RETURN_NULL();
}

Datum
weir_check_target(PG_FUNCTION_ARGS)
{
	StreamOptions options = {0};
	NamedSource source;

	source.relid = PG_GETARG_OID(1);
	source.event_time = get_attnum(source.relid, NameStr(*PG_GETARG_NAME(2)));
	if (!PG_ARGISNULL(4))
		options.key = text_array_list(PG_GETARG_ARRAYTYPE_P(4));
	stream_check_target(stream_analyze_with(text_to_cstring(PG_GETARG_TEXT_PP(0)),
											&options, is_named_source,
											&source), PG_GETARG_OID(3));
	PG_RETURN_VOID();
}
