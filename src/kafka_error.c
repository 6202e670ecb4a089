/*-------------------------------------------------------------------------
 *
 * kafka_error.c
 *	  What went wrong, in weir's classes and words.
 *
 * librdkafka's error codes fall into the classes of KafkaErrorClass.  Codes
 * that librdkafka deals with by itself (a leader moves, a request times out)
 * are KAFKA_TRANSIENT: nobody has to do anything, and whether it lasts is
 * seen when the end offsets are asked for (kafka_ends.c).
 *
 * The SQLSTATEs carry the class of error (errors.h): 08, 28 and 58 are
 * outages, that is, tried again; 42, 54, 55 and XX need a hand.
 *
 * Texts of librdkafka and of brokers are reduced to printable ASCII, since
 * nothing is known of their encoding and the messages are stored.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "kafka_private.h"
#include "utils/timestamp.h"

KafkaErrorClass
kafka_classify(int err)
{
	switch (err)
	{
		case RD_KAFKA_RESP_ERR_NO_ERROR:
			return KAFKA_OK;

		case RD_KAFKA_RESP_ERR__AUTHENTICATION:
		case RD_KAFKA_RESP_ERR__SSL:
		case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
		case RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE:
			return KAFKA_AUTHENTICATION;

		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
			return KAFKA_AUTHORIZATION;

		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
			return KAFKA_UNKNOWN_TOPIC;

		case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
		case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
		case WEIR_ERR__LOG_TRUNCATION:
			return KAFKA_OFFSET_GONE;

		case RD_KAFKA_RESP_ERR__BAD_MSG:
		case RD_KAFKA_RESP_ERR__BAD_COMPRESSION:
		case RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED:
		case RD_KAFKA_RESP_ERR_INVALID_MSG:
		case RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE:
		case RD_KAFKA_RESP_ERR_INVALID_RECORD:
		case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE:
			return KAFKA_CORRUPT;

		case RD_KAFKA_RESP_ERR__FATAL:
		case RD_KAFKA_RESP_ERR__DESTROY:
		case RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE:
			return KAFKA_FATAL;

		default:
			return KAFKA_TRANSIENT;
	}
}

/* Append text to error->message, as far as it fits, as printable ASCII. */
static void
append_detail(KafkaError *error, const char *detail)
{
	size_t		len = strlen(error->message);

	if (detail == NULL || detail[0] == '\0')
		return;
	if (len + 2 < sizeof(error->message))
		len = strlcat(error->message, ": ", sizeof(error->message));
	for (; *detail && len < sizeof(error->message) - 1; detail++)
		error->message[len++] =
			(*detail >= ' ' && *detail <= '~') ? *detail : '?';
	error->message[len] = '\0';
}

static void
fill_offset_gone(KafkaClient *client, KafkaError *error, const char *topic)
{
	int64		low;
	int64		high;

	/* only what librdkafka knows already: this asks nobody */
	if (client->shared &&
		rd_kafka_get_watermark_offsets(client->shared->rk, topic,
									   error->partition, &low,
									   &high) == RD_KAFKA_RESP_ERR_NO_ERROR &&
		low >= 0 && high >= low)
		snprintf(error->message, sizeof(error->message),
				 "offset %lld of %s[%d] is gone (available %lld..%lld)",
				 (long long) error->offset, topic, error->partition,
				 (long long) low, (long long) high);
	else
		snprintf(error->message, sizeof(error->message),
				 "offset %lld of %s[%d] is gone",
				 (long long) error->offset, topic, error->partition);
	strlcpy(error->hint,
			"Use weir.seek() to go on from an offset that is there.",
			sizeof(error->hint));
}

/*
 * What can be done stands in the message, since only that is kept with a
 * source that has stopped.
 */
static void
fill_corrupt(KafkaClient *client, KafkaError *error, int err,
			 const char *topic, const char *detail)
{
	if (err == RD_KAFKA_RESP_ERR__BAD_COMPRESSION)
		snprintf(error->message, sizeof(error->message),
				 "batch at offset %lld of %s[%d] cannot be decompressed: it is broken, or has more than %lld MB; then raise \"weir.ingest_memory\" or \"weir.max_message_bytes\"",
				 (long long) error->offset, topic, error->partition,
				 (long long) (client->batch_limit / (1024 * 1024)));
	else
	{
		snprintf(error->message, sizeof(error->message),
				 "record at offset %lld of %s[%d] is unreadable",
				 (long long) error->offset, topic, error->partition);
		append_detail(error, detail);
	}
	strlcpy(error->hint, "Use weir.seek() to go on behind it.",
			sizeof(error->hint));
}

/* A response was larger than can be received: so will the next one be. */
void
kafka_fill_too_large(KafkaClient *client, KafkaError *error,
					 const char *detail)
{
	memset(error, 0, sizeof(*error));
	error->class = KAFKA_CORRUPT;
	error->sqlerrcode = ERRCODE_PROGRAM_LIMIT_EXCEEDED;
	error->partition = -1;
	error->offset = -1;
	snprintf(error->message, sizeof(error->message),
			 "a batch of topic \"%s\" of server \"%s\" is too large to be received: raise \"weir.ingest_memory\" or \"weir.max_message_bytes\"",
			 client->topic ? client->topic : "", client->server_name);
	append_detail(error, detail);
	strlcpy(error->hint,
			"After that reload the configuration and call weir.resume(); or use weir.seek() to go on behind the batch.",
			sizeof(error->hint));
}

static void
fill_transient(KafkaClient *client, KafkaError *error, const char *topic,
			   const char *detail)
{
	if (error->partition >= 0)
		snprintf(error->message, sizeof(error->message),
				 "cannot reach the leader of %s[%d] of server \"%s\"",
				 topic, error->partition, client->server_name);
	else
		snprintf(error->message, sizeof(error->message),
				 "cannot reach any broker of server \"%s\"",
				 client->server_name);
	append_detail(error, detail);
	strlcpy(error->hint,
			"Check that the brokers are up and option bootstrap_servers is right; weir goes on trying.",
			sizeof(error->hint));
}

/*
 * Fill *error for a code of librdkafka's.  detail, which may be NULL, is its
 * text; partition and offset are -1 when they do not apply.
 */
void
kafka_fill_error(KafkaClient *client, KafkaError *error, int err,
				 int32 partition, int64 offset, const char *detail)
{
	const char *topic = client->topic ? client->topic : "";
	const char *server = client->server_name;

	memset(error, 0, sizeof(*error));
	error->class = kafka_classify(err);
	error->partition = partition;
	error->offset = -1;

	switch (error->class)
	{
		case KAFKA_OK:
			error->sqlerrcode = ERRCODE_SUCCESSFUL_COMPLETION;
			break;
		case KAFKA_TRANSIENT:
			error->sqlerrcode = ERRCODE_CONNECTION_FAILURE;
			fill_transient(client, error, topic, detail);
			break;
		case KAFKA_AUTHENTICATION:
			error->sqlerrcode = ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
			snprintf(error->message, sizeof(error->message),
					 "authentication failed at server \"%s\"", server);
			append_detail(error, detail);
			snprintf(error->hint, sizeof(error->hint),
					 "Check the user mapping and the options security_protocol, sasl_mechanisms and ssl_* of server \"%s\".",
					 server);
			break;
		case KAFKA_AUTHORIZATION:
			error->sqlerrcode = ERRCODE_INSUFFICIENT_PRIVILEGE;
			snprintf(error->message, sizeof(error->message),
					 "no READ on topic \"%s\" of server \"%s\"",
					 topic, server);
			strlcpy(error->hint,
					"Allow READ and DESCRIBE on the topic in Kafka; weir goes on trying.",
					sizeof(error->hint));
			break;
		case KAFKA_UNKNOWN_TOPIC:
			error->sqlerrcode = ERRCODE_UNDEFINED_OBJECT;
			if (err == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION && partition >= 0)
				snprintf(error->message, sizeof(error->message),
						 "partition %d of topic \"%s\" does not exist on server \"%s\"",
						 partition, topic, server);
			else
				snprintf(error->message, sizeof(error->message),
						 "topic \"%s\" does not exist on server \"%s\"",
						 topic, server);
			break;
		case KAFKA_OFFSET_GONE:
			error->sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
			error->offset = offset;
			fill_offset_gone(client, error, topic);
			break;
		case KAFKA_CORRUPT:
			error->sqlerrcode = ERRCODE_DATA_CORRUPTED;
			error->offset = offset;
			fill_corrupt(client, error, err, topic, detail);
			break;
		case KAFKA_FATAL:
			error->sqlerrcode = ERRCODE_SYSTEM_ERROR;
			snprintf(error->message, sizeof(error->message),
					 "the Kafka client of server \"%s\" failed", server);
			append_detail(error, detail);
			break;
	}
}

/*
 * Make *error the last error, unless the present one says more: an outage
 * follows from a refused login, and a partition that stopped stays the news
 * until it is started again.  Returns true when the last error changed.
 */
bool
kafka_note_error(KafkaClient *client, const KafkaError *error)
{
	KafkaError *last = &client->last_error;

	if (error->class == KAFKA_OK ||
		(error->class == KAFKA_TRANSIENT && last->class > KAFKA_TRANSIENT) ||
		(last->class == KAFKA_FATAL))
		return false;
	if (last->class == error->class && last->partition == error->partition &&
		strcmp(last->message, error->message) == 0)
		return false;
	*last = *error;
	return true;
}

/* Brokers answer: forget an outage or a refused login. */
void
kafka_note_alive(KafkaClient *client)
{
	if (client->last_error.class == KAFKA_TRANSIENT ||
		client->last_error.class == KAFKA_AUTHENTICATION)
		kafka_clear_error(client);
	client->reason[0] = '\0';
}

const KafkaError *
kafka_last_error(KafkaClient *client)
{
	return &client->last_error;
}

void
kafka_clear_error(KafkaClient *client)
{
	memset(&client->last_error, 0, sizeof(client->last_error));
	client->last_error.partition = -1;
	client->last_error.offset = -1;
}
