/*-------------------------------------------------------------------------
 *
 * api_sample.c
 *	  Looking at payloads: weir.sample() and weir.dead_letter_text().
 *
 * sample() is the one function that talks to a broker itself.  It opens a
 * client with the caller's user mapping, reads the end of every partition, and
 * returns the newest n records by Kafka timestamp.  The client lives in a
 * memory context of its own and is closed with it, on errors as well.
 *
 * The last n offsets need not hold n records: markers of transactions, aborted
 * records and what compaction took away have offsets, too.  So a partition is
 * read in rounds, backwards: the last n offsets, then four times as many
 * before those, and so on, until n records are found or its beginning is
 * reached.  Of a round only the newest are kept, as many as are still wanted.
 * After SAMPLE_BUDGET_MS what has been found is returned, with a warning.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "foreign/foreign.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "api.h"
#include "compat.h"
#include "fdw.h"
#include "kafka.h"
#include "settings.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(weir_sample);
PG_FUNCTION_INFO_V1(weir_dead_letter_text);

/* How long the broker may take, for a request and for the records. */
#define SAMPLE_TIMEOUT_MS 10000
#define SAMPLE_BUDGET_MS 30000
#define SAMPLE_GROWTH 4
#define SAMPLE_BATCH 100
#define SAMPLE_MAX 10000

/* A record, copied. */
typedef struct SampleRecord
{
	int32		partition;
	int64		offset;
	int64		timestamp_ms;	/* -1: none */
	bytea	   *key;			/* NULL: none */
	bytea	   *payload;		/* NULL: tombstone */
} SampleRecord;

/* A partition: the round under way, [from, to). */
typedef struct SamplePartition
{
	bool		reading;
	int64		begun_in;		/* the batch during which the round began:
								 * what else is in that is of the round before */
	int64		low;			/* its beginning */
	int64		from;
	int64		to;
	int64		step;			/* offsets of the round */
	int			wanted;			/* records, at the begin of the round */
	int64		seen;			/* records of the round */
	SampleRecord *newest;		/* of these, wanted at most; circular */
} SamplePartition;

typedef struct Sample
{
	KafkaClient *client;
	int			n;				/* how many are wanted */
	int			npartitions;
	SamplePartition *partitions;
	int			reading;		/* partitions that are */
	int64		batches;		/* taken from the client so far */
	SampleRecord *records;
	int			nrecords;
	int			size;			/* of records */
} Sample;

/*
 * Bytes as text: themselves when they are UTF-8 without NUL, else in the
 * escape format of bytea.
 */
static Datum
payload_text(bytea *payload)
{
	const char *data = VARDATA_ANY(payload);
	int			len = VARSIZE_ANY_EXHDR(payload);

	if (memchr(data, '\0', len) == NULL && pg_verifymbstr(data, len, true))
		return PointerGetDatum(cstring_to_text_with_len(data, len));
	return DirectFunctionCall2(binary_encode, PointerGetDatum(payload),
							   CStringGetTextDatum("escape"));
}

Datum
weir_dead_letter_text(PG_FUNCTION_ARGS)
{
	weir_require_preload();
	return payload_text(PG_GETARG_BYTEA_PP(0));
}

static bytea *
copy_bytes(const void *data, size_t len)
{
	bytea	   *copy;

	if (data == NULL)
		return NULL;
	copy = palloc(VARHDRSZ + len);
	SET_VARSIZE(copy, VARHDRSZ + len);
	memcpy(VARDATA(copy), data, len);
	return copy;
}

/* Newest first; ties by offset, so that all partitions are seen. */
static int
compare_records(const void *a, const void *b)
{
	const SampleRecord *ra = a;
	const SampleRecord *rb = b;

	if (ra->timestamp_ms != rb->timestamp_ms)
		return ra->timestamp_ms > rb->timestamp_ms ? -1 : 1;
	if (ra->offset != rb->offset)
		return ra->offset > rb->offset ? -1 : 1;
	return ra->partition < rb->partition ? -1 : 1;
}

static void
raise_kafka_error(const KafkaError *error)
{
	ereport(ERROR,
			errcode(error->sqlerrcode),
			errmsg("%s", error->message),
			error->hint[0] ? errhint("%s", error->hint) : 0);
}

static const KafkaAnswer *
ask(Sample *sample, KafkaRequestKind kind)
{
	const KafkaAnswer *answer = kafka_request_wait(sample->client, kind,
												   sample->npartitions, 0,
												   SAMPLE_TIMEOUT_MS);

	if (answer->error.class != KAFKA_OK && answer->answered == 0)
		raise_kafka_error(&answer->error);
	return answer;
}

/* Begin a round: so many offsets before where the last one began. */
static void
begin_round(Sample *sample, int32 p)
{
	SamplePartition *part = &sample->partitions[p];

	part->from = part->to - part->low > part->step ?
		part->to - part->step : part->low;
	part->step *= SAMPLE_GROWTH;
	part->seen = 0;
	part->begun_in = sample->batches;
	part->newest = palloc0(sizeof(SampleRecord) * part->wanted);
	kafka_start(sample->client, p, part->from);
}

/* Learn the ends and begin to fetch shortly before them. */
static void
start_partitions(Sample *sample)
{
	const KafkaAnswer *answer;
	KafkaError	missing = {KAFKA_OK};

	sample->npartitions = ask(sample, KAFKA_REQUEST_METADATA)->partitions;
	sample->partitions = palloc0(sizeof(SamplePartition) *
								 sample->npartitions);
	answer = ask(sample, KAFKA_REQUEST_LOW);
	for (int p = 0; p < sample->npartitions; p++)
		sample->partitions[p].low = answer->offsets[p];
	answer = ask(sample, KAFKA_REQUEST_END);
	missing = answer->error;
	for (int p = 0; p < sample->npartitions; p++)
	{
		SamplePartition *part = &sample->partitions[p];

		part->to = answer->offsets[p];
		part->step = part->wanted = sample->n;
		if (part->low < 0 || part->to <= part->low)
			continue;
		part->reading = true;
		sample->reading++;
		begin_round(sample, p);
	}
	if (missing.class != KAFKA_OK)
		ereport(WARNING,
				errcode(missing.sqlerrcode),
				errmsg("%s", missing.message),
				errdetail("Its records are not among those that are shown."));
}

static void
free_record(SampleRecord *record)
{
	if (record->key)
		pfree(record->key);
	if (record->payload)
		pfree(record->payload);
}

static void
keep_record(SamplePartition *part, const KafkaMessage *message)
{
	SampleRecord *record = &part->newest[part->seen % part->wanted];

	if (part->seen >= part->wanted)
		free_record(record);
	part->seen++;
	record->partition = message->partition;
	record->offset = message->offset;
	record->timestamp_ms = message->timestamp_ms;
	record->key = copy_bytes(message->key, message->key_len);
	record->payload = copy_bytes(message->payload, message->payload_len);
}

/* A round has come to its end: take what it has found, and go on or not. */
static void
round_done(Sample *sample, int32 p)
{
	SamplePartition *part = &sample->partitions[p];
	int			found = (int) Min(part->seen, part->wanted);

	if (sample->nrecords + found > sample->size)
	{
		sample->size = Max(sample->nrecords + found, sample->size * 2);
		sample->records = sample->records ?
			repalloc_huge(sample->records,
						  sizeof(SampleRecord) * sample->size) :
			MemoryContextAllocHuge(CurrentMemoryContext,
								   sizeof(SampleRecord) * sample->size);
	}
	memcpy(sample->records + sample->nrecords, part->newest,
		   sizeof(SampleRecord) * found);
	sample->nrecords += found;
	pfree(part->newest);
	kafka_stop(sample->client, p);

	part->wanted -= found;
	part->to = part->from;
	if (part->wanted > 0 && part->to > part->low)
	{
		begin_round(sample, p);
		return;
	}
	part->reading = false;
	sample->reading--;
}

/* Returns true when it brings the search forward. */
static bool
take_message(Sample *sample, const KafkaMessage *message)
{
	SamplePartition *part;

	if (message->partition < 0 || message->partition >= sample->npartitions)
		return false;
	part = &sample->partitions[message->partition];
	if (!part->reading || part->begun_in == sample->batches)
		return false;
	switch (message->kind)
	{
		case KAFKA_PARTITION_ERROR:
			raise_kafka_error(kafka_last_error(sample->client));
			break;
		case KAFKA_PARTITION_EOF:
			round_done(sample, message->partition);
			break;
		case KAFKA_RECORD:
			if (message->offset < part->from)
				return false;
			if (message->offset < part->to)
				keep_record(part, message);
			if (message->offset >= part->to - 1)
				round_done(sample, message->partition);
			break;
	}
	return true;
}

/* Time is up: without any record an error, else a warning. */
static void
give_up(const Sample *sample)
{
	const KafkaError *error = kafka_last_error(sample->client);

	if (sample->nrecords > 0)
		ereport(WARNING,
				errmsg("not all partitions have been searched for %d records",
					   sample->n),
				errdetail("The offsets before the ones that are shown have not been looked at."));
	else if (error->class != KAFKA_OK)
		raise_kafka_error(error);
	else
		ereport(ERROR,
				errcode(ERRCODE_CONNECTION_FAILURE),
				errmsg("the broker sent no records within %d seconds",
					   SAMPLE_TIMEOUT_MS / 1000));
}

/* Read until every partition has given enough, or time is up. */
static void
read_records(Sample *sample)
{
	TimestampTz begun = worker_clock();
	TimestampTz moved = begun;

	while (sample->reading > 0)
	{
		KafkaMessage *messages;
		TimestampTz now;
		bool		pending;
		int			got;

		CHECK_FOR_INTERRUPTS();
		(void) kafka_service(sample->client);
		got = kafka_consume(sample->client, &messages, SAMPLE_BATCH,
							&pending);
		now = worker_clock();
		sample->batches++;
		for (int i = 0; i < got; i++)
			if (take_message(sample, &messages[i]))
				moved = now;
		kafka_release(sample->client);
		if (TimestampDifferenceExceeds(moved, now, SAMPLE_TIMEOUT_MS) ||
			TimestampDifferenceExceeds(begun, now, SAMPLE_BUDGET_MS))
		{
			give_up(sample);
			return;
		}
		if (got > 0 || pending)
			continue;
		(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
								 WL_SOCKET_READABLE | WL_EXIT_ON_PM_DEATH,
								 kafka_message_fd(sample->client), 100,
								 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

static void
open_client(Sample *sample, const char *server_name, const char *topic,
			MemoryContext cxt)
{
	ForeignServer *server = GetForeignServerByName(server_name, false);
	KafkaConfig config = {0};
	AclResult	acl;

	if (strcmp(GetForeignDataWrapper(server->fdwid)->fdwname,
			   "weir_kafka") != 0)
		ereport(ERROR,
				errcode(ERRCODE_WRONG_OBJECT_TYPE),
				errmsg("server \"%s\" is not a Kafka server", server_name),
				errhint("Use a server of the foreign data wrapper \"weir_kafka\"."));
	acl = compat_server_aclcheck(server->serverid, GetUserId(), ACL_USAGE);
	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_FOREIGN_SERVER, server_name);

	config.server_name = server_name;
	config.topic = topic;
	config.client_id = "weir sample";

	/* a new round waits for the fetch under way; the user's word comes last */
	config.options = lcons(makeDefElem("fetch_wait_max_ms",
									   (Node *) makeString("50"), -1),
						   fdw_kafka_options(server->serverid, GetUserId()));
	config.memory_limit = (int64) weir_ingest_memory * 1024;
	config.fetch_message_max_bytes = weir_fetch_message_max_bytes;
	config.max_message_bytes = (int64) weir_max_message_bytes * 1024;
	config.log_level = weir_kafka_log_level;
	sample->client = kafka_open(&config, cxt);
}

static void
return_records(const Sample *sample, ReturnSetInfo *result)
{
	for (int i = 0; i < sample->nrecords && i < sample->n; i++)
	{
		SampleRecord *record = &sample->records[i];
		Datum		values[5] = {0};
		bool		nulls[5] = {false, false, true, true, true};

		values[0] = Int32GetDatum(record->partition);
		values[1] = Int64GetDatum(record->offset);
		values[2] = TimestampTzGetDatum(kafka_time(record->timestamp_ms));
		nulls[2] = TIMESTAMP_IS_NOBEGIN(kafka_time(record->timestamp_ms));
		if (record->key)
		{
			values[3] = PointerGetDatum(record->key);
			nulls[3] = false;
		}
		if (record->payload)
		{
			values[4] = payload_text(record->payload);
			nulls[4] = false;
		}
		tuplestore_putvalues(result->setResult, result->setDesc, values,
							 nulls);
	}
}

Datum
weir_sample(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Sample		sample = {0};
	MemoryContext cxt;
	char	   *server;
	char	   *topic;

	weir_require_preload();
	server = api_text_arg(fcinfo, 0, "server");
	topic = api_text_arg(fcinfo, 1, "topic");
	sample.n = PG_ARGISNULL(2) ? 10 : PG_GETARG_INT32(2);
	if (sample.n < 1 || sample.n > SAMPLE_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("\"n\" must be between 1 and %d", SAMPLE_MAX));
	InitMaterializedSRF(fcinfo, 0);

	cxt = AllocSetContextCreate(CurrentMemoryContext, "weir sample",
								ALLOCSET_DEFAULT_SIZES);
	open_client(&sample, server, topic, cxt);
	start_partitions(&sample);
	read_records(&sample);
	kafka_close(sample.client);
	if (sample.nrecords > 0)
		qsort(sample.records, sample.nrecords, sizeof(SampleRecord),
			  compare_records);
	return_records(&sample, result);
	MemoryContextDelete(cxt);
	return (Datum) 0;
}
