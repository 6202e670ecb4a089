/*-------------------------------------------------------------------------
 *
 * options.h
 *	  Arguments of the SQL functions: option objects, durations, positions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_OPTIONS_H
#define WEIR_OPTIONS_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

/* One key that an options object may have. */
typedef struct OptionName
{
	const char *name;
	bool		later;			/* of a later release: raises 0A000 */
} OptionName;

/*
 * Check that options is an object whose keys are all in names (ended by a
 * NULL name).  ERROR 22023 with the nearest names otherwise.  what names the
 * object in messages: "source", "stream".
 */
extern void options_check_keys(Jsonb *options, const OptionName *names,
							   const char *what);

/* Value of a key; NULL when missing or JSON null. */
extern JsonbValue *options_get(Jsonb *options, const char *key);

/*
 * Typed values, checked; dflt when the key is missing.  A size is a number
 * of bytes or a text such as "64 MB".  Texts are palloc'd.
 */
extern char *options_text(Jsonb *options, const char *key);
extern char *options_document(Jsonb *options, const char *key); /* objects too */
extern int64 options_count(Jsonb *options, const char *key, int64 dflt,
						   int64 min, int64 max);
extern double options_number(Jsonb *options, const char *key, double dflt,
							 double min, double max);
extern int64 options_size(Jsonb *options, const char *key, int64 dflt);

/* A text or an array of texts, as List of char *; NIL when missing. */
extern List *options_names(Jsonb *options, const char *key);

/*
 * The name of names (n of them, NULL entries skipped) nearest to name, or
 * NULL when none is near.  For hints.
 */
extern const char *options_nearest(const char *name,
								   const char *const *names, int n);

/*
 * Microseconds of an interval argument.  ERROR 22023 when it is negative or
 * has months, whose length depends on the calendar.  what is the argument's
 * name.
 */
extern int64 options_duration(const Interval *interval, const char *what);

/* An interval of so many microseconds. */
extern Interval *options_interval(int64 us);

/*
 * A choice among texts, such as emit.  allowed is a NULL-terminated list;
 * returns the index.  ERROR 22023 naming what is allowed.
 */
extern int	options_choice(const char *value, const char *const *allowed,
						   const char *what);

/* Where to begin: start_from, and the position of weir.seek(). */
typedef enum PositionKind
{
	POSITION_EARLIEST,
	POSITION_LATEST,
	POSITION_TIME,
	POSITION_OFFSETS
} PositionKind;

typedef struct PartitionOffset
{
	int32		partition;
	int64		offset;
} PartitionOffset;

typedef struct Position
{
	PositionKind kind;
	TimestampTz time;			/* POSITION_TIME */
	int			noffsets;		/* POSITION_OFFSETS */
	PartitionOffset *offsets;	/* by partition, each once */
	char	   *text;			/* as the catalog keeps it: independent of any
								 * setting */
} Position;

/*
 * Parse one; ERROR 22023 otherwise.  A timestamp is read under the session's
 * TimeZone and DateStyle.  what is the argument's name.  Position.text can be
 * parsed again under any settings.
 */
extern Position *position_parse(const char *text, const char *what);

#endif							/* WEIR_OPTIONS_H */
