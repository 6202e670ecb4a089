-- Helpers of compiled statements: partial states that PostgreSQL has no SQL
-- type or function for, and checks.

-- {N, Sx, Sxx, rest of Sx} of floats, Sxx centred; see src/stream_float.c.
CREATE FUNCTION weir_internal.float_accum(double precision[], double precision)
RETURNS double precision[]
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'weir_float_accum';

CREATE FUNCTION weir_internal.float_combine(double precision[], double precision[])
RETURNS double precision[]
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'weir_float_combine';

CREATE AGGREGATE weir_internal.float_partial(double precision) (
	SFUNC = weir_internal.float_accum,
	STYPE = double precision[],
	INITCOND = '{0,0,0,0}',
	PARALLEL = SAFE
);

CREATE AGGREGATE weir_internal.float_combine_partials(double precision[]) (
	SFUNC = weir_internal.float_combine,
	STYPE = double precision[],
	INITCOND = '{0,0,0,0}',
	PARALLEL = SAFE
);

-- Variance from count, sum and sum of squares, digit for digit PostgreSQL's.
CREATE FUNCTION weir_internal.numeric_variance(n bigint, sx numeric,
	sxx numeric, sample boolean)
RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
	WHEN n <= CASE WHEN sample THEN 1 ELSE 0 END THEN NULL
	WHEN n * sxx - sx * sx <= 0 THEN 0
	ELSE (n * sxx - sx * sx) /
		(n::numeric * (n - CASE WHEN sample THEN 1 ELSE 0 END))
END;

CREATE FUNCTION weir_internal.numeric_stddev(n bigint, sx numeric,
	sxx numeric, sample boolean)
RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT CASE
		WHEN v = 'NaN' THEN v
		ELSE round(sqrt(round(v, scale(v) + 20)), scale(v))
	END
	FROM (SELECT weir_internal.numeric_variance(n, sx, sxx, sample)) AS q (v);
END;

-- A volatile function in HAVING is not moved below the grouping, so it is
-- called once a group.
CREATE FUNCTION weir_internal.key_fits(VARIADIC keys "any")
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'weir_key_fits';

COMMENT ON FUNCTION weir_internal.key_fits("any") IS
'true; raises 54000 when the keys are too large together for a btree index';

CREATE FUNCTION weir_internal.event_time(kafka_timestamp timestamptz)
RETURNS timestamptz
LANGUAGE c STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'weir_event_time';

COMMENT ON FUNCTION weir_internal.event_time(timestamptz) IS
'its argument; raises 23502 when that is NULL';

CREATE FUNCTION weir_internal.in_batch_support(internal)
RETURNS internal
LANGUAGE c IMMUTABLE STRICT
AS 'MODULE_PATHNAME', 'weir_in_batch_support';

CREATE FUNCTION weir_internal.in_batch(kafka_partition int,
	kafka_offset bigint, applied bigint[], high bigint[])
RETURNS boolean
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
SUPPORT weir_internal.in_batch_support
AS 'MODULE_PATHNAME', 'weir_in_batch';

COMMENT ON FUNCTION weir_internal.in_batch(int, bigint, bigint[], bigint[]) IS
'is the offset in [applied, high) of its partition, element partition + 1 of the arrays?';

CREATE FUNCTION weir_internal.in_part(tid tid, part_from tid, part_to tid,
	without tid[])
RETURNS boolean
LANGUAGE c IMMUTABLE STRICT
SUPPORT weir_internal.in_batch_support
AS 'MODULE_PATHNAME', 'weir_in_part';

COMMENT ON FUNCTION weir_internal.in_part(tid, tid, tid, tid[]) IS
'is the staged row in [part_from, part_to) and not in without, which is sorted? remembers it as the last one seen';
