/*-------------------------------------------------------------------------
 *
 * ingest_segment.c
 *	  A segment's table and view: made, emptied, dropped.
 *
 * A segment is an unlogged table without indexes, weir_internal.
 * segment_<source>_<stream>_<n>, with a view segment_..._v over it that has
 * the source's columns in the source's order, and the row's ctid as SEGMENT_TID.
 * Both belong to the owner of the extension and are members of it, so that
 * pg_dump leaves them alone.  They are made when missing or when the source's
 * columns were renamed, and stay as long as the source.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "commands/tablecmds.h"
#include "executor/spi.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "catalog_spi.h"
#include "errors.h"
#include "ingest.h"
#include "worker.h"

static char *
segment_name(const Ingest *ingest, int n)
{
	return psprintf("segment_%d_%d_%d", ingest->source->source_id,
					ingest->stream_id, n);
}

/* Make a relation a member of the extension. */
static void
add_to_extension(Oid relid)
{
	ObjectAddress object;
	ObjectAddress extension;

	ObjectAddressSet(object, RelationRelationId, relid);
	ObjectAddressSet(extension, ExtensionRelationId,
					 catalog_extension_oid(false));
	recordDependencyOn(&object, &extension, DEPENDENCY_EXTENSION);
}

/* A drop that is tried. */
typedef struct Drop
{
	Oid			relid;
	DropBehavior behavior;
} Drop;

/* Take it out of the extension, else it could not be dropped. */
static void
drop_relation(void *arg)
{
	const Drop *drop = arg;
	Oid			relid = drop->relid;
	ObjectAddress object;

	deleteDependencyRecordsForClass(RelationRelationId, relid,
									ExtensionRelationId,
									DEPENDENCY_EXTENSION);
	CommandCounterIncrement();
	ObjectAddressSet(object, RelationRelationId, relid);
	performDeletion(&object, drop->behavior, PERFORM_DELETION_INTERNAL);
	CommandCounterIncrement();
}

/*
 * Drop a relation of a segment, whatever somebody has made that needs it: a
 * view, a function, a policy.  None of these was asked for, and without the
 * segment they are nothing, so they go along, and the log says which.
 * Returns the error when it cannot be dropped even so.
 */
static ErrorData *
try_drop(Oid relid)
{
	Drop		drop = {relid, DROP_RESTRICT};
	ErrorData  *error = error_guard(drop_relation, &drop, false);

	if (error == NULL ||
		error->sqlerrcode != ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST)
		return error;
	ereport(WARNING,
			(errmsg("objects that depend on staging relation \"%s\" are dropped with it",
					get_rel_name(relid)),
			 error->detail_log ? errdetail_internal("%s", error->detail_log) :
			 error->detail ? errdetail_internal("%s", error->detail) : 0));
	drop.behavior = DROP_CASCADE;
	return error_guard(drop_relation, &drop, false);
}

static void
set_aside(void *arg)
{
	Oid			relid = *(Oid *) arg;
	char	   *name = get_rel_name(relid);

	if (get_rel_relkind(relid) == RELKIND_RELATION)
		catalog_execute(psprintf("TRUNCATE weir_internal.%s", name), 0, NULL);
	RenameRelationInternal(relid, psprintf("aside_%u", relid), false, false);
	CommandCounterIncrement();
}

/*
 * The name of a segment's relation is wanted for another one: drop it, or
 * else take its name away; the manager drops it when that can be done.
 */
static void
make_way(Oid relid)
{
	ErrorData  *error = try_drop(relid);

	if (error == NULL)
		return;
	ereport(WARNING,
			(errmsg("could not drop staging relation \"%s\": %s",
					get_rel_name(relid), error->message)));
	error = error_guard(set_aside, &relid, false);
	if (error)
		ReThrowError(error);
}

/* Does the view still have the source's columns, and SEGMENT_TID? */
static bool
view_fits(Oid viewid, TupleDesc source_desc)
{
	Relation	view = relation_open(viewid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(view);
	bool		fits = true;
	int			v = 0;

	for (int i = 0; fits && i < source_desc->natts; i++)
	{
		Form_pg_attribute s = TupleDescAttr(source_desc, i);

		if (s->attisdropped)
			continue;
		fits = v < desc->natts &&
			strcmp(NameStr(TupleDescAttr(desc, v)->attname),
				   NameStr(s->attname)) == 0 &&
			TupleDescAttr(desc, v)->atttypid == s->atttypid;
		v++;
	}
	fits = fits && v == desc->natts - 1 &&
		strcmp(NameStr(TupleDescAttr(desc, v)->attname), SEGMENT_TID) == 0;
	relation_close(view, AccessShareLock);
	return fits;
}

/*
 * CREATE VIEW: the source's columns in its order, then the ctid.  The table's
 * columns have the same names, but it has no kafka_topic.
 */
static char *
view_command(const Ingest *ingest, const char *table, Relation source)
{
	StringInfoData sql;
	TupleDesc	desc = RelationGetDescr(source);

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE VIEW weir_internal.%s_v AS SELECT ", table);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		const char *name = quote_identifier(NameStr(att->attname));

		if (att->attisdropped)
			continue;
		if (i == desc->natts - SOURCE_KAFKA_ATTRS)	/* kafka_topic */
			appendStringInfo(&sql, "%s::pg_catalog.text AS %s, ",
							 quote_literal_cstr(ingest->source->topic), name);
		else
			appendStringInfo(&sql, "%s, ", name);
	}
	appendStringInfo(&sql, "ctid AS " SEGMENT_TID " FROM weir_internal.%s", table);
	return sql.data;
}

/* In blocks; long values in the TOAST table count as well. */
BlockNumber
segment_size(Relation rel)
{
	Relation	toast;
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);

	if (!OidIsValid(rel->rd_rel->reltoastrelid))
		return blocks;
	toast = table_open(rel->rd_rel->reltoastrelid, AccessShareLock);
	blocks += RelationGetNumberOfBlocks(toast);
	table_close(toast, AccessShareLock);
	return blocks;
}

static bool
is_empty(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	bool		empty = segment_size(rel) == 0;

	table_close(rel, AccessShareLock);
	return empty;
}

/*
 * Lock table number n and its view against everybody, if they are there,
 * without waiting.  False: somebody has them.
 */
bool
segment_try_lock(const Ingest *ingest, int n)
{
	char	   *name = segment_name(ingest, n);
	Oid			nsp = catalog_internal_schema();
	Oid			relid = get_relname_relid(name, nsp);
	Oid			viewid = get_relname_relid(psprintf("%s_v", name), nsp);

	return (!OidIsValid(relid) ||
			ConditionalLockRelationOid(relid, AccessExclusiveLock)) &&
		(!OidIsValid(viewid) ||
		 ConditionalLockRelationOid(viewid, AccessExclusiveLock));
}

/*
 * The segment's table and view, made when missing or outdated.  In a
 * transaction of the caller's; empties the table in any case.
 */
void
segment_ensure(Ingest *ingest, int n, struct SegmentShared *segment)
{
	char	   *name = segment_name(ingest, n);
	Oid			nsp = catalog_internal_schema();
	Oid			relid = get_relname_relid(name, nsp);
	Oid			viewid = get_relname_relid(psprintf("%s_v", name), nsp);
	Relation	source = table_open(ingest->source->relid, AccessShareLock);

	if (OidIsValid(viewid) && !view_fits(viewid, RelationGetDescr(source)))
	{
		make_way(viewid);
		viewid = InvalidOid;
		if (OidIsValid(relid))
			make_way(relid);
		relid = InvalidOid;
	}
	if (OidIsValid(relid))
	{
		if (!is_empty(relid))
			catalog_execute(psprintf("TRUNCATE weir_internal.%s", name), 0,
							NULL);
	}
	else
	{
		catalog_define(psprintf("CREATE UNLOGGED TABLE weir_internal.%s (%s) "
								"WITH (autovacuum_enabled = off)", name,
								segment_column_definitions(source)));
		relid = get_relname_relid(name, nsp);
		add_to_extension(relid);
	}
	if (!OidIsValid(viewid))
	{
		catalog_define(view_command(ingest, name, source));
		viewid = get_relname_relid(psprintf("%s_v", name), nsp);
		add_to_extension(viewid);
	}
	table_close(source, AccessShareLock);
	segment->relid = relid;
	segment->viewid = viewid;
}

/*
 * Relations of segments for which condition holds, in the order in which they
 * can be dropped: views first.  The condition may use source and stream, the
 * numbers in the relation's name, and the parameters $1 and $2.
 */
static List *
segment_relations(const char *condition, int32 arg1, int32 arg2)
{
	CatalogAccess access;
	CatalogRow	row;
	CatalogArg	args[] = {CATALOG_INT4(arg1), CATALOG_INT4(arg2)};
	List	   *relids = NIL;
	uint64		n;

	catalog_begin(&access);
	n = catalog_execute(psprintf("SELECT relid FROM (SELECT c.oid AS relid, "
								 "c.relkind, c.relname, "
								 "CASE WHEN c.relname LIKE 'segment%%' "
								 "THEN split_part(c.relname, '_', 2)::int END AS source, "
								 "CASE WHEN c.relname LIKE 'segment%%' "
								 "THEN split_part(c.relname, '_', 3)::int END AS stream "
								 "FROM pg_class c WHERE c.relnamespace = "
								 "'weir_internal'::regnamespace "
								 "AND c.relkind IN ('r', 'v') AND c.relname ~ "
								 "'^(segment_[0-9]+_[0-9]+_[0-9]+(_v)?|aside_[0-9]+)$' "
								 "OFFSET 0) s WHERE ($1, $2) IS NOT NULL AND %s "
								 "ORDER BY relkind DESC, relname", condition),
						2, args);
	for (uint64 i = 0; i < n; i++)
	{
		Oid			relid;
		MemoryContext old;

		catalog_row_begin(&row, &access, i);
		relid = catalog_next_oid(&row);
		old = MemoryContextSwitchTo(access.caller);
		relids = lappend_oid(relids, relid);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&access);
	return relids;
}

/*
 * Lock a table or view of a segment without waiting.  A view only with its
 * table: who has locked that is about to read the view.
 */
static bool
try_lock_relation(Oid relid)
{
	Oid			table = InvalidOid;

	char	   *name = get_rel_name(relid);

	if (name == NULL)
		return true;			/* went with another */
	if (get_rel_relkind(relid) == RELKIND_VIEW &&
		strncmp(name, "segment", strlen("segment")) == 0)
	{
		name[strlen(name) - strlen("_v")] = '\0';
		table = get_relname_relid(name, catalog_internal_schema());
	}
	return (!OidIsValid(table) ||
			ConditionalLockRelationOid(table, AccessExclusiveLock)) &&
		ConditionalLockRelationOid(relid, AccessExclusiveLock);
}

/* A table's size, unless somebody is about to drop it. */
static BlockNumber
size_if_readable(Oid relid)
{
	Relation	rel;
	BlockNumber blocks = 0;

	if (get_rel_relkind(relid) != RELKIND_RELATION ||
		!ConditionalLockRelationOid(relid, AccessShareLock))
		return 0;
	rel = try_table_open(relid, NoLock);
	if (rel == NULL)
		return 0;
	blocks = segment_size(rel);
	table_close(rel, AccessShareLock);
	return blocks;
}

/*
 * Drop the relations but for those that somebody still reads, or that belong
 * to the ring given.  A table cannot go before its view.  One that cannot be
 * dropped keeps no other; returns whether all are gone, and adds what is left
 * of them, in blocks, to *left.
 */
static bool
drop_unread(List *relids, const struct SlotShared *ring, BlockNumber *left)
{
	bool		all = true;
	ListCell   *lc;

	foreach(lc, relids)
	{
		Oid			relid = lfirst_oid(lc);
		bool		ours = false;
		ErrorData  *error;

		for (int i = 0; ring && i < ring->nsegments; i++)
			ours = ours || ring->segments[i].relid == relid ||
				ring->segments[i].viewid == relid;
		if (ours)
			continue;
		if (!try_lock_relation(relid))
		{
			all = false;
			if (left)
				*left += size_if_readable(relid);
			continue;
		}
		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
			continue;			/* went with another */
		if (get_rel_relkind(relid) == RELKIND_RELATION &&
			OidIsValid(get_relname_relid(psprintf("%s_v", get_rel_name(relid)),
										 catalog_internal_schema())))
			continue;
		error = try_drop(relid);
		if (error)
		{
			all = false;
			if (left)
				*left += size_if_readable(relid);
			ereport(WARNING,
					(errmsg("could not drop staging relation \"%s\": %s",
							get_rel_name(relid), error->message)));
		}
	}
	return all;
}

/*
 * Drop what is left of tables whose place another one took, or of a ring
 * that was larger.  False: some are still read, of so many blocks.
 */
bool
segment_drop_strays(Ingest *ingest, BlockNumber *left)
{
	bool		all;

	*left = 0;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	all = drop_unread(segment_relations("source = $1 AND stream = $2",
										ingest->source->source_id,
										ingest->stream_id), ingest->slot,
					  left);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return all;
}

/* A stream has caught up: its private ring's segments go. */
void
segment_drop_private(int32 source_id, int32 stream_id)
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	(void) drop_unread(segment_relations("source = $1 AND stream = $2",
										 source_id, stream_id), NULL, NULL);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* Some are left: whoever calls tries again later. */
static void
say_left(bool all)
{
	if (!all)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("some staging relations could not be dropped yet")));
}

/*
 * Segments of sources and streams that are no more, and what was set aside;
 * the manager calls it after each change of the catalog, and again when not
 * all could be dropped.
 */
void
segment_drop_orphans(void)
{
	bool		all;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	all = drop_unread(segment_relations("(NOT EXISTS (SELECT FROM "
										"weir_internal.source o "
										"WHERE o.source_id = s.source) "
										"OR stream <> 0 AND NOT EXISTS (SELECT FROM "
										"weir_internal.stream o "
										"WHERE o.stream_id = s.stream))", 0, 0),
					  NULL, NULL);
	PopActiveSnapshot();
	CommitTransactionCommand();
	say_left(all);
}
