-- complain if the script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION weir" to load this file. \quit

-- Names below are found in the schema of the extension as well, if there is
-- something that fits better: nobody may have put anything there.
DO $$
BEGIN
	IF EXISTS (
		SELECT FROM pg_catalog.pg_namespace n
			JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
		WHERE n.nspname OPERATOR(pg_catalog.=) 'weir'
			AND (NOT (r.rolsuper OR r.rolname OPERATOR(pg_catalog.=) CURRENT_USER)
				OR EXISTS (
					SELECT FROM pg_catalog.aclexplode(n.nspacl) a
					WHERE a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'
						AND a.grantee OPERATOR(pg_catalog.<>) n.nspowner)
				OR EXISTS (
					SELECT FROM pg_catalog.pg_depend d
					WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
						AND d.refobjid OPERATOR(pg_catalog.=) n.oid
						AND d.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_extension'::pg_catalog.regclass)))
	THEN
		RAISE EXCEPTION 'schema "weir" is not empty, or not a superuser''s alone'
			USING ERRCODE = '55000',
				  DETAIL = 'What others put there could run with the rights of whoever uses the extension.',
				  HINT = 'Drop or rename the schema; CREATE EXTENSION makes it.';
	END IF;
END
$$;

CREATE SCHEMA weir_internal;
COMMENT ON SCHEMA weir_internal IS
'weir''s catalog, staging segments and stream state; not an interface';
GRANT USAGE ON SCHEMA weir TO PUBLIC;

-- Not of weir_internal: who could name a segment could make a view of it that
-- is in the way of its drop.  Owners of streams get it, since their statements
-- name what lies there.
