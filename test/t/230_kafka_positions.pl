# Where a stream begins, what a record carries, and who may read it.
#
# Proves, on Apache Kafka: start_from earliest, latest, a time, a time past
# the end and offsets, of the source and of a stream, each give exactly the
# records from there on; a first position is durable, so what comes while
# PostgreSQL is down is not lost to a stream from the latest (I1).  Without
# an event_time column the record's own timestamp counts.  Keys, timestamps
# and headers arrive as they were sent, and key and headers are staged only
# when a query uses them.  weir.sample() shows the newest records, also with
# null keys, tombstones and bytes that are no text.  A refused login is shown
# and tried again, without the password, until the user mapping is right.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $kafka = WeirBroker->kafka(
	java_opts => ['-Xmx512m'],
	sasl => { etl => 'right-password' });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $kafka);

##
## First positions
##

# Record i is in partition i % 3, 10 s of Kafka's time after the one before,
# but for partition 2, which lags by an hour.
my $t0 = 1704067200000;
my @records;

sub send_records
{
	my ($n) = @_;
	my @lines;
	for my $i (@records + 0 .. @records + $n - 1)
	{
		my $time = $t0 + $i * 10000 - ($i % 3 == 2 ? 3600000 : 0);
		push @records, [ $i, $i % 3, $time ];
		push @lines, $i % 3 . "\t$time\t" . qq({"id":$i});
	}
	$kafka->produce('positions', \@lines,
		partition_field => 1, timestamp => 1);
	return;
}

$kafka->create_topic('positions', 3);
send_records(300);

# 2024-01-01 00:25:00 is the time of record 150, in partition 0; partition 2
# has nothing of that time yet, so there it stands for the end
my %start = (
	beginning => 'earliest',
	from_now => 'latest',
	from_time => '2024-01-01 00:25:00+00',
	after_time => '2024-01-01 00:25:00.001+00',
	far_ahead => '2100-01-01',
	long_ago => '1999-01-01',
	from_offsets => '{"0": 42, "2": 100}');
my %begins = (
	beginning => sub { 1 },
	from_now => sub { $_->[0] >= 300 },
	from_time =>
	  sub { $_->[1] == 2 ? $_->[0] >= 300 : $_->[2] >= $t0 + 1500000 },
	after_time =>
	  sub { $_->[1] == 2 ? $_->[0] >= 300 : $_->[2] > $t0 + 1500000 },
	far_ahead => sub { $_->[0] >= 300 },
	long_ago => sub { 1 },
	from_offsets => sub {
		my $offset = int($_->[0] / 3);
		return $_->[1] == 0 ? $offset >= 42 : $_->[1] == 1 || $offset >= 100;
	});
my @streams = sort keys %start;

# half of them by the source, half by the stream's option against the source
WeirTest::create_source(
	$node, 'positions_latest',
	topic => 'positions',
	columns => 'id bigint',
	start_from => 'latest');
for my $name (@streams)
{
	my $source = 'positions_latest';
	my %arg = (options => qq({"start_from": "$start{$name}"}));
	if ($name =~ /^from/)
	{
		$source = "positions_$name";
		%arg = ();
		WeirTest::create_source(
			$node, $source,
			topic => 'positions',
			columns => 'id bigint',
			start_from => $start{$name});
	}
	elsif ($start{$name} =~ /^\{/)
	{
		%arg = (options => qq({"start_from": $start{$name}}));
	}
	WeirTest::create_stream($node, $name, <<SQL, %arg);
SELECT p.id, p.kafka_partition AS p, p.kafka_offset AS o,
	p.kafka_timestamp AS t, p.kafka_topic AS topic
FROM $source p
SQL
}

# offsets by the stream's option, as text and as an object
WeirTest::create_stream($node, 'offsets_option',
	'SELECT p.id FROM positions_latest p',
	options => '{"start_from": "{\"0\": 42, \"2\": 100}"}');

sub begins_right
{
	my ($when) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::wait_for($node, @streams, 'offsets_option');
	for my $name (@streams)
	{
		my $expected = join "\n", map {
			sprintf '%d|%d|%d|%d|positions', @$_[ 0, 1 ],
			  int($_->[0] / 3), $_->[2]
		} grep { $begins{$name}->() } @records;
		is( WeirTest::sql($node, <<SQL),
SELECT id, p, o, (extract(epoch FROM t) * 1000)::bigint, topic
FROM $name ORDER BY id
SQL
			$expected, "$when: $name");
	}
	is( WeirTest::sql($node, 'SELECT id FROM offsets_option ORDER BY id'),
		join("\n",
			map { $_->[0] } grep { $begins{from_offsets}->() } @records),
		"$when: offsets_option");
	return;
}

begins_right('at first');
$node->stop('immediate');
send_records(60);
$node->start;
begins_right('with what came meanwhile');
send_records(60);
begins_right('with more');

# the record's timestamp is the event time when no column is
my $window = <<'SQL';
SELECT w.window_start, count(*) AS n, sum(p.id) AS sum_id
FROM positions_latest p CROSS JOIN weir.tumble(p.kafka_timestamp, '10 minutes') w
GROUP BY w.window_start
SQL
WeirTest::create_stream($node, 'by_kafka_time', $window,
	options => '{"start_from": "earliest"}');
WeirTest::wait_for($node, 'by_kafka_time');
WeirTest::sql($node,
	'CREATE TABLE stored (id bigint, kafka_timestamp timestamptz)');
WeirTest::sql($node, 'INSERT INTO stored VALUES '
	  . join ', ', map { "($_->[0], to_timestamp($_->[2] / 1000))" } @records);
WeirTest::compare(
	$node, 'TABLE by_kafka_time',
	$window =~ s/positions_latest p/stored p/r,
	'windows by the record\'s timestamp, one partition far behind');

##
## Keys and headers
##

$kafka->create_topic('keyed', 1);
WeirTest::create_source($node, 'keyed', columns => 'id bigint');
WeirTest::create_stream($node, 'plain', 'SELECT k.id FROM keyed k');
my @keyed = (
	[ 'a', '{"id":1}' ], [ '\N', '{"id":2}' ], [ '', '{"id":3}' ],
	[ 'b\x00\xffc', '{"id":4}' ], [ 'tomb', '\N' ], [ 'a', '{"id":5}' ]);
$kafka->produce(
	'keyed',
	[ map { "$_->[0]\t$_->[1]" } @keyed ],
	key => 1,
	raw_escapes => 1,
	headers => [ 'trace=first', 'lang=caf' . "\xc3\xa9", 'trace=last' ]);
$kafka->produce('keyed', ['{"id":6}'], headers => ['empty=']);
$kafka->produce('keyed', ['{"id":7}']);
WeirTest::wait_for($node, 'plain');
my $staged =
  'SELECT count(*), count(kafka_key), count(kafka_headers) FROM keyed';
is(WeirTest::sql($node, $staged),
	'7|0|0', 'neither key nor headers are staged for nobody');
is( WeirTest::sql($node, <<'SQL'),
SELECT sum(rows_null) FROM weir.stat_source WHERE source = 'keyed'
SQL
	'1', 'a tombstone is counted');

WeirTest::create_stream($node, 'keys',
	'SELECT k.id, k.kafka_key AS key FROM keyed k');
WeirTest::wait_for($node, 'keys', 'plain');
is( WeirTest::sql($node, 'SELECT id, key FROM keys ORDER BY id'),
	"1|\\x61\n2|\n3|\\x\n4|\\x6200ff63\n5|\\x61\n6|\n7|",
	'keys as they were sent; NULL and empty are not the same');
is( WeirTest::sql($node,
		'SELECT id FROM keys WHERE key IS NULL ORDER BY id'),
	"2\n6\n7",
	'without a key');
$kafka->produce('keyed', ["z\t{\"id\":8}"], key => 1, headers => ['n=8']);
WeirTest::wait_for($node, 'keys', 'plain');
is( WeirTest::sql($node,
		'SELECT count(kafka_key) > 0, count(kafka_headers) FROM keyed'),
	't|0',
	'now the keys are staged, and no headers');

WeirTest::create_stream($node, 'headers', <<'SQL');
SELECT k.id, weir.header(k.kafka_headers, 'trace') AS trace,
	weir.header(k.kafka_headers, 'lang') AS lang,
	weir.header(k.kafka_headers, 'empty') AS empty,
	weir.header(k.kafka_headers, 'n')::int AS n,
	cardinality(k.kafka_headers) AS headers
FROM keyed k
SQL
WeirTest::wait_for($node, 'headers');
is( WeirTest::sql($node, 'SELECT * FROM headers ORDER BY id'),
	join("\n",
		(map { "$_|last|caf\xc3\xa9|||3" } 1 .. 5),
		'6|||||1', '7|||||0', '8||||8|1'),
	'headers: the last of a name counts, without one NULL');
is( WeirTest::sql($node,
		"SELECT empty = '' FROM headers WHERE id = 6"),
	't',
	'an empty header is empty, not NULL');
WeirTest::create_stream($node, 'per_key', <<'SQL');
SELECT k.kafka_key AS key, count(*) AS n, sum(k.id) AS ids
FROM keyed k GROUP BY k.kafka_key
SQL
WeirTest::wait_for($node, 'per_key', 'keys', 'plain', 'headers');
is( WeirTest::sql($node, 'SELECT * FROM per_key ORDER BY key'),
	"\\x|1|3\n\\x61|2|6\n\\x6200ff63|1|4\n\\x7a|1|8\n|3|15",
	'keys to group by');
is(WeirTest::sql($node, 'SELECT id FROM plain ORDER BY id'),
	join("\n", 1 .. 8), 'nobody has lost or doubled anything');

##
## A look at a topic
##

is( WeirTest::sql($node, <<'SQL'),
SELECT kafka_partition, kafka_offset, kafka_key, payload
FROM weir.sample('kafka', 'keyed', 4) ORDER BY 2 DESC
SQL
	"0|8|\\x7a|{\"id\":8}\n0|7||{\"id\":7}\n0|6||{\"id\":6}\n0|5|\\x61|{\"id\":5}",
	'the newest 4');
is( WeirTest::sql($node, <<'SQL'),
SELECT count(*), min(kafka_offset), count(payload), count(kafka_key)
FROM weir.sample('kafka', 'keyed')
SQL
	'9|0|8|6', 'all, when there are less than 10');
is( WeirTest::sql($node, <<'SQL'),
SELECT count(*), bool_and(payload ~ '^\{"id":\d+\}$'), max(kafka_timestamp)
	= timestamptz '2024-01-01 00:00Z' + interval '10 seconds' * 418
FROM weir.sample('kafka', 'positions')
SQL
	'10|t|t', '10 is the default, of all partitions by time');
$kafka->create_topic('bytes', 2);
is(WeirTest::sql($node, "SELECT count(*) FROM weir.sample('kafka', 'bytes')"),
	'0', 'nothing of an empty topic');
$kafka->produce('bytes', ['a\x00\xffz'], raw_escapes => 1);
is(WeirTest::sql($node, "SELECT payload FROM weir.sample('kafka', 'bytes')"),
	'a\000\377z', 'bytes that are no text are escaped');
like(
	WeirTest::sql_error($node,
		"SELECT * FROM weir.sample('kafka', 'no such topic')"),
	qr/^42704: topic "no such topic" does not exist/,
	'no such topic');

##
## A login
##

WeirTest::sql($node, <<SQL);
CREATE SERVER secure FOREIGN DATA WRAPPER weir_kafka OPTIONS (
	bootstrap_servers '@{[ $kafka->sasl_bootstrap ]}',
	security_protocol 'SASL_PLAINTEXT', sasl_mechanisms 'PLAIN',
	reconnect_backoff_max_ms '200');
CREATE USER MAPPING FOR CURRENT_USER SERVER secure
OPTIONS (sasl_username 'etl', sasl_password 'wrong-password');
SQL
WeirTest::create_source($node, 'secured',
	server => 'secure', topic => 'keyed', columns => 'id bigint');
WeirTest::create_stream($node, 'let_in', 'SELECT s.id FROM secured s');
WeirTest::sql_becomes(
	$node, <<'SQL',
SELECT state, last_error_sqlstate, last_error FROM weir.stat_source
WHERE source = 'secured' AND stream IS NULL
SQL
	qr/^retrying\|28000\|authentication failed at server "secure"/,
	'a refused login is shown');
WeirTest::sql_becomes($node, <<'SQL', 't', 'and tried again');
SELECT max(restarts) > 1 FROM weir.stat_worker
WHERE source = 'secured' AND kind = 'ingest'
SQL
like(
	WeirTest::sql_error($node, "SELECT * FROM weir.sample('secure', 'keyed')"),
	qr/^28000: authentication failed at server "secure"/,
	'a look is refused, too');
WeirTest::sql($node, <<'SQL');
ALTER USER MAPPING FOR CURRENT_USER SERVER secure
OPTIONS (SET sasl_password 'right-password')
SQL
WeirTest::wait_for($node, 'let_in');
is(WeirTest::sql($node, 'SELECT id FROM let_in ORDER BY id'),
	join("\n", 1 .. 8), 'with the right password all is read');
WeirTest::sql_becomes($node, <<'SQL', 'running', 'and the source runs');
SELECT state FROM weir.stat_source WHERE source = 'secured' AND stream IS NULL
SQL
is( WeirTest::sql($node,
		"SELECT count(*) FROM weir.sample('secure', 'keyed')"),
	'9',
	'a look works, too');

# log_statement shows what a superuser typed; nothing else may show it
my $log = slurp_file($node->logfile);
$log =~ s/^.*(?:statement: |STATEMENT:)(?:.*\n)(?:\t.*\n)*//mg;
unlike($log, qr/(?:right|wrong)-password/, 'no password in the log');
unlike($log, qr/TRAP:|PANIC:|signal 11|signal 6/, 'no crash');

$node->stop;
$kafka->stop;
done_testing();
