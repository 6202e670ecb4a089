# More data than memory, from a real Kafka (I6).
#
# Proves: while 100 MB wait in the topic and the streams stand still, the
# ingest worker holds no more than weir.ingest_memory beside what it had at
# the start, and the staging ring no more than weir.staging_limit and one
# insert; the source says "back_pressure"; when the streams go on, slowly,
# both limits hold all the way, and in the end nothing is lost or doubled.
# A restart in the middle of it changes nothing.  When the broker deletes what
# a standing source has not fetched yet, it stops in mid-stream, and what is
# applied is exactly what lies before the position it names; weir.seek() gets
# it out (I2).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $mb = 1024 * 1024;
my $ingest_memory = 8 * $mb;
my $staging_limit = 4 * $mb;

# an insert of 4,000 rows of about 1 kB
my $one_insert = 6 * $mb;

my $records = 100_000;
my $partitions = 4;

my $kafka = WeirBroker->kafka(java_opts => ['-Xmx512m']);
my $node = WeirTest::start_node(
	'main',
	conf => {
		'shared_buffers' => '16MB',
		'weir.ingest_memory' => $ingest_memory / 1024 . 'kB',
		'weir.staging_limit' => $staging_limit / 1024 . 'kB',
		'weir.segment_size' => '512kB',
		'weir.max_batch_rows' => '2000',
		'weir.lock_timeout' => '0'
	});
WeirTest::create_server($node, $kafka);

# A record is its number and about 1 kB of text that follows from it.
sub payload
{
	my ($i) = @_;
	my $pad = sprintf('%08d ', $i) x (80 + $i % 60);
	return sprintf('{"id":%d,"at":%d,"pad":"%s"}',
		$i, 1704067200000 + $i, $pad);
}

$kafka->create_topic('big', $partitions);
WeirTest::create_source(
	$node, 'big',
	columns => 'id bigint NOT NULL, at timestamptz, pad text',
	event_time => 'at');
my %query = (
	rows => 'SELECT b.id, md5(b.pad) AS md5 FROM big b',
	windows => <<'SQL');
SELECT w.window_start, count(*) AS n, sum(b.id) AS sum_id, sum(length(b.pad)) AS bytes
FROM big b CROSS JOIN weir.tumble(b.at, '1 second') w
GROUP BY w.window_start
SQL
WeirTest::create_stream($node, $_, $query{$_}) for sort keys %query;

my $producer = $kafka->producer('big', partition_field => 1);

sub produce
{
	my ($from, $to) = @_;
	$producer->send(map { $_ % $partitions . "\t" . payload($_) }
		  $from .. $to);
	return;
}

sub memory
{
	my $bytes = WeirTest::sql_if_up($node, <<'SQL');
SELECT max(memory_bytes) FROM weir.stat_worker WHERE kind = 'ingest'
SQL
	return defined $bytes && $bytes ne '' ? $bytes : 0;
}

produce(0, 999);
WeirTest::wait_for($node, sort keys %query);
my $memory_at_rest = memory();
cmp_ok($memory_at_rest, '>', 0, 'memory is accounted for');

my $most_memory = 0;
my $most_staged = 0;

sub look
{
	my $bytes = memory();
	$most_memory = $bytes if $bytes > $most_memory;
	my $staged = WeirTest::sql_if_up($node, <<'SQL');
SELECT coalesce(max(bytes), 0) FROM (
	SELECT sum(pg_relation_size(c.oid)) AS bytes
	FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace
	WHERE nspname = 'weir_internal' AND relname ~ '^segment_\d+_\d+_\d+$'
	GROUP BY substring(relname, '^segment_\d+_\d+')) r
SQL
	$most_staged = $staged if defined $staged && $staged > $most_staged;
	return;
}

# polls a condition and looks at the memory meanwhile
sub becomes
{
	my ($sql, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $ok = WeirTest::poll(
		sub {
			look();
			my $got = WeirTest::sql_if_up($node, $sql);
			return defined $got && $got eq 't';
		});
	ok($ok, $name) or diag(WeirTest::status($node));
	return;
}

# The shared buffers a process has touched count as its own, too; and the
# client may go over its limit by a response a partition.
sub within
{
	my ($when) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $buffers = 16 * $mb;
	my $limit =
	  $memory_at_rest + $buffers + $ingest_memory + $partitions * $mb;
	ok($most_memory <= $limit, "$when: memory is bounded")
	  or diag("$most_memory bytes, limit $limit, at rest $memory_at_rest");
	ok( $most_staged <= $staging_limit + $one_insert,
		"$when: staging is bounded")
	  or diag("$most_staged bytes");
	note("$when: memory $memory_at_rest, at most $most_memory;"
		  . " staged at most $most_staged");
	return;
}

##
## All streams stand
##

my $blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN; LOCK TABLE rows, windows');
produce(1000, $records - 1);
$producer->finish;
becomes(<<'SQL', 'standing: back pressure');
SELECT bool_and(state = 'back_pressure') FROM weir.stat_source
WHERE stream IS NULL
SQL
becomes(<<"SQL", 'standing: the queue fills');
SELECT sum(kafka_queue_bytes) > $ingest_memory / 4 FROM weir.stat_worker
WHERE kind = 'ingest'
SQL

# it stays like this: as long as ten statistics of the client
my $until = WeirTest::sql($node,
	"SELECT clock_timestamp() + interval '1 second'");
becomes("SELECT clock_timestamp() > '$until'", 'standing: for a while');
my $queue = WeirTest::sql($node, <<'SQL');
SELECT max(kafka_queue_bytes) FROM weir.stat_worker WHERE kind = 'ingest'
SQL
cmp_ok($queue, '<=', $ingest_memory, 'standing: the queue is bounded');
my $read = WeirTest::sql($node, <<'SQL');
SELECT sum(fetched_offset) FROM weir.stat_source WHERE stream IS NULL
SQL
cmp_ok($read, '<', $records / 2, 'standing: most is in Kafka still');
within('standing');

##
## They go on
##

$blocker->query_safe('COMMIT');
$blocker->quit;
becomes('SELECT count(*) > 20000 FROM rows', 'going on');
$node->restart;
becomes("SELECT count(*) = $records FROM rows", 'restarted, all is read');
WeirTest::wait_for($node, sort keys %query);
within('draining');
my $stored = <<"SQL";
(SELECT i::bigint AS id, timestamptz '2024-01-01 00:00:00Z' + i * interval '1 ms' AS at,
	repeat(lpad(i::text, 8, '0') || ' ', 80 + i % 60) AS pad
FROM generate_series(0, $records - 1) i)
SQL
WeirTest::compare($node, "SELECT * FROM $_",
	$query{$_} =~ s/FROM big b/FROM $stored b/r, "$_ equals the oracle")
  for sort keys %query;

##
## Deleted while it stands
##

$kafka->create_topic('gone', 1);
WeirTest::create_source(
	$node, 'gone',
	columns => 'id bigint NOT NULL, pad text');
WeirTest::create_stream($node, 'rest', 'SELECT g.id FROM gone g');
WeirTest::wait_for($node, 'rest');
$blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN; LOCK TABLE rest');
$kafka->produce('gone', [ map { payload($_) } 0 .. 39_999 ]);
becomes(<<'SQL', 'deleted: back pressure');
SELECT state = 'back_pressure' FROM weir.stat_source
WHERE source = 'gone' AND stream IS NULL
SQL
$kafka->delete_records('gone', 0, 39_000);
$blocker->query_safe('COMMIT');
$blocker->quit;
becomes(<<'SQL', 'deleted: the source stops');
SELECT state = 'stopped' FROM weir.stat_source
WHERE source = 'gone' AND stream IS NULL
SQL
like( WeirTest::sql($node, <<'SQL'),
SELECT last_error_sqlstate || ' ' || last_error FROM weir.stat_source
WHERE source = 'gone' AND stream IS NULL
SQL
	qr/^55000 offset \d+ of gone\[0\] is gone/,
	'deleted: and says why');

# The next start finds it at the position that is applied.
my $before = WeirTest::sql($node, <<'SQL');
SELECT last_error_at FROM weir.stat_source
WHERE source = 'gone' AND stream IS NULL
SQL
WeirTest::sql($node, "SELECT weir.resume('gone')");
becomes(<<"SQL", 'deleted: resume alone does not help');
SELECT state = 'stopped' AND last_error_at > '$before'
	AND last_error ~ 'available 39000\\.\\.40000'
FROM weir.stat_source WHERE source = 'gone' AND stream IS NULL
SQL
my ($position) = WeirTest::sql($node, <<'SQL') =~ /offset (\d+) of/;
SELECT last_error FROM weir.stat_source
WHERE source = 'gone' AND stream IS NULL
SQL
cmp_ok($position, '<', 39_000, 'deleted: the position is in the gap');
WeirTest::compare(
	$node, 'TABLE rest',
	"SELECT generate_series(0, $position - 1)::bigint",
	'deleted: applied is what lies before it');
WeirTest::sql($node, <<'SQL');
SELECT weir.seek('rest', '{"0": 39000}');
SELECT weir.resume('gone');
SQL
WeirTest::wait_for($node, 'rest');
WeirTest::compare(
	$node, 'TABLE rest', <<"SQL", 'deleted: sought past the gap');
SELECT i::bigint FROM generate_series(0, 39999) i
WHERE i < $position OR i >= 39000
SQL

is(WeirTest::sql($node, 'SELECT count(*) FROM weir.dead_letter'),
	'0', 'no dead letters');

$node->stop;
$kafka->stop;
done_testing();
