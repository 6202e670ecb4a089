-- For tests: what a query compiles to, with any relation as the source.

CREATE FUNCTION weir_internal.compile_query(query text, source regclass,
	event_time name, emit text DEFAULT 'on_change',
	allowed_lateness interval DEFAULT '0', segment_view text DEFAULT 'segment',
	state text DEFAULT 'state', target text DEFAULT 'target',
	key text[] DEFAULT NULL, windows_from timestamptz DEFAULT NULL,
	OUT step text, OUT purpose text, OUT statement text)
RETURNS SETOF record
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'weir_compile_query';

REVOKE ALL ON FUNCTION weir_internal.compile_query(text, regclass, name, text,
	interval, text, text, text, text[], timestamptz) FROM PUBLIC;

COMMENT ON FUNCTION weir_internal.compile_query(text, regclass, name, text, interval, text, text, text, text[], timestamptz) IS
'DDL and statements of a continuous query over a source that need not be in the catalog';

CREATE FUNCTION weir_internal.check_target(query text, source regclass,
	event_time name, target regclass, key text[] DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'weir_check_target';

REVOKE ALL ON FUNCTION weir_internal.check_target(text, regclass, name,
	regclass, text[]) FROM PUBLIC;

COMMENT ON FUNCTION weir_internal.check_target(text, regclass, name, regclass, text[]) IS
'raises an error when the target does not fit the query';

CREATE FUNCTION weir_internal.event_bounds(event timestamptz, zone text,
	twice boolean DEFAULT false, OUT "time" timestamptz, OUT lower timestamptz,
	OUT upper timestamptz)
LANGUAGE c IMMUTABLE STRICT
AS 'MODULE_PATHNAME', 'weir_event_bounds';

COMMENT ON FUNCTION weir_internal.event_bounds(timestamptz, text, boolean) IS
'an event time (a timestamp in UTC) taken at a zone, and bounds of all rows after and before it (src/stream_zone.c)';

CREATE FUNCTION weir_internal.event_reaching("time" timestamptz, zone text,
	twice boolean DEFAULT false) RETURNS timestamptz
LANGUAGE c IMMUTABLE STRICT
AS 'MODULE_PATHNAME', 'weir_event_reaching';

COMMENT ON FUNCTION weir_internal.event_reaching(timestamptz, text, boolean) IS
'the least event time whose lower bound is at or after a time';
