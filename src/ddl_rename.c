/*-------------------------------------------------------------------------
 *
 * ddl_rename.c
 *	  Keeping the texts in the catalog right when something is renamed.
 *
 * The catalog holds queries and filters as text, which survives dumps and
 * new versions.  A view holds its query as a tree of oids and attribute
 * numbers, which survives renames.  To have both, the texts are analyzed
 * into trees before a rename, and deparsed again after it: whatever was
 * renamed or moved (relation, column, function, type, schema), the new text
 * has its new name.
 *
 * A text that cannot be analyzed belongs to a definition that is broken
 * already; it is left alone, and does not keep anybody from renaming things,
 * which may be the very repair.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "api.h"
#include "catalog_spi.h"
#include "ddl_rename.h"
#include "errors.h"
#include "objects.h"
#include "source_filter.h"
#include "worker.h"

typedef struct StoredQuery
{
	StreamDef  *def;
	StreamPlan *plan;
	StreamOptions options;
	char	   *text;			/* deparsed after the rename */
	List	   *objects;		/* as they are called after the rename */
} StoredQuery;

typedef struct StoredFilter
{
	SourceDef  *def;
	Node	   *expr;
	char	   *text;			/* deparsed before the rename */
} StoredFilter;

struct StoredTexts
{
	List	   *queries;		/* of StoredQuery * */
	List	   *filters;		/* of StoredFilter * */
};

static void
analyze_query(void *arg)
{
	StoredQuery *stored = arg;

	stored->plan = stream_read_stored(stored->def, &stored->options);
}

static void
deparse_query(void *arg)
{
	StoredQuery *stored = arg;

	stored->text = stream_deparse(stored->plan);
}

/* As the owner, who may look into the schemas that the texts name. */
static void
list_objects(void *arg)
{
	StoredQuery *stored = arg;
	UserContext save;

	catalog_enter_user(&save, stored->def->owner, &stored->def->settings);
	stored->objects = stream_objects(stored->plan, &stored->options,
									 stored->def->state, stored->def->target);
	catalog_leave_user(&save);
}

static void
analyze_filter(void *arg)
{
	StoredFilter *stored = arg;
	Relation	rel = table_open(stored->def->relid, AccessShareLock);
	UserContext save;

	catalog_enter_user(&save, stored->def->owner, &stored->def->settings);
	stored->expr = source_filter_read(rel, stored->def);
	stored->text = source_filter_text(stored->def->relid, stored->expr);
	catalog_leave_user(&save);
	table_close(rel, NoLock);
}

/*
 * Can a text hold the name?  Queries are stored with every thing's own name
 * in them, so one that does not hold it need not be analyzed, which would
 * take locks.  A filter is stored as it was written, in any case of letters.
 */
static bool
may_hold(const char *text, const char *name)
{
	return name == NULL || strstr(text, quote_identifier(name)) != NULL;
}

static bool
any_holds(List *texts, const char *name)
{
	ListCell   *lc;

	foreach(lc, texts)
	{
		if (may_hold(lfirst(lc), name))
			return true;
	}
	return false;
}

StoredTexts *
ddl_rename_begin(const char *name)
{
	StoredTexts *texts = palloc0(sizeof(StoredTexts));
	ListCell   *lc;

	foreach(lc, catalog_streams())
	{
		StoredQuery *stored = palloc0(sizeof(StoredQuery));

		stored->def = lfirst(lc);
		if ((may_hold(stored->def->query, name) ||
			 any_holds(stored->def->objects, name)) &&
			error_guard(analyze_query, stored, false) == NULL)
			texts->queries = lappend(texts->queries, stored);
	}
	foreach(lc, catalog_sources())
	{
		StoredFilter *stored = palloc0(sizeof(StoredFilter));

		stored->def = lfirst(lc);
		if (stored->def->filter &&
			error_guard(analyze_filter, stored, false) == NULL)
			texts->filters = lappend(texts->filters, stored);
	}
	return texts;
}

/* Store a text that differs. */
static void
store_text(const char *sql, int32 id, const char *before, const char *after)
{
	CatalogAccess access;
	CatalogArg	args[] = {CATALOG_INT4(id), CATALOG_TEXT(after)};

	if (strcmp(before, after) == 0)
		return;
	catalog_begin(&access);
	catalog_execute(sql, lengthof(args), args);
	catalog_end(&access);
	worker_wakeup_at_commit();
}

static bool
same_texts(const List *a, const List *b)
{
	const ListCell *la;
	const ListCell *lb;

	forboth(la, a, lb, b)
	{
		if (strcmp(lfirst(la), lfirst(lb)) != 0)
			return false;
	}
	return list_length(a) == list_length(b);
}

/* The same of what a text uses. */
static void
store_objects(const char *sql, int32 id, List *before, List *after)
{
	CatalogAccess access;
	CatalogArg	args[] = {
		CATALOG_INT4(id),
		{TEXTARRAYOID, catalog_objects_datum(after), false}
	};

	if (same_texts(before, after))
		return;
	catalog_begin(&access);
	catalog_execute(sql, lengthof(args), args);
	catalog_end(&access);
	worker_wakeup_at_commit();
}

void
ddl_rename_end(StoredTexts *texts)
{
	ListCell   *lc;

	foreach(lc, texts->queries)
	{
		StoredQuery *stored = lfirst(lc);

		if (error_guard(deparse_query, stored, false) == NULL)
			store_text("UPDATE weir_internal.stream SET query = $2"
					   " WHERE stream_id = $1",
					   stored->def->stream_id, stored->def->query,
					   stored->text);
		if (stored->def->objects_recorded &&
			error_guard(list_objects, stored, false) == NULL)
			store_objects("UPDATE weir_internal.stream SET objects = $2"
						  " WHERE stream_id = $1", stored->def->stream_id,
						  stored->def->objects, stored->objects);
	}
	foreach(lc, texts->filters)
	{
		StoredFilter *stored = lfirst(lc);

		store_text("UPDATE weir_internal.source SET filter = $2"
				   " WHERE source_id = $1",
				   stored->def->source_id, stored->text,
				   source_filter_text(stored->def->relid, stored->expr));
		if (stored->def->objects_recorded)
			store_objects("UPDATE weir_internal.source SET objects = $2"
						  " WHERE source_id = $1", stored->def->source_id,
						  stored->def->objects, objects_of(stored->expr));
	}
}
