/*-------------------------------------------------------------------------
 *
 * worker_shmem.c
 *	  Shared memory: allocation of slots, streams, workers and partitions.
 *
 * One block, sized by weir.max_sources, weir.max_streams and
 * weir.max_partitions.  There are max_sources + max_streams slots, since
 * every stream may be detached at a time.  A slot's partitions are a run of
 * the partition array, found first-fit when the topic's partition count
 * becomes known, and given back with the slot.  worker.h tells the locking.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "mb/pg_wchar.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "settings.h"
#include "worker.h"

WeirShared *weir_shared = NULL;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static int
count_slots(void)
{
	return weir_max_sources + weir_max_streams;
}

static int
count_workers(void)
{
	return 1 + WEIR_MAX_DATABASES + count_slots() + weir_max_streams;
}

static Size
shmem_size(void)
{
	Size		size = MAXALIGN(sizeof(WeirShared));

	size = add_size(size, mul_size(count_slots(),
								   MAXALIGN(sizeof(SlotShared))));
	size = add_size(size, mul_size(weir_max_streams,
								   MAXALIGN(sizeof(StreamShared))));
	size = add_size(size, mul_size(count_workers(),
								   MAXALIGN(sizeof(WorkerShared))));
	size = add_size(size, mul_size(weir_max_partitions,
								   MAXALIGN(sizeof(PartitionShared))));
	return size;
}

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(shmem_size());
	RequestNamedLWLockTranche("weir", 1 + count_slots());
}

static void
shmem_startup(void)
{
	bool		found;
	char	   *p;
	LWLockPadded *locks;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	p = ShmemInitStruct("weir", shmem_size(), &found);
	weir_shared = (WeirShared *) p;
	if (!found)
	{
		memset(p, 0, shmem_size());
		locks = GetNamedLWLockTranche("weir");
		weir_shared->nslots = count_slots();
		weir_shared->nstreams = weir_max_streams;
		weir_shared->nworkers = count_workers();
		weir_shared->npartitions = weir_max_partitions;
		LWLockInitialize(&weir_shared->lock, locks[0].lock.tranche);
		SpinLockInit(&weir_shared->stats_mutex);
		for (int i = 0; i < WEIR_MAX_DATABASES; i++)
			pg_atomic_init_u64(&weir_shared->databases[i].generation, 1);

		p += MAXALIGN(sizeof(WeirShared));
		weir_shared->slots = (SlotShared *) p;
		for (int i = 0; i < weir_shared->nslots; i++)
			LWLockInitialize(&weir_shared->slots[i].lock,
							 locks[0].lock.tranche);
		p += weir_shared->nslots * MAXALIGN(sizeof(SlotShared));
		weir_shared->streams = (StreamShared *) p;
		p += weir_shared->nstreams * MAXALIGN(sizeof(StreamShared));
		weir_shared->workers = (WorkerShared *) p;
		p += weir_shared->nworkers * MAXALIGN(sizeof(WorkerShared));
		weir_shared->partitions = (PartitionShared *) p;
	}
	LWLockRelease(AddinShmemInitLock);
}

void
worker_shmem_init(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

/* Caller holds WeirShared.lock. */
static SlotShared *
slot_lookup(Oid dbid, int32 source_id, int32 stream_id)
{
	for (int i = 0; i < weir_shared->nslots; i++)
	{
		SlotShared *slot = &weir_shared->slots[i];

		if (slot->in_use && slot->dbid == dbid &&
			slot->source_id == source_id && slot->stream_id == stream_id)
			return slot;
	}
	return NULL;
}

SlotShared *
worker_slot_find(Oid dbid, int32 source_id, int32 stream_id)
{
	SlotShared *slot;

	LWLockAcquire(&weir_shared->lock, LW_SHARED);
	slot = slot_lookup(dbid, source_id, stream_id);
	LWLockRelease(&weir_shared->lock);
	return slot;
}

/*
 * The slot for a source or a detached stream of this database, made when it
 * is not there.  It keeps its statistics and its epoch across restarts of
 * its worker.  The caller holds the slot's session lock (worker_ingest.c).
 */
SlotShared *
worker_slot_claim(int32 source_id, int32 stream_id)
{
	SlotShared *slot;

	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	slot = slot_lookup(MyDatabaseId, source_id, stream_id);
	for (int i = 0; slot == NULL && i < weir_shared->nslots; i++)
	{
		SlotShared *candidate = &weir_shared->slots[i];
		uint64		epoch = candidate->epoch;

		if (candidate->in_use)
			continue;
		slot = candidate;
		LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
		memset((char *) slot + sizeof(LWLock), 0,
			   sizeof(SlotShared) - sizeof(LWLock));
		slot->in_use = true;
		slot->epoch = epoch;	/* never goes back: readers compare it */
		slot->dbid = MyDatabaseId;
		slot->source_id = source_id;
		slot->stream_id = stream_id;
		slot->filling = -1;
		slot->next_seq = 1;
		slot->stats_reset = GetCurrentTimestamp();
		LWLockRelease(&slot->lock);
	}
	if (slot)
	{
		LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
		slot->pid = MyProcPid;	/* worker_forget() spares it */
		LWLockRelease(&slot->lock);
	}
	LWLockRelease(&weir_shared->lock);
	if (slot == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no free slot for a source"),
				 errhint("Increase weir.max_sources and restart the "
						 "server.")));
	return slot;
}

/* Caller holds WeirShared.lock. */
static void
release_slot(SlotShared *slot)
{
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	slot->epoch++;
	slot->in_use = false;
	slot->npartitions = 0;
	slot->nmarks = 0;
	slot->nsegments = 0;
	for (int i = 0; i < weir_shared->nstreams; i++)
		if (weir_shared->streams[i].slot == slot - weir_shared->slots)
			weir_shared->streams[i].slot = -1;
	LWLockRelease(&slot->lock);
}

/*
 * Give a slot back.  Streams that still hold it are let go: they find their
 * slot's epoch changed and look for another.
 */
void
worker_slot_release(SlotShared *slot)
{
	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	release_slot(slot);
	LWLockRelease(&weir_shared->lock);
}

/* Is [base, base + n) free but for the given slot's own run? */
static bool
partitions_free(const SlotShared *own, int base, int n)
{
	for (int i = 0; i < weir_shared->nslots; i++)
	{
		SlotShared *slot = &weir_shared->slots[i];

		if (slot != own && slot->in_use && slot->npartitions > 0 &&
			slot->partition_base < base + n &&
			base < slot->partition_base + slot->npartitions)
			return false;
	}
	return true;
}

/*
 * Give the slot room for n partitions.  False when there is none.  The run's
 * contents are void: the caller has just begun a new epoch.  Statistics of
 * partitions that stay are carried over when the run does not move.
 */
bool
worker_slot_set_partitions(SlotShared *slot, int n)
{
	bool		found = false;
	int			base = slot->partition_base;

	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	if (slot->npartitions >= n && slot->npartitions > 0)
		found = true;
	else if (slot->npartitions > 0 &&
			 base + n <= weir_shared->npartitions &&
			 partitions_free(slot, base, n))
		found = true;
	else
	{
		for (base = 0; base + n <= weir_shared->npartitions; base++)
			if (partitions_free(slot, base, n))
			{
				found = true;
				break;
			}
	}
	if (found)
	{
		LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
		if (slot->partition_base != base || slot->npartitions == 0)
			memset(&weir_shared->partitions[base], 0,
				   sizeof(PartitionShared) * n);
		else if (n > slot->npartitions)
			memset(&weir_shared->partitions[base + slot->npartitions], 0,
				   sizeof(PartitionShared) * (n - slot->npartitions));
		slot->partition_base = base;
		slot->npartitions = n;
		for (int i = 0; i < n; i++)
		{
			PartitionShared *p = &weir_shared->partitions[base + i];

			p->next = p->floor = OFFSET_PENDING;
			p->pending = false;
			if (p->end_as_of == 0)
				p->end_offset = -1;
			p->idle_since = 0;
			if (p->max_event_time == 0)
				p->max_event_time = DT_NOBEGIN;
		}
		LWLockRelease(&slot->lock);
	}
	LWLockRelease(&weir_shared->lock);
	return found;
}

PartitionShared *
worker_slot_partitions(SlotShared *slot)
{
	return &weir_shared->partitions[slot->partition_base];
}

/* Caller holds WeirShared.lock. */
static StreamShared *
stream_lookup(Oid dbid, int32 stream_id)
{
	for (int i = 0; i < weir_shared->nstreams; i++)
	{
		StreamShared *stream = &weir_shared->streams[i];

		if (stream->in_use && stream->dbid == dbid &&
			stream->stream_id == stream_id)
			return stream;
	}
	return NULL;
}

StreamShared *
worker_stream_find(Oid dbid, int32 stream_id)
{
	StreamShared *stream;

	LWLockAcquire(&weir_shared->lock, LW_SHARED);
	stream = stream_lookup(dbid, stream_id);
	LWLockRelease(&weir_shared->lock);
	return stream;
}

/*
 * A stream's entry, made when it is not there; NULL when all are taken.
 * Caller holds WeirShared.lock.
 */
static StreamShared *
stream_entry(int32 stream_id, int32 source_id)
{
	StreamShared *stream = stream_lookup(MyDatabaseId, stream_id);

	for (int i = 0; stream == NULL && i < weir_shared->nstreams; i++)
	{
		if (weir_shared->streams[i].in_use)
			continue;
		stream = &weir_shared->streams[i];
		memset(stream, 0, sizeof(*stream));
		pg_atomic_init_u32(&stream->holds, 0);
		stream->in_use = true;
		stream->dbid = MyDatabaseId;
		stream->stream_id = stream_id;
		stream->source_id = source_id;
		stream->slot = -1;
		stream->watermark = DT_NOBEGIN;
		stream->max_event_time = DT_NOBEGIN;
		stream->watermark_held_by = -1;
		stream->stats_reset = GetCurrentTimestamp();
	}
	return stream;
}

StreamShared *
worker_stream_claim(int32 stream_id, int32 source_id)
{
	StreamShared *stream;

	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	stream = stream_entry(stream_id, source_id);
	if (stream)
		stream->pid = MyProcPid;
	LWLockRelease(&weir_shared->lock);
	if (stream == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no free slot for a stream"),
				 errhint("Increase weir.max_streams and restart the "
						 "server.")));
	return stream;
}

/*
 * Announce that somebody wants to lock the stream (worker_hold.c); its entry
 * stays as long.  NULL when there is no entry left for it.
 */
StreamShared *
worker_stream_hold(int32 stream_id, int32 source_id)
{
	StreamShared *stream;

	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	stream = stream_entry(stream_id, source_id);
	if (stream)
		pg_atomic_fetch_add_u32(&stream->holds, 1);
	LWLockRelease(&weir_shared->lock);
	return stream;
}

/*
 * Give back what belongs to sources and streams that a database has no more:
 * those not in the lists of ids.  What has a worker stays until that ends.
 */
void
worker_forget(Oid dbid, List *sources, List *streams)
{
	LWLockAcquire(&weir_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < weir_shared->nslots; i++)
	{
		SlotShared *slot = &weir_shared->slots[i];

		if (slot->in_use && slot->dbid == dbid && slot->pid == 0 &&
			!list_member_int(sources, slot->source_id))
			release_slot(slot);
	}
	for (int i = 0; i < weir_shared->nstreams; i++)
	{
		StreamShared *stream = &weir_shared->streams[i];

		if (stream->in_use && stream->dbid == dbid && stream->pid == 0 &&
			pg_atomic_read_u32(&stream->holds) == 0 &&
			!list_member_int(streams, stream->stream_id))
			stream->in_use = false;
	}
	LWLockRelease(&weir_shared->lock);
}

/* Segments of all slots of a source of this database; returns how many. */
int
worker_source_segments(int32 source_id, Oid *relids, int max)
{
	int			n = 0;

	if (weir_shared == NULL)
		return 0;
	LWLockAcquire(&weir_shared->lock, LW_SHARED);
	for (int i = 0; i < weir_shared->nslots; i++)
	{
		SlotShared *slot = &weir_shared->slots[i];

		if (!slot->in_use || slot->dbid != MyDatabaseId ||
			slot->source_id != source_id || slot->stream_id != 0)
			continue;
		LWLockAcquire(&slot->lock, LW_SHARED);
		for (int s = 0; s < slot->nsegments && n < max; s++)
			if (slot->segments[s].state == SEGMENT_FILLING ||
				slot->segments[s].state == SEGMENT_SEALED)
				relids[n++] = slot->segments[s].relid;
		LWLockRelease(&slot->lock);
	}
	LWLockRelease(&weir_shared->lock);
	return n;
}

void
worker_set_error(SharedError *error, int sqlerrcode, const char *message)
{
	char text[	WEIR_TEXT_LEN];

	/* Cut before the spinlock: it may be held for a few instructions only. */
	strlcpy(text, message ? message : "", sizeof(text));
	text[		pg_mbcliplen(text, strlen(text), sizeof(text) - 1)] = '\0';

	SpinLockAcquire(&weir_shared->stats_mutex);
	error->sqlerrcode = sqlerrcode;
	memcpy(error->message, text, sizeof(text));
	SpinLockRelease(&weir_shared->stats_mutex);
	error->at = GetCurrentTimestamp();
}

void
worker_clear_error(SharedError *error)
{
	SpinLockAcquire(&weir_shared->stats_mutex);
	error->sqlerrcode = 0;
	error->message[0] = '\0';
	SpinLockRelease(&weir_shared->stats_mutex);
}

void
worker_read_error(const SharedError *error, SharedError *copy)
{
	SpinLockAcquire(&weir_shared->stats_mutex);
	memcpy(copy, error, sizeof(*copy));
	SpinLockRelease(&weir_shared->stats_mutex);
}

const char *
worker_slot_state_name(SlotState state)
{
	static const char *const names[] = {
		"starting", "running", "back_pressure", "paused", "retrying",
		"stopped", "preview"
	};

	return names[state];
}

const char *
worker_stream_state_name(StreamState state)
{
	static const char *const names[] = {
		"starting", "running", "catching_up", "waiting", "paused",
		"retrying", "failed"
	};

	return names[state];
}

const char *
worker_kind_name(WorkerKind kind)
{
	static const char *const names[] = {
		"launcher", "manager", "ingest", "catch_up", "stream"
	};

	return names[kind];
}

void
worker_histogram_add(SharedHistogram *histogram, double us)
{
	int			bucket = us <= 1 ? 0 : (int) (log2(us) * 4);

	histogram->count[Min(bucket, WEIR_HISTOGRAM_BUCKETS - 1)]++;
	if (us > histogram->max)
		histogram->max = us;
}

/* The upper bound of the bucket that holds the quantile; NaN when empty. */
double
worker_histogram_quantile(const SharedHistogram *histogram, double q)
{
	uint64		total = 0;
	uint64		seen = 0;

	for (int b = 0; b < WEIR_HISTOGRAM_BUCKETS; b++)
		total += histogram->count[b];
	if (total == 0)
		return NAN;
	for (int b = 0; b < WEIR_HISTOGRAM_BUCKETS; b++)
	{
		seen += histogram->count[b];
		if (seen >= q * total)
			return Min(exp2((b + 1) / 4.0), histogram->max);
	}
	return histogram->max;
}
