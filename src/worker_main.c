/*-------------------------------------------------------------------------
 *
 * worker_main.c
 *	  What all of weir's workers do alike: start, account, wake each other.
 *
 * Every worker takes an entry of WeirShared.workers while it lives, for
 * stat_worker and for those who must wait until a database has no workers
 * (worker_database.c).  A worker is started by the manager with its
 * WorkerArgs in bgw_extra.
 *
 * The catalog generation of a database grows at the commit of each DDL call;
 * every worker of the database is woken then, and compares.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/resource.h>
#include <unistd.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "settings.h"
#include "worker.h"

WorkerShared *my_worker = NULL;

static bool wakeup_at_commit = false;
static bool wakeup_at_release = false;
static bool rescan_at_commit = false;
static bool callback_registered = false;

/* Give the entry back; also on FATAL. */
static void
worker_end(int code, Datum arg)
{
	if (my_worker == NULL)
		return;
	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	my_worker->pid = 0;
	LWLockRelease(&weir_shared->lock);
	my_worker = NULL;
}

/* Are workers to keep out of the database (worker_database.c)? */
static bool
database_blocked(Oid dbid)
{
	DatabaseShared *database = worker_database_find(dbid);
	bool		blocked;

	if (database == NULL)
		return false;
	LWLockAcquire(&weir_shared->lock, LW_SHARED);
	blocked = database->dbid == dbid && database->blocked > 0;
	LWLockRelease(&weir_shared->lock);
	return blocked;
}

/* No worker waits for a lock for longer: somebody may hold it for good. */
static void
limit_lock_waits(void)
{
	char		value[32];

	snprintf(value, sizeof(value), "%d", weir_lock_timeout);
	SetConfigOption("lock_timeout", value, PGC_SUSET, PGC_S_SESSION);
}

/*
 * Settings that a worker needs whatever the server's and the database's are.
 * Nothing waits for a commit to be on disk: a crash takes back results and
 * offsets alike, and what is lost is read again.
 */
static void
configure_session(void)
{
	static const char *const settings[][2] = {
		{"synchronous_commit", "off"},
		{"statement_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
#if PG_VERSION_NUM >= 170000
		{"transaction_timeout", "0"},
#endif
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},

		/*
		 * Triggers fire, row security filters, views can be read, all entries
		 * of an index are seen, an error ends a statement, not the session;
		 * and texts are in the database's encoding.
		 */
		{"session_replication_role", "origin"},
		{"row_security", "on"},
		{"lo_compat_privileges", "off"},
		{"gin_fuzzy_search_limit", "0"},
		{"exit_on_error", "off"},
		{"zero_damaged_pages", "off"},
		{"ignore_checksum_failure", "off"},
		{"client_encoding", "UTF8"},
	};

	/* Some minor releases have them, and others do not. */
	static const char *const newer[][2] = {
		{"restrict_nonsystem_relation_kind", ""},
		{"composite_type_mismatch", "error"},
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET,
						PGC_S_SESSION);
	for (int i = 0; i < lengthof(newer); i++)
		if (GetConfigOption(newer[i][0], true, false) != NULL)
			SetConfigOption(newer[i][0], newer[i][1], PGC_SUSET,
							PGC_S_SESSION);
	limit_lock_waits();
}

/*
 * PostgreSQL plans the checks of a domain once a session, functions inlined,
 * and forgets them when a constraint changes, but not when a function does.
 * A worker lives long, so here they are forgotten then, too.
 */
static void
function_changed(Datum arg, int cache, uint32 hash)
{
	CallSyscacheCallbacks(CONSTROID, 0);
}

/*
 * Signal handlers, connection, entry in shared memory.  Errors end the
 * worker; its parent starts it again, later and later.
 */
void
worker_begin(const WorkerArgs *args)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < weir_shared->nworkers; i++)
	{
		WorkerShared *worker = &weir_shared->workers[i];

		if (worker->pid != 0)
			continue;
		memset(worker, 0, sizeof(*worker));
		worker->pid = MyProcPid;
		worker->kind = args->kind;
		worker->dbid = args->dbid;
		worker->source_id = args->source_id;
		worker->stream_id = args->stream_id;
		worker->restarts = args->restarts;
		strlcpy(worker->last_exit_reason, args->last_exit,
				sizeof(worker->last_exit_reason));
		worker->started_at = GetCurrentTimestamp();
		my_worker = worker;
		break;
	}
	LWLockRelease(&weir_shared->lock);
	if (my_worker == NULL)
		elog(FATAL, "no free worker entry in shared memory");
	before_shmem_exit(worker_end, (Datum) 0);

	/* Started just before; whoever blocks later finds the entry above. */
	if (OidIsValid(args->dbid) && database_blocked(args->dbid))
		proc_exit(0);
	if (OidIsValid(args->dbid))
		BackgroundWorkerInitializeConnectionByOid(args->dbid, InvalidOid, 0);
	else
		BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	configure_session();
	CacheRegisterSyscacheCallback(PROCOID, function_changed, (Datum) 0);
}

/* Register a worker; false when the server has no free slot for one. */
bool
worker_start(const WorkerArgs *args, const char *name,
			 BackgroundWorkerHandle **handle)
{
	static const char *const mains[] = {
		"weir_launcher_main", "weir_manager_main", "weir_ingest_main",
		"weir_ingest_main", "weir_stream_main"
	};
	BackgroundWorker worker;

	StaticAssertStmt(sizeof(WorkerArgs) <= BGW_EXTRALEN,
					 "worker arguments do not fit");
	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_name, BGW_MAXLEN, "%s", name);
	snprintf(worker.bgw_type, BGW_MAXLEN, "weir %s",
			 worker_kind_name(args->kind));
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "weir");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "%s", mains[args->kind]);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	memcpy(worker.bgw_extra, args, sizeof(*args));
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

void
worker_reload_config(void)
{
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		limit_lock_waits();
	}
}

/*
 * What waits are measured with: a clock that nobody sets, the same in all
 * processes.  No point in time: microseconds since some start.
 */
TimestampTz
worker_clock(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (TimestampTz) INSTR_TIME_GET_MICROSEC(now);
}

/* CPU and memory of this process, for stat_worker; once a second. */
void
worker_account(void)
{
	static TimestampTz last = 0;
	TimestampTz now = worker_clock();
	struct rusage usage;
	FILE	   *statm;
	long		pages = 0;

	if (now - last < USECS_PER_SEC)
		return;
	last = now;
	if (getrusage(RUSAGE_SELF, &usage) == 0)
		my_worker->cpu_us =
			(int64) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
			usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
	statm = fopen("/proc/self/statm", "r");
	if (statm)
	{
		if (fscanf(statm, "%*d %ld", &pages) == 1)
			my_worker->memory_bytes = (int64) pages * sysconf(_SC_PAGESIZE);
		fclose(statm);
	}
}

/* What pg_stat_activity shows as the worker's query. */
void
worker_activity(const char *fmt,...)
{
	char text[	256];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	pgstat_report_activity(STATE_RUNNING, text);
}

/* Caller holds WeirShared.lock. */
static DatabaseShared *
database_lookup(Oid dbid)
{
	for (int i = 0; i < WEIR_MAX_DATABASES; i++)
		if (weir_shared->databases[i].dbid == dbid)
			return &weir_shared->databases[i];
	return NULL;
}

DatabaseShared *
worker_database_find(Oid dbid)
{
	DatabaseShared *database;

	LWLockAcquire(&weir_shared->lock, LW_SHARED);
	database = database_lookup(dbid);
	LWLockRelease(&weir_shared->lock);
	return database;
}

/* The database's entry, made when it is not there; NULL when all are taken. */
DatabaseShared *
worker_database_claim(Oid dbid)
{
	DatabaseShared *database;

	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	database = database_lookup(dbid);
	if (database == NULL)
	{
		database = database_lookup(InvalidOid);
		if (database)
		{
			database->dbid = dbid;
			database->manager_pid = 0;
			database->manager_latch = NULL;
			database->blocked = 0;
			database->has_extension = false;
			database->probed = false;
			pg_atomic_fetch_add_u64(&database->generation, 1);
		}
	}
	LWLockRelease(&weir_shared->lock);
	return database;
}

uint64
worker_catalog_generation(void)
{
	static DatabaseShared *database = NULL;

	if (database == NULL || database->dbid != MyDatabaseId)
		database = worker_database_find(MyDatabaseId);
	return database ? pg_atomic_read_u64(&database->generation) : 0;
}

/* Set a latch in shared memory, read once: its owner may be leaving. */
void
worker_wake(Latch *const *place)
{
	Latch	   *latch = *(Latch *const volatile *) place;

	if (latch)
		SetLatch(latch);
}

void
worker_wake_launcher(void)
{
	Latch	   *latch;

	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	weir_shared->rescan = true;
	latch = weir_shared->launcher_latch;
	LWLockRelease(&weir_shared->lock);
	if (latch)
		SetLatch(latch);
}

/* Wake every worker of this database. */
void
worker_wake_database(void)
{
	DatabaseShared *database;
	bool		known = false;

	LWLockAcquire(&weir_shared->lock, LW_SHARED);
	database = database_lookup(MyDatabaseId);
	if (database)
	{
		pg_atomic_fetch_add_u64(&database->generation, 1);
		if (database->manager_latch)
		{
			known = true;
			worker_wake(&database->manager_latch);
		}
	}
	for (int i = 0; i < weir_shared->nslots; i++)
	{
		SlotShared *slot = &weir_shared->slots[i];

		if (slot->in_use && slot->dbid == MyDatabaseId)
			worker_wake(&slot->latch);
	}
	for (int i = 0; i < weir_shared->nstreams; i++)
	{
		StreamShared *stream = &weir_shared->streams[i];

		if (stream->in_use && stream->dbid == MyDatabaseId)
			worker_wake(&stream->latch);
	}
	LWLockRelease(&weir_shared->lock);
	if (!known)
		worker_wake_launcher();
}

/* Wake the streams of a source: its ring has begun anew. */
void
worker_wake_streams(int32 source_id)
{
	LWLockAcquire(&weir_shared->lock, LW_SHARED);
	for (int i = 0; i < weir_shared->nstreams; i++)
	{
		StreamShared *stream = &weir_shared->streams[i];

		if (stream->in_use && stream->dbid == MyDatabaseId &&
			stream->source_id == source_id)
			worker_wake(&stream->latch);
	}
	LWLockRelease(&weir_shared->lock);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	bool		committed = event == XACT_EVENT_COMMIT;

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	wakeup_at_release = wakeup_at_commit && committed;
	if (rescan_at_commit)		/* an abort may bring back what was stopped */
		worker_wake_launcher();
	wakeup_at_commit = rescan_at_commit = false;
}

/*
 * At the commit itself, others have not been told yet that their caches are
 * out of date: a worker woken then may read what was there before, for
 * instance the options of a server, and take it for the new.  They are told
 * before the transaction's locks are released.
 */
static void
at_release(ResourceReleasePhase phase, bool is_commit, bool is_top_level,
		   void *arg)
{
	if (!wakeup_at_release || phase != RESOURCE_RELEASE_AFTER_LOCKS ||
		!is_top_level)
		return;
	wakeup_at_release = false;
	if (is_commit)
		worker_wake_database();
}

static void
register_callback(void)
{
	if (!callback_registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		RegisterResourceReleaseCallback(at_release, NULL);
	}
	callback_registered = true;
}

void
worker_wakeup_at_commit(void)
{
	register_callback();
	wakeup_at_commit = true;
}

void
worker_rescan_at_commit(void)
{
	register_callback();
	rescan_at_commit = true;
}
