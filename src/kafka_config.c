/*-------------------------------------------------------------------------
 *
 * kafka_config.c
 *	  librdkafka's configuration: which options users may set, and the
 *	  configuration of a client.
 *
 * An option is librdkafka's property name with '_' for '.'.  Only properties
 * in the table below can be set.  A property belongs to one kind:
 *
 *	- KAFKA_OPTION_SUPERUSER: makes the server process load code, run a
 *	  program, read a file or call an address of the user's choice.  The
 *	  sasl.kerberos.* names are among them because librdkafka puts their
 *	  values, unquoted, into the shell command of sasl.kerberos.kinit.cmd,
 *	  which has a default.
 *	- KAFKA_OPTION_FORBIDDEN: weir's correctness or its memory limit depends
 *	  on them (I6), or they are C pointers or test hooks.
 *	- KAFKA_OPTION_SECRET: user mappings only, and their values never appear
 *	  in a message.
 *
 * Every rd_kafka_conf_set() is checked, and properties that the floor's
 * librdkafka does not have are gated on rd_kafka_version().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <limits.h>

#include "commands/defrem.h"
#include "kafka_private.h"
#include "lib/stringinfo.h"
#include "utils/varlena.h"

/* RSS of a client, measured, in units of its queue limit. */
#define QUEUE_COST		2.3

/* One response of a broker, over all its partitions. */
#define FETCH_MAX_BYTES	(16 * 1024 * 1024)

/* By how much librdkafka lets a buffer for zstd grow at a time. */
#define ZSTD_GROWTH	3

typedef struct KafkaOption
{
	const char *name;			/* librdkafka's */
	KafkaOptionKind kind;
} KafkaOption;

static const KafkaOption kafka_options[] = {
	/* where and how to connect */
	{"bootstrap.servers", KAFKA_OPTION_SERVER},
	{"security.protocol", KAFKA_OPTION_SERVER},
	{"client.id", KAFKA_OPTION_SERVER},
	{"client.rack", KAFKA_OPTION_SERVER},
	{"client.dns.lookup", KAFKA_OPTION_SERVER},
	{"broker.address.family", KAFKA_OPTION_SERVER},
	{"broker.address.ttl", KAFKA_OPTION_SERVER},
	{"broker.version.fallback", KAFKA_OPTION_SERVER},
	{"connections.max.idle.ms", KAFKA_OPTION_SERVER},
	{"enable.metrics.push", KAFKA_OPTION_SERVER},
	{"log.connection.close", KAFKA_OPTION_SERVER},
	{"metadata.max.age.ms", KAFKA_OPTION_SERVER},
	{"metadata.recovery.strategy", KAFKA_OPTION_SERVER},
	{"metadata.recovery.rebootstrap.trigger.ms", KAFKA_OPTION_SERVER},
	{"reconnect.backoff.ms", KAFKA_OPTION_SERVER},
	{"reconnect.backoff.max.ms", KAFKA_OPTION_SERVER},
	{"retry.backoff.ms", KAFKA_OPTION_SERVER},
	{"retry.backoff.max.ms", KAFKA_OPTION_SERVER},
	{"socket.connection.setup.timeout.ms", KAFKA_OPTION_SERVER},
	{"socket.keepalive.enable", KAFKA_OPTION_SERVER},
	{"socket.nagle.disable", KAFKA_OPTION_SERVER},
	{"socket.receive.buffer.bytes", KAFKA_OPTION_SERVER},
	{"socket.send.buffer.bytes", KAFKA_OPTION_SERVER},
	{"socket.timeout.ms", KAFKA_OPTION_SERVER},
	{"topic.metadata.propagation.max.ms", KAFKA_OPTION_SERVER},
	{"topic.metadata.refresh.interval.ms", KAFKA_OPTION_SERVER},
	/* what to fetch */
	{"check.crcs", KAFKA_OPTION_SERVER},
	{"fetch.error.backoff.ms", KAFKA_OPTION_SERVER},
	{"fetch.min.bytes", KAFKA_OPTION_SERVER},
	{"fetch.wait.max.ms", KAFKA_OPTION_SERVER},
	{"isolation.level", KAFKA_OPTION_SERVER},
	/* TLS */
	{"enable.ssl.certificate.verification", KAFKA_OPTION_SERVER},
	{"https.ca.pem", KAFKA_OPTION_SERVER},
	{"ssl.ca.pem", KAFKA_OPTION_SERVER},
	{"ssl.cipher.suites", KAFKA_OPTION_SERVER},
	{"ssl.curves.list", KAFKA_OPTION_SERVER},
	{"ssl.endpoint.identification.algorithm", KAFKA_OPTION_SERVER},
	{"ssl.sigalgs.list", KAFKA_OPTION_SERVER},
	{"ssl.certificate.pem", KAFKA_OPTION_EITHER},
	{"ssl.key.password", KAFKA_OPTION_SECRET},
	{"ssl.key.pem", KAFKA_OPTION_SECRET},
	{"ssl.keystore.password", KAFKA_OPTION_SECRET},
	{"https.ca.location", KAFKA_OPTION_SUPERUSER},
	{"ssl.ca.certificate.stores", KAFKA_OPTION_SUPERUSER},
	{"ssl.ca.location", KAFKA_OPTION_SUPERUSER},
	{"ssl.certificate.location", KAFKA_OPTION_SUPERUSER},
	{"ssl.crl.location", KAFKA_OPTION_SUPERUSER},
	{"ssl.engine.id", KAFKA_OPTION_SUPERUSER},
	{"ssl.engine.location", KAFKA_OPTION_SUPERUSER},
	{"ssl.key.location", KAFKA_OPTION_SUPERUSER},
	{"ssl.keystore.location", KAFKA_OPTION_SUPERUSER},
	{"ssl.providers", KAFKA_OPTION_SUPERUSER},
	/* SASL */
	{"sasl.mechanism", KAFKA_OPTION_SERVER},
	{"sasl.mechanisms", KAFKA_OPTION_SERVER},
	{"sasl.oauthbearer.extensions", KAFKA_OPTION_SERVER},
	{"sasl.oauthbearer.method", KAFKA_OPTION_SERVER},
	{"sasl.oauthbearer.scope", KAFKA_OPTION_SERVER},
	{"sasl.username", KAFKA_OPTION_EITHER},
	{"sasl.oauthbearer.client.id", KAFKA_OPTION_EITHER},
	{"sasl.password", KAFKA_OPTION_SECRET},
	{"sasl.oauthbearer.client.secret", KAFKA_OPTION_SECRET},
	{"sasl.oauthbearer.config", KAFKA_OPTION_SECRET},
	{"sasl.oauthbearer.token.endpoint.url", KAFKA_OPTION_SUPERUSER},
	{"sasl.kerberos.keytab", KAFKA_OPTION_SUPERUSER},
	{"sasl.kerberos.kinit.cmd", KAFKA_OPTION_SUPERUSER},
	{"sasl.kerberos.min.time.before.relogin", KAFKA_OPTION_SUPERUSER},
	{"sasl.kerberos.principal", KAFKA_OPTION_SUPERUSER},
	{"sasl.kerberos.service.name", KAFKA_OPTION_SUPERUSER},
	/* code, files */
	{"debug", KAFKA_OPTION_SUPERUSER},
	{"plugin.library.paths", KAFKA_OPTION_SUPERUSER},
	{"offset.store.path", KAFKA_OPTION_SUPERUSER},
	/* weir's own */
	{"allow.auto.create.topics", KAFKA_OPTION_FORBIDDEN},
	{"auto.commit.enable", KAFKA_OPTION_FORBIDDEN},
	{"auto.commit.interval.ms", KAFKA_OPTION_FORBIDDEN},
	{"auto.offset.reset", KAFKA_OPTION_FORBIDDEN},
	{"default_topic_conf", KAFKA_OPTION_FORBIDDEN},
	{"enable.auto.commit", KAFKA_OPTION_FORBIDDEN},
	{"enable.auto.offset.store", KAFKA_OPTION_FORBIDDEN},
	{"enable.partition.eof", KAFKA_OPTION_FORBIDDEN},
	{"enable.sasl.oauthbearer.unsecure.jwt", KAFKA_OPTION_FORBIDDEN},
	{"enabled_events", KAFKA_OPTION_FORBIDDEN},
	{"fetch.max.bytes", KAFKA_OPTION_FORBIDDEN},
	{"fetch.message.max.bytes", KAFKA_OPTION_FORBIDDEN},
	{"fetch.queue.backoff.ms", KAFKA_OPTION_FORBIDDEN},
	{"group.id", KAFKA_OPTION_FORBIDDEN},
	{"group.instance.id", KAFKA_OPTION_FORBIDDEN},
	{"group.protocol", KAFKA_OPTION_FORBIDDEN},
	{"interceptors", KAFKA_OPTION_FORBIDDEN},
	{"log.queue", KAFKA_OPTION_FORBIDDEN},
	{"log.thread.name", KAFKA_OPTION_FORBIDDEN},
	{"log_level", KAFKA_OPTION_FORBIDDEN},
	{"max.partition.fetch.bytes", KAFKA_OPTION_FORBIDDEN},
	{"message.max.bytes", KAFKA_OPTION_FORBIDDEN},
	{"metadata.broker.list", KAFKA_OPTION_FORBIDDEN},
	{"offset.store.method", KAFKA_OPTION_FORBIDDEN},
	{"opaque", KAFKA_OPTION_FORBIDDEN},
	{"partition.assignment.strategy", KAFKA_OPTION_FORBIDDEN},
	{"queued.max.messages.kbytes", KAFKA_OPTION_FORBIDDEN},
	{"queued.min.messages", KAFKA_OPTION_FORBIDDEN},
	{"receive.message.max.bytes", KAFKA_OPTION_FORBIDDEN},
	{"ssl_ca", KAFKA_OPTION_FORBIDDEN},
	{"ssl_certificate", KAFKA_OPTION_FORBIDDEN},
	{"ssl_engine_callback_data", KAFKA_OPTION_FORBIDDEN},
	{"ssl_key", KAFKA_OPTION_FORBIDDEN},
	{"statistics.interval.ms", KAFKA_OPTION_FORBIDDEN},
	{"topic.blacklist", KAFKA_OPTION_FORBIDDEN}
};

/* An option's name for a property's: '_' for '.'; palloc'd. */
static char *
option_name(const char *property)
{
	char	   *name = pstrdup(property);

	for (char *c = name; *c; c++)
		if (*c == '.')
			*c = '_';
	return name;
}

/* Is this option name that property, with '_' for '.'? */
static bool
option_is(const char *name, const char *property)
{
	for (; *name && *property; name++, property++)
		if (*name != (*property == '.' ? '_' : *property))
			return false;
	return *name == *property;
}

static const KafkaOption *
find_option(const char *name)
{
	for (int i = 0; i < lengthof(kafka_options); i++)
		if (option_is(name, kafka_options[i].name))
			return &kafka_options[i];
	return NULL;
}

static bool
starts_with(const char *name, const char *start)
{
	return strncmp(name, start, strlen(start)) == 0;
}

static bool
ends_with(const char *name, const char *end)
{
	size_t		len = strlen(name);
	size_t		end_len = strlen(end);

	return len >= end_len && strcmp(name + len - end_len, end) == 0;
}

KafkaOptionKind
kafka_option_kind(const char *name)
{
	const KafkaOption *option = find_option(name);

	if (option)
		return option->kind;

	/* Families, so that the message says more than "unknown". */
	if (starts_with(name, "test_mock_") || starts_with(name, "internal_") ||
		ends_with(name, "_cb"))
		return KAFKA_OPTION_FORBIDDEN;
	return KAFKA_OPTION_UNKNOWN;
}

char *
kafka_option_near(const char *name)
{
	StringInfoData near;
	int			len = strlen(name);
	int			best;

	/* varstr_levenshtein_less_equal() refuses longer ones */
	if (len > 255)
		return NULL;

	initStringInfo(&near);
	best = Max(2, Min(len / 3, 8));
	for (int i = 0; i < lengthof(kafka_options); i++)
	{
		char	   *allowed;
		int			distance;

		if (kafka_options[i].kind == KAFKA_OPTION_FORBIDDEN)
			continue;
		allowed = option_name(kafka_options[i].name);
		distance = varstr_levenshtein_less_equal(name, len, allowed,
												 strlen(allowed),
												 1, 1, 1, best, true);
		if (distance > best)
			continue;
		if (distance < best)
			resetStringInfo(&near);
		best = distance;
		if (near.len > 0)
			appendStringInfoString(&near, ", ");
		appendStringInfo(&near, "\"%s\"", allowed);
	}
	return near.len > 0 ? near.data : NULL;
}

char *
kafka_option_check(const char *name, const char *value)
{
	const KafkaOption *option = find_option(name);
	rd_kafka_conf_t *conf;
	rd_kafka_conf_res_t res;
	char		errstr[512];

	if (option == NULL)
		return psprintf("unknown option \"%s\"", name);

	conf = rd_kafka_conf_new();
	res = rd_kafka_conf_set(conf, option->name, value, errstr,
							sizeof(errstr));
	rd_kafka_conf_destroy(conf);

	if (res == RD_KAFKA_CONF_OK)
		return NULL;
	if (res == RD_KAFKA_CONF_UNKNOWN)
		return psprintf("option \"%s\" does not exist in librdkafka %s",
						name, rd_kafka_version_str());
	/* librdkafka's words may repeat the value */
	if (option->kind == KAFKA_OPTION_SECRET)
		return psprintf("invalid value for option \"%s\"", name);
	return psprintf("invalid value for option \"%s\": %s", name, errstr);
}

/*
 * Bytes that librdkafka may keep in the queue.  All partitions are forwarded
 * into one queue and librdkafka compares the limit with the whole of it, but
 * for every partition by itself, so each can overshoot by one response.
 */
static int64
queue_limit_bytes(const KafkaConfig *config)
{
	int64		limit = (int64) (config->memory_limit / QUEUE_COST);

	limit -= (int64) config->fetch_message_max_bytes *
		Max(config->partitions, 1);
	return Max(limit, 1024 * 1024);
}

/* Set one property, unless an earlier one failed. */
static bool
set_property(rd_kafka_conf_t *conf, const char *name, const char *value,
			 char *errstr, size_t errsize)
{
	return rd_kafka_conf_set(conf, name, value,
							 errstr, errsize) == RD_KAFKA_CONF_OK;
}

static bool
set_integer(rd_kafka_conf_t *conf, const char *name, int64 value,
			char *errstr, size_t errsize)
{
	char text[	32];

	snprintf(text, sizeof(text), INT64_FORMAT, value);
	return set_property(conf, name, text, errstr, errsize);
}

/*
 * What users may override comes here, before their options.
 *
 * The client id goes to brokers' logs and metrics: only tame characters of it.
 */
static bool
set_defaults(rd_kafka_conf_t *conf, const KafkaConfig *config,
			 char *errstr, size_t errsize)
{
	char		client_id[256];

	strlcpy(client_id, config->client_id ? config->client_id : "weir",
			sizeof(client_id));
	for (char *c = client_id; *c; c++)
		if (!isalnum((unsigned char) *c) && strchr("._-/", *c) == NULL)
			*c = '_';

	return set_property(conf, "client.id", client_id, errstr, errsize) &&
		set_property(conf, "isolation.level", "read_committed",
					 errstr, errsize) &&
		set_property(conf, "fetch.wait.max.ms", "500", errstr, errsize) &&
		set_property(conf, "fetch.error.backoff.ms", "100",
					 errstr, errsize) &&
		set_property(conf, "check.crcs", "true", errstr, errsize) &&
		set_property(conf, "socket.keepalive.enable", "true",
					 errstr, errsize) &&
		set_property(conf, "topic.metadata.refresh.interval.ms", "30000",
					 errstr, errsize) &&
		set_property(conf, "topic.metadata.propagation.max.ms", "10000",
					 errstr, errsize);
}

/*
 * The largest response that is received, and the largest buffer that a zstd
 * batch is decompressed into.
 *
 * A batch larger than fetch.max.bytes comes alone, whole; one for which there
 * is no room can never be read.  A batch may well be larger than the largest
 * message, so the memory for ingest counts as well.  librdkafka triples the
 * buffer for zstd until the batch fits, so that three times as much must be
 * allowed; buffers are not touched beyond what is in them.
 */
int64
kafka_receive_limit(const KafkaConfig *config)
{
	int64		largest = Max(config->max_message_bytes,
							  config->memory_limit);

	return Min(ZSTD_GROWTH * largest + 1024 * 1024, INT_MAX);
}

/* What weir depends on comes here, after the users' options. */
static bool
set_fixed(rd_kafka_conf_t *conf, const KafkaConfig *config,
		  int64 queue_limit, char *errstr, size_t errsize)
{
	int64		receive_max = kafka_receive_limit(config);
	int64		fetch_max = Max(FETCH_MAX_BYTES,
								config->fetch_message_max_bytes);

	fetch_max = Min(fetch_max, receive_max - 1024);

	if (!set_property(conf, "enable.auto.commit", "false",
					  errstr, errsize) ||
		!set_property(conf, "enable.auto.offset.store", "false",
					  errstr, errsize) ||
		!set_property(conf, "auto.offset.reset", "error", errstr, errsize) ||
		!set_property(conf, "enable.partition.eof", "true",
					  errstr, errsize) ||
		!set_property(conf, "allow.auto.create.topics", "false",
					  errstr, errsize) ||
		!set_property(conf, "log.queue", "true", errstr, errsize) ||
		!set_property(conf, "log.thread.name", "false", errstr, errsize) ||
		!set_integer(conf, "log_level", config->log_level,
					 errstr, errsize) ||
		!set_property(conf, "statistics.interval.ms", "0",
					  errstr, errsize) ||
		!set_integer(conf, "fetch.message.max.bytes",
					 config->fetch_message_max_bytes, errstr, errsize) ||
		!set_integer(conf, "fetch.max.bytes", fetch_max, errstr, errsize) ||
		!set_integer(conf, "receive.message.max.bytes", receive_max,
					 errstr, errsize) ||
		!set_integer(conf, "queued.min.messages", 10000000,
					 errstr, errsize) ||
		!set_integer(conf, "queued.max.messages.kbytes",
					 Min(queue_limit / 1024, 2097151), errstr, errsize))
		return false;

	if (rd_kafka_version() >= RDKAFKA_2_2_0)
		return set_property(conf, "fetch.queue.backoff.ms", "5",
							errstr, errsize);
	return true;
}

/* The users' options.  *runs_kinit: a superuser arranged for a ticket. */
static bool
set_options(rd_kafka_conf_t *conf, const KafkaConfig *config,
			bool *has_servers, bool *runs_kinit,
			char *errstr, size_t errsize)
{
	ListCell   *lc;

	*has_servers = false;
	*runs_kinit = false;
	foreach(lc, config->options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		const KafkaOption *option = find_option(def->defname);
		const char *value = defGetString(def);
		char		reason[512];

		if (option == NULL || option->kind == KAFKA_OPTION_FORBIDDEN)
		{
			snprintf(errstr, errsize, "option \"%s\" cannot be set",
					 def->defname);
			return false;
		}
		if (!set_property(conf, option->name, value, reason, sizeof(reason)))
		{
			snprintf(errstr, errsize,
					 option->kind == KAFKA_OPTION_SECRET ?
					 "invalid value for option \"%s\"" :
					 "invalid value for option \"%s\": %s",
					 def->defname, reason);
			return false;
		}
		if (strcmp(option->name, "bootstrap.servers") == 0)
			*has_servers = (value[0] != '\0');
		if (strcmp(option->name, "sasl.kerberos.keytab") == 0 ||
			strcmp(option->name, "sasl.kerberos.kinit.cmd") == 0)
			*runs_kinit = true;
	}
	return true;
}

/*
 * The configuration of a client, or NULL and the reason in errstr.  The
 * caller owns it until rd_kafka_new() has succeeded.
 */
rd_kafka_conf_t *
kafka_conf_build(const KafkaConfig *config, int64 *queue_limit,
				 char *errstr, size_t errsize)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	bool		has_servers;
	bool		runs_kinit;

	*queue_limit = queue_limit_bytes(config);
	if (!set_defaults(conf, config, errstr, errsize) ||
		!set_options(conf, config, &has_servers, &runs_kinit,
					 errstr, errsize) ||
		!set_fixed(conf, config, *queue_limit, errstr, errsize))
		goto refused;

	if (!has_servers)
	{
		strlcpy(errstr, "option \"bootstrap_servers\" is not set", errsize);
		goto refused;
	}

	/*
	 * Without a key table of a superuser's choice there is no reason to run
	 * librdkafka's default shell command, which is kinit.
	 */
	if (!runs_kinit &&
		!set_property(conf, "sasl.kerberos.min.time.before.relogin", "0",
					  errstr, errsize))
		goto refused;
	return conf;

refused:
	rd_kafka_conf_destroy(conf);
	return NULL;
}
