/*-------------------------------------------------------------------------
 *
 * dead_letter.c
 *	  Write and count dead letters.
 *
 * A dead letter is written in the transaction that moves the offset past its
 * row (I2).  The statements are prepared once a process.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/builtins.h"

#include "catalog_spi.h"
#include "dead_letter.h"
#include "errors.h"

#define NARGS 20

static const char *const reasons[] = {
	"decode", "constraint", "query", "target", "late", "group"
};

static const char *const insert_sql =
"INSERT INTO weir.dead_letter (source, stream, kafka_topic, "
"topic_incarnation, kafka_partition, kafka_offset, kafka_timestamp, "
"kafka_key, payload, staged_row, reason, sqlstate, message, window_start, "
"window_end, partly_applied, source_id, stream_id, owner, recorded_at) "
"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::jsonb, $11, $12, $13, $14, "
"$15, $16, $17, $18, $19::oid::regrole, $20) ON CONFLICT DO NOTHING";

static Oid	insert_types[NARGS] = {
	TEXTOID, TEXTOID, TEXTOID, INT4OID, INT4OID, INT8OID, TIMESTAMPTZOID,
	BYTEAOID, BYTEAOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID,
	TIMESTAMPTZOID, BOOLOID, INT4OID, INT4OID, OIDOID, TIMESTAMPTZOID
};

static SPIPlanPtr insert_plan = NULL;

static void
set_text(Datum *values, char *nulls, int i, const char *text)
{
	nulls[i] = text ? ' ' : 'n';

	if (text)
		values[i] = CStringGetTextDatum(text);
}

static void
set_bytes(Datum *values, char *nulls, int i, const void *bytes, size_t len)
{
	bytea	   *copy;

	nulls[i] = bytes ? ' ' : 'n';
	if (bytes == NULL)
		return;
	copy = palloc(len + VARHDRSZ);
	SET_VARSIZE(copy, len + VARHDRSZ);
	memcpy(VARDATA(copy), bytes, len);
	values[i] = PointerGetDatum(copy);
}

static void
set_time(Datum *values, char *nulls, int i, TimestampTz time)
{
	nulls[i] = TIMESTAMP_IS_NOBEGIN(time) ? 'n' : ' ';
	values[i] = TimestampTzGetDatum(time);
}

static int64
write_one(const SourceDef *source, const StreamDef *stream,
		  const DeadLetter *letter, TimestampTz now)
{
	Datum		values[NARGS];
	char		nulls[NARGS];
	bool		row = letter->partition >= 0;

	memset(nulls, ' ', sizeof(nulls));
	set_text(values, nulls, 0, source->name);
	set_text(values, nulls, 1, stream ? stream->name : NULL);
	set_text(values, nulls, 2, source->topic);
	values[3] = Int32GetDatum(source->topic_incarnation);
	values[4] = Int32GetDatum(letter->partition);
	values[5] = Int64GetDatum(letter->offset);
	nulls[4] = nulls[5] = row ? ' ' : 'n';
	set_time(values, nulls, 6, row ? letter->kafka_timestamp : DT_NOBEGIN);
	set_bytes(values, nulls, 7, letter->key, letter->key_len);
	set_bytes(values, nulls, 8, letter->payload, letter->payload_len);
	set_text(values, nulls, 9, letter->staged_row);
	set_text(values, nulls, 10, reasons[letter->reason]);
	set_text(values, nulls, 11, letter->sqlerrcode ?
			 error_sqlstate(letter->sqlerrcode) : NULL);
	set_text(values, nulls, 12, letter->message);
	set_time(values, nulls, 13, letter->window_start);
	set_time(values, nulls, 14, letter->window_end);
	values[15] = BoolGetDatum(letter->partly_applied);
	values[16] = Int32GetDatum(source->source_id);
	values[17] = Int32GetDatum(stream ? stream->stream_id : 0);
	nulls[17] = stream ? ' ' : 'n';
	values[18] = ObjectIdGetDatum(stream ? stream->owner : source->owner);
	values[19] = TimestampTzGetDatum(now);
	if (SPI_execute_plan(insert_plan, values, nulls, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write a dead letter");
	return SPI_processed;
}

int64
dead_letter_write(const SourceDef *source, const StreamDef *stream,
				  const DeadLetter *letters, int n)
{
	CatalogAccess access;
	TimestampTz now = GetCurrentTimestamp();
	int64		written = 0;

	if (n == 0)
		return 0;
	catalog_begin(&access);
	if (insert_plan == NULL)
	{
		insert_plan = SPI_prepare(insert_sql, NARGS, insert_types);
		if (insert_plan == NULL || SPI_keepplan(insert_plan) != 0)
			elog(ERROR, "could not prepare the writing of dead letters");
	}
	for (int i = 0; i < n; i++)
		written += write_one(source, stream, &letters[i], now);
	catalog_end(&access);
	return written;
}

int64
dead_letter_count(int32 source_id, int32 stream_id)
{
	CatalogAccess access;
	CatalogRow	row;
	CatalogArg	args[] = {CATALOG_INT4(source_id), CATALOG_INT4(stream_id)};
	int64		count;

	catalog_begin(&access);
	catalog_execute("SELECT count(*) FROM weir.dead_letter "
					"WHERE source_id = $1 AND coalesce(stream_id, 0) = $2", 2,
					args);
	catalog_row_begin(&row, &access, 0);
	count = catalog_next_int8(&row);
	catalog_end(&access);
	return count;
}
