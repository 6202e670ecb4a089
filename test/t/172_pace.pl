# What a batch costs, and when the next one begins.
#
# Proves: a batch writes one version of one row of weir's catalog, whatever
# the number of partitions; a backlog of many segments is applied without
# waiting for batch_interval, even when the ring is full and the rest of it
# still in Kafka; and when it is applied, batch_interval holds.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { narrow => 6, wide => 8 });
my $node = WeirTest::start_node('main',
	conf => { 'weir.segment_size' => '1MB', 'weir.staging_limit' => '4MB' });
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

##
## Versions
##

WeirTest::create_source($node, 'narrow', columns => 'id int, at timestamptz',
	event_time => 'at');
WeirTest::create_stream($node, 'counts', <<'SQL');
SELECT w.window_start, count(*) AS n
FROM narrow s CROSS JOIN weir.tumble(s.at, '1 minute') w GROUP BY w.window_start
SQL
WeirTest::wait_for($node, 'counts');
my $written = <<'SQL';
SELECT sum(n_tup_upd) FROM pg_stat_all_tables
WHERE schemaname = 'weir_internal' AND relname !~ '^state_|^segment'
SQL
my $before = sql($written);
my $batches = sql(q(SELECT batches FROM weir.stat_stream WHERE stream = 'counts'));
my $id = 0;
for my $i (1 .. 30)
{
	$broker->produce('narrow',
		[ map { $id++; sprintf qq(%d\t{"id":%d,"at":%d}), $_, $id, 1704067200 + $id } 0 .. 5 ],
		partition_field => 1);
	WeirTest::wait_for($node, 'counts');
}
$batches = sql(q(SELECT batches FROM weir.stat_stream WHERE stream = 'counts')) - $batches;
cmp_ok($batches, '>=', 30, 'batches');

# statistics are told at the latest when their process ends
sql(q(SELECT weir.pause('counts'), weir.pause('narrow')));
WeirTest::sql_becomes($node, q(SELECT count(*) FROM weir.stat_worker WHERE kind IN ('stream', 'ingest')), 0);
my $versions = sql($written) - $before;

# one more for each time that only the watermark moved, and for the pause
cmp_ok($versions, '<=', 2 * $batches + 5, "$batches batches of six partitions write no version each");
cmp_ok($versions, '>=', $batches, 'but one each');
sql(q(SELECT weir.drop_source('narrow', cascade => true)));

##
## A backlog
##

WeirTest::create_source($node, 'wide',
	columns => 'id int, txt text', options => '{"staging_limit": "4MB"}');
WeirTest::create_stream($node, 'hourly', 'SELECT s.id, length(s.txt) AS n FROM wide s',
	batch_interval => '1 hour');
WeirTest::create_stream($node, 'at_once', 'SELECT s.id, length(s.txt) AS n FROM wide s');
my $text = 'x' x 1000;
$broker->produce('wide',
	[ map { sprintf qq(%d\t{"id":%d,"txt":"%s"}), $_ % 8, $_, $text } 1 .. 20000 ],
	partition_field => 1);
WeirTest::wait_for($node, qw(at_once hourly));
is(sql("SELECT count(*), count(DISTINCT id), min(n), max(n) FROM $_"), '20000|20000|1000|1000',
	"$_: the backlog is applied") for qw(at_once hourly);

# a little more has to wait, unless it comes in time with the rest
$batches = sql(q(SELECT batches FROM weir.stat_stream WHERE stream = 'hourly'));
for my $i (1 .. 5)
{
	$broker->produce('wide', qq({"id":1,"txt":"$i"}), partition => 0);
	WeirTest::wait_for($node, 'at_once');
}
is(sql('SELECT count(*) FROM at_once'), 20005, 'without an interval it is there at once');
cmp_ok(sql(q(SELECT batches FROM weir.stat_stream WHERE stream = 'hourly')) - $batches, '<=', 1,
	'with one it waits');
cmp_ok(sql('SELECT count(*) FROM hourly'), '<', 20005, 'for what is to come');

$node->stop;
done_testing();
