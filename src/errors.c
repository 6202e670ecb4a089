/*-------------------------------------------------------------------------
 *
 * errors.c
 *	  Tell row, outage and definition errors apart, and catch them.
 *
 * This is the only file with a PG_TRY around an internal subtransaction.
 * Who wants to know whether something fails gives a function to
 * error_guard() and looks at what comes back.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "errors.h"

/* No message is longer, whatever it quotes. */
#define ERROR_TEXT_BYTES 2000

/* Is it one of the size limits of class 54 that a single row can exceed? */
static bool
row_size_limit(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_PROGRAM_LIMIT_EXCEEDED ||
		sqlerrcode == ERRCODE_STATEMENT_TOO_COMPLEX ||
		sqlerrcode == ERRCODE_TOO_MANY_ARGUMENTS ||
		sqlerrcode == ERRCODE_TOO_MANY_COLUMNS;
}

ErrorClass
error_class(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_DATA_EXCEPTION:
		case ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION:
			return ERROR_OF_ROW;
		case MAKE_SQLSTATE('0', '8', '0', '0', '0'):
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return ERROR_OF_OUTAGE;
	}
	if (sqlerrcode == ERRCODE_CARDINALITY_VIOLATION ||
		sqlerrcode == ERRCODE_RAISE_EXCEPTION ||
		row_size_limit(sqlerrcode))
		return ERROR_OF_ROW;
	if (sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		sqlerrcode == ERRCODE_READ_ONLY_SQL_TRANSACTION ||
		sqlerrcode == ERRCODE_FDW_OUT_OF_MEMORY ||
		sqlerrcode == ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION)
		return ERROR_OF_OUTAGE;
	return ERROR_OF_DEFINITION;
}

bool
error_may_be_of_row(int sqlerrcode)
{
	/* what is broken is not a row */
	if (sqlerrcode == ERRCODE_DATA_CORRUPTED ||
		sqlerrcode == ERRCODE_INDEX_CORRUPTED)
		return false;
	return error_class(sqlerrcode) != ERROR_OF_OUTAGE;
}

ErrorData *
error_guard(void (*fn) (void *arg), void *arg, bool rollback_always)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(oldcontext);
	PG_TRY();
	{
		fn(arg);
		if (rollback_always)
			RollbackAndReleaseCurrentSubTransaction();
		else
			ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(oldcontext);
		CurrentResourceOwner = oldowner;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(oldcontext);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(oldcontext);
		CurrentResourceOwner = oldowner;
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) ==
			ERRCODE_OPERATOR_INTERVENTION)
			ReThrowError(error);
	}
	PG_END_TRY();
	return error;
}

char *
error_text(const ErrorData *edata)
{
	const char *message = edata->message ? edata->message : "unknown error";
	char	   *text;
	int			len;

	text = edata->detail ? psprintf("%s: %s", message, edata->detail) :
	pstrdup(message);

	/* An input function quotes the whole value. */
	len = strlen(text);
	if (len > ERROR_TEXT_BYTES)
		strcpy(text +pg_mbcliplen(text, len, ERROR_TEXT_BYTES - 3), "...");
	return text;
}

const char *
error_sqlstate(int sqlerrcode)
{
	return unpack_sql_state(sqlerrcode);
}
