/*-------------------------------------------------------------------------
 *
 * stream_support.c
 *	  Functions that compiled statements call.
 *
 * weir_internal.in_batch decides whether a staged row belongs to a micro-batch.
 * Two array lookups in SQL would cost as much as the rest of the scan, and the
 * planner would guess that they keep a ninth of the rows; nearly all pass, and
 * the support function says so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/heaptoast.h"
#include "access/toast_internals.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "nodes/supportnodes.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/*
 * Three items must fit on a page of a btree: less than what it allows, for
 * the item's header, NULL bitmap, two timestamps and alignment.
 */
#define KEY_LIMIT ((Size) BLCKSZ / 3 - 64)

PG_FUNCTION_INFO_V1(weir_in_batch);
PG_FUNCTION_INFO_V1(weir_in_batch_support);
PG_FUNCTION_INFO_V1(weir_key_fits);
PG_FUNCTION_INFO_V1(weir_event_time);

/* Element partition + 1 of an int8[]; false when there is none. */
static bool
bound_of(ArrayType *array, int32 partition, int64 *bound)
{
	if (ARR_NDIM(array) != 1 || ARR_HASNULL(array) ||
		ARR_ELEMTYPE(array) != INT8OID ||
		partition < 0 || partition >= ARR_DIMS(array)[0])
		return false;
	*bound = ((int64 *) ARR_DATA_PTR(array))[partition];
	return true;
}

/* (partition, offset, applied, high): applied <= offset < high. */
Datum
weir_in_batch(PG_FUNCTION_ARGS)
{
	int32		partition = PG_GETARG_INT32(0);
	int64		offset = PG_GETARG_INT64(1);
	int64		applied;
	int64		high;

	PG_RETURN_BOOL(bound_of(PG_GETARG_ARRAYTYPE_P(2), partition, &applied) &&
				   bound_of(PG_GETARG_ARRAYTYPE_P(3), partition, &high) &&
				   applied <= offset && offset < high);
}

Datum
weir_in_batch_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (IsA(request, SupportRequestSelectivity))
	{
		((SupportRequestSelectivity *) request)->selectivity = 1.0;
		PG_RETURN_POINTER(request);
	}
	PG_RETURN_POINTER(NULL);
}

/*
 * The room that a value takes in an index: as index_form_tuple, which
 * compresses values that are large.
 */
static Size
index_size(Datum value, bool typbyval, int16 typlen)
{
	struct varlena *detoasted;
	Datum		compressed;
	Size		size;

	if (typbyval || typlen > 0)
		return Max(typlen, 0);
	if (typlen != -1)
		return strlen(DatumGetCString(value)) + 1;
	size = toast_raw_datum_size(value);
	if (size <= TOAST_INDEX_TARGET)
		return size;
	detoasted = pg_detoast_datum((struct varlena *) DatumGetPointer(value));
	compressed = toast_compress_datum(PointerGetDatum(detoasted),
									  TOAST_PGLZ_COMPRESSION);
	if (DatumGetPointer(compressed) != NULL)
	{
		size = VARSIZE(DatumGetPointer(compressed));
		pfree(DatumGetPointer(compressed));
	}
	if ((Pointer) detoasted != DatumGetPointer(value))
		pfree(detoasted);
	return size;
}

/* True, or error 54000 when the arguments together do not fit an index. */
Datum
weir_key_fits(PG_FUNCTION_ARGS)
{
	Size		size = 0;

	for (int i = 0; i < PG_NARGS(); i++)
	{
		int16		typlen;
		bool		typbyval;

		if (PG_ARGISNULL(i))
			continue;
		get_typlenbyval(get_fn_expr_argtype(fcinfo->flinfo, i), &typlen,
						&typbyval);
		size = MAXALIGN(size + index_size(PG_GETARG_DATUM(i), typbyval,
										  typlen));
	}
	if (size > KEY_LIMIT)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("group key of %zu bytes is too large for an index",
						size),
				 errdetail("At most %zu bytes are possible.",
						   KEY_LIMIT)));
	PG_RETURN_BOOL(true);
}

/* Its argument, or error 23502 when it is NULL: see stream_query.c. */
Datum
weir_event_time(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("event time in column \"kafka_timestamp\" is null"),
				 errdetail("The record has no timestamp.")));
	PG_RETURN_DATUM(PG_GETARG_DATUM(0));
}
