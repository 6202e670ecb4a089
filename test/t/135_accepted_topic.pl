# A new topic is accepted while an advance of the old one is pending.
#
# Proves: weir.advance_watermark() speaks of the records that the topic had
# at the call.  When weir.seek() accepts another topic in its place, the
# advance is void: it closes nothing in the midst of the new topic's records,
# for no stream of the source, and weir.wait_for() does not wait for it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $old = WeirBroker->embedded(topics => { t => 1 });
my $new = WeirBroker->embedded(topics => { t => 1 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $old);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

# all of one window
sub records
{
	my ($from, $to) = @_;
	return [ map { sprintf '{"id":%d,"at":"2024-01-01T00:00:%02dZ"}', $_, $_ % 60 } $from .. $to ];
}

WeirTest::create_source($node, 't', columns => 'id int, at timestamptz', event_time => 'at');
my @streams = qw(one two);
WeirTest::create_stream($node, $_, <<'SQL', emit => 'on_close') for @streams;
SELECT w.window_start, count(*) AS n, sum(t.id) AS s FROM t CROSS JOIN weir.tumble(t.at, '1 minute') w
GROUP BY w.window_start
SQL
$old->produce('t', records(1, 5));
WeirTest::wait_for($node, @streams);

# recorded with the end offset 10, and not applied by either
my $lock = $node->background_psql('postgres');
$lock->query_safe('BEGIN; LOCK TABLE one, two IN ACCESS EXCLUSIVE MODE');
$old->produce('t', records(6, 10));
sql("SELECT weir.advance_watermark('t')");
WeirTest::sql_becomes($node, 'SELECT count(*) FROM weir_internal.advance WHERE end_offsets = \'{10}\'', 2,
	'an advance is pending, for both streams');
sql("SELECT weir.pause(s) FROM unnest('{one,two,t}'::text[]) s");
WeirTest::sql_becomes($node, "SELECT count(*) FROM weir.stat_worker WHERE kind IN ('ingest', 'stream')", 0);
$lock->query_safe('COMMIT');
$lock->quit;
is(sql('SELECT count(*) FROM weir_internal.advance'), 2, 'and stays so');

$new->produce('t', records(1, 30));
sql("ALTER SERVER kafka OPTIONS (SET bootstrap_servers '@{[ $new->bootstrap ]}')");
sql("SELECT weir.resume(s) FROM unnest('{one,two,t}'::text[]) s");
WeirTest::sql_becomes($node, "SELECT state, last_error_sqlstate FROM weir.stat_source WHERE source = 't'",
	'stopped|55W01', 'another topic');
sql("SELECT weir.seek('one', 'earliest')");
is(sql('SELECT count(*) FROM weir_internal.advance'), 0, 'with the new topic the advance is void');
sql("SELECT weir.seek('two', 'earliest')");
WeirTest::wait_for($node, @streams);
$new->produce('t', records(31, 40));
WeirTest::wait_for($node, @streams);
is(sql("SELECT string_agg(rows_late::text, ' ') FROM weir.stat_stream"), '0 0', 'no row is late');
is(sql("SELECT count(*) FROM $_"), 0, "$_: nothing is closed") for @streams;
WeirTest::close_windows($node, 't', @streams);
is(sql("SELECT n, s FROM $_"), '40|820', "$_: an advance now closes what is there") for @streams;

$node->stop;
done_testing();
