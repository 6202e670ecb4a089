/*-------------------------------------------------------------------------
 *
 * stream_progress.c
 *	  Durable positions and watermark: read, lock, write, all or nothing.
 *
 * I1: the applied offsets are written in the transaction of the results they
 * stand for.  Whoever applies a batch first locks the stream's row of
 * stream_state, so that a seek and a batch exclude each other; a batch begun
 * under another seek_generation is void.  The write compares with the
 * offsets read, and must hit each changed partition's row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog_spi.h"
#include "stream_batch.h"

static SPIPlanPtr lock_plan = NULL;
static SPIPlanPtr write_plan = NULL;
static SPIPlanPtr watermark_plan = NULL;

static SPIPlanPtr
prepare(SPIPlanPtr *plan, const char *sql, int nargs, Oid *types)
{
	if (*plan == NULL)
	{
		SPIPlanPtr	p = SPI_prepare(sql, nargs, types);

		if (p == NULL || SPI_keepplan(p) != 0)
			elog(ERROR, "could not prepare \"%s\"", sql);
		*plan = p;
	}
	return *plan;
}

/*
 * Read all of it, in the caller's transaction.  False: the first positions
 * are not resolved yet.
 */
bool
progress_read(StreamWorker *w)
{
	CatalogAccess access;
	CatalogRow	row;
	CatalogArg	id[] = {CATALOG_INT4(w->def->stream_id)};
	uint64		n;
	bool		isnull;
	bool		sought;
	Datum		d;

	catalog_begin(&access);
	n = catalog_execute("SELECT watermark, seek_generation, "
						"seek_to IS NOT NULL, seek_floor, floor_pending "
						"FROM weir_internal.stream_state "
						"WHERE stream_id = $1", 1, id);
	if (n != 1)
		elog(ERROR, "stream %d has no state", w->def->stream_id);
	catalog_row_begin(&row, &access, 0);
	d = catalog_next_datum(&row, &isnull);
	w->watermark = isnull ? DT_NOBEGIN : DatumGetTimestampTz(d);
	w->seek_generation = catalog_next_int8(&row);
	sought = catalog_next_bool(&row);
	d = catalog_next_datum(&row, &isnull);
	w->floor = isnull ? DT_NOBEGIN : DatumGetTimestampTz(d);
	w->floor_pending = catalog_next_bool(&row);
	if (w->options.windows_from != (isnull ? 0 : w->floor))
	{
		w->options.windows_from = isnull ? 0 : w->floor;
		step_forget(w);
	}

	n = catalog_execute("SELECT kafka_partition, applied_offset, "
						"max_event_time FROM weir_internal.progress "
						"WHERE stream_id = $1 ORDER BY 1", 1, id);
	w->npartitions = 0;
	if (n > 0 && !sought)
	{
		if (w->applied)
		{
			pfree(w->applied);
			pfree(w->max_event);
			pfree(w->staged);
			pfree(w->cap);
		}
		w->applied = MemoryContextAlloc(w->cxt, sizeof(int64) * n);
		w->max_event = MemoryContextAlloc(w->cxt, sizeof(TimestampTz) * n);
		w->staged = MemoryContextAlloc(w->cxt, sizeof(int64) * n);
		w->cap = MemoryContextAllocZero(w->cxt, sizeof(int64) * n);
		w->advance_stale = true;
		for (uint64 i = 0; i < n; i++)
		{
			catalog_row_begin(&row, &access, i);
			if (catalog_next_int4(&row) != (int32) i)
				elog(ERROR, "stream %d has no position for partition " UINT64_FORMAT,
					 w->def->stream_id, i);
			w->applied[i] = catalog_next_int8(&row);
			w->staged[i] = -1;
			d = catalog_next_datum(&row, &isnull);
			w->max_event[i] = isnull ? DT_NOBEGIN : DatumGetTimestampTz(d);
		}
		w->npartitions = n;
	}
	catalog_end(&access);
	w->oldest_end = DT_NOBEGIN;
	w->failed_until = DT_NOEND;
	return w->npartitions > 0;
}

/*
 * Keep seeks and other changes out until the end of the transaction.  False:
 * the stream was sought since progress_read().
 */
bool
progress_lock(StreamWorker *w)
{
	CatalogAccess access;
	Oid			types[] = {INT4OID};
	Datum		values[] = {Int32GetDatum(w->def->stream_id)};
	bool		isnull;
	bool		same;

	catalog_begin(&access);
	prepare(&lock_plan, "SELECT seek_generation "
			"FROM weir_internal.stream_state WHERE stream_id = $1 FOR UPDATE",
			1, types);
	if (SPI_execute_plan(lock_plan, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not lock the progress of a stream");
	same = SPI_processed == 1 &&
		DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									SPI_tuptable->tupdesc, 1, &isnull)) ==
		w->seek_generation;
	catalog_end(&access);
	return same;
}

static Datum
int8_array(Datum *values, int n)
{
	return PointerGetDatum(construct_array(values, n, INT8OID, 8,
										   FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

static Datum
times_array(Datum *values, bool *nulls, int n)
{
	int			lbs = 1;

	return PointerGetDatum(construct_md_array(values, nulls, 1, &n, &lbs,
											  TIMESTAMPTZOID, 8,
											  FLOAT8PASSBYVAL,
											  TYPALIGN_DOUBLE));
}

/* Another worker of the stream is at work: read the position anew. */
static void
changed_by_another(const StreamWorker *w)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("progress of stream \"%s\" was changed by somebody else",
					w->def->name)));
}

static void
write_offsets(StreamWorker *w, const StreamBatch *batch)
{
	Oid			types[] = {INT4OID, INT4ARRAYOID, INT8ARRAYOID, INT8ARRAYOID,
	TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID};
	Datum	   *parts = palloc(sizeof(Datum) * w->npartitions);
	Datum	   *old = palloc(sizeof(Datum) * w->npartitions);
	Datum	   *new = palloc(sizeof(Datum) * w->npartitions);
	Datum	   *events = palloc(sizeof(Datum) * w->npartitions);
	Datum	   *lasts = palloc(sizeof(Datum) * w->npartitions);
	bool	   *nulls = palloc(sizeof(bool) * w->npartitions);
	bool	   *last_nulls = palloc(sizeof(bool) * w->npartitions);
	Datum		values[6];
	int			n = 0;

	for (int p = 0; p < w->npartitions; p++)
	{
		TimestampTz event = Max(w->max_event[p], batch->max_event[p]);

		if (batch->high[p] == w->applied[p] && event == w->max_event[p])
			continue;
		parts[n] = Int32GetDatum(p);
		old[n] = Int64GetDatum(w->applied[p]);
		new[n] = Int64GetDatum(batch->high[p]);
		events[n] = TimestampTzGetDatum(event);
		nulls[n] = TIMESTAMP_IS_NOBEGIN(event);
		lasts[n] = TimestampTzGetDatum(batch->last[p]);
		last_nulls[n] = TIMESTAMP_IS_NOBEGIN(batch->last[p]);
		n++;
	}
	if (n == 0)
		return;
	prepare(&write_plan, "UPDATE weir_internal.progress p "
			"SET applied_offset = n.new, max_event_time = n.event, "
			"last_record_timestamp = n.last "
			"FROM ROWS FROM (pg_catalog.unnest($2), "
			"pg_catalog.unnest($3), pg_catalog.unnest($4), "
			"pg_catalog.unnest($5), pg_catalog.unnest($6)) "
			"AS n (part, old, new, event, last) "
			"WHERE p.stream_id = $1 AND p.kafka_partition = n.part "
			"AND p.applied_offset = n.old", 6, types);
	values[0] = Int32GetDatum(w->def->stream_id);
	values[1] = PointerGetDatum(construct_array(parts, n, INT4OID, 4, true,
												TYPALIGN_INT));
	values[2] = int8_array(old, n);
	values[3] = int8_array(new, n);
	values[4] = times_array(events, nulls, n);
	values[5] = times_array(lasts, last_nulls, n);
	if (SPI_execute_plan(write_plan, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not write the progress of a stream");
	if (SPI_processed != (uint64) n)
		changed_by_another(w);
}

/* Write offsets, event times and watermark of a batch. */
void
progress_write(StreamWorker *w, const StreamBatch *batch)
{
	CatalogArg	floor[] = {
		CATALOG_INT4(w->def->stream_id),
		CATALOG_TIME(batch->new_floor,
					 TIMESTAMP_IS_NOBEGIN(batch->new_floor)),
		CATALOG_BOOL(batch->new_floor_pending)
	};
	CatalogAccess access;
	Oid			types[] = {INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum		values[3];
	char		nulls[] = {' ', ' ', ' '};

	catalog_begin(&access);
	write_offsets(w, batch);
	if (batch->new_floor != w->floor ||
		batch->new_floor_pending != w->floor_pending)
		catalog_execute("UPDATE weir_internal.stream_state "
						"SET seek_floor = $2, floor_pending = $3 "
						"WHERE stream_id = $1", 3, floor);
	if (batch->new_watermark != w->watermark)
	{
		prepare(&watermark_plan, "UPDATE weir_internal.stream_state "
				"SET watermark = $2 WHERE stream_id = $1 "
				"AND watermark IS NOT DISTINCT FROM $3", 3, types);
		values[0] = Int32GetDatum(w->def->stream_id);
		values[1] = TimestampTzGetDatum(batch->new_watermark);
		values[2] = TimestampTzGetDatum(w->watermark);
		nulls[2] = TIMESTAMP_IS_NOBEGIN(w->watermark) ? 'n' : ' ';
		if (SPI_execute_plan(watermark_plan, values, nulls, false, 0) !=
			SPI_OK_UPDATE)
			elog(ERROR, "could not write the watermark of a stream");
		if (SPI_processed != 1)
			changed_by_another(w);
	}
	catalog_end(&access);
}

/*
 * Read the first recorded advance that is not applied yet, in a transaction
 * of its own.  While its end offsets are not known, the stream reads nothing
 * more: what comes after the call must not be closed by it.
 */
void
progress_read_advance(StreamWorker *w)
{
	CatalogAccess access;
	CatalogRow	row;
	CatalogArg	id[] = {CATALOG_INT4(w->def->stream_id)};
	Datum		to_time;
	Datum		ends;
	bool		no_time;
	bool		no_ends;
	Datum	   *offsets;
	int			n = 0;

	w->advance_stale = false;
	w->advance_id = 0;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	catalog_begin(&access);
	if (catalog_execute("SELECT advance_id, to_time, end_offsets "
						"FROM weir_internal.advance WHERE stream_id = $1 "
						"ORDER BY advance_id LIMIT 1", 1, id) > 0)
	{
		catalog_row_begin(&row, &access, 0);
		w->advance_id = catalog_next_int8(&row);
		to_time = catalog_next_datum(&row, &no_time);
		w->advance_to = no_time ? DT_NOEND : DatumGetTimestampTz(to_time);
		ends = catalog_next_datum(&row, &no_ends);
		if (!no_ends)
			deconstruct_array(DatumGetArrayTypeP(ends), INT8OID, 8,
							  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &offsets,
							  NULL, &n);
		for (int p = 0; p < w->npartitions; p++)
			w->cap[p] = p < n ? DatumGetInt64(offsets[p]) : 0;
		w->advance_known = !no_ends;
	}
	catalog_end(&access);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* Are all rows below its end offsets in? */
bool
progress_advance_due(const StreamWorker *w, const StreamBatch *batch)
{
	if (w->advance_id == 0 || !w->advance_known)
		return false;
	for (int p = 0; p < w->npartitions; p++)
		if (batch->high[p] < w->cap[p])
			return false;
	return true;
}

/* It is applied in this transaction. */
void
progress_advance_done(StreamWorker *w)
{
	CatalogAccess access;
	CatalogArg	id[] = {CATALOG_INT8(w->advance_id)};

	catalog_begin(&access);
	catalog_execute("DELETE FROM weir_internal.advance WHERE advance_id = $1",
					1, id);
	catalog_end(&access);
}
