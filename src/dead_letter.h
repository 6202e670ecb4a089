/*-------------------------------------------------------------------------
 *
 * dead_letter.h
 *	  What could not be processed, kept in weir.dead_letter.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_DEAD_LETTER_H
#define WEIR_DEAD_LETTER_H

#include "catalog.h"

typedef enum DeadLetterReason
{
	DEAD_DECODE,
	DEAD_CONSTRAINT,
	DEAD_QUERY,
	DEAD_TARGET,
	DEAD_LATE,
	DEAD_GROUP
} DeadLetterReason;

typedef struct DeadLetter
{
	DeadLetterReason reason;
	int32		partition;		/* -1: belongs to no row */
	int64		offset;
	TimestampTz kafka_timestamp;	/* DT_NOBEGIN: NULL */
	const void *key;			/* NULL: none */
	size_t		key_len;
	const void *payload;		/* NULL: only the staged row is known */
	size_t		payload_len;
	const char *staged_row;		/* JSON text, or NULL */
	int			sqlerrcode;		/* 0: none (late rows) */
	const char *message;
	TimestampTz window_start;	/* DT_NOBEGIN: NULL */
	TimestampTz window_end;		/* DT_NOBEGIN: NULL */
	bool		partly_applied;
} DeadLetter;

/*
 * Write dead letters in the caller's transaction, as the extension's owner.
 * stream NULL: of the source's ingest; one that is there already stays as it
 * is, since ingest reads records again.  ERROR 55000 when there would be more
 * of the source's ingest, or of the stream, than dead_letter_limit.
 */
extern void dead_letter_write(const SourceDef *source,
							  const StreamDef *stream,
							  const DeadLetter *letters, int n);

/* The manager's, after a change of the catalog; in a transaction. */
extern void dead_letter_forget_dropped(void);

#endif							/* WEIR_DEAD_LETTER_H */
