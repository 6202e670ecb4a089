/*-------------------------------------------------------------------------
 *
 * support.c
 *	  What the test programs share: errors, arguments, configuration.
 *
 * A test program that meets anything unexpected says so on standard error
 * and exits with 1: a test must never go on with half of its input.
 *
 *-------------------------------------------------------------------------
 */
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char *progname = "support";

/* the newest text librdkafka gave its error callback; for messages only */
static pthread_mutex_t last_error_lock = PTHREAD_MUTEX_INITIALIZER;
static char last_error[512];

/* print a message and exit with status 1 */
void
die(const char *fmt,...)
{
	va_list		ap;

	fflush(stdout);
	fprintf(stderr, "%s: ", progname);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);

	/* not exit(): librdkafka's threads may be running */
	fflush(stderr);
	_Exit(1);
}

void *
xmalloc(size_t size)
{
	void	   *p = malloc(size > 0 ? size : 1);

	if (p == NULL)
		die("out of memory");
	return p;
}

void *
xcalloc(size_t n, size_t size)
{
	void	   *p = calloc(n > 0 ? n : 1, size > 0 ? size : 1);

	if (p == NULL)
		die("out of memory");
	return p;
}

char *
xstrdup(const char *s)
{
	char	   *p = strdup(s);

	if (p == NULL)
		die("out of memory");
	return p;
}

/* the whole of s as a decimal number within the limits, or die */
int64_t
parse_int(const char *what, const char *s, int64_t min, int64_t max)
{
	char	   *end;
	long long	value;

	errno = 0;
	value = strtoll(s, &end, 10);
	if (errno != 0 || end == s || *end != '\0')
		die("%s is not a number: \"%s\"", what, s);
	if (value < min || value > max)
		die("%s is out of range (%lld to %lld): \"%s\"", what,
			(long long) min, (long long) max, s);
	return value;
}

/* the same for a fraction */
double
parse_double(const char *what, const char *s, double min, double max)
{
	char	   *end;
	double		value;

	errno = 0;
	value = strtod(s, &end);
	if (errno != 0 || end == s || *end != '\0')
		die("%s is not a number: \"%s\"", what, s);
	if (!(value >= min && value <= max))
		die("%s is out of range (%g to %g): \"%s\"", what, min, max, s);
	return value;
}

static int64_t
clock_us(clockid_t id)
{
	struct timespec ts;

	if (clock_gettime(id, &ts) != 0)
		die("could not read the clock: %s", strerror(errno));
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* microseconds since 1970 */
int64_t
now_us(void)
{
	return clock_us(CLOCK_REALTIME);
}

/* microseconds since some fixed point, for durations */
int64_t
monotonic_us(void)
{
	return clock_us(CLOCK_MONOTONIC);
}

static void
error_cb(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
	(void) rk;
	(void) opaque;
	pthread_mutex_lock(&last_error_lock);
	snprintf(last_error, sizeof(last_error), "%s: %s",
			 rd_kafka_err2name(err), reason);
	pthread_mutex_unlock(&last_error_lock);
}

/* forget what the error callback said */
void
kafka_last_error_reset(void)
{
	pthread_mutex_lock(&last_error_lock);
	last_error[0] = '\0';
	pthread_mutex_unlock(&last_error_lock);
}

/* a copy, valid until the next call, of what the error callback said last */
const char *
kafka_last_error(void)
{
	static char copy[sizeof(last_error)];

	pthread_mutex_lock(&last_error_lock);
	memcpy(copy, last_error, sizeof(copy));
	pthread_mutex_unlock(&last_error_lock);
	return copy[0] != '\0' ? copy : "no error was reported";
}

/*
 * A configuration for clients of brokers on this machine: quick to connect
 * again, and silent about connections that break, since tests break them;
 * who fails in the end adds kafka_last_error to the message.
 * The caller owns the result until kafka_new takes it.
 */
rd_kafka_conf_t *
kafka_conf_new(const char *bootstrap)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();

	if (bootstrap != NULL)
		kafka_conf_set(conf, "bootstrap.servers", bootstrap);
	kafka_conf_set(conf, "client.id", progname);
	kafka_conf_set(conf, "log.connection.close", "false");
	kafka_conf_set(conf, "log_level", "0");
	kafka_conf_set(conf, "reconnect.backoff.ms", "20");
	kafka_conf_set(conf, "reconnect.backoff.max.ms", "200");
	rd_kafka_conf_set_error_cb(conf, error_cb);
	return conf;
}

void
kafka_conf_set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		errstr[512];

	if (rd_kafka_conf_set(conf, name, value, errstr,
						  sizeof(errstr)) != RD_KAFKA_CONF_OK)
		die("%s", errstr);
}

/* the same from "name=value" */
void
kafka_conf_set_pair(rd_kafka_conf_t *conf, const char *pair)
{
	const char *eq = strchr(pair, '=');
	char	   *name;

	if (eq == NULL || eq == pair)
		die("not of the form name=value: \"%s\"", pair);
	name = xstrdup(pair);
	name[eq - pair] = '\0';
	kafka_conf_set(conf, name, eq + 1);
	free(name);
}

/* takes ownership of conf */
rd_kafka_t *
kafka_new(rd_kafka_type_t type, rd_kafka_conf_t *conf)
{
	char		errstr[512];
	rd_kafka_t *rk = rd_kafka_new(type, conf, errstr, sizeof(errstr));

	if (rk == NULL)
		die("could not create a Kafka client: %s", errstr);
	return rk;
}
