/*-------------------------------------------------------------------------
 *
 * ddl_durable.c
 *	  DDL that would leave a stream's tables less durable than its position.
 *
 * A crash empties an unlogged table, and a foreign one is not in the batch's
 * transaction.  A target, its partitions and a state table must not become
 * one: that is refused by the command itself, since a crash may come before
 * the stream's worker sees what its table has become.  All else that they
 * must not be it sees in time (stream_follow.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "utils/lsyscache.h"

#include "catalog_spi.h"
#include "ddl_durable.h"
#include "ddl_rename.h"

/*
 * The stream that keeps a table, or whose state it is; NULL: none.
 */
typedef struct Keeper
{
	List	   *relids;			/* the table and what it is a partition of */
	char	   *stream;
	bool		is_state;
} Keeper;

static void
find_keeper(void *arg)
{
	Keeper	   *keeper = arg;
	Datum	   *oids = palloc(sizeof(Datum) * list_length(keeper->relids));
	CatalogArg	relids = {OIDARRAYOID, 0, false};
	CatalogAccess access;
	CatalogRow	r;
	ListCell   *lc;
	int			n = 0;

	foreach(lc, keeper->relids)
		oids[n++] = ObjectIdGetDatum(lfirst_oid(lc));
	relids.value = PointerGetDatum(construct_array(oids, n, OIDOID,
												   sizeof(Oid), true,
												   TYPALIGN_INT));
	catalog_begin(&access);
	if (catalog_execute("SELECT name, target IS NULL OR"
						"  target::oid <> ALL ($1)"
						" FROM weir_internal.stream"
						" WHERE target::oid = ANY ($1)"
						" OR state::oid = ANY ($1) ORDER BY 1", 1, &relids) > 0)
	{
		catalog_row_begin(&r, &access, 0);
		keeper->stream = catalog_next_text(&r);
		keeper->is_state = catalog_next_bool(&r);
	}
	catalog_end(&access);
}

static void
refuse_unkept(RangeVar *rv, const char *what)
{
	Oid			relid = RangeVarGetRelid(rv, NoLock, true);
	Keeper		keeper = {NIL, NULL, false};

	if (!OidIsValid(relid) || !catalog_tables_exist())
		return;
	keeper.relids = list_make1_oid(relid);
	if (get_rel_relispartition(relid))
		keeper.relids = list_concat(keeper.relids,
									get_partition_ancestors(relid));
	ddl_peek(find_keeper, &keeper);
	if (keeper.stream == NULL)
		return;
	ereport(ERROR,
			errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			keeper.is_state ?
			errmsg("the state table of stream \"%s\" cannot be %s",
				   keeper.stream, what) :
			errmsg("the target of stream \"%s\" and its partitions cannot be %s",
				   keeper.stream, what),
			errdetail("What is written there must be as durable as the stream's position."),
			errhint("Drop the stream with weir.drop_stream() first."));
}

/* A new table that may be a partition of a target. */
void
ddl_durable_create(CreateStmt *stmt)
{
	if (stmt->partbound == NULL)
		return;
	if (IsA(stmt, CreateForeignTableStmt))
		refuse_unkept(linitial(stmt->inhRelations), "foreign tables");
	else if (stmt->relation->relpersistence == RELPERSISTENCE_UNLOGGED)
		refuse_unkept(linitial(stmt->inhRelations), "unlogged");
}

/* A table that becomes a partition, with those of its own. */
void
ddl_durable_attach(RangeVar *parent, RangeVar *child)
{
	Oid			relid = RangeVarGetRelid(child, NoLock, true);
	ListCell   *lc;

	if (!OidIsValid(relid))
		return;
	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		Oid			member = lfirst_oid(lc);

		if (get_rel_relkind(member) == RELKIND_FOREIGN_TABLE)
			refuse_unkept(parent, "foreign tables");
		if (get_rel_persistence(member) == RELPERSISTENCE_UNLOGGED)
			refuse_unkept(parent, "unlogged");
	}
}

/* ALTER TABLE ... SET UNLOGGED. */
void
ddl_durable_set_unlogged(RangeVar *rv)
{
	refuse_unkept(rv, "unlogged");
}
