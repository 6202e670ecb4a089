/*-------------------------------------------------------------------------
 *
 * stats_read.c
 *	  A copy of what shared memory and catalog say of how things go, and what
 *	  follows from the two together: states, applied offsets, lag.
 *
 * The catalog says what there is and what is wanted, shared memory how its
 * workers do.  A source or stream whose worker has not run yet, or runs no
 * more, is told of all the same, from the catalog alone.
 *
 * Order: the catalog is read first, shared memory last, so that what takes
 * long comes before what changes fast.  The two may differ by what was
 * committed in between; a lag is never shown below 0 for it.
 *
 * Locking: WeirShared.lock shared, each slot's lock shared below it, for the
 * copying only; counters are read as worker.h says.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "catalog_spi.h"
#include "errors.h"
#include "settings.h"
#include "stats.h"

SourceDef *
stats_source(const Stats *stats, int32 source_id)
{
	ListCell   *lc;

	foreach(lc, stats->sources)
	{
		SourceDef  *source = lfirst(lc);

		if (source->source_id == source_id)
			return source;
	}
	return NULL;
}

StreamStats *
stats_stream(const Stats *stats, int32 stream_id)
{
	ListCell   *lc;

	foreach(lc, stats->streams)
	{
		StreamStats *stream = lfirst(lc);

		if (stream->def->stream_id == stream_id)
			return stream;
	}
	return NULL;
}

SlotStats *
stats_slot(const Stats *stats, int32 source_id, int32 stream_id)
{
	ListCell   *lc;

	foreach(lc, stats->slots)
	{
		SlotStats  *slot = lfirst(lc);

		if (slot->source_id == source_id && slot->stream_id == stream_id)
			return slot;
	}
	return NULL;
}

/*
 * Catalog
 */

static TimestampTz
next_time(CatalogRow *row)
{
	bool		isnull;
	Datum		d = catalog_next_datum(row, &isnull);

	return isnull ? DT_NOBEGIN : DatumGetTimestampTz(d);
}

/* Committed watermarks and positions of all streams. */
static void
read_progress(Stats *stats)
{
	CatalogAccess access;
	uint64		n;

	catalog_begin(&access);
	n = catalog_execute("SELECT stream_id, watermark, applied_offsets, "
						"max_event_times FROM weir_internal.stream_state",
						0, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		CatalogRow	row;
		StreamStats *stream;
		int			events;

		catalog_row_begin(&row, &access, i);
		stream = stats_stream(stats, catalog_next_int4(&row));
		if (stream == NULL)
			continue;
		stream->watermark = next_time(&row);
		stream->applied = catalog_next_int8_array(&row,
												  &stream->npartitions);
		stream->max_event = catalog_next_time_array(&row, &events,
													DT_NOBEGIN);
		stream->npartitions = Min(stream->npartitions, events);
	}
	catalog_end(&access);
}

/*
 * Shared memory
 */

static void
copy_partition(PartitionStats *to, const PartitionShared *from)
{
	to->next = from->next;
	to->end = from->end_offset < 0 ? -1 : Max(from->end_offset, from->next);
	to->end_stale = from->end_as_of < GetCurrentTimestamp() - WORKER_IDLE_GAP;
	to->idle_since = from->idle_since;
	to->idle_as_of = from->idle_as_of;
	to->max_event_time = from->max_event_time;
	to->last_row_at = from->last_row_at;
	to->rows_in = from->rows_in;
	to->bytes_in = from->bytes_in;
	to->rows_staged = from->rows_staged;
	to->rows_filtered = from->rows_filtered;
	to->rows_dead = from->rows_dead;
	to->rows_null = from->rows_null;
	to->rows_future = from->rows_future;
}

/* Caller holds WeirShared.lock. */
static SlotStats *
copy_slot(SlotShared *slot)
{
	SlotStats  *copy = palloc0(sizeof(SlotStats));
	PartitionShared *parts;

	LWLockAcquire(&slot->lock, LW_SHARED);
	copy->index = slot - weir_shared->slots;
	copy->source_id = slot->source_id;
	copy->stream_id = slot->stream_id;
	copy->pid = slot->pid;
	copy->state = slot->state;
	copy->epoch = slot->epoch;
	for (int i = 0; i < slot->nsegments; i++)
	{
		if (slot->segments[i].state == SEGMENT_FREE)
			continue;
		copy->segments++;
		copy->staging_bytes += (int64) slot->segments[i].blocks * BLCKSZ;
	}
	worker_read_error(&slot->error, &copy->error);
	copy->next_retry_at = slot->next_retry_at;
	copy->stats_reset = slot->stats_reset;
	copy->kafka_queue_bytes = slot->kafka_queue_bytes;
	strlcpy(copy->columns_never_found, slot->columns_never_found,
			sizeof(copy->columns_never_found));
	strlcpy(copy->held_by, slot->held_by, sizeof(copy->held_by));
	copy->npartitions = slot->npartitions;
	copy->partitions = palloc(sizeof(PartitionStats) *
							  Max(slot->npartitions, 1));
	parts = worker_slot_partitions(slot);
	for (int p = 0; p < slot->npartitions; p++)
		copy_partition(&copy->partitions[p], &parts[p]);
	LWLockRelease(&slot->lock);
	return copy;
}

static void
copy_shared_memory(Stats *stats)
{
	List	   *private_slots = NIL;

	LWLockAcquire(&weir_shared->lock, LW_SHARED);
	for (int i = 0; i < weir_shared->nslots; i++)
	{
		SlotShared *slot = &weir_shared->slots[i];

		if (!slot->in_use || slot->dbid != MyDatabaseId)
			continue;
		if (slot->stream_id == 0)
			stats->slots = lappend(stats->slots, copy_slot(slot));
		else
			private_slots = lappend(private_slots, copy_slot(slot));
	}
	for (int i = 0; i < weir_shared->nstreams; i++)
	{
		StreamShared *shared = &weir_shared->streams[i];
		StreamStats *stream;

		if (!shared->in_use || shared->dbid != MyDatabaseId)
			continue;
		stream = stats_stream(stats, shared->stream_id);
		if (stream == NULL)
			continue;
		stream->has_shared = true;
		memcpy(&stream->shared, shared, sizeof(*shared));
		worker_read_error(&shared->error, &stream->shared.error);
	}
	LWLockRelease(&weir_shared->lock);
	stats->slots = list_concat(stats->slots, private_slots);
}

static StatsReason
make_reason(const char *message, int sqlerrcode)
{
	StatsReason reason = {NULL};

	reason.message = message;
	reason.sqlstate = pstrdup(error_sqlstate(sqlerrcode));
	return reason;
}

/* Why no worker may run in this database; no reason: they may. */
StatsReason
stats_workers_paused(void)
{
	StatsReason none = {NULL};

	if (RecoveryInProgress())
		return make_reason("this server is a standby: workers run on its primary",
						   ERRCODE_READ_ONLY_SQL_TRANSACTION);
	if (!weir_autostart)
		return make_reason("\"weir.autostart\" is off",
						   ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE);
	if (!catalog_cookie_matches())
		return make_reason("this database is a copy: weir.adopt_database() lets its workers run",
						   ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE);
	return none;
}

/* What keeps a worker that is wanted from being there. */
static StatsReason
no_worker_reason(void)
{
	DatabaseShared *database = worker_database_find(MyDatabaseId);
	int			needed = database ? database->workers_needed : 0;
	StatsReason none = {NULL};

	if (weir_shared->launcher_pid == 0)
		return make_reason("weir's launcher does not run; if that lasts, increase \"max_worker_processes\" and restart the server",
						   ERRCODE_CONFIGURATION_LIMIT_EXCEEDED);
	if (needed > 0)
		return make_reason(psprintf("no free background worker slot: weir needs %d workers in this database; increase \"max_worker_processes\" and restart the server",
									needed),
						   ERRCODE_CONFIGURATION_LIMIT_EXCEEDED);
	return none;
}

/* All of it, in the current memory context. */
Stats *
stats_read(void)
{
	Stats	   *stats = palloc0(sizeof(Stats));
	ListCell   *lc;

	weir_require_preload();
	stats->paused = stats_workers_paused();
	stats->no_worker = no_worker_reason();
	stats->sources = catalog_sources();
	foreach(lc, catalog_streams())
	{
		StreamStats *stream = palloc0(sizeof(StreamStats));

		stream->def = lfirst(lc);
		stream->watermark = DT_NOBEGIN;
		stream->shared.slot = -1;
		stats->streams = lappend(stats->streams, stream);
	}
	read_progress(stats);
	copy_shared_memory(stats);
	return stats;
}

/*
 * What follows
 */

static StatsReason
error_reason(const SharedError *error)
{
	StatsReason reason = {NULL};

	if (error->sqlerrcode == 0)
		return reason;
	reason = make_reason(error->message, error->sqlerrcode);
	reason.at = error->at;
	return reason;
}

static SlotState
slot_state(const Stats *stats, const SourceDef *source, const SlotStats *slot)
{
	if (source && source->stopped_message)
		return SLOT_STOPPED;
	if (source && source->paused)
		return SLOT_PAUSED;
	if (slot && slot->pid != 0)
		return slot->state;
	if (stats->paused.message)
		return SLOT_PAUSED;
	return slot && slot->state == SLOT_RETRYING ?
		SLOT_RETRYING : SLOT_STARTING;
}

/* Name of the state of a source's slot; slot may be NULL. */
const char *
stats_slot_state(const Stats *stats, const SourceDef *source,
				 const SlotStats *slot)
{
	return worker_slot_state_name(slot_state(stats, source, slot));
}

/* ... and the reason: what stopped it, what it waits for, its last error. */
StatsReason
stats_slot_reason(const Stats *stats, const SourceDef *source,
				  const SlotStats *slot)
{
	SlotState	state = slot_state(stats, source, slot);
	StatsReason reason = {NULL};

	if (slot)
		reason = error_reason(&slot->error);
	if (source->stopped_message)
	{
		reason.message = source->stopped_message;
		reason.sqlstate = source->stopped_sqlstate;
	}
	else if (state == SLOT_PAUSED && !source->paused)
		reason = stats->paused;
	else if (state == SLOT_STARTING && (slot == NULL || slot->pid == 0) &&
			 stats->no_worker.message)
		reason = stats->no_worker;
	return reason;
}

/*
 * A stream that has a worker waits all the same when the ring that it reads,
 * or is to read, gets nothing.  Returns that with the reason.
 */
static bool
ring_waits(const Stats *stats, const StreamStats *stream,
		   const SourceDef *source, StatsReason *reason)
{
	bool		catches_up = stream->shared.wants_catch_up;
	const SlotStats *slot = stats_slot(stats, source->source_id, catches_up ?
									   stream->def->stream_id : 0);

	if (stream->shared.state == STREAM_RETRYING)
		return false;
	if (catches_up && slot == NULL)
		slot = stats_slot(stats, source->source_id, 0);
	if (slot && slot_state(stats, source, slot) == SLOT_RETRYING)
	{
		*reason = error_reason(&slot->error);
		return true;
	}
	if ((slot == NULL || slot->pid == 0 ||
		 (catches_up && slot->stream_id == 0)) && stats->no_worker.message)
	{
		*reason = stats->no_worker;
		return true;
	}
	return false;
}

/* The state of a stream, and why. */
static StreamState
stream_state(const Stats *stats, const StreamStats *stream,
			 StatsReason *reason)
{
	const SourceDef *source = stats_source(stats, stream->def->source_id);

	*reason = error_reason(&stream->shared.error);
	if (stream->def->failed_message)
	{
		reason->message = stream->def->failed_message;
		reason->sqlstate = stream->def->failed_sqlstate;
		return STREAM_FAILED;
	}
	if (stream->def->paused)
		return STREAM_PAUSED;
	if (source == NULL)
		return STREAM_WAITING;
	if (source->stopped_message)
	{
		*reason = stats_slot_reason(stats, source,
									stats_slot(stats, source->source_id, 0));
		return STREAM_WAITING;
	}
	if (source->paused)
	{
		*reason = make_reason(psprintf("source \"%s\" is paused",
									   source->name),
							  ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE);
		return STREAM_WAITING;
	}
	if (stream->shared.pid != 0)
		return ring_waits(stats, stream, source, reason) ?
			STREAM_WAITING : stream->shared.state;
	if (stats->paused.message)
	{
		*reason = stats->paused;
		return STREAM_PAUSED;
	}
	if (stream->has_shared && stream->shared.state == STREAM_RETRYING)
		return STREAM_RETRYING;
	if (stats->no_worker.message)
		*reason = stats->no_worker;
	return STREAM_STARTING;
}

const char *
stats_stream_state(const Stats *stats, const StreamStats *stream)
{
	StatsReason reason;

	return worker_stream_state_name(stream_state(stats, stream, &reason));
}

StatsReason
stats_stream_reason(const Stats *stats, const StreamStats *stream)
{
	StatsReason reason;

	(void) stream_state(stats, stream, &reason);
	return reason;
}

/* Does the stream read this slot; or would it, if it read any? */
static bool
reads_slot(const Stats *stats, const StreamStats *stream,
		   const SlotStats *slot, bool attached)
{
	if (slot && slot->stream_id != 0)
		return stream->def->stream_id == slot->stream_id;
	if (attached)
		return slot && stream->shared.slot == slot->index;
	return stats_slot(stats, stream->def->source_id,
					  stream->def->stream_id) == NULL;
}

/*
 * The least applied offset of a partition over the streams that read the
 * slot; if none does now, over all streams of the source without a slot of
 * their own.  -1: not known.
 */
int64
stats_applied(const Stats *stats, const SourceDef *source,
			  const SlotStats *slot, int partition)
{
	for (int attached = 1; attached >= 0; attached--)
	{
		int64		least = -1;
		bool		found = false;
		ListCell   *lc;

		foreach(lc, stats->streams)
		{
			StreamStats *stream = lfirst(lc);
			int64		applied;

			if (stream->def->source_id != source->source_id ||
				!reads_slot(stats, stream, slot, attached))
				continue;
			applied = partition < stream->npartitions ?
				stream->applied[partition] : -1;
			if (!found || applied < least)
				least = applied;
			found = true;
		}
		if (found)
			return least;
	}
	return -1;
}

/* Raise what is known of a partition by what a slot knows. */
static void
merge_partition(PartitionStats *known, const SlotStats *slot, int partition)
{
	const PartitionStats *part;

	if (slot == NULL || partition >= slot->npartitions)
		return;
	part = &slot->partitions[partition];
	known->next = Max(known->next, part->next);
	known->end = Max(known->end, part->end);
	known->end_stale = known->end_stale && part->end_stale;
	known->max_event_time = Max(known->max_event_time, part->max_event_time);
}

/*
 * Lag: records that Kafka has and the stream has not applied.  While a leader
 * does not say where its end is, there are at least those up to where it was
 * last; if all of these have been applied, nothing is known.  Lag in time:
 * over the partitions with a lag, how much later than the newest event time
 * applied the oldest record not applied may be, at most: what has been read
 * has event times up to the greatest one read, what has not may be as late
 * as now.  In microseconds.  Both STATS_UNKNOWN when not known.
 */
void
stats_lag(const Stats *stats, const StreamStats *stream, int64 *lag,
		  int64 *lag_time)
{
	const StreamDef *def = stream->def;
	SlotStats  *shared = stats_slot(stats, def->source_id, 0);
	SlotStats  *private = stats_slot(stats, def->source_id, def->stream_id);
	TimestampTz now = GetCurrentTimestamp();
	int			n = Max(stream->npartitions, shared ? shared->npartitions : 0);
	bool		age_known = true;

	*lag = *lag_time = STATS_UNKNOWN;
	if (stream->npartitions < n || n == 0)
		return;
	*lag = *lag_time = 0;
	for (int p = 0; p < n; p++)
	{
		PartitionStats known = {
			.next = -1,.end = -1,.end_stale = true,
			.max_event_time = DT_NOBEGIN
		};
		TimestampTz latest;

		merge_partition(&known, shared, p);
		merge_partition(&known, private, p);
		if (known.end < 0 || stream->applied[p] < 0 ||
			(known.end_stale && known.end <= stream->applied[p]))
		{
			*lag = *lag_time = STATS_UNKNOWN;
			return;
		}
		if (known.end <= stream->applied[p])
			continue;
		*lag += known.end - stream->applied[p];
		latest = known.next >= known.end && !known.end_stale ?
			known.max_event_time : now;
		if (TIMESTAMP_IS_NOBEGIN(stream->max_event[p]) ||
			TIMESTAMP_IS_NOBEGIN(latest))
			age_known = false;
		else
			*lag_time = Max(*lag_time, latest - stream->max_event[p]);
	}
	if (!age_known)
		*lag_time = STATS_UNKNOWN;
}
