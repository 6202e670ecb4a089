/*-------------------------------------------------------------------------
 *
 * ingest_position.c
 *	  Where a slot begins to read.
 *
 * It begins at the least applied offset of the streams it serves.  A stream
 * far behind the others would have all of them wait for its replay; it is
 * left to catch up by itself.
 *
 * A partition whose leader does not answer is left out (pending): the others
 * are read, and the watermark holds, since nothing is known of it.  When the
 * leader is back the worker starts anew, which is the one way to begin.
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
#include "settings.h"
#include "worker.h"

/* 55W01: the identity check failed; seek() knows it by this. */
#define ERRCODE_WRONG_TOPIC MAKE_SQLSTATE('5', '5', 'W', '0', '1')

/* So long a topic that was read before must be missing to count as gone. */
#define GONE_AFTER_MS 5000
#define GONE_ASK_MS 200

/* Streams further behind the foremost than this many records are left out. */
#define FAR_BEHIND(batch_rows) ((int64) 4 * (batch_rows))

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

/*
 * The start of each partition: the least of the streams that count.  Pending
 * partitions do not.
 */
static void
choose_start(Ingest *ingest, List *applied)
{
	ListCell   *lc;
	ListCell   *foremost = NULL;
	int64		best = -1;
	int64	   *most = palloc(sizeof(int64) * ingest->npartitions);

	for (int p = 0; p < ingest->npartitions; p++)
	{
		most[p] = 0;
		ingest->next[p] = OFFSET_PENDING;
		foreach(lc, applied)
			most[p] = Max(most[p], ((Applied *) lfirst(lc))->offsets[p]);
	}
	foreach(lc, applied)
	{
		int64		sum = 0;

		for (int p = 0; p < ingest->npartitions; p++)
			sum += ingest->parts[p].pending ? 0 :
				((Applied *) lfirst(lc))->offsets[p];
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
			behind += ingest->parts[p].pending ? 0 : most[p] - a->offsets[p];
		if (behind > FAR_BEHIND(weir_max_batch_rows) && lc != foremost)
			continue;
		for (int p = 0; p < ingest->npartitions; p++)
			if (!ingest->parts[p].pending &&
				(ingest->next[p] < 0 || a->offsets[p] < ingest->next[p]))
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
check_start(Ingest *ingest, const int64 *low, const int64 *end)
{
	for (int p = 0; p < ingest->npartitions; p++)
	{
		int64		start = ingest->next[p];

		if (ingest->parts[p].pending)
			continue;
		if (start > end[p])
			position_wrong_topic(ingest,
								 psprintf("Partition %d ends at offset %lld, "
										  "but has been read up to %lld.", p,
										  (long long) end[p],
										  (long long) start));
		if (start < low[p])
		{
			ingest->trouble = KAFKA_OFFSET_GONE;
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("offset %lld of %s[%d] is gone (available "
							"%lld..%lld)", (long long) start,
							ingest->source->topic, p, (long long) low[p],
							(long long) end[p]),
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
	TimestampTz since = worker_clock();

	for (;;)
	{
		const KafkaAnswer *answer = broker_ask(ingest,
											   KAFKA_REQUEST_METADATA, 0);

		if (answer->error.class == KAFKA_OK)
			return answer;
		if (answer->error.class != KAFKA_UNKNOWN_TOPIC ||
			TimestampDifferenceExceeds(since, worker_clock(),
									   GONE_AFTER_MS) ||
			!position_was_read(ingest))
			broker_raise(ingest, &answer->error);
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
 * Which partitions have to wait, since their leaders have not answered just
 * now, or had not when a stream's position was to be resolved?
 */
static void
find_pending(Ingest *ingest, List *applied, const int64 *low,
			 const int64 *end)
{
	ListCell   *lc;

	LWLockAcquire(&ingest->slot->lock, LW_EXCLUSIVE);
	ingest->npending = 0;
	ingest->begin_anew = false;
	for (int p = 0; p < ingest->npartitions; p++)
	{
		bool		pending = low[p] < 0 || end[p] < 0;

		foreach(lc, applied)
			pending |= ((Applied *) lfirst(lc))->offsets[p] < 0;
		ingest->parts[p].pending = pending;
		ingest->npending += pending;
	}
	LWLockRelease(&ingest->slot->lock);
}

/* Where a source that no stream reads begins. */
static void
begin_preview(Ingest *ingest)
{
	int64	   *offsets = position_resolve_preview(ingest);

	for (int p = 0; p < ingest->npartitions; p++)
	{
		if (offsets[p] < 0 && !ingest->parts[p].pending)
		{
			ingest->parts[p].pending = true;
			ingest->npending++;
		}
		ingest->next[p] = ingest->parts[p].pending ? OFFSET_PENDING :
			offsets[p];
	}
}

/*
 * Resolve first positions, and set the slot to its start.  Raises the
 * broker's errors.
 */
void
position_begin(Ingest *ingest)
{
	KafkaError	error;
	PartitionShared *parts = ingest->parts;
	List	   *applied;
	int64	   *low;
	int64	   *end;

	position_resolve_new(ingest);

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(ingest->batch_cxt);
	applied = complete_positions(ingest, read_applied(ingest));
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(ingest->batch_cxt);
	if (applied == NIL && ingest->stream_id != 0)
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("the position of the stream that catches up is not "
						"known yet"),
				 errdetail("The source's worker resolves it.")));

	low = broker_offsets(ingest, KAFKA_REQUEST_LOW, 0, NULL);
	end = broker_offsets(ingest, KAFKA_REQUEST_END, 0, &error);
	find_pending(ingest, applied, low, end);
	if (applied != NIL)
	{
		choose_start(ingest, applied);
		check_start(ingest, low, end);
	}
	else
		begin_preview(ingest);

	LWLockAcquire(&ingest->slot->lock, LW_EXCLUSIVE);
	for (int p = 0; p < ingest->npartitions; p++)
	{
		parts[p].next = parts[p].floor = ingest->next[p];
		parts[p].idle_since = 0;
		if (!parts[p].pending)
		{
			parts[p].end_offset = end[p];
			parts[p].end_as_of = GetCurrentTimestamp();
		}
	}
	LWLockRelease(&ingest->slot->lock);
	if (error.class != KAFKA_OK)
		broker_show_trouble(ingest, error.sqlerrcode, error.message);
	MemoryContextReset(ingest->batch_cxt);
}
