/*-------------------------------------------------------------------------
 *
 * ingest_decode_text.c
 *	  What is done to the text of a value that the JSON reader has found:
 *	  resolve a string's escapes, step through an array's elements or an
 *	  object's fields.
 *
 * The reader has judged the whole document, so nothing here checks syntax.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "ingest_decode_json.h"

static inline bool
is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* The value of four hexadecimal digits. */
static pg_wchar
hex_quad(const char *p)
{
	pg_wchar	result = 0;

	for (int i = 0; i < 4; i++)
	{
		char		c = p[i];

		result = result << 4 |
			(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
	}
	return result;
}

/* Resolve \uXXXX, or two that are a pair, at *p, and move past it. */
static DocUnescape
unescape_unicode(const char **p, const char *end, pg_wchar *result)
{
	pg_wchar	c = hex_quad(*p + 2);

	*p += 6;
	if (c == 0)
		return DOC_NUL_CHARACTER;
	if (is_utf16_surrogate_second(c))
		return DOC_LONE_SURROGATE;
	if (is_utf16_surrogate_first(c))
	{
		pg_wchar	second = 0;

		if (end - *p >= 6 && (*p)[0] == '\\' && (*p)[1] == 'u')
			second = hex_quad(*p + 2);
		if (!is_utf16_surrogate_second(second))
			return DOC_LONE_SURROGATE;
		*p += 6;
		c = surrogate_pair_to_codepoint(c, second);
	}
	*result = c;
	return DOC_UNESCAPED;
}

DocUnescape
doc_unescape(const char *str, size_t len, char *dst, size_t *dst_len)
{
	const char *p = str;
	const char *end = str + len;
	char	   *out = dst;

	while (p < end)
	{
		pg_wchar	c;
		DocUnescape status;

		if (*p != '\\')
		{
			*out++ = *p++;
			continue;
		}
		switch (p[1])
		{
			case 'u':
				status = unescape_unicode(&p, end, &c);
				if (status != DOC_UNESCAPED)
					return status;
				unicode_to_utf8(c, (unsigned char *) out);
				out += pg_utf_mblen((unsigned char *) out);
				continue;
			case 'b':
				*out++ = '\b';
				break;
			case 'f':
				*out++ = '\f';
				break;
			case 'n':
				*out++ = '\n';
				break;
			case 'r':
				*out++ = '\r';
				break;
			case 't':
				*out++ = '\t';
				break;
			default:
				*out++ = p[1];
				break;
		}
		p += 2;
	}
	*dst_len = out - dst;
	return DOC_UNESCAPED;
}

/* Where the object, array or string that opens at p ends (exclusive). */
static const char *
end_of(const char *p)
{
	int64		depth = 0;
	bool		in_string = false;

	do
	{
		if (in_string)
		{
			if (*p == '\\')
				p++;
			else if (*p == '"')
				in_string = false;
		}
		else if (*p == '"')
			in_string = true;
		else if (*p == '{' || *p == '[')
			depth++;
		else if (*p == '}' || *p == ']')
			depth--;
		p++;
	} while (depth > 0 || in_string);
	return p;
}

/* The number at p; returns where it ends. */
static const char *
take_number(const char *p, DocValue *value)
{
	const char *start = p;
	bool		negative = *p == '-';
	int64		integer = 0;
	int			digits = 0;

	if (negative)
		p++;
	for (; *p >= '0' && *p <= '9'; p++)
		if (++digits <= 18)
			integer = integer * 10 + (*p - '0');
	value->kind = DOC_NUMBER;
	value->integer = negative ? -integer : integer;
	value->is_integer = digits <= 18 && !(negative && integer == 0) &&
		*p != '.' && *p != 'e' && *p != 'E';
	p = start + strspn(start, "+-.0123456789eE");
	return p;
}

/* The value at p; returns where it ends. */
static const char *
take_value(const char *p, DocValue *value)
{
	const char *start = p;

	value->escaped = false;
	switch (*p)
	{
		case '{':
			value->kind = DOC_OBJECT;
			p = end_of(p);
			break;
		case '[':
			value->kind = DOC_ARRAY;
			p = end_of(p);
			break;
		case '"':
			value->kind = DOC_STRING;
			p = end_of(p);
			break;
		case 't':
			value->kind = DOC_TRUE;
			p += 4;
			break;
		case 'f':
			value->kind = DOC_FALSE;
			p += 5;
			break;
		case 'n':
			value->kind = DOC_NULL;
			p += 4;
			break;
		default:
			p = take_number(p, value);
			break;
	}
	value->text = start;
	value->len = p - start;
	if (value->kind == DOC_STRING)
	{
		value->text = start + 1;
		value->len -= 2;
		value->escaped = memchr(value->text, '\\', value->len) != NULL;
	}
	return p;
}

static const char *
skip_space(const char *p)
{
	while (is_space(*p))
		p++;
	return p;
}

bool
doc_next_element(const DocValue *array, const char **cursor,
				 DocValue *element)
{
	const char *p = *cursor;

	/* At the opening bracket or, later, at a comma or the closing bracket. */
	if (*p == ']')
		return false;
	p = skip_space(p + 1);
	if (*p == ']')
		return false;			/* an empty array */
	*cursor = skip_space(take_value(p, element));
	return true;
}

bool
doc_next_field(const DocValue *object, const char **cursor, DocValue *key,
			   DocValue *value)
{
	const char *p = *cursor;

	/* As above. */
	if (*p == '}')
		return false;
	p = skip_space(p + 1);
	if (*p == '}')
		return false;
	p = skip_space(take_value(p, key));
	p = skip_space(p + 1);		/* the colon */
	*cursor = skip_space(take_value(p, value));
	return true;
}
