/*-------------------------------------------------------------------------
 *
 * produce.c
 *	  A fast producer: one line of standard input is one record.
 *
 * A line is [PARTITION TAB] [TIMESTAMP TAB] [KEY TAB] PAYLOAD, where the
 * fields in brackets are there iff --partition-field, --timestamp (epoch
 * milliseconds; -1: none) and --key ask for them, always in this order.  Only a
 * newline ends a line, and the last one may lack it.  An empty payload is
 * a record of length 0.
 *
 * The partition is that of --partition or --partition-field; else the hash
 * of the key when there is one; else the partitions take turns, from 0.
 *
 * With --raw-escapes, key and payload may have \n \t \r \0 \\ and \xHH, and
 * a field that is just \N is null: a record without a key, a tombstone.
 *
 * With --transactional, every --commit-every records are a transaction (0:
 * all records are one), and the end of the input ends the last one.  With
 * --abort-every M, every M-th transaction is aborted instead.
 *
 * Big inputs fill big batches; but whenever there is nothing more to read
 * for the moment, all that was read is sent at once, so a line that is
 * written to us can be consumed some milliseconds later.  The exit status
 * is 0 only if every record was delivered.
 *
 *-------------------------------------------------------------------------
 */
#include "producer.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUFFER_SIZE (1024 * 1024)

typedef struct Settings
{
	int32_t		partition;		/* fixed partition, or -1 */
	bool		partition_field;
	bool		timestamp_field;
	bool		key_field;
	bool		raw_escapes;
	bool		transactional;
	int64_t		commit_every;	/* records in a transaction, 0: all */
	int64_t		abort_every;	/* 0: abort none */
	rd_kafka_headers_t *headers;	/* owned, or NULL */
} Settings;

static Settings settings = {.partition = -1};

static int	n_partitions = 0;	/* when they take turns */
static int32_t turn = 0;
static int64_t line_number = 0;
static int64_t n_transactions = 0;
static int64_t in_transaction = 0;	/* records of the open one */
static bool transaction_open = false;

static void
usage(FILE *f)
{
	fputs("usage: produce --bootstrap SERVERS --topic TOPIC\n"
		  "  [--partition N | --partition-field] [--timestamp] [--key]\n"
		  "  [--raw-escapes] [--header NAME=VALUE]...\n"
		  "  [--codec none|gzip|snappy|lz4|zstd] [--linger MS]\n"
		  "  [--transactional ID [--commit-every N] [--abort-every M]]\n"
		  "  [-X NAME=VALUE]...\n"
		  "lines: [PARTITION TAB] [EPOCH_MS TAB] [KEY TAB] PAYLOAD\n", f);
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	die("line %lld: bad digit after \\x", (long long) line_number);
}

/*
 * Resolves escapes in place.  Returns the new start, NULL for a null field.
 */
static char *
unescape(char *s, size_t *len)
{
	char	   *in = s;
	char	   *out = s;
	char	   *end = s + *len;

	if (*len == 2 && s[0] == '\\' && s[1] == 'N')
	{
		*len = 0;
		return NULL;
	}
	while (in < end)
	{
		if (*in != '\\')
		{
			*out++ = *in++;
			continue;
		}
		if (in + 1 == end)
			die("line %lld ends in a backslash", (long long) line_number);
		switch (in[1])
		{
			case 'n':
				*out++ = '\n';
				break;
			case 't':
				*out++ = '\t';
				break;
			case 'r':
				*out++ = '\r';
				break;
			case '0':
				*out++ = '\0';
				break;
			case '\\':
				*out++ = '\\';
				break;
			case 'x':
				if (end - in < 4)
					die("line %lld: \\x needs two digits",
						(long long) line_number);
				*out++ = (char) (hex_digit(in[2]) * 16 + hex_digit(in[3]));
				in += 2;
				break;
			default:
				die("line %lld: unknown escape \"\\%c\"",
					(long long) line_number, in[1]);
		}
		in += 2;
	}
	*len = out - s;
	return s;
}

/* cuts off the field before the next tab, and moves *s behind the tab */
static char *
next_field(char **s, char *end, const char *what)
{
	char	   *field = *s;
	char	   *tab = memchr(field, '\t', end - field);

	if (tab == NULL)
		die("line %lld has no %s", (long long) line_number, what);
	*tab = '\0';
	*s = tab + 1;
	return field;
}

/* sends one line; line[len] may be overwritten */
static void
send_line(Producer *producer, char *line, size_t len)
{
	char	   *end = line + len;
	char	   *key = NULL;
	Record		record = {.partition = settings.partition};

	line_number++;
	if (settings.partition_field)
		record.partition = (int32_t)
			parse_int("partition", next_field(&line, end, "partition"),
					  0, INT32_MAX);
	if (settings.timestamp_field)
	{
		record.timestamp_ms =
			parse_int("timestamp", next_field(&line, end, "timestamp"),
					  INT64_MIN, INT64_MAX);
		if (record.timestamp_ms == TIMESTAMP_NOW)
			die("line %lld: a timestamp of 0 cannot be produced",
				(long long) line_number);
	}
	if (settings.key_field)
	{
		key = next_field(&line, end, "key");
		record.key_len = line - 1 - key;
	}
	record.payload_len = end - line;
	if (settings.raw_escapes)
	{
		if (key != NULL)
			key = unescape(key, &record.key_len);
		line = unescape(line, &record.payload_len);
	}
	record.key = key;
	record.payload = line;
	record.headers = settings.headers;

	if (record.partition < 0 && key == NULL)
	{
		record.partition = turn;
		turn = (turn + 1) % n_partitions;
	}

	if (settings.transactional && !transaction_open)
	{
		producer_begin(producer);
		transaction_open = true;
		n_transactions++;
		in_transaction = 0;
	}
	producer_send(producer, &record);
	in_transaction++;
}

/* ends the open transaction, if there is one */
static void
end_transaction(Producer *producer)
{
	if (!transaction_open)
		return;
	producer_end(producer, settings.abort_every == 0 ||
				 n_transactions % settings.abort_every != 0);
	transaction_open = false;
}

/*
 * Waits until there is something to read.  What was read before goes out
 * meanwhile: a wait is the sign that nobody is filling the batches.
 */
static void
wait_for_input(Producer *producer)
{
	struct pollfd pfd = {.fd = STDIN_FILENO,.events = POLLIN};
	bool		flushed = false;

	for (;;)
	{
		int			rc = poll(&pfd, 1, flushed ? 100 : 0);

		if (rc < 0 && errno != EINTR)
			die("could not wait: %s", strerror(errno));
		if (rc > 0)
			return;
		flushed = producer_flush(producer, flushed ? 0 : 5);
	}
}

/* sends all lines of standard input */
static void
send_input(Producer *producer)
{
	size_t		size = BUFFER_SIZE;
	size_t		used = 0;		/* bytes in the buffer */
	size_t		scanned = 0;	/* of these, known to have no newline */
	char	   *buf = xmalloc(size + 1);

	for (;;)
	{
		ssize_t		got;
		char	   *line = buf;
		char	   *newline;

		wait_for_input(producer);
		if (used == size)
		{
			size *= 2;
			buf = realloc(buf, size + 1);
			if (buf == NULL)
				die("out of memory");
			line = buf;
		}
		got = read(STDIN_FILENO, buf + used, size - used);
		if (got < 0)
		{
			if (errno == EINTR || errno == EAGAIN)
				continue;
			die("could not read standard input: %s", strerror(errno));
		}
		if (got == 0)
			break;
		used += got;

		while ((newline = memchr(line + scanned, '\n',
								 buf + used - line - scanned)) != NULL)
		{
			send_line(producer, line, newline - line);
			line = newline + 1;
			scanned = 0;
			if (settings.commit_every > 0 &&
				in_transaction >= settings.commit_every)
				end_transaction(producer);
		}
		used -= line - buf;
		scanned = used;
		memmove(buf, line, used);
	}
	if (used > 0)
		send_line(producer, buf, used);
	end_transaction(producer);
	free(buf);
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{"bootstrap", required_argument, NULL, 'b'},
		{"topic", required_argument, NULL, 't'},
		{"partition", required_argument, NULL, 'p'},
		{"partition-field", no_argument, NULL, 'f'},
		{"key", no_argument, NULL, 'k'},
		{"timestamp", no_argument, NULL, 'm'},
		{"header", required_argument, NULL, 'H'},
		{"codec", required_argument, NULL, 'c'},
		{"linger", required_argument, NULL, 'l'},
		{"transactional", required_argument, NULL, 'T'},
		{"commit-every", required_argument, NULL, 'C'},
		{"abort-every", required_argument, NULL, 'A'},
		{"raw-escapes", no_argument, NULL, 'r'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}
	};
	ProducerOptions po = {0};
	Producer   *producer;
	const char *eq;
	int			c;

	progname = "produce";
	while ((c = getopt_long(argc, argv, "hX:", options, NULL)) != -1)
	{
		switch (c)
		{
			case 'b':
				po.bootstrap = optarg;
				break;
			case 't':
				po.topic = optarg;
				break;
			case 'p':
				settings.partition = (int32_t)
					parse_int("--partition", optarg, 0, INT32_MAX);
				break;
			case 'f':
				settings.partition_field = true;
				break;
			case 'k':
				settings.key_field = true;
				break;
			case 'm':
				settings.timestamp_field = true;
				break;
			case 'H':
				eq = strchr(optarg, '=');
				if (eq == NULL)
					die("not of the form name=value: \"%s\"", optarg);
				if (settings.headers == NULL)
					settings.headers = rd_kafka_headers_new(4);
				if (rd_kafka_header_add(settings.headers, optarg,
										eq - optarg, eq + 1, -1) != 0)
					die("could not add the header");
				break;
			case 'c':
				po.codec = optarg;
				break;
			case 'l':
				po.linger_ms = optarg;
				break;
			case 'T':
				po.transactional_id = optarg;
				settings.transactional = true;
				break;
			case 'C':
				settings.commit_every =
					parse_int("--commit-every", optarg, 0, INT64_MAX);
				break;
			case 'A':
				settings.abort_every =
					parse_int("--abort-every", optarg, 0, INT64_MAX);
				break;
			case 'r':
				settings.raw_escapes = true;
				break;
			case 'X':
				producer_add_property(&po, optarg);
				break;
			case 'h':
				usage(stdout);
				return 0;
			default:
				usage(stderr);
				return 2;
		}
	}
	if (optind != argc || po.bootstrap == NULL || po.topic == NULL ||
		(settings.partition >= 0 && settings.partition_field) ||
		(!settings.transactional &&
		 (settings.commit_every > 0 || settings.abort_every > 0)))
	{
		usage(stderr);
		return 2;
	}

	producer = producer_open(&po);

	/* a record of --key may have a null key, so this may be needed then too */
	if (settings.partition < 0 && !settings.partition_field)
		n_partitions = producer_partitions(producer);
	send_input(producer);
	producer_close(producer);
	if (settings.headers != NULL)
		rd_kafka_headers_destroy(settings.headers);
	free(po.props);
	return 0;
}
