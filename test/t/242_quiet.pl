# Quiet sources, and what ends their quiet.
#
# Proves: a source from which nothing comes, and a stream that reads it, wake
# up a few times a second only, and still know the end of each partition, and
# that it is idle; a record ends that at once.  Whatever is changed in the
# options of the server, every source takes it up: no worker reads, when it
# is woken, what was there before the change.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $n = 12;
my @sources = map { "s$_" } 1 .. $n;
my $broker = WeirBroker->embedded(topics => { map { $_ => 4 } @sources });
my $node = WeirTest::start_node('main',
	conf => {
		'weir.end_offset_interval' => '1s',
		'weir.retry_delay' => '50ms',
		max_worker_processes => 60
	});
WeirTest::create_server($node, $broker);
WeirTest::sql($node,
	q(ALTER SERVER kafka OPTIONS (SET fetch_wait_max_ms '500')));
for my $name (@sources)
{
	WeirTest::create_source($node, $name,
		columns => 'id int',
		idle_timeout => '2 seconds');
	WeirTest::create_stream($node, "of_$name", "SELECT s.id FROM $name s");
	$broker->produce($name, [ map { qq({"id":$_}) } 1 .. 8 ]);
}
my $idle = <<"SQL";
SELECT count(*) FILTER (WHERE idle AND end_offset = 2 AND lag = 0) = 4 * $n
FROM weir.stat_source
SQL
WeirTest::sql_becomes($node, $idle, 't', 'all read, all idle');

# how often the threads of weir's workers of a kind have gone to sleep
sub sleeps
{
	my ($kind) = @_;
	my $sum = 0;
	for my $pid (WeirTest::worker_pids($node, $kind))
	{
		for my $path (glob "/proc/$pid/task/*/status")
		{
			my $status = eval { WeirBroker::slurp($path) };
			$sum += $1
			  if defined $status
			  && $status =~ /^voluntary_ctxt_switches:\s+(\d+)/m;
		}
	}
	return $sum;
}

# a busy machine makes them fewer
my %before = map { $_ => sleeps($_) } qw(ingest stream);
my $seconds = 5;
my $until =
  WeirTest::sql($node, "SELECT clock_timestamp() + interval '$seconds s'");
my $begun = time;
WeirTest::sql_becomes($node, "SELECT clock_timestamp() > '$until'");
my %after = map { $_ => sleeps($_) } qw(ingest stream);
my $passed = time - $begun + 1;
for my $kind (qw(ingest stream))
{
	my $most = { ingest => 16, stream => 4 }->{$kind};
	my $each = ($after{$kind} - $before{$kind}) / $n / $passed;
	note(sprintf '%s: %.1f a second', $kind, $each);
	cmp_ok($each, '<', $most, "$kind workers sleep");
}
is(WeirTest::sql($node, $idle), 't', 'still idle, and known to be so');

$broker->produce($_, ['{"id":9}']) for @sources;
WeirTest::sql_becomes(
	$node,
	join(' + ', map { "(SELECT count(*) FROM of_$_)" } @sources) =~
	  s/^/SELECT /r,
	9 * $n,
	'records end the quiet');

# every change is seen by every source
WeirTest::sql($node, q(ALTER SERVER kafka OPTIONS (ADD client_id 'c0')));
my $unseen = 0;
for my $i (1 .. 20)
{
	WeirTest::sql_becomes($node, <<"SQL");
SELECT count(*) = $n AND bool_and(state = 'running')
FROM weir.stat_source WHERE kafka_partition = 0
SQL
	my $epochs = WeirTest::sql($node,
		'SELECT sum(epoch) FROM weir.stat_source WHERE kafka_partition = 0');
	WeirTest::sql($node, "ALTER SERVER kafka OPTIONS (SET client_id 'c$i')");
	$unseen++
	  unless WeirTest::poll(
		sub {
			WeirTest::sql($node, <<"SQL") eq 't';
SELECT sum(epoch) >= $epochs + $n FROM weir.stat_source WHERE kafka_partition = 0
SQL
		},
		20);
}
is($unseen, 0, 'every change of the server is seen by every source');

$node->stop;
done_testing();
