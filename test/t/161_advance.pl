# An advance of the watermark closes what came before the call, and no more.
#
# Proves: rows that stand in one staged batch with those of the call, but
# came after it, open windows that the advance leaves open: it is applied
# between the two, though the stream reads both at once; a row on time for
# such a window is not late.  Two advances in a row keep their places, too.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { t => 2 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);
WeirTest::create_source($node, 't', columns => 'id int, at timestamptz',
	event_time => 'at');
WeirTest::create_stream($node, 'counts', <<'SQL');
SELECT w.window_start, count(*) AS n
FROM t CROSS JOIN weir.tumble(t.at, '10 seconds') w
GROUP BY w.window_start
SQL

# rows of partition, id and seconds
sub produce
{
	$broker->produce(
		't',
		[
			map {
				sprintf qq(%d\t{"id":%d,"at":"2024-01-01T00:00:%06.3fZ"}),
				  @$_
			} @_
		],
		partition_field => 1);
	return;
}

sub ends_known
{
	my ($n) = @_;
	WeirTest::sql_becomes($node,
		'SELECT count(*) FROM weir_internal.advance WHERE end_offsets IS NOT NULL',
		$n, "the ends of $n advances are known");
	return;
}

# Two advances and rows behind each, all there before the stream reads on.
WeirTest::sql($node, q{SELECT weir.pause('counts')});
WeirTest::sql_becomes($node,
	q{SELECT count(*) FROM weir.stat_worker WHERE kind = 'stream'}, '0');
produce([ 0, 1, 1 ], [ 1, 2, 2 ], [ 0, 3, 3 ]);
WeirTest::sql($node, q{SELECT weir.advance_watermark('t')});
ends_known(1);
produce([ 0, 4, 21 ], [ 1, 5, 22 ]);
WeirTest::sql($node, q{SELECT weir.advance_watermark('t')});
ends_known(2);
produce([ 0, 6, 41 ]);
WeirTest::sql($node, q{SELECT weir.resume('counts')});
WeirTest::wait_for($node, 'counts');

is( WeirTest::sql($node, q{SELECT weir.watermark('counts')}),
	'2024-01-01 00:00:30+00',
	'the second advance closed what was open at its call');

# Partition 1 holds the watermark there, in whatever batches these come.
produce([ 0, 8, 31 ], [ 1, 9, 29 ]);
WeirTest::wait_for($node, 'counts');
produce([ 1, 7, 42 ]);
WeirTest::wait_for($node, 'counts');
is( WeirTest::sql(
		$node,
		q{SELECT extract(second FROM window_start)::int, n FROM counts ORDER BY 1}
	),
	"0|3\n20|2\n30|1\n40|2",
	'what came later is on time');
is( WeirTest::sql(
		$node,
		q{SELECT staged_row ->> 'id' FROM weir.dead_letter WHERE reason = 'late'}),
	'9',
	'but for the closed window');

$node->stop;
done_testing();
