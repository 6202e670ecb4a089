/*-------------------------------------------------------------------------
 *
 * kadmin.c
 *	  Administration of topics on a real broker, for tests.
 *
 * Kafka's own tools start a virtual machine for each command; this one
 * takes milliseconds.  Every command that changes something returns only
 * when the change can be seen by clients, so that a test need not wait:
 * a created topic has leaders for all partitions, a deleted one is gone.
 * What cannot be seen within the time of --timeout is a failure.
 *
 *	wait						until a broker answers
 *	topics						names and numbers of partitions
 *	create TOPIC PARTITIONS [NAME=VALUE]...
 *	delete TOPIC...
 *	add-partitions TOPIC TOTAL	grow to that many
 *	delete-records TOPIC PARTITION OFFSET
 *								those before the offset (-1: all)
 *	offsets TOPIC				PARTITION TAB LOW TAB HIGH, of each partition
 *
 * HIGH is the end of the partition; with --committed it is the last stable
 * offset, where a reader with read_committed has to stop.  The embedded
 * broker knows "wait", "topics" and "offsets" only.
 *
 *-------------------------------------------------------------------------
 */
#include "support.h"

#include <stdlib.h>
#include <string.h>

static rd_kafka_t *rk;
static int	timeout_ms = 60000;
static int64_t deadline_us;

static void
usage(FILE *f)
{
	fputs("usage: kadmin --bootstrap SERVERS [--timeout MS] [--committed]\n"
		  "              [--quiet] [-X NAME=VALUE]... COMMAND [ARGUMENT]...\n"
		  "  wait\n"
		  "  topics\n"
		  "  create TOPIC PARTITIONS [NAME=VALUE]...\n"
		  "  delete TOPIC...\n"
		  "  add-partitions TOPIC TOTAL\n"
		  "  delete-records TOPIC PARTITION OFFSET\n"
		  "  offsets TOPIC\n", f);
}

/* milliseconds left, at least 1 */
static int
time_left(void)
{
	int64_t		left = (deadline_us - monotonic_us()) / 1000;

	return left > 1 ? (int) left : 1;
}

static bool
out_of_time(void)
{
	return monotonic_us() >= deadline_us;
}

/*
 * How long the next attempt to get metadata may take: short at first, since
 * an attempt that met no broker does not connect again; then longer, for a
 * broker that is slow to answer.
 */
static int
attempt_time(void)
{
	static int	attempt_ms = 50;
	int			left = time_left();

	if (attempt_ms < 3200)
		attempt_ms *= 2;
	return left < attempt_ms ? left : attempt_ms;
}

/*
 * The number of partitions of a topic that have a leader; 0 when there is
 * no such topic, -1 while that is not known.
 *
 * This asks for all topics: a question about one that is gone would make
 * the library wait, and some brokers create it.
 */
static int
partitions_seen(const char *topic)
{
	const struct rd_kafka_metadata *md;
	rd_kafka_resp_err_t err;
	int			count = 0;

	err = rd_kafka_metadata(rk, 1, NULL, &md, attempt_time());
	if (err)
		return -1;
	for (int t = 0; t < md->topic_cnt; t++)
	{
		if (strcmp(md->topics[t].topic, topic) != 0)
			continue;
		if (md->topics[t].err)
			count = -1;
		for (int p = 0; p < md->topics[t].partition_cnt && count >= 0; p++)
		{
			if (md->topics[t].partitions[p].err == 0 &&
				md->topics[t].partitions[p].leader >= 0)
				count++;
		}
	}
	rd_kafka_metadata_destroy(md);
	return count;
}

/* waits until so many partitions can be seen */
static void
wait_for_partitions(const char *topic, int wanted)
{
	int			seen;

	while ((seen = partitions_seen(topic)) != wanted)
	{
		if (out_of_time())
			die("topic \"%s\" has %d partitions with a leader, not %d (%s)",
				topic, seen, wanted, kafka_last_error());
		rd_kafka_poll(rk, 10);
	}
}

static void
do_wait(void)
{
	for (;;)
	{
		const struct rd_kafka_metadata *md;
		rd_kafka_resp_err_t err;
		int			brokers = 0;

		err = rd_kafka_metadata(rk, 1, NULL, &md, attempt_time());
		if (!err)
		{
			brokers = md->broker_cnt;
			rd_kafka_metadata_destroy(md);
			if (brokers > 0)
				return;
		}
		if (out_of_time())
			die("no broker answers: %s (%s)", rd_kafka_err2str(err),
				kafka_last_error());
		rd_kafka_poll(rk, 10);
	}
}

static void
do_topics(void)
{
	const struct rd_kafka_metadata *md;
	rd_kafka_resp_err_t err;

	err = rd_kafka_metadata(rk, 1, NULL, &md, time_left());
	if (err)
		die("could not list topics: %s (%s)", rd_kafka_err2str(err),
			kafka_last_error());
	for (int t = 0; t < md->topic_cnt; t++)
		printf("%s\t%d\n", md->topics[t].topic,
			   md->topics[t].partition_cnt);
	rd_kafka_metadata_destroy(md);
}

/* an options object for a request of that kind; the caller destroys it */
static rd_kafka_AdminOptions_t *
admin_options(rd_kafka_admin_op_t op)
{
	rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, op);
	char		errstr[256];
	int			ms = time_left();

	if (options == NULL)
		die("could not make a request");
	if (rd_kafka_AdminOptions_set_request_timeout(options, ms, errstr,
												  sizeof(errstr)) ||
		(op != RD_KAFKA_ADMIN_OP_DELETERECORDS &&
		 rd_kafka_AdminOptions_set_operation_timeout(options, ms, errstr,
													 sizeof(errstr))))
		die("could not make a request: %s", errstr);
	return options;
}

/* the answer to a request; the caller destroys it */
static rd_kafka_event_t *
admin_result(rd_kafka_queue_t *queue)
{
	rd_kafka_event_t *event;

	/* librdkafka answers by the request's timeout; a second is its slack */
	event = rd_kafka_queue_poll(queue, time_left() + 1000);
	if (event == NULL)
		die("no answer to a request (%s)", kafka_last_error());
	if (rd_kafka_event_error(event))
		die("request failed: %s", rd_kafka_event_error_string(event));
	return event;
}

/* dies when one of the topics of an answer has an error */
static void
check_topics(const rd_kafka_topic_result_t **topics, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		if (rd_kafka_topic_result_error(topics[i]))
			die("topic \"%s\": %s", rd_kafka_topic_result_name(topics[i]),
				rd_kafka_topic_result_error_string(topics[i]) != NULL ?
				rd_kafka_topic_result_error_string(topics[i]) :
				rd_kafka_err2str(rd_kafka_topic_result_error(topics[i])));
	}
}

static void
do_create(rd_kafka_queue_t *queue, char **args, int n)
{
	const char *topic = args[0];
	int			partitions = (int) parse_int("number of partitions", args[1],
											 1, 100000);
	char		errstr[256];
	rd_kafka_AdminOptions_t *options;
	rd_kafka_NewTopic_t *new_topic;
	rd_kafka_event_t *event;
	const rd_kafka_topic_result_t **results;
	size_t		count;

	options = admin_options(RD_KAFKA_ADMIN_OP_CREATETOPICS);
	new_topic = rd_kafka_NewTopic_new(topic, partitions, 1, errstr,
									  sizeof(errstr));
	if (new_topic == NULL)
		die("topic \"%s\": %s", topic, errstr);
	for (int i = 2; i < n; i++)
	{
		char	   *eq = strchr(args[i], '=');
		rd_kafka_resp_err_t err;

		if (eq == NULL)
			die("not of the form name=value: \"%s\"", args[i]);
		*eq = '\0';
		err = rd_kafka_NewTopic_set_config(new_topic, args[i], eq + 1);
		if (err)
			die("could not set \"%s\": %s", args[i], rd_kafka_err2str(err));
	}
	rd_kafka_CreateTopics(rk, &new_topic, 1, options, queue);
	event = admin_result(queue);
	results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event),
												  &count);
	check_topics(results, count);
	rd_kafka_event_destroy(event);
	rd_kafka_NewTopic_destroy(new_topic);
	rd_kafka_AdminOptions_destroy(options);
	wait_for_partitions(topic, partitions);
}

static void
do_delete(rd_kafka_queue_t *queue, char **args, int n)
{
	rd_kafka_AdminOptions_t *options;
	rd_kafka_DeleteTopic_t **topics = xcalloc(n, sizeof(*topics));
	rd_kafka_event_t *event;
	const rd_kafka_topic_result_t **results;
	size_t		count;

	options = admin_options(RD_KAFKA_ADMIN_OP_DELETETOPICS);
	for (int i = 0; i < n; i++)
		topics[i] = rd_kafka_DeleteTopic_new(args[i]);
	rd_kafka_DeleteTopics(rk, topics, n, options, queue);
	event = admin_result(queue);
	results = rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event),
												  &count);
	check_topics(results, count);
	rd_kafka_event_destroy(event);
	rd_kafka_DeleteTopic_destroy_array(topics, n);
	rd_kafka_AdminOptions_destroy(options);
	free(topics);
	for (int i = 0; i < n; i++)
		wait_for_partitions(args[i], 0);
}

static void
do_add_partitions(rd_kafka_queue_t *queue, char **args)
{
	int			total = (int) parse_int("number of partitions", args[1],
										1, 100000);
	char		errstr[256];
	rd_kafka_AdminOptions_t *options;
	rd_kafka_NewPartitions_t *partitions;
	rd_kafka_event_t *event;
	const rd_kafka_topic_result_t **results;
	size_t		count;

	options = admin_options(RD_KAFKA_ADMIN_OP_CREATEPARTITIONS);
	partitions = rd_kafka_NewPartitions_new(args[0], total, errstr,
											sizeof(errstr));
	if (partitions == NULL)
		die("topic \"%s\": %s", args[0], errstr);
	rd_kafka_CreatePartitions(rk, &partitions, 1, options, queue);
	event = admin_result(queue);
	results = rd_kafka_CreatePartitions_result_topics(rd_kafka_event_CreatePartitions_result(event),
													  &count);
	check_topics(results, count);
	rd_kafka_event_destroy(event);
	rd_kafka_NewPartitions_destroy(partitions);
	rd_kafka_AdminOptions_destroy(options);
	wait_for_partitions(args[0], total);
}

static void
do_delete_records(rd_kafka_queue_t *queue, char **args)
{
	int32_t		partition = (int32_t) parse_int("partition", args[1],
												0, INT32_MAX);
	int64_t		offset = parse_int("offset", args[2], -1, INT64_MAX);
	rd_kafka_AdminOptions_t *options;
	rd_kafka_topic_partition_list_t *before;
	const rd_kafka_topic_partition_list_t *results;
	rd_kafka_DeleteRecords_t *request;
	rd_kafka_event_t *event;

	options = admin_options(RD_KAFKA_ADMIN_OP_DELETERECORDS);
	before = rd_kafka_topic_partition_list_new(1);
	rd_kafka_topic_partition_list_add(before, args[0], partition)->offset =
		offset < 0 ? RD_KAFKA_OFFSET_END : offset;
	request = rd_kafka_DeleteRecords_new(before);
	rd_kafka_topic_partition_list_destroy(before);
	rd_kafka_DeleteRecords(rk, &request, 1, options, queue);
	event = admin_result(queue);
	results = rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event));
	for (int i = 0; i < results->cnt; i++)
	{
		if (results->elems[i].err)
			die("%s[%d]: %s", args[0], (int) partition,
				rd_kafka_err2str(results->elems[i].err));
	}
	rd_kafka_event_destroy(event);
	rd_kafka_DeleteRecords_destroy(request);
	rd_kafka_AdminOptions_destroy(options);
}

static void
do_offsets(const char *topic)
{
	int			partitions;

	while ((partitions = partitions_seen(topic)) < 0 && !out_of_time())
		rd_kafka_poll(rk, 10);
	if (partitions < 0)
		die("no broker answers (%s)", kafka_last_error());
	if (partitions == 0)
		die("topic \"%s\" does not exist", topic);
	for (int32_t p = 0; p < partitions; p++)
	{
		int64_t		low;
		int64_t		high;
		rd_kafka_resp_err_t err;

		err = rd_kafka_query_watermark_offsets(rk, topic, p, &low, &high,
											   time_left());
		if (err)
			die("%s[%d]: %s (%s)", topic, (int) p, rd_kafka_err2str(err),
				kafka_last_error());
		printf("%d\t%lld\t%lld\n", (int) p, (long long) low,
			   (long long) high);
	}
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{"bootstrap", required_argument, NULL, 'b'},
		{"timeout", required_argument, NULL, 't'},
		{"committed", no_argument, NULL, 'c'},
		{"quiet", no_argument, NULL, 'q'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}
	};
	char	  **props = xcalloc(argc, sizeof(char *));
	int			n_props = 0;
	const char *bootstrap = NULL;
	const char *command = "";
	bool		committed = false;
	rd_kafka_conf_t *conf;
	rd_kafka_queue_t *queue;
	char	  **args;
	int			n;
	int			c;

	progname = "kadmin";

	/* "+": options end at the command, whose offset may be -1 */
	while ((c = getopt_long(argc, argv, "+hX:", options, NULL)) != -1)
	{
		switch (c)
		{
			case 'b':
				bootstrap = optarg;
				break;
			case 't':
				timeout_ms = (int) parse_int("--timeout", optarg,
											 1, 3600000);
				break;
			case 'c':
				committed = true;
				break;
			case 'q':
				if (freopen("/dev/null", "w", stderr) == NULL)
					return 1;
				break;
			case 'X':
				props[n_props++] = optarg;
				break;
			case 'h':
				usage(stdout);
				return 0;
			default:
				usage(stderr);
				return 2;
		}
	}
	if (optind < argc)
		command = argv[optind++];
	args = argv + optind;
	n = argc - optind;
	if (bootstrap == NULL)
	{
		usage(stderr);
		return 2;
	}

	conf = kafka_conf_new(bootstrap);
	kafka_conf_set(conf, "allow.auto.create.topics", "false");
	kafka_conf_set(conf, "isolation.level",
				   committed ? "read_committed" : "read_uncommitted");
	for (int i = 0; i < n_props; i++)
		kafka_conf_set_pair(conf, props[i]);
	rk = kafka_new(RD_KAFKA_CONSUMER, conf);
	queue = rd_kafka_queue_new(rk);
	deadline_us = monotonic_us() + timeout_ms * INT64_C(1000);

	if (strcmp(command, "wait") == 0 && n == 0)
		do_wait();
	else if (strcmp(command, "topics") == 0 && n == 0)
		do_topics();
	else if (strcmp(command, "create") == 0 && n >= 2)
		do_create(queue, args, n);
	else if (strcmp(command, "delete") == 0 && n >= 1)
		do_delete(queue, args, n);
	else if (strcmp(command, "add-partitions") == 0 && n == 2)
		do_add_partitions(queue, args);
	else if (strcmp(command, "delete-records") == 0 && n == 3)
		do_delete_records(queue, args);
	else if (strcmp(command, "offsets") == 0 && n == 1)
		do_offsets(args[0]);
	else
	{
		usage(stderr);
		return 2;
	}

	if (fflush(stdout) != 0)
		die("could not write to standard output");
	rd_kafka_queue_destroy(queue);
	rd_kafka_destroy(rk);
	free(props);
	return 0;
}
