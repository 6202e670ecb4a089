/*-------------------------------------------------------------------------
 *
 * kafka_consume.c
 *	  The Kafka client: partitions and their messages.
 *
 * Wake-ups.  librdkafka writes to an eventfd when a queue that was read since
 * the last write gets something new.  Therefore: drain the eventfd, then read
 * the queue, and sleep only after a short batch.
 *
 * Messages.  A payload points into the response it came in, and one message
 * keeps the whole response: decode and release soon.  Errors come as messages
 * too.  Those that librdkafka deals with by itself are swallowed; those after
 * which a partition must not go on become KAFKA_PARTITION_ERROR, and nothing
 * more of that partition is given out until kafka_start(), whatever
 * librdkafka delivers (I2).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "kafka_private.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* ----------
 * Partitions
 * ----------
 */

/* The partition's entry, made when missing. */
KafkaPartition *
kafka_get_partition(KafkaClient *client, int32 partition)
{
	if (partition >= client->nparts)
	{
		int			n = Max(partition + 1, client->nparts * 2);

		if (client->parts == NULL)
			client->parts = MemoryContextAlloc(client->cxt,
											   sizeof(KafkaPartition) * n);
		else
			client->parts = repalloc(client->parts,
									 sizeof(KafkaPartition) * n);
		memset(client->parts + client->nparts, 0,
			   sizeof(KafkaPartition) * (n - client->nparts));
		for (int i = client->nparts; i < n; i++)
		{
			client->parts[i].position = -1;
			client->parts[i].asked_end = -1;
		}
		client->nparts = n;
	}
	return &client->parts[partition];
}

/* Keep the helper's list of partitions being fetched. */
static void
list_started(KafkaShared *shared, int32 partition, bool add)
{
	bool		ok = true;

	pthread_mutex_lock(&shared->lock);
	if (add)
	{
		if (shared->nstarted == shared->started_size)
		{
			int			size = Max(16, shared->started_size * 2);
			int32	   *started = realloc(shared->started,
										  sizeof(int32) * size);

			ok = (started != NULL);
			if (ok)
			{
				shared->started = started;
				shared->started_size = size;
			}
		}
		if (ok)
			shared->started[shared->nstarted++] = partition;
	}
	else
	{
		for (int i = 0; i < shared->nstarted; i++)
			if (shared->started[i] == partition)
				shared->started[i--] = shared->started[--shared->nstarted];
	}
	pthread_mutex_unlock(&shared->lock);
	if (!ok)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
}

void
kafka_start(KafkaClient *client, int32 partition, int64 offset)
{
	KafkaShared *shared = client->shared;
	KafkaPartition *part;

	Assert(shared->rkt != NULL && partition >= 0 && offset >= 0);
	kafka_stop(client, partition);

	list_started(shared, partition, true);
	if (rd_kafka_consume_start_queue(shared->rkt, partition, offset,
									 shared->queue) == -1)
	{
		rd_kafka_resp_err_t err = rd_kafka_last_error();

		list_started(shared, partition, false);
		elog(ERROR, "could not start partition %d of topic \"%s\": %s",
			 partition, client->topic, rd_kafka_err2str(err));
	}

	part = kafka_get_partition(client, partition);
	memset(part, 0, sizeof(*part));
	part->started = true;
	part->position = offset;
	part->asked_end = -1;
	if (client->last_error.partition == partition ||
		client->last_error.class == KAFKA_UNKNOWN_TOPIC)
		kafka_clear_error(client);
}

void
kafka_stop(KafkaClient *client, int32 partition)
{
	if (partition < 0 || partition >= client->nparts ||
		!client->parts[partition].started)
		return;
	/* waits for librdkafka's main thread, which waits for nobody */
	(void) rd_kafka_consume_stop(client->shared->rkt, partition);
	list_started(client->shared, partition, false);
	client->parts[partition].started = false;
	client->parts[partition].unreported = KAFKA_OK;
}

/* ----------
 * Messages
 * ----------
 */

/* Room for a batch; may ERROR, so before any message is taken. */
static void
size_batch(KafkaClient *client, int max)
{
	if (max <= client->batch_size)
		return;
	if (client->native)
		pfree(client->native);
	if (client->messages)
		pfree(client->messages);
	client->native = NULL;
	client->messages = NULL;
	client->batch_size = 0;
	client->native = MemoryContextAlloc(client->cxt,
										sizeof(rd_kafka_message_t *) * max);
	client->messages = MemoryContextAlloc(client->cxt,
										  sizeof(KafkaMessage) * max);
	client->batch_size = max;
}

/*
 * A sign of life of a partition: a record or its end.  It says nothing of
 * another partition's leader.
 */
static void
partition_moved(KafkaClient *client, KafkaPartition *part, int32 partition,
				int64 position)
{
	part->position = position;
	part->troubled = false;
	part->misses = 0;
	client->quiet = false;
	if (client->last_error.class != KAFKA_OK &&
		client->last_error.class <= KAFKA_AUTHORIZATION &&
		(client->last_error.class != KAFKA_TRANSIENT ||
		 client->last_error.partition < 0 ||
		 client->last_error.partition == partition))
		kafka_clear_error(client);
}

/*
 * An error in a message's place.  Returns true when it is to be given out.
 */
static bool
take_error(KafkaClient *client, KafkaPartition *part,
		   const rd_kafka_message_t *native, KafkaMessage *message)
{
	KafkaError	error;

	part->troubled = true;
	part->troubled_ms = kafka_monotonic_ms();
	kafka_fill_error(client, &error, native->err, native->partition,
					 native->offset, rd_kafka_message_errstr(native));
	if (error.class == KAFKA_TRANSIENT)
		return false;			/* if it lasts kafka_ends.c tells */
	kafka_note_error(client, &error);
	if (error.class < KAFKA_UNKNOWN_TOPIC)
		return false;			/* librdkafka goes on trying */

	part->failed = true;
	message->kind = KAFKA_PARTITION_ERROR;
	message->error = error.class;
	return true;
}

/*
 * Turn one of librdkafka's messages into ours.  Returns false when it is not
 * to be given out.
 */
static bool
take_message(KafkaClient *client, rd_kafka_message_t *native,
			 KafkaMessage *message)
{
	KafkaPartition *part;

	if (native->partition < 0 || native->partition >= client->nparts)
		return false;
	part = &client->parts[native->partition];
	if (!part->started || part->failed)
		return false;

	message->kind = KAFKA_RECORD;
	message->partition = native->partition;
	message->offset = native->offset;
	message->timestamp_ms = -1;
	message->payload = NULL;
	message->payload_len = 0;
	message->key = NULL;
	message->key_len = 0;
	message->error = KAFKA_OK;
	message->native = native;

	if (likely(native->err == RD_KAFKA_RESP_ERR_NO_ERROR))
	{
		rd_kafka_timestamp_type_t type;

		message->timestamp_ms = rd_kafka_message_timestamp(native, &type);
		if (type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
			message->timestamp_ms = -1;
		message->payload = native->payload;
		message->payload_len = native->len;
		message->key = native->key;
		message->key_len = native->key_len;
		partition_moved(client, part, native->partition, native->offset + 1);
		return true;
	}
	if (native->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
	{
		message->kind = KAFKA_PARTITION_EOF;
		partition_moved(client, part, native->partition, native->offset);
		return true;
	}
	return take_error(client, part, native, message);
}

/*
 * The topic is gone, says a broker.  It may be wrong about that (it has just
 * started), and the topic may be back at once, as another one: so every
 * partition stops here, and the owner of the client finds out which it is.
 */
void
kafka_fail_partitions(KafkaClient *client, KafkaErrorClass class)
{
	for (int i = 0; i < client->nparts; i++)
	{
		KafkaPartition *part = &client->parts[i];

		if (!part->started || part->failed)
			continue;
		part->failed = true;
		part->unreported = class;
		client->nunreported++;
	}
	/* kafka_consume() has something to give out */
	if (client->nunreported > 0)
		kafka_wake(client->shared->message_fd);
}

/* Give out up to max errors that came from no message. */
static int
report_failed(KafkaClient *client, KafkaMessage *messages, int max)
{
	int			n = 0;

	if (likely(client->nunreported == 0))
		return 0;
	client->nunreported = 0;
	for (int i = 0; i < client->nparts; i++)
	{
		KafkaPartition *part = &client->parts[i];

		if (part->unreported == KAFKA_OK)
			continue;
		if (n == max)
		{
			client->nunreported++;
			continue;
		}
		memset(&messages[n], 0, sizeof(KafkaMessage));
		messages[n].kind = KAFKA_PARTITION_ERROR;
		messages[n].partition = i;
		messages[n].offset = part->position;
		messages[n].timestamp_ms = -1;
		messages[n].error = part->unreported;
		part->unreported = KAFKA_OK;
		n++;
	}
	return n;
}

int
kafka_consume(KafkaClient *client, KafkaMessage **messages, int max,
			  bool *pending)
{
	KafkaShared *shared = client->shared;
	int64		bytes = 0;
	ssize_t		taken;
	int			n;

	/* the caller's duty, but an ERROR may have come in between */
	kafka_release(client);
	size_batch(client, max);
	*messages = client->messages;

	n = report_failed(client, client->messages, max);
	if (n > 0)
	{
		*pending = true;
		return n;
	}

	kafka_drain(shared->message_fd);
	/* 0: a timeout would be spent on filling the batch */
	taken = rd_kafka_consume_batch_queue(shared->queue, 0, client->native,
										 max);
	taken = Max(taken, 0);
	client->nnative = taken;
	for (int i = 0; i < taken; i++)
	{
		rd_kafka_message_t *native = client->native[i];

		if (take_message(client, native, &client->messages[n]))
		{
			bytes += native->len;
			n++;
		}
	}
	if (n > 0)
		client->average_bytes = bytes / n;
	kafka_note_fetch(client, taken);

	*pending = (taken == max);
	return n;
}

void
kafka_release(KafkaClient *client)
{
	for (int i = 0; i < client->nnative; i++)
		rd_kafka_message_destroy(client->native[i]);
	client->nnative = 0;
}

int
kafka_message_headers(const KafkaMessage *message, KafkaHeader **headers)
{
	rd_kafka_headers_t *native;
	int			n;

	*headers = NULL;
	if (message->kind != KAFKA_RECORD ||
		rd_kafka_message_headers(message->native, &native) !=
		RD_KAFKA_RESP_ERR_NO_ERROR)
		return 0;
	n = (int) rd_kafka_header_cnt(native);
	if (n == 0)
		return 0;
	*headers = palloc(sizeof(KafkaHeader) * n);
	for (int i = 0; i < n; i++)
		if (rd_kafka_header_get_all(native, i, &(*headers)[i].key,
									&(*headers)[i].value,
									&(*headers)[i].value_len) !=
			RD_KAFKA_RESP_ERR_NO_ERROR)
			return i;
	return n;
}
