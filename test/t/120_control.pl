# Pause, resume, seek and drop, while rows come in.
#
# Proves: a paused stream reads nothing, its siblings do, and after resume it
# has lost nothing; the same for a source; seek back to the beginning and to
# offsets rebuilds the same results, seek forward skips exactly what lies
# between; seek where rows would double is refused.  The worker of a dropped
# stream ends, its state table goes, its siblings go on.  A stream that is
# new from earliest, or was paused so long that the ring has moved on, reads
# from a ring of its own while its siblings run, and then from the shared one
# again (detached, attached).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { events => 4, steps => 2 });

# A ring so small that the oldest rows of this test are soon gone from it.
my $node = WeirTest::start_node(
	'main',
	conf => {
		'weir.staging_limit' => '1MB',
		'weir.segment_size' => '128kB'
	});
WeirTest::create_server($node, $broker);

my @lines = WeirBroker::gen_lines('events',
	events => 60000, seed => 120, partitions => 4, keys => 12,
	disorder_ms => 1000);
my @payloads = map { s/^\d+\t//r } @lines;
my $sent = 0;
my $producer = $broker->producer('events', partition_field => 1);

# Sends the next n events, and gives them to the oracle; returns at once.
sub produce
{
	my ($n) = @_;
	my @range = ($sent .. $sent + $n - 1);
	$producer->send(@lines[@range]);
	WeirTest::load_events($node, 'stored', [ @payloads[@range] ]);
	$sent += $n;
	return;
}

WeirTest::create_events_source($node, 'events',
	max_out_of_orderness => '1 second');
my %query = (
	windows => <<'SQL',
SELECT w.window_start, w.window_end, e.k, count(*) AS n, sum(e.v) AS sum_v
FROM events e CROSS JOIN weir.tumble(e.at, '10 seconds') w
GROUP BY w.window_start, w.window_end, e.k
SQL
	closed => <<'SQL',
SELECT w.window_start, w.window_end, count(*) AS n, avg(e.v) AS avg_v
FROM events e CROSS JOIN weir.hop(e.at, '20 seconds', '10 seconds') w
GROUP BY w.window_start, w.window_end
SQL
	rows => 'SELECT e.id, e.k, e.txt FROM events e',
	running => <<'SQL');
SELECT e.k, count(*) AS n, sum(e.v) AS sum_v FROM events e GROUP BY e.k
SQL
my @streams = sort keys %query;

sub create
{
	my ($name, %arg) = @_;
	WeirTest::create_stream($node, $name, $query{$name},
		$name eq 'closed' ? (emit => 'on_close') : (), %arg);
	return;
}

# Everything that was sent is in these streams.
sub all_equal
{
	my ($when, @names) = @_;
	WeirTest::wait_for($node, @names);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	for my $name (@names)
	{
		my $oracle = $query{$name} =~ s/FROM events/FROM stored/r;
		if ($name eq 'closed')
		{
			my $watermark = WeirTest::sql($node,
				"SELECT weir.watermark('closed')");
			$oracle =
			  "SELECT * FROM ($oracle) o WHERE window_end <= '$watermark'";
		}
		WeirTest::compare($node, "SELECT * FROM $name", $oracle,
			"$when: $name");
	}
	return;
}

sub state_of
{
	my ($stream) = @_;
	return WeirTest::sql($node,
		"SELECT state FROM weir.stat_stream WHERE stream = '$stream'");
}

sub has_state
{
	my ($stream, $state, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return WeirTest::sql_becomes(
		$node,
		"SELECT state FROM weir.stat_stream WHERE stream = '$stream'",
		$state, $name);
}

sub workers_of
{
	my ($stream) = @_;
	return
	  "SELECT count(*) FROM weir.stat_worker WHERE stream = '$stream'";
}

create($_) for @streams;
produce(5000);
all_equal('from the start', @streams);
is( WeirTest::sql($node, 'SELECT DISTINCT state FROM weir.stat_stream'),
	'running', 'all run');

##
## Pause and resume
##

WeirTest::sql($node, "SELECT weir.pause('rows')");
has_state('rows', 'paused', 'a paused stream says so');
WeirTest::sql_becomes($node, workers_of('rows'), '0', 'its worker ends');
my $before = WeirTest::sql($node, 'SELECT count(*) FROM rows');
produce(15000);
all_equal('while one is paused', qw(closed running windows));
is(WeirTest::sql($node, 'SELECT count(*) FROM rows'),
	$before, 'nothing is written while it is paused');
like(
	WeirTest::sql_error($node, "SELECT weir.wait_for('rows', '1 minute')"),
	qr/^55000.*paused/,
	'waiting for it is an error');
WeirTest::sql($node, "SELECT weir.resume('rows')");
produce(2000);
all_equal('after resume', @streams);
has_state('rows', 'running', 'it runs, attached again');
WeirTest::sql_becomes($node,
	"SELECT count(*) FROM weir.stat_source WHERE stream IS NOT NULL",
	'0', 'and no private ring is left');

WeirTest::sql($node, "SELECT weir.pause('events')");
WeirTest::sql_becomes($node,
	"SELECT DISTINCT state FROM weir.stat_source WHERE source = 'events'",
	'paused', 'a paused source says so');
WeirTest::sql_becomes($node,
	"SELECT count(*) FROM weir.stat_worker WHERE kind = 'ingest'",
	'0', 'its worker ends');
$before = WeirTest::sql($node, 'SELECT sum(n) FROM running');
produce(3000);
is(WeirTest::sql($node, 'SELECT sum(n) FROM running'),
	$before, 'nothing is read while it is paused');
WeirTest::sql($node, "SELECT weir.resume('events')");
all_equal('after resume of the source', @streams);

# a pause that is taken back is none
WeirTest::sql($node, <<'SQL');
BEGIN; SELECT weir.pause('rows'); SELECT weir.drop_stream('running'); ROLLBACK
SQL
produce(1000);
all_equal('after a rollback', @streams);

##
## Seek
##

for my $name (@streams)
{
	WeirTest::sql($node, "SELECT weir.seek('$name', 'earliest')");
	produce(1000);
	all_equal("sought to the earliest", $name);
}
all_equal('and all', @streams);

# One partition in order of time, so it is plain what is before an offset.
WeirTest::create_source(
	$node, 'steps',
	columns => 'id bigint NOT NULL, at timestamptz',
	event_time => 'at');
WeirTest::create_stream($node, 'minutes', <<'SQL');
SELECT w.window_start, count(*) AS n, min(s.id) AS first_id
FROM steps s CROSS JOIN weir.tumble(s.at, '1 minute') w
GROUP BY w.window_start
SQL
WeirTest::create_stream($node, 'total',
	'SELECT s.kafka_partition AS p, count(*) AS n FROM steps s GROUP BY s.kafka_partition');
WeirTest::create_stream($node, 'copies', 'SELECT s.id FROM steps s');
WeirTest::sql($node, 'CREATE TABLE mine (id bigint)');
WeirTest::create_stream($node, 'copies_mine', 'SELECT s.id FROM steps s',
	target => 'mine');
WeirTest::create_stream($node, 'keyed', 'SELECT s.id, s.at FROM steps s',
	options => '{"key": ["id"]}');
my @of_steps = qw(minutes total copies copies_mine keyed);

# a row every second, in both partitions: row i is at offset i / 2
sub steps
{
	my (@ids) = @_;
	$broker->produce(
		'steps',
		[
			map {
				sprintf "%d\t" . '{"id":%d,"at":%d}', $_ % 2, $_,
				  1704067200 + $_
			} @ids
		],
		partition_field => 1);
	WeirTest::wait_for($node, @of_steps);
	return;
}

# what the windows should be
my $expected_minutes = <<'SQL';
SELECT timestamptz '2024-01-01 00:00Z' + i / 60 * interval '1 minute', count(*), min(i)
FROM generate_series(0, 599) i GROUP BY i / 60
SQL
steps(0 .. 599);
WeirTest::compare($node, 'TABLE minutes', $expected_minutes,
	'ten minutes of steps');
WeirTest::sql($node,
	qq(SELECT weir.seek('minutes', '{"0": 100, "1": 100}')));
WeirTest::wait_for($node, 'minutes');
WeirTest::compare($node, 'TABLE minutes', $expected_minutes,
	'sought to offsets in mid-window: windows before are as they were');
is( WeirTest::sql_error($node,
		qq(SELECT weir.seek('total', '{"0": 100, "1": 100}'))) =~
	  /^0A000.*HINT/s
	? 'refused'
	: 'not refused',
	'refused',
	'a running aggregate does not seek back to offsets');
like(WeirTest::sql_error($node, "SELECT weir.seek('copies_mine', 'earliest')"),
	qr/^0A000.*HINT/s, 'nor rows in a table that weir did not make');
WeirTest::sql($node, "SELECT weir.seek('keyed', 'earliest')");
WeirTest::sql($node,
	qq(SELECT weir.seek('total', '{"0": 400, "1": 410}')));
WeirTest::sql($node,
	qq(SELECT weir.seek('copies_mine', '{"0": 400, "1": 410}')));
steps(600 .. 999);
WeirTest::compare(
	$node, 'TABLE total',
	'VALUES (0, bigint \'400\'), (1, bigint \'390\')',
	'sought forward: a running aggregate skips what lies between');
WeirTest::compare($node, 'TABLE mine', <<'SQL', 'and so do rows');
SELECT i FROM generate_series(0, 999) i
WHERE i < 600 OR i / 2 >= CASE i % 2 WHEN 0 THEN 400 ELSE 410 END
SQL
WeirTest::compare(
	$node, 'SELECT id FROM keyed',
	'SELECT i FROM generate_series(0, 999) i',
	'rows by key are the same after a seek');
WeirTest::compare(
	$node, 'TABLE copies',
	'SELECT i FROM generate_series(0, 999) i',
	'a stream that was not sought goes on');

##
## Detached and attached again
##

# What the new streams write to has a gate, so that the moment in which they
# are behind lasts for as long as the test wants.
WeirTest::sql($node, <<'SQL');
CREATE TABLE gated_windows (window_start timestamptz, window_end timestamptz,
	k text, n bigint, sum_v bigint,
	UNIQUE NULLS NOT DISTINCT (window_start, window_end, k));
CREATE TABLE gated_rows (id bigint, k text, txt text);
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(120);
	RETURN NULL;
END $$;
CREATE TRIGGER gate AFTER INSERT ON gated_windows EXECUTE FUNCTION gate();
CREATE TRIGGER gate AFTER INSERT ON gated_rows EXECUTE FUNCTION gate();
SQL
my $gate = $node->background_psql('postgres');
$gate->query_safe('SELECT pg_advisory_lock(120)');
$query{gated_windows} = $query{windows};
$query{gated_rows} = $query{rows};
create('gated_windows', target => 'gated_windows');
create('gated_rows', target => 'gated_rows');
for my $name (qw(gated_windows gated_rows))
{
	has_state($name, qr/^(catching_up|retrying)$/,
		"$name: new from earliest, catches up");
	WeirTest::sql_becomes($node,
		"SELECT count(*) > 0 FROM weir.stat_source WHERE stream = '$name'",
		't', "$name: from a ring of its own");
}
produce(8000);
all_equal('while new ones catch up', @streams);
$gate->query_safe('SELECT pg_advisory_unlock(120)');
produce(1000);
all_equal('caught up', @streams, qw(gated_windows gated_rows));
for my $name (qw(gated_windows gated_rows))
{
	has_state($name, 'running', "$name: attached");
	WeirTest::sql_becomes($node,
		"SELECT count(*) FROM weir.stat_source WHERE stream = '$name'",
		'0', "$name: its own ring is gone");
}
produce(1000);
all_equal('attached', @streams, qw(gated_windows gated_rows));

##
## Drop
##

my $state_tables = <<'SQL';
SELECT count(*) FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace
WHERE nspname = 'weir_internal' AND relkind = 'r' AND relname ~ '^state_'
SQL
my $n_before = WeirTest::sql($node, $state_tables);
produce(2000);
WeirTest::sql($node, "SELECT weir.drop_stream('running')");
WeirTest::sql($node,
	"SELECT weir.drop_stream('windows', drop_target => true)");
like(
	WeirTest::sql_error(
		$node, "SELECT weir.drop_stream('gated_rows', drop_target => true)"),
	qr/not made by weir.*HINT/s,
	'a target that weir did not make is not dropped with its stream');
WeirTest::sql_becomes($node, workers_of('running'), '0',
	'the worker of a dropped stream ends');
is(WeirTest::sql($node, $state_tables), $n_before - 2,
	'and its state table is gone');
is( WeirTest::sql($node,
		"SELECT to_regclass('running') IS NOT NULL, to_regclass('windows')"
	),
	't|',
	'the target stays or goes');
produce(1000);
all_equal('after a drop', qw(closed rows gated_windows gated_rows));

like(WeirTest::sql_error($node, "SELECT weir.drop_source('events')"),
	qr/^2BP01|^55/, 'a source with streams is not dropped');
produce(1000);
WeirTest::sql($node, "SELECT weir.drop_source('events', cascade => true)");
WeirTest::sql_becomes(
	$node,
	"SELECT count(*) FROM weir.stat_worker WHERE source = 'events'",
	'0',
	'but with cascade, and all its workers end');
is(WeirTest::sql($node, "SELECT to_regclass('events'), to_regclass('rows')"),
	'|rows', 'the source relation is gone, targets stay');
steps(1000 .. 1099);
is(WeirTest::sql($node, 'SELECT count(*) FROM copies'),
	'1100', 'another source is not touched');
is(WeirTest::sql($node, 'SELECT count(*) FROM weir.dead_letter'),
	'0', 'no dead letters');

$producer->finish;
$node->stop;
done_testing();
