/*-------------------------------------------------------------------------
 *
 * worker_database.c
 *	  Keep weir's workers out of the way of CREATE, ALTER and DROP DATABASE.
 *
 * These commands need a database (the template, the renamed, the dropped
 * one) without connections, and weir's workers are connections.  So a
 * ProcessUtility hook blocks the database in shared memory, terminates its
 * manager and waits until all its workers are gone; afterwards, also after
 * an error, it lets them in again and has the launcher look.
 *
 * DROP EXTENSION weir stops this database's workers in the same way: they
 * lock the catalog, segments and targets in another order than it does.
 * CREATE and DROP EXTENSION make the launcher look as well.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "settings.h"
#include "worker.h"

/* How long to wait for workers to go before the command goes on anyway. */
#define STOP_TIMEOUT_MS 10000

static ProcessUtility_hook_type prev_process_utility = NULL;

/* Is any of weir's workers connected to the database?  Signals them. */
static bool
terminate_workers(Oid dbid)
{
	bool		any = false;

	LWLockAcquire(&weir_shared->lock, LW_SHARED);
	for (int i = 0; i < weir_shared->nworkers; i++)
	{
		WorkerShared *worker = &weir_shared->workers[i];

		if (worker->pid != 0 && worker->dbid == dbid)
		{
			any = true;
			(void) kill(worker->pid, SIGTERM);
		}
	}
	LWLockRelease(&weir_shared->lock);
	return any;
}

/* Keep workers out of the database, or (-1) let them in again. */
static void
block_database(Oid dbid, int change)
{
	DatabaseShared *database = worker_database_find(dbid);

	if (database)
	{
		LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
		database->blocked = Max(database->blocked + change, 0);
		LWLockRelease(&weir_shared->lock);
	}
}

/* After an ERROR, and when the session ends on the way. */
static void
unblock_database(int code, Datum dbid)
{
	block_database(DatumGetObjectId(dbid), -1);
	worker_wake_launcher();
}

static void
stop_workers(Oid dbid)
{
	TimestampTz start = worker_clock();

	while (terminate_workers(dbid) &&
		   !TimestampDifferenceExceeds(start, worker_clock(),
									   STOP_TIMEOUT_MS))
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
						 WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* The database that must be without connections for this command, if any. */
static Oid
database_worked_on(Node *statement)
{
	const char *name = NULL;

	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			name = ((DropdbStmt *) statement)->dbname;
			break;
		case T_CreatedbStmt:
			{
				ListCell   *lc;

				foreach(lc, ((CreatedbStmt *) statement)->options)
				{
					DefElem    *def = lfirst(lc);

					if (strcmp(def->defname, "template") == 0 && def->arg)
						name = defGetString(def);
				}
				break;
			}
		case T_AlterDatabaseStmt:
			name = ((AlterDatabaseStmt *) statement)->dbname;
			break;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				name = ((RenameStmt *) statement)->subname;
			break;
		default:
			break;
	}
	return name ? get_database_oid(name, true) : InvalidOid;
}

/* May the user run such a command at all?  Else no worker is disturbed. */
static bool
may_work_on(Oid dbid)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dbid));
	bool		may;

	if (!HeapTupleIsValid(tuple))
		return false;
	may = has_privs_of_role(GetUserId(),
							((Form_pg_database) GETSTRUCT(tuple))->datdba);
	ReleaseSysCache(tuple);
	return may;
}

/*
 * Could the extension come or go with it?  DROP SCHEMA and DROP OWNED may
 * take it along.
 */
static bool
may_concern_extension(Node *statement)
{
	if (IsA(statement, DropStmt))
		return ((DropStmt *) statement)->removeType == OBJECT_EXTENSION ||
			((DropStmt *) statement)->removeType == OBJECT_SCHEMA;
	return true;
}

/* Does it drop weir itself, and may the user do that? */
static bool
drops_weir(Node *statement)
{
	DropStmt   *drop = (DropStmt *) statement;
	ListCell   *lc;

	if (!IsA(statement, DropStmt) ||
		(drop->removeType != OBJECT_EXTENSION &&
		 drop->removeType != OBJECT_SCHEMA))
		return false;
	foreach(lc, drop->objects)
		if (strcmp(strVal(lfirst(lc)), "weir") == 0)
		return OidIsValid(catalog_extension_oid(true)) &&
			has_privs_of_role(GetUserId(), catalog_extension_owner());
	return false;
}

static bool
concerns_databases(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
		case T_CreatedbStmt:
		case T_AlterDatabaseStmt:
		case T_AlterDatabaseSetStmt:
			return true;
		case T_RenameStmt:
			return ((RenameStmt *) statement)->renameType == OBJECT_DATABASE;
		case T_CreateExtensionStmt:
		case T_DropStmt:
		case T_DropOwnedStmt:
			return may_concern_extension(statement);
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

static bool
commits_prepared(Node *statement)
{
	return IsA(statement, TransactionStmt) &&
		((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED;
}

static void
process_utility(PlannedStmt *pstmt, const char *query_string,
				bool read_only_tree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *query_env,
				DestReceiver *dest, QueryCompletion *qc)
{
	Oid			dbid;

	if (!concerns_databases(pstmt->utilityStmt))
	{
		call_next(pstmt, query_string, read_only_tree, context, params,
				  query_env, dest, qc);
		if (commits_prepared(pstmt->utilityStmt))
		{
			/* what it changed is not known any more */
			worker_wake_database();
			worker_wake_launcher();
		}
		return;
	}
	worker_rescan_at_commit();
	worker_wakeup_at_commit();
	if (drops_weir(pstmt->utilityStmt))
		dbid = MyDatabaseId;
	else
	{
		dbid = database_worked_on(pstmt->utilityStmt);
		/* one's own may be a template, the other commands refuse it */
		if ((dbid == MyDatabaseId &&
			 !IsA(pstmt->utilityStmt, CreatedbStmt)) || !may_work_on(dbid))
			dbid = InvalidOid;
	}
	if (!OidIsValid(dbid) || worker_database_find(dbid) == NULL)
	{
		call_next(pstmt, query_string, read_only_tree, context, params,
				  query_env, dest, qc);
		return;
	}
	block_database(dbid, 1);
	PG_ENSURE_ERROR_CLEANUP(unblock_database, ObjectIdGetDatum(dbid));
	{
		stop_workers(dbid);
		call_next(pstmt, query_string, read_only_tree, context, params,
				  query_env, dest, qc);
	}
	PG_END_ENSURE_ERROR_CLEANUP(unblock_database, ObjectIdGetDatum(dbid));
	block_database(dbid, -1);
}

void
worker_database_hook_install(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
