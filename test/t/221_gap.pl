# A gap that was sought over stays visible.
#
# Proves, on Apache Kafka: after weir.seek() has moved a stream forward over
# records that were deleted unread, its last_error says which they are.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../../support";

use Test::More;
use WeirBroker;
use WeirTest;

my $kafka = WeirBroker->kafka(java_opts => ['-Xmx512m']);
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $kafka);

$kafka->create_topic('old', 1);
WeirTest::create_source($node, 'old', columns => 'id bigint');
WeirTest::create_stream($node, 'rows', 'SELECT o.id FROM old o');
$kafka->produce('old', [ map { qq({"id":$_}) } 1 .. 10 ]);
WeirTest::wait_for($node, 'rows');
WeirTest::sql($node, "SELECT weir.pause('old')");
WeirTest::sql_becomes($node, <<'SQL', '0');
SELECT count(*) FROM weir.stat_worker WHERE source = 'old' AND kind = 'ingest'
SQL
$kafka->produce('old', [ map { qq({"id":$_}) } 11 .. 20 ]);
$kafka->delete_records('old', 0, 15);
WeirTest::sql($node, <<'SQL');
SELECT weir.seek('rows', '{"0": 15}');
SELECT weir.resume('old');
SQL
WeirTest::wait_for($node, 'rows');
is(WeirTest::sql($node, 'SELECT count(*) FROM rows'), '15', 'sought');
like(
	WeirTest::sql($node, 'SELECT last_error FROM weir.stat_stream'),
	qr/\b10\b.*\b1[45]\b/,
	'last_error tells of the gap');

$node->stop;
$kafka->stop;
done_testing();
