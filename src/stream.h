/*-------------------------------------------------------------------------
 *
 * stream.h
 *	  Staging -> state -> target: a continuous query in parts and statements.
 *
 * A query is analyzed once into a StreamPlan and compiled into ordinary SQL
 * texts, a StreamStatements, for each segment of the ring (they differ in the
 * name of the segment's view only).  stream_batch.c prepares and runs them.
 *
 * The row stage is the query's FROM and WHERE, giving group keys and
 * aggregate arguments as columns; it is deparsed from the analyzed query
 * with the source replaced by the name of a CTE, "src":
 *
 *	WITH src AS NOT MATERIALIZED (
 *		   SELECT * FROM <segment view> v
 *		   WHERE v.kafka_tid >= $1 AND v.kafka_tid < $2
 *			 AND weir_internal.in_batch(v.kafka_partition, v.kafka_offset,
 *										$3, $4)),
 *		 r AS NOT MATERIALIZED (<row stage over src>),
 *		 delta AS (SELECT k1, ..., <partial states> FROM r GROUP BY k1, ...),
 *		 merged AS (INSERT INTO <state> ... ON CONFLICT ... RETURNING ...),
 *		 final AS (<output expressions over merged>)
 *	...
 *
 * Parameters, the same for every statement (unused ones are declared all
 * the same):
 *	$1 tid, $2 tid			the block range of the batch
 *	$3 int8[], $4 int8[]	[applied, high) a partition, element partition + 1
 *	$5 timestamptz			watermark, as a time of the windows (zone_lower());
 *							-infinity when there is none yet
 *	$6 tid[]				rows to leave out (culprits), may be empty
 *	$7 int8, $8 int8		of what needs a number
 *	$9 timestamptz			no window is open that ends by it; -infinity when
 *							that is not known
 *
 * The statements named "..._one" and "one_..." are for one row or group, and
 * have parameters of their own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_STREAM_H
#define WEIR_STREAM_H

#include "catalog.h"
#include "nodes/parsenodes.h"
#include "stream_zone.h"

#define STREAM_NPARAMS 9

typedef enum StreamKind
{
	STREAM_ROW,
	STREAM_AGGREGATE,			/* running, no window */
	STREAM_WINDOW
} StreamKind;

typedef enum WindowKind
{
	WINDOW_NONE,
	WINDOW_TUMBLE,
	WINDOW_HOP
} WindowKind;

typedef struct StreamOutput
{
	char	   *name;
	Oid			type;
	int32		typmod;
	Oid			collation;
	bool		is_key;			/* a group key */
	bool		is_window;		/* window_start or window_end */
} StreamOutput;

typedef struct StreamPlan
{
	StreamKind	kind;
	WindowKind	window_kind;
	Oid			source_relid;
	List	   *outputs;		/* of StreamOutput * */
	List	   *key_columns;	/* of char *: output names of the target's key */
	List	   *relations;		/* oids: dimensions, not the source */
	bool		uses_key;		/* reads kafka_key */
	bool		uses_headers;
	int64		window_size;	/* us, of the longest; 0: no window */
	int64		windows_per_row;	/* 0: no window function */
	bool		multiplies;		/* joins or functions may make many rows of
								 * one, nobody knows how many */
	EventZone  *event_zone;		/* NULL: windows are of the event time */
	List	   *objects;		/* of char *: all that its statements may
								 * find, by stream_read_stored() */
	Query	   *query;			/* analyzed, private */
	void	   *private;		/* stream_compile.c's */
} StreamPlan;

/* Options of create_stream that the analysis depends on. */
typedef struct StreamOptions
{
	bool		emit_on_close;
	int64		allowed_lateness;	/* us */
	List	   *key;			/* options.key: of char *, row streams only */

	/*
	 * After a seek: windows that start earlier saw only part of their rows
	 * and are left out, neither emitted nor late.  Without has_windows_from:
	 * none.
	 */
	bool		has_windows_from;
	TimestampTz windows_from;
} StreamOptions;

/* Texts; NULL where the kind has no such step. */
typedef struct StreamStatements
{
	/*
	 * The whole batch in one: row stage, state, target (on_change) or state
	 * only (on_close); a row stream: INSERT or upsert.  Rows late for a
	 * window do not enter it.  Ignores $6.  One result row of five bigint:
	 * rows that came out of the row stage, groups touched, target rows
	 * written, target rows deleted, and rows late for a window (counted once
	 * for each window missed; only when it is not 0 is there need to run
	 * late).
	 */
	char	   *apply;
	char	   *apply_without;	/* the same, leaving out the rows in $6 */

	/*
	 * A row stream, row by row, when apply failed in the target: what comes
	 * out of the row stage without $6, in the order of staging, (tid, the
	 * outputs, kafka_partition int, kafka_timestamp timestamptz); and a
	 * statement that writes one of them, whose parameters are these columns
	 * but the first.
	 */
	char	   *placed_rows;
	char	   *one_row;

	/*
	 * When apply failed in the group stage: state only, leaving out $6, with
	 * apply's five counts; the same, with (ctid in the state table, rows that
	 * came out of the row stage bigint, rows late bigint) for each group that
	 * it touched, or one row with NULL; and a statement that writes the
	 * target for one group, whose parameter is the ctid.  The last two are
	 * NULL for on_close.
	 *
	 * All statements for one row or group return (target rows written bigint,
	 * target rows deleted bigint).
	 */
	char	   *merge_state;
	char	   *merge_groups;
	char	   *emit_one;

	/* How many staged rows the batch has: one bigint. */
	char	   *count;

	/*
	 * Read-only: evaluates all that apply's row stage and transitions do, for
	 * the range given, without $6; throws what they throw.
	 */
	char	   *probe;

	/*
	 * Rows late for a window under watermark $5, without $6: (kafka_partition
	 * int, kafka_offset int8, kafka_timestamp timestamptz, kafka_key bytea,
	 * window_start timestamptz of the first missed, window_end timestamptz of
	 * the last missed, partly_applied bool, staged_row jsonb), one row a
	 * source row.
	 */
	char	   *late;

	/*
	 * The staged rows whose ctid is in $6: (kafka_partition, kafka_offset,
	 * kafka_timestamp, kafka_key, staged_row jsonb, tid).
	 */
	char	   *culprits;

	/*
	 * Close windows under watermark $5: deletes state, and writes the target
	 * (on_close).  Result: (groups closed, 0 where they are not emitted,
	 * target rows written, distinct windows closed).  $9 keeps it from
	 * passing the index entries of all that was closed before, which stay
	 * while somebody's snapshot sees them.
	 */
	char	   *close;

	/*
	 * on_change: as close, but makes the target rows of the groups right
	 * again, for groups whose last emission failed.  The same result.
	 */
	char	   *close_again;

	/*
	 * Group by group, when that failed: (ctid, window_end, window_start) of
	 * the groups to be closed, in the order of their windows; a statement
	 * that closes one of them and writes the target; and one that does not
	 * write it, for a group that cannot be finalized, with RETURNING
	 * (window_start, window_end, group_key jsonb).  Their parameter is the
	 * ctid.
	 */
	char	   *closing;
	char	   *close_one;
	char	   *discard_one;

	/*
	 * (min(window_end), min(window_start), count(distinct window), count(*))
	 * of the state: what is open.
	 */
	char	   *open_windows;

	/*
	 * min(window_end) of the state, by its index, after windows were closed
	 * under watermark $5.
	 */
	char	   *oldest;

	/*
	 * Of the windows that start at or before $5, the greatest window_end; and
	 * the least one beyond that.
	 */
	char	   *newest;

	/*
	 * Seek: clear state, and target rows: of windows that start at or after
	 * $5, all of a running aggregate, all (TRUNCATE) of an unkeyed row
	 * stream; NULL for a keyed one, whose rows are written again.
	 */
	char	   *clear_state;
	char	   *clear_target;

	/*
	 * The first event of each partition in the batch: (kafka_partition int,
	 * event time timestamptz, bool: is any event ahead of its record's Kafka
	 * timestamp, or that not known?).
	 */
	char	   *first_events;

	/*
	 * The greatest event time of each partition in the batch that is not
	 * after $5: (kafka_partition int, event time timestamptz).
	 */
	char	   *latest_events;

	/*
	 * Windows turned out to be incomplete that start before $7 (microseconds
	 * since 2000): clear their state, and their target rows from $5 on.
	 */
	char	   *clear_incomplete;
} StreamStatements;

/*
 * Parse, analyze and check a query against what can be kept incrementally;
 * refusals are ERRORs with a hint.  Runs as the caller, under the settings
 * of the session.
 */
extern StreamPlan *stream_analyze(const char *query,
								  const StreamOptions *options);

/*
 * At creation: the plan of the query as it will be stored and read; an ERROR
 * when that would not mean the same.
 */
extern StreamPlan *stream_settle(const StreamPlan *plan,
								 const StreamOptions *options);

/*
 * What the query and the statements made from it find that is not
 * PostgreSQL's own, as the caller: to be recorded (objects.h).  Of the query
 * alone when there is no target.
 */
extern List *stream_objects(const StreamPlan *plan,
							const StreamOptions *options, Oid state,
							Oid target);

/*
 * The plan of a stream in the catalog, read as its owner, and the options
 * that go with it.  An ERROR when it would not mean what it meant.
 */
extern StreamPlan *stream_read_stored(const StreamDef *def,
									  StreamOptions *options);

/* The query deparsed with every name qualified, for the catalog. */
extern char *stream_deparse(const StreamPlan *plan);

/*
 * Column definitions and unique index of the state table; NULL when the
 * kind needs none (an unkeyed row stream).  Each is a complete DDL command,
 * the first CREATE TABLE <state>.
 */
extern List *stream_state_ddl(const StreamPlan *plan, const char *state,
							  int fillfactor);

/* CREATE TABLE and its unique index for the target; qualified name given. */
extern List *stream_target_ddl(const StreamPlan *plan, const char *target,
							   int fillfactor);

/*
 * Are the tables what the stream needs, as the current user?  ERROR with the
 * reason when not.  Locks nothing beyond AccessShare.
 */
extern void stream_check_target(const StreamPlan *plan, Oid target);
extern void stream_check_state(const StreamPlan *plan, Oid state);

/* Has it triggers that may keep a row from being written? */
extern bool stream_target_may_skip(Oid target);

/* Must rows be written to the target one by one, in order? */
extern bool stream_in_order(const StreamPlan *plan, Oid target);

/* All names are given qualified and quoted. */
extern StreamStatements *stream_compile(const StreamPlan *plan,
										const StreamOptions *options,
										const char *segment_view,
										const char *state,
										const char *target);

/* (step, purpose, statement) of each non-NULL text, for weir.explain(). */
typedef struct StreamStep
{
	const char *step;
	const char *purpose;
	const char *statement;
} StreamStep;

extern List *stream_steps(const StreamStatements *statements);

#endif							/* WEIR_STREAM_H */
