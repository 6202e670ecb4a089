/*-------------------------------------------------------------------------
 *
 * ingest_decode_value.c
 *	  JSON values to Datums: what a type needs, and all but numbers and
 *	  times.
 *
 * A value becomes what jsonb_populate_record() would give for it (README.md
 * lists the exceptions), without making a jsonb first: a string is its characters, a
 * number what numeric_out() prints, and the text then goes through the
 * type's input function.  For common types this file and its sisters
 * compute the answer straight from the message's bytes, and report failure
 * by return value: a bad value costs no more than a good one.
 *
 * Everything else may throw: input functions, jsonb_in(), domain checks.
 * On PostgreSQL 15 the only way to survive that is an internal
 * subtransaction, which is the caller's business.  Without it (may_throw)
 * the answer is VALUE_THROWS, and the caller comes again.
 *
 * An object or array keeps its own text when it goes to text, varchar, char
 * or json; for other scalar types it is what the jsonb type prints.
 *
 * Input functions see TimeZone UTC and DateStyle ISO, MDY.  Domain checks
 * are the user's expressions and see the user's settings.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/uuid.h"

#include "compat.h"
#include "errors.h"
#include "ingest_decode_value.h"

/* Space for small values is taken in such pieces; large ones get their own. */
#define SPACE_CHUNK (64 * 1024)
#define SPACE_LARGE (8 * 1024)

/* Of a bad value's text, so much is quoted in its message. */
#define QUOTED_BYTES 200

void
value_context_init(ValueContext *cxt, pg_tz *utc, MemoryContext scratch)
{
	memset(cxt, 0, sizeof(*cxt));
	cxt->utc = utc;
	cxt->scratch = scratch;
}

void
value_input_settings(ValueContext *cxt)
{
	if (cxt->input_settings)
		return;
	cxt->saved_timezone = session_timezone;
	cxt->saved_datestyle = DateStyle;
	cxt->saved_dateorder = DateOrder;
	cxt->input_settings = true;
	session_timezone = cxt->utc;
	DateStyle = USE_ISO_DATES;
	DateOrder = DATEORDER_MDY;
}

void
value_user_settings(ValueContext *cxt)
{
	if (!cxt->input_settings)
		return;
	session_timezone = cxt->saved_timezone;
	DateStyle = cxt->saved_datestyle;
	DateOrder = cxt->saved_dateorder;
	cxt->input_settings = false;
}

void *
value_alloc_chunk(ValueContext *cxt, Size size)
{
	if (size >= SPACE_LARGE)
		return MemoryContextAllocHuge(CurrentMemoryContext, size);
	cxt->space = palloc(SPACE_CHUNK);
	cxt->space_left = SPACE_CHUNK;
	return value_alloc(cxt, size);
}

/*
 * Errors
 */

ValueStatus
value_bad(ValueContext *cxt, int sqlerrcode, const char *format,...)
{
	StringInfoData message;

	initStringInfo(&message);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, format);
		needed = appendStringInfoVA(&message, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&message, needed);
	}
	cxt->sqlerrcode = sqlerrcode;
	cxt->message = message.data;
	return VALUE_BAD;
}

/* A value's text for a message, cut where it gets long. */
static const char *
quotable(ValueContext *cxt, const DocValue *doc)
{
	char	   *str;
	Size		len;

	if (doc->kind != DOC_STRING ||
		value_string(cxt, doc, &str, &len) != VALUE_OK)
	{
		str = unconstify(char *, doc->text);
		len = doc->len;
	}
	if (len <= QUOTED_BYTES)
		return pnstrdup(str, len);
	len = pg_mbcliplen(str, len, QUOTED_BYTES);
	return psprintf("%.*s...", (int) len, str);
}

ValueStatus
value_bad_syntax(ValueContext *cxt, ValueType *type, const DocValue *doc)
{
	int			sqlerrcode = ERRCODE_INVALID_TEXT_REPRESENTATION;

	if (type->kind == VALUE_TIMESTAMP || type->kind == VALUE_TIMESTAMPTZ ||
		type->kind == VALUE_DATE)
		sqlerrcode = ERRCODE_INVALID_DATETIME_FORMAT;
	return value_bad(cxt, sqlerrcode,
					 "invalid input syntax for type %s: \"%s\"",
					 format_type_be(type->typid), quotable(cxt, doc));
}

ValueStatus
value_out_of_range(ValueContext *cxt, ValueType *type, const DocValue *doc)
{
	if (type->kind == VALUE_FLOAT4 || type->kind == VALUE_FLOAT8)
		return value_bad(cxt, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
						 "\"%s\" is out of range for type %s",
						 quotable(cxt, doc), format_type_be(type->typid));
	return value_bad(cxt, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
					 "value \"%s\" is out of range for type %s",
					 quotable(cxt, doc), format_type_be(type->typid));
}

/*
 * Texts
 */

/* Resolve a string's escapes into dst. */
static ValueStatus
unescape(ValueContext *cxt, const DocValue *doc, char *dst, Size *len)
{
	switch (doc_unescape(doc->text, doc->len, dst, len))
	{
		case DOC_UNESCAPED:
			return VALUE_OK;
		case DOC_NUL_CHARACTER:
			return value_bad(cxt, ERRCODE_UNTRANSLATABLE_CHARACTER,
							 "unsupported Unicode escape sequence: \\u0000 cannot be converted to text.");
		case DOC_LONE_SURROGATE:
			break;
	}
	return value_bad(cxt, ERRCODE_INVALID_TEXT_REPRESENTATION,
					 "invalid input syntax for type json: Unicode surrogates must come in pairs, high before low.");
}

/* The characters of a string; not copied when they stand in the message. */
ValueStatus
value_string(ValueContext *cxt, const DocValue *doc, char **str, Size *len)
{
	if (!doc->escaped)
	{
		*str = unconstify(char *, doc->text);
		*len = doc->len;
		return VALUE_OK;
	}
	*str = value_alloc(cxt, doc->len);
	return unescape(cxt, doc, *str, len);
}

/* A number as numeric_out() prints it. */
static ValueStatus
number_text(ValueContext *cxt, const DocValue *doc, char **str, Size *len)
{
	const char *p = doc->text;
	const char *end = p + doc->len;
	char	   *copy;
	Datum		number;

	*str = unconstify(char *, doc->text);
	*len = doc->len;
	if (doc->is_integer)
		return VALUE_OK;
	if (*p == '-')
	{
		while (++p < end && (*p == '0' || *p == '.'))
			;
		if (p == end)
		{
			*str += 1;			/* a numeric knows no negative zero */
			*len -= 1;
			return VALUE_OK;
		}
		p = doc->text;
	}

	/* Short of numeric's limits, and without exponent: as it stands. */
	if (doc->len < 1000 && memchr(p, 'e', doc->len) == NULL &&
		memchr(p, 'E', doc->len) == NULL)
		return VALUE_OK;
	if (!cxt->may_throw)
		return VALUE_THROWS;
	copy = value_alloc(cxt, doc->len + 1);
	memcpy(copy, doc->text, doc->len);
	copy[doc->len] = '\0';
	number = DirectFunctionCall3(numeric_in, CStringGetDatum(copy),
								 ObjectIdGetDatum(InvalidOid),
								 Int32GetDatum(-1));
	*str = DatumGetCString(DirectFunctionCall1(numeric_out, number));
	*len = strlen(*str);
	return VALUE_OK;
}

/*
 * The text that a value goes to a type's input function as.  That of an
 * object or array is its own.
 */
ValueStatus
value_scalar_text(ValueContext *cxt, const DocValue *doc, char **str,
				  Size *len)
{
	if (doc->kind == DOC_STRING)
		return value_string(cxt, doc, str, len);
	if (doc->kind == DOC_NUMBER)
		return number_text(cxt, doc, str, len);
	*str = unconstify(char *, doc->text);
	*len = doc->len;
	return VALUE_OK;
}

static inline text *
make_text(ValueContext *cxt, const char *bytes, Size len)
{
	text	   *result = value_alloc(cxt, VARHDRSZ + len);

	SET_VARSIZE(result, VARHDRSZ + len);
	memcpy(VARDATA(result), bytes, len);
	return result;
}

/*
 * text, varchar(n) and char(n), as varcharin() and bpcharin() do it.
 */
static ValueStatus
decode_text(ValueType *type, const DocValue *doc, ValueContext *cxt,
			Datum *value)
{
	char	   *bytes;
	Size		len;
	ValueStatus status;

	status = value_scalar_text(cxt, doc, &bytes, &len);
	if (status != VALUE_OK)
		return status;
	if (type->kind != VALUE_TEXT && type->typmod >= (int32) VARHDRSZ)
	{
		Size		max = type->typmod - VARHDRSZ;
		Size		chars = len;

		if (len > max || type->kind == VALUE_BPCHAR)
			chars = pg_mbstrlen_with_len(bytes, len);
		if (chars > max)
		{
			Size		keep = pg_mbcharcliplen(bytes, len, max);

			for (Size i = keep; i < len; i++)
				if (bytes[i] != ' ')
					return value_bad(cxt,
									 ERRCODE_STRING_DATA_RIGHT_TRUNCATION,
									 "value too long for type %s(%zu)",
									 type->kind == VALUE_BPCHAR ?
									 "character" : "character varying", max);
			len = keep;
		}
		else if (type->kind == VALUE_BPCHAR && chars < max)
		{
			text	   *result = value_alloc(cxt,
											 VARHDRSZ + len + max - chars);

			SET_VARSIZE(result, VARHDRSZ + len + max - chars);
			memcpy(VARDATA(result), bytes, len);
			memset(VARDATA(result) + len, ' ', max - chars);
			*value = PointerGetDatum(result);
			return VALUE_OK;
		}
	}
	*value = PointerGetDatum(make_text(cxt, bytes, len));
	return VALUE_OK;
}

/*
 * json: the value's own text, but scalars as the jsonb type prints them.
 */
static ValueStatus
decode_json(ValueType *type, const DocValue *doc, ValueContext *cxt,
			Datum *value)
{
	char	   *bytes;
	Size		len;
	ValueStatus status;

	if (doc->kind == DOC_STRING && doc->escaped)
	{
		StringInfoData quoted;
		char	   *copy = value_alloc(cxt, doc->len + 1);

		status = unescape(cxt, doc, copy, &len);
		if (status != VALUE_OK)
			return status;
		copy[len] = '\0';
		initStringInfo(&quoted);
		escape_json(&quoted, copy);
		bytes = quoted.data;
		len = quoted.len;
	}
	else if (doc->kind == DOC_STRING)
	{
		bytes = unconstify(char *, doc->text) - 1;	/* with its quotes */
		len = doc->len + 2;
	}
	else
	{
		status = value_scalar_text(cxt, doc, &bytes, &len);
		if (status != VALUE_OK)
			return status;
	}
	*value = PointerGetDatum(make_text(cxt, bytes, len));
	return VALUE_OK;
}

/* Begin work whose garbage goes to the scratch context. */
static inline MemoryContext
enter_scratch(ValueContext *cxt)
{
	MemoryContextReset(cxt->scratch);
	return MemoryContextSwitchTo(cxt->scratch);
}

/* End it, and keep the result. */
static inline void
leave_scratch(ValueContext *cxt, MemoryContext oldcontext,
			  const ValueType *type, Datum *value)
{
	MemoryContextSwitchTo(oldcontext);
	if (!type->byval)
	{
		Size		size = datumGetSize(*value, false, type->len);
		void	   *copy = value_alloc(cxt, size);

		memcpy(copy, DatumGetPointer(*value), size);
		*value = PointerGetDatum(copy);
	}
}

/* A value as jsonb; may throw, and leaves much garbage. */
static Datum
make_jsonb(const DocValue *doc)
{
	bool		quoted = doc->kind == DOC_STRING;
	const char *json = quoted ? &doc->text[-1] : doc->text;
	Size		len = doc->len + 2 * quoted;
	char	   *copy = palloc(len + 1);

	memcpy(copy, json, len);
	copy[len] = '\0';
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(copy));
}

static ValueStatus
decode_jsonb(ValueType *type, const DocValue *doc, ValueContext *cxt,
			 Datum *value)
{
	MemoryContext oldcontext;

	if (!cxt->may_throw)
		return VALUE_THROWS;
	oldcontext = enter_scratch(cxt);
	*value = make_jsonb(doc);
	leave_scratch(cxt, oldcontext, type, value);
	return VALUE_OK;
}

static ValueStatus
decode_bool(ValueType *type, const DocValue *doc, ValueContext *cxt,
			Datum *value)
{
	char	   *bytes;
	Size		len;
	bool		result;
	ValueStatus status;

	if (doc->kind == DOC_TRUE || doc->kind == DOC_FALSE)
	{
		*value = BoolGetDatum(doc->kind == DOC_TRUE);
		return VALUE_OK;
	}
	if (doc->kind != DOC_STRING && doc->kind != DOC_NUMBER)
		return value_bad_syntax(cxt, type, doc);
	status = value_scalar_text(cxt, doc, &bytes, &len);
	if (status != VALUE_OK)
		return status;
	while (len > 0 && isspace((unsigned char) *bytes))
	{
		bytes++;
		len--;
	}
	while (len > 0 && isspace((unsigned char) bytes[len - 1]))
		len--;
	if (!parse_bool_with_len(bytes, len, &result))
		return value_bad_syntax(cxt, type, doc);
	*value = BoolGetDatum(result);
	return VALUE_OK;
}

/* Hexadecimal digits' values plus one; 0: none. */
static const uint8 hex_values[256] = {
	['0'] = 1,['1'] = 2,['2'] = 3,['3'] = 4,['4'] = 5,['5'] = 6,['6'] = 7,
	['7'] = 8,['8'] = 9,['9'] = 10,
	['a'] = 11,['b'] = 12,['c'] = 13,['d'] = 14,['e'] = 15,['f'] = 16,
	['A'] = 11,['B'] = 12,['C'] = 13,['D'] = 14,['E'] = 15,['F'] = 16
};

static inline int
hex_value(char c)
{
	return (int) hex_values[(unsigned char) c] - 1;
}

/* The usual form, 8-4-4-4-12 digits; false when it is not in it. */
static inline bool
uuid_canonical(const char *p, pg_uuid_t *uuid)
{
	static const uint8 at[UUID_LEN] = {
		0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34
	};
	int			bad = 0;

	for (int i = 0; i < UUID_LEN; i++)
	{
		int			high = hex_value(p[at[i]]);
		int			low = hex_value(p[at[i] + 1]);

		bad |= high | low;
		uuid->data[i] = (unsigned char) (high << 4 | low);
	}
	return bad >= 0 && p[8] == '-' && p[13] == '-' && p[18] == '-' &&
		p[23] == '-';
}

/* As string_to_uuid(): hyphens after any group of four, braces around. */
static ValueStatus
decode_uuid(ValueType *type, const DocValue *doc, ValueContext *cxt,
			Datum *value)
{
	char	   *p;
	char	   *end;
	Size		len;
	bool		braces;
	pg_uuid_t  *uuid;
	ValueStatus status;

	if (doc->kind != DOC_STRING && doc->kind != DOC_NUMBER)
		return value_bad_syntax(cxt, type, doc);
	status = value_scalar_text(cxt, doc, &p, &len);
	if (status != VALUE_OK)
		return status;
	uuid = value_alloc(cxt, sizeof(*uuid));
	*value = UUIDPGetDatum(uuid);
	if (len == 36 && uuid_canonical(p, uuid))
		return VALUE_OK;
	end = p + len;
	braces = p < end && *p == '{';
	if (braces)
		p++;
	for (int i = 0; i < UUID_LEN; i++)
	{
		int			high = p < end ? hex_value(p[0]) : -1;
		int			low = p + 1 < end ? hex_value(p[1]) : -1;

		if ((high | low) < 0)
			return value_bad_syntax(cxt, type, doc);
		uuid->data[i] = (unsigned char) (high << 4 | low);
		p += 2;
		if (p < end && *p == '-' && i % 2 == 1 && i < UUID_LEN - 1)
			p++;
	}
	if (braces && (p == end || *p++ != '}'))
		return value_bad_syntax(cxt, type, doc);
	if (p != end)
		return value_bad_syntax(cxt, type, doc);
	return VALUE_OK;
}

/*
 * What may throw
 */

/* Call the type's input function on a text. */
static ValueStatus
call_input(ValueType *type, char *str, ValueContext *cxt, Datum *value)
{
#ifdef WEIR_SOFT_ERRORS
	ErrorSaveContext soft = {T_ErrorSaveContext};

	soft.details_wanted = true;
	if (!InputFunctionCallSafe(&type->input, str, type->typioparam,
							   type->typmod, (Node *) &soft, value))
	{
		char	   *message = error_text(soft.error_data);

		return value_bad(cxt, soft.error_data->sqlerrcode, "%s", message);
	}
#else
	*value = InputFunctionCall(&type->input, str, type->typioparam,
							   type->typmod);
#endif
	return VALUE_OK;
}

/* Give the value's text to the type's input function. */
ValueStatus
value_call_input(ValueType *type, const DocValue *doc, ValueContext *cxt,
				 Datum *value)
{
	MemoryContext oldcontext;
	char	   *str;
	char	   *copy;
	Size		len;
	ValueStatus status;

	if (!cxt->may_throw)
		return VALUE_THROWS;
	status = value_scalar_text(cxt, doc, &str, &len);
	if (status != VALUE_OK)
		return status;
	value_input_settings(cxt);
	oldcontext = enter_scratch(cxt);
	if (doc->kind == DOC_OBJECT || doc->kind == DOC_ARRAY)
		copy = DatumGetCString(DirectFunctionCall1(jsonb_out,
												   make_jsonb(doc)));
	else
	{
		copy = palloc(len + 1);
		memcpy(copy, str, len);
		copy[len] = '\0';
	}
	cxt->in_input = true;
	status = call_input(type, copy, cxt, value);
	cxt->in_input = false;
	if (status == VALUE_OK)
	{
		leave_scratch(cxt, oldcontext, type, value);
		if (type->relabel_at >= 0)
			memcpy(DatumGetPointer(*value) + type->relabel_at, &type->relabel,
				   sizeof(Oid));
	}
	else
	{
		MemoryContextSwitchTo(oldcontext);
		cxt->message = pstrdup(cxt->message);
	}
	return status;
}

static ValueStatus
decode_domain(ValueType *type, const DocValue *doc, ValueContext *cxt,
			  Datum *value, bool *isnull)
{
	ValueStatus status;

	if (!cxt->may_throw)
		return VALUE_THROWS;
	status = value_decode(type->element, doc, cxt, value, isnull);
	if (status != VALUE_OK)
		return status;
	value_user_settings(cxt);
	domain_check(*value, *isnull, type->typid, &type->domain_state,
				 type->cxt);
	return VALUE_OK;
}

ValueStatus
value_decode(ValueType *type, const DocValue *doc, ValueContext *cxt,
			 Datum *value, bool *isnull)
{
	if (unlikely(type->kind == VALUE_DOMAIN))
		return decode_domain(type, doc, cxt, value, isnull);
	*isnull = doc->kind == DOC_MISSING || doc->kind == DOC_NULL;
	if (*isnull)
	{
		*value = (Datum) 0;
		return VALUE_OK;
	}
	switch (type->kind)
	{
		case VALUE_INT2:
		case VALUE_INT4:
		case VALUE_INT8:
			return value_decode_integer(type, doc, cxt, value);
		case VALUE_FLOAT4:
		case VALUE_FLOAT8:
			return value_decode_float(type, doc, cxt, value);
		case VALUE_NUMERIC:
			return value_decode_numeric(type, doc, cxt, value);
		case VALUE_BOOL:
			return decode_bool(type, doc, cxt, value);
		case VALUE_TEXT:
		case VALUE_VARCHAR:
		case VALUE_BPCHAR:
			return decode_text(type, doc, cxt, value);
		case VALUE_TIMESTAMP:
		case VALUE_TIMESTAMPTZ:
			return value_decode_timestamp(type, doc, cxt, value);
		case VALUE_DATE:
			return value_decode_date(type, doc, cxt, value);
		case VALUE_TIME:
			return value_decode_time(type, doc, cxt, value);
		case VALUE_UUID:
			return decode_uuid(type, doc, cxt, value);
		case VALUE_JSON:
			return decode_json(type, doc, cxt, value);
		case VALUE_JSONB:
			return decode_jsonb(type, doc, cxt, value);
		case VALUE_ARRAY:
			return value_decode_array(type, doc, cxt, value);
		case VALUE_COMPOSITE:
			return value_decode_composite(type, doc, cxt, value);
		case VALUE_DOMAIN:
			break;
		case VALUE_INPUT:
			return value_call_input(type, doc, cxt, value);
	}
	pg_unreachable();
}
