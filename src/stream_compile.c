/*-------------------------------------------------------------------------
 *
 * stream_compile.c
 *	  Parts of an aggregate stream -> its SQL texts.
 *
 * Every text is a WITH of the same few links; see the picture in stream.h:
 *
 *	 src	  the batch's rows of the segment
 *	 r		  row stage (stream_query.c); inlined, so that src, r and the
 *			  grouping above them are one scan and one hash aggregate
 *	 panes	  only where hopping windows share panes: states per pane
 *	 delta	  states per window and group
 *	 merged	  delta merged into the state table, with the merged states
 *	 f		  window, keys and final values of the aggregates
 *	 written  f's outputs upserted into the target
 *	 removed  target rows deleted because HAVING no longer holds
 *
 * Whether a row is late depends on its window only, so lateness is judged on
 * delta's groups, not row by row.  The end of a tumbling window follows from
 * its start, so rows are grouped by the start alone.  delta and panes are read
 * more than once or MATERIALIZED, so that no transition is optimized away.
 *
 * All data-modifying links see the snapshot of the statement; they do not
 * depend on each other's effects, only on each other's RETURNING.
 *
 * Texts name what is in pg_catalog without its schema: they are to be
 * analyzed under a search_path of pg_catalog alone (stream_execute.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "stream_compile.h"
#include "stream_internal.h"

/* Append "WITH " or ",\n". */
static void
add_link(StringInfo buf)
{
	appendStringInfoString(buf, buf->len == 0 ? "WITH " : ",\n");
}

void
stream_add_src(StringInfo buf, const CompileContext *c, bool without)
{
	List	   *columns = NIL;
	ListCell   *lc;
	int			attno = 0;

	foreach(lc, stream_parts(c->plan)->source_columns)
	{
		const char *name = lfirst(lc);

		attno++;
		columns = lappend(columns, name[0] != '\0' ? pstrdup(name) :
						  psprintf(SOURCE_RESERVED_PREFIX "dropped_%d",
								   attno));
	}
	add_link(buf);
	appendStringInfo(buf,
					 STREAM_SRC " AS NOT MATERIALIZED (\n"
					 "\tSELECT v.*\n"
					 "\tFROM %s AS v (%s, " SEGMENT_TID ")\n"
					 "\tWHERE v." SEGMENT_TID " >= $1 AND v." SEGMENT_TID " < $2\n"
					 "\t\tAND weir_internal.in_batch(v.kafka_partition, v.kafka_offset, $3, $4)%s)",
					 c->segment_view, stream_column_list(columns, ""),
					 without ? "\n\t\tAND weir_internal.in_part(v." SEGMENT_TID ", $1, $2, $6)" : "");
}

void
stream_add_row_stage(StringInfo buf, const CompileContext *c,
					 RowStageColumns columns)
{
	add_link(buf);
	appendStringInfo(buf, "r AS NOT MATERIALIZED (\n%s)",
					 stream_row_stage(c->plan, columns));
}

/*
 * Condition on windows: still open under watermark $5.  Its negation is
 * "late", except for windows that began before windows_from, which are
 * neither.
 */
static char *
window_open(const CompileContext *c, const char *prefix)
{
	char	   *open = psprintf("%swindow_end > %s", prefix, c->limit);

	if (c->windows_from != NULL)
		open = psprintf("%s AND %swindow_start >= %s", open, prefix,
						c->windows_from);
	return open;
}

static char *
window_late(const CompileContext *c, const char *prefix)
{
	char	   *late = psprintf("%swindow_end <= %s", prefix, c->limit);

	if (c->windows_from != NULL)
		late = psprintf("%s AND %swindow_start >= %s", late, prefix,
						c->windows_from);
	return late;
}

/* Group keys other than window columns, of char *. */
static List *
plain_keys(const CompileContext *c)
{
	List	   *columns = NIL;
	ListCell   *lc;

	foreach(lc, stream_parts(c->plan)->keys)
	{
		if (!((StreamKey *) lfirst(lc))->is_window)
			columns = lappend(columns, ((StreamKey *) lfirst(lc))->column);
	}
	return columns;
}

/*
 * A clause that checks that keys fit into an index, where they might not: of
 * a group in general, of each row in the probe, which is to find rows.
 */
static char *
key_check(const CompileContext *c, bool of_rows)
{
	List	   *wide = NIL;
	ListCell   *lc;

	foreach(lc, stream_parts(c->plan)->keys)
	{
		StreamKey  *key = lfirst(lc);

		if (!key->is_window && get_typlen(key->type) == -1)
			wide = lappend(wide, key->column);
	}
	if (wide == NIL)
		return "";
	return psprintf(of_rows ? " FILTER (WHERE weir_internal.key_fits(%s))" :
					"\n\tHAVING weir_internal.key_fits(%s)",
					stream_column_list(wide, ""));
}

static void
add_states(StringInfo buf, const CompileContext *c, bool combine)
{
	ListCell   *lc;

	foreach(lc, stream_parts(c->plan)->partials)
	{
		StreamPartial *partial = lfirst(lc);

		appendStringInfo(buf, ",\n\t\t%s AS %s",
						 combine ? partial->combine : partial->make,
						 partial->column);
	}
}

/* "a" and "b", either may be empty: "a, b". */
static char *
joined(const char *a, const char *b)
{
	return psprintf("%s%s%s", a, a[0] != '\0' && b[0] != '\0' ? ", " : "", b);
}

/* The columns that r is grouped by. */
static char *
row_groups(const CompileContext *c)
{
	const char *window = "";

	if (c->plan->kind == STREAM_WINDOW)
		window = c->plan->window_kind == WINDOW_HOP &&
			!stream_parts(c->plan)->panes ? "window_end, window_start" :
			"window_start";
	return joined(window, stream_column_list(plain_keys(c), ""));
}

/* src, r, panes and delta: the states of the batch. */
static void
add_delta(StringInfo buf, const CompileContext *c, bool without, bool probe)
{
	const StreamParts *parts = stream_parts(c->plan);
	char	   *groups = row_groups(c);

	stream_add_src(buf, c, without);
	stream_add_row_stage(buf, c, ROW_STAGE_GROUPS);
	add_link(buf);
	appendStringInfo(buf, "%s AS MATERIALIZED (\n\tSELECT ",
					 parts->panes ? "panes" : "delta");
	if (c->plan->window_kind == WINDOW_TUMBLE)
		appendStringInfo(buf,
						 "weir_internal.window_end(window_start%s) AS window_end,\n\t\t",
						 parts->window_args);
	appendStringInfoString(buf, groups);
	add_states(buf, c, false);
	appendStringInfo(buf, ",\n\t\tcount(*)%s AS n\n\tFROM r\n\tGROUP BY %s%s)",
					 probe ? key_check(c, true) : "",
					 groups, probe ? "" : key_check(c, false));
	if (!parts->panes || probe)
		return;

	groups = joined("w.window_end, w.window_start",
					stream_column_list(plain_keys(c), "p."));
	add_link(buf);
	appendStringInfo(buf, "delta AS MATERIALIZED (\n\tSELECT %s", groups);
	add_states(buf, c, true);
	appendStringInfo(buf,
					 ",\n\t\tsum(p.n) AS n\n"
					 "\tFROM panes p\n"
					 "\t\tCROSS JOIN LATERAL weir.hop(p.window_start%s) w\n"
					 "\tGROUP BY %s)", parts->window_args, groups);
}

static void
add_merged(StringInfo buf, const CompileContext *c, const char *returning)
{
	char	   *columns = stream_column_list(stream_state_columns(c->plan,
																  false), "");
	char	   *keys = stream_column_list(stream_state_columns(c->plan, true),
										  "");
	ListCell   *lc;

	add_link(buf);
	appendStringInfo(buf,
					 "merged AS (\n"
					 "\tINSERT INTO %s AS s (%s)\n"
					 "\tSELECT %s\n"
					 "\tFROM delta%s%s\n"
					 "\tORDER BY %s\n"
					 "\tON CONFLICT (%s) DO UPDATE SET",
					 c->state, columns, columns,
					 c->plan->kind == STREAM_WINDOW ? "\n\tWHERE " : "",
					 c->plan->kind == STREAM_WINDOW ? window_open(c, "") : "",
					 keys, keys);
	foreach(lc, stream_parts(c->plan)->partials)
	{
		StreamPartial *partial = lfirst(lc);

		appendStringInfo(buf, "%s\n\t\t%s = %s",
						 lc == list_head(stream_parts(c->plan)->partials) ?
						 "" : ",", partial->column, partial->merge);
	}
	appendStringInfo(buf, "\n\tRETURNING %s)", returning);
}

/* f: the final values of the states in a link or table. */
static void
add_final(StringInfo buf, const CompileContext *c, const char *states)
{
	ListCell   *lc;

	add_link(buf);
	appendStringInfo(buf, STREAM_FINAL " AS (\n\tSELECT %s",
					 joined(c->plan->kind == STREAM_WINDOW ?
							"window_start, window_end" : "",
							stream_column_list(plain_keys(c), "")));
	foreach(lc, stream_parts(c->plan)->aggregates)
	{
		StreamAggregate *aggregate = lfirst(lc);

		appendStringInfo(buf, ",\n\t\t%s AS %s", aggregate->final,
						 aggregate->column);
	}
	appendStringInfo(buf, "\n\tFROM %s)", states);
}

/* ON CONFLICT for the target's key, all other columns overwritten. */
char *
stream_on_conflict(const StreamPlan *plan)
{
	StringInfoData set;
	ListCell   *lc;

	if (plan->key_columns == NIL)
		return "";
	initStringInfo(&set);
	foreach(lc, plan->outputs)
	{
		const char *name = ((StreamOutput *) lfirst(lc))->name;
		bool		is_key = false;
		ListCell   *lk;

		foreach(lk, plan->key_columns)
			is_key |= strcmp(lfirst(lk), name) == 0;
		if (!is_key)
			appendStringInfo(&set, "%s\n\t\t%s = excluded.%s",
							 set.len > 0 ? "," : "", quote_identifier(name),
							 quote_identifier(name));
	}
	return psprintf("\n\tON CONFLICT (%s) DO %s%s",
					stream_column_list(plan->key_columns, ""),
					set.len > 0 ? "UPDATE SET" : "NOTHING", set.data);
}

/* Output names, of char *. */
List *
stream_output_names(const StreamPlan *plan)
{
	List	   *names = NIL;
	ListCell   *lc;

	foreach(lc, plan->outputs)
		names = lappend(names, ((StreamOutput *) lfirst(lc))->name);
	return names;
}

/* Positions of the key among the outputs: "1, 3". */
static char *
key_positions(const StreamPlan *plan)
{
	StringInfoData buf;
	int			n = 0;
	ListCell   *lc;
	ListCell   *lk;

	initStringInfo(&buf);
	foreach(lc, plan->outputs)
	{
		n++;
		foreach(lk, plan->key_columns)
		{
			if (strcmp(lfirst(lk), ((StreamOutput *) lfirst(lc))->name) == 0)
				appendStringInfo(&buf, "%s%d", buf.len > 0 ? ", " : "", n);
		}
	}
	return buf.data;
}

/*
 * written and, where there is a HAVING to fail, removed.  A single group is
 * not sorted: the planner would go through the state's index for its order.
 */
static void
add_written(StringInfo buf, const CompileContext *c, bool remove, bool sorted)
{
	const StreamParts *parts = stream_parts(c->plan);
	int			nkeys = 0;
	ListCell   *lc;

	add_link(buf);
	appendStringInfo(buf,
					 "written AS (\n"
					 "\tINSERT INTO %s AS t (%s)\n"
					 "%s%s%s\n"
					 "\tRETURNING 1)",
					 c->target,
					 stream_column_list(stream_output_names(c->plan), ""),
					 stream_query_text(parts->outputs),
					 sorted ? psprintf("\n\tORDER BY %s",
									   key_positions(c->plan)) : "",
					 stream_on_conflict(c->plan));
	if (parts->removed == NULL || !remove)
		return;

	add_link(buf);
	appendStringInfo(buf,
					 "removed AS (\n"
					 "\tDELETE FROM %s AS t\n"
					 "\tUSING (%s) o\n"
					 "\tWHERE ", c->target, stream_query_text(parts->removed));
	foreach(lc, parts->keys)
	{
		StreamKey  *key = lfirst(lc);
		const char *name;

		if (key->output == NULL)
			continue;
		name = quote_identifier(key->output->name);
		appendStringInfo(buf, "%s%s", nkeys++ == 0 ? "" : "\n\t\tAND ",
						 stream_equals(key->type, psprintf("t.%s", name),
									   psprintf("o.%s", name),
									   !key->is_window));
	}
	appendStringInfoString(buf, "\n\tRETURNING 1)");
}

/* The counts that a batch returns; see stream.h. */
static void
add_counts(StringInfo buf, const CompileContext *c, const char *groups,
		   bool rows, bool written, bool removed)
{
	const char *counted = stream_parts(c->plan)->panes ? "panes" : "delta";

	appendStringInfo(buf,
					 "\nSELECT %s AS rows,\n"
					 "\t(SELECT count(*) FROM %s) AS groups,\n"
					 "\t%s AS written,\n"
					 "\t%s AS deleted,\n",
					 rows ? psprintf("(SELECT coalesce(sum(n), 0)::bigint FROM %s)",
									 counted) : "0::bigint",
					 groups,
					 written ? "(SELECT count(*) FROM written)" : "0::bigint",
					 removed && stream_parts(c->plan)->removed != NULL ?
					 "(SELECT count(*) FROM removed)" : "0::bigint");
	if (rows && c->plan->kind == STREAM_WINDOW)
		appendStringInfo(buf,
						 "\t(SELECT coalesce(sum(n), 0)::bigint FROM delta WHERE %s) AS late",
						 window_late(c, ""));
	else
		appendStringInfoString(buf, "\t0::bigint AS late");
}

static char *
compile_apply(const CompileContext *c, bool without, bool state_only)
{
	StringInfoData buf;
	bool		emit = !state_only && !c->emit_on_close;

	initStringInfo(&buf);
	add_delta(&buf, c, without, false);
	add_merged(&buf, c, "s.*");
	if (emit)
	{
		add_final(&buf, c, "merged");
		add_written(&buf, c, true, true);
	}
	add_counts(&buf, c, "merged", true, emit, emit);
	return buf.data;
}

/*
 * The batch into state only; then where the groups are that it touched, each
 * with the counts.  (They are found by their place from there on: looking for
 * keys that may be NULL takes more than an index.)
 */
static char *
compile_merge_groups(const CompileContext *c)
{
	const char *counted = stream_parts(c->plan)->panes ? "panes" : "delta";
	StringInfoData buf;

	initStringInfo(&buf);
	add_delta(&buf, c, true, false);
	add_merged(&buf, c, "s.ctid AS place");
	appendStringInfo(&buf,
					 "\nSELECT m.place, c.rows, c.late\n"
					 "FROM (SELECT (SELECT coalesce(sum(n), 0)::bigint FROM %s) AS rows,\n"
					 "\t\t%s AS late) c\n"
					 "\tLEFT JOIN merged m ON true", counted,
					 c->plan->kind != STREAM_WINDOW ? "0::bigint" :
					 psprintf("(SELECT coalesce(sum(n), 0)::bigint FROM delta WHERE %s)",
							  window_late(c, "")));
	return buf.data;
}

/* What one group's statement tells. */
static void
add_counts_of_one(StringInfo buf, const CompileContext *c)
{
	appendStringInfo(buf,
					 "\nSELECT (SELECT count(*) FROM written) AS written,\n"
					 "\t%s AS deleted", stream_parts(c->plan)->removed != NULL &&
					 !c->emit_on_close ?
					 "(SELECT count(*) FROM removed)" : "0::bigint");
}

/* Emit one of them again, from state. */
static char *
compile_emit_one(const CompileContext *c)
{
	StringInfoData buf;

	initStringInfo(&buf);
	add_link(&buf);
	appendStringInfo(&buf,
					 "touched AS (\n"
					 "\tSELECT s.*\n"
					 "\tFROM %s s\n"
					 "\tWHERE s.ctid = $1)", c->state);
	add_final(&buf, c, "touched");
	add_written(&buf, c, true, false);
	add_counts_of_one(&buf, c);
	return buf.data;
}

static char *
compile_probe(const CompileContext *c)
{
	StringInfoData buf;

	initStringInfo(&buf);
	add_delta(&buf, c, true, true);
	appendStringInfo(&buf, "\nSELECT count(*) FROM %s",
					 stream_parts(c->plan)->panes ? "panes" : "delta");
	return buf.data;
}

static char *
compile_late(const CompileContext *c)
{
	StringInfoData buf;
	char	   *late = window_late(c, "r.");

	initStringInfo(&buf);
	stream_add_src(&buf, c, true);
	stream_add_row_stage(&buf, c, ROW_STAGE_LATE);
	add_link(&buf);
	appendStringInfo(&buf,
					 "late AS (\n"
					 "\tSELECT r.tid,\n"
					 "\t\tmin(r.window_start) FILTER (WHERE %s) AS window_start,\n"
					 "\t\tmax(r.window_end) FILTER (WHERE %s) AS window_end,\n"
					 "\t\tbool_or(%s) AS partly_applied\n"
					 "\tFROM r\n"
					 "\tGROUP BY r.tid\n"
					 "\tHAVING bool_or(%s))\n"
					 "SELECT src.kafka_partition, src.kafka_offset, src.kafka_timestamp,\n"
					 "\tsrc.kafka_key, late.window_start, late.window_end,\n"
					 "\tlate.partly_applied, %s AS staged_row\n"
					 "FROM late\n"
					 "\tJOIN src ON src." SEGMENT_TID " = late.tid\n"
					 "ORDER BY src.kafka_partition, src.kafka_offset",
					 late, late, window_open(c, "r."), late,
					 STREAM_STAGED_ROW("src"));
	return buf.data;
}

/* What is to be closed. */
static char *
close_condition(const CompileContext *c)
{
	return psprintf("s.window_end > $9 AND s.window_end <= %s", c->limit);
}

/*
 * Close windows: the state of their groups goes, and with emit the outputs
 * are written; with again the target rows of a stream that emits on change
 * are made right, for groups whose last emission failed.
 */
static char *
compile_close(const CompileContext *c, bool emit, bool again)
{
	StringInfoData buf;
	char	   *condition = close_condition(c);

	initStringInfo(&buf);
	appendStringInfo(&buf,
					 "WITH closed AS (\n"
					 "\tDELETE FROM %s AS s\n"
					 "\tWHERE %s%s)", c->state, condition,
					 emit ? "\n\tRETURNING s.*" : "");
	if (emit)
	{
		add_final(&buf, c, "closed");
		add_written(&buf, c, again, true);
	}

	/* without emission the groups are not gathered only to be counted */
	appendStringInfo(&buf,
					 "\nSELECT %s AS groups,\n"
					 "\t%s AS written,\n"
					 "\t(SELECT count(*) FROM (SELECT DISTINCT window_end, window_start FROM %s) w) AS windows",
					 emit ? "(SELECT count(*) FROM closed)" : "0::bigint",
					 emit ? "(SELECT count(*) FROM written)" : "0::bigint",
					 emit ? "closed" :
					 psprintf("%s AS s WHERE %s", c->state, condition));
	return buf.data;
}

/* The groups to be closed, window by window. */
static char *
compile_closing(const CompileContext *c)
{
	return psprintf("SELECT s.ctid AS place, s.window_end, s.window_start\n"
					"FROM %s AS s\n"
					"WHERE %s\n"
					"ORDER BY s.window_end, s.window_start",
					c->state, close_condition(c));
}

/* Close one of them, and write its target row, once more on change. */
static char *
compile_close_one(const CompileContext *c)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf,
					 "WITH closed AS (\n"
					 "\tDELETE FROM %s AS s\n"
					 "\tWHERE s.ctid = $1\n"
					 "\tRETURNING s.*)", c->state);
	add_final(&buf, c, "closed");
	add_written(&buf, c, !c->emit_on_close, false);
	add_counts_of_one(&buf, c);
	return buf.data;
}

/* The group's key by the names of its output columns. */
static char *
group_key_json(const CompileContext *c)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, stream_parts(c->plan)->keys)
	{
		StreamKey  *key = lfirst(lc);

		if (!key->is_window)
			appendStringInfo(&buf, "%s%s, s.%s", buf.len > 0 ? ", " : "",
							 quote_literal_cstr(key->output->name),
							 key->column);
	}
	return psprintf("jsonb_build_object(%s)", buf.data);
}

static char *
compile_discard_one(const CompileContext *c)
{
	return psprintf("DELETE FROM %s AS s\n"
					"WHERE s.ctid = $1\n"
					"RETURNING s.window_start, s.window_end,\n"
					"\t%s AS group_key",
					c->state, group_key_json(c));
}

/* When the window of target row t started. */
static char *
target_window_start(const CompileContext *c)
{
	const StreamParts *parts = stream_parts(c->plan);
	const char *start = NULL;
	const char *end = NULL;
	ListCell   *lc;

	foreach(lc, parts->keys)
	{
		StreamKey  *key = lfirst(lc);

		if (key->is_window && key->output != NULL)
		{
			if (strcmp(key->column, "window_start") == 0)
				start = quote_identifier(key->output->name);
			else
				end = quote_identifier(key->output->name);
		}
	}
	if (start != NULL)
		return psprintf("t.%s", start);
	if (c->plan->window_kind == WINDOW_TUMBLE)
		return psprintf("weir_internal.window_start(t.%s - '1 microsecond'::interval%s)",
						end, parts->window_args);
	return psprintf("t.%s - '%lld microseconds'::interval", end,
					(long long) c->plan->window_size);
}

/* Target rows of windows that start at or after $5. */
static char *
compile_clear_target(const CompileContext *c)
{
	if (c->plan->kind != STREAM_WINDOW)
		return psprintf("DELETE FROM %s", c->target);
	return psprintf("DELETE FROM %s AS t\nWHERE %s >= $5", c->target,
					target_window_start(c));
}

static char *
compile_clear_incomplete(const CompileContext *c)
{
	const char *floor =
	"timestamptz '2000-01-01 00:00:00+00' + $7 * '1 microsecond'::interval";

	return psprintf("WITH cleared AS (\n"
					"\tDELETE FROM %s AS s\n"
					"\tWHERE s.window_start < %s)\n"
					"DELETE FROM %s AS t\n"
					"WHERE %s >= $5\n"
					"\tAND %s < %s", c->state, floor, c->target,
					target_window_start(c), target_window_start(c), floor);
}

/* The event time of a staged row v. */
static char *
event_of_row(const CompileContext *c)
{
	const StreamParts *parts = stream_parts(c->plan);
	const char *name = quote_identifier(list_nth(parts->source_columns,
												 parts->event_time - 1));

	if (getBaseType(get_atttype(c->plan->source_relid,
								parts->event_time)) == TIMESTAMPTZOID)
		return psprintf("v.%s", name);
	return psprintf("v.%s::timestamp AT TIME ZONE 'UTC'", name);
}

static char *
compile_latest_events(const CompileContext *c)
{
	const char *event = event_of_row(c);

	return psprintf("SELECT v.kafka_partition, max(%s) AS latest_event\n"
					"FROM %s AS v\n"
					"WHERE v." SEGMENT_TID " >= $1 AND v." SEGMENT_TID " < $2\n"
					"\tAND weir_internal.in_batch(v.kafka_partition, v.kafka_offset, $3, $4)\n"
					"\tAND %s <= $5\n"
					"GROUP BY v.kafka_partition", event, c->segment_view,
					event);
}

static char *
compile_first_events(const CompileContext *c)
{
	const char *event = event_of_row(c);

	return psprintf("SELECT v.kafka_partition, min(%s) AS first_event,\n"
					"\tbool_or(coalesce(%s > v.kafka_timestamp, true)) AS ahead\n"
					"FROM %s AS v\n"
					"WHERE v." SEGMENT_TID " >= $1 AND v." SEGMENT_TID " < $2\n"
					"\tAND weir_internal.in_batch(v.kafka_partition, v.kafka_offset, $3, $4)\n"
					"GROUP BY v.kafka_partition", event, event,
					c->segment_view);
}

static void
compile_windows(const CompileContext *c, StreamStatements *st)
{
	st->first_events = compile_first_events(c);
	st->latest_events = compile_latest_events(c);
	st->clear_incomplete = compile_clear_incomplete(c);
	st->late = compile_late(c);
	st->close = compile_close(c, c->emit_on_close, false);
	if (!c->emit_on_close)
		st->close_again = compile_close(c, true, true);
	st->closing = compile_closing(c);
	st->close_one = compile_close_one(c);
	st->discard_one = compile_discard_one(c);
	st->open_windows =
		psprintf("SELECT min(window_end) AS oldest_window_end,\n"
				 "\tmin(window_start) AS oldest_window_start,\n"
				 "\tcount(*) AS windows, coalesce(sum(groups), 0)::bigint AS groups\n"
				 "FROM (SELECT window_end, window_start, count(*) AS groups\n"
				 "\tFROM %s GROUP BY window_end, window_start) w", c->state);
	st->oldest = psprintf("SELECT min(window_end) FROM %s WHERE window_end > %s",
						  c->state, c->limit);
	st->newest =
		psprintf("SELECT n.window_end AS newest,\n"
				 "\t(SELECT min(s.window_end) FROM %s s\n"
				 "\t\tWHERE s.window_end > coalesce(n.window_end, '-infinity')) AS beyond\n"
				 "FROM (SELECT max(window_end) AS window_end FROM %s\n"
				 "\tWHERE window_start <= $5) n", c->state, c->state);
}

/* The watermark, less the allowed lateness. */
static char *
lateness_limit(int64 lateness)
{
	if (lateness == 0)
		return pstrdup("$5");
	if (lateness % USECS_PER_SEC == 0)
		return psprintf("$5 - '%lld seconds'::interval",
						(long long) (lateness / USECS_PER_SEC));
	return psprintf("$5 - '%lld microseconds'::interval",
					(long long) lateness);
}

/* A literal that is the same in every session. */
static char *
timestamp_literal(TimestampTz t)
{
	int			nest_level = stream_enter_deparse();
	char	   *text = psprintf("'%s'::timestamp with time zone",
								timestamptz_to_str(t));

	stream_leave_deparse(nest_level);
	return text;
}

StreamStatements *
stream_compile(const StreamPlan *plan, const StreamOptions *options,
			   const char *segment_view, const char *state,
			   const char *target)
{
	StreamStatements *st = palloc0(sizeof(StreamStatements));
	CompileContext context = {0};

	context.plan = plan;
	context.segment_view = segment_view;
	context.state = state;
	context.target = target;
	context.emit_on_close = options->emit_on_close;
	context.limit = lateness_limit(options->allowed_lateness);
	if (options->has_windows_from)
		context.windows_from = timestamp_literal(options->windows_from);

	st->count = psprintf("SELECT count(*) FROM %s AS v\n"
						 "WHERE v." SEGMENT_TID " >= $1 AND v." SEGMENT_TID " < $2\n"
						 "\tAND weir_internal.in_batch(v.kafka_partition, v.kafka_offset, $3, $4)",
						 segment_view);
	st->culprits = stream_culprits_text(&context);
	if (plan->kind == STREAM_ROW)
	{
		stream_compile_rows(&context, st);
		return st;
	}

	st->apply = compile_apply(&context, false, false);
	st->apply_without = compile_apply(&context, true, false);
	st->merge_state = compile_apply(&context, true, true);
	if (!context.emit_on_close)
	{
		st->merge_groups = compile_merge_groups(&context);
		st->emit_one = compile_emit_one(&context);
	}
	st->probe = compile_probe(&context);
	if (plan->kind == STREAM_WINDOW)
		compile_windows(&context, st);
	st->clear_state = psprintf("DELETE FROM %s", state);
	st->clear_target = compile_clear_target(&context);
	return st;
}
