/*-------------------------------------------------------------------------
 *
 * ingest_decode_value.h
 *	  From a value of a JSON document to a Datum of a column's type.
 *
 * The conversions equal jsonb_populate_record(), with the exceptions that
 * README.md lists; ingest_decode_value.c says how.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_INGEST_DECODE_VALUE_H
#define WEIR_INGEST_DECODE_VALUE_H

#include "access/tupdesc.h"
#include "fmgr.h"
#include "ingest_decode_json.h"
#include "pgtime.h"
#include "utils/palloc.h"

typedef enum ValueStatus
{
	VALUE_OK,
	VALUE_BAD,					/* see sqlerrcode and message in the context */
	VALUE_THROWS				/* only known by calling what may throw, and
								 * may_throw is not set */
} ValueStatus;

/* How a type is decoded. */
typedef enum ValueKind
{
	VALUE_INT2,
	VALUE_INT4,
	VALUE_INT8,
	VALUE_FLOAT4,
	VALUE_FLOAT8,
	VALUE_NUMERIC,
	VALUE_BOOL,
	VALUE_TEXT,
	VALUE_VARCHAR,
	VALUE_BPCHAR,
	VALUE_TIMESTAMP,
	VALUE_TIMESTAMPTZ,
	VALUE_DATE,
	VALUE_TIME,
	VALUE_UUID,
	VALUE_JSON,
	VALUE_JSONB,
	VALUE_ARRAY,				/* of any of these; element */
	VALUE_DOMAIN,				/* over any of these; element */
	VALUE_COMPOSITE,			/* of any of these; fields */
	VALUE_INPUT					/* the type's input function */
} ValueKind;

typedef enum EpochUnit
{
	EPOCH_BY_MAGNITUDE,
	EPOCH_SECONDS,
	EPOCH_MILLISECONDS,
	EPOCH_MICROSECONDS,
	EPOCH_NANOSECONDS,
	EPOCH_DAYS
} EpochUnit;

/* A column's type, compiled. */
typedef struct ValueType
{
	ValueKind	kind;
	Oid			typid;
	int32		typmod;
	int16		len;			/* as in pg_type */
	bool		byval;
	char		align;
	EpochUnit	epoch;			/* timestamps and dates */

	/* array elements; the type under a domain; timetz for time */
	struct ValueType *element;

	/* VALUE_DOMAIN: domain_check()'s; the context it lives in */
	void	   *domain_state;
	MemoryContext cxt;

	FmgrInfo	input;			/* but for VALUE_DOMAIN */
	Oid			typioparam;

	/*
	 * The input function is another type's, of the same values at UTC: where
	 * the result says whose it is; < 0: nowhere, or it is the type's own.
	 */
	int			relabel_at;
	Oid			relabel;

	/* VALUE_COMPOSITE */
	TupleDesc	desc;
	struct ValueType **fields;	/* NULL: dropped */

	/*
	 * Arrays and composite types with dates or times without zone inside: the
	 * same of texts, to take a string apart.  Else NULL.
	 */
	struct ValueType *texts;
	TupleDesc	texts_desc;		/* VALUE_COMPOSITE: of those not dropped */
} ValueType;

/* What the conversions of one batch share. */
typedef struct ValueContext
{
	/*
	 * Inside an internal subtransaction, whose owner restores the settings
	 * (value_user_settings) whatever happens.
	 */
	bool		may_throw;
	bool		input_settings; /* UTC and ISO, MDY are on */

	/*
	 * An input function is at work: whatever it says of its text is about the
	 * record, as regclass's "relation does not exist".
	 */
	bool		in_input;
	pg_tz	   *utc;
	pg_tz	   *saved_timezone;
	int			saved_datestyle;
	int			saved_dateorder;

	/*
	 * What input functions leave behind besides their result; emptied before
	 * each use.
	 */
	MemoryContext scratch;

	/* Space for small values, carved from the batch's memory context. */
	char	   *space;
	Size		space_left;

	/* VALUE_BAD: strings are the batch's */
	int			sqlerrcode;
	char	   *message;
} ValueContext;

/* ValueType of typid; epoch as the column option has it, NULL: none. */
extern ValueType *value_type_compile(Oid typid, int32 typmod,
									 EpochUnit epoch);

/*
 * Decode.  A DOC_MISSING or DOC_NULL value is NULL, which domains may
 * refuse.  The result is allocated in CurrentMemoryContext, which stays the
 * same for all calls with one context.
 */
extern ValueStatus value_decode(ValueType *type, const DocValue *doc,
								ValueContext *cxt, Datum *value,
								bool *isnull);

extern void value_context_init(ValueContext *cxt, pg_tz *utc,
							   MemoryContext scratch);

/* The settings that input functions see, and those of everything else. */
extern void value_input_settings(ValueContext *cxt);
extern void value_user_settings(ValueContext *cxt);

/* Parts, one file each. */
extern ValueStatus value_decode_integer(ValueType *type, const DocValue *doc,
										ValueContext *cxt, Datum *value);
extern ValueStatus value_decode_float(ValueType *type, const DocValue *doc,
									  ValueContext *cxt, Datum *value);
extern ValueStatus value_decode_numeric(ValueType *type, const DocValue *doc,
										ValueContext *cxt, Datum *value);
extern ValueStatus value_decode_timestamp(ValueType *type,
										  const DocValue *doc,
										  ValueContext *cxt, Datum *value);
extern ValueStatus value_decode_date(ValueType *type, const DocValue *doc,
									 ValueContext *cxt, Datum *value);
extern ValueStatus value_decode_time(ValueType *type, const DocValue *doc,
									 ValueContext *cxt, Datum *value);

extern ValueStatus value_decode_array(ValueType *type, const DocValue *doc,
									  ValueContext *cxt, Datum *value);
extern ValueStatus value_decode_composite(ValueType *type,
										  const DocValue *doc,
										  ValueContext *cxt, Datum *value);

/* A number's decimal form: (-1)^negative * digits * 10^exponent. */
typedef struct Decimal
{
	bool		negative;
	bool		exact;			/* the digits left out are zeros */
	bool		exponential;	/* it was written with an exponent */
	uint64		digits;			/* the first 19 significant ones */
	int			exponent;
	int			scale;			/* digits after the point, as written */
} Decimal;

extern bool decimal_parse(const char *str, Size len, Decimal *decimal);
extern const int64 decimal_power[19];

/* For the parts: allocate, fail, call the type's input function. */
extern void *value_alloc_chunk(ValueContext *cxt, Size size);
extern ValueStatus value_bad(ValueContext *cxt, int sqlerrcode,
							 const char *format,...) pg_attribute_printf(3, 4);
extern ValueStatus value_bad_syntax(ValueContext *cxt, ValueType *type,
									const DocValue *doc);
extern ValueStatus value_out_of_range(ValueContext *cxt, ValueType *type,
									  const DocValue *doc);
extern ValueStatus value_string(ValueContext *cxt, const DocValue *doc,
								char **str, Size *len);
extern ValueStatus value_scalar_text(ValueContext *cxt, const DocValue *doc,
									 char **str, Size *len);
extern ValueStatus value_call_input(ValueType *type, const DocValue *doc,
									ValueContext *cxt, Datum *value);

static inline void *
value_alloc(ValueContext *cxt, Size size)
{
	char	   *result = cxt->space;

	size = MAXALIGN(size);
	if (unlikely(size > cxt->space_left))
		return value_alloc_chunk(cxt, size);
	cxt->space += size;
	cxt->space_left -= size;
	return result;
}

#endif							/* WEIR_INGEST_DECODE_VALUE_H */
