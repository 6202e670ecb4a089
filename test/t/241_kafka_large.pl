# Large messages go the whole way.
#
# Proves, on Apache Kafka: a message of 10 MB, with small ones before and
# after it and with less memory for ingest than it needs, is fetched, decoded,
# staged and written, whole; one that is broken is a dead letter, payload and
# all, and what follows it lands.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $size = 10_000_000;
my $kafka = WeirBroker->kafka(java_opts => ['-Xmx512m']);
my $node =
  WeirTest::start_node('main', conf => { 'weir.ingest_memory' => '4MB' });
WeirTest::create_server($node, $kafka);
$kafka->create_topic('large', 1, "max.message.bytes=20000000");
WeirTest::create_source($node, 'large',
	columns => 'id int NOT NULL, t text, whole jsonb OPTIONS (path \'$\')');
WeirTest::create_stream($node, 'rows',
	q{SELECT l.id, length(l.t) AS len, md5(l.t) AS sum, l.whole ->> 'id' AS whole_id FROM large l});

my $text = 'x' x $size;
$kafka->produce(
	'large',
	[
		'{"id":1,"t":"a"}', qq({"id":2,"t":"$text"}),
		'{"id":3,"t":"b"}', qq({"id":4,"t":"$text),
		'{"id":5,"t":"c"}', qq({"id":6,"t":"y$text"})
	],
	properties => { 'message.max.bytes' => 20_000_000 });
WeirTest::wait_for($node, 'rows');
is( WeirTest::sql($node, 'SELECT id, len, whole_id FROM rows ORDER BY id'),
	"1|1|1\n2|$size|2\n3|1|3\n5|1|5\n6|@{[$size + 1]}|6",
	'large and small ones are there');
is( WeirTest::sql($node, 'SELECT sum FROM rows WHERE id = 2'),
	WeirTest::sql($node, "SELECT md5(repeat('x', $size))"),
	'whole');
is( WeirTest::sql(
		$node,
		'SELECT kafka_offset, reason, length(payload) FROM weir.dead_letter'),
	"3|decode|@{[$size + length '{\"id\":4,\"t\":\"']}",
	'the broken one is a dead letter');

$node->stop;
done_testing();
