-- Definitions to read: what was given to create_source and create_stream.

CREATE VIEW weir.sources AS
SELECT c.relname AS source,
	s.relation,
	c.relowner::regrole AS owner,
	v.srvname AS server,
	s.topic,
	s.format,
	a.attname AS event_time,
	s.max_out_of_orderness,
	s.idle_timeout,
	s.max_future_skew,
	s.start_from,
	s.filter,
	s.on_error,
	s.workers,
	s.options,
	s.paused,
	ARRAY(SELECT m.name FROM weir_internal.stream m
		  WHERE m.source_id = s.source_id ORDER BY m.name) AS streams,
	s.created_at
FROM weir_internal.source s
	JOIN pg_catalog.pg_class c ON c.oid = s.relation
	JOIN pg_catalog.pg_foreign_table t ON t.ftrelid = c.oid
	JOIN pg_catalog.pg_foreign_server v ON v.oid = t.ftserver
	JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = s.event_time;
COMMENT ON VIEW weir.sources IS 'the sources of this database';
COMMENT ON COLUMN weir.sources.source IS 'bare name';
COMMENT ON COLUMN weir.sources.relation IS 'the foreign table';
COMMENT ON COLUMN weir.sources.owner IS 'owner of the foreign table: reaches the broker with this role''s user mapping, evaluates filter, defaults and checks with its rights';
COMMENT ON COLUMN weir.sources.server IS 'foreign server: the Kafka cluster';
COMMENT ON COLUMN weir.sources.topic IS 'Kafka topic';
COMMENT ON COLUMN weir.sources.format IS 'how payloads are decoded';
COMMENT ON COLUMN weir.sources.event_time IS 'event-time column; kafka_timestamp when none was named';
COMMENT ON COLUMN weir.sources.max_out_of_orderness IS 'how far the watermark stays behind the greatest event time';
COMMENT ON COLUMN weir.sources.idle_timeout IS 'after this long at its end a partition no longer holds the watermark; NULL: never';
COMMENT ON COLUMN weir.sources.max_future_skew IS 'an event time further past the wall clock does not move the watermark; NULL: no limit';
COMMENT ON COLUMN weir.sources.start_from IS 'first position of its streams';
COMMENT ON COLUMN weir.sources.filter IS 'condition a row must pass to be staged, every name qualified; NULL: all';
COMMENT ON COLUMN weir.sources.on_error IS 'dead_letter or stop';
COMMENT ON COLUMN weir.sources.workers IS 'ingest workers';
COMMENT ON COLUMN weir.sources.options IS 'options as given';
COMMENT ON COLUMN weir.sources.paused IS 'by weir.pause()';
COMMENT ON COLUMN weir.sources.streams IS 'names of the streams that read it';
COMMENT ON COLUMN weir.sources.created_at IS 'when it was made';

CREATE VIEW weir.streams AS
SELECT m.name AS stream,
	m.owner,
	m.kind,
	m.window_kind,
	ARRAY(SELECT c.relname FROM weir_internal.source s
		  JOIN pg_catalog.pg_class c ON c.oid = s.relation
		  WHERE s.source_id = m.source_id) AS sources,
	m.target,
	m.target_created,
	m.key_columns,
	m.query,
	m.emit,
	m.allowed_lateness,
	m.late_rows,
	m.on_error,
	m.batch_interval,
	m.options,
	m.start_from,
	ARRAY(SELECT s FROM pg_catalog.unnest(m.settings) s
		  WHERE pg_catalog.strpos(pg_catalog.split_part(s, '=', 1), '.') = 0) AS settings,
	m.paused,
	m.created_at
FROM weir_internal.stream m;
COMMENT ON VIEW weir.streams IS 'the streams of this database';
COMMENT ON COLUMN weir.streams.stream IS 'name';
COMMENT ON COLUMN weir.streams.owner IS 'whose rights the query has';
COMMENT ON COLUMN weir.streams.kind IS 'row, aggregate (running) or window';
COMMENT ON COLUMN weir.streams.window_kind IS 'tumble or hop; NULL: no window';
COMMENT ON COLUMN weir.streams.sources IS 'bare names of the sources that it reads';
COMMENT ON COLUMN weir.streams.target IS 'the table it keeps; NULL: it has been dropped';
COMMENT ON COLUMN weir.streams.target_created IS 'weir made the target';
COMMENT ON COLUMN weir.streams.key_columns IS 'the target''s key; NULL: rows are only ever added';
COMMENT ON COLUMN weir.streams.query IS 'the query with every name qualified, as things are named now';
COMMENT ON COLUMN weir.streams.emit IS 'on_change or on_close';
COMMENT ON COLUMN weir.streams.allowed_lateness IS 'how long after its end a window still takes rows';
COMMENT ON COLUMN weir.streams.late_rows IS 'dead_letter or drop';
COMMENT ON COLUMN weir.streams.on_error IS 'dead_letter or stop';
COMMENT ON COLUMN weir.streams.batch_interval IS 'least time between micro-batches; 0: adapts';
COMMENT ON COLUMN weir.streams.options IS 'options as given';
COMMENT ON COLUMN weir.streams.start_from IS 'its own first position; NULL: the source''s';
COMMENT ON COLUMN weir.streams.settings IS 'name=value, at creation, of search_path, TimeZone, DateStyle, IntervalStyle and all others that change how texts are read or values computed; those of modules and users, with a dot in their names, are kept too, and not shown';
COMMENT ON COLUMN weir.streams.paused IS 'by weir.pause()';
COMMENT ON COLUMN weir.streams.created_at IS 'when it was made';

GRANT SELECT ON weir.sources, weir.streams TO PUBLIC;
