/*-------------------------------------------------------------------------
 *
 * kafka.h
 *	  The Kafka client as the rest of weir sees it.
 *
 * kafka.c is the only file that includes rdkafka.h.  Everything librdkafka
 * does on its own threads stays behind this face: what comes out comes out
 * of kafka_consume() and kafka_service(), called on the PostgreSQL thread
 * (I7).  No function here waits for the network unless its comment says so.
 *
 * Ownership: a KafkaClient is owned by whoever opened it and is freed by
 * kafka_close(), which kafka.c also arranges for the end of the memory
 * context given to kafka_open(), so that an ERROR leaks no handle.  What
 * kafka_consume() returned belongs to the client until kafka_release().
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_KAFKA_H
#define WEIR_KAFKA_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"

typedef struct KafkaClient KafkaClient;

/* Kafka counts milliseconds from 1970, PostgreSQL microseconds from 2000. */
#define KAFKA_EPOCH_MS \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000)
#define KAFKA_END_MS (END_TIMESTAMP / 1000 + KAFKA_EPOCH_MS)

/*
 * A timestamp of Kafka's, of which a producer can make anything.
 * DT_NOBEGIN: the record has none (negative), or none that a timestamp can
 * hold.
 */
static inline TimestampTz
kafka_time(int64 ms)
{
	if (ms < 0 || ms >= KAFKA_END_MS)
		return DT_NOBEGIN;
	return (ms - KAFKA_EPOCH_MS) * 1000;
}

/* The other way, rounded up; Kafka's time begins in 1970. */
static inline int64
kafka_time_ms(TimestampTz time)
{
	if (time <= -KAFKA_EPOCH_MS * 1000)
		return 0;
	if (time >= END_TIMESTAMP)
		return KAFKA_END_MS;
	return time / 1000 + (time > 0 && time % 1000 != 0) + KAFKA_EPOCH_MS;
}

/*
 * After KAFKA_PARTITION_ERROR nothing more of that partition is given out
 * until kafka_start().  Its class is KAFKA_UNKNOWN_TOPIC, KAFKA_OFFSET_GONE,
 * KAFKA_CORRUPT or KAFKA_FATAL; trouble of the other classes shows in
 * kafka_last_error() only, since librdkafka goes on trying.
 *
 * KAFKA_UNKNOWN_TOPIC comes for all partitions at once.  A broker that has
 * just started may say so of a topic that is there, and a topic deleted and
 * made anew is another one: ask for METADATA, compare identities, then start
 * the partitions again or stop.
 */
typedef enum KafkaMessageKind
{
	KAFKA_RECORD,				/* a record; payload NULL is a tombstone */
	KAFKA_PARTITION_EOF,		/* position reached the end; offset = position */
	KAFKA_PARTITION_ERROR		/* this partition cannot go on: see
								 * kafka_error */
} KafkaMessageKind;

/* What one record looks like before it is decoded. */
typedef struct KafkaMessage
{
	KafkaMessageKind kind;
	int32		partition;
	int64		offset;
	int64		timestamp_ms;	/* of the record; -1: none */
	const char *payload;		/* not NUL-terminated; NULL: tombstone */
	size_t		payload_len;
	const void *key;			/* NULL: no key */
	size_t		key_len;
	int			error;			/* KAFKA_PARTITION_ERROR: a KafkaErrorClass */
	void	   *native;			/* for kafka_message_headers(); may be NULL */
} KafkaMessage;

typedef struct KafkaHeader
{
	const char *key;			/* NUL-terminated */
	const void *value;			/* NULL: null value */
	size_t		value_len;
} KafkaHeader;

/* Classes of trouble and what a worker does about it. */
typedef enum KafkaErrorClass
{
	KAFKA_OK = 0,
	KAFKA_TRANSIENT,			/* cannot reach a broker: retrying */
	KAFKA_AUTHENTICATION,		/* login or TLS refused: retrying, slowly */
	KAFKA_AUTHORIZATION,		/* no right to read the topic: retrying */
	KAFKA_UNKNOWN_TOPIC,		/* topic or partition does not exist */
	KAFKA_OFFSET_GONE,			/* offset out of range: stop */
	KAFKA_CORRUPT,				/* record unreadable: stop */
	KAFKA_FATAL					/* destroy the client and restart */
} KafkaErrorClass;

/* The latest trouble, for last_error: class, SQLSTATE and text. */
typedef struct KafkaError
{
	KafkaErrorClass class;
	int			sqlerrcode;		/* an ERRCODE_* */
	int32		partition;		/* -1: the whole client or topic */
	int64		offset;			/* KAFKA_OFFSET_GONE, KAFKA_CORRUPT; else -1 */
	char		message[512];	/* names server, topic, partition as due */
	char		hint[256];		/* empty: none */
} KafkaError;

typedef struct KafkaConfig
{
	const char *server_name;	/* for messages */
	const char *topic;			/* NULL: metadata only */
	const char *client_id;
	List	   *options;		/* of DefElem, librdkafka names with '_' for
								 * '.', server's and user mapping's */
	int			partitions;		/* of the topic; 0: not known yet.  The queue
								 * is one for all, so this is only what may
								 * come on top, a response each */
	int64		memory_limit;	/* bytes, weir.ingest_memory */
	int			fetch_message_max_bytes;
	int64		max_message_bytes;
	int			ends_interval_ms;	/* ask for end offsets; 0: when told to */
	int			log_level;		/* syslog's 0..7 */
} KafkaConfig;

/*
 * Options, as the validator of server and user mapping sees them.
 */
typedef enum KafkaOptionKind
{
	KAFKA_OPTION_UNKNOWN,
	KAFKA_OPTION_SERVER,		/* plain: anyone may set it on a server */
	KAFKA_OPTION_SECRET,		/* user mapping only */
	KAFKA_OPTION_EITHER,		/* user mapping or server: user names */
	KAFKA_OPTION_SUPERUSER,		/* loads or runs code, reads files */
	KAFKA_OPTION_FORBIDDEN		/* nobody: group.id, test.mock.*, ... */
} KafkaOptionKind;

extern KafkaOptionKind kafka_option_kind(const char *name);

/* Nearest allowed option names for a hint, or NULL; palloc'd. */
extern char *kafka_option_near(const char *name);

/*
 * Check a value as librdkafka will (conf_set on a scratch configuration).
 * Returns NULL when good, else a palloc'd message.
 */
extern char *kafka_option_check(const char *name, const char *value);

/*
 * Make a client.  Never waits for the network.  ereport(ERROR) on a refused
 * configuration.  Closed at the latest when cxt is reset or deleted.
 */
extern KafkaClient *kafka_open(const KafkaConfig *config, MemoryContext cxt);

/*
 * Close: in a helper thread, waited for for two seconds at most (a hanging
 * DNS look-up can hold librdkafka for longer; the thread then stays behind
 * and touches nothing of PostgreSQL's).
 */
extern void kafka_close(KafkaClient *client);

/*
 * Two file descriptors, both edge-like eventfds: one becomes readable when
 * messages wait, one when anything else does (errors, logs, answers to
 * requests).  kafka_consume() and kafka_service() drain them.
 */
extern int	kafka_message_fd(KafkaClient *client);
extern int	kafka_service_fd(KafkaClient *client);

/*
 * Requests go out on a helper thread that runs no PostgreSQL code; the
 * answer is collected by kafka_service().  One request of a kind at a time:
 * asking again while one is under way does nothing.
 */
typedef enum KafkaRequestKind
{
	KAFKA_REQUEST_METADATA,		/* partitions of the topic, cluster id */
	KAFKA_REQUEST_LOW,			/* first available offset a partition */
	KAFKA_REQUEST_END,			/* end offset a partition (last stable) */
	KAFKA_REQUEST_TIME			/* first offset at or after a time; past the
								 * end: the end */
} KafkaRequestKind;

#define KAFKA_REQUEST_KINDS 4

typedef struct KafkaAnswer
{
	bool		done;			/* an answer has come since the request */
	KafkaError	error;			/* class KAFKA_OK when the answer is good */
	int			partitions;		/* METADATA: count; else length of offsets */
	int			answered;		/* how many of the offsets are there */
	char		cluster_id[64]; /* METADATA; empty: the broker gave none */
	int64	   *offsets;		/* owned by the client, until asked again; -1
								 * where the partition's leader does not
								 * answer: error tells of the first of these */
} KafkaAnswer;

/* time_ms only with KAFKA_REQUEST_TIME.  partitions must be > 0 but for
 * METADATA. */
extern void kafka_request(KafkaClient *client, KafkaRequestKind kind,
						  int partitions, int64 time_ms);
extern const KafkaAnswer *kafka_answer(KafkaClient *client,
									   KafkaRequestKind kind);

/*
 * Blocking convenience for backends (weir.sample): request, wait on
 * MyLatch with interrupts, until answered or timeout_ms has passed (then an
 * answer with KAFKA_TRANSIENT).
 */
extern const KafkaAnswer *kafka_request_wait(KafkaClient *client,
											 KafkaRequestKind kind,
											 int partitions, int64 time_ms,
											 int timeout_ms);

/* Begin fetching one partition at an explicit offset (or stop it). */
extern void kafka_start(KafkaClient *client, int32 partition, int64 offset);
extern void kafka_stop(KafkaClient *client, int32 partition);

/*
 * Take up to max messages that have already arrived; never waits.  Returns
 * how many; *pending says that more may wait without a new event on the fd.
 * The array and the payloads belong to the client until kafka_release(),
 * which must come before the next kafka_consume(), also after an error.
 */
extern int	kafka_consume(KafkaClient *client, KafkaMessage **messages,
						  int max, bool *pending);
extern void kafka_release(KafkaClient *client);
extern int	kafka_message_headers(const KafkaMessage *message,
								  KafkaHeader **headers);	/* palloc'd */

/*
 * Serve everything but messages: errors, logs (to the server log), answers,
 * and ask for the end offsets when it is time.  Returns true when
 * kafka_last_error(), an answer or an end offset changed.
 */
extern bool kafka_service(KafkaClient *client);

/* In so many ms kafka_service() has something to do; -1: not by itself. */
extern long kafka_service_due(KafkaClient *client);

/*
 * The latest trouble.  Back to KAFKA_OK by itself when brokers answer again
 * (outage, login) or data flows (authorization); what stopped a partition
 * stays until that partition is started or kafka_clear_error().
 */
extern const KafkaError *kafka_last_error(KafkaClient *client);
extern void kafka_clear_error(KafkaClient *client);

/*
 * Evidence for idleness (stream_watermark.c): true only when the position is
 * the end offset (last stable under read_committed) which the partition's
 * leader gave when asked lately, and nothing has gone wrong since.
 * *end_offset is the latest end known, or -1; *as_of is when the leader was
 * asked, so that evidence is continuous while *as_of moves; 0: never.  Needs
 * kafka_service() to be called, which asks by itself.
 */
extern bool kafka_partition_at_end(KafkaClient *client, int32 partition,
								   int64 *end_offset, TimestampTz *as_of);

/* Bytes in the client's queue, about, for stat_worker. */
extern int64 kafka_queue_bytes(KafkaClient *client);

extern const char *kafka_library_version(void);

#endif							/* WEIR_KAFKA_H */
