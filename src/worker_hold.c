/*-------------------------------------------------------------------------
 *
 * worker_hold.c
 *	  Let seek and drop in before a batch of their stream ends.
 *
 * A batch locks its stream (catalog_lock_stream) to its commit, and so do
 * seeks, drops, and ingest when it gives the stream positions in partitions
 * that were added.  A batch is bounded in what goes in and comes out, but not
 * in time: one row may be in millions of windows, or a function of the
 * query's may take minutes.  So who wants the lock announces that first:
 *
 *	 wants:		 holds + 1;	 while in_batch, wait a while, then
 *				 terminate the worker, again and again;	 lock;	 holds - 1
 *	 the worker: in_batch = true;  if holds > 0 then in_batch = false and
 *				 wait;	the batch;	in_batch = false
 *
 * Each writes its own word before it reads the other's, with a barrier in
 * between, so one of them sees the other.  Termination cannot be caught by
 * what the batch runs, as a cancelled statement can; the worker's transaction
 * is rolled back, and the manager starts it again, whether what was wanted
 * commits or not.  Then it waits for the lock like anybody.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "catalog_spi.h"
#include "worker.h"

/* Most batches end by themselves within this time. */
#define GRACE_MS 200

#define LOOK_AGAIN_MS 10

/*
 * By the worker: may a batch begin?  A new manager may have given the stream
 * to another worker.
 */
bool
worker_batch_begin(StreamShared *stream)
{
	if (stream->pid != MyProcPid)
		return true;
	stream->in_batch = true;
	pg_memory_barrier();
	if (pg_atomic_read_u32(&stream->holds) == 0)
		return true;
	stream->in_batch = false;
	return false;
}

void
worker_batch_end(StreamShared *stream)
{
	if (stream->pid == MyProcPid)
		stream->in_batch = false;
}

static void
end_hold(int code, Datum arg)
{
	StreamShared *stream = (StreamShared *) DatumGetPointer(arg);

	pg_atomic_fetch_sub_u32(&stream->holds, 1);
	worker_wake(&stream->latch);
}

/* Is a batch under way?  If so, and if told to, end its worker. */
static bool
in_batch(const StreamShared *stream, bool terminate)
{
	pid_t		pid;

	LWLockAcquire(&weir_shared->lock, LW_SHARED);
	pid = stream->in_batch ? stream->pid : 0;
	if (pid != 0 && terminate)
		(void) kill(pid, SIGTERM);
	LWLockRelease(&weir_shared->lock);
	return pid != 0;
}

/*
 * Lock a stream to the end of the transaction, as its batches do, but without
 * waiting for a long one.
 */
void
worker_lock_stream(int32 stream_id, int32 source_id)
{
	StreamShared *stream = worker_stream_hold(stream_id, source_id);
	TimestampTz start = worker_clock();

	/* no room for one more stream: it has no worker, either */
	if (stream == NULL)
	{
		catalog_lock_stream(stream_id);
		return;
	}
	PG_ENSURE_ERROR_CLEANUP(end_hold, PointerGetDatum(stream));
	{
		while (in_batch(stream,
						TimestampDifferenceExceeds(start, worker_clock(),
												   GRACE_MS)))
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
							 WL_EXIT_ON_PM_DEATH, LOOK_AGAIN_MS,
							 PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
		catalog_lock_stream(stream_id);
	}
	PG_END_ENSURE_ERROR_CLEANUP(end_hold, PointerGetDatum(stream));
	end_hold(0, PointerGetDatum(stream));
}
