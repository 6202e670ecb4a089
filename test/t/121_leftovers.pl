# Nothing is left of what is dropped, or of a ring that is not needed.
#
# Proves: the segments of a private ring go when its stream is attached
# again, and those of a source's ring when the source is dropped; so do the
# segments' views, with their storage.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support", "$FindBin::RealBin/../../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { events => 2 });
my $node = WeirTest::start_node(
	'main',
	conf => {
		'weir.staging_limit' => '1MB',
		'weir.segment_size' => '128kB'
	});
WeirTest::create_server($node, $broker);
WeirTest::create_events_source($node, 'events');
WeirTest::create_stream($node, 'rows', 'SELECT e.id, e.txt FROM events e');
my @lines = WeirBroker::gen_lines('events',
	events => 40000, seed => 121, partitions => 2);
$broker->produce('events', \@lines, partition_field => 1);
WeirTest::wait_for($node, 'rows');

my $segments = <<'SQL';
SELECT count(*) FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace
WHERE nspname = 'weir_internal' AND relname ~ '^segment_'
SQL
my $shared = WeirTest::sql($node, $segments);
cmp_ok($shared, '>', 0, 'a ring has segments');

# new from earliest, when that is long gone from the ring
WeirTest::create_stream($node, 'later', 'SELECT e.id FROM events e');
WeirTest::wait_for($node, 'later');
WeirTest::sql_becomes($node,
	"SELECT count(*) FROM weir.stat_source WHERE stream IS NOT NULL", '0');
WeirTest::sql_becomes($node, $segments, $shared,
	'the segments of a private ring go with it');
is(WeirTest::sql($node, 'SELECT count(*) FROM later'), '40000', 'all rows');

WeirTest::sql($node, "SELECT weir.drop_source('events', cascade => true)");
WeirTest::sql_becomes($node, $segments, '0',
	'the segments of a source go with it');

$node->stop;
done_testing();
