/*-------------------------------------------------------------------------
 *
 * ingest_decode_time.c
 *	  JSON values to timestamp, timestamptz, date and time.
 *
 * Epochs.  For timestamps a number, or a string that is one, is an epoch, in
 * the unit that the column's option names, else in the coarsest of seconds,
 * milliseconds, microseconds and nanoseconds in which it is a timestamp not
 * past the year 9999: so "never" is never in each of them, and only times
 * before 1978 need the option.  Dates take epochs where they have the option, days as well.
 * Epochs are scaled in integers, rounding half away from zero to the
 * microsecond; dates are rounded down.
 *
 * Zones.  A timestamp is taken as UTC, so a text that says its zone gives
 * what timestamptz makes of it at UTC; and the same text gives the same day
 * in a date column, and the same time of day in a time column.  That is not
 * what their input functions do, which overlook the zone.  A date without a
 * time stays as it is, whatever zone it names, and a text without a zone is
 * as the input functions have it.
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

#include "compat.h"
#include "ingest_decode_value.h"

#define UNIX_TO_POSTGRES_USECS \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

#define UNIX_TO_POSTGRES_DAYS (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)

/*
 * An epoch without a unit lies between these, in seconds: where timestamps
 * begin (in 4714 BC, negative), and before the year 10000.
 */
#define EPOCH_SECONDS_BEGIN UINT64CONST(210866803200)
#define EPOCH_SECONDS_END UINT64CONST(253402300799)

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
	int64		offset;			/* us east of Greenwich */
	bool		has_zone;		/* said; else offset is 0 */
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
	iso->has_zone = false;
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
	iso->time = ((hour * 60 + minute) * 60 + second) * USECS_PER_SEC +
		fraction;
	iso->has_zone = p < end;
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
 * |decimal| * 10^shift, rounded to an integer half up; false when that is
 * beyond 64 bits.
 */
static bool
scale_decimal(const Decimal *decimal, int shift, uint64 *result)
{
	uint64		digits = decimal->digits;
	int			exponent = digits == 0 ? 0 : decimal->exponent + shift;

	if (exponent < -18)
	{
		/* at most 1.8e19 to begin with */
		*result = exponent == -19 && digits >= UINT64CONST(5000000000000000000);
		return true;
	}
	if (exponent < 0)
	{
		uint64		divisor = (uint64) decimal_power[-exponent];

		*result = digits / divisor + (digits % divisor >= divisor / 2);
		return true;
	}
	return exponent <= 18 &&
		!pg_mul_u64_overflow(digits, (uint64) decimal_power[exponent], result);
}

/* Are decimal * 10^shift, whole seconds, a time not past the year 9999? */
static inline bool
year_fits(const Decimal *decimal, int shift)
{
	uint64		digits = decimal->digits;
	int			exponent = decimal->exponent + shift;
	uint64		limit = decimal->negative ? EPOCH_SECONDS_BEGIN :
	EPOCH_SECONDS_END;

	if (digits == 0 || exponent < -18)
		return true;
	if (exponent < 0)
		return digits / (uint64) decimal_power[-exponent] <= limit;
	return exponent <= 11 && digits <= limit / (uint64) decimal_power[exponent];
}

/*
 * The power of ten that turns the column's epochs to microseconds.  False: it
 * is past the year 9999 in any unit.
 */
static bool
epoch_exponent(const ValueType *type, const Decimal *decimal, int *exponent)
{
	switch (type->epoch)
	{
		case EPOCH_SECONDS:
			*exponent = 6;
			return true;
		case EPOCH_MILLISECONDS:
			*exponent = 3;
			return true;
		case EPOCH_MICROSECONDS:
			*exponent = 0;
			return true;
		case EPOCH_NANOSECONDS:
			*exponent = -3;
			return true;
		case EPOCH_DAYS:
		case EPOCH_BY_MAGNITUDE:
			break;
	}
	for (*exponent = 6; *exponent >= -3; *exponent -= 3)
		if (year_fits(decimal, *exponent - 6))
			return true;
	return false;
}

/*
 * An epoch in days as whole days, rounded down, and the rest in microseconds,
 * rounded half up.
 */
static bool
split_days(const Decimal *decimal, int64 *days, int64 *rest)
{
	uint64		digits = decimal->digits;
	int			exponent = digits == 0 ? 0 : decimal->exponent;
	double		fraction = 0;

	if (exponent >= 0)
	{
		if (exponent > 18 || digits > (uint64) PG_INT64_MAX ||
			pg_mul_s64_overflow((int64) digits, decimal_power[exponent], days))
			return false;
	}
	else if (exponent < -18)
	{
		*days = 0;
		fraction = (double) digits * pow(10, exponent);
	}
	else
	{
		uint64		divisor = (uint64) decimal_power[-exponent];

		*days = (int64) (digits / divisor);
		fraction = (double) (digits % divisor) / (double) divisor;
	}
	if (decimal->negative)
	{
		*days = -*days;
		if (fraction > 0)
		{
			*days -= 1;
			fraction = 1 - fraction;
		}
	}
	*rest = (int64) floor(fraction * USECS_PER_DAY + 0.5);
	return true;
}

static ValueStatus
epoch_out_of_range(const char *what, const DocValue *doc, ValueContext *cxt)
{
	return value_bad(cxt, ERRCODE_DATETIME_VALUE_OUT_OF_RANGE,
					 "%s out of range: \"%.*s\"", what,
					 (int) Min(doc->len, 64), doc->text);
}

/* An epoch as microseconds since 2000; false when that is no timestamp. */
static bool
epoch_usecs(const ValueType *type, const Decimal *decimal, int64 *usecs)
{
	uint64		since_1970;
	int64		days;
	int64		rest;
	int			exponent;

	if (type->epoch == EPOCH_DAYS)
		return split_days(decimal, &days, &rest) &&
			!pg_sub_s64_overflow(days, UNIX_TO_POSTGRES_DAYS, &days) &&
			!pg_mul_s64_overflow(days, USECS_PER_DAY, usecs) &&
			!pg_add_s64_overflow(*usecs, rest, usecs) &&
			IS_VALID_TIMESTAMP(*usecs);

	if (!epoch_exponent(type, decimal, &exponent) ||
		!scale_decimal(decimal, exponent, &since_1970))
		return false;

	/* Timestamps end so late that 1970 is too far away for an int64. */
	if (!decimal->negative && since_1970 >= (uint64) UNIX_TO_POSTGRES_USECS)
	{
		since_1970 -= (uint64) UNIX_TO_POSTGRES_USECS;
		if (since_1970 > (uint64) PG_INT64_MAX)
			return false;
		*usecs = (int64) since_1970;
	}
	else if (since_1970 > (uint64) PG_INT64_MAX ||
			 pg_sub_s64_overflow(decimal->negative ? -(int64) since_1970 :
								 (int64) since_1970,
								 UNIX_TO_POSTGRES_USECS, usecs))
		return false;
	return IS_VALID_TIMESTAMP(*usecs);
}

static ValueStatus
decode_epoch(ValueType *type, const DocValue *doc, const Decimal *decimal,
			 ValueContext *cxt, Datum *value)
{
	int64		usecs;

	if (!epoch_usecs(type, decimal, &usecs))
		return epoch_out_of_range("timestamp", doc, cxt);
	usecs = round_to_typmod(usecs, type->typmod);
	if (!IS_VALID_TIMESTAMP(usecs))
		return epoch_out_of_range("timestamp", doc, cxt);
	*value = TimestampGetDatum(usecs);
	return VALUE_OK;
}

/* The day in which a time of any day lies. */
static inline int64
day_of(int64 usecs)
{
	int64		day = usecs / USECS_PER_DAY;

	return day - (usecs % USECS_PER_DAY < 0);
}

static ValueStatus
decode_date_epoch(ValueType *type, const DocValue *doc,
				  const Decimal *decimal, ValueContext *cxt, Datum *value)
{
	int64		days;
	int64		rest;

	if (type->epoch == EPOCH_DAYS)
	{
		if (!split_days(decimal, &days, &rest) ||
			pg_sub_s64_overflow(days, UNIX_TO_POSTGRES_DAYS, &days))
			return epoch_out_of_range("date", doc, cxt);
	}
	else
	{
		if (!epoch_usecs(type, decimal, &rest))
			return epoch_out_of_range("date", doc, cxt);
		days = day_of(rest);
	}
	if (!IS_VALID_DATE(days))
		return epoch_out_of_range("date", doc, cxt);
	*value = DateADTGetDatum((DateADT) days);
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

/* Microseconds since 2000 of what stands in an ISO 8601 string, at UTC. */
static inline int64
iso_usecs(const IsoTime *iso)
{
	return (date2j(iso->year, iso->month, iso->day) - POSTGRES_EPOCH_JDATE) *
		USECS_PER_DAY + iso->time - iso->offset;
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
	ValueStatus status;

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
		*value = TimestampGetDatum(round_to_typmod(iso_usecs(&iso),
												   type->typmod));
		return VALUE_OK;
	}
	if (decimal_parse(str, len, &decimal))
		return decode_epoch(type, doc, &decimal, cxt, value);

	/* timestamptz_in(), see ingest_decode_type.c; it rounds unchecked */
	status = value_call_input(type, doc, cxt, value);
	if (status == VALUE_OK &&
		!TIMESTAMP_NOT_FINITE(DatumGetTimestamp(*value)) &&
		!IS_VALID_TIMESTAMP(DatumGetTimestamp(*value)))
		return epoch_out_of_range("timestamp", doc, cxt);
	return status;
}

/* The fields of a date and time, as the input functions read them. */
typedef struct DateFields
{
	struct pg_tm tm;
	fsec_t		fsec;
	int			tz;				/* seconds west of Greenwich */
	bool		has_time;
} DateFields;

/* Read a text under a time zone.  False: it is no date. */
static bool
read_fields(const char *str, Size len, pg_tz *zone, DateFields *fields)
{
	char	   *copy = pnstrdup(str, len);
	char		buffer[MAXDATELEN + 1];
	char	   *field[MAXDATEFIELDS];
	int			ftype[MAXDATEFIELDS];
	int			nf;
	int			dtype;
	pg_tz	   *saved = session_timezone;
	bool		ok;

	memset(fields, 0, sizeof(*fields));
	if (ParseDateTime(copy, buffer, sizeof(buffer), field, ftype,
					  MAXDATEFIELDS, &nf) != 0)
		return false;

	/* nothing throws here */
	session_timezone = zone;
	ok = compat_decode_date_time(field, ftype, nf, &dtype, &fields->tm,
								 &fields->fsec, &fields->tz) == 0;
	session_timezone = saved;
	if (!ok || dtype != DTK_DATE)
		return false;

	/* An hour of nothing but zeros can be told from none by how it looks. */
	fields->has_time = fields->tm.tm_hour != 0 || fields->tm.tm_min != 0 ||
		fields->tm.tm_sec != 0 || fields->fsec != 0;
	for (int i = 0; i < nf; i++)
		fields->has_time = fields->has_time || ftype[i] == DTK_TIME ||
			(ftype[i] == DTK_STRING && strcmp(field[i], "t") == 0);
	return true;
}

/*
 * A date out of the ordinary.  The input function has the last word on what
 * is a date; then, whether it names a time and a zone, and the day at UTC.
 * A text without a zone is at another offset under another time zone.
 */
static ValueStatus
decode_date_text(ValueType *type, const DocValue *doc, const char *str,
				 Size len, ValueContext *cxt, Datum *value)
{
	ValueStatus status = value_call_input(type, doc, cxt, value);
	DateFields	at_utc;
	DateFields	elsewhere;
	int64		seconds;
	int64		days;

	if (status != VALUE_OK || DATE_NOT_FINITE(DatumGetDateADT(*value)))
		return status;
	if (!read_fields(str, len, cxt->utc, &at_utc) || !at_utc.has_time ||
		!read_fields(str, len, pg_tzset_offset(SECS_PER_HOUR), &elsewhere) ||
		at_utc.tz != elsewhere.tz)
		return VALUE_OK;
	seconds = at_utc.tm.tm_hour * SECS_PER_HOUR +
		at_utc.tm.tm_min * SECS_PER_MINUTE + at_utc.tm.tm_sec + at_utc.tz;
	days = (int64) date2j(at_utc.tm.tm_year, at_utc.tm.tm_mon,
						  at_utc.tm.tm_mday) - POSTGRES_EPOCH_JDATE +
		day_of(seconds * USECS_PER_SEC + at_utc.fsec);
	if (!IS_VALID_DATE(days))
		return epoch_out_of_range("date", doc, cxt);
	*value = DateADTGetDatum((DateADT) days);
	return VALUE_OK;
}

ValueStatus
value_decode_date(ValueType *type, const DocValue *doc, ValueContext *cxt,
				  Datum *value)
{
	char	   *str;
	Size		len;
	Decimal		decimal;
	IsoTime		iso;

	if (doc->kind == DOC_STRING)
	{
		if (value_string(cxt, doc, &str, &len) != VALUE_OK)
			return VALUE_BAD;
		if (parse_iso(str, len, &iso))
		{
			int64		days;

			/* what rounds up to midnight does so only at a zone */
			if (iso.has_zone)
				days = day_of(iso_usecs(&iso));
			else
				days = date2j(iso.year, iso.month, iso.day) -
					POSTGRES_EPOCH_JDATE;
			*value = DateADTGetDatum((DateADT) days);
			return VALUE_OK;
		}
	}
	else if (doc->kind == DOC_NUMBER)
	{
		str = unconstify(char *, doc->text);
		len = doc->len;
	}
	else
		return value_call_input(type, doc, cxt, value);
	if (type->epoch != EPOCH_BY_MAGNITUDE &&
		decimal_parse(str, len, &decimal))
		return decode_date_epoch(type, doc, &decimal, cxt, value);
	return decode_date_text(type, doc, str, len, cxt, value);
}

/*
 * Has the text of a time of day, which was good under UTC, a zone of its own?
 */
static bool
zone_is_said(ValueType *timetz, const DocValue *doc, ValueContext *cxt)
{
	Datum		value = (Datum) 0;
	ValueStatus status;

	/* the caller restores the user's, if this should throw */
	session_timezone = pg_tzset_offset(SECS_PER_HOUR);
	status = value_call_input(timetz, doc, cxt, &value);
	session_timezone = cxt->utc;
	return status == VALUE_OK && DatumGetTimeTzADTP(value)->zone == 0;
}

/*
 * Times of day are read as time with time zone, which is the only type that
 * looks at the zone (type->element), and moved to UTC.
 */
ValueStatus
value_decode_time(ValueType *type, const DocValue *doc, ValueContext *cxt,
				  Datum *value)
{
	ValueStatus status;
	TimeTzADT  *time;
	int64		usecs;

	if (doc->kind != DOC_STRING)
		return value_call_input(type, doc, cxt, value);
	status = value_call_input(type->element, doc, cxt, value);
	if (status != VALUE_OK)
		return status;
	time = DatumGetTimeTzADTP(*value);
	usecs = time->time;

	/* Midnight at the end of the day is the next day's, if it is at a zone. */
	if (time->zone != 0 ||
		(usecs == USECS_PER_DAY && zone_is_said(type->element, doc, cxt)))
	{
		usecs += time->zone * USECS_PER_SEC;
		usecs -= day_of(usecs) * USECS_PER_DAY;
	}
	*value = TimeADTGetDatum(usecs);
	return VALUE_OK;
}
