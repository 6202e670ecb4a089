/*-------------------------------------------------------------------------
 *
 * objects.c
 *	  What the analysis of a text has found that is not PostgreSQL's own.
 *
 * Queries and filters are kept as text, which survives dumps and new
 * versions, and are analyzed again by each worker.  A text pins nearly all
 * that it means: names are qualified, and implicit casts are written out, so
 * that the types of all arguments are exact.  What it cannot pin is which of
 * several functions of one name and schema is meant where none fits exactly
 * (polymorphic and variadic ones, defaults of arguments), and which cast
 * leads from one type to another.  Something created later may fit better.
 *
 * So what the analysis has found is recorded with the text, and every later
 * analysis must find nothing else: a function that was not meant is never
 * called, and the stream fails with the reason.  Recorded are descriptions,
 * not numbers: pg_upgrade takes no regprocedure in a table.
 *
 * What is in pg_catalog or belongs to weir is left out.  Only a superuser
 * can add to it, and between versions of PostgreSQL it changes without
 * anything changing its meaning.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_operator.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "objects.h"

/* Nobody but a superuser can put something there. */
static bool
trusted_schema(Oid namespace)
{
	return namespace == PG_CATALOG_NAMESPACE ||
		namespace == get_namespace_oid(WEIR_SCHEMA, true) ||
		namespace == get_namespace_oid(WEIR_INTERNAL_SCHEMA, true);
}

static int
compare_texts(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

static bool
is_member(const List *objects, const char *object)
{
	ListCell   *lc;

	foreach(lc, objects)
	{
		if (strcmp(lfirst(lc), object) == 0)
			return true;
	}
	return false;
}

static void
add(List **objects, const char *object)
{
	if (!is_member(*objects, object))
		*objects = lappend(*objects, unconstify(char *, object));
}

typedef struct ObjectsContext
{
	List	   *objects;
	bool		conversions;	/* those without a function, too */
} ObjectsContext;

static void
add_function(List **objects, Oid function)
{
	if (!trusted_schema(get_func_namespace(function)))
		add(objects, psprintf("function %s",
							  format_procedure_qualified(function)));
}

static void
add_operator(List **objects, Oid operator)
{
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Oid			namespace;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	namespace = ((Form_pg_operator) GETSTRUCT(tuple))->oprnamespace;
	ReleaseSysCache(tuple);
	if (!trusted_schema(namespace))
		add(objects, psprintf("operator %s",
							  format_operator_qualified(operator)));
}

/* A conversion without a function of its own. */
static void
add_conversion(ObjectsContext *context, const char *how, Node *arg,
			   Node *node)
{
	Oid			from = exprType(arg);
	Oid			to = exprType(node);

	if (context->conversions &&
		(from >= FirstNormalObjectId || to >= FirstNormalObjectId))
		add(&context->objects,
			psprintf("conversion %s from %s to %s", how,
					 format_type_be_qualified(from),
					 format_type_be_qualified(to)));
}

static bool
objects_walker(Node *node, ObjectsContext *context)
{
	List	  **objects = &context->objects;
	ListCell   *lc;

	if (node == NULL)
		return false;
	check_stack_depth();
	switch (nodeTag(node))
	{
		case T_Query:
			return query_tree_walker((Query *) node, objects_walker, context,
									 0);
		case T_FuncExpr:
			add_function(objects, ((FuncExpr *) node)->funcid);
			break;
		case T_Aggref:
			add_function(objects, ((Aggref *) node)->aggfnoid);
			break;
		case T_WindowFunc:
			add_function(objects, ((WindowFunc *) node)->winfnoid);
			break;
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:		/* all three are OpExpr */
			add_operator(objects, ((OpExpr *) node)->opno);
			break;
		case T_ScalarArrayOpExpr:
			add_operator(objects, ((ScalarArrayOpExpr *) node)->opno);
			break;
		case T_RowCompareExpr:
			foreach(lc, ((RowCompareExpr *) node)->opnos)
				add_operator(objects, lfirst_oid(lc));
			break;
		case T_CoerceViaIO:
			add_conversion(context, "by text",
						   (Node *) ((CoerceViaIO *) node)->arg, node);
			break;
		case T_RelabelType:
			add_conversion(context, "without a change",
						   (Node *) ((RelabelType *) node)->arg, node);
			break;
		case T_ConvertRowtypeExpr:
			add_conversion(context, "of rows",
						   (Node *) ((ConvertRowtypeExpr *) node)->arg, node);
			break;
		default:
			break;
	}
	return expression_tree_walker(node, objects_walker, context);
}

/* The same descriptions whatever the session's settings are. */
static List *
describe(Node *node, ObjectsContext *context)
{
	int			nest_level = catalog_enter_neutral();

	(void) objects_walker(node, context);
	catalog_leave_neutral(nest_level);
	list_sort(context->objects, compare_texts);
	return context->objects;
}

List *
objects_of(Node *node)
{
	ObjectsContext context = {NIL, true};

	return describe(node, &context);
}

List *
objects_add_called(List *objects, Query *query)
{
	ObjectsContext context = {objects, false};

	return query != NULL ? describe((Node *) query, &context) : objects;
}

const char *
objects_unknown(const List *objects, const List *known)
{
	ListCell   *lc;

	foreach(lc, objects)
	{
		if (!is_member(known, lfirst(lc)))
			return lfirst(lc);
	}
	return NULL;
}

const char *
objects_difference(const List *meant, const List *read)
{
	const char *differs = objects_unknown(meant, read);

	if (differs != NULL)
		return psprintf("Read again with all names qualified, it would not use %s.",
						differs);
	differs = objects_unknown(read, meant);
	if (differs != NULL)
		return psprintf("Read again with all names qualified, it would use %s.",
						differs);
	return NULL;
}

void
objects_check(const List *objects, const List *recorded, const char *what)
{
	const char *unknown = objects_unknown(objects, recorded);

	if (unknown != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s would not mean what it meant when it was made",
						what),
				 errdetail("It would now use %s, which was created, or came to fit better, since then.",
						   unknown),
				 errhint("Drop or rename what was created since; or make it anew.")));
}
