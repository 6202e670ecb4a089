/*-------------------------------------------------------------------------
 *
 * stream_refuse_temp.c
 *	  A continuous query must not use what only its session can see.
 *
 * Temporary relations are refused by stream_refuse.c.  Functions, operators,
 * types and collations can be temporary as well: in the catalog they look
 * like any other, and a worker would find them for as long as the session
 * lives.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "stream_internal.h"

static void
refuse(const char *what, const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("a continuous query cannot use temporary %s \"%s\"", what,
					name),
			 errhint("Make it in an ordinary schema: the query runs in another session.")));
}

static bool
refuse_function(Oid funcid, void *context)
{
	if (isAnyTempNamespace(get_func_namespace(funcid)))
		refuse("function", get_func_name(funcid));
	return false;
}

static void
refuse_type(Oid type)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));

	if (!HeapTupleIsValid(tuple))
		return;
	if (isAnyTempNamespace(((Form_pg_type) GETSTRUCT(tuple))->typnamespace))
		refuse("type", format_type_be(type));
	ReleaseSysCache(tuple);
}

static void
refuse_operator(Oid op)
{
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(op));

	if (!HeapTupleIsValid(tuple))
		return;
	if (isAnyTempNamespace(((Form_pg_operator) GETSTRUCT(tuple))->oprnamespace))
		refuse("operator", get_opname(op));
	ReleaseSysCache(tuple);
}

static void
refuse_collation(Oid collation)
{
	HeapTuple	tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(collation));

	if (!HeapTupleIsValid(tuple))
		return;
	if (isAnyTempNamespace(((Form_pg_collation) GETSTRUCT(tuple))->collnamespace))
		refuse("collation", get_collation_name(collation));
	ReleaseSysCache(tuple);
}

static void
refuse_in_node(Node *node)
{
	switch (nodeTag(node))
	{
		case T_Const:
		case T_Var:
		case T_Param:
		case T_FuncExpr:
		case T_Aggref:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_ConvertRowtypeExpr:
		case T_CoerceToDomain:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_FieldSelect:
			refuse_type(exprType(node));
			break;
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
			refuse_operator(((OpExpr *) node)->opno);
			break;
		case T_ScalarArrayOpExpr:
			refuse_operator(((ScalarArrayOpExpr *) node)->opno);
			break;
		case T_CollateExpr:
			refuse_collation(((CollateExpr *) node)->collOid);
			break;
		default:
			break;
	}
	(void) check_functions_in_node(node, refuse_function, NULL);
}

static bool
temporary_walker(Node *node, void *context)
{
	ListCell   *lc;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
	{
		refuse_in_node(node);
		return expression_tree_walker(node, temporary_walker, context);
	}
	foreach(lc, ((Query *) node)->rtable)
	{
		ListCell   *fc;

		foreach(fc, lfirst_node(RangeTblEntry, lc)->functions)
		{
			ListCell   *tc;

			foreach(tc, lfirst_node(RangeTblFunction, fc)->funccoltypes)
				refuse_type(lfirst_oid(tc));
		}
	}
	return query_tree_walker((Query *) node, temporary_walker, context, 0);
}

void
stream_refuse_temporary(Query *query)
{
	temporary_walker((Node *) query, NULL);
}
