/*-------------------------------------------------------------------------
 *
 * stream_compile.h
 *	  Shared by the two halves of the compiler, aggregates and rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_STREAM_COMPILE_H
#define WEIR_STREAM_COMPILE_H

#include "lib/stringinfo.h"
#include "stream_internal.h"

typedef struct CompileContext
{
	const StreamPlan *plan;
	const char *segment_view;
	const char *state;
	const char *target;
	bool		emit_on_close;
	const char *limit;			/* windows that end by it are closed */
	const char *windows_from;	/* first start of a window, NULL: any */
} CompileContext;

/* A staged row as jsonb, without what a dead letter has columns for. */
#define STREAM_STAGED_ROW(alias) \
	"to_jsonb(" alias ".*) - '{" SEGMENT_TID ",kafka_topic,kafka_partition," \
	"kafka_offset,kafka_timestamp,kafka_key}'::text[]"

/* stream_compile.c: links of a WITH, appended to buf. */
extern void stream_add_src(StringInfo buf, const CompileContext *c,
						   bool without);
extern void stream_add_row_stage(StringInfo buf, const CompileContext *c,
								 RowStageColumns columns);
extern char *stream_on_conflict(const StreamPlan *plan);
extern List *stream_output_names(const StreamPlan *plan);

/* stream_compile_rows.c */
extern void stream_compile_rows(const CompileContext *c, StreamStatements *st);
extern char *stream_culprits_text(const CompileContext *c);

#endif							/* WEIR_STREAM_COMPILE_H */
