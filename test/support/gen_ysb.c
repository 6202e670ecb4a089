/*-------------------------------------------------------------------------
 *
 * gen_ysb.c
 *	  Advertising events of the Yahoo streaming benchmark.
 *
 * 100 campaigns of 10 ads, 100 users, 100 pages; every value is a string,
 * event_time is epoch milliseconds.  The job: keep the views, look up the
 * campaign of the ad, count per campaign and window of 10 s.  By default
 * event n is at start + n * 100 us, and the start is on the edge of a
 * window, so 10 million events are 100 whole windows.
 *
 * --ads-file writes the dimension table, ad_id TAB campaign_id.  --oracle
 * writes the right answer, campaign_id TAB window_start_ms TAB count, which
 * is counted here, by code that shares nothing with what is tested.
 *
 * --skew-ms moves each time by up to so much either way, --late-every N
 * makes one in N up to 60 s late.  With --inline-campaign the events say
 * their campaign themselves, for many more --campaigns than a join is for.
 *
 *-------------------------------------------------------------------------
 */
#include "gen.h"

#include <errno.h>
#include <stdlib.h>

/* 2023-11-14 22:13:20 UTC, a multiple of the window */
#define DEFAULT_START_MS INT64_C(1700000000000)
#define DEFAULT_STEP_US 100

#define ADS_PER_CAMPAIGN 10
#define N_USERS 100
#define N_PAGES 100
#define WINDOW_MS 10000
#define LATE_MS 60000
#define UUID_LEN 36

/* purposes of random numbers; an id's number stands where an event's does */
enum
{
	DRAW_CHOICE, DRAW_AD, DRAW_SKEW, DRAW_LATE, DRAW_LATENESS,
	DRAW_CAMPAIGN_ID, DRAW_AD_ID = DRAW_CAMPAIGN_ID + 2,
	DRAW_USER_ID = DRAW_AD_ID + 2, DRAW_PAGE_ID = DRAW_USER_ID + 2
};

static const char *const ad_types[] = {
	"banner", "modal", "sponsored-search", "mail", "mobile"
};

/* the first is what the job keeps */
static const char *const event_types[] = {"view", "click", "purchase"};

/* the right answer: a row of counters per window, made when first met */
static uint32_t **window_counts = NULL;
static int64_t n_windows = 0;
static int64_t first_window = 0;	/* number of window_counts[0] */

static char *
put_string(char *p, const char *s)
{
	size_t		len = strlen(s);

	memcpy(p, s, len);
	return p + len;
}

static char *
put_number(char *p, int64_t value)
{
	char		digits[20];
	int			at = sizeof(digits);

	do
		digits[--at] = (char) ('0' + value % 10);
	while ((value /= 10) > 0);
	memcpy(p, digits + at, sizeof(digits) - at);
	return p + sizeof(digits) - at;
}

/* the UUID, version 4, of user, page, ad or campaign number n */
static char *
put_uuid(char *p, uint64_t seed, uint64_t n, uint64_t purpose)
{
	static const char hex[] = "0123456789abcdef";
	uint64_t	half[2];

	half[0] = draw(seed, n, purpose);
	half[1] = draw(seed, n, purpose + 1);
	half[0] = (half[0] & ~UINT64_C(0xf000)) | UINT64_C(0x4000);
	half[1] = (half[1] & ~(UINT64_C(3) << 62)) | (UINT64_C(1) << 63);

	for (int i = 0; i < 2; i++)
	{
		for (int shift = 60; shift >= 0; shift -= 4)
		{
			*p++ = hex[(half[i] >> shift) & 15];
			if (i == 0 ? shift == 32 || shift == 16 || shift == 0 :
				shift == 48)
				*p++ = '-';
		}
	}
	return p;
}

/* counts a view in the right answer */
static void
count_view(const GenOptions *o, int64_t campaign, int64_t time_ms)
{
	int64_t		window = time_ms / WINDOW_MS;

	if (window_counts == NULL)
		first_window = window - (LATE_MS + o->skew_ms) / WINDOW_MS - 2;
	if (window < first_window)
		die("an event is earlier than the right answer has room for");
	if (window - first_window >= n_windows)
	{
		int64_t		n = (window - first_window + 1) * 2;

		window_counts = realloc(window_counts, n * sizeof(uint32_t *));
		if (window_counts == NULL)
			die("out of memory");
		memset(window_counts + n_windows, 0,
			   (n - n_windows) * sizeof(uint32_t *));
		n_windows = n;
	}
	if (window_counts[window - first_window] == NULL)
		window_counts[window - first_window] =
			xcalloc(o->campaigns, sizeof(uint32_t));
	window_counts[window - first_window][campaign]++;
}

static FILE *
open_file(const char *path)
{
	FILE	   *f = fopen(path, "w");

	if (f == NULL)
		die("could not open \"%s\": %s", path, strerror(errno));
	return f;
}

static void
close_file(FILE *f, const char *path)
{
	if (ferror(f) || fclose(f) != 0)
		die("could not write \"%s\": %s", path, strerror(errno));
}

static void
write_ads(const GenOptions *o)
{
	FILE	   *f = open_file(o->ads_file);

	for (int64_t ad = 0; ad < o->campaigns * ADS_PER_CAMPAIGN; ad++)
	{
		char		line[2 * UUID_LEN + 2];
		char	   *p = line;

		p = put_uuid(p, o->seed, ad, DRAW_AD_ID);
		*p++ = '\t';
		p = put_uuid(p, o->seed, ad / ADS_PER_CAMPAIGN, DRAW_CAMPAIGN_ID);
		*p++ = '\n';
		fwrite(line, 1, p - line, f);
	}
	close_file(f, o->ads_file);
}

/* writes the right answer, and says how much it is */
static void
write_oracle(const GenOptions *o)
{
	FILE	   *f = open_file(o->oracle_file);
	int64_t		rows = 0;
	int64_t		sum = 0;

	for (int64_t w = 0; w < n_windows; w++)
	{
		for (int64_t c = 0; window_counts[w] != NULL && c < o->campaigns; c++)
		{
			char		id[UUID_LEN];

			if (window_counts[w][c] == 0)
				continue;
			put_uuid(id, o->seed, c, DRAW_CAMPAIGN_ID);
			fprintf(f, "%.*s\t%lld\t%u\n", UUID_LEN, id,
					(long long) (first_window + w) * WINDOW_MS,
					window_counts[w][c]);
			rows++;
			sum += window_counts[w][c];
		}
		free(window_counts[w]);
	}
	free(window_counts);
	close_file(f, o->oracle_file);
	fprintf(stderr, "oracle: %lld rows, sum %lld\n", (long long) rows,
			(long long) sum);
}

void
gen_ysb(GenOptions *o)
{
	uint32_t	n_ads = (uint32_t) o->campaigns * ADS_PER_CAMPAIGN;
	char		buf[512];
	int64_t		n = -1;
	int64_t		time_us;

	if (o->start_ms < 0 && o->rate <= 0)
		o->start_ms = DEFAULT_START_MS;
	if (o->step_us < 0)
		o->step_us = DEFAULT_STEP_US;
	if (o->ads_file != NULL)
		write_ads(o);

	while (next_event(o, &n, &time_us))
	{
		uint64_t	choice = draw(o->seed, n, DRAW_CHOICE);
		uint32_t	ad;
		uint32_t	type;
		int64_t		time_ms = time_us / 1000;
		char	   *p = buf;

		/* five small numbers out of 64 bits, each from bits of its own */
		ad = scale32((uint32_t) draw(o->seed, n, DRAW_AD), n_ads);
		type = scale32((uint32_t) choice, lengthof(event_types));
		if (o->skew_ms > 0)
			time_ms += (int64_t) (draw(o->seed, n, DRAW_SKEW) %
								  (2 * o->skew_ms + 1)) - o->skew_ms;
		if (o->late_every > 0 &&
			draw(o->seed, n, DRAW_LATE) % o->late_every == 0)
			time_ms -= draw(o->seed, n, DRAW_LATENESS) % (LATE_MS + 1);

		p = put_string(p, "{\"user_id\":\"");
		p = put_uuid(p, o->seed, (choice >> 32 & 0x3ff) % N_USERS,
					 DRAW_USER_ID);
		p = put_string(p, "\",\"page_id\":\"");
		p = put_uuid(p, o->seed, (choice >> 42 & 0x3ff) % N_PAGES,
					 DRAW_PAGE_ID);
		p = put_string(p, "\",\"ad_id\":\"");
		p = put_uuid(p, o->seed, ad, DRAW_AD_ID);
		if (o->inline_campaign)
		{
			p = put_string(p, "\",\"campaign_id\":\"");
			p = put_uuid(p, o->seed, ad / ADS_PER_CAMPAIGN,
						 DRAW_CAMPAIGN_ID);
		}
		p = put_string(p, "\",\"ad_type\":\"");
		p = put_string(p, ad_types[(choice >> 52) % lengthof(ad_types)]);
		p = put_string(p, "\",\"event_type\":\"");
		p = put_string(p, event_types[type]);
		p = put_string(p, "\",\"event_time\":\"");
		p = put_number(p, time_ms);
		p = put_string(p, "\",\"ip_address\":\"1.2.3.4\"}");
		out_record((int) (n % o->partitions), buf, p - buf);

		if (type == 0 && o->oracle_file != NULL)
			count_view(o, ad / ADS_PER_CAMPAIGN, time_ms);
	}
	if (o->oracle_file != NULL)
		write_oracle(o);
}
