/*-------------------------------------------------------------------------
 *
 * stream_rights.c
 *	  What of a segment a stream's owner may read: as much as of the source.
 *
 * The statements run as the owner and read a segment's view instead of the
 * source.  Nobody is granted anything on a segment: that would have to be
 * taken back, and would be in a dump, which knows no segments.  The reference
 * to the view is checked as weir's own (stream_execute.c), and what may be
 * read of it is decided here, by the owner's rights on the source.  Who may
 * read some of its columns reads NULL in place of the others; a query that
 * uses one of the others fails, as it would on the source itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

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
 * The columns of the source that the owner may read: a list of expressions
 * over the view, all columns, with NULL for the others.
 */
static char *
readable_columns(const StreamWorker *w)
{
	Relation	rel = table_open(w->def->source_relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	StringInfoData s;

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
			appendStringInfo(&s, "%s, ", name);
		else
			appendStringInfo(&s, "NULL::%s AS %s, ",
							 format_type_extended(att->atttypid,
												  att->atttypmod,
												  FORMAT_TYPE_TYPEMOD_GIVEN |
												  FORMAT_TYPE_FORCE_QUALIFY),
							 name);
	}
	appendStringInfoString(&s, SEGMENT_TID);
	table_close(rel, AccessShareLock);
	return s.data;
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
 * *selected is what they may read, NULL for all.
 */
static bool
rights_same(const StreamWorker *w, char **selected)
{
	*selected = reads_all(w) ? NULL : readable_columns(w);
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
	char	   *selected;

	w->rights_stale = !rights_same(w, &selected);
	return !w->rights_stale;
}

/*
 * Before a batch, in a transaction of its own: make the statements anew when
 * the owner's rights have changed.
 */
void
rights_prepare(StreamWorker *w)
{
	char	   *selected;

	if (!w->rights_stale)
		return;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(w->batch_cxt);
	if (!rights_same(w, &selected))
	{
		step_forget(w);
		if (selected)
			check_query(w);
		if (w->readable)
			pfree(w->readable);
		w->readable = selected ? MemoryContextStrdup(w->cxt, selected) : NULL;
	}
	w->rights_stale = false;
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(w->batch_cxt);
}
