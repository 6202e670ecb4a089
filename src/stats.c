/*-------------------------------------------------------------------------
 *
 * stats.c
 *	  The functions behind weir.stat_source, stat_stream and stat_worker.
 *
 * A function called in a view runs with the rights of whoever reads the
 * view, so these can be called by everybody, and decide themselves what to
 * show, as pg_stat_activity does: everybody sees that a source, a stream or
 * a worker is there, and its state; all else is NULL unless the caller has
 * the rights of the owner (of the source or stream; for launcher and manager
 * of the extension) or of pg_read_all_stats.  In every function the columns
 * that all see come first.
 *
 * What stat_stream tells of the state table is read by the functions of
 * stats_state.c, only if the query asks for it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/xlog.h"
#include "catalog/pg_authid_d.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "errors.h"
#include "settings.h"
#include "stats.h"

PG_FUNCTION_INFO_V1(weir_stat_source);
PG_FUNCTION_INFO_V1(weir_stat_stream);
PG_FUNCTION_INFO_V1(weir_stat_worker);

#define MAX_COLUMNS 40

/* A result row, filled column by column. */
typedef struct StatRow
{
	ReturnSetInfo *result;
	int			n;				/* columns so far */
	Datum		values[MAX_COLUMNS];
	bool		nulls[MAX_COLUMNS];
} StatRow;

static void
put(StatRow *row, Datum value, bool isnull)
{
	Assert(row->n < row->result->setDesc->natts);
	row->values[row->n] = value;
	row->nulls[row->n] = isnull;
	row->n++;
}

static void
put_null(StatRow *row)
{
	put(row, (Datum) 0, true);
}

static void
put_int4(StatRow *row, int32 value)
{
	put(row, Int32GetDatum(value), false);
}

static void
put_int8(StatRow *row, int64 value)
{
	put(row, Int64GetDatum(value), false);
}

/* An offset or a lag: NULL when below 0. */
static void
put_known(StatRow *row, int64 value)
{
	put(row, Int64GetDatum(value), value < 0);
}

/* NULL for NULL and for the empty string. */
static void
put_text(StatRow *row, const char *value)
{
	bool		isnull = value == NULL || value[0] == '\0';

	put(row, isnull ? (Datum) 0 : CStringGetTextDatum(value), isnull);
}

static void
put_name(StatRow *row, const char *value)
{
	bool		isnull = value == NULL || value[0] == '\0';

	put(row, isnull ? (Datum) 0 :
		DirectFunctionCall1(namein, CStringGetDatum(value)), isnull);
}

/* An event time; NULL for one that is not known. */
static void
put_event_time(StatRow *row, TimestampTz value)
{
	put(row, TimestampTzGetDatum(value), TIMESTAMP_NOT_FINITE(value));
}

/* NULL for a time of the clock's that is not set. */
static void
put_time(StatRow *row, TimestampTz value)
{
	put(row, TimestampTzGetDatum(value),
		value == 0 || TIMESTAMP_NOT_FINITE(value));
}

static void
put_ms(StatRow *row, double us)
{
	put(row, Float8GetDatum(us / 1000), isnan(us));
}

static void
put_quantiles(StatRow *row, const SharedHistogram *histogram, int n,
			  const double *quantiles)
{
	for (int i = 0; i < n; i++)
		put_ms(row, worker_histogram_quantile(histogram, quantiles[i]));
}

/* last_error, last_error_sqlstate, last_error_at */
static void
put_reason(StatRow *row, StatsReason reason)
{
	put_text(row, reason.message);
	put_text(row, reason.sqlstate);
	put_time(row, reason.at);
}

/* A counter: NULL on a standby, where nobody counts. */
static void
put_counter(StatRow *row, bool known, int64 value)
{
	put(row, Int64GetDatum(value), !known);
}

/* Hand the row over; columns not filled are NULL. */
static void
put_row(StatRow *row)
{
	while (row->n < row->result->setDesc->natts)
		put_null(row);
	tuplestore_putvalues(row->result->setResult, row->result->setDesc,
						 row->values, row->nulls);
	row->n = 0;
}

static void
begin_rows(StatRow *row, FunctionCallInfo fcinfo)
{
	InitMaterializedSRF(fcinfo, 0);
	row->result = (ReturnSetInfo *) fcinfo->resultinfo;
	row->n = 0;
	Assert(row->result->setDesc->natts <= MAX_COLUMNS);
}

/* May the caller see the details of what this role owns? */
static bool
may_see(Oid owner)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) ||
		(OidIsValid(owner) && has_privs_of_role(GetUserId(), owner));
}

/*
 * stat_source
 */

/* Details of a partition of a slot; slot is NULL before the first start. */
static void
put_partition(StatRow *row, const Stats *stats, const SourceDef *source,
			  const SlotStats *slot, int partition)
{
	static const PartitionStats nothing = {
		.next = -1,.end = -1,.max_event_time = DT_NOBEGIN
	};
	const PartitionStats *part = &nothing;
	int64		applied = -1;
	bool		counted = slot || !RecoveryInProgress();
	bool		idle;

	if (slot && partition >= 0 && partition < slot->npartitions)
		part = &slot->partitions[partition];
	if (partition >= 0)
		applied = stats_applied(stats, source, slot, partition);
	idle = part->idle_since != 0 &&
		source->idle_timeout != WEIR_NO_DURATION &&
		part->idle_as_of - part->idle_since >= source->idle_timeout &&
		GetCurrentTimestamp() - part->idle_as_of <= WORKER_IDLE_GAP;

	put_known(row, applied);
	put_known(row, part->next);
	put_known(row, part->end);
	put_known(row, applied < 0 || part->end < 0 ||
			  (part->end_stale && part->end <= applied) ? STATS_UNKNOWN :
			  Max(0, part->end - applied));
	put_event_time(row, part->max_event_time);
	put(row, BoolGetDatum(idle), !counted);
	put_counter(row, counted, part->rows_in);
	put_counter(row, counted, part->bytes_in);
	put_counter(row, counted, part->rows_staged);
	put_counter(row, counted, part->rows_filtered);
	put_counter(row, counted, part->rows_dead);
	put_counter(row, counted, part->rows_null);
	put_counter(row, counted, part->rows_future);
	put_counter(row, counted, slot ? slot->staging_bytes : 0);
	put(row, Int32GetDatum(slot ? slot->segments : 0), !counted);
	put_text(row, slot ? slot->columns_never_found : NULL);
	put_name(row, slot ? slot->held_by : NULL);
	put_time(row, part->last_row_at);
	put_reason(row, stats_slot_reason(stats, source, slot));
	put_time(row, slot ? slot->next_retry_at : 0);
	put(row, Int64GetDatum(slot ? (int64) slot->epoch : 0), slot == NULL);
	put_time(row, slot ? slot->stats_reset : 0);
}

/* How many partitions are known of: from the slot, else from progress. */
static int
known_partitions(const Stats *stats, const SourceDef *source,
				 const SlotStats *slot)
{
	int			n = slot ? slot->npartitions : 0;
	ListCell   *lc;

	if (n > 0)
		return n;
	foreach(lc, stats->streams)
	{
		StreamStats *stream = lfirst(lc);

		if (stream->def->source_id == source->source_id)
			n = Max(n, stream->npartitions);
	}
	return n;
}

/* The rows of a slot, or the one row of a source that has none yet. */
static void
put_slot(StatRow *row, const Stats *stats, const SourceDef *source,
		 const SlotStats *slot)
{
	StreamStats *stream = slot && slot->stream_id != 0 ?
	stats_stream(stats, slot->stream_id) : NULL;
	int			n = known_partitions(stats, source, slot);
	bool		visible = may_see(source->owner) ||
	(stream && may_see(stream->def->owner));

	if (slot && slot->stream_id != 0 && stream == NULL)
		return;					/* dropped just now */
	for (int p = n == 0 ? -1 : 0; p < n; p++)
	{
		put_name(row, source->name);
		put_name(row, stream ? stream->def->name : NULL);
		put(row, Int32GetDatum(p), p < 0);
		put_text(row, stats_slot_state(stats, source, slot));
		if (visible)
			put_partition(row, stats, source, slot, p);
		put_row(row);
	}
}

Datum
weir_stat_source(PG_FUNCTION_ARGS)
{
	Stats	   *stats = stats_read();
	StatRow		row;
	ListCell   *lc;
	ListCell   *lc2;

	begin_rows(&row, fcinfo);
	foreach(lc, stats->sources)
	{
		SourceDef  *source = lfirst(lc);

		if (stats_slot(stats, source->source_id, 0) == NULL)
			put_slot(&row, stats, source, NULL);
		foreach(lc2, stats->slots)
		{
			SlotStats  *slot = lfirst(lc2);

			if (slot->source_id == source->source_id)
				put_slot(&row, stats, source, slot);
		}
	}
	return (Datum) 0;
}

/*
 * stat_stream
 */

static void
put_interval_us(StatRow *row, int64 us)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = Max(us, 0);
	put(row, IntervalPGetDatum(interval), us < 0);
}

static void
put_stream(StatRow *row, const Stats *stats, const StreamStats *stream)
{
	static const double commit_quantiles[] = {0.5, 0.95, 0.99, 1};
	static const double visible_quantiles[] = {0.5, 0.99};
	const StreamShared *s = &stream->shared;
	bool		counted = stream->has_shared || !RecoveryInProgress();
	int64		lag;
	int64		lag_time;

	stats_lag(stats, stream, &lag, &lag_time);
	put_known(row, lag);
	put_interval_us(row, lag_time);
	put_event_time(row, stream->watermark);
	put(row, Int32GetDatum(s->watermark_held_by),
		s->pid == 0 || s->watermark_held_by < 0);
	put_counter(row, counted, s->rows_in);
	put_counter(row, counted, s->rows_filtered);
	put_counter(row, counted, s->rows_late);
	put_counter(row, counted, s->rows_dead);
	put_counter(row, counted, s->rows_out);
	put_counter(row, counted, s->groups_failed);
	put_counter(row, counted, s->batches);
	put_counter(row, counted, s->last_batch_rows);
	put_time(row, s->last_batch_at);
	put_quantiles(row, &s->commit_us, lengthof(commit_quantiles),
				  commit_quantiles);
	put_quantiles(row, &s->visible_us, lengthof(visible_quantiles),
				  visible_quantiles);
	put_counter(row, counted, s->windows_closed);
	put_counter(row, counted, s->retries);
	put_reason(row, stats_stream_reason(stats, stream));
	put_time(row, s->next_retry_at);
	put_time(row, s->stats_reset);
	put(row, ObjectIdGetDatum(stream->def->state),
		!OidIsValid(stream->def->state));
}

Datum
weir_stat_stream(PG_FUNCTION_ARGS)
{
	Stats	   *stats = stats_read();
	StatRow		row;
	ListCell   *lc;

	begin_rows(&row, fcinfo);
	foreach(lc, stats->streams)
	{
		StreamStats *stream = lfirst(lc);

		put_name(&row, stream->def->name);
		put_text(&row, stats_stream_state(stats, stream));
		if (may_see(stream->def->owner))
			put_stream(&row, stats, stream);
		put_row(&row);
	}
	return (Datum) 0;
}

/*
 * stat_worker
 */

/* Workers of this database, and the launcher. */
static List *
copy_workers(void)
{
	List	   *workers = NIL;

	LWLockAcquire(&weir_shared->lock, LW_SHARED);
	for (int i = 0; i < weir_shared->nworkers; i++)
	{
		WorkerShared *worker = &weir_shared->workers[i];
		WorkerShared *copy;

		if (worker->pid == 0 || (worker->kind != WORKER_LAUNCHER &&
								 worker->dbid != MyDatabaseId))
			continue;
		copy = palloc(sizeof(*copy));
		memcpy(copy, worker, sizeof(*copy));
		workers = lappend(workers, copy);
	}
	LWLockRelease(&weir_shared->lock);
	return workers;
}

static void
put_activity(StatRow *row, pid_t pid)
{
	const char *activity = pgstat_get_backend_current_activity(pid, false);

	/* "<...>" says that there is none */
	put_text(row, activity[0] == '<' ? NULL : activity);
}

static void
put_worker(StatRow *row, const Stats *stats, const WorkerShared *worker)
{
	SourceDef  *source = stats_source(stats, worker->source_id);
	StreamStats *stream = stats_stream(stats, worker->stream_id);
	bool		ingest = worker->kind == WORKER_INGEST ||
	worker->kind == WORKER_CATCH_UP;
	SlotStats  *slot = ingest ?
	stats_slot(stats, worker->source_id, worker->stream_id) : NULL;
	const char *state = "running";
	bool		visible = (source && may_see(source->owner) && ingest) ||
	(stream && may_see(stream->def->owner));

	if (ingest)
		state = stats_slot_state(stats, source, slot);
	else if (worker->kind == WORKER_STREAM)
		state = stream ? stats_stream_state(stats, stream) :
			worker_stream_state_name(STREAM_STARTING);
	else
		visible = may_see(catalog_extension_owner());

	put_int4(row, worker->pid);
	put_text(row, worker_kind_name(worker->kind));
	put_name(row, source ? source->name : NULL);
	put_name(row, stream ? stream->def->name : NULL);
	put(row, Int32GetDatum(1), !ingest);
	put_text(row, state);
	if (visible || may_see(InvalidOid))
	{
		put_activity(row, worker->pid);
		put_time(row, worker->started_at);
		put_int8(row, worker->restarts);
		put_text(row, worker->last_exit_reason);
		put_int8(row, worker->cpu_us / 1000);
		put_int8(row, worker->memory_bytes);
		put(row, Int64GetDatum(slot ? slot->kafka_queue_bytes : 0), !ingest);
	}
	put_row(row);
}

Datum
weir_stat_worker(PG_FUNCTION_ARGS)
{
	Stats	   *stats = stats_read();
	StatRow		row;
	ListCell   *lc;

	begin_rows(&row, fcinfo);
	foreach(lc, copy_workers())
		put_worker(&row, stats, lfirst(lc));
	return (Datum) 0;
}
