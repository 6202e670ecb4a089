# Event time: watermarks, idleness, lateness (I4, I5).
#
# Proves: a replay in which one partition is far behind the others, or has
# not been read at all, loses nothing, closes nothing too early and makes no
# row late; a time in the far future moves no watermark; idle partitions
# hold nothing up, but only on evidence, which an outage of the broker ends;
# advance_watermark closes what is open once its rows are applied, and no
# more; lateness is judged by window, so a row can be late for one window and
# count in the next; what is late is one dead letter; the watermark outlives
# restarts; on_idle goes on with the wall clock.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(
	topics => {
		replay => 3,
		unread => 2,
		future => 1,
		idle => 3,
		advance => 2,
		late => 1,
		clock => 2
	});
my $node = WeirTest::start_node(
	'main',
	conf => {
		'weir.fetch_message_max_bytes' => 1024,
		'weir.max_batch_rows' => 500
	});
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

sub becomes
{
	my ($sql, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::sql_becomes($node, $sql, $expected, $name)
	  or diag(WeirTest::status($node));
	return;
}

# A source of rows (id, at) with such options.
sub create_source
{
	my ($name, %arg) = @_;
	WeirTest::create_source(
		$node, $name,
		columns => 'id bigint NOT NULL, at timestamptz',
		event_time => 'at',
		%arg);
	return;
}

# Produces rows, each [ partition, id, seconds after 2024 ].
sub produce
{
	my ($topic, @rows) = @_;
	$broker->produce(
		$topic,
		[
			map {
				sprintf "%d\t" . '{"id":%d,"at":%d}', $_->[0], $_->[1],
				  1704067200 + $_->[2]
			} @rows
		],
		partition_field => 1);
	return;
}

# seconds after 2024, in SQL
sub at
{
	my ($column) = @_;
	return "extract(epoch FROM $column)::bigint - 1704067200";
}

my $tumbling = <<'SQL';
SELECT w.window_start, w.window_end, count(*) AS n, sum(e.id) AS ids
FROM SOURCE e CROSS JOIN weir.tumble(e.at, '10 seconds') w
GROUP BY w.window_start, w.window_end
SQL

sub create_stream
{
	my ($name, $source, %arg) = @_;
	WeirTest::create_stream($node, $name,
		$tumbling =~ s/SOURCE/$source/r, %arg);
	return;
}

# rows of a stream's target: "start count" of each window
sub windows
{
	my ($target) = @_;
	my $start = at('window_start');
	return sql(
		"SELECT string_agg($start || ' ' || n, ', ' ORDER BY window_start) FROM $target"
	);
}

sub dead_letters
{
	my ($stream) = @_;
	return sql("SELECT count(*) FROM weir.dead_letter WHERE stream = '$stream'");
}

##
## Replay
##

# The same 1,000 seconds in three partitions: one with 20,000 rows, one with
# 100, one with 1,000.  With small fetches the second is at its end when the
# first has hardly begun; a short idle_timeout makes it idle at once.
my @replay;
push @replay, map { [ 0, $_, $_ / 20 ] } 0 .. 19999;
push @replay, map { [ 1, 100000 + $_, $_ * 10 ] } 0 .. 99;
push @replay, map { [ 2, 200000 + $_, $_ ] } 0 .. 999;
produce('replay', @replay);
create_source('replay', idle_timeout => '10 milliseconds');
create_stream('replay_change', 'replay');
create_stream('replay_close', 'replay', emit => 'on_close');
WeirTest::wait_for($node, qw(replay_change replay_close));
WeirTest::close_windows($node, 'replay', qw(replay_change replay_close));
my $oracle = <<'SQL';
SELECT timestamptz '2024-01-01 00:00Z' + s / 10 * interval '10 seconds',
	timestamptz '2024-01-01 00:00Z' + (s / 10 + 1) * interval '10 seconds',
	count(*), sum(id)
FROM (SELECT i, i / 20 FROM generate_series(0, 19999) i
	UNION ALL SELECT 100000 + i, i * 10 FROM generate_series(0, 99) i
	UNION ALL SELECT 200000 + i, i FROM generate_series(0, 999) i) r (id, s)
GROUP BY s / 10
SQL
WeirTest::compare($node, "TABLE $_", $oracle, "a replay loses nothing: $_")
  for qw(replay_change replay_close);
is( sql("SELECT sum(rows_late), sum(rows_dead) FROM weir.stat_stream"),
	'0|0', 'no row of a replay is late');

# A partition that has nothing yet, and is never idle, holds the watermark.
create_source('unread', idle_timeout => undef);
create_stream('unread_close', 'unread', emit => 'on_close');
produce('unread', map { [ 0, $_, $_ ] } 0 .. 999);
WeirTest::wait_for($node, 'unread_close');
is( sql("SELECT watermark, watermark_held_by FROM weir.stat_stream WHERE stream = 'unread_close'"
	),
	'|1',
	'a partition without a row holds the watermark');
is(windows('unread_close'), '', 'and no window is closed');
produce('unread', map { [ 1, $_, $_ ] } 0 .. 499);
WeirTest::wait_for($node, 'unread_close');
is(sql("SELECT sum(n), max(" . at('window_end') . ") FROM unread_close"),
	'980|490', 'the watermark is that of the partition behind');
produce('unread', map { [ 1, $_, $_ ] } 500 .. 999);
WeirTest::wait_for($node, 'unread_close');
is(sql("SELECT sum(n), max(" . at('window_end') . ") FROM unread_close"),
	'1980|990', 'all that both have');
is(dead_letters('unread_close'), '0', 'nothing was late');

##
## The future
##

create_source('future', max_future_skew => '1 hour');
create_stream('future_change', 'future');
create_stream('future_close', 'future', emit => 'on_close');
my @future = qw(future_change future_close);
produce('future', [ 0, 1, 5 ], [ 0, 2, 3_000_000_000 ]);
WeirTest::wait_for($node, @future);
produce('future', [ 0, 3, 6 ], [ 0, 4, 20 ]);
WeirTest::wait_for($node, @future);
is(windows('future_close'), '0 2',
	'a time in the far future moves no watermark');
is(windows('future_change'), '0 2, 20 1, 3000000000 1',
	'but the row counts in its window');
is( sql("SELECT sum(rows_future) FROM weir.stat_source WHERE source = 'future'"
	),
	'1',
	'and is counted');
is(dead_letters($_), '0', "$_: none is late") for @future;

##
## Idle partitions
##

create_source('idle', idle_timeout => '300 milliseconds');
create_stream('idle_close', 'idle', emit => 'on_close');
my $all_idle =
  "SELECT bool_and(idle) FROM weir.stat_source WHERE source = 'idle'";
becomes($all_idle, 't', 'empty partitions are seen to be idle');
produce('idle', map { [ 0, $_, $_ ] } 0 .. 25);
WeirTest::wait_for($node, 'idle_close');
is(windows('idle_close'), '0 10, 10 10',
	'and do not hold up the one that has rows');
becomes($all_idle, 't', 'all are idle again');
my $watermark = sql("SELECT weir.watermark('idle_close')");
$broker->command('down');
becomes("SELECT bool_or(idle) FROM weir.stat_source WHERE source = 'idle'",
	'f', 'none is idle while the broker is away');
is(sql("SELECT weir.watermark('idle_close')"),
	$watermark, 'and the watermark stands');
$broker->command('up');
becomes($all_idle, 't', 'they are when it is back');
produce('idle', map { [ 1, 100 + $_, $_ ] } 0 .. 45);
WeirTest::wait_for($node, 'idle_close');
is(windows('idle_close'), '0 10, 10 10, 20 16, 30 10',
	'a partition that was idle is heard again');
is(dead_letters('idle_close'), '20', 'but what it has for closed windows is late');

##
## advance_watermark
##

create_source('advance', idle_timeout => undef);
create_stream('advance_close', 'advance', emit => 'on_close');
create_stream('advance_change', 'advance');
my @advance = qw(advance_close advance_change);
produce('advance', [ 0, 1, 1 ], [ 0, 2, 12 ], [ 0, 3, 25 ]);
WeirTest::wait_for($node, @advance);
is(windows('advance_close'), '', 'nothing is closed by itself');
sql("SELECT weir.advance_watermark('advance')");
WeirTest::wait_for($node, @advance);
is(windows('advance_close'), '0 1, 10 1, 20 1',
	'advance_watermark closes what is open');
produce('advance', [ 1, 4, 15 ], [ 1, 5, 35 ], [ 0, 6, 45 ]);
WeirTest::wait_for($node, @advance);
is(windows('advance_close'), '0 1, 10 1, 20 1',
	'a closed window is not written again, and no other is closed');
is(windows('advance_change'), '0 1, 10 1, 20 1, 30 1, 40 1',
	'on change neither');
is( sql(<<'SQL'),
SELECT stream, reason, staged_row->>'id', partly_applied FROM weir.dead_letter
WHERE stream ~ '^advance' ORDER BY 1
SQL
	"advance_change|late|4|f\nadvance_close|late|4|f",
	'a late row is one dead letter a stream');

# Rows that were in Kafka before the call are not late, even if the stream
# gets to them only afterwards.
sql("SELECT weir.pause('advance_close')");
sql("SELECT weir.pause('advance_change')");
produce('advance', [ 0, 7, 36 ], [ 1, 8, 47 ], [ 0, 9, 55 ]);
sql("SELECT weir.advance_watermark('advance')");
sql("SELECT weir.resume('advance_close')");
sql("SELECT weir.resume('advance_change')");
WeirTest::wait_for($node, @advance);
is(windows($_), '0 1, 10 1, 20 1, 30 2, 40 2, 50 1',
	"$_: an advance waits for the rows before it")
  for @advance;

# to a time; and not into the future by mistake
sql("SELECT weir.advance_watermark('advance', '2024-01-01 00:01:40Z')");
produce('advance', [ 0, 10, 105 ]);
WeirTest::wait_for($node, @advance);
produce('advance', [ 0, 11, 85 ], [ 0, 12, 106 ]);
WeirTest::wait_for($node, @advance);
is( sql("SELECT weir.watermark('advance_close') = '2024-01-01 00:01:40Z'"),
	't', 'an advance to a time');
is(dead_letters('advance_close'), '2', 'makes what is before it late');
like(
	WeirTest::sql_error($node,
		"SELECT weir.advance_watermark('advance', now() + interval '1 year')"),
	qr/^22023.*force/s,
	'far into the future only by force');
sql("SELECT weir.advance_watermark('advance', '2024-01-01 00:00:10Z')");
WeirTest::wait_for($node, @advance);
is( sql("SELECT weir.watermark('advance_close') = '2024-01-01 00:01:40Z'"),
	't', 'the watermark never goes back');

# across a restart too
$node->restart;
produce('advance', [ 1, 13, 86 ]);
WeirTest::wait_for($node, @advance);
is(dead_letters('advance_close'), '3', 'nor across a restart');
$node->stop('immediate');
$node->start;
produce('advance', [ 1, 14, 87 ]);
WeirTest::wait_for($node, @advance);
is(dead_letters('advance_close'), '4', 'nor across a crash');

##
## Late for one window
##

create_source('late', idle_timeout => undef);
for my $lateness (0, 20)
{
	WeirTest::create_stream(
		$node, "late_$lateness", <<'SQL',
SELECT w.window_start, w.window_end, count(*) AS n
FROM late e CROSS JOIN weir.hop(e.at, '30 seconds', '10 seconds') w
GROUP BY w.window_start, w.window_end
SQL
		allowed_lateness => "$lateness seconds");
}
WeirTest::create_stream(
	$node, 'late_dropped',
	$tumbling =~ s/SOURCE/late/r,
	late_rows => 'drop');
my @late = qw(late_0 late_20 late_dropped);

# The watermark comes to 100: without lateness the windows that end at 100 or
# before are closed, with 20 seconds of it those that end at 80 or before.
produce('late', [ 0, 1, 75 ]);
WeirTest::wait_for($node, @late);
produce('late', [ 0, 2, 100 ]);
WeirTest::wait_for($node, @late);
produce('late', [ 0, 3, 75 ], [ 0, 4, 95 ], [ 0, 5, 20 ]);
WeirTest::wait_for($node, @late);
is(windows('late_0'), '50 1, 60 1, 70 1, 80 2, 90 2, 100 1',
	'a late row counts in the windows that are open');
is(windows('late_20'), '50 1, 60 2, 70 3, 80 2, 90 2, 100 1',
	'with allowed lateness in more');
my $missed = join ', ', map { at($_) } qw(window_start window_end);
sub missed
{
	my ($stream) = @_;
	return sql(<<SQL);
SELECT staged_row->>'id', $missed, partly_applied, reason, sqlstate
FROM weir.dead_letter WHERE stream = '$stream' ORDER BY 1
SQL
}
is(missed('late_0'), "3|50|100|f|late|\n4|70|100|t|late|\n5|0|50|f|late|",
	'its dead letter has the windows it missed');
is(missed('late_20'), "3|50|80|t|late|\n5|0|50|f|late|",
	'with allowed lateness those');
is(missed('late_dropped'), '', 'no dead letters if so wished');
is( sql("SELECT stream, rows_late FROM weir.stat_stream WHERE stream ~ '^late' ORDER BY 1"
	),
	"late_0|3\nlate_20|2\nlate_dropped|3",
	'but all are counted');

##
## The wall clock
##

# The Kafka timestamp is the event time; windows of a second.
WeirTest::create_source($node, 'clock',
	columns => 'id bigint',
	idle_timeout => '200 milliseconds');
my $seconds = <<'SQL';
SELECT w.window_start, w.window_end, count(*) AS n
FROM clock c CROSS JOIN weir.tumble(c.kafka_timestamp, '1 second') w
GROUP BY w.window_start, w.window_end
SQL
WeirTest::create_stream($node, 'clock_advance', $seconds,
	emit => 'on_close',
	options => '{"on_idle": "advance"}');
WeirTest::create_stream($node, 'clock_hold', $seconds, emit => 'on_close');
$broker->produce('clock', [ map { qq({"id":$_}) } 1 .. 100 ]);
becomes('SELECT sum(n) FROM clock_advance',
	'100', 'on_idle: the last window comes out');
is( sql('SELECT coalesce(sum(n), 0) < 100 FROM clock_hold'),
	't', 'without it the watermark holds');
sql("SELECT weir.advance_watermark('clock')");
WeirTest::wait_for($node, 'clock_hold');
is(sql('SELECT sum(n) FROM clock_hold'), '100', 'until it is advanced');

$node->stop;
done_testing();
