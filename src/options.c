/*-------------------------------------------------------------------------
 *
 * options.c
 *	  Arguments of the SQL functions: option objects, durations, positions.
 *
 * Everything is checked when a source or stream is made, so that a worker
 * reading the catalog meets only what it understands.  An unknown name is an
 * error with the nearest known one in its hint: a misspelt option that is
 * silently ignored is the kind of mistake nobody finds.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "common/int.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "options.h"

/* Names longer than this are never near another (limit of levenshtein). */
#define NEAR_MAX_LEN 200

/* Longer than that means nothing, and sums with timestamps stay in range. */
#define MAX_DURATION (PG_INT64_MAX / 4)

const char *
options_nearest(const char *name, const char *const *names, int n)
{
	const char *best = NULL;
	int			len = strlen(name);
	int			best_distance = Max(2, len / 3);

	if (len > NEAR_MAX_LEN)
		return NULL;
	for (int i = 0; i < n; i++)
	{
		int			distance;

		if (names[i] == NULL)
			continue;
		distance = varstr_levenshtein_less_equal(name, len, names[i],
												 strlen(names[i]), 1, 1, 1,
												 best_distance, true);
		if (distance < best_distance || (best == NULL && distance <= best_distance))
		{
			best = names[i];
			best_distance = distance;
		}
	}
	return best;
}

/* Comma-separated list of the names that can be used today. */
static char *
known_names(const OptionName *names)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (; names->name; names++)
		if (!names->later)
			appendStringInfo(&buf, "%s%s", buf.len ? ", " : "", names->name);
	return buf.data;
}

static void
check_key(const char *key, const OptionName *names, const char *what)
{
	const char *near;
	const char *candidates[32];
	int			n = 0;

	for (const OptionName *known = names; known->name; known++)
	{
		if (strcmp(known->name, key) != 0)
		{
			if (!known->later && n < lengthof(candidates))
				candidates[n++] = known->name;
			continue;
		}
		if (known->later)
			ereport(ERROR,
					errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("%s option \"%s\" is not supported yet", what, key));
		return;
	}
	near = options_nearest(key, candidates, n);
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("unknown %s option \"%s\"", what, key),
			near ? errhint("Perhaps you meant \"%s\".", near) :
			errhint("The options of a %s are: %s.", what, known_names(names)));
}

void
options_check_keys(Jsonb *options, const OptionName *names, const char *what)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("options of a %s must be a JSON object", what));

	it = JsonbIteratorInit(&options->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			check_key(pnstrdup(value.val.string.val, value.val.string.len),
					  names, what);
	}
}

JsonbValue *
options_get(Jsonb *options, const char *key)
{
	JsonbValue *value;

	if (!JB_ROOT_IS_OBJECT(options))
		return NULL;
	value = getKeyJsonValueFromContainer(&options->root, key, strlen(key),
										 NULL);
	if (value != NULL && value->type == jbvNull)
		return NULL;
	return value;
}

static char *
string_of(const JsonbValue *value)
{
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static void
wrong_type(const char *key, const char *expected)
{
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("\"%s\" must be %s", key, expected));
}

char *
options_text(Jsonb *options, const char *key)
{
	JsonbValue *value = options_get(options, key);

	if (value == NULL)
		return NULL;
	if (value->type != jbvString)
		wrong_type(key, "a string");
	return string_of(value);
}

char *
options_document(Jsonb *options, const char *key)
{
	JsonbValue *value = options_get(options, key);

	if (value != NULL && value->type == jbvBinary)
		return JsonbToCString(NULL, value->val.binary.data,
							  value->val.binary.len);
	return options_text(options, key);
}

double
options_number(Jsonb *options, const char *key, double dflt, double min,
			   double max)
{
	JsonbValue *value = options_get(options, key);
	double		result;

	if (value == NULL)
		return dflt;
	if (value->type != jbvNumeric)
		wrong_type(key, "a number");
	result = DatumGetFloat8(DirectFunctionCall1(numeric_float8,
												NumericGetDatum(value->val.numeric)));
	if (!(result >= min && result <= max))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("\"%s\" must be between %g and %g", key, min,
					   max));
	return result;
}

int64
options_count(Jsonb *options, const char *key, int64 dflt, int64 min,
			  int64 max)
{
	JsonbValue *value = options_get(options, key);
	Datum		truncated;
	Datum		given;

	if (value == NULL)
		return dflt;
	if (value->type != jbvNumeric)
		wrong_type(key, "a whole number");
	given = NumericGetDatum(value->val.numeric);
	truncated = DirectFunctionCall2(numeric_trunc, given, Int32GetDatum(0));
	if (!DatumGetBool(DirectFunctionCall2(numeric_eq, given, truncated)))
		wrong_type(key, "a whole number");
	if (DatumGetBool(DirectFunctionCall2(numeric_lt, given,
										 NumericGetDatum(int64_to_numeric(min)))) ||
		DatumGetBool(DirectFunctionCall2(numeric_gt, given,
										 NumericGetDatum(int64_to_numeric(max)))))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("\"%s\" must be between " INT64_FORMAT " and " INT64_FORMAT,
					   key, min, max));
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, given));
}

int64
options_size(Jsonb *options, const char *key, int64 dflt)
{
	JsonbValue *value = options_get(options, key);
	int64		result;

	if (value == NULL)
		return dflt;
	if (value->type == jbvNumeric)
		return options_count(options, key, dflt, 1, PG_INT64_MAX);
	if (value->type != jbvString)
		wrong_type(key, "a size, such as \"64 MB\" or a number of bytes");
	result = DatumGetInt64(DirectFunctionCall1(pg_size_bytes,
											   CStringGetTextDatum(string_of(value))));
	if (result < 1)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("\"%s\" must be positive", key));
	return result;
}

List *
options_names(Jsonb *options, const char *key)
{
	JsonbValue *value = options_get(options, key);
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	element;
	List	   *names = NIL;

	if (value == NULL)
		return NIL;
	if (value->type == jbvString)
		return list_make1(string_of(value));
	if (value->type != jbvBinary ||
		!JsonContainerIsArray(value->val.binary.data))
		wrong_type(key, "a column name or an array of column names");

	it = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &element, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (element.type != jbvString)
			wrong_type(key, "a column name or an array of column names");
		names = lappend(names, string_of(&element));
	}
	if (names == NIL)
		wrong_type(key, "a column name or an array of column names");
	return names;
}

int64
options_duration(const Interval *interval, const char *what)
{
	int64		us;

	if (interval->month != 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("\"%s\" must not have months or years", what),
				errdetail("Their length depends on the calendar."),
				errhint("Give it in days or shorter units."));
	if (pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &us) ||
		pg_add_s64_overflow(us, interval->time, &us) || us > MAX_DURATION)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("\"%s\" is out of range", what));
	if (us < 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("\"%s\" must not be negative", what));
	return us;
}

Interval *
options_interval(int64 us)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = us;
	return interval;
}

int
options_choice(const char *value, const char *const *allowed,
			   const char *what)
{
	StringInfoData buf;

	for (int i = 0; allowed[i]; i++)
		if (strcmp(value, allowed[i]) == 0)
			return i;

	initStringInfo(&buf);
	for (int i = 0; allowed[i]; i++)
		appendStringInfo(&buf, "%s\"%s\"", i ? " or " : "", allowed[i]);
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("invalid value for \"%s\": \"%s\"", what, value),
			errhint("Use %s.", buf.data));
	return -1;					/* keep compiler quiet */
}

/*
 * Positions
 */

static void
bad_position(const char *text, const char *what)
{
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("invalid value for \"%s\": \"%s\"", what, text),
			errhint("Use \"earliest\", \"latest\", a timestamp, or offsets a partition such as {\"0\": 42, \"1\": 7}."));
}

static int
compare_partitions(const void *a, const void *b)
{
	int32		pa = ((const PartitionOffset *) a)->partition;
	int32		pb = ((const PartitionOffset *) b)->partition;

	return (pa > pb) - (pa < pb);
}

/* A partition number: digits only, no sign, no leading zero. */
static bool
parse_partition(const char *text, int len, int32 *partition)
{
	int64		value = 0;

	if (len < 1 || len > 9 || (len > 1 && text[0] == '0'))
		return false;
	for (int i = 0; i < len; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return false;
		value = value * 10 + (text[i] - '0');
	}
	*partition = (int32) value;
	return true;
}

/* {"0": 42, "1": 7}; JSON syntax errors are raised by jsonb itself. */
static void
parse_offsets(Position *position, const char *text, const char *what)
{
	Jsonb	   *offsets;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;
	StringInfoData buf;

	offsets = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
												 CStringGetDatum(text)));
	if (!JB_ROOT_IS_OBJECT(offsets) || JB_ROOT_COUNT(offsets) == 0)
		bad_position(text, what);
	position->offsets = palloc(JB_ROOT_COUNT(offsets) *
							   sizeof(PartitionOffset));

	it = JsonbIteratorInit(&offsets->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		PartitionOffset *entry = &position->offsets[position->noffsets];

		if (token == WJB_KEY &&
			!parse_partition(value.val.string.val, value.val.string.len,
							 &entry->partition))
			ereport(ERROR,
					errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("invalid partition \"%.*s\" in \"%s\"",
						   value.val.string.len, value.val.string.val, what),
					errdetail("A partition is a whole number from 0."));
		if (token == WJB_VALUE)
		{
			char	   *key = psprintf("%d", entry->partition);

			entry->offset = options_count(offsets, key, -1, 0, PG_INT64_MAX);
			if (entry->offset < 0)
				bad_position(text, what);
			position->noffsets++;
		}
	}
	qsort(position->offsets, position->noffsets, sizeof(PartitionOffset),
		  compare_partitions);

	initStringInfo(&buf);
	for (int i = 0; i < position->noffsets; i++)
		appendStringInfo(&buf, "%s\"%d\": " INT64_FORMAT, i ? ", " : "{",
						 position->offsets[i].partition,
						 position->offsets[i].offset);
	appendStringInfoChar(&buf, '}');
	position->text = buf.data;
}

/* A finite timestamp in ISO 8601, UTC: reads the same under all settings. */
static char *
portable_timestamp(TimestampTz time)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char		buf[MAXDATELEN + 1];
	int			tz = 0;

	if (timestamp2tm(time, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				errmsg("timestamp out of range"));
	tm.tm_isdst = 0;			/* print the zone */
	EncodeDateTime(&tm, fsec, true, tz, NULL, USE_ISO_DATES, buf);
	return pstrdup(buf);
}

Position *
position_parse(const char *text, const char *what)
{
	Position   *position = palloc0(sizeof(Position));
	const char *p = text;

	while (isspace((unsigned char) *p))
		p++;

	if (strcmp(text, "earliest") == 0 || strcmp(text, "latest") == 0)
	{
		position->kind = text[0] == 'e' ? POSITION_EARLIEST : POSITION_LATEST;

		position->text = pstrdup(text);
	}
	else if (*p == '{')
	{
		position->kind = POSITION_OFFSETS;
		parse_offsets(position, text, what);
	}
	else if (!isdigit((unsigned char) *p))
		bad_position(text, what);
	else
	{
		position->kind = POSITION_TIME;
		position->time =
			DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in,
													CStringGetDatum(text),
													ObjectIdGetDatum(InvalidOid),
													Int32GetDatum(-1)));
		if (TIMESTAMP_NOT_FINITE(position->time))
			bad_position(text, what);
		position->text = portable_timestamp(position->time);
	}
	return position;
}
