/*-------------------------------------------------------------------------
 *
 * ddl_hook.c
 *	  What DDL on sources, targets and dimensions may do.
 *
 * A source is a foreign table whose shape the staging segments, the workers
 * and weir's catalog share, so most of ALTER FOREIGN TABLE is refused: what
 * may change is its name, its columns' names, its owner and its schema.  A
 * column that takes its value from the JSON name equal to its own keeps that
 * name as its path when it is renamed.
 *
 * A source is dropped by weir.drop_source(), not by DROP FOREIGN TABLE.  But
 * it can go with something else (its server, schema or owner), and so can a
 * target or a state table.  An object access hook notes each relation that
 * is dropped; when the command is over, the catalog is brought in line with
 * what is left: a source's row and its streams go with it, a stream that
 * lost its target or state fails.  The same for a column that was dropped
 * from a source by some CASCADE: that command is refused.
 *
 * Renames of anything are bracketed by ddl_rename.h, so that the stored
 * texts follow.
 *
 * What would leave a stream's tables less durable than its position is
 * refused; anything else that they must not become is seen by the stream's
 * worker (stream_follow.c).
 *
 * Notes of dropped relations live until the end of the command, in memory of
 * the transaction; an error in between leaves notes of relations that still
 * exist, which is why existence is checked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "api.h"
#include "catalog_spi.h"
#include "ddl_durable.h"
#include "ddl_hook.h"
#include "ddl_rename.h"
#include "fdw.h"
#include "ingest_decode_path.h"
#include "worker.h"

static ProcessUtility_hook_type prev_process_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

/* weir's own command is running: no checks. */
static bool own_command = false;

/* Oids of relations dropped, and of foreign tables that lost a column. */
static List *dropped_relations = NIL;
static List *altered_sources = NIL;

/*
 * Notes
 */

static void
note(List **list, Oid relid)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	*list = list_append_unique_oid(*list, relid);
	MemoryContextSwitchTo(old);
}

static void
object_access(ObjectAccessType access, Oid class_id, Oid object_id,
			  int sub_id, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class_id, object_id, sub_id, arg);

	if (access != OAT_DROP || class_id != RelationRelationId || own_command ||
		IsBinaryUpgrade)
		return;
	switch (get_rel_relkind(object_id))
	{
		case RELKIND_FOREIGN_TABLE:
			note(sub_id == 0 ? &dropped_relations : &altered_sources,
				 object_id);
			break;
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
			if (sub_id == 0 &&
				get_rel_persistence(object_id) != RELPERSISTENCE_TEMP)
				note(&dropped_relations, object_id);
			break;
	}
}

static void
forget_notes(XactEvent event, void *arg)
{
	dropped_relations = NIL;
	altered_sources = NIL;
	own_command = false;
}

/* Dropped relations, and whether the catalog knows any of them. */
typedef struct Gone
{
	CatalogArg	relids;
	bool		known;
} Gone;

static void
find_gone(void *arg)
{
	Gone	   *gone = arg;
	CatalogAccess access;

	catalog_begin(&access);
	gone->known = catalog_execute("SELECT FROM weir_internal.source"
								  " WHERE relation::oid = ANY ($1)"
								  " UNION ALL SELECT FROM weir_internal.stream"
								  " WHERE target::oid = ANY ($1)"
								  " OR state::oid = ANY ($1)",
								  1, &gone->relids) > 0;
	catalog_end(&access);
}

/* Those of list that do not exist any more, as an oid[] datum. */
static Datum
gone_relations(List *list, int *n)
{
	Datum	   *oids = palloc(sizeof(Datum) * list_length(list));
	ListCell   *lc;

	*n = 0;
	foreach(lc, list)
	{
		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(lfirst_oid(lc))))
			oids[(*n)++] = ObjectIdGetDatum(lfirst_oid(lc));
	}
	return PointerGetDatum(construct_array(oids, *n, OIDOID, sizeof(Oid),
										   true, TYPALIGN_INT));
}

/* State tables of streams that are gone with their source. */
static void
drop_states(const CatalogAccess *access, uint64 n)
{
	char	  **commands = palloc0(sizeof(char *) * n);

	for (uint64 i = 0; i < n; i++)
	{
		CatalogRow	r;
		char	   *name;
		char	   *state;

		catalog_row_begin(&r, access, i);
		name = catalog_next_text(&r);
		state = api_qualified_name(catalog_next_oid(&r));
		ereport(NOTICE, errmsg("drop cascades to stream \"%s\"", name));
		if (state)
			commands[i] = psprintf("DROP TABLE %s CASCADE", state);
	}
	for (uint64 i = 0; i < n; i++)
		if (commands[i])
			ddl_hook_define(commands[i]);
}

/* Bring the catalog in line with the relations that are gone. */
static void
follow_drops(void)
{
	List	   *dropped = dropped_relations;
	CatalogAccess access;
	CatalogArg	arg = {OIDARRAYOID, 0, false};
	Gone		gone = {{0}};
	uint64		changed;
	uint64		n;
	int			ngone;

	dropped_relations = NIL;
	if (!catalog_tables_exist())
		return;
	arg.value = gone_relations(dropped, &ngone);
	gone.relids = arg;
	if (ngone > 0)
		ddl_peek(find_gone, &gone);
	if (!gone.known)
		return;

	catalog_begin(&access);
	n = catalog_delete_streams("s.relation::oid = ANY ($1)", 1, &arg);
	changed = n;
	drop_states(&access, n);
	changed += catalog_execute("DELETE FROM weir_internal.source"
							   " WHERE relation::oid = ANY ($1)", 1, &arg);
	changed += catalog_execute("UPDATE weir_internal.stream"
							   " SET target = NULL, failed_sqlstate = '42P01',"
							   "  failed_message = 'the target has been dropped'"
							   " WHERE target::oid = ANY ($1)", 1, &arg);
	changed += catalog_execute("UPDATE weir_internal.stream"
							   " SET state = NULL, failed_sqlstate = '42P01',"
							   "  failed_message = 'the state table has been dropped'"
							   " WHERE state::oid = ANY ($1)", 1, &arg);
	catalog_end(&access);
	if (changed > 0)
		worker_wakeup_at_commit();
}

/* A source that lost a column but is still there: refuse the command. */
static void
refuse_lost_columns(void)
{
	List	   *altered = altered_sources;
	ListCell   *lc;

	altered_sources = NIL;
	if (!catalog_tables_exist())
		return;
	foreach(lc, altered)
	{
		Oid			relid = lfirst_oid(lc);

		if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)) &&
			fdw_is_source_table(relid) &&
			catalog_source_by_relid(relid, true))
			ereport(ERROR,
					errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("cannot drop a column of source \"%s\"",
						   get_rel_name(relid)),
					errhint("Drop the source with weir.drop_source() first."));
	}
}

/*
 * Checks before a command
 */

/* The source that rv names, or NULL. */
static SourceDef *
source_named(RangeVar *rv)
{
	Oid			relid;

	if (rv == NULL)
		return NULL;
	relid = RangeVarGetRelid(rv, NoLock, true);
	if (!OidIsValid(relid) || !fdw_is_source_table(relid) ||
		!catalog_tables_exist())
		return NULL;
	return catalog_source_by_relid(relid, true);
}

static void
refuse_alter(const SourceDef *source)
{
	ereport(ERROR,
			errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			errmsg("cannot alter source \"%s\" in this way", source->name),
			errdetail("ALTER FOREIGN TABLE on a source may RENAME, OWNER TO and SET SCHEMA."),
			errhint("Drop the source with weir.drop_source() and create it anew."));
}

/* ALTER TABLE and ALTER FOREIGN TABLE, but renames and SET SCHEMA. */
static void
check_alter(AlterTableStmt *stmt)
{
	SourceDef  *source = source_named(stmt->relation);
	ListCell   *lc;

	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		if (source && cmd->subtype != AT_ChangeOwner)
			refuse_alter(source);
		if (cmd->subtype == AT_AttachPartition)
		{
			SourceDef  *child = source_named(((PartitionCmd *) cmd->def)->name);

			if (child)
				refuse_alter(child);
			ddl_durable_attach(stmt->relation, ((PartitionCmd *) cmd->def)->name);
		}
		if (cmd->subtype == AT_SetUnLogged)
			ddl_durable_set_unlogged(stmt->relation);
	}
	if (source)
		worker_wakeup_at_commit();
}

static void
check_drop(DropStmt *stmt)
{
	ListCell   *lc;

	if (stmt->removeType != OBJECT_FOREIGN_TABLE &&
		stmt->removeType != OBJECT_TABLE)
		return;
	foreach(lc, stmt->objects)
	{
		SourceDef  *source = source_named(makeRangeVarFromNameList(lfirst(lc)));

		if (source)
			ereport(ERROR,
					errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					errmsg("cannot drop foreign table \"%s\": it is a source",
						   source->name),
					errhint("Use weir.drop_source(%s).",
							quote_literal_cstr(source->name)));
	}
}

static void
check_rename(RenameStmt *stmt, SourceDef *source)
{
	bool		kafka_column;

	if (stmt->renameType == OBJECT_TABLE ||
		stmt->renameType == OBJECT_FOREIGN_TABLE)
	{
		if (strcmp(stmt->newname, source->name) != 0)
		{
			catalog_lock_names();
			api_check_name_free(stmt->newname);
		}
		return;
	}
	if (stmt->renameType != OBJECT_COLUMN)
		return;
	kafka_column = strncmp(stmt->subname, "kafka_", 6) == 0 ||
		strncmp(stmt->newname, "kafka_", 6) == 0;
	if (kafka_column)
		ereport(ERROR,
				errcode(ERRCODE_RESERVED_NAME),
				errmsg("cannot rename column \"%s\" of source \"%s\" to \"%s\"",
					   stmt->subname, source->name, stmt->newname),
				errdetail("Names that begin with \"kafka_\" are reserved."));
}

/*
 * After a column has been renamed: where it had no path, its old name was
 * the path.
 */
static void
keep_path(const RenameStmt *stmt, const SourceDef *source)
{
	AttrNumber	attnum = get_attnum(source->relid, stmt->newname);
	ListCell   *lc;

	if (attnum == InvalidAttrNumber ||
		strncmp(stmt->newname, "kafka_", 6) == 0 ||
		get_attgenerated(source->relid, attnum) != '\0')
		return;
	foreach(lc, GetForeignColumnOptions(source->relid, attnum))
	{
		if (strcmp(lfirst_node(DefElem, lc)->defname, "path") == 0)
			return;
	}

	ddl_hook_define(psprintf("ALTER FOREIGN TABLE %s ALTER COLUMN %s OPTIONS (ADD path %s)",
							 api_qualified_name(source->relid),
							 quote_identifier(stmt->newname),
							 quote_literal_cstr(column_path_of_name(stmt->subname))));
}

/*
 * Roles
 */

/* Their oids as an oid[] datum. */
static Datum
role_oids(List *roles)
{
	Datum	   *oids = palloc(sizeof(Datum) * list_length(roles));
	ListCell   *lc;
	int			n = 0;

	foreach(lc, roles)
	{
		Oid			oid = get_rolespec_oid(lfirst(lc), true);

		if (OidIsValid(oid))
			oids[n++] = ObjectIdGetDatum(oid);
	}
	return PointerGetDatum(construct_array(oids, n, OIDOID, sizeof(Oid),
										   true, TYPALIGN_INT));
}

/* DROP ROLE: streams need their owner, as other objects do. */
static void
check_drop_role(DropRoleStmt *stmt)
{
	CatalogArg	arg = {OIDARRAYOID, role_oids(stmt->roles), false};
	CatalogAccess access;
	CatalogRow	r;
	char	   *stream = NULL;
	char	   *owner = NULL;

	if (!catalog_tables_exist())
		return;
	catalog_begin(&access);
	if (catalog_execute("SELECT name, pg_get_userbyid(owner)"
						" FROM weir_internal.stream"
						" WHERE owner::oid = ANY ($1)", 1, &arg) > 0)
	{
		catalog_row_begin(&r, &access, 0);
		stream = catalog_next_text(&r);
		owner = catalog_next_text(&r);
	}
	catalog_end(&access);
	if (stream)
		ereport(ERROR,
				errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				errmsg("role \"%s\" cannot be dropped because some objects depend on it",
					   owner),
				errdetail("It is the owner of stream \"%s\".", stream),
				errhint("Use weir.drop_stream(), REASSIGN OWNED or DROP OWNED."));
}

/* After DROP OWNED: the streams that are left without state. */
static void
drop_owned_streams(Datum roles)
{
	CatalogArg	arg = {OIDARRAYOID, roles, false};
	CatalogAccess access;
	uint64		n;

	catalog_begin(&access);
	n = catalog_delete_streams("m.owner::oid = ANY ($1)", 1, &arg);
	drop_states(&access, n);
	catalog_end(&access);
	worker_wakeup_at_commit();
}

/* After REASSIGN OWNED: streams and dead letters go along. */
static void
reassign_streams(Datum roles, Oid new_owner)
{
	CatalogArg	args[] = {
		{OIDARRAYOID, roles, false}, CATALOG_OID(new_owner)
	};
	CatalogAccess access;
	uint64		streams;

	catalog_begin(&access);
	streams = catalog_execute("UPDATE weir_internal.stream SET owner = $2"
							  " WHERE owner::oid = ANY ($1)",
							  lengthof(args), args);
	catalog_execute("UPDATE weir_internal.dead_letter SET owner = $2"
					" WHERE owner::oid = ANY ($1)", lengthof(args), args);
	catalog_end(&access);
	if (streams > 0)
		catalog_grant_usage(new_owner);
	worker_wakeup_at_commit();
}

/* After OWNER TO: the dead letters of the source's ingest. */
static void
follow_owner(const SourceDef *before)
{
	CatalogArg	id = CATALOG_INT4(before->source_id);
	CatalogAccess access;

	catalog_begin(&access);
	catalog_execute("UPDATE weir_internal.dead_letter d SET owner = c.relowner"
					" FROM weir_internal.source s"
					" JOIN pg_class c ON c.oid = s.relation"
					" WHERE s.source_id = $1 AND d.source_id = $1"
					" AND d.stream_id IS NULL AND d.owner::oid <> c.relowner",
					1, &id);
	catalog_end(&access);
}

/*
 * The hook
 */

/* What is to be done after the command. */
typedef struct Follow
{
	StoredTexts *texts;			/* NULL: nothing was renamed */
	SourceDef  *source;			/* that the command names, or NULL */
	Datum		roles;			/* REASSIGN and DROP OWNED */
} Follow;

static void
before(Node *stmt, Follow *follow)
{
	switch (nodeTag(stmt))
	{
		case T_AlterTableStmt:
			check_alter((AlterTableStmt *) stmt);
			follow->source = source_named(((AlterTableStmt *) stmt)->relation);
			break;
		case T_DropStmt:
			check_drop((DropStmt *) stmt);
			break;
		case T_CreateStmt:
		case T_CreateForeignTableStmt:
			ddl_durable_create((CreateStmt *) stmt);
			break;
		case T_RenameStmt:
			follow->source = source_named(((RenameStmt *) stmt)->relation);
			if (follow->source)
				check_rename((RenameStmt *) stmt, follow->source);
			if (catalog_tables_exist())
				follow->texts = ddl_rename_begin(stmt);
			break;
		case T_AlterObjectSchemaStmt:
		case T_AlterEnumStmt:
			if (catalog_tables_exist())
				follow->texts = ddl_rename_begin(stmt);
			break;
		case T_DropRoleStmt:
			check_drop_role((DropRoleStmt *) stmt);
			break;
		case T_DropOwnedStmt:
			follow->roles = role_oids(((DropOwnedStmt *) stmt)->roles);
			break;
		case T_ReassignOwnedStmt:
			follow->roles = role_oids(((ReassignOwnedStmt *) stmt)->roles);
			break;
		default:
			break;
	}
}

static void
after(Node *stmt, const Follow *follow)
{
	if (!catalog_tables_exist())
		return;
	CommandCounterIncrement();
	switch (nodeTag(stmt))
	{
		case T_AlterTableStmt:
			if (follow->source)
				follow_owner(follow->source);
			break;
		case T_RenameStmt:
			if (follow->source &&
				((RenameStmt *) stmt)->renameType == OBJECT_COLUMN)
				keep_path((RenameStmt *) stmt, follow->source);
			break;
		case T_AlterForeignServerStmt:
		case T_CreateUserMappingStmt:
		case T_AlterUserMappingStmt:
		case T_DropUserMappingStmt:
			/* clients are made anew with the options */
			worker_wakeup_at_commit();
			break;
		case T_DropOwnedStmt:
			drop_owned_streams(follow->roles);
			break;
		case T_ReassignOwnedStmt:
			reassign_streams(follow->roles,
							 get_rolespec_oid(((ReassignOwnedStmt *) stmt)->newrole,
											  false));
			break;
		default:
			break;
	}
	if (follow->texts)
		ddl_rename_end(follow->texts);
}

/* Commands that before() and after() know. */
static bool
is_of_interest(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_AlterTableStmt:
		case T_CreateStmt:
		case T_CreateForeignTableStmt:
		case T_DropStmt:
		case T_RenameStmt:
		case T_AlterObjectSchemaStmt:
		case T_AlterEnumStmt:
		case T_DropRoleStmt:
		case T_DropOwnedStmt:
		case T_ReassignOwnedStmt:
		case T_AlterForeignServerStmt:
		case T_CreateUserMappingStmt:
		case T_AlterUserMappingStmt:
		case T_DropUserMappingStmt:
			return true;
		default:
			return false;
	}
}

static void
call_next(PlannedStmt *pstmt, const char *query_string, bool read_only_tree,
		  ProcessUtilityContext context, ParamListInfo params,
		  QueryEnvironment *query_env, DestReceiver *dest,
		  QueryCompletion *qc)
{
	if (prev_process_utility)
		prev_process_utility(pstmt, query_string, read_only_tree, context,
							 params, query_env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query_string, read_only_tree, context,
								params, query_env, dest, qc);
}

static void
process_utility(PlannedStmt *pstmt, const char *query_string,
				bool read_only_tree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *query_env,
				DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *stmt = pstmt->utilityStmt;
	Follow		follow = {0};

	if (own_command || IsBinaryUpgrade || !is_of_interest(stmt))
	{
		call_next(pstmt, query_string, read_only_tree, context, params,
				  query_env, dest, qc);
		return;
	}

	before(stmt, &follow);
	call_next(pstmt, query_string, read_only_tree, context, params,
			  query_env, dest, qc);
	after(stmt, &follow);
	if (altered_sources != NIL)
		refuse_lost_columns();
	if (dropped_relations != NIL)
		follow_drops();
}

static void
execute_own(void (*execute) (const char *sql), const char *sql)
{
	bool		save = own_command;

	own_command = true;
	PG_TRY();
	{
		execute(sql);
	}
	PG_FINALLY();
	{
		own_command = save;
	}
	PG_END_TRY();
}

void
ddl_hook_execute(const char *sql)
{
	execute_own(api_execute, sql);
}

void
ddl_hook_define(const char *sql)
{
	execute_own(catalog_define, sql);
}

void
ddl_hook_install(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
	RegisterXactCallback(forget_notes, NULL);
}
