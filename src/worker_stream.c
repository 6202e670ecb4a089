/*-------------------------------------------------------------------------
 *
 * worker_stream.c
 *	  The stream worker: one stream, batch after batch.
 *
 *	loop: position known?  ring to read?  new marks, or time to tell?
 *		run a batch; on failure look at the error's class:
 *		outage		let go of the ring (others go on), wait, read the
 *					position anew, try again
 *		all else	the same batch again, carefully; if it fails then as well,
 *					write the reason into the catalog, end; weir.resume()
 *					starts it again
 *
 * Nothing is in memory that is not read again after a failure: the position
 * from weir_internal.stream_state, the ring from shared memory.
 *
 * Small batches are paced: the next one begins after PACE_FACTOR times what
 * the last one took, so that rows are gathered, and hot groups collapse
 * before they are merged, instead of costing a transaction a row; and a
 * stream takes a fifth of a processor at most until its batches are full.  A
 * batch that ends while more is waiting, with its segment or by its rows, is
 * followed by the next at once, whatever its batch_interval.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "errors.h"
#include "settings.h"
#include "stream_batch.h"
#include "worker.h"

/* What nobody wakes the worker for is looked at this often. */
#define TICK_MS 100

/* ... and this often when only a wake-up can bring something to do. */
#define QUIET_TICK_MS 2000

/* And the stream's tables, when there is nothing to do. */
#define LOOK_MS 500

/*
 * A batch that is not full delays the next one by this many times its own
 * duration, and by this much at most.
 */
#define PACE_FACTOR 4
#define MAX_PACE_US 100000

static StreamWorker *worker = NULL;

static void
leave_stream(int code, Datum arg)
{
	StreamShared *shared = worker->shared;
	bool		mine;

	if (shared == NULL)
		return;
	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	mine = shared->pid == MyProcPid;
	if (mine)
	{
		worker_batch_end(shared);
		shared->pid = 0;
		shared->latch = NULL;
	}
	LWLockRelease(&weir_shared->lock);

	/* else a new manager's worker has taken over already */
	if (mine)
		attach_release(worker);
}

/*
 * The session's settings beside those of every worker; the owner's captured
 * ones come on top of them while statements run.
 */
static void
configure_session(void)
{
	static const char *const settings[][2] = {
		{"jit", "off"},

		/*
		 * A segment has no statistics: an equality is guessed to keep next to
		 * nothing, and sorting that looks cheaper than hashing.
		 */
		{"enable_sort", "off"},
		{"max_parallel_workers_per_gather", "0"},
	};
	char		value[32];

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET,
						PGC_S_SESSION);
	if (weir_work_mem > 0)
	{
		snprintf(value, sizeof(value), "%d", weir_work_mem);
		SetConfigOption("work_mem", value, PGC_SUSET, PGC_S_SESSION);
	}
}

static char *
relation_text(Oid relid)
{
	char	   *name;

	if (!OidIsValid(relid))
		return NULL;
	name = get_rel_name(relid);
	if (name == NULL)
		return NULL;
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  name);
}

/*
 * Read definition and position; analyze the query.  Ends the worker when the
 * stream is not wanted any more.
 */
static void
read_definition(StreamWorker *w, const WorkerArgs *args)
{
	w->generation = worker_catalog_generation();
	w->advance_stale = true;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(w->cxt);
	w->def = catalog_stream_by_id(args->stream_id, true);
	if (w->def == NULL || w->def->paused || w->def->failed_message)
		proc_exit(0);
	namestrcpy(&w->shared->name, w->def->name);
	w->source = catalog_source_by_id(w->def->source_id, false);
	w->target_name = relation_text(w->def->target);
	w->state_name = relation_text(w->def->state);
	if (w->target_name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the target of stream \"%s\" does not exist",
						w->def->name),
				 errhint("Drop the stream and create it again.")));
	catalog_grant_usage(w->def->owner);
	w->rights_stale = true;
	catalog_settle_session(&w->def->settings);
	w->plan = follow_read(w->def, &w->options);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(w->cxt);
}

/* Has the catalog changed in a way that needs a new start? */
static void
check_definition(StreamWorker *w)
{
	StreamDef  *def;
	bool		changed;

	w->generation = worker_catalog_generation();
	w->advance_stale = true;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	def = catalog_stream_by_id(w->def->stream_id, true);
	changed = def == NULL || def->paused || def->failed_message ||
		def->owner != w->def->owner ||
		def->seek_generation != w->seek_generation ||
		def->target != w->def->target || def->state != w->def->state ||
		strcmp(def->query, w->def->query) != 0;
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (changed)
	{
		w->shared->start_anew = true;
		proc_exit(0);
	}
}

static bool
read_position(StreamWorker *w)
{
	bool		known;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	known = progress_read(w);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(w->cxt);
	w->shared->watermark = w->watermark;
	return known;
}

/* What an attempt came to. */
typedef enum Attempt
{
	ATTEMPT_DONE,
	ATTEMPT_LOST,				/* ring or position gone: look again */
	ATTEMPT_CAREFUL,			/* try again, carefully */
	ATTEMPT_OUTAGE
} Attempt;

/* Write the reason of a failure into the catalog, and end. */
static void
fail_stream(StreamWorker *w, const ErrorData *edata)
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());

	/* A rename may have come between reading the query and analyzing it. */
	if (catalog_stream_changed(w->def))
		proc_exit(0);
	catalog_fail_stream(w->def->stream_id, error_sqlstate(edata->sqlerrcode),
						error_text(edata));
	worker_wakeup_at_commit();
	PopActiveSnapshot();
	CommitTransactionCommand();
	w->shared->state = STREAM_FAILED;
	proc_exit(0);
}

/* Has the ring begun anew, or this stream been let go, meanwhile? */
static bool
ring_lost(const StreamWorker *w)
{
	bool		lost;

	if (w->slot == NULL)
		return false;
	LWLockAcquire(&w->slot->lock, LW_SHARED);
	lost = w->slot->epoch != w->epoch ||
		w->shared->slot != w->slot - weir_shared->slots;
	LWLockRelease(&w->slot->lock);
	return lost;
}

/*
 * After an error: roll back, show it, decide.  When ingest has begun anew,
 * the segment's view may have been replaced under the statements, which says
 * nothing of the definition; nor does an error after the stream's tables have
 * changed again.
 */
static Attempt
judge_error(StreamWorker *w, bool careful)
{
	ErrorData  *edata;
	ErrorClass	class;
	bool		outage;

	MemoryContextSwitchTo(w->batch_cxt);
	edata = CopyErrorData();
	class = error_class(edata->sqlerrcode);
	outage = class == ERROR_OF_OUTAGE ||
		(class == ERROR_OF_DEFINITION && ring_lost(w));
	careful = careful || outage || !error_may_be_of_row(edata->sqlerrcode);
	if (careful)
		EmitErrorReport();
	FlushErrorState();
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(w->batch_cxt);

	if (!careful)
		return ATTEMPT_CAREFUL;
	w->letter_shown = false;
	worker_set_error(&w->shared->error, edata->sqlerrcode,
					 error_text(edata));
	if (outage)
		return ATTEMPT_OUTAGE;
	if (class == ERROR_OF_DEFINITION && follow_moved(w))
		return ATTEMPT_LOST;
	fail_stream(w, edata);
	return ATTEMPT_OUTAGE;		/* not reached */
}

static Attempt
attempt(StreamWorker *w, StreamBatch *batch, bool careful)
{
	volatile Attempt result;

	PG_TRY();
	{
		result = batch_run(w, batch, careful) ? ATTEMPT_DONE : ATTEMPT_LOST;
	}
	PG_CATCH();
	{
		result = judge_error(w, careful);
	}
	PG_END_TRY();
	return result;
}

/*
 * Have the tables changed?  Asked when there is nothing to do as well, so that
 * the stream says at once what is wrong with them.
 */
static void
look_at_tables(StreamWorker *w)
{
	PG_TRY();
	{
		StartTransactionCommand();
		MemoryContextSwitchTo(w->batch_cxt);
		if (follow_stale(w))
		{
			PushActiveSnapshot(GetTransactionSnapshot());
			follow_check(w, false);
			PopActiveSnapshot();
		}
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		/* an outage: the next look will tell */
		(void) judge_error(w, true);
	}
	PG_END_TRY();
	MemoryContextReset(w->batch_cxt);
}

static void
wait_ms(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
					 WL_EXIT_ON_PM_DEATH, ms, PG_WAIT_EXTENSION);
}

/* An outage: others must not wait for this stream meanwhile. */
static void
back_off(StreamWorker *w, int *delay)
{
	TimestampTz until;

	attach_release(w);
	w->shared->state = STREAM_RETRYING;
	w->shared->retries++;
	until = TimestampTzPlusMilliseconds(worker_clock(), *delay);
	w->shared->next_retry_at =
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), *delay);
	worker_activity("stream %s waits to try again", w->def->name);
	*delay = Min(*delay * 2, weir_retry_delay_max);
	for (;;)
	{
		long		ms = TimestampDifferenceMilliseconds(worker_clock(),
														 until);

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (w->generation != worker_catalog_generation())
			check_definition(w);
		if (ms <= 0)
			break;
		wait_ms(ms);
	}
	w->shared->next_retry_at = 0;
}

/* Is there anything to do without new rows? */
static bool
time_tells(StreamWorker *w, const StreamBatch *batch)
{
	int32		held_by;

	return w->slot && (progress_advance_due(w, batch) ||
					   watermark_compute(w, batch, &held_by) > w->watermark);
}

/* When may the next batch begin?  At once, while more is waiting. */
static TimestampTz
pace(const StreamWorker *w, const StreamBatch *batch, TimestampTz started)
{
	int64		took = worker_clock() - started;

	if (batch->full)
		return started;
	if (w->def->batch_interval > 0)
		return started + w->def->batch_interval;
	if (batch->nrows >= weir_max_batch_rows / 4)
		return started;
	return started + took + Min(took * PACE_FACTOR, MAX_PACE_US);
}

/* Ingest commits when there is a stream to read what it has. */
static void
tell_pace(StreamWorker *w, TimestampTz next_batch_at)
{
	w->shared->next_batch_at = next_batch_at;
	if (w->slot)
		worker_wake(&w->slot->latch);
}

/*
 * Does ingest wait for room in the ring?  Then a batch_interval would let the
 * backlog grow in Kafka.
 */
static bool
ring_is_full(const StreamWorker *w)
{
	return w->slot && w->slot->state == SLOT_BACK_PRESSURE;
}

static void
show_state(StreamWorker *w)
{
	w->shared->state = w->on_private ? STREAM_CATCHING_UP : STREAM_RUNNING;
	worker_activity("stream %s%s", w->def->name,
					w->on_private ? " catches up" : "");
}

/* Has ingest still to resolve some of the position? */
static bool
position_open(const StreamWorker *w)
{
	for (int p = 0; p < w->npartitions; p++)
		if (w->applied[p] < 0)
			return true;
	return false;
}

/*
 * Has the ring more partitions than were known when the position was read?
 * Ingest writes the first positions of new ones, stream by stream.
 */
static bool
partitions_added(StreamWorker *w)
{
	SlotShared *slot = worker_slot_find(MyDatabaseId, w->def->source_id, 0);

	return slot && slot->npartitions > w->npartitions;
}

/*
 * All is well again.  What a seek left out stays to be seen, and so does a
 * dead letter, unless the private slot's worker has shown an outage since.
 */
static void
clear_error(StreamWorker *w)
{
	if (error_class(w->shared->error.sqlerrcode) == ERROR_OF_OUTAGE ||
		(!w->letter_shown &&
		 ERRCODE_TO_CATEGORY(w->shared->error.sqlerrcode) != ERRCODE_WARNING))
		worker_clear_error(&w->shared->error);
}

/* One turn; returns how long to wait for the latch, 0: go on at once. */
static long
turn(StreamWorker *w, bool *careful, int *delay, TimestampTz *not_before)
{
	StreamBatch batch;
	Attempt		result;
	TimestampTz now = worker_clock();
	bool		was_private = w->on_private;

	if (w->npartitions == 0 && !read_position(w))
	{
		w->shared->state = STREAM_WAITING;
		return TICK_MS * 10;
	}
	if (w->slot == NULL && !attach_to_slot(w))
	{
		w->shared->state = w->shared->wants_catch_up ? STREAM_CATCHING_UP :
			STREAM_WAITING;
		if (partitions_added(w) || position_open(w))
			(void) read_position(w);
		return TICK_MS;
	}
	if (w->on_private)
		(void) attach_try_shared(w);
	if (w->shared->state != STREAM_RUNNING || was_private != w->on_private)
		show_state(w);
	if (*not_before > now && !ring_is_full(w))
		return Min(Max(1, (*not_before - now) / 1000), QUIET_TICK_MS);

	MemoryContextReset(w->batch_cxt);
	MemoryContextSwitchTo(w->batch_cxt);
	if (w->advance_stale)
		progress_read_advance(w);
	MemoryContextSwitchTo(w->batch_cxt);
	if (!batch_choose(w, &batch))
	{
		attach_release(w);
		w->npartitions = 0;		/* partitions may have been added */
		return 0;
	}
	if (!batch.moved && !time_tells(w, &batch))
	{
		/* what an outage had put off has been done, or is not wanted */
		if (error_class(w->shared->error.sqlerrcode) == ERROR_OF_OUTAGE)
			worker_clear_error(&w->shared->error);
		return w->def->on_idle_advance || w->on_private ?
			TICK_MS : QUIET_TICK_MS;
	}

	if (!worker_batch_begin(w->shared))
		return TICK_MS;
	w->shared->next_batch_at = DT_NOEND;
	result = attempt(w, &batch, *careful);
	worker_batch_end(w->shared);
	switch (result)
	{
		case ATTEMPT_DONE:
			/* rows that the target refuses seldom come alone */
			*careful = *careful && batch.dead > 0;
			if (batch.groups_failed == 0)
				clear_error(w);
			*delay = weir_retry_delay;
			*not_before = pace(w, &batch, now);
			tell_pace(w, *not_before);
			return batch.moved || batch.advanced ? 0 : TICK_MS;
		case ATTEMPT_LOST:
			attach_release(w);
			w->npartitions = 0;
			return 0;
		case ATTEMPT_CAREFUL:
			*careful = true;
			return 0;
		case ATTEMPT_OUTAGE:
			w->npartitions = 0;
			back_off(w, delay);
			return 0;
	}
	return TICK_MS;
}

static void
stream_loop(StreamWorker *w)
{
	bool		careful = false;
	int			delay = weir_retry_delay;
	TimestampTz not_before = 0;
	TimestampTz looked = 0;

	for (;;)
	{
		long		wait;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			worker_reload_config();
			configure_session();
		}
		if (w->generation != worker_catalog_generation())
			check_definition(w);
		wait = turn(w, &careful, &delay, &not_before);
		worker_account();
		if (wait > 0 && worker_clock() - looked > LOOK_MS * 1000)
		{
			look_at_tables(w);
			looked = worker_clock();
		}
		if (wait > 0)
			wait_ms(wait);
	}
}

void
weir_stream_main(Datum arg)
{
	WorkerArgs	args;
	StreamWorker *w;

	memcpy(&args, MyBgworkerEntry->bgw_extra, sizeof(args));
	worker_begin(&args);
	worker = w = MemoryContextAllocZero(TopMemoryContext, sizeof(*w));
	w->cxt = AllocSetContextCreate(TopMemoryContext, "weir stream",
								   ALLOCSET_DEFAULT_SIZES);
	w->batch_cxt = AllocSetContextCreate(w->cxt, "weir stream batch",
										 ALLOCSET_DEFAULT_SIZES);
	w->progress_cxt = AllocSetContextCreate(w->cxt, "weir stream progress",
											ALLOCSET_SMALL_SIZES);
	w->shared = worker_stream_claim(args.stream_id, args.source_id);
	before_shmem_exit(leave_stream, (Datum) 0);
	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	w->shared->pid = MyProcPid;
	w->shared->latch = MyLatch;
	LWLockRelease(&weir_shared->lock);
	w->shared->state = STREAM_STARTING;
	w->shared->start_anew = false;
	w->shared->next_batch_at = 0;
	configure_session();
	follow_begin(w);

	PG_TRY();
	{
		read_definition(w, &args);
	}
	PG_CATCH();
	{
		/* Without a definition there is nothing to retry here. */
		if (w->def == NULL)
			PG_RE_THROW();
		(void) judge_error(w, true);
		proc_exit(1);
	}
	PG_END_TRY();
	stream_loop(w);
}
