/*-------------------------------------------------------------------------
 *
 * stream_stored.c
 *	  A stream's query between its creation and its workers: kept as text,
 *	  read again, and meaning the same.
 *
 * The query is written as its user's search_path has it, and stored with
 * names qualified.  Stored text is read under neutral settings.  That it
 * means the same then is checked twice: at creation by reading it at once,
 * and later by comparing what it finds, and what is found by the statements
 * compiled from it, with what was recorded (objects.c).
 *
 * What PostgreSQL's syntax has no place for a schema in cannot be stored: the
 * equality behind IS DISTINCT FROM, NULLIF, CASE x WHEN y, and JOIN ... USING
 * of types that are not PostgreSQL's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "errors.h"
#include "objects.h"
#include "stream_execute.h"
#include "stream_internal.h"

static char *
qualified_name(Oid relid)
{
	char	   *name = OidIsValid(relid) ? get_rel_name(relid) : NULL;

	if (name == NULL)
		return NULL;
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  name);
}

/* What the statements of a stream call, its source in a segment's place. */
static List *
add_called(List *objects, const StreamPlan *plan,
		   const StreamOptions *options, Oid state, Oid target)
{
	char	   *source = qualified_name(plan->source_relid);
	char	   *segment = psprintf("(SELECT s.*, NULL::tid AS " SEGMENT_TID " FROM %s s)",
								   source);
	const StreamStatements *st = stream_compile(plan, options, segment,
												qualified_name(state),
												qualified_name(target));
	const char *const texts[] = {
		st->apply, st->apply_without, st->merge_state, st->merge_groups,
		st->placed_rows,
		st->count, st->probe, st->late, st->culprits, st->close,
		st->close_again, st->closing, st->open_windows, st->oldest,
		st->newest,
		st->clear_state, st->clear_target, st->first_events,
		st->latest_events,
		st->clear_incomplete
	};

	for (int i = 0; i < lengthof(texts); i++)
		if (texts[i] != NULL)
			objects = objects_add_called(objects, statement_analyze(texts[i]));
	return objects;
}

List *
stream_objects(const StreamPlan *plan, const StreamOptions *options,
			   Oid state, Oid target)
{
	int			nest_level = catalog_enter_neutral();
	List	   *objects = objects_of((Node *) plan->query);

	if (OidIsValid(target) && get_rel_name(target) != NULL)
		objects = add_called(objects, plan, options, state, target);
	catalog_leave_neutral(nest_level);
	return objects;
}

/*
 * At creation
 */

typedef struct Reading
{
	const char *text;
	const StreamOptions *options;
	StreamPlan *plan;
} Reading;

static void
read_text(void *arg)
{
	Reading    *reading = arg;
	int			nest_level = catalog_enter_neutral();

	reading->plan = stream_analyze(reading->text, reading->options);
	catalog_leave_neutral(nest_level);
}

static void
refuse_unstable(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the query cannot be stored so that it keeps its meaning"),
			 errdetail("%s", detail),
			 errhint("Use IS DISTINCT FROM, NULLIF, CASE with an operand, and JOIN ... USING with types of PostgreSQL only; write the equality of other types as an operator, as in JOIN ... ON or CASE WHEN a = b.")));
}

StreamPlan *
stream_settle(const StreamPlan *plan, const StreamOptions *options)
{
	Reading		reading = {stream_deparse(plan), options, NULL};
	ErrorData  *error = error_guard(read_text, &reading, false);
	const char *differs;

	if (error != NULL && error_class(error->sqlerrcode) == ERROR_OF_OUTAGE)
		ReThrowError(error);
	if (error != NULL)
		refuse_unstable(psprintf("Read again with all names qualified, it fails: %s.",
								 error->message));
	differs = objects_difference(objects_of((Node *) plan->query),
								 objects_of((Node *) reading.plan->query));
	if (differs != NULL)
		refuse_unstable(differs);
	return reading.plan;
}

/*
 * Later
 */

StreamPlan *
stream_read_stored(const StreamDef *def, StreamOptions *options)
{
	StreamPlan *plan;
	UserContext user;
	int			nest_level;

	memset(options, 0, sizeof(*options));
	options->emit_on_close = def->emit_on_close;
	options->allowed_lateness = def->allowed_lateness;
	options->key = def->option_key;

	catalog_enter_user(&user, def->owner, &def->settings);
	nest_level = catalog_enter_neutral();
	plan = stream_analyze(def->query, options);
	plan->objects = stream_objects(plan, options, def->state, def->target);
	catalog_leave_neutral(nest_level);
	if (def->objects_recorded)
		objects_check(plan->objects, def->objects,
					  psprintf("stream \"%s\"", def->name));
	catalog_leave_user(&user);
	return plan;
}
