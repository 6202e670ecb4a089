/*-------------------------------------------------------------------------
 *
 * stream_compile_rows.c
 *	  Parts of a row stream -> its SQL texts.
 *
 * Without a key, rows are inserted as they come out of the row stage, in the
 * order in which they were staged.
 *
 * With options.key the target has one row a key: the last one, in an order
 * that does not depend on how partitions happen to interleave.  In a partition
 * the last row of a key is the one with the greatest offset.  Between
 * partitions the one wins whose greatest kafka_timestamp for the key is the
 * latest, then the greater partition.  (Where timestamps grow with offsets,
 * that is the timestamp of the last row itself.)  Hence:
 *
 *	 K1	 what wins is a function of the set of rows applied, not of batches:
 *		 both comparisons are of maxima over that set
 *	 K2	 when rows of partition p arrive, the winner stays or becomes p, since
 *		 p's greatest timestamp only grows.  So only the winner's partition and
 *		 timestamp need to be kept, and the row to write is in the batch
 *
 * The state table holds those, a row a key.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "stream_compile.h"

char *
stream_culprits_text(const CompileContext *c)
{
	return psprintf("SELECT v.kafka_partition, v.kafka_offset, v.kafka_timestamp,\n"
					"\tv.kafka_key, %s AS staged_row, v." SEGMENT_TID " AS tid\n"
					"FROM %s AS v\n"
					"WHERE v." SEGMENT_TID " = ANY ($6)\n"
					"ORDER BY v.kafka_partition, v.kafka_offset",
					STREAM_STAGED_ROW("v"), c->segment_view);
}

static StreamOutput *
key_output(const StreamPlan *plan, const char *name)
{
	ListCell   *lc;

	foreach(lc, plan->outputs)
	{
		if (strcmp(((StreamOutput *) lfirst(lc))->name, name) == 0)
			return lfirst(lc);
	}
	elog(ERROR, "no output column \"%s\"", name);
	return NULL;
}

/*
 * Names that the outputs have between the row stage and the target: o1, o2
 * ..., or those of the key among them, in the key's order.  The user's own
 * could be any, those of the columns that are added to them as well.
 */
static List *
output_places(const StreamPlan *plan, bool key_only)
{
	List	   *places = NIL;
	ListCell   *lc;
	int			n = 0;

	if (!key_only)
	{
		foreach(lc, plan->outputs)
			places = lappend(places, psprintf("o%d", ++n));
		return places;
	}
	foreach(lc, plan->key_columns)
	{
		ListCell   *lo;

		n = 0;
		foreach(lo, plan->outputs)
		{
			n++;
			if (strcmp(((StreamOutput *) lfirst(lo))->name, lfirst(lc)) == 0)
				places = lappend(places, psprintf("o%d", n));
		}
	}
	Assert(list_length(places) == list_length(plan->key_columns));
	return places;
}

/* "$1, $3": parameters in the place of output_places(). */
static char *
parameters(const StreamPlan *plan, bool key_only)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, output_places(plan, key_only))
		appendStringInfo(&buf, "%s$%s", buf.len > 0 ? ", " : "",
						 (char *) lfirst(lc) + 1);
	return buf.data;
}

/* src and r, with the place of each row. */
static void
add_placed_rows(StringInfo buf, const CompileContext *c, bool without)
{
	stream_add_src(buf, c, without);
	appendStringInfo(buf,
					 ",\n"
					 "r (%s, r_tid, r_partition, r_timestamp) AS NOT MATERIALIZED (\n"
					 "%s)",
					 stream_column_list(output_places(c->plan, false), ""),
					 stream_row_stage(c->plan, ROW_STAGE_PLACED_ROWS));
}

/*
 * In the order of staging, in which a partition's offsets grow: what unique
 * indexes, sequences and triggers make of rows depends on it.
 */
static char *
compile_insert(const CompileContext *c, bool without)
{
	StringInfoData buf;

	initStringInfo(&buf);
	add_placed_rows(&buf, c, without);
	appendStringInfo(&buf,
					 ",\n"
					 "written AS (\n"
					 "\tINSERT INTO %s AS t (%s)\n"
					 "\tSELECT %s\n"
					 "\tFROM r\n"
					 "\tORDER BY r_tid\n"
					 "\tRETURNING 1)\n"
					 "SELECT count(*) AS rows, 0::bigint AS groups, count(*) AS written,\n"
					 "\t0::bigint AS deleted, 0::bigint AS late\n"
					 "FROM written", c->target,
					 stream_column_list(stream_output_names(c->plan), ""),
					 stream_column_list(output_places(c->plan, false), ""));
	return buf.data;
}

/* What comes out of the row stage, in the same order. */
static char *
compile_placed_rows(const CompileContext *c)
{
	StringInfoData buf;

	initStringInfo(&buf);
	add_placed_rows(&buf, c, true);
	appendStringInfo(&buf,
					 "\n"
					 "SELECT r_tid, %s, r_partition,\n"
					 "\tcoalesce(r_timestamp, '-infinity') AS r_timestamp\n"
					 "FROM r\n"
					 "ORDER BY r_tid",
					 stream_column_list(output_places(c->plan, false), ""));
	return buf.data;
}

/* One of them: its columns but the first are the parameters. */
static char *
compile_insert_one(const CompileContext *c)
{
	return psprintf("WITH written AS (\n"
					"\tINSERT INTO %s AS t (%s)\n"
					"\tVALUES (%s)\n"
					"\tRETURNING 1)\n"
					"SELECT count(*) AS written, 0::bigint AS deleted\n"
					"FROM written", c->target,
					stream_column_list(stream_output_names(c->plan), ""),
					parameters(c->plan, false));
}

/* As a batch of this one row would do it (K1). */
static char *
compile_upsert_one(const CompileContext *c)
{
	char	   *state_keys = stream_column_list(stream_state_columns(c->plan, true),
												"");
	int			n = list_length(c->plan->outputs);

	return psprintf("WITH merged AS (\n"
					"\tINSERT INTO %s AS s (%s, kafka_partition, kafka_timestamp)\n"
					"\tVALUES (%s, $%d, $%d)\n"
					"\tON CONFLICT (%s) DO UPDATE SET\n"
					"\t\tkafka_partition = excluded.kafka_partition,\n"
					"\t\tkafka_timestamp = CASE WHEN s.kafka_partition = excluded.kafka_partition\n"
					"\t\t\tTHEN greatest(s.kafka_timestamp, excluded.kafka_timestamp)\n"
					"\t\t\tELSE excluded.kafka_timestamp END\n"
					"\tWHERE s.kafka_partition = excluded.kafka_partition\n"
					"\t\tOR (excluded.kafka_timestamp, excluded.kafka_partition) > (s.kafka_timestamp, s.kafka_partition)\n"
					"\tRETURNING 1),\n"
					"written AS (\n"
					"\tINSERT INTO %s AS t (%s)\n"
					"\tSELECT %s\n"
					"\tFROM merged%s\n"
					"\tRETURNING 1)\n"
					"SELECT count(*) AS written, 0::bigint AS deleted\n"
					"FROM written",
					c->state, state_keys, parameters(c->plan, true), n + 1,
					n + 2, state_keys, c->target,
					stream_column_list(stream_output_names(c->plan), ""),
					parameters(c->plan, false), stream_on_conflict(c->plan));
}

/* s.k1 = l.<key> AND ..., NULLs equal. */
static char *
state_join(const CompileContext *c)
{
	StringInfoData buf;
	List	   *places = output_places(c->plan, true);
	int			n = 0;
	ListCell   *lc;
	ListCell   *lp;

	initStringInfo(&buf);
	forboth(lc, c->plan->key_columns, lp, places)
	{
		n++;
		appendStringInfo(&buf, "%s%s", n > 1 ? " AND " : "",
						 stream_equals(key_output(c->plan, lfirst(lc))->type,
									   psprintf("s.k%d", n),
									   psprintf("l.%s", (char *) lfirst(lp)),
									   true));
	}
	return buf.data;
}

static void
add_winners(StringInfo buf, const CompileContext *c, bool without)
{
	List	   *key_places = output_places(c->plan, true);
	List	   *places = output_places(c->plan, false);
	char	   *keys = stream_column_list(key_places, "");
	char	   *last_keys = stream_column_list(key_places, "l.");
	char	   *outputs = stream_column_list(places, "");
	char	   *last_outputs = stream_column_list(places, "l.");

	stream_add_src(buf, c, without);
	appendStringInfo(buf,
					 ",\n"
					 "r (%s, r_partition, r_offset, r_timestamp) AS NOT MATERIALIZED (\n"
					 "%s),\n",
					 outputs, stream_row_stage(c->plan, ROW_STAGE_KEYED_ROWS));
	appendStringInfo(buf,
					 "ranked AS MATERIALIZED (\n"
					 "\tSELECT %s, r_partition,\n"
					 "\t\tmax(coalesce(r_timestamp, '-infinity')) OVER p AS r_timestamp,\n"
					 "\t\trow_number() OVER (PARTITION BY %s, r_partition ORDER BY r_offset DESC) AS r_place\n"
					 "\tFROM r\n"
					 "\tWINDOW p AS (PARTITION BY %s, r_partition)),\n",
					 outputs, keys, keys);
	appendStringInfo(buf,
					 "last AS (\n"
					 "\tSELECT DISTINCT ON (%s) %s, l.r_partition, e.r_timestamp,\n"
					 "\t\ts.kafka_partition AS s_partition, s.kafka_timestamp AS s_timestamp\n"
					 "\tFROM ranked l\n"
					 "\t\tLEFT JOIN %s s ON %s\n"
					 "\t\tCROSS JOIN LATERAL (SELECT CASE WHEN s.kafka_partition = l.r_partition\n"
					 "\t\t\tTHEN greatest(l.r_timestamp, s.kafka_timestamp)\n"
					 "\t\t\tELSE l.r_timestamp END AS r_timestamp) e\n"
					 "\tWHERE l.r_place = 1\n"
					 "\tORDER BY %s, e.r_timestamp DESC, l.r_partition DESC),\n",
					 last_keys, last_outputs, c->state, state_join(c),
					 last_keys);
	appendStringInfoString(buf,
						   "winner AS MATERIALIZED (\n"
						   "\tSELECT *\n"
						   "\tFROM last l\n"
						   "\tWHERE l.s_partition IS NULL OR l.s_partition = l.r_partition\n"
						   "\t\tOR (l.r_timestamp, l.r_partition) > (l.s_timestamp, l.s_partition))");
}

static char *
compile_upsert(const CompileContext *c, bool without)
{
	StringInfoData buf;
	char	   *state_keys = stream_column_list(stream_state_columns(c->plan, true),
												"");
	char	   *keys = stream_column_list(output_places(c->plan, true), "");
	char	   *outputs = stream_column_list(output_places(c->plan, false), "");
	char	   *columns = stream_column_list(stream_output_names(c->plan), "");

	initStringInfo(&buf);
	add_winners(&buf, c, without);
	appendStringInfo(&buf,
					 ",\n"
					 "merged AS (\n"
					 "\tINSERT INTO %s AS s (%s, kafka_timestamp, kafka_partition)\n"
					 "\tSELECT %s, r_timestamp, r_partition\n"
					 "\tFROM winner\n"
					 "\tORDER BY %s\n"
					 "\tON CONFLICT (%s) DO UPDATE SET\n"
					 "\t\tkafka_timestamp = excluded.kafka_timestamp,\n"
					 "\t\tkafka_partition = excluded.kafka_partition\n"
					 "\tRETURNING 1),\n",
					 c->state, state_keys, keys, keys, state_keys);
	appendStringInfo(&buf,
					 "written AS (\n"
					 "\tINSERT INTO %s AS t (%s)\n"
					 "\tSELECT %s\n"
					 "\tFROM winner\n"
					 "\tORDER BY %s%s\n"
					 "\tRETURNING 1)\n",
					 c->target, columns, outputs, keys,
					 stream_on_conflict(c->plan));
	appendStringInfoString(&buf,
						   "SELECT (SELECT count(*) FROM ranked) AS rows,\n"
						   "\t(SELECT count(*) FROM merged) AS groups,\n"
						   "\t(SELECT count(*) FROM written) AS written,\n"
						   "\t0::bigint AS deleted, 0::bigint AS late");
	return buf.data;
}

static char *
compile_probe(const CompileContext *c)
{
	StringInfoData buf;

	initStringInfo(&buf);
	stream_add_src(&buf, c, true);
	appendStringInfo(&buf, ",\nr AS MATERIALIZED (\n%s)\nSELECT count(*)",
					 stream_row_stage(c->plan, ROW_STAGE_ROWS));
	if (c->plan->key_columns != NIL)
		appendStringInfo(&buf, " FILTER (WHERE weir_internal.key_fits(%s))",
						 stream_column_list(c->plan->key_columns, ""));
	appendStringInfoString(&buf, "\nFROM r");
	return buf.data;
}

void
stream_compile_rows(const CompileContext *c, StreamStatements *st)
{
	if (c->plan->key_columns == NIL)
	{
		st->apply = compile_insert(c, false);
		st->apply_without = compile_insert(c, true);
		st->one_row = compile_insert_one(c);
		st->clear_target = psprintf("TRUNCATE %s", c->target);
	}
	else
	{
		st->apply = compile_upsert(c, false);
		st->apply_without = compile_upsert(c, true);
		st->one_row = compile_upsert_one(c);
		st->clear_state = psprintf("DELETE FROM %s", c->state);
	}
	st->placed_rows = compile_placed_rows(c);
	st->probe = compile_probe(c);
}
