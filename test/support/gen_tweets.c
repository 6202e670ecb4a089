/*-------------------------------------------------------------------------
 *
 * gen_tweets.c
 *	  Documents like those of a microblog, for the demo.
 *
 * The shape is that of the public stream the streaming-ETL talk reads: id,
 * timestamp_ms as a string, text, user.lang, and the nested rest that a
 * consumer does not want.  Languages have unequal weights.  Words follow
 * Zipf's law; each minute of event time has a word of its own on top, so
 * that a list of trends moves.  Texts have emoji, as UTF-8 and as escaped
 * surrogate pairs, escapes, tags and addresses.
 *
 * As in life, some of it is dirty.  Fractions of the documents: --no-lang
 * without user.lang, --broken no JSON at all, --late 2 to 10 minutes late,
 * --disorder up to 5 s late.  --clean makes all these 0.
 *
 *-------------------------------------------------------------------------
 */
#include "gen.h"

#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

/* 2024-01-01 00:00:00 UTC */
#define DEFAULT_START_MS INT64_C(1704067200000)
#define DEFAULT_STEP_US 10000

#define MAX_WORDS 128
#define TREND_MS 60000

enum
{
	DRAW_LANG, DRAW_USER, DRAW_DIRT, DRAW_BROKEN, DRAW_LATE, DRAW_LATENESS,
	DRAW_DISORDER, DRAW_SHAPE, DRAW_COUNTS, DRAW_WORDS
};

typedef struct Language
{
	const char *code;
	int			weight;			/* in hundredths of the documents */
	const char *place;			/* users' time zone or town */
	const char *vocabulary;		/* the most frequent word first */

	/* made of the vocabulary at the start */
	const char *words[MAX_WORDS];
	double		cdf[MAX_WORDS]; /* cumulated frequency, the last is 1 */
	int			n_words;
} Language;

static Language languages[] = {
	{
		.code = "en",.weight = 42,.place = "London",
		.vocabulary =
		"the to a i you and in is it my of for on me that this so just be "
		"with have not love but all what like your are when good day new "
		"now time get go up no if out do we one can how today really see "
		"people happy music stream data coffee weekend morning night game "
		"video world friends watching never always best thanks please "
		"football river rain summer train kafka postgres window table "
		"breaking news work home sleep book movie birthday beautiful"
	},
	{
		.code = "ja",.weight = 15,.place = "\xe6\x9d\xb1\xe4\xba\xac",
		.vocabulary =
		"\xe3\x81\x93\xe3\x82\x8c \xe4\xbb\x8a\xe6\x97\xa5 "
		"\xe3\x81\x82\xe3\x82\x8a\xe3\x81\x8c\xe3\x81\xa8\xe3\x81\x86 "
		"\xe5\xa5\xbd\xe3\x81\x8d \xe3\x81\x8a\xe3\x81\xaf\xe3\x82\x88\xe3\x81\x86 "
		"\xe9\x9b\xa8 \xe9\x9f\xb3\xe6\xa5\xbd \xe4\xbb\x95\xe4\xba\x8b "
		"\xe7\x8c\xab \xe6\x98\xa0\xe7\x94\xbb \xe5\xb7\x9d \xe6\x98\x8e\xe6\x97\xa5"
	},
	{
		.code = "es",.weight = 12,.place = "Madrid",
		.vocabulary =
		"de que no la el a y en me es un lo te mi con por para los se "
		"ma\xc3\xb1" "ana hoy gracias amor feliz d\xc3\xad" "a bien noche "
		"f\xc3\xba" "tbol m\xc3\xba" "sica casa a\xc3\xb1o siempre mundo"
	},
	{
		.code = "pt",.weight = 8,.place = "S\xc3\xa3o Paulo",
		.vocabulary =
		"que n\xc3\xa3o eu de e o a um me pra uma n\xc3\xb3s muito hoje "
		"cora\xc3\xa7\xc3\xa3o saudade bom dia noite jogo vida amo "
		"m\xc3\xba" "sica casa sempre amanh\xc3\xa3"
	},
	{
		.code = "ar",.weight = 6,.place = "\xd8\xa7\xd9\x84\xd9\x82\xd8\xa7\xd9\x87\xd8\xb1\xd8\xa9",
		.vocabulary =
		"\xd9\x85\xd9\x86 \xd9\x81\xd9\x8a \xd9\x84\xd8\xa7 \xd9\x85\xd8\xa7 "
		"\xd8\xb9\xd9\x84\xd9\x89 \xd9\x8a\xd8\xa7 "
		"\xd8\xa7\xd9\x84\xd9\x8a\xd9\x88\xd9\x85 \xd8\xb4\xd9\x83\xd8\xb1\xd8\xa7 "
		"\xd8\xb5\xd8\xa8\xd8\xa7\xd8\xad \xd9\x82\xd9\x84\xd8\xa8"
	},
	{
		.code = "fr",.weight = 5,.place = "Paris",
		.vocabulary =
		"de je la le et les pas que des un est une tu pour en qui sur "
		"aujourd'hui merci bonjour tr\xc3\xa8s \xc3\xa9t\xc3\xa9 d\xc3\xa9j\xc3\xa0 "
		"no\xc3\xabl musique match semaine \xc5\x93uvre demain"
	},
	{
		.code = "tr",.weight = 4,.place = "\xc4\xb0stanbul",
		.vocabulary =
		"bir bu ve ne de ben \xc3\xa7ok i\xc3\xa7in g\xc3\xbcn g\xc3\xbczel "
		"bug\xc3\xbcn te\xc5\x9f" "ekk\xc3\xbcrler ak\xc5\x9f" "am "
		"\xc4\xb1\xc5\x9f\xc4\xb1k ma\xc3\xa7 seni"
	},
	{
		.code = "de",.weight = 3,.place = "Berlin",
		.vocabulary =
		"ich die und der das nicht ist ein es mit zu so auf heute immer "
		"sch\xc3\xb6n gr\xc3\xbc\xc3\x9f" "e \xc3\xbc" "ber m\xc3\xbc" "de "
		"stra\xc3\x9f" "e wetter fluss wehr morgen danke"
	},
	{
		.code = "ko",.weight = 3,.place = "\xec\x84\x9c\xec\x9a\xb8",
		.vocabulary =
		"\xec\x98\xa4\xeb\x8a\x98 \xec\xa0\x95\xeb\xa7\x90 "
		"\xec\x82\xac\xeb\x9e\x91 \xea\xb0\x90\xec\x82\xac "
		"\xec\x9d\x8c\xec\x95\x85 \xeb\x82\xb4\xec\x9d\xbc"
	},
	{
		.code = "id",.weight = 2,.place = "Jakarta",
		.vocabulary =
		"yang di aku kamu dan ini itu ya ga ada mau sama lagi hari selamat "
		"pagi malam cinta terima kasih"
	}
};

/* as they may stand in a JSON text: plain UTF-8 or escaped pairs */
static const char *const emoji[] = {
	"\xf0\x9f\x98\x82", "\xe2\x9d\xa4\xef\xb8\x8f", "\xf0\x9f\x98\x8d",
	"\xf0\x9f\x8c\x8a", "\xf0\x9f\x91\x8d\xf0\x9f\x8f\xbd", "\\ud83d\\ude0a",
	"\\ud83d\\udd25", "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb",
	"\xf0\x9f\x87\xa9\xf0\x9f\x87\xaa", "\\u2615"
};

static const char *const trends[] = {
	"#weir", "#worldcup", "#monday", "#eclipse", "#election", "#snow",
	"#newalbum", "#finale", "#marathon", "#launch", "#festival", "#strike"
};

static const char *const sources[] = {
	"<a href=\\\"http:\\/\\/example.com\\/phone\\\" rel=\\\"nofollow\\\">Phone<\\/a>",
	"<a href=\\\"http:\\/\\/example.com\\\" rel=\\\"nofollow\\\">Web Client<\\/a>",
	"web"
};

/* none of these is JSON, nor the last UTF-8 */
static const char *const broken[] = {
	"{\"created_at\":\"Mon Jan 01 00:00:00 +0000 2024\",\"id\":7,\"text\":\"cut o",
	"",
	"not json",
	"{\"id\":7,\"text\":\"no end\"",
	"{\"id\":7,,\"text\":\"two commas\"}",
	"{'id':7}",
	"<html>503 Service Unavailable</html>",
	"{\"id\":7,\"text\":\"\xc3\x28\",\"user\":{\"lang\":\"en\"}}"
};

/* the document that is being written */
static char doc[8192];
static size_t doc_len;

static void add(const char *fmt,...) __attribute__((format(printf, 1, 2)));

static void
add(const char *fmt,...)
{
	va_list		ap;
	int			len;

	va_start(ap, fmt);
	len = vsnprintf(doc + doc_len, sizeof(doc) - doc_len, fmt, ap);
	va_end(ap);
	if (len < 0 || (size_t) len >= sizeof(doc) - doc_len)
		die("document too long");
	doc_len += len;
}

/* cuts the vocabularies into words and gives these Zipf's frequencies */
static void
prepare_languages(void)
{
	for (size_t i = 0; i < lengthof(languages); i++)
	{
		Language   *l = &languages[i];
		char	   *words = xstrdup(l->vocabulary); /* kept for good */
		char	   *save;
		double		total = 0;

		for (char *w = strtok_r(words, " ", &save); w != NULL;
			 w = strtok_r(NULL, " ", &save))
		{
			if (l->n_words == MAX_WORDS)
				die("too many words");
			total += 1.0 / (l->n_words + 2);
			l->cdf[l->n_words] = total;
			l->words[l->n_words++] = w;
		}
		for (int w = 0; w < l->n_words; w++)
			l->cdf[w] /= total;
		l->cdf[l->n_words - 1] = 1.0;
	}
}

static const Language *
choose_language(uint64_t bits)
{
	uint32_t	at;
	int			total = 0;
	size_t		i;

	for (i = 0; i < lengthof(languages); i++)
		total += languages[i].weight;
	at = scale32((uint32_t) bits, total);
	for (i = 0; at >= (uint32_t) languages[i].weight; i++)
		at -= languages[i].weight;
	return &languages[i];
}

static const char *
choose_word(const Language *l, uint64_t bits)
{
	double		at = (double) (bits >> 11) / 9007199254740992.0;
	int			lo = 0;
	int			hi = l->n_words - 1;

	while (lo < hi)
	{
		int			mid = (lo + hi) / 2;

		if (at < l->cdf[mid])
			hi = mid;
		else
			lo = mid + 1;
	}
	return l->words[lo];
}

/* "Mon Jan 01 00:00:00 +0000 2024", whatever the locale */
static void
add_created_at(int64_t at_ms)
{
	static const char days[] = "SunMonTueWedThuFriSat";
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	time_t		at = at_ms / 1000;
	struct tm	tm;

	if (gmtime_r(&at, &tm) == NULL)
		die("bad time");
	add("\"%.3s %.3s %02d %02d:%02d:%02d +0000 %d\"", days + 3 * tm.tm_wday,
		months + 3 * tm.tm_mon, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
		tm.tm_year + 1900);
}

/*
 * Adds the text as a JSON string.  Returns the trend in it, or NULL.
 */
static const char *
add_text(const Language *l, uint64_t seed, int64_t n, int64_t time_ms)
{
	uint64_t	shape = draw(seed, n, DRAW_SHAPE);
	int			n_words = 3 + (int) scale32((uint32_t) shape, 14);
	uint32_t	extras = (uint32_t) (shape >> 32);
	const char *trend = NULL;

	add("\"");
	if (extras % 100 < 12)
		add("RT @user%u: ", (extras >> 8) % 5000);
	for (int w = 0; w < n_words; w++)
	{
		uint64_t	bits = draw(seed, n, DRAW_WORDS + w);
		const char *word = choose_word(l, bits);
		const char *gap = w + 1 == n_words ? "" : " ";

		/* the low bits have no part in the choice of the word */
		switch (bits & 127)
		{
			case 0:
				add("\\\"%s\\\"%s", word, gap);
				break;
			case 1:
				add("%s\\n", word);
				break;
			case 2:
				add("%s,  ", word);
				break;
			default:
				add("%s%s", word, gap);
		}
	}
	if ((extras >> 4) % 100 < 15)
	{
		/* the next trend, and what is left of the one before */
		int64_t		minute = time_ms / TREND_MS - ((extras >> 12) % 4 == 0);

		trend = trends[mix64(seed + minute) % lengthof(trends)];
		add(" %s", trend);
	}
	if ((extras >> 6) % 100 < 25)
		add(" %s", emoji[(extras >> 16) % lengthof(emoji)]);
	if ((extras >> 10) % 100 < 10)
		add(" https:\\/\\/example.com\\/%06x", extras >> 8);
	add("\"");
	return trend;
}

static void
add_tweet(const GenOptions *o, int64_t n, int64_t time_ms)
{
	const Language *l = choose_language(draw(o->seed, n, DRAW_LANG));
	uint64_t	user_bits = draw(o->seed, n, DRAW_USER);
	uint32_t	counts = (uint32_t) draw(o->seed, n, DRAW_COUNTS);
	uint32_t	user;
	int64_t		id = INT64_C(740000000000000000) + n * 4096 + counts % 4096;
	const char *trend;

	/* some users write more than others */
	user = scale32((uint32_t) user_bits, 5000);
	user = scale32((uint32_t) (user_bits >> 32), user + 1);

	add("{\"created_at\":");
	add_created_at(time_ms);
	add(",\"id\":%lld,\"id_str\":\"%lld\",\"text\":", (long long) id,
		(long long) id);
	trend = add_text(l, o->seed, n, time_ms);
	add(",\"source\":\"%s\",\"truncated\":false,"
		"\"in_reply_to_status_id\":null,\"in_reply_to_user_id\":null,"
		"\"user\":{\"id\":%u,\"id_str\":\"%u\",\"name\":\"User %u\","
		"\"screen_name\":\"user%u\",\"location\":",
		sources[counts % lengthof(sources)], user, user, user, user);
	if (user % 3 == 0)
		add("null");
	else
		add("\"%s\"", l->place);
	add(",\"description\":\"%s %s\",\"protected\":false,\"verified\":%s,"
		"\"followers_count\":%u,\"friends_count\":%u,\"statuses_count\":%u,"
		"\"utc_offset\":null",
		choose_word(l, mix64(user)), choose_word(l, mix64(user + 1)),
		user % 50 == 0 ? "true" : "false", 5000 / (user + 1), user % 700,
		user * 7);
	if (!chance(draw(o->seed, n, DRAW_DIRT), o->no_lang))
		add(",\"lang\":\"%s\"", l->code);
	add(",\"default_profile\":true},\"geo\":null,\"coordinates\":");
	if (counts % 40 == 0)
		add("{\"type\":\"Point\",\"coordinates\":[%.4f,%.4f]}",
			(double) (counts % 3600) / 10 - 180,
			(double) (counts % 1700) / 10 - 85);
	else
		add("null");
	add(",\"place\":null,\"retweet_count\":%u,\"favorite_count\":%u,"
		"\"entities\":{\"hashtags\":[", counts >> 8 & 15, counts >> 12 & 31);
	if (trend != NULL)
		add("{\"text\":\"%s\",\"indices\":[0,%d]}", trend + 1,
			(int) strlen(trend));
	add("],\"urls\":[],\"user_mentions\":[],\"symbols\":[]},"
		"\"favorited\":false,\"retweeted\":false,\"filter_level\":\"low\","
		"\"lang\":\"%s\",\"timestamp_ms\":\"%lld\"}", l->code,
		(long long) time_ms);
}

void
gen_tweets(GenOptions *o)
{
	int64_t		n = -1;
	int64_t		time_us;

	if (o->start_ms < 0 && o->rate <= 0)
		o->start_ms = DEFAULT_START_MS;
	if (o->step_us < 0)
		o->step_us = DEFAULT_STEP_US;
	prepare_languages();

	while (next_event(o, &n, &time_us))
	{
		int64_t		time_ms = time_us / 1000;
		uint64_t	broken_bits = draw(o->seed, n, DRAW_BROKEN);
		uint64_t	lateness = draw(o->seed, n, DRAW_LATENESS);

		doc_len = 0;
		if (chance(draw(o->seed, n, DRAW_LATE), o->late))
			time_ms -= 120000 + lateness % 480001;
		else if (chance(draw(o->seed, n, DRAW_DISORDER), o->disorder))
			time_ms -= lateness % 5001;

		/* its low bits have no part in the chance */
		if (chance(broken_bits, o->broken))
			add("%s", broken[broken_bits % lengthof(broken)]);
		else
			add_tweet(o, n, time_ms);
		out_record((int) (n % o->partitions), doc, doc_len);
	}
}
