/*-------------------------------------------------------------------------
 *
 * ingest_decode_json.h
 *	  C face of the JSON reader: which values of a document are wanted, and
 *	  where they stand in its text.
 *
 * A reader is made once per source.  Paths are added to it, each giving the
 * number of a capture (equal paths give the same one); then documents are
 * read, each filling one DocValue a capture.  Values point into the text of
 * the document and are valid as long as it is.
 *
 * Nothing here uses PostgreSQL: no function throws, neither way.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_INGEST_DECODE_JSON_H
#define WEIR_INGEST_DECODE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C"
{
#endif

typedef enum DocKind
{
	DOC_MISSING = 0,			/* the path leads nowhere */
	DOC_NULL,
	DOC_FALSE,
	DOC_TRUE,
	DOC_NUMBER,
	DOC_STRING,
	DOC_OBJECT,
	DOC_ARRAY
} DocKind;

/*
 * A value in a document that has been found to be JSON.  The text of a
 * string is what stands between its quotes; of anything else, all of it.
 */
typedef struct DocValue
{
	const char *text;
	size_t		len;
	int64_t		integer;		/* DOC_NUMBER with is_integer */
	DocKind		kind;
	bool		is_integer;		/* a number of at most 18 digits, no fraction,
								 * no exponent, and not -0 */
	bool		escaped;		/* DOC_STRING: there are backslashes in it */
} DocValue;

typedef enum DocStatus
{
	DOC_OK = 0,
	DOC_EMPTY,					/* no bytes, or white space only */
	DOC_NOT_UTF8,
	DOC_NOT_JSON,
	DOC_NOT_OBJECT,				/* an array or scalar that no path looks into */
	DOC_NO_MEMORY
} DocStatus;

typedef enum DocUnescape
{
	DOC_UNESCAPED = 0,
	DOC_NUL_CHARACTER,			/* \u0000, which no text can hold */
	DOC_LONE_SURROGATE
} DocUnescape;

/* A step of a path: an object's field, or an array's element. */
typedef struct DocStep
{
	const char *name;			/* NULL: an element */
	size_t		name_len;
	uint32_t	index;			/* from 0 */
} DocStep;

typedef struct DocReader DocReader;

/* NULL when there is no memory. */
extern DocReader *doc_reader_create(void);
extern void doc_reader_free(DocReader *reader);

/* The number of the capture, or -1 when there is no memory. */
extern int	doc_reader_add_path(DocReader *reader, const DocStep *steps,
								int nsteps);

/* No path is added after this.  False when there is no memory. */
extern bool doc_reader_seal(DocReader *reader);

/*
 * Read a document into values[0 .. number of captures).  Unless DOC_OK the
 * values mean nothing, and *position is the byte where it went wrong, when
 * that is known.  *position is -1 otherwise.
 */
extern DocStatus doc_reader_read(DocReader *reader, const char *document,
								 size_t len, DocValue *values,
								 int64_t *position);

/*
 * Elements of an array found by the reader: *cursor starts as array->text
 * and moves.  False at the end.
 */
extern bool doc_next_element(const DocValue *array, const char **cursor,
							 DocValue *element);

/* The same for the fields of an object. */
extern bool doc_next_field(const DocValue *object, const char **cursor,
						   DocValue *key, DocValue *value);

/*
 * Resolve the escapes of a string found by the reader.  dst has room for
 * len bytes; *dst_len is what it took.
 */
extern DocUnescape doc_unescape(const char *text, size_t len, char *dst,
								size_t *dst_len);

#ifdef __cplusplus
}
#endif

#endif							/* WEIR_INGEST_DECODE_JSON_H */
