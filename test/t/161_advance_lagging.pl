# An advance without a time goes no further, in a stream that lags behind.
#
# Proves: advance_watermark() closes what was open at the call, also in a
# stream that comes to those rows later, and in one batch with others: windows
# that began after the call stay open, and rows that come for them are not
# late.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { adv => 2 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);
WeirTest::create_source(
	$node, 'adv',
	columns => 'id int NOT NULL, at timestamptz',
	event_time => 'at',
	max_out_of_orderness => '1 hour',
	idle_timeout => undef);
for my $name (qw(ahead lagging))
{
	WeirTest::create_stream($node, $name, <<'SQL', emit => 'on_close');
SELECT w.window_start, count(*) AS n
FROM adv s CROSS JOIN weir.tumble(s.at, '1 minute') w
GROUP BY w.window_start
SQL
}

# rows of partition, and seconds since 2024-01-01
sub produce
{
	$broker->produce(
		'adv',
		[ map { sprintf qq(%d\t{"id":1,"at":%d}), $_->[0], 1704067200 + $_->[1] } @_ ],
		partition_field => 1);
	WeirTest::wait_for($node, 'ahead');
	return;
}

sub minutes
{
	my ($name) = @_;
	return WeirTest::sql($node, <<SQL);
SELECT string_agg(to_char(window_start AT TIME ZONE 'UTC', 'MI') || '=' || n, ' ' ORDER BY window_start)
FROM $name
SQL
}

produce([ 0, 1 ], [ 1, 2 ]);
WeirTest::wait_for($node, 'lagging');
WeirTest::sql($node, "SELECT weir.pause('lagging')");
produce(map { [ $_ % 2, 60 + $_ ] } 0 .. 99);
WeirTest::sql($node, "SELECT weir.advance_watermark('adv')");
WeirTest::wait_for($node, 'ahead');
produce([ 0, 180 ], [ 1, 240 ], [ 0, 300 ]);
WeirTest::sql($node, "SELECT weir.resume('lagging')");
WeirTest::wait_for($node, 'lagging');
is(minutes('ahead'), '00=2 01=60 02=40', 'one that does not lag');
is(minutes('lagging'), minutes('ahead'), 'one that lags closes no more');
produce([ 0, 185 ], [ 1, 245 ]);
WeirTest::close_windows($node, 'adv', qw(ahead lagging));
is(minutes('ahead'), '00=2 01=60 02=40 03=2 04=2 05=1', 'the rest');
is(minutes('lagging'), minutes('ahead'), 'of one that lags, too');
is(WeirTest::sql($node, 'SELECT count(*) FROM weir.dead_letter'),
	'0', 'no row is late');

$node->stop;
done_testing();
