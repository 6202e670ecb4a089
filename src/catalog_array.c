/*-------------------------------------------------------------------------
 *
 * catalog_array.c
 *	  Numbers by partition, as the catalog keeps them: arrays whose element
 *	  partition + 1 is the partition's.
 *
 * Times have NULL where there is none; in memory that is a value that cannot
 * occur otherwise, which the caller chooses.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/array.h"

#include "catalog_spi.h"

Datum
catalog_int8_array(const int64 *values, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(values[i]);
	return PointerGetDatum(construct_array(elements, n, INT8OID, 8,
										   FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

Datum
catalog_time_array(const TimestampTz *values, int n, TimestampTz none)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(n, 1));
	int			lbs = 1;

	for (int i = 0; i < n; i++)
	{
		elements[i] = TimestampTzGetDatum(values[i]);
		nulls[i] = values[i] == none;
	}
	return PointerGetDatum(construct_md_array(elements, nulls, 1, &n, &lbs,
											  TIMESTAMPTZOID, 8,
											  FLOAT8PASSBYVAL,
											  TYPALIGN_DOUBLE));
}

/* Both types are eight bytes by value, or by reference where that is wide. */
static int64 *
next_array(CatalogRow *r, Oid type, int *n, int64 none)
{
	bool		isnull;
	Datum		array = catalog_next_datum(r, &isnull);
	Datum	   *elements;
	bool	   *nulls;
	int64	   *values;

	*n = 0;
	if (isnull)
		return NULL;
	deconstruct_array(DatumGetArrayTypeP(array), type, 8, FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &elements, &nulls, n);
	values = MemoryContextAlloc(r->caller, sizeof(int64) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		values[i] = nulls[i] ? none : DatumGetInt64(elements[i]);
	return values;
}

/* NULL: the column is; else in the caller's context. */
int64 *
catalog_next_int8_array(CatalogRow *r, int *n)
{
	return next_array(r, INT8OID, n, 0);
}

TimestampTz *
catalog_next_time_array(CatalogRow *r, int *n, TimestampTz none)
{
	return next_array(r, TIMESTAMPTZOID, n, none);
}
