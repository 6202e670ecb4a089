/*-------------------------------------------------------------------------
 *
 * ingest_decode_type.c
 *	  Compile a column's type for decoding (see ingest_decode_value.c).
 *
 * A ValueType is a tree: a domain stands above its base type, an array above
 * its element type, a composite type above those of its attributes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/lsyscache.h"
#include "utils/multirangetypes.h"
#include "utils/rangetypes.h"
#include "utils/typcache.h"

#include "ingest_decode_value.h"

/* The types with a way of their own. */
static bool
direct_kind(Oid typid, ValueKind *kind)
{
	static const struct
	{
		Oid			typid;
		ValueKind	kind;
	}			direct[] = {
		{INT2OID, VALUE_INT2},
		{INT4OID, VALUE_INT4},
		{INT8OID, VALUE_INT8},
		{FLOAT4OID, VALUE_FLOAT4},
		{FLOAT8OID, VALUE_FLOAT8},
		{NUMERICOID, VALUE_NUMERIC},
		{BOOLOID, VALUE_BOOL},
		{TEXTOID, VALUE_TEXT},
		{VARCHAROID, VALUE_VARCHAR},
		{BPCHAROID, VALUE_BPCHAR},
		{TIMESTAMPOID, VALUE_TIMESTAMP},
		{TIMESTAMPTZOID, VALUE_TIMESTAMPTZ},
		{DATEOID, VALUE_DATE},
		{TIMEOID, VALUE_TIME},
		{UUIDOID, VALUE_UUID},
		{JSONOID, VALUE_JSON},
		{JSONBOID, VALUE_JSONB}
	};

	for (int i = 0; i < lengthof(direct); i++)
		if (direct[i].typid == typid)
		{
			*kind = direct[i].kind;
			return true;
		}
	return false;
}

/*
 * Types of timestamps without zone, in texts that only an input function
 * reads: have the one of the type with a zone do it, which looks at zones.
 */
static void
read_with_zone(ValueType *type)
{
	Oid			twin;
	Oid			input;

	switch (type->typid)
	{
		case TIMESTAMPOID:
			twin = TIMESTAMPTZOID;
			break;
		case TSRANGEOID:
			twin = TSTZRANGEOID;
			type->relabel_at = offsetof(RangeType, rangetypid);
			type->relabel = TSRANGEOID;
			break;
		case TSMULTIRANGEOID:
			twin = TSTZMULTIRANGEOID;
			type->relabel_at = offsetof(MultirangeType, multirangetypid);
			type->relabel = TSMULTIRANGEOID;
			break;
		default:
			return;
	}
	getTypeInputInfo(twin, &input, &type->typioparam);
	fmgr_info(input, &type->input);
}

/* Has a type values that its input function reads without their zone? */
static bool
overlooks_zones(const ValueType *type)
{
	return type->kind == VALUE_TIMESTAMP || type->kind == VALUE_DATE ||
		type->kind == VALUE_TIME || type->texts != NULL ||
		OidIsValid(type->relabel) ||
		(type->kind == VALUE_DOMAIN && overlooks_zones(type->element));
}

/* The rows of n texts, as a type. */
static ValueType *
compile_texts(int n, TupleDesc *desc)
{
	ValueType  *type = palloc0(sizeof(ValueType));
	Oid			input;

	*desc = CreateTemplateTupleDesc(n);
	for (int i = 1; i <= n; i++)
		TupleDescInitEntry(*desc, i, "text", TEXTOID, -1, 0);
	*desc = BlessTupleDesc(*desc);
	type->kind = VALUE_INPUT;
	type->typid = RECORDOID;
	type->typmod = (*desc)->tdtypmod;
	type->relabel_at = -1;
	get_typlenbyvalalign(RECORDOID, &type->len, &type->byval, &type->align);
	getTypeInputInfo(RECORDOID, &input, &type->typioparam);
	fmgr_info(input, &type->input);
	return type;
}

static void
compile_composite(ValueType *type, EpochUnit epoch)
{
	bool		overlooked = false;
	int			live = 0;

	type->kind = VALUE_COMPOSITE;
	type->desc = lookup_rowtype_tupdesc_copy(type->typid, type->typmod);
	type->fields = palloc0(type->desc->natts * sizeof(ValueType *));
	for (int i = 0; i < type->desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(type->desc, i);

		if (att->attisdropped)
			continue;
		type->fields[i] = value_type_compile(att->atttypid, att->atttypmod,
											 epoch);
		overlooked |= overlooks_zones(type->fields[i]);
		live++;
	}
	if (overlooked)
		type->texts = compile_texts(live, &type->texts_desc);
}

ValueType *
value_type_compile(Oid typid, int32 typmod, EpochUnit epoch)
{
	ValueType  *type = palloc0(sizeof(ValueType));
	Oid			element;
	Oid			input;

	type->typid = typid;
	type->typmod = typmod;
	type->epoch = epoch;
	type->cxt = CurrentMemoryContext;
	get_typlenbyvalalign(typid, &type->len, &type->byval, &type->align);
	if (get_typtype(typid) == TYPTYPE_DOMAIN)
	{
		Oid			base;

		base = getBaseTypeAndTypmod(typid, &typmod);
		type->kind = VALUE_DOMAIN;
		type->element = value_type_compile(base, typmod, epoch);
		return type;
	}
	getTypeInputInfo(typid, &input, &type->typioparam);
	fmgr_info(input, &type->input);
	type->relabel_at = -1;
	read_with_zone(type);
	if (direct_kind(typid, &type->kind))
	{
		if (type->kind == VALUE_TIME)
			type->element = value_type_compile(TIMETZOID, typmod, epoch);
		return type;
	}
	element = get_element_type(typid);
	if (OidIsValid(element))
	{
		type->kind = VALUE_ARRAY;
		type->element = value_type_compile(element, typmod, epoch);
		if (overlooks_zones(type->element))
			type->texts = value_type_compile(TEXTARRAYOID, -1, epoch);
	}
	else if (type_is_rowtype(typid))
		compile_composite(type, epoch);
	else
		type->kind = VALUE_INPUT;
	return type;
}
