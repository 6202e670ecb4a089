# Timestamps of Kafka's that are missing, or that no timestamp can hold.
#
# Proves, with records stamped -1, in nanoseconds and at both ends of what can
# be: kafka_timestamp is NULL where there is none that a timestamp can hold, in
# rows, in dead letters, in weir.sample(), and everything that shows them can
# be read and dumped.  Where Kafka's timestamp is the event time, a record
# without one is lost to no stream that needs none (rows, rows with a key,
# running aggregates); it is a dead letter of a stream with windows, unless
# the stream's WHERE drops it, and moves no watermark.  One with an impossible
# timestamp is a dead letter of the source.  Event times at the beginning of
# all time leave a watermark that can be read.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { stamped => 2, old => 1 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

# id => Kafka's timestamp in ms
my %stamp = (
	1 => 1704067200000,
	2 => -1,
	3 => 1750000000000000000,
	4 => 1704067201000,
	5 => 9223372036854775807,
	6 => 9224318015999999,
	7 => 9224318016000000,
	8 => -1,
	9 => 1,
	10 => 1704067215000);
my @lines = map { $_ % 2 . "\t$stamp{$_}\t{\"id\":$_,\"v\":" . $_ % 3 . '}' }
  sort { $a <=> $b } keys %stamp;

for my $name (qw(by_kafka by_payload))
{
	WeirTest::create_source(
		$node, $name,
		topic => 'stamped',
		columns => 'id int, v int CHECK (v >= 0), at timestamptz DEFAULT \'2024-01-01Z\'',
		event_time => $name eq 'by_payload' ? 'at' : undef,
		max_future_skew => undef,
		idle_timeout => undef);
	WeirTest::create_stream($node, "${name}_rows",
		"SELECT id, kafka_timestamp AS at FROM $name");
}
WeirTest::create_stream(
	$node, 'keyed', 'SELECT v, id FROM by_kafka',
	options => '{"key": "v"}');
WeirTest::create_stream($node, 'running',
	'SELECT v, count(*) AS n FROM by_kafka GROUP BY v');
for my $kind (
	'tumble|weir.tumble(kafka_timestamp, \'10 seconds\')',
	'hop|weir.hop(kafka_timestamp, \'20 seconds\', \'10 seconds\')')
{
	my ($name, $call) = split /\|/, $kind;
	WeirTest::create_stream($node, $name, <<SQL);
SELECT w.window_start, w.window_end, count(*) AS n
FROM by_kafka CROSS JOIN $call w
WHERE id <> 8
GROUP BY w.window_start, w.window_end
SQL
}
$broker->produce('stamped', \@lines, partition_field => 1, timestamp => 1);
my @all = qw(by_kafka_rows by_payload_rows keyed running tumble hop);
WeirTest::wait_for($node, @all);

sub is_rows
{
	my ($query, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sql($query), $expected =~ s/\n\z//r, $name);
	return;
}

is_rows('SELECT id, extract(epoch FROM at)::bigint FROM by_payload_rows ORDER BY id', <<'END', 'rows: NULL where it is none');
1|1704067200
2|
3|
4|1704067201
5|
6|9224318016000
7|
8|
9|0
10|1704067215
END
is_rows('SELECT id, extract(epoch FROM at)::bigint FROM by_kafka_rows ORDER BY id', <<'END', 'rows without a timestamp are there');
1|1704067200
2|
4|1704067201
6|9224318016000
8|
9|0
10|1704067215
END
is_rows('SELECT v, count(*) OVER () FROM keyed ORDER BY v', <<'END', 'a stream with a key');
0|3
1|3
2|3
END
is_rows('SELECT * FROM running ORDER BY v', <<'END', 'a running aggregate');
0|2
1|3
2|2
END
is_rows('SELECT extract(epoch FROM window_start)::bigint, n FROM tumble ORDER BY 1 LIMIT 3', <<'END', 'windows of those that have one');
0|1
1704067200|2
1704067210|1
END
is_rows(<<'SQL', <<'END', 'dead letters');
SELECT coalesce(stream, source), reason, sqlstate, kafka_partition, kafka_offset,
	kafka_timestamp IS NULL, coalesce(staged_row ->> 'id', convert_from(payload, 'UTF8')::json ->> 'id')
FROM weir.dead_letter WHERE window_start IS NULL
AND NOT coalesce(staged_row ->> 'id' = '6', false)
ORDER BY 1, 7
SQL
by_kafka|constraint|22008|1|1|t|3
by_kafka|constraint|22008|1|2|t|5
by_kafka|constraint|22008|1|3|t|7
hop|query|23502|0|0|t|2
tumble|query|23502|0|0|t|2
END
is( sql("SELECT count(*) FROM weir.dead_letter WHERE stream = 'by_payload_rows'"),
	0, 'none where it is not the event time');

is_rows("SELECT count(*), count(kafka_timestamp) FROM weir.sample('kafka', 'stamped', 100)",
	'10|5', 'a sample');
for my $view (qw(sources streams stat_source stat_stream stat_worker dead_letter))
{
	like(sql("SELECT count(t::text) FROM weir.$view t"), qr/^\d+$/,
		"weir.$view can be read");
}
command_ok([ 'pg_dump', '-f', '/dev/null', $node->connstr('postgres') ],
	'the database can be dumped');

##
## The beginning of time
##

WeirTest::create_source(
	$node, 'old',
	columns => 'id int, at timestamptz',
	event_time => 'at',
	max_out_of_orderness => '30 days');
for my $emit (qw(on_change on_close))
{
	WeirTest::create_stream(
		$node, $emit, <<'SQL',
SELECT w.window_start, count(*) AS n FROM old CROSS JOIN weir.tumble(at, '1 day') w
GROUP BY w.window_start
SQL
		emit => $emit,
		allowed_lateness => '40 days');
}
$broker->produce('old', [
	map { "{\"id\":$_,\"at\":\"4714-11-26 0$_:00:00+00 BC\"}" } 1 .. 3 ]);
WeirTest::wait_for($node, qw(on_change on_close));
is(sql('SELECT n FROM on_change'), '3', 'the oldest rows');
is( sql("SELECT coalesce(watermark::text, 'none') FROM weir.stat_stream WHERE stream = 'on_change'"),
	'none', 'no watermark before all time');
command_ok([ 'pg_dump', '-f', '/dev/null', $node->connstr('postgres') ],
	'the database can be dumped still');
$broker->produce('old', ['{"id":4,"at":"2024-01-01 00:00:00+00"}']);
WeirTest::sql_becomes($node, 'SELECT n FROM on_close', '3', 'and they close');

# to both ends by hand
sql(<<'SQL');
SELECT weir.advance_watermark('old', '4714-11-25 00:00:00+00 BC');
SELECT weir.advance_watermark('old', '294276-12-31 23:59:59+00', force => true);
SQL
WeirTest::wait_for($node, qw(on_change on_close));
$broker->produce('old', ['{"id":5,"at":"2024-01-01 00:00:00+00"}']);
WeirTest::wait_for($node, qw(on_change on_close));
is_rows("SELECT stream, state, rows_late FROM weir.stat_stream WHERE stream LIKE 'on_c%' ORDER BY 1",
	<<'END', 'the watermark can be advanced to the end of time');
on_change|running|1
on_close|running|1
END
command_ok([ 'pg_dump', '-f', '/dev/null', $node->connstr('postgres') ],
	'which can be dumped');

my $long = "create_source('long', 'kafka', 'old', 'id int', max_out_of_orderness => '100000000 days')";
like(WeirTest::sql_error($node, "SELECT weir.$long"),
	qr/^22023: "max_out_of_orderness" is out of range/,
	'a duration longer than all time');

$node->stop;
done_testing();
