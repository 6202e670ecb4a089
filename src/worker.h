/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  Processes and what they share.
 *
 * Shared memory holds nothing that must survive: it says where the staged
 * rows are (slots, segments, marks), who reads them, and how things go
 * (statistics).  After any restart it is made anew, from the catalog.
 *
 * A slot is one staging ring and the ingest worker that fills it: the shared
 * ring of a source (stream_id 0), or the private one of a detached stream.
 *
 * Locking.  WeirShared.lock guards the allocation of slots, streams, workers
 * and partitions.  Each slot has a lock of its own, for its marks, floors,
 * segments and the fields of StreamShared marked (slot).  WeirShared.lock is
 * taken before a slot's, and no process holds two slots' locks.  Statistics
 * are written by one process each and read without a lock (counters: 64 bit,
 * torn reads are impossible on the platforms PostgreSQL has 8-byte atomicity
 * on), texts under stats_mutex.
 *
 * I3 (readers): a batch takes AccessShareLock on its segment, then checks
 * epoch, segment sequence and floors under the slot's lock.  (recyclers)
 * raise the floors under the slot's lock, then truncate.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_WORKER_H
#define WEIR_WORKER_H

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "port/atomics.h"
#include "postmaster/bgworker.h"
#include "storage/block.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#define WEIR_MAX_SEGMENTS	64	/* a ring */
#define WEIR_MARKS			64	/* a slot; more are merged or waited for */
#define WEIR_TEXT_LEN		512

/*
 * Evidence of idleness that has not been renewed for so long, in us, is none:
 * the ingest worker, or the leader's answer, has been held up.
 */
#define WORKER_IDLE_GAP \
	((INT64CONST(2) * weir_end_offset_interval + 2000) * 1000)

typedef enum WorkerKind
{
	WORKER_LAUNCHER,
	WORKER_MANAGER,
	WORKER_INGEST,
	WORKER_CATCH_UP,
	WORKER_STREAM
} WorkerKind;

/* States; worker_shmem.c has their names for the views. */
typedef enum SlotState
{
	SLOT_STARTING,
	SLOT_RUNNING,
	SLOT_BACK_PRESSURE,
	SLOT_PAUSED,
	SLOT_RETRYING,
	SLOT_STOPPED,
	SLOT_PREVIEW
} SlotState;

typedef enum StreamState
{
	STREAM_STARTING,
	STREAM_RUNNING,
	STREAM_CATCHING_UP,
	STREAM_WAITING,
	STREAM_PAUSED,
	STREAM_RETRYING,
	STREAM_FAILED
} StreamState;

/* The last error of a slot or stream. */
typedef struct SharedError
{
	int			sqlerrcode;		/* 0: none */
	TimestampTz at;
	char		message[WEIR_TEXT_LEN];
} SharedError;

/*
 * A histogram of durations: bucket b holds [2^(b/4), 2^((b+1)/4)) us, up to
 * what 64 bits can count: records of any age are replayed.
 */
#define WEIR_HISTOGRAM_BUCKETS 256
typedef struct SharedHistogram
{
	uint64		count[WEIR_HISTOGRAM_BUCKETS];
	double		max;			/* us */
} SharedHistogram;

typedef enum SegmentState
{
	SEGMENT_FREE,				/* empty, may be filled */
	SEGMENT_FILLING,			/* the one that ingest writes */
	SEGMENT_SEALED,				/* full; recycled when everybody is past it */
	SEGMENT_RECYCLING			/* floor raised, not truncated yet */
} SegmentState;

typedef struct SegmentShared
{
	Oid			relid;
	Oid			viewid;
	SegmentState state;
	uint64		seq;			/* grows with each filling; 0: never */
	BlockNumber blocks;			/* written so far */
	TimestampTz opened_at;
} SegmentShared;

/* What one ingest commit publishes. */
typedef struct MarkShared
{
	int			segment;		/* index in the ring */
	uint64		seq;			/* the segment's at that time */
	uint64		number;			/* of the mark, growing */
	BlockNumber block_from;		/* rows lie in [block_from, block_to) */
	BlockNumber block_to;
	int64		rows;			/* staged rows */
	int64		records;		/* Kafka records behind it */
	TimestampTz min_event;		/* least event time of a staged row; DT_NOEND:
								 * none */
	TimestampTz min_kafka;		/* least Kafka timestamp; DT_NOEND: none */
} MarkShared;

/*
 * What stands in place of an offset.  In progress: the first position could
 * not be resolved, since the partition had no leader; it will be by
 * start_from, or it is the partition's beginning.  In a ring: such a
 * partition is not read.  Less than any offset, and the ring's less than the
 * others, so that nothing takes it for progress.
 */
#define OFFSET_BY_START		((int64) -1)
#define OFFSET_BEGINNING	((int64) -2)
#define OFFSET_PENDING		((int64) -3)

typedef struct PartitionShared
{
	int64		next;			/* the offset after the newest mark; < 0: not
								 * known */
	int64		floor;			/* staged rows from here on are readable */
	bool		pending;		/* not read: its leader did not answer at the
								 * start.  next and floor are OFFSET_PENDING */
	int64		mark_next[WEIR_MARKS];
	TimestampTz mark_event[WEIR_MARKS]; /* greatest event time; DT_NOBEGIN:
										 * none */
	int64		mark_rows[WEIR_MARKS];	/* rows staged since the epoch began */
	TimestampTz mark_last[WEIR_MARKS];	/* Kafka timestamp of the record at
										 * mark_next - 1; DT_NOBEGIN: there is
										 * none, or it is not known */
	TimestampTz mark_newest[WEIR_MARKS];	/* greatest Kafka timestamp;
											 * DT_NOBEGIN: no record;
											 * DT_NOEND: one has none */
	int64		end_offset;		/* as the leader said it last; -1: unknown */
	TimestampTz end_as_of;		/* ... when it was asked; 0: never */
	int64		end_asked;		/* the answer to SlotShared.ends_asked */
	TimestampTz idle_since;		/* continuous evidence since; 0: none */
	TimestampTz idle_as_of;		/* up to when, as the leader said it */

	/* statistics */
	int64		rows_in;
	int64		bytes_in;
	int64		rows_staged;
	int64		rows_filtered;
	int64		rows_dead;
	int64		rows_null;
	int64		rows_future;
	TimestampTz max_event_time;
	TimestampTz last_row_at;
} PartitionShared;

typedef struct SlotShared
{
	LWLock		lock;
	bool		in_use;
	Oid			dbid;
	int32		source_id;
	int32		stream_id;		/* 0: the shared ring */
	pid_t		pid;			/* 0: no worker */
	Latch	   *latch;			/* the worker's */
	uint64		epoch;
	SlotState	state;
	int			npartitions;	/* 0: not known yet */
	int			partition_base; /* in WeirShared.partitions */
	int			nsegments;
	bool		start_anew;		/* the worker ended to begin anew after a
								 * change: no back-off */
	bool		start_again;	/* private: its stream is below the floors,
								 * which only a new start can lower */
	int			filling;		/* index; -1: none */
	uint64		next_seq;
	SegmentShared segments[WEIR_MAX_SEGMENTS];
	int			nmarks;
	int			first_mark;		/* oldest, circular */
	uint64		next_mark;		/* number of the next one */
	MarkShared	marks[WEIR_MARKS];

	/* statistics */
	SharedError error;
	TimestampTz outage_since;	/* of the broker; 0: none (worker_clock()) */
	TimestampTz outage_logged_at;	/* as well */
	TimestampTz next_retry_at;
	TimestampTz stats_reset;
	int64		kafka_queue_bytes;
	char		columns_never_found[WEIR_TEXT_LEN];
	char		held_by[NAMEDATALEN];	/* stream that holds a full ring */
	uint64		ends_generation;	/* wait_for: asked and answered */
	uint64		ends_asked;
} SlotShared;

typedef struct StreamShared
{
	bool		in_use;
	Oid			dbid;
	int32		stream_id;
	NameData	name;
	int32		source_id;
	pid_t		pid;
	Latch	   *latch;
	int			slot;			/* (slot) the slot it holds; -1: none */
	uint64		held_seq;		/* (slot) needs segments from here on */
	uint64		batch_first;	/* (slot) number of the first mark of its
								 * batch, or of the next one to come */
	uint64		batch_end;		/* (slot) and of the first one after it */
	TimestampTz next_batch_at;	/* (worker_clock()) it will not look for rows
								 * before; DT_NOEND: a batch is under way */
	bool		wants_catch_up; /* manager: give it a private slot */
	bool		start_anew;		/* as a slot's */
	pg_atomic_uint32 holds;		/* so many want to lock the stream */
	volatile bool in_batch;		/* its worker has it locked, or is about to */
	StreamState state;

	/* statistics */
	TimestampTz watermark;		/* DT_NOBEGIN: none */
	int32		watermark_held_by;	/* partition; -1: none */
	TimestampTz max_event_time;
	int64		rows_in;
	int64		rows_filtered;
	int64		rows_late;
	int64		rows_dead;
	int64		rows_out;
	int64		groups_failed;
	int64		batches;
	int64		last_batch_rows;
	TimestampTz last_batch_at;
	int64		windows_closed;
	int64		retries;
	SharedHistogram commit_us;
	SharedHistogram visible_us;
	SharedError error;
	TimestampTz next_retry_at;
	TimestampTz stats_reset;
} StreamShared;

typedef struct WorkerShared
{
	pid_t		pid;			/* 0: free */
	WorkerKind	kind;
	Oid			dbid;
	int32		source_id;
	int32		stream_id;
	TimestampTz started_at;
	int64		restarts;
	char		last_exit_reason[128];
	int64		cpu_us;
	int64		memory_bytes;
} WorkerShared;

/* One database's manager, as the launcher sees it. */
#define WEIR_MAX_DATABASES 64
typedef struct DatabaseShared
{
	Oid			dbid;			/* 0: free */
	pid_t		manager_pid;
	Latch	   *manager_latch;
	int			blocked;		/* so many CREATE/DROP DATABASE are at work:
								 * no workers unless 0 */
	bool		has_extension;	/* the probe found it */
	bool		probed;
	int			workers_needed; /* > 0: some worker could not be started for
								 * want of a slot; all in all it takes so many */
	pg_atomic_uint64 generation;	/* of the catalog: grows with each DDL */
} DatabaseShared;

typedef struct WeirShared
{
	LWLock		lock;
	slock_t		stats_mutex;
	pid_t		launcher_pid;
	Latch	   *launcher_latch;
	bool		rescan;			/* launcher: look at the databases again */
	int			nslots;
	int			nstreams;
	int			nworkers;
	int			npartitions;
	DatabaseShared databases[WEIR_MAX_DATABASES];
	SlotShared *slots;
	StreamShared *streams;
	WorkerShared *workers;
	PartitionShared *partitions;
} WeirShared;

extern WeirShared *weir_shared;

/* worker_shmem.c */
extern void worker_shmem_init(void);	/* from _PG_init: installs hooks */
extern SlotShared *worker_slot_claim(int32 source_id, int32 stream_id);
extern SlotShared *worker_slot_find(Oid dbid, int32 source_id,
									int32 stream_id);
extern void worker_slot_release(SlotShared *slot);
extern bool worker_slot_set_partitions(SlotShared *slot, int n);
extern PartitionShared *worker_slot_partitions(SlotShared *slot);
extern StreamShared *worker_stream_claim(int32 stream_id, int32 source_id);
extern StreamShared *worker_stream_find(Oid dbid, int32 stream_id);
extern StreamShared *worker_stream_hold(int32 stream_id, int32 source_id);
extern void worker_forget(Oid dbid, List *sources, List *streams);
extern int	worker_source_segments(int32 source_id, Oid *relids, int max);
extern void worker_set_error(SharedError *error, int sqlerrcode,
							 const char *message);
extern void worker_clear_error(SharedError *error);
extern void worker_read_error(const SharedError *error, SharedError *copy);
extern const char *worker_slot_state_name(SlotState state);
extern const char *worker_stream_state_name(StreamState state);
extern const char *worker_kind_name(WorkerKind kind);
extern void worker_histogram_add(SharedHistogram *histogram, double us);
extern double worker_histogram_quantile(const SharedHistogram *histogram,
										double q);

/* worker_main.c: what all workers do alike */
typedef struct WorkerArgs
{
	Oid			dbid;
	WorkerKind	kind;
	int32		source_id;
	int32		stream_id;
	int32		restarts;
	char		last_exit[80];	/* why the one before it ended; empty: none */
} WorkerArgs;

extern WorkerShared *my_worker;
extern void worker_begin(const WorkerArgs *args);
extern bool worker_start(const WorkerArgs *args, const char *name,
						 BackgroundWorkerHandle **handle);
extern void worker_reload_config(void);
extern TimestampTz worker_clock(void);
extern void worker_account(void);	/* cpu_us, memory_bytes */
extern void worker_activity(const char *fmt,...) pg_attribute_printf(1, 2);
extern uint64 worker_catalog_generation(void);
extern DatabaseShared *worker_database_find(Oid dbid);
extern DatabaseShared *worker_database_claim(Oid dbid);
extern void worker_wake(Latch *const *place);
extern void worker_wake_launcher(void);
extern void worker_wake_database(void);
extern void worker_wake_streams(int32 source_id);

/* Wakes the manager (and with it all workers) at commit. */
extern void worker_wakeup_at_commit(void);

/* Makes the launcher look at the databases again, at commit. */
extern void worker_rescan_at_commit(void);

/* worker_hold.c: seek and drop do not wait for a long batch */
extern void worker_lock_stream(int32 stream_id, int32 source_id);
extern bool worker_batch_begin(StreamShared *stream);
extern void worker_batch_end(StreamShared *stream);

/* worker_database.c: keep workers out of a database that is worked on. */
extern void worker_database_hook_install(void);

extern PGDLLEXPORT void weir_launcher_main(Datum arg);
extern PGDLLEXPORT void weir_manager_main(Datum arg);
extern PGDLLEXPORT void weir_ingest_main(Datum arg);
extern PGDLLEXPORT void weir_stream_main(Datum arg);

#endif							/* WEIR_WORKER_H */
