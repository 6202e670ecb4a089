/*-------------------------------------------------------------------------
 *
 * kafka.c
 *	  The Kafka client: one topic's partitions into one queue.
 *
 * The client uses librdkafka's legacy consumer, rd_kafka_consume_start_queue
 * and rd_kafka_consume_batch_queue: explicit offsets, no consumer group, no
 * commits.  The database owns the offsets.
 *
 * Threads.  librdkafka runs its own, and each client has a helper thread
 * (kafka_request.c).  None of them runs PostgreSQL code (I7).  librdkafka's
 * callbacks are called by kafka_service() and kafka_consume(), that is, on
 * the PostgreSQL thread; all the same they do no more than note down what
 * they got, with malloc, because an ERROR must not jump over librdkafka's
 * frames.  kafka_service() works through what they noted.
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
 * Ends.  A client lives in its own memory context; the context's reset
 * callback closes it, so kafka_close() deletes the context.  A process that
 * exits without that (FATAL) closes its clients by on_proc_exit: exit() with
 * librdkafka's threads running could crash in some library's exit handler,
 * and a crash restarts every backend of the server.
 *
 * No handle may be made before a fork, so none in the postmaster.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "kafka_private.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Descriptors of a client before its first broker, and of each broker. */
#define CLIENT_FDS		6
#define BROKER_FDS		3

/* How long a request goes on when nobody says. */
#define REQUEST_TIMEOUT_MS	10000

static dlist_head open_clients = DLIST_STATIC_INIT(open_clients);
static bool exit_registered = false;

static const uint64 one = 1;	/* what eventfds are given */

/* ----------
 * Callbacks: run inside rd_kafka_poll() or, error_cb for some errors of a
 * topic, rd_kafka_consume_batch_queue(); note down and return.
 * ----------
 */

static void
note_event(KafkaShared *shared, bool is_log, int code, bool fatal,
		   const char *prefix, const char *text)
{
	size_t		size = offsetof(KafkaEvent, text) + strlen(prefix) +
	strlen(text) + 1;
	KafkaEvent *event;

	pthread_mutex_lock(&shared->lock);
	if (is_log && shared->nlogs >= KAFKA_MAX_LOGS)
		shared->dropped_logs++;
	else if ((event = malloc(size)) != NULL)
	{
		event->next = NULL;
		event->is_log = is_log;
		event->code = code;
		event->fatal = fatal;
		snprintf(event->text, size - offsetof(KafkaEvent, text), "%s%s",
				 prefix, text);
		if (shared->events == NULL)
			shared->events_tail = &shared->events;
		*shared->events_tail = event;
		shared->events_tail = &event->next;
		if (is_log)
			shared->nlogs++;
	}
	pthread_mutex_unlock(&shared->lock);
}

static void
log_cb(const rd_kafka_t *rk, int level, const char *fac, const char *buf)
{
	char		prefix[64];

	snprintf(prefix, sizeof(prefix), "%s: ", fac);
	note_event(rd_kafka_opaque(rk), true, level, false, prefix, buf);
}

static void
error_cb(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
	KafkaShared *shared = opaque;
	char		text[512];
	char	   *tail;
	bool		fatal = (err == RD_KAFKA_RESP_ERR__FATAL);

	if (fatal)
		err = rd_kafka_fatal_error(rk, text, sizeof(text));
	else
	{
		/* "(after 0ms in state CONNECT, ...)" would make each time news */
		strlcpy(text, reason, sizeof(text));
		tail = strstr(text, " (after ");
		if (tail)
			*tail = '\0';
	}
	note_event(shared, false, err, fatal, "", text);

	/* kafka_service() may not be what called us */
	(void) !write(shared->service_fd, &one, sizeof(one));
}

/* Returning 1 makes the string ours; only the latest is kept. */
static int
stats_cb(rd_kafka_t *rk, char *json, size_t json_len, void *opaque)
{
	KafkaShared *shared = opaque;
	char	   *old;

	pthread_mutex_lock(&shared->lock);
	old = shared->stats;
	shared->stats = json;
	shared->stats_len = json_len;
	pthread_mutex_unlock(&shared->lock);
	if (old)
		rd_kafka_mem_free(NULL, old);
	return 1;
}

/* ----------
 * Opening and closing
 * ----------
 */

/* Tell fd.c of n descriptors that librdkafka may use. */
static void
account_fds(KafkaClient *client, int n)
{
	while (client->external_fds < n)
	{
		ReserveExternalFD();
		client->external_fds++;
	}
}

/* Memory context callback: the context is about to go.  No errors here. */
static void
close_on_reset(void *arg)
{
	KafkaClient *client = arg;

	dlist_delete(&client->node);
	kafka_release(client);
	while (client->events)
	{
		KafkaEvent *next = client->events->next;

		free(client->events);
		client->events = next;
	}
	if (client->stats)
		rd_kafka_mem_free(NULL, client->stats);
	client->stats = NULL;
	free(client->answer_offsets);
	client->answer_offsets = NULL;
	if (client->shared)
		kafka_close_shared(client->shared);
	client->shared = NULL;
	for (; client->external_fds > 0; client->external_fds--)
		ReleaseExternalFD();
}

void
kafka_close(KafkaClient *client)
{
	MemoryContextDelete(client->cxt);
}

static void
close_at_exit(int code, Datum arg)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &open_clients)
		kafka_close(dlist_container(KafkaClient, node, iter.cur));
}

/* malloc'd, zeroed, with its lock; or NULL */
static KafkaShared *
make_shared(const char *topic)
{
	KafkaShared *shared = calloc(1, sizeof(KafkaShared));
	pthread_condattr_t attr;

	if (shared == NULL)
		return NULL;
	shared->message_fd = shared->service_fd = -1;
	shared->events_tail = &shared->events;
	pthread_mutex_init(&shared->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&shared->wake, &attr);
	pthread_cond_init(&shared->done, &attr);
	pthread_condattr_destroy(&attr);
	if (topic)
		shared->topic = strdup(topic);
	return shared;
}

/* rd_kafka_new() with every signal kept away from its threads. */
static rd_kafka_t *
new_handle(rd_kafka_conf_t *conf, char *errstr, size_t errsize)
{
	sigset_t	all;
	sigset_t	old;
	rd_kafka_t *rk;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, errstr, errsize);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rk;
}

/* Make the handle; on ERROR nothing is left that the callback misses. */
static void
open_handle(KafkaClient *client, const KafkaConfig *config)
{
	KafkaShared *shared = client->shared;
	rd_kafka_conf_t *conf;
	char		errstr[512];

	conf = kafka_conf_build(config, &client->read_committed,
							&client->fetch_wait_ms, &client->queue_limit,
							errstr, sizeof(errstr));
	if (conf != NULL)
	{
		rd_kafka_conf_set_opaque(conf, shared);
		rd_kafka_conf_set_log_cb(conf, log_cb);
		rd_kafka_conf_set_error_cb(conf, error_cb);
		rd_kafka_conf_set_stats_cb(conf, stats_cb);
		shared->rk = new_handle(conf, errstr, sizeof(errstr));
		if (shared->rk == NULL)
			rd_kafka_conf_destroy(conf);
	}
	if (shared->rk == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("server \"%s\" cannot be used: %s",
						config->server_name, errstr),
				 errhint("Change the options of the server or of the user mapping.")));

	if (rd_kafka_set_log_queue(shared->rk, NULL) != RD_KAFKA_RESP_ERR_NO_ERROR)
		elog(ERROR, "could not redirect librdkafka's log");

	if (config->topic)
	{
		if (shared->topic == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("out of memory")));
		shared->rkt = rd_kafka_topic_new(shared->rk, config->topic, NULL);
		if (shared->rkt == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("topic \"%s\" cannot be used: %s", config->topic,
							rd_kafka_err2str(rd_kafka_last_error()))));
	}
}

/* Two eventfds, each told of one queue. */
static void
open_events(KafkaShared *shared)
{
	shared->message_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	shared->service_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (shared->message_fd < 0 || shared->service_fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create eventfd: %m")));

	shared->queue = rd_kafka_queue_new(shared->rk);
	shared->main_queue = rd_kafka_queue_get_main(shared->rk);
	rd_kafka_queue_io_event_enable(shared->queue, shared->message_fd,
								   &one, sizeof(one));
	rd_kafka_queue_io_event_enable(shared->main_queue, shared->service_fd,
								   &one, sizeof(one));
}

KafkaClient *
kafka_open(const KafkaConfig *config, MemoryContext cxt)
{
	MemoryContext own;
	KafkaClient *client;

	if (IsPostmasterEnvironment && !IsUnderPostmaster)
		elog(ERROR, "Kafka client opened in the postmaster");
	if (!exit_registered)
	{
		on_proc_exit(close_at_exit, 0);
		exit_registered = true;
	}

	own = AllocSetContextCreate(cxt, "weir Kafka client",
								ALLOCSET_DEFAULT_SIZES);
	client = MemoryContextAllocZero(own, sizeof(KafkaClient));
	client->cxt = own;
	client->server_name = MemoryContextStrdup(own, config->server_name);
	if (config->topic)
		client->topic = MemoryContextStrdup(own, config->topic);
	client->parse_cxt = AllocSetContextCreate(own, "weir Kafka statistics",
											  ALLOCSET_DEFAULT_SIZES);
	client->statistics_interval_ms = config->statistics_interval_ms;
	kafka_clear_error(client);

	dlist_push_tail(&open_clients, &client->node);
	client->on_reset.func = close_on_reset;
	client->on_reset.arg = client;
	MemoryContextRegisterResetCallback(own, &client->on_reset);

	PG_TRY();
	{
		if (!AcquireExternalFD())
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("could not open Kafka client: too many files are open"),
					 errhint("Raise max_files_per_process.")));
		client->external_fds = 1;
		account_fds(client, CLIENT_FDS + BROKER_FDS);

		client->shared = make_shared(config->topic);
		if (client->shared == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("out of memory")));
		client->shared->needs_nudge = rd_kafka_version() < RDKAFKA_2_2_0;
		open_handle(client, config);
		open_events(client->shared);
		if (!kafka_start_helper(client->shared))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("could not create a thread: %m")));
	}
	PG_CATCH();
	{
		kafka_close(client);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return client;
}

int
kafka_message_fd(KafkaClient *client)
{
	return client->shared->message_fd;
}

int
kafka_service_fd(KafkaClient *client)
{
	return client->shared->service_fd;
}

const char *
kafka_library_version(void)
{
	return rd_kafka_version_str();
}

/* ----------
 * Partitions
 * ----------
 */

/* The partition's entry, made when missing. */
KafkaPartition *
kafka_partition(KafkaClient *client, int32 partition)
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
			client->parts[i].stat_end = -1;
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

	part = kafka_partition(client, partition);
	memset(part, 0, sizeof(*part));
	part->started = true;
	part->position = offset;
	part->asked_end = -1;
	part->stat_end = -1;
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
	client->parts[partition].alive = false;
	client->parts[partition].unreported = KAFKA_OK;
}

/* ----------
 * Messages
 * ----------
 */

static void
drain(int fd)
{
	uint64		count;

	(void) !read(fd, &count, sizeof(count));
}

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

/* A sign of life of a partition: a record or its end. */
static void
partition_moved(KafkaClient *client, KafkaPartition *part, int32 partition,
				int64 position)
{
	part->position = position;
	part->troubled = false;
	part->leader_misses = 0;
	if (client->last_error.class != KAFKA_OK &&
		client->last_error.class <= KAFKA_AUTHORIZATION)
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
	part->troubled_at = GetCurrentTimestamp();
	kafka_fill_error(client, &error, native->err, native->partition,
					 native->offset, rd_kafka_message_errstr(native));
	if (error.class == KAFKA_TRANSIENT)
		return false;			/* if it lasts the statistics tell */
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
static void
fail_all_partitions(KafkaClient *client, KafkaErrorClass class)
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
		(void) !write(client->shared->message_fd, &one, sizeof(one));
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

	Assert(client->nnative == 0);
	size_batch(client, max);
	*messages = client->messages;

	n = report_failed(client, client->messages, max);
	if (n > 0)
	{
		*pending = true;
		return n;
	}

	drain(shared->message_fd);
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

/* ----------
 * Service: errors, logs, statistics, answers
 * ----------
 */

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
		/* Not a record's but a connection's: a response that is too large. */
		kafka_fill_error(client, &error, RD_KAFKA_RESP_ERR__TRANSPORT, -1, -1,
						 event->text);
		error.sqlerrcode = ERRCODE_PROGRAM_LIMIT_EXCEEDED;
		strlcpy(error.hint,
				"If a batch in the topic is larger, raise weir.max_message_bytes.",
				sizeof(error.hint));
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
		fail_all_partitions(client, error.class);
	return kafka_note_error(client, &error);
}

/* To the server log only: a client has no business with brokers' names. */
static void
take_log_event(KafkaClient *client, KafkaEvent *event)
{
	for (char *c = event->text; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	ereport(event->code >= 7 ? DEBUG1 : LOG_SERVER_ONLY,
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

/* Take statistics, if there are any, and parse them. */
static bool
take_stats(KafkaClient *client)
{
	KafkaShared *shared = client->shared;
	KafkaErrorClass before = client->last_error.class;
	char	   *stats;

	pthread_mutex_lock(&shared->lock);
	stats = shared->stats;
	shared->stats = NULL;
	pthread_mutex_unlock(&shared->lock);

	if (stats == NULL)
		return false;
	if (client->stats)
		rd_kafka_mem_free(NULL, client->stats);
	client->stats = stats;
	kafka_parse_stats(client);
	rd_kafka_mem_free(NULL, client->stats);
	client->stats = NULL;
	return client->last_error.class != before;
}

/* End offsets are evidence, whoever wanted them. */
static void
take_ends(KafkaClient *client, const KafkaJob *job)
{
	TimestampTz asked_at;

	if (job->offsets == NULL)
		return;
	asked_at = GetCurrentTimestamp() -
		(kafka_monotonic_ms() - job->begun_ms) * 1000;
	for (int i = 0; i < Min(job->count, client->nparts); i++)
	{
		client->parts[i].asked_end = job->offsets[i];
		client->parts[i].asked_at = asked_at;
	}
}

/* Give out an answer of the helper's. */
static void
take_answer(KafkaClient *client, KafkaRequestKind kind, const KafkaJob *job)
{
	KafkaAnswer *answer = &client->answers[kind];

	kafka_fill_error(client, &answer->error, job->err, job->err_partition, -1,
					 kafka_classify(job->err) == KAFKA_TRANSIENT ?
					 client->reason : rd_kafka_err2str(job->err));
	if (answer->error.class == KAFKA_TRANSIENT)
	{
		/* a refused login looks like an outage to requests */
		if (client->last_error.class == KAFKA_AUTHENTICATION)
			answer->error = client->last_error;
	}
	else if (answer->error.class == KAFKA_OK)
		kafka_note_alive(client);

	answer->partitions = job->count;
	strlcpy(answer->cluster_id, job->cluster_id, sizeof(answer->cluster_id));
	if (job->offsets)
	{
		if (answer->offsets)
			pfree(answer->offsets);
		answer->offsets = NULL;
		answer->offsets = MemoryContextAlloc(client->cxt,
											 sizeof(int64) * job->count);
		memcpy(answer->offsets, job->offsets, sizeof(int64) * job->count);
	}
	if (kind == KAFKA_REQUEST_METADATA)
		account_fds(client, CLIENT_FDS + BROKER_FDS * (job->brokers + 1));
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
		}
		pthread_mutex_unlock(&shared->lock);
		if (!job.ready)
			continue;

		/* the client's now, so that an ERROR does not leak it */
		free(client->answer_offsets);
		client->answer_offsets = job.offsets;
		if (kind == KAFKA_REQUEST_END || kind == KAFKA_JOB_CONFIRM)
			take_ends(client, &job);
		if (kind == KAFKA_JOB_CONFIRM)
			continue;
		take_answer(client, kind, &job);
		changed = true;
	}
	return changed;
}

bool
kafka_service(KafkaClient *client)
{
	bool		changed;

	drain(client->shared->service_fd);
	rd_kafka_poll(client->shared->rk, 0);

	/* errors first: answers use their words */
	changed = take_events(client);
	changed |= take_stats(client);
	changed |= take_answers(client);
	return changed;
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
	answer->partitions = 0;
	answer->done = true;
	return answer;
}
