/*-------------------------------------------------------------------------
 *
 * worker_ingest.c
 *	  The ingest worker: one slot, from any start to its end.
 *
 * Any start is the same (first start, restart, crash, failover), in this
 * order:
 *	1. the slot's session lock: the worker before is gone for good
 *	2. shared memory: the epoch grows, marks and floors are void
 *	3. the segments are emptied, in ring order, a transaction each
 *	4. partitions and first positions are learned, the start is the least
 *	   applied offset of the streams served, and fetching begins there
 * Then the loop of ingest_consume.c.
 *
 * Any ERROR ends the worker: what was under way was not committed, and the
 * manager starts another after a back-off.  An outage is shown as
 * "retrying"; an error of the definition stops the source, with the reason
 * in the catalog, until weir.resume().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "commands/dbcommands.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "errors.h"
#include "fdw.h"
#include "ingest.h"
#include "ingest_follow.h"
#include "settings.h"
#include "worker.h"

static void
leave_slot(int code, Datum arg)
{
	SlotShared *slot = (SlotShared *) DatumGetPointer(arg);

	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	if (slot->pid != MyProcPid)
	{
		/* An abort let go of the slot's lock, and another has taken it. */
		LWLockRelease(&slot->lock);
		return;
	}
	slot->pid = 0;
	slot->latch = NULL;
	for (int p = 0; p < slot->npartitions; p++)
		worker_slot_partitions(slot)[p].idle_since = 0;
	LWLockRelease(&slot->lock);
	if (slot->stream_id != 0)
		worker_slot_release(slot);
}

/*
 * PostgreSQL releases session locks when a transaction aborts, and not when
 * a process ends outside of one: the lock would stay with its PGPROC.
 */
static void
release_locks(int code, Datum arg)
{
	AbortOutOfAnyTransaction();
	LockReleaseAll(DEFAULT_LOCKMETHOD, true);
}

/*
 * The slot's lock, held to the end of the session.  Not an advisory lock,
 * which user code could take or release.
 */
static void
lock_slot(const WorkerArgs *args)
{
	LOCKTAG		tag;
	Oid			catalog_table;

	StartTransactionCommand();
	catalog_table = get_relname_relid(args->stream_id ? "stream" : "source",
									  catalog_internal_schema());
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, catalog_table,
					   args->stream_id ? args->stream_id : args->source_id,
					   1);
	worker_activity("waiting for the worker before to end");
	(void) LockAcquire(&tag, ExclusiveLock, true, false);
	CommitTransactionCommand();
}

/* The settings that the client is made with. */
static void
client_settings(int *settings)
{
	settings[0] = weir_ingest_memory;
	settings[1] = weir_fetch_message_max_bytes;
	settings[2] = weir_max_message_bytes;
	settings[3] = weir_end_offset_interval;
	settings[4] = weir_kafka_log_level;
}

/* Have they been changed by a reload since? */
bool
ingest_settings_changed(Ingest *ingest)
{
	int			settings[lengthof(ingest->client_settings)];

	client_settings(settings);
	return memcmp(settings, ingest->client_settings, sizeof(settings)) != 0;
}

static void
open_client(Ingest *ingest, int npartitions)
{
	KafkaConfig config = {0};
	char		client_id[128];

	if (ingest->client)
		kafka_close(ingest->client);
	ingest->client = NULL;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	snprintf(client_id, sizeof(client_id), "weir/%s/%s",
			 get_database_name(MyDatabaseId), ingest->source->name);
	config.server_name = ingest->source->server_name;
	config.topic = ingest->source->topic;
	config.client_id = client_id;
	ingest->client_options = fdw_kafka_options(ingest->source->server_id,
											   ingest->source->owner);
	MemoryContextSwitchTo(ingest->cxt);
	ingest->client_options = copyObject(ingest->client_options);
	config.options = ingest->client_options;
	config.partitions = npartitions;
	config.memory_limit = (int64) weir_ingest_memory * 1024;
	config.fetch_message_max_bytes = weir_fetch_message_max_bytes;
	config.max_message_bytes = (int64) weir_max_message_bytes * 1024;
	config.ends_interval_ms = weir_end_offset_interval;
	config.log_level = weir_kafka_log_level;
	client_settings(ingest->client_settings);
	ingest->client = kafka_open(&config, ingest->cxt);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

static void
make_decoder(Ingest *ingest)
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	catalog_settle_session(&ingest->source->settings);
	follow_compile(ingest);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* Read the source; ends the worker when it is not wanted any more. */
static void
read_source(Ingest *ingest, const WorkerArgs *args)
{
	ingest->generation = worker_catalog_generation();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(ingest->cxt);
	ingest->source = catalog_source_by_id(args->source_id, true);
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (ingest->source == NULL || ingest->source->paused ||
		ingest->source->stopped_message)
		proc_exit(0);
}

static void
ingest_run(Ingest *ingest, const WorkerArgs *args)
{
	SlotShared *slot;

	read_source(ingest, args);
	before_shmem_exit(release_locks, (Datum) 0);
	lock_slot(args);
	slot = ingest->slot = worker_slot_claim(args->source_id, args->stream_id);
	before_shmem_exit(leave_slot, PointerGetDatum(slot));
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	slot->pid = MyProcPid;
	slot->next_retry_at = 0;
	slot->start_anew = false;
	slot->latch = MyLatch;
	if (slot->state != SLOT_RETRYING)
		slot->state = SLOT_STARTING;
	LWLockRelease(&slot->lock);

	worker_activity("emptying the staging ring of source %s",
					ingest->source->name);
	stage_open(ingest);
	make_decoder(ingest);
	worker_activity("connecting source %s to topic %s", ingest->source->name,
					ingest->source->topic);
	open_client(ingest, 0);
	position_learn_partitions(ingest);
	open_client(ingest, ingest->npartitions);
	position_begin(ingest);
	position_resolve_advances(ingest);
	for (int p = 0; p < ingest->npartitions; p++)
		if (!ingest->parts[p].pending)
			kafka_start(ingest->client, p,
						TIMESTAMP_IS_NOBEGIN(ingest->verify[p]) ?
						ingest->next[p] : ingest->next[p] - 1);

	/* after trouble, ingest_loop() sees whether it is over */
	if (slot->state != SLOT_RETRYING)
		slot->state = SLOT_RUNNING;
	worker_wake_streams(args->source_id);
	worker_activity("reading topic %s of source %s%s", ingest->source->topic,
					ingest->source->name,
					args->stream_id ? " for a stream that catches up" : "");
	ingest_loop(ingest);
}

/*
 * An ERROR came up: show it, and when trying again cannot help, stop the
 * source.  In a transaction of its own.
 */
static void
show_error(Ingest *ingest, const ErrorData *edata)
{
	bool		stop;

	switch (ingest->trouble)
	{
		case KAFKA_OK:
			stop = error_class(edata->sqlerrcode) != ERROR_OF_OUTAGE;
			break;
		case KAFKA_UNKNOWN_TOPIC:
			/* in mid-stream the next start finds out whether it is gone */
			stop = ingest->npartitions == 0 && position_was_read(ingest);
			break;
		case KAFKA_OFFSET_GONE:
		case KAFKA_CORRUPT:
			stop = true;
			break;
		default:
			stop = false;
	}
	if (ingest->slot)
	{
		worker_set_error(&ingest->slot->error, edata->sqlerrcode,
						 error_text(edata));
		ingest->slot->state = stop ? SLOT_STOPPED : SLOT_RETRYING;
	}
	if (!stop && ingest->stream_id != 0)
	{
		/* a private slot is given back, and its error with it */
		StreamShared *stream = worker_stream_find(MyDatabaseId,
												  ingest->stream_id);

		if (stream)
			worker_set_error(&stream->error, edata->sqlerrcode,
							 error_text(edata));
	}
	if (!stop || ingest->source == NULL)
		return;
	ereport(LOG,
			(errmsg("%s \"%s\" stops: %s",
					ingest->stream_id ? "catching up from source" : "source",
					ingest->source->name, error_text(edata))));
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (catalog_source_changed(ingest->source))
		ereport(DEBUG1,
				(errmsg("source \"%s\" was changed meanwhile",
						ingest->source->name)));
	else if (ingest->stream_id == 0)
		catalog_stop_source(ingest->source->source_id,
							error_sqlstate(edata->sqlerrcode),
							error_text(edata));
	else
		catalog_fail_stream(ingest->stream_id,
							error_sqlstate(edata->sqlerrcode),
							error_text(edata));
	worker_wakeup_at_commit();
	PopActiveSnapshot();
	CommitTransactionCommand();
}

void
weir_ingest_main(Datum arg)
{
	WorkerArgs	args;
	Ingest	   *ingest;

	memcpy(&args, MyBgworkerEntry->bgw_extra, sizeof(args));
	worker_begin(&args);
	ingest = MemoryContextAllocZero(TopMemoryContext, sizeof(*ingest));
	ingest->stream_id = args.stream_id;
	ingest->cxt = AllocSetContextCreate(TopMemoryContext, "weir ingest",
										ALLOCSET_DEFAULT_SIZES);
	ingest->batch_cxt = AllocSetContextCreate(ingest->cxt,
											  "weir ingest batch",
											  ALLOCSET_DEFAULT_SIZES);
	PG_TRY();
	{
		ingest_run(ingest, &args);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(ingest->cxt);
		edata = CopyErrorData();
		if (broker_log_due(ingest, error_text(edata)))
			EmitErrorReport();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(ingest->cxt);
		show_error(ingest, edata);

		/* of 1 the postmaster writes a line each time */
		proc_exit(ingest->trouble == KAFKA_OK ? 1 : 0);
	}
	PG_END_TRY();
}
