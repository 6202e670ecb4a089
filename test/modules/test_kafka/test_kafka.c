/*-------------------------------------------------------------------------
 *
 * test_kafka.c
 *	  SQL face of the Kafka client, for tests only.
 *
 * Clients are numbered and live until kafka_close() or the session's end.
 * The waiting is done as a worker would do it: latch and both descriptors.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>
#include <time.h>
#include <unistd.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "kafka.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_MODULE_MAGIC;

#define MAX_CLIENTS	64
#define BATCH		2000

static KafkaClient *clients[MAX_CLIENTS];

static const char *const class_names[] = {
	"ok", "transient", "authentication", "authorization", "unknown_topic",
	"offset_gone", "corrupt", "fatal"
};

PG_FUNCTION_INFO_V1(test_kafka_open);
PG_FUNCTION_INFO_V1(test_kafka_close);
PG_FUNCTION_INFO_V1(test_kafka_request);
PG_FUNCTION_INFO_V1(test_kafka_start);
PG_FUNCTION_INFO_V1(test_kafka_stop);
PG_FUNCTION_INFO_V1(test_kafka_consume);
PG_FUNCTION_INFO_V1(test_kafka_count);
PG_FUNCTION_INFO_V1(test_kafka_serve);
PG_FUNCTION_INFO_V1(test_kafka_last_error);
PG_FUNCTION_INFO_V1(test_kafka_at_end);
PG_FUNCTION_INFO_V1(test_kafka_queue_bytes);
PG_FUNCTION_INFO_V1(test_kafka_option);
PG_FUNCTION_INFO_V1(test_kafka_version);
PG_FUNCTION_INFO_V1(test_kafka_process);

static KafkaClient *
get_client(FunctionCallInfo fcinfo)
{
	int			i = PG_GETARG_INT32(0);

	if (i < 0 || i >= MAX_CLIENTS || clients[i] == NULL)
		elog(ERROR, "no such client");
	return clients[i];
}

/* Options are 'name=value'. */
static List *
get_options(ArrayType *array)
{
	List	   *options = NIL;
	Datum	   *elems;
	int			n;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elems, NULL,
					  &n);
	for (int i = 0; i < n; i++)
	{
		char	   *name = TextDatumGetCString(elems[i]);
		char	   *value = strchr(name, '=');

		if (value == NULL)
			elog(ERROR, "no value in \"%s\"", name);
		*value++ = '\0';
		options = lappend(options, makeDefElem(name,
											   (Node *) makeString(value),
											   -1));
	}
	return options;
}

Datum
test_kafka_open(PG_FUNCTION_ARGS)
{
	KafkaConfig config = {0};
	int			i;

	for (i = 0; i < MAX_CLIENTS && clients[i]; i++)
		;
	if (i == MAX_CLIENTS)
		elog(ERROR, "too many clients");

	config.server_name = "test";
	config.options = get_options(PG_GETARG_ARRAYTYPE_P(0));
	config.topic = PG_ARGISNULL(1) ? NULL :
		text_to_cstring(PG_GETARG_TEXT_PP(1));
	config.partitions = PG_GETARG_INT32(2);
	config.memory_limit = PG_GETARG_INT64(3);
	config.fetch_message_max_bytes = 256 * 1024;
	config.max_message_bytes = 64 * 1024 * 1024;
	config.ends_interval_ms = PG_GETARG_INT32(4);
	config.client_id = text_to_cstring(PG_GETARG_TEXT_PP(5));
	config.log_level = PG_GETARG_INT32(6);
	clients[i] = kafka_open(&config, TopMemoryContext);
	PG_RETURN_INT32(i);
}

Datum
test_kafka_close(PG_FUNCTION_ARGS)
{
	KafkaClient *client = get_client(fcinfo);

	clients[PG_GETARG_INT32(0)] = NULL;
	kafka_close(client);
	PG_RETURN_VOID();
}

static Datum
form_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc	tupdesc;

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc),
											 values, nulls));
}

static Datum
text_of(const char *s, bool *isnull)
{
	*isnull = (s == NULL || s[0] == '\0');
	return *isnull ? (Datum) 0 : CStringGetTextDatum(s);
}

Datum
test_kafka_request(PG_FUNCTION_ARGS)
{
	static const char *const kinds[] = {"metadata", "low", "end", "time"};
	KafkaClient *client = get_client(fcinfo);
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	const KafkaAnswer *answer;
	Datum		values[7] = {0};
	bool		nulls[7] = {0};
	int			kind;

	for (kind = 0; kind < KAFKA_REQUEST_KINDS; kind++)
		if (strcmp(kinds[kind], name) == 0)
			break;
	if (kind == KAFKA_REQUEST_KINDS)
		elog(ERROR, "no such request");
	answer = kafka_request_wait(client, kind, PG_GETARG_INT32(2),
								PG_GETARG_INT64(3), PG_GETARG_INT32(4));

	values[0] = Int32GetDatum(answer->partitions);
	values[1] = text_of(answer->cluster_id, &nulls[1]);
	nulls[2] = (kind == KAFKA_REQUEST_METADATA ||
				answer->error.class != KAFKA_OK);
	if (!nulls[2])
	{
		Datum	   *elems = palloc(sizeof(Datum) * answer->partitions);

		for (int i = 0; i < answer->partitions; i++)
			elems[i] = Int64GetDatum(answer->offsets[i]);
		values[2] = PointerGetDatum(construct_array(elems,
													answer->partitions,
													INT8OID, 8, true,
													TYPALIGN_DOUBLE));
	}
	values[3] = text_of(class_names[answer->error.class], &nulls[3]);
	values[4] = text_of(unpack_sql_state(answer->error.sqlerrcode), &nulls[4]);
	values[5] = text_of(answer->error.message, &nulls[5]);
	values[6] = text_of(answer->error.hint, &nulls[6]);
	PG_RETURN_DATUM(form_row(fcinfo, values, nulls));
}

Datum
test_kafka_start(PG_FUNCTION_ARGS)
{
	kafka_start(get_client(fcinfo), PG_GETARG_INT32(1), PG_GETARG_INT64(2));
	PG_RETURN_VOID();
}

Datum
test_kafka_stop(PG_FUNCTION_ARGS)
{
	kafka_stop(get_client(fcinfo), PG_GETARG_INT32(1));
	PG_RETURN_VOID();
}

/* Wait for either descriptor, until the client is due, or so long. */
static void
wait_for_client(KafkaClient *client, bool messages, long timeout_ms)
{
#if PG_VERSION_NUM >= 170000
	WaitEventSet *set = CreateWaitEventSet(CurrentResourceOwner, 4);
#else
	WaitEventSet *set = CreateWaitEventSet(CurrentMemoryContext, 4);
#endif
	WaitEvent	events[4];
	long		due = kafka_service_due(client);

	if (due >= 0)
		timeout_ms = Min(timeout_ms, due);
	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(set, WL_SOCKET_READABLE, kafka_service_fd(client), NULL,
					  NULL);
	if (messages)
		AddWaitEventToSet(set, WL_SOCKET_READABLE, kafka_message_fd(client),
						  NULL, NULL);
	(void) WaitEventSetWait(set, Max(timeout_ms, 0), events, lengthof(events),
							PG_WAIT_EXTENSION);
	FreeWaitEventSet(set);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static long
ms_left(TimestampTz deadline)
{
	return (long) ((deadline - GetCurrentTimestamp()) / 1000);
}

static char *
headers_text(const KafkaMessage *message)
{
	StringInfoData text;
	KafkaHeader *headers;
	int			n = kafka_message_headers(message, &headers);

	initStringInfo(&text);
	for (int i = 0; i < n; i++)
		appendStringInfo(&text, "%s%s=%.*s", i ? "," : "", headers[i].key,
						 headers[i].value ? (int) headers[i].value_len : 4,
						 headers[i].value ? (char *) headers[i].value :
						 "NULL");
	return text.data;
}

static void
put_message(ReturnSetInfo *rsinfo, const KafkaMessage *message)
{
	static const char *const kinds[] = {"record", "eof", "error"};
	Datum		values[8] = {0};
	bool		nulls[8] = {0};

	values[0] = CStringGetTextDatum(kinds[message->kind]);
	values[1] = Int32GetDatum(message->partition);
	values[2] = Int64GetDatum(message->offset);
	values[3] = Int64GetDatum(message->timestamp_ms);
	nulls[4] = (message->key == NULL);
	if (message->key)
		values[4] = PointerGetDatum(cstring_to_text_with_len(message->key,
															 message->key_len));
	nulls[5] = (message->payload == NULL);
	if (message->payload)
		values[5] = PointerGetDatum(cstring_to_text_with_len(message->payload,
															 message->payload_len));
	values[6] = text_of(headers_text(message), &nulls[6]);
	nulls[7] = (message->kind != KAFKA_PARTITION_ERROR);
	if (!nulls[7])
		values[7] = CStringGetTextDatum(class_names[message->error]);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
test_kafka_consume(PG_FUNCTION_ARGS)
{
	KafkaClient *client = get_client(fcinfo);
	int			left = PG_GETARG_INT32(1);
	TimestampTz deadline = GetCurrentTimestamp() +
	(int64) PG_GETARG_INT32(2) * 1000;

	InitMaterializedSRF(fcinfo, 0);
	while (left > 0)
	{
		KafkaMessage *messages;
		bool		pending;
		int			n;

		kafka_service(client);
		n = kafka_consume(client, &messages, Min(left, BATCH), &pending);
		for (int i = 0; i < n; i++)
			put_message((ReturnSetInfo *) fcinfo->resultinfo, &messages[i]);
		kafka_release(client);
		left -= n;
		if (left == 0 || ms_left(deadline) <= 0)
			break;
		if (!pending)
			wait_for_client(client, true, ms_left(deadline));
	}
	return (Datum) 0;
}

static double
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e6 + ts.tv_nsec / 1e3;
}

Datum
test_kafka_count(PG_FUNCTION_ARGS)
{
	KafkaClient *client = get_client(fcinfo);
	int64		wanted = PG_GETARG_INT64(1);
	double		work_us = PG_GETARG_FLOAT8(2);
	TimestampTz deadline = GetCurrentTimestamp() +
	(int64) PG_GETARG_INT32(3) * 1000;
	int64		records = 0;
	int64		bytes = 0;
	double		start = now_us();
	Datum		values[3];
	bool		nulls[3] = {0};

	while (records < wanted && ms_left(deadline) > 0)
	{
		KafkaMessage *messages;
		double		begun;
		bool		pending;
		int			n;

		kafka_service(client);
		n = kafka_consume(client, &messages, BATCH, &pending);
		begun = now_us();
		for (int i = 0; i < n; i++)
		{
			if (messages[i].kind != KAFKA_RECORD)
				continue;
			records++;
			bytes += messages[i].payload_len;
		}
		while (now_us() < begun + n * work_us)
			;
		kafka_release(client);
		if (!pending && records < wanted)
			wait_for_client(client, true, ms_left(deadline));
	}
	values[0] = Int64GetDatum(records);
	values[1] = Int64GetDatum(bytes);
	values[2] = Float8GetDatum((now_us() - start) / 1000);
	PG_RETURN_DATUM(form_row(fcinfo, values, nulls));
}

Datum
test_kafka_serve(PG_FUNCTION_ARGS)
{
	KafkaClient *client = get_client(fcinfo);
	TimestampTz deadline = GetCurrentTimestamp() +
	(int64) PG_GETARG_INT32(1) * 1000;

	do
	{
		kafka_service(client);
		wait_for_client(client, false, ms_left(deadline));
	} while (ms_left(deadline) > 0);
	PG_RETURN_VOID();
}

Datum
test_kafka_last_error(PG_FUNCTION_ARGS)
{
	KafkaClient *client = get_client(fcinfo);
	const KafkaError *error;
	Datum		values[6] = {0};
	bool		nulls[6] = {0};

	kafka_service(client);
	error = kafka_last_error(client);
	values[0] = text_of(class_names[error->class], &nulls[0]);
	values[1] = text_of(unpack_sql_state(error->sqlerrcode), &nulls[1]);
	values[2] = Int32GetDatum(error->partition);
	values[3] = Int64GetDatum(error->offset);
	values[4] = text_of(error->message, &nulls[4]);
	values[5] = text_of(error->hint, &nulls[5]);
	PG_RETURN_DATUM(form_row(fcinfo, values, nulls));
}

Datum
test_kafka_at_end(PG_FUNCTION_ARGS)
{
	KafkaClient *client = get_client(fcinfo);
	Datum		values[3] = {0};
	bool		nulls[3] = {0};
	int64		end_offset;
	TimestampTz as_of;

	kafka_service(client);
	values[0] = BoolGetDatum(kafka_partition_at_end(client,
													PG_GETARG_INT32(1),
													&end_offset, &as_of));
	values[1] = Int64GetDatum(end_offset);
	values[2] = TimestampTzGetDatum(as_of);
	PG_RETURN_DATUM(form_row(fcinfo, values, nulls));
}

Datum
test_kafka_queue_bytes(PG_FUNCTION_ARGS)
{
	KafkaClient *client = get_client(fcinfo);

	kafka_service(client);
	PG_RETURN_INT64(kafka_queue_bytes(client));
}

Datum
test_kafka_option(PG_FUNCTION_ARGS)
{
	static const char *const kinds[] = {
		"unknown", "server", "secret", "either", "superuser", "forbidden"
	};
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *value = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Datum		values[3] = {0};
	bool		nulls[3] = {0};

	values[0] = CStringGetTextDatum(kinds[kafka_option_kind(name)]);
	values[1] = text_of(kafka_option_near(name), &nulls[1]);
	values[2] = text_of(kafka_option_check(name, value), &nulls[2]);
	PG_RETURN_DATUM(form_row(fcinfo, values, nulls));
}

Datum
test_kafka_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(kafka_library_version()));
}

/* Threads of this process. */
static int
count_threads(void)
{
	DIR		   *dir = opendir("/proc/self/task");
	int			n = 0;

	if (dir == NULL)
		return -1;
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2;				/* . and .. */
}

/* Descriptors of the kinds that a Kafka client has: no files. */
static int
count_descriptors(void)
{
	DIR		   *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int			n = 0;

	if (dir == NULL)
		return -1;
	while ((entry = readdir(dir)) != NULL)
	{
		char		path[MAXPGPATH];
		char		target[64];
		ssize_t		len;

		snprintf(path, sizeof(path), "/proc/self/fd/%s", entry->d_name);
		len = readlink(path, target, sizeof(target) - 1);
		if (len < 0)
			continue;
		target[len] = '\0';
		if (strncmp(target, "socket:", 7) == 0 ||
			strncmp(target, "pipe:", 5) == 0 ||
			strcmp(target, "anon_inode:[eventfd]") == 0)
			n++;
	}
	closedir(dir);
	return n;
}

Datum
test_kafka_process(PG_FUNCTION_ARGS)
{
	Datum		values[3];
	bool		nulls[3] = {0};
	long		size = 0;
	long		resident = 0;
	FILE	   *statm = fopen("/proc/self/statm", "r");

	if (statm)
	{
		if (fscanf(statm, "%ld %ld", &size, &resident) != 2)
			resident = 0;
		fclose(statm);
	}
	values[0] = Int32GetDatum(count_threads());
	values[1] = Int32GetDatum(count_descriptors());
	values[2] = Int64GetDatum((int64) resident * sysconf(_SC_PAGESIZE));
	PG_RETURN_DATUM(form_row(fcinfo, values, nulls));
}
