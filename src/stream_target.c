/*-------------------------------------------------------------------------
 *
 * stream_target.c
 *	  Tables of a stream: DDL of its state and target.
 *
 * The state's unique index begins with the window, so that closing reads a
 * prefix of it; columns of partial state are in no index, so that merging is
 * HOT.  Both kinds of index are NULLS NOT DISTINCT: NULL is a group of its own,
 * as in GROUP BY.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_operator.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "compat.h"
#include "stream_internal.h"

/*
 * Closing a window deletes a range of keys, and the next windows need the
 * room.  By default a fifth of the table may be dead before it is vacuumed;
 * with many windows open that is many that have been closed.  Other kinds
 * update in place, which needs no vacuum.
 */
#define WINDOW_STATE_OPTIONS \
	", autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000"

/* Callers are between stream_enter_deparse and stream_leave_deparse. */
char *
stream_type_text(Oid type, int32 typmod)
{
	return format_type_extended(type, typmod, FORMAT_TYPE_TYPEMOD_GIVEN);
}

/* " COLLATE c" where the type's own collation is another; as above. */
char *
stream_collate_text(Oid type, Oid collation)
{
	if (!OidIsValid(collation) || collation == get_typcollation(type))
		return "";
	return psprintf(" COLLATE %s", generate_collation_name(collation));
}

/*
 * left = right for two values of a type, as GROUP BY and indexes compare
 * them.  If nullable, two NULLs are equal, written so that an index helps.
 */
char *
stream_equals(Oid type, const char *left, const char *right, bool nullable)
{
	Oid			op = lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr;
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(op));
	Form_pg_operator form = (Form_pg_operator) GETSTRUCT(tuple);
	char	   *equal;

	if (form->oprnamespace == PG_CATALOG_NAMESPACE)
		equal = psprintf("%s %s %s", left, NameStr(form->oprname), right);
	else
		equal = psprintf("%s OPERATOR(%s.%s) %s", left,
						 quote_identifier(get_namespace_name(form->oprnamespace)),
						 NameStr(form->oprname), right);
	ReleaseSysCache(tuple);
	if (!nullable)
		return equal;
	return psprintf("(%s OR (%s IS NULL AND %s IS NULL))", equal, left, right);
}

/* "prefix"a, "prefix"b ..., quoted. */
char *
stream_column_list(List *names, const char *prefix)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, names)
		appendStringInfo(&buf, "%s%s%s", buf.len > 0 ? ", " : "", prefix,
						 quote_identifier(lfirst(lc)));
	return buf.data;
}

/* Columns of the state table in order, of char *. */
List *
stream_state_columns(const StreamPlan *plan, bool keys_only)
{
	const StreamParts *parts = stream_parts(plan);
	List	   *columns = NIL;
	ListCell   *lc;
	int			n = 0;

	if (plan->kind == STREAM_ROW)
	{
		foreach(lc, plan->key_columns)
			columns = lappend(columns, psprintf("k%d", ++n));
		if (!keys_only)
		{
			columns = lappend(columns, "kafka_timestamp");
			columns = lappend(columns, "kafka_partition");
		}
		return columns;
	}
	if (plan->kind == STREAM_WINDOW)
		columns = list_make2("window_end", "window_start");
	foreach(lc, parts->keys)
	{
		if (!((StreamKey *) lfirst(lc))->is_window)
			columns = lappend(columns, ((StreamKey *) lfirst(lc))->column);
	}
	if (keys_only)
		return columns;
	foreach(lc, parts->partials)
		columns = lappend(columns, ((StreamPartial *) lfirst(lc))->column);
	return columns;
}

static StateColumn *
state_column(const char *name, const char *type, const char *collate,
			 bool not_null)
{
	StateColumn *column = palloc(sizeof(StateColumn));

	column->name = name;
	column->type = type;
	column->collate = collate;
	column->not_null = not_null;
	return column;
}

/* "name" type COLLATE c NOT NULL, ..., in parentheses. */
static char *
column_definitions(List *columns)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, columns)
	{
		StateColumn *column = lfirst(lc);

		appendStringInfo(&buf, "%s\n\t%s %s%s%s", buf.len == 0 ? "(" : ",",
						 quote_identifier(column->name), column->type,
						 column->collate,
						 column->not_null ? " NOT NULL" : "");
	}
	return buf.data;
}

static StreamOutput *
output_named(const StreamPlan *plan, const char *name)
{
	ListCell   *lc;

	foreach(lc, plan->outputs)
	{
		if (strcmp(((StreamOutput *) lfirst(lc))->name, name) == 0)
			return lfirst(lc);
	}
	elog(ERROR, "no output column \"%s\"", name);
	return NULL;
}

/*
 * Is it a column of the source that is NOT NULL?  That stays so, since a
 * source cannot be altered, and ingest keeps to it.
 */
static bool
never_null(const StreamPlan *plan, Node *expr)
{
	Var		   *var;
	HeapTuple	tuple;
	bool		result;

	expr = compat_flatten_aliases(plan->query, expr);
	while (IsA(expr, RelabelType))
		expr = (Node *) ((RelabelType *) expr)->arg;
	var = (Var *) expr;
	if (!IsA(expr, Var) || var->varlevelsup != 0 ||
		var->varno != stream_parts(plan)->source_rti || var->varattno <= 0)
		return false;
	tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(plan->source_relid),
							Int16GetDatum(var->varattno));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_attribute) GETSTRUCT(tuple))->attnotnull &&
		strcmp(NameStr(((Form_pg_attribute) GETSTRUCT(tuple))->attname),
			   "kafka_timestamp") != 0;
	ReleaseSysCache(tuple);
	return result;
}

/* The same of an output column. */
static bool
output_never_null(const StreamPlan *plan, const char *name)
{
	ListCell   *lc;

	foreach(lc, plan->query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (!tle->resjunk && strcmp(tle->resname, name) == 0)
			return never_null(plan, (Node *) tle->expr);
	}
	return false;
}

static List *
row_state(const StreamPlan *plan)
{
	List	   *columns = NIL;
	int			n = 0;
	ListCell   *lc;

	foreach(lc, plan->key_columns)
	{
		StreamOutput *output = output_named(plan, lfirst(lc));

		columns = lappend(columns,
						  state_column(psprintf("k%d", ++n),
									   stream_type_text(output->type,
														output->typmod),
									   stream_collate_text(output->type,
														   output->collation),
									   output_never_null(plan, output->name)));
	}
	columns = lappend(columns,
					  state_column("kafka_timestamp",
								   "timestamp with time zone", "", true));
	return lappend(columns,
				   state_column("kafka_partition", "integer", "", true));
}

static List *
group_state(const StreamPlan *plan)
{
	const StreamParts *parts = stream_parts(plan);
	List	   *columns = NIL;
	ListCell   *lc;

	if (plan->kind == STREAM_WINDOW)
		columns = list_make2(state_column("window_end",
										  "timestamp with time zone", "",
										  true),
							 state_column("window_start",
										  "timestamp with time zone", "",
										  true));
	foreach(lc, parts->keys)
	{
		StreamKey  *key = lfirst(lc);

		if (!key->is_window)
			columns = lappend(columns,
							  state_column(key->column,
										   stream_type_text(getBaseType(key->type), -1),
										   stream_collate_text(key->type,
															   key->collation),
										   never_null(plan, key->expr)));
	}
	foreach(lc, parts->partials)
	{
		StreamPartial *partial = lfirst(lc);

		columns = lappend(columns, state_column(partial->column,
												partial->type, "", false));
	}
	return columns;
}

/* Columns of the state table in order, of StateColumn *. */
List *
stream_state_definition(const StreamPlan *plan)
{
	int			nest_level = stream_enter_deparse();
	List	   *columns;

	columns = plan->kind == STREAM_ROW ? row_state(plan) : group_state(plan);
	stream_leave_deparse(nest_level);
	return columns;
}

static List *
table_ddl(const char *table, const char *columns, List *key,
		  const char *options)
{
	List	   *ddl = NIL;

	ddl = lappend(ddl, psprintf("CREATE TABLE %s %s\n) WITH (%s)", table,
								columns, options));
	if (key != NIL)
		ddl = lappend(ddl,
					  psprintf("CREATE UNIQUE INDEX ON %s (%s) NULLS NOT DISTINCT",
							   table, stream_column_list(key, "")));
	return ddl;
}

List *
stream_state_ddl(const StreamPlan *plan, const char *state, int fillfactor)
{
	if (plan->kind == STREAM_ROW && plan->key_columns == NIL)
		return NIL;
	return table_ddl(state, column_definitions(stream_state_definition(plan)),
					 stream_state_columns(plan, true),
					 psprintf("fillfactor = %d%s", fillfactor,
							  plan->kind == STREAM_WINDOW ?
							  WINDOW_STATE_OPTIONS : ""));
}

List *
stream_target_ddl(const StreamPlan *plan, const char *target, int fillfactor)
{
	List	   *columns = NIL;
	int			nest_level;
	ListCell   *lc;

	nest_level = stream_enter_deparse();
	foreach(lc, plan->outputs)
	{
		StreamOutput *output = lfirst(lc);

		columns = lappend(columns,
						  state_column(output->name,
									   stream_type_text(output->type,
														output->typmod),
									   stream_collate_text(output->type,
														   output->collation),
									   output->is_window));
	}
	stream_leave_deparse(nest_level);
	return lappend(table_ddl(target, column_definitions(columns),
							 plan->key_columns,
							 psprintf("fillfactor = %d", fillfactor)),
				   psprintf("ALTER TABLE %s REPLICA IDENTITY FULL", target));
}
