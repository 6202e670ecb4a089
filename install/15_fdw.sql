-- The foreign data wrapper: servers are connections, foreign tables sources.

CREATE FUNCTION weir_internal.kafka_handler() RETURNS fdw_handler
	LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'weir_kafka_handler';
COMMENT ON FUNCTION weir_internal.kafka_handler() IS
'handler of the foreign data wrapper weir_kafka: reads the rows still staged';

CREATE FUNCTION weir_internal.kafka_validator(options text[], catalog oid) RETURNS void
	LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'weir_kafka_validator';
COMMENT ON FUNCTION weir_internal.kafka_validator(text[], oid) IS
'checks options of servers, user mappings and columns of weir_kafka: options as name=value, catalog the oid of the system catalog they belong to; 22023 for an unknown or bad option, 42501 for one that only a superuser may set';

CREATE FOREIGN DATA WRAPPER weir_kafka
	HANDLER weir_internal.kafka_handler
	VALIDATOR weir_internal.kafka_validator;
COMMENT ON FOREIGN DATA WRAPPER weir_kafka IS
'Kafka clusters as servers (options are librdkafka''s, with _ for .), secrets in user mappings, topics as sources made by weir.create_source()';

CREATE FUNCTION weir.header(kafka_headers weir.kafka_header[], name text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN (SELECT pg_catalog.convert_from(h.value, 'UTF8')
			FROM pg_catalog.unnest(kafka_headers) WITH ORDINALITY AS h (key, value, n)
			WHERE h.key OPERATOR(pg_catalog.=) name
			ORDER BY h.n DESC LIMIT 1);
COMMENT ON FUNCTION weir.header(weir.kafka_header[], text) IS
'value of a header as text: kafka_headers a source''s column, name exact; the last one counts when it occurs more than once, NULL when it does not occur; 22021 when the value is not UTF-8';

CREATE FUNCTION weir.dead_letter_text(payload bytea) RETURNS text
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'weir_dead_letter_text';
COMMENT ON FUNCTION weir.dead_letter_text(bytea) IS
'payload of a dead letter to read: as text where it is valid UTF-8 without NUL, else in bytea''s escape format';
