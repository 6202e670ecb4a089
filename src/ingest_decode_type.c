/*-------------------------------------------------------------------------
 *
 * ingest_decode_type.c
 *	  Compile a column's type for decoding (see ingest_decode_value.c).
 *
 * A ValueType is a tree: a domain stands above its base type, an array above
 * its element type.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "nodes/makefuncs.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

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
 * Prepare jsonb_populate_record() for a row of one column.  It learns the
 * row's type from its first argument, as it would in
 * SELECT jsonb_populate_record(r, ...) with r of type record.
 */
static void
compile_populate(ValueType *type)
{
	Datum		null = (Datum) 0;
	bool		isnull = true;
	HeapTuple	tuple;
	Const	   *row;
	Const	   *json;

	type->populate_desc = CreateTemplateTupleDesc(1);
	TupleDescInitEntry(type->populate_desc, 1, "v", type->typid,
					   type->typmod, 0);
	type->populate_desc = BlessTupleDesc(type->populate_desc);
	tuple = heap_form_tuple(type->populate_desc, &null, &isnull);
	type->populate_null =
		DatumGetHeapTupleHeader(heap_copy_tuple_as_datum(tuple,
														 type->populate_desc));
	fmgr_info(F_JSONB_POPULATE_RECORD, &type->populate);
	row = makeNullConst(RECORDOID, -1, InvalidOid);
	json = makeNullConst(JSONBOID, -1, InvalidOid);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_JSONB_POPULATE_RECORD,
											 RECORDOID,
											 list_make2(row, json),
											 InvalidOid, InvalidOid,
											 COERCE_EXPLICIT_CALL),
					   &type->populate);
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
	if (direct_kind(typid, &type->kind))
	{
		if (type->kind == VALUE_TIMESTAMP)
		{
			/* the same value at UTC, and it looks at the zone */
			fmgr_info(F_TIMESTAMPTZ_IN, &type->input);
			type->typioparam = TIMESTAMPTZOID;
		}
		else if (type->kind == VALUE_TIME)
			type->element = value_type_compile(TIMETZOID, typmod, epoch);
		return type;
	}
	element = get_element_type(typid);
	if (OidIsValid(element))
	{
		type->kind = VALUE_ARRAY;
		type->element = value_type_compile(element, typmod, epoch);
		compile_populate(type);
		if (type->element->kind == VALUE_POPULATE)
			type->kind = VALUE_POPULATE;
	}
	else if (type_is_rowtype(typid))
	{
		type->kind = VALUE_POPULATE;
		compile_populate(type);
	}
	else
		type->kind = VALUE_INPUT;
	return type;
}
