/*-------------------------------------------------------------------------
 *
 * kafka_ends.c
 *	  The ends of the partitions: how far is there to go, and is a partition
 *	  read to its end?
 *
 * Once an interval the leaders are asked for the end offsets of their
 * partitions (last stable ones under read_committed), by the helper thread,
 * so that nothing waits for the answer.  The answer is the evidence for
 * idleness, as of the time it was asked for: the leader is up, it says so
 * itself, and where its end is the position of the fetch, all that it has has
 * been given out.
 *
 * Nothing else is.  An end-of-partition message is sent once, and says
 * nothing after the connection is lost.  librdkafka's statistics keep the
 * fetch "active", and the end offset of the last good response, while the
 * broker answers every fetch with an error that librdkafka deals with by
 * itself, or told us of once: the leader moved, the right to read was taken
 * away, the topic is gone.  (They cost most of what an idle client costs, so
 * there are none.)
 *
 * A partition whose leader does not answer is news when that lasts.  The
 * others go on, and are read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "kafka_private.h"
#include "utils/timestamp.h"

/* Older than two intervals and this, an answer is none. */
#define ANSWER_SLACK_MS 2000

/*
 * While nothing comes there is less to ask for: what comes shows itself.  Not
 * so seldom that the evidence for idleness has gaps (WORKER_IDLE_GAP).
 */
#define QUIET_INTERVALS INT64CONST(2)

/* How long to go on asking. */
#define ENDS_TIMEOUT_MS 5000

/* So many times without an answer of a partition's leader are news. */
#define LEADER_MISSES	3

/* How many partitions to ask for: those that the owner knows of. */
static int
count_partitions(const KafkaClient *client)
{
	int			n = client->npartitions;

	for (int i = n; i < client->nparts; i++)
		if (client->parts[i].started)
			n = i + 1;
	return n;
}

long
kafka_service_due(KafkaClient *client)
{
	int64		left;

	if (client->ends_interval_ms <= 0 || count_partitions(client) == 0)
		return -1;
	if (client->ends_asked_ms == 0)
		return 0;
	left = client->ends_asked_ms - kafka_monotonic_ms() +
		client->ends_interval_ms * (client->quiet ? QUIET_INTERVALS : 1);
	return Max(left, 0);
}

/* Ask, if it is time. */
void
kafka_ask_ends(KafkaClient *client)
{
	if (kafka_service_due(client) != 0)
		return;
	client->ends_asked_ms = kafka_monotonic_ms();
	kafka_ask(client, KAFKA_JOB_ENDS, count_partitions(client), 0,
			  ENDS_TIMEOUT_MS);
}

/*
 * Say that a partition's leader cannot be reached, once that has lasted; or
 * no broker, if none has told who leads.
 */
static void
note_missing(KafkaClient *client, const KafkaJob *job, int32 partition)
{
	KafkaError	error;
	int			err = job->errs ? job->errs[partition] : job->err;

	kafka_fill_error(client, &error, err, job->errs ? partition : -1, -1,
					 kafka_job_reason(client, err));
	(void) kafka_note_error(client, &error);
}

/* The end offsets have been asked for, by whomever: what do they say? */
void
kafka_take_ends(KafkaClient *client, const KafkaJob *job, bool count_misses)
{
	TimestampTz asked_at = GetCurrentTimestamp() -
	(kafka_monotonic_ms() - job->begun_ms) * 1000;
	int32		missing = -1;
	bool		any = false;

	client->quiet = true;
	for (int i = 0; i < job->partitions; i++)
	{
		KafkaPartition *part = kafka_get_partition(client, i);

		if (job->offsets && job->offsets[i] >= 0)
		{
			part->asked_end = job->offsets[i];
			part->asked_at = asked_at;
			part->asked_ms = job->begun_ms;
			part->misses = 0;
			any = true;
			client->quiet &= part->asked_end == part->position;
			continue;
		}
		client->quiet = false;
		if (count_misses && ++part->misses >= LEADER_MISSES && missing < 0)
			missing = i;
	}

	if (job->err == RD_KAFKA_RESP_ERR_NO_ERROR)
		kafka_note_alive(client);
	else if (any && client->last_error.partition < 0 &&
			 client->last_error.class == KAFKA_TRANSIENT)
		kafka_clear_error(client);	/* not of all brokers, then */
	if (missing >= 0 && client->last_error.class == KAFKA_OK)
		note_missing(client, job, missing);
}

bool
kafka_partition_at_end(KafkaClient *client, int32 partition,
					   int64 *end_offset, TimestampTz *as_of)
{
	KafkaPartition *part;

	*end_offset = -1;
	*as_of = 0;
	if (partition < 0 || partition >= client->nparts)
		return false;
	part = &client->parts[partition];
	*end_offset = part->asked_end;
	*as_of = part->asked_at;
	if (!part->started || part->failed)
		return false;

	/* news of an outage may be younger than the answer */
	if (client->last_error.partition < 0 &&
		(client->last_error.class == KAFKA_TRANSIENT ||
		 client->last_error.class == KAFKA_AUTHENTICATION))
		return false;

	return part->asked_end >= 0 && part->asked_end == part->position &&
		(!part->troubled || part->asked_ms > part->troubled_ms) &&
		part->asked_ms >= kafka_monotonic_ms() -
		(INT64CONST(2) * client->ends_interval_ms + ANSWER_SLACK_MS);
}
