/*-------------------------------------------------------------------------
 *
 * stream_partial.c
 *	  Mergeable states of aggregates, as SQL.
 *
 * An aggregate is kept as one or more columns of partial state, each with
 * three expressions: how a batch makes it, how it is merged into the stored
 * one, and how the states of panes combine.  A final expression over the
 * columns gives the aggregate's value.  Equal columns are kept once: avg and
 * sum of one argument share a sum.
 *
 *	 aggregate						state				exactness
 *	 count							bigint
 *	 sum, avg of integers			numeric (count)		exact; only the final
 *														cast of sum can overflow
 *	 sum, avg of numeric			numeric (count)		exact
 *	 sum, avg of float4, float8		float8 (count)		1e-9; sum of float4 is
 *														rounded once, at the end
 *	 sum, avg of interval, money	the type (count)	exact
 *	 min, max, bool_and, bool_or	the type			exact
 *	 bit_and, bit_or of integers	the type			exact
 *	 var*, stddev* of integers and
 *	 numeric						count, sum, sum of	exact, PostgreSQL's
 *									squares, numeric	formula
 *	 var*, stddev* of floats		float8[4]			1e-9, see stream_float.c
 *
 * In the expressions "@" stands for the column: s.@ is the stored value,
 * excluded.@ the batch's, p.@ a pane's.  Sums are NULL until there is a value.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "stream_internal.h"

#define MERGE_SUM "coalesce(s.@ + excluded.@, s.@, excluded.@)"

/* One aggregate of the query while its templates are filled in. */
typedef struct AggregateContext
{
	StreamParts *parts;
	const char *name;			/* of the function */
	char	   *arg;			/* column of r, "*" for count(*) */
	Oid			type;			/* of the argument */
	Oid			result;			/* of the aggregate */
	Oid			collation;		/* of the result */
	char	   *filter;			/* " FILTER (WHERE c1)" or "" */
} AggregateContext;

/* Number in *list, from 1, of an expression equal to node; added if new. */
static int
expression_number(List **list, Node *node)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, *list)
	{
		n++;
		if (equal(lfirst(lc), node))
			return n;
	}
	*list = lappend(*list, node);
	return n + 1;
}

/*
 * Copy of an expression with "@" replaced by the column, but for what stands
 * in double quotes, which is a name of the user's.
 */
static char *
fill_in(const char *template, const char *column)
{
	StringInfoData buf;
	bool		quoted = false;

	initStringInfo(&buf);
	for (; *template != '\0'; template++)
	{
		quoted ^= *template == '"';
		if (*template == '@' && !quoted)
			appendStringInfoString(&buf, column);
		else
			appendStringInfoChar(&buf, *template);
	}
	return buf.data;
}

/* The column of partial state with this definition; made if new. */
static char *
partial_column(StreamParts *parts, const char *type, const char *make,
			   const char *merge, const char *combine)
{
	StreamPartial *partial;
	ListCell   *lc;

	foreach(lc, parts->partials)
	{
		partial = lfirst(lc);
		if (strcmp(partial->make, make) == 0 &&
			strcmp(partial->type, type) == 0)
			return partial->column;
	}
	partial = palloc0(sizeof(StreamPartial));
	partial->column = psprintf("s%d", list_length(parts->partials) + 1);
	partial->type = pstrdup(type);
	partial->make = pstrdup(make);
	partial->merge = fill_in(merge, partial->column);
	partial->combine = fill_in(combine, partial->column);
	parts->partials = lappend(parts->partials, partial);
	return partial->column;
}

static char *
count_column(const AggregateContext *agg)
{
	return partial_column(agg->parts, "bigint",
						  psprintf("count(%s)%s", agg->arg, agg->filter),
						  "s.@ + excluded.@", "sum(p.@)::bigint");
}

/*
 * Sum of the argument; of its square when squared.  In a batch integers are
 * summed by PostgreSQL's fast paths; squares of int8 need numeric.
 */
static char *
sum_column(const AggregateContext *agg, bool squared)
{
	const char *arg = agg->arg;
	const char *type;
	const char *cast = "";
	char	   *value;

	switch (agg->type)
	{
		case INT2OID:
		case INT4OID:
			type = "numeric";
			cast = "::numeric";
			value = squared ?
				psprintf("%s::bigint * %s::bigint", arg, arg) : pstrdup(arg);
			break;
		case INT8OID:
			type = "numeric";
			value = squared ?
				psprintf("%s::numeric * %s::numeric", arg, arg) : pstrdup(arg);
			break;
		case NUMERICOID:
			type = "numeric";
			value = squared ? psprintf("%s * %s", arg, arg) : pstrdup(arg);
			break;
		case FLOAT4OID:
			type = "double precision";
			value = psprintf("%s::double precision", arg);
			break;
		case FLOAT8OID:
			type = "double precision";
			value = pstrdup(arg);
			break;
		default:				/* interval, money */
			type = stream_type_text(agg->type, -1);
			value = pstrdup(arg);
			break;
	}
	return partial_column(agg->parts, type,
						  psprintf("sum(%s)%s%s", value, agg->filter, cast),
						  MERGE_SUM, "sum(p.@)");
}

static char *
sum_final(const AggregateContext *agg)
{
	const char *sum = sum_column(agg, false);

	switch (agg->type)
	{
		case INT2OID:
		case INT4OID:
			return psprintf("%s::bigint", sum);
		case FLOAT4OID:
			return psprintf("%s::real", sum);
		default:
			return pstrdup(sum);
	}
}

/*
 * NULL / 0 is NULL, not an error: a sum of nothing is NULL.  The operator of
 * floats would raise an error where the average is too small for one.
 */
static char *
avg_final(const AggregateContext *agg)
{
	if (agg->type == FLOAT4OID || agg->type == FLOAT8OID)
		return psprintf("float8_avg(ARRAY[%s::double precision, coalesce(%s, 0), 0])",
						count_column(agg), sum_column(agg, false));
	return psprintf("%s / %s", sum_column(agg, false), count_column(agg));
}

static char *
variance_final(const AggregateContext *agg)
{
	const char *name = agg->name;
	bool		stddev = strncmp(name, "stddev", 6) == 0;
	bool		sample = strstr(name, "_pop") == NULL;

	if (agg->type == FLOAT4OID || agg->type == FLOAT8OID)
	{
		const char *state;

		state = partial_column(agg->parts, "double precision[]",
							   psprintf("weir_internal.float_partial(%s%s)%s",
										agg->arg,
										agg->type == FLOAT4OID ?
										"::double precision" : "",
										agg->filter),
							   "weir_internal.float_combine(s.@, excluded.@)",
							   "weir_internal.float_combine_partials(p.@)");
		return psprintf("float8_%s_%s(%s[1:3])", stddev ? "stddev" : "var",
						sample ? "samp" : "pop", state);
	}
	return psprintf("weir_internal.numeric_%s(%s, %s, %s, %s)",
					stddev ? "stddev" : "variance",
					count_column(agg), sum_column(agg, false),
					sum_column(agg, true), sample ? "true" : "false");
}

/*
 * An aggregate with a sort operator is, by its definition, the least or the
 * greatest value: min, max, bool_and and bool_or of any type, from any
 * extension.  NULL if this is none.
 */
static char *
extreme_final(const AggregateContext *agg, const Aggref *aggref)
{
	HeapTuple	tuple = SearchSysCache1(AGGFNOID,
										ObjectIdGetDatum(aggref->aggfnoid));
	Oid			opfamily = lookup_type_cache(agg->type,
											 TYPECACHE_BTREE_OPFAMILY)->btree_opf;
	Oid			sortop;
	int			strategy;
	char	   *call;
	Oid			namespace = get_func_namespace(aggref->aggfnoid);

	sortop = ((Form_pg_aggregate) GETSTRUCT(tuple))->aggsortop;
	ReleaseSysCache(tuple);
	if (!OidIsValid(sortop) || !OidIsValid(opfamily) ||
		list_length(aggref->args) != 1)
		return NULL;
	strategy = get_op_opfamily_strategy(sortop, opfamily);
	if (strategy != BTLessStrategyNumber &&
		strategy != BTGreaterStrategyNumber)
		return NULL;

	call = namespace == PG_CATALOG_NAMESPACE ? pstrdup(agg->name) :
		quote_qualified_identifier(get_namespace_name(namespace), agg->name);
	return partial_column(agg->parts,
						  psprintf("%s%s",
								   stream_type_text(agg->result, -1),
								   stream_collate_text(agg->result,
													   agg->collation)),
						  psprintf("%s(%s)%s", call, agg->arg, agg->filter),
						  strategy == BTLessStrategyNumber ?
						  "least(s.@, excluded.@)" :
						  "greatest(s.@, excluded.@)",
						  psprintf("%s(p.@)", call));
}

static char *
bits_final(const AggregateContext *agg, const char *op)
{
	return partial_column(agg->parts, stream_type_text(agg->result, -1),
						  psprintf("%s(%s)%s", agg->name, agg->arg,
								   agg->filter),
						  psprintf("coalesce(s.@ %s excluded.@, s.@, excluded.@)",
								   op),
						  psprintf("%s(p.@)", agg->name));
}

static bool
is_number(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID ||
		type == NUMERICOID || type == FLOAT4OID || type == FLOAT8OID;
}

/* The final expression of a built-in aggregate; NULL if it is not known. */
static char *
builtin_final(const AggregateContext *agg)
{
	static const char *const variances[] = {
		"variance", "var_samp", "var_pop", "stddev", "stddev_samp",
		"stddev_pop"
	};
	const char *name = agg->name;

	if (strcmp(name, "count") == 0)
		return count_column(agg);
	if (strcmp(name, "sum") == 0 &&
		(is_number(agg->type) || agg->type == INTERVALOID ||
		 agg->type == MONEYOID))
		return sum_final(agg);
	if (strcmp(name, "avg") == 0 &&
		(is_number(agg->type) || agg->type == INTERVALOID))
		return avg_final(agg);
	for (int i = 0; i < lengthof(variances); i++)
	{
		if (strcmp(name, variances[i]) == 0 && is_number(agg->type))
			return variance_final(agg);
	}
	if (agg->type == INT2OID || agg->type == INT4OID || agg->type == INT8OID)
	{
		if (strcmp(name, "bit_and") == 0)
			return bits_final(agg, "&");
		if (strcmp(name, "bit_or") == 0)
			return bits_final(agg, "|");
	}
	return NULL;
}

static void
refuse_aggregate(bool refused, const char *name, const char *what)
{
	if (refused)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("aggregate %s%s is not supported in a stream in this release",
						name, what)));
}

static void
make_partials(StreamParts *parts, StreamAggregate *aggregate)
{
	Aggref	   *aggref = aggregate->aggref;
	AggregateContext agg;

	agg.parts = parts;
	agg.name = get_func_name(aggref->aggfnoid);
	refuse_aggregate(aggref->aggdistinct != NIL, agg.name, " with DISTINCT");
	refuse_aggregate(aggref->aggkind != AGGKIND_NORMAL, agg.name, "");
	refuse_aggregate(aggref->aggorder != NIL, agg.name, " with ORDER BY");
	refuse_aggregate(list_length(aggref->args) > 1 || aggref->aggvariadic,
					 agg.name, "");

	agg.result = aggref->aggtype;
	agg.collation = aggref->aggcollid;
	agg.type = InvalidOid;
	agg.arg = "*";
	if (aggref->args != NIL)
	{
		Node	   *arg = (Node *) linitial_node(TargetEntry,
												 aggref->args)->expr;

		agg.arg = psprintf("x%d", expression_number(&parts->args, arg));
		agg.type = exprType(arg);
	}
	agg.filter = "";
	if (aggref->aggfilter != NULL)
		agg.filter = psprintf(" FILTER (WHERE c%d)",
							  expression_number(&parts->filters,
												(Node *) aggref->aggfilter));

	if (OidIsValid(agg.type))
		aggregate->final = extreme_final(&agg, aggref);
	if (aggregate->final == NULL &&
		get_func_namespace(aggref->aggfnoid) == PG_CATALOG_NAMESPACE)
		aggregate->final = builtin_final(&agg);
	refuse_aggregate(aggregate->final == NULL, agg.name, "");
}

/* Fill in args, filters, partials and the aggregates' final expressions. */
void
stream_make_partials(StreamPlan *plan)
{
	StreamParts *parts = stream_parts(plan);
	int			nest_level = stream_enter_deparse();
	ListCell   *lc;

	foreach(lc, parts->aggregates)
		make_partials(parts, lfirst(lc));

	/* A group without aggregates still needs something to merge. */
	if (parts->partials == NIL)
		partial_column(parts, "bigint", "count(*)", "s.@ + excluded.@",
					   "sum(p.@)::bigint");
	stream_leave_deparse(nest_level);
}
