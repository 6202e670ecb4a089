# How many transactions a trickle of records takes.
#
# Proves: with records that come one by one, ingest commits at most once in
# 25 ms, and at most about once for each batch of a stream that takes longer;
# a record that comes after a pause is there at once all the same; while
# nothing arrives no transaction id is used; records that come in full
# batches are not held up; nothing is lost with any of it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { drip => 2 });
my $node = WeirTest::start_node('main', conf => { autovacuum => 'off' });
WeirTest::create_server($node, $broker);
WeirTest::create_source($node, 'drip', columns => 'id int, k int');
WeirTest::create_stream($node, 'drip_sums', 'SELECT d.k, count(*) AS n, sum(d.id) AS s FROM drip d GROUP BY d.k');

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

# Transaction ids handed out so far; asking takes none.
sub ids
{
	return sql('SELECT pg_snapshot_xmax(pg_current_snapshot())');
}

sub batches
{
	return sql("SELECT batches FROM weir.stat_stream WHERE stream = 'drip_sums'");
}

my $sent = 0;

sub record
{
	$sent++;
	return sprintf '{"id":%d,"k":%d}', $sent, $sent % 10;
}

sub exact
{
	my ($name) = @_;
	WeirTest::wait_for($node, 'drip_sums');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sql('SELECT sum(n), sum(s) FROM drip_sums'),
		join('|', $sent, $sent * ($sent + 1) / 2), $name);
	return;
}

my $producer = $broker->producer('drip');
$producer->send(record());
exact('the first');

my ($ids, $batches, $start) = (ids(), batches(), time);
for my $i (1 .. 3000)
{
	$producer->send(record());
	usleep(1000);
}
exact('a trickle');
my $ms = (time - $start) * 1000;
my $used = ids() - $ids - (batches() - $batches);
cmp_ok($used, '<=', $ms / 25 + 2, 'ingest commits at most once in 25 ms');

# Quiet: until both partitions are known to be so, and on.
WeirTest::sql_becomes($node, "SELECT bool_and(lag = 0) FROM weir.stat_source", 't');
$ids = ids();
sql('SELECT pg_sleep(3)');
is(ids() - $ids, 0, 'while nothing arrives no transaction id is used');

# After a pause: one record, one commit, at once.
for my $i (1 .. 20)
{
	$producer->send(record());
	exact("after a pause, $i");
}
$broker->produce('drip', [ map { record() } 1 .. 100000 ]);
exact('many at once');

$producer->finish;
$node->stop;
done_testing();
