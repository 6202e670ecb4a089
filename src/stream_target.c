/*-------------------------------------------------------------------------
 *
 * stream_target.c
 *	  Tables of a stream: DDL of its state and target, check of a target.
 *
 * The state's unique index begins with the window, so that closing reads a
 * prefix of it; columns of partial state are in no index, so that merging is
 * HOT.  Both kinds of index are NULLS NOT DISTINCT: NULL is a group of its own,
 * as in GROUP BY.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_index.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "stream_internal.h"

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

static void
add_column_definition(StringInfo buf, const char *name, const char *type,
					  const char *collate, bool not_null)
{
	appendStringInfo(buf, "%s\n\t%s %s%s%s", buf->data[buf->len - 1] == '(' ?
					 "" : ",", quote_identifier(name), type, collate,
					 not_null ? " NOT NULL" : "");
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

static void
add_row_state(StringInfo buf, const StreamPlan *plan)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, plan->key_columns)
	{
		StreamOutput *output = output_named(plan, lfirst(lc));

		add_column_definition(buf, psprintf("k%d", ++n),
							  stream_type_text(output->type, output->typmod),
							  stream_collate_text(output->type,
												  output->collation), false);
	}
	add_column_definition(buf, "kafka_timestamp", "timestamp with time zone",
						  "", true);
	add_column_definition(buf, "kafka_partition", "integer", "", true);
}

static void
add_group_state(StringInfo buf, const StreamPlan *plan)
{
	const StreamParts *parts = stream_parts(plan);
	ListCell   *lc;

	if (plan->kind == STREAM_WINDOW)
	{
		add_column_definition(buf, "window_end", "timestamp with time zone",
							  "", true);
		add_column_definition(buf, "window_start", "timestamp with time zone",
							  "", true);
	}
	foreach(lc, parts->keys)
	{
		StreamKey  *key = lfirst(lc);

		if (!key->is_window)
			add_column_definition(buf, key->column,
								  stream_type_text(getBaseType(key->type), -1),
								  stream_collate_text(key->type,
													  key->collation), false);
	}
	foreach(lc, parts->partials)
	{
		StreamPartial *partial = lfirst(lc);

		add_column_definition(buf, partial->column, partial->type, "", false);
	}
}

static List *
table_ddl(const char *table, const char *columns, List *key, int fillfactor)
{
	List	   *ddl = NIL;

	ddl = lappend(ddl, psprintf("CREATE TABLE %s %s\n) WITH (fillfactor = %d)",
								table, columns, fillfactor));
	if (key != NIL)
		ddl = lappend(ddl,
					  psprintf("CREATE UNIQUE INDEX ON %s (%s) NULLS NOT DISTINCT",
							   table, stream_column_list(key, "")));
	return lappend(ddl, psprintf("ALTER TABLE %s REPLICA IDENTITY FULL", table));
}

List *
stream_state_ddl(const StreamPlan *plan, const char *state, int fillfactor)
{
	StringInfoData columns;
	int			nest_level;

	if (plan->kind == STREAM_ROW && plan->key_columns == NIL)
		return NIL;
	initStringInfo(&columns);
	appendStringInfoChar(&columns, '(');
	nest_level = stream_enter_deparse();
	if (plan->kind == STREAM_ROW)
		add_row_state(&columns, plan);
	else
		add_group_state(&columns, plan);
	stream_leave_deparse(nest_level);
	return table_ddl(state, columns.data, stream_state_columns(plan, true),
					 fillfactor);
}

List *
stream_target_ddl(const StreamPlan *plan, const char *target, int fillfactor)
{
	StringInfoData columns;
	int			nest_level;
	ListCell   *lc;

	initStringInfo(&columns);
	appendStringInfoChar(&columns, '(');
	nest_level = stream_enter_deparse();
	foreach(lc, plan->outputs)
	{
		StreamOutput *output = lfirst(lc);

		add_column_definition(&columns, output->name,
							  stream_type_text(output->type, output->typmod),
							  stream_collate_text(output->type,
												  output->collation),
							  output->is_window);
	}
	stream_leave_deparse(nest_level);
	return table_ddl(target, columns.data, plan->key_columns, fillfactor);
}

/*
 * Do different keys stay different in the column?  Those of the same type do
 * unless it is rounded; so do those of wider types, and what is an error when
 * it does not fit.
 */
static bool
key_stays(const StreamOutput *output, Form_pg_attribute att)
{
	static const Oid safe[][2] = {
		{INT2OID, INT4OID}, {INT2OID, INT8OID}, {INT2OID, NUMERICOID},
		{INT4OID, INT2OID}, {INT4OID, INT8OID}, {INT4OID, NUMERICOID},
		{INT8OID, INT2OID}, {INT8OID, INT4OID}, {INT8OID, NUMERICOID},
		{FLOAT4OID, FLOAT8OID}, {DATEOID, TIMESTAMPOID}
	};
	int32		typmod = att->atttypmod;
	Oid			type = getBaseTypeAndTypmod(att->atttypid, &typmod);
	Oid			from = getBaseType(output->type);

	if (type == TEXTOID || type == VARCHAROID)
		return true;
	if (type == from)
		return typmod == -1 || typmod == output->typmod || type == BPCHAROID ||
			((type == TIMESTAMPTZOID || type == TIMESTAMPOID) &&
			 typmod == MAX_TIMESTAMP_PRECISION);
	for (int i = 0; typmod == -1 && i < lengthof(safe); i++)
		if (from == safe[i][0] && type == safe[i][1])
			return true;
	return false;
}

static bool
is_key_column(const StreamPlan *plan, const char *name)
{
	ListCell   *lc;

	foreach(lc, plan->key_columns)
		if (strcmp(lfirst(lc), name) == 0)
		return true;
	return false;
}

/* The columns that a stream writes: there, writable, of assignable types. */
static void
check_written_columns(const StreamPlan *plan, Relation rel)
{
	ListCell   *lc;

	foreach(lc, plan->outputs)
	{
		StreamOutput *output = lfirst(lc);
		AttrNumber	attno = get_attnum(RelationGetRelid(rel), output->name);
		Form_pg_attribute att;

		if (attno <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("target \"%s\" has no column \"%s\"",
							RelationGetRelationName(rel), output->name),
					 errhint("Add the column, or name the output column of the query differently with AS.")));
		att = TupleDescAttr(RelationGetDescr(rel), attno - 1);
		if (att->attgenerated != '\0' || att->attidentity == 'a')
			ereport(ERROR,
					(errcode(ERRCODE_GENERATED_ALWAYS),
					 errmsg("column \"%s\" of target \"%s\" is generated always",
							output->name, RelationGetRelationName(rel)),
					 errhint("Leave it out of the query's output.")));
		if (!can_coerce_type(1, &output->type, &att->atttypid,
							 COERCION_ASSIGNMENT))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" of target \"%s\" is of type %s, but the query gives %s",
							output->name, RelationGetRelationName(rel),
							format_type_be(att->atttypid),
							format_type_be(output->type)),
					 errhint("Cast the output column of the query.")));
		if (is_key_column(plan, output->name) && !key_stays(output, att))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" of target \"%s\" is of type %s, but the key of the stream is of type %s",
							output->name, RelationGetRelationName(rel),
							format_type_with_typemod(att->atttypid,
													 att->atttypmod),
							format_type_with_typemod(output->type,
													 output->typmod)),
					 errdetail("Different keys could become the same."),
					 errhint("Give the column the type %s, or cast the key in the query.",
							 format_type_with_typemod(output->type,
													  output->typmod))));
	}
}

/* The columns that it does not write must do without. */
static void
check_other_columns(const StreamPlan *plan, Relation rel)
{
	for (int i = 0; i < RelationGetNumberOfAttributes(rel); i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i);
		bool		written = false;
		ListCell   *lc;

		if (att->attisdropped || !att->attnotnull || att->atthasdef ||
			att->attidentity != '\0')
			continue;
		foreach(lc, plan->outputs)
			written |= strcmp(((StreamOutput *) lfirst(lc))->name,
							  NameStr(att->attname)) == 0;
		if (!written)
			ereport(ERROR,
					(errcode(ERRCODE_NOT_NULL_VIOLATION),
					 errmsg("column \"%s\" of target \"%s\" is NOT NULL and has no default, but the query does not give it",
							NameStr(att->attname),
							RelationGetRelationName(rel)),
					 errhint("Add the column to the query's output, or give it a default.")));
	}
}

/* A collation may take different texts for equal, which the query does not. */
static bool
tells_apart(const StreamPlan *plan, const char *name, Oid collation)
{
	ListCell   *lc;

	if (!OidIsValid(collation) || get_collation_isdeterministic(collation))
		return true;
	foreach(lc, plan->outputs)
	{
		StreamOutput *output = lfirst(lc);

		if (strcmp(output->name, name) == 0)
			return output->collation == collation;
	}
	return false;
}

/* Is it a unique index over exactly the key columns, NULLs included? */
static bool
index_fits(const StreamPlan *plan, Relation rel, Oid indexoid)
{
	Relation	index = index_open(indexoid, AccessShareLock);
	Form_pg_index form = index->rd_index;
	bool		fits;
	ListCell   *lc;

	fits = form->indisunique && form->indisvalid && form->indimmediate &&
		!form->indisexclusion &&
		heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL) &&
		form->indnkeyatts == list_length(plan->key_columns);
	foreach(lc, plan->key_columns)
	{
		AttrNumber	attno = get_attnum(RelationGetRelid(rel), lfirst(lc));
		bool		found = false;

		for (int i = 0; i < form->indnkeyatts; i++)
			found |= form->indkey.values[i] == attno &&
				tells_apart(plan, lfirst(lc), index->rd_indcollation[i]);
		fits = fits && found &&
			(form->indnullsnotdistinct ||
			 TupleDescAttr(RelationGetDescr(rel), attno - 1)->attnotnull);
	}
	index_close(index, AccessShareLock);
	return fits;
}

static void
check_key(const StreamPlan *plan, Relation rel)
{
	ListCell   *lc;
	bool		fits = false;

	if (plan->key_columns == NIL)
		return;
	foreach(lc, RelationGetIndexList(rel))
		fits = fits || index_fits(plan, rel, lfirst_oid(lc));
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("target \"%s\" has no unique index over the key of the stream",
						RelationGetRelationName(rel)),
				 errhint("CREATE UNIQUE INDEX ON %s (%s) NULLS NOT DISTINCT.",
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
													RelationGetRelationName(rel)),
						 stream_column_list(plan->key_columns, ""))));
}

/* A violation must show when a row is written, not at commit. */
static void
check_constraints(Relation rel)
{
	Relation	catalog = table_open(ConstraintRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(RelationGetRelid(rel)));
	scan = systable_beginscan(catalog, ConstraintRelidTypidNameIndexId, true,
							  NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(tuple);

		if (con->condeferred)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("constraint \"%s\" of target \"%s\" is INITIALLY DEFERRED",
							NameStr(con->conname),
							RelationGetRelationName(rel)),
					 errhint("ALTER TABLE ... ALTER CONSTRAINT ... INITIALLY IMMEDIATE.")));
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
}

void
stream_check_target(const StreamPlan *plan, Oid target)
{
	Relation	rel = relation_open(target, AccessShareLock);
	char		relkind = rel->rd_rel->relkind;

	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("target \"%s\" is not an ordinary or partitioned table",
						RelationGetRelationName(rel))));
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("target \"%s\" is a temporary table",
						RelationGetRelationName(rel)),
				 errhint("Use an ordinary table: the stream writes it in another session.")));
	check_written_columns(plan, rel);
	check_other_columns(plan, rel);
	check_key(plan, rel);
	check_constraints(rel);
	relation_close(rel, NoLock);
}
