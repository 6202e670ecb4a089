/*-------------------------------------------------------------------------
 *
 * weir.c
 *	  Loading: settings, shared memory, hooks, launcher.  Nothing else.
 *
 * weir must be in shared_preload_libraries, since it has shared memory and
 * a launcher.  Loaded otherwise (CREATE EXTENSION without it, say), it
 * defines nothing, and every function raises 55000 with a hint.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/guc.h"

#include "ddl_hook.h"
#include "settings.h"
#include "worker.h"

PG_MODULE_MAGIC;

bool		weir_autostart = true;
int			weir_max_sources = 64;
int			weir_max_streams = 256;
int			weir_max_partitions = 4096;
int			weir_staging_limit = 64 * 1024;
int			weir_segment_size = 8 * 1024;
int			weir_ingest_memory = 128 * 1024;
int			weir_fetch_message_max_bytes = 256 * 1024;
int			weir_max_batch_rows = 200000;
int			weir_work_mem = -1;
int			weir_lock_timeout = 5000;
int			weir_retry_delay = 1000;
int			weir_retry_delay_max = 60000;
int			weir_detach_timeout = 10000;
int			weir_end_offset_interval = 1000;
int			weir_dead_letter_limit = 1000000;
int			weir_max_message_bytes = 64 * 1024;
int			weir_kafka_log_level = 4;

bool		weir_preloaded = false;

static const struct config_enum_entry kafka_log_levels[] = {
	{"emergency", 0, false},
	{"alert", 1, false},
	{"critical", 2, false},
	{"error", 3, false},
	{"warning", 4, false},
	{"notice", 5, false},
	{"info", 6, false},
	{"debug", 7, false},
	{NULL, 0, false}
};

/* An integer setting and all that is known of it. */
typedef struct IntSetting
{
	const char *name;
	const char *what;
	const char *more;
	int		   *variable;
	int			min;
	int			max;
	GucContext	context;
	int			flags;
} IntSetting;

static const IntSetting int_settings[] = {
	{"weir.max_sources", "Greatest number of sources in the server.",
		"Shared memory is reserved for them at start.",
	&weir_max_sources, 1, 10000, PGC_POSTMASTER, 0},
	{"weir.max_streams", "Greatest number of streams in the server.",
		"Shared memory is reserved for them at start.",
	&weir_max_streams, 1, 10000, PGC_POSTMASTER, 0},
	{"weir.max_partitions",
		"Greatest number of Kafka partitions read at a time in the server.",
		"A detached stream counts its source's partitions once more.",
	&weir_max_partitions, 16, 1000000, PGC_POSTMASTER, 0},
	{"weir.staging_limit", "Greatest size of a slot's staging ring.", NULL,
		&weir_staging_limit, 256, MAX_KILOBYTES, PGC_SIGHUP,
	GUC_UNIT_KB},
	{"weir.segment_size", "Size at which a staging segment is sealed.",
		"A ring has at least 3 and at most 64 segments.",
		&weir_segment_size, 64, 1024 * 1024, PGC_SIGHUP,
	GUC_UNIT_KB},
	{"weir.ingest_memory",
		"Memory of an ingest worker for fetched and decoded messages.",
		"A larger message is let through alone.",
		&weir_ingest_memory, 1024, MAX_KILOBYTES, PGC_SIGHUP,
	GUC_UNIT_KB},
	{"weir.fetch_message_max_bytes",
		"Bytes fetched at a time from a partition.",
		"Small fetches keep the processor's caches warm.",
		&weir_fetch_message_max_bytes, 1024, 1000000000, PGC_SIGHUP,
	GUC_UNIT_BYTE},
	{"weir.max_batch_rows", "Greatest number of rows in a micro-batch.",
		"What one ingest commit published may exceed it.",
	&weir_max_batch_rows, 1, 100000000, PGC_SIGHUP, 0},
	{"weir.work_mem", "work_mem of stream workers.",
		"-1 uses the server's work_mem.",
		&weir_work_mem, -1, MAX_KILOBYTES, PGC_SIGHUP,
	GUC_UNIT_KB},
	{"weir.lock_timeout", "Longest wait of a worker for a lock.",
		"A stream that meets it rolls back and tries again later.",
		&weir_lock_timeout, 0, INT_MAX, PGC_SIGHUP,
	GUC_UNIT_MS},
	{"weir.retry_delay", "First wait before something is tried again.",
		"It doubles with each failure, up to weir.retry_delay_max.",
		&weir_retry_delay, 1, INT_MAX, PGC_SIGHUP,
	GUC_UNIT_MS},
	{"weir.retry_delay_max", "Longest wait before something is tried again.",
		NULL, &weir_retry_delay_max, 1, INT_MAX, PGC_SIGHUP,
	GUC_UNIT_MS},
	{"weir.detach_timeout",
		"How long one stream may hold a full staging ring while another waits.",
		"Then it is detached and catches up by itself.",
		&weir_detach_timeout, 0, INT_MAX, PGC_SIGHUP,
	GUC_UNIT_MS},
	{"weir.end_offset_interval",
		"How often the end offsets of the partitions are asked for.",
		NULL, &weir_end_offset_interval, 10, INT_MAX, PGC_SIGHUP,
	GUC_UNIT_MS},
	{"weir.dead_letter_limit",
		"Greatest number of dead letters of a source or a stream.",
		"At the limit the source or the stream stops; it skips nothing.",
	&weir_dead_letter_limit, 0, INT_MAX, PGC_SIGHUP, 0},
	{"weir.max_message_bytes", "Greatest size of a Kafka message.", NULL,
		&weir_max_message_bytes, 1, MAX_KILOBYTES, PGC_SIGHUP,
	GUC_UNIT_KB},
};

static void
define_settings(void)
{
	for (int i = 0; i < lengthof(int_settings); i++)
	{
		const IntSetting *s = &int_settings[i];

		DefineCustomIntVariable(s->name, s->what, s->more, s->variable,
								*s->variable, s->min, s->max, s->context,
								s->flags, NULL, NULL, NULL);
	}
	DefineCustomBoolVariable("weir.autostart",
							 "Start the workers of each database by themselves.",
							 "Turn it off in postgresql.conf of a copy made "
							 "for point-in-time recovery.",
							 &weir_autostart, true, PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
	DefineCustomEnumVariable("weir.kafka_log_level",
							 "Least severity of the Kafka client's messages "
							 "that go to the server log.",
							 NULL, &weir_kafka_log_level, 4, kafka_log_levels,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("weir");
}

static void
register_launcher(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_name, BGW_MAXLEN, "weir launcher");
	snprintf(worker.bgw_type, BGW_MAXLEN, "weir launcher");
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "weir");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "weir_launcher_main");
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	RegisterBackgroundWorker(&worker);
}

void
weir_require_preload(void)
{
	if (!weir_preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("weir must be loaded by \"shared_preload_libraries\""),
				 errhint("Add \"weir\" to \"shared_preload_libraries\" in "
						 "postgresql.conf and restart the server.")));
}

void		_PG_init(void);

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	weir_preloaded = true;
	define_settings();
	worker_shmem_init();
	ddl_hook_install();
	worker_database_hook_install();
	register_launcher();
}
