/*-------------------------------------------------------------------------
 *
 * probe.c
 *	  How long it takes from produce to visible, seen from outside.
 *
 *	probe BOOTSTRAP TOPIC PARTITIONS ADS PAUSE_MS
 *
 * ADS is a file of lines AD_ID TAB CAMPAIGN_ID, one a probe.  For each line:
 * note the time, produce a view of that ad whose event time is now, then ask
 * the target in a tight loop until a row of the campaign is there, and note
 * the time again.  Nobody else produces views of these ads, so the row is
 * the event's effect.  The partitions take turns; between probes is a pause
 * of up to PAUSE_MS, at random, so that probes keep no step with batches.
 *
 * Prints a line a probe: milliseconds.  The first probe, which opens the
 * connections, is not printed.  The server is that of libpq's
 * environment variables.  The loop asks over one connection with a prepared
 * statement, so its own part of a delay is less than half a millisecond.
 *
 *-------------------------------------------------------------------------
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libpq-fe.h>
#include <librdkafka/rdkafka.h>

#define PATIENCE_MS 30000

static int64_t
clock_us(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "probe: %s: %s\n", what, why);
	exit(1);
}

static void
delivered(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
	(void) rk;
	(void) opaque;
	if (m->err)
		die("could not produce", rd_kafka_err2str(m->err));
}

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		errstr[256];

	if (rd_kafka_conf_set(conf, name, value, errstr,
						  sizeof(errstr)) != RD_KAFKA_CONF_OK)
		die(name, errstr);
}

/* waits until the campaign has a row */
static void
wait_visible(PGconn *conn, const char *campaign, int64_t deadline)
{
	for (;;)
	{
		PGresult   *res = PQexecPrepared(conn, "look", 1, &campaign, NULL,
										 NULL, 1);
		int			rows = PQntuples(res);

		if (PQresultStatus(res) != PGRES_TUPLES_OK)
			die("could not ask", PQerrorMessage(conn));
		PQclear(res);
		if (rows > 0)
			return;
		if (clock_us(CLOCK_MONOTONIC) > deadline)
			die("an event did not become visible", campaign);
	}
}

static void
pause_ms(rd_kafka_t *rk, long ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000};

	rd_kafka_poll(rk, 0);
	nanosleep(&ts, NULL);
}

int
main(int argc, char **argv)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	rd_kafka_topic_t *rkt;
	PGconn	   *conn;
	PGresult   *res;
	FILE	   *ads;
	char		errstr[256];
	char		ad[40];
	char		campaign[40];
	int			partitions;
	int			n = 0;

	if (argc != 6)
		die("usage", "probe BOOTSTRAP TOPIC PARTITIONS ADS PAUSE_MS");
	partitions = atoi(argv[3]);
	ads = fopen(argv[4], "r");
	if (ads == NULL || partitions < 1)
		die(argv[4], "could not open");
	srandom(1);

	set(conf, "bootstrap.servers", argv[1]);
	set(conf, "linger.ms", "0");
	rd_kafka_conf_set_dr_msg_cb(conf, delivered);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, errstr, sizeof(errstr));
	if (rk == NULL)
		die("could not make a producer", errstr);
	rkt = rd_kafka_topic_new(rk, argv[2], NULL);
	if (rkt == NULL)
		die(argv[2], rd_kafka_err2str(rd_kafka_last_error()));

	conn = PQconnectdb("");
	if (PQstatus(conn) != CONNECTION_OK)
		die("could not connect", PQerrorMessage(conn));
	res = PQprepare(conn, "look", "SELECT 1 FROM campaigns "
					"WHERE campaign_id = $1::pg_catalog.uuid", 1, NULL);
	if (PQresultStatus(res) != PGRES_COMMAND_OK)
		die("could not ask", PQerrorMessage(conn));
	PQclear(res);

	while (fscanf(ads, "%39s %39s", ad, campaign) == 2)
	{
		char		event[512];
		int			len;
		int64_t		from;

		len = snprintf(event, sizeof(event),
					   "{\"user_id\":\"%s\",\"page_id\":\"%s\","
					   "\"ad_id\":\"%s\",\"ad_type\":\"banner\","
					   "\"event_type\":\"view\",\"event_time\":\"%" PRId64
					   "\",\"ip_address\":\"1.2.3.4\"}",
					   ad, ad, ad, clock_us(CLOCK_REALTIME) / 1000);
		from = clock_us(CLOCK_MONOTONIC);
		if (rd_kafka_produce(rkt, n % partitions, RD_KAFKA_MSG_F_COPY, event,
							 len, NULL, 0, NULL) == -1)
			die("could not produce", rd_kafka_err2str(rd_kafka_last_error()));
		wait_visible(conn, campaign, from + PATIENCE_MS * INT64_C(1000));
		if (n++ > 0)
			printf("%.3f\n", (clock_us(CLOCK_MONOTONIC) - from) / 1e3);
		pause_ms(rk, random() % (atoi(argv[5]) + 1));
	}
	if (rd_kafka_flush(rk, PATIENCE_MS) != 0)
		die("could not produce", "nobody answers");
	PQfinish(conn);
	return n < 2;
}
