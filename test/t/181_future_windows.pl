# Windows that rows past max_future_skew have opened.
#
# Proves: advance_watermark() closes what rows that move the watermark have
# opened, and not what rows far in the future have, so that no honest row is
# late for it; with nothing else open it does nothing.  So it is for tumbling
# and hopping windows, on change and on close, after a restart, and with two
# advances.  Seeking to offsets, a row of the far future that comes first does
# not make windows before it incomplete, whether it is read alone or with
# others; what it opens is kept.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { f => 1 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);
WeirTest::create_source($node, 'f', columns => 'id int, at timestamptz',
	event_time => 'at', idle_timeout => undef);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

my %query = (
	minutes => <<'SQL',
SELECT w.window_start, w.window_end, count(*) AS n
FROM f s CROSS JOIN weir.tumble(s.at, '1 minute') w GROUP BY w.window_start, w.window_end
SQL
	hops => <<'SQL',
SELECT w.window_start, w.window_end, count(*) AS n
FROM f s CROSS JOIN weir.hop(s.at, '2 minutes', '1 minute') w GROUP BY w.window_start, w.window_end
SQL
);
my @streams;
for my $name (sort keys %query)
{
	for my $emit (qw(on_change on_close))
	{
		push @streams, "${name}_$emit";
		WeirTest::create_stream($node, $streams[-1], $query{$name}, emit => $emit);
	}
}
WeirTest::create_stream($node, 'stored', 'SELECT s.id, s.at, s.kafka_offset FROM f s');

# rows at seconds after the start of 2024, or at a time
my $id = 0;

sub produce
{
	$broker->produce('f',
		[ map { $id++; my $at = /^\d+$/ ? 1704067200 + $_ : qq("$_"); qq({"id":$id,"at":$at}) } @_ ]);
	WeirTest::wait_for($node, @streams, 'stored');
	return;
}

sub advance
{
	sql("SELECT weir.advance_watermark('f')");
	WeirTest::wait_for($node, @streams);
	return;
}

sub watermark
{
	my ($stream) = @_;
	return sql("SELECT extract(epoch FROM weir.watermark('$stream') - '2024-01-01Z')::int");
}

sub late
{
	return sql("SELECT count(*) FROM weir.dead_letter WHERE reason = 'late'");
}

# Nothing but the future.
produce('2099-07-01T00:00:30Z');
advance();
is(join('', map { watermark($_) } @streams), '', 'with nothing else open an advance does nothing');
produce(10, 70);
is(watermark('minutes_on_close'), 70, 'rows count as ever');

# The future and the present.
produce('2098-07-01T00:00:30Z', 75);
advance();
is(watermark($_), /hops/ ? 180 : 120, "$_: an advance closes what is open") for @streams;
is(sql('SELECT count(*) FROM minutes_on_close'), 2, 'and no more');
is(sql("SELECT count(*) FROM $_ WHERE window_start > '2090-01-01'"), /hops/ ? 4 : 2,
	"$_: the future is open") for grep { /change/ } @streams;
produce(185, 190);
is(late(), 0, 'no honest row is late');

# The same after a restart, and twice.
$node->restart;
advance();
advance();
is(watermark($_), /hops/ ? 300 : 240, "$_: after a restart, too") for @streams;
produce(305);
is(late(), 0, 'no row is late');
advance();
produce(1000);

for my $name (sort keys %query)
{
	my $oracle = $query{$name} =~ s/FROM f s/FROM stored s/r;
	WeirTest::compare($node, "TABLE ${name}_on_change", $oracle, $name);
	WeirTest::compare($node, "TABLE ${name}_on_close", "SELECT * FROM ($oracle) q WHERE window_end <= '2024-01-01 00:16Z'",
		"$name, on close");
}

# Seek to a position behind which a row of the far future is first: with rows
# of the present in the same batch, and alone.
my $wanted = 'SELECT window_start, window_end, n FROM minutes_on_change WHERE window_start';
produce(2000, 2001, '2097-07-01T00:00:30Z', 2002, 2070, 2130);
my $offset = sql("SELECT min(kafka_offset) FROM stored WHERE at = '2097-07-01 00:00:30Z'");
sql("CREATE TABLE before AS $wanted < '2090-01-01'");
sql("SELECT weir.seek('minutes_on_change', '{\"0\": $offset}')");
WeirTest::wait_for($node, 'minutes_on_change');
WeirTest::compare($node, "$wanted < '2090-01-01'", 'TABLE before', 'windows begun before stay, later ones are the same');
is(sql("SELECT string_agg(window_start || ' ' || n, ',') FROM minutes_on_change WHERE window_start > '2090-01-01'"),
	'2097-07-01 00:00:00+00 1', 'the far future is made anew');

sql("SELECT weir.seek('minutes_on_change', 'latest')");
WeirTest::wait_for($node, 'minutes_on_change');
produce('2096-07-01T00:00:30Z');
produce('2096-07-01T00:00:31Z');
is(sql("SELECT string_agg(window_start || ' ' || n, ',') FROM minutes_on_change WHERE window_start > '2090-01-01'"),
	'2096-07-01 00:00:00+00 2', 'alone, it is kept, too');
produce(2140, 2190, 2200);
produce(2250);
is( sql("SELECT string_agg(extract(epoch FROM window_start - '2024-01-01Z')::bigint || '=' || n, ' ' ORDER BY window_start) FROM minutes_on_change WHERE window_start >= '2024-01-01 00:35Z'"),
	'2100=1 2160=2 2220=1 ' . sql("SELECT extract(epoch FROM '2096-07-01Z'::timestamptz - '2024-01-01Z')::bigint || '=2'"),
	'a window begun before the seek stays, later ones have all their rows');

# An advance in the midst of what is staged at once: what came before the call
# is closed, though only its rows say how far event times had come.
sql("SELECT weir.pause('$_')") for @streams;
$broker->produce('f', [ map { $id++; qq({"id":$id,"at":"$_"}) }
	  ('2024-01-02T00:00:10Z', '2095-01-01T00:00:00Z', '2024-01-02T00:01:10Z', '2024-01-02T00:00:50Z') ]);
sql("SELECT weir.advance_watermark('f')");
WeirTest::sql_becomes($node,
	'SELECT count(*) FROM weir_internal.advance a JOIN weir_internal.stream USING (stream_id) WHERE paused AND end_offsets IS NULL', '0');
$broker->produce('f', [ map { $id++; qq({"id":$id,"at":"$_"}) }
	  ('2024-01-02T00:05:10Z', '2024-01-02T00:02:30Z', '2024-01-02T00:01:30Z') ]);
WeirTest::wait_for($node, 'stored');
sql("CREATE TABLE lates AS SELECT * FROM weir.dead_letter");
$node->restart;
sql("SELECT weir.resume('$_')") for @streams;
WeirTest::wait_for($node, @streams);
is( sql("SELECT extract(epoch FROM weir.watermark('$_') - '2024-01-02Z')::int"), 310,
	"$_: the watermark is that of the later rows") for @streams;
is( sql("SELECT string_agg(staged_row ->> 'id', ' ' ORDER BY kafka_offset) FROM (SELECT * FROM weir.dead_letter EXCEPT TABLE lates) d WHERE stream = '$_'"),
	/hops/ ? join(" ", $id - 1, $id) : $id, "$_: what the advance has closed is late") for grep { /on_change/ } @streams;
like(sql("SELECT string_agg(extract(epoch FROM window_start - '2024-01-02Z')::int || '=' || n, ' ' ORDER BY window_start) FROM minutes_on_close WHERE window_start >= '2024-01-02Z'"),
	qr/^0=2 60=1 120=1$/, 'and not written again');

# A window of now that a row past the skew is in, too, is not made of that
# row alone.
WeirTest::create_stream($node, 'years', <<'SQL');
SELECT w.window_start, count(*) AS n
FROM f s CROSS JOIN weir.tumble(s.at, '36500 days') w GROUP BY w.window_start
SQL
WeirTest::wait_for($node, 'years');
my $years = sql("SELECT max(n) FROM years");
sql("SELECT weir.seek('years', 'latest')");
WeirTest::wait_for($node, 'years');
produce('2096-07-01T00:00:32Z');
WeirTest::wait_for($node, 'years');
is(sql('SELECT max(n) FROM years'), $years, 'a window begun before stays');

$node->stop;
done_testing();
