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
 * weir_internal.in_part does the same for part of a batch, without culprits,
 * and remembers the row: when a statement fails, the last row seen is most
 * likely the one that made it fail.
 *
 * A user's condition must not run on a row that either of them leaves out: it
 * may fail there.  PostgreSQL orders the conditions of a scan by security
 * level, all the same here, and then by cost.  No condition of a user's costs
 * less than nothing, but these two do: their support function says so.
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

#include "stream_batch.h"

/* Less than any condition of a user's, which may cost 0. */
#define COST_OF_BOUNDS (-1e-9)

/*
 * Three items must fit on a page of a btree: less than what it allows, for
 * the item's header, NULL bitmap, two timestamps and alignment.
 */
#define KEY_LIMIT ((Size) BLCKSZ / 3 - 64)

PG_FUNCTION_INFO_V1(weir_in_batch);
PG_FUNCTION_INFO_V1(weir_in_batch_support);
PG_FUNCTION_INFO_V1(weir_in_part);
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
	if (IsA(request, SupportRequestCost))
	{
		((SupportRequestCost *) request)->startup = 0;
		((SupportRequestCost *) request)->per_tuple = COST_OF_BOUNDS;
		PG_RETURN_POINTER(request);
	}
	PG_RETURN_POINTER(NULL);
}

static ItemPointerData last_seen;

void
support_forget_seen(void)
{
	ItemPointerSetInvalid(&last_seen);
}

/* The last row that in_part let pass; false when there was none. */
bool
support_last_seen(ItemPointerData *tid)
{
	*tid = last_seen;
	return ItemPointerIsValid(&last_seen);
}

/* By halving; the array is in the order of TIDs. */
static bool
is_among(ItemPointer tid, ArrayType *array)
{
	ItemPointer tids = (ItemPointer) ARR_DATA_PTR(array);
	int			lo = 0;
	int			hi;

	if (ARR_NDIM(array) == 0)
		return false;
	if (ARR_NDIM(array) != 1 || ARR_HASNULL(array) ||
		ARR_ELEMTYPE(array) != TIDOID)
		elog(ERROR, "not a plain array of tid");
	hi = ARR_DIMS(array)[0] - 1;
	while (lo <= hi)
	{
		int			middle = lo + (hi - lo) / 2;
		int			order = ItemPointerCompare(&tids[middle], tid);

		if (order == 0)
			return true;
		if (order < 0)
			lo = middle + 1;
		else
			hi = middle - 1;
	}
	return false;
}

/* (tid, from, to, culprits in order): from <= tid < to, and no culprit. */
Datum
weir_in_part(PG_FUNCTION_ARGS)
{
	ItemPointer tid = (ItemPointer) PG_GETARG_POINTER(0);

	if (ItemPointerCompare(tid, (ItemPointer) PG_GETARG_POINTER(1)) < 0 ||
		ItemPointerCompare(tid, (ItemPointer) PG_GETARG_POINTER(2)) >= 0 ||
		is_among(tid, PG_GETARG_ARRAYTYPE_P(3)))
		PG_RETURN_BOOL(false);
	last_seen = *tid;
	PG_RETURN_BOOL(true);
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
