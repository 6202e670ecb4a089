/*-------------------------------------------------------------------------
 *
 * broker.c
 *	  An embedded broker for functional tests and the demo.
 *
 * This is librdkafka's mock cluster in a process of its own: it speaks the
 * Kafka protocol on loopback TCP ports of the system's choice, and starts
 * in a few milliseconds.  It prints its bootstrap servers on the first line
 * of standard output and stays until SIGTERM or SIGINT, or, with
 * --until-eof, until its standard input is closed.  The latter ends it even
 * when the test that started it is killed.
 *
 * What it cannot do: it keeps only the newest 5 MiB (and 100,000 batches)
 * of a partition, has no look-up by time, no read_committed (aborted
 * transactions are visible), no admin requests, so no topic deletion and no
 * more partitions for an existing topic.  A topic that was not created is
 * made with 4 partitions when a client that allows it asks for it; the
 * library has no setting for that number.  For all these there is the real
 * broker: see WeirBroker.pm.
 *
 * With --commands it obeys lines on standard input, and answers each with
 * one line on standard output, "ok" or "error: reason":
 *
 *	topic NAME PARTITIONS		create a topic
 *	down [BROKER]				close all connections and refuse new ones
 *	up [BROKER]					accept connections again
 *	rtt MS [BROKER]				delay every response
 *	error TOPIC CODE			fail metadata requests for the topic (0: heal)
 *	fail API COUNT CODE			fail the next COUNT requests of that kind
 *	heal API					forget what "fail" has left
 *	leader TOPIC PART BROKER	move a partition (-1: no leader)
 *	quit						end
 *
 * API is the protocol's number: 0 Produce, 1 Fetch, 2 ListOffsets, 3
 * Metadata.  CODE is the protocol's error number.  Without a BROKER, all
 * are meant.  Unknown commands are errors and change nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "support.h"

#include <errno.h>
#include <librdkafka/rdkafka_mock.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_WORDS 8

static volatile sig_atomic_t stop_requested = 0;

static rd_kafka_mock_cluster_t *cluster;
static int	n_brokers = 1;

static void
handle_stop(int signo)
{
	(void) signo;
	stop_requested = 1;
}

static void
usage(FILE *f)
{
	fputs("usage: broker [--topic NAME:PARTITIONS]... [--brokers N]\n"
		  "              [--until-eof] [--commands]\n", f);
}

/* a number out of a command; false if it is none */
static bool
word_to_int(const char *s, int min, int max, int *value)
{
	char	   *end;
	long		v;

	errno = 0;
	v = strtol(s, &end, 10);
	if (errno != 0 || end == s || *end != '\0' || v < min || v > max)
		return false;
	*value = (int) v;
	return true;
}

/*
 * Obeys one command of n words.  Returns NULL, or what is wrong.
 */
static const char *
run_command(char **word, int n)
{
	rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR;
	const char *verb = word[0];
	int			first = 1;
	int			last = n_brokers;
	int			a = 0;
	int			b = 0;

	if (strcmp(verb, "topic") == 0 && n == 3)
	{
		if (!word_to_int(word[2], 1, 10000, &a))
			return "bad number of partitions";
		err = rd_kafka_mock_topic_create(cluster, word[1], a, 1);
	}
	else if ((strcmp(verb, "down") == 0 || strcmp(verb, "up") == 0) && n <= 2)
	{
		if (n == 2)
		{
			if (!word_to_int(word[1], 1, n_brokers, &first))
				return "no such broker";
			last = first;
		}
		for (int id = first; id <= last && !err; id++)
			err = verb[0] == 'd' ?
				rd_kafka_mock_broker_set_down(cluster, id) :
				rd_kafka_mock_broker_set_up(cluster, id);
	}
	else if (strcmp(verb, "rtt") == 0 && (n == 2 || n == 3))
	{
		if (!word_to_int(word[1], 0, 3600000, &a))
			return "bad delay";
		if (n == 3)
		{
			if (!word_to_int(word[2], 1, n_brokers, &first))
				return "no such broker";
			last = first;
		}
		for (int id = first; id <= last && !err; id++)
			err = rd_kafka_mock_broker_set_rtt(cluster, id, a);
	}
	else if (strcmp(verb, "error") == 0 && n == 3)
	{
		if (!word_to_int(word[2], -1, 1000, &a))
			return "bad error code";
		rd_kafka_mock_topic_set_error(cluster, word[1],
									  (rd_kafka_resp_err_t) a);
	}
	else if (strcmp(verb, "fail") == 0 && n == 4)
	{
		rd_kafka_resp_err_t *errors;
		int			count;

		if (!word_to_int(word[1], 0, 1000, &a) ||
			!word_to_int(word[2], 1, 100000, &count) ||
			!word_to_int(word[3], -1000, 1000, &b))
			return "bad number";
		errors = xcalloc(count, sizeof(*errors));
		for (int i = 0; i < count; i++)
			errors[i] = (rd_kafka_resp_err_t) b;
		rd_kafka_mock_push_request_errors_array(cluster, (int16_t) a,
												count, errors);
		free(errors);
	}
	else if (strcmp(verb, "heal") == 0 && n == 2)
	{
		if (!word_to_int(word[1], 0, 1000, &a))
			return "bad number";
		rd_kafka_mock_clear_request_errors(cluster, (int16_t) a);
	}
	else if (strcmp(verb, "leader") == 0 && n == 4)
	{
		if (!word_to_int(word[2], 0, 100000, &a))
			return "bad partition";
		if (!word_to_int(word[3], -1, n_brokers, &b) || b == 0)
			return "no such broker";
		err = rd_kafka_mock_partition_set_leader(cluster, word[1], a, b);
	}
	else if (strcmp(verb, "quit") == 0 && n == 1)
		stop_requested = 1;
	else
		return "unknown command";

	return err ? rd_kafka_err2str(err) : NULL;
}

/* obeys one line and answers it */
static void
run_line(char *line)
{
	char	   *word[MAX_WORDS];
	char	   *save;
	const char *complaint = "too many words";
	int			n = 0;

	for (char *w = strtok_r(line, " \t\r", &save); w != NULL;
		 w = strtok_r(NULL, " \t\r", &save))
	{
		if (n == MAX_WORDS)
			break;
		word[n++] = w;
	}
	if (n == 0)
		return;
	if (n < MAX_WORDS)
		complaint = run_command(word, n);
	if (complaint == NULL)
		puts("ok");
	else
		printf("error: %s\n", complaint);
	fflush(stdout);
}

/*
 * Takes what stands in standard input, and obeys the whole lines of it if
 * "obey".  Returns false at the end of the input.
 */
static bool
read_input(bool obey)
{
	static char buf[4096];
	static size_t used = 0;
	ssize_t		got;
	char	   *newline;

	got = read(STDIN_FILENO, buf + used, sizeof(buf) - 1 - used);
	if (got < 0)
	{
		if (errno == EINTR || errno == EAGAIN)
			return true;
		die("could not read standard input: %s", strerror(errno));
	}
	if (got == 0)
		return false;
	if (!obey)
		return true;
	used += got;
	buf[used] = '\0';
	while ((newline = strchr(buf, '\n')) != NULL)
	{
		*newline = '\0';
		run_line(buf);
		used -= newline + 1 - buf;
		memmove(buf, newline + 1, used + 1);
	}
	if (used == sizeof(buf) - 1)
		die("command too long");
	return true;
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{"topic", required_argument, NULL, 't'},
		{"brokers", required_argument, NULL, 'b'},
		{"until-eof", no_argument, NULL, 'u'},
		{"commands", no_argument, NULL, 'c'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}
	};
	char	  **topics = xcalloc(argc, sizeof(char *));
	int			n_topics = 0;
	bool		until_eof = false;
	bool		commands = false;
	bool		reading;
	struct sigaction sa = {.sa_handler = handle_stop};
	sigset_t	stop_signals;
	sigset_t	wait_mask;
	rd_kafka_t *rk;
	int			c;

	progname = "broker";
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1)
	{
		switch (c)
		{
			case 't':
				topics[n_topics++] = optarg;
				break;
			case 'b':
				n_brokers = (int) parse_int("--brokers", optarg, 1, 100);
				break;
			case 'u':
				until_eof = true;
				break;
			case 'c':
				commands = true;
				break;
			case 'h':
				usage(stdout);
				return 0;
			default:
				usage(stderr);
				return 2;
		}
	}
	if (optind != argc)
	{
		usage(stderr);
		return 2;
	}

	/*
	 * Stop signals are blocked but while waiting, so that none is missed;
	 * librdkafka's threads, which start later, inherit the mask.
	 */
	sigemptyset(&stop_signals);
	sigaddset(&stop_signals, SIGTERM);
	sigaddset(&stop_signals, SIGINT);
	if (sigprocmask(SIG_BLOCK, &stop_signals, &wait_mask) != 0 ||
		sigaction(SIGTERM, &sa, NULL) != 0 ||
		sigaction(SIGINT, &sa, NULL) != 0 ||
		signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		die("could not set signal handlers: %s", strerror(errno));
	sigdelset(&wait_mask, SIGTERM);
	sigdelset(&wait_mask, SIGINT);

	rk = kafka_new(RD_KAFKA_PRODUCER, kafka_conf_new(NULL));
	cluster = rd_kafka_mock_cluster_new(rk, n_brokers);
	if (cluster == NULL)
		die("could not create the mock cluster");

	for (int i = 0; i < n_topics; i++)
	{
		char	   *colon = strrchr(topics[i], ':');
		int			partitions;
		rd_kafka_resp_err_t err;

		if (colon == NULL)
			die("not of the form name:partitions: \"%s\"", topics[i]);
		partitions = (int) parse_int("--topic", colon + 1, 1, 10000);
		*colon = '\0';
		err = rd_kafka_mock_topic_create(cluster, topics[i], partitions, 1);
		if (err)
			die("could not create topic \"%s\": %s", topics[i],
				rd_kafka_err2str(err));
	}

	puts(rd_kafka_mock_cluster_bootstraps(cluster));
	if (fflush(stdout) != 0)
		die("could not write to standard output: %s", strerror(errno));

	reading = until_eof || commands;
	while (!stop_requested)
	{
		struct pollfd pfd = {.fd = STDIN_FILENO,.events = POLLIN};

		if (ppoll(&pfd, reading ? 1 : 0, NULL, &wait_mask) < 0)
		{
			if (errno == EINTR)
				continue;
			die("could not wait: %s", strerror(errno));
		}
		if (reading && pfd.revents != 0 && !read_input(commands))
		{
			if (until_eof)
				break;
			reading = false;
		}
	}

	rd_kafka_mock_cluster_destroy(cluster);
	rd_kafka_destroy(rk);
	free(topics);
	return 0;
}
