/*-------------------------------------------------------------------------
 *
 * dead_letter.c
 *	  Write dead letters, and stop at their limit.
 *
 * A dead letter is written in the transaction that moves the offset past its
 * row (I2), and counted in it: what is rolled back has not been counted.
 *
 * The limit is about the letters that are there.  Counting them would be a
 * scan, so weir_internal.dead_letter_count has rows whose sum is the number:
 * a writer adds one with what it wrote, a trigger one with what a statement
 * deleted.  Nobody updates a row, so a transaction that has deleted letters
 * and does not end keeps no worker waiting.  When there are many rows, a
 * writer replaces those that it can lock by their sum.
 *
 * The statements are prepared once a process.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/builtins.h"

#include "catalog_spi.h"
#include "dead_letter.h"
#include "errors.h"
#include "settings.h"

#define NARGS 20

static const char *const reasons[] = {
	"decode", "constraint", "query", "target", "late", "group"
};

static const char *const insert_sql =
"INSERT INTO weir_internal.dead_letter (source, stream, kafka_topic, "
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

/* Letters of a source's ingest (stream_id 0) or of a stream, by many rows. */
#define FOLD_ROWS 32

static int64
count_letters(int32 source_id, int32 stream_id, int64 *rows)
{
	CatalogArg	args[] = {CATALOG_INT4(source_id), CATALOG_INT4(stream_id)};
	bool		isnull;

	catalog_execute("SELECT coalesce(sum(letters), 0)::int8, count(*) "
					"FROM weir_internal.dead_letter_count "
					"WHERE source_id = $1 AND stream_id = $2", 2, args);
	*rows = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
										SPI_tuptable->tupdesc, 2, &isnull));
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1, &isnull));
}

static void
add_letters(int32 source_id, int32 stream_id, int64 written, bool fold)
{
	CatalogArg	args[] = {
		CATALOG_INT4(source_id), CATALOG_INT4(stream_id),
		CATALOG_INT8(written)
	};

	if (fold)
		catalog_execute("WITH taken AS MATERIALIZED (SELECT ctid AS tid "
						"FROM weir_internal.dead_letter_count "
						"WHERE source_id = $1 AND stream_id = $2 "
						"FOR UPDATE SKIP LOCKED), "
						"gone AS (DELETE FROM weir_internal.dead_letter_count "
						"WHERE ctid = ANY (ARRAY(SELECT tid FROM taken)) "
						"RETURNING letters) "
						"INSERT INTO weir_internal.dead_letter_count "
						"(source_id, stream_id, letters) SELECT $1, $2, $3 + coalesce(sum(letters), 0) "
						"FROM gone", 3, args);
	else
		catalog_execute("INSERT INTO weir_internal.dead_letter_count "
						"(source_id, stream_id, letters) VALUES ($1, $2, $3)", 3, args);
}

static void
limit_reached(const SourceDef *source, const StreamDef *stream, int64 limit)
{
	const char *name = stream ? stream->name : source->name;

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 stream ?
			 errmsg("stream \"%s\" has reached its limit of %lld dead letters",
					name, (long long) limit) :
			 errmsg("source \"%s\" has reached its limit of %lld dead letters",
					name, (long long) limit),
			 errhint("Look at weir.dead_letter, delete what is not needed any "
					 "more, repair what made them, and call "
					 "weir.resume(%s).",
					 quote_literal_cstr(quote_identifier(name)))));
}

void
dead_letter_write(const SourceDef *source, const StreamDef *stream,
				  const DeadLetter *letters, int n)
{
	CatalogAccess access;
	TimestampTz now = GetCurrentTimestamp();
	int64		limit = stream ? stream->dead_letter_limit :
	source->dead_letter_limit;
	int32		stream_id = stream ? stream->stream_id : 0;
	int64		there;
	int64		rows;
	int64		written = 0;

	if (n == 0)
		return;
	if (limit <= 0)
		limit = weir_dead_letter_limit;
	catalog_begin(&access);
	if (insert_plan == NULL)
	{
		insert_plan = SPI_prepare(insert_sql, NARGS, insert_types);
		if (insert_plan == NULL || SPI_keepplan(insert_plan) != 0)
			elog(ERROR, "could not prepare the writing of dead letters");
	}
	there = count_letters(source->source_id, stream_id, &rows);
	for (int i = 0; i < n; i++)
	{
		written += write_one(source, stream, &letters[i], now);
		if (written > 0 && there + written > limit)
			limit_reached(source, stream, limit);
	}
	if (written > 0)
		add_letters(source->source_id, stream_id, written, rows > FOLD_ROWS);
	catalog_end(&access);
}

/*
 * Sources and streams that are no more have no limit: forget how many letters
 * they have.
 */
void
dead_letter_forget_dropped(void)
{
	CatalogAccess access;

	catalog_begin(&access);
	catalog_execute("DELETE FROM weir_internal.dead_letter_count c "
					"WHERE NOT EXISTS (SELECT FROM weir_internal.source s "
					"WHERE s.source_id = c.source_id) OR c.stream_id <> 0 "
					"AND NOT EXISTS (SELECT FROM weir_internal.stream s "
					"WHERE s.stream_id = c.stream_id)", 0, NULL);
	catalog_end(&access);
}
