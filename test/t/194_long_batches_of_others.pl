# A long batch of one stream, and what its source needs to know of that one.
#
# Proves: while a batch of a stream runs that would take an hour, partitions
# that are added to the topic are read by the other streams; so are those of a
# stream that is made, or sought, meanwhile, and the source does not complain.
# The stream with the long batch loses nothing.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $kafka = WeirBroker->kafka;
$kafka->create_topic('t', 1);
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $kafka);
WeirTest::sql($node,
	q(ALTER SERVER kafka OPTIONS (ADD topic_metadata_refresh_interval_ms '500')));

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

sub in_batch
{
	WeirTest::sql_becomes($node, <<'SQL');
SELECT count(*) > 0 FROM pg_stat_activity JOIN weir.stat_worker USING (pid)
WHERE kind = 'stream' AND stream = 'slow_rows' AND wait_event = 'PgSleep'
SQL
	return;
}

sql(<<'SQL');
CREATE TABLE gate AS SELECT true AS closed;
CREATE FUNCTION slow(v int) RETURNS int VOLATILE LANGUAGE plpgsql AS
'BEGIN IF v < 0 AND (SELECT closed FROM public.gate) THEN PERFORM pg_sleep(3600); END IF; RETURN v; END';
SQL
WeirTest::create_source($node, 't', columns => 'v int');
WeirTest::create_stream($node, 'plain', 'SELECT t.v, t.kafka_partition AS p FROM t');
WeirTest::create_stream($node, 'slow_rows', 'SELECT slow(t.v) AS v, t.kafka_partition AS p FROM t');
$kafka->produce('t', [ map { qq({"v":$_}) } 1 .. 5 ]);
WeirTest::wait_for($node, qw(plain slow_rows));
$kafka->produce('t', ['{"v":-1}']);
in_batch();

$kafka->add_partitions('t', 2);
$kafka->produce('t', [ map { $_ % 2 . qq(\t{"v":$_}) } 6 .. 15 ], partition_field => 1);
WeirTest::sql_becomes($node, 'SELECT count(*), count(*) FILTER (WHERE p = 1) FROM plain', '16|5',
	'a partition that is added is read by the others');
in_batch();
WeirTest::create_stream($node, 'young', 'SELECT t.v, t.kafka_partition AS p FROM t');
WeirTest::wait_for($node, 'young');
is(sql('SELECT count(*) FROM young'), 16, 'a stream that is made has all of it');
sql(q(SELECT weir.seek('young', 'earliest')));
WeirTest::wait_for($node, 'young');
is(sql('SELECT count(*) FROM young'), 16, 'also when it is sought');
is(sql(q(SELECT DISTINCT state, last_error FROM weir.stat_source WHERE source = 't' AND stream IS NULL)),
	'running|', 'the source runs');

# It goes on.
in_batch();
sql('UPDATE gate SET closed = false');
sql(q(SELECT pg_terminate_backend(pid) FROM weir.stat_worker WHERE kind = 'stream' AND stream = 'slow_rows'));
WeirTest::wait_for($node, 'slow_rows');
WeirTest::compare($node, 'TABLE slow_rows', 'TABLE plain', 'the stream with the long batch has all of it');

$node->stop;
$kafka->stop;
done_testing();
