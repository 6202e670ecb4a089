/*-------------------------------------------------------------------------
 *
 * ingest_consume.c
 *	  The ingest loop: take what has arrived, decode, stage, publish.
 *
 * One turn is one transaction over what had arrived, up to
 * INGEST_MAX_RECORDS: decode all of it, insert, write dead letters, commit,
 * and only then publish one mark (a reader may see a mark only when
 * its rows are visible).  When the transaction fails, the records are gone
 * from the client's queue: the ERROR ends the worker, and its next start
 * reads them again from the applied offsets (I1, I2).
 *
 * Small batches are paced, so that a trickle of records does not cost a
 * transaction each: what arrives within MIN_PACE of the last one waits, and
 * up to MAX_PACE while no stream would look at it anyway, because it is at
 * work or paces itself.  What comes after a pause is taken at once, and there
 * is no pace while batches are large.
 *
 * Back pressure (I6): while the ring has no room the loop does not consume;
 * librdkafka's queue is bounded by itself, and everything else of the client
 * (errors, answers) is served all the same.
 *
 * Idleness: the leader says when a partition's position is its end; the
 * evidence counts from then on without a break, and any doubt starts it anew.
 * The streams are woken when a partition becomes idle, so that neither they
 * nor this loop need to look often: a quiet source costs next to nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "dead_letter.h"
#include "errors.h"
#include "fdw.h"
#include "ingest.h"
#include "ingest_follow.h"
#include "settings.h"
#include "worker.h"

/*
 * Decode about this many bytes in one transaction, but no more than that
 * part of the worker's memory: records are there as they came, decoded, and
 * as tuples.
 */
#define BATCH_BYTES (4 * 1024 * 1024)
#define BATCH_PART 16

/* Least and greatest time between small batches; smaller than this part. */
#define MIN_PACE_US 25000
#define MAX_PACE_US 100000
#define SMALL_PART 4

/* A stream is to find the rows when it looks: commit so long before. */
#define PACE_LEAD_US 2000

/* A column not found in so many records is reported. */
#define ENOUGH_RECORDS 1000

/* Look at everything else this often, and when nothing goes on. */
#define TICK_MS 200
#define QUIET_TICK_MS 2000

/* Records by what became of them, of one batch. */
typedef struct BatchTally
{
	StagedRange range;
	DecodeOutcome *outcomes;
	KafkaMessage *records;
	int			nrecords;
	int			ndead;
} BatchTally;

/*
 * The record before the first one to read has been applied once: is it still
 * the same?  Then this is the topic the streams were reading.  A gap there
 * (compaction, a transaction's marker) leaves it open.  Returns whether the
 * record was only for this.
 */
static bool
verify_identity(Ingest *ingest, const KafkaMessage *m)
{
	TimestampTz expected = ingest->verify[m->partition];

	if (TIMESTAMP_IS_NOBEGIN(expected))
		return false;
	ingest->verify[m->partition] = DT_NOBEGIN;
	if (m->offset != ingest->next[m->partition] - 1)
		return false;
	if (kafka_time(m->timestamp_ms) != expected)
		position_wrong_topic(ingest,
							 psprintf("The record at offset %lld of partition "
									  "%d is not the one that was applied.",
									  (long long) m->offset, m->partition));
	ingest->last[m->partition] = expected;
	return true;
}

/* Raise a partition's error as the ERROR that ends this worker. */
static void
raise_partition_error(Ingest *ingest, const KafkaMessage *message)
{
	const KafkaError *error = kafka_last_error(ingest->client);

	if (message->error == KAFKA_TRANSIENT)
		return;
	ingest->trouble = message->error;
	ereport(ERROR,
			(errcode(error->sqlerrcode ? error->sqlerrcode :
					 ERRCODE_CONNECTION_FAILURE),
			 errmsg("%s", error->message[0] ? error->message :
					"the partition cannot be read"),
			 error->hint[0] ? errhint("%s", error->hint) : 0));
}

/*
 * Sort out what is no record: ends of partitions move next, errors are
 * raised.  Returns how many records there are; they are moved together.
 */
static int
sort_out(Ingest *ingest, KafkaMessage *messages, int n, bool *moved)
{
	int			nrecords = 0;

	for (int i = 0; i < n; i++)
	{
		KafkaMessage *m = &messages[i];

		if (m->partition < 0 || m->partition >= ingest->npartitions)
			continue;
		switch (m->kind)
		{
			case KAFKA_RECORD:
				if (verify_identity(ingest, m) ||
					m->offset < ingest->next[m->partition])
					break;		/* read already */
				ingest->next[m->partition] = m->offset + 1;
				ingest->last[m->partition] = kafka_time(m->timestamp_ms);
				if (nrecords != i)
					messages[nrecords] = *m;
				nrecords++;
				break;
			case KAFKA_PARTITION_EOF:
				if (m->offset > ingest->next[m->partition])
				{
					ingest->next[m->partition] = m->offset;
					ingest->last[m->partition] = DT_NOBEGIN;
					*moved = true;
				}
				break;
			case KAFKA_PARTITION_ERROR:
				raise_partition_error(ingest, m);
				break;
		}
	}
	return nrecords;
}

static void
write_dead_letters(Ingest *ingest, BatchTally *tally)
{
	DeadLetter *letters;
	int			n = 0;

	if (tally->ndead == 0)
		return;
	letters = palloc0(sizeof(DeadLetter) * tally->ndead);
	for (int i = 0; i < tally->nrecords; i++)
	{
		const DecodeOutcome *outcome = &tally->outcomes[i];
		const KafkaMessage *m = &tally->records[i];

		if (outcome->result != DECODE_DEAD)
			continue;
		if (ingest->source->stop_on_error)
			ereport(ERROR,
					(errcode(outcome->sqlerrcode),
					 errmsg("%s", outcome->message),
					 errdetail("Record at offset %lld of partition %d of "
							   "topic \"%s\".", (long long) m->offset,
							   m->partition, ingest->source->topic),
					 errhint("The source has on_error => 'stop'.")));
		letters[n].reason = outcome->constraint ? DEAD_CONSTRAINT :
			DEAD_DECODE;
		letters[n].partition = m->partition;
		letters[n].offset = m->offset;
		letters[n].kafka_timestamp = kafka_time(m->timestamp_ms);
		letters[n].key = m->key;
		letters[n].key_len = m->key_len;
		letters[n].payload = m->payload;
		letters[n].payload_len = m->payload_len;
		letters[n].sqlerrcode = outcome->sqlerrcode;
		letters[n].message = outcome->message;
		letters[n].window_start = letters[n].window_end = DT_NOBEGIN;
		n++;
	}
	dead_letter_write(ingest->source, NULL, letters, n);
}

/* Read the outcomes: what moves the watermark, what the mark says. */
static void
tally_outcomes(Ingest *ingest, BatchTally *tally)
{
	tally->range.min_event = DT_NOEND;
	tally->range.min_kafka = DT_NOEND;
	tally->range.records = tally->nrecords;
	for (int p = 0; p < ingest->npartitions; p++)
		ingest->max_event[p] = ingest->newest[p] = DT_NOBEGIN;
	for (int i = 0; i < tally->nrecords; i++)
	{
		const DecodeOutcome *outcome = &tally->outcomes[i];
		const KafkaMessage *m = &tally->records[i];
		TimestampTz *max_event = &ingest->max_event[m->partition];
		TimestampTz *newest = &ingest->newest[m->partition];
		TimestampTz stamp = kafka_time(m->timestamp_ms);

		*newest = Max(*newest,
					  TIMESTAMP_IS_NOBEGIN(stamp) ? DT_NOEND : stamp);

		if (outcome->has_event_time && outcome->event_time > *max_event)
			*max_event = outcome->event_time;
		if (outcome->result == DECODE_STAGED)
		{
			/* a future one opens a window, too */
			if ((outcome->has_event_time || outcome->future) &&
				outcome->event_time < tally->range.min_event)
				tally->range.min_event = outcome->event_time;
			if (!TIMESTAMP_IS_NOBEGIN(stamp))
				tally->range.min_kafka = Min(tally->range.min_kafka, stamp);
		}
		else if (outcome->result == DECODE_DEAD)
			tally->ndead++;
	}
}

/* After the commit: the counters of stat_source. */
static void
count_records(Ingest *ingest, const BatchTally *tally, TimestampTz now)
{
	int64		bytes = 0;

	for (int i = 0; i < tally->nrecords; i++)
	{
		const DecodeOutcome *outcome = &tally->outcomes[i];
		const KafkaMessage *m = &tally->records[i];
		PartitionShared *part = &ingest->parts[m->partition];

		part->rows_in++;
		part->bytes_in += m->payload_len + m->key_len;
		bytes += m->payload_len;
		part->last_row_at = now;
		part->rows_future += outcome->future;
		switch (outcome->result)
		{
			case DECODE_STAGED:
				part->rows_staged++;
				ingest->staged[m->partition]++;
				break;
			case DECODE_FILTERED:
				part->rows_filtered++;
				break;
			case DECODE_DEAD:
				part->rows_dead++;
				break;
			case DECODE_TOMBSTONE:
				part->rows_null++;
				break;
		}
	}
	ingest->records += tally->nrecords;
	if (tally->nrecords > 0)
		ingest->mean_len = (ingest->mean_len * 3 +
							bytes / tally->nrecords) / 4;
}

/* Decode, stage, commit and publish the records of one batch. */
static void
stage_batch(Ingest *ingest, KafkaMessage *records, int nrecords)
{
	BatchTally	tally = {{0}};
	UserContext user;
	int			nslots = 0;
	TimestampTz now = GetCurrentTimestamp();

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(ingest->batch_cxt);
	if (follow_outdated())
		follow_compile(ingest);
	tally.records = records;
	tally.nrecords = nrecords;
	tally.outcomes = palloc0(sizeof(DecodeOutcome) * Max(nrecords, 1));
	if (nrecords > 0)
	{
		catalog_enter_user(&user, ingest->source->owner,
						   &ingest->source->settings);
		decoder_decode(ingest->decoder, records, nrecords, now, ingest->slots,
					   &nslots, tally.outcomes);
		catalog_leave_user(&user);
	}
	tally_outcomes(ingest, &tally);
	stage_insert(ingest, ingest->slots, nslots, &tally.range);
	write_dead_letters(ingest, &tally);
	for (int i = 0; i < nslots; i++)
		ExecClearTuple(ingest->slots[i]);
	PopActiveSnapshot();
	CommitTransactionCommand();

	count_records(ingest, &tally, now);
	stage_publish(ingest, &tally.range);
	pgstat_report_stat(false);
}

/*
 * Take what has arrived.  Returns true when more waits.
 */
static bool
consume(Ingest *ingest)
{
	KafkaMessage *messages;
	bool		pending = false;
	bool		moved = false;
	int64		bytes = Min(BATCH_BYTES,
							(int64) weir_ingest_memory * 1024 / BATCH_PART);
	int			max = bytes / Max(ingest->mean_len, 64);
	int			n;
	int			nrecords;

	max = Max(1, Min(max, INGEST_MAX_RECORDS));
	n = kafka_consume(ingest->client, &messages, max, &pending);
	if (n > 0)
	{
		nrecords = sort_out(ingest, messages, n, &moved);
		if (nrecords > 0 || moved)
		{
			stage_batch(ingest, messages, nrecords);
			ingest->last_batch = worker_clock();
			ingest->last_small = !pending && nrecords < max / SMALL_PART;
		}
	}
	kafka_release(ingest->client);
	MemoryContextReset(ingest->batch_cxt);
	return pending;
}

static bool
is_idle(const Ingest *ingest, const PartitionShared *part)
{
	return part->idle_since != 0 &&
		ingest->source->idle_timeout != WEIR_NO_DURATION &&
		part->idle_as_of - part->idle_since >= ingest->source->idle_timeout;
}

/* Evidence for idleness, partition by partition (stream_watermark.c). */
static void
judge_idleness(Ingest *ingest)
{
	SlotShared *slot = ingest->slot;
	bool		fell_idle = false;

	for (int p = 0; p < ingest->npartitions; p++)
	{
		PartitionShared *part = &ingest->parts[p];
		int64		end = -1;
		TimestampTz as_of = 0;
		bool		at_end = kafka_partition_at_end(ingest->client, p, &end,
													&as_of);

		bool		was_idle = is_idle(ingest, part);

		if (end >= 0)
		{
			part->end_offset = end;
			part->end_as_of = as_of;
		}
		LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
		if (!at_end || end != part->next)
			part->idle_since = 0;
		else
		{
			/* a clock that was set is a break, too */
			if (part->idle_since == 0 ||
				llabs(as_of - part->idle_as_of) > WORKER_IDLE_GAP)
				part->idle_since = as_of;
			part->idle_as_of = as_of;
		}
		LWLockRelease(&slot->lock);
		fell_idle |= !was_idle && is_idle(ingest, part);
	}
	if (fell_idle)
		worker_wake_streams(ingest->source->source_id);
	slot->kafka_queue_bytes = kafka_queue_bytes(ingest->client);
}

/*
 * After trouble: has a batch been committed since the start, or is there
 * nothing to read?  Until then the last error stays to be seen, since the
 * next batch may meet it again.
 */
static bool
goes_well(const Ingest *ingest)
{
	if (ingest->slot->error.sqlerrcode == 0 || ingest->records > 0)
		return true;
	for (int p = 0; p < ingest->npartitions; p++)
	{
		int64		end;
		TimestampTz as_of;

		if (!kafka_partition_at_end(ingest->client, p, &end, &as_of))
			return false;
	}
	return true;
}

/* The client's troubles, for stat_source; data flowing again clears them. */
static void
show_state(Ingest *ingest, bool room)
{
	SlotShared *slot = ingest->slot;
	const KafkaError *error = kafka_last_error(ingest->client);

	if (error->class == KAFKA_FATAL)
	{
		ingest->trouble = error->class;
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("%s", error->message)));
	}
	if (error->class == KAFKA_UNKNOWN_TOPIC)
		broker_raise(ingest, error);
	if (error->class != KAFKA_OK)
		broker_show_trouble(ingest, error->sqlerrcode, error->message);
	else if (ingest->npending == 0 && goes_well(ingest))
	{
		broker_show_well(ingest);
		if (room)
			slot->state = SLOT_RUNNING;
		else if (slot->state != SLOT_PREVIEW)
			slot->state = SLOT_BACK_PRESSURE;
	}
}

/*
 * The catalog has changed: new streams, advances.  A change of the source
 * itself ends the worker; its manager starts another, if one is wanted.
 */
static void
catalog_changed(Ingest *ingest)
{
	if (broker_source_changed(ingest))
		broker_start_anew(ingest);
	position_resolve_new(ingest);
	position_resolve_advances(ingest);
	MemoryContextReset(ingest->batch_cxt);
	if (ingest->begin_anew)
		broker_start_anew(ingest);
}

/*
 * A partition that had no leader at the start has one now, or a position can
 * be resolved that could not be then: begin anew, or ask again.
 */
static void
look_after_positions(Ingest *ingest)
{
	for (int p = 0; p < ingest->npartitions && ingest->npending > 0; p++)
	{
		int64		end;
		TimestampTz as_of;

		if (!ingest->parts[p].pending)
			continue;
		(void) kafka_partition_at_end(ingest->client, p, &end, &as_of);
		if (end < 0)
			continue;
		ereport(LOG,
				(errmsg("partition %d of topic \"%s\" can be read now", p,
						ingest->source->topic)));
		broker_start_anew(ingest);
	}
	if (ingest->unresolved && ingest->npending == 0 &&
		kafka_last_error(ingest->client)->class == KAFKA_OK)
	{
		position_resolve_new(ingest);
		position_resolve_advances(ingest);
		MemoryContextReset(ingest->batch_cxt);
	}
}

/* A column that no record has had is likely a path gone wrong: say so. */
static void
look_for_columns(Ingest *ingest)
{
	SlotShared *slot = ingest->slot;
	MemoryContext old;
	char	   *columns;

	if (ingest->records < ENOUGH_RECORDS)
		return;
	old = MemoryContextSwitchTo(ingest->batch_cxt);
	columns = decoder_columns_never_found(ingest->decoder);
	MemoryContextSwitchTo(old);
	if (columns == NULL)
		columns = "";
	else if (slot->columns_never_found[0] == '\0')
		ereport(WARNING,
				(errmsg("source \"%s\": no record had a value for %s",
						ingest->source->name, columns),
				 errhint("Compare the paths of the columns with a record: "
						 "weir.sample() shows some.")));
	if (strcmp(columns, slot->columns_never_found) != 0)
		strlcpy(slot->columns_never_found, columns,
				sizeof(slot->columns_never_found));
}

/* Let a stream that holds a full ring for too long go. */
static void
judge_full_ring(Ingest *ingest, bool room, TimestampTz now)
{
	if (room || ingest->slot->state == SLOT_PREVIEW)
		ingest->full_since = 0;
	else if (ingest->full_since == 0)
		ingest->full_since = now;
	else if (TimestampDifferenceExceeds(ingest->full_since, now,
										weir_detach_timeout))
		stage_detach_slowest(ingest);
}

/* Latch, postmaster, service fd, and the messages' fd when asked for. */
static WaitEventSet *
make_wait_set(Ingest *ingest, bool messages)
{
	WaitEventSet *set = compat_create_wait_event_set(ingest->cxt, 4);

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(set, WL_SOCKET_READABLE,
					  kafka_service_fd(ingest->client), NULL, NULL);
	if (messages)
		AddWaitEventToSet(set, WL_SOCKET_READABLE,
						  kafka_message_fd(ingest->client), NULL, NULL);
	return set;
}

/*
 * A catch-up worker ends when its stream has gone to the shared ring, or is to
 * be read from further back; then another one is started.
 */
static bool
still_needed(Ingest *ingest)
{
	StreamShared *stream;

	if (ingest->stream_id == 0)
		return true;
	stream = worker_stream_find(MyDatabaseId, ingest->stream_id);
	return stream && stream->wants_catch_up && !ingest->slot->start_again;
}

/* Does a segment wait to be emptied, until somebody has read it? */
static bool
recycling(const Ingest *ingest)
{
	for (int i = 0; i < ingest->slot->nsegments; i++)
		if (ingest->slot->segments[i].state == SEGMENT_RECYCLING)
			return true;
	return false;
}

/* Until when the next batch has to wait; in the past: no longer. */
static TimestampTz
paced_until(Ingest *ingest)
{
	TimestampTz until;

	if (!ingest->last_small)
		return 0;
	until = stage_next_reader(ingest);
	if (!TIMESTAMP_IS_NOEND(until))
		until -= PACE_LEAD_US;
	return Max(ingest->last_batch + MIN_PACE_US,
			   Min(ingest->last_batch + MAX_PACE_US, until));
}

/* How long there may be nothing to do. */
static long
wait_ms(Ingest *ingest, bool quiet)
{
	long		due = kafka_service_due(ingest->client);
	long		tick = quiet ? QUIET_TICK_MS : TICK_MS;

	return due < 0 ? tick : Min(due, tick);
}

void
ingest_loop(Ingest *ingest)
{
	WaitEventSet *all = make_wait_set(ingest, true);
	WaitEventSet *no_messages = make_wait_set(ingest, false);
	TimestampTz last_look = 0;

	for (;;)
	{
		bool		room;
		bool		pending = false;
		bool		changed;
		bool		quiet;
		WaitEvent	event;
		TimestampTz now;
		long		paced;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		worker_reload_config();
		if (ingest_settings_changed(ingest))
			broker_start_anew(ingest);
		if (!still_needed(ingest))
		{
			segment_drop_private(ingest->source->source_id,
								 ingest->stream_id);
			proc_exit(0);
		}
		if (ingest->generation != worker_catalog_generation())
		{
			ingest->generation = worker_catalog_generation();
			catalog_changed(ingest);
		}

		room = stage_has_room(ingest);
		if (!room)
		{
			stage_recycle(ingest);
			room = stage_has_room(ingest);
		}
		paced = TimestampDifferenceMilliseconds(worker_clock(),
												paced_until(ingest));
		if (room && paced == 0)
			pending = consume(ingest);
		changed = kafka_service(ingest->client);
		broker_serve_waiters(ingest);

		now = worker_clock();
		quiet = room && !recycling(ingest) &&
			TimestampDifferenceExceeds(ingest->last_batch, now,
									   QUIET_TICK_MS);
		if (changed || TimestampDifferenceExceeds(last_look, now, TICK_MS))
		{
			last_look = now;
			show_state(ingest, room);
			judge_idleness(ingest);
			judge_full_ring(ingest, room, now);
			look_for_columns(ingest);
			broker_look_for_partitions(ingest, now);
			look_after_positions(ingest);
			stage_recycle(ingest);
			worker_account();
		}
		if (pending && room)
			continue;
		if (paced == 0)
			paced = TimestampDifferenceMilliseconds(now, paced_until(ingest));
		(void) WaitEventSetWait(room && paced == 0 ? all : no_messages,
								paced == 0 ? wait_ms(ingest, quiet) :
								Min(paced, wait_ms(ingest, quiet)),
								&event, 1, PG_WAIT_EXTENSION);
	}
}
