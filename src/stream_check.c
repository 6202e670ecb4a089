/*-------------------------------------------------------------------------
 *
 * stream_check.c
 *	  What the target and the state of a stream must be.
 *
 * A stream is exact only on tables that keep what it writes, where it writes
 * it: that a crash does not empty, whose key tells its groups apart, where
 * nothing turns a write into another one, or hides a row from it.
 *
 * The rules are lists of functions.  weir.create_stream() asks them before it
 * makes the stream, and its worker again before the next batch whenever any
 * of the tables has changed (stream_follow.c), so that what creation refuses
 * is refused for as long as the stream lives.  A new rule is one more
 * function in a list.
 *
 * Rules raise an error with the reason and a hint.  They run as the stream's
 * owner, or as who is going to be, in a transaction; they lock the tables in
 * AccessShareLock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_policy.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_type.h"
#include "postmaster/bgworker.h"
#include "rewrite/prs2lock.h"
#include "rewrite/rewriteDefine.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rowsecurity.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/rls.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "compat.h"
#include "stream_internal.h"

/* A table that is checked, and how messages call it. */
typedef struct CheckedTable
{
	const StreamPlan *plan;
	Relation	rel;
	const char *what;			/* "target" or "state table" */
} CheckedTable;

typedef void (*TableRule) (const CheckedTable *table);

/*
 * Of any table that a stream writes
 */

/* It can be written in a worker, and outlives a crash. */
static void
check_storage(const CheckedTable *table)
{
	Relation	rel = table->rel;
	const char *name = RelationGetRelationName(rel);

	if (rel->rd_rel->relkind == RELKIND_FOREIGN_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("partition \"%s\" of the %s is a foreign table", name,
						table->what),
				 errdetail("What is written elsewhere is not committed together with the stream's offsets."),
				 errhint("Detach the partition.")));
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_PERMANENT)
		return;
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s \"%s\" is not a permanent table", table->what,
						name),
				 errdetail("It is a temporary table, which other sessions cannot see: a background worker writes it."),
				 errhint("Use an ordinary table.")));
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s \"%s\" is not a permanent table",
					rel->rd_rel->relispartition ?
					psprintf("partition of the %s", table->what) : table->what,
					name),
			 errdetail("A crash would empty it, while its stream goes on from where it was.")));
}

/*
 * A violation must show when a row is written, not at commit.  Everything
 * that can be deferred has a trigger; those of foreign keys that refer to the
 * table are its own, too.  A user's constraint trigger must not even be
 * deferrable, since another trigger could defer it; PostgreSQL refuses that in
 * a security-restricted operation, which is where the SQLSTATE is from.
 */
static void
check_deferred(const CheckedTable *table)
{
	TriggerDesc *triggers = table->rel->trigdesc;

	for (int i = 0; triggers && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];
		char	   *constraint = get_constraint_name(trigger->tgconstraint);

		if (!trigger->tginitdeferred &&
			(trigger->tgisinternal || !trigger->tgdeferrable))
			continue;
		ereport(ERROR,
				(errcode(trigger->tgisinternal ?
						 ERRCODE_FEATURE_NOT_SUPPORTED :
						 ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("constraint \"%s\" of %s \"%s\" is %s",
						constraint ? constraint : trigger->tgname,
						table->what, RelationGetRelationName(table->rel),
						trigger->tginitdeferred ? "INITIALLY DEFERRED" :
						"a DEFERRABLE trigger"),
				 errdetail("A violation must show when a row is written, not at commit."),
				 trigger->tgisinternal ?
				 errhint("ALTER TABLE ... ALTER CONSTRAINT ... INITIALLY IMMEDIATE.") :
				 errhint("Make the trigger NOT DEFERRABLE.")));
	}
}

/* A rule writes something else, or nothing. */
static void
check_rules(const CheckedTable *table)
{
	RuleLock   *rules = table->rel->rd_rules;

	for (int i = 0; rules && i < rules->numLocks; i++)
	{
		if (rules->rules[i]->enabled == RULE_DISABLED ||
			rules->rules[i]->enabled == RULE_FIRES_ON_REPLICA)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s \"%s\" has a rule", table->what,
						RelationGetRelationName(table->rel)),
				 errdetail("A rule puts another command in place of what the stream writes."),
				 errhint("Drop the rule, or use a trigger.")));
	}
}

/* Rows of children would be read, and deleted, with those of the table. */
static void
check_children(const CheckedTable *table)
{
	Oid			relid = RelationGetRelid(table->rel);
	List	   *children;

	if (table->rel->rd_rel->relkind != RELKIND_RELATION ||
		!has_subclass(relid))
		return;
	children = find_inheritance_children(relid, NoLock);
	if (children != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table \"%s\" inherits from %s \"%s\"",
						get_rel_name(linitial_oid(children)), table->what,
						RelationGetRelationName(table->rel)),
				 errdetail("The stream would read and delete its rows as well, and no key spans both."),
				 errhint("ALTER TABLE ... NO INHERIT, or use a partitioned table.")));
}

/*
 * Row security
 */

static bool
policy_concerns(const RowSecurityPolicy *policy, char command)
{
	Oid		   *roles = (Oid *) ARR_DATA_PTR(policy->roles);

	if (policy->polcmd != '*' && policy->polcmd != command)
		return false;
	for (int i = 0; i < ARR_DIMS(policy->roles)[0]; i++)
		if (roles[i] == ACL_ID_PUBLIC ||
			has_privs_of_role(GetUserId(), roles[i]))
			return true;
	return false;
}

static bool
is_true(const Expr *qual)
{
	return qual != NULL && IsA(qual, Const) && !((const Const *) qual)->constisnull &&
		DatumGetBool(((const Const *) qual)->constvalue);
}

/* Does row security let the user see every row for a command? */
static bool
sees_all(Relation rel, char command)
{
	bool		permitted = false;
	ListCell   *lc;

	if (rel->rd_rsdesc == NULL)
		return false;
	foreach(lc, rel->rd_rsdesc->policies)
	{
		RowSecurityPolicy *policy = lfirst(lc);

		if (!policy_concerns(policy, command))
			continue;
		if (policy->permissive)
			permitted |= is_true(policy->qual);
		else if (policy->qual != NULL && !is_true(policy->qual))
			return false;
	}
	return permitted;
}

/*
 * A stream with a key changes and deletes rows: one that a policy hides from
 * it would stay as it is, without a word.  What a policy does not let it add
 * is an error.
 */
static void
check_row_security(const CheckedTable *table)
{
	static const char commands[] = {ACL_SELECT_CHR, ACL_UPDATE_CHR, ACL_DELETE_CHR};

	if (table->plan->key_columns == NIL ||
		check_enable_rls(RelationGetRelid(table->rel), InvalidOid,
						 true) != RLS_ENABLED)
		return;
	for (int i = 0; i < lengthof(commands); i++)
	{
		if (sees_all(table->rel, commands[i]))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("row security of %s \"%s\" may hide rows from the stream",
						table->what, RelationGetRelationName(table->rel)),
				 errdetail("Rows that the stream's owner does not see could not be kept up to date."),
				 errhint("Make a policy FOR ALL TO %s USING (true), or disable row security.",
						 quote_identifier(GetUserNameFromId(GetUserId(), false)))));
	}
}

/*
 * Of a target
 */

static void
check_kind(const CheckedTable *table)
{
	char		relkind = table->rel->rd_rel->relkind;

	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s \"%s\" is not an ordinary or partitioned table",
						table->what, RelationGetRelationName(table->rel))));
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
check_written_columns(const CheckedTable *table)
{
	const StreamPlan *plan = table->plan;
	Relation	rel = table->rel;
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
check_other_columns(const CheckedTable *table)
{
	const StreamPlan *plan = table->plan;
	Relation	rel = table->rel;

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

/* Does an index compare a column with the equality that GROUP BY has? */
static bool
compares_alike(Relation index, int i, Form_pg_attribute att)
{
	return get_opfamily_member(index->rd_opfamily[i], index->rd_opcintype[i],
							   index->rd_opcintype[i],
							   BTEqualStrategyNumber) ==
		lookup_type_cache(att->atttypid, TYPECACHE_EQ_OPR)->eq_opr;
}

/* Is it a unique index over exactly these columns, NULLs included? */
static bool
index_fits(const StreamPlan *plan, List *columns, Relation rel,
		   Oid indexoid)
{
	Relation	index = index_open(indexoid, AccessShareLock);
	Form_pg_index form = index->rd_index;
	bool		fits;
	ListCell   *lc;

	fits = form->indisunique && form->indisvalid && form->indimmediate &&
		!form->indisexclusion &&
		heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL) &&
		form->indnkeyatts == list_length(columns);
	foreach(lc, columns)
	{
		AttrNumber	attno = get_attnum(RelationGetRelid(rel), lfirst(lc));
		bool		found = false;

		if (attno <= 0)
		{
			fits = false;
			break;
		}
		for (int i = 0; i < form->indnkeyatts; i++)
			found |= form->indkey.values[i] == attno &&
				compares_alike(index, i,
							   TupleDescAttr(RelationGetDescr(rel), attno - 1)) &&
				(plan == NULL || tells_apart(plan, lfirst(lc),
											 index->rd_indcollation[i]));
		fits = fits && found &&
			(form->indnullsnotdistinct ||
			 TupleDescAttr(RelationGetDescr(rel), attno - 1)->attnotnull);
	}
	index_close(index, AccessShareLock);
	return fits;
}

/* plan: of the target, whose columns are its outputs; NULL: of a state. */
static bool
has_key(const StreamPlan *plan, List *columns, Relation rel)
{
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
		if (index_fits(plan, columns, rel, lfirst_oid(lc)))
		return true;
	return false;
}

/* Missing later, it is the error that the stream's ON CONFLICT would meet. */
static void
check_key(const CheckedTable *table)
{
	const StreamPlan *plan = table->plan;
	Relation	rel = table->rel;

	if (plan->key_columns != NIL && !has_key(plan, plan->key_columns, rel))
		ereport(ERROR,
				(errcode(MyBgworkerEntry != NULL ?
						 ERRCODE_INVALID_COLUMN_REFERENCE :
						 ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("target \"%s\" has no unique index over the key of the stream",
						RelationGetRelationName(rel)),
				 errhint("CREATE UNIQUE INDEX ON %s (%s) NULLS NOT DISTINCT.",
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
													RelationGetRelationName(rel)),
						 stream_column_list(plan->key_columns, ""))));
}

/*
 * Of a target with a key: what depends on the order of rows.  A batch writes
 * the last value of each key only, in the order of keys.
 */

/* Can rows of different keys not meet in it?  Since it has the key, too. */
static bool
has_whole_key(const CheckedTable *table, Form_pg_index form)
{
	ListCell   *lc;

	foreach(lc, table->plan->key_columns)
	{
		AttrNumber	attno = get_attnum(RelationGetRelid(table->rel),
									   lfirst(lc));
		bool		found = false;

		for (int i = 0; i < form->indnkeyatts; i++)
			found |= form->indkey.values[i] == attno;
		if (!found)
			return false;
	}
	return true;
}

/* Does PostgreSQL itself give the column another value in each row? */
static bool
is_numbered(const CheckedTable *table, AttrNumber attno)
{
	Form_pg_attribute att;
	ListCell   *lc;

	if (attno <= 0)
		return false;
	att = TupleDescAttr(RelationGetDescr(table->rel), attno - 1);
	foreach(lc, table->plan->outputs)
		if (strcmp(((StreamOutput *) lfirst(lc))->name,
				   NameStr(att->attname)) == 0)
		return false;
	if (att->attidentity != '\0')
		return true;
	return att->atthasdef && att->attgenerated == '\0' &&
		contain_volatile_functions(build_column_default(table->rel, attno));
}

/*
 * A unique index or exclusion constraint in which rows of different keys may
 * meet; NULL when there is none.  numbered: look at those on columns that are
 * numbered as well, where they do not.
 */
static char *
meeting_place(const CheckedTable *table, bool numbered)
{
	char	   *name = NULL;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(table->rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		Form_pg_index form = index->rd_index;
		bool		meets = (form->indisunique || form->indisexclusion) &&
		(form->indisexclusion || !has_whole_key(table, form));

		for (int i = 0; meets && !numbered && !form->indisexclusion &&
			 i < form->indnkeyatts; i++)
			meets = !is_numbered(table, form->indkey.values[i]);
		if (meets)
			name = pstrdup(RelationGetRelationName(index));
		index_close(index, AccessShareLock);
		if (name)
			break;
	}
	return name;
}

/* The value of a group has no place in the order of rows. */
static void
check_groups_apart(const CheckedTable *table)
{
	char	   *index;

	if (table->plan->kind == STREAM_ROW || table->plan->key_columns == NIL)
		return;
	index = meeting_place(table, false);
	if (index != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("target \"%s\" has a constraint between rows of different groups, \"%s\"",
						RelationGetRelationName(table->rel), index),
				 errdetail("Groups are written in no order that the rows of the source would tell, so which of two is refused would be left to chance."),
				 errhint("Drop it, or add the key of the stream (%s) to it.",
						 stream_column_list(table->plan->key_columns, ""))));
}

static bool
has_row_trigger(Relation rel)
{
	for (int i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &rel->trigdesc->triggers[i];

		if (!trigger->tgisinternal && TRIGGER_FOR_ROW(trigger->tgtype) &&
			trigger->tgenabled != TRIGGER_DISABLED &&
			trigger->tgenabled != TRIGGER_FIRES_ON_REPLICA)
			return true;
	}
	return false;
}

static bool
refers_to_itself(Relation rel)
{
	ListCell   *lc;

	foreach(lc, RelationGetFKeyList(rel))
		if (((ForeignKeyCacheInfo *) lfirst(lc))->confrelid ==
			RelationGetRelid(rel))
		return true;
	return false;
}

/*
 * Must rows take effect one after another?  In a row stream with a key, when
 * anything sees more of them than the last one of each key.
 */
bool
stream_in_order(const StreamPlan *plan, Oid target)
{
	List	   *members;
	ListCell   *lc;
	bool		in_order = false;

	if (plan->kind != STREAM_ROW || plan->key_columns == NIL)
		return false;
	members = find_all_inheritors(target, AccessShareLock, NULL);
	foreach(lc, members)
	{
		CheckedTable table = {plan, table_open(lfirst_oid(lc), AccessShareLock), "target"};

		in_order = in_order || meeting_place(&table, true) != NULL ||
			has_row_trigger(table.rel) || refers_to_itself(table.rel);
		for (int i = 1; i <= RelationGetNumberOfAttributes(table.rel); i++)
			in_order = in_order || (!TupleDescAttr(RelationGetDescr(table.rel), i - 1)->attisdropped &&
									is_numbered(&table, i));
		table_close(table.rel, NoLock);
	}
	return in_order;
}

/*
 * Of a state table
 */

static void
state_changed(const CheckedTable *table, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
			 errmsg("state table \"%s\" is not as the stream needs it",
					RelationGetRelationName(table->rel)),
			 errdetail_internal("%s", detail),
			 errhint("Drop the stream and create it again.")));
}

/*
 * The columns in their order with their types.  A type differs when a column
 * that the query reads has got another one since.
 */
static void
check_state_columns(const CheckedTable *table)
{
	TupleDesc	desc = RelationGetDescr(table->rel);
	ListCell   *lc;

	foreach(lc, stream_state_definition(table->plan))
	{
		StateColumn *column = lfirst(lc);
		AttrNumber	attno = get_attnum(RelationGetRelid(table->rel),
									   column->name);
		Oid			type;
		int32		typmod;

		if (attno <= 0)
			state_changed(table, psprintf("It has no column \"%s\".",
										  column->name));
		compat_parse_type(column->type, &type, &typmod);
		if (TupleDescAttr(desc, attno - 1)->atttypid != type ||
			TupleDescAttr(desc, attno - 1)->atttypmod != typmod)
			state_changed(table,
						  psprintf("Column \"%s\" is of type %s, but the query needs %s.",
								   column->name,
								   format_type_with_typemod(TupleDescAttr(desc, attno - 1)->atttypid,
															TupleDescAttr(desc, attno - 1)->atttypmod),
								   column->type));
	}
}

static void
check_state_key(const CheckedTable *table)
{
	if (!has_key(NULL, stream_state_columns(table->plan, true), table->rel))
		state_changed(table, "It has no unique index over its key.");
}

/*
 * Not one of a foreign key that refers to it either, which would keep rows
 * from being deleted; it has no constraints of its own.
 */
static void
check_no_triggers(const CheckedTable *table)
{
	TriggerDesc *triggers = table->rel->trigdesc;

	for (int i = 0; triggers && i < triggers->numtriggers; i++)
		if (triggers->triggers[i].tgenabled != TRIGGER_DISABLED)
			state_changed(table, psprintf("It has a trigger, \"%s\".",
										  triggers->triggers[i].tgname));
}

/*
 * The rules
 */

/* A table and, when it is partitioned, each of its partitions. */
static void
check_members(CheckedTable *table, const TableRule *rules, int nrules)
{
	List	   *members = list_make1_oid(RelationGetRelid(table->rel));
	CheckedTable member = *table;
	ListCell   *lc;

	if (table->rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		members = find_all_inheritors(RelationGetRelid(table->rel),
									  AccessShareLock, NULL);
	foreach(lc, members)
	{
		member.rel = table_open(lfirst_oid(lc), AccessShareLock);
		for (int i = 0; i < nrules; i++)
			rules[i] (&member);
		table_close(member.rel, NoLock);
	}
}

void
stream_check_target(const StreamPlan *plan, Oid target)
{
	static const TableRule rules[] = {
		check_kind, check_written_columns,
		check_other_columns, check_key, check_rules,
		check_children, check_row_security
	};
	static const TableRule member_rules[] = {check_storage, check_deferred};
	static const TableRule last_rules[] = {check_groups_apart};
	CheckedTable table = {plan, relation_open(target, AccessShareLock), "target"};

	rules[0] (&table);
	check_members(&table, member_rules, lengthof(member_rules));
	for (int i = 1; i < lengthof(rules); i++)
		rules[i] (&table);
	check_members(&table, last_rules, lengthof(last_rules));
	relation_close(table.rel, NoLock);
}

bool
stream_target_may_skip(Oid target)
{
	ListCell   *lc;
	bool		may = false;

	foreach(lc, find_all_inheritors(target, AccessShareLock, NULL))
	{
		Relation	rel = table_open(lfirst_oid(lc), NoLock);
		TriggerDesc *triggers = rel->trigdesc;

		may = may || (triggers && (triggers->trig_insert_before_row ||
								   triggers->trig_update_before_row ||
								   triggers->trig_delete_before_row));
		table_close(rel, NoLock);
	}
	return may;
}

void
stream_check_state(const StreamPlan *plan, Oid state)
{
	static const TableRule rules[] = {
		check_kind, check_storage, check_state_columns, check_state_key,
		check_deferred, check_rules, check_children, check_row_security,
		check_no_triggers
	};
	CheckedTable table = {plan, relation_open(state, AccessShareLock), "state table"};

	for (int i = 0; i < lengthof(rules); i++)
		rules[i] (&table);
	relation_close(table.rel, NoLock);
}
