/*-------------------------------------------------------------------------
 *
 * gen_events.c
 *	  Small rows for tests of correctness, above all after crashes.
 *
 *	{"id":17,"k":"k3","v":-42,"at":"2024-01-01T00:00:00.170Z","txt":"..."}
 *
 * The id is the event's number, so a missing or doubled row shows at once.
 * The key k is one of --keys, unevenly frequent.  v is in [-1000, 1000].
 * The time "at" is that of the event, minus up to --disorder-ms.  The text
 * has everything that a decoder can stumble over and still is valid JSON.
 *
 *-------------------------------------------------------------------------
 */
#include "gen.h"

#include <time.h>

/* 2024-01-01 00:00:00 UTC */
#define DEFAULT_START_MS INT64_C(1704067200000)
#define DEFAULT_STEP_US 10000

enum
{
	DRAW_KEY, DRAW_VALUE, DRAW_TIME, DRAW_TEXT
};

/* JSON as it stands in the payload */
static const char *const texts[] = {
	"plain", "", "two words", "a \\\"quoted\\\" word", "back\\\\slash",
	"tab\\there", "line\\nbreak", "caf\xc3\xa9", "\\u00e4\\u00f6",
	"\xe6\x97\xa5\xe6\x9c\xac", "\xf0\x9f\x8c\x8a", "\\ud83c\\udf0a",
	"{\\\"not\\\": \\\"nested\\\"}", "comma, colon: and ; rest", "'single'",
	"\\/slash\\/", "  blanks  ", "null", "%s%d", "\\\\N"
};

void
gen_events(GenOptions *o)
{
	char		buf[256];
	int64_t		n = -1;
	int64_t		time_us;

	if (o->start_ms < 0 && o->rate <= 0)
		o->start_ms = DEFAULT_START_MS;
	if (o->step_us < 0)
		o->step_us = DEFAULT_STEP_US;

	while (next_event(o, &n, &time_us))
	{
		uint64_t	key_bits = draw(o->seed, n, DRAW_KEY);
		uint64_t	text_bits = draw(o->seed, n, DRAW_TEXT);
		uint32_t	key;
		int			value;
		int64_t		at_ms = time_us / 1000;
		time_t		at;
		struct tm	tm;
		int			len;

		/* the product of two draws: small numbers are more frequent */
		key = scale32((uint32_t) key_bits, (uint32_t) o->keys);
		key = scale32((uint32_t) (key_bits >> 32), key + 1);
		value = (int) scale32((uint32_t) draw(o->seed, n, DRAW_VALUE),
							  2001) - 1000;
		if (o->disorder_ms > 0)
			at_ms -= scale32((uint32_t) draw(o->seed, n, DRAW_TIME),
							 (uint32_t) o->disorder_ms + 1);
		at = at_ms / 1000;
		if (gmtime_r(&at, &tm) == NULL)
			die("bad time");

		len = snprintf(buf, sizeof(buf),
					   "{\"id\":%lld,\"k\":\"k%u\",\"v\":%d,"
					   "\"at\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\","
					   "\"txt\":\"%s\"}",
					   (long long) n, key, value,
					   tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
					   tm.tm_hour, tm.tm_min, tm.tm_sec, (int) (at_ms % 1000),
					   texts[scale32((uint32_t) text_bits,
									 lengthof(texts))]);
		if (len < 0 || (size_t) len >= sizeof(buf))
			die("row too long");
		out_record((int) (n % o->partitions), buf, len);
	}
}
