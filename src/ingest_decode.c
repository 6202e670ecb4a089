/*-------------------------------------------------------------------------
 *
 * ingest_decode.c
 *	  Kafka records to slots of a segment: a record's way.
 *
 * A record's document is read once (ingest_decode_json.cpp), which finds all
 * wanted values and judges the whole document, so that what is no JSON is
 * refused whatever columns there are.  Then, in this order: decode the
 * columns that the filter names; decode the event time; filter; decode the
 * rest; generated columns; NOT NULL; CHECK; event time.
 *
 * Errors.  What the decoder does itself says by return value that a value is
 * bad.  What it calls (input functions, the user's expressions) may throw,
 * so it is called in an internal subtransaction (error_guard), which covers
 * a run of records, not one: a record that throws ends the run, becomes a
 * dead letter, and a new run begins after it.  A source with nothing that
 * may throw takes no subtransaction at all: records are decoded outside one
 * until the first that needs it (VALUE_THROWS), which is begun anew inside.
 * Nothing is written in such a subtransaction, and slots and values live in
 * the batch's memory context, so what a broken run has decoded is good.
 *
 * An event time that is no good matters only if the filter passes.  So an
 * error in it is kept until then; when it was thrown, the record is begun
 * anew knowing it (event_failed).
 *
 * A record without a timestamp of Kafka's has no event time where that is the
 * source's.  It is staged all the same, and moves no watermark: a stream that
 * has no windows does not miss it.
 *
 * Header keys that are not UTF-8 get U+FFFD for what is wrong in them:
 * nobody declared them, so they are no reason to refuse a record.
 *
 * Invariants:
 *	1. outcomes[0 .. next) and slots[0 .. *nslots) are final.
 *	2. Only the record at hand has a slot beyond *nslots, which is cleared
 *	   before it is used again.
 *	3. Outside a subtransaction nothing is called that may throw a row's
 *	   error.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "errors.h"
#include "ingest_decode.h"

/* Payloads lie in memory that another core wrote: ask for them early. */
#define PREFETCH_RECORDS 4
#define PREFETCH_BYTES 512
#define CACHE_LINE 64

/* Of a document that is none, so much is shown. */
#define SHOWN_BYTES 32

/* A magic byte and a schema's number, before the value. */
#define CONFLUENT_HEADER 5

#define INTERRUPT_RECORDS 64

/* Where the record at hand is. */
typedef enum Stage
{
	STAGE_DOCUMENT,
	STAGE_FILTER_COLUMNS,
	STAGE_EVENT_TIME,
	STAGE_FILTER,
	STAGE_COLUMNS,
	STAGE_CONSTRAINTS
} Stage;

typedef struct Batch
{
	Decoder    *decoder;
	const KafkaMessage *messages;
	int			n;
	TimestampTz now;
	TupleTableSlot **slots;
	int		   *nslots;
	DecodeOutcome *outcomes;

	ValueContext values;
	int			next;			/* the record at hand */
	Stage		stage;
	const char *column;			/* being decoded or computed, or NULL */

	/* The record at hand has no event time, and why. */
	bool		event_failed;
	int			event_sqlerrcode;
	char	   *event_message;
} Batch;

static void
decode_error_context(void *arg)
{
	Batch	   *batch = arg;

	if (batch->next < batch->n)
		errcontext("topic \"%s\", partition %d, offset %lld",
				   batch->decoder->topic,
				   batch->messages[batch->next].partition,
				   (long long) batch->messages[batch->next].offset);
}

/* A dead letter; constraint by stage or by SQLSTATE. */
static void
dead(Batch *batch, int sqlerrcode, char *message)
{
	DecodeOutcome *outcome = &batch->outcomes[batch->next];

	memset(outcome, 0, sizeof(*outcome));
	outcome->result = DECODE_DEAD;
	outcome->constraint = batch->stage == STAGE_CONSTRAINTS ||
		ERRCODE_TO_CATEGORY(sqlerrcode) ==
		ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION;
	outcome->sqlerrcode = sqlerrcode;
	outcome->message = message;
}

/* Say which column an error is about. */
static char *
name_column(Batch *batch, char *message)
{
	if (batch->column == NULL)
		return message;
	return psprintf("%s (column \"%s\")", message, batch->column);
}

/* What a payload that is no document looks like; NULL: nothing known. */
static char *
known_format(const unsigned char *payload, size_t len)
{
	if (len >= 3 && memcmp(payload, "\xEF\xBB\xBF", 3) == 0)
		return pstrdup("The message begins with a byte-order mark, which JSON does not have: the producer has to leave it out.");
	if (len >= 2 && (memcmp(payload, "\xFE\xFF", 2) == 0 ||
					 memcmp(payload, "\xFF\xFE", 2) == 0))
		return pstrdup("The message begins with a byte-order mark of UTF-16: the producer has to write UTF-8.");
	if (len > CONFLUENT_HEADER && payload[0] == 0)
	{
		uint32		schema = (uint32) payload[1] << 24 | payload[2] << 16 |
		payload[3] << 8 | payload[4];

		return psprintf("The message is in Confluent's wire format, a zero byte and the schema's number (%u) before the value: the producer has to write plain JSON, without a schema registry.",
						schema);
	}
	return NULL;
}

/* The payload is no document. */
static void
bad_document(Batch *batch, DocStatus status, int64 position)
{
	const KafkaMessage *message = &batch->messages[batch->next];
	int			len = (int) message->payload_len;
	const char *payload = message->payload;
	char	   *known = known_format((const unsigned char *) payload, len);

	if (status == DOC_NO_MEMORY)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("A message of %d bytes could not be decoded.",
						   len)));
	if (status == DOC_EMPTY)
		dead(batch, ERRCODE_INVALID_TEXT_REPRESENTATION,
			 pstrdup("invalid input syntax for type json: The message is empty."));
	else if (status == DOC_NOT_OBJECT)
		dead(batch, ERRCODE_INVALID_PARAMETER_VALUE,
			 psprintf("JSON document is %s, not an object: A column with the path '$' takes whole documents.",
					  payload[strspn(payload, " \t\r\n")] == '[' ?
					  "an array" : "a scalar"));
	else if (known != NULL)
		dead(batch, status == DOC_NOT_UTF8 ?
			 ERRCODE_CHARACTER_NOT_IN_REPERTOIRE :
			 ERRCODE_INVALID_TEXT_REPRESENTATION,
			 psprintf("invalid input syntax for type json: %s", known));
	else if (status == DOC_NOT_UTF8)
	{
		int			good = pg_encoding_verifymbstr(PG_UTF8, payload, len);

		dead(batch, ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
			 psprintf("invalid byte sequence for encoding \"UTF8\": 0x%02x at byte %d",
					  good < len ? (unsigned char) payload[good] : 0, good));
	}
	else if (position < 0)
		dead(batch, ERRCODE_INVALID_TEXT_REPRESENTATION,
			 pstrdup("invalid input syntax for type json: A string has no end, or a control character in it."));
	else if (position >= len)
		dead(batch, ERRCODE_INVALID_TEXT_REPRESENTATION,
			 pstrdup("invalid input syntax for type json: The message ends too early."));
	else
	{
		int			shown = pg_mbcliplen(payload + position, len - position,
										 SHOWN_BYTES);

		dead(batch, ERRCODE_INVALID_TEXT_REPRESENTATION,
			 psprintf("invalid input syntax for type json: Unexpected \"%.*s\" at byte %lld.",
					  shown, payload + position, (long long) position));
	}
}

/*
 * Kafka columns
 */

/* A header's key as text, with U+FFFD for what is no UTF-8. */
static text *
header_key(const char *key)
{
	int			len = strlen(key);
	int			good = pg_encoding_verifymbstr(PG_UTF8, key, len);
	StringInfoData fixed;

	if (good == len)
		return cstring_to_text_with_len(key, len);
	initStringInfo(&fixed);
	while (len > 0)
	{
		appendBinaryStringInfo(&fixed, key, good);
		key += good;
		len -= good;
		if (len == 0)
			break;
		appendStringInfoString(&fixed, "\xEF\xBF\xBD");
		key++;
		len--;
		good = pg_encoding_verifymbstr(PG_UTF8, key, len);
	}
	return cstring_to_text_with_len(fixed.data, fixed.len);
}

static bytea *
make_bytea(const void *data, size_t len)
{
	bytea	   *result = palloc(VARHDRSZ + len);

	SET_VARSIZE(result, VARHDRSZ + len);
	memcpy(VARDATA(result), data, len);
	return result;
}

static Datum
make_headers(Decoder *decoder, const KafkaMessage *message)
{
	KafkaHeader *headers;
	int			n = kafka_message_headers(message, &headers);
	Datum	   *rows = palloc(Max(n, 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false, headers[i].value == NULL};
		HeapTuple	tuple;

		values[0] = PointerGetDatum(header_key(headers[i].key));
		values[1] = nulls[1] ? (Datum) 0 :
			PointerGetDatum(make_bytea(headers[i].value,
									   headers[i].value_len));
		tuple = heap_form_tuple(decoder->header_desc, values, nulls);
		rows[i] = HeapTupleGetDatum(tuple);
	}
	return PointerGetDatum(construct_array(rows, n, decoder->header_type,
										   -1, false, TYPALIGN_DOUBLE));
}

/* The Kafka columns of the slot; the declared ones NULL. */
static void
fill_kafka_columns(Batch *batch, const KafkaMessage *message,
				   TupleTableSlot *slot)
{
	Decoder    *decoder = batch->decoder;
	Datum	   *values = slot->tts_values;
	bool	   *isnull = slot->tts_isnull;
	TimestampTz time = kafka_time(message->timestamp_ms);

	ExecClearTuple(slot);
	memset(isnull, true, decoder->segment_desc->natts);
	values[SEGMENT_ATTR_PARTITION - 1] = Int32GetDatum(message->partition);
	isnull[SEGMENT_ATTR_PARTITION - 1] = false;
	values[SEGMENT_ATTR_OFFSET - 1] = Int64GetDatum(message->offset);
	isnull[SEGMENT_ATTR_OFFSET - 1] = false;
	values[SEGMENT_ATTR_TIMESTAMP - 1] = TimestampTzGetDatum(time);
	isnull[SEGMENT_ATTR_TIMESTAMP - 1] = TIMESTAMP_IS_NOBEGIN(time);
	if (decoder->fill_key && message->key != NULL)
	{
		values[decoder->key_segment] =
			PointerGetDatum(make_bytea(message->key, message->key_len));
		isnull[decoder->key_segment] = false;
	}
	if (decoder->fill_headers)
	{
		values[decoder->headers_segment] = make_headers(decoder, message);
		isnull[decoder->headers_segment] = false;
	}
	ExecStoreVirtualTuple(slot);
}

/*
 * A record's way
 */

/* Remember which paths have led somewhere, whatever becomes of the record. */
static void
note_found(Decoder *decoder)
{
	decoder->nmissing = 0;
	for (int i = 0; i < decoder->ndecoded; i++)
	{
		ColumnPlan *column = &decoder->columns[i];

		if (decoder->values[column->capture].kind != DOC_MISSING)
			column->found = true;
		decoder->nmissing += !column->found;
	}
}

/* Decode columns[from .. to) from the document, or their defaults. */
static ValueStatus
decode_columns(Batch *batch, TupleTableSlot *slot, int from, int to)
{
	Decoder    *decoder = batch->decoder;

	for (int i = from; i < to; i++)
	{
		ColumnPlan *column = &decoder->columns[i];
		const DocValue *doc = &decoder->values[column->capture];
		Datum	   *value = &slot->tts_values[column->segment];
		bool	   *isnull = &slot->tts_isnull[column->segment];
		ValueStatus status;

		if (doc->kind == DOC_MISSING)
		{
			if (column->is_constant)
			{
				*value = column->constant;
				*isnull = column->constant_isnull;
				continue;
			}
			if (column->expression != NULL)
			{
				batch->column = column->name;
				value_user_settings(&batch->values);
				*value = ExecEvalExpr(column->expression, decoder->econtext,
									  isnull);
				continue;
			}
		}
		batch->column = column->name;
		status = value_decode(column->type, doc, &batch->values, value,
							  isnull);
		if (unlikely(status != VALUE_OK))
		{
			*isnull = true;
			return status;
		}
	}
	batch->column = NULL;
	return VALUE_OK;
}

/* Compute a generated column, in the batch's memory. */
static void
compute_column(Batch *batch, TupleTableSlot *slot, ColumnPlan *column)
{
	bool		isnull;

	batch->column = column->name;
	slot->tts_values[column->segment] =
		ExecEvalExpr(column->expression, batch->decoder->econtext, &isnull);
	slot->tts_isnull[column->segment] = isnull;
	batch->column = NULL;
}

/* Decode what gives the event time, and take it from the slot. */
static ValueStatus
decode_event_time(Batch *batch, TupleTableSlot *slot)
{
	Decoder    *decoder = batch->decoder;
	DecodeOutcome *outcome = &batch->outcomes[batch->next];
	ValueStatus status;
	Datum		value;

	batch->stage = STAGE_EVENT_TIME;
	status = decode_columns(batch, slot, decoder->nfilter, decoder->nevent);
	if (status != VALUE_OK)
		return status;
	if (decoder->event_column != NULL)
	{
		value_user_settings(&batch->values);
		compute_column(batch, slot, decoder->event_column);
	}
	if (slot->tts_isnull[decoder->event_segment])
		return VALUE_OK;
	value = slot->tts_values[decoder->event_segment];
	if (decoder->event_type == DATEOID)
	{
		DateADT		date = DatumGetDateADT(value);

		if (DATE_NOT_FINITE(date))
			return VALUE_OK;
		if (date >= TIMESTAMP_END_JULIAN - POSTGRES_EPOCH_JDATE)
			return value_bad(&batch->values,
							 ERRCODE_DATETIME_VALUE_OUT_OF_RANGE,
							 "event time in column \"%s\" is out of range",
							 decoder->event_name);
		outcome->event_time = (TimestampTz) date * USECS_PER_DAY;
	}
	else
		outcome->event_time = DatumGetTimestampTz(value);
	if (TIMESTAMP_NOT_FINITE(outcome->event_time))
		return VALUE_OK;
	outcome->future = decoder->max_future_skew != WEIR_NO_DURATION &&
		outcome->event_time - batch->now > decoder->max_future_skew;
	outcome->has_event_time = !outcome->future;
	return VALUE_OK;
}

/* NOT NULL, CHECK and the event time.  False: it is dead. */
static bool
check_constraints(Batch *batch, TupleTableSlot *slot)
{
	Decoder    *decoder = batch->decoder;
	DecodeOutcome *outcome = &batch->outcomes[batch->next];

	batch->stage = STAGE_CONSTRAINTS;
	for (int i = 0; i < decoder->ncolumns; i++)
	{
		ColumnPlan *column = &decoder->columns[i];

		if (column->not_null && slot->tts_isnull[column->segment])
		{
			dead(batch, ERRCODE_NOT_NULL_VIOLATION,
				 psprintf("null value in column \"%s\" of relation \"%s\" violates not-null constraint",
						  column->name, decoder->relation_name));
			return false;
		}
	}
	for (int i = 0; i < decoder->nchecks; i++)
		if (!ExecCheck(decoder->checks[i].expression, decoder->econtext))
		{
			dead(batch, ERRCODE_CHECK_VIOLATION,
				 psprintf("new row for relation \"%s\" violates check constraint \"%s\"",
						  decoder->relation_name, decoder->checks[i].name));
			return false;
		}
	if (outcome->has_event_time || outcome->future)
		return true;
	if (decoder->event_is_kafka)
	{
		int64		ms = batch->messages[batch->next].timestamp_ms;

		/* Not every stream needs one; see stream_query.c for those that do. */
		if (ms < 0)
			return true;
		dead(batch, ERRCODE_DATETIME_VALUE_OUT_OF_RANGE,
			 psprintf("Kafka timestamp %lld of the record is out of range",
					  (long long) ms));
	}
	else if (slot->tts_isnull[decoder->event_segment])
		dead(batch, ERRCODE_NOT_NULL_VIOLATION,
			 psprintf("event time in column \"%s\" is null",
					  decoder->event_name));
	else
		dead(batch, ERRCODE_DATETIME_VALUE_OUT_OF_RANGE,
			 psprintf("event time in column \"%s\" is infinite",
					  decoder->event_name));
	return false;
}

/*
 * The least size of a row in a segment, with everything out of line that can
 * be (see heap_toast_insert_or_update()).
 */
static Size
least_size(TupleDesc desc, const TupleTableSlot *slot)
{
	Size		size = 0;
	bool		nulls = false;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Size		len;

		if (slot->tts_isnull[i])
		{
			nulls = true;
			continue;
		}
		if (att->attlen != -1 || att->attstorage == TYPSTORAGE_PLAIN)
		{
			size = att_align_nominal(size, att->attalign);
			size = att_addlength_datum(size, att->attlen,
									   slot->tts_values[i]);
			continue;
		}
		len = VARSIZE_ANY_EXHDR(DatumGetPointer(slot->tts_values[i])) +
			VARHDRSZ_SHORT;
		size += len > MAXALIGN(TOAST_POINTER_SIZE) ? TOAST_POINTER_SIZE : len;
	}
	return MAXALIGN(MAXALIGN(SizeofHeapTupleHeader +
							 (nulls ? BITMAPLEN(desc->natts) : 0)) + size);
}

/* A row that no segment can hold.  False: it is dead. */
static bool
check_size(Batch *batch, TupleTableSlot *slot)
{
	Size		size = least_size(batch->decoder->segment_desc, slot);

	if (size <= MaxHeapTupleSize)
		return true;
	batch->stage = STAGE_COLUMNS;
	dead(batch, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
		 psprintf("row is too big: size %zu, maximum size %zu", size,
				  MaxHeapTupleSize));
	return false;
}

/*
 * Decode the record at hand.  False when it has to be done where errors are
 * caught.
 */
static bool
decode_record(Batch *batch)
{
	Decoder    *decoder = batch->decoder;
	const KafkaMessage *message = &batch->messages[batch->next];
	DecodeOutcome *outcome = &batch->outcomes[batch->next];
	TupleTableSlot *slot = batch->slots[*batch->nslots];
	DocStatus	doc_status;
	ValueStatus status;
	int64		position;

	memset(outcome, 0, sizeof(*outcome));
	batch->stage = STAGE_DOCUMENT;
	batch->column = NULL;
	if (message->payload == NULL)
	{
		outcome->result = DECODE_TOMBSTONE;
		return true;
	}
	doc_status = doc_reader_read(decoder->reader, message->payload,
								 message->payload_len, decoder->values,
								 &position);
	if (unlikely(doc_status != DOC_OK))
	{
		bad_document(batch, doc_status, position);
		return true;
	}
	if (decoder->nmissing > 0)
		note_found(decoder);
	fill_kafka_columns(batch, message, slot);
	decoder->econtext->ecxt_scantuple = slot;

	batch->stage = STAGE_FILTER_COLUMNS;
	status = decode_columns(batch, slot, 0, decoder->nfilter);
	if (status == VALUE_OK && !batch->event_failed)
	{
		status = decode_event_time(batch, slot);
		if (status == VALUE_BAD)
		{
			batch->event_failed = true;
			batch->event_sqlerrcode = batch->values.sqlerrcode;
			batch->event_message = name_column(batch, batch->values.message);
			status = VALUE_OK;
		}
	}
	if (status == VALUE_OK)
	{
		batch->column = NULL;
		batch->stage = STAGE_FILTER;
		if (decoder->may_throw)
		{
			ResetExprContext(decoder->econtext);
			value_user_settings(&batch->values);
		}
		if (decoder->filter != NULL &&
			!ExecQual(decoder->filter, decoder->econtext))
		{
			outcome->result = DECODE_FILTERED;
			return true;
		}
		if (batch->event_failed)
		{
			dead(batch, batch->event_sqlerrcode, batch->event_message);
			return true;
		}
		batch->stage = STAGE_COLUMNS;
		status = decode_columns(batch, slot, decoder->nevent,
								decoder->ndecoded);
	}
	if (status == VALUE_THROWS)
		return false;
	if (status == VALUE_BAD)
	{
		dead(batch, batch->values.sqlerrcode,
			 name_column(batch, batch->values.message));
		return true;
	}

	value_user_settings(&batch->values);
	for (int i = decoder->ndecoded; i < decoder->ncolumns; i++)
		if (&decoder->columns[i] != decoder->event_column)
			compute_column(batch, slot, &decoder->columns[i]);
	if (!check_constraints(batch, slot))
		return true;
	if (!decoder->stage_key)
		slot->tts_isnull[decoder->key_segment] = true;
	if (!decoder->stage_headers)
		slot->tts_isnull[decoder->headers_segment] = true;
	if (decoder->wide && !check_size(batch, slot))
		return true;
	outcome->result = DECODE_STAGED;
	(*batch->nslots)++;
	return true;
}

/* Ask for a payload that will be wanted soon. */
static inline void
prefetch(const KafkaMessage *message)
{
	size_t		len = Min(message->payload_len, PREFETCH_BYTES);

	if (message->payload == NULL)
		return;
	for (size_t i = 0; i < len; i += CACHE_LINE)
		__builtin_prefetch(message->payload + i);
}

/*
 * Decode from the record at hand to the end of the batch, or to the first
 * that has to be done where errors are caught.
 */
static void
decode_run(Batch *batch)
{
	while (batch->next < batch->n)
	{
		if (batch->next + PREFETCH_RECORDS < batch->n)
			prefetch(&batch->messages[batch->next + PREFETCH_RECORDS]);
		if (batch->next % INTERRUPT_RECORDS == 0)
			CHECK_FOR_INTERRUPTS();
		if (!decode_record(batch))
			break;
		batch->event_failed = false;
		batch->next++;
	}
}

/* The same inside a subtransaction. */
static void
decode_run_guarded(void *arg)
{
	Batch	   *batch = arg;

	PG_TRY();
	{
		batch->values.may_throw = true;
		decode_run(batch);
	}
	PG_FINALLY();
	{
		value_user_settings(&batch->values);
	}
	PG_END_TRY();
}

/*
 * The record at hand threw.  A row's error is its own; others are the
 * batch's.
 */
static void
record_threw(Batch *batch, ErrorData *error)
{
	ErrorClass	class = error_class(error->sqlerrcode);
	char	   *message;

	if (class == ERROR_OF_OUTAGE ||
		(class == ERROR_OF_DEFINITION && !batch->values.in_input))
		ReThrowError(error);
	batch->values.in_input = false;
	message = name_column(batch, error_text(error));
	if (batch->stage == STAGE_EVENT_TIME)
	{
		batch->event_failed = true;
		batch->event_sqlerrcode = error->sqlerrcode;
		batch->event_message = message;
		return;
	}
	dead(batch, error->sqlerrcode, message);
	batch->event_failed = false;
	batch->next++;
}

void
decoder_decode(Decoder *decoder, const KafkaMessage *messages, int n,
			   TimestampTz now, TupleTableSlot **slots, int *nslots,
			   DecodeOutcome *outcomes)
{
	Batch		batch = {
		.decoder = decoder,
		.messages = messages,
		.n = n,
		.now = now,
		.slots = slots,
		.nslots = nslots,
		.outcomes = outcomes
	};
	ErrorContextCallback context = {
		.previous = error_context_stack,
		.callback = decode_error_context,
		.arg = &batch
	};
	bool		pushed = false;

	error_context_stack = &context;
	*nslots = 0;
	value_context_init(&batch.values, decoder->utc, decoder->scratch);
	if (!decoder->may_throw)
		decode_run(&batch);
	if (batch.next < n && !ActiveSnapshotSet())
	{
		/* expressions may read tables */
		PushActiveSnapshot(GetTransactionSnapshot());
		pushed = true;
	}
	while (batch.next < n)
	{
		ErrorData  *error = error_guard(decode_run_guarded, &batch, false);

		if (error != NULL)
			record_threw(&batch, error);
	}
	if (pushed)
		PopActiveSnapshot();
	error_context_stack = context.previous;
}
