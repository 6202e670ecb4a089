# What an operator sees.
#
# Proves: without a stream a source stages one segment as a preview, which a
# SELECT shows, and waits; each worker is named in pg_stat_activity, with what
# it does; lag, watermark and counters are in the views and are counted anew
# after stat_reset(); a column that is never found is reported; explain()
# shows the statements that run.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { events => 2 });
my $node = WeirTest::start_node('main',
	conf => { 'weir.staging_limit' => '1MB', 'weir.segment_size' => '256kB' });
WeirTest::create_server($node, $broker);
$broker->gen('events', topic => 'events', events => 20000, partitions => 2);

WeirTest::create_source($node, 'events',
	columns => 'id bigint NOT NULL, v int, at timestamptz, none text',
	event_time => 'at');
WeirTest::sql_becomes($node, 'SELECT DISTINCT state FROM weir.stat_source',
	'preview', 'a source without a stream is a preview');
my $staged = WeirTest::sql($node, 'SELECT count(*) FROM events');
cmp_ok($staged, '>', 100, 'which can be looked at');
cmp_ok($staged, '<', 20000, 'and is not the whole topic');
is( WeirTest::sql(
		$node,
		q{SELECT bool_and(kafka_topic = 'events' AND kafka_partition IN (0, 1) AND kafka_offset >= 0) FROM events}
	),
	't',
	'with the columns of Kafka');

WeirTest::create_stream($node, 'hours', <<'SQL');
SELECT w.window_start, count(*) AS n, sum(e.v) AS s
FROM events e CROSS JOIN weir.tumble(e.at, '1 hour') w GROUP BY w.window_start
SQL
WeirTest::wait_for($node, 'hours');
is(WeirTest::sql($node, 'SELECT sum(n) FROM hours'),
	'20000', 'a stream takes the preview and goes on');

is( WeirTest::sql($node, <<'SQL'),
SELECT string_agg(backend_type || ':' || CASE backend_type
		WHEN 'weir ingest' THEN (query ~ 'topic')::text
		WHEN 'weir stream' THEN (query ~ 'stream hours')::text
		ELSE 'true' END, ' ' ORDER BY backend_type)
FROM pg_stat_activity WHERE backend_type ~ '^weir'
SQL
	'weir ingest:true weir launcher:true weir manager:true weir stream:true',
	'pg_stat_activity names the workers and what they do');
is( WeirTest::sql($node,
		q{SELECT string_agg(kind, ' ' ORDER BY kind) FROM weir.stat_worker}),
	'ingest launcher manager stream',
	'and so does stat_worker');

WeirTest::sql_becomes($node,
	q{SELECT string_agg(DISTINCT columns_never_found, ' ') FROM weir.stat_source},
	'none', 'a column that is never found is shown');
is( WeirTest::sql($node,
		'SELECT state, lag, rows_in, rows_dead, watermark = weir.watermark(stream) FROM weir.stat_stream'
	),
	'running|0|20000|0|t',
	'the stream');
WeirTest::sql_becomes($node,
	'SELECT sum(rows_in), sum(rows_staged), sum(lag) FROM weir.stat_source',
	'20000|20000|0', 'the source');
WeirTest::sql($node, 'SELECT weir.stat_reset()');
is( WeirTest::sql($node,
		'SELECT (SELECT rows_in FROM weir.stat_stream), (SELECT sum(rows_in) FROM weir.stat_source)'
	),
	'0|0',
	'counted anew');
$broker->gen(
	'events',
	topic => 'events',
	events => 100,
	first => 20000,
	partitions => 2);
WeirTest::wait_for($node, 'hours');
WeirTest::sql_becomes($node,
	'SELECT (SELECT rows_in FROM weir.stat_stream), (SELECT sum(rows_in) FROM weir.stat_source)',
	'100|100', 'from there');

is( WeirTest::sql($node,
		q{SELECT count(*) FROM weir.explain('hours') WHERE step = 'apply' AND statement ~ 'INSERT INTO public.hours'}
	),
	'1',
	'explain() shows what runs');

$node->stop;
done_testing();
