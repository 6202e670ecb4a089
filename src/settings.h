/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The settings (GUCs) of weir; defined in weir.c, documented in README.md.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SETTINGS_H
#define WEIR_SETTINGS_H

extern bool weir_autostart;
extern int	weir_max_sources;
extern int	weir_max_streams;
extern int	weir_max_partitions;
extern int	weir_staging_limit; /* kB a slot */
extern int	weir_segment_size;	/* kB */
extern int	weir_ingest_memory; /* kB a worker */
extern int	weir_fetch_message_max_bytes;	/* bytes */
extern int	weir_max_batch_rows;
extern int	weir_work_mem;		/* kB; -1: the server's work_mem */
extern int	weir_lock_timeout;	/* ms */
extern int	weir_retry_delay;	/* ms */
extern int	weir_retry_delay_max;	/* ms */
extern int	weir_detach_timeout;	/* ms */
extern int	weir_end_offset_interval;	/* ms */
extern int	weir_dead_letter_limit; /* rows */
extern int	weir_max_message_bytes; /* kB */
extern int	weir_kafka_log_level;	/* syslog's 0..7 */

/* Set in _PG_init when loaded by shared_preload_libraries. */
extern bool weir_preloaded;

/* ERROR 55000 with a hint when it was not. */
extern void weir_require_preload(void);

#endif							/* WEIR_SETTINGS_H */
