/*-------------------------------------------------------------------------
 *
 * producer.h
 *	  A producer to one topic, shared by produce and gen.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRODUCER_H
#define PRODUCER_H

#include "support.h"

#define PARTITION_BY_KEY	(-1)	/* hash of the key, as Java clients do */
#define TIMESTAMP_NOW		0

typedef struct ProducerOptions
{
	const char *bootstrap;		/* bootstrap servers */
	const char *topic;
	const char *codec;			/* compression, or NULL for none */
	const char *transactional_id;	/* or NULL for no transactions */
	const char *linger_ms;		/* or NULL for the default */
	char	  **props;			/* further settings, "name=value" */
	int			n_props;
} ProducerOptions;

/* one record; the producer copies what it needs */
typedef struct Record
{
	int32_t		partition;		/* or PARTITION_BY_KEY */
	int64_t		timestamp_ms;	/* or TIMESTAMP_NOW */
	const char *key;			/* NULL: no key */
	size_t		key_len;
	const char *payload;		/* NULL: a tombstone */
	size_t		payload_len;
	const rd_kafka_headers_t *headers;	/* NULL: none */
} Record;

typedef struct Producer Producer;

extern void producer_add_property(ProducerOptions *options, char *pair);
extern Producer *producer_open(const ProducerOptions *options);
extern int	producer_partitions(Producer *producer);
extern void producer_send(Producer *producer, const Record *record);
extern bool producer_flush(Producer *producer, int timeout_ms);
extern void producer_poll(Producer *producer);
extern void producer_begin(Producer *producer);
extern void producer_end(Producer *producer, bool commit);
extern void producer_close(Producer *producer);

#endif							/* PRODUCER_H */
