/*-------------------------------------------------------------------------
 *
 * worker_launcher.c
 *	  The launcher: one manager for each database that has the extension.
 *
 * The launcher cannot look into databases itself, so it starts a manager in
 * each, one at a time, which looks whether the extension is there and ends
 * at once when it is not.  It does so at its start, and whenever somebody
 * sets WeirShared.rescan: at the commit of CREATE EXTENSION weir, and of
 * CREATE, ALTER or DROP DATABASE.  A manager that ends by itself is started
 * again after weir.retry_delay.  Templates get none: a connection to them
 * would keep CREATE DATABASE waiting.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "settings.h"
#include "worker.h"

/* A database and the manager that the launcher started in it. */
typedef struct LaunchedManager
{
	Oid			dbid;
	BackgroundWorkerHandle *handle; /* NULL: none */
	bool		wanted;			/* had the extension when last probed, or
								 * could not be probed */
	TimestampTz started_at;		/* worker_clock(), as next_start */
	TimestampTz next_start;
	int			delay_ms;		/* of the next start but one; 0: none */
} LaunchedManager;

/* A manager that lived for this long starts again without a back-off. */
#define LIVED_LONG_MS 60000

static List *managers = NIL;	/* of LaunchedManager * */

static void
launcher_exit(int code, Datum arg)
{
	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	weir_shared->launcher_pid = 0;
	weir_shared->launcher_latch = NULL;
	LWLockRelease(&weir_shared->lock);
}

/* Databases that one can connect to, templates left out; in cxt. */
static List *
connectable_databases(MemoryContext cxt)
{
	List	   *dbids = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database db = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;

		if (!db->datallowconn || db->datistemplate)
			continue;
		old = MemoryContextSwitchTo(cxt);
		dbids = lappend_oid(dbids, db->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return dbids;
}

static LaunchedManager *
manager_of(Oid dbid)
{
	LaunchedManager *manager;
	ListCell   *lc;

	foreach(lc, managers)
	{
		manager = lfirst(lc);
		if (manager->dbid == dbid)
			return manager;
	}
	manager = MemoryContextAllocZero(TopMemoryContext, sizeof(*manager));
	manager->dbid = dbid;
	manager->wanted = true;
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		managers = lappend(managers, manager);
		MemoryContextSwitchTo(old);
	}
	return manager;
}

/* A manager has ended, or could not be started: when is the next start? */
static void
put_off(LaunchedManager *manager)
{
	TimestampTz now = worker_clock();

	if (TimestampDifferenceExceeds(manager->started_at, now, LIVED_LONG_MS))
		manager->delay_ms = 0;
	manager->next_start = TimestampTzPlusMilliseconds(now, manager->delay_ms);
	manager->delay_ms = manager->delay_ms == 0 ? weir_retry_delay :
		Min(manager->delay_ms * 2, weir_retry_delay_max);
}

static bool
manager_runs(LaunchedManager *manager)
{
	pid_t		pid;

	if (manager->handle == NULL)
		return false;
	switch (GetBackgroundWorkerPid(manager->handle, &pid))
	{
		case BGWH_STARTED:
		case BGWH_NOT_YET_STARTED:
			return true;
		default:
			pfree(manager->handle);
			manager->handle = NULL;
			put_off(manager);
			return false;
	}
}

/* Wait until the manager has looked for the extension, or is gone. */
static void
wait_for_probe(LaunchedManager *manager)
{
	for (;;)
	{
		DatabaseShared *database = worker_database_find(manager->dbid);

		if (!manager_runs(manager) || (database && database->probed))
			return;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
						 WL_EXIT_ON_PM_DEATH, 100, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Start a manager where none runs; true when it must be tried again. */
static bool
launch_manager(LaunchedManager *manager)
{
	DatabaseShared *database = worker_database_claim(manager->dbid);
	WorkerArgs	args = {0};
	char		name[BGW_MAXLEN];

	if (database == NULL)
	{
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("weir looks after %d databases at most",
						WEIR_MAX_DATABASES)));
		return false;
	}
	if (database->blocked > 0)
		return true;
	args.dbid = manager->dbid;
	args.kind = WORKER_MANAGER;
	database->probed = false;
	snprintf(name, sizeof(name), "weir manager for database %u",
			 manager->dbid);
	manager->started_at = worker_clock();
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		bool		started = worker_start(&args, name, &manager->handle);

		MemoryContextSwitchTo(old);
		if (!started)
		{
			manager->handle = NULL;
			put_off(manager);
			database->workers_needed = 1;
			ereport(WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("no free background worker slot for weir's manager "
							"of database %u", manager->dbid),
					 errhint("Increase max_worker_processes.")));
			return true;
		}
	}
	wait_for_probe(manager);
	SetLatch(MyLatch);			/* it may have taken what was for the loop */
	database = worker_database_find(manager->dbid);
	manager->wanted = database &&
		(database->has_extension || !database->probed);
	return manager->wanted && !manager_runs(manager);
}

/* Forget databases that are no more. */
static void
forget_missing(List *dbids)
{
	Oid			gone[WEIR_MAX_DATABASES];
	int			ngone = 0;

	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < WEIR_MAX_DATABASES; i++)
	{
		DatabaseShared *database = &weir_shared->databases[i];

		if (OidIsValid(database->dbid) && database->manager_pid == 0 &&
			database->blocked == 0 &&
			!list_member_oid(dbids, database->dbid))
		{
			gone[ngone++] = database->dbid;
			database->dbid = InvalidOid;
		}
	}
	LWLockRelease(&weir_shared->lock);
	for (int i = 0; i < ngone; i++)
		worker_forget(gone[i], NIL, NIL);
}

/* One round; returns ms until the next is due, -1 when none is. */
static long
launcher_round(void)
{
	bool		rescan;
	List	   *dbids;
	ListCell   *lc;
	long		timeout = -1;

	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	rescan = weir_shared->rescan;
	weir_shared->rescan = false;
	LWLockRelease(&weir_shared->lock);
	if (!weir_autostart)
		return -1;

	dbids = connectable_databases(CurrentMemoryContext);
	foreach(lc, dbids)
	{
		LaunchedManager *manager = manager_of(lfirst_oid(lc));
		TimestampTz now = worker_clock();

		CHECK_FOR_INTERRUPTS();
		if (manager_runs(manager) || (!manager->wanted && !rescan))
			continue;
		if (!rescan && manager->next_start > now)
		{
			long		ms = TimestampDifferenceMilliseconds(now,
															 manager->next_start);

			timeout = timeout < 0 ? ms : Min(timeout, ms);
			continue;
		}
		if (launch_manager(manager))
			timeout = timeout < 0 ? weir_retry_delay :
				Min(timeout, weir_retry_delay);
	}
	forget_missing(dbids);
	return timeout;
}

void
weir_launcher_main(Datum arg)
{
	WorkerArgs	args = {0};
	MemoryContext cxt;

	args.kind = WORKER_LAUNCHER;
	worker_begin(&args);
	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	weir_shared->launcher_pid = MyProcPid;
	weir_shared->launcher_latch = MyLatch;
	weir_shared->rescan = true;
	LWLockRelease(&weir_shared->lock);
	before_shmem_exit(launcher_exit, (Datum) 0);

	cxt = AllocSetContextCreate(TopMemoryContext, "weir launcher",
								ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		long		timeout;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		worker_reload_config();
		MemoryContextSwitchTo(cxt);
		timeout = launcher_round();
		MemoryContextReset(cxt);
		worker_account();
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
						 (timeout >= 0 ? WL_TIMEOUT : 0), timeout,
						 PG_WAIT_EXTENSION);
	}
}
