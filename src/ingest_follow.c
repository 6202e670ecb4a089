/*-------------------------------------------------------------------------
 *
 * ingest_follow.c
 *	  Compile the source, and again when the catalog has changed under it.
 *
 * A compiled source holds what the catalog said once: functions inlined or
 * folded into filter, DEFAULT, CHECK and generated columns, operators, casts,
 * names the filter resolved, input functions, the attributes of composite
 * types, what a domain stands on, rights to execute.  All of it is looked at
 * again at the next batch after a change: a transaction's start takes in the
 * invalidations, their callbacks note that the compiled source is outdated,
 * and the batch compiles it anew before it decodes.  So records before the
 * batch are as it was, records of the batch and later ones as it is.
 *
 * Callbacks come for much that does not matter here: each temporary table is
 * new types and a relation.  So relations are compared with those that the
 * source depends on, and types by the hash value of their entry in the
 * syscache, which is what a callback has.  Whatever else there is changes
 * seldom, and a callback too many costs one compilation, at most one a batch.
 * A callback must not look into the catalog, so what it compares with is
 * collected when the source is compiled.
 *
 * The filter is stored as a text, which follows renames; it is read again with
 * the rest.
 *
 * Functions called, not inlined, plan their statements themselves, and
 * PostgreSQL's caches of types (enums, domains' constraints) follow the
 * catalog by themselves, but for functions inlined into a domain's checks
 * (worker_main.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
#include "optimizer/optimizer.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "ingest.h"
#include "ingest_follow.h"

/* Every change of these is taken to matter. */
static const int watched_caches[] = {
	AMOPOPID,
	AUTHMEMMEMROLE,
	AUTHOID,
	CASTSOURCETARGET,
	CLAOID,
	COLLOID,
	ENUMOID,
	LANGOID,
	NAMESPACEOID,
	OPEROID,
	PROCOID,
	RANGETYPE,
	TSCONFIGMAP,
	TSCONFIGOID,
	TSDICTOID
};

/* What the compiled source depends on, in context "watch". */
static MemoryContext watch = NULL;
static List *watched_relations = NIL;	/* oids */
static List *watched_types = NIL;	/* oids, while they are collected */
static List *watched_hashes = NIL;	/* of the types, ints */

static bool outdated = false;

static void
relation_changed(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || list_member_oid(watched_relations, relid))
		outdated = true;
}

static void
type_changed(Datum arg, int cache, uint32 hash)
{
	if (hash == 0 || list_member_int(watched_hashes, (int) hash))
		outdated = true;
}

static void
entry_changed(Datum arg, int cache, uint32 hash)
{
	outdated = true;
}

/*
 * Collecting; the callbacks find the lists whole at any time, since lists
 * are only appended to.
 */

static void
watch_relation(Oid relid)
{
	MemoryContext old = MemoryContextSwitchTo(watch);

	watched_relations = list_append_unique_oid(watched_relations, relid);
	MemoryContextSwitchTo(old);
}

static void
watch_type_hash(uint32 hash)
{
	MemoryContext old = MemoryContextSwitchTo(watch);

	watched_hashes = list_append_unique_int(watched_hashes, (int) hash);
	MemoryContextSwitchTo(old);
}

/* A type and all that it is made of. */
static void
watch_type(Oid typid)
{
	MemoryContext old;
	TupleDesc	desc;
	Oid			part;

	if (!OidIsValid(typid) || list_member_oid(watched_types, typid))
		return;
	check_stack_depth();
	old = MemoryContextSwitchTo(watch);
	watched_types = lappend_oid(watched_types, typid);
	MemoryContextSwitchTo(old);
	watch_type_hash(GetSysCacheHashValue1(TYPEOID, ObjectIdGetDatum(typid)));

	watch_type(get_element_type(typid));
	switch (get_typtype(typid))
	{
		case TYPTYPE_DOMAIN:
			part = getBaseType(typid);
			watch_type(part);
			break;
		case TYPTYPE_RANGE:
			watch_type(get_range_subtype(typid));
			break;
		case TYPTYPE_MULTIRANGE:
			watch_type(get_multirange_range(typid));
			break;
		case TYPTYPE_COMPOSITE:
			watch_relation(get_typ_typrelid(typid));
			desc = lookup_rowtype_tupdesc_copy(typid, -1);
			for (int i = 0; i < desc->natts; i++)
				if (!TupleDescAttr(desc, i)->attisdropped)
					watch_type(TupleDescAttr(desc, i)->atttypid);
			FreeTupleDesc(desc);
			break;
	}
}

/* The types of an expression's nodes. */
static bool
watch_types_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Var:
		case T_Const:
		case T_FuncExpr:
		case T_OpExpr:
		case T_FieldSelect:
		case T_FieldStore:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_ConvertRowtypeExpr:
		case T_RowExpr:
		case T_CoerceToDomain:
			watch_type(exprType(node));
			break;
		default:
			break;
	}
	return expression_tree_walker(node, watch_types_walker, context);
}

/*
 * Plan an expression for decoding; what went into the plan is watched when
 * it is the source's (follow_compile).
 */
Expr *
follow_plan(Expr *expression)
{
	List	   *relations;
	List	   *items;
	ListCell   *lc;
	Expr	   *planned;

	if (watch == NULL)
		return expression_planner(expression);
	(void) watch_types_walker((Node *) expression, NULL);
	planned = expression_planner_with_deps(expression, &relations, &items);
	(void) watch_types_walker((Node *) planned, NULL);
	foreach(lc, relations)
		watch_relation(lfirst_oid(lc));
	foreach(lc, items)
	{
		PlanInvalItem *item = lfirst_node(PlanInvalItem, lc);

		if (item->cacheId == TYPEOID)
			watch_type_hash(item->hashValue);
	}
	return planned;
}

/* Begin to watch, for good. */
static void
register_callbacks(void)
{
	watch = AllocSetContextCreate(TopMemoryContext, "weir watched objects",
								  ALLOCSET_SMALL_SIZES);
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, type_changed, (Datum) 0);
	for (int i = 0; i < lengthof(watched_caches); i++)
		CacheRegisterSyscacheCallback(watched_caches[i], entry_changed,
									  (Datum) 0);
}

/* Has the catalog changed since follow_compile()?  Costs nothing. */
bool
follow_outdated(void)
{
	return outdated;
}

/*
 * Compile the source into a decoder, with the filter that the definition has.
 */
static Decoder *
compile(Ingest *ingest, const SourceDef *now)
{
	SourceDef	source = *ingest->source;
	Relation	rel;
	TupleDesc	desc;
	UserContext user;
	Decoder    *decoder;

	source.filter = now->filter;
	source.objects_recorded = now->objects_recorded;
	source.objects = now->objects;
	watched_relations = watched_types = watched_hashes = NIL;
	MemoryContextReset(watch);
	rel = table_open(source.relid, AccessShareLock);
	outdated = false;
	watch_relation(RelationGetRelid(rel));
	desc = RelationGetDescr(rel);
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
			watch_type(TupleDescAttr(desc, i)->atttypid);
	catalog_enter_user(&user, source.owner, &source.settings);
	decoder = decoder_create(&source, rel, ingest->segment_desc, ingest->cxt);
	catalog_leave_user(&user);
	table_close(rel, AccessShareLock);
	return decoder;
}

/*
 * Compile the source into ingest->decoder.  In a transaction with a snapshot.
 * Whatever changes while it is under way makes it outdated again.
 *
 * The filter is a text, in which a rename changes names, and the names may be
 * others' by then (two columns that change names).  So it is read again, and
 * must be the same after it was compiled: a rename that was seen meanwhile
 * has changed the definition, too.  Each turn takes another such change.
 */
void
follow_compile(Ingest *ingest)
{
	int32		source_id = ingest->source->source_id;
	SourceDef  *now;
	SourceDef  *later = catalog_source_by_id(source_id, false);
	Decoder    *decoder = NULL;

	if (watch == NULL)
		register_callbacks();
	do
	{
		CHECK_FOR_INTERRUPTS();
		if (decoder)
			decoder_free(decoder);
		now = later;
		decoder = compile(ingest, now);
		later = catalog_source_by_id(source_id, false);
	} while (later->version != now->version);
	if (ingest->decoder)
	{
		decoder_take_over(decoder, ingest->decoder);
		decoder_free(ingest->decoder);
	}
	ingest->decoder = decoder;
}
