/*-------------------------------------------------------------------------
 *
 * kafka.c
 *	  The Kafka client: opening, closing, and librdkafka's callbacks.
 *
 * The client uses librdkafka's legacy consumer, rd_kafka_consume_start_queue
 * and rd_kafka_consume_batch_queue: explicit offsets, no consumer group, no
 * commits.  The database owns the offsets.
 *
 * kafka_config.c makes the configuration, kafka_consume.c takes messages,
 * kafka_service.c everything else that comes, kafka_request.c has the helper
 * thread, kafka_ends.c the evidence for idleness, kafka_error.c the words.
 *
 * Threads.  librdkafka runs its own, and each client has a helper thread
 * (kafka_request.c).  None of them runs PostgreSQL code (I7).  librdkafka's
 * callbacks are called by kafka_service() and kafka_consume(), that is, on
 * the PostgreSQL thread; all the same they do no more than note down what
 * they got, with malloc, because an ERROR must not jump over librdkafka's
 * frames.  kafka_service() works through what they noted.
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
#include <sys/prctl.h>
#include <unistd.h>

#include "kafka_private.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

/* Descriptors of a client before its first broker, and of each broker. */
#define CLIENT_FDS		6
#define BROKER_FDS		3

/* How much later than asked for the client's threads may be woken. */
#define TIMER_SLACK_NS	5000000

static dlist_head open_clients = DLIST_STATIC_INIT(open_clients);
static bool exit_registered = false;

static const uint64 one = 1;	/* what eventfds are given */

/* Make an eventfd readable.  Any thread. */
void
kafka_wake(int fd)
{
	(void) !write(fd, &one, sizeof(one));
}

/* ... and no longer so. */
void
kafka_drain(int fd)
{
	uint64		count;

	(void) !read(fd, &count, sizeof(count));
}

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
	char text[	512];
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
	kafka_wake(shared->service_fd);
}

/* ----------
 * Opening and closing
 * ----------
 */

/* Tell fd.c of the descriptors of a client with so many brokers. */
void
kafka_account_fds(KafkaClient *client, int brokers)
{
	while (client->external_fds < CLIENT_FDS + BROKER_FDS * brokers)
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
	free(client->answer_offsets);
	free(client->answer_errs);
	client->answer_offsets = NULL;
	client->answer_errs = NULL;
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

/*
 * rd_kafka_new() with every signal kept away from its threads.
 *
 * Its main thread waits for its timers in whole milliseconds, rounded down,
 * and spins for the rest, once a second: most of what a quiet client costs.
 * With more slack the kernel wakes it when the timer is due.  Threads inherit
 * the slack; what comes by the network is not delayed by it.
 */
static rd_kafka_t *
new_handle(rd_kafka_conf_t *conf, char *errstr, size_t errsize)
{
	sigset_t	all;
	sigset_t	old;
	int			slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
	rd_kafka_t *rk;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	(void) prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0);
	rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, errstr, errsize);
	if (slack > 0)
		(void) prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0);
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

	conf = kafka_conf_build(config, &client->queue_limit, errstr,
							sizeof(errstr));
	if (conf != NULL)
	{
		rd_kafka_conf_set_opaque(conf, shared);
		rd_kafka_conf_set_log_cb(conf, log_cb);
		rd_kafka_conf_set_error_cb(conf, error_cb);
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
	client->npartitions = config->partitions;
	client->batch_limit = Max(config->max_message_bytes,
							  config->memory_limit);
	client->ends_interval_ms = config->ends_interval_ms;
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
		kafka_account_fds(client, 1);

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
