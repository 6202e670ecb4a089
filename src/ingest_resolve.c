/*-------------------------------------------------------------------------
 *
 * ingest_resolve.c
 *	  Positions to offsets: first positions, seeks, recorded ends.
 *
 * I1: the only durable offset is applied, committed with the results it
 * stands for, but for the first position of each partition: that is resolved
 * once, here, from start_from (or the position of weir.seek()) to a concrete
 * offset, and committed to weir_internal.stream_state before the first fetch.
 *
 * The shared ring's worker resolves for all streams of its source, at its
 * start and whenever the catalog's generation has moved; a catch-up worker
 * resolves nothing.  A partition added later starts at its beginning.
 *
 * Explicit offsets must be there: those of a partition that the topic does
 * not have, past its end (the next record's offset is its end, and is good)
 * or deleted already are refused.  The stream fails, with the reason; or, if
 * it was the source's start_from and nothing has been read from there, the
 * source stops.  weir.resume() tries again.
 *
 * Where a partition's leader does not answer, a new stream's position is
 * resolved when it is back (OFFSET_BY_START, OFFSET_BEGINNING); a seek waits
 * for all leaders, and so does the end that an advance records.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog_spi.h"
#include "ingest.h"
#include "options.h"
#include "settings.h"
#include "worker.h"

/* A position that cannot be; message is NULL when it can. */
typedef struct Refusal
{
	int			sqlerrcode;
	char	   *message;
} Refusal;

/* Explicit offsets: are they there?  *offsets has the beginnings. */
static void
take_offsets(Ingest *ingest, const Position *position, int64 *offsets,
			 Refusal *refusal)
{
	const char *topic = ingest->source->topic;
	int64	   *ends = broker_offsets(ingest, KAFKA_REQUEST_END, 0, NULL);

	for (int i = 0; i < position->noffsets; i++)
	{
		int32		p = position->offsets[i].partition;
		int64		offset = position->offsets[i].offset;

		if (p >= ingest->npartitions)
		{
			refusal->sqlerrcode = ERRCODE_INVALID_PARAMETER_VALUE;
			refusal->message =
				psprintf("partition %d of topic \"%s\" does not exist on "
						 "server \"%s\": it has %d partitions", p, topic,
						 ingest->source->server_name, ingest->npartitions);
			return;
		}
		if (offsets[p] < 0 || ends[p] < 0)
			offsets[p] = OFFSET_BY_START;
		else if (offset > ends[p])
		{
			refusal->sqlerrcode = ERRCODE_INVALID_PARAMETER_VALUE;
			refusal->message =
				psprintf("offset %lld of %s[%d] is past its end (available "
						 "%lld..%lld)", (long long) offset, topic, p,
						 (long long) offsets[p], (long long) ends[p]);
			return;
		}
		else if (offset < offsets[p])
		{
			refusal->sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
			refusal->message =
				psprintf("offset %lld of %s[%d] is gone (available "
						 "%lld..%lld)", (long long) offset, topic, p,
						 (long long) offsets[p], (long long) ends[p]);
			return;
		}
		else
			offsets[p] = offset;
	}
}

/*
 * Offsets of all partitions for a position, palloc'd.  What a position of
 * explicit offsets does not name starts at its beginning; a time past the end
 * means the end.  OFFSET_BY_START and OFFSET_BEGINNING where the leader does
 * not answer.
 */
static int64 *
resolve(Ingest *ingest, const Position *position, Refusal *refusal)
{
	KafkaRequestKind kind = KAFKA_REQUEST_LOW;
	int64		unknown = OFFSET_BY_START;
	int64	   *offsets;

	refusal->message = NULL;
	if (position->kind == POSITION_LATEST)
		kind = KAFKA_REQUEST_END;
	else if (position->kind == POSITION_TIME)
		kind = KAFKA_REQUEST_TIME;
	else
		unknown = OFFSET_BEGINNING;
	offsets = broker_offsets(ingest, kind,
							 position->kind == POSITION_TIME ?
							 kafka_time_ms(position->time) : 0, NULL);
	for (int p = 0; p < ingest->npartitions; p++)
		if (offsets[p] < 0)
			offsets[p] = unknown;
	if (position->kind == POSITION_OFFSETS)
		take_offsets(ingest, position, offsets, refusal);
	return offsets;
}

/* A stream that lacks a position in some partition. */
typedef struct NewStream
{
	int32		stream_id;
	bool		fresh;			/* has no position at all, or was sought */
	bool		sought;
	bool		forward;		/* sought, but never to below what is applied */
	bool		floor_pending;	/* sought, and partitions tell the floor */
	bool		own_start;		/* start is its own, not the source's */
	Position   *start;
	int64		seek_generation;	/* that start belongs to */
	int			napplied;
	int64	   *applied;		/* by partition */
} NewStream;

static List *
streams_without_position(Ingest *ingest)
{
	CatalogArg	args[] = {
		CATALOG_INT4(ingest->source->source_id),
		CATALOG_INT8(ingest->npartitions)
	};
	CatalogAccess access;
	CatalogRow	row;
	List	   *streams = NIL;
	uint64		n;

	catalog_begin(&access);
	n = catalog_execute("SELECT m.stream_id, "
						"e.applied_offsets IS NULL OR "
						"e.seek_to IS NOT NULL, e.seek_to IS NOT NULL, "
						"e.seek_forward, e.floor_pending, "
						"coalesce(e.seek_to, m.start_from) IS NOT NULL, "
						"coalesce(e.seek_to, m.start_from, src.start_from), "
						"e.seek_generation, e.applied_offsets "
						"FROM weir_internal.stream m "
						"JOIN weir_internal.source src USING (source_id) "
						"JOIN weir_internal.stream_state e USING (stream_id) "
						"WHERE m.source_id = $1 "
						"AND m.failed_message IS NULL "
						"AND " CATALOG_POSITION_LOST " IS NOT TRUE AND ("
						"coalesce(cardinality(e.applied_offsets), 0) < $2 OR "
						"0 > ANY (e.applied_offsets) OR "
						"e.seek_to IS NOT NULL) "
						"ORDER BY 1", 2, args);
	for (uint64 i = 0; i < n; i++)
	{
		NewStream  *stream;
		char	   *start;
		MemoryContext old = MemoryContextSwitchTo(access.caller);

		stream = palloc(sizeof(*stream));
		streams = lappend(streams, stream);
		MemoryContextSwitchTo(old);
		catalog_row_begin(&row, &access, i);
		stream->stream_id = catalog_next_int4(&row);
		stream->fresh = catalog_next_bool(&row);
		stream->sought = catalog_next_bool(&row);
		stream->forward = catalog_next_bool(&row);
		stream->floor_pending = catalog_next_bool(&row);
		stream->own_start = catalog_next_bool(&row);
		start = catalog_next_text(&row);
		stream->seek_generation = catalog_next_int8(&row);
		stream->applied = catalog_next_int8_array(&row, &stream->napplied);
		old = MemoryContextSwitchTo(access.caller);
		stream->start = position_parse(start, "start_from");
		MemoryContextSwitchTo(old);
	}
	catalog_end(&access);
	return streams;
}

static const Position beginning = {.kind = POSITION_EARLIEST};

/*
 * The first positions of a stream.  Partitions that it has a position for
 * already keep it, and those found later start at their beginning.
 */
static int64 *
resolve_stream(Ingest *ingest, const NewStream *stream, Refusal *refusal)
{
	int64	   *by_start = NULL;
	int64	   *lows = NULL;
	int64	   *offsets = palloc(sizeof(int64) * ingest->npartitions);

	refusal->message = NULL;
	if (stream->fresh)
		return resolve(ingest, stream->start, refusal);
	for (int p = 0; p < ingest->npartitions && !refusal->message; p++)
	{
		int64		applied = p < stream->napplied ? stream->applied[p] :
		OFFSET_BEGINNING;

		if (applied >= 0)
			offsets[p] = applied;
		else if (applied == OFFSET_BY_START)
		{
			if (by_start == NULL)
				by_start = resolve(ingest, stream->start, refusal);
			offsets[p] = by_start[p];
		}
		else
		{
			if (lows == NULL)
				lows = resolve(ingest, &beginning, refusal);
			offsets[p] = lows[p];
		}
	}
	return offsets;
}

/* A stream's position as the catalog has it. */
typedef struct Stored
{
	int			n;				/* partitions; 0: it has none */
	int64	   *offsets;
	TimestampTz *events;		/* greatest event times; DT_NOBEGIN: none */
	TimestampTz *lasts;			/* Kafka timestamps of the last records */
	TimestampTz *newest;		/* greatest ones; DT_NOBEGIN: none applied */
	TimestampTz *bounds;		/* see stream_floor.c */
	int32		incarnation;	/* of the topic that they belong to */
} Stored;

/*
 * Lock the stream and read it; a long batch of it ends, since all streams of
 * the source wait for this.  False: it was dropped or sought again while the
 * broker was asked; then the catalog has changed, and it is looked at anew.
 */
static bool
lock_stored(const Ingest *ingest, const NewStream *stream, Stored *stored)
{
	CatalogAccess access;
	CatalogRow	row;
	int			n;
	CatalogArg	id[] = {
		CATALOG_INT4(stream->stream_id),
		CATALOG_INT8(stream->seek_generation)
	};

	worker_lock_stream(stream->stream_id, ingest->source->source_id);
	catalog_begin(&access);
	if (catalog_execute("SELECT applied_offsets, max_event_times, "
						"last_record_timestamps, max_record_timestamps, "
						"floor_bounds, "
						"coalesce(topic_incarnation, 0) "
						"FROM weir_internal.stream_state "
						"WHERE stream_id = $1 AND seek_generation = $2",
						2, id) == 0)
	{
		catalog_end(&access);
		return false;
	}
	catalog_row_begin(&row, &access, 0);
	stored->offsets = catalog_next_int8_array(&row, &stored->n);
	stored->events = catalog_next_time_array(&row, &n, DT_NOBEGIN);
	stored->lasts = catalog_next_time_array(&row, &n, DT_NOBEGIN);
	stored->newest = catalog_next_time_array(&row, &n, DT_NOBEGIN);
	stored->bounds = catalog_next_time_array(&row, &n, DT_NOEND);
	stored->incarnation = catalog_next_int4(&row);
	catalog_end(&access);
	return true;
}

static TimestampTz
time_of(const TimestampTz *times, int p, TimestampTz none)
{
	return times != NULL ? times[p] : none;
}

/*
 * After a seek whose floor the partitions tell: up to which event time is
 * known to be missing of one that now begins at this offset?
 */
static TimestampTz
floor_bound(const Stored *stored, bool same_topic, int p, int64 offset,
			int64 low)
{
	TimestampTz before;

	if (offset <= low)
		return DT_NOEND;
	if (!same_topic || p >= stored->n || offset < stored->offsets[p])
		return DT_NOBEGIN;

	/* from two seeks ago, when nothing has come since the last one */
	before = time_of(stored->bounds, p, DT_NOEND);
	return Max(time_of(stored->events, p, DT_NOBEGIN),
			   TIMESTAMP_IS_NOEND(before) ? DT_NOBEGIN : before);
}

/*
 * The new position of a stream.  What is there already stays, unless the
 * stream was sought; sought forward, a partition of which something has been
 * applied stays where it is further.  Nothing is kept of another topic.
 */
static Stored
new_positions(Ingest *ingest, const NewStream *stream, const Stored *stored,
			  const int64 *offsets, const int64 *low)
{
	bool		same_topic =
	stored->incarnation == ingest->source->topic_incarnation;
	bool		keep = !stream->fresh || (stream->forward && same_topic);
	Stored		new = {0};
	int			n = keep ? Max(ingest->npartitions, stored->n) :
	ingest->npartitions;

	new.n = n;
	new.offsets = palloc(sizeof(int64) * n);
	new.events = palloc(sizeof(TimestampTz) * n);
	new.lasts = palloc(sizeof(TimestampTz) * n);
	new.newest = palloc(sizeof(TimestampTz) * n);
	new.bounds = palloc(sizeof(TimestampTz) * n);
	for (int p = 0; p < n; p++)
	{
		bool		old = keep && p < stored->n;
		TimestampTz newest = old ? time_of(stored->newest, p, DT_NOBEGIN) :
		DT_NOBEGIN;
		bool		stays = old && stored->offsets[p] >= 0 &&
		(!stream->fresh || p >= ingest->npartitions ||
		 (stored->offsets[p] >= offsets[p] && !TIMESTAMP_IS_NOBEGIN(newest)));

		new.offsets[p] = stays ? stored->offsets[p] : offsets[p];
		new.lasts[p] = stays ? time_of(stored->lasts, p, DT_NOBEGIN) :
			DT_NOBEGIN;
		new.events[p] = old ? time_of(stored->events, p, DT_NOBEGIN) :
			DT_NOBEGIN;
		new.newest[p] = newest;
		if (stream->fresh && stream->floor_pending)
			new.bounds[p] = floor_bound(stored, same_topic, p, offsets[p],
										low[p]);
		else
			new.bounds[p] = p < stored->n ?
				time_of(stored->bounds, p, DT_NOEND) : DT_NOEND;
	}
	return new;
}

static void
write_positions(Ingest *ingest, const NewStream *stream, const Stored *new)
{
	CatalogAccess access;
	const char *cluster = ingest->cluster_id[0] ? ingest->cluster_id : NULL;
	CatalogArg	args[] = {
		CATALOG_INT4(stream->stream_id),
		CATALOG_INT8S(new->offsets, new->n),
		CATALOG_TIMES(new->events, new->n, DT_NOBEGIN),
		CATALOG_TIMES(new->lasts, new->n, DT_NOBEGIN),
		CATALOG_TIMES(new->newest, new->n, DT_NOBEGIN),
		CATALOG_TIMES(new->bounds, new->n, DT_NOEND),
		CATALOG_TEXT(cluster),
		CATALOG_INT4(ingest->source->topic_incarnation),
		CATALOG_BOOL(stream->fresh)
	};

	catalog_begin(&access);
	catalog_execute("UPDATE weir_internal.stream_state SET "
					"applied_offsets = $2, max_event_times = $3, "
					"last_record_timestamps = $4, "
					"max_record_timestamps = $5, "
					"floor_bounds = CASE WHEN floor_pending THEN $6 END, "
					"cluster_id = "
					"CASE WHEN $9 THEN $7 ELSE coalesce(cluster_id, $7) END, "
					"topic_incarnation = $8, seek_to = NULL "
					"WHERE stream_id = $1", lengthof(args), args);
	catalog_end(&access);
}

/*
 * What a seek leaves out: records between what was applied and the new
 * position.  NULL: nothing.
 */
static char *
skipped_text(Ingest *ingest, const Stored *stored, const int64 *offsets)
{
	char	   *text = NULL;
	int			partitions = 0;

	for (int p = 0; p < Min(stored->n, ingest->npartitions); p++)
		if (stored->incarnation == ingest->source->topic_incarnation &&
			stored->offsets[p] >= 0 && offsets[p] > stored->offsets[p] && partitions++ == 0)
			text = psprintf("sought over offsets %lld to %lld of %s[%d]",
							(long long) stored->offsets[p],
							(long long) offsets[p] - 1,
							ingest->source->topic, p);

	if (partitions > 1)
		text = psprintf("%s, and some of %d other partitions", text,
						partitions - 1);
	return text;
}

/*
 * A position is refused.  If it is the source's, and nothing has been read of
 * it, the source stops; else the stream fails, and the others go on.
 */
static void
refuse(Ingest *ingest, const NewStream *stream, const Refusal *refusal)
{
	if (stream->stream_id == 0 ||
		(!stream->own_start && !position_was_read(ingest)))
	{
		ingest->trouble = KAFKA_OK;
		ereport(ERROR,
				(errcode(refusal->sqlerrcode),
				 errmsg("%s", refusal->message),
				 errhint("It is start_from of source \"%s\". Streams can "
						 "start elsewhere by weir.seek() or their own "
						 "start_from; then call weir.resume().",
						 ingest->source->name)));
	}
	ereport(LOG,
			(errmsg("stream %d cannot start: %s", stream->stream_id,
					refusal->message)));
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (catalog_stream_by_id(stream->stream_id, true) != NULL)
		catalog_fail_stream(stream->stream_id,
							unpack_sql_state(refusal->sqlerrcode),
							refusal->message);
	worker_wakeup_at_commit();
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* Write a stream's first positions, and tell it. */
static void
record_positions(Ingest *ingest, const NewStream *stream,
				 const int64 *offsets, const int64 *low)
{
	char	   *skipped = NULL;
	StreamShared *shared;
	Stored		stored;
	Stored		new;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(ingest->batch_cxt);
	if (lock_stored(ingest, stream, &stored))
	{
		skipped = skipped_text(ingest, &stored, offsets);
		new = new_positions(ingest, stream, &stored, offsets, low);
		write_positions(ingest, stream, &new);
	}

	/* Not taken back by a crash: a start from 'latest' skips records. */
	ForceSyncCommit();
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(ingest->batch_cxt);

	shared = worker_stream_find(MyDatabaseId, stream->stream_id);
	if (shared && skipped)
		worker_set_error(&shared->error, ERRCODE_WARNING, skipped);
	if (shared)
		worker_wake(&shared->latch);
}

/*
 * Resolve the first positions of streams that have none yet.  What has
 * changed meanwhile has moved the catalog's generation, and is seen by the
 * loop.  The broker is asked outside of transactions: it may take long.
 */
void
position_resolve_new(Ingest *ingest)
{
	List	   *streams;
	ListCell   *lc;

	ingest->unresolved = false;
	if (ingest->stream_id != 0)
		return;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(ingest->batch_cxt);
	streams = streams_without_position(ingest);
	PopActiveSnapshot();
	CommitTransactionCommand();

	foreach(lc, streams)
	{
		NewStream  *stream = lfirst(lc);
		Refusal		refusal;
		int64	   *offsets;
		int64	   *low = NULL;
		int			unknown = 0;

		MemoryContextSwitchTo(ingest->batch_cxt);
		worker_activity("resolving the first position of stream %d",
						stream->stream_id);
		offsets = resolve_stream(ingest, stream, &refusal);
		if (stream->fresh && stream->floor_pending && !refusal.message)
			low = resolve(ingest, &beginning, &refusal);
		for (int p = 0; p < ingest->npartitions && !refusal.message; p++)
			if (offsets[p] < 0 || (low && low[p] < 0))
			{
				unknown++;
				ingest->begin_anew |= !stream->sought &&
					!ingest->parts[p].pending;
			}
		ingest->unresolved |= unknown > 0;
		if (refusal.message)
			refuse(ingest, stream, &refusal);
		else if (!stream->sought || unknown == 0)
			record_positions(ingest, stream, offsets, low);
		pgstat_report_activity(STATE_RUNNING, "reading the topic");
	}
}

/* Where a source that no stream reads begins; palloc'd. */
int64 *
position_resolve_preview(Ingest *ingest)
{
	NewStream	nobody = {.own_start = false};
	Refusal		refusal;
	int64	   *offsets;

	MemoryContextSwitchTo(ingest->batch_cxt);
	offsets = resolve(ingest,
					  position_parse(ingest->source->start_from, "start_from"),
					  &refusal);
	if (refusal.message)
		refuse(ingest, &nobody, &refusal);
	return offsets;
}

/* The newest advance whose end offsets are not known yet; 0: none. */
static int64
newest_open_advance(Ingest *ingest)
{
	CatalogArg	id[] = {CATALOG_INT4(ingest->source->source_id)};
	CatalogAccess access;
	CatalogRow	row;
	int64		newest;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	catalog_begin(&access);
	catalog_execute("SELECT coalesce(max(advance_id), 0) "
					"FROM weir_internal.advance "
					"WHERE source_id = $1 AND end_offsets IS NULL", 1, id);
	catalog_row_begin(&row, &access, 0);
	newest = catalog_next_int8(&row);
	catalog_end(&access);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return newest;
}

/*
 * Write the end offsets into the advances that do not have them yet; not into
 * those that are recorded while the broker is asked.  Without all of the
 * leaders they wait.
 */
void
position_resolve_advances(Ingest *ingest)
{
	int64	   *ends;
	int64		newest;

	if (ingest->stream_id != 0)
		return;
	newest = newest_open_advance(ingest);
	if (newest == 0)
		return;
	MemoryContextSwitchTo(ingest->batch_cxt);
	ends = broker_offsets(ingest, KAFKA_REQUEST_END, 0, NULL);
	for (int p = 0; p < ingest->npartitions; p++)
		if (ends[p] < 0)
		{
			ingest->unresolved = true;
			return;
		}

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(ingest->batch_cxt);
	{
		CatalogArg	args[] = {
			CATALOG_INT4(ingest->source->source_id),
			CATALOG_INT8S(ends, ingest->npartitions),
			CATALOG_INT8(newest)
		};
		CatalogAccess access;

		catalog_begin(&access);
		catalog_execute("UPDATE weir_internal.advance SET end_offsets = $2 "
						"WHERE source_id = $1 AND end_offsets IS NULL "
						"AND advance_id <= $3", 3, args);
		catalog_end(&access);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	worker_wake_database();
}
