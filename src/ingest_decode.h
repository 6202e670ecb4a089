/*-------------------------------------------------------------------------
 *
 * ingest_decode.h
 *	  A compiled source, shared by ingest_decode_plan.c, which makes it, and
 *	  ingest_decode.c, which runs it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_INGEST_DECODE_H
#define WEIR_INGEST_DECODE_H

#include "executor/executor.h"
#include "ingest.h"
#include "ingest_decode_value.h"

/* A declared column. */
typedef struct ColumnPlan
{
	AttrNumber	attnum;			/* in the foreign table */
	int			segment;		/* index into the slot's values */
	int			capture;		/* of the reader; -1: generated */
	char	   *name;
	bool		not_null;
	bool		found;			/* its path led somewhere, once */
	ValueType  *type;			/* NULL: generated */
	ExprState  *expression;		/* DEFAULT or generated; NULL: none */
	bool		is_constant;	/* DEFAULT, folded to constant_* */
	bool		constant_isnull;
	Datum		constant;
} ColumnPlan;

typedef struct CheckPlan
{
	char	   *name;
	ExprState  *expression;
} CheckPlan;

struct Decoder
{
	MemoryContext cxt;			/* all of it */
	MemoryContext scratch;		/* of ValueContext */
	char	   *topic;
	char	   *relation_name;
	TupleDesc	segment_desc;
	int			key_segment;	/* indexes into the slot's values */
	int			headers_segment;
	pg_tz	   *utc;

	DocReader  *reader;
	int			ncaptures;
	DocValue   *values;			/* of the record at hand */

	/*
	 * Columns in the order of decoding: those the filter names, then those
	 * the event time needs, then the rest.  Generated ones come last, but for
	 * a generated event time, which is event_column.
	 */
	int			ncolumns;
	ColumnPlan *columns;
	int			nfilter;		/* columns[0 .. nfilter) */
	int			nevent;			/* columns[nfilter .. nevent) */
	int			ndecoded;		/* columns[nevent .. ndecoded) */
	int			nmissing;		/* of these, not found in any record so far */

	ExprState  *filter;
	int			nchecks;
	CheckPlan  *checks;

	int			event_segment;	/* index into the slot's values */
	Oid			event_type;
	char	   *event_name;
	bool		event_is_kafka; /* it is kafka_timestamp */
	ColumnPlan *event_column;	/* generated event time; else NULL */
	int64		max_future_skew;

	/* Filled when an expression or a stream wants it. */
	bool		fill_key;
	bool		fill_headers;
	bool		stage_key;
	bool		stage_headers;
	TupleDesc	header_desc;
	Oid			header_type;

	ExprContext *econtext;
	bool		may_throw;		/* so a run is guarded from its start */
	bool		wide;			/* a row may be too big for a page */
};

#endif							/* WEIR_INGEST_DECODE_H */
