/*-------------------------------------------------------------------------
 *
 * ingest.h
 *	  Kafka -> staging: decode a record into a slot, stage the slots.
 *
 * A segment's columns, in this order (cheap ones first, since every batch
 * reads them):
 *		kafka_partition int, kafka_offset bigint, kafka_timestamp timestamptz,
 *		the declared columns in the foreign table's order,
 *		kafka_key bytea, kafka_headers weir.kafka_header[]
 * The foreign table has the declared columns first, then kafka_topic,
 * kafka_partition, kafka_offset, kafka_timestamp, kafka_key, kafka_headers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_INGEST_H
#define WEIR_INGEST_H

#include "catalog.h"
#include "executor/tuptable.h"
#include "kafka.h"
#include "utils/relcache.h"

struct SegmentShared;
struct SlotShared;
struct PartitionShared;

#define SEGMENT_ATTR_PARTITION	1
#define SEGMENT_ATTR_OFFSET		2
#define SEGMENT_ATTR_TIMESTAMP	3
#define SEGMENT_FIXED_ATTRS		3	/* before the declared columns */
#define SOURCE_KAFKA_ATTRS		6	/* after them, in the foreign table */

/* How a record ended (ingest_decode.c has the order of things). */
typedef enum DecodeResult
{
	DECODE_STAGED,				/* slot filled */
	DECODE_FILTERED,			/* filter was not true */
	DECODE_DEAD,				/* dead letter: see sqlerrcode, message */
	DECODE_TOMBSTONE			/* null payload: counted, skipped */
} DecodeResult;

typedef struct DecodeOutcome
{
	DecodeResult result;
	bool		has_event_time; /* event_time is set and moves the watermark */
	bool		future;			/* past max_future_skew: does not move it */
	TimestampTz event_time;
	/* DECODE_DEAD only; strings live in the batch's memory context */
	bool		constraint;		/* reason constraint, else decode */
	int			sqlerrcode;
	char	   *message;
} DecodeOutcome;

typedef struct Decoder Decoder;

/*
 * Compile a source for decoding.  relation is the foreign table, open and
 * locked by the caller; segment_desc describes the segments.  Lives in cxt.
 * Expressions (DEFAULT, filter, generated columns, CHECK, domains) are
 * planned here, under the settings the caller has entered.
 */
extern Decoder *decoder_create(const SourceDef *source, Relation relation,
							   TupleDesc segment_desc, MemoryContext cxt);
extern void decoder_free(Decoder *decoder);
extern void decoder_take_over(Decoder *decoder, const Decoder *before);

/*
 * Decode n records (all KAFKA_RECORD) into slots[0 .. *nslots) and
 * outcomes[0 .. n).  Slots are virtual slots of segment_desc, made by the
 * caller, n of them; only staged records take one, in order.  By-reference
 * values live in CurrentMemoryContext, which the caller resets after the
 * insert.
 *
 * The caller is in a transaction, as the source's owner (catalog_enter_user).
 * A record that fails with a row-class SQLSTATE is DECODE_DEAD and the next
 * ones go on; a failure of another class is thrown on, and then nothing of
 * the batch counts.  now is the wall clock for max_future_skew.
 */
extern void decoder_decode(Decoder *decoder, const KafkaMessage *messages,
						   int n, TimestampTz now, TupleTableSlot **slots,
						   int *nslots, DecodeOutcome *outcomes);

/*
 * Columns never found so far among the records decoded (for stat_source),
 * as a palloc'd comma-separated list, or NULL.
 */
extern char *decoder_columns_never_found(Decoder *decoder);

/* Column definitions of a segment for CREATE TABLE, from the source. */
extern char *segment_column_definitions(Relation source_relation);

/*
 * One ingest worker at work: a slot, its source, its client.
 */
typedef struct Ingest
{
	SourceDef  *source;
	int32		stream_id;		/* 0: the shared ring */
	struct SlotShared *slot;
	struct PartitionShared *parts;	/* the slot's, in shared memory */
	int			npartitions;
	KafkaClient *client;
	List	   *client_options; /* of DefElem *, the client was made with */
	int			client_settings[5]; /* ... and the settings */
	char		cluster_id[64];
	Decoder    *decoder;
	TupleDesc	segment_desc;
	TupleTableSlot **slots;		/* INGEST_MAX_RECORDS of them */
	int64	   *next;			/* per partition: next offset to stage */
	TimestampTz *max_event;		/* per partition, of the batch at hand */
	TimestampTz *newest;		/* per partition, greatest Kafka timestamp of
								 * the batch at hand, as in PartitionShared */
	int64	   *staged;			/* per partition: rows staged since the start */
	TimestampTz *last;			/* per partition: Kafka timestamp of the
								 * record at next - 1; DT_NOBEGIN: unknown */
	TimestampTz *verify;		/* per partition: the timestamp that the
								 * record at next must have, which is one that
								 * has been applied; DT_NOBEGIN: no check */
	int64		records;		/* decoded since the start */
	int64		mean_len;		/* running mean of payload lengths */
	uint64		generation;		/* of the catalog, when last read */
	MemoryContext cxt;			/* lives as long as the worker */
	MemoryContext batch_cxt;	/* reset per batch */
	KafkaErrorClass trouble;	/* of the broker's, when an ERROR is */
	int			npending;		/* partitions that are not read, since their
								 * leaders did not answer at the start */
	bool		unresolved;		/* some position or advance could not be
								 * resolved without a leader */
	bool		begin_anew;		/* a stream can be read but for a partition
								 * that is not pending yet */
	TimestampTz last_batch;		/* when the last one was committed */
	bool		last_small;		/* it was far from full, and all there was */
	TimestampTz full_since;		/* the ring has been full since; 0: is not */
} Ingest;

/* Records decoded in one transaction at most. */
#define INGEST_MAX_RECORDS 4000

/* Where rows of one insert went, and what a mark says of them. */
typedef struct StagedRange
{
	int64		rows;
	BlockNumber block_from;		/* [block_from, block_to) */
	BlockNumber block_to;
	TimestampTz min_event;		/* DT_NOEND: none */
	TimestampTz min_kafka;
	int64		records;
} StagedRange;

/* ingest_segment.c: a segment's table and view */
extern BlockNumber segment_size(Relation rel);
extern bool segment_try_lock(const Ingest *ingest, int n);
extern void segment_ensure(Ingest *ingest, int n,
						   struct SegmentShared *segment);
extern bool segment_drop_strays(Ingest *ingest, BlockNumber *left);
extern void segment_drop_private(int32 source_id, int32 stream_id);
extern void segment_drop_orphans(void);

/* ingest_stage.c: the ring of segments */
extern void stage_open(Ingest *ingest);
extern bool stage_has_room(Ingest *ingest);
extern void stage_insert(Ingest *ingest, TupleTableSlot **slots, int nslots,
						 StagedRange *range);
extern void stage_publish(Ingest *ingest, const StagedRange *range);
extern void stage_recycle(Ingest *ingest);
extern TimestampTz stage_next_reader(Ingest *ingest);
extern void stage_detach_slowest(Ingest *ingest);

/* ingest_broker.c: asking, and waiting while it does not answer */
extern void broker_show_trouble(Ingest *ingest, int sqlerrcode,
								const char *message);
extern void broker_show_well(Ingest *ingest);
extern bool broker_log_due(Ingest *ingest, const char *message);
extern void broker_raise(Ingest *ingest, const KafkaError *error);
extern void broker_start_anew(Ingest *ingest);
extern bool broker_source_changed(Ingest *ingest);
extern const KafkaAnswer *broker_ask(Ingest *ingest, KafkaRequestKind kind,
									 int64 time_ms);
extern int64 *broker_offsets(Ingest *ingest, KafkaRequestKind kind,
							 int64 time_ms, KafkaError *error);
extern void broker_look_for_partitions(Ingest *ingest, TimestampTz now);
extern void broker_serve_waiters(Ingest *ingest);

/* ingest_resolve.c: positions to offsets */
extern void position_resolve_new(Ingest *ingest);
extern void position_resolve_advances(Ingest *ingest);
extern int64 *position_resolve_preview(Ingest *ingest);

/* worker_ingest.c */
extern bool ingest_settings_changed(Ingest *ingest);

/* ingest_position.c: where to begin */
extern void position_learn_partitions(Ingest *ingest);
extern bool position_was_read(Ingest *ingest);
extern void position_wrong_topic(Ingest *ingest, const char *detail);
extern void position_begin(Ingest *ingest);

/* ingest_consume.c: the loop */
extern void ingest_loop(Ingest *ingest);

#endif							/* WEIR_INGEST_H */
