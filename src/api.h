/*-------------------------------------------------------------------------
 *
 * api.h
 *	  What the SQL-callable functions (api_*.c) have in common.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_API_H
#define WEIR_API_H

#include "fmgr.h"
#include "nodes/primnodes.h"

#include "catalog.h"
#include "compat.h"
#include "options.h"
#include "stream.h"

/* ERROR 25006 where nothing can be changed: a standby, for instance. */
extern void api_require_writable(const char *function);

/* Arguments; ERROR 22004 when NULL and what is given. */
extern char *api_text_arg(FunctionCallInfo fcinfo, int n, const char *what);
extern Jsonb *api_options_arg(FunctionCallInfo fcinfo, int n);

/* A duration argument as the catalog keeps it; NULL stays NULL. */
extern Interval *api_duration_arg(FunctionCallInfo fcinfo, int n,
								  const char *what, bool null_ok);

/*
 * Names: text parsed as identifiers.  A relation's name gets the schema
 * given, else current_schema(); a bare name has one part.
 */
extern RangeVar *api_relation_name(const char *text, const char *what);
extern char *api_bare_name(const char *text, const char *what);
extern Oid	api_creation_schema(RangeVar *rv);

/* ERROR 42710 when a source or stream has that bare name. */
extern void api_check_name_free(const char *name);

/* A definition by name, with the caller's ownership checked: 42704, 42501. */
extern SourceDef *api_own_source(const char *name);
extern StreamDef *api_own_stream(const char *name);

/*
 * A source or a stream: the other is NULL.  A name with a schema is a
 * source's.
 */
extern void api_own_either(const char *name, SourceDef **source,
						   StreamDef **stream);

extern SourceDef *api_find_source(const char *name, bool missing_ok);
extern void api_check_source_owner(const SourceDef *source);
extern void api_check_stream_owner(const StreamDef *stream);

/* Run one DDL command as the current user. */
extern void api_execute(const char *sql);

/* What such a command made is not what it was to make. */
pg_noreturn extern void api_changed_meanwhile(const char *message);

/* Schema-qualified and quoted; NULL when the relation is gone. */
extern char *api_qualified_name(Oid relid);

/*
 * Analyze and compile a stream as its worker does: as the owner, under the
 * captured settings.  The name of the segment's view is a placeholder.
 */
extern StreamStatements *api_compile(const StreamDef *def, StreamPlan **plan);

/* Warn when the server has too few worker slots for what is defined. */
extern void api_warn_worker_slots(void);

#endif							/* WEIR_API_H */
