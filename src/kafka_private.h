/*-------------------------------------------------------------------------
 *
 * kafka_private.h
 *	  What the kafka*.c files share, and nobody else sees.
 *
 * A client is made of two halves.
 *
 * KafkaClient lives in a memory context of its own and is touched by the
 * PostgreSQL thread only.
 *
 * KafkaShared is malloc'd, because it outlives the memory context when the
 * helper thread has to be left behind.  It holds the librdkafka handles, the
 * requests and the events that librdkafka's callbacks note down.  Callbacks
 * and the helper thread touch this half only, with malloc and pthreads, and
 * never a PostgreSQL function (I7).  Everything below "guarded" is guarded by
 * its lock; the lock is never held across a call into librdkafka.
 *
 * Whoever lets go of KafkaShared last frees it: see kafka_close_shared().
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_KAFKA_PRIVATE_H
#define WEIR_KAFKA_PRIVATE_H

#include <pthread.h>

#include <librdkafka/rdkafka.h>

#include "kafka.h"
#include "lib/ilist.h"

/* librdkafka versions, as rd_kafka_version() gives them. */
#define RDKAFKA_2_2_0	0x020200ff

/* Since librdkafka 2.1; the floor's header does not have the name. */
#define WEIR_ERR__LOG_TRUNCATION	(-139)

/* The most of librdkafka's log lines kept between two kafka_service(). */
#define KAFKA_MAX_LOGS	100

/*
 * Beside the requests of kafka.h, one of our own: the end offsets, once an
 * interval (kafka_ends.c).
 */
#define KAFKA_JOB_ENDS		KAFKA_REQUEST_KINDS
#define KAFKA_JOBS			(KAFKA_REQUEST_KINDS + 1)

/* One thing noted by a callback; a list, oldest first. */
typedef struct KafkaEvent
{
	struct KafkaEvent *next;
	bool		is_log;			/* a log line; else an error */
	int			code;			/* syslog level, or rd_kafka_resp_err_t */
	bool		fatal;			/* error: rd_kafka_fatal_error() was set */
	char text[	FLEXIBLE_ARRAY_MEMBER];
} KafkaEvent;

/* One request to the helper thread, and its answer. */
typedef struct KafkaJob
{
	bool		wanted;			/* asked for, not begun */
	bool		busy;			/* being worked on */
	bool		ready;			/* answered, not collected */
	int			partitions;		/* as asked */
	int64		time_ms;		/* as asked */
	int			timeout_ms;		/* as asked */
	/* the answer, valid while ready */
	int			err;			/* rd_kafka_resp_err_t; the first of errs */
	int64		begun_ms;		/* monotonic: the answer is not older */
	int32		err_partition;	/* -1: not of one partition */
	int			count;			/* partitions, or length of offsets */
	int			brokers;		/* METADATA: how many the cluster has */
	int64	   *offsets;		/* malloc'd; -1: none.  NULL with METADATA, or
								 * when no partition has an answer */
	int		   *errs;			/* malloc'd, of each partition, as offsets */
	char		cluster_id[64];
} KafkaJob;

typedef struct KafkaShared
{
	/* set once by kafka_open(), before the helper thread starts */
	rd_kafka_t *rk;
	rd_kafka_topic_t *rkt;		/* NULL: metadata only */
	rd_kafka_queue_t *queue;	/* all partitions' messages */
	rd_kafka_queue_t *main_queue;
	char	   *topic;			/* malloc'd; NULL: metadata only */
	int			message_fd;		/* -1: none */
	int			service_fd;		/* -1: none */
	bool		needs_nudge;	/* librdkafka < 2.2: see kafka_request.c */
	bool		has_thread;
	bool		by_leader;		/* the helper's: a leader did not answer the
								 * last time, so ask each by itself */
	pthread_t	thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;		/* the helper waits on it */
	pthread_cond_t done;		/* kafka_close() waits on it */

	/* guarded */
	bool		stop;			/* the helper is to destroy and end */
	bool		finished;		/* it has destroyed everything */
	bool		abandoned;		/* nobody waits: it frees this struct */
	KafkaJob	jobs[KAFKA_JOBS];
	int64		nudge_until_ms; /* monotonic; nudge up to then */
	int32	   *started;		/* malloc'd: partitions being fetched */
	int			nstarted;
	int			started_size;
	KafkaEvent *events;
	KafkaEvent **events_tail;
	int			nlogs;
	int			dropped_logs;
} KafkaShared;

/* What is known of one partition; PostgreSQL thread only. */
typedef struct KafkaPartition
{
	bool		started;
	bool		failed;			/* KAFKA_PARTITION_ERROR: drop the rest */
	KafkaErrorClass unreported; /* failed, and kafka_consume() is to say so */
	int64		position;		/* next offset to come; -1: unknown */
	bool		troubled;		/* an error since the last sign of life */
	int64		troubled_ms;	/* kafka_monotonic_ms() */
	int64		asked_end;		/* last end offset asked for; -1: none */
	TimestampTz asked_at;		/* when that was asked */
	int64		asked_ms;		/* the same by kafka_monotonic_ms() */
	int			misses;			/* times in a row without an answer */
} KafkaPartition;

struct KafkaClient
{
	MemoryContext cxt;			/* its own; deleting it closes the client */
	MemoryContextCallback on_reset;
	dlist_node	node;			/* in the process's list of open clients */
	KafkaShared *shared;
	const char *server_name;
	const char *topic;			/* NULL: metadata only */
	int			npartitions;	/* of the topic; 0: not told */
	int			ends_interval_ms;	/* ask for end offsets; 0: do not */
	int64		ends_asked_ms;	/* monotonic: the last time; 0: never */
	bool		quiet;			/* the last answer: nothing is left to read;
								 * nothing has come since */
	int64		queue_limit;	/* bytes, as given to librdkafka */
	int64		batch_limit;	/* bytes of a batch that can be read for sure */
	int			too_large;		/* responses in a row that were too large */
	int64		too_large_ms;	/* monotonic: when the last one came */
	int			external_fds;	/* accounted with fd.c */

	KafkaPartition *parts;
	int			nparts;			/* allocated */
	int			nunreported;	/* at least so many have to be reported */

	rd_kafka_message_t **native;	/* of the batch that is out */
	KafkaMessage *messages;
	int			batch_size;		/* allocated */
	int			nnative;		/* to be released */
	int64		average_bytes;	/* of a message, for the queue's estimate */

	KafkaError	last_error;
	char		reason[256];	/* librdkafka's latest words on a broker */
	KafkaAnswer answers[KAFKA_REQUEST_KINDS];
	KafkaEvent *events;			/* taken from shared, being reported */
	int64	   *answer_offsets; /* malloc'd; taken from shared, to be freed */
	int		   *answer_errs;	/* ... the same */
};

/* kafka_config.c */
extern rd_kafka_conf_t *kafka_conf_build(const KafkaConfig *config,
										 int64 *queue_limit,
										 char *errstr, size_t errsize);

extern int64 kafka_receive_limit(const KafkaConfig *config);

/* kafka_request.c: on the helper thread but for these */
extern bool kafka_start_helper(KafkaShared *shared);
extern void kafka_close_shared(KafkaShared *shared);
extern void kafka_note_fetch(KafkaClient *client, int taken);
extern int64 kafka_monotonic_ms(void);
extern void kafka_ask(KafkaClient *client, int kind, int partitions,
					  int64 time_ms, int timeout_ms);

/* kafka_error.c */
extern KafkaErrorClass kafka_classify(int err);
extern void kafka_fill_error(KafkaClient *client, KafkaError *error, int err,
							 int32 partition, int64 offset,
							 const char *detail);
extern void kafka_fill_too_large(KafkaClient *client, KafkaError *error,
								 const char *detail);
extern bool kafka_note_error(KafkaClient *client, const KafkaError *error);
extern void kafka_note_alive(KafkaClient *client);

extern const char *kafka_job_reason(const KafkaClient *client, int err);

/* kafka_ends.c */
extern void kafka_ask_ends(KafkaClient *client);
extern void kafka_take_ends(KafkaClient *client, const KafkaJob *job,
							bool count_misses);

/* kafka.c */
extern void kafka_wake(int fd);
extern void kafka_drain(int fd);
extern void kafka_account_fds(KafkaClient *client, int brokers);

/* kafka_consume.c */
extern KafkaPartition *kafka_get_partition(KafkaClient *client,
										   int32 partition);
extern void kafka_fail_partitions(KafkaClient *client, KafkaErrorClass class);

#endif							/* WEIR_KAFKA_PRIVATE_H */
