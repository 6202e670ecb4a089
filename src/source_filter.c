/*-------------------------------------------------------------------------
 *
 * source_filter.c
 *	  Texts that users write into the definition of a source: parse, check,
 *	  and write anew after a rename.
 *
 * A text is parsed where it will stand, inside parentheses, and the parse
 * tree is checked to be no more than that place takes: what closes the
 * parenthesis early changes the tree or does not parse.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_attribute.h"
#include "mb/pg_wchar.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "parser/scansup.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

#include "errors.h"
#include "objects.h"
#include "source_filter.h"

/*
 * Context for errors of the parser: it saw a wrapped text, the user wrote
 * only a part of it.
 */
typedef struct WrappedText
{
	const char *text;			/* the user's */
	int			prefix;			/* characters before it */
	const char *what;
} WrappedText;

static void
wrapped_text_error(void *arg)
{
	WrappedText *wrapped = arg;
	int			pos = geterrposition();

	if (pos > 0)
	{
		pos -= wrapped->prefix;
		errposition(0);
		if (pos > 0 && pos <= pg_mbstrlen(wrapped->text) + 1)
		{
			internalerrposition(pos);
			internalerrquery(wrapped->text);
		}
	}
	errcontext("argument \"%s\" of create_source", wrapped->what);
}

List *
source_parse_wrapped(const char *prefix, const char *text, const char *suffix,
					 const char *what)
{
	WrappedText wrapped;
	ErrorContextCallback callback;
	List	   *trees;

	wrapped.text = text;

	wrapped.prefix = strlen(prefix);
	wrapped.what = what;
	callback.callback = wrapped_text_error;
	callback.arg = &wrapped;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	trees = raw_parser(psprintf("%s%s%s", prefix, text, suffix),
					   RAW_PARSE_DEFAULT);
	error_context_stack = callback.previous;
	return trees;
}

/* "..." at p, with what stands for a quote in it doubled; *end is past it. */
static char *
quoted_name(const char *p, char quote, const char **end)
{
	StringInfoData name;

	initStringInfo(&name);
	for (p++; *p != '\0'; p++)
	{
		if (*p == '"' && *++p != '"')
			break;
		if (*p == quote)
			appendStringInfoChar(&name, quote);
		appendStringInfoChar(&name, *p);
	}
	*end = p;
	return name.data;
}

/*
 * U&"..." [UESCAPE 'c']: the same as a string constant, which no parser cuts.
 */
static char *
unicode_name(const char *p)
{
	int			level = NewGUCNestLevel();
	const char *end;
	char	   *body = quoted_name(p, '\'', &end);
	const char *escape = "\\";
	List	   *trees;
	ResTarget  *target;
	char	   *name;

	end += strspn(end, " \t\n\r\f\v");
	if (pg_strncasecmp(end, "uescape", 7) == 0)
	{
		end += 7;
		end += strspn(end, " \t\n\r\f\v");
		if (*end == '\'')
			escape = pnstrdup(end + 1, 1);
	}
	(void) set_config_option("standard_conforming_strings", "on",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	trees = raw_parser(psprintf("SELECT U&'%s' UESCAPE '%s'", body, escape),
					   RAW_PARSE_DEFAULT);
	AtEOXact_GUC(true, level);
	target = linitial_node(ResTarget,
						   ((SelectStmt *) linitial_node(RawStmt,
														 trees)->stmt)->targetList);
	name = strVal(&castNode(A_Const, target->val)->val);
	return name;
}

char *
source_written_name(const char *p)
{
	const char *end = p;

	if (*p == '"')
		return quoted_name(p, '\0', &end);
	if ((*p == 'u' || *p == 'U') && p[1] == '&' && p[2] == '"')
		return unicode_name(p + 2);
	while (IS_HIGHBIT_SET(*end) || isalnum((unsigned char) *end) ||
		   *end == '_' || *end == '$')
		end++;
	return downcase_identifier(p, end - p, false, false);
}

/* Nodes that a filter must not have.  context is the relation. */
static bool
filter_walker(Node *node, void *context)
{
	Relation	rel = context;

	if (node == NULL)
		return false;
	if (IsA(node, SubLink))
		ereport(ERROR,
				errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("\"filter\" must not have a subquery"),
				errhint("Put it into the WHERE of a stream."));
	if (IsA(node, Var))
	{
		AttrNumber	attnum = ((Var *) node)->varattno;

		if (attnum <= 0)
			ereport(ERROR,
					errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("\"filter\" must not use system columns or whole rows"));
		if (TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attgenerated)
			ereport(ERROR,
					errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
					errmsg("\"filter\" must not use generated column \"%s\"",
						   NameStr(TupleDescAttr(RelationGetDescr(rel),
												 attnum - 1)->attname)),
					errdetail("Generated columns are computed after the filter."),
					errhint("Repeat the column's expression in the filter."));
	}
	return expression_tree_walker(node, filter_walker, context);
}

Node *
source_filter_parse(Relation rel, const char *filter)
{
	static const char prefix[] = "SELECT (\n";
	List	   *trees;
	SelectStmt *select;
	ParseState *pstate;
	ParseNamespaceItem *nsitem;
	Node	   *expr;
	WrappedText wrapped;
	ErrorContextCallback callback;

	trees = source_parse_wrapped(prefix, filter, "\n)", "filter");
	select = (SelectStmt *) linitial_node(RawStmt, trees)->stmt;
	if (list_length(trees) != 1 || !IsA(select, SelectStmt) ||
		select->op != SETOP_NONE || list_length(select->targetList) != 1 ||
		linitial_node(ResTarget, select->targetList)->name != NULL ||
		select->fromClause || select->whereClause || select->groupClause ||
		select->havingClause || select->windowClause ||
		select->distinctClause || select->intoClause || select->sortClause ||
		select->limitOffset || select->limitCount || select->lockingClause ||
		select->withClause)
		ereport(ERROR,
				errcode(ERRCODE_SYNTAX_ERROR),
				errmsg("\"filter\" must be one expression"));

	wrapped.text = filter;
	wrapped.prefix = strlen(prefix);
	wrapped.what = "filter";
	callback.callback = wrapped_text_error;
	callback.arg = &wrapped;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	pstate = make_parsestate(NULL);
	pstate->p_sourcetext = psprintf("%s%s", prefix, filter);
	nsitem = addRangeTableEntryForRelation(pstate, rel, AccessShareLock, NULL,
										   false, true);
	addNSItemToQuery(pstate, nsitem, true, true, true);
	expr = transformExpr(pstate,
						 linitial_node(ResTarget, select->targetList)->val,
						 EXPR_KIND_WHERE);
	expr = coerce_to_boolean(pstate, expr, "filter");
	assign_expr_collations(pstate, expr);
	if (pstate->p_hasTargetSRFs)
		ereport(ERROR,
				errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("\"filter\" must not return a set"));
	filter_walker(expr, rel);
	if (contain_volatile_functions(expr))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				errmsg("\"filter\" must not be volatile"),
				errdetail("A record may be read more than once and must be judged the same."));
	free_parsestate(pstate);
	error_context_stack = callback.previous;
	return expr;
}

char *
source_filter_text(Oid relid, Node *expr)
{
	int			nest_level = catalog_enter_neutral();
	char	   *text = deparse_expression(expr,
										  deparse_context_for(get_rel_name(relid),
															  relid),
										  false, false);

	catalog_leave_neutral(nest_level);
	return text;
}

Node *
source_filter_read(Relation rel, const SourceDef *source)
{
	int			nest_level = catalog_enter_neutral();
	Node	   *expr = source_filter_parse(rel, source->filter);

	catalog_leave_neutral(nest_level);
	if (source->objects_recorded)
		objects_check(objects_of(expr), source->objects,
					  psprintf("the filter of source \"%s\"", source->name));
	return expr;
}

/* A text as it will be stored, for error_guard(). */
typedef struct FilterReading
{
	Relation	rel;
	SourceDef	def;
	Node	   *expr;
} FilterReading;

static void
read_filter(void *arg)
{
	FilterReading *reading = arg;

	reading->expr = source_filter_read(reading->rel, &reading->def);
}

char *
source_filter_settle(Relation rel, const char *filter, List **objects)
{
	Node	   *expr = source_filter_parse(rel, filter);
	FilterReading reading = {rel};
	const char *differs;
	ErrorData  *error;

	reading.def.filter = source_filter_text(RelationGetRelid(rel), expr);
	*objects = objects_of(expr);
	error = error_guard(read_filter, &reading, false);
	if (error != NULL && error_class(error->sqlerrcode) == ERROR_OF_OUTAGE)
		ReThrowError(error);
	differs = error != NULL ?
		psprintf("Read again with all names qualified, it fails: %s.",
				 error->message) :
		objects_difference(*objects, objects_of(reading.expr));
	if (differs != NULL)
		ereport(ERROR,
				errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("\"filter\" cannot be stored so that it keeps its meaning"),
				errdetail("%s", differs),
				errhint("Use IS DISTINCT FROM, NULLIF and CASE with an operand with types of PostgreSQL only; write the equality of other types as an operator."));
	return reading.def.filter;
}
