# Partitions and inputs from which nothing comes.
#
# Proves: after a seek a partition that stays quiet does not keep the floor
# open, and what is closed stays (I5): rows that it brings after all are late,
# and take no window away; so do rows that the filter drops, dead records and
# tombstones, in place of silence, and a restart in between changes nothing.
# What is known to be missing of a quiet partition keeps windows from being
# emitted.  With on_idle => 'advance' an input from which no row has come has
# no watermark of the wall clock's, so that its first rows are on time, and
# an idle stream does not write a transaction at each tick.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded;
my $node = WeirTest::start_node('main', conf => { max_worker_processes => 60 });
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

sub create_source
{
	my ($name, %arg) = @_;
	$broker->create_topic($name, 2);
	WeirTest::create_source($node, $name,
		columns => 'id int NOT NULL, at timestamptz',
		event_time => 'at',
		idle_timeout => '100 ms',
		%arg);
	return;
}

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

# rows of partition, id and minutes since 2024-01-01, or a payload
sub produce
{
	my ($topic, @rows) = @_;
	$broker->produce(
		$topic,
		[
			map {
				"$_->[0]\t"
				  . ( defined $_->[2] ?
					  sprintf(q({"id":%d,"at":%.3f}),
						$_->[1], 1704067200 + $_->[2] * 60) :
					  $_->[1])
			} @rows
		],
		partition_field => 1);
	return;
}

# The same for more than one partition: they are there when the source begins
# to read.  What is produced while its partition is idle comes late when the
# others go on without it, as it should.
sub produce_at_once
{
	my ($topic, @rows) = @_;
	sql("SELECT weir.pause('$topic')");
	WeirTest::sql_becomes($node,
		"SELECT count(*) FROM weir.stat_worker WHERE kind = 'ingest' AND source = '$topic'",
		0);
	produce($topic, @rows);
	sql("SELECT weir.resume('$topic')");
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

# minutes since 2024-01-01, empty when there is none
sub watermark
{
	my ($name) = @_;
	return sql("SELECT (extract(epoch FROM weir.watermark('$name') - '2024-01-01Z') / 60)::float8");
}

sub late
{
	my ($stream) = @_;
	return sql("SELECT coalesce(string_agg(staged_row ->> 'id', ' ' ORDER BY dead_letter_id), '') FROM weir.dead_letter WHERE stream = '$stream' AND reason = 'late'");
}

sub becomes_idle
{
	my ($source, $n) = @_;
	WeirTest::sql_becomes($node, <<SQL, $n, "$source: $n partitions are idle");
SELECT count(*) FILTER (WHERE idle) FROM weir.stat_source WHERE source = '$source'
SQL
	return;
}

##
## A quiet partition after a seek
##

# what the quiet partition has in place of silence
my %silence = (
	nothing => [],
	tombstones => [ [ 1, '\N' ], [ 1, '\N' ] ],
	dead => [ [ 1, 'not json' ], [ 1, '{"id":null}' ] ]);
for my $kind (sort keys %silence)
{
	create_source("q_$kind");
	create_minutes("${kind}_closed", "q_$kind", emit => 'on_close');
	create_minutes("${kind}_open", "q_$kind");
	my @streams = ("${kind}_closed", "${kind}_open");

	# something that is skipped, and old; no window closes, whatever is idle
	produce("q_$kind", [ 0, 1, -100 ], [ 1, 2, -99.5 ]);
	WeirTest::wait_for($node, @streams);
	sql("SELECT weir.seek('$_', 'latest')") for @streams;
	WeirTest::wait_for($node, @streams);
	produce("q_$kind", @{ $silence{$kind} });
	produce("q_$kind", map { [ 0, 10 + $_, 0.5 + $_ ] } 0 .. 5);
	WeirTest::wait_for($node, @streams);

	# while the other one gives rows, it is not idle
	my $id = 100;
	ok( WeirTest::poll(
			sub {
				produce("q_$kind", [ 0, $id++, 5.5 ]);
				return minutes("${kind}_closed") eq '1=1 2=1 3=1 4=1';
			}),
		"$kind: windows close without the quiet partition");
	if ($kind eq 'dead')
	{
		$node->stop('immediate');
		WeirTest::start_again($node);

		# what the crash has taken back is done again
		ok( WeirTest::poll(
				sub {
					produce("q_$kind", [ 0, $id++, 5.5 ]);
					WeirTest::wait_for($node, @streams);
					return sql(<<SQL) eq '0';
SELECT count(*) FROM weir_internal.stream_state JOIN weir_internal.stream USING (stream_id)
WHERE name IN ('${kind}_closed', '${kind}_open') AND (floor_pending OR watermark IS NULL)
SQL
				}),
			"$kind: after a crash, too");
	}
	WeirTest::wait_for($node, @streams);
	like(minutes("${kind}_open"), qr/1=1 2=1 3=1 4=1/, "$kind: and are there on change");

	# five hours later, and then older than all
	produce("q_$kind", [ 1, 20, 300 ]);
	WeirTest::wait_for($node, @streams);
	like(minutes("${kind}_$_"), qr/1=1 2=1 3=1 4=1/, "$kind: what is closed stays, $_")
	  for qw(closed open);
	produce("q_$kind", [ 1, 21, 2.5 ], [ 1, 22, 0.2 ]);
	WeirTest::wait_for($node, @streams);
	like(minutes("${kind}_$_"), qr/1=1 2=1 3=1 4=1/, "$kind: and is not written again, $_")
	  for qw(closed open);
	is(late("${kind}_$_"), '21', "$kind: what comes for it is late, $_")
	  for qw(closed open);

	# both go on
	produce_at_once("q_$kind", map { [ $_ % 2, $_, 300 + $_ ] } 30 .. 39);
	WeirTest::wait_for($node, @streams);
	like(minutes("${kind}_open"), qr/ 300=1 330=1 331=1 332=1.* 339=1/, "$kind: and it goes on");
	unlike(minutes("${kind}_closed"), qr/^0=|-\d/, "$kind: nothing begun before the position");
	is(sql("SELECT floor_pending FROM weir_internal.stream_state JOIN weir_internal.stream USING (stream_id) WHERE name = '${kind}_closed'"),
		'f', "$kind: the floor is settled");
}

# Filtered rows have a time, which tells the floor as well.
create_source('filtered', filter => 'id >= 0');
create_minutes('filtered_closed', 'filtered', emit => 'on_close');
produce('filtered', [ 0, 1, -100 ], [ 1, 2, -99.5 ]);
WeirTest::wait_for($node, 'filtered_closed');
sql(q(SELECT weir.seek('filtered_closed', 'latest')));
WeirTest::wait_for($node, 'filtered_closed');
produce('filtered', [ 1, -1, 2.5 ]);
WeirTest::wait_for($node, 'filtered_closed');
produce('filtered', map { [ 0, 10 + $_, 0.5 + $_ ] } 0 .. 5);
WeirTest::wait_for($node, 'filtered_closed');
produce('filtered', [ 1, -1, 5.9 ]);
WeirTest::wait_for($node, 'filtered_closed');
is(minutes('filtered_closed'), '3=1 4=1', 'rows that the filter drops tell the floor, too');

##
## What is known to be missing
##

create_source('known');
create_minutes('known_closed', 'known', emit => 'on_close');
create_minutes('known_open', 'known');
produce_at_once('known', map { [ $_ % 2, $_, $_ / 10 ] } 0 .. 59);
WeirTest::wait_for($node, qw(known_closed known_open));

# partition 1 stays where it is, at its end, with rows up to 5.9
sql(qq(SELECT weir.seek('$_', '{"0": 0}'))) for qw(known_closed known_open);
WeirTest::wait_for($node, qw(known_closed known_open));
produce('known', map { [ 0, 100 + $_, 6 + $_ / 10 ] } 0 .. 29);
WeirTest::wait_for($node, qw(known_closed known_open));
my $id = 200;
ok( WeirTest::poll(
		sub {
			produce('known', [ 0, $id++, 8.9 ]);
			return minutes('known_closed') =~ / 7=/;
		}),
	'windows close');
like(minutes('known_closed'), qr/ 6=10 7=10$/, 'those that lack no row are made');
is(minutes('known_closed') =~ s/ 6=.*//r, '0=10 1=10 2=10 3=10 4=10',
	'those begun before stay');
is(minutes('known_open') =~ s/ 6=.*//r, '0=10 1=10 2=10 3=10 4=10 5=10',
	'also where they are emitted on change');

# All of it again: nothing is missing, so all windows are made.
sql('UPDATE known_open SET n = -1');
sql(qq(SELECT weir.seek('known_open', '{"0": 0, "1": 0}')));
WeirTest::wait_for($node, 'known_open');
like(minutes('known_open'), qr/^0=10 1=10 2=10 3=10 4=10 5=10 6=10 7=10 /,
	'from the first offsets on, all of them are made anew');

##
## An advance before the floor is known
##

create_source('advanced', idle_timeout => undef);
create_minutes('advanced_closed', 'advanced', emit => 'on_close');
produce('advanced', [ 0, 1, 0 ], [ 1, 2, 0 ]);
WeirTest::wait_for($node, 'advanced_closed');
sql(q(SELECT weir.seek('advanced_closed', 'latest')));
WeirTest::wait_for($node, 'advanced_closed');
produce('advanced', map { [ 0, 10 + $_, 1.5 + $_ ] } 0 .. 4);
WeirTest::wait_for($node, 'advanced_closed');
WeirTest::close_windows($node, 'advanced', 'advanced_closed');
is(minutes('advanced_closed'), '2=1 3=1 4=1 5=1', 'an advance closes windows');
produce('advanced', [ 1, 20, 100 ], [ 1, 21, 4.5 ]);
WeirTest::wait_for($node, 'advanced_closed');
is(minutes('advanced_closed'), '2=1 3=1 4=1 5=1', 'and they stay');
is(late('advanced_closed'), '21', 'what comes for them is late');

##
## on_idle => 'advance' before the first row
##

my @idle = qw(i_empty i_half i_filtered i_dead i_tombstones i_future i_sought);
my @advance = (emit => 'on_close', options => '{"on_idle": "advance"}');
create_source($_, filter => 'id >= 0') for @idle, 'i_control';
create_minutes("${_}_s", $_, @advance) for @idle, 'i_control';
produce('i_control', [ 0, 1, 0 ]);
produce('i_filtered', [ 0, -1, -60 ], [ 1, -1, -60 ]);
produce('i_dead', [ 0, 'not json' ], [ 1, '{}' ]);
produce('i_tombstones', [ 0, '\N' ], [ 1, '\N' ]);
produce('i_future', [ 0, 1, 40_000_000 ]);
produce_at_once('i_sought', [ 0, 1, -60 ], [ 1, 2, -60 ]);
WeirTest::wait_for($node, map { "${_}_s" } @idle);
WeirTest::sql_becomes($node, 'SELECT n FROM i_sought_s', 2, 'a window closes before the seek');
sql(q(SELECT weir.seek('i_sought_s', 'latest')));
WeirTest::wait_for($node, 'i_sought_s');
becomes_idle($_, 2) for @idle, 'i_control';
WeirTest::sql_becomes($node, "SELECT weir.watermark('i_control_s') > now() - interval '1 hour'",
	't', 'where a row has come, it goes on with the wall clock');
is(watermark("${_}_s"), $_ eq 'i_filtered' ? -60 : '', "$_: there is no watermark of the wall clock's")
  for @idle;

# the first rows, all of them older than now
for my $name (@idle)
{
	produce_at_once($name,
		map { [ $name eq 'i_half' ? 0 : $_ % 2, $_, $_ / 2 ] } 1 .. 9);
}
WeirTest::wait_for($node, map { "${_}_s" } @idle);
for my $name (@idle)
{
	is(late("${name}_s"), '', "$name: the first rows are on time");
	WeirTest::sql_becomes($node, "SELECT weir.watermark('${name}_s') > now() - interval '1 hour'",
		't', "$name: and now it goes on");
	is(minutes("${name}_s"), $name eq 'i_sought' ? '-60=2 1=2 2=2 3=2 4=2' : '0=1 1=2 2=2 3=2 4=2',
		"$name: with all of them counted");
}

# Idle streams write little: each step of ten seconds is a transaction.
my $before = sql('SELECT pg_snapshot_xmax(pg_current_snapshot())');
my $until = sql("SELECT now() + '12 seconds'");
WeirTest::sql_becomes($node, "SELECT weir.watermark('i_control_s') >= '$until'::timestamptz", 't',
	'the watermark of an idle stream goes on');
my $written = sql("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint - $before");
cmp_ok($written, '<', 60, 'in few transactions');

$node->stop;
done_testing();
