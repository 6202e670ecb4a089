/*-------------------------------------------------------------------------
 *
 * stream_float.c
 *	  Mergeable state of variances of floats.
 *
 * PostgreSQL keeps (N, Sx, Sxx), Sxx being the sum of squares about the
 * mean, and combines two of them by the difference of their means, Sx / N.
 * That is right to the last digits for one pass over the rows; but of values
 * far from zero (times as numbers) the means are rounded to a part of the
 * values, not of their spread, and a state that is merged thousands of times
 * takes that error each time.  So Sx is kept in two parts, Sx and the rest of
 * its rounding, and differences are taken of both: {N, Sx, Sxx, rest}.  The
 * first three are what PostgreSQL's final functions take.
 *
 * Infinities, NaN and overflow are as in PostgreSQL: Sxx is NaN once a value
 * was not finite, and finite values that lead to an infinite result are
 * error 22003.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/float.h"

PG_FUNCTION_INFO_V1(weir_float_accum);
PG_FUNCTION_INFO_V1(weir_float_combine);

typedef struct FloatState
{
	double		n;
	double		sum;
	double		squares;		/* about the mean */
	double		rest;			/* the sum is sum + rest */
} FloatState;

#define FLOAT_STATE_ELEMENTS 4

static FloatState *
float_state(ArrayType *array)
{
	if (ARR_NDIM(array) != 1 || ARR_HASNULL(array) ||
		ARR_ELEMTYPE(array) != FLOAT8OID ||
		ARR_DIMS(array)[0] != FLOAT_STATE_ELEMENTS)
		elog(ERROR, "expected a state of %d floats", FLOAT_STATE_ELEMENTS);
	return (FloatState *) ARR_DATA_PTR(array);
}

/* *sum + *rest + value, rounded once. */
static void
add_exactly(double *sum, double *rest, double value)
{
	double		total = *sum + value;
	double		part = total - *sum;
	double		low = (*sum - (total - part)) + (value - part) + *rest;

	if (!isfinite(total))
	{
		*sum = total;
		*rest = 0;
		return;
	}
	*sum = total + low;
	*rest = low - (*sum - total);
}

/* (a + a_rest) - (b + b_rest), where that is finite. */
static double
difference(double a, double a_rest, double b, double b_rest)
{
	double		plain = a - b;
	double		part = plain - a;

	if (!isfinite(plain) || !isfinite(a_rest) || !isfinite(b_rest))
		return plain;
	return plain + ((a - (plain - part)) - (b + part) + (a_rest - b_rest));
}

/* The mean in two parts. */
static double
mean_of(const FloatState *s, double *rest)
{
	double		mean = s->sum / s->n;

	*rest = (fma(-mean, s->n, s->sum) + s->rest) / s->n;
	return mean;
}

static void
accumulate(FloatState *s, double value)
{
	double		before = s->sum;

	s->n += 1.0;
	add_exactly(&s->sum, &s->rest, value);
	if (s->n > 1.0)
	{
		double		scaled = value * s->n;
		double		tmp = difference(scaled, fma(value, s->n, -scaled),
									 s->sum, s->rest);

		s->squares += tmp * tmp / (s->n * (s->n - 1.0));
		if (isinf(s->sum) || isinf(s->squares))
		{
			if (!isinf(before) && !isinf(value))
				float_overflow_error();
			s->squares = get_float8_nan();
		}
	}
	else if (!isfinite(value))
		s->squares = get_float8_nan();
}

static void
combine(FloatState *a, const FloatState *b)
{
	FloatState	merged = *a;
	double		a_rest;
	double		b_rest;
	double		a_mean;
	double		b_mean;
	double		tmp;

	if (b->n == 0)
		return;
	if (a->n == 0)
	{
		*a = *b;
		return;
	}
	merged.n = a->n + b->n;
	add_exactly(&merged.sum, &merged.rest, b->sum);
	if (isfinite(merged.sum))
		add_exactly(&merged.sum, &merged.rest, b->rest);
	if (isinf(merged.sum) && !isinf(a->sum) && !isinf(b->sum))
		float_overflow_error();

	a_mean = mean_of(a, &a_rest);
	b_mean = mean_of(b, &b_rest);
	tmp = difference(a_mean, a_rest, b_mean, b_rest);
	merged.squares = a->squares + b->squares +
		a->n * b->n * tmp * tmp / merged.n;
	if (isinf(merged.squares) && !isinf(a->squares) && !isinf(b->squares))
		float_overflow_error();
	*a = merged;
}

/* The first argument, to be written to. */
static ArrayType *
own_state(FunctionCallInfo fcinfo)
{
	return AggCheckCallContext(fcinfo, NULL) ? PG_GETARG_ARRAYTYPE_P(0) :
		PG_GETARG_ARRAYTYPE_P_COPY(0);
}

/* (state, value) */
Datum
weir_float_accum(PG_FUNCTION_ARGS)
{
	ArrayType  *state = own_state(fcinfo);

	accumulate(float_state(state), PG_GETARG_FLOAT8(1));
	PG_RETURN_ARRAYTYPE_P(state);
}

/* (state, state) */
Datum
weir_float_combine(PG_FUNCTION_ARGS)
{
	ArrayType  *state = own_state(fcinfo);

	combine(float_state(state), float_state(PG_GETARG_ARRAYTYPE_P(1)));
	PG_RETURN_ARRAYTYPE_P(state);
}
