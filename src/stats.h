/*-------------------------------------------------------------------------
 *
 * stats.h
 *	  How things go, as the views weir.stat_* read it.
 *
 * A copy of shared memory and catalog, made for one call: nothing in it
 * changes or points into shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_STATS_H
#define WEIR_STATS_H

#include "catalog.h"
#include "worker.h"

/* What there is to know of a partition of a slot; see PartitionShared. */
typedef struct PartitionStats
{
	int64		next;
	int64		end;			/* end_offset, or next if that is past it; -1:
								 * unknown */
	bool		end_stale;		/* the leader has not said so lately: there
								 * may be more */
	TimestampTz idle_since;
	TimestampTz idle_as_of;
	TimestampTz max_event_time;
	TimestampTz last_row_at;
	int64		rows_in;
	int64		bytes_in;
	int64		rows_staged;
	int64		rows_filtered;
	int64		rows_dead;
	int64		rows_null;
	int64		rows_future;
} PartitionStats;

/* A slot in use in this database; see SlotShared. */
typedef struct SlotStats
{
	int			index;			/* in WeirShared.slots */
	int32		source_id;
	int32		stream_id;
	pid_t		pid;
	SlotState	state;
	uint64		epoch;
	int64		staging_bytes;	/* in segments that are not empty */
	int			segments;		/* how many they are */
	SharedError error;
	TimestampTz next_retry_at;
	TimestampTz stats_reset;
	int64		kafka_queue_bytes;
	char		columns_never_found[WEIR_TEXT_LEN];
	char		held_by[NAMEDATALEN];
	int			npartitions;
	PartitionStats *partitions;
} SlotStats;

/* A stream of the catalog, with its committed position. */
typedef struct StreamStats
{
	StreamDef  *def;
	bool		has_shared;		/* its worker has run since the server began */
	StreamShared shared;		/* all zero without */
	TimestampTz watermark;		/* DT_NOBEGIN: none */
	int			npartitions;	/* 0: no position yet */
	int64	   *applied;		/* -1: none for this partition */
	TimestampTz *max_event;		/* DT_NOBEGIN: none */
} StreamStats;

/* Why something is in the state it is in. */
typedef struct StatsReason
{
	const char *message;		/* NULL: no reason, all is well */
	const char *sqlstate;
	TimestampTz at;				/* 0: not known */
} StatsReason;

typedef struct Stats
{
	StatsReason paused;			/* why no worker may run here */
	StatsReason no_worker;		/* why one that is not there has not started */
	List	   *sources;		/* of SourceDef *, by id */
	List	   *streams;		/* of StreamStats *, by id */
	List	   *slots;			/* of SlotStats *; shared rings first */
} Stats;

/* stats_read.c */
extern Stats *stats_read(void);
extern SourceDef *stats_source(const Stats *stats, int32 source_id);
extern StreamStats *stats_stream(const Stats *stats, int32 stream_id);
extern SlotStats *stats_slot(const Stats *stats, int32 source_id,
							 int32 stream_id);
extern const char *stats_slot_state(const Stats *stats,
									const SourceDef *source,
									const SlotStats *slot);
extern const char *stats_stream_state(const Stats *stats,
									  const StreamStats *stream);
extern StatsReason stats_slot_reason(const Stats *stats,
									 const SourceDef *source,
									 const SlotStats *slot);
extern StatsReason stats_stream_reason(const Stats *stats,
									   const StreamStats *stream);
extern StatsReason stats_workers_paused(void);
extern int64 stats_applied(const Stats *stats, const SourceDef *source,
						   const SlotStats *slot, int partition);
extern void stats_lag(const Stats *stats, const StreamStats *stream,
					  int64 *lag, int64 *lag_time);

/* Lag and time lag when not known. */
#define STATS_UNKNOWN ((int64) -1)

#endif							/* WEIR_STATS_H */
