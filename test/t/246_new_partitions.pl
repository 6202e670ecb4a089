# Partitions that are added while somebody waits, or begins.
#
# Proves, on Apache Kafka: weir.wait_for() right after partitions were added
# waits for what is in them; explicit offsets of a partition that the topic
# gets later are refused until then; what retention has deleted is refused
# where it was to begin, by a stream, without disturbing others; an offset
# inside of a transaction that is open is refused, and good when it is over.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

plan skip_all => WeirBroker::kafka_missing() if WeirBroker::kafka_missing();

my $kafka = WeirBroker->kafka(java_opts => ['-Xmx512m']);
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $kafka);

sub sql
{
	return WeirTest::sql($node, @_);
}

sub produce
{
	my ($partition, $from, $to) = @_;
	$kafka->produce('t', [ map { qq($partition\t{"id":$_}) } $from .. $to ],
		partition_field => 1);
	return;
}

sub ids
{
	my ($table, $p) = @_;
	return sql("SELECT coalesce(min(id) || '..' || max(id), '') || ':' || count(*) FROM $table WHERE p = $p");
}

$kafka->create_topic('t', 1);
produce(0, 0, 9);
WeirTest::create_source($node, 't', columns => 'id int');
my $query = 'SELECT s.id, s.kafka_partition AS p FROM t s';
WeirTest::create_stream($node, 'rows', $query);
WeirTest::create_stream($node, 'ahead', $query,
	options => '{"start_from": {"0": 5, "2": 3}}');
WeirTest::wait_for($node, 'rows');
my $state = <<'SQL';
SELECT state || ' ' || coalesce(last_error_sqlstate, '') || ' ' || coalesce(last_error, '')
FROM weir.stat_stream WHERE stream = '%s'
SQL
WeirTest::sql_becomes($node, sprintf($state, 'ahead'),
	qr/^failed 22023 partition 2 of topic "t" does not exist/,
	'a partition that is not there yet');

for my $n (2 .. 4)
{
	$kafka->add_partitions('t', $n);
	WeirBroker::poll_until(sub { eval { produce($n - 1, 0, 9); 1 } })
	  or die 'the new partition is not there';
	WeirTest::wait_for($node, 'rows');
	is(ids('rows', $n - 1), '0..9:10', "partition @{[ $n - 1 ]}: wait_for waits for what is in it");
}
sql("SELECT weir.resume('ahead')");
WeirTest::wait_for($node, 'ahead');
is( join(' ', map { ids('ahead', $_) } 0 .. 3),
	'5..9:5 0..9:10 3..9:7 0..9:10',
	'now it is there, and is read from there on');

# what has been deleted
produce(0, 10, 29);
WeirTest::wait_for($node, 'rows', 'ahead');
$kafka->delete_records('t', 0, 20);
WeirTest::create_stream($node, 'gone', $query,
	options => '{"start_from": {"0": 7}}');
WeirTest::sql_becomes($node, sprintf($state, 'gone'),
	qr/^failed 55000 offset 7 of t\[0\] is gone \(available 20\.\.30\)/,
	'an offset that has been deleted');
sql(q(SELECT weir.seek('gone', '{"0": 20, "1": 10, "2": 10, "3": 10}'), weir.resume('gone')));
WeirTest::wait_for($node, 'gone', 'rows', 'ahead');
is(ids('gone', 0), '20..29:10', 'sought to one that is there');
is(ids('rows', 0), '0..29:30', 'the others are not disturbed');

# a transaction that is open
my $open = $kafka->producer('t',
	partition => 0,
	transactional => 'open',
	commit_every => 0);
$open->send(map { qq({"id":$_}) } 30 .. 39);
WeirBroker::poll_until(sub { ($kafka->offsets('t'))[0]->[1] >= 40 })
  or die 'the records are not there';
WeirTest::create_stream($node, 'inside', $query,
	options => '{"start_from": {"0": 35, "1": 10, "2": 10, "3": 10}}');
WeirTest::sql_becomes($node, sprintf($state, 'inside'),
	qr/^failed 22023 offset 35 of t\[0\] is past its end \(available 20\.\.30\)/,
	'an offset in an open transaction');
$open->finish;
WeirTest::wait_for($node, 'rows');
sql("SELECT weir.resume('inside')");
WeirTest::wait_for($node, 'inside');
is(ids('inside', 0), '35..39:5', 'is there when it is over');

$node->stop;
$kafka->stop;
done_testing();
