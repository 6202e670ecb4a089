/*-------------------------------------------------------------------------
 *
 * stream_query.c
 *	  Query trees made from the parts of a continuous query, and their text.
 *
 * The row stage is the query itself with another SELECT list, without its
 * grouping, and with the CTE "src" in the source's place: the same attribute
 * numbers, so that no expression has to change.  The outputs are the query's
 * SELECT list and HAVING over the CTE "f", whose columns stand for the group
 * keys and the aggregates.
 *
 * PostgreSQL turns both into text, under settings that make the text mean the
 * same in every session: names outside pg_catalog come out qualified, and
 * dates and intervals in unambiguous styles.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_func.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

#include "compat.h"
#include "stream_internal.h"

/* Until stream_leave_deparse (or an error) texts come out unambiguous. */
int
stream_enter_deparse(void)
{
	return catalog_enter_neutral();
}

void
stream_leave_deparse(int nest_level)
{
	catalog_leave_neutral(nest_level);
}

char *
stream_query_text(const Query *query)
{
	int			nest_level = stream_enter_deparse();
	char	   *sql = pg_get_querydef(copyObject(unconstify(Query *, query)),
									  false);

	stream_leave_deparse(nest_level);
	while (*sql == ' ')
		sql++;
	return sql;
}

char *
stream_const_text(Node *node)
{
	int			nest_level = stream_enter_deparse();
	char	   *sql = deparse_expression(node, NIL, false, true);

	stream_leave_deparse(nest_level);
	return sql;
}

char *
stream_deparse(const StreamPlan *plan)
{
	return stream_query_text(plan->query);
}

/* Turn a range-table entry into a reference to a CTE around the query. */
static void
make_cte_reference(RangeTblEntry *rte, const char *name, List *columns)
{
	List	   *aliases = NIL;
	ListCell   *lc;

	foreach(lc, columns)
		aliases = lappend(aliases, makeString(lfirst(lc)));
	rte->rtekind = RTE_CTE;
	rte->relid = InvalidOid;
	rte->relkind = 0;
	rte->rellockmode = 0;
	rte->inh = false;
	rte->inFromCl = true;
	rte->ctename = pstrdup(name);
	rte->ctelevelsup = 0;
	if (rte->alias != NULL)
		rte->alias = makeAlias(rte->alias->aliasname, NIL);
	rte->eref = makeAlias(rte->eref != NULL ? rte->eref->aliasname : name,
						  aliases);
	compat_clear_permissions(rte);
}

static void
replace_source(Query *query, const StreamPlan *plan)
{
	const StreamParts *parts = stream_parts(plan);
	RangeTblEntry *rte = rt_fetch(parts->source_rti, query->rtable);
	List	   *columns = lappend(list_copy(parts->source_columns), SEGMENT_TID);

	for (AttrNumber attno = 1; attno <= list_length(columns); attno++)
	{
		Oid			type = TIDOID;
		int32		typmod = -1;
		Oid			collation = InvalidOid;

		if (attno < list_length(columns))
			get_atttypetypmodcoll(plan->source_relid, attno, &type, &typmod,
								  &collation);
		rte->coltypes = lappend_oid(rte->coltypes, type);
		rte->coltypmods = lappend_int(rte->coltypmods, typmod);
		rte->colcollations = lappend_oid(rte->colcollations, collation);
	}
	make_cte_reference(rte, STREAM_SRC, columns);
}

/* weir_internal.pane takes the same arguments as weir.hop. */
static void
replace_window_by_pane(Query *query, const StreamParts *parts)
{
	RangeTblEntry *rte = rt_fetch(parts->window_rti, query->rtable);
	RangeTblFunction *function = linitial_node(RangeTblFunction,
											   rte->functions);
	FuncExpr   *func = castNode(FuncExpr, function->funcexpr);
	Oid			types[5] = {exprType(linitial(func->args)), INTERVALOID,
	INTERVALOID, TIMESTAMPOID, TEXTOID};

	func->funcid = LookupFuncName(list_make2(makeString(WEIR_INTERNAL_SCHEMA),
											 makeString("pane")),
								  5, types, false);
}

/* event_time() around each variable in the argument of a window function. */
static Node *
guard_event_time(Node *node, Oid *guard)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
		return (Node *) makeFuncExpr(*guard, TIMESTAMPTZOID, list_make1(node),
									 InvalidOid, InvalidOid,
									 COERCE_EXPLICIT_CALL);
	return expression_tree_mutator(node, guard_event_time, guard);
}

/*
 * A row without event time is in no window.  Only Kafka's timestamp can be
 * missing from a staged row; then the row is this stream's dead letter, but
 * not if it does not get as far as to the window function.
 */
static void
require_event_time(Query *query, const StreamPlan *plan)
{
	const StreamParts *parts = stream_parts(plan);
	RangeTblEntry *rte = rt_fetch(parts->window_rti, query->rtable);
	FuncExpr   *func = castNode(FuncExpr,
								linitial_node(RangeTblFunction,
											  rte->functions)->funcexpr);
	Oid			type = TIMESTAMPTZOID;
	Oid			guard;

	if (strcmp(list_nth(parts->source_columns, parts->event_time - 1),
			   "kafka_timestamp") != 0)
		return;
	guard = LookupFuncName(list_make2(makeString(WEIR_INTERNAL_SCHEMA),
									  makeString("event_time")),
						   1, &type, false);
	linitial(func->args) = guard_event_time(linitial(func->args), &guard);
}

static void
add_column(Query *query, Node *expr, const char *name)
{
	TargetEntry *tle;

	tle = makeTargetEntry((Expr *) copyObject(expr),
						  list_length(query->targetList) + 1,
						  pstrdup(name), false);
	query->targetList = lappend(query->targetList, tle);
}

static void
add_source_column(Query *query, const StreamPlan *plan, const char *column,
				  const char *name)
{
	const StreamParts *parts = stream_parts(plan);
	AttrNumber	attno = 0;
	Oid			type = TIDOID;
	int32		typmod = -1;
	Oid			collation = InvalidOid;
	ListCell   *lc;

	foreach(lc, parts->source_columns)
	{
		attno++;
		if (strcmp(lfirst(lc), column) == 0)
			break;
	}
	if (lc == NULL)
		attno++;				/* SEGMENT_TID, the last */
	else
		get_atttypetypmodcoll(plan->source_relid, attno, &type, &typmod,
							  &collation);
	add_column(query, (Node *) makeVar(parts->source_rti, attno, type, typmod,
									   collation, 0), name);
}

static void
add_window_column(Query *query, const StreamParts *parts, AttrNumber attno)
{
	add_column(query, (Node *) makeVar(parts->window_rti, attno,
									   TIMESTAMPTZOID, -1, InvalidOid, 0),
			   attno == 1 ? "window_start" : "window_end");
}

static void
add_keys(Query *query, const StreamParts *parts)
{
	ListCell   *lc;

	foreach(lc, parts->keys)
	{
		StreamKey  *key = lfirst(lc);

		if (!key->is_window)
			add_column(query, key->expr, key->column);
	}
}

static void
add_group_columns(Query *query, const StreamPlan *plan)
{
	const StreamParts *parts = stream_parts(plan);
	int			n = 0;
	ListCell   *lc;

	if (plan->kind == STREAM_WINDOW)
		add_window_column(query, parts, 1);
	if (plan->window_kind == WINDOW_HOP && !parts->panes)
		add_window_column(query, parts, 2);
	add_keys(query, parts);
	foreach(lc, parts->args)
		add_column(query, lfirst(lc), psprintf("x%d", ++n));
	n = 0;
	foreach(lc, parts->filters)
		add_column(query, lfirst(lc), psprintf("c%d", ++n));
}

/* The text of the row stage, a SELECT over the CTE "src". */
char *
stream_row_stage(const StreamPlan *plan, RowStageColumns columns)
{
	const StreamParts *parts = stream_parts(plan);
	Query	   *query = copyObject(plan->query);

	replace_source(query, plan);
	if (plan->kind == STREAM_WINDOW)
		require_event_time(query, plan);
	switch (columns)
	{
		case ROW_STAGE_GROUPS:
			if (parts->panes)
				replace_window_by_pane(query, parts);
			query->targetList = NIL;
			add_group_columns(query, plan);
			break;
		case ROW_STAGE_LATE:
			query->targetList = NIL;
			add_window_column(query, parts, 1);
			add_window_column(query, parts, 2);
			add_keys(query, parts);
			add_source_column(query, plan, SEGMENT_TID, "tid");
			break;
		case ROW_STAGE_ROWS:
			break;
		case ROW_STAGE_PLACED_ROWS:
			add_source_column(query, plan, SEGMENT_TID, "r_tid");
			add_source_column(query, plan, "kafka_partition", "r_partition");
			add_source_column(query, plan, "kafka_timestamp", "r_timestamp");
			break;
		case ROW_STAGE_KEYED_ROWS:
			add_source_column(query, plan, "kafka_partition", "r_partition");
			add_source_column(query, plan, "kafka_offset", "r_offset");
			add_source_column(query, plan, "kafka_timestamp", "r_timestamp");
			break;
	}
	query->hasTargetSRFs = expression_returns_set((Node *) query->targetList);
	query->groupClause = NIL;
	query->groupDistinct = false;
	query->havingQual = NULL;
	query->hasAggs = false;
	return stream_query_text(query);
}

typedef struct OutputContext
{
	const StreamPlan *plan;
	List	   *columns;		/* names of f's columns */
	int			depth;			/* sub-select levels below the query */
} OutputContext;

static Var *
final_column(OutputContext *context, const char *name, Node *expr)
{
	AttrNumber	attno = 0;
	ListCell   *lc;

	foreach(lc, context->columns)
	{
		attno++;
		if (strcmp(lfirst(lc), name) == 0)
			return makeVar(1, attno, exprType(expr), exprTypmod(expr),
						   exprCollation(expr), context->depth);
	}
	elog(ERROR, "no column \"%s\"", name);
	return NULL;
}

/* The group key that node is, seen from context->depth levels below. */
static StreamKey *
matching_key(Node *node, OutputContext *context)
{
	ListCell   *lc;

	foreach(lc, stream_parts(context->plan)->keys)
	{
		StreamKey  *key = lfirst(lc);
		Node	   *expr = key->flat;

		if (context->depth > 0)
		{
			expr = copyObject(expr);
			IncrementVarSublevelsUp(expr, context->depth, 0);
		}
		if (equal(expr, node))
			return key;
	}
	return NULL;
}

static Node *
output_mutator(Node *node, OutputContext *context)
{
	StreamKey  *key;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		Query	   *query;

		context->depth++;
		query = query_tree_mutator((Query *) node, output_mutator, context, 0);
		context->depth--;
		return (Node *) query;
	}
	if (IsA(node, Aggref) && ((Aggref *) node)->agglevelsup == context->depth)
	{
		ListCell   *lc;

		foreach(lc, stream_parts(context->plan)->aggregates)
		{
			StreamAggregate *aggregate = lfirst(lc);

			if (equal(aggregate->flat, node))
				return (Node *) final_column(context, aggregate->column, node);
		}
		elog(ERROR, "aggregate not found among the parts");
	}
	key = matching_key(node, context);
	if (key != NULL)
		return (Node *) final_column(context, key->column, node);
	if (IsA(node, Var) && ((Var *) node)->varlevelsup == context->depth)
	{
		Var		   *var = (Var *) node;
		RangeTblEntry *rte = rt_fetch(var->varno,
									  context->plan->query->rtable);

		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("output column %s.%s depends on a group key, but is none",
						quote_identifier(rte->eref->aliasname),
						quote_identifier(get_rte_attribute_name(rte,
																var->varattno))),
				 errhint("Add it to GROUP BY.")));
	}
	return expression_tree_mutator(node, output_mutator, context);
}

static Query *
select_from_final(List *columns, List *targets, Node *quals, bool sublinks)
{
	Query	   *query = makeNode(Query);
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	RangeTblRef *ref = makeNode(RangeTblRef);

	make_cte_reference(rte, STREAM_FINAL, columns);
	ref->rtindex = 1;
	query->commandType = CMD_SELECT;
	query->canSetTag = true;
	query->rtable = list_make1(rte);
	query->jointree = makeFromExpr(list_make1(ref), quals);
	query->targetList = targets;
	query->hasSubLinks = sublinks;
	return query;
}

/* Columns of the CTE f. */
static List *
final_columns(const StreamPlan *plan)
{
	const StreamParts *parts = stream_parts(plan);
	List	   *columns = NIL;
	ListCell   *lc;

	if (plan->kind == STREAM_WINDOW)
		columns = list_make2("window_start", "window_end");
	foreach(lc, parts->keys)
	{
		if (!((StreamKey *) lfirst(lc))->is_window)
			columns = lappend(columns, ((StreamKey *) lfirst(lc))->column);
	}
	foreach(lc, parts->aggregates)
		columns = lappend(columns, ((StreamAggregate *) lfirst(lc))->column);
	return columns;
}

static bool
is_key_column(const StreamPlan *plan, const char *name)
{
	ListCell   *lc;

	foreach(lc, plan->key_columns)
	{
		if (strcmp(lfirst(lc), name) == 0)
			return true;
	}
	return false;
}

/* Fill in parts->outputs and parts->removed. */
void
stream_build_outputs(StreamPlan *plan)
{
	StreamParts *parts = stream_parts(plan);
	Query	   *query = plan->query;
	OutputContext context;
	List	   *targets = NIL;
	List	   *keys = NIL;
	Node	   *having;
	ListCell   *lc;

	context.plan = plan;
	context.columns = final_columns(plan);
	context.depth = 0;

	foreach(lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Node	   *expr;

		if (tle->resjunk)
			continue;
		expr = compat_flatten_aliases(query, copyObject((Node *) tle->expr));
		expr = output_mutator(expr, &context);
		if (expression_returns_set(expr))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a set-returning function over the result of an aggregation is not supported in a stream in this release")));
		targets = lappend(targets,
						  makeTargetEntry((Expr *) expr,
										  list_length(targets) + 1,
										  pstrdup(tle->resname), false));
		if (is_key_column(plan, tle->resname))
			keys = lappend(keys,
						   makeTargetEntry((Expr *) copyObject(expr),
										   list_length(keys) + 1,
										   pstrdup(tle->resname), false));
	}
	having = compat_flatten_aliases(query, copyObject(query->havingQual));
	having = output_mutator(having, &context);
	parts->outputs = select_from_final(context.columns, targets, having,
									   query->hasSubLinks);
	if (having != NULL)
	{
		BooleanTest *fails = makeNode(BooleanTest);

		fails->arg = (Expr *) copyObject(having);
		fails->booltesttype = IS_NOT_TRUE;
		fails->location = -1;
		parts->removed = select_from_final(context.columns, keys,
										   (Node *) fails,
										   query->hasSubLinks);
	}
}
