# Seek to every kind of position, while rows come in, on Apache Kafka.
#
# Proves, for tumbling windows on change, hopping windows on close, running
# aggregates and row streams with and without a key: after seek to the
# earliest the results are as if the stream were new; to a time, windows that
# start at or after it are made anew, and those begun earlier stay as they
# were; forward, running aggregates and rows skip exactly what lies between;
# where rows would be counted twice, seek is refused with a hint; a seek that
# is rolled back changes nothing; a seek of a paused stream waits for resume.

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
$kafka->create_topic('events', 2);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

# Event i is in partition i % 2, has Kafka's timestamp i * 10 ms after the
# start, and a time of up to 2 seconds before that.
my $start = 1704067200000;
my @lines = WeirBroker::gen_lines('events',
	events => 40000, seed => 161, partitions => 2, keys => 10,
	disorder_ms => 2000);
my @payloads = map { s/^\d+\t//r } @lines;
my $sent = 0;
my $producer =
  $kafka->producer('events', partition_field => 1, timestamp => 1);

# Sends the next n, and returns at once.
sub produce
{
	my ($n) = @_;
	my @range = ($sent .. $sent + $n - 1);
	$producer->send(
		map { sprintf "%d\t%d\t%s", $_ % 2, $start + $_ * 10, $payloads[$_] }
		  @range);
	WeirTest::load_events($node, 'stored', [ @payloads[@range] ]);
	$sent += $n;
	return;
}

WeirTest::create_events_source($node, 'events',
	max_out_of_orderness => '2 seconds');
my %query = (
	windows => <<'SQL',
SELECT w.window_start, w.window_end, e.k, count(*) AS n, sum(e.v) AS sum_v
FROM events e CROSS JOIN weir.tumble(e.at, '10 seconds') w
GROUP BY w.window_start, w.window_end, e.k
SQL
	closed => <<'SQL',
SELECT w.window_start, w.window_end, count(*) AS n, sum(e.v) AS sum_v
FROM events e CROSS JOIN weir.hop(e.at, '20 seconds', '10 seconds') w
GROUP BY w.window_start, w.window_end
SQL
	running => <<'SQL',
SELECT e.k, count(*) AS n, sum(e.v) AS sum_v, max(e.id) AS last FROM events e GROUP BY e.k
SQL
	rows => 'SELECT e.id, e.k, e.txt FROM events e',
	mine => 'SELECT e.id, e.k, e.txt FROM events e',
	keyed => 'SELECT e.id % 100 AS key, e.id, e.v FROM events e');
my @streams = sort keys %query;
sql('CREATE TABLE mine (id bigint, k text, txt text)');
WeirTest::create_stream($node, $_, $query{$_},
	$_ eq 'closed' ? (emit => 'on_close') : $_ eq 'keyed' ? (options => '{"key": ["key"]}') : ())
  for @streams;

# the stream's query over stored rows that fulfil a condition
sub oracle
{
	my ($name, $where) = @_;
	$where = 'true' unless defined $where;
	return 'SELECT id % 100, max(id), (array_agg(v ORDER BY id DESC))[1] FROM stored WHERE '
	  . "$where GROUP BY id % 100"
	  if $name eq 'keyed';
	my $text = $query{$name} =~
	  s/FROM events e/FROM (SELECT * FROM stored WHERE $where) e/r;
	return $text unless $name eq 'closed';
	my $watermark = sql("SELECT coalesce(weir.watermark('closed'), '-infinity')");
	return "SELECT * FROM ($text) o WHERE window_end <= '$watermark'";
}

sub exact
{
	my ($when, @names) = @_;
	WeirTest::wait_for($node, @names);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::compare($node, "SELECT * FROM $_", oracle($_), "$when: $_")
	  for @names;
	return;
}

sub seek_to
{
	my ($name, $to) = @_;
	sql("SELECT weir.seek('$name', " . WeirTest::literal($to) . ')');
	return;
}

produce(8000);
exact('at first', @streams);

##
## The earliest
##

for my $name (grep { $_ ne 'mine' } @streams)
{
	# what a target has is not what it should have
	sql($name eq 'keyed' ? 'UPDATE keyed SET v = -9999' :
		  $name eq 'rows' ? "UPDATE rows SET txt = 'edited'" : "UPDATE $name SET n = -1");
	produce(300);
	seek_to($name, 'earliest');
	produce(300);
	exact('to the earliest', $name);
}
exact('and all', @streams);
like(WeirTest::sql_error($node, "SELECT weir.seek('mine', 'earliest')"),
	qr/^0A000.*HINT/s, 'not where rows would be there twice');

##
## A time
##

# Windows begun before a time, also in its middle, stay as they were.
for my $to ('2024-01-01 00:00:40Z', '2024-01-01 00:01:03.5Z')
{
	for my $name (qw(windows closed))
	{
		produce(200);
		WeirTest::wait_for($node, $name);
		sql("UPDATE $name SET n = -1");
		my $old = sql("SELECT count(*) FROM $name WHERE window_start < '$to'");
		seek_to($name, $to);
		produce(200);
		WeirTest::wait_for($node, $name);
		WeirTest::compare($node,
			"SELECT * FROM $name WHERE window_start >= '$to'",
			'SELECT * FROM (' . oracle($name) . ") o WHERE window_start >= '$to'",
			"to $to: $name from there on");
		is( sql("SELECT count(*), count(*) FILTER (WHERE n = -1) FROM $name WHERE window_start < '$to'"),
			"$old|$old", "to $to: $name before that stays");
		seek_to($name, 'earliest');
	}
	exact("to the earliest after $to", qw(windows closed));
}
like(WeirTest::sql_error($node, "SELECT weir.seek('running', '2024-01-01 00:00:40Z')"),
	qr/^0A000.*HINT/s, 'a running aggregate does not go back to a time');
like(WeirTest::sql_error($node, "SELECT weir.seek('mine', '2024-01-01 00:00:40Z')"),
	qr/^0A000.*HINT/s, 'nor do rows in a table that weir did not make');
like(WeirTest::sql_error($node, "SELECT weir.seek('rows', 'soon')"),
	qr/^22023/, 'what is no position');

# A table that weir made begins anew: event 4000 is at that time.
seek_to('rows', '2024-01-01 00:00:40Z');
produce(100);
WeirTest::wait_for($node, 'rows');
WeirTest::compare($node, 'TABLE rows', oracle('rows', 'id >= 4000'),
	'rows begin anew at a time');
seek_to('keyed', '2024-01-01 00:00:40Z');
produce(100);
exact('rows by key are the same', 'keyed');

##
## Offsets
##

seek_to('rows', '{"0": 1000, "1": 2500}');
produce(100);
WeirTest::wait_for($node, 'rows');
WeirTest::compare($node, 'TABLE rows',
	oracle('rows', 'id >= CASE id % 2 WHEN 0 THEN 2000 ELSE 5000 END'),
	'rows begin anew at offsets');
seek_to('keyed', '{"0": 1000}');
produce(100);
exact('rows by key are the same', 'keyed');
like(WeirTest::sql_error($node, qq(SELECT weir.seek('running', '{"1": 10}'))),
	qr/^0A000.*HINT/s, 'a running aggregate does not go back to offsets');

##
## Forward: the latest, offsets, a time
##

exact('before going forward', qw(running mine));
my $condition = 'true';
for my $to ('latest', 'offsets', 'time')
{
	my $from = $sent;
	sql("SELECT weir.pause('$_')") for qw(running mine);
	WeirTest::sql_becomes($node, "SELECT count(*) FROM weir.stat_worker WHERE stream IN ('running', 'mine')", 0);
	produce(1000);

	# for the latest all of it must be there
	exact('another stream has it', 'keyed');
	my $end = $from + ($to eq 'latest' ? 1000 : 600);
	my $position = $to eq 'latest' ? 'latest' : $to eq 'offsets' ?
	  sprintf '{"0": %d, "1": %d}', $end / 2, $end / 2 :
	  sql("SELECT to_timestamp(($start + $end * 10) / 1000.0)");
	seek_to($_, $position) for qw(running mine);
	sql("SELECT weir.resume('$_')") for qw(running mine);

	# the latest is what it is when the position is resolved
	WeirTest::wait_for($node, qw(running mine));
	produce(1000);
	$condition .= " AND NOT id BETWEEN $from AND @{[ $end - 1 ]}";
	for my $name (qw(running mine))
	{
		WeirTest::wait_for($node, $name);
		WeirTest::compare($node, "TABLE $name", oracle($name, $condition),
			"$name: forward to $to");
	}
}
seek_to('running', 'earliest');
exact('back to the earliest', 'running');

##
## Rolled back; paused; twice; under a crash
##

sql("BEGIN; SELECT weir.seek('windows', 'latest'), weir.seek('rows', 'latest'), weir.seek('running', 'earliest'); ROLLBACK");
produce(500);
exact('a seek that is rolled back is none', qw(windows running));
sql("SELECT weir.pause('windows')");
sql("UPDATE windows SET n = -1; SELECT weir.seek('windows', 'earliest')");
is(sql('SELECT count(*) FROM windows'), 0, 'a paused stream is cleared');
produce(500);
exact('others go on', 'closed');
is(sql('SELECT count(*) FROM windows'), 0, 'and does not go on by itself');
sql("SELECT weir.resume('windows')");
exact('resumed', 'windows');
sql("SELECT weir.seek('windows', 'latest'); SELECT weir.seek('windows', '2024-01-01 00:00:40Z'); SELECT weir.seek('windows', 'earliest')");
produce(500);
exact('several: the last counts', 'windows');
for my $kind (qw(ingest stream))
{
	produce(500);
	my ($launcher) = WeirTest::worker_pids($node, 'launcher');
	seek_to($_, 'earliest') for qw(windows closed running rows keyed);
	WeirTest::poll(
		sub {
			my ($pid) = WeirTest::worker_pids($node, $kind);
			return $pid && kill 'KILL', $pid;
		}) or die "there is no $kind worker";
	WeirTest::poll(
		sub {
			my ($new) = WeirTest::worker_pids($node, 'launcher');
			return $new && $new != $launcher;
		}) or die 'the server does not come back';
	exact("after a seek and a crash of $kind", qw(windows closed running rows keyed));
}
is(sql('SELECT count(*) FROM weir.dead_letter'), 0, 'no dead letters');

$producer->finish;
$node->stop;
$kafka->stop;
done_testing();
