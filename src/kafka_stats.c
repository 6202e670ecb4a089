/*-------------------------------------------------------------------------
 *
 * kafka_stats.c
 *	  librdkafka's statistics: is a partition read to its end, and is what
 *	  says so alive?
 *
 * librdkafka hands out a JSON document each statistics interval.  Its
 * callback only keeps the string; it is parsed here, outside librdkafka, by
 * PostgreSQL's own parser with actions that pick the few fields we need:
 *
 *	  ts                                    monotonic clock, microseconds
 *	  brokers.*.{nodeid,state,rxidle}
 *	  topics.TOPIC.partitions.N.{leader,fetch_state,fetchq_size,
 *								 ls_offset,hi_offset}
 *
 * A partition is alive when its leader is UP and has sent something lately
 * (an idle fetch is answered every fetch.wait.max.ms), and its fetch is
 * active.
 *
 * That alone is no evidence.  librdkafka keeps the fetch "active", and the
 * end offset of the last good response, while the broker answers every fetch
 * with an error that librdkafka deals with by itself, or told us of once: the
 * leader moved, the right to read was taken away, the topic is gone.  So with
 * each statistics that look like the end, the leaders are asked for the end
 * offsets (once an interval, only while something is idle), and the answer is
 * the evidence, as of the time it was asked for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/jsonapi.h"
#include "kafka_private.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* The deepest field we look at: topics.TOPIC.partitions.N.field. */
#define MAX_DEPTH	5

/* Later than this after the longest wait, a broker is not answering. */
#define ALIVE_SLACK_MS	2000

/* How long to go on asking for end offsets. */
#define CONFIRM_TIMEOUT_MS	5000

/* So many statistics without a leader are news. */
#define LEADER_MISSES	3

/* PostgreSQL 16 gave the parser's actions a result. */
#if PG_VERSION_NUM >= 160000
#define JSON_ACTION			static JsonParseErrorType
#define JSON_ACTION_RETURN	return JSON_SUCCESS
#else
#define JSON_ACTION			static void
#define JSON_ACTION_RETURN	return
#endif

typedef struct BrokerStats
{
	int32		nodeid;
	bool		up;
	int64		rxidle;			/* microseconds; -1: nothing received yet */
} BrokerStats;

typedef struct PartitionStats
{
	int32		partition;		/* -1: librdkafka's internal one */
	int32		leader;			/* -1: none */
	bool		active;
	int64		ls_offset;
	int64		hi_offset;
	int64		fetchq_size;
} PartitionStats;

typedef struct StatsParser
{
	const char *topic;
	int			depth;			/* of objects open; 1: top level */
	char	   *path[MAX_DEPTH + 1];	/* field names, by depth */
	int64		ts;				/* monotonic, microseconds; 0: none */
	BrokerStats *brokers;
	int			nbrokers;
	int			brokers_size;
	PartitionStats *parts;
	int			nparts;
	int			parts_size;
} StatsParser;

static bool
at_broker(StatsParser *parser)
{
	return parser->depth == 3 && strcmp(parser->path[1], "brokers") == 0;
}

static bool
at_partition(StatsParser *parser)
{
	return parser->depth == 5 && strcmp(parser->path[1], "topics") == 0 &&
		strcmp(parser->path[2], parser->topic) == 0 &&
		strcmp(parser->path[3], "partitions") == 0;
}

JSON_ACTION
object_start(void *state)
{
	StatsParser *parser = state;
	BrokerStats *broker;
	PartitionStats *part;

	parser->depth++;
	if (at_broker(parser))
	{
		if (parser->nbrokers == parser->brokers_size)
		{
			parser->brokers_size *= 2;
			parser->brokers = repalloc(parser->brokers,
									   sizeof(BrokerStats) *
									   parser->brokers_size);
		}
		broker = &parser->brokers[parser->nbrokers++];
		memset(broker, 0, sizeof(BrokerStats));
		broker->nodeid = -1;
		broker->rxidle = -1;
	}
	else if (at_partition(parser))
	{
		if (parser->nparts == parser->parts_size)
		{
			parser->parts_size *= 2;
			parser->parts = repalloc(parser->parts,
									 sizeof(PartitionStats) *
									 parser->parts_size);
		}
		part = &parser->parts[parser->nparts++];
		memset(part, 0, sizeof(PartitionStats));
		part->partition = -1;
		part->leader = -1;
		part->ls_offset = -1;
		part->hi_offset = -1;
	}
	JSON_ACTION_RETURN;
}

JSON_ACTION
object_end(void *state)
{
	((StatsParser *) state)->depth--;
	JSON_ACTION_RETURN;
}

JSON_ACTION
field_start(void *state, char *fname, bool isnull)
{
	StatsParser *parser = state;

	if (parser->depth >= 1 && parser->depth <= MAX_DEPTH)
		parser->path[parser->depth] = fname;
	JSON_ACTION_RETURN;
}

JSON_ACTION
scalar(void *state, char *token, JsonTokenType type)
{
	StatsParser *parser = state;
	const char *field;

	if (parser->depth == 1 && strcmp(parser->path[1], "ts") == 0)
		parser->ts = strtoll(token, NULL, 10);
	else if (at_broker(parser))
	{
		BrokerStats *broker = &parser->brokers[parser->nbrokers - 1];

		field = parser->path[3];
		if (strcmp(field, "nodeid") == 0)
			broker->nodeid = atoi(token);
		else if (strcmp(field, "state") == 0)
			broker->up = (strcmp(token, "UP") == 0);
		else if (strcmp(field, "rxidle") == 0)
			broker->rxidle = strtoll(token, NULL, 10);
	}
	else if (at_partition(parser))
	{
		PartitionStats *part = &parser->parts[parser->nparts - 1];

		field = parser->path[5];
		if (strcmp(field, "partition") == 0)
			part->partition = atoi(token);
		else if (strcmp(field, "leader") == 0)
			part->leader = atoi(token);
		else if (strcmp(field, "fetch_state") == 0)
			part->active = (strcmp(token, "active") == 0);
		else if (strcmp(field, "ls_offset") == 0)
			part->ls_offset = strtoll(token, NULL, 10);
		else if (strcmp(field, "hi_offset") == 0)
			part->hi_offset = strtoll(token, NULL, 10);
		else if (strcmp(field, "fetchq_size") == 0)
			part->fetchq_size = strtoll(token, NULL, 10);
	}
	JSON_ACTION_RETURN;
}

/* Is this broker up, and has it said something lately? */
static bool
broker_alive(KafkaClient *client, StatsParser *parser, int32 nodeid)
{
	int64		limit_ms = client->fetch_wait_ms + ALIVE_SLACK_MS;

	for (int i = 0; i < parser->nbrokers; i++)
	{
		BrokerStats *broker = &parser->brokers[i];

		if (broker->nodeid == nodeid && broker->up && broker->rxidle >= 0 &&
			broker->rxidle <= limit_ms * 1000)
			return true;
	}
	return false;
}

/* Move what was parsed into the client. */
static void
apply_stats(KafkaClient *client, StatsParser *parser)
{
	bool		all_alive = true;
	bool		any = false;
	int32		missing = -1;

	client->queue_bytes = 0;
	for (int i = 0; i < client->nparts; i++)
		client->parts[i].alive = false;

	for (int i = 0; i < parser->nparts; i++)
	{
		PartitionStats *stats = &parser->parts[i];
		KafkaPartition *part;
		bool		leader_alive;

		if (stats->partition < 0 || stats->partition >= client->nparts)
			continue;
		part = &client->parts[stats->partition];
		if (!part->started || part->failed)
			continue;

		/* All partitions share one queue, and each reports the whole. */
		client->queue_bytes = Max(client->queue_bytes, stats->fetchq_size);

		leader_alive = stats->leader >= 0 &&
			broker_alive(client, parser, stats->leader);
		part->alive = leader_alive && stats->active;
		part->stat_end = client->read_committed ?
			stats->ls_offset : stats->hi_offset;
		part->leader_misses = leader_alive ? 0 : part->leader_misses + 1;
		if (part->leader_misses >= LEADER_MISSES && missing < 0)
			missing = stats->partition;
		any = true;
		all_alive = all_alive && leader_alive;
	}

	if (any && all_alive)
		kafka_note_alive(client);
	else if (missing >= 0 && client->last_error.class == KAFKA_OK)
	{
		KafkaError	error;

		kafka_fill_error(client, &error, RD_KAFKA_RESP_ERR__TRANSPORT,
						 missing, -1, client->reason);
		kafka_note_error(client, &error);
	}
}

/* Ask for the end offsets if some partition looks idle. */
static void
confirm_ends(KafkaClient *client)
{
	int			n = 0;
	bool		idle = false;

	for (int i = 0; i < client->nparts; i++)
	{
		KafkaPartition *part = &client->parts[i];

		if (!part->started || part->failed)
			continue;
		n = i + 1;
		idle = idle || part->troubled ||
			(part->alive && part->position == part->stat_end);
	}
	if (idle)
		kafka_ask(client, KAFKA_JOB_CONFIRM, n, 0, CONFIRM_TIMEOUT_MS);
}

/* Parse client->stats; what cannot be parsed voids all evidence. */
void
kafka_parse_stats(KafkaClient *client)
{
	MemoryContext oldcxt;
	StatsParser *parser;
	JsonLexContext *lex;
	JsonSemAction actions = {0};
	int			len = strlen(client->stats);

	MemoryContextReset(client->parse_cxt);
	oldcxt = MemoryContextSwitchTo(client->parse_cxt);

	parser = palloc0(sizeof(StatsParser));
	parser->topic = client->topic ? client->topic : "";
	for (int i = 0; i <= MAX_DEPTH; i++)
		parser->path[i] = "";
	parser->brokers_size = parser->parts_size = 16;
	parser->brokers = palloc(sizeof(BrokerStats) * parser->brokers_size);
	parser->parts = palloc(sizeof(PartitionStats) * parser->parts_size);

	actions.semstate = parser;
	actions.object_start = object_start;
	actions.object_end = object_end;
	actions.object_field_start = field_start;
	actions.scalar = scalar;

#if PG_VERSION_NUM >= 170000
	lex = makeJsonLexContextCstringLen(NULL, client->stats, len, PG_UTF8,
									   true);
#else
	lex = makeJsonLexContextCstringLen(client->stats, len, PG_UTF8, true);
#endif
	if (pg_parse_json(lex, &actions) != JSON_SUCCESS)
	{
		elog(DEBUG1, "could not parse librdkafka's statistics");
		parser->nparts = 0;
		parser->ts = 0;
	}
	MemoryContextSwitchTo(oldcxt);

	/* When it was said, in wall-clock time. */
	client->stats_at = GetCurrentTimestamp();
	if (parser->ts > 0)
		client->stats_at -= Max(kafka_monotonic_ms() * 1000 - parser->ts, 0);
	apply_stats(client, parser);
	confirm_ends(client);
	MemoryContextReset(client->parse_cxt);
}

bool
kafka_partition_at_end(KafkaClient *client, int32 partition,
					   int64 *end_offset, TimestampTz *as_of)
{
	KafkaPartition *part;

	*end_offset = -1;
	*as_of = client->stats_at;
	if (partition < 0 || partition >= client->nparts)
		return false;
	part = &client->parts[partition];
	if (!part->started || part->failed)
		return false;

	*end_offset = Max(part->stat_end, part->asked_end);
	*end_offset = Max(*end_offset, -1);
	*as_of = part->asked_at;

	/* news of an outage may be younger than the statistics */
	if (client->last_error.partition < 0 &&
		(client->last_error.class == KAFKA_TRANSIENT ||
		 client->last_error.class == KAFKA_AUTHENTICATION))
		return false;

	if (part->asked_end < 0 || part->asked_end != part->position)
		return false;
	/* after an error the end of the last good response says nothing */
	if (part->troubled)
		return part->asked_at > part->troubled_at;
	return part->alive && part->position == part->stat_end &&
		part->asked_at >= client->stats_at -
		(2 * client->statistics_interval_ms + ALIVE_SLACK_MS) * INT64CONST(1000);
}

int64
kafka_queue_bytes(KafkaClient *client)
{
	return client->queue_bytes;
}
