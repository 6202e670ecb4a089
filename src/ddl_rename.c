/*-------------------------------------------------------------------------
 *
 * ddl_rename.c
 *	  Keeping the texts in the catalog right when something is renamed.
 *
 * The catalog holds queries and filters as text, which survives dumps and
 * new versions.  A view holds its query as a tree of oids and attribute
 * numbers, which survives renames.  To have both, the texts are analyzed
 * into trees before a rename, and deparsed again after it: whatever was
 * renamed or moved (relation, column, function, type, value of an enum,
 * schema), the new text has its new name.
 *
 * Everybody renames things, so this must not be in the way.  Which texts can
 * hold what is renamed is found by its name, with its schema, as queries are
 * stored with every name qualified; that look takes no lock that stays.  Only
 * the texts found are locked, in the order of their numbers, before they are
 * read and analyzed: so two renames that concern one of them follow each
 * other.  That lock is in the way of other renames alone, and stays to the
 * commit where the text changes.  Locks of the analysis are let go of at once.
 *
 * A definition made meanwhile by somebody else has not been seen by the look.
 * It is taken again after the rename, when whoever made it has committed or
 * waits: one that is found then fails the rename, to be tried again.
 *
 * A text that cannot be analyzed belongs to a definition that is broken
 * already; it is left alone, and does not keep anybody from renaming things,
 * which may be the very repair.  Only an error of the definition says so:
 * with any other (a lock not got in time, no memory, a right that the owner
 * has lost) the rename fails, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parse_func.h"
#include "parser/parse_oper.h"
#include "parser/parse_type.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/formatting.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "api.h"
#include "catalog_spi.h"
#include "ddl_rename.h"
#include "errors.h"
#include "objects.h"
#include "source_filter.h"
#include "worker.h"

/*
 * The sub-object that lock_text() locks; 0 is catalog_lock_stream()'s, and
 * 1 a slot's (worker_ingest.c).
 */
#define RENAME_LOCK 2

/*
 * What is renamed, as texts have it.  A query can hold it only if it holds
 * both needles; NULL: every text does.
 */
typedef struct Renamed
{
	char	   *needle;
	char	   *relation;		/* qualified name of a column's relation */
	char	   *name;			/* bare, for filters: these are stored as they
								 * were written; NULL: any */
	Oid			relid;			/* relation, or that of a column */
	bool		is_relation;	/* relid itself is, or a column of it */
} Renamed;

typedef struct StoredQuery
{
	int32		id;
	LOCKTAG		lock;
	StreamDef  *def;
	StreamPlan *plan;
	StreamOptions options;
	char	   *text;			/* deparsed after the rename */
	List	   *objects;		/* as they are called after the rename */
} StoredQuery;

typedef struct StoredFilter
{
	int32		id;
	LOCKTAG		lock;
	SourceDef  *def;
	Node	   *expr;
	char	   *text;			/* deparsed before the rename */
} StoredFilter;

/* Numbers of definitions whose texts may hold what is renamed. */
typedef struct Concerned
{
	const Renamed *what;
	List	   *streams;		/* of int */
	List	   *sources;
} Concerned;

struct StoredTexts
{
	Renamed		what;
	Concerned	concerned;		/* before the rename */
	List	   *queries;		/* of StoredQuery * */
	List	   *filters;		/* of StoredFilter * */
};

void
ddl_peek(void (*fn) (void *arg), void *arg)
{
	ErrorData  *error = error_guard(fn, arg, true);

	if (error)
		ReThrowError(error);
}

/*
 * What is renamed
 */

/* A name in texts; false: it is of this session only, in no text. */
static bool
name_thing(Renamed *what, Oid nsp, const char *name, const char *format)
{
	if (isAnyTempNamespace(nsp) || name == NULL)
		return false;
	what->name = pstrdup(name);
	if (nsp == PG_CATALOG_NAMESPACE)
		what->needle = pstrdup(format ? name : quote_identifier(name));
	else
		what->needle = psprintf(format ? format : "%s.%s",
								quote_identifier(get_namespace_name(nsp)),
								format ? name : quote_identifier(name));
	return true;
}

/*
 * Is there anything whose type, or part of it, is this row type or an array
 * of it?  Then a column or attribute may be in a text without its relation.
 */
static bool
type_is_used(Oid type)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	Oid			types[] = {type, get_array_type(type)};
	bool		used = false;

	for (int i = 0; i < lengthof(types); i++)
	{
		ScanKeyData key[2];
		SysScanDesc scan;
		HeapTuple	tuple;

		if (!OidIsValid(types[i]))
			continue;
		ScanKeyInit(&key[0], Anum_pg_depend_refclassid,
					BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(TypeRelationId));
		ScanKeyInit(&key[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber,
					F_OIDEQ, ObjectIdGetDatum(types[i]));
		scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL,
								  2, key);
		while (!used && HeapTupleIsValid(tuple = systable_getnext(scan)))
		{
			Form_pg_depend d = (Form_pg_depend) GETSTRUCT(tuple);

			/* but for the array type and, of a type, its relation */
			used = d->classid != TypeRelationId &&
				!(d->classid == RelationRelationId &&
				  d->deptype == DEPENDENCY_INTERNAL);
		}
		systable_endscan(scan);
	}
	table_close(depend, AccessShareLock);
	return used;
}

/* A relation, or (column) one of its columns or attributes. */
static bool
name_relation(Renamed *what, RangeVar *rv, const char *column)
{
	Oid			relid = rv ? RangeVarGetRelid(rv, NoLock, true) : InvalidOid;
	bool		used;

	if (!OidIsValid(relid) || get_rel_name(relid) == NULL ||
		get_rel_persistence(relid) == RELPERSISTENCE_TEMP)
		return false;
	what->relid = relid;
	if (column == NULL)
		return name_thing(what, get_rel_namespace(relid), get_rel_name(relid),
						  NULL);

	used = type_is_used(get_rel_type_id(relid));
	if (!used && get_rel_relkind(relid) == RELKIND_COMPOSITE_TYPE)
		return false;
	what->name = pstrdup(column);
	what->needle = pstrdup(quote_identifier(column));

	/* children get the new name as well */
	if (!used && !has_subclass(relid))
		what->relation =
			quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									   get_rel_name(relid));
	return true;
}

static bool
name_function(Renamed *what, ObjectType type, Node *object)
{
	Oid			oid = LookupFuncWithArgs(type, castNode(ObjectWithArgs, object),
										 true);

	return OidIsValid(oid) &&
		name_thing(what, get_func_namespace(oid), get_func_name(oid), NULL);
}

static bool
name_operator(Renamed *what, Node *object)
{
	Oid			oid = LookupOperWithArgs(castNode(ObjectWithArgs, object), true);
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(oid));
	bool		found;

	if (!HeapTupleIsValid(tuple))
		return false;
	found = name_thing(what,
					   ((Form_pg_operator) GETSTRUCT(tuple))->oprnamespace,
					   NameStr(((Form_pg_operator) GETSTRUCT(tuple))->oprname),
					   "%s.%s");
	ReleaseSysCache(tuple);
	return found;
}

static bool
name_type(Renamed *what, List *names)
{
	Type		tuple = LookupTypeName(NULL, makeTypeNameFromNameList(names),
									   NULL, true);
	bool		found;

	if (!HeapTupleIsValid(tuple))
		return false;
	found = name_thing(what, ((Form_pg_type) GETSTRUCT(tuple))->typnamespace,
					   NameStr(((Form_pg_type) GETSTRUCT(tuple))->typname),
					   NULL);
	ReleaseSysCache(tuple);
	return found;
}

/* By its last name: there are few of its kind. */
static bool
name_by_list(Renamed *what, Node *object)
{
	what->name = strVal(llast(castNode(List, object)));
	what->needle = pstrdup(quote_identifier(what->name));
	return true;
}

/* False: it can be in no text. */
static bool
name_object(Renamed *what, ObjectType type, RangeVar *relation, Node *object,
			const char *subname)
{
	switch (type)
	{
		case OBJECT_TABLE:
		case OBJECT_FOREIGN_TABLE:
		case OBJECT_VIEW:
		case OBJECT_MATVIEW:
		case OBJECT_SEQUENCE:
		case OBJECT_INDEX:		/* RENAME takes any relation for it */
			return name_relation(what, relation, NULL);
		case OBJECT_COLUMN:
		case OBJECT_ATTRIBUTE:
			return name_relation(what, relation, subname);
		case OBJECT_AGGREGATE:
		case OBJECT_FUNCTION:
		case OBJECT_PROCEDURE:
		case OBJECT_ROUTINE:
			return name_function(what, type, object);
		case OBJECT_OPERATOR:
			return name_operator(what, object);
		case OBJECT_TYPE:
		case OBJECT_DOMAIN:
			return name_type(what, castNode(List, object));
		case OBJECT_COLLATION:
		case OBJECT_TSCONFIGURATION:
		case OBJECT_TSDICTIONARY:
			return name_by_list(what, object);
		case OBJECT_SCHEMA:
			what->name = pstrdup(subname);
			what->needle = psprintf("%s.", quote_identifier(subname));
			return true;
		case OBJECT_ROLE:		/* a constant of type regrole, say */
			what->name = pstrdup(subname);
			what->needle = pstrdup(quote_identifier(subname));
			return true;
		case OBJECT_EXTENSION:	/* SET SCHEMA moves its members */
			return true;
		default:
			return false;
	}
}

static bool
name_renamed(Renamed *what, Node *stmt)
{
	if (IsA(stmt, RenameStmt))
	{
		RenameStmt *rename = (RenameStmt *) stmt;

		return name_object(what, rename->renameType, rename->relation,
						   rename->object, rename->subname);
	}
	if (IsA(stmt, AlterObjectSchemaStmt))
	{
		AlterObjectSchemaStmt *move = (AlterObjectSchemaStmt *) stmt;

		return name_object(what, move->objectType, move->relation,
						   move->object, NULL);
	}
	return ((AlterEnumStmt *) stmt)->oldVal != NULL &&
		name_type(what, ((AlterEnumStmt *) stmt)->typeName);
}

/*
 * Whom it concerns
 */

/*
 * May a filter hold it?  It is stored as it was written, in any case of
 * letters, and an escaped name in any form.
 */
static bool
filter_may_hold(const Renamed *what, Oid source, const char *filter)
{
	char	   *lower;

	if (what->name == NULL || what->relid == source)
		return true;
	if (strstr(filter, "&\"") || strstr(filter, "\"\""))
		return true;
	lower = asc_tolower(filter, strlen(filter));
	return strstr(lower, asc_tolower(what->name, strlen(what->name))) != NULL;
}

static void
find_concerned(void *arg)
{
	Concerned  *concerned = arg;
	const Renamed *what = concerned->what;
	CatalogAccess access;
	CatalogRow	row;
	CatalogArg	needles[] = {
		CATALOG_TEXT(what->needle), CATALOG_TEXT(what->relation)
	};
	MemoryContext old;
	uint64		n;

	concerned->streams = concerned->sources = NIL;
	catalog_begin(&access);
	n = catalog_execute("SELECT stream_id FROM weir_internal.stream"
						" WHERE ($1 IS NULL OR strpos(query, $1) > 0"
						"   OR EXISTS (SELECT FROM unnest(objects) o"
						"	 WHERE strpos(o, $1) > 0))"
						" AND ($2 IS NULL OR strpos(query, $2) > 0)"
						" ORDER BY 1", lengthof(needles), needles);
	for (uint64 i = 0; i < n; i++)
	{
		int32		id;

		catalog_row_begin(&row, &access, i);
		id = catalog_next_int4(&row);
		old = MemoryContextSwitchTo(access.caller);
		concerned->streams = lappend_int(concerned->streams, id);
		MemoryContextSwitchTo(old);
	}
	n = catalog_execute("SELECT source_id, relation::oid,"
						"  concat_ws(' ', filter, array_to_string(objects, ' '))"
						" FROM weir_internal.source WHERE filter IS NOT NULL"
						" ORDER BY 1", 0, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		int32		id;
		Oid			relid;

		catalog_row_begin(&row, &access, i);
		id = catalog_next_int4(&row);
		relid = catalog_next_oid(&row);
		if (!filter_may_hold(what, relid, catalog_next_text(&row)))
			continue;
		old = MemoryContextSwitchTo(access.caller);
		concerned->sources = lappend_int(concerned->sources, id);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&access);
}

/*
 * Renames that may concern a definition follow each other: the text that one
 * of them has read must be the one that it writes anew.  It is a lock of
 * renames alone, since the look goes by names, and by far not all that it
 * finds is concerned; those are let go of when that is known, long before the
 * commit.
 */
static void
lock_text(LOCKTAG *tag, const char *table, int32 id)
{
	Oid			relid = get_relname_relid(table, catalog_internal_schema());

	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, relid, id, RENAME_LOCK);
	(void) LockAcquire(tag, ExclusiveLock, false, false);
}

/* It stays as it is. */
static void
unlock_text(const LOCKTAG *tag)
{
	(void) LockRelease(tag, ExclusiveLock, false);
}

/*
 * Texts to trees, and back
 */

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
 * Whether it went well; false: the definition is broken.  A right that the
 * owner lacks comes back, and the text must have followed by then: who can
 * grant it is told, all others are let rename what is theirs.
 */
static bool
try_text(void (*fn) (void *arg), void *arg, bool rollback, Oid owner)
{
	ErrorData  *error = error_guard(fn, arg, rollback);

	if (error && error_class(error->sqlerrcode) == ERROR_OF_OUTAGE)
		ReThrowError(error);
	if (error && error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE &&
		has_privs_of_role(GetUserId(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a source or stream of role \"%s\" that may use it cannot be read as its owner: %s",
						GetUserNameFromId(owner, false), error->message),
				 errhint("Grant that right to its owner, or drop the source or stream, before anything is renamed.")));
	return error == NULL;
}

static void
find_query(void *arg)
{
	StoredQuery *stored = arg;

	stored->def = catalog_stream_by_id(stored->id, true);
}

static void
find_filter(void *arg)
{
	StoredFilter *stored = arg;

	stored->def = catalog_source_by_id(stored->id, true);
}

/* It may be gone by now. */
static void
read_query(StoredTexts *texts, int32 id)
{
	StoredQuery *stored = palloc0(sizeof(StoredQuery));

	stored->id = id;
	lock_text(&stored->lock, "stream", id);
	ddl_peek(find_query, stored);
	if (stored->def && try_text(analyze_query, stored, true, stored->def->owner))
		texts->queries = lappend(texts->queries, stored);
	else
		unlock_text(&stored->lock);
}

static void
read_filter(StoredTexts *texts, int32 id)
{
	StoredFilter *stored = palloc0(sizeof(StoredFilter));

	stored->id = id;
	lock_text(&stored->lock, "source", id);
	ddl_peek(find_filter, stored);
	if (stored->def && stored->def->filter &&
		try_text(analyze_filter, stored, true, stored->def->owner))
		texts->filters = lappend(texts->filters, stored);
	else
		unlock_text(&stored->lock);
}

StoredTexts *
ddl_rename_begin(Node *stmt)
{
	StoredTexts *texts = palloc0(sizeof(StoredTexts));
	int			nest_level = NewGUCNestLevel();
	bool		nameable;
	ListCell   *lc;

	/* Names are looked up by the session's path, and quoted as in texts. */
	(void) set_config_option("quote_all_identifiers", "off", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	nameable = name_renamed(&texts->what, stmt);
	AtEOXact_GUC(false, nest_level);
	if (!nameable)
		return NULL;
	texts->concerned.what = &texts->what;
	ddl_peek(find_concerned, &texts->concerned);
	foreach(lc, texts->concerned.sources)
		read_filter(texts, lfirst_int(lc));
	foreach(lc, texts->concerned.streams)
		read_query(texts, lfirst_int(lc));
	return texts;
}

/* Store a text that differs, and say whether it does. */
static bool
store_text(const char *sql, int32 id, const char *before, const char *after)
{
	CatalogAccess access;
	CatalogArg	args[] = {CATALOG_INT4(id), CATALOG_TEXT(after)};

	if (strcmp(before, after) == 0)
		return false;
	catalog_begin(&access);
	catalog_execute(sql, lengthof(args), args);
	catalog_end(&access);
	worker_wakeup_at_commit();
	return true;
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
static bool
store_objects(const char *sql, int32 id, List *before, List *after)
{
	CatalogAccess access;
	CatalogArg	args[] = {
		CATALOG_INT4(id),
		{TEXTARRAYOID, catalog_objects_datum(after), false}
	};

	if (same_texts(before, after))
		return false;
	catalog_begin(&access);
	catalog_execute(sql, lengthof(args), args);
	catalog_end(&access);
	worker_wakeup_at_commit();
	return true;
}

/* Has somebody made a definition that the look before did not see? */
static void
refuse_newcomers(const StoredTexts *texts)
{
	Concerned	now = {.what = &texts->what};

	ddl_peek(find_concerned, &now);
	if (list_difference_int(now.streams, texts->concerned.streams) != NIL ||
		list_difference_int(now.sources, texts->concerned.sources) != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a source or stream that may use \"%s\" was made at the same time",
						texts->what.name ? texts->what.name : "the object"),
				 errhint("Try again.")));
}

void
ddl_rename_end(StoredTexts *texts)
{
	ListCell   *lc;

	refuse_newcomers(texts);
	foreach(lc, texts->queries)
	{
		StoredQuery *stored = lfirst(lc);
		bool		changed = false;

		if (try_text(deparse_query, stored, true, stored->def->owner))
			changed = store_text("UPDATE weir_internal.stream SET query = $2"
								 " WHERE stream_id = $1", stored->id,
								 stored->def->query, stored->text);
		if (stored->def->objects_recorded &&
			try_text(list_objects, stored, true, stored->def->owner) &&
			store_objects("UPDATE weir_internal.stream SET objects = $2"
						  " WHERE stream_id = $1", stored->id,
						  stored->def->objects, stored->objects))
			changed = true;
		if (!changed)
			unlock_text(&stored->lock);
	}
	foreach(lc, texts->filters)
	{
		StoredFilter *stored = lfirst(lc);
		bool		changed;

		changed = store_text("UPDATE weir_internal.source SET filter = $2"
							 " WHERE source_id = $1", stored->id, stored->text,
							 source_filter_text(stored->def->relid,
												stored->expr));
		if (stored->def->objects_recorded &&
			store_objects("UPDATE weir_internal.source SET objects = $2"
						  " WHERE source_id = $1", stored->id,
						  stored->def->objects, objects_of(stored->expr)))
			changed = true;
		if (!changed)
			unlock_text(&stored->lock);
	}
}
