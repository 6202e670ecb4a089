/*-------------------------------------------------------------------------
 *
 * fdw.c
 *	  The foreign data wrapper weir_kafka: validator and scan.
 *
 * Validator.  A server's options are librdkafka's, with '_' for '.'; secrets
 * live in user mappings only, where they are hidden from other users and
 * left out of nothing that PostgreSQL protects.  What loads code or reads
 * files of the server is a superuser's to set.  A foreign table has no
 * options of its own: all that a source is stands in weir's catalog, so that
 * ALTER FOREIGN TABLE cannot change it behind the workers' back.  Columns
 * have path and epoch.
 *
 * Scan.  SELECT on a source shows the committed rows still staged, a cache
 * that ingest fills and recycles; it is for a look, not for results.  The
 * segments are read one after another.  A segment that is recycled before its
 * turn looks empty, which for a look is fine.
 *
 * The reader needs SELECT on the foreign table only, which the executor has
 * checked; segments are opened without a check of their own.
 *
 * Locking: AccessShareLock on a segment while it is copied, whole, into a
 * tuplestore, and no longer.  A cursor may stay open for hours; ingest has to
 * recycle (I6).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "executor/executor.h"
#include "foreign/fdwapi.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "catalog.h"
#include "compat.h"
#include "fdw.h"
#include "ingest.h"
#include "ingest_decode_path.h"
#include "kafka.h"
#include "options.h"
#include "settings.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(weir_kafka_handler);
PG_FUNCTION_INFO_V1(weir_kafka_validator);

/*
 * Validator
 */

static void
unknown_option(const char *name, const char *near, const char *fallback)
{
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("unknown option \"%s\"", name),
			near ? errhint("Perhaps you meant %s.", near) :
			errhint("%s", fallback));
}

/* An option of a server (or user mapping, when mapping). */
static void
check_kafka_option(const char *name, const char *value, bool mapping)
{
	char	   *problem;

	switch (kafka_option_kind(name))
	{
		case KAFKA_OPTION_UNKNOWN:
			unknown_option(name, kafka_option_near(name),
						   "Options are those of librdkafka, with \"_\" for \".\".");
			break;
		case KAFKA_OPTION_FORBIDDEN:
			ereport(ERROR,
					errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("option \"%s\" cannot be set", name),
					errdetail("weir controls it."));
			break;
		case KAFKA_OPTION_SERVER:
			if (mapping)
				ereport(ERROR,
						errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("option \"%s\" belongs to a server", name),
						errhint("Set it with ALTER SERVER."));
			break;
		case KAFKA_OPTION_SECRET:
			if (!mapping)
				ereport(ERROR,
						errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("option \"%s\" belongs to a user mapping",
							   name),
						errdetail("Everybody can see the options of a server."),
						errhint("Set it with CREATE USER MAPPING."));
			break;
		case KAFKA_OPTION_EITHER:
			break;
		case KAFKA_OPTION_SUPERUSER:
			if (!superuser())
				ereport(ERROR,
						errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("only a superuser may set option \"%s\"",
							   name),
						errdetail("It makes the database server read files or run code."));
			break;
	}
	problem = kafka_option_check(name, value);
	if (problem)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("%s", problem));
}

static void
check_column_option(const char *name, const char *value)
{
	static const char *const names[] = {"path", "epoch"};
	int			nsteps;

	if (strcmp(name, "path") == 0)
		(void) column_path_parse(value, &nsteps);
	else if (strcmp(name, "epoch") == 0)
		(void) column_epoch_parse(value);
	else
	{
		const char *near = options_nearest(name, names, lengthof(names));

		unknown_option(name, near ? psprintf("\"%s\"", near) : NULL,
					   "The options of a column are: path, epoch.");
	}
}

Datum
weir_kafka_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	bool		has_servers = false;
	ListCell   *lc;

	weir_require_preload();
	foreach(lc, options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);
		const char *value = option->arg ? defGetString(option) : "";

		if (catalog == ForeignServerRelationId)
		{
			check_kafka_option(option->defname, value, false);
			if (strcmp(option->defname, "bootstrap_servers") == 0)
				has_servers = value[0] != '\0';
		}
		else if (catalog == UserMappingRelationId)
			check_kafka_option(option->defname, value, true);
		else if (catalog == AttributeRelationId)
			check_column_option(option->defname, value);
		else if (catalog == ForeignTableRelationId)
			ereport(ERROR,
					errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("unknown option \"%s\"", option->defname),
					errdetail("A source's foreign table has no options."),
					errhint("Use weir.create_source()."));
		else
			ereport(ERROR,
					errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("unknown option \"%s\"", option->defname),
					errdetail("The foreign data wrapper has no options."));
	}
	if (catalog == ForeignServerRelationId && !has_servers)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("option \"bootstrap_servers\" is missing"),
				errhint("Give it as OPTIONS (bootstrap_servers 'host:9092')."));
	PG_RETURN_VOID();
}

/*
 * Options for the client
 */

/* The options of a user's mapping, or of PUBLIC's; NIL without one. */
static List *
mapping_options(Oid server_id, Oid userid)
{
	HeapTuple	tuple;
	Datum		datum;
	bool		isnull;
	List	   *options = NIL;

	tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid),
							ObjectIdGetDatum(server_id));
	if (!HeapTupleIsValid(tuple))
		tuple = SearchSysCache2(USERMAPPINGUSERSERVER,
								ObjectIdGetDatum(InvalidOid),
								ObjectIdGetDatum(server_id));
	if (!HeapTupleIsValid(tuple))
		return NIL;
	datum = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple,
							Anum_pg_user_mapping_umoptions, &isnull);
	if (!isnull)
		options = untransformRelOptions(datum);
	ReleaseSysCache(tuple);
	return options;
}

List *
fdw_kafka_options(Oid server_id, Oid userid)
{
	return list_concat_copy(GetForeignServer(server_id)->options,
							mapping_options(server_id, userid));
}

bool
fdw_is_source_table(Oid relid)
{
	ForeignTable *table;

	if (get_rel_relkind(relid) != RELKIND_FOREIGN_TABLE)
		return false;
	table = GetForeignTable(relid);
	return strcmp(GetForeignDataWrapper(GetForeignServer(table->serverid)->fdwid)->fdwname,
				  "weir_kafka") == 0;
}

/*
 * Scan
 */

/* A scan under way. */
typedef struct StagedScan
{
	Oid			segments[WEIR_MAX_SEGMENTS];
	int			nsegments;
	int			next;			/* the one to copy next */
	Tuplestorestate *rows;		/* of the segment at hand, or NULL */
	TupleTableSlot *row;		/* of a segment */
	MemoryContext scratch;		/* of a row being copied */
	char	   *topic;
	Datum		topic_datum;	/* the same as text */
} StagedScan;

static void
staged_rel_size(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid)
{
	baserel->tuples = 10000;
	baserel->rows = clamp_row_est(baserel->tuples *
								  clauselist_selectivity(root,
														 baserel->baserestrictinfo,
														 0, JOIN_INNER, NULL));
}

static void
staged_paths(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid)
{
	add_path(baserel, (Path *)
			 compat_foreignscan_path(root, baserel, baserel->rows,
									 baserel->rows * cpu_tuple_cost,
									 baserel->lateral_relids));
}

static ForeignScan *
staged_plan(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid,
			ForeignPath *best_path, List *tlist, List *scan_clauses,
			Plan *outer_plan)
{
	return make_foreignscan(tlist,
							extract_actual_clauses(scan_clauses, false),
							baserel->relid, NIL, NIL, NIL, NIL, outer_plan);
}

static void
staged_begin(ForeignScanState *node, int eflags)
{
	Relation	rel = node->ss.ss_currentRelation;
	SourceDef  *source;
	StagedScan *state;

	weir_require_preload();
	source = catalog_source_by_relid(RelationGetRelid(rel), true);
	if (source == NULL)
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("foreign table \"%s\" is not a source",
					   RelationGetRelationName(rel)),
				errdetail("It was not made by weir.create_source(), or restored without weir's catalog."),
				errhint("Drop it and call weir.create_source()."));

	state = palloc0(sizeof(StagedScan));
	state->topic = source->topic;
	state->topic_datum = CStringGetTextDatum(source->topic);
	state->scratch = AllocSetContextCreate(CurrentMemoryContext,
										   "weir staged row",
										   ALLOCSET_DEFAULT_SIZES);
	node->fdw_state = state;
	if (!(eflags & EXEC_FLAG_EXPLAIN_ONLY))
		state->nsegments = worker_source_segments(source->source_id,
												  state->segments,
												  WEIR_MAX_SEGMENTS);
}

/* Copy a row; long values, too, which go with the segment. */
static void
copy_row(StagedScan *state, TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	MemoryContext old = MemoryContextSwitchTo(state->scratch);
	Datum	   *values = palloc(desc->natts * sizeof(Datum));

	slot_getallattrs(slot);
	for (int i = 0; i < desc->natts; i++)
	{
		values[i] = slot->tts_values[i];
		if (!slot->tts_isnull[i] && TupleDescAttr(desc, i)->attlen == -1 &&
			VARATT_IS_EXTERNAL(DatumGetPointer(values[i])))
			values[i] = PointerGetDatum(detoast_external_attr((struct varlena *)
															  DatumGetPointer(values[i])));
	}
	tuplestore_putvalues(state->rows, desc, values, slot->tts_isnull);
	MemoryContextSwitchTo(old);
	MemoryContextReset(state->scratch);
}

static void
drop_rows(StagedScan *state)
{
	if (state->rows == NULL)
		return;
	ExecDropSingleTupleTableSlot(state->row);
	tuplestore_end(state->rows);
	state->rows = NULL;
}

/* Copy the next segment that still exists; false when there is none. */
static bool
copy_segment(ForeignScanState *node, StagedScan *state)
{
	Relation	segment = NULL;
	TupleTableSlot *slot;
	TableScanDesc scan;

	drop_rows(state);
	while (segment == NULL)
	{
		if (state->next >= state->nsegments)
			return false;
		segment = try_table_open(state->segments[state->next++],
								 AccessShareLock);
	}
	state->rows = tuplestore_begin_heap(false, false, work_mem);
	state->row = MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(segment)),
										  &TTSOpsMinimalTuple);
	slot = table_slot_create(segment, NULL);
	scan = table_beginscan(segment, node->ss.ps.state->es_snapshot, 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		copy_row(state, slot);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(segment, AccessShareLock);
	return true;
}

/* Columns of a segment to columns of the source: see ingest.h. */
static void
store_staged_row(const StagedScan *state, TupleTableSlot *slot)
{
	TupleTableSlot *row = state->row;
	int			declared = slot->tts_tupleDescriptor->natts -
	SOURCE_KAFKA_ATTRS;
	int			to = declared;
	int			from;

	slot_getallattrs(row);
	memcpy(slot->tts_values, row->tts_values + SEGMENT_FIXED_ATTRS,
		   declared * sizeof(Datum));
	memcpy(slot->tts_isnull, row->tts_isnull + SEGMENT_FIXED_ATTRS,
		   declared * sizeof(bool));

	slot->tts_values[to] = state->topic_datum;
	slot->tts_isnull[to++] = false;
	for (from = 0; from < SEGMENT_FIXED_ATTRS; from++, to++)
	{
		slot->tts_values[to] = row->tts_values[from];
		slot->tts_isnull[to] = row->tts_isnull[from];
	}
	for (from += declared; to < slot->tts_tupleDescriptor->natts; from++, to++)
	{
		slot->tts_values[to] = row->tts_values[from];
		slot->tts_isnull[to] = row->tts_isnull[from];
	}
	ExecStoreVirtualTuple(slot);
}

static TupleTableSlot *
staged_iterate(ForeignScanState *node)
{
	StagedScan *state = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;
	MemoryContext old;
	bool		copied;

	ExecClearTuple(slot);
	while (state->rows == NULL ||
		   !tuplestore_gettupleslot(state->rows, true, false, state->row))
	{
		old = MemoryContextSwitchTo(node->ss.ps.state->es_query_cxt);
		copied = copy_segment(node, state);
		MemoryContextSwitchTo(old);
		if (!copied)
			return slot;
	}
	store_staged_row(state, slot);
	return slot;
}

static void
staged_rescan(ForeignScanState *node)
{
	StagedScan *state = node->fdw_state;

	drop_rows(state);
	state->next = 0;
}

static void
staged_end(ForeignScanState *node)
{
	if (node->fdw_state)
		staged_rescan(node);
}

static void
staged_explain(ForeignScanState *node, ExplainState *es)
{
	StagedScan *state = node->fdw_state;

	ExplainPropertyText("Kafka Topic", state->topic, es);
	if (es->analyze)
		ExplainPropertyInteger("Staging Segments", NULL, state->nsegments,
							   es);
}

Datum
weir_kafka_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = staged_rel_size;
	routine->GetForeignPaths = staged_paths;
	routine->GetForeignPlan = staged_plan;
	routine->BeginForeignScan = staged_begin;
	routine->IterateForeignScan = staged_iterate;
	routine->ReScanForeignScan = staged_rescan;
	routine->EndForeignScan = staged_end;
	routine->ExplainForeignScan = staged_explain;
	PG_RETURN_POINTER(routine);
}
