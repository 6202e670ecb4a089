# Local times taken at a zone whose clocks change.
#
# Proves: rows whose event time is a timestamp that the query takes at a zone
# are late only when they are by their event time, whatever the clocks of the
# zone do: through a spring change, local times that do not exist among them,
# through both passes of an autumn's hour, and so for a timestamptz that goes
# to a local time and back.  What is closed stays as the query over all the
# rows has it; advance_watermark() closes what is open in such an hour, and
# goes no further; after a seek to offsets into it, only windows are made anew
# that have all their rows.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { local => 1, instants => 1 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

sub late
{
	my (@streams) = @_;
	return sql("SELECT coalesce(string_agg(stream || ' ' || (staged_row ->> 'at'), ', ' ORDER BY 1), '') FROM weir.dead_letter WHERE reason = 'late' AND stream IN ('" . join("', '", @streams) . "')");
}

WeirTest::create_source($node, 'local', columns => 'id int, at timestamp',
	event_time => 'at', max_out_of_orderness => '20 minutes', idle_timeout => undef);
WeirTest::create_source($node, 'instants', columns => 'id int, at timestamptz',
	event_time => 'at', max_out_of_orderness => '20 minutes', idle_timeout => undef);
my %windows = (
	ny => "local s CROSS JOIN weir.tumble(s.at AT TIME ZONE 'America/New_York', '10 minutes')",
	ny_hops => "local s CROSS JOIN weir.hop(s.at AT TIME ZONE 'America/New_York', '1 hour', '20 minutes')",
	ny_days => "local s CROSS JOIN weir.tumble(s.at AT TIME ZONE 'America/New_York', '1 day', timezone => 'America/New_York')",
	twice => "instants s CROSS JOIN weir.tumble((s.at AT TIME ZONE 'America/New_York') AT TIME ZONE 'America/New_York', '10 minutes')");
my %query = map {
	$_ => <<SQL
SELECT w.window_start, w.window_end, count(*) AS n, sum(s.id) AS ids
FROM $windows{$_} w GROUP BY w.window_start, w.window_end
SQL
} keys %windows;
my @local;
my @twice;
for my $name (sort keys %query)
{
	for my $emit (qw(on_change on_close))
	{
		WeirTest::create_stream($node, "${name}_$emit", $query{$name}, emit => $emit);
		push @{ $name eq 'twice' ? \@twice : \@local }, "${name}_$emit";
	}
}
WeirTest::create_stream($node, 'stored', 'SELECT s.id, s.at, s.kafka_offset FROM local s');
WeirTest::create_stream($node, 'stored_instants', 'SELECT s.id, s.at FROM instants s');

my $id = 0;
my %sent = (local => 0, instants => 0);

# one row a batch
sub produce
{
	my ($topic, @at) = @_;
	for my $at (@at)
	{
		$id++;
		$sent{$topic}++;
		$broker->produce($topic, [qq({"id":$id,"at":"$at"})]);
		WeirTest::sql_becomes($node, <<SQL, '0');
SELECT count(*) FROM weir_internal.progress JOIN weir_internal.stream USING (stream_id)
	JOIN weir_internal.source USING (source_id)
WHERE topic = '$topic' AND applied_offset < $sent{$topic}
SQL
	}
	return;
}

##
## Spring: 02:00 to 03:00 is skipped
##

# A device that sets its clock forward, and one that does not, both with
# event times of up to 20 minutes before the latest.
produce('local', map { "2024-03-10 $_" } qw(
	01:30 01:45 01:40 03:00 02:45 03:10 03:15 03:25 02:50 02:55 03:05 03:20
	03:31 03:15 03:50 03:35 04:20 04:05 04:50 04:31));
is(late(@local), '', 'no row is late when clocks are set forward');
cmp_ok(sql('SELECT count(*) FROM ny_on_close'), '>', 4, 'though windows have been closed');
# an advance while windows are open
WeirTest::close_windows($node, 'local', @local);
is(sql('SELECT count(*) FROM ny_on_close WHERE window_end = (SELECT max(window_end) FROM ny_on_change)'),
	1, 'an advance closes what is open');
produce('local', '2024-03-11 00:30');
is(late(@local), '', 'and goes no further');

##
## Autumn: 01:00 to 02:00 comes twice
##

produce('local', map { "2024-11-03 $_" } qw(
	00:30 00:55 00:50 01:05 01:30 01:15 01:55 01:50 01:00 01:40 01:20 01:10
	01:35 01:59 01:45 02:01 01:50 02:20 02:05 02:40));
is(late(@local), '',
	'no row of either pass is late when clocks are set back');
produce('instants', map { "2024-11-03 ${_}Z" } qw(
	04:50 05:05 05:30 05:15 05:55 05:45 06:05 05:50 06:30 06:12 06:59 06:41 07:10 07:00));
is(late(@twice), '', 'nor of a timestamptz that goes through local time');

# an advance in the midst of the hour
produce('local', '2025-11-02 00:59', '2025-11-02 01:10');
WeirTest::close_windows($node, 'local', @local);
is(sql('SELECT count(*) FROM ny_on_close WHERE window_end = (SELECT max(window_end) FROM ny_on_change)'),
	1, 'an advance closes what is open in the repeated hour');
produce('local', '2025-11-03 00:05');
WeirTest::close_windows($node, 'local', @local);
WeirTest::close_windows($node, 'instants', @twice);
is(late(@local, @twice), '', 'and goes no further than that hour');
for my $name (sort keys %query)
{
	my $oracle = $query{$name} =~ s/FROM local s/FROM stored s/r =~ s/FROM instants s/FROM stored_instants s/r;
	WeirTest::compare($node, "TABLE ${name}_on_change", $oracle, "$name");
	WeirTest::compare($node, "TABLE ${name}_on_close", $oracle, "$name, on close");
}

##
## Seek into such hours
##

# What the rows before the position are missing from stays as it was, what
# starts later is made anew and the same.
for my $at ('2024-03-10 03:00', '2024-03-10 03:10', '2024-03-10 02:55', '2024-03-10 03:31',
	'2024-11-03 01:55', '2024-11-03 01:00', '2024-11-03 01:59')
{
	my $offset = sql("SELECT min(kafka_offset) FROM stored WHERE at = '$at'");
	sql("SELECT weir.seek('ny_on_change', '{\"0\": $offset}'), weir.seek('ny_hops_on_change', '{\"0\": $offset}')");
	WeirTest::wait_for($node, qw(ny_on_change ny_hops_on_change));
	WeirTest::close_windows($node, 'local', qw(ny_on_change ny_hops_on_change));
	for my $name (qw(ny ny_hops))
	{
		my $oracle = $query{$name} =~ s/FROM local s/FROM stored s/r;
		WeirTest::compare($node, "TABLE ${name}_on_change", $oracle, "a seek to the row of $at: $name");
	}
}

produce('local', '2024-11-03 01:30');
is(sql("SELECT count(*) FROM weir.dead_letter WHERE reason = 'late' AND stream ~ 'close'"), 3, 'a row of closed windows is late');

$node->stop;
done_testing();
