/*-------------------------------------------------------------------------
 *
 * ingest_broker.c
 *	  Asking the broker: while starting, for wait_for(), for new partitions;
 *	  and what is said of it when it does not answer.
 *
 * An outage does not end the worker: it goes on asking, shows what is wrong
 * in its slot (state "retrying", last_error), and looks whether its source
 * has changed meanwhile.  The server log gets one line when an outage begins,
 * one when it is over, and one a minute in between; slot->outage_since
 * outlives the worker, which may have to start anew for other reasons.
 *
 * Where some leaders answer and others do not, the answer is in part: who
 * asks decides what to do without the rest.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "fdw.h"
#include "ingest.h"
#include "settings.h"
#include "worker.h"

/* Between two lines about one outage. */
#define LOG_INTERVAL_MS 60000

/* The wait for an answer is looked after this often. */
#define LOOK_MS 1000

/* Look for new partitions this often. */
#define PARTITIONS_INTERVAL_MS 10000

/*
 * Trouble
 */

/* Show an outage, and log it if it is time. */
void
broker_show_trouble(Ingest *ingest, int sqlerrcode, const char *message)
{
	SlotShared *slot = ingest->slot;
	TimestampTz now = worker_clock();

	if (slot->state != SLOT_RETRYING || slot->error.sqlerrcode == 0 ||
		strcmp(slot->error.message, message) != 0)
		worker_set_error(&slot->error, sqlerrcode, message);
	slot->state = SLOT_RETRYING;
	if (slot->outage_since == 0)
	{
		slot->outage_since = slot->outage_logged_at = now;
		ereport(LOG,
				(errmsg("source \"%s\" waits: %s", ingest->source->name,
						message)));
	}
	else if (TimestampDifferenceExceeds(slot->outage_logged_at, now,
										LOG_INTERVAL_MS))
	{
		slot->outage_logged_at = now;
		ereport(LOG,
				(errmsg("source \"%s\" has been waiting for %d s: %s",
						ingest->source->name,
						(int) ((now - slot->outage_since) / USECS_PER_SEC),
						message)));
	}
}

/*
 * An ERROR ends the worker: is it news?  Not if it is the broker's, and the
 * one before the last start again, less than a minute later.
 */
bool
broker_log_due(Ingest *ingest, const char *message)
{
	SlotShared *slot = ingest->slot;
	TimestampTz now = worker_clock();

	if (slot == NULL || ingest->trouble == KAFKA_OK)
		return true;
	if (slot->outage_since == 0)
		slot->outage_since = now;
	else if (strncmp(slot->error.message, message, WEIR_TEXT_LEN - 1) == 0 &&
			 !TimestampDifferenceExceeds(slot->outage_logged_at, now,
										 LOG_INTERVAL_MS))
		return false;
	slot->outage_logged_at = now;
	return true;
}

/* All is well: nothing is left of the last error. */
void
broker_show_well(Ingest *ingest)
{
	SlotShared *slot = ingest->slot;

	if (slot->outage_since != 0)
		ereport(LOG,
				(errmsg("source \"%s\" goes on after %d s",
						ingest->source->name,
						(int) ((worker_clock() - slot->outage_since) /
							   USECS_PER_SEC))));
	slot->outage_since = 0;
	if (slot->error.sqlerrcode != 0)
		worker_clear_error(&slot->error);
}

/* Raise a broker's error: it ends this worker. */
void
broker_raise(Ingest *ingest, const KafkaError *error)
{
	ingest->trouble = error->class;
	ereport(ERROR,
			(errcode(error->sqlerrcode),
			 errmsg("%s", error->message),
			 error->hint[0] ? errhint("%s", error->hint) : 0));
}

/* End, to be started again at once: nothing has failed. */
void
broker_start_anew(Ingest *ingest)
{
	ingest->slot->start_anew = true;
	proc_exit(0);
}

/*
 * Has the source changed in a way that needs a new start?  In a transaction
 * of its own.
 */
bool
broker_source_changed(Ingest *ingest)
{
	SourceDef  *source;
	bool		changed;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	source = catalog_source_by_id(ingest->source->source_id, true);
	changed = source == NULL || source->paused || source->stopped_message ||
		source->owner != ingest->source->owner ||
		source->topic_incarnation != ingest->source->topic_incarnation ||
		strcmp(source->name, ingest->source->name) != 0 ||
		source->needs_key != ingest->source->needs_key ||
		source->needs_headers != ingest->source->needs_headers ||
		!equal(fdw_kafka_options(source->server_id, source->owner),
			   ingest->client_options);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return changed;
}

/*
 * Asking and waiting
 */

/* One turn of waiting; *looked is the generation looked at last. */
static void
wait_a_turn(Ingest *ingest, uint64 *looked, long timeout_ms)
{
	const KafkaError *error;

	(void) WaitLatchOrSocket(MyLatch,
							 WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT |
							 WL_EXIT_ON_PM_DEATH,
							 kafka_service_fd(ingest->client), timeout_ms,
							 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	worker_reload_config();
	worker_account();
	if (*looked != worker_catalog_generation())
	{
		*looked = worker_catalog_generation();
		if (broker_source_changed(ingest))
			broker_start_anew(ingest);
	}
	(void) kafka_service(ingest->client);
	error = kafka_last_error(ingest->client);
	if (error->class == KAFKA_TRANSIENT && error->partition < 0)
		broker_show_trouble(ingest, error->sqlerrcode, error->message);
	if (error->class == KAFKA_AUTHENTICATION || error->class == KAFKA_FATAL)
		broker_raise(ingest, error);
}

/*
 * Ask, and wait for the answer for as long as it takes; not in a transaction.
 * What comes is good, or good in part (answered > 0), or an error that asking
 * again will not mend.
 */
const KafkaAnswer *
broker_ask(Ingest *ingest, KafkaRequestKind kind, int64 time_ms)
{
	uint64		looked = ingest->generation;
	const KafkaAnswer *answer = kafka_answer(ingest->client, kind);

	Assert(!IsTransactionState());
	for (;;)
	{
		kafka_request(ingest->client, kind, ingest->npartitions, time_ms);
		(void) kafka_service(ingest->client);
		while (!answer->done)
			wait_a_turn(ingest, &looked, LOOK_MS);
		if (answer->error.class != KAFKA_TRANSIENT || answer->answered > 0)
			return answer;
		broker_show_trouble(ingest, answer->error.sqlerrcode,
							answer->error.message);
	}
}

/*
 * The same for offsets, palloc'd, by partition; -1 where the leader does not
 * answer, and then *error, if not NULL, tells of the first.  An answer that
 * is none is raised.
 */
int64 *
broker_offsets(Ingest *ingest, KafkaRequestKind kind, int64 time_ms,
			   KafkaError *error)
{
	MemoryContext caller = CurrentMemoryContext;
	const KafkaAnswer *answer = broker_ask(ingest, kind, time_ms);
	int64	   *offsets;

	if (answer->error.class != KAFKA_OK && answer->answered == 0)
		broker_raise(ingest, &answer->error);
	if (error)
		*error = answer->error;
	MemoryContextSwitchTo(caller);
	offsets = palloc(sizeof(int64) * ingest->npartitions);
	memcpy(offsets, answer->offsets, sizeof(int64) * ingest->npartitions);
	return offsets;
}

/*
 * While reading
 */

/* More partitions than at the start?  Then start anew: there is one way. */
static void
compare_partitions(Ingest *ingest, const KafkaAnswer *answer)
{
	if (!answer->done || answer->error.class != KAFKA_OK ||
		answer->partitions == ingest->npartitions)
		return;
	ereport(LOG,
			(errmsg("topic \"%s\" has %d partitions now, it had %d",
					ingest->source->topic, answer->partitions,
					ingest->npartitions)));
	broker_start_anew(ingest);
}

/*
 * Fewer partitions than there were: it is another topic, and the start will
 * say so.
 */
void
broker_look_for_partitions(Ingest *ingest, TimestampTz now)
{
	static TimestampTz asked = 0;

	compare_partitions(ingest, kafka_answer(ingest->client,
											KAFKA_REQUEST_METADATA));
	if (asked == 0)
		asked = now;
	if (TimestampDifferenceExceeds(asked, now, PARTITIONS_INTERVAL_MS))
	{
		asked = now;
		kafka_request(ingest->client, KAFKA_REQUEST_METADATA, 0, 0);
	}
}

/*
 * wait_for() asks for the end offsets: pass on the answer when it is there.
 * All that stood in Kafka may stand in partitions that are new, so these are
 * asked for, too; if there are, the next start answers.
 */
void
broker_serve_waiters(Ingest *ingest)
{
	SlotShared *slot = ingest->slot;
	const KafkaAnswer *ends = kafka_answer(ingest->client, KAFKA_REQUEST_END);
	const KafkaAnswer *partitions = kafka_answer(ingest->client,
												 KAFKA_REQUEST_METADATA);
	static uint64 asked = 0;	/* generation that is under way; 0: none */
	static TimestampTz failed_at = 0;

	if (asked != 0)
	{
		if (!ends->done || !partitions->done)
			return;
		compare_partitions(ingest, partitions);
		if (ends->error.class == KAFKA_OK &&
			partitions->error.class == KAFKA_OK)
		{
			LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
			for (int p = 0; p < ingest->npartitions; p++)
				ingest->parts[p].end_asked = ends->offsets[p];
			slot->ends_generation = asked;
			LWLockRelease(&slot->lock);
		}
		else
			failed_at = worker_clock();
		asked = 0;
	}
	if (slot->ends_asked <= slot->ends_generation ||
		!TimestampDifferenceExceeds(failed_at, worker_clock(),
									LOOK_MS))
		return;
	asked = slot->ends_asked;
	kafka_request(ingest->client, KAFKA_REQUEST_METADATA, 0, 0);
	kafka_request(ingest->client, KAFKA_REQUEST_END, ingest->npartitions, 0);
}
