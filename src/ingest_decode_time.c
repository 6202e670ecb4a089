/*-------------------------------------------------------------------------
 *
 * ingest_decode_time.c
 *	  JSON values to timestamp, timestamptz and date.
 *
 * For timestamps a number, or a string that is one, is an epoch: seconds,
 * milliseconds, microseconds or nanoseconds by the column's option, else by
 * magnitude (README.md, JSON to column).  It is scaled in integers, rounding half
 * away from zero to the microsecond.
 *
 * ISO 8601 strings as programs write them,
 *		YYYY-MM-DD[(T| )HH:MM[:SS[.f...]][Z|(+|-)HH[[:]MM]]]
 * are read here, to the value that the input function gives under TimeZone
 * UTC.  Whatever is out of the ordinary (other forms, leap seconds, a 30th
 * of February, year 0) is left to the input function, which also words the
 * errors.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "common/int.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "ingest_decode_value.h"

#define UNIX_TO_POSTGRES_USECS \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* Below these, an epoch is taken for s, ms, us; else it is ns. */
#define EPOCH_SECONDS_BELOW INT64CONST(100000000000)
#define EPOCH_MILLISECONDS_BELOW INT64CONST(100000000000000)
#define EPOCH_MICROSECONDS_BELOW INT64CONST(100000000000000000)

/* Fractions of a second: more digits are left to the input function. */
#define MAX_FRACTION_DIGITS 15
#define MAX_ZONE_HOUR 14

/* A date, and maybe a time of day, as they stand in an ISO 8601 string. */
typedef struct IsoTime
{
	int			year;
	int			month;
	int			day;
	int64		time;			/* us since midnight */
	int64		offset;			/* us east of Greenwich; 0: none */
	bool		has_time;
} IsoTime;

/* Two digits at p as a number, or -1. */
static inline int
two_digits(const char *p)
{
	unsigned	tens = (unsigned char) p[0] - '0';
	unsigned	ones = (unsigned char) p[1] - '0';

	return tens > 9 || ones > 9 ? -1 : (int) (tens * 10 + ones);
}

static inline bool
parse_date(const char *p, IsoTime *iso)
{
	int			century = two_digits(p);
	int			year = two_digits(p + 2);

	if ((century | year) < 0 || p[4] != '-' || p[7] != '-')
		return false;
	iso->year = century * 100 + year;
	iso->month = two_digits(p + 5);
	iso->day = two_digits(p + 8);
	return iso->year > 0 && iso->month >= 1 && iso->month <= 12 &&
		iso->day >= 1 &&
		iso->day <= day_tab[isleap(iso->year)][iso->month - 1];
}

/* The digits after a second's point, as ParseFractionalSecond() has them. */
static const char *
parse_fraction(const char *p, const char *end, int64 *usecs)
{
	const char *start = p;
	int64		digits = 0;

	while (p < end && p - start <= MAX_FRACTION_DIGITS &&
		   *p >= '0' && *p <= '9')
		digits = digits * 10 + (*p++ - '0');
	if (p == start || p - start > MAX_FRACTION_DIGITS)
		return NULL;
	if (p - start <= 6)
		*usecs = digits * decimal_power[6 - (p - start)];
	else
		*usecs = (int64) rint((double) digits /
							  (double) decimal_power[p - start] * 1000000);
	return p;
}

/* A zone: Z, +HH, +HHMM, +HH:MM. */
static bool
parse_zone(const char *p, const char *end, int64 *offset)
{
	bool		negative = *p == '-';
	int			hour;
	int			minute = 0;

	if (*p == 'Z')
		return p + 1 == end;
	if ((*p != '+' && *p != '-') || end - p < 3)
		return false;
	hour = two_digits(p + 1);
	p += 3;
	if (p < end)
	{
		if (*p == ':')
			p++;
		if (end - p != 2)
			return false;
		minute = two_digits(p);
	}
	if (hour < 0 || hour > MAX_ZONE_HOUR || minute < 0 || minute > 59)
		return false;
	*offset = (hour * 60 + minute) * USECS_PER_MINUTE;
	if (negative)
		*offset = -*offset;
	return true;
}

static bool
parse_iso(const char *p, Size len, IsoTime *iso)
{
	const char *end = p + len;
	int			hour;
	int			minute;
	int			second = 0;
	int64		fraction = 0;

	iso->time = 0;
	iso->offset = 0;
	iso->has_time = false;
	if (len < 10 || !parse_date(p, iso))
		return false;
	p += 10;
	if (p == end)
		return true;
	if (end - p < 6 || (*p != 'T' && *p != ' ') || p[3] != ':')
		return false;
	hour = two_digits(p + 1);
	minute = two_digits(p + 4);
	p += 6;
	if (p < end && *p == ':')
	{
		if (end - p < 3)
			return false;
		second = two_digits(p + 1);
		p += 3;
		if (p < end && *p == '.')
		{
			p = parse_fraction(p + 1, end, &fraction);
			if (p == NULL)
				return false;
		}
	}
	if (hour < 0 || hour > 23 || minute < 0 || minute > 59 ||
		second < 0 || second > 59)
		return false;
	iso->has_time = true;
	iso->time = ((hour * 60 + minute) * 60 + second) * USECS_PER_SEC +
		fraction;
	return p == end || parse_zone(p, end, &iso->offset);
}

/* As AdjustTimestampForTypmod() of timestamp.c. */
static inline Timestamp
round_to_typmod(Timestamp time, int32 typmod)
{
	int64		unit;

	if (typmod < 0 || typmod >= MAX_TIMESTAMP_PRECISION)
		return time;
	unit = decimal_power[MAX_TIMESTAMP_PRECISION - typmod];
	if (time >= 0)
		return (time + unit / 2) / unit * unit;
	return -((-time + unit / 2) / unit * unit);
}

/*
 * digits * 10^exponent, rounded to an integer half away from zero; false
 * when that is beyond 64 bits.
 */
static bool
scale_decimal(const Decimal *decimal, int exponent, int64 *result)
{
	uint64		digits = decimal->digits;

	if (digits == 0)
		exponent = 0;
	if (exponent < -18)
	{
		/* at most 1.8e19 to begin with */
		*result = exponent == -19 && digits >= UINT64CONST(5000000000000000000);
	}
	else if (exponent < 0)
	{
		uint64		divisor = (uint64) decimal_power[-exponent];

		*result = (int64) (digits / divisor +
						   (digits % divisor >= divisor / 2));
	}
	else
	{
		if (exponent > 18 || digits > (uint64) PG_INT64_MAX ||
			pg_mul_s64_overflow((int64) digits, decimal_power[exponent],
								result))
			return false;
	}
	if (*result < 0)
		return false;
	if (decimal->negative)
		*result = -*result;
	return true;
}

/* The power of ten that turns the column's epochs to microseconds. */
static int
epoch_exponent(const ValueType *type, const Decimal *decimal)
{
	Decimal		magnitude = *decimal;
	int64		whole;

	switch (type->epoch)
	{
		case EPOCH_SECONDS:
			return 6;
		case EPOCH_MILLISECONDS:
			return 3;
		case EPOCH_MICROSECONDS:
			return 0;
		case EPOCH_NANOSECONDS:
			return -3;
		case EPOCH_BY_MAGNITUDE:
			break;
	}

	/* The whole part decides, so cut the fraction instead of rounding it. */
	magnitude.negative = false;
	for (; magnitude.exponent < 0 && magnitude.digits != 0;
		 magnitude.exponent++)
		magnitude.digits /= 10;
	if (!scale_decimal(&magnitude, magnitude.exponent, &whole))
		return -3;
	if (whole < EPOCH_SECONDS_BELOW)
		return 6;
	if (whole < EPOCH_MILLISECONDS_BELOW)
		return 3;
	return whole < EPOCH_MICROSECONDS_BELOW ? 0 : -3;
}

static ValueStatus
decode_epoch(ValueType *type, const DocValue *doc, const Decimal *decimal,
			 ValueContext *cxt, Datum *value)
{
	int			exponent = decimal->exponent + epoch_exponent(type, decimal);
	int64		usecs;
	Timestamp	result;

	if (!scale_decimal(decimal, exponent, &usecs) ||
		pg_sub_s64_overflow(usecs, UNIX_TO_POSTGRES_USECS, &usecs) ||
		!IS_VALID_TIMESTAMP(usecs))
		return value_bad(cxt, ERRCODE_DATETIME_VALUE_OUT_OF_RANGE,
						 "timestamp out of range: \"%.*s\"",
						 (int) Min(doc->len, 64), doc->text);
	result = round_to_typmod(usecs, type->typmod);
	*value = TimestampGetDatum(result);
	return VALUE_OK;
}

/* An integer as epoch, without a look at its text. */
static inline ValueStatus
decode_integer_epoch(ValueType *type, const DocValue *doc, int64 integer,
					 ValueContext *cxt, Datum *value)
{
	Decimal		decimal = {
		.negative = integer < 0,
		.exact = true,
		.digits = (uint64) (integer < 0 ? -integer : integer)
	};

	return decode_epoch(type, doc, &decimal, cxt, value);
}

/* Is text nothing but 1 to 18 digits? */
static inline bool
plain_digits(const char *str, Size len, int64 *result)
{
	int64		digits = 0;

	if (len < 1 || len > 18)
		return false;
	for (Size i = 0; i < len; i++)
	{
		unsigned	digit = (unsigned char) str[i] - '0';

		if (digit > 9)
			return false;
		digits = digits * 10 + digit;
	}
	*result = digits;
	return true;
}

ValueStatus
value_decode_timestamp(ValueType *type, const DocValue *doc,
					   ValueContext *cxt, Datum *value)
{
	char	   *str;
	Size		len;
	Decimal		decimal;
	IsoTime		iso;
	int64		integer;

	if (doc->kind == DOC_NUMBER && doc->is_integer)
		return decode_integer_epoch(type, doc, doc->integer, cxt, value);
	if (doc->kind == DOC_NUMBER)
	{
		if (!decimal_parse(doc->text, doc->len, &decimal))
			elog(ERROR, "JSON number not understood");
		return decode_epoch(type, doc, &decimal, cxt, value);
	}
	if (doc->kind != DOC_STRING)
		return value_call_input(type, doc, cxt, value);
	if (value_string(cxt, doc, &str, &len) != VALUE_OK)
		return VALUE_BAD;
	if (plain_digits(str, len, &integer))
		return decode_integer_epoch(type, doc, integer, cxt, value);
	if (parse_iso(str, len, &iso))
	{
		Timestamp	result = (date2j(iso.year, iso.month, iso.day) -
							  POSTGRES_EPOCH_JDATE) * USECS_PER_DAY + iso.time;

		/* timestamp without time zone does not look at the zone */
		if (type->kind == VALUE_TIMESTAMPTZ)
			result -= iso.offset;
		*value = TimestampGetDatum(round_to_typmod(result, type->typmod));
		return VALUE_OK;
	}
	if (decimal_parse(str, len, &decimal))
		return decode_epoch(type, doc, &decimal, cxt, value);
	return value_call_input(type, doc, cxt, value);
}

ValueStatus
value_decode_date(ValueType *type, const DocValue *doc, ValueContext *cxt,
				  Datum *value)
{
	char	   *str;
	Size		len;
	IsoTime		iso;

	if (doc->kind == DOC_STRING)
	{
		if (value_string(cxt, doc, &str, &len) != VALUE_OK)
			return VALUE_BAD;
		if (parse_iso(str, len, &iso))
		{
			*value = DateADTGetDatum(date2j(iso.year, iso.month, iso.day) -
									 POSTGRES_EPOCH_JDATE);
			return VALUE_OK;
		}
	}
	return value_call_input(type, doc, cxt, value);
}
