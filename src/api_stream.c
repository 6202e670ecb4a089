/*-------------------------------------------------------------------------
 *
 * api_stream.c
 *	  weir.create_stream(): a continuous query, its target, its state.
 *
 * Everything is checked as the caller, under the caller's settings: the
 * query is analyzed (stream.h), and made ready to run once, since that asks
 * for every privilege that running it would need, those behind views and
 * functions included.
 *
 * The target is made by the caller.  The state table lies in weir_internal,
 * where users may create nothing: the extension's owner makes it and gives
 * it to the caller, as whom the compiled statements will write it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "api.h"
#include "catalog_spi.h"
#include "objects.h"
#include "settings.h"
#include "stream_execute.h"
#include "worker.h"

/* More windows a row than this are warned of. */
#define MANY_WINDOWS 10000

PG_FUNCTION_INFO_V1(weir_create_stream);

static const OptionName stream_options[] = {
	{"key", false},
	{"start_from", false},
	{"on_idle", false},
	{"max_dead_ratio", false},
	{"dead_letter_limit", false},
	{"fillfactor", false},
	{"state_ttl", true},
	{"state_limit", true},
	{"dedup_key", true},
	{"dedup_within", true},
	{NULL, false}
};

/* Arguments of create_stream, checked one by one. */
typedef struct StreamArgs
{
	char	   *name;
	char	   *query;
	RangeVar   *target;
	char	   *emit;
	Interval   *allowed_lateness;
	char	   *late_rows;
	char	   *on_error;
	Interval   *batch_interval;
	Jsonb	   *options;
	bool		if_not_exists;

	/* from options */
	StreamOptions analysis;
	Position   *start_from;		/* NULL: the source's */
	int			fillfactor;
} StreamArgs;

static void
read_options(StreamArgs *args)
{
	static const char *const idle[] = {"hold", "advance", NULL};
	char	   *text;

	options_check_keys(args->options, stream_options, "stream");
	args->analysis.key = options_names(args->options, "key");
	text = options_document(args->options, "start_from");
	args->start_from = text ? position_parse(text, "start_from") : NULL;
	text = options_text(args->options, "on_idle");

	if (text)
		(void) options_choice(text, idle, "on_idle");
	(void) options_number(args->options, "max_dead_ratio", 0.5, 0, 1);
	(void) options_count(args->options, "dead_letter_limit", 0, 1,
						 PG_INT64_MAX);
	args->fillfactor = (int) options_count(args->options, "fillfactor", 70,
										   10, 100);
}

static void
read_args(FunctionCallInfo fcinfo, StreamArgs *args)
{
	static const char *const emits[] = {"on_change", "on_close", NULL};
	static const char *const lates[] = {"dead_letter", "drop", NULL};
	static const char *const actions[] = {"dead_letter", "stop", NULL};
	char	   *target;

	args->name = api_bare_name(api_text_arg(fcinfo, 0, "name"), "name");
	args->query = api_text_arg(fcinfo, 1, "query");
	target = api_text_arg(fcinfo, 2, NULL);
	args->target = target ? api_relation_name(target, "target") :
		makeRangeVar(NULL, args->name, -1);
	args->emit = api_text_arg(fcinfo, 3, "emit");
	args->allowed_lateness = api_duration_arg(fcinfo, 4, "allowed_lateness",
											  false);
	args->late_rows = api_text_arg(fcinfo, 5, "late_rows");
	args->on_error = api_text_arg(fcinfo, 6, "on_error");
	args->batch_interval = api_duration_arg(fcinfo, 7, "batch_interval",
											false);
	args->options = api_options_arg(fcinfo, 8);
	args->if_not_exists = !PG_ARGISNULL(9) && PG_GETARG_BOOL(9);

	args->analysis.emit_on_close =
		options_choice(args->emit, emits, "emit") == 1;
	(void) options_choice(args->late_rows, lates, "late_rows");
	(void) options_choice(args->on_error, actions, "on_error");
	args->analysis.allowed_lateness =
		options_duration(args->allowed_lateness, "allowed_lateness");
	read_options(args);
}

/*
 * The target
 */

static void
check_target_privilege(Oid target, AclMode mode)
{
	AclResult	result = pg_class_aclcheck(target, GetUserId(), mode);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_TABLE, get_rel_name(target));
}

/* An existing relation as target of a stream, keyed or not. */
static void
check_existing_target(const StreamPlan *plan, Oid target)
{
	Relation	rel = table_open(target, AccessShareLock);
	char		relkind = rel->rd_rel->relkind;
	const char *name = RelationGetRelationName(rel);

	if (IsCatalogRelation(rel) ||
		RelationGetNamespace(rel) == catalog_internal_schema() ||
		getExtensionOfObject(RelationRelationId, target) ==
		catalog_extension_oid(false))
		ereport(ERROR,
				errcode(ERRCODE_WRONG_OBJECT_TYPE),
				errmsg("\"%s\" cannot be a target", name),
				errdetail("It belongs to the system or to weir itself."));
	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				errcode(ERRCODE_WRONG_OBJECT_TYPE),
				errmsg("target \"%s\" is not a table", name),
				errhint("Name an ordinary or partitioned table, or one that does not exist yet."));

	check_target_privilege(target, ACL_INSERT);
	if (plan->key_columns != NIL)
	{
		check_target_privilege(target, ACL_SELECT);
		check_target_privilege(target, ACL_UPDATE);
		check_target_privilege(target, ACL_DELETE);
	}
	stream_check_target(plan, target);
	table_close(rel, NoLock);
}

/* One keyed stream a target: two would overwrite each other's rows. */
static void
check_single_key(const StreamPlan *plan, Oid target)
{
	CatalogAccess access;
	CatalogArg	arg = CATALOG_OID(target);
	char	   *other = NULL;

	if (plan->key_columns == NIL)
		return;
	catalog_begin(&access);
	if (catalog_execute("SELECT name FROM weir_internal.stream"
						" WHERE target = $1 AND key_columns IS NOT NULL",
						1, &arg) > 0)
	{
		CatalogRow	r;

		catalog_row_begin(&r, &access, 0);
		other = catalog_next_text(&r);
	}
	catalog_end(&access);
	if (other)
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_IN_USE),
				errmsg("target \"%s\" is kept by stream \"%s\"",
					   get_rel_name(target), other),
				errdetail("A target can have one stream with a key."),
				errhint("Give the stream another target."));
}

static bool
has_primary_key(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	bool		result;

	(void) RelationGetIndexList(rel);
	result = OidIsValid(rel->rd_pkindex);
	table_close(rel, NoLock);
	return result;
}

/*
 * Make the target as the caller.  Without a primary key, updates of a table
 * in a publication need the whole row as identity.
 */
static Oid
create_target(const StreamArgs *args, const StreamPlan *plan, Oid nsp)
{
	char	   *qualified = quote_qualified_identifier(args->target->schemaname,
													   args->target->relname);
	Oid			target = InvalidOid;
	ListCell   *lc;

	foreach(lc, stream_target_ddl(plan, qualified, args->fillfactor))
	{
		api_execute(lfirst(lc));
		target = get_relname_relid(args->target->relname, nsp);
		if (!OidIsValid(target))
			api_changed_meanwhile(psprintf("target %s is not there after it was made",
										   qualified));
	}
	if (!has_primary_key(target))
		api_execute(psprintf("ALTER TABLE %s REPLICA IDENTITY FULL",
							 qualified));

	/* An event trigger may have made of it what it should not be. */
	stream_check_target(plan, target);
	return target;
}

/*
 * Is a temporary table what the caller means by that name?  It may hide one
 * of another schema, or have none yet.
 */
static void
refuse_temporary(const RangeVar *rv)
{
	Oid			relid = RangeVarGetRelid(rv, NoLock, true);

	if ((rv->schemaname && strcmp(rv->schemaname, "pg_temp") == 0) ||
		(OidIsValid(relid) &&
		 get_rel_persistence(relid) == RELPERSISTENCE_TEMP))
		ereport(ERROR,
				errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("target \"%s\" is a temporary table", rv->relname),
				errdetail("Background workers cannot see temporary tables."),
				errhint("Write the target with its schema, or drop the temporary table."));
}

/* Find or make the target. */
static Oid
settle_target(const StreamArgs *args, const StreamPlan *plan, bool *created)
{
	RangeVar   *rv = args->target;
	Oid			nsp;
	Oid			target;

	refuse_temporary(rv);
	nsp = rv->schemaname ? LookupExplicitNamespace(rv->schemaname, false) :
		api_creation_schema(rv);
	target = get_relname_relid(rv->relname, nsp);
	*created = !OidIsValid(target);
	if (*created)
	{
		nsp = api_creation_schema(rv);
		target = create_target(args, plan, nsp);
	}
	else
	{
		check_existing_target(plan, target);
		check_single_key(plan, target);
	}
	return target;
}

/*
 * State and catalog row
 */

/*
 * One whose state table is not there: a restore of definitions without data
 * makes the tables, but leaves the sequence at its start.
 */
static int32
next_stream_id(void)
{
	CatalogAccess access;
	CatalogRow	r;
	int32		id;

	catalog_begin(&access);
	do
	{
		catalog_execute("SELECT nextval('weir_internal.stream_id_seq')::int4",
						0, NULL);
		catalog_row_begin(&r, &access, 0);
		id = catalog_next_int4(&r);
	} while (OidIsValid(get_relname_relid(psprintf("state_%d", id),
										  catalog_internal_schema())));
	catalog_end(&access);
	return id;
}

/*
 * What a publication sends of a row that is changed or deleted: its key where
 * that cannot be NULL, else all of the old row, which is in the WAL then.
 */
static void
set_state_identity(const char *qualified, Oid state)
{
	Relation	rel = table_open(state, AccessShareLock);
	Relation	index = index_open(linitial_oid(RelationGetIndexList(rel)),
								   AccessShareLock);
	char	   *identity;
	bool		not_null = true;

	for (int i = 0; i < index->rd_index->indnkeyatts; i++)
		not_null = not_null &&
			TupleDescAttr(RelationGetDescr(rel),
						  index->rd_index->indkey.values[i] - 1)->attnotnull;
	identity = not_null ?
		psprintf("USING INDEX %s",
				 quote_identifier(RelationGetRelationName(index))) : "FULL";
	index_close(index, NoLock);
	table_close(rel, NoLock);
	catalog_define(psprintf("ALTER TABLE %s REPLICA IDENTITY %s", qualified,
							identity));
}

/* Make the state table, the caller's; InvalidOid when there is none. */
static Oid
create_state(const StreamArgs *args, const StreamPlan *plan, int32 id)
{
	char	   *name = psprintf("state_%d", id);
	char	   *qualified = quote_qualified_identifier(WEIR_INTERNAL_SCHEMA,
													   name);
	List	   *commands = stream_state_ddl(plan, qualified, args->fillfactor);
	char	   *owner = GetUserNameFromId(GetUserId(), false);
	CatalogAccess access;
	ListCell   *lc;

	if (commands == NIL)
		return InvalidOid;

	catalog_begin(&access);
	foreach(lc, commands)
		catalog_define(lfirst(lc));
	set_state_identity(qualified, get_relname_relid(name,
													catalog_internal_schema()));
	catalog_define(psprintf("COMMENT ON TABLE %s IS %s", qualified,
							quote_literal_cstr(psprintf("state of weir stream %s",
														args->name))));
	catalog_define(psprintf("ALTER TABLE %s OWNER TO %s", qualified,
							quote_identifier(owner)));
	catalog_end(&access);
	return get_relname_relid(name, catalog_internal_schema());
}

static const char *
kind_name(StreamKind kind)
{
	switch (kind)
	{
		case STREAM_ROW:
			return "row";
		case STREAM_AGGREGATE:
			return "aggregate";
		case STREAM_WINDOW:
			return "window";
	}
	elog(ERROR, "unknown kind of stream: %d", (int) kind);
}

static const char *
window_kind_name(WindowKind kind)
{
	switch (kind)
	{
		case WINDOW_NONE:
			return NULL;
		case WINDOW_TUMBLE:
			return "tumble";
		case WINDOW_HOP:
			return "hop";
	}
	elog(ERROR, "unknown kind of window: %d", (int) kind);
}

static void
insert_stream(const StreamArgs *args, const StreamPlan *plan, int32 id,
			  int32 source_id, Oid target, bool target_created, Oid state)
{
	CatalogAccess access;
	CapturedSettings settings;
	Oid			owner = GetUserId();
	const char *window_kind = window_kind_name(plan->window_kind);
	const char *start_from = args->start_from ? args->start_from->text : NULL;
	Datum		keys = catalog_text_array(plan->key_columns);
	char	   *query = stream_deparse(plan);
	Datum		objects = catalog_objects_datum(stream_objects(plan,
															   &args->analysis,
															   state, target));

	catalog_capture_settings(&settings);
	{
		CatalogArg	values[] = {
			CATALOG_INT4(id),
			CATALOG_TEXT(args->name),
			CATALOG_OID(owner),
			CATALOG_INT4(source_id),
			CATALOG_TEXT(kind_name(plan->kind)),
			CATALOG_TEXT(window_kind),
			CATALOG_TEXT(query),
			CATALOG_OID(target),
			CATALOG_BOOL(target_created),
			CATALOG_OID(state),
			CATALOG_TEXTS(keys),
			CATALOG_TEXT(args->emit),
			CATALOG_INTERVAL(args->allowed_lateness),
			CATALOG_TEXT(args->late_rows),
			CATALOG_TEXT(args->on_error),
			CATALOG_INTERVAL(args->batch_interval),
			CATALOG_JSONB(args->options),
			CATALOG_TEXT(start_from),
			{TEXTARRAYOID, catalog_settings_datum(&settings), false},
			CATALOG_BOOL(plan->uses_key),
			CATALOG_BOOL(plan->uses_headers),
			{TEXTARRAYOID, objects, false},
		};

		catalog_begin(&access);
		if (catalog_execute("INSERT INTO weir_internal.stream"
							" (stream_id, name, owner, source_id, kind,"
							"  window_kind, query, target, target_created,"
							"  state, key_columns, emit, allowed_lateness,"
							"  late_rows, on_error, batch_interval, options,"
							"  start_from, settings, uses_key, uses_headers,"
							"  objects)"
							" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9,"
							"  $10, $11::name[], $12, $13, $14, $15, $16,"
							"  $17, $18, $19, $20, $21, $22)",
							lengthof(values), values) != 1)
			elog(ERROR, "stream was not recorded");
		catalog_execute("INSERT INTO weir_internal.stream_state (stream_id)"
						" VALUES ($1)", 1, values);
		catalog_end(&access);
	}
}

/* The target when the stream is there already, else InvalidOid. */
static bool
existing_stream(const StreamArgs *args, Oid *target)
{
	StreamDef  *def = catalog_stream_by_name(args->name, true);

	if (def == NULL)
		return false;
	if (!args->if_not_exists)
		ereport(ERROR,
				errcode(ERRCODE_DUPLICATE_OBJECT),
				errmsg("stream \"%s\" already exists", args->name));
	ereport(NOTICE,
			errcode(ERRCODE_DUPLICATE_OBJECT),
			errmsg("stream \"%s\" already exists, skipping", args->name));
	*target = def->target;
	return true;
}

/*
 * Check, as the caller, every privilege that running the query needs.  Its
 * result is of no interest.
 */
static void
check_read_privileges(const StreamPlan *plan)
{
	CapturedSettings settings;

	catalog_capture_settings(&settings);
	statement_check(stream_deparse(plan), GetUserId(), &settings,
					objects_of((Node *) plan->query));
}

/* One row then is a long batch. */
static void
warn_windows(const char *name, const StreamPlan *plan)
{
	if (plan->windows_per_row <= MANY_WINDOWS)
		return;
	ereport(WARNING,
			errmsg("each row of stream \"%s\" lies in " INT64_FORMAT " windows",
				   name, plan->windows_per_row),
			errdetail("It is added to each of them, and each has a state a group."),
			errhint("Take a longer slide, or a shorter size."));
}

Datum
weir_create_stream(PG_FUNCTION_ARGS)
{
	StreamArgs	args;
	StreamPlan *plan;
	SourceDef  *source;
	Oid			target;
	Oid			state;
	bool		target_created;
	int32		id;

	api_require_writable("weir.create_stream()");
	read_args(fcinfo, &args);

	catalog_lock_names();
	if (existing_stream(&args, &target))
	{
		if (!OidIsValid(target))
			PG_RETURN_NULL();
		PG_RETURN_OID(target);
	}
	api_check_name_free(args.name);

	plan = stream_settle(stream_analyze(args.query, &args.analysis),
						 &args.analysis);
	LockRelationOid(plan->source_relid, AccessShareLock);
	source = catalog_source_by_relid(plan->source_relid, false);
	check_read_privileges(plan);

	target = settle_target(&args, plan, &target_created);
	catalog_grant_usage(GetUserId());
	id = next_stream_id();
	state = create_state(&args, plan, id);
	insert_stream(&args, plan, id, source->source_id, target, target_created,
				  state);
	worker_wakeup_at_commit();
	api_warn_worker_slots();
	warn_windows(args.name, plan);
	PG_RETURN_OID(target);
}
