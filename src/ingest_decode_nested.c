/*-------------------------------------------------------------------------
 *
 * ingest_decode_nested.c
 *	  JSON arrays to arrays, and objects to composite values.
 *
 * What they hold is decoded like columns are, with all that is said in
 * ingest_decode_value.c, in the structure that jsonb_populate_record() gives
 * them: an array has as many dimensions as arrays open at its beginning, and
 * a composite value takes the fields that have its attributes' names, the
 * last one of a name.
 *
 * A string goes to the type's input function.  But that of a date or time
 * without zone, inside, would overlook the zones; then the string is taken
 * apart as an array or row of texts, and each is decoded like a string.
 *
 * Recursion is bounded: by the type's structure, and by MAXDIM.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "ingest_decode_value.h"

/*
 * What stands in the text of an array or row, for one of its values; text is
 * NULL where that is.  Only with may_throw.
 */
static ValueStatus
decode_inner(ValueType *type, const text *inner, ValueContext *cxt,
			 Datum *value, bool *isnull)
{
	ValueType  *base = type->kind == VALUE_DOMAIN ? type->element : type;
	DocValue	doc = {.kind = DOC_NULL};
	ValueStatus status;

	if (inner != NULL)
	{
		doc.kind = DOC_STRING;
		doc.text = VARDATA_ANY(inner);
		doc.len = VARSIZE_ANY_EXHDR(inner);
	}
	if (inner == NULL || base->kind == VALUE_TIMESTAMP ||
		base->kind == VALUE_DATE || base->kind == VALUE_TIME ||
		base->texts != NULL)
		return value_decode(type, &doc, cxt, value, isnull);

	/* json is a document here, and no string in one */
	*isnull = false;
	status = value_call_input(base, &doc, cxt, value);
	if (status == VALUE_OK && base != type)
	{
		value_user_settings(cxt);
		domain_check(*value, false, type->typid, &type->domain_state,
					 type->cxt);
	}
	return status;
}

static ValueStatus
decode_array_text(ValueType *type, const DocValue *doc, ValueContext *cxt,
				  Datum *value)
{
	ValueType  *element = type->element;
	ArrayType  *texts;
	Datum	   *values;
	bool	   *nulls;
	int			n;
	ValueStatus status = value_call_input(type->texts, doc, cxt, value);

	if (status != VALUE_OK)
		return status;
	texts = DatumGetArrayTypeP(*value);
	deconstruct_array(texts, TEXTOID, -1, false, TYPALIGN_INT, &values,
					  &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		status = decode_inner(element,
							  nulls[i] ? NULL : DatumGetTextPP(values[i]),
							  cxt, &values[i], &nulls[i]);
		if (status != VALUE_OK)
			return status;
	}
	*value = PointerGetDatum(construct_md_array(values, nulls,
												ARR_NDIM(texts),
												ARR_DIMS(texts),
												ARR_LBOUND(texts),
												element->typid, element->len,
												element->byval,
												element->align));
	return VALUE_OK;
}

static ValueStatus
decode_row_text(ValueType *type, const DocValue *doc, ValueContext *cxt,
				Datum *value)
{
	int			natts = type->desc->natts;
	int			live = type->texts_desc->natts;
	Datum	   *texts = palloc(live * sizeof(Datum));
	bool	   *text_nulls = palloc(live * sizeof(bool));
	Datum	   *values = palloc0(natts * sizeof(Datum));
	bool	   *nulls = palloc0(natts * sizeof(bool));
	HeapTupleData tuple = {0};
	ValueStatus status = value_call_input(type->texts, doc, cxt, value);

	if (status != VALUE_OK)
		return status;
	tuple.t_data = DatumGetHeapTupleHeader(*value);
	tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
	heap_deform_tuple(&tuple, type->texts_desc, texts, text_nulls);
	for (int i = 0, next = 0; i < natts; i++)
	{
		nulls[i] = true;
		if (type->fields[i] == NULL)
			continue;
		status = decode_inner(type->fields[i],
							  text_nulls[next] ? NULL :
							  DatumGetTextPP(texts[next]),
							  cxt, &values[i], &nulls[i]);
		if (status != VALUE_OK)
			return status;
		next++;
	}
	*value = HeapTupleGetDatum(heap_form_tuple(type->desc, values, nulls));
	return VALUE_OK;
}

/* An array while its elements are gathered. */
typedef struct ArrayValue
{
	ValueType  *element;
	ValueContext *cxt;
	int			ndims;			/* 0: not known yet */
	int			dims[MAXDIM];	/* -1: not known yet */
	Datum	   *values;
	bool	   *nulls;
	int			count;
	int			room;
} ArrayValue;

static ValueStatus
take_element(ArrayValue *array, const DocValue *doc)
{
	if (array->count == array->room)
	{
		array->room *= 2;
		array->values = repalloc_huge(array->values,
									  array->room * sizeof(Datum));
		array->nulls = repalloc_huge(array->nulls,
									 array->room * sizeof(bool));
	}
	if (array->count >= (int) MaxArraySize)
		return value_bad(array->cxt, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
						 "array size exceeds the maximum allowed (%d)",
						 (int) MaxArraySize);
	array->count++;
	return value_decode(array->element, doc, array->cxt,
						&array->values[array->count - 1],
						&array->nulls[array->count - 1]);
}

/* The array at a depth, from 1: its elements or the arrays in it. */
static ValueStatus
take_dimension(ArrayValue *array, const DocValue *doc, int depth)
{
	const char *cursor = doc->text;
	DocValue	element;
	int			length = 0;
	bool		more;

	if (doc->kind != DOC_ARRAY)
		return value_bad(array->cxt, ERRCODE_INVALID_TEXT_REPRESENTATION,
						 "expected JSON array");
	if (depth > MAXDIM)
		return value_bad(array->cxt, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
						 "number of array dimensions exceeds the maximum allowed (%d)",
						 MAXDIM);
	more = doc_next_element(doc, &cursor, &element);
	if (array->ndims == 0 && (!more || element.kind != DOC_ARRAY))
		array->ndims = depth;
	for (; more; more = doc_next_element(doc, &cursor, &element))
	{
		ValueStatus status = depth == array->ndims ?
		take_element(array, &element) :
		take_dimension(array, &element, depth + 1);

		if (status != VALUE_OK)
			return status;
		length++;
	}
	if (array->dims[depth - 1] >= 0 && array->dims[depth - 1] != length)
		return value_bad(array->cxt, ERRCODE_INVALID_TEXT_REPRESENTATION,
						 "malformed JSON array: Multidimensional arrays must have sub-arrays with matching dimensions.");
	array->dims[depth - 1] = length;
	return VALUE_OK;
}

ValueStatus
value_decode_array(ValueType *type, const DocValue *doc, ValueContext *cxt,
				   Datum *value)
{
	ArrayValue	array = {.element = type->element,.cxt = cxt,.room = 16};
	int			lbs[MAXDIM];
	ValueStatus status;

	if (doc->kind == DOC_STRING && type->texts != NULL)
		return decode_array_text(type, doc, cxt, value);
	if (doc->kind == DOC_STRING)
		return value_call_input(type, doc, cxt, value);
	for (int i = 0; i < MAXDIM; i++)
	{
		array.dims[i] = -1;
		lbs[i] = 1;
	}
	array.values = palloc(array.room * sizeof(Datum));
	array.nulls = palloc(array.room * sizeof(bool));
	status = take_dimension(&array, doc, 1);
	if (status != VALUE_OK)
		return status;
	if (array.count == 0)
		*value = PointerGetDatum(construct_empty_array(type->element->typid));
	else
		*value = PointerGetDatum(construct_md_array(array.values, array.nulls,
													array.ndims, array.dims,
													lbs, type->element->typid,
													type->element->len,
													type->element->byval,
													type->element->align));
	return VALUE_OK;
}

/* The attribute that a key names, from 0; -1: none. */
static int
find_attribute(const TupleDesc desc, const DocValue *key, ValueContext *cxt)
{
	char	   *name = unconstify(char *, key->text);
	Size		len = key->len;

	if (key->escaped)
	{
		name = value_alloc(cxt, key->len);
		if (doc_unescape(key->text, key->len, name, &len) != DOC_UNESCAPED)
			return -1;			/* no name can equal it */
	}
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && strlen(NameStr(att->attname)) == len &&
			memcmp(NameStr(att->attname), name, len) == 0)
			return i;
	}
	return -1;
}

ValueStatus
value_decode_composite(ValueType *type, const DocValue *doc,
					   ValueContext *cxt, Datum *value)
{
	const char *cursor = doc->text;
	int			natts = type->desc->natts;
	DocValue   *docs;
	Datum	   *values;
	bool	   *nulls;
	DocValue	key;
	DocValue	field;

	if (doc->kind == DOC_STRING && type->texts != NULL)
		return decode_row_text(type, doc, cxt, value);
	if (doc->kind == DOC_STRING)
		return value_call_input(type, doc, cxt, value);
	if (doc->kind != DOC_OBJECT)
		return value_bad(cxt, ERRCODE_INVALID_PARAMETER_VALUE,
						 "%s cannot be a value of type %s",
						 doc->kind == DOC_ARRAY ? "a JSON array" :
						 "a JSON scalar", format_type_be(type->typid));
	docs = palloc0(natts * sizeof(DocValue));
	while (doc_next_field(doc, &cursor, &key, &field))
	{
		int			attribute = find_attribute(type->desc, &key, cxt);

		if (attribute >= 0)
			docs[attribute] = field;
	}
	values = palloc0(natts * sizeof(Datum));
	nulls = palloc0(natts * sizeof(bool));
	for (int i = 0; i < natts; i++)
	{
		ValueStatus status;

		nulls[i] = true;
		if (type->fields[i] == NULL)
			continue;
		status = value_decode(type->fields[i], &docs[i], cxt, &values[i],
							  &nulls[i]);
		if (status != VALUE_OK)
			return status;
	}
	*value = HeapTupleGetDatum(heap_form_tuple(type->desc, values, nulls));
	return VALUE_OK;
}
