# Windows after a seek to offsets, or to the latest.
#
# Proves: windows that start after the position's rows (of every partition,
# the one that is furthest ahead, too) are made anew and complete, wherever
# the first batch ends; windows begun earlier are not emitted and stay as they
# were.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support", "$FindBin::RealBin/../../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { steps => 2 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);
WeirTest::create_source(
	$node, 'steps',
	columns => 'id bigint NOT NULL, at timestamptz',
	event_time => 'at');
WeirTest::create_stream($node, 'minutes', <<'SQL');
SELECT w.window_start, count(*) AS n
FROM steps s CROSS JOIN weir.tumble(s.at, '1 minute') w
GROUP BY w.window_start
SQL

# a row every second, in both partitions: row i is at offset i / 2
sub steps
{
	my (@ids) = @_;
	$broker->produce(
		'steps',
		[
			map {
				sprintf qq(%d\t{"id":%d,"at":%d}), $_ % 2, $_,
				  1704067200 + $_
			} @ids
		],
		partition_field => 1);
	WeirTest::wait_for($node, 'minutes');
	return;
}

# "minute=n ..." of the target from a minute on, or before it
sub minutes
{
	my ($condition) = @_;
	return WeirTest::sql($node, <<SQL);
SELECT string_agg(m || '=' || n, ' ' ORDER BY m)
FROM (SELECT extract(epoch FROM window_start - '2024-01-01Z')::int / 60 AS m, n FROM minutes) x
WHERE m $condition
SQL
}

steps(0 .. 599);
is(minutes('>= 0'), join(' ', map { "$_=60" } 0 .. 9), 'at first');

# of both partitions row 200 and 201, at 3:20
WeirTest::sql($node, 'UPDATE minutes SET n = -1');
WeirTest::sql($node, q(SELECT weir.seek('minutes', '{"0": 100, "1": 100}')));
WeirTest::wait_for($node, 'minutes');
is(minutes('>= 4'), join(' ', map { "$_=60" } 4 .. 9),
	'windows that start after the position are made anew');
is(minutes('< 4'), '0=-1 1=-1 2=-1 3=-1', 'those begun earlier stay');

# row 100 of one partition, row 401 of the other, at 6:41
WeirTest::sql($node, "SELECT weir.seek('minutes', 'earliest')");
WeirTest::wait_for($node, 'minutes');
WeirTest::sql($node, 'UPDATE minutes SET n = -1');
WeirTest::sql($node, q(SELECT weir.seek('minutes', '{"0": 50, "1": 200}')));
WeirTest::wait_for($node, 'minutes');
is(minutes('>= 7'), '7=60 8=60 9=60',
	'the partition that is furthest ahead decides');
is(minutes('< 7'), join(' ', map { "$_=-1" } 0 .. 6),
	'what would be incomplete is not emitted');

# the latest, with rows that come while the stream is paused
WeirTest::sql($node, "SELECT weir.seek('minutes', 'latest')");
WeirTest::wait_for($node, 'minutes');
steps(600 .. 839);
is(minutes('>= 11'), '11=60 12=60 13=60',
	'after the latest, windows that start later are complete');

$node->stop;
done_testing();
