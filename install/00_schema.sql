-- complain if the script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION weir" to load this file. \quit

CREATE SCHEMA weir_internal;
COMMENT ON SCHEMA weir_internal IS
'weir''s catalog, staging segments and stream state; not an interface';
GRANT USAGE ON SCHEMA weir TO PUBLIC;
GRANT USAGE ON SCHEMA weir_internal TO PUBLIC;
