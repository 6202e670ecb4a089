/*-------------------------------------------------------------------------
 *
 * stream_progress.c
 *	  Durable positions and watermark: read, lock, write, all or nothing.
 *
 * I1: the applied offsets are written in the transaction of the results they
 * stand for.  Whoever applies a batch first locks the stream, so that a seek
 * and a batch exclude each other; a batch begun under another
 * seek_generation is void.  The write compares with what was read.
 *
 * All of it is one row of stream_state, which gets one new version a batch.
 * While somebody's old snapshot (a dump) keeps the old versions from being
 * removed, looking the row up by its key would have to pass all of them; the
 * worker knows where the newest one is, and looks there first.
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

/* Where the row is: by its place, and if it is not there by its key. */
#define ROW_BY_PLACE "WHERE s.ctid = $2 AND s.stream_id = $1"
#define ROW_BY_KEY "WHERE s.stream_id = $1"

#define LOCK_STATEMENT \
	"SELECT s.seek_generation FROM weir_internal.stream_state s "

/*
 * Partitions that were added meanwhile keep what was written for them.  $3 is
 * how many there were, $4 and $5 what was read, then come the new values.
 */
#define WRITE_STATEMENT \
	"UPDATE weir_internal.stream_state s SET " \
	"applied_offsets = $6 || s.applied_offsets[$3 + 1:], " \
	"max_event_times = $7 || s.max_event_times[$3 + 1:], " \
	"last_record_timestamps = $8 || s.last_record_timestamps[$3 + 1:], " \
	"max_record_timestamps = $9 || s.max_record_timestamps[$3 + 1:], " \
	"watermark = $10, seek_floor = $11, floor_pending = $12, " \
	"floor_bounds = CASE WHEN $12 THEN $13 || s.floor_bounds[$3 + 1:] END, " \
	"has_rows = $14 "
#define WRITE_CONDITION \
	" AND s.applied_offsets[:$3] = $4 " \
	"AND s.watermark IS NOT DISTINCT FROM $5 RETURNING s.ctid"

static SPIPlanPtr lock_plans[2] = {NULL};
static SPIPlanPtr write_plans[2] = {NULL};

/* Times by partition; all of them none when there are none. */
static TimestampTz *
next_times(const StreamWorker *w, CatalogRow *row, TimestampTz none)
{
	int			n;
	TimestampTz *times = catalog_next_time_array(row, &n, none);

	if (times == NULL)
	{
		times = MemoryContextAlloc(row->caller, sizeof(TimestampTz) *
								   Max(w->npartitions, 1));
		for (n = 0; n < w->npartitions; n++)
			times[n] = none;
	}
	if (n != w->npartitions)
		elog(ERROR, "positions of stream %d do not fit together",
			 w->def->stream_id);
	return times;
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
	bool		isnull;
	bool		sought;
	Datum		d;
	MemoryContext old;

	MemoryContextReset(w->progress_cxt);
	old = MemoryContextSwitchTo(w->progress_cxt);
	catalog_begin(&access);
	if (catalog_execute("SELECT ctid, watermark, seek_generation, "
						"seek_to IS NOT NULL, seek_floor, floor_pending, "
						"has_rows, seek_time, "
						"applied_offsets, max_event_times, "
						"last_record_timestamps, max_record_timestamps, "
						"floor_bounds "
						"FROM weir_internal.stream_state "
						"WHERE stream_id = $1", 1, id) != 1)
		elog(ERROR, "stream %d has no state", w->def->stream_id);
	catalog_row_begin(&row, &access, 0);
	d = catalog_next_datum(&row, &isnull);
	w->place = *(ItemPointer) DatumGetPointer(d);
	d = catalog_next_datum(&row, &isnull);
	w->watermark = isnull ? DT_NOBEGIN : DatumGetTimestampTz(d);
	w->seek_generation = catalog_next_int8(&row);
	sought = catalog_next_bool(&row);
	d = catalog_next_datum(&row, &isnull);
	w->floor = isnull ? DT_NOBEGIN : DatumGetTimestampTz(d);
	w->floor_pending = catalog_next_bool(&row);
	w->has_rows = catalog_next_bool(&row);
	d = catalog_next_datum(&row, &isnull);
	w->seek_time = isnull ? DT_NOEND : DatumGetTimestampTz(d);
	w->applied = catalog_next_int8_array(&row, &w->npartitions);
	w->max_event = next_times(w, &row, DT_NOBEGIN);
	w->last = next_times(w, &row, DT_NOBEGIN);
	w->newest = next_times(w, &row, DT_NOBEGIN);
	w->floor_bounds = next_times(w, &row, DT_NOEND);
	catalog_end(&access);

	if (sought)
		w->npartitions = 0;
	w->staged = palloc(sizeof(int64) * w->npartitions);
	w->cap = palloc0(sizeof(int64) * w->npartitions);
	for (int p = 0; p < w->npartitions; p++)
		w->staged[p] = -1;
	w->advance_stale = true;
	w->oldest_end = w->closed_to = DT_NOBEGIN;
	w->failed_until = w->failed_from = DT_NOEND;
	MemoryContextSwitchTo(old);
	return w->npartitions > 0;
}

/*
 * Run a statement on the stream's row; its parameters begin with the
 * stream's number and place.  False: there is no such row.
 */
static bool
run_on_row(SPIPlanPtr plans[2], const char *sql, const char *condition,
		   int nargs, const CatalogArg *args)
{
	Oid			types[16];
	Datum		values[16];
	char		nulls[16];

	Assert(nargs <= lengthof(types));
	for (int i = 0; i < nargs; i++)
	{
		types[i] = args[i].type;
		values[i] = args[i].value;
		nulls[i] = args[i].isnull ? 'n' : ' ';
	}
	for (int i = 0; i < 2; i++)
	{
		int			rc;

		if (plans[i] == NULL)
		{
			char	   *text = psprintf("%s%s%s", sql, i == 0 ? ROW_BY_PLACE :
										ROW_BY_KEY, condition);
			SPIPlanPtr	plan = SPI_prepare(text, nargs, types);

			if (plan == NULL || SPI_keepplan(plan) != 0)
				elog(ERROR, "could not prepare \"%s\"", text);
			plans[i] = plan;
		}
		rc = SPI_execute_plan(plans[i], values, nulls, false, 0);
		if (rc < 0)
			elog(ERROR, "could not use the progress of a stream: %s",
				 SPI_result_code_string(rc));
		if (SPI_processed == 1)
			return true;
	}
	return false;
}

/*
 * Keep seeks and other changes out until the end of the transaction.  False:
 * the stream was sought since progress_read().
 */
bool
progress_lock(StreamWorker *w)
{
	CatalogAccess access;
	CatalogRow	row;
	CatalogArg	args[] = {
		CATALOG_INT4(w->def->stream_id),
		{TIDOID, PointerGetDatum(&w->place), false}
	};
	bool		same;

	catalog_begin(&access);
	catalog_lock_stream(w->def->stream_id);
	same = run_on_row(lock_plans, LOCK_STATEMENT, "", lengthof(args), args);
	if (same)
	{
		catalog_row_begin(&row, &access, 0);
		same = catalog_next_int8(&row) == w->seek_generation;
	}
	catalog_end(&access);
	return same;
}

/* Does the batch change anything that is durable? */
static bool
is_changed(const StreamWorker *w, const StreamBatch *batch)
{
	for (int p = 0; p < w->npartitions; p++)
		if (batch->high[p] != w->applied[p] ||
			batch->max_event[p] > w->max_event[p] ||
			batch->newest[p] > w->newest[p] ||
			batch->new_bounds[p] != w->floor_bounds[p])
			return true;
	return batch->new_watermark != w->watermark ||
		batch->new_floor != w->floor ||
		batch->new_floor_pending != w->floor_pending;
}

/* Write offsets, event times and watermark of a batch. */
void
progress_write(StreamWorker *w, StreamBatch *batch)
{
	CatalogAccess access;
	CatalogRow	row;
	int			n = w->npartitions;
	TimestampTz *events = palloc(sizeof(TimestampTz) * n);
	TimestampTz *lasts = palloc(sizeof(TimestampTz) * n);
	TimestampTz *newest = palloc(sizeof(TimestampTz) * n);
	bool		isnull;

	batch->place = w->place;
	if (!is_changed(w, batch))
		return;
	for (int p = 0; p < n; p++)
	{
		events[p] = Max(w->max_event[p], batch->max_event[p]);
		lasts[p] = batch->high[p] == w->applied[p] ? w->last[p] :
			batch->last[p];
		newest[p] = Max(w->newest[p], batch->newest[p]);
	}
	catalog_begin(&access);
	{
		CatalogArg	args[] = {
			CATALOG_INT4(w->def->stream_id),
			{TIDOID, PointerGetDatum(&w->place), false},
			CATALOG_INT4(n),
			CATALOG_INT8S(w->applied, n),
			CATALOG_TIME(w->watermark, TIMESTAMP_IS_NOBEGIN(w->watermark)),
			CATALOG_INT8S(batch->high, n),
			CATALOG_TIMES(events, n, DT_NOBEGIN),
			CATALOG_TIMES(lasts, n, DT_NOBEGIN),
			CATALOG_TIMES(newest, n, DT_NOBEGIN),
			CATALOG_TIME(batch->new_watermark,
						 TIMESTAMP_IS_NOBEGIN(batch->new_watermark)),
			CATALOG_TIME(batch->new_floor,
						 TIMESTAMP_IS_NOBEGIN(batch->new_floor)),
			CATALOG_BOOL(batch->new_floor_pending),
			CATALOG_TIMES(batch->new_bounds, n, DT_NOEND),
			CATALOG_BOOL(batch->has_rows)
		};

		if (!run_on_row(write_plans, WRITE_STATEMENT, WRITE_CONDITION,
						lengthof(args), args))
			/* Another worker of the stream is at work: read it all anew. */
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("progress of stream \"%s\" was changed by somebody else",
							w->def->name)));
	}
	catalog_row_begin(&row, &access, 0);
	batch->place = *(ItemPointer) DatumGetPointer(catalog_next_datum(&row, &isnull));
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
