/*-------------------------------------------------------------------------
 *
 * kafka_request.c
 *	  The helper thread: requests that wait for brokers, and the end of a
 *	  client.
 *
 * librdkafka's requests for metadata and offsets wait, so they run on one
 * thread a client, which runs no PostgreSQL code (I7): all signals blocked,
 * malloc, pthreads and librdkafka only.  It takes jobs from KafkaShared under
 * its lock, works on a copy without the lock, puts the answer back and writes
 * to the service fd.
 *
 * A job waits for its answer in slices that double from one second, so that
 * the thread sees within a moment that it is to stop, and a slow broker is
 * given its time all the same.
 *
 * rd_kafka_query_watermark_offsets() may hang for ever before librdkafka 2.3
 * and is not used: rd_kafka_offsets_for_times() with the logical times -1
 * (end; last stable offset under read_committed) and -2 (beginning) keeps its
 * timeout.
 *
 * It answers for all partitions or for none, and waits for a leader where
 * there is none.  So when it fails the leaders are asked one by one, until
 * all of them answer again.
 *
 * Nudging.  Before 2.2 a broker thread that finds the queue full sleeps for
 * up to a second, however soon the queue is empty.  Any request to that
 * broker wakes it.  So while the queue was seen half full within the last
 * second, the thread asks all leaders for their end offsets every few
 * milliseconds.
 *
 * The end.  The thread also destroys the handle, since that can take seconds
 * (a DNS look-up hangs).  kafka_close_shared() waits for it for two seconds;
 * then the thread is left behind and frees KafkaShared itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "kafka_private.h"

#define CLOSE_TIMEOUT_MS	2000
#define FIRST_SLICE_MS		1000
#define RETRY_PAUSE_MS		100
/* An election may be under way; after that, do without those who are silent. */
#define TAKE_PART_MS		3000
#define CLUSTERID_TIMEOUT_MS 100
#define NUDGE_PAUSE_MS		10
#define NUDGE_TIMEOUT_MS	200
/* A little more than the longest sleep of a broker thread. */
#define NUDGE_PERIOD_MS		1100

int64
kafka_monotonic_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Wait on a condition for some time; the lock is held. */
static void
wait_ms(pthread_cond_t *cond, pthread_mutex_t *lock, int64 ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += ms / 1000;
	ts.tv_nsec += (ms % 1000) * 1000000;
	if (ts.tv_nsec >= 1000000000)
	{
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	(void) pthread_cond_timedwait(cond, lock, &ts);
}

/* Pause before another attempt; false when the thread is to stop. */
static bool
pause_unless_stopped(KafkaShared *shared, int64 ms)
{
	bool		stop;

	pthread_mutex_lock(&shared->lock);
	if (!shared->stop && ms > 0)
		wait_ms(&shared->wake, &shared->lock, ms);
	stop = shared->stop;
	pthread_mutex_unlock(&shared->lock);
	return !stop;
}

/* Would the same request succeed when asked again a moment later? */
static bool
worth_retrying(int err)
{
	return err == RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH ||
		kafka_classify(err) == KAFKA_TRANSIENT;
}

/*
 * Ask the leaders of some partitions for their offset at a time.  offsets and
 * errs, by partition, get the answers; a negative offset is "none".  Returns
 * an error of all of them, or the first that is not worth another try.
 */
static int
list_offsets(KafkaShared *shared, const int32 *partitions, int n,
			 int64 time_ms, int timeout_ms, KafkaJob *job)
{
	rd_kafka_topic_partition_list_t *list;
	int			err;

	list = rd_kafka_topic_partition_list_new(n);
	for (int i = 0; i < n; i++)
		rd_kafka_topic_partition_list_add(list, shared->topic,
										  partitions[i])->offset = time_ms;

	err = rd_kafka_offsets_for_times(shared->rk, list, timeout_ms);
	for (int i = 0; i < list->cnt && !err; i++)
	{
		rd_kafka_topic_partition_t *part = &list->elems[i];

		job->offsets[part->partition] = part->err ? -1 : part->offset;
		job->errs[part->partition] = part->err;
		if (part->err && !worth_retrying(part->err))
		{
			err = part->err;
			job->err_partition = part->partition;
		}
	}
	rd_kafka_topic_partition_list_destroy(list);
	return err;
}

/*
 * The same, leader by leader: one that does not answer, or is not there,
 * keeps only its own partitions from an answer.
 */
static int
list_offsets_by_leader(KafkaShared *shared, int64 time_ms, int timeout_ms,
					   KafkaJob *job, int32 *partitions, int32 *leaders)
{
	const struct rd_kafka_metadata *metadata;
	int			err;

	err = rd_kafka_metadata(shared->rk, 0, shared->rkt, &metadata,
							timeout_ms);
	if (err)
		return err;
	for (int i = 0; i < job->partitions; i++)
	{
		leaders[i] = -1;
		job->errs[i] = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
		job->offsets[i] = -1;
	}
	for (int t = 0; t < metadata->topic_cnt; t++)
		for (int i = 0; i < metadata->topics[t].partition_cnt; i++)
		{
			rd_kafka_metadata_partition_t *part =
			&metadata->topics[t].partitions[i];

			if (part->id < 0 || part->id >= job->partitions)
				continue;
			leaders[part->id] = part->leader;
			if (part->leader < 0 && worth_retrying(part->err))
				job->errs[part->id] = part->err;
		}
	rd_kafka_metadata_destroy(metadata);

	for (int i = 0; i < job->partitions; i++)
	{
		int32		leader = leaders[i];
		int			n = 0;

		if (leader < 0)
			continue;
		for (int j = i; j < job->partitions; j++)
			if (leaders[j] == leader)
			{
				leaders[j] = -1;	/* asked */
				partitions[n++] = j;
			}
		err = list_offsets(shared, partitions, n, time_ms, timeout_ms, job);
		if (err && !worth_retrying(err))
			return err;
		for (int j = 0; j < n && err; j++)
			job->errs[partitions[j]] = err;
		if (!pause_unless_stopped(shared, 0))
			return RD_KAFKA_RESP_ERR__DESTROY;
	}
	return RD_KAFKA_RESP_ERR_NO_ERROR;
}

/*
 * Ask for the offsets of all partitions.  An error of all of them is
 * returned; one of a partition stands in errs, and its offset is -1.
 */
static int
ask_offsets(KafkaShared *shared, int64 time_ms, int timeout_ms, KafkaJob *job)
{
	int32	   *partitions = malloc(sizeof(int32) * 2 * job->partitions);
	int			err = RD_KAFKA_RESP_ERR__TIMED_OUT;

	if (partitions == NULL)
		return RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE;
	if (!shared->by_leader)
	{
		for (int i = 0; i < job->partitions; i++)
			partitions[i] = i;
		err = list_offsets(shared, partitions, job->partitions, time_ms,
						   timeout_ms, job);
	}
	if (err && worth_retrying(err))
		err = list_offsets_by_leader(shared, time_ms, timeout_ms, job,
									 partitions,
									 partitions + job->partitions);
	free(partitions);

	shared->by_leader = false;
	for (int i = 0; i < job->partitions && !err; i++)
		shared->by_leader |= job->errs[i] != RD_KAFKA_RESP_ERR_NO_ERROR;
	return err;
}

static int
run_metadata(KafkaShared *shared, KafkaJob *job, int timeout_ms)
{
	const struct rd_kafka_metadata *metadata;
	char	   *cluster_id;
	int			err;

	err = rd_kafka_metadata(shared->rk, 0, shared->rkt, &metadata,
							timeout_ms);
	if (err)
		return err;

	job->brokers = metadata->broker_cnt;
	job->count = 0;
	if (shared->rkt)
	{
		err = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
		for (int i = 0; i < metadata->topic_cnt; i++)
		{
			if (strcmp(metadata->topics[i].topic, shared->topic) != 0)
				continue;
			err = metadata->topics[i].err;
			job->count = metadata->topics[i].partition_cnt;
			if (!err && job->count == 0)
				err = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
		}
	}
	rd_kafka_metadata_destroy(metadata);
	if (err)
		return err;

	/* The answer above carried it, so this does not wait as a rule. */
	cluster_id = rd_kafka_clusterid(shared->rk, CLUSTERID_TIMEOUT_MS);
	job->cluster_id[0] = '\0';
	if (cluster_id)
	{
		snprintf(job->cluster_id, sizeof(job->cluster_id), "%s", cluster_id);
		rd_kafka_mem_free(shared->rk, cluster_id);
	}
	return RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* How many partitions have an answer; the first that has none is named. */
static int
count_answers(KafkaJob *job)
{
	int			n = 0;

	for (int i = 0; i < job->partitions; i++)
	{
		if (job->errs[i] == RD_KAFKA_RESP_ERR_NO_ERROR)
			n++;
		else if (job->err == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			job->err = job->errs[i];
			job->err_partition = i;
		}
	}
	return n;
}

static int
run_offsets(KafkaShared *shared, int kind, KafkaJob *job, int timeout_ms)
{
	int64	   *ends;
	int			err;

	err = ask_offsets(shared, kind == KAFKA_REQUEST_LOW ?
					  RD_KAFKA_OFFSET_BEGINNING : RD_KAFKA_OFFSET_END,
					  timeout_ms, job);
	for (int i = 0; i < job->partitions && !err; i++)
		if (job->offsets[i] < 0 && !job->errs[i])
			job->errs[i] = RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE;
	if (err || kind != KAFKA_REQUEST_TIME)
		return err;

	/*
	 * "None" at a time means the end, which was asked for first: what is
	 * produced in between lies at or behind it, so nothing is skipped.
	 */
	ends = malloc(sizeof(int64) * job->partitions);
	if (ends == NULL)
		return RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE;
	memcpy(ends, job->offsets, sizeof(int64) * job->partitions);
	err = ask_offsets(shared, Max(job->time_ms, 0), timeout_ms, job);
	for (int i = 0; i < job->partitions && !err; i++)
	{
		if (job->offsets[i] < 0 && !job->errs[i])
			job->offsets[i] = ends[i];
		if (job->offsets[i] < 0 && !job->errs[i])
			job->errs[i] = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
	}
	free(ends);
	return err;
}

static void
free_answer(KafkaJob *job)
{
	free(job->offsets);
	free(job->errs);
	job->offsets = NULL;
	job->errs = NULL;
}

/*
 * One attempt.  Returns true when that is the answer: all there is to know,
 * or, when some leaders have not answered for a while, what the others say.
 * The evidence for idleness does not wait for them.
 */
static bool
try_job(KafkaShared *shared, int kind, KafkaJob *job, int timeout_ms,
		bool take_part)
{
	int			answers;

	job->err_partition = -1;
	if (kind == KAFKA_REQUEST_METADATA)
	{
		job->err = run_metadata(shared, job, timeout_ms);
		return !worth_retrying(job->err);
	}
	free_answer(job);
	job->count = job->partitions;
	job->offsets = calloc(job->partitions, sizeof(int64));
	job->errs = calloc(job->partitions, sizeof(int));
	if (job->offsets == NULL || job->errs == NULL)
		job->err = RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE;
	else
		job->err = run_offsets(shared, kind, job, timeout_ms);
	if (job->err)
	{
		free_answer(job);
		return !worth_retrying(job->err);
	}
	answers = count_answers(job);
	return answers == job->partitions ||
		(take_part && (answers > 0 || kind == KAFKA_JOB_ENDS));
}

/* Work on a copy of a job until it has an answer, or not. */
static void
run_job(KafkaShared *shared, int kind, KafkaJob *job)
{
	int64		begun = kafka_monotonic_ms();
	int64		deadline = begun + job->timeout_ms;
	int64		slice = FIRST_SLICE_MS;
	int64		left = job->timeout_ms;
	bool		done;

	job->offsets = NULL;
	job->errs = NULL;
	do
	{
		bool		take_part;

		job->begun_ms = kafka_monotonic_ms();
		take_part = kind == KAFKA_JOB_ENDS ||
			job->begun_ms - begun >= TAKE_PART_MS;
		done = try_job(shared, kind, job, Max(Min(slice, left), 1),
					   take_part);
		slice *= 2;
		left = deadline - kafka_monotonic_ms();
	} while (!done && left > 0 &&
			 pause_unless_stopped(shared, Min(RETRY_PAUSE_MS, left)));
}

/* Wake the broker threads of all partitions being fetched. */
static void
nudge(KafkaShared *shared, const int32 *partitions, int n)
{
	rd_kafka_topic_partition_list_t *list;

	list = rd_kafka_topic_partition_list_new(n);
	for (int i = 0; i < n; i++)
		rd_kafka_topic_partition_list_add(list, shared->topic,
										  partitions[i])->offset =
			RD_KAFKA_OFFSET_END;
	/* the answer does not matter */
	(void) rd_kafka_offsets_for_times(shared->rk, list, NUDGE_TIMEOUT_MS);
	rd_kafka_topic_partition_list_destroy(list);
}

/* Take the next job or nudge, or wait; called and returning locked. */
static void
helper_step(KafkaShared *shared)
{
	for (int kind = 0; kind < KAFKA_JOBS; kind++)
	{
		KafkaJob   *job = &shared->jobs[kind];
		KafkaJob	work;

		if (!job->wanted)
			continue;
		job->wanted = false;
		job->busy = true;
		work = *job;
		pthread_mutex_unlock(&shared->lock);
		run_job(shared, kind, &work);
		pthread_mutex_lock(&shared->lock);
		job->busy = false;
		if (job->wanted)
			free_answer(&work); /* asked anew meanwhile, of something else */
		else
		{
			free_answer(job);
			work.wanted = work.busy = false;
			work.ready = true;
			*job = work;
			kafka_wake(shared->service_fd);
		}
		return;
	}

	if (shared->nstarted > 0 && kafka_monotonic_ms() < shared->nudge_until_ms)
	{
		int			n = shared->nstarted;
		int32	   *partitions = malloc(sizeof(int32) * n);

		if (partitions)
		{
			memcpy(partitions, shared->started, sizeof(int32) * n);
			pthread_mutex_unlock(&shared->lock);
			nudge(shared, partitions, n);
			free(partitions);
			pthread_mutex_lock(&shared->lock);
		}
		if (!shared->stop)
			wait_ms(&shared->wake, &shared->lock, NUDGE_PAUSE_MS);
		return;
	}

	pthread_cond_wait(&shared->wake, &shared->lock);
}

/* Destroy every handle, and all that belongs to KafkaShared but itself. */
static void
destroy_handles(KafkaShared *shared)
{
	if (shared->rkt)
	{
		for (int i = 0; i < shared->nstarted; i++)
			rd_kafka_consume_stop(shared->rkt, shared->started[i]);
		rd_kafka_topic_destroy(shared->rkt);
	}
	if (shared->queue)
		rd_kafka_queue_destroy(shared->queue);
	if (shared->main_queue)
		rd_kafka_queue_destroy(shared->main_queue);
	if (shared->rk)
		rd_kafka_destroy(shared->rk);

	/* librdkafka writes to these until the end */
	if (shared->message_fd >= 0)
		close(shared->message_fd);
	if (shared->service_fd >= 0)
		close(shared->service_fd);

	for (int kind = 0; kind < KAFKA_JOBS; kind++)
		free_answer(&shared->jobs[kind]);
	while (shared->events)
	{
		KafkaEvent *next = shared->events->next;

		free(shared->events);
		shared->events = next;
	}
	free(shared->started);
	free(shared->topic);
}

static void
free_shared(KafkaShared *shared)
{
	pthread_cond_destroy(&shared->wake);
	pthread_cond_destroy(&shared->done);
	pthread_mutex_destroy(&shared->lock);
	free(shared);
}

static void *
helper_main(void *arg)
{
	KafkaShared *shared = arg;
	bool		abandoned;

	pthread_mutex_lock(&shared->lock);
	while (!shared->stop)
		helper_step(shared);
	pthread_mutex_unlock(&shared->lock);

	destroy_handles(shared);

	pthread_mutex_lock(&shared->lock);
	shared->finished = true;
	abandoned = shared->abandoned;
	pthread_cond_signal(&shared->done);
	pthread_mutex_unlock(&shared->lock);

	if (abandoned)
		free_shared(shared);
	return NULL;
}

/* Start the helper thread; all signals stay with PostgreSQL's. */
bool
kafka_start_helper(KafkaShared *shared)
{
	sigset_t	all;
	sigset_t	old;
	int			rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&shared->thread, NULL, helper_main, shared);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	shared->has_thread = (rc == 0);
	errno = rc;
	return shared->has_thread;
}

/*
 * End a client's shared half, waiting for two seconds at most.  No message
 * of its queue may be out.
 */
void
kafka_close_shared(KafkaShared *shared)
{
	int64		deadline = kafka_monotonic_ms() + CLOSE_TIMEOUT_MS;
	int64		left;
	bool		finished;

	if (!shared->has_thread)
	{
		destroy_handles(shared);
		free_shared(shared);
		return;
	}

	pthread_mutex_lock(&shared->lock);
	shared->stop = true;
	pthread_cond_signal(&shared->wake);
	while (!shared->finished &&
		   (left = deadline - kafka_monotonic_ms()) > 0)
		wait_ms(&shared->done, &shared->lock, left);
	finished = shared->finished;
	if (!finished)
	{
		shared->abandoned = true;
		pthread_detach(shared->thread);
	}
	pthread_mutex_unlock(&shared->lock);

	if (finished)
	{
		pthread_join(shared->thread, NULL);
		free_shared(shared);
	}
}

/*
 * Ask the helper for something, unless it is at that already.  PostgreSQL
 * thread.
 */
void
kafka_ask(KafkaClient *client, int kind, int partitions, int64 time_ms,
		  int timeout_ms)
{
	KafkaShared *shared = client->shared;
	KafkaJob   *job = &shared->jobs[kind];

	Assert(kind == KAFKA_REQUEST_METADATA ||
		   (partitions > 0 && shared->rkt != NULL));
	if (kind != KAFKA_REQUEST_TIME)
		time_ms = 0;

	pthread_mutex_lock(&shared->lock);
	if (!((job->wanted || job->busy) && job->partitions == partitions &&
		  job->time_ms == time_ms))
	{
		job->wanted = true;
		job->partitions = partitions;
		job->time_ms = time_ms;
		job->timeout_ms = timeout_ms;
		pthread_cond_signal(&shared->wake);
	}
	job->ready = false;
	pthread_mutex_unlock(&shared->lock);
}

/*
 * After each batch: does the queue look full?  PostgreSQL thread.
 *
 * librdkafka tells the queue's length but not its bytes, which are estimated
 * by the mean size of the messages just taken.
 */
void
kafka_note_fetch(KafkaClient *client, int taken)
{
	KafkaShared *shared = client->shared;
	int64		bytes;

	if (!shared->needs_nudge || taken == 0)
		return;
	bytes = (int64) (rd_kafka_queue_length(shared->queue) + taken) *
		client->average_bytes;
	if (bytes < client->queue_limit / 2)
		return;

	pthread_mutex_lock(&shared->lock);
	if (kafka_monotonic_ms() >= shared->nudge_until_ms)
		pthread_cond_signal(&shared->wake);
	shared->nudge_until_ms = kafka_monotonic_ms() + NUDGE_PERIOD_MS;
	pthread_mutex_unlock(&shared->lock);
}
