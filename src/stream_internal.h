/*-------------------------------------------------------------------------
 *
 * stream_internal.h
 *	  The parts of a continuous query, shared by the stream_*.c that make
 *	  and use them: analyze fills them in, compile turns them into texts.
 *
 * Names of columns in the texts:
 *	in r (row stage)	k1.. group keys, x1.. aggregate arguments, c1..
 *						FILTER conditions, window_start, window_end
 *	in delta and state	window_end, window_start, k1.., s1.. partial states
 *	in f (final)		window_end, window_start, k1.., a1.. aggregates
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_STREAM_INTERNAL_H
#define WEIR_STREAM_INTERNAL_H

#include "lib/stringinfo.h"
#include "nodes/primnodes.h"
#include "stream.h"

/* A group key. */
typedef struct StreamKey
{
	Node	   *expr;			/* as in the query */
	Node	   *flat;			/* the same, join aliases resolved */
	char	   *column;			/* k1, window_start ... */
	bool		is_window;		/* window_start or window_end, bare */
	Oid			type;
	Oid			collation;
	StreamOutput *output;		/* the first output column equal to it */
} StreamKey;

/* A column of partial state: SQL expressions. */
typedef struct StreamPartial
{
	char	   *column;			/* s1 ... */
	char	   *type;
	char	   *make;			/* aggregate over r */
	char	   *merge;			/* of s.<column> and excluded.<column> */
	char	   *combine;		/* aggregate over p.<column> */
} StreamPartial;

/* An aggregate of the query; equal ones are one. */
typedef struct StreamAggregate
{
	Aggref	   *aggref;			/* as in the query */
	Node	   *flat;
	char	   *column;			/* a1 ... */
	char	   *final;			/* expression over partial columns */
} StreamAggregate;

typedef struct StreamParts
{
	int			source_rti;
	AttrNumber	event_time;
	List	   *source_columns; /* of char *, "" where dropped */
	int			window_rti;		/* 0: none */
	char	   *window_args;	/* ", size[, slide], origin, timezone" */
	bool		local_clock;	/* windows follow a clock that changes */
	bool		panes;			/* hopping windows share panes */
	char	   *size_text;		/* size of the window, an interval */

	List	   *keys;			/* of StreamKey *, windows first */
	List	   *args;			/* of Node *: x1.. */
	List	   *filters;		/* of Node *: c1.. */
	List	   *partials;		/* of StreamPartial * */
	List	   *aggregates;		/* of StreamAggregate * */

	Query	   *outputs;		/* SELECT ... FROM f [WHERE having] */
	Query	   *removed;		/* key outputs of groups that fail HAVING;
								 * NULL: no HAVING */
} StreamParts;

static inline StreamParts *
stream_parts(const StreamPlan *plan)
{
	return (StreamParts *) plan->private;
}

/* Names of CTEs that a Query may refer to. */
#define STREAM_SRC "src"
#define STREAM_FINAL "f"

/*
 * Which relation is the source: false if relid is none, else sets the
 * attribute number of its event time.
 */
typedef bool (*StreamSourceTest) (Oid relid, AttrNumber *event_time,
								  void *arg);

extern StreamPlan *stream_analyze_with(const char *query,
									   const StreamOptions *options,
									   StreamSourceTest is_source, void *arg);

/* stream_allow.c: whatever is not known to work. */
extern void stream_refuse_unknown(Query *query);
extern void stream_refuse_parameters(Node *statement);

/* stream_refuse.c: what cannot be kept incrementally. */
extern void stream_refuse_clauses(const Query *query);
extern void stream_refuse_ungrouped(const Query *query);
extern List *stream_refuse_hidden_sources(Query *query, int source_rti,
										  StreamSourceTest is_source,
										  void *arg);
extern void stream_refuse_nullable(Query *query, int rti, bool is_window);
extern void stream_refuse_volatile(Query *query, bool aggregated);
extern void stream_refuse_source_columns(Query *query,
										 const StreamParts *parts,
										 StreamPlan *plan);

/* stream_refuse_temp.c */
extern void stream_refuse_temporary(Query *query);

/* stream_query.c: Query trees made from the parts, and their text. */
typedef enum RowStageColumns
{
	ROW_STAGE_GROUPS,			/* keys, arguments, filters */
	ROW_STAGE_LATE,				/* keys, both window columns, Kafka's */
	ROW_STAGE_ROWS,				/* the query's outputs */
	ROW_STAGE_PLACED_ROWS,		/* the same, tid, partition, Kafka timestamp */
	ROW_STAGE_KEYED_ROWS		/* the same, and Kafka's position */
} RowStageColumns;

extern char *stream_row_stage(const StreamPlan *plan, RowStageColumns columns);
extern void stream_build_outputs(StreamPlan *plan);
extern char *stream_query_text(const Query *query);
extern char *stream_const_text(Node *node);
extern int	stream_enter_deparse(void);
extern void stream_leave_deparse(int nest_level);

/* stream_partial.c */
extern void stream_make_partials(StreamPlan *plan);

/* stream_target.c */
extern char *stream_type_text(Oid type, int32 typmod);
extern char *stream_collate_text(Oid type, Oid collation);
extern char *stream_equals(Oid type, const char *left, const char *right,
						   bool nullable);
extern char *stream_column_list(List *names, const char *prefix);
extern List *stream_state_columns(const StreamPlan *plan, bool keys_only);

/* A column of a table that weir makes. */
typedef struct StateColumn
{
	const char *name;
	const char *type;			/* as SQL writes it */
	const char *collate;		/* " COLLATE c" or "" */
	bool		not_null;
} StateColumn;

extern List *stream_state_definition(const StreamPlan *plan);

#endif							/* WEIR_STREAM_INTERNAL_H */
