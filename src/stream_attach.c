/*-------------------------------------------------------------------------
 *
 * stream_attach.c
 *	  Which ring a stream reads: the shared one, or a private one.
 *
 * A stream whose applied offsets are at or above the floors of the shared
 * ring is attached: it holds the ring's segments from held_seq on.  One that
 * is below (new from earliest, resumed, sought, or let go because it held up
 * others) is detached: it asks for a private slot, reads that until it is at
 * the shared ring's floors, and attaches again, at a batch boundary.
 *
 * To attach is to register as a holder first, then to compare with the
 * floors, both under the slot's lock: a floor cannot pass a holder.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "stream_batch.h"

/* Least sequence number in use; held until the first batch says better. */
static uint64
oldest_seq(const SlotShared *slot)
{
	if (slot->nmarks > 0)
		return slot->marks[slot->first_mark].seq;
	if (slot->filling >= 0)
		return slot->segments[slot->filling].seq;
	return slot->next_seq;
}

/*
 * Register with a slot if its floors allow.  *below tells that the stream is
 * below them, and must catch up by itself.
 */
static bool
try_attach(StreamWorker *w, SlotShared *slot, bool *below)
{
	PartitionShared *parts;
	bool		ok;

	*below = false;
	if (slot == NULL)
		return false;
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	parts = worker_slot_partitions(slot);
	ok = slot->in_use && slot->npartitions > 0 && slot->nsegments > 0 &&
		slot->dbid == MyDatabaseId &&
		slot->source_id == w->def->source_id &&
		(slot->stream_id == 0 || slot->stream_id == w->def->stream_id) &&
		w->npartitions >= slot->npartitions;
	for (int p = 0; ok && p < slot->npartitions; p++)
	{
		if (parts[p].pending)
			continue;			/* nobody can read it now */
		if (parts[p].floor < 0 || w->applied[p] < 0)
			ok = false;
		else if (w->applied[p] < parts[p].floor)
		{
			*below = true;
			ok = false;
		}
	}
	if (ok)
	{
		w->shared->slot = slot - weir_shared->slots;
		w->shared->held_seq = oldest_seq(slot);
		w->slot = slot;
		w->epoch = slot->epoch;
		for (int p = 0; p < w->npartitions; p++)
			w->staged[p] = -1;
		worker_wake(&slot->latch);
	}
	else if (*below && slot->stream_id != 0)
	{
		/* sought back while it caught up */
		slot->start_again = true;
		worker_wake(&slot->latch);
	}
	LWLockRelease(&slot->lock);
	return ok;
}

static void
wake_manager(void)
{
	DatabaseShared *database = worker_database_find(MyDatabaseId);

	if (database)
		worker_wake(&database->manager_latch);
}

/* Let go of the slot; the ring may recycle what this stream has not read. */
void
attach_release(StreamWorker *w)
{
	SlotShared *slot = w->slot;

	w->slot = NULL;
	w->on_private = false;
	if (slot == NULL)
		return;
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	if (w->shared->slot == slot - weir_shared->slots)
		w->shared->slot = -1;
	worker_wake(&slot->latch);
	LWLockRelease(&slot->lock);
}

/*
 * Catching up: is the shared ring within reach now?  Then go over to it, and
 * the private slot's worker ends.
 */
bool
attach_try_shared(StreamWorker *w)
{
	SlotShared *private = w->slot;
	uint64		private_epoch = w->epoch;
	SlotShared *slot = worker_slot_find(MyDatabaseId, w->def->source_id, 0);
	bool		below;

	if (!try_attach(w, slot, &below))
	{
		w->slot = private;
		w->epoch = private_epoch;
		return false;
	}
	w->on_private = false;
	w->shared->wants_catch_up = false;
	if (private)
		worker_wake(&private->latch);
	wake_manager();
	return true;
}

/* Find a slot to read.  False: none yet, wait for the latch. */
bool
attach_to_slot(StreamWorker *w)
{
	SlotShared *slot = worker_slot_find(MyDatabaseId, w->def->source_id, 0);
	bool		below;

	if (try_attach(w, slot, &below))
	{
		w->on_private = false;
		w->shared->wants_catch_up = false;
		return true;
	}
	if (!below && !w->shared->wants_catch_up)
		return false;
	if (!w->shared->wants_catch_up)
	{
		w->shared->wants_catch_up = true;
		wake_manager();
	}
	slot = worker_slot_find(MyDatabaseId, w->def->source_id,
							w->def->stream_id);
	if (!try_attach(w, slot, &below))
		return false;
	w->on_private = true;
	return true;
}
