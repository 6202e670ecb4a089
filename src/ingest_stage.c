/*-------------------------------------------------------------------------
 *
 * ingest_stage.c
 *	  The staging ring: a few unlogged segments, filled in turn.
 *
 * Life of a segment (ingest_segment.c has its table):
 *
 *	FREE -> FILLING			stage_has_room() opens it: gets the next sequence
 *							number
 *	FILLING -> SEALED		it has reached weir.segment_size, or there is no
 *							room for more marks
 *	SEALED -> RECYCLING		every holder has applied past it: under the slot's
 *							lock the floors go up and its marks go away (I3)
 *	RECYCLING -> FREE		truncated, under a lock that is only tried for
 *
 * A busy segment (somebody's SELECT reads it) stays RECYCLING and is tried
 * again; after a second a new table takes its place in the ring, and the old
 * one is dropped as soon as nobody reads it.
 *
 * I6: at most the staging limit is staged, plus one insert; tables that wait to
 * be dropped count.  A segment can
 * be larger than weir.segment_size by one insert too, so it is the sum that
 * is compared.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/hio.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/heap.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/smgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog_spi.h"
#include "ingest.h"
#include "settings.h"
#include "worker.h"

/* A segment that could not be truncated for this long is replaced. */
#define BUSY_TIMEOUT_MS 1000

/* Since when each segment waits to be truncated; 0: it does not. */
static TimestampTz busy_since[WEIR_MAX_SEGMENTS];

/*
 * There are tables whose place another one took, of so many blocks; last
 * tried to drop them.
 */
static bool strays = false;
static BlockNumber stray_blocks = 0;
static TimestampTz strays_tried = 0;

/* Number of the next table that takes a busy one's place. */
static int	next_spare = WEIR_MAX_SEGMENTS;

static int64
staging_limit(const Ingest *ingest)
{
	if (ingest->source->staging_limit > 0)
		return ingest->source->staging_limit;
	return (int64) weir_staging_limit * 1024;
}

/* Sealed at this many blocks: never more than a third of the limit. */
static BlockNumber
segment_blocks(const Ingest *ingest)
{
	int64		bytes = Min((int64) weir_segment_size * 1024,
							staging_limit(ingest) / 3);

	return Max(bytes / BLCKSZ, 1);
}

static int
ring_size(const Ingest *ingest)
{
	int64		n = staging_limit(ingest) /
	((int64) segment_blocks(ingest) * BLCKSZ);

	return Max(3, Min(n, WEIR_MARKS - 2));
}

/*
 * Put an empty segment, table number n, at a place of the ring; as the
 * extension's owner, in a transaction of its own.  False: somebody reads it.
 *
 * It is not interrupted once it makes files.  An abort leaves the file of an
 * unlogged table, cut to nothing, until the next checkpoint, and takes its
 * init fork away; when the server crashes before the abort is in the WAL on
 * disk, recovery makes the init fork again, finds the file in its way when it
 * resets unlogged tables ("could not create file ...: File exists"), and the
 * server does not come up by itself.
 */
static bool
place_segment(Ingest *ingest, int place, int n)
{
	CatalogAccess access;
	SegmentShared segment = {0};
	bool		unread;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	catalog_begin(&access);
	LockRelationOid(ingest->source->relid, AccessShareLock);
	unread = segment_try_lock(ingest, n);
	HOLD_INTERRUPTS();			/* from here on no lock is waited for */
	if (unread)
		segment_ensure(ingest, n, &segment);
	catalog_end(&access);
	PopActiveSnapshot();
	CommitTransactionCommand();
	RESUME_INTERRUPTS();
	if (!unread)
		return false;

	segment.state = SEGMENT_FREE;
	LWLockAcquire(&ingest->slot->lock, LW_EXCLUSIVE);
	ingest->slot->segments[place] = segment;
	LWLockRelease(&ingest->slot->lock);
	busy_since[place] = 0;
	return true;
}

/* The same with the next spare table that nobody reads. */
static void
place_spare(Ingest *ingest, int place)
{
	BlockNumber blocks = ingest->slot->segments[place].blocks;

	while (!place_segment(ingest, place, next_spare++))
		CHECK_FOR_INTERRUPTS();
	strays = true;
	stray_blocks += blocks;
}

/*
 * The same for a start: what is still read after a second, by batches of the
 * epoch before or by somebody's SELECT, is left to those.
 */
static void
place_first(Ingest *ingest, int place, TimestampTz begun)
{
	while (!place_segment(ingest, place, place))
	{
		if (TimestampDifferenceExceeds(begun, worker_clock(),
									   BUSY_TIMEOUT_MS))
		{
			place_spare(ingest, place);
			break;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
						 WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Begin an epoch: void marks and floors, then empty the segments in ring
 * order, each in its own transaction.  The caller holds the slot's session
 * lock.
 */
void
stage_open(Ingest *ingest)
{
	SlotShared *slot = ingest->slot;
	int			n = ring_size(ingest);
	TimestampTz begun = worker_clock();
	Relation	rel;

	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	slot->epoch++;
	slot->nmarks = 0;
	slot->first_mark = 0;
	slot->filling = -1;
	slot->nsegments = 0;
	slot->start_again = false;
	for (int p = 0; p < slot->npartitions; p++)
	{
		PartitionShared *part = &worker_slot_partitions(slot)[p];

		part->next = part->floor = -1;
		part->idle_since = 0;
	}
	for (int i = 0; i < weir_shared->nstreams; i++)
		if (weir_shared->streams[i].slot == slot - weir_shared->slots)
			weir_shared->streams[i].slot = -1;
	LWLockRelease(&slot->lock);

	for (int i = 0; i < n; i++)
		place_first(ingest, i, begun);
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	slot->nsegments = n;
	LWLockRelease(&slot->lock);

	strays = !segment_drop_strays(ingest, &stray_blocks);

	StartTransactionCommand();
	rel = table_open(slot->segments[0].relid, AccessShareLock);
	{
		MemoryContext old = MemoryContextSwitchTo(ingest->cxt);

		ingest->segment_desc = CreateTupleDescCopy(RelationGetDescr(rel));
		ingest->slots = palloc(sizeof(TupleTableSlot *) * INGEST_MAX_RECORDS);
		for (int i = 0; i < INGEST_MAX_RECORDS; i++)
			ingest->slots[i] = MakeSingleTupleTableSlot(ingest->segment_desc,
														&TTSOpsVirtual);
		MemoryContextSwitchTo(old);
	}
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
}

/*
 * Least sequence number that a holder of the slot still needs; how many
 * holders there are, and which one that is.
 */
static uint64
least_held(SlotShared *slot, int *holders, StreamShared **holder)
{
	uint64		least = UINT64_MAX;
	int			index = slot - weir_shared->slots;

	*holders = 0;
	for (int i = 0; i < weir_shared->nstreams; i++)
	{
		StreamShared *stream = &weir_shared->streams[i];

		if (!stream->in_use || stream->slot != index)
			continue;
		(*holders)++;
		if (stream->held_seq < least)
		{
			least = stream->held_seq;
			*holder = stream;
		}
	}
	return least;
}

/* Start filling segment n.  Caller holds the slot's lock. */
static void
open_segment(Ingest *ingest, int n)
{
	SegmentShared *segment = &ingest->slot->segments[n];

	Assert(segment->state == SEGMENT_FREE);
	segment->state = SEGMENT_FILLING;
	segment->seq = ingest->slot->next_seq++;
	segment->blocks = 0;
	segment->opened_at = GetCurrentTimestamp();
	ingest->slot->filling = n;
}

/* Is the staging limit reached?  Caller holds the slot's lock. */
static bool
limit_reached(const Ingest *ingest)
{
	SlotShared *slot = ingest->slot;
	int64		blocks = stray_blocks;

	for (int i = 0; i < slot->nsegments; i++)
		if (slot->segments[i].state != SEGMENT_FREE)
			blocks += slot->segments[i].blocks;
	return blocks * BLCKSZ >= staging_limit(ingest);
}

/*
 * May another batch be staged now?  Opens the next segment when the one at
 * hand is full.  Without any holder only one segment is filled, as a
 * preview.
 */
bool
stage_has_room(Ingest *ingest)
{
	SlotShared *slot = ingest->slot;
	bool		room = false;
	bool		full;
	int			holders;
	StreamShared *holder = NULL;

	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	(void) least_held(slot, &holders, &holder);
	full = limit_reached(ingest);
	if (slot->filling >= 0)
	{
		SegmentShared *segment = &slot->segments[slot->filling];

		/* marks go with their segment: too many of them fill it as well */
		if (segment->blocks < segment_blocks(ingest) &&
			(slot->nmarks < WEIR_MARKS || segment->blocks == 0))
			room = slot->nmarks < WEIR_MARKS && !full;
		else if (holders > 0)
		{
			segment->state = SEGMENT_SEALED;
			slot->filling = -1;
		}
	}
	for (int i = 0; slot->filling < 0 && !full && i < slot->nsegments; i++)
		if (slot->segments[i].state == SEGMENT_FREE)
		{
			open_segment(ingest, i);
			room = slot->nmarks < WEIR_MARKS;
		}
	if (holders == 0 && !room)
		slot->state = SLOT_PREVIEW;
	else if (slot->state == SLOT_PREVIEW)
		slot->state = room ? SLOT_RUNNING : SLOT_BACK_PRESSURE;
	strlcpy(slot->held_by, room || holder == NULL ? "" :
			NameStr(holder->name), sizeof(slot->held_by));
	LWLockRelease(&slot->lock);
	return room;
}

/*
 * Insert into the segment being filled, in the caller's transaction.  Marks
 * speak of block ranges; neighbours may share a block, the offsets tell the
 * rows apart.
 */
void
stage_insert(Ingest *ingest, TupleTableSlot **slots, int nslots,
			 StagedRange *range)
{
	SegmentShared *segment = &ingest->slot->segments[ingest->slot->filling];
	Relation	rel;
	BulkInsertState bistate;
	BlockNumber least = InvalidBlockNumber;
	BlockNumber greatest = 0;

	range->rows = nslots;
	range->block_from = range->block_to = 0;
	if (nslots == 0)
		return;
	rel = table_open(segment->relid, RowExclusiveLock);
	bistate = GetBulkInsertState();

	/* Its small ring of buffers would write the pages out early. */
	FreeAccessStrategy(bistate->strategy);
	bistate->strategy = NULL;
	table_multi_insert(rel, slots, nslots, GetCurrentCommandId(true),
					   TABLE_INSERT_SKIP_FSM, bistate);
	for (int i = 0; i < nslots; i++)
	{
		BlockNumber block = ItemPointerGetBlockNumber(&slots[i]->tts_tid);

		if (i == 0 || block < least)
			least = block;
		if (block > greatest)
			greatest = block;
	}
	FreeBulkInsertState(bistate);
	range->block_from = least;
	range->block_to = greatest + 1;
	segment->blocks = segment_size(rel);
	table_close(rel, NoLock);
}

/*
 * The ring has been full for weir.detach_timeout: let go of the stream that
 * holds it, if another one has read all there is and waits.  It finds out at
 * its next batch, and catches up by itself.
 */
void
stage_detach_slowest(Ingest *ingest)
{
	SlotShared *slot = ingest->slot;
	int			index = slot - weir_shared->slots;
	StreamShared *slowest = NULL;
	uint64		newest = 0;
	uint64		furthest = 0;
	Latch	   *latch = NULL;

	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	for (int i = 0; i < slot->nsegments; i++)
		if (slot->segments[i].state == SEGMENT_SEALED ||
			slot->segments[i].state == SEGMENT_FILLING)
			newest = Max(newest, slot->segments[i].seq);
	for (int i = 0; i < weir_shared->nstreams; i++)
	{
		StreamShared *stream = &weir_shared->streams[i];

		if (!stream->in_use || stream->slot != index)
			continue;
		furthest = Max(furthest, stream->held_seq);
		if (slowest == NULL || stream->held_seq < slowest->held_seq)
			slowest = stream;
	}
	if (slowest && furthest >= newest && slowest->held_seq < newest)
	{
		slowest->slot = -1;
		latch = slowest->latch;
	}
	LWLockRelease(&slot->lock);
	if (latch)
		SetLatch(latch);
}

/* Copy a mark's per-partition numbers; from is a mark's place, or -1. */
static void
merge_marks(Ingest *ingest, int into, int from)
{
	SlotShared *slot = ingest->slot;
	MarkShared *a = &slot->marks[into];
	MarkShared *b = &slot->marks[from];

	if (a->rows == 0)
	{
		a->block_from = b->block_from;
		a->block_to = b->block_to;
	}
	else if (b->rows > 0)
	{
		a->block_from = Min(a->block_from, b->block_from);
		a->block_to = Max(a->block_to, b->block_to);
	}
	a->rows += b->rows;
	a->records += b->records;
	a->min_event = Min(a->min_event, b->min_event);
	a->min_kafka = Min(a->min_kafka, b->min_kafka);
	for (int p = 0; p < ingest->npartitions; p++)
	{
		PartitionShared *part = &ingest->parts[p];

		part->mark_next[into] = part->mark_next[from];
		part->mark_last[into] = part->mark_last[from];
		part->mark_rows[into] = part->mark_rows[from];
		part->mark_event[into] = Max(part->mark_event[into],
									 part->mark_event[from]);
		part->mark_newest[into] = Max(part->mark_newest[into],
									  part->mark_newest[from]);
	}
}

static void
move_mark(Ingest *ingest, int to, int from)
{
	if (to == from)
		return;
	ingest->slot->marks[to] = ingest->slot->marks[from];
	for (int p = 0; p < ingest->npartitions; p++)
	{
		PartitionShared *part = &ingest->parts[p];

		part->mark_next[to] = part->mark_next[from];
		part->mark_event[to] = part->mark_event[from];
		part->mark_newest[to] = part->mark_newest[from];
		part->mark_last[to] = part->mark_last[from];
		part->mark_rows[to] = part->mark_rows[from];
	}
}

/*
 * Does some holder's batch begin or end at this mark?  Merged with the one
 * before it, it would be applied in part, and read again.
 */
static bool
is_boundary(const SlotShared *slot, const MarkShared *mark)
{
	int			index = slot - weir_shared->slots;

	for (int i = 0; i < weir_shared->nstreams; i++)
	{
		const StreamShared *stream = &weir_shared->streams[i];

		if (stream->in_use && stream->slot == index &&
			(stream->batch_first == mark->number ||
			 stream->batch_end == mark->number))
			return true;
	}
	return false;
}

/*
 * Merge neighbouring marks of one segment when the ring of marks is almost
 * full: readers find rows by offset, so they need not know.  Boundaries of
 * batches and weir.max_batch_rows are kept where that is enough; force makes
 * one mark of each segment.  Caller holds the slot's lock.
 */
static void
compact_marks(Ingest *ingest, bool force)
{
	SlotShared *slot = ingest->slot;
	int			kept = 0;

	for (int i = 0; i < slot->nmarks; i++)
	{
		int			from = (slot->first_mark + i) % WEIR_MARKS;
		int			last = (slot->first_mark + kept - 1) % WEIR_MARKS;

		if (kept > 0 && slot->marks[last].seq == slot->marks[from].seq &&
			(force || (slot->marks[last].rows + slot->marks[from].rows <=
					   weir_max_batch_rows / 2 &&
					   !is_boundary(slot, &slot->marks[from]))))
			merge_marks(ingest, last, from);
		else
			move_mark(ingest, (slot->first_mark + kept++) % WEIR_MARKS, from);
	}
	slot->nmarks = kept;
}

/* When the first of the holders will look for rows; DT_NOEND: not known. */
TimestampTz
stage_next_reader(Ingest *ingest)
{
	SlotShared *slot = ingest->slot;
	int			index = slot - weir_shared->slots;
	TimestampTz next = DT_NOEND;

	LWLockAcquire(&slot->lock, LW_SHARED);
	for (int i = 0; i < weir_shared->nstreams; i++)
	{
		StreamShared *stream = &weir_shared->streams[i];

		if (stream->in_use && stream->slot == index)
			next = Min(next, stream->next_batch_at);
	}
	LWLockRelease(&slot->lock);
	return next;
}

/* Set the latches of the streams that hold the slot. */
static void
wake_holders(SlotShared *slot)
{
	int			index = slot - weir_shared->slots;

	for (int i = 0; i < weir_shared->nstreams; i++)
	{
		StreamShared *stream = &weir_shared->streams[i];

		if (stream->in_use && stream->slot == index)
			worker_wake(&stream->latch);
	}
}

/*
 * After the commit: publish one mark, with the next offsets and greatest
 * event times that the batch brought (ingest->next, ingest->max_event).
 */
void
stage_publish(Ingest *ingest, const StagedRange *range)
{
	SlotShared *slot = ingest->slot;
	MarkShared *mark;
	int			place;

	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	if (slot->nmarks >= WEIR_MARKS - 1)
		compact_marks(ingest, false);
	if (slot->nmarks >= WEIR_MARKS - 1)
		compact_marks(ingest, true);
	Assert(slot->nmarks < WEIR_MARKS);
	place = (slot->first_mark + slot->nmarks) % WEIR_MARKS;
	mark = &slot->marks[place];
	mark->segment = slot->filling;
	mark->seq = slot->segments[slot->filling].seq;
	mark->number = slot->next_mark++;
	mark->block_from = range->block_from;
	mark->block_to = range->block_to;
	mark->rows = range->rows;
	mark->records = range->records;
	mark->min_event = range->min_event;
	mark->min_kafka = range->min_kafka;
	for (int p = 0; p < ingest->npartitions; p++)
	{
		PartitionShared *part = &ingest->parts[p];

		/* what has moved is not idle, whatever was known before (I4) */
		if (part->next != ingest->next[p])
			part->idle_since = 0;
		part->next = part->mark_next[place] = ingest->next[p];
		part->mark_event[place] = ingest->max_event[p];
		part->mark_newest[place] = ingest->newest[p];
		part->mark_last[place] = ingest->last[p];
		part->mark_rows[place] = ingest->staged[p];
		part->max_event_time = Max(part->max_event_time,
								   ingest->max_event[p]);
	}
	slot->nmarks++;
	wake_holders(slot);
	LWLockRelease(&slot->lock);
}

/*
 * Raise the floors above segments that nobody needs; marks them RECYCLING.
 * Only segments that all holders are past, oldest first, so that a floor
 * never jumps over rows somebody needs.
 */
static void
raise_floors(Ingest *ingest)
{
	SlotShared *slot = ingest->slot;
	uint64		held;
	int			holders;
	StreamShared *holder = NULL;

	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	held = least_held(slot, &holders, &holder);
	if (holders == 0)
		held = 0;
	for (int i = 0; i < slot->nsegments; i++)
	{
		SegmentShared *segment = &slot->segments[i];

		if (segment->state == SEGMENT_SEALED && segment->seq < held)
			segment->state = SEGMENT_RECYCLING;
	}
	while (slot->nmarks > 0 && slot->marks[slot->first_mark].seq < held &&
		   slot->segments[slot->marks[slot->first_mark].segment].state ==
		   SEGMENT_RECYCLING)
	{
		for (int p = 0; p < ingest->npartitions; p++)
			ingest->parts[p].floor =
				ingest->parts[p].mark_next[slot->first_mark];
		slot->first_mark = (slot->first_mark + 1) % WEIR_MARKS;
		slot->nmarks--;
	}
	LWLockRelease(&slot->lock);
}

/*
 * heap_truncate() for one segment.  To cut off a file costs a scan of all of
 * shared_buffers, 20 ms and more on a large server; so a TOAST table in which
 * there is nothing, and its index, are left alone.
 */
static void
cut_off(Oid relid)
{
	Relation	rel = table_open(relid, NoLock);
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);

	if (segment_size(rel) > blocks)
		heap_truncate_one_rel(rel);
	else if (blocks > 0)
		table_relation_nontransactional_truncate(rel);
	table_close(rel, NoLock);
}

/*
 * Try to empty a segment.  Not by TRUNCATE: the pages are cut off in place,
 * which needs no new file, no flush, and leaves prepared statements planned.
 * The lock keeps everybody out who could still want to see them, and those
 * who come later check the floor first (I3).
 */
static bool
truncate_segment(Ingest *ingest, int n)
{
	SegmentShared *segment = &ingest->slot->segments[n];
	bool		done = false;

	StartTransactionCommand();
	if (ConditionalLockRelationOid(segment->relid, AccessExclusiveLock))
	{
		cut_off(segment->relid);
		done = true;
	}
	CommitTransactionCommand();
	return done;
}

void
stage_recycle(Ingest *ingest)
{
	SlotShared *slot = ingest->slot;
	TimestampTz now = worker_clock();

	raise_floors(ingest);
	for (int i = 0; i < slot->nsegments; i++)
	{
		if (slot->segments[i].state != SEGMENT_RECYCLING)
			continue;
		if (busy_since[i] == 0)
			busy_since[i] = now;
		if (!truncate_segment(ingest, i))
		{
			if (TimestampDifferenceExceeds(busy_since[i], now,
										   BUSY_TIMEOUT_MS))
				place_spare(ingest, i);
			continue;
		}
		busy_since[i] = 0;
		LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
		slot->segments[i].state = SEGMENT_FREE;
		LWLockRelease(&slot->lock);
	}
	if (strays &&
		TimestampDifferenceExceeds(strays_tried, now, BUSY_TIMEOUT_MS))
	{
		strays = !segment_drop_strays(ingest, &stray_blocks);
		strays_tried = now;
	}
}
