/*-------------------------------------------------------------------------
 *
 * raw.c
 *	  What librdkafka alone takes to read a topic: the floor of an ingest.
 *
 *	raw BOOTSTRAP TOPIC PARTITIONS [--event] [--batch N] [-X NAME=VALUE]...
 *
 * Reads every partition from its beginning to its end as weir's client does:
 * the legacy consumer, explicit offsets, all partitions forwarded into one
 * queue, batches taken from it, a byte of each payload looked at, every
 * message destroyed.  The properties are those of weir's kafka_config.c, but
 * for the queue's limit, which is large, so that a librdkafka that stalls
 * when its queue is full does not.
 *
 * By default a call waits for a whole batch, 50 ms at most, which is the
 * cheapest way.  With --event it waits for an eventfd and takes what is there, as a
 * program must that has to wait for other things too; the difference is the
 * price of the wake-ups.
 *
 * Prints one line: messages, bytes, wall seconds, user seconds, system
 * seconds, calls that brought something.  The seconds are the process's, of
 * all threads, from its start to the last message; freeing is left out.
 *
 *-------------------------------------------------------------------------
 */
#include <getopt.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <librdkafka/rdkafka.h>

/* longest silence that is not an error */
#define PATIENCE_MS 30000

/* how long a call waits for a whole batch */
#define FILL_MS 50

static const char *const properties[][2] = {
	{"isolation.level", "read_committed"},
	{"fetch.wait.max.ms", "100"},
	{"fetch.error.backoff.ms", "100"},
	{"check.crcs", "true"},
	{"enable.auto.commit", "false"},
	{"enable.auto.offset.store", "false"},
	{"auto.offset.reset", "error"},
	{"enable.partition.eof", "true"},
	{"allow.auto.create.topics", "false"},
	{"fetch.message.max.bytes", "262144"},
	{"fetch.max.bytes", "16777216"},
	{"queued.min.messages", "10000000"},
	{"queued.max.messages.kbytes", "1048576"},
	{NULL, NULL}
};

static double
seconds(const struct timeval *tv)
{
	return tv->tv_sec + tv->tv_usec / 1e6;
}

static double
monotonic(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "raw: %s: %s\n", what, why);
	exit(1);
}

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		errstr[256];

	if (rd_kafka_conf_set(conf, name, value, errstr,
						  sizeof(errstr)) != RD_KAFKA_CONF_OK)
		die(name, errstr);
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{"event", no_argument, NULL, 'e'},
		{"batch", required_argument, NULL, 'b'},
		{NULL, 0, NULL, 0}
	};
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	rd_kafka_topic_t *rkt;
	rd_kafka_queue_t *queue;
	rd_kafka_message_t **messages;
	struct rusage usage;
	char		errstr[256];
	double		started = monotonic();
	bool		by_event = false;
	int			batch = 4000;
	int			partitions;
	int			ended = 0;
	int			fd;
	int			c;
	int64_t		n_messages = 0;
	int64_t		n_bytes = 0;
	int64_t		n_calls = 0;
	unsigned	touched = 0;

	for (int i = 0; properties[i][0]; i++)
		set(conf, properties[i][0], properties[i][1]);
	while ((c = getopt_long(argc, argv, "X:", options, NULL)) != -1)
	{
		char	   *value;

		switch (c)
		{
			case 'e':
				by_event = true;
				break;
			case 'b':
				batch = atoi(optarg);
				break;
			case 'X':
				value = strchr(optarg, '=');
				if (value == NULL)
					die(optarg, "not NAME=VALUE");
				*value++ = '\0';
				set(conf, optarg, value);
				break;
			default:
				return 2;
		}
	}
	if (argc - optind != 3 || batch < 1)
		die("usage", "raw BOOTSTRAP TOPIC PARTITIONS [--event] [--batch N] "
			"[-X NAME=VALUE]...");
	set(conf, "bootstrap.servers", argv[optind]);
	partitions = atoi(argv[optind + 2]);

	rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, errstr, sizeof(errstr));
	if (rk == NULL)
		die("could not make a consumer", errstr);
	rkt = rd_kafka_topic_new(rk, argv[optind + 1], NULL);
	queue = rd_kafka_queue_new(rk);
	fd = eventfd(0, EFD_NONBLOCK);
	if (by_event)
	{
		static const uint64_t one = 1;

		rd_kafka_queue_io_event_enable(queue, fd, &one, sizeof(one));
	}
	messages = calloc(batch, sizeof(*messages));
	if (rkt == NULL || queue == NULL || fd < 0 || messages == NULL)
		die("could not start", "out of memory");
	for (int p = 0; p < partitions; p++)
		if (rd_kafka_consume_start_queue(rkt, p, 0, queue) == -1)
			die("could not start", rd_kafka_err2str(rd_kafka_last_error()));

	while (ended < partitions)
	{
		ssize_t		n;

		if (by_event)
		{
			uint64_t	count;

			(void) !read(fd, &count, sizeof(count));
			n = rd_kafka_consume_batch_queue(queue, 0, messages, batch);
		}
		else
			n = rd_kafka_consume_batch_queue(queue, FILL_MS, messages, batch);
		if (n < 0)
			die("could not read", rd_kafka_err2str(rd_kafka_last_error()));
		n_calls += (n > 0);
		for (ssize_t i = 0; i < n; i++)
		{
			rd_kafka_message_t *m = messages[i];

			if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
				ended++;
			else if (m->err)
				die("could not read", rd_kafka_message_errstr(m));
			else
			{
				n_messages++;
				n_bytes += m->len;
				if (m->len > 0)
					touched += ((const unsigned char *) m->payload)[m->len / 2];
			}
		}
		for (ssize_t i = 0; i < n; i++)
			rd_kafka_message_destroy(messages[i]);
		rd_kafka_poll(rk, 0);
		if (by_event && n < batch && ended < partitions)
		{
			struct pollfd wait = {.fd = fd,.events = POLLIN};

			if (poll(&wait, 1, PATIENCE_MS) == 0)
				die("could not read", "nothing comes");
		}
	}

	if (getrusage(RUSAGE_SELF, &usage) != 0)
		die("could not get the resources used", "getrusage");
	printf("%lld %lld %.3f %.3f %.3f %lld\n", (long long) n_messages,
		   (long long) n_bytes, monotonic() - started,
		   seconds(&usage.ru_utime), seconds(&usage.ru_stime),
		   (long long) n_calls);
	fflush(stdout);
	_exit(touched == 0 && n_messages > 0);
}
