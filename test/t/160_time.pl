# Event time: watermarks, idleness, lateness, windows of local time.
#
# Proves: a replay of history in which one partition is far behind loses
# nothing; a partition with data that cannot be read holds the watermark,
# while silent ones do not (idle_timeout), or do (NULL); the watermark never
# goes back, across restarts too (I4); a row far in the future moves nothing;
# advance_watermark() without a time closes what is open at the call and goes
# no further, and with a time goes as far, in a stream that lags behind never
# before the rows of the call are applied; on_idle => 'advance'; the
# Kafka timestamp as event time; windows of local time, and with an origin,
# over the days when clocks change; wait_for() and its errors.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(brokers => 2);
my $node = WeirTest::start_node('main',
	conf => { 'weir.max_batch_rows' => 1000, max_worker_processes => 60 });
WeirTest::create_server($node, $broker);

my $columns = 'id int NOT NULL, at timestamptz';

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

sub create_source
{
	my ($name, %arg) = @_;
	WeirTest::create_source($node, $name, columns => $columns,
		event_time => 'at', %arg);
	return;
}

# a count by minute; closed, kept as it changes, or what "arg" says
sub create_minutes
{
	my ($name, $source, %arg) = @_;
	WeirTest::create_stream($node, $name, <<SQL, %arg);
SELECT w.window_start, count(*) AS n
FROM $source s CROSS JOIN weir.tumble(s.at, '1 minute') w
GROUP BY w.window_start
SQL
	return;
}

# rows of partition, id and seconds since 2024-01-01
sub produce
{
	my ($topic, @rows) = @_;
	$broker->produce(
		$topic,
		[
			map {
				sprintf qq(%d\t{"id":%d,"at":%d}), $_->[0], $_->[1],
				  1704067200 + $_->[2]
			} @rows
		],
		partition_field => 1);
	return;
}

# "minute=n ..." of a target
sub minutes
{
	my ($name) = @_;
	return sql(<<SQL);
SELECT coalesce(string_agg(extract(epoch FROM window_start - '2024-01-01Z')::bigint / 60 || '=' || n, ' ' ORDER BY window_start), '')
FROM $name
SQL
}

# seconds since 2024-01-01, empty when there is none
sub watermark
{
	my ($name) = @_;
	return sql("SELECT extract(epoch FROM weir.watermark('$name') - '2024-01-01Z')::numeric(20, 3)::text") =~
	  s/\.000$//r;
}

sub late
{
	my ($stream) = @_;
	return sql("SELECT count(*) FROM weir.dead_letter WHERE stream = '$stream' AND reason = 'late'");
}

##
## A replay, one partition slower than the others
##

$broker->create_topic('history', 4);
$broker->command("leader history $_ " . ($_ < 3 ? 1 : 2)) for 0 .. 3;
my @history = map { [ $_ % 4, $_, $_ / 4 ] } 0 .. 39999;
produce('history', @history);
$broker->command('rtt 400 2');
create_source('history', idle_timeout => '50 ms');
create_minutes('history_closed', 'history', emit => 'on_close');
create_minutes('history_open', 'history');
WeirTest::wait_for($node, qw(history_closed history_open));
is(late($_), 0, "replay: $_ has no late rows")
  for qw(history_closed history_open);
$broker->command('rtt 0 2');
WeirTest::close_windows($node, 'history', qw(history_closed history_open));
my $expected = 'SELECT timestamptz \'2024-01-01Z\' + i / 240 * interval \'1 minute\', count(*) FROM generate_series(0, 39999) i GROUP BY 1';
WeirTest::compare($node, "TABLE $_", $expected, "replay: $_ is exact")
  for qw(history_closed history_open);

##
## A partition with data that cannot be read
##

$broker->create_topic('unread', 3);
$broker->command("leader unread $_ " . ($_ < 2 ? 1 : 2)) for 0 .. 2;
create_source('unread', idle_timeout => '50 ms');
create_minutes('unread_closed', 'unread', emit => 'on_close');
WeirTest::wait_for($node, 'unread_closed');

# The ingest worker is held while the rows are produced, and then finds that
# one leader is gone.  What it knew of that partition says nothing any more.
WeirTest::sql_becomes($node, <<'SQL', '3', 'an empty topic is idle');
SELECT count(*) FILTER (WHERE idle) FROM weir.stat_source WHERE source = 'unread'
SQL
my ($pid) = split /\n/,
  sql("SELECT pid FROM weir.stat_worker WHERE kind = 'ingest' AND source = 'unread'");
my $stopped = time();
kill 'STOP', $pid or die "could not stop the ingest worker: $!";
produce('unread', map { [ $_ % 3, $_, $_ ] } 0 .. 599);
$broker->command('down 2');
WeirTest::poll(sub { time() > $stopped + 4 });
kill 'CONT', $pid or die "could not continue the ingest worker: $!";
WeirTest::sql_becomes($node, <<'SQL', "0|200\n1|200", 'two partitions are read');
SELECT kafka_partition, applied_offset FROM weir.stat_source
WHERE source = 'unread' AND kafka_partition < 2 ORDER BY 1
SQL
is( sql(<<'SQL'), 'f||2', 'the third is not, and holds the watermark');
SELECT (SELECT idle FROM weir.stat_source WHERE source = 'unread' AND kafka_partition = 2),
	watermark, watermark_held_by
FROM weir.stat_stream WHERE stream = 'unread_closed'
SQL
is(minutes('unread_closed'), '', 'no window is closed');
for my $i (600 .. 604)
{
	produce('unread', [ 0, $i, $i ]);
	WeirTest::sql_becomes($node,
		"SELECT applied_offset FROM weir.stat_source WHERE source = 'unread' AND kafka_partition = 0",
		$i - 399);
}
is(watermark('unread_closed'), '', 'nor when others go on');
$broker->command('up 2');
WeirTest::wait_for($node, 'unread_closed');
WeirTest::close_windows($node, 'unread', 'unread_closed');
is(minutes('unread_closed'), join(' ', (map { "$_=60" } 0 .. 9), '10=5'),
	'when it is read, nothing is lost');
is(late('unread_closed'), 0, 'nor late');

##
## A silent partition, and a restart
##

$broker->create_topic('silent', 2);
create_source('silent_idle', topic => 'silent', idle_timeout => '50 ms');
create_source('silent_never', topic => 'silent', idle_timeout => undef);
create_minutes($_ . '_rows', $_, emit => 'on_close')
  for qw(silent_idle silent_never);
produce('silent', map { [ 0, $_, $_ ] } 0 .. 299);
WeirTest::wait_for($node, qw(silent_idle_rows silent_never_rows));
WeirTest::sql_becomes($node, <<'SQL', 't', 'a silent partition is idle');
SELECT idle FROM weir.stat_source WHERE source = 'silent_idle' AND kafka_partition = 1
SQL

# While the other gives rows, it is not idle.
my $n_more = 0;
ok( WeirTest::poll(
		sub {
			produce('silent', [ 0, 300 + $n_more++, 299 ]);
			return watermark('silent_idle_rows') eq 299;
		}),
	'with an idle_timeout it does not hold the watermark');
WeirTest::sql_becomes($node, 'SELECT count(*) FROM silent_idle_rows', '4',
	'and windows close');
is(watermark('silent_never_rows'), '', 'without one it does');
is(minutes('silent_never_rows'), '', 'and no window closes');
is( sql("SELECT watermark_held_by FROM weir.stat_stream WHERE stream = 'silent_never_rows'"),
	'1', 'which partition holds it is shown');

# nothing is forgotten
for my $mode (qw(fast immediate))
{
	$node->stop($mode);
	WeirTest::start_again($node);
	is(watermark('silent_idle_rows'), 299,
		"the watermark after a restart ($mode)");
	produce('silent', [ 0, 0, 200 ]);
	WeirTest::wait_for($node, qw(silent_idle_rows silent_never_rows));
	is(watermark('silent_idle_rows'), 299, "older rows do not take it back ($mode)");
	is(watermark('silent_never_rows'), '', "it is held as before ($mode)");
}
is(late('silent_idle_rows'), 2, 'for it, older rows are late');
produce('silent', [ 1, 0, 10 ], [ 1, 0, 290 ]);
WeirTest::wait_for($node, qw(silent_idle_rows silent_never_rows));
is(late('silent_idle_rows'), 3, 'and those of the silent partition');
is(minutes('silent_idle_rows'), '0=60 1=60 2=60 3=60', 'a closed window stays');
is(late('silent_never_rows'), 0, 'for the other, none is');
is(watermark('silent_never_rows'), 290,
	'whose watermark is the least of the two');
is(minutes('silent_never_rows'), '0=61 1=60 2=60 3=62',
	'and which has counted all of them');

# The watermark in all that follows, as committed, never goes back.
sql(<<'SQL');
CREATE TABLE history_of_watermarks (seq bigserial, stream_id int, old timestamptz, new timestamptz);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.watermark IS DISTINCT FROM OLD.watermark THEN
		INSERT INTO public.history_of_watermarks (stream_id, old, new)
		VALUES (NEW.stream_id, OLD.watermark, NEW.watermark);
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER note AFTER UPDATE ON weir_internal.stream_state FOR EACH ROW EXECUTE FUNCTION note();
SQL

##
## Far in the future
##

$broker->create_topic('future', 1);
create_source('future');
create_source('unlimited', topic => 'future', max_future_skew => undef);
create_minutes('future_open', 'future');
create_minutes('unlimited_open', 'unlimited');
produce('future', [ 0, 1, 10 ], [ 0, 2, 100 ], [ 0, 3, 3_000_000_000 ]);
WeirTest::wait_for($node, qw(future_open unlimited_open));
is(watermark('future_open'), 100,
	'a row far in the future does not move the watermark');
is(watermark('unlimited_open'), 3_000_000_000,
	'without max_future_skew it does');
produce('future', [ 0, 4, 110 ]);
WeirTest::wait_for($node, qw(future_open unlimited_open));
is(late('future_open'), 0, 'and makes no row late');
is(late('unlimited_open'), 1, 'without, it does');
is(minutes('future_open'), '0=1 1=2 50000000=1', 'it is counted all the same');
WeirTest::sql_becomes($node,
	"SELECT rows_future, max_event_time = '2024-01-01 00:01:50Z' FROM weir.stat_source WHERE source = 'future'",
	'1|t', 'and shown');

##
## advance_watermark
##

$broker->create_topic('adv', 2);
create_source('adv', max_out_of_orderness => '1 hour', idle_timeout => undef);
create_minutes('adv_closed', 'adv', emit => 'on_close');
create_minutes('adv_lenient', 'adv', allowed_lateness => '2 minutes');
create_minutes('adv_lagging', 'adv', emit => 'on_close');
WeirTest::create_stream($node, 'adv_hop', <<'SQL', emit => 'on_close');
SELECT w.window_start, count(*) AS n
FROM adv s CROSS JOIN weir.hop(s.at, '2 minutes', '1 minute') w
GROUP BY w.window_start
SQL
my @adv = qw(adv_closed adv_lenient adv_lagging adv_hop);
produce('adv', map { [ $_ % 2, $_, $_ * 5 ] } 0 .. 59);
WeirTest::wait_for($node, @adv);
is(minutes('adv_closed'), '', 'nothing is closed by itself');
sql("SELECT weir.advance_watermark('adv')");
WeirTest::wait_for($node, @adv);
is(minutes($_), '0=12 1=12 2=12 3=12 4=12', "$_: what is open is closed")
  for qw(adv_closed adv_lagging);
is(minutes('adv_hop'), '-1=12 0=24 1=24 2=24 3=24 4=12', 'hopping windows, too');
is(watermark('adv_closed'), 300, 'the watermark is at the end of the last');
is(watermark('adv_hop'), 360, 'of hopping windows, later');
is(watermark('adv_lenient'), 420, 'and so that allowed lateness has passed');
produce('adv', [ 0, 60, 299 ], [ 0, 61, 300 ], [ 0, 62, 430 ]);
WeirTest::wait_for($node, @adv);
is(join(' ', map { late($_) } @adv), '1 1 1 2', 'just what was closed is late');
is(sql("SELECT count(*) FROM weir.dead_letter WHERE stream = 'adv_hop' AND partly_applied"),
	1, 'of hopping windows, some');
sql("SELECT weir.advance_watermark('adv'); SELECT weir.advance_watermark('adv', 'infinity')");
WeirTest::wait_for($node, @adv);
is(watermark('adv_closed'), 480, 'twice at once is once');
sql("SELECT weir.advance_watermark('adv')");
WeirTest::wait_for($node, @adv);
is(watermark('adv_closed'), 480, 'with nothing open it does nothing');

# with a time
like(WeirTest::sql_error($node, "SELECT weir.advance_watermark('adv', now() + '2 hours')"),
	qr/^22023.*HINT:.*force/s, 'a time beyond max_future_skew needs force');
like(WeirTest::sql_error($node, "SELECT weir.advance_watermark('adv', '-infinity')"),
	qr/^22023/, '-infinity is no time');
produce('adv', [ 0, 63, 700 ], [ 1, 64, 1000 ]);
sql("SELECT weir.advance_watermark('adv', '2024-01-01 00:13Z')");
WeirTest::wait_for($node, @adv);
is(watermark('adv_closed'), 780, 'with a time, up to it');
is(minutes('adv_closed'), '0=12 1=12 2=12 3=12 4=12 5=1 7=1 11=1',
	'what ends by then is closed');
sql("SELECT weir.advance_watermark('adv', '2024-01-01 00:11Z')");
WeirTest::wait_for($node, @adv);
is(watermark('adv_closed'), 780, 'never back');

# A stream made after the call is not touched by it.
sql("SELECT weir.advance_watermark('adv', '2024-01-01 00:14Z')");
create_minutes('adv_new', 'adv', emit => 'on_close');
WeirTest::wait_for($node, @adv, 'adv_new');
is(watermark('adv_closed'), 840, 'the others');
is(watermark('adv_new'), 700 - 3600, 'a stream made later is not touched');
is(late('adv_new'), 0, 'so no row is late for it');

# One that lags: the call stands for the rows that were there, and it comes
# to them in many batches, the oldest times last.
sql("SELECT weir.pause('adv_lagging')");
produce('adv', map { [ $_ % 2, 100 + $_, 1600 - $_ / 10 ] } 0 .. 5999);
sql("SELECT weir.advance_watermark('adv')");
WeirTest::wait_for($node, 'adv_closed');
is(watermark('adv_closed'), 1620, 'one that does not lag goes ahead');
sql("SELECT weir.resume('adv_lagging')");
WeirTest::wait_for($node, 'adv_lagging');
is(late('adv_lagging'), late('adv_closed'),
	'one that lags has no more late rows');
is(watermark('adv_lagging'), 1620, 'and goes as far');
WeirTest::compare($node, 'TABLE adv_lagging', 'TABLE adv_closed',
	'and has the same windows closed');
sql("SELECT weir.advance_watermark('adv', now() + '2 hours', force => true)");
WeirTest::wait_for($node, @adv);
is(sql("SELECT weir.watermark('adv_closed') > now() + '1 hour'"), 't',
	'with force any time is taken');

##
## on_idle => 'advance'
##

# There before the source, so that no partition is idle until it is read.
$broker->create_topic('quiet', 2);
produce('quiet', [ 0, 1, 0 ], [ 1, 2, 30 ]);
create_source('quiet', idle_timeout => '50 ms', max_out_of_orderness => '10 ms');
create_minutes('quiet_holds', 'quiet', emit => 'on_close');
create_minutes('quiet_advances', 'quiet', emit => 'on_close', options => '{"on_idle": "advance"}');
WeirTest::wait_for($node, qw(quiet_holds quiet_advances));
WeirTest::sql_becomes($node, "SELECT weir.watermark('quiet_advances') > now() - interval '1 hour'",
	't', 'on_idle advance: it goes on with the wall clock');
WeirTest::sql_becomes($node, 'SELECT n FROM quiet_advances', '2', 'and closes windows');
is(minutes('quiet_holds'), '', 'else it holds');

##
## The Kafka timestamp as event time
##

$broker->create_topic('stamped', 2);
WeirTest::create_source($node, 'stamped', columns => 'id int NOT NULL');
WeirTest::create_stream($node, 'stamped_closed', <<'SQL', emit => 'on_close');
SELECT w.window_start, count(*) AS n, min(s.kafka_timestamp) AS first
FROM stamped s CROSS JOIN weir.tumble(s.kafka_timestamp, '1 minute') w
GROUP BY w.window_start
SQL
$broker->produce('stamped',
	[ map { sprintf qq(%d\t%d\t{"id":%d}), $_ % 2, 1704067200000 + $_ * 250, $_ } 0 .. 1199 ],
	partition_field => 1, timestamp => 1);
WeirTest::wait_for($node, 'stamped_closed');
is(watermark('stamped_closed'), '299.500',
	'the Kafka timestamp is the event time by default');
is(minutes('stamped_closed'), '0=240 1=240 2=240 3=240', 'and closes windows');
is(sql("SELECT count(*) FROM stamped_closed WHERE first = window_start"), 4,
	'to the millisecond');

##
## Local time
##

$broker->create_topic('local', 2);
create_source('local', max_out_of_orderness => '1 hour', idle_timeout => undef);
my %local = (
	days => "weir.tumble(s.at, '1 day', timezone => 'Europe/Berlin')",
	days_from_six => "weir.tumble(s.at, '1 day', '2024-01-01 06:00', 'Europe/Berlin')",
	half_days => "weir.hop(s.at, '1 day', '12 hours', timezone => 'America/New_York')",
	hours => "weir.tumble(s.at, '3 hours', timezone => 'Australia/Lord_Howe')",
	odd_hops => "weir.hop(s.at, '7 hours', '2 hours', '2024-01-01 01:30', 'Europe/Berlin')",
	origin => "weir.tumble(s.at, '7 minutes', '2024-03-30 00:05')");
my %local_query = map {
	$_ => <<SQL
SELECT w.window_start, w.window_end, count(*) AS n, sum(s.id) AS sum_id
FROM local s CROSS JOIN $local{$_} w GROUP BY w.window_start, w.window_end
SQL
} keys %local;
for my $name (sort keys %local)
{
	WeirTest::create_stream($node, "local_$name", $local_query{$name});
	WeirTest::create_stream($node, "closed_$name", $local_query{$name}, emit => 'on_close');
}
my @local = map { ("local_$_", "closed_$_") } sort keys %local;

# a row every ten minutes, of some days around where clocks change in 2024
my @at = map { my $day = $_; map { $day * 86400 + $_ * 600 } 0 .. 144 * 4 - 1 }
  map { $_ - 1 } 69, 89, 97, 279, 299, 307;
my @local_rows = map { [ $_ % 2, $_, $at[$_] ] } 0 .. $#at;
while (my @chunk = splice @local_rows, 0, 500)
{
	produce('local', @chunk);
}
sql('CREATE TABLE local_stored AS SELECT o - 1 AS id, timestamptz \'2024-01-01Z\' + a * interval \'1 second\' AS at FROM unnest(ARRAY['
	  . join(',', @at) . ']) WITH ORDINALITY u (a, o)');
WeirTest::close_windows($node, 'local', @local);
for my $name (sort keys %local)
{
	my $oracle = $local_query{$name} =~ s/FROM local s/FROM local_stored s/r;
	WeirTest::compare($node, "TABLE local_$name", $oracle, "local time: $name");
	WeirTest::compare($node, "TABLE closed_$name", $oracle, "local time: $name, on close");
	is(late("local_$name") + late("closed_$name"), 0, "local time: $name, none late");
}
is( sql(<<'SQL'), "2024-03-31|138\n2024-10-27|150", 'days of 23 and of 25 hours');
SELECT (window_start AT TIME ZONE 'Europe/Berlin')::date, n FROM local_days
WHERE window_end - window_start <> '1 day' ORDER BY 1
SQL

##
## wait_for
##

$broker->create_topic('waited', 1);
create_source('waited');
create_minutes('waited_rows', 'waited');
produce('waited', [ 0, 1, 1 ]);
sql("SELECT weir.wait_for('waited_rows', NULL)");
my $blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN; LOCK TABLE waited_rows IN SHARE MODE');
produce('waited', map { [ 0, $_, $_ ] } 2 .. 8);
like(WeirTest::sql_error($node, "SELECT weir.wait_for('waited_rows', '300 ms')"),
	qr/^57014.*DETAIL:.* 7 records in 1 /s, 'a timeout tells the lag');
$blocker->query_safe('COMMIT');
$blocker->quit;
sql("SELECT weir.wait_for('waited_rows')");
is(minutes('waited_rows'), '0=8', 'and later it is there');
like(
	WeirTest::sql_error($node, <<'SQL'), qr/^55000.*this transaction/, 'a stream made in this transaction');
BEGIN;
SELECT weir.create_stream('too_early', 'SELECT s.id FROM waited s');
SELECT weir.wait_for('too_early');
SQL
like(
	WeirTest::sql_error($node, <<'SQL'), qr/^55000.*this transaction/, 'or an advance');
BEGIN; SELECT weir.advance_watermark('waited'); SELECT weir.wait_for('waited_rows');
SQL
like(
	WeirTest::sql_error($node, <<'SQL'), qr/^25001/, 'an old snapshot would not see it');
BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT weir.wait_for('waited_rows');
SQL
like(WeirTest::sql_error($node, "SELECT weir.wait_for('nobody')"),
	qr/^42704/, 'no such stream');
sql("SELECT weir.pause('waited')");
like(WeirTest::sql_error($node, "SELECT weir.wait_for('waited_rows')"),
	qr/^55000.*source is paused.*HINT/s, 'a source that is paused');
sql("SELECT weir.resume('waited'); SELECT weir.pause('waited_rows')");
like(WeirTest::sql_error($node, "SELECT weir.wait_for('waited_rows')"),
	qr/^55000.*it is paused.*HINT/s, 'a stream that is paused');
sql("SELECT weir.resume('waited_rows')");
$broker->command('down');
like(WeirTest::sql_error($node, "SELECT weir.wait_for('waited_rows', '300 ms')"),
	qr/^57014.*DETAIL/s, 'a broker that does not answer');
$broker->command('up');
WeirTest::wait_for($node, 'waited_rows');

is( sql(<<'SQL'), '', 'no watermark has gone back');
SELECT * FROM history_of_watermarks WHERE new < old OR new IS NULL
SQL
cmp_ok(sql('SELECT count(*) FROM history_of_watermarks'), '>', 50,
	'of many that have moved');

$node->stop;
done_testing();
