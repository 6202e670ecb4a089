/*-------------------------------------------------------------------------
 *
 * source_filter.h
 *	  Texts that users write into the definition of a source.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SOURCE_FILTER_H
#define WEIR_SOURCE_FILTER_H

#include "catalog.h"
#include "nodes/pg_list.h"
#include "utils/rel.h"

/*
 * Parse prefix, text and suffix as one; errors point into text and name the
 * argument (what).
 */
extern List *source_parse_wrapped(const char *prefix, const char *text,
								  const char *suffix, const char *what);

/*
 * The identifier that is written at p, which the parser has taken, as the
 * parser reads it but in its full length.
 */
extern char *source_written_name(const char *p);

/*
 * Parse, analyze and check a filter under the settings of the session; the
 * expression's Vars have varno 1.  The relation is open and locked.
 */
extern Node *source_filter_parse(Relation rel, const char *filter);

/*
 * A filter's text from its expression, for the names that columns have now;
 * all but the columns is qualified.
 */
extern char *source_filter_text(Oid relid, Node *expr);

/*
 * At creation: the text to be stored, and what it uses (objects.h); an ERROR
 * when it would not mean the same when it is read again.
 */
extern char *source_filter_settle(Relation rel, const char *filter,
								  List **objects);

/*
 * Later: the filter of a source, read as it was stored.  An ERROR when it
 * would not mean what it meant.
 */
extern Node *source_filter_read(Relation rel, const SourceDef *source);

#endif							/* WEIR_SOURCE_FILTER_H */
