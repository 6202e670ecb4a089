/*-------------------------------------------------------------------------
 *
 * ingest_position.c
 *	  Where to begin: first positions, the slot's start, recorded ends.
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
 * The slot begins at the least applied offset of the streams it serves.  A
 * stream far behind the others would have all of them wait for its replay;
 * it is left to catch up by itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog_spi.h"
#include "ingest.h"
#include "options.h"
#include "settings.h"
#include "worker.h"

/* 55W01: the identity check failed; seek() knows it by this. */
#define ERRCODE_WRONG_TOPIC MAKE_SQLSTATE('5', '5', 'W', '0', '1')

/* How long one request may take before it counts as an outage. */
#define REQUEST_TIMEOUT_MS 10000

/* So long a topic that was read before must be missing to count as gone. */
#define GONE_AFTER_MS 5000
#define GONE_ASK_MS 200

/* Streams further behind the foremost than this many records are left out. */
#define FAR_BEHIND(batch_rows) ((int64) 4 * (batch_rows))

/*
 * An answer that is an error is raised, so that the worker ends and its
 * manager tries again later.
 */
static const KafkaAnswer *
raise_error(Ingest *ingest, const KafkaAnswer *answer)
{
	if (answer->error.class != KAFKA_OK)
	{
		ingest->trouble = answer->error.class;
		ereport(ERROR,
				(errcode(answer->error.sqlerrcode),
				 errmsg("%s", answer->error.message),
				 answer->error.hint[0] ?
				 errhint("%s", answer->error.hint) : 0));
	}
	return answer;
}

/* Ask the broker and wait; raises its errors. */
static const KafkaAnswer *
ask(Ingest *ingest, KafkaRequestKind kind, int64 time_ms)
{
	return raise_error(ingest, kafka_request_wait(ingest->client, kind,
												  ingest->npartitions,
												  time_ms,
												  REQUEST_TIMEOUT_MS));
}

/*
 * Offsets of all partitions for a position, palloc'd.  What a position of
 * explicit offsets does not name starts at its beginning; one past the end
 * means the end, as a time does, since a position that the topic does not have
 * looks like another topic's.
 */
static int64 *
resolve(Ingest *ingest, const char *text)
{
	Position   *position = position_parse(text, "start_from");
	const KafkaAnswer *answer;
	int64	   *offsets = palloc(sizeof(int64) * ingest->npartitions);

	switch (position->kind)
	{
		case POSITION_LATEST:
			answer = ask(ingest, KAFKA_REQUEST_END, 0);
			break;
		case POSITION_TIME:
			answer = ask(ingest, KAFKA_REQUEST_TIME,
						 kafka_time_ms(position->time));
			break;
		default:
			answer = ask(ingest, KAFKA_REQUEST_LOW, 0);
			break;
	}
	memcpy(offsets, answer->offsets, sizeof(int64) * ingest->npartitions);
	if (position->kind == POSITION_OFFSETS)
		for (int i = 0; i < position->noffsets; i++)
			if (position->offsets[i].partition < ingest->npartitions)
				offsets[position->offsets[i].partition] =
					position->offsets[i].offset;
	if (position->kind == POSITION_OFFSETS)
	{
		answer = ask(ingest, KAFKA_REQUEST_END, 0);
		for (int p = 0; p < ingest->npartitions; p++)
			offsets[p] = Min(offsets[p], answer->offsets[p]);
	}
	return offsets;
}

/*
 * What the broker serves under the topic's name is not what has been read.
 * Nothing is skipped: the source stops until somebody seeks.
 */
void
position_wrong_topic(Ingest *ingest, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_TOPIC),
			 errmsg("topic \"%s\" is not the topic source \"%s\" was reading",
					ingest->source->topic, ingest->source->name),
			 errdetail_internal("%s", detail),
			 errhint("It was deleted and made anew, or the server is another "
					 "one. weir.seek() accepts it and begins anew.")));
}

/* A stream that lacks progress for some partition. */
typedef struct NewStream
{
	int32		stream_id;
	bool		fresh;			/* has no position at all, or was sought */
	bool		forward;		/* sought, but never to below what is applied */
	bool		floor_pending;	/* sought, and partitions tell the floor */
	char	   *start;
	int64		seek_generation;	/* that start belongs to */
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
	n = catalog_execute("SELECT st.stream_id, "
						"ss.applied_offsets IS NULL OR "
						"ss.seek_to IS NOT NULL, ss.seek_forward, "
						"ss.floor_pending, "
						"coalesce(ss.seek_to, st.start_from, src.start_from), "
						"ss.seek_generation "
						"FROM weir_internal.stream st "
						"JOIN weir_internal.source src USING (source_id) "
						"JOIN weir_internal.stream_state ss USING (stream_id) "
						"WHERE st.source_id = $1 AND ("
						"coalesce(cardinality(ss.applied_offsets), 0) < $2 OR "
						"ss.seek_to IS NOT NULL) "
						"ORDER BY 1", 2, args);
	for (uint64 i = 0; i < n; i++)
	{
		NewStream  *stream;
		MemoryContext old = MemoryContextSwitchTo(access.caller);

		stream = palloc(sizeof(*stream));
		streams = lappend(streams, stream);
		MemoryContextSwitchTo(old);
		catalog_row_begin(&row, &access, i);
		stream->stream_id = catalog_next_int4(&row);
		stream->fresh = catalog_next_bool(&row);
		stream->forward = catalog_next_bool(&row);
		stream->floor_pending = catalog_next_bool(&row);
		stream->start = catalog_next_text(&row);
		stream->seek_generation = catalog_next_int8(&row);
	}
	catalog_end(&access);
	return streams;
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
 * Lock the stream and read it.  False: it was dropped or sought again while
 * the broker was asked; then the catalog has changed, and it is looked at
 * anew.
 */
static bool
lock_stored(const NewStream *stream, Stored *stored)
{
	CatalogAccess access;
	CatalogRow	row;
	int			n;
	CatalogArg	id[] = {
		CATALOG_INT4(stream->stream_id),
		CATALOG_INT8(stream->seek_generation)
	};

	catalog_lock_stream(stream->stream_id);
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
		bool		stays = old &&
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
			offsets[p] > stored->offsets[p] && partitions++ == 0)
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
 * Resolve the first positions of streams that have none yet.  What has
 * changed meanwhile has moved the catalog's generation, and is seen by the
 * loop.
 */
void
position_resolve_new(Ingest *ingest)
{
	List	   *streams;
	ListCell   *lc;

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
		int64	   *offsets;
		int64	   *low = NULL;
		char	   *skipped = NULL;
		StreamShared *shared;
		Stored		stored;
		Stored		new;

		MemoryContextSwitchTo(ingest->batch_cxt);
		worker_activity("resolving the first position of stream %d",
						stream->stream_id);
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		MemoryContextSwitchTo(ingest->batch_cxt);
		offsets = resolve(ingest, stream->fresh ? stream->start : "earliest");
		if (stream->fresh && stream->floor_pending)
			low = resolve(ingest, "earliest");
		if (lock_stored(stream, &stored))
		{
			skipped = skipped_text(ingest, &stored, offsets);
			new = new_positions(ingest, stream, &stored, offsets, low);
			write_positions(ingest, stream, &new);
		}

		/* Not taken back by a crash: a start from 'latest' skips records. */
		ForceSyncCommit();
		PopActiveSnapshot();
		CommitTransactionCommand();

		shared = worker_stream_find(MyDatabaseId, stream->stream_id);
		if (shared && skipped)
			worker_set_error(&shared->error, ERRCODE_WARNING, skipped);
		if (shared)
			worker_wake(&shared->latch);
		pgstat_report_activity(STATE_RUNNING, "reading the topic");
	}
}

/* Write the end offsets into the advances that do not have them yet. */
void
position_resolve_advances(Ingest *ingest)
{
	CatalogAccess access;
	uint64		n;
	CatalogArg	id[] = {CATALOG_INT4(ingest->source->source_id)};

	if (ingest->stream_id != 0)
		return;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(ingest->batch_cxt);
	catalog_begin(&access);
	n = catalog_execute("SELECT 1 FROM weir_internal.advance "
						"WHERE source_id = $1 AND end_offsets IS NULL "
						"FOR UPDATE", 1, id);
	catalog_end(&access);
	if (n > 0)
	{
		const KafkaAnswer *answer = ask(ingest, KAFKA_REQUEST_END, 0);
		CatalogArg	args[] = {
			id[0], CATALOG_INT8S(answer->offsets, ingest->npartitions)
		};

		catalog_begin(&access);
		catalog_execute("UPDATE weir_internal.advance SET end_offsets = $2 "
						"WHERE source_id = $1 AND end_offsets IS NULL", 2,
						args);
		catalog_end(&access);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (n > 0)
		worker_wake_database();
}

/* Durable positions of a stream. */
typedef struct Applied
{
	int32		stream_id;
	int			npartitions;
	int64	   *offsets;
	TimestampTz *last;			/* Kafka timestamp of the record at offset -
								 * 1; DT_NOBEGIN: not known */
} Applied;

/*
 * The positions of the streams served.  One that was sought has none until
 * the new one is resolved: what is gone at the old one must not fail it.
 */
static List *
read_applied(Ingest *ingest)
{
	CatalogArg	args[] = {
		CATALOG_INT4(ingest->source->source_id),
		CATALOG_INT4(ingest->stream_id)
	};
	CatalogAccess access;
	CatalogRow	row;
	List	   *list = NIL;
	uint64		n;

	catalog_begin(&access);
	n = catalog_execute("SELECT ss.stream_id, ss.cluster_id, "
						"ss.applied_offsets, ss.last_record_timestamps "
						"FROM weir_internal.stream_state ss "
						"JOIN weir_internal.stream st USING (stream_id) "
						"WHERE st.source_id = $1 "
						"AND ($2 = 0 OR st.stream_id = $2) "
						"AND NOT st.paused AND st.failed_message IS NULL "
						"AND ss.seek_to IS NULL "
						"AND ss.applied_offsets IS NOT NULL "
						"ORDER BY 1", 2, args);
	for (uint64 i = 0; i < n; i++)
	{
		Applied    *a = MemoryContextAlloc(access.caller, sizeof(Applied));
		char	   *cluster;
		int			lasts;
		MemoryContext old;

		catalog_row_begin(&row, &access, i);
		a->stream_id = catalog_next_int4(&row);
		cluster = catalog_next_text(&row);
		a->offsets = catalog_next_int8_array(&row, &a->npartitions);
		a->last = catalog_next_time_array(&row, &lasts, DT_NOBEGIN);
		if (cluster && ingest->cluster_id[0] &&
			strcmp(cluster, ingest->cluster_id) != 0)
			position_wrong_topic(ingest,
								 psprintf("The cluster is %s, it was %s.",
										  ingest->cluster_id, cluster));
		for (int p = ingest->npartitions; p < a->npartitions; p++)
			if (a->offsets[p] > 0)
				position_wrong_topic(ingest,
									 psprintf("It has %d partitions, but partition "
											  "%d has been read.",
											  ingest->npartitions, p));
		old = MemoryContextSwitchTo(access.caller);
		list = lappend(list, a);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&access);
	return list;
}

/*
 * Those that have a position in every partition.  Others were sought or met
 * a new partition just now; they are not ready to be served.
 */
static List *
complete_positions(const Ingest *ingest, List *applied)
{
	List	   *complete = NIL;
	ListCell   *lc;

	foreach(lc, applied)
	{
		Applied    *a = lfirst(lc);

		if (a->npartitions >= ingest->npartitions)
			complete = lappend(complete, a);
	}
	return complete;
}

/* The start of each partition: the least of the streams that count. */
static void
choose_start(Ingest *ingest, List *applied)
{
	ListCell   *lc;
	ListCell   *foremost = NULL;
	int64		best = -1;
	int64	   *most = palloc(sizeof(int64) * ingest->npartitions);

	for (int p = 0; p < ingest->npartitions; p++)
	{
		most[p] = -1;
		ingest->next[p] = -1;
		foreach(lc, applied)
			most[p] = Max(most[p], ((Applied *) lfirst(lc))->offsets[p]);
	}
	foreach(lc, applied)
	{
		int64		sum = 0;

		for (int p = 0; p < ingest->npartitions; p++)
			sum += ((Applied *) lfirst(lc))->offsets[p];
		if (sum > best)
		{
			best = sum;
			foremost = lc;
		}
	}
	foreach(lc, applied)
	{
		Applied    *a = lfirst(lc);
		int64		behind = 0;

		for (int p = 0; p < ingest->npartitions; p++)
			behind += most[p] - a->offsets[p];
		if (behind > FAR_BEHIND(weir_max_batch_rows) && lc != foremost)
			continue;
		for (int p = 0; p < ingest->npartitions; p++)
			if (ingest->next[p] < 0 || a->offsets[p] < ingest->next[p])
			{
				ingest->next[p] = a->offsets[p];
				ingest->verify[p] = a->last[p];
			}
	}
}

/*
 * Is the start within what the broker has?  Past its end, it is another
 * topic; before its beginning, records have been deleted that were not read.
 * Where the record before the start is still there, the first fetch begins
 * with it, to see that it is the same.
 */
static void
check_start(Ingest *ingest)
{
	int64	   *low = palloc(sizeof(int64) * ingest->npartitions);
	const KafkaAnswer *answer = ask(ingest, KAFKA_REQUEST_LOW, 0);

	memcpy(low, answer->offsets, sizeof(int64) * ingest->npartitions);
	answer = ask(ingest, KAFKA_REQUEST_END, 0);
	for (int p = 0; p < ingest->npartitions; p++)
	{
		int64		start = ingest->next[p];

		if (start > answer->offsets[p])
			position_wrong_topic(ingest,
								 psprintf("Partition %d ends at offset %lld, "
										  "but has been read up to %lld.", p,
										  (long long) answer->offsets[p],
										  (long long) start));
		if (start < low[p])
		{
			ingest->trouble = KAFKA_OFFSET_GONE;
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("offset %lld of %s[%d] is gone (available "
							"%lld..%lld)", (long long) start,
							ingest->source->topic, p, (long long) low[p],
							(long long) answer->offsets[p]),
					 errhint("Records were deleted before they were read. "
							 "weir.seek() moves a stream past them, and "
							 "weir.resume() starts the source again.")));
		}
		if (start - 1 < low[p])
			ingest->verify[p] = DT_NOBEGIN;
	}
}

/*
 * Has a stream of the source a position already?  Then there was a topic.
 * In a transaction of its own.
 */
bool
position_was_read(Ingest *ingest)
{
	CatalogAccess access;
	CatalogArg	id[] = {CATALOG_INT4(ingest->source->source_id)};
	uint64		n;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	catalog_begin(&access);
	n = catalog_execute("SELECT 1 FROM weir_internal.stream_state "
						"JOIN weir_internal.stream USING (stream_id) "
						"WHERE source_id = $1 "
						"AND applied_offsets IS NOT NULL LIMIT 1", 1, id);
	catalog_end(&access);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return n > 0;
}

/*
 * Ask for the partitions.  A broker that has just started may not know a
 * topic that was read before: that counts when it stays like this.
 */
static const KafkaAnswer *
ask_partitions(Ingest *ingest)
{
	TimestampTz since = GetCurrentTimestamp();

	for (;;)
	{
		const KafkaAnswer *answer =
		kafka_request_wait(ingest->client, KAFKA_REQUEST_METADATA, 0, 0,
						   REQUEST_TIMEOUT_MS);

		if (answer->error.class != KAFKA_UNKNOWN_TOPIC ||
			TimestampDifferenceExceeds(since, GetCurrentTimestamp(),
									   GONE_AFTER_MS) ||
			!position_was_read(ingest))
			return raise_error(ingest, answer);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
						 WL_EXIT_ON_PM_DEATH, GONE_ASK_MS,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Count the topic's partitions, and learn the cluster's name. */
void
position_learn_partitions(Ingest *ingest)
{
	const KafkaAnswer *answer = ask_partitions(ingest);

	ingest->npartitions = answer->partitions;
	strlcpy(ingest->cluster_id, answer->cluster_id,
			sizeof(ingest->cluster_id));
	if (!worker_slot_set_partitions(ingest->slot, ingest->npartitions))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no room for the %d partitions of topic \"%s\"",
						ingest->npartitions, ingest->source->topic),
				 errhint("Increase weir.max_partitions and restart the "
						 "server.")));
	ingest->parts = worker_slot_partitions(ingest->slot);
	ingest->next = MemoryContextAllocZero(ingest->cxt,
										  sizeof(int64) * ingest->npartitions);
	ingest->max_event = MemoryContextAllocZero(ingest->cxt,
											   sizeof(TimestampTz) *
											   ingest->npartitions);
	ingest->newest = MemoryContextAllocZero(ingest->cxt,
											sizeof(TimestampTz) *
											ingest->npartitions);
	ingest->staged = MemoryContextAllocZero(ingest->cxt, sizeof(int64) *
											ingest->npartitions);
	ingest->last = MemoryContextAlloc(ingest->cxt, sizeof(TimestampTz) *
									  ingest->npartitions);
	ingest->verify = MemoryContextAlloc(ingest->cxt, sizeof(TimestampTz) *
										ingest->npartitions);
	for (int p = 0; p < ingest->npartitions; p++)
		ingest->last[p] = ingest->verify[p] = DT_NOBEGIN;
}

/*
 * Resolve first positions, and set the slot to its start.  Raises the
 * broker's errors.
 */
void
position_begin(Ingest *ingest)
{
	PartitionShared *parts;
	List	   *applied;

	position_resolve_new(ingest);

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(ingest->batch_cxt);
	applied = complete_positions(ingest, read_applied(ingest));
	if (applied != NIL)
	{
		choose_start(ingest, applied);
		check_start(ingest);
	}
	else if (ingest->stream_id != 0)
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("the position of the stream that catches up is not "
						"known yet"),
				 errdetail("The source's worker resolves it.")));
	else
		memcpy(ingest->next, resolve(ingest, ingest->source->start_from),
			   sizeof(int64) * ingest->npartitions);
	PopActiveSnapshot();
	CommitTransactionCommand();

	parts = ingest->parts;
	LWLockAcquire(&ingest->slot->lock, LW_EXCLUSIVE);
	for (int p = 0; p < ingest->npartitions; p++)
	{
		parts[p].next = parts[p].floor = ingest->next[p];
		parts[p].idle_since = 0;
	}
	LWLockRelease(&ingest->slot->lock);
	MemoryContextReset(ingest->batch_cxt);
}
