/*-------------------------------------------------------------------------
 *
 * producer.c
 *	  A producer to one topic, shared by produce and gen.
 *
 * Tuned for filling a topic fast: batches of up to a megabyte, a linger
 * time of 20 ms and a long queue.  A caller that has nothing more to send
 * for now calls producer_flush, which sends at once what lingers.
 *
 * The producer is idempotent, so a broker that goes away for a while makes
 * neither duplicates nor changes of order; a test may count on each line
 * being in the topic exactly once.  Whatever is not delivered ends the
 * program: callers need not look at results.
 *
 * The owner of the Producer is the one thread that calls these functions.
 * Callbacks run in that thread too, from within rd_kafka_poll.
 *
 *-------------------------------------------------------------------------
 */
#include "producer.h"

#include <stdlib.h>
#include <string.h>

/* records between two looks at the delivery reports */
#define POLL_INTERVAL 1000

/* how long requests that the broker must answer may take */
#define REQUEST_TIMEOUT_MS 60000

struct Producer
{
	rd_kafka_t *rk;
	rd_kafka_topic_t *rkt;
	const char *topic;			/* its name, owned by the caller of open */
	bool		aborting;		/* purged records are no failure now */
	uint32_t	since_poll;		/* records sent since the last poll */
};

/* keeps "name=value" in the options; the pair stays the caller's */
void
producer_add_property(ProducerOptions *options, char *pair)
{
	char	  **props = realloc(options->props,
								(options->n_props + 1) * sizeof(char *));

	if (props == NULL)
		die("out of memory");
	props[options->n_props++] = pair;
	options->props = props;
}

static void
delivery_cb(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
	Producer   *producer = opaque;

	(void) rk;
	if (!message->err)
		return;
	if (producer->aborting &&
		(message->err == RD_KAFKA_RESP_ERR__PURGE_QUEUE ||
		 message->err == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT))
		return;
	die("could not deliver to %s[%d]: %s (%s)", producer->topic,
		(int) message->partition, rd_kafka_err2str(message->err),
		kafka_last_error());
}

/* dies with the text of the error, if there is one; frees it */
static void
check_error(const char *what, rd_kafka_error_t *error)
{
	if (error != NULL)
		die("could not %s: %s", what, rd_kafka_error_string(error));
}

/* the result is freed by producer_close; options must live until then */
Producer *
producer_open(const ProducerOptions *options)
{
	Producer   *producer = xcalloc(1, sizeof(Producer));
	rd_kafka_conf_t *conf;

	if (options->bootstrap == NULL || options->topic == NULL)
		die("--bootstrap and --topic are needed");

	conf = kafka_conf_new(options->bootstrap);
	kafka_conf_set(conf, "linger.ms",
				   options->linger_ms ? options->linger_ms : "20");
	kafka_conf_set(conf, "batch.size", "1000000");
	kafka_conf_set(conf, "batch.num.messages", "100000");
	kafka_conf_set(conf, "message.max.bytes", "134217728");
	kafka_conf_set(conf, "queue.buffering.max.messages", "100000");
	kafka_conf_set(conf, "queue.buffering.max.kbytes", "524288");
	kafka_conf_set(conf, "enable.idempotence", "true");
	kafka_conf_set(conf, "retry.backoff.ms", "20");
	kafka_conf_set(conf, "delivery.report.only.error", "true");
	kafka_conf_set(conf, "partitioner", "murmur2_random");
	if (options->codec != NULL)
		kafka_conf_set(conf, "compression.codec", options->codec);
	if (options->transactional_id != NULL)
		kafka_conf_set(conf, "transactional.id", options->transactional_id);
	for (int i = 0; i < options->n_props; i++)
		kafka_conf_set_pair(conf, options->props[i]);
	rd_kafka_conf_set_dr_msg_cb(conf, delivery_cb);
	rd_kafka_conf_set_opaque(conf, producer);

	producer->topic = options->topic;
	producer->rk = kafka_new(RD_KAFKA_PRODUCER, conf);
	producer->rkt = rd_kafka_topic_new(producer->rk, options->topic, NULL);
	if (producer->rkt == NULL)
		die("could not open topic \"%s\": %s", options->topic,
			rd_kafka_err2str(rd_kafka_last_error()));
	if (options->transactional_id != NULL)
		check_error("initialize transactions",
					rd_kafka_init_transactions(producer->rk,
											   REQUEST_TIMEOUT_MS));
	return producer;
}

/*
 * The number of partitions of the topic.  Waits until the topic is there,
 * since it may just have been created, or is being created by our question.
 */
int
producer_partitions(Producer *producer)
{
	int64_t		deadline = monotonic_us() + REQUEST_TIMEOUT_MS * 1000LL;
	rd_kafka_resp_err_t err;

	do
	{
		const struct rd_kafka_metadata *md = NULL;
		int			count = 0;

		err = rd_kafka_metadata(producer->rk, 0, producer->rkt, &md, 1000);
		if (!err)
		{
			if (md->topic_cnt == 1)
			{
				err = md->topics[0].err;
				count = md->topics[0].partition_cnt;
			}
			rd_kafka_metadata_destroy(md);
			if (!err && count > 0)
				return count;
			if (err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ||
				err == RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION)
				break;			/* waiting would not help */
		}
		rd_kafka_poll(producer->rk, 10);
	} while (monotonic_us() < deadline);

	die("could not see topic \"%s\": %s (%s)", producer->topic,
		rd_kafka_err2str(err), kafka_last_error());
}

/* queues a record; waits while the queue is full */
void
producer_send(Producer *producer, const Record *record)
{
	if (++producer->since_poll >= POLL_INTERVAL)
		producer_poll(producer);

	for (;;)
	{
		rd_kafka_resp_err_t err;

		if (record->headers == NULL && record->timestamp_ms == TIMESTAMP_NOW)
		{
			/* the quick way */
			err = RD_KAFKA_RESP_ERR_NO_ERROR;
			if (rd_kafka_produce(producer->rkt, record->partition,
								 RD_KAFKA_MSG_F_COPY,
								 (void *) record->payload,
								 record->payload_len, record->key,
								 record->key_len, NULL) != 0)
				err = rd_kafka_last_error();
		}
		else
		{
			rd_kafka_headers_t *headers = NULL;

			if (record->headers != NULL)
			{
				headers = rd_kafka_headers_copy(record->headers);
				if (headers == NULL)
					die("out of memory");
			}
			else
				headers = rd_kafka_headers_new(0);

			/* takes the headers if it succeeds */
			err = rd_kafka_producev(producer->rk,
									RD_KAFKA_V_RKT(producer->rkt),
									RD_KAFKA_V_PARTITION(record->partition),
									RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
									RD_KAFKA_V_KEY(record->key,
												   record->key_len),
									RD_KAFKA_V_VALUE((void *) record->payload,
													 record->payload_len),
									RD_KAFKA_V_TIMESTAMP(record->timestamp_ms),
									RD_KAFKA_V_HEADERS(headers),
									RD_KAFKA_V_END);
			if (err)
				rd_kafka_headers_destroy(headers);
		}
		if (!err)
			return;
		if (err != RD_KAFKA_RESP_ERR__QUEUE_FULL)
			die("could not produce to %s[%d]: %s", producer->topic,
				(int) record->partition, rd_kafka_err2str(err));
		rd_kafka_poll(producer->rk, 10);
	}
}

/* serves delivery reports and errors */
void
producer_poll(Producer *producer)
{
	producer->since_poll = 0;
	rd_kafka_poll(producer->rk, 0);
}

/*
 * Sends what is queued without waiting for the linger time.  True when all
 * is delivered, false when that takes longer than the timeout.
 */
bool
producer_flush(Producer *producer, int timeout_ms)
{
	return rd_kafka_flush(producer->rk, timeout_ms) ==
		RD_KAFKA_RESP_ERR_NO_ERROR;
}

void
producer_begin(Producer *producer)
{
	check_error("begin a transaction",
				rd_kafka_begin_transaction(producer->rk));
}

/*
 * Ends the transaction.  One that is aborted is delivered first, so that
 * its records do stand in the topic for read_committed to pass over.
 */
void
producer_end(Producer *producer, bool commit)
{
	rd_kafka_error_t *error;

	while (!producer_flush(producer, 1000))
		;
	for (;;)
	{
		producer->aborting = !commit;
		error = commit ?
			rd_kafka_commit_transaction(producer->rk, REQUEST_TIMEOUT_MS) :
			rd_kafka_abort_transaction(producer->rk, REQUEST_TIMEOUT_MS);
		producer->aborting = false;
		if (error == NULL || !rd_kafka_error_is_retriable(error))
			break;
		rd_kafka_error_destroy(error);
	}
	check_error(commit ? "commit" : "abort", error);
}

/* waits for all deliveries; message.timeout.ms bounds that */
void
producer_close(Producer *producer)
{
	while (!producer_flush(producer, 1000))
		;
	rd_kafka_topic_destroy(producer->rkt);
	rd_kafka_destroy(producer->rk);
	free(producer);
}
