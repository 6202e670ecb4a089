/*-------------------------------------------------------------------------
 *
 * ingest_decode_plan.c
 *	  Compile a source for decoding: columns, paths, types, expressions.
 *
 * The user's expressions (filter, DEFAULT, generated columns, CHECK) are
 * written over the foreign table; they run over a slot of a segment.  So
 * their variables are renumbered, and kafka_topic, which no segment stores,
 * becomes a constant.
 *
 * They are standalone expressions, which are never compiled by JIT.
 *
 * Columns are put in the order of decoding (ingest_decode.c): what
 * the filter needs, what the event time needs, the rest.  A generated event
 * time needs the columns of its expression.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "ingest_decode.h"
#include "ingest_decode_path.h"
#include "source_filter.h"
#include "ingest_follow.h"

/* Offsets of the Kafka columns from the first of them in the table. */
enum
{
	KAFKA_TOPIC,
	KAFKA_PARTITION,
	KAFKA_OFFSET,
	KAFKA_TIMESTAMP,
	KAFKA_KEY,
	KAFKA_HEADERS
};

/* What is known while a source is being compiled. */
typedef struct Compilation
{
	Decoder    *decoder;
	Relation	relation;
	AttrNumber	first_kafka;	/* attribute of the foreign table */
	AttrNumber *segment_attr;	/* by foreign attribute - 1; 0: none */
	Bitmapset  *used;			/* foreign attributes in the expression at
								 * hand */
} Compilation;

static void
free_reader(void *reader)
{
	doc_reader_free(reader);
}

static void
out_of_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory")));
}

/*
 * Renumber the variables of an expression to the segment's, and remember
 * them in state->used.
 */
static Node *
renumber_mutator(Node *node, Compilation *state)
{
	Var		   *var;
	AttrNumber	kafka;

	if (node == NULL)
		return NULL;
	if (!IsA(node, Var))
		return expression_tree_mutator(node, renumber_mutator, state);
	var = copyObject((Var *) node);
	if (var->varattno <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("expressions of source \"%s\" cannot use whole rows or system columns",
						RelationGetRelationName(state->relation))));
	state->used = bms_add_member(state->used, var->varattno);
	kafka = var->varattno - state->first_kafka;
	if (kafka == KAFKA_TOPIC)
		return (Node *) makeConst(TEXTOID, -1, var->varcollid, -1,
								  CStringGetTextDatum(state->decoder->topic),
								  false, false);
	if (kafka == KAFKA_KEY)
		state->decoder->fill_key = true;
	if (kafka == KAFKA_HEADERS)
		state->decoder->fill_headers = true;
	var->varattno = state->segment_attr[var->varattno - 1];
	Assert(var->varattno > 0);
	return (Node *) var;
}

/* Plan an expression over the foreign table for the segment's slots. */
static Expr *
plan_expression(Compilation *state, Node *expression)
{
	bms_free(state->used);
	state->used = NULL;
	return follow_plan((Expr *) renumber_mutator(expression, state));
}

/*
 * Where the foreign table's columns stand in a segment.
 */
static void
map_attributes(Compilation *state)
{
	TupleDesc	desc = RelationGetDescr(state->relation);
	Decoder    *decoder = state->decoder;
	int			live = 0;
	int			seen = 0;

	for (int i = 0; i < desc->natts; i++)
		live += !TupleDescAttr(desc, i)->attisdropped;
	decoder->ncolumns = live - SOURCE_KAFKA_ATTRS;
	if (decoder->ncolumns < 0 ||
		decoder->segment_desc->natts !=
		SEGMENT_FIXED_ATTRS + decoder->ncolumns + 2)
		elog(ERROR, "segment does not match source \"%s\"",
			 RelationGetRelationName(state->relation));
	state->segment_attr = palloc0(desc->natts * sizeof(AttrNumber));
	for (int i = 0; i < desc->natts; i++)
	{
		if (TupleDescAttr(desc, i)->attisdropped)
			continue;
		if (seen < decoder->ncolumns)
			state->segment_attr[i] = SEGMENT_FIXED_ATTRS + seen + 1;
		else
		{
			int			kafka = seen - decoder->ncolumns;
			static const AttrNumber fixed[] = {
				[KAFKA_TOPIC] = 0,
				[KAFKA_PARTITION] = SEGMENT_ATTR_PARTITION,
				[KAFKA_OFFSET] = SEGMENT_ATTR_OFFSET,
				[KAFKA_TIMESTAMP] = SEGMENT_ATTR_TIMESTAMP
			};

			if (kafka == KAFKA_TOPIC)
				state->first_kafka = i + 1;
			state->segment_attr[i] = kafka < KAFKA_KEY ? fixed[kafka] :
				SEGMENT_FIXED_ATTRS + decoder->ncolumns +
				(kafka - KAFKA_KEY) + 1;
		}
		seen++;
	}
	decoder->key_segment = SEGMENT_FIXED_ATTRS + decoder->ncolumns;
	decoder->headers_segment = decoder->key_segment + 1;
}

static void
compile_column(Compilation *state, ColumnPlan *column, AttrNumber attnum)
{
	Form_pg_attribute attribute =
	TupleDescAttr(RelationGetDescr(state->relation), attnum - 1);
	Node	   *expression;

	column->attnum = attnum;
	column->segment = state->segment_attr[attnum - 1] - 1;
	column->name = pstrdup(NameStr(attribute->attname));
	column->not_null = attribute->attnotnull;
	column->capture = -1;
	if (!attribute->attgenerated)
	{
		EpochUnit	epoch;
		int			nsteps;
		DocStep    *steps = column_path(RelationGetRelid(state->relation),
										attnum, column->name, &nsteps,
										&epoch);

		column->capture = doc_reader_add_path(state->decoder->reader, steps,
											  nsteps);
		if (column->capture < 0)
			out_of_memory();
		column->type = value_type_compile(attribute->atttypid,
										  attribute->atttypmod, epoch);
	}
	expression = build_column_default(state->relation, attnum);
	if (expression != NULL)
	{
		Expr	   *planned = plan_expression(state, expression);

		if (IsA(planned, Const) && !attribute->attgenerated)
		{
			Const	   *constant = (Const *) planned;

			column->is_constant = true;
			column->constant = constant->constvalue;
			column->constant_isnull = constant->constisnull;
		}
		else
		{
			column->expression = ExecInitExpr(planned, NULL);
			state->decoder->may_throw = true;
		}
	}
}

/* Add the columns of a set that are not yet there, in the table's order. */
static int
take_columns(Compilation *state, ColumnPlan *columns, int n, Bitmapset *set,
			 Bitmapset **taken)
{
	int			attnum = -1;

	while ((attnum = bms_next_member(set, attnum)) >= 0)
	{
		if (attnum >= state->first_kafka || bms_is_member(attnum, *taken))
			continue;
		*taken = bms_add_member(*taken, attnum);
		compile_column(state, &columns[n++], attnum);
	}
	return n;
}

/* Compile the columns, in the order of decoding. */
static void
compile_columns(Compilation *state, const SourceDef *source,
				Bitmapset *filter_columns)
{
	Decoder    *decoder = state->decoder;
	TupleDesc	desc = RelationGetDescr(state->relation);
	Form_pg_attribute event = TupleDescAttr(desc, source->event_time - 1);
	Bitmapset  *event_columns = NULL;
	Bitmapset  *generated = NULL;
	Bitmapset  *rest = NULL;
	Bitmapset  *taken = NULL;
	ColumnPlan *columns = palloc0(Max(decoder->ncolumns, 1) *
								  sizeof(ColumnPlan));

	for (AttrNumber i = 1; i < state->first_kafka; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i - 1);

		if (attribute->attisdropped)
			continue;
		if (attribute->attgenerated)
			generated = bms_add_member(generated, i);
		else
			rest = bms_add_member(rest, i);
	}
	if (bms_overlap(filter_columns, generated))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a filter cannot use generated columns")));
	if (event->attgenerated)
	{
		(void) plan_expression(state,
							   build_column_default(state->relation,
													source->event_time));
		event_columns = bms_copy(state->used);
	}
	else
		event_columns = bms_make_singleton(source->event_time);

	decoder->columns = columns;
	decoder->nfilter = take_columns(state, columns, 0, filter_columns,
									&taken);
	decoder->nevent = take_columns(state, columns, decoder->nfilter,
								   event_columns, &taken);
	decoder->ndecoded = take_columns(state, columns, decoder->nevent, rest,
									 &taken);
	decoder->nmissing = decoder->ndecoded;
	take_columns(state, columns, decoder->ndecoded, generated, &taken);
	for (int i = decoder->ndecoded; i < decoder->ncolumns; i++)
		if (columns[i].attnum == source->event_time)
			decoder->event_column = &columns[i];

	decoder->event_segment = state->segment_attr[source->event_time - 1] - 1;
	decoder->event_type = getBaseType(event->atttypid);
	decoder->event_name = pstrdup(NameStr(event->attname));
	decoder->event_is_kafka =
		source->event_time == state->first_kafka + KAFKA_TIMESTAMP;
	if (decoder->event_type != TIMESTAMPTZOID &&
		decoder->event_type != TIMESTAMPOID &&
		decoder->event_type != DATEOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("event time column \"%s\" is of type %s",
						decoder->event_name,
						format_type_be(event->atttypid)),
				 errhint("Use a column of type timestamp with time zone, timestamp without time zone or date.")));
}

static void
compile_checks(Compilation *state)
{
	TupleConstr *constr = RelationGetDescr(state->relation)->constr;
	Decoder    *decoder = state->decoder;

	if (constr == NULL || constr->num_check == 0)
		return;
	decoder->nchecks = constr->num_check;
	decoder->checks = palloc0(constr->num_check * sizeof(CheckPlan));
	for (int i = 0; i < constr->num_check; i++)
	{
		Expr	   *check = plan_expression(state,
											stringToNode(constr->check[i].ccbin));

		decoder->checks[i].name = pstrdup(constr->check[i].ccname);
		decoder->checks[i].expression =
			ExecInitExpr((Expr *) make_ands_explicit(make_ands_implicit(check)),
						 NULL);
	}
	decoder->may_throw = true;
}

/*
 * Can rows be too big for a page, with everything out of line that can be?
 * A value takes its length, or that of a pointer, and some alignment.
 */
static bool
may_be_wide(TupleDesc desc)
{
	Size		size = MAXALIGN(SizeofHeapTupleHeader +
								BITMAPLEN(desc->natts));

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attlen < 0 && att->attstorage == TYPSTORAGE_PLAIN)
			return true;
		size += MAXALIGN(att->attlen < 0 ? TOAST_POINTER_SIZE : att->attlen);
	}
	return size > MaxHeapTupleSize;
}

Decoder *
decoder_create(const SourceDef *source, Relation relation,
			   TupleDesc segment_desc, MemoryContext cxt)
{
	MemoryContext own = AllocSetContextCreate(cxt, "weir decoder",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(own);
	MemoryContextCallback *callback = palloc0(sizeof(*callback));
	Decoder    *decoder = palloc0(sizeof(*decoder));
	Compilation state = {.decoder = decoder,.relation = relation};
	Bitmapset  *filter_columns = NULL;

	decoder->cxt = own;
	decoder->scratch = AllocSetContextCreate(own, "weir decoder scratch",
											 ALLOCSET_DEFAULT_SIZES);
	decoder->topic = pstrdup(source->topic);
	decoder->relation_name = pstrdup(RelationGetRelationName(relation));
	decoder->segment_desc = CreateTupleDescCopy(segment_desc);
	decoder->utc = pg_tzset("UTC");
	decoder->max_future_skew = source->max_future_skew;
	decoder->wide = may_be_wide(segment_desc);
	decoder->reader = doc_reader_create();
	if (decoder->reader == NULL)
		out_of_memory();
	callback->func = free_reader;
	callback->arg = decoder->reader;
	MemoryContextRegisterResetCallback(own, callback);

	map_attributes(&state);
	if (source->filter != NULL)
	{
		Expr	   *filter = plan_expression(&state,
											 source_filter_read(relation, source));

		filter_columns = bms_copy(state.used);
		decoder->filter = ExecInitQual(make_ands_implicit(filter), NULL);
		decoder->may_throw = true;
	}
	compile_columns(&state, source, filter_columns);
	compile_checks(&state);
	if (!doc_reader_seal(decoder->reader))
		out_of_memory();
	decoder->values = palloc0(Max(decoder->ncolumns, 1) * sizeof(DocValue));
	decoder->econtext = CreateStandaloneExprContext();

	decoder->stage_key = source->needs_key;
	decoder->stage_headers = source->needs_headers;
	decoder->fill_key |= source->needs_key;
	decoder->fill_headers |= source->needs_headers;
	if (decoder->fill_headers)
	{
		decoder->header_type =
			get_element_type(TupleDescAttr(segment_desc,
										   decoder->headers_segment)->atttypid);
		decoder->header_desc =
			CreateTupleDescCopy(lookup_type_cache(decoder->header_type,
												  TYPECACHE_TUPDESC)->tupDesc);
	}
	MemoryContextSwitchTo(oldcontext);
	return decoder;
}

/* Which columns have been found stays known when a source is compiled anew. */
void
decoder_take_over(Decoder *decoder, const Decoder *before)
{
	decoder->nmissing = 0;
	for (int i = 0; i < decoder->ndecoded; i++)
	{
		ColumnPlan *column = &decoder->columns[i];

		for (int j = 0; j < before->ndecoded; j++)
			if (before->columns[j].attnum == column->attnum)
				column->found = before->columns[j].found;
		decoder->nmissing += !column->found;
	}
}

void
decoder_free(Decoder *decoder)
{
	MemoryContextDelete(decoder->cxt);
}

char *
decoder_columns_never_found(Decoder *decoder)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < decoder->ndecoded; i++)
		if (!decoder->columns[i].found)
			appendStringInfo(&names, "%s%s", names.len ? ", " : "",
							 decoder->columns[i].name);
	return names.len > 0 ? names.data : NULL;
}

/* A collation's name, qualified and quoted. */
static char *
collation_name(Oid collation)
{
	HeapTuple	tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(collation));
	Form_pg_collation form;
	char	   *result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for collation %u", collation);
	form = (Form_pg_collation) GETSTRUCT(tuple);
	result = quote_qualified_identifier(get_namespace_name(form->collnamespace),
										NameStr(form->collname));
	ReleaseSysCache(tuple);
	return result;
}

char *
segment_column_definitions(Relation source_relation)
{
	TupleDesc	desc = RelationGetDescr(source_relation);
	StringInfoData sql;
	int			live = 0;
	int			seen = 0;

	for (int i = 0; i < desc->natts; i++)
		live += !TupleDescAttr(desc, i)->attisdropped;
	initStringInfo(&sql);
	appendStringInfoString(&sql, "kafka_partition integer, kafka_offset bigint, kafka_timestamp timestamp with time zone");
	for (int i = 0; i < desc->natts && seen < live - SOURCE_KAFKA_ATTRS; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (attribute->attisdropped)
			continue;
		seen++;
		appendStringInfo(&sql, ", %s %s",
						 quote_identifier(NameStr(attribute->attname)),
						 format_type_extended(attribute->atttypid,
											  attribute->atttypmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN |
											  FORMAT_TYPE_FORCE_QUALIFY));
		if (attribute->attcollation != get_typcollation(attribute->atttypid))
			appendStringInfo(&sql, " COLLATE %s",
							 collation_name(attribute->attcollation));
	}
	appendStringInfoString(&sql, ", kafka_key bytea, kafka_headers weir.kafka_header[]");
	return sql.data;
}
