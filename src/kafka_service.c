/*-------------------------------------------------------------------------
 *
 * kafka_service.c
 *	  The Kafka client: all that is no message.
 *
 * kafka_service() lets librdkafka call its callbacks, and then works through
 * what they and the helper thread have left in KafkaShared: errors, log
 * lines, answers.  Each is moved to the client before anything is
 * done that could raise an ERROR, so that none leaks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "kafka_private.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* How long a request goes on when nobody says. */
#define REQUEST_TIMEOUT_MS	10000

/* So many responses that are too large, at most so long apart, are enough. */
#define TOO_LARGE_TIMES		3
#define TOO_LARGE_WITHIN_MS	60000

static bool
take_error_event(KafkaClient *client, const KafkaEvent *event)
{
	KafkaErrorClass class = kafka_classify(event->code);
	KafkaError	error;

	if (event->fatal)
		kafka_fill_error(client, &error, RD_KAFKA_RESP_ERR__FATAL, -1, -1,
						 event->text);
	else if (class == KAFKA_CORRUPT)
	{
		/*
		 * Not a record's but a connection's: a response that is too large, or
		 * none of Kafka's.  It will not come another time, either, but one
		 * may have been garbled.
		 */
		int64		now = kafka_monotonic_ms();

		if (now - client->too_large_ms > TOO_LARGE_WITHIN_MS)
			client->too_large = 0;
		client->too_large_ms = now;
		strlcpy(client->reason, event->text, sizeof(client->reason));
		if (++client->too_large < TOO_LARGE_TIMES)
			return false;
		kafka_fill_too_large(client, &error, event->text);
		kafka_fail_partitions(client, KAFKA_CORRUPT);
	}
	else if (class == KAFKA_TRANSIENT)
	{
		/*
		 * One broker's trouble is no news by itself (an idle connection is
		 * closed by the broker); keep the words for when it is.
		 */
		if (event->code != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
		{
			strlcpy(client->reason, event->text, sizeof(client->reason));
			if (client->last_error.class != KAFKA_TRANSIENT ||
				client->last_error.partition >= 0)
				return false;
		}
		kafka_fill_error(client, &error, event->code, -1, -1, client->reason);
	}
	else
		kafka_fill_error(client, &error, event->code, -1, -1, event->text);
	if (error.class == KAFKA_UNKNOWN_TOPIC || error.class == KAFKA_FATAL)
		kafka_fail_partitions(client, error.class);
	return kafka_note_error(client, &error);
}

/*
 * To the server log only: a client has no business with brokers' names.  What
 * failed comes as an error, too, and is told, and logged, by who owns the
 * client: librdkafka says it with each attempt.
 */
static void
take_log_event(KafkaClient *client, KafkaEvent *event)
{
	bool		told = strncmp(event->text, "FAIL:", 5) == 0 ||
	strncmp(event->text, "ERROR:", 6) == 0;

	for (char *c = event->text; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	ereport(event->code >= 7 || told ? DEBUG1 : LOG_SERVER_ONLY,
			(errmsg("Kafka server \"%s\": %s", client->server_name,
					event->text),
			 errhidestmt(true), errhidecontext(true)));
}

/* Work through what the callbacks noted. */
static bool
take_events(KafkaClient *client)
{
	KafkaShared *shared = client->shared;
	KafkaEvent **tail = &client->events;
	bool		changed = false;
	int			dropped;

	/* whatever an ERROR left the last time comes first */
	while (*tail)
		tail = &(*tail)->next;
	pthread_mutex_lock(&shared->lock);
	*tail = shared->events;
	shared->events = NULL;
	shared->nlogs = 0;
	dropped = shared->dropped_logs;
	shared->dropped_logs = 0;
	pthread_mutex_unlock(&shared->lock);

	while (client->events)
	{
		KafkaEvent *event = client->events;

		if (event->is_log)
			take_log_event(client, event);
		else
			changed |= take_error_event(client, event);
		client->events = event->next;
		free(event);
	}
	if (dropped > 0)
		ereport(LOG_SERVER_ONLY,
				(errmsg("Kafka server \"%s\": %d more log lines were dropped",
						client->server_name, dropped),
				 errhidestmt(true), errhidecontext(true)));
	return changed;
}

/* What is said of an error of a request: the broker's words, or the latest. */
const char *
kafka_job_reason(const KafkaClient *client, int err)
{
	if (kafka_classify(err) == KAFKA_TRANSIENT && err < 0 &&
		client->reason[0] != '\0')
		return client->reason;
	return rd_kafka_err2str(err);
}

/* Give out an answer of the helper's. */
static void
take_answer(KafkaClient *client, KafkaRequestKind kind, const KafkaJob *job)
{
	KafkaAnswer *answer = &client->answers[kind];

	kafka_fill_error(client, &answer->error, job->err, job->err_partition, -1,
					 kafka_job_reason(client, job->err));
	if (answer->error.class == KAFKA_TRANSIENT)
	{
		/* a refused login looks like an outage to requests */
		if (client->last_error.class == KAFKA_AUTHENTICATION)
			answer->error = client->last_error;
	}
	else if (answer->error.class == KAFKA_OK)
		kafka_note_alive(client);

	answer->partitions = job->count;
	answer->answered = 0;
	strlcpy(answer->cluster_id, job->cluster_id, sizeof(answer->cluster_id));
	if (job->offsets)
	{
		if (answer->offsets)
			pfree(answer->offsets);
		answer->offsets = NULL;
		answer->offsets = MemoryContextAlloc(client->cxt,
											 sizeof(int64) * job->count);
		memcpy(answer->offsets, job->offsets, sizeof(int64) * job->count);
		for (int i = 0; i < job->count; i++)
			answer->answered += answer->offsets[i] >= 0;
	}
	if (kind == KAFKA_REQUEST_METADATA)
		kafka_account_fds(client, job->brokers + 1);
	answer->done = true;
}

static bool
take_answers(KafkaClient *client)
{
	KafkaShared *shared = client->shared;
	bool		changed = false;

	for (int kind = 0; kind < KAFKA_JOBS; kind++)
	{
		KafkaJob	job;

		pthread_mutex_lock(&shared->lock);
		job = shared->jobs[kind];
		if (job.ready)
		{
			shared->jobs[kind].ready = false;
			shared->jobs[kind].offsets = NULL;
			shared->jobs[kind].errs = NULL;
		}
		pthread_mutex_unlock(&shared->lock);
		if (!job.ready)
			continue;

		/* the client's now, so that an ERROR does not leak it */
		free(client->answer_offsets);
		free(client->answer_errs);
		client->answer_offsets = job.offsets;
		client->answer_errs = job.errs;

		/* end offsets are evidence, whoever wanted them */
		if (kind == KAFKA_REQUEST_END || kind == KAFKA_JOB_ENDS)
			kafka_take_ends(client, &job, kind == KAFKA_JOB_ENDS);
		if (kind < KAFKA_REQUEST_KINDS)
			take_answer(client, kind, &job);
		changed = true;
	}
	return changed;
}

bool
kafka_service(KafkaClient *client)
{
	bool		changed;

	kafka_drain(client->shared->service_fd);
	rd_kafka_poll(client->shared->rk, 0);

	/* errors first: answers use their words */
	changed = take_events(client);
	changed |= take_answers(client);
	kafka_ask_ends(client);
	return changed;
}

/*
 * librdkafka tells the queue's length but not its bytes, which are estimated
 * by the mean size of the messages just taken.
 */
int64
kafka_queue_bytes(KafkaClient *client)
{
	return (int64) rd_kafka_queue_length(client->shared->queue) *
		client->average_bytes;
}

/* ----------
 * Requests
 * ----------
 */

void
kafka_request(KafkaClient *client, KafkaRequestKind kind, int partitions,
			  int64 time_ms)
{
	kafka_ask(client, kind, partitions, time_ms, REQUEST_TIMEOUT_MS);
	client->answers[kind].done = false;
}

const KafkaAnswer *
kafka_answer(KafkaClient *client, KafkaRequestKind kind)
{
	return &client->answers[kind];
}

const KafkaAnswer *
kafka_request_wait(KafkaClient *client, KafkaRequestKind kind, int partitions,
				   int64 time_ms, int timeout_ms)
{
	KafkaAnswer *answer = &client->answers[kind];
	int64		deadline = kafka_monotonic_ms() + timeout_ms;

	kafka_ask(client, kind, partitions, time_ms, timeout_ms);
	answer->done = false;
	for (;;)
	{
		int64		left;

		kafka_service(client);
		if (answer->done)
			return answer;
		left = deadline - kafka_monotonic_ms();
		if (left <= 0 || client->last_error.class == KAFKA_AUTHENTICATION ||
			client->last_error.class == KAFKA_FATAL)
			break;
		(void) WaitLatchOrSocket(MyLatch,
								 WL_LATCH_SET | WL_SOCKET_READABLE |
								 WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
								 client->shared->service_fd, left,
								 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}

	if (client->last_error.class == KAFKA_AUTHENTICATION ||
		client->last_error.class == KAFKA_FATAL)
		answer->error = client->last_error;
	else
		kafka_fill_error(client, &answer->error, RD_KAFKA_RESP_ERR__TIMED_OUT,
						 -1, -1, client->reason);
	answer->partitions = answer->answered = 0;
	answer->done = true;
	return answer;
}
