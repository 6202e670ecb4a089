# From topic to table, the ways a stream can take.
#
# Proves, on the embedded broker: each kind of stream gives what its query
# gives over the stored rows (the oracle): tumbling and hopping counts and
# other aggregates, emitted on change and on close; a row stream; a running
# aggregate; joins to dimensions, FILTER, HAVING, expressions over
# aggregates.  While rows come in, a group that no longer holds HAVING leaves
# the target.  A window that is open is there on_change and not on_close.
# What the source's filter drops is counted and in no result.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { events => 4 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

# 20,000 events of 200 seconds, up to 3 seconds out of order
my @lines = WeirBroker::gen_lines('events',
	events => 20000, seed => 100, partitions => 4, keys => 8,
	disorder_ms => 3000);
my @payloads = map { s/^\d+\t//r } @lines;
my @produce = (partition_field => 1);

##
## The thinnest path
##

WeirTest::create_events_source($node, 'events',
	max_out_of_orderness => '3 seconds');
my %query;

$query{per_key} = <<'SQL';
SELECT w.window_start, w.window_end, e.k, count(*) AS n
FROM events e CROSS JOIN weir.tumble(e.at, '10 seconds') w
GROUP BY w.window_start, w.window_end, e.k
SQL
WeirTest::create_stream($node, 'per_key', $query{per_key});
$broker->produce('events', [ @lines[ 0 .. 999 ] ], @produce);
WeirTest::wait_for($node, 'per_key');
WeirTest::load_events($node, 'stored', [ @payloads[ 0 .. 999 ] ]);

# the stream's query over the stored rows
sub oracle
{
	my ($query, $from) = @_;
	$from = 'stored' unless defined $from;
	return $query =~ s/\bFROM events\b/FROM $from/r;
}

WeirTest::compare($node, 'TABLE per_key', oracle($query{per_key}),
	'1,000 rows: tumbling count');

##
## Every kind, over all rows; some from the start, per_key goes on
##

WeirTest::sql($node, <<'SQL');
CREATE TABLE keys (k text PRIMARY KEY, name text, weight numeric NOT NULL);
INSERT INTO keys VALUES ('k0', 'zero', 0.5), ('k1', 'one', 1.25),
	('k2', 'two', 2), ('k3', NULL, 3), ('k5', 'five', 5.5);
CREATE TABLE names (name text, k text);
INSERT INTO names VALUES ('x', 'k0'), ('y', 'k0'), ('z', 'k1');
SQL

my %emit;

$query{aggregates} = <<'SQL';
SELECT w.window_start, e.k, count(*) AS n, count(e.txt) AS texts,
	sum(e.v) AS sum_v, avg(e.v) AS avg_v, min(e.v) AS min_v,
	max(e.v) AS max_v, min(e.txt) AS min_txt, bool_and(e.v > -990) AS every,
	bool_or(e.v > 990) AS some, stddev(e.v) AS stddev_v,
	variance(e.v) AS variance_v, stddev_pop(e.v) AS stddev_pop_v
FROM events e CROSS JOIN weir.tumble(e.at, '7 seconds') w
GROUP BY w.window_start, e.k
SQL

$query{filtered} = <<'SQL';
SELECT w.window_end, e.v % 3 AS rest, count(*) FILTER (WHERE e.v < 0) AS below,
	sum(e.v) FILTER (WHERE e.k = 'k1') AS of_k1,
	round(avg(e.v) * 2 + count(*), 3) AS mixed,
	coalesce(max(e.v) FILTER (WHERE e.v > 5000), -1) AS never
FROM events e CROSS JOIN weir.tumble(e.at, '1 minute') w
WHERE e.id % 2 = 0
GROUP BY w.window_end, e.v % 3
SQL

$query{hopping} = <<'SQL';
SELECT w.window_start, w.window_end, e.k, count(*) AS n, sum(e.v) AS sum_v
FROM events e CROSS JOIN weir.hop(e.at, '30 seconds', '10 seconds') w
GROUP BY w.window_start, w.window_end, e.k
SQL

$query{hopping_closed} = $query{hopping};
$emit{hopping_closed} = 'on_close';

$query{tumbling_closed} = <<'SQL';
SELECT w.window_start, w.window_end, count(*) AS n, max(e.id) AS last_id
FROM events e CROSS JOIN weir.tumble(e.at, '10 seconds') w
GROUP BY w.window_start, w.window_end
SQL
$emit{tumbling_closed} = 'on_close';

$query{rows} = <<'SQL';
SELECT e.id, e.k || '/' || e.txt AS text, e.v * 2 AS twice, e.at
FROM events e WHERE e.v >= 0
SQL

$query{running} = <<'SQL';
SELECT e.k, count(*) AS n, sum(e.v) AS sum_v, avg(e.v) AS avg_v,
	min(e.at) AS first_at, max(e.at) AS last_at, stddev(e.v) AS stddev_v
FROM events e GROUP BY e.k
SQL

$query{joined} = <<'SQL';
SELECT w.window_start, w.window_end, d.name, count(*) AS n,
	count(*) FILTER (WHERE e.v > 0) AS above, sum(e.v * d.weight) AS weighted
FROM events e CROSS JOIN weir.tumble(e.at, '20 seconds') w
	JOIN keys d ON d.k = e.k
GROUP BY w.window_start, w.window_end, d.name
HAVING count(*) > 100
SQL

$query{left_joined} = <<'SQL';
SELECT w.window_start, coalesce(n.name, e.k) AS label, count(*) AS n
FROM events e CROSS JOIN weir.tumble(e.at, '20 seconds') w
	LEFT JOIN names n ON n.k = e.k
GROUP BY w.window_start, coalesce(n.name, e.k)
SQL

$query{words} = <<'SQL';
SELECT w.window_start, word, count(*) AS n
FROM events e CROSS JOIN weir.hop(e.at, '20 seconds', '10 seconds') w
	CROSS JOIN LATERAL regexp_split_to_table(lower(e.txt), '\s+') AS word
WHERE word <> ''
GROUP BY w.window_start, word
SQL

$query{joined_rows} = <<'SQL';
SELECT e.id, n.name, d.weight
FROM events e JOIN names n ON n.k = e.k LEFT JOIN keys d ON d.k = e.k
SQL

my @streams = sort keys %query;
for my $name (grep { $_ ne 'per_key' } @streams)
{
	WeirTest::create_stream($node, $name, $query{$name},
		$emit{$name} ? (emit => $emit{$name}) : ());
}

# in chunks, so that there are many batches
my $producer = $broker->producer('events', @produce);
for (my $i = 1000; $i < @lines; $i += 1000)
{
	$producer->send(@lines[ $i .. $i + 999 ]);
}
$producer->finish;
WeirTest::load_events($node, 'stored', [ @payloads[ 1000 .. $#payloads ] ]);
WeirTest::wait_for($node, @streams);

# What is complete at the watermark, and what is not yet.  The least of the
# partitions' greatest times, less 3 seconds, is the watermark.
my $watermark = <<'SQL';
(SELECT min(m) - interval '3 seconds'
 FROM (SELECT max(at) AS m FROM stored GROUP BY id % 4) p)
SQL
is( WeirTest::sql($node,
		"SELECT weir.watermark('per_key') = date_trunc('milliseconds', $watermark)"
	),
	't',
	'the watermark is the least of the partitions');
for my $name (@streams)
{
	my $oracle = oracle($query{$name});
	my $when = '';
	if ($emit{$name})
	{
		$oracle =
		  "SELECT * FROM ($oracle) o WHERE window_end <= $watermark";
		$when = ', the closed windows';
	}
	WeirTest::compare($node, "SELECT * FROM $name", $oracle,
		"all rows: $name$when");
}

WeirTest::close_windows($node, 'events', @streams);
for my $name (@streams)
{
	WeirTest::compare(
		$node, "SELECT * FROM $name",
		oracle($query{$name}),
		"after advance_watermark: $name");
}

##
## HAVING that is lost again, and filter
##

$broker->create_topic('small', 1);
WeirTest::create_source(
	$node, 'small',
	columns => 'k text NOT NULL, v int, at timestamptz',
	filter => 'v <> 13',
	event_time => 'at');
WeirTest::create_stream($node, 'big_sums', <<'SQL');
SELECT w.window_start, s.k, sum(s.v) AS sum_v
FROM small s CROSS JOIN weir.tumble(s.at, '1 minute') w
GROUP BY w.window_start, s.k HAVING sum(s.v) > 10
SQL
WeirTest::create_stream($node, 'big_totals', <<'SQL');
SELECT s.k, sum(s.v) AS sum_v FROM small s
GROUP BY s.k HAVING sum(s.v) > 10
SQL

sub small
{
	$broker->produce(
		'small',
		[
			map {
				qq({"k":"$_->[0]","v":$_->[1],"at":"2024-01-01T00:00:01Z"})
			} @_
		]);
	WeirTest::wait_for($node, 'big_sums', 'big_totals');
	return;
}

small([ 'a', 20 ], [ 'b', 5 ], [ 'a', 13 ]);
is(WeirTest::sql($node, 'SELECT k, sum_v FROM big_sums'),
	'a|20', 'HAVING holds for one group');
is(WeirTest::sql($node, 'SELECT * FROM big_totals'),
	'a|20', 'and without a window');
small([ 'a', -15 ], [ 'b', 6 ]);
is(WeirTest::sql($node, 'SELECT k, sum_v FROM big_sums'),
	'b|11', 'a group that no longer holds it leaves the target');
is(WeirTest::sql($node, 'SELECT * FROM big_totals'),
	'b|11', 'and without a window');
small([ 'a', 6 ], [ 'b', 0 ]);
is(WeirTest::sql($node, 'SELECT k, sum_v FROM big_sums ORDER BY k'),
	"a|11\nb|11", 'and comes back');

is( WeirTest::sql($node, <<'SQL'),
SELECT sum(rows_in), sum(rows_filtered), sum(rows_staged), sum(rows_dead)
FROM weir.stat_source WHERE source = 'small' AND stream IS NULL
SQL
	'7|1|6|0', 'rows that the filter dropped are counted');

##
## NULL group keys; the relation itself can be read
##

$broker->create_topic('nulls', 2);
WeirTest::create_source(
	$node, 'nulls',
	columns => 'k text, v int, at timestamptz',
	event_time => 'at');
WeirTest::create_stream($node, 'null_keys', <<'SQL');
SELECT w.window_start, n.k, count(*) AS n, sum(n.v) AS sum_v, avg(n.v) AS avg_v
FROM nulls n CROSS JOIN weir.tumble(n.at, '1 minute') w
GROUP BY w.window_start, n.k
SQL
for my $round (1 .. 3)
{
	$broker->produce(
		'nulls',
		[
			'{"v":1,"at":"2024-01-01T00:00:01Z"}',
			'{"k":null,"v":null,"at":"2024-01-01T00:00:02Z"}',
			'{"k":"x","at":"2024-01-01T00:00:03Z"}'
		]);
	WeirTest::wait_for($node, 'null_keys');
}
is( WeirTest::sql($node,
		'SELECT k, n, sum_v, avg_v FROM null_keys ORDER BY k'),
	"x|3||\n|6|3|1.00000000000000000000",
	'NULL is one group, and aggregates of NULLs are NULL');
is( WeirTest::sql($node, <<'SQL'),
SELECT count(*) > 0, bool_and(kafka_topic = 'nulls'), bool_and(at IS NOT NULL)
FROM nulls
SQL
	't|t|t', 'the source shows what is staged');

is( WeirTest::sql($node, 'SELECT count(*) FROM weir.dead_letter'),
	'0', 'no dead letters');
is( WeirTest::sql($node, <<'SQL'),
SELECT stream, state, last_error FROM weir.stat_stream
WHERE state <> 'running' OR last_error IS NOT NULL
SQL
	'', 'all streams run');

done_testing();
