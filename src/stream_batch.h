/*-------------------------------------------------------------------------
 *
 * stream_batch.h
 *	  A stream worker at work: its position, its slot, a micro-batch.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_STREAM_BATCH_H
#define WEIR_STREAM_BATCH_H

#include "dead_letter.h"
#include "storage/itemptr.h"
#include "tcop/dest.h"
#include "stream.h"
#include "utils/snapshot.h"
#include "worker.h"

/* What a batch runs; the texts of one segment are made when first used. */
typedef enum StreamStep_
{
	STEP_APPLY,
	STEP_APPLY_WITHOUT,
	STEP_MERGE_STATE,
	STEP_PLACED_ROWS,
	STEP_ONE_ROW,
	STEP_MERGE_GROUPS,
	STEP_EMIT_ONE,
	STEP_COUNT,
	STEP_PROBE,
	STEP_LATE,
	STEP_CULPRITS,
	STEP_CLOSE,
	STEP_CLOSE_AGAIN,
	STEP_CLOSING,
	STEP_CLOSE_ONE,
	STEP_DISCARD_ONE,
	STEP_OLDEST,
	STEP_NEWEST,
	STEP_CLEAR_TARGET,
	STEP_FIRST_EVENTS,
	STEP_LATEST_EVENTS,
	STEP_CLEAR_INCOMPLETE,
	STREAM_NSTEPS
} StepKind;

typedef struct SegmentPlans
{
	Oid			viewid;			/* InvalidOid: none yet */
	StreamStatements *statements;
	MemoryContext cxt;
} SegmentPlans;

/*
 * How many rows of a batch failed, by SQLSTATE.  Those of more SQLSTATEs than
 * there is room for are not counted.
 */
#define FAILURE_KINDS 16

typedef struct BatchFailures
{
	int64		rows;			/* of the batch */
	int			nkinds;
	struct
	{
		int			sqlerrcode;
		int64		rows;
	}			kinds[FAILURE_KINDS];
} BatchFailures;

/* max_dead_ratio is looked at over this many rows, or the last batch. */
#define FAILURE_ROWS 100

typedef struct StreamWorker
{
	StreamDef  *def;
	SourceDef  *source;
	StreamPlan *plan;
	StreamOptions options;
	char	   *state_name;		/* qualified, or NULL */
	char	   *target_name;	/* qualified */
	bool		rights_stale;	/* the owner's rights on the source changed */
	char	   *readable;		/* columns of a segment's view, NULL for those
								 * that the owner may not read; NULL: he may
								 * read all of them */
	MemoryContext cxt;
	MemoryContext batch_cxt;
	MemoryContext progress_cxt; /* the arrays below */
	uint64		generation;		/* of the catalog, when last read */

	/* stream_follow.c, changes of the stream's tables: */
	uint64		followed;		/* all seen, and all was well */
	uint64		followed_from;	/* seen when the last look or try began */
	char	   *signature;		/* what the statements depend on */

	/* durable, as last read or written */
	ItemPointerData place;		/* of the row, where it was last seen */
	int			npartitions;	/* 0: not read, or not resolved yet */
	int64	   *applied;
	TimestampTz *max_event;		/* DT_NOBEGIN: none */
	TimestampTz *last;			/* Kafka timestamp of the record at applied -
								 * 1; DT_NOBEGIN: not known */
	int64	   *staged;			/* rows staged up to applied, as the slot
								 * counts them; -1: not known */
	TimestampTz watermark;		/* DT_NOBEGIN: none */
	int64		seek_generation;
	TimestampTz *newest;		/* greatest Kafka timestamp applied;
								 * DT_NOBEGIN: nothing was; DT_NOEND: a record
								 * without one was */
	bool		has_rows;		/* a row has come since the last seek */
	TimestampTz seek_time;		/* the last seek was to this time of Kafka's;
								 * DT_NOEND: it was not to a time */
	TimestampTz floor;			/* since a seek: windows that start before it
								 * are incomplete; DT_NOBEGIN: none */
	bool		floor_pending;	/* partitions still have to tell it */
	TimestampTz *floor_bounds;	/* stream_floor.c */
	int64		row_limit;		/* of the next batch, so that no more than
								 * weir.max_batch_rows come out of it; 0: not
								 * known yet */
	TimestampTz oldest_end;		/* no window open that ends before this */
	TimestampTz closed_to;		/* nor one that ends by this; DT_NOBEGIN: none
								 * has been closed since the start */
	TimestampTz failed_until;	/* windows that end by then, or */
	TimestampTz failed_from;	/* not before then, may have groups whose last
								 * emission failed */

	/* the first recorded advance of the watermark that is not applied yet */
	bool		advance_stale;	/* look for it */
	int64		advance_id;		/* 0: there is none */
	bool		advance_known;	/* its end offsets are */
	TimestampTz advance_to;		/* DT_NOEND: close what is open */
	int64	   *cap;			/* per partition, its end offsets: nothing
								 * from there on is read before it is applied;
								 * 0 while they are not known */

	/* stream_failures.c: the last batches, newest first */
	BatchFailures failures[FAILURE_ROWS];
	int			nfailures;
	int			kinds_shown[FAILURE_KINDS]; /* SQLSTATEs of dead letters that
											 * last_error has told */
	int			nkinds_shown;
	bool		in_order;		/* rows are written one by one, see
								 * stream_check.c */
	bool		target_refuses; /* some rows of the last batch with culprits */
	int64		groups_closed;	/* of those closed carefully, lately, */
	int64		groups_at_fault;	/* so many by errors of class definition */
	bool		letter_shown;	/* last_error tells of a dead letter */

	/* the slot it reads */
	StreamShared *shared;
	SlotShared *slot;			/* NULL: not attached */
	uint64		epoch;
	bool		on_private;

	SegmentPlans segments[WEIR_MAX_SEGMENTS];
	SegmentPlans private_segments[WEIR_MAX_SEGMENTS];
} StreamWorker;

/* What the next batch will do; made by batch_choose(). */
typedef struct StreamBatch
{
	bool		rows;			/* reads a segment */
	int			segment;		/* index */
	uint64		seq;
	Oid			relid;
	Oid			viewid;
	BlockNumber block_from;
	BlockNumber block_to;
	int64		nrows;
	TimestampTz min_event;
	TimestampTz min_kafka;
	int64	   *high;			/* per partition, exclusive */
	TimestampTz *max_event;		/* per partition, of the batch */
	int64	   *staged;			/* per partition, up to high; see above */
	TimestampTz *last;			/* per partition, Kafka timestamp of the
								 * record at high - 1; DT_NOBEGIN: not known */
	TimestampTz *newest;		/* per partition, greatest Kafka timestamp of
								 * the batch, as in StreamWorker */
	bool		full;			/* more is staged: it ends by the limits, or
								 * with its segment */
	bool		moved;			/* some offset or event time changes */

	/* filled in while it runs */
	Snapshot	snapshot;
	ItemPointerData *culprits;
	int			nculprits;
	int64		rows_out_of_stage;
	int64		groups;			/* touched */
	int64		written;
	int64		deleted;
	int64		late_pairs;		/* (row, window), as apply counted them */
	int64		late;			/* rows */
	int64		dead;
	BatchFailures failures;
	int			first_sqlerrcode;	/* of a kind of dead letter that is new;
									 * 0: none is */
	char	   *first_message;
	int64		groups_failed;
	int64		windows_closed;
	TimestampTz closed_to;
	TimestampTz new_watermark;
	TimestampTz new_floor;
	bool		new_floor_pending;
	TimestampTz *new_bounds;
	bool		has_rows;
	bool		advanced;		/* a recorded advance was applied */
	int32		held_by;
	ItemPointerData place;		/* of the stream's row, then */
} StreamBatch;

/* stream_attach.c */
extern bool attach_to_slot(StreamWorker *w);
extern void attach_release(StreamWorker *w);
extern bool attach_try_shared(StreamWorker *w);

/* stream_progress.c */
extern bool progress_read(StreamWorker *w);
extern bool progress_lock(StreamWorker *w);
extern void progress_write(StreamWorker *w, StreamBatch *batch);
extern void progress_read_advance(StreamWorker *w);
extern bool progress_advance_due(const StreamWorker *w,
								 const StreamBatch *batch);
extern void progress_advance_done(StreamWorker *w);

/* stream_watermark.c */
extern TimestampTz watermark_shift(const StreamWorker *w, TimestampTz t,
								   int64 by);
extern TimestampTz watermark_compute(StreamWorker *w,
									 const StreamBatch *batch,
									 int32 *held_by);

/* stream_floor.c: after a seek */
extern void floor_begin(StreamWorker *w);
extern void floor_find(StreamWorker *w, StreamBatch *batch);
extern void floor_settle(StreamWorker *w, StreamBatch *batch);

/* stream_batch.c */
extern bool batch_choose(StreamWorker *w, StreamBatch *batch);
extern StepKind batch_close_step(StreamWorker *w, const StreamBatch *batch);
extern TimestampTz batch_closing_time(const StreamWorker *w,
									  const StreamBatch *batch);
extern void batch_emission_failed(StreamWorker *w, StreamBatch *batch);
extern void batch_collect_late(StreamWorker *w, StreamBatch *batch);
extern bool batch_run(StreamWorker *w, StreamBatch *batch, bool careful);

/* stream_follow.c */
extern void follow_begin(StreamWorker *w);
extern bool follow_stale(const StreamWorker *w);
extern bool follow_moved(StreamWorker *w);
extern StreamPlan *follow_read(const StreamDef *def, StreamOptions *options);
extern void follow_check(StreamWorker *w, bool written);

/* stream_rights.c */
extern void rights_prepare(StreamWorker *w);
extern bool rights_check(StreamWorker *w);
extern char *rights_segment_text(const StreamWorker *w, Oid viewid);
extern char *rights_qualified_name(Oid relid);

/* stream_run.c: one statement, and its result */
typedef struct StepArgs
{
	ItemPointerData from;
	ItemPointerData to;
	const ItemPointerData *without;
	int			nwithout;
	int64		number;			/* $7 */
	TimestampTz watermark;		/* as a time of the windows */
	TimestampTz closed_to;		/* the same */
} StepArgs;

extern void step_args_init(StepArgs *args, const StreamWorker *w,
						   const StreamBatch *batch);
extern bool step_exists(StreamWorker *w, const StreamBatch *batch,
						StepKind step);
extern void step_run(StreamWorker *w, StreamBatch *batch, StepKind step,
					 const StepArgs *args);
extern void step_run_into(StreamWorker *w, StreamBatch *batch, StepKind step,
						  const StepArgs *args, DestReceiver *dest);
extern struct StatementPlan *step_plan(StreamWorker *w, StreamBatch *batch,
									   StepKind step, const Oid *types,
									   int ntypes);
extern void step_run_planned(StreamWorker *w, StreamBatch *batch,
							 struct StatementPlan *plan, const StepArgs *args,
							 DestReceiver *dest);
extern void step_run_one(StreamWorker *w, StreamBatch *batch,
						 struct StatementPlan *plan, const Datum *values,
						 const bool *nulls);
extern uint64 step_rows(void);
extern int	step_columns(void);
extern int64 step_int8(int column);
extern Datum step_datum(uint64 row, int column, bool *isnull);
extern char *step_text(uint64 row, int column);
extern void step_row_position(uint64 row, DeadLetter *letter);
extern void step_forget(StreamWorker *w);

/* stream_support.c: the row that a statement on part of a batch saw last */
extern void support_forget_seen(void);
extern bool support_last_seen(ItemPointerData *tid);

/* stream_failures.c: is the query at fault, not the data? */
extern void failures_count(StreamWorker *w, StreamBatch *batch,
						   const ErrorData *error);
extern void failures_first(StreamWorker *w, StreamBatch *batch,
						   const ErrorData *error);
extern void failures_commit(StreamWorker *w, StreamBatch *batch);

/* stream_careful.c: find the culprits, do without them */
extern void careful_apply(StreamWorker *w, StreamBatch *batch);
extern void careful_close(StreamWorker *w, StreamBatch *batch);
extern void careful_in_order(StreamWorker *w, StreamBatch *batch);
extern void stream_dead_letters(StreamWorker *w, StreamBatch *batch,
								DeadLetter *letters, int n);

#endif							/* WEIR_STREAM_BATCH_H */
