/*-------------------------------------------------------------------------
 *
 * stream_rights.c
 *	  What of a segment a stream's owner may read: as much as of the source.
 *
 * The statements run as the owner and read a segment's view instead of the
 * source, so the view must be granted to the owner, and no more of it than
 * the source is.  Who may SELECT the source gets SELECT on the view.  Who may
 * read some of its columns gets those, and the statements read NULL in place
 * of the others; a query that uses one of the others fails, as it would on
 * the source itself.
 *
 * Granting is done here and nowhere else, one at a time, in a transaction of
 * its own: a batch that is held up must not hold the lock.  What a role had
 * and needs no longer is taken back by the manager (ingest_segment.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "catalog_spi.h"
#include "stream_batch.h"
#include "stream_execute.h"

/* Kafka's columns that say where a row stands, and nothing of it. */
static bool
is_position(const char *name)
{
	return strcmp(name, "kafka_topic") == 0 ||
		strcmp(name, "kafka_partition") == 0 ||
		strcmp(name, "kafka_offset") == 0 ||
		strcmp(name, "kafka_timestamp") == 0;
}

/*
 * The columns of the source that the owner may read: as a list for GRANT,
 * and as a list of expressions over the view, all columns, with NULL for the
 * others.
 */
static void
readable_columns(const StreamWorker *w, char **granted, char **selected)
{
	Relation	rel = table_open(w->def->source_relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	StringInfoData g;
	StringInfoData s;

	initStringInfo(&g);
	initStringInfo(&s);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		const char *name = quote_identifier(NameStr(att->attname));

		if (att->attisdropped)
			continue;
		if (is_position(NameStr(att->attname)) ||
			pg_attribute_aclcheck(RelationGetRelid(rel), att->attnum,
								  w->def->owner, ACL_SELECT) == ACLCHECK_OK)
		{
			appendStringInfo(&g, "%s, ", name);
			appendStringInfo(&s, "%s, ", name);
		}
		else
			appendStringInfo(&s, "NULL::%s AS %s, ",
							 format_type_extended(att->atttypid,
												  att->atttypmod,
												  FORMAT_TYPE_TYPEMOD_GIVEN |
												  FORMAT_TYPE_FORCE_QUALIFY),
							 name);
	}
	appendStringInfoString(&g, SEGMENT_TID);
	appendStringInfoString(&s, SEGMENT_TID);
	table_close(rel, AccessShareLock);
	*granted = g.data;
	*selected = s.data;
}

static bool
reads_all(const StreamWorker *w)
{
	return pg_class_aclcheck(w->def->source_relid, w->def->owner,
							 ACL_SELECT) == ACLCHECK_OK;
}

char *
rights_qualified_name(Oid relid)
{
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation %u does not exist", relid)));
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  name);
}

/* What stands for the segment in the statements: its view, or part of it. */
char *
rights_segment_text(const StreamWorker *w, Oid viewid)
{
	if (w->readable == NULL)
		return rights_qualified_name(viewid);
	return psprintf("(SELECT %s FROM %s)", w->readable,
					rights_qualified_name(viewid));
}

/* Grant the view or the columns; takes a right to all of it back. */
static void
grant_view(const StreamWorker *w, Oid viewid, const char *columns)
{
	CatalogAccess access;
	const char *view = rights_qualified_name(viewid);
	const char *owner = quote_identifier(GetUserNameFromId(w->def->owner,
														   false));

	catalog_begin(&access);
	if (columns == NULL)
		catalog_define(psprintf("GRANT SELECT ON %s TO %s", view, owner));
	else
	{
		catalog_define(psprintf("REVOKE ALL ON %s FROM %s", view, owner));
		catalog_define(psprintf("GRANT SELECT (%s) ON %s TO %s", columns,
								view, owner));
	}
	catalog_end(&access);
}

/*
 * Does the query use only what the owner may read?  Planning it over the
 * source tells, with the error that a SELECT would give.
 */
static void
check_query(const StreamWorker *w)
{
	statement_check(w->def->query, w->def->owner, &w->def->settings,
					w->plan->objects);
}

/*
 * Are the rights what the statements were made for?  In a transaction;
 * *granted are the columns to grant, NULL for all.
 */
static bool
rights_same(const StreamWorker *w, char **granted, char **selected)
{
	*granted = *selected = NULL;
	if (!reads_all(w))
		readable_columns(w, granted, selected);
	return (*selected == NULL) == (w->readable == NULL) &&
		(*selected == NULL || strcmp(*selected, w->readable) == 0);
}

/*
 * In a batch's transaction: false says that the owner's rights on the source
 * have changed, and that the batch has to be begun anew.
 */
bool
rights_check(StreamWorker *w)
{
	char	   *granted;
	char	   *selected;

	w->rights_stale = !rights_same(w, &granted, &selected);
	return !w->rights_stale;
}

/* Make the statements anew when the owner's rights have changed. */
static void
look_at_rights(StreamWorker *w, char **granted)
{
	char	   *selected;

	if (rights_same(w, granted, &selected))
		return;
	step_forget(w);
	if (selected)
		check_query(w);
	if (w->readable)
		pfree(w->readable);
	w->readable = selected ? MemoryContextStrdup(w->cxt, selected) : NULL;
}

/*
 * Before a batch: the owner may read as much of the batch's segment as of the
 * source.  known says that this has been seen to.
 */
void
rights_prepare(StreamWorker *w, const StreamBatch *batch, bool known)
{
	Oid			viewid = batch->viewid;
	Oid			owner = w->def->owner;
	char	   *columns;

	if (known && !w->rights_stale)
		return;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	look_at_rights(w, &columns);
	w->rights_stale = false;
	if (OidIsValid(viewid) &&
		SearchSysCacheExists1(RELOID, ObjectIdGetDatum(viewid)) &&
		(columns != NULL ||
		 pg_class_aclcheck(viewid, owner, ACL_SELECT) != ACLCHECK_OK))
	{
		LockRelationOid(viewid, ShareUpdateExclusiveLock);
		AcceptInvalidationMessages();
		grant_view(w, viewid, columns);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(w->batch_cxt);
}
