# Where PostgreSQL counts from: a time of 0 is a time.
#
# Proves: event times and watermarks of 2000-01-01 00:00 UTC, which is 0 inside
# the server, are shown, and a seek to that moment leaves windows that begin
# before it alone, as one to the microsecond before or after it does.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

# the embedded broker finds no offsets for a time
my $broker = WeirBroker->kafka(java_opts => ['-Xmx512m']);
$broker->create_topic('rows', 1, 'retention.ms=-1');
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);
WeirTest::create_source($node, 'rows', columns => 'id int');
WeirTest::create_stream($node, 'counts', <<'SQL', allowed_lateness => '1 day');
SELECT w.window_start, w.window_end, count(*) AS n
FROM rows CROSS JOIN weir.tumble(kafka_timestamp, '2 minutes', '2000-01-01 00:01:00') w
GROUP BY w.window_start, w.window_end
SQL

# seconds after the beginning of 2000
sub produce
{
	$broker->produce('rows',
		[ map { ((946684800 + $_) * 1000) . "\t{\"id\":1}" } @_ ],
		timestamp => 1);
	WeirTest::wait_for($node, 'counts');
	return;
}

produce(-30, 0);
is( WeirTest::sql($node, <<'SQL'),
SELECT max_event_time = '2000-01-01 00:00:00+00',
	(SELECT watermark = '2000-01-01 00:00:00+00' FROM weir.stat_stream)
FROM weir.stat_source
SQL
	't|t', 'event time and watermark are shown');
produce(10, 70);
my $counts = <<'SQL';
SELECT extract(epoch FROM window_start - '2000-01-01 00:00:00+00')::int, n
FROM counts ORDER BY 1
SQL
is(WeirTest::sql($node, $counts), "-60|3\n60|1", 'two windows');
for my $time ('2000-01-01 00:00:00+00', '1999-12-31 23:59:59.999+00',
	'2000-01-01 00:00:00.001+00')
{
	WeirTest::sql($node, "SELECT weir.seek('counts', '$time')");
	WeirTest::wait_for($node, 'counts');
	is(WeirTest::sql($node, $counts), "-60|3\n60|1", "sought to $time");
}

$node->stop;
done_testing();
