/*-------------------------------------------------------------------------
 *
 * stream_analyze.c
 *	  A continuous query -> its checked parts.
 *
 * The query is parsed and analyzed by PostgreSQL and stays a Query tree: its
 * group keys, aggregates and FILTER conditions are found in the tree and kept
 * by reference, and everything that weir cannot keep incrementally is refused
 * here or in stream_refuse.c, never later.  What a refusal says is part of the
 * interface: a reason, and a hint where there is something to do.
 *
 * Expressions are compared after join aliases have been resolved ("flat"),
 * since a column of a join and the column under it are the same value; but
 * what goes into a text is always the expression as written.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "parser/parsetree.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "compat.h"
#include "stream_internal.h"
#include "stream_window.h"

#define UNNAMED_COLUMN "?column?"

/* An error's position is in our query, not in the caller's command. */
static void
query_error_callback(void *arg)
{
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery((const char *) arg);
	}
}

static void
unname_joins_below(Node *node)
{
	ListCell   *lc;

	if (IsA(node, FromExpr))
	{
		foreach(lc, ((FromExpr *) node)->fromlist)
			unname_joins_below(lfirst(lc));
	}
	else if (IsA(node, JoinExpr))
	{
		((JoinExpr *) node)->alias = NULL;
		unname_joins_below(((JoinExpr *) node)->larg);
		unname_joins_below(((JoinExpr *) node)->rarg);
	}
}

/*
 * A join's alias hides the names under it, but statements add columns of the
 * source.  Without the alias a text names what the columns stand for.
 */
static void
unname_joins(Query *query)
{
	ListCell   *lc;

	unname_joins_below((Node *) query->jointree);
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_JOIN)
			rte->alias = NULL;
	}
}

static Query *
parse_query(const char *text)
{
	ErrorContextCallback callback;
	List	   *raw;
	RawStmt    *statement;
	Query	   *query;

	callback.callback = query_error_callback;
	callback.arg = unconstify(char *, text);
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	raw = raw_parser(text, RAW_PARSE_DEFAULT);
	if (list_length(raw) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("a stream is made from exactly one query")));
	statement = linitial_node(RawStmt, raw);
	if (!IsA(statement->stmt, SelectStmt) ||
		((SelectStmt *) statement->stmt)->intoClause != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a continuous query must be a SELECT")));
	stream_refuse_parameters(statement->stmt);
	query = parse_analyze_fixedparams(statement, text, NULL, 0, NULL);
	compat_flatten_groups(query);
	unname_joins(query);

	error_context_stack = callback.previous;
	return query;
}

/* The range-table entry of the one source in FROM. */
static int
find_source(Query *query, StreamSourceTest is_source, void *arg,
			AttrNumber *event_time)
{
	int			found = 0;
	int			rti = 0;
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		AttrNumber	attno;

		rti++;
		if (rte->rtekind != RTE_RELATION ||
			!is_source(rte->relid, &attno, arg))
			continue;
		if (found != 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a stream over several sources is not supported in this release")));
		if (rte->tablesample != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("TABLESAMPLE of a source is not supported")));
		found = rti;
		*event_time = attno;
	}
	if (found == 0)
	{
		(void) stream_refuse_hidden_sources(query, 0, is_source, arg);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the query reads no source"),
				 errhint("Name a source made by weir.create_source() in FROM; weir.sources lists them.")));
	}
	return found;
}

static List *
source_columns(Oid relid)
{
	Relation	rel = RelationIdGetRelation(relid);
	List	   *names = NIL;

	for (int i = 0; i < RelationGetNumberOfAttributes(rel); i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i);

		names = lappend(names, att->attisdropped ? pstrdup("") :
						pstrdup(NameStr(att->attname)));
	}
	RelationClose(rel);
	return names;
}

/* Is func one of weir's window functions? */
static bool
window_function(const FuncExpr *func, WindowKind *kind)
{
	const char *name;
	char	   *found;

	if (get_func_namespace(func->funcid) !=
		get_namespace_oid(WEIR_SCHEMA, true))
		return false;
	found = get_func_name(func->funcid);
	if (strcmp(found, "tumble") == 0)
		*kind = WINDOW_TUMBLE;
	else if (strcmp(found, "hop") == 0)
		*kind = WINDOW_HOP;
	else if (strcmp(found, "cumulate") == 0 || strcmp(found, "session") == 0)
	{
		name = found;
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("weir.%s() in a stream is not supported in this release",
						name)));
	}
	else
		return false;
	return true;
}

/*
 * The first argument of a window function must be the event time, since the
 * watermark that closes its windows is of the event time.  A timestamp is
 * taken as UTC, as ingest does, or at a constant zone: then *zone is set
 * (stream_zone.c).  A timestamptz may go to a timestamp and back; a local time
 * without zone would go back when clocks do.
 */
static bool
is_event_time(Query *query, Node *node, const StreamParts *parts,
			  EventZone **zone)
{
	List	   *zones = NIL;
	Var		   *var;

	node = compat_flatten_aliases(query, node);
	while (!IsA(node, Var))
	{
		FuncExpr   *func = (FuncExpr *) node;

		if (IsA(node, RelabelType))
		{
			node = (Node *) ((RelabelType *) node)->arg;
			continue;
		}
		if (!IsA(node, FuncExpr))
			return false;
		switch (func->funcid)
		{
			case F_TIMEZONE_TEXT_TIMESTAMPTZ:
			case F_TIMEZONE_TEXT_TIMESTAMP:
			case F_TIMEZONE_INTERVAL_TIMESTAMPTZ:
			case F_TIMEZONE_INTERVAL_TIMESTAMP:
				if (!IsA(linitial(func->args), Const))
					return false;
				zones = lappend(zones, linitial(func->args));
				node = lsecond(func->args);
				break;
			case F_TIMESTAMP_DATE:
				node = linitial(func->args);
				break;
			default:
				return false;
		}
	}
	var = (Var *) node;
	if (var->varlevelsup != 0 || var->varno != parts->source_rti ||
		var->varattno != parts->event_time)
		return false;
	if (zones == NIL)
		return true;
	*zone = palloc(sizeof(EventZone));
	(*zone)->zone = linitial_node(Const, zones);
	(*zone)->twice = getBaseType(var->vartype) == TIMESTAMPTZOID;
	if ((*zone)->twice)
		return list_length(zones) == 2 &&
			equal(linitial(zones), lsecond(zones));
	return list_length(zones) == 1;
}

static void
refuse_event_time(const StreamPlan *plan)
{
	const StreamParts *parts = stream_parts(plan);
	Oid			type = get_atttype(plan->source_relid, parts->event_time);

	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the first argument of a window function in a stream must be the event-time column of the source"),
			 errdetail("The event-time column is \"%s\".",
					   (char *) list_nth(parts->source_columns,
										 parts->event_time - 1)),
			 getBaseType(type) == DATEOID ?
			 errhint("Cast it to timestamp.") :
			 errhint("Name the column as it is; for windows of local time give the argument timezone.")));
}

static void
check_window(Query *query, FuncExpr *func, StreamPlan *plan)
{
	StreamParts *parts = stream_parts(plan);
	StringInfoData args;
	ListCell   *lc;
	WindowArgs	window;
	Const	   *values[5];
	int			n = 0;

	/* Named and default arguments in their places, constants folded. */
	func = castNode(FuncExpr,
					eval_const_expressions(NULL, copyObject((Node *) func)));
	if (!is_event_time(query, linitial(func->args), parts, &plan->event_zone))
		refuse_event_time(plan);

	initStringInfo(&args);
	for_each_from(lc, func->args, 1)
	{
		if (!IsA(lfirst(lc), Const))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the arguments of a window function in a stream must be constants, but the first")));
		values[n] = lfirst_node(Const, lc);
		appendStringInfo(&args, ", %s", stream_const_text(lfirst(lc)));
		n++;
	}
	parts->window_args = args.data;
	parts->size_text = stream_const_text((Node *) values[0]);

	window.hop = plan->window_kind == WINDOW_HOP;
	if (values[0]->constisnull || (window.hop && values[1]->constisnull))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("size of a window must not be null")));
	window.size = DatumGetIntervalP(values[0]->constvalue);
	window.slide = window.hop ? DatumGetIntervalP(values[1]->constvalue) : NULL;
	window.origin = values[n - 2]->constisnull ? NULL :
		(const Timestamp *) &values[n - 2]->constvalue;
	window.zone = values[n - 1]->constisnull ? NULL :
		DatumGetTextPP(values[n - 1]->constvalue);
	stream_window_check(&window);
	if (window.months)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("windows in months are not supported in a stream in this release"),
				 errhint("Give the size in days, hours and smaller units.")));
	plan->window_size = window.units;
	plan->windows_per_row = window.per_row;
	parts->local_clock = window.local_clock;
}

/* Find the window function in FROM, if there is one, and check its use. */
static void
find_window(Query *query, StreamPlan *plan)
{
	StreamParts *parts = stream_parts(plan);
	FuncExpr   *func = NULL;
	int			rti = 0;
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		ListCell   *lf;
		WindowKind	kind;

		rti++;
		if (rte->rtekind != RTE_FUNCTION)
			continue;
		foreach(lf, rte->functions)
		{
			Node	   *node = lfirst_node(RangeTblFunction, lf)->funcexpr;

			if (!IsA(node, FuncExpr) ||
				!window_function((FuncExpr *) node, &kind))
				continue;
			if (func != NULL)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("a stream with more than one window function is not supported in this release")));
			if (list_length(rte->functions) != 1 || rte->funcordinality)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("ROWS FROM and WITH ORDINALITY are not supported with a window function in a stream")));
			func = (FuncExpr *) node;
			plan->window_kind = kind;
			parts->window_rti = rti;
		}
	}
	if (func == NULL)
		return;
	stream_refuse_nullable(query, parts->window_rti, true);
	check_window(query, func, plan);
}

/* Is there anything beside the source and its windows that gives rows? */
static bool
may_multiply(const Query *query, const StreamParts *parts)
{
	int			rti = 0;
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		rti++;
		if (rti != parts->source_rti && rti != parts->window_rti &&
			lfirst_node(RangeTblEntry, lc)->rtekind != RTE_JOIN)
			return true;
	}
	return query->hasTargetSRFs;
}

static void
collect_outputs(Query *query, StreamPlan *plan)
{
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		StreamOutput *output;
		ListCell   *lo;

		if (tle->resjunk)
			continue;
		if (tle->resname == NULL || strcmp(tle->resname, UNNAMED_COLUMN) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_DEFINITION),
					 errmsg("output column %d of the query has no name",
							tle->resno),
					 errhint("Name it with AS.")));
		output = palloc0(sizeof(StreamOutput));
		output->name = tle->resname;
		output->type = exprType((Node *) tle->expr);
		output->typmod = exprTypmod((Node *) tle->expr);
		output->collation = exprCollation((Node *) tle->expr);
		foreach(lo, plan->outputs)
		{
			if (strcmp(((StreamOutput *) lfirst(lo))->name, tle->resname) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("output column \"%s\" is there more than once",
								tle->resname),
						 errhint("Name the columns differently with AS.")));
		}
		if (get_typtype(output->type) == TYPTYPE_PSEUDO)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("output column \"%s\" has pseudo-type %s",
							tle->resname, format_type_be(output->type)),
					 errhint("Cast it to a type that a table can hold.")));
		plan->outputs = lappend(plan->outputs, output);
	}
	if (plan->outputs == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the query has no output columns")));
}

/* What to call a group key in a message. */
static char *
key_text(Query *query, const StreamKey *key, int position)
{
	if (IsA(key->expr, Var))
	{
		Var		   *var = (Var *) key->expr;
		RangeTblEntry *rte = rt_fetch(var->varno, query->rtable);

		return psprintf("%s.%s", quote_identifier(rte->eref->aliasname),
						quote_identifier(get_rte_attribute_name(rte,
																var->varattno)));
	}
	return psprintf("expression %d of GROUP BY", position);
}

/* The first output column that is this key. */
static void
link_output(Query *query, StreamPlan *plan, StreamKey *key)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		StreamOutput *output;

		if (tle->resjunk)
			continue;
		output = list_nth(plan->outputs, n++);
		if (!equal(compat_flatten_aliases(query, (Node *) tle->expr),
				   key->flat))
			continue;
		output->is_key = true;
		output->is_window = key->is_window;
		if (key->output == NULL)
			key->output = output;
	}
}

static StreamKey *
make_key(Query *query, StreamPlan *plan, Node *expr)
{
	StreamParts *parts = stream_parts(plan);
	StreamKey  *key = palloc0(sizeof(StreamKey));
	Var		   *var;
	int			number = 1;
	ListCell   *lc;

	key->expr = expr;
	key->flat = compat_flatten_aliases(query, copyObject(expr));
	key->type = exprType(expr);
	key->collation = exprCollation(expr);
	var = (Var *) key->flat;
	if (parts->window_rti != 0 && IsA(var, Var) &&
		var->varno == parts->window_rti && var->varlevelsup == 0)
	{
		if (var->varattno == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the window as a whole cannot be a group key of a stream"),
					 errhint("Group by its columns, window_start and window_end.")));
		key->is_window = true;
		key->column = var->varattno == 1 ? "window_start" : "window_end";
		return key;
	}
	foreach(lc, parts->keys)
		number += ((StreamKey *) lfirst(lc))->is_window ? 0 : 1;
	key->column = psprintf("k%d", number);
	if (!OidIsValid(lookup_type_cache(key->type,
									  TYPECACHE_BTREE_OPFAMILY)->btree_opf) ||
		get_typtype(key->type) == TYPTYPE_PSEUDO)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("type %s cannot be a group key of a stream",
						format_type_be(key->type)),
				 errdetail("It has no default operator class for a btree index."),
				 errhint("Cast it to a type with an order, such as text or jsonb.")));
	return key;
}

/*
 * Does window_start tell window_end, and the other way round?  Only hopping
 * windows on a local clock may share one of them; see stream_window.c.
 */
static bool
one_column_suffices(const StreamPlan *plan)
{
	return plan->window_kind == WINDOW_TUMBLE ||
		!stream_parts(plan)->local_clock;
}

/* Keys with an output each; of two window columns one may suffice. */
static void
check_keys_in_output(Query *query, StreamPlan *plan)
{
	StreamParts *parts = stream_parts(plan);
	bool		window_shown = false;
	int			position = 0;
	ListCell   *lc;

	foreach(lc, parts->keys)
	{
		StreamKey  *key = lfirst(lc);

		window_shown |= key->is_window && key->output != NULL;
	}
	foreach(lc, parts->keys)
	{
		StreamKey  *key = lfirst(lc);

		position++;
		if (key->output != NULL ||
			(key->is_window && window_shown && one_column_suffices(plan)))
			continue;
		if (key->is_window && window_shown)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("group key %s is not in the output of the query",
							key_text(query, key, position)),
					 errdetail("Hopping windows of days in a time zone are not told apart by one of window_start and window_end: several start, or end, when clocks are set forward."),
					 errhint("Add %s to the SELECT list.",
							 key_text(query, key, position))));
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("group key %s is not in the output of the query",
						key_text(query, key, position)),
				 errdetail("Without it the rows of the target cannot be told apart."),
				 errhint("Add it to the SELECT list.")));
	}
	foreach(lc, plan->outputs)
	{
		StreamOutput *output = lfirst(lc);
		ListCell   *lk;

		foreach(lk, parts->keys)
		{
			if (((StreamKey *) lfirst(lk))->output == output)
				plan->key_columns = lappend(plan->key_columns, output->name);
		}
	}
}

static void
collect_keys(Query *query, StreamPlan *plan)
{
	StreamParts *parts = stream_parts(plan);
	int			windows = 0;
	ListCell   *lc;

	foreach(lc, query->groupClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		TargetEntry *tle = get_sortgroupclause_tle(clause, query->targetList);
		StreamKey  *key = make_key(query, plan, (Node *) tle->expr);
		bool		seen = false;
		ListCell   *lk;

		foreach(lk, parts->keys)
			seen |= equal(((StreamKey *) lfirst(lk))->flat, key->flat);
		if (seen)
			continue;
		link_output(query, plan, key);
		parts->keys = lappend(parts->keys, key);
		windows += key->is_window ? 1 : 0;
	}

	if (parts->window_rti == 0)
	{
		plan->kind = STREAM_AGGREGATE;
		stream_refuse_ungrouped(query);
	}
	else
	{
		plan->kind = STREAM_WINDOW;
		if (windows == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the query has a window function, but does not group by its window"),
					 errhint("Add window_start and window_end of the window function to GROUP BY and to the SELECT list.")));
		if (windows == 1 && !one_column_suffices(plan))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("hopping windows in a time zone are not told apart by one of window_start and window_end"),
					 errhint("Group by both.")));
	}
	check_keys_in_output(query, plan);
}

typedef struct CollectAggregates
{
	Query	   *query;
	StreamParts *parts;
	int			depth;			/* sub-select levels below the query */
} CollectAggregates;

static bool
collect_aggregates_walker(Node *node, CollectAggregates *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		bool		result;

		context->depth++;
		result = query_tree_walker((Query *) node, collect_aggregates_walker,
								   context, 0);
		context->depth--;
		return result;
	}
	if (IsA(node, Aggref) && ((Aggref *) node)->agglevelsup == context->depth)
	{
		StreamAggregate *aggregate;
		Node	   *flat;
		ListCell   *lc;

		if (context->depth > 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("an aggregate of a stream inside a sub-select is not supported in this release")));
		flat = compat_flatten_aliases(context->query, copyObject(node));
		foreach(lc, context->parts->aggregates)
		{
			if (equal(((StreamAggregate *) lfirst(lc))->flat, flat))
				return false;
		}
		aggregate = palloc0(sizeof(StreamAggregate));
		aggregate->aggref = (Aggref *) node;
		aggregate->flat = flat;
		aggregate->column = psprintf("a%d",
									 list_length(context->parts->aggregates) + 1);
		context->parts->aggregates = lappend(context->parts->aggregates,
											 aggregate);
		return false;
	}
	return expression_tree_walker(node, collect_aggregates_walker, context);
}

static bool
refers_to(Node *node, int level, int rti)
{
	return bms_is_member(rti, pull_varnos_of_level(NULL, node, level));
}

/*
 * Do window columns occur anywhere below the aggregation but as bare group
 * keys?  If not, hopping windows can share panes.
 */
static bool
window_used_below(Query *query, const StreamParts *parts)
{
	List	   *below = NIL;
	ListCell   *lc;

	below = lappend(below, query->jointree);
	foreach(lc, parts->keys)
	{
		StreamKey  *key = lfirst(lc);

		if (!key->is_window)
			below = lappend(below, key->flat);
	}
	foreach(lc, parts->aggregates)
		below = lappend(below, ((StreamAggregate *) lfirst(lc))->flat);
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		/* Lateral references; a join's aliases are not uses. */
		if (rte->rtekind == RTE_SUBQUERY)
		{
			if (refers_to((Node *) rte->subquery, 1, parts->window_rti))
				return true;
		}
		else if (rte->rtekind == RTE_FUNCTION)
			below = lappend(below, rte->functions);
		else if (rte->rtekind == RTE_TABLEFUNC)
			below = lappend(below, rte->tablefunc);
		else if (rte->rtekind == RTE_VALUES)
			below = lappend(below, rte->values_lists);
	}
	below = (List *) compat_flatten_aliases(query, (Node *) copyObject(below));
	return refers_to((Node *) below, 0, parts->window_rti);
}

/* The output column of a name, or NULL. */
static StreamOutput *
output_named(const StreamPlan *plan, const char *name)
{
	ListCell   *lc;

	foreach(lc, plan->outputs)
	{
		if (strcmp(((StreamOutput *) lfirst(lc))->name, name) == 0)
			return lfirst(lc);
	}
	return NULL;
}

/*
 * options.key of a row stream.  A name is taken as it stands, cut as
 * PostgreSQL cuts names, and if there is none such, as SQL takes it.
 */
static void
check_row_key(Query *query, StreamPlan *plan, const StreamOptions *options)
{
	ListCell   *lc;

	if (options->key != NIL && expression_returns_set((Node *) query->targetList))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-returning functions in the SELECT list of a stream with a key are not supported in this release")));
	foreach(lc, options->key)
	{
		const char *name = lfirst(lc);
		char	   *exact = pstrdup(name);
		StreamOutput *found;

		truncate_identifier(exact, strlen(exact), false);
		found = output_named(plan, exact);
		if (found == NULL)
			found = output_named(plan,
								 downcase_truncate_identifier(name,
															  strlen(name),
															  false));
		if (found == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("key column \"%s\" is not in the output of the query",
							name),
					 errhint("The option key names output columns.")));
		if (found->is_key)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_COLUMN),
					 errmsg("key column \"%s\" is there more than once", name)));
		if (!OidIsValid(lookup_type_cache(found->type,
										  TYPECACHE_BTREE_OPFAMILY)->btree_opf))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("type %s cannot be a key of a stream",
							format_type_be(found->type)),
					 errdetail("It has no default operator class for a btree index.")));
		found->is_key = true;
		plan->key_columns = lappend(plan->key_columns, found->name);
	}
}

static void
analyze_aggregate(Query *query, StreamPlan *plan, const StreamOptions *options)
{
	StreamParts *parts = stream_parts(plan);
	CollectAggregates context;

	if (options->key != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the option key is for queries without aggregation"),
				 errhint("The key of an aggregate is its GROUP BY; leave the option out.")));
	context.query = query;
	context.parts = parts;
	context.depth = 0;
	collect_aggregates_walker((Node *) query->targetList, &context);
	collect_aggregates_walker(query->havingQual, &context);
	collect_keys(query, plan);
	if (options->emit_on_close && plan->kind != STREAM_WINDOW)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("an aggregate without a window never closes"),
				 errhint("Use emit => 'on_change', or add a window function such as weir.tumble().")));
	stream_make_partials(plan);
	parts->panes = plan->window_kind == WINDOW_HOP &&
		!window_used_below(query, parts);
	stream_build_outputs(plan);
}

StreamPlan *
stream_analyze_with(const char *text, const StreamOptions *options,
					StreamSourceTest is_source, void *arg)
{
	StreamPlan *plan = palloc0(sizeof(StreamPlan));
	StreamParts *parts = palloc0(sizeof(StreamParts));
	Query	   *query = parse_query(text);
	bool		aggregated;

	plan->private = parts;
	plan->query = query;
	stream_refuse_clauses(query);
	parts->source_rti = find_source(query, is_source, arg, &parts->event_time);
	plan->source_relid = rt_fetch(parts->source_rti, query->rtable)->relid;
	parts->source_columns = source_columns(plan->source_relid);
	plan->relations = stream_refuse_hidden_sources(query, parts->source_rti,
												   is_source, arg);
	stream_refuse_temporary(query);
	stream_refuse_nullable(query, parts->source_rti, false);
	find_window(query, plan);
	stream_refuse_source_columns(query, parts, plan);
	stream_refuse_unknown(query);
	plan->multiplies = may_multiply(query, parts);

	aggregated = query->hasAggs || query->groupClause != NIL ||
		query->havingQual != NULL;
	stream_refuse_volatile(query, aggregated);
	collect_outputs(query, plan);
	if (aggregated)
	{
		analyze_aggregate(query, plan, options);
		return plan;
	}

	/* A window function in a row stream is a function like any other. */
	plan->kind = STREAM_ROW;
	plan->window_kind = WINDOW_NONE;
	plan->window_size = 0;
	if (options->emit_on_close)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a query without aggregation has nothing to close"),
				 errhint("Use emit => 'on_change'.")));
	check_row_key(query, plan, options);
	return plan;
}

static bool
source_in_catalog(Oid relid, AttrNumber *event_time, void *arg)
{
	SourceDef  *def = catalog_source_by_relid(relid, true);

	if (def == NULL)
		return false;
	*event_time = def->event_time;
	return true;
}

StreamPlan *
stream_analyze(const char *query, const StreamOptions *options)
{
	return stream_analyze_with(query, options, source_in_catalog, NULL);
}
