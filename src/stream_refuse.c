/*-------------------------------------------------------------------------
 *
 * stream_refuse.c
 *	  What a continuous query may not contain.
 *
 * Each function looks at the whole query for one kind of thing that cannot be
 * kept incrementally, and refuses it.  The message says what; a hint is given
 * where something can be done about it now.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "stream_internal.h"

static void
not_in_this_release(bool present, const char *what, const char *hint)
{
	if (!present)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s in a continuous query is not supported in this release",
					what),
			 hint != NULL ? errhint("%s", hint) : 0));
}

/* Clauses of the top level. */
void
stream_refuse_clauses(const Query *query)
{
	if (query->commandType != CMD_SELECT)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a continuous query must be a SELECT")));
	not_in_this_release(query->setOperations != NULL,
						"UNION, INTERSECT or EXCEPT",
						"Make a stream of each part; streams without a key can share a target.");
	not_in_this_release(query->cteList != NIL, "WITH", NULL);
	not_in_this_release(query->hasWindowFuncs, "a window function (OVER)",
						NULL);
	not_in_this_release(query->windowClause != NIL, "WINDOW",
						"Leave it out: no window function uses it.");
	not_in_this_release(query->distinctClause != NIL, "DISTINCT",
						"Use GROUP BY over the output columns.");
	not_in_this_release(query->limitCount != NULL ||
						query->limitOffset != NULL, "LIMIT or OFFSET",
						"Limit the rows in the queries that read the target.");
	not_in_this_release(query->sortClause != NIL, "ORDER BY",
						"Order the rows in the queries that read the target.");
	not_in_this_release(query->groupingSets != NIL,
						"GROUPING SETS, ROLLUP or CUBE",
						"Make a stream of each grouping.");
	if (query->rowMarks != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("FOR UPDATE and FOR SHARE are not supported in a continuous query"),
				 errhint("Leave the clause out.")));
}

/* A running aggregate needs something to tell groups apart by. */
void
stream_refuse_ungrouped(const Query *query)
{
	if (query->groupClause == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("an aggregate without GROUP BY is not supported in a stream in this release"),
				 errhint("Group by the columns that tell the rows of the target apart, for example those of weir.tumble().")));
}

typedef struct HiddenSources
{
	const Query *top;
	int			source_rti;
	StreamSourceTest is_source;
	void	   *arg;
	List	   *relations;		/* dimensions named by the query itself */
	int			views;			/* nesting of views */
} HiddenSources;

static bool hidden_sources_walker(Node *node, HiddenSources *context);

static void
hidden_source_relation(RangeTblEntry *rte, HiddenSources *context)
{
	AttrNumber	attno;

	if (context->is_source(rte->relid, &attno, context->arg))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 context->views > 0 ?
				 errmsg("a continuous query cannot use a view that reads a source") :
				 errmsg("source \"%s\" is read in a sub-select",
						get_rel_name(rte->relid)),
				 errhint("Name the source in the FROM clause of the query itself, once.")));
	if (context->views == 0)
		context->relations = list_append_unique_oid(context->relations,
													rte->relid);
	if (get_rel_persistence(rte->relid) == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a continuous query cannot use temporary table \"%s\"",
						get_rel_name(rte->relid)),
				 errhint("Use an ordinary table: the query runs in another session.")));
	if (rte->relkind == RELKIND_VIEW)
	{
		Relation	view = table_open(rte->relid, AccessShareLock);

		context->views++;
		hidden_sources_walker((Node *) get_view_query(view), context);
		context->views--;
		table_close(view, NoLock);
	}
}

static bool
hidden_sources_walker(Node *node, HiddenSources *context)
{
	if (node == NULL)
		return false;
	check_stack_depth();
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;
		int			rti = 0;
		ListCell   *lc;

		if (query->commandType != CMD_SELECT || query->hasModifyingCTE)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a continuous query must not modify data")));
		foreach(lc, query->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			rti++;
			/* A view's query has entries of the view itself outside FROM. */
			if (rte->rtekind == RTE_RELATION && rte->inFromCl &&
				!(query == context->top && rti == context->source_rti))
				hidden_source_relation(rte, context);
		}
		return query_tree_walker(query, hidden_sources_walker, context, 0);
	}
	return expression_tree_walker(node, hidden_sources_walker, context);
}

/*
 * Refuse reads of a source anywhere but in FROM, also through views, and
 * relations that another session cannot see.  Returns the oids of the other
 * relations that the query names.
 */
List *
stream_refuse_hidden_sources(Query *query, int source_rti,
							 StreamSourceTest is_source, void *arg)
{
	HiddenSources context = {0};

	context.top = query;
	context.source_rti = source_rti;
	context.is_source = is_source;
	context.arg = arg;
	hidden_sources_walker((Node *) query, &context);
	return context.relations;
}

static void
refuse_nullable(bool is_window)
{
	if (is_window)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the window function must not be on the nullable side of an outer join"),
				 errhint("CROSS JOIN it with the source.")));
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the source must not be on the nullable side of an outer join"),
			 errdetail("A row of the other side without a match would have to be taken back when a match arrives."),
			 errhint("Write the source first, then LEFT JOIN the other tables.")));
}

/* Refuse rti on a side of an outer join that may be filled with NULLs. */
static bool
nullable_walker(Node *node, int rti, bool is_window)
{
	bool		left;
	bool		right;
	JoinExpr   *join;
	ListCell   *lc;

	if (IsA(node, RangeTblRef))
		return ((RangeTblRef *) node)->rtindex == rti;
	if (IsA(node, FromExpr))
	{
		bool		found = false;

		foreach(lc, ((FromExpr *) node)->fromlist)
			found |= nullable_walker(lfirst(lc), rti, is_window);
		return found;
	}
	join = castNode(JoinExpr, node);
	left = nullable_walker(join->larg, rti, is_window);
	right = nullable_walker(join->rarg, rti, is_window);
	if ((join->jointype == JOIN_LEFT && right) ||
		(join->jointype == JOIN_RIGHT && (left || right)) ||
		(join->jointype == JOIN_FULL && (left || right)))
		refuse_nullable(is_window);
	return left || right;
}

void
stream_refuse_nullable(Query *query, int rti, bool is_window)
{
	nullable_walker((Node *) query->jointree, rti, is_window);
}

static void
refuse_volatile(Node *node, const char *where)
{
	if (contain_volatile_functions(node))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("volatile functions are not supported in %s of a continuous query",
						where),
				 errdetail("Their results would differ each time the rows are read."),
				 errhint("Use functions that are STABLE or IMMUTABLE, such as now() for the time of the batch.")));
}

static bool
refuse_volatile_aggregates(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref))
	{
		refuse_volatile(node, "an aggregate");
		return false;
	}
	return expression_tree_walker(node, refuse_volatile_aggregates, context);
}

/*
 * Rows may be read several times (probes for culprits, late rows), so what
 * decides which rows there are, and how they are grouped, must not change.
 */
void
stream_refuse_volatile(Query *query, bool aggregated)
{
	ListCell   *lc;

	refuse_volatile((Node *) query->jointree, "WHERE or a join condition");
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		refuse_volatile((Node *) rte->functions, "FROM");
		refuse_volatile((Node *) rte->tablefunc, "FROM");
		refuse_volatile((Node *) rte->values_lists, "FROM");
		if (rte->rtekind == RTE_SUBQUERY)
			refuse_volatile((Node *) rte->subquery, "FROM");
	}
	if (!aggregated)
		return;
	foreach(lc, query->groupClause)
		refuse_volatile(get_sortgroupclause_expr(lfirst(lc),
												 query->targetList),
						"GROUP BY");
	refuse_volatile(query->havingQual, "HAVING");
	refuse_volatile_aggregates((Node *) query->targetList, NULL);
}

typedef struct SourceColumns
{
	Query	   *top;
	const StreamParts *parts;
	StreamPlan *plan;
	int			depth;
} SourceColumns;

static bool source_columns_walker(Node *node, SourceColumns *context);

/* A column of the query's own range table. */
static void
source_column(Var *var, SourceColumns *context)
{
	const StreamParts *parts = context->parts;
	RangeTblEntry *rte = rt_fetch(var->varno, context->top->rtable);
	const char *name;

	if (rte->rtekind == RTE_JOIN && var->varattno > 0)
	{
		int			depth = context->depth;

		context->depth = 0;
		source_columns_walker(list_nth(rte->joinaliasvars, var->varattno - 1),
							  context);
		context->depth = depth;
		return;
	}
	if (var->varattno == 0 &&
		(rte->rtekind == RTE_JOIN || var->varno == parts->source_rti))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the whole row of a source is not supported as a value in a continuous query"),
				 errhint("Name the columns.")));
	if (var->varno != parts->source_rti)
		return;
	if (var->varattno < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("system columns of a source are not supported in a continuous query")));
	name = list_nth(parts->source_columns, var->varattno - 1);
	if (strcmp(name, "kafka_key") == 0)
		context->plan->uses_key = true;
	else if (strcmp(name, "kafka_headers") == 0)
		context->plan->uses_headers = true;
}

static bool
source_columns_walker(Node *node, SourceColumns *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		bool		result;

		context->depth++;
		result = query_tree_walker((Query *) node, source_columns_walker,
								   context, QTW_IGNORE_JOINALIASES);
		context->depth--;
		return result;
	}
	if (IsA(node, Var) && ((Var *) node)->varlevelsup == context->depth)
	{
		source_column((Var *) node, context);
		return false;
	}
	return expression_tree_walker(node, source_columns_walker, context);
}

/*
 * Refuse whole rows and system columns of the source: in the compiled
 * statements it is a sub-select over a segment.  Notes which of the Kafka
 * columns that are staged on demand are used.
 */
void
stream_refuse_source_columns(Query *query, const StreamParts *parts,
							 StreamPlan *plan)
{
	SourceColumns context;

	context.top = query;
	context.parts = parts;
	context.plan = plan;
	context.depth = 0;
	query_tree_walker(query, source_columns_walker, &context,
					  QTW_IGNORE_JOINALIASES);
}
