/*-------------------------------------------------------------------------
 *
 * api_sample.c
 *	  Looking at payloads: weir.sample() and weir.dead_letter_text().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "settings.h"

PG_FUNCTION_INFO_V1(weir_dead_letter_text);

/*
 * Bytes as text: themselves when they are UTF-8 without NUL, else in the
 * escape format of bytea.
 */
static Datum
payload_text(bytea *payload)
{
	const char *data = VARDATA_ANY(payload);
	int			len = VARSIZE_ANY_EXHDR(payload);

	if (memchr(data, '\0', len) == NULL && pg_verifymbstr(data, len, true))
		return PointerGetDatum(cstring_to_text_with_len(data, len));
	return DirectFunctionCall2(binary_encode, PointerGetDatum(payload),
							   CStringGetTextDatum("escape"));
}

Datum
weir_dead_letter_text(PG_FUNCTION_ARGS)
{
	weir_require_preload();
	return payload_text(PG_GETARG_BYTEA_PP(0));
}
