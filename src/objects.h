/*-------------------------------------------------------------------------
 *
 * objects.h
 *	  What the analysis of a text has found that is not PostgreSQL's own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_OBJECTS_H
#define WEIR_OBJECTS_H

#include "nodes/pg_list.h"
#include "nodes/parsenodes.h"

/*
 * Descriptions (of char *, in the current context) of the functions,
 * operators and conversions in an expression or Query, sorted, each once.
 */
extern List *objects_of(Node *node);

/* The functions and operators alone, added to a list; query may be NULL. */
extern List *objects_add_called(List *objects, Query *query);

/* The first of objects that is not among known; NULL: there is none. */
extern const char *objects_unknown(const List *objects, const List *known);

/*
 * What is different when a text is read as it will be stored, for errdetail;
 * NULL: nothing.
 */
extern const char *objects_difference(const List *meant, const List *read);

/*
 * ERROR 55000 when objects has some that is not among those recorded at the
 * creation of what ("stream \"s\"").
 */
extern void objects_check(const List *objects, const List *recorded,
						  const char *what);

#endif							/* WEIR_OBJECTS_H */
