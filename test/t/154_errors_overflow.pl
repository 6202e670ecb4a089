# A row that cannot be added to what is there.
#
# Proves: where a sum of floats overflows, with what is in state or within
# one batch, the row that made it so becomes a dead letter; what was there
# stays, other groups are not touched, and the stream runs on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { f => 1 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);
WeirTest::create_source(
	$node, 'f',
	columns => 'k text, v float8, at timestamptz',
	event_time => 'at');
WeirTest::create_stream($node, 'running',
	'SELECT f.k, sum(f.v) AS s, count(*) AS n FROM f GROUP BY f.k');
WeirTest::create_stream($node, 'hours', <<'SQL', emit => 'on_close');
SELECT w.window_start, f.k, sum(f.v) AS s, count(*) AS n
FROM f CROSS JOIN weir.hop(f.at, '2 hours', '1 hour') w
GROUP BY w.window_start, f.k
SQL
my @streams = qw(running hours);

sub produce
{
	$broker->produce('f',
		[ map { qq({"k":"$_->[0]","v":$_->[1],"at":1704067200}) } @_ ]);
	WeirTest::wait_for($node, @streams);
	return;
}

produce([ 'a', '1.5e308' ], [ 'b', 1 ]);
produce([ 'b', 2 ], [ 'a', '1.5e308' ], [ 'b', 3 ]);
produce([ 'c', '1e308' ], [ 'b', 4 ], [ 'c', '9e307' ], [ 'b', 5 ]);
WeirTest::close_windows($node, 'f', 'hours');

for my $stream (@streams)
{
	my $letters = WeirTest::sql($node,
		"SELECT string_agg(kafka_offset || ' ' || reason || ' ' || sqlstate, ', ' ORDER BY kafka_offset) FROM weir.dead_letter WHERE stream = '$stream'");
	is($letters, '3 query 22003, 7 query 22003',
		"$stream: the rows that were too much");
	is( WeirTest::sql($node,
			"SELECT state, rows_in, rows_dead FROM weir.stat_stream WHERE stream = '$stream'"),
		'running|9|2', "$stream: runs on");
}
WeirTest::compare($node,
	q{SELECT k, s > 1e307, n FROM running},
	q{VALUES ('a', true, bigint '1'), ('b', false, 5), ('c', true, 1)},
	'running: the rest');
WeirTest::compare($node,
	q{SELECT DISTINCT k, s, n FROM hours},
	q{SELECT k, s, n FROM running},
	'hours: the rest');

$node->stop;
done_testing();
