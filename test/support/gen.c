/*-------------------------------------------------------------------------
 *
 * gen.c
 *	  Generators of records for tests, benchmarks and the demo.
 *
 *	gen ysb			advertising events of the Yahoo streaming benchmark
 *	gen tweets		documents like those of a microblog, clean and dirty
 *	gen events		small test rows
 *
 * All are deterministic: event n of a seed is always the same, and goes to
 * partition n % partitions.  Without a rate, event n has the event time
 * start + n * step, and the events come as fast as they can.  With --rate,
 * they are paced in real time and carry the time at which they are due,
 * unless --start-ms says otherwise; when we fall behind we do not leave out
 * any, so the delay shows in their latency.
 *
 * The output goes to a topic, or as lines PARTITION TAB PAYLOAD to standard
 * output, as "produce --partition-field" takes them.
 *
 *-------------------------------------------------------------------------
 */
#include "gen.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static Producer *producer = NULL;	/* NULL: standard output */
static bool plain_output = false;

static void
usage(FILE *f)
{
	fputs("usage: gen ysb|tweets|events [OPTION]...\n"
		  "how much and when:\n"
		  "  --events N  --first N  --seed S  --partitions P\n"
		  "  --start-ms T  --step-us U  --rate R [--seconds S]\n"
		  "where to (default: lines PARTITION TAB PAYLOAD):\n"
		  "  --bootstrap SERVERS --topic TOPIC [--codec C] [--linger MS]\n"
		  "      [-X NAME=VALUE]...\n"
		  "  --plain  (lines without a partition)\n"
		  "ysb:\n"
		  "  --ads-file F  --oracle F  --campaigns N  --inline-campaign\n"
		  "  --skew-ms MS  --late-every N\n"
		  "tweets (fractions of 1):\n"
		  "  --no-lang P  --broken P  --late P  --disorder P  --clean\n"
		  "events:\n"
		  "  --keys K  --disorder-ms MS\n", f);
}

/* sends one record */
void
out_record(int partition, const char *payload, size_t len)
{
	if (producer != NULL)
	{
		Record		record = {
			.partition = partition,
			.payload = payload,
			.payload_len = len
		};

		producer_send(producer, &record);
		return;
	}
	if (!plain_output)
	{
		/* printf would take longer than all the rest */
		char		digits[12];
		int			at = sizeof(digits);

		digits[--at] = '\t';
		do
			digits[--at] = (char) ('0' + partition % 10);
		while ((partition /= 10) > 0);
		fwrite_unlocked(digits + at, 1, sizeof(digits) - at, stdout);
	}
	fwrite_unlocked(payload, 1, len, stdout);
	if (putchar_unlocked('\n') == EOF)
		die("could not write to standard output: %s", strerror(errno));
}

/* hands on at once what was sent so far */
static void
out_flush(void)
{
	if (producer != NULL)
		(void) producer_flush(producer, 1);
	else if (fflush(stdout) != 0)
		die("could not write to standard output: %s", strerror(errno));
}

/*
 * Steps to the next event: *n is its number (begin with -1), *time_us its
 * event time.  Waits until it is due.  False when there are no more.
 */
bool
next_event(const GenOptions *o, int64_t *n, int64_t *time_us)
{
	static int64_t paced_from = 0;	/* when the first event was due */
	int64_t		done;
	int64_t		due;

	*n = *n < 0 ? o->first : *n + 1;
	done = *n - o->first;
	if (o->events >= 0 && done >= o->events)
		return false;
	if (o->rate <= 0)
	{
		*time_us = o->start_ms * 1000 + *n * o->step_us;
		return true;
	}

	if (done == 0)
		paced_from = now_us();
	due = paced_from + (int64_t) ((double) done * 1e6 / o->rate);
	if (due > now_us())
	{
		struct timespec ts = {due / 1000000, due % 1000000 * 1000};

		out_flush();
		while (due > now_us())
		{
			int			rc = clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME,
											 &ts, NULL);

			if (rc != 0 && rc != EINTR)
				die("could not wait: %s", strerror(rc));
		}
	}
	*time_us = o->start_ms < 0 ? due :
		o->start_ms * 1000 + *n * o->step_us;
	return true;
}

int
main(int argc, char **argv)
{
	enum
	{
		EVENTS = 256, FIRST, SEED, PARTITIONS, START_MS, STEP_US, RATE,
		SECONDS, BOOTSTRAP, TOPIC, CODEC, LINGER, PLAIN, ADS_FILE, ORACLE,
		CAMPAIGNS, INLINE_CAMPAIGN, SKEW_MS, LATE_EVERY, NO_LANG, BROKEN,
		LATE, DISORDER, CLEAN, KEYS, DISORDER_MS
	};
	static const struct option options[] = {
		{"events", required_argument, NULL, EVENTS},
		{"first", required_argument, NULL, FIRST},
		{"seed", required_argument, NULL, SEED},
		{"partitions", required_argument, NULL, PARTITIONS},
		{"start-ms", required_argument, NULL, START_MS},
		{"step-us", required_argument, NULL, STEP_US},
		{"rate", required_argument, NULL, RATE},
		{"seconds", required_argument, NULL, SECONDS},
		{"bootstrap", required_argument, NULL, BOOTSTRAP},
		{"topic", required_argument, NULL, TOPIC},
		{"codec", required_argument, NULL, CODEC},
		{"linger", required_argument, NULL, LINGER},
		{"plain", no_argument, NULL, PLAIN},
		{"ads-file", required_argument, NULL, ADS_FILE},
		{"oracle", required_argument, NULL, ORACLE},
		{"campaigns", required_argument, NULL, CAMPAIGNS},
		{"inline-campaign", no_argument, NULL, INLINE_CAMPAIGN},
		{"skew-ms", required_argument, NULL, SKEW_MS},
		{"late-every", required_argument, NULL, LATE_EVERY},
		{"no-lang", required_argument, NULL, NO_LANG},
		{"broken", required_argument, NULL, BROKEN},
		{"late", required_argument, NULL, LATE},
		{"disorder", required_argument, NULL, DISORDER},
		{"clean", no_argument, NULL, CLEAN},
		{"keys", required_argument, NULL, KEYS},
		{"disorder-ms", required_argument, NULL, DISORDER_MS},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}
	};
	static const struct
	{
		const char *name;
		void		(*run) (GenOptions *o);
	}			generators[] = {
		{"ysb", gen_ysb},
		{"tweets", gen_tweets},
		{"events", gen_events}
	};
	GenOptions	o = {
		.events = -1,.start_ms = -1,.step_us = -1,
		.partitions = 1,.seed = 1,.campaigns = 100,.keys = 10,
		.no_lang = 0.02,.broken = 0.005,.late = 0.005,.disorder = 0.1
	};
	void		(*run) (GenOptions *o) = NULL;
	double		seconds = -1;
	int			c;

	progname = "gen";
	while ((c = getopt_long(argc, argv, "hX:", options, NULL)) != -1)
	{
		switch (c)
		{
			case EVENTS:
				o.events = parse_int("--events", optarg, 0, INT64_MAX / 2);
				break;
			case FIRST:
				o.first = parse_int("--first", optarg, 0, INT64_MAX / 2);
				break;
			case SEED:
				o.seed = parse_int("--seed", optarg, 0, INT64_MAX);
				break;
			case PARTITIONS:
				o.partitions = (int) parse_int("--partitions", optarg,
											   1, 1000000);
				break;
			case START_MS:
				o.start_ms = parse_int("--start-ms", optarg,
									   0, INT64_C(4102444800000));
				break;
			case STEP_US:
				o.step_us = parse_int("--step-us", optarg,
									  0, INT64_C(86400000000));
				break;
			case RATE:
				o.rate = parse_double("--rate", optarg, 0.001, 1e8);
				break;
			case SECONDS:
				seconds = parse_double("--seconds", optarg, 0, 1e8);
				break;
			case BOOTSTRAP:
				o.producer.bootstrap = optarg;
				break;
			case TOPIC:
				o.producer.topic = optarg;
				break;
			case CODEC:
				o.producer.codec = optarg;
				break;
			case LINGER:
				o.producer.linger_ms = optarg;
				break;
			case 'X':
				producer_add_property(&o.producer, optarg);
				break;
			case PLAIN:
				o.plain = true;
				break;
			case ADS_FILE:
				o.ads_file = optarg;
				break;
			case ORACLE:
				o.oracle_file = optarg;
				break;
			case CAMPAIGNS:
				o.campaigns = parse_int("--campaigns", optarg, 1, 100000000);
				break;
			case INLINE_CAMPAIGN:
				o.inline_campaign = true;
				break;
			case SKEW_MS:
				o.skew_ms = parse_int("--skew-ms", optarg, 0, 3600000);
				break;
			case LATE_EVERY:
				o.late_every = parse_int("--late-every", optarg,
										 0, INT64_MAX);
				break;
			case NO_LANG:
				o.no_lang = parse_double("--no-lang", optarg, 0, 1);
				break;
			case BROKEN:
				o.broken = parse_double("--broken", optarg, 0, 1);
				break;
			case LATE:
				o.late = parse_double("--late", optarg, 0, 1);
				break;
			case DISORDER:
				o.disorder = parse_double("--disorder", optarg, 0, 1);
				break;
			case CLEAN:
				o.no_lang = o.broken = o.late = o.disorder = 0;
				break;
			case KEYS:
				o.keys = parse_int("--keys", optarg, 1, 1000000000);
				break;
			case DISORDER_MS:
				o.disorder_ms = parse_int("--disorder-ms", optarg,
										  0, 86400000);
				break;
			case 'h':
				usage(stdout);
				return 0;
			default:
				usage(stderr);
				return 2;
		}
	}
	for (size_t i = 0; optind == argc - 1 && i < lengthof(generators); i++)
	{
		if (strcmp(argv[optind], generators[i].name) == 0)
			run = generators[i].run;
	}
	if (run == NULL ||
		(o.producer.bootstrap == NULL) != (o.producer.topic == NULL))
	{
		usage(stderr);
		return 2;
	}
	if (seconds >= 0)
	{
		if (o.rate <= 0 || o.events >= 0)
			die("--seconds goes with --rate and without --events");
		o.events = (int64_t) (seconds * o.rate);
	}
	if (o.events < 0 && o.rate <= 0)
		die("--events or --rate is needed");

	plain_output = o.plain;
	if (o.producer.bootstrap != NULL)
		producer = producer_open(&o.producer);
	else if (setvbuf(stdout, NULL, _IOFBF, 1024 * 1024) != 0)
		die("could not set up the output buffer");

	run(&o);

	if (producer != NULL)
		producer_close(producer);
	else
		out_flush();
	free(o.producer.props);
	return 0;
}
