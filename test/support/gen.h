/*-------------------------------------------------------------------------
 *
 * gen.h
 *	  What the generators share: options, random numbers, output, pace.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GEN_H
#define GEN_H

#include "producer.h"

#include <string.h>

typedef struct GenOptions
{
	/* how much, and when */
	int64_t		events;			/* how many; -1: no limit */
	int64_t		first;			/* number of the first event */
	int64_t		start_ms;		/* time of event 0; -1: the default */
	int64_t		step_us;		/* time between events; -1: the default */
	double		rate;			/* events a second of real time; 0: no pace */
	int			partitions;
	uint64_t	seed;

	/* where to */
	ProducerOptions producer;	/* bootstrap NULL: to standard output */
	bool		plain;			/* no partition in front of the payload */

	/* ysb */
	const char *ads_file;
	const char *oracle_file;
	int64_t		campaigns;
	bool		inline_campaign;	/* campaign_id stands in the event */
	int64_t		skew_ms;
	int64_t		late_every;		/* one of so many is late, 0: none */

	/* tweets: fractions of 1 */
	double		no_lang;
	double		broken;
	double		late;
	double		disorder;

	/* events */
	int64_t		keys;
	int64_t		disorder_ms;
} GenOptions;

/*
 * Random bits as a function of seed, number of the event and purpose.  They
 * do not depend on what was drawn before, so event n is the same whatever
 * the first event of a run was.
 */
static inline uint64_t
mix64(uint64_t x)
{
	x ^= x >> 30;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	x ^= x >> 27;
	x *= UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static inline uint64_t
draw(uint64_t seed, uint64_t n, uint64_t purpose)
{
	const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15);

	return mix64(mix64(mix64(seed + golden) + n * golden) +
				 (purpose + 1) * golden);
}

/* a number in [0, n) out of 32 random bits */
static inline uint32_t
scale32(uint32_t bits, uint32_t n)
{
	return (uint32_t) (((uint64_t) bits * n) >> 32);
}

/* true with that probability */
static inline bool
chance(uint64_t bits, double probability)
{
	return (double) (bits >> 11) * (1.0 / 9007199254740992.0) < probability;
}

extern void out_record(int partition, const char *payload, size_t len);
extern bool next_event(const GenOptions *o, int64_t *n, int64_t *time_us);

extern void gen_ysb(GenOptions *o);
extern void gen_tweets(GenOptions *o);
extern void gen_events(GenOptions *o);

#endif							/* GEN_H */
