# Topics that appear, grow, lose records, vanish and come again.
#
# Proves, on Apache Kafka: a source may be made before its topic, and runs
# when there is one.  Partitions added later are found, and read from their
# beginning whatever start_from says.  Records that were deleted before they
# were read stop the source, or fail the one stream that needs them, with a
# message that names offset and partition; nothing is skipped until somebody
# seeks, and then exactly the deleted records are missing (I2).  A topic that
# is gone stops the source, whether weir ran at the time or not.  One that
# was made anew is not taken for the old one, be it shorter or longer, nor is
# another cluster (55W01); weir.seek() accepts it and counts an incarnation.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $kafka = WeirBroker->kafka(java_opts => ['-Xmx512m']);
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $kafka);

my $columns = 'id bigint NOT NULL, at timestamptz';

# Numbers as records: 1 is {"id":1,...}, a second apart.
sub record
{
	my ($id) = @_;
	return sprintf '{"id":%d,"at":%d}', $id, 1704067200000 + $id * 1000;
}

# A source with a row stream (name_rows) and a running count (name_count).
sub create
{
	my ($name, %arg) = @_;
	WeirTest::create_source(
		$node, $name,
		columns => $columns,
		event_time => 'at',
		%arg);
	WeirTest::create_stream($node, "${name}_rows",
		"SELECT s.id, s.kafka_partition AS p FROM $name s");
	WeirTest::create_stream($node, "${name}_count", <<SQL);
SELECT s.kafka_partition AS p, count(*) AS n, sum(s.id) AS sum_id
FROM $name s GROUP BY s.kafka_partition
SQL
	return;
}

sub streams
{
	my ($name) = @_;
	return ("${name}_rows", "${name}_count");
}

# One line a partition: count and sum of ids, the same in both streams.
sub holds
{
	my ($name, $expected, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::wait_for($node, streams($name));
	is( WeirTest::sql($node, <<SQL), $expected, "$what: rows");
SELECT p, count(*), sum(id) FROM ${name}_rows GROUP BY p ORDER BY p
SQL
	is( WeirTest::sql($node, <<SQL), $expected, "$what: count");
SELECT p, n, sum_id FROM ${name}_count ORDER BY p
SQL
	return;
}

sub source_becomes
{
	my ($name, $state, $error, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::sql_becomes($node, <<SQL, $state, "$what: $state");
SELECT DISTINCT state FROM weir.stat_source
WHERE source = '$name' AND stream IS NULL
SQL
	return unless defined $error;
	like( WeirTest::sql($node, <<SQL), $error, "$what: and why");
SELECT DISTINCT last_error_sqlstate || ' ' || last_error
FROM weir.stat_source WHERE source = '$name' AND stream IS NULL
SQL
	return;
}

sub streams_become
{
	my ($name, $state, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::sql_becomes($node, <<SQL, $state, "$what: streams $state");
SELECT DISTINCT state FROM weir.stat_stream
WHERE stream IN ('${name}_rows', '${name}_count')
SQL
	return;
}

# in one transaction, so that it is one incarnation
sub seek_all
{
	my ($name, $to) = @_;
	WeirTest::sql($node,
		join '; ',
		map { "SELECT weir.seek('$_', '$to')" } streams($name));
	return;
}

sub paused
{
	my ($name) = @_;
	WeirTest::sql($node, "SELECT weir.pause('$name')");
	WeirTest::sql_becomes($node, <<SQL, '0');
SELECT count(*) FROM weir.stat_worker WHERE source = '$name' AND kind = 'ingest'
SQL
	return;
}

sub resume
{
	my ($name) = @_;
	WeirTest::sql($node, "SELECT weir.resume('$name')");
	return;
}

##
## Not there yet
##

create('later');
source_becomes('later', 'retrying', qr/^42704 topic "later" does not exist/,
	'no topic yet');
like(
	WeirTest::sql_error($node, "SELECT weir.wait_for('later_rows', '200ms')"),
	qr/^57014/,
	'no topic yet: waiting has an end');
$kafka->create_topic('later', 2);
$kafka->produce('later', [ map { record($_) } 1 .. 10 ]);
source_becomes('later', 'running', undef, 'created');
holds('later', "0|5|25\n1|5|30", 'created');

##
## More partitions
##

$kafka->create_topic('grow', 1);
$kafka->produce('grow', [ map { record($_) } 1 .. 10 ]);
create('grow');
holds('grow', '0|10|55', 'one partition');
WeirTest::create_stream(
	$node, 'grow_new',
	'SELECT s.id, s.kafka_partition AS p FROM grow s',
	options => '{"start_from": "latest"}');
WeirTest::wait_for($node, 'grow_new');
$kafka->add_partitions('grow', 3);
for my $p (0 .. 2)
{
	$kafka->produce('grow', [ map { record($_) } 100 .. 104 ],
		partition => $p);
}
WeirTest::sql_becomes($node, <<'SQL', '3', 'new partitions are found');
SELECT count(*) FROM weir.stat_source WHERE source = 'grow' AND stream IS NULL
SQL
holds('grow', "0|15|565\n1|5|510\n2|5|510", 'three partitions');
WeirTest::wait_for($node, 'grow_new');
is( WeirTest::sql($node, <<'SQL'),
SELECT p, count(*), sum(id) FROM grow_new GROUP BY p ORDER BY p
SQL
	"0|5|510\n1|5|510\n2|5|510",
	'from their beginning, also for a stream from the latest');

##
## Records deleted before they were read
##

$kafka->create_topic('old', 2);
create('old');
$kafka->produce('old', [ map { record($_) } 1 .. 20 ]);
holds('old', "0|10|100\n1|10|110", 'before');
paused('old');
$kafka->produce('old', [ map { record($_) } 21 .. 40 ]);
$kafka->delete_records('old', 0, 15);
resume('old');
source_becomes('old', 'stopped',
	qr/^55000 offset 10 of old\[0\] is gone \(available 15\.\.20\)/,
	'deleted');
streams_become('old', 'waiting', 'deleted');
like(
	WeirTest::sql_error($node, "SELECT weir.wait_for('old_rows', '200ms')"),
	qr/^5/,
	'deleted: waiting is an error');
resume('old');
source_becomes('old', 'stopped', qr/^55000 offset 10 of old\[0\] is gone/,
	'deleted, and resume alone');
is( WeirTest::sql($node, 'SELECT p, n, sum_id FROM old_count ORDER BY p'),
	"0|10|100\n1|10|110",
	'deleted: nothing is skipped');
seek_all('old', '{"0": 15}');
resume('old');

# the odd numbers are in partition 0; those of 21 to 29 are gone
holds('old', "0|15|275\n1|20|420", 'sought past them');
source_becomes('old', 'running', undef, 'sought past them');
streams_become('old', 'running', 'sought past them');
# all that a partition had, up to its very end
paused('old');
$kafka->produce('old', [ map { record($_) } 41 .. 44 ]);
$kafka->delete_records('old', 1, -1);
resume('old');
source_becomes('old', 'stopped',
	qr/^55000 offset 20 of old\[1\] is gone \(available 22\.\.22\)/,
	'all deleted');
seek_all('old', '{"1": 22}');
resume('old');
holds('old', "0|17|359\n1|20|420", 'all deleted, sought');

# what was read may go
$kafka->delete_records('old', 0, -1);
paused('old');
resume('old');
$kafka->produce('old', [ map { record($_) } 45 .. 46 ]);
holds('old', "0|18|404\n1|21|466", 'what was read may be deleted');

# one stream is behind, and what it needs is gone
WeirTest::sql($node, "SELECT weir.pause('old_rows')");
WeirTest::sql_becomes($node, <<'SQL', '0');
SELECT count(*) FROM weir.stat_worker WHERE stream = 'old_rows'
SQL
$kafka->produce('old', [ map { record($_) } 47 .. 50 ]);
WeirTest::wait_for($node, 'old_count');
$node->restart;
WeirTest::wait_for($node, 'old_count');
my ($end) = map { $_->[1] } $kafka->offsets('old');
my $needed = $end - 2;
$kafka->delete_records('old', 0, -1);
WeirTest::sql($node, "SELECT weir.resume('old_rows')");
WeirTest::sql_becomes($node, <<'SQL', 'failed', 'one behind: it fails');
SELECT state FROM weir.stat_stream WHERE stream = 'old_rows'
SQL
like( WeirTest::sql($node, <<'SQL'),
SELECT last_error_sqlstate || ' ' || last_error
FROM weir.stat_stream WHERE stream = 'old_rows'
SQL
	qr/^55000 offset $needed of old\[0\] is gone/,
	'one behind: and why');
$kafka->produce('old', [ map { record($_) } 51 .. 52 ]);
WeirTest::wait_for($node, 'old_count');
is( WeirTest::sql($node, 'SELECT p, n, sum_id FROM old_count ORDER BY p'),
	"0|21|551\n1|24|616", 'one behind: its sibling goes on');
WeirTest::sql($node, <<SQL);
SELECT weir.seek('old_rows', '{"0": $end}');
SELECT weir.resume('old_rows');
SQL
WeirTest::wait_for($node, 'old_rows');
is( WeirTest::sql($node,
		'SELECT p, count(*), sum(id) FROM old_rows GROUP BY p ORDER BY p'),
	"0|19|455\n1|24|616",
	'one behind: sought past them');
source_becomes('old', 'running', undef, 'one behind: the source runs');

##
## The topic is gone, and another one has its name
##

# with a dead letter at offset 0, in each incarnation
sub fill
{
	my ($topic, $first, $n) = @_;
	$kafka->produce(
		$topic,
		[ 'broken', map { record($_) } $first .. $first + $n - 1 ],
		partition => 0);
	$kafka->produce($topic, [ map { record($_) } $first .. $first + $n - 1 ],
		partition => 1);
	return;
}

for my $case (
	[ 'shorter', 10, 5, qr/^55W01 topic "shorter" is not the topic / ],
	[ 'longer', 10, 20, qr/^55W01 topic "longer" is not the topic / ])
{
	my ($topic, $n, $again, $error) = @$case;
	my $sum = $n * ($n + 1) / 2;
	my $sum_again = $again * 100 + $again * ($again - 1) / 2;
	my $new = "0|$again|$sum_again\n1|$again|$sum_again";

	$kafka->create_topic($topic, 2);
	create($topic);
	fill($topic, 1, $n);
	holds($topic, "0|$n|$sum\n1|$n|$sum", "$topic, the old topic");

	# while nobody looks
	paused($topic);
	$kafka->delete_topic($topic);
	$kafka->create_topic($topic, 2);
	fill($topic, 100, $again);
	resume($topic);
	source_becomes($topic, 'stopped', $error, "$topic, made anew");
	streams_become($topic, 'waiting', "$topic, made anew");
	is( WeirTest::sql($node, <<SQL),
SELECT count(*) FROM ${topic}_rows WHERE id >= 100
SQL
		'0', "$topic, made anew: nothing of it is taken");
	resume($topic);
	source_becomes($topic, 'stopped', $error, "$topic, and resume alone");
	seek_all($topic, 'earliest');
	holds($topic, $new, "$topic, sought");
	source_becomes($topic, 'running', undef, "$topic, sought");

	# while it runs, it is gone; and later there is one again
	$kafka->delete_topic($topic);
	source_becomes($topic, 'stopped',
		qr/^42704 topic "$topic" does not exist/, "$topic, gone");
	streams_become($topic, 'waiting', "$topic, gone");
	$kafka->create_topic($topic, 2);
	fill($topic, 1, $n);
	resume($topic);
	source_becomes($topic, 'stopped',
		qr/^55W01 topic "$topic" is not the topic /, "$topic, there again");
	seek_all($topic, 'earliest');
	holds($topic, "0|$n|$sum\n1|$n|$sum", "$topic, accepted");
	is( WeirTest::sql($node, <<SQL),
SELECT topic_incarnation, kafka_partition, kafka_offset FROM weir.dead_letter
WHERE source = '$topic' ORDER BY 1
SQL
		"1|0|0\n2|0|0\n3|0|0", "$topic: a dead letter each time");

	# while PostgreSQL is down, gone
	$node->stop;
	$kafka->delete_topic($topic);
	$node->start;
	source_becomes($topic, 'stopped',
		qr/^42704 topic "$topic" does not exist/, "$topic, gone unseen");
	WeirTest::sql($node,
		"SELECT weir.drop_source('$topic', cascade => true)");
}

# fewer partitions are another topic, too
$kafka->create_topic('fewer', 3);
create('fewer');
$kafka->produce('fewer', [ map { record($_) } 1 .. 9 ]);
holds('fewer', "0|3|12\n1|3|15\n2|3|18", 'three partitions');
paused('fewer');
$kafka->delete_topic('fewer');
$kafka->create_topic('fewer', 2);
$kafka->produce('fewer', [ map { record($_) } 1 .. 20 ]);
resume('fewer');
source_becomes('fewer', 'stopped', qr/^55W01 topic "fewer" is not the topic/,
	'fewer partitions');
seek_all('fewer', 'earliest');
holds('fewer', "0|10|100\n1|10|110", 'fewer partitions, sought');

##
## Another cluster
##

my $other = WeirBroker->embedded(topics => { later => 2 });
$other->produce('later', [ map { record($_) } 1001 .. 1100 ]);

# a change of the server counts from the next start
sub move_to
{
	my ($broker) = @_;
	my $bootstrap = $broker->bootstrap;
	paused('later');
	WeirTest::sql($node,
		"ALTER SERVER kafka OPTIONS (SET bootstrap_servers '$bootstrap')");
	resume('later');
	return;
}
move_to($other);
source_becomes('later', 'stopped', qr/^55W01 topic "later" is not the topic/,
	'another cluster');
holds_still("0|5|25\n1|5|30", 'another cluster: nothing of it is taken');
move_to($kafka);
$kafka->produce('later', [ map { record($_) } 11 .. 12 ]);
holds('later', "0|6|36\n1|6|42", 'and back');
move_to($other);
source_becomes('later', 'stopped', qr/^55W01/, 'another cluster again');
seek_all('later', 'earliest');
holds('later', "0|50|52500\n1|50|52550", 'another cluster, accepted');

sub holds_still
{
	my ($expected, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( WeirTest::sql($node,
			'SELECT p, n, sum_id FROM later_count ORDER BY p'),
		$expected, $what);
	return;
}

unlike(slurp_file($node->logfile),
	qr/TRAP:|PANIC:|signal 11|signal 6/, 'no crash');
$node->stop;
$kafka->stop;
done_testing();
