/*-------------------------------------------------------------------------
 *
 * worker_manager.c
 *	  A database's manager: starts and stops its workers from the catalog.
 *
 * Wanted are: an ingest worker for each source, a stream worker for each
 * stream, a catch-up worker for each stream that asks for one in shared
 * memory.  What runs and is not wanted is terminated; what is wanted and
 * does not run is started, after a back-off that doubles with each end of a
 * worker that did not live long.  A DDL call commits: the catalog generation
 * grows, the back-off is forgotten, and the round is run again.
 *
 * It also drops the segments of sources and streams that are no more.
 *
 * A manager without the extension ends, and with it all its workers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "ingest.h"
#include "settings.h"
#include "worker.h"

/* A worker that lived for this long starts again without a back-off. */
#define LIVED_LONG_MS 60000

typedef struct Child
{
	WorkerArgs	args;
	bool		wanted;
	BackgroundWorkerHandle *handle; /* NULL: does not run */
	TimestampTz started_at;
	TimestampTz next_start;
	int			delay_ms;		/* 0: start at once */
	char		name[64];
} Child;

static List *children = NIL;	/* of Child *, in TopMemoryContext */
static DatabaseShared *my_database = NULL;
static bool slots_warned = false;

static void
manager_exit(int code, Datum arg)
{
	ListCell   *lc;

	foreach(lc, children)
	{
		Child	   *child = lfirst(lc);

		if (child->handle)
			TerminateBackgroundWorker(child->handle);
	}
	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	my_database->manager_pid = 0;
	my_database->manager_latch = NULL;
	LWLockRelease(&weir_shared->lock);
}

/* Note that a worker is wanted; makes its entry. */
static void
want(WorkerKind kind, int32 source_id, int32 stream_id, const char *name)
{
	Child	   *child;
	ListCell   *lc;
	MemoryContext old;

	foreach(lc, children)
	{
		child = lfirst(lc);
		if (child->args.kind == kind && child->args.source_id == source_id &&
			child->args.stream_id == stream_id)
		{
			child->wanted = true;
			strlcpy(child->name, name, sizeof(child->name));
			return;
		}
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	child = palloc0(sizeof(*child));
	child->args.dbid = MyDatabaseId;
	child->args.kind = kind;
	child->args.source_id = source_id;
	child->args.stream_id = stream_id;
	child->wanted = true;
	strlcpy(child->name, name, sizeof(child->name));
	children = lappend(children, child);
	MemoryContextSwitchTo(old);
}

/* Read the catalog and mark what is wanted; false: no extension. */
static bool
read_wanted(void)
{
	ListCell   *lc;
	List	   *sources = NIL;
	List	   *streams = NIL;
	bool		there;

	foreach(lc, children)
		((Child *) lfirst(lc))->wanted = false;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	there = OidIsValid(catalog_extension_oid(true));
	if (there && catalog_cookie_matches())
	{
		foreach(lc, catalog_sources())
		{
			SourceDef  *source = lfirst(lc);

			sources = lappend_int(sources, source->source_id);
			if (!source->paused && source->stopped_message == NULL)
				want(WORKER_INGEST, source->source_id, 0, source->name);
		}
		foreach(lc, catalog_streams())
		{
			StreamDef  *stream = lfirst(lc);
			StreamShared *shared;

			streams = lappend_int(streams, stream->stream_id);
			if (stream->paused || stream->failed_message)
				continue;
			want(WORKER_STREAM, stream->source_id, stream->stream_id,
				 stream->name);
			shared = worker_stream_find(MyDatabaseId, stream->stream_id);
			if (shared && shared->wants_catch_up)
				want(WORKER_CATCH_UP, stream->source_id, stream->stream_id,
					 stream->name);
		}
	}
	worker_forget(MyDatabaseId, sources, streams);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return there;
}

static bool
child_runs(Child *child)
{
	pid_t		pid;
	BgwHandleStatus status;

	if (child->handle == NULL)
		return false;
	status = GetBackgroundWorkerPid(child->handle, &pid);
	return status == BGWH_STARTED || status == BGWH_NOT_YET_STARTED;
}

/*
 * Why it ended, as far as its slot or stream says, and when it will be tried
 * again.
 */
static void
note_exit(Child *child)
{
	SharedError error = {0};
	SlotShared *slot;
	StreamShared *stream;

	if (child->args.kind == WORKER_STREAM)
	{
		stream = worker_stream_find(MyDatabaseId, child->args.stream_id);
		if (stream)
			worker_read_error(&stream->error, &error);
	}
	else
	{
		slot = worker_slot_find(MyDatabaseId, child->args.source_id,
								child->args.kind == WORKER_CATCH_UP ?
								child->args.stream_id : 0);
		if (slot)
		{
			worker_read_error(&slot->error, &error);
			slot->next_retry_at = child->next_start;
		}
	}
	if (error.sqlerrcode != 0 && error.at >= child->started_at)
	{
		int			len = pg_mbcliplen(error.message, strlen(error.message),
									   sizeof(child->args.last_exit) - 1);

		memcpy(child->args.last_exit, error.message, len);
		child->args.last_exit[len] = '\0';
	}
	else
		strlcpy(child->args.last_exit, "ended",
				sizeof(child->args.last_exit));
}

/* Notice that a child has ended, and put off its next start. */
static void
reap(Child *child, TimestampTz now)
{
	pfree(child->handle);
	child->handle = NULL;
	child->args.restarts++;
	if (TimestampDifferenceExceeds(child->started_at, now, LIVED_LONG_MS))
		child->delay_ms = 0;
	child->next_start = TimestampTzPlusMilliseconds(now, child->delay_ms);
	child->delay_ms = child->delay_ms == 0 ? weir_retry_delay :
		Min(child->delay_ms * 2, weir_retry_delay_max);
	note_exit(child);
}

/* Start a child; says once that there are too few worker slots. */
static bool
start(Child *child, TimestampTz now)
{
	char		name[BGW_MAXLEN];
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	bool		started;

	snprintf(name, sizeof(name), "weir %s %s",
			 worker_kind_name(child->args.kind), child->name);
	started = worker_start(&child->args, name, &child->handle);
	MemoryContextSwitchTo(old);
	child->started_at = now;
	if (!started)
	{
		child->handle = NULL;
		child->next_start = TimestampTzPlusMilliseconds(now, weir_retry_delay);
		if (!slots_warned)
			ereport(WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("no free background worker slot for \"%s\"", name),
					 errdetail("weir needs %d workers in this database, its "
							   "manager included.",
							   1 + list_length(children)),
					 errhint("Increase max_worker_processes and restart the "
							 "server.")));
		slots_warned = true;
	}
	return started;
}

/* Stop, reap and start; returns ms until something is due, -1: nothing is. */
static long
tend_children(void)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;
	long		timeout = -1;

	foreach(lc, children)
	{
		Child	   *child = lfirst(lc);

		if (child->handle && !child_runs(child))
			reap(child, now);
		if (child->handle && !child->wanted)
			TerminateBackgroundWorker(child->handle);
		if (child->handle == NULL && !child->wanted)
		{
			/* It may have been ended before it could do that itself. */
			if (child->args.kind == WORKER_CATCH_UP)
			{
				MemoryContext old = CurrentMemoryContext;

				segment_drop_private(child->args.source_id,
									 child->args.stream_id);
				MemoryContextSwitchTo(old);
			}
			children = foreach_delete_current(children, lc);
			pfree(child);
			continue;
		}
		if (child->handle == NULL && child->next_start <= now)
			(void) start(child, now);
		if (child->handle == NULL)
		{
			long		ms = TimestampDifferenceMilliseconds(now,
															 child->next_start);

			timeout = timeout < 0 ? ms : Min(timeout, ms);
		}
	}
	return timeout;
}

static void
forget_back_off(void)
{
	ListCell   *lc;

	foreach(lc, children)
	{
		Child	   *child = lfirst(lc);

		child->delay_ms = 0;
		child->next_start = 0;
	}
	slots_warned = false;
}

/* Look whether the extension is here, and say so to the launcher. */
static bool
probe_extension(void)
{
	bool		there;

	StartTransactionCommand();
	there = OidIsValid(catalog_extension_oid(true));
	CommitTransactionCommand();

	if (!there)
		worker_forget(MyDatabaseId, NIL, NIL);
	my_database = worker_database_claim(MyDatabaseId);
	if (my_database == NULL)
		return false;
	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	my_database->has_extension = there;
	my_database->probed = true;
	if (there)
	{
		my_database->manager_pid = MyProcPid;
		my_database->manager_latch = MyLatch;
	}
	LWLockRelease(&weir_shared->lock);
	return there;
}

void
weir_manager_main(Datum arg)
{
	WorkerArgs	args;
	MemoryContext cxt;
	uint64		generation = 0;
	uint64		cleaned = 0;

	memcpy(&args, MyBgworkerEntry->bgw_extra, sizeof(args));
	worker_begin(&args);
	if (!probe_extension())
		proc_exit(0);
	before_shmem_exit(manager_exit, (Datum) 0);

	cxt = AllocSetContextCreate(TopMemoryContext, "weir manager",
								ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		long		timeout;
		uint64		now_generation;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		worker_reload_config();
		now_generation = worker_catalog_generation();
		if (now_generation != generation)
			forget_back_off();
		generation = now_generation;

		MemoryContextSwitchTo(cxt);
		if (!read_wanted())
		{
			LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
			my_database->has_extension = false;
			LWLockRelease(&weir_shared->lock);
			proc_exit(0);
		}
		MemoryContextSwitchTo(cxt);
		if (now_generation != cleaned)
		{
			segment_drop_orphans();
			segment_revoke_stale();
		}
		cleaned = now_generation;
		MemoryContextSwitchTo(cxt);
		timeout = tend_children();
		MemoryContextReset(cxt);
		worker_account();
		pgstat_report_stat(false);
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
						 (timeout >= 0 ? WL_TIMEOUT : 0), timeout,
						 PG_WAIT_EXTENSION);
	}
}
