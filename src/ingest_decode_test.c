/*-------------------------------------------------------------------------
 *
 * ingest_decode_test.c
 *	  The decoder within reach of SQL, for tests and measurements.
 *
 * Works on any foreign table whose last columns are the Kafka columns; the
 * rest of the source's definition comes as arguments.  No broker is needed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "errors.h"
#include "ingest.h"
#include "ingest_decode.h"
#include "source_filter.h"

PG_FUNCTION_INFO_V1(weir_decode_json);
PG_FUNCTION_INFO_V1(weir_decode_benchmark);
PG_FUNCTION_INFO_V1(weir_segment_columns);

#define BENCHMARK_BATCH 1000

/* Layout of the segments of a source, without making one. */
static TupleDesc
segment_desc_for(Relation relation)
{
	TupleDesc	table = RelationGetDescr(relation);
	TupleDesc	result;
	int			live = 0;
	int			seen = 0;
	AttrNumber	next = 0;

	for (int i = 0; i < table->natts; i++)
		live += !TupleDescAttr(table, i)->attisdropped;
	if (live <= SOURCE_KAFKA_ATTRS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("relation \"%s\" has no columns before the Kafka columns",
						RelationGetRelationName(relation))));
	result = CreateTemplateTupleDesc(SEGMENT_FIXED_ATTRS + live -
									 SOURCE_KAFKA_ATTRS + 2);
	TupleDescInitEntry(result, ++next, "kafka_partition", INT4OID, -1, 0);
	TupleDescInitEntry(result, ++next, "kafka_offset", INT8OID, -1, 0);
	TupleDescInitEntry(result, ++next, "kafka_timestamp", TIMESTAMPTZOID, -1,
					   0);
	for (int i = 0; i < table->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(table, i);

		if (attribute->attisdropped)
			continue;
		seen++;
		if (seen > live - SOURCE_KAFKA_ATTRS && seen <= live - 2)
			continue;
		TupleDescInitEntry(result, ++next, NameStr(attribute->attname),
						   attribute->atttypid, attribute->atttypmod,
						   attribute->attndims);
		TupleDescInitEntryCollation(result, next, attribute->attcollation);
	}
	return result;
}

/* The attribute of a name, or of kafka_timestamp. */
static AttrNumber
event_time_attribute(Relation relation, const char *name)
{
	AttrNumber	result = get_attnum(RelationGetRelid(relation),
									name ? name : "kafka_timestamp");

	if (result == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist",
						name ? name : "kafka_timestamp",
						RelationGetRelationName(relation))));
	return result;
}

static char *
text_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* A definition with what decoding looks at. */
static void
make_source(SourceDef *source, Relation relation, char *filter,
			const char *event_time)
{
	memset(source, 0, sizeof(*source));
	source->relid = RelationGetRelid(relation);
	source->name = RelationGetRelationName(relation);
	source->topic = "test";
	source->format = "json";
	source->event_time = event_time_attribute(relation, event_time);
	if (filter != NULL)
		source->filter = source_filter_settle(relation, filter,
											  &source->objects);
	source->objects_recorded = true;
	source->max_future_skew = USECS_PER_HOUR;
	source->needs_key = true;
}

/* A row as an array of its columns' texts. */
static Datum
slot_texts(TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	Datum	   *texts = palloc(desc->natts * sizeof(Datum));
	bool	   *nulls = palloc(desc->natts * sizeof(bool));
	int			count = desc->natts;
	int			lower = 1;

	for (int i = 0; i < desc->natts; i++)
	{
		Oid			output;
		bool		is_varlena;

		nulls[i] = slot->tts_isnull[i];
		if (nulls[i])
			continue;
		getTypeOutputInfo(TupleDescAttr(desc, i)->atttypid, &output,
						  &is_varlena);
		texts[i] = CStringGetTextDatum(OidOutputFunctionCall(output,
															 slot->tts_values[i]));
	}
	return PointerGetDatum(construct_md_array(texts, nulls, 1, &count, &lower,
											  TEXTOID, -1, false,
											  TYPALIGN_INT));
}

/* Put what became of a record into the function's result. */
static void
put_outcome(ReturnSetInfo *rsinfo, int record, const DecodeOutcome *outcome,
			TupleTableSlot *slot)
{
	static const char *const names[] = {
		[DECODE_STAGED] = "staged",
		[DECODE_FILTERED] = "filtered",
		[DECODE_DEAD] = "dead",
		[DECODE_TOMBSTONE] = "tombstone"
	};
	bool		is_dead = outcome->result == DECODE_DEAD;
	bool		timed = outcome->has_event_time || outcome->future;
	Datum		values[9] = {0};
	bool		nulls[9] = {0};

	values[0] = Int32GetDatum(record + 1);
	values[1] = CStringGetTextDatum(names[outcome->result]);
	nulls[2] = !is_dead;
	nulls[3] = !is_dead;
	nulls[4] = !is_dead;
	if (is_dead)
	{
		values[2] = BoolGetDatum(outcome->constraint);
		values[3] = CStringGetTextDatum(error_sqlstate(outcome->sqlerrcode));
		values[4] = CStringGetTextDatum(outcome->message);
	}
	nulls[5] = !timed;
	values[5] = TimestampTzGetDatum(outcome->event_time);
	values[6] = BoolGetDatum(outcome->has_event_time);
	values[7] = BoolGetDatum(outcome->future);
	nulls[8] = outcome->result != DECODE_STAGED;
	if (!nulls[8])
		values[8] = slot_texts(slot);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * decode_json(relation, payloads, filter, event_time, timestamp_ms)
 */
Datum
weir_decode_json(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Relation	relation = table_open(PG_GETARG_OID(0), AccessShareLock);
	SourceDef	source;
	TupleDesc	segment_desc = segment_desc_for(relation);
	Decoder    *decoder;
	Datum	   *payloads;
	bool	   *nulls;
	int			n;
	KafkaMessage *messages;
	TupleTableSlot **slots;
	DecodeOutcome *outcomes;
	int			nslots;
	int			used = 0;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(1) || PG_ARGISNULL(4))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("payloads and timestamp must not be null")));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), BYTEAOID, -1, false,
					  TYPALIGN_INT, &payloads, &nulls, &n);
	make_source(&source, relation, text_argument(fcinfo, 2),
				text_argument(fcinfo, 3));
	decoder = decoder_create(&source, relation, segment_desc,
							 CurrentMemoryContext);
	messages = palloc0(n * sizeof(KafkaMessage));
	slots = palloc(n * sizeof(TupleTableSlot *));
	outcomes = palloc(n * sizeof(DecodeOutcome));
	for (int i = 0; i < n; i++)
	{
		/* there is no message of librdkafka's to take headers from */
		messages[i].kind = KAFKA_PARTITION_EOF;
		messages[i].offset = i;
		messages[i].timestamp_ms = PG_GETARG_INT64(4);
		slots[i] = MakeSingleTupleTableSlot(segment_desc, &TTSOpsVirtual);
		if (!nulls[i])
		{
			messages[i].payload = VARDATA_ANY(DatumGetByteaPP(payloads[i]));
			messages[i].payload_len =
				VARSIZE_ANY_EXHDR(DatumGetPointer(payloads[i]));
		}
		messages[i].key = "key";
		messages[i].key_len = 3;
	}
	decoder_decode(decoder, messages, n, GetCurrentTimestamp(), slots,
				   &nslots, outcomes);
	for (int i = 0; i < n; i++)
	{
		put_outcome(rsinfo, i, &outcomes[i],
					used < nslots ? slots[used] : NULL);
		used += outcomes[i].result == DECODE_STAGED;
	}
	if (used != nslots)
		elog(ERROR, "%d records were staged but %d slots filled", used,
			 nslots);
	for (int i = 0; i < n; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	decoder_free(decoder);
	table_close(relation, AccessShareLock);
	return (Datum) 0;
}

/*
 * decode_benchmark(relation, payloads, rounds, filter, event_time): decode
 * the payloads, one after the other, rounds times, in batches; nanoseconds a
 * record.  Each record of a batch is a copy of its own, as in a fetch.
 */
Datum
weir_decode_benchmark(PG_FUNCTION_ARGS)
{
	Relation	relation = table_open(PG_GETARG_OID(0), AccessShareLock);
	int64		rounds = PG_GETARG_INT32(2);
	SourceDef	source;
	TupleDesc	segment_desc = segment_desc_for(relation);
	Decoder    *decoder;
	Datum	   *payloads;
	bool	   *nulls;
	int			n;
	KafkaMessage *messages = palloc0(BENCHMARK_BATCH * sizeof(KafkaMessage));
	TupleTableSlot **slots = palloc(BENCHMARK_BATCH * sizeof(*slots));
	DecodeOutcome *outcomes = palloc(BENCHMARK_BATCH * sizeof(*outcomes));
	MemoryContext batch = AllocSetContextCreate(CurrentMemoryContext,
												"decode benchmark",
												ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext;
	instr_time	start;
	instr_time	end;

	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("payloads and rounds must not be null")));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), BYTEAOID, -1, false,
					  TYPALIGN_INT, &payloads, &nulls, &n);
	for (int i = 0; i < n; i++)
		if (nulls[i])
			n = 0;
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("payloads must be given and not be null")));
	make_source(&source, relation, text_argument(fcinfo, 3),
				text_argument(fcinfo, 4));
	source.needs_key = false;
	decoder = decoder_create(&source, relation, segment_desc,
							 CurrentMemoryContext);
	for (int i = 0; i < BENCHMARK_BATCH; i++)
	{
		bytea	   *payload = DatumGetByteaPCopy(payloads[i % n]);

		messages[i].offset = i;
		messages[i].timestamp_ms = 1700000000000;
		messages[i].payload = VARDATA(payload);
		messages[i].payload_len = VARSIZE(payload) - VARHDRSZ;
		slots[i] = MakeSingleTupleTableSlot(segment_desc, &TTSOpsVirtual);
	}
	oldcontext = MemoryContextSwitchTo(batch);
	INSTR_TIME_SET_CURRENT(start);
	for (int64 round = 0; round < rounds; round++)
	{
		int			nslots;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(batch);
		decoder_decode(decoder, messages, BENCHMARK_BATCH,
					   GetCurrentTimestamp(), slots, &nslots, outcomes);
	}
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	MemoryContextSwitchTo(oldcontext);
	for (int i = 0; i < BENCHMARK_BATCH; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	decoder_free(decoder);
	table_close(relation, AccessShareLock);
	PG_RETURN_FLOAT8(INSTR_TIME_GET_DOUBLE(end) * 1e9 /
					 ((double) rounds * BENCHMARK_BATCH));
}

Datum
weir_segment_columns(PG_FUNCTION_ARGS)
{
	Relation	relation = table_open(PG_GETARG_OID(0), AccessShareLock);
	char	   *result = segment_column_definitions(relation);

	table_close(relation, AccessShareLock);
	PG_RETURN_TEXT_P(cstring_to_text(result));
}
