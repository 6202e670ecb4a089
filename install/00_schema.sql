-- complain if the script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION weir" to load this file. \quit

CREATE SCHEMA weir_internal;
COMMENT ON SCHEMA weir_internal IS
'weir''s catalog, staging segments and stream state; not an interface';
GRANT USAGE ON SCHEMA weir TO PUBLIC;

-- Not of weir_internal: who could name a segment could make a view of it that
-- is in the way of its drop.  Owners of streams get it, since their statements
-- name what lies there.
