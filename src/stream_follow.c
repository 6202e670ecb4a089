/*-------------------------------------------------------------------------
 *
 * stream_follow.c
 *	  A stream's worker follows what is done to the tables of its stream.
 *
 * PostgreSQL sends every session an invalidation when a relation has changed.
 * The worker counts those of the relations that its stream has to do with:
 * target and partitions, state, and what the query reads, through views as
 * well.  When the count has moved, the tables are looked at before the next
 * batch: names are read anew, the query is analyzed again, and the rules of
 * stream_check.c are asked.  So a renamed target is followed, and one that
 * creation would have refused fails the stream with the reason, before
 * anything is written.
 *
 * A change that commits while a batch runs, before its statements have locked
 * the tables, is seen at the end of the batch, which then is not committed
 * unless all is well.  After that the locks keep changes out.
 *
 * While the tables are looked at, each invalidation counts, since the list of
 * relations is not known yet.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "rewrite/rewriteHandler.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "stream_batch.h"
#include "stream_execute.h"

/* So many changes while looking are no coincidence. */
#define MAX_LOOKS 10

static uint64 changes = 1;		/* counted by the callbacks */
static bool watch_all = true;
static Oid *watched = NULL;		/* sorted, in TopMemoryContext */
static int	nwatched = 0;

static int
compare_oids(const void *a, const void *b)
{
	Oid			left = *(const Oid *) a;
	Oid			right = *(const Oid *) b;

	return left < right ? -1 : left > right;
}

static void
relation_changed(Datum arg, Oid relid)
{
	if (watch_all || !OidIsValid(relid) ||
		bsearch(&relid, watched, nwatched, sizeof(Oid), compare_oids))
		changes++;
}

/* Names of schemas, and roles, whom row security depends on. */
static void
other_changed(Datum arg, int cache_id, uint32 hash)
{
	changes++;
}

void
follow_begin(StreamWorker *w)
{
	w->followed_from = changes;
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, other_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, other_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMMEMROLE, other_changed, (Datum) 0);
}

bool
follow_stale(const StreamWorker *w)
{
	return w->followed != changes;
}

/*
 * After an error, not in a transaction: has anything changed since the last
 * look began, so that another try may end otherwise?  Says so once for each
 * change.
 */
bool
follow_moved(StreamWorker *w)
{
	bool		moved;

	StartTransactionCommand();
	AcceptInvalidationMessages();
	CommitTransactionCommand();
	moved = w->followed_from != changes;
	w->followed_from = changes;
	return moved;
}

/*
 * What to watch
 */

/* Relations that a query reads, those behind views included. */
static bool
relations_walker(Node *node, List **relids)
{
	ListCell   *lc;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, relations_walker, relids);
	foreach(lc, ((Query *) node)->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind != RTE_RELATION ||
			list_member_oid(*relids, rte->relid))
			continue;
		*relids = lappend_oid(*relids, rte->relid);
		if (get_rel_relkind(rte->relid) == RELKIND_VIEW)
		{
			Relation	view = table_open(rte->relid, AccessShareLock);

			relations_walker((Node *) get_view_query(view), relids);
			table_close(view, NoLock);
		}
	}
	return query_tree_walker((Query *) node, relations_walker, relids, 0);
}

static void
watch(const StreamWorker *w, const StreamPlan *plan)
{
	List	   *relids = find_all_inheritors(w->def->target, AccessShareLock,
											 NULL);
	ListCell   *lc;
	int			n = 0;

	if (OidIsValid(w->def->state))
		relids = lappend_oid(relids, w->def->state);
	relations_walker((Node *) plan->query, &relids);
	nwatched = 0;
	if (watched)
		pfree(watched);
	watched = NULL;
	watched = MemoryContextAlloc(TopMemoryContext,
								 sizeof(Oid) * list_length(relids));
	foreach(lc, relids)
		watched[n++] = lfirst_oid(lc);
	nwatched = n;
	qsort(watched, n, sizeof(Oid), compare_oids);
}

/*
 * Looking
 */

/* The name that a relation has now; true when it is another one. */
static bool
read_name(StreamWorker *w, Oid relid, char **name)
{
	char	   *now;

	if (!OidIsValid(relid))
		return false;
	now = rights_qualified_name(relid);
	if (*name && strcmp(*name, now) == 0)
		return false;
	if (*name)
		pfree(*name);
	*name = MemoryContextStrdup(w->cxt, now);
	return true;
}

/* All that the compiled statements depend on. */
static char *
plan_signature(const StreamPlan *plan)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	appendStringInfoString(&buf, stream_deparse(plan));
	foreach(lc, stream_state_ddl(plan, "s", 100))
		appendStringInfo(&buf, ";%s", (char *) lfirst(lc));
	foreach(lc, stream_target_ddl(plan, "t", 100))
		appendStringInfo(&buf, ";%s", (char *) lfirst(lc));
	return buf.data;
}

/*
 * An output column that is of another type since something the query reads
 * was altered: what is in state and target was computed otherwise.
 */
static void
check_types(const StreamWorker *w, const StreamPlan *plan)
{
	ListCell   *before;
	ListCell   *now;

	forboth(before, w->plan->outputs, now, plan->outputs)
	{
		StreamOutput *a = lfirst(before);
		StreamOutput *b = lfirst(now);

		if (a->type != b->type)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" of the query of stream \"%s\" was of type %s and is of type %s now",
							a->name, w->def->name, format_type_be(a->type),
							format_type_be(b->type)),
					 errdetail("Something that the query reads has been altered; what has been computed is of the old type."),
					 errhint("weir.resume() goes on from here; drop the stream and create it again to compute all of it anew.")));
	}
}

/*
 * The plan of the stream as it is read now, after target and state have been
 * checked: what is wrong with them says more than what the statements made
 * for them run into.
 */
StreamPlan *
follow_read(const StreamDef *def, StreamOptions *options)
{
	StreamPlan *plan;
	UserContext user;
	int			nest_level;

	options->emit_on_close = def->emit_on_close;
	options->allowed_lateness = def->allowed_lateness;
	options->key = def->option_key;
	catalog_enter_user(&user, def->owner, &def->settings);
	nest_level = catalog_enter_neutral();
	plan = stream_analyze(def->query, options);
	stream_check_target(plan, def->target);
	if (OidIsValid(def->state))
		stream_check_state(plan, def->state);
	catalog_leave_neutral(nest_level);
	catalog_leave_user(&user);
	return stream_read_stored(def, options);
}

/* False: the statements are not right any more. */
static bool
look(StreamWorker *w)
{
	StreamOptions options = {0};
	StreamPlan *plan;
	char	   *signature;
	bool		in_order = w->in_order;
	bool		renamed;

	renamed = read_name(w, w->def->target, &w->target_name);
	renamed |= read_name(w, w->def->state, &w->state_name);
	plan = follow_read(w->def, &options);
	watch(w, plan);
	check_types(w, plan);
	statement_watch_rows(stream_target_may_skip(w->def->target));
	signature = plan_signature(plan);
	if (w->signature == NULL)
		w->signature = MemoryContextStrdup(w->cxt, signature);
	else if (strcmp(signature, w->signature) != 0)
	{
		ereport(LOG,
				(errmsg("stream \"%s\" starts anew: types or names in its query have changed",
						w->def->name)));
		proc_exit(0);
	}
	if (renamed)
		step_forget(w);
	w->in_order = stream_in_order(plan, w->def->target);
	return !renamed && w->in_order == in_order;
}

/*
 * Which row a trigger skips shows when it does, so this is no rule of
 * creation.  The row is not in the result, and nobody would know.
 */
static void
refuse_skipped_rows(const StreamWorker *w)
{
	if (!statement_rows_skipped())
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("a trigger of target %s skips rows of stream \"%s\"",
					w->target_name, w->def->name),
			 errdetail("A BEFORE trigger that returns NULL takes rows out of the result."),
			 errhint("Filter in the query, or raise an exception for a row that is to become a dead letter.")));
}

/*
 * Look at the tables if any has changed, in a transaction with a snapshot.
 * Raises the reason when the stream cannot go on.  written: statements have
 * been run, by the names known until now.
 */
void
follow_check(StreamWorker *w, bool written)
{
	if (written)
		refuse_skipped_rows(w);
	else
		(void) statement_rows_skipped();
	AcceptInvalidationMessages();
	for (int i = 0; follow_stale(w); i++)
	{
		uint64		from = changes;
		bool		same;

		w->followed_from = from;
		watch_all = true;
		same = look(w);
		if (i == MAX_LOOKS || (written && !same))
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("tables of stream \"%s\" have changed during a batch",
							w->def->name)));
		watch_all = false;
		w->followed = from;
	}
}
