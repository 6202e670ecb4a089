/*-------------------------------------------------------------------------
 *
 * ingest_decode_number.c
 *	  JSON numbers and numeric strings to integers, floats and numeric.
 *
 * A JSON number becomes what the jsonb type would make of it: a numeric
 * (so 1e2 is 100, and -0 is 0), which is then printed and read by the
 * column's input function.  A string is read by that function as it stands.
 * Here both are done on the digits: exactly, in 64 bits, for what is common;
 * the rest goes through numeric_in() and the input function.  The only
 * difference meant is that 42.0 is an integer.
 *
 * Floats: digits and power of ten that are both exact in a double divide or
 * multiply to the correctly rounded result; the rest is strtod()'s, as in
 * float8in().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "common/int.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "ingest_decode_value.h"

#define DECIMAL_DIGITS 19		/* the most that always fit in 64 bits */

/* Integers that float8 and float4 hold exactly, and powers of ten. */
#define FLOAT8_EXACT (UINT64CONST(1) << 53)
#define FLOAT8_EXACT_POWER 22
#define FLOAT4_EXACT (UINT64CONST(1) << 24)
#define FLOAT4_EXACT_POWER 10

const int64 decimal_power[19] = {
	INT64CONST(1), INT64CONST(10), INT64CONST(100), INT64CONST(1000),
	INT64CONST(10000), INT64CONST(100000), INT64CONST(1000000),
	INT64CONST(10000000), INT64CONST(100000000), INT64CONST(1000000000),
	INT64CONST(10000000000), INT64CONST(100000000000),
	INT64CONST(1000000000000), INT64CONST(10000000000000),
	INT64CONST(100000000000000), INT64CONST(1000000000000000),
	INT64CONST(10000000000000000), INT64CONST(100000000000000000),
	INT64CONST(1000000000000000000)
};

static const double float8_power[FLOAT8_EXACT_POWER + 1] = {
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22
};

static const float float4_power[FLOAT4_EXACT_POWER + 1] = {
	1e0f, 1e1f, 1e2f, 1e3f, 1e4f, 1e5f, 1e6f, 1e7f, 1e8f, 1e9f, 1e10f
};

/*
 * Read [+-]digits[.digits][e[+-]digits]; false when text is anything else.
 */
bool
decimal_parse(const char *str, Size len, Decimal *decimal)
{
	const char *p = str;
	const char *end = str + len;
	uint64		digits = 0;
	int			taken = 0;		/* significant digits in it */
	int			exponent = 0;
	int			scale = 0;
	bool		seen_digit = false;
	bool		seen_point = false;

	decimal->exact = true;
	decimal->exponential = false;
	decimal->negative = p < end && *p == '-';
	if (p < end && (*p == '-' || *p == '+'))
		p++;
	for (; p < end; p++)
	{
		unsigned char digit = (unsigned char) (*p - '0');

		if (digit > 9)
		{
			if (*p != '.' || seen_point || !seen_digit)
				break;
			seen_point = true;
			continue;
		}
		seen_digit = true;
		scale += seen_point;
		if (taken < DECIMAL_DIGITS)
		{
			digits = digits * 10 + digit;
			taken += digits != 0;
			exponent -= seen_point;
		}
		else
		{
			decimal->exact = decimal->exact && digit == 0;
			exponent += !seen_point;
		}
	}
	if (!seen_digit || (seen_point && scale == 0))
		return false;
	if (p < end && (*p | 0x20) == 'e')
	{
		int			sign = 1;
		int			written = 0;

		decimal->exponential = true;
		p++;
		if (p < end && (*p == '-' || *p == '+'))
			sign = *p++ == '-' ? -1 : 1;
		if (p == end)
			return false;
		for (; p < end && *p >= '0' && *p <= '9'; p++)
			if (written < 1000000)
				written = written * 10 + (*p - '0');
		exponent += sign * written;
	}
	decimal->digits = digits;
	decimal->exponent = exponent;
	decimal->scale = scale;
	return p == end;
}

/*
 * The integral value of a decimal into *result.  0 when it is one,
 * ERRCODE_INVALID_TEXT_REPRESENTATION when it has a fraction,
 * ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE when it is beyond 64 bits.
 */
static int
decimal_to_integer(const Decimal *decimal, int64 *result)
{
	uint64		digits = decimal->digits;
	int			exponent = decimal->exponent;

	if (digits == 0)
		exponent = 0;
	for (; exponent < 0; exponent++)
	{
		if (digits % 10 != 0)
			return ERRCODE_INVALID_TEXT_REPRESENTATION;
		digits /= 10;
	}
	if (!decimal->exact)
		return decimal->exponent < 0 ? ERRCODE_INVALID_TEXT_REPRESENTATION :
			ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE;
	for (; exponent > 0; exponent--)
	{
		if (digits > PG_UINT64_MAX / 10)
			return ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE;
		digits *= 10;
	}
	if (digits > (uint64) PG_INT64_MAX + decimal->negative)
		return ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE;
	*result = (int64) (decimal->negative ? -digits : digits);
	return 0;
}

/*
 * What pg_strtoint64() accepts: white space around a sign and digits.
 */
static int
string_to_integer(const char *str, Size len, int64 *result)
{
	const char *end = str + len;
	Decimal		decimal;
	const char *p;

	while (str < end && isspace((unsigned char) *str))
		str++;
	while (end > str && isspace((unsigned char) end[-1]))
		end--;
	p = str;
	if (p < end && (*p == '-' || *p == '+'))
		p++;
	if (p == end)
		return ERRCODE_INVALID_TEXT_REPRESENTATION;
	for (; p < end; p++)
		if (*p < '0' || *p > '9')
			return ERRCODE_INVALID_TEXT_REPRESENTATION;
	if (!decimal_parse(str, end - str, &decimal))
		return ERRCODE_INVALID_TEXT_REPRESENTATION;
	return decimal_to_integer(&decimal, result);
}

/*
 * Say that a value is no integer.  Like pg_strtoint64() and its kin, call it
 * out of range if the digits it begins with already are.
 */
static ValueStatus
bad_integer(ValueType *type, const DocValue *doc, ValueContext *cxt)
{
	uint64		limit = type->kind == VALUE_INT2 ? PG_INT16_MAX :
	type->kind == VALUE_INT4 ? PG_INT32_MAX : PG_INT64_MAX;
	uint64		digits = 0;
	char	   *p;
	char	   *end;
	Size		len;

	if (value_scalar_text(cxt, doc, &p, &len) != VALUE_OK)
		return value_bad_syntax(cxt, type, doc);
	end = p + len;
	while (p < end && isspace((unsigned char) *p))
		p++;
	if (p < end && *p == '-')
		limit++;
	if (p < end && (*p == '-' || *p == '+'))
		p++;
	for (; p < end && *p >= '0' && *p <= '9'; p++)
	{
		unsigned	digit = *p - '0';

		if (digits > (limit - digit) / 10)
			return value_out_of_range(cxt, type, doc);
		digits = digits * 10 + digit;
	}
	return value_bad_syntax(cxt, type, doc);
}

ValueStatus
value_decode_integer(ValueType *type, const DocValue *doc, ValueContext *cxt,
					 Datum *value)
{
	int64		integer = 0;
	int			error = 0;

	if (doc->kind == DOC_NUMBER && doc->is_integer)
		integer = doc->integer;
	else if (doc->kind == DOC_NUMBER)
	{
		Decimal		decimal;

		if (!decimal_parse(doc->text, doc->len, &decimal))
			elog(ERROR, "JSON number not understood");
		error = decimal_to_integer(&decimal, &integer);
	}
	else if (doc->kind == DOC_STRING)
	{
		char	   *str;
		Size		len;

		if (value_string(cxt, doc, &str, &len) != VALUE_OK)
			return VALUE_BAD;
		error = string_to_integer(str, len, &integer);
#if PG_VERSION_NUM >= 160000
		/* there are hexadecimal integers, and underscores in them */
		if (error == ERRCODE_INVALID_TEXT_REPRESENTATION)
			return value_call_input(type, doc, cxt, value);
#endif
	}
	else
		error = ERRCODE_INVALID_TEXT_REPRESENTATION;

	if (error == ERRCODE_INVALID_TEXT_REPRESENTATION)
		return bad_integer(type, doc, cxt);
	if (error != 0)
		return value_out_of_range(cxt, type, doc);
	switch (type->kind)
	{
		case VALUE_INT2:
			if (integer != (int16) integer)
				return value_out_of_range(cxt, type, doc);
			*value = Int16GetDatum((int16) integer);
			break;
		case VALUE_INT4:
			if (integer != (int32) integer)
				return value_out_of_range(cxt, type, doc);
			*value = Int32GetDatum((int32) integer);
			break;
		default:
			*value = Int64GetDatum(integer);
			break;
	}
	return VALUE_OK;
}

/* Could a string be a float or numeric that is not just digits? */
static bool
maybe_number(const char *str, Size len)
{
	while (len > 0 && isspace((unsigned char) *str))
	{
		str++;
		len--;
	}
	return len > 0 && strchr("0123456789+-.nNiI", *str) != NULL;
}

/* A float whose digits are not exact in binary: as float8in() reads it. */
static ValueStatus
float_from_text(ValueType *type, const DocValue *doc, ValueContext *cxt,
				const char *str, Size len, Datum *value)
{
	char		buffer[128];
	char	   *copy = len < sizeof(buffer) ? buffer : palloc(len + 1);
	bool		out_of_range;

	memcpy(copy, str, len);
	copy[len] = '\0';
	if (type->kind == VALUE_FLOAT4)
	{
		float		result;

		errno = 0;
		result = strtof(copy, NULL);
		out_of_range = errno == ERANGE &&
			(result == 0 || isinf(result));
		*value = Float4GetDatum(result);
	}
	else
	{
		double		result;

		errno = 0;
		result = strtod(copy, NULL);
		out_of_range = errno == ERANGE &&
			(result == 0 || isinf(result));
		*value = Float8GetDatum(result);
	}
	if (copy != buffer)
		pfree(copy);
	return out_of_range ? value_out_of_range(cxt, type, doc) : VALUE_OK;
}

ValueStatus
value_decode_float(ValueType *type, const DocValue *doc, ValueContext *cxt,
				   Datum *value)
{
	char	   *str;
	Size		len;
	Decimal		decimal;
	bool		single = type->kind == VALUE_FLOAT4;
	int			power;

	if (doc->kind == DOC_STRING)
	{
		if (value_string(cxt, doc, &str, &len) != VALUE_OK)
			return VALUE_BAD;
	}
	else if (doc->kind == DOC_NUMBER)
	{
		str = unconstify(char *, doc->text);
		len = doc->len;
	}
	else
		return value_bad_syntax(cxt, type, doc);
	if (!decimal_parse(str, len, &decimal))
		return maybe_number(str, len) ?
			value_call_input(type, doc, cxt, value) :
			value_bad_syntax(cxt, type, doc);

	/* A numeric knows no negative zero. */
	if (decimal.digits == 0 && decimal.negative && doc->kind == DOC_NUMBER)
		decimal.negative = false;
	power = abs(decimal.exponent);
	if (decimal.digits == 0)
		power = 0;
	else if (!decimal.exact ||
			 power > (single ? FLOAT4_EXACT_POWER : FLOAT8_EXACT_POWER) ||
			 decimal.digits > (single ? FLOAT4_EXACT : FLOAT8_EXACT))
		return float_from_text(type, doc, cxt, str, len, value);
	if (single)
	{
		float		result = (float) decimal.digits;

		result = decimal.exponent < 0 ? result / float4_power[power] :
			result * float4_power[power];
		*value = Float4GetDatum(decimal.negative ? -result : result);
	}
	else
	{
		double		result = (double) decimal.digits;

		result = decimal.exponent < 0 ? result / float8_power[power] :
			result * float8_power[power];
		*value = Float8GetDatum(decimal.negative ? -result : result);
	}
	return VALUE_OK;
}

/* Precision and scale in a typmod of numeric, as numeric.c packs them. */
static inline int
typmod_precision(int32 typmod)
{
	return ((typmod - VARHDRSZ) >> 16) & 0xffff;
}

static inline int
typmod_scale(int32 typmod)
{
	return (((typmod - VARHDRSZ) & 0x7ff) ^ 1024) - 1024;
}

/*
 * Round *digits, scaled by *scale, to the typmod.  False when that takes
 * more than 64 bits; *overflow when the result does not fit the precision.
 */
static bool
apply_numeric_typmod(int32 typmod, int64 *digits, int *scale, bool *overflow)
{
	int			precision = typmod_precision(typmod);
	int			wanted = typmod_scale(typmod);
	int64		result = *digits;

	if (wanted < 0 || wanted > 18)
		return false;
	if (*scale > wanted)
	{
		int64		divisor = decimal_power[*scale - wanted];

		/* half goes away from zero */
		result = result / divisor + (result % divisor >= divisor / 2);
	}
	else if (*scale < wanted)
	{
		if (pg_mul_s64_overflow(result, decimal_power[wanted - *scale],
								&result))
			return false;
	}
	*overflow = precision <= 18 && result >= decimal_power[precision];
	*digits = result;
	*scale = wanted;
	return true;
}

ValueStatus
value_decode_numeric(ValueType *type, const DocValue *doc, ValueContext *cxt,
					 Datum *value)
{
	char	   *str;
	Size		len;
	Decimal		decimal;
	int64		digits;
	int			scale;
	bool		overflow = false;

	if (doc->kind == DOC_STRING)
	{
		if (value_string(cxt, doc, &str, &len) != VALUE_OK)
			return VALUE_BAD;
	}
	else if (doc->kind == DOC_NUMBER)
	{
		str = unconstify(char *, doc->text);
		len = doc->len;
	}
	else
		return value_bad_syntax(cxt, type, doc);
	if (!decimal_parse(str, len, &decimal))
		return maybe_number(str, len) ?
			value_call_input(type, doc, cxt, value) :
			value_bad_syntax(cxt, type, doc);

	digits = (int64) decimal.digits;
	scale = decimal.scale;
	if (decimal.exponential || !decimal.exact || scale > 18 ||
		decimal.exponent != -scale ||
		decimal.digits >= (uint64) decimal_power[18] ||
		(type->typmod >= (int32) VARHDRSZ &&
		 !apply_numeric_typmod(type->typmod, &digits, &scale, &overflow)))
		return value_call_input(type, doc, cxt, value);
	if (overflow)
	{
		int			room = typmod_precision(type->typmod) -
		typmod_scale(type->typmod);

		return value_bad(cxt, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
						 "numeric field overflow: A field with precision %d, scale %d must round to an absolute value less than %s%d.",
						 typmod_precision(type->typmod),
						 typmod_scale(type->typmod),
						 room ? "10^" : "", room ? room : 1);
	}
	*value = NumericGetDatum(int64_div_fast_to_numeric(decimal.negative ?
													   -digits : digits,
													   scale));
	return VALUE_OK;
}
