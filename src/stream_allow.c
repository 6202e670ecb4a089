/*-------------------------------------------------------------------------
 *
 * stream_allow.c
 *	  All that a continuous query may be made of.
 *
 * stream_refuse.c says what is known not to work, with the reason.  Here it
 * is the other way around: kinds of nodes, of range-table entries, of
 * sub-selects and of relations are known to work (and tested), or they are
 * refused, whatever PostgreSQL's next version brings.  So what is accepted
 * never fails a stream at its first record.
 *
 * A sub-select reads tables only, and stays as it is: clauses that are
 * refused in the query itself are allowed there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "utils/lsyscache.h"

#include "stream_internal.h"

/* What a user would call it. */
static const char *
construct_name(Node *node)
{
	switch (nodeTag(node))
	{
		case T_GroupingFunc:
			return "GROUPING";
		case T_Param:
			return "a parameter";
		case T_CurrentOfExpr:
			return "WHERE CURRENT OF";
		case T_SetToDefault:
			return "DEFAULT";
		case T_NextValueExpr:
			return "a value of a sequence";
		case T_WindowFunc:
			return "a window function (OVER)";
		case T_SubLink:
			return "a sub-select of this kind";
		case T_TableFunc:
			return "a table function other than XMLTABLE";
#if PG_VERSION_NUM >= 160000
		case T_JsonConstructorExpr:
		case T_JsonValueExpr:
			return "a JSON constructor of SQL";
		case T_JsonIsPredicate:
			return "IS JSON";
#endif
#if PG_VERSION_NUM >= 170000
		case T_JsonExpr:
			return "JSON_EXISTS, JSON_QUERY or JSON_VALUE";
		case T_MergeSupportFunc:
			return "MERGE_ACTION";
#endif
		default:
			return psprintf("an expression of node type %d",
							(int) nodeTag(node));
	}
}

static void
refuse(const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s in a continuous query is not supported in this release",
					what),
			 errhint("%s", hint)));
}

#define HINT_FUNCTION \
	"Put it into a view over tables, or into a function, and use that."

/* Sub-selects: what they do beside reading. */
static void
check_query(const Query *query)
{
	if (query->commandType != CMD_SELECT || query->utilityStmt != NULL ||
		query->resultRelation != 0 || query->hasModifyingCTE ||
		query->mergeActionList != NIL || query->onConflict != NULL ||
		query->returningList != NIL || query->withCheckOptions != NIL ||
		query->isReturn)
		refuse("anything but SELECT", "A continuous query must not modify data.");
	if (query->rowMarks != NIL || query->hasForUpdate)
		refuse("FOR UPDATE or FOR SHARE", "Leave the clause out.");
}

static void
check_relation(const RangeTblEntry *rte)
{
	switch (rte->relkind)
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
		case RELKIND_VIEW:
		case RELKIND_MATVIEW:
		case RELKIND_FOREIGN_TABLE:
			break;
		default:
			refuse(psprintf("reading \"%s\", which is no table or view,",
							get_rel_name(rte->relid)),
				   "Read tables and views.");
	}
	if (rte->tablesample != NULL)
		refuse("TABLESAMPLE",
			   "Its rows would differ each time they are read: use a condition in WHERE.");
}

static void
check_entry(const RangeTblEntry *rte)
{
	switch (rte->rtekind)
	{
		case RTE_RELATION:
			check_relation(rte);
			break;
		case RTE_SUBQUERY:
		case RTE_JOIN:
		case RTE_FUNCTION:
		case RTE_TABLEFUNC:
		case RTE_VALUES:
		case RTE_CTE:
			break;
		default:
			refuse(psprintf("an entry of FROM of kind %d", (int) rte->rtekind),
				   HINT_FUNCTION);
	}
}

static bool
is_allowed(Node *node, int depth)
{
	switch (nodeTag(node))
	{
			/* clauses */
		case T_List:
		case T_TargetEntry:
		case T_RangeTblRef:
		case T_RangeTblFunction:
		case T_FromExpr:
		case T_JoinExpr:
		case T_CommonTableExpr:
		case T_SetOperationStmt:
		case T_SortGroupClause:
			/* expressions */
		case T_Var:
		case T_Const:
		case T_Aggref:
		case T_SubscriptingRef:
		case T_FuncExpr:
		case T_NamedArgExpr:
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
		case T_ScalarArrayOpExpr:
		case T_BoolExpr:
		case T_FieldSelect:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_ConvertRowtypeExpr:
		case T_CollateExpr:
		case T_CaseExpr:
		case T_CaseWhen:
		case T_CaseTestExpr:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_RowCompareExpr:
		case T_CoalesceExpr:
		case T_MinMaxExpr:
		case T_SQLValueFunction:
		case T_XmlExpr:
		case T_NullTest:
		case T_BooleanTest:
		case T_CoerceToDomain:
			return true;
		case T_WindowFunc:
			return depth > 0;
		case T_GroupingFunc:
			return (int) ((GroupingFunc *) node)->agglevelsup < depth;
		case T_Param:
			return ((Param *) node)->paramkind == PARAM_SUBLINK;
		case T_SubLink:
			return ((SubLink *) node)->subLinkType != MULTIEXPR_SUBLINK &&
				((SubLink *) node)->subLinkType != CTE_SUBLINK;
		case T_TableFunc:
#if PG_VERSION_NUM >= 170000
			return ((TableFunc *) node)->functype == TFT_XMLTABLE;
#else
			return true;
#endif
		default:
			return false;
	}
}

static bool
allow_walker(Node *node, int *depth)
{
	if (node == NULL)
		return false;
	check_stack_depth();
	if (IsA(node, Query))
	{
		bool		result;

		check_query((Query *) node);
		(*depth)++;
		result = query_tree_walker((Query *) node, allow_walker, depth,
								   QTW_EXAMINE_RTES_BEFORE);
		(*depth)--;
		return result;
	}
	if (IsA(node, RangeTblEntry))
	{
		check_entry((RangeTblEntry *) node);
		return false;			/* its parts are walked by the caller */
	}
	if (!is_allowed(node, *depth))
		refuse(construct_name(node), IsA(node, GroupingFunc) ?
			   "Leave it out: without grouping sets it is always 0." :
			   HINT_FUNCTION);
	return expression_tree_walker(node, allow_walker, depth);
}

static bool
parameter_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, ParamRef))
		refuse(psprintf("a parameter ($%d)", ((ParamRef *) node)->number),
			   "Write the value itself.");
	return raw_expression_tree_walker(node, parameter_walker, context);
}

/* In the raw tree: the analysis would only say that there is none. */
void
stream_refuse_parameters(Node *statement)
{
	(void) parameter_walker(statement, NULL);
}

void
stream_refuse_unknown(Query *query)
{
	int			depth = -1;

	(void) allow_walker((Node *) query, &depth);
}
