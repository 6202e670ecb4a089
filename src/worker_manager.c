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
 * grows, and the round is run again.  That alone forgets no back-off, since
 * anybody's call does it, and workers do it themselves: a back-off is
 * forgotten when what its worker is started from was written (weir.resume(),
 * seek, a server's options ...), so that it may go well now.
 *
 * It also drops the segments of sources and streams that are no more.
 *
 * An error of a round (a lock that is not to be had, an object that cannot be
 * dropped) is logged; the round is tried again, later and later, and what
 * runs goes on meanwhile.
 *
 * A manager without the extension ends, and with it all its workers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/nodes.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "dead_letter.h"
#include "fdw.h"
#include "ingest.h"
#include "settings.h"
#include "worker.h"

/* A worker that lived for this long starts again without a back-off. */
#define LIVED_LONG_MS 60000

typedef struct Child
{
	WorkerArgs	args;
	bool		wanted;
	bool		found;			/* by the round under way */
	uint64		definition;		/* what it is started from, as a hash */
	BackgroundWorkerHandle *handle; /* NULL: does not run */
	TimestampTz started_at;		/* worker_clock(), as next_start */
	TimestampTz started_wall;	/* the same as the time of day */
	TimestampTz next_start;
	int			delay_ms;		/* 0: start at once */
	bool		no_slot;		/* the server had none when it was tried */
	char		name[64];
} Child;

static List *children = NIL;	/* of Child *, in TopMemoryContext */
static DatabaseShared *my_database = NULL;
static bool slots_warned = false;

/* A part of the round that can fail, and when it may be tried again. */
typedef struct Task
{
	const char *purpose;
	void		(*run) (void);
	TimestampTz not_before;		/* worker_clock() */
	int			delay_ms;
} Task;

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
want(WorkerKind kind, int32 source_id, int32 stream_id, const char *name,
	 uint64 definition)
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
			child->found = true;
			strlcpy(child->name, name, sizeof(child->name));
			if (child->definition != definition)
				child->delay_ms = child->next_start = 0;
			child->definition = definition;
			return;
		}
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	child = palloc0(sizeof(*child));
	child->args.dbid = MyDatabaseId;
	child->args.kind = kind;
	child->args.source_id = source_id;
	child->args.stream_id = stream_id;
	child->found = true;
	child->definition = definition;
	strlcpy(child->name, name, sizeof(child->name));
	children = lappend(children, child);
	MemoryContextSwitchTo(old);
}

/*
 * What an ingest worker is started from: the source, as last written, and how
 * its broker is reached.
 */
static uint64
source_definition(const SourceDef *source)
{
	char	   *options = nodeToString(fdw_kafka_options(source->server_id,
														 source->owner));

	return hash_bytes_extended((unsigned char *) options, strlen(options),
							   source->version);
}

static uint64
stream_definition(const StreamDef *stream)
{
	return hash_combine64(stream->version, stream->seek_generation);
}

static const SourceDef *
source_of(List *sources, int32 source_id)
{
	ListCell   *lc;

	foreach(lc, sources)
	{
		const SourceDef *source = lfirst(lc);

		if (source->source_id == source_id)
			return source;
	}
	return NULL;
}

/* The extension is here, says read_wanted(). */
static bool extension_there = true;

/* Read the catalog and mark what is wanted. */
static void
read_wanted(void)
{
	ListCell   *lc;
	List	   *sources = NIL;
	List	   *source_ids = NIL;
	List	   *stream_ids = NIL;

	foreach(lc, children)
		((Child *) lfirst(lc))->found = false;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	extension_there = OidIsValid(catalog_extension_oid(true));
	if (extension_there && catalog_cookie_matches())
	{
		sources = catalog_sources();
		foreach(lc, sources)
		{
			SourceDef  *source = lfirst(lc);

			source_ids = lappend_int(source_ids, source->source_id);
			if (!source->paused && source->stopped_message == NULL)
				want(WORKER_INGEST, source->source_id, 0, source->name,
					 source_definition(source));
		}
		foreach(lc, catalog_streams())
		{
			StreamDef  *stream = lfirst(lc);
			const SourceDef *source = source_of(sources, stream->source_id);
			StreamShared *shared;

			stream_ids = lappend_int(stream_ids, stream->stream_id);
			if (stream->paused || stream->failed_message)
				continue;
			want(WORKER_STREAM, stream->source_id, stream->stream_id,
				 stream->name, stream_definition(stream));
			shared = worker_stream_find(MyDatabaseId, stream->stream_id);
			if (source && shared && shared->wants_catch_up)
				want(WORKER_CATCH_UP, stream->source_id, stream->stream_id,
					 stream->name, hash_combine64(source_definition(source),
												  stream_definition(stream)));
		}
	}
	worker_forget(MyDatabaseId, source_ids, stream_ids);
	PopActiveSnapshot();
	CommitTransactionCommand();
	foreach(lc, children)
		((Child *) lfirst(lc))->wanted = ((Child *) lfirst(lc))->found;
}

/* Dead letters of what is no more need no count. */
static void
forget_letters(void)
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	dead_letter_forget_dropped();
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*
 * Run a task, if it may be tried again.  False: it has failed, now or before,
 * and will be due at not_before.
 */
static bool
run_task(Task *task, MemoryContext cxt)
{
	volatile bool done = false;

	if (task->not_before > worker_clock())
		return false;
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		task->run();
		done = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		errcontext("%s", task->purpose);
		EmitErrorReport();
		FlushErrorState();
		AbortOutOfAnyTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	if (done)
	{
		task->delay_ms = 0;
		task->not_before = 0;
		return true;
	}
	task->delay_ms = task->delay_ms == 0 ? weir_retry_delay :
		Min(task->delay_ms * 2, weir_retry_delay_max);
	task->not_before = TimestampTzPlusMilliseconds(worker_clock(),
												   task->delay_ms);
	return false;
}

/* ms until a task is due, or timeout (-1: never) when that comes first. */
static long
until_due(const Task *task, long timeout)
{
	long		ms = TimestampDifferenceMilliseconds(worker_clock(),
													 task->not_before);

	return timeout < 0 ? ms : Min(timeout, ms);
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
note_exit(Child *child, TimestampTz now)
{
	SharedError error = {0};
	bool		anew = false;
	SlotShared *slot = NULL;
	StreamShared *stream;

	if (child->args.kind == WORKER_STREAM)
	{
		stream = worker_stream_find(MyDatabaseId, child->args.stream_id);
		if (stream)
		{
			worker_read_error(&stream->error, &error);
			anew = stream->start_anew;
			stream->start_anew = false;
		}
	}
	else
	{
		slot = worker_slot_find(MyDatabaseId, child->args.source_id,
								child->args.kind == WORKER_CATCH_UP ?
								child->args.stream_id : 0);
		if (slot)
		{
			worker_read_error(&slot->error, &error);
			anew = slot->start_anew;
			slot->start_anew = false;
		}
	}

	/* What begins anew again and again backs off like what fails. */
	anew = anew && TimestampDifferenceExceeds(child->started_at, now,
											  weir_retry_delay);
	if (anew)
	{
		child->delay_ms = 0;
		child->next_start = now;
	}
	if (slot)
		slot->next_retry_at = anew ? 0 :
			GetCurrentTimestamp() + (child->next_start - now);
	if (error.sqlerrcode != 0 && error.at >= child->started_wall)
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
	note_exit(child, now);
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
	child->started_wall = GetCurrentTimestamp();
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

/* The private ring whose segments drop_private() drops. */
static const Child *dropping;

static void
drop_private_segments(void)
{
	segment_drop_private(dropping->args.source_id, dropping->args.stream_id);
}

/* Once: what is in its way stays until the stream is dropped. */
static void
drop_private(const Child *child, MemoryContext cxt)
{
	Task		task = {"dropping the segments of a private ring",
	drop_private_segments};

	dropping = child;
	(void) run_task(&task, cxt);
}

/* Stop, reap and start; returns ms until something is due, -1: nothing is. */
static long
tend_children(void)
{
	TimestampTz now = worker_clock();
	ListCell   *lc;
	long		timeout = -1;
	bool		no_slot = false;

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
				drop_private(child, CurrentMemoryContext);
			children = foreach_delete_current(children, lc);
			pfree(child);
			continue;
		}
		if (child->handle == NULL && child->next_start <= now)
			child->no_slot = !start(child, now);
		no_slot |= child->no_slot;
		if (child->handle == NULL)
		{
			long		ms = TimestampDifferenceMilliseconds(now,
															 child->next_start);

			timeout = timeout < 0 ? ms : Min(timeout, ms);
		}
	}
	my_database->workers_needed = no_slot ? 1 + list_length(children) : 0;
	return timeout;
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
	Task		reading = {"reading what workers are wanted", read_wanted};
	Task		cleaning[] = {
		{"dropping segments of what is no more", segment_drop_orphans},
		{"forgetting the dead letters of what is no more", forget_letters}
	};
	uint64		cleaned[lengthof(cleaning)] = {0};
	WorkerArgs	args;
	MemoryContext cxt;
	uint64		generation = 0;

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
		bool		read;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		worker_reload_config();
		if (generation != worker_catalog_generation())
			slots_warned = false;
		generation = worker_catalog_generation();

		read = run_task(&reading, cxt);
		if (!extension_there)
		{
			LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
			my_database->has_extension = false;
			LWLockRelease(&weir_shared->lock);
			proc_exit(0);
		}
		for (int i = 0; read && i < lengthof(cleaning); i++)
			if (cleaned[i] != generation && run_task(&cleaning[i], cxt))
				cleaned[i] = generation;
		timeout = tend_children();
		if (!read)
			timeout = until_due(&reading, timeout);
		for (int i = 0; i < lengthof(cleaning); i++)
			if (read && cleaned[i] != generation)
				timeout = until_due(&cleaning[i], timeout);
		MemoryContextReset(cxt);
		worker_account();
		pgstat_report_stat(false);
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
						 (timeout >= 0 ? WL_TIMEOUT : 0), timeout,
						 PG_WAIT_EXTENSION);
	}
}
