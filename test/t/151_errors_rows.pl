# Rows that a stream cannot process, or its target does not take.
#
# Proves: when one row in ten fails in the row stage (in an aggregate's
# argument, a group key, an output column, with what a join brings), in
# tumbling and hopping windows, on change and on close, in running aggregates
# and row streams with and without a key, these rows become dead letters with
# reason "query", and the rest equals the oracle.  What the target of a row
# stream refuses (unique, foreign key, CHECK, a trigger) is the last row of
# the shortest failing prefix, a dead letter with reason "target".  Group keys
# too large for an index are dead letters.  When too many rows of a batch fail
# with one SQLSTATE, or with on_error => 'stop', the stream fails, nothing
# advances, and after the repair weir.resume() goes on exactly.
#
# For each stream: rows_in = rows in the results + dead letters + rows that
# WHERE leaves out.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use Digest::MD5 qw(md5_hex);
use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(
	topics => {
		events => 4,
		facts => 1,
		pairs => 2,
		capped => 1,
		wide => 1,
		many => 1,
		one => 1
	});
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

# The dead letters of a stream are these: (id, reason, sqlstate).
sub dead_are
{
	my ($stream, $oracle, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::compare($node, <<SQL, $oracle, $name);
SELECT (staged_row ->> 'id')::bigint, reason, sqlstate FROM weir.dead_letter
WHERE stream = '$stream' AND message <> '' AND payload IS NULL
SQL
	return;
}

# rows_in, rows_dead, rows_filtered
sub counts
{
	my ($stream, $expected) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::sql_becomes($node,
		"SELECT rows_in, rows_dead, rows_filtered, rows_late FROM weir.stat_stream WHERE stream = '$stream'",
		$expected, "the counters of $stream add up");
	return;
}

sub has_failed
{
	my ($stream, $sqlstate, $message) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::sql_becomes($node, <<SQL, "failed|$sqlstate|t", "$stream fails with the reason");
SELECT state, last_error_sqlstate, last_error ~ '$message'
FROM weir.stat_stream WHERE stream = '$stream'
SQL
	like(
		WeirTest::sql_error($node, "SELECT weir.wait_for('$stream')"),
		qr/^55000.*failed.*$message/s,
		"waiting for $stream is an error");
	return;
}

sub applied
{
	my ($stream) = @_;
	return sql(<<SQL);
SELECT coalesce(sum(applied_offset), 0) FROM weir_internal.progress
JOIN weir_internal.stream USING (stream_id) WHERE name = '$stream'
SQL
}

##
## One row in ten fails in the row stage
##

my $n_events = 8000;
my @lines = WeirBroker::gen_lines('events',
	events => $n_events, seed => 151, partitions => 4, keys => 8,
	disorder_ms => 2000);
WeirTest::load_events($node, 'stored', [ map { s/^\d+\t//r } @lines ]);
WeirTest::create_events_source($node, 'events',
	max_out_of_orderness => '2 seconds');
sql(<<'SQL');
CREATE TABLE divisors (k text PRIMARY KEY, divisor int);
INSERT INTO divisors SELECT 'k' || i, i - 3 FROM generate_series(0, 6) i;
CREATE TABLE names (k text, name text);
INSERT INTO names VALUES ('k1', 'one'), ('k2', 'two'), ('k2', 'zwei');
SQL

my $ten = 'id % 10 = 0';
my $tumble = "CROSS JOIN weir.tumble(e.at, '10 seconds') w";
my $hop = "CROSS JOIN weir.hop(e.at, '30 seconds', '10 seconds') w";

# the query, which rows of it fail, and with what
my %stream = (
	windows => [ <<SQL, $ten ],
SELECT w.window_start, w.window_end, e.k, count(*) AS n, sum(1000 / (e.id % 10)) AS s
FROM events e $tumble GROUP BY w.window_start, w.window_end, e.k
SQL
	closed => [ <<SQL, $ten ],
SELECT w.window_start, w.window_end, e.k, count(*) AS n, max(1000 / (e.id % 10)) AS s
FROM events e $tumble GROUP BY w.window_start, w.window_end, e.k
SQL
	hops => [ <<SQL, $ten ],
SELECT w.window_start, w.window_end, count(*) AS n, sum(1000 / (e.id % 10)) AS s
FROM events e $hop GROUP BY w.window_start, w.window_end
SQL
	hops_expanded => [ <<SQL, "$ten AND extract(epoch FROM at) % 10 < 5" ],
SELECT w.window_start, w.window_end, count(*) AS n,
	sum(1000 / (e.id % 10)) FILTER (WHERE e.at < w.window_start + interval '5 seconds') AS s
FROM events e $hop GROUP BY w.window_start, w.window_end
SQL
	keyed_by => [ <<SQL, $ten ],
SELECT w.window_start, 100 / (e.id % 10) AS q, count(*) AS n
FROM events e $tumble GROUP BY w.window_start, 100 / (e.id % 10)
SQL
	running => [ <<SQL, $ten ],
SELECT e.k, count(*) AS n, sum(1000 / (e.id % 10)) AS s FROM events e GROUP BY e.k
SQL
	rows => [ <<SQL, "$ten AND v >= 0", '22012', 'v < 0' ],
SELECT e.id, 1000 / (e.id % 10) AS q FROM events e WHERE e.v >= 0
SQL
	keyed => [ <<SQL, $ten ],
SELECT e.id, 1000 / (e.id % 10) AS q FROM events e
SQL
	cast_rows => [ <<SQL, $ten, '22P02' ],
SELECT e.id, (CASE e.id % 10 WHEN 0 THEN e.k ELSE '7' END)::int AS q FROM events e
SQL
	joined => [ <<SQL, "k = 'k3'", '22012', "k = 'k7'" ],
SELECT w.window_start, count(*) AS n, sum(e.v / d.divisor) AS s
FROM events e $tumble JOIN divisors d ON d.k = e.k GROUP BY w.window_start
SQL
	scalar => [ <<SQL, "k = 'k2'", '21000' ],
SELECT e.id, (SELECT n.name FROM names n WHERE n.k = e.k) AS name FROM events e
SQL
);
my @streams = sort keys %stream;
my %option = (
	closed => [ emit => 'on_close' ],
	keyed => [ options => '{"key": ["id"]}' ]);
WeirTest::create_stream($node, $_, $stream{$_}[0], @{ $option{$_} || [] })
  for @streams;
my $producer = $broker->producer('events', partition_field => 1);
$producer->send(@lines[ $_ * 1000 .. $_ * 1000 + 999 ])
  for 0 .. $n_events / 1000 - 1;
$producer->finish;
WeirTest::wait_for($node, @streams);
WeirTest::close_windows($node, 'events', @streams);

for my $name (@streams)
{
	my ($query, $fails, $sqlstate, $filtered) = @{ $stream{$name} };
	$sqlstate ||= '22012';
	$filtered ||= 'false';
	my $good = "(SELECT * FROM stored WHERE NOT ($fails))";
	WeirTest::compare($node, "TABLE $name",
		$query =~ s/FROM events e/FROM $good e/r,
		"$name: equal to the oracle over the good rows");
	dead_are($name, <<SQL, "$name: the bad rows are dead letters");
SELECT id, 'query', '$sqlstate' FROM stored WHERE $fails
SQL
	next if $name eq 'hops_expanded';    # counts a row once a window
	counts($name, sql(<<SQL));
SELECT count(*), count(*) FILTER (WHERE $fails), count(*) FILTER (WHERE $filtered), 0
FROM stored
SQL
}
is( sql(<<'SQL'), '', 'a dead letter tells the staged row, partition and offset');
SELECT to_jsonb(d) FROM weir.dead_letter d LEFT JOIN stored s ON
	to_jsonb(s) - 'at' = d.staged_row - '{at,kafka_headers}'::text[] AND s.at = (d.staged_row ->> 'at')::timestamptz
	AND s.id % 4 = d.kafka_partition
	AND d.kafka_offset = (s.id - d.kafka_partition) / 4
WHERE s.id IS NULL OR d.source <> 'events' OR d.kafka_topic <> 'events'
	OR d.kafka_timestamp IS NULL OR d.window_start IS NOT NULL
LIMIT 3
SQL
sql("SELECT weir.drop_source('events', cascade => true)");

##
## What the target of a row stream refuses
##

my $at = '"at":"2024-01-01T00:00:00Z"';
my $abc = 'id int NOT NULL, parent int, v int, d int, at timestamptz';
WeirTest::create_source($node, 'facts', columns => $abc, event_time => 'at');
sql(<<'SQL');
CREATE TABLE parents (id int PRIMARY KEY);
INSERT INTO parents SELECT generate_series(0, 9);
CREATE TABLE facts_of (id int PRIMARY KEY, parent int REFERENCES parents,
	v int CHECK (v < 900), q int, note text DEFAULT 'weir');
INSERT INTO facts_of VALUES (7, 1, 1, 1, 'mine');
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.v = 13 THEN RAISE EXCEPTION 'not 13'; END IF;
	IF NEW.v = 14 THEN RAISE EXCEPTION 'not 14' USING ERRCODE = '22023'; END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON facts_of FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TABLE facts_keyed (id int UNIQUE NOT NULL, v int CHECK (v < 900), d int UNIQUE);
SQL
WeirTest::create_stream($node, 'facts_of',
	'SELECT f.id, f.parent, f.v, 100 / f.d AS q FROM facts f');
WeirTest::create_stream($node, 'facts_keyed',
	'SELECT f.id, f.v, f.id / 2 AS d FROM facts f WHERE f.id < 400',
	options => '{"key": ["id"]}');

# Some ids come again, and some rows are wrong in more than one way.
srand(151);
my (%taken, @facts_good, @facts_dead);
$taken{7} = 1;
my @facts;
for my $i (0 .. 1999)
{
	my $id = $i < 400 ? int($i * 0.8) : 400 + int(rand(1500));
	my $parent = int(rand(10.4));
	my $v = int(rand(1000));
	my $d = int(rand(12)) - 1;
	push @facts, qq({"id":$id,"parent":$parent,"v":$v,"d":$d,$at});

	# what becomes of it; a BEFORE trigger comes before CHECK, that before
	# the unique index, and foreign keys last
	my $sqlstate =
	    $d == 0 ? '22012'
	  : $v == 13 ? 'P0001'
	  : $v == 14 ? '22023'
	  : $v >= 900 ? '23514'
	  : $taken{$id} ? '23505'
	  : $parent > 9 ? '23503'
	  : undef;
	my $reason = $d == 0 ? 'query' : 'target';
	if (defined $sqlstate)
	{
		push @facts_dead, [ $i, "($id, '$reason', '$sqlstate')" ];
	}
	else
	{
		$taken{$id} = 1;
		push @facts_good, "($id, $parent, $v, " . int(100 / $d) . ')';
	}
}
for (my $i = 0; $i < @facts; $i += 400)
{
	$broker->produce('facts', [ @facts[ $i .. $i + 399 ] ]);
	WeirTest::wait_for($node, 'facts_of');
}
WeirTest::compare(
	$node,
	"SELECT id, parent, v, q FROM facts_of WHERE note = 'weir'",
	'VALUES ' . join(', ', @facts_good),
	'what the target takes');
is(sql('SELECT * FROM facts_of WHERE id = 7'),
	'7|1|1|1|mine', 'a row that was there is not touched');
dead_are('facts_of', 'VALUES ' . join(', ', map { $_->[1] } @facts_dead),
	'the culprits are the last rows of the shortest failing prefixes');
is( sql("SELECT string_agg(kafka_offset::text, ' ' ORDER BY kafka_offset) FROM weir.dead_letter WHERE stream = 'facts_of'"),
	join(' ', map { $_->[0] } @facts_dead),
	'at their offsets');
counts('facts_of', join('|', 2000, scalar @facts_dead, 0, 0));

# ids below 400 are unique pairs, or come again with the same half
WeirTest::wait_for($node, 'facts_keyed');
ok( sql(<<'SQL') eq 't', 'a stream with a key: no half is there twice');
SELECT count(*) = count(DISTINCT d) AND count(*) > 100 FROM facts_keyed
SQL
is( sql(<<'SQL'), 't|t', 'what another unique index or a CHECK refuses is a dead letter');
SELECT bool_and(reason = 'target' AND sqlstate IN ('23505', '23514')),
	count(DISTINCT sqlstate) = 2
FROM weir.dead_letter WHERE stream = 'facts_keyed'
SQL

# Every row that could be there is there: of each key that had a row, either
# one is in the target or all are dead letters.
is( sql(<<'SQL'), '0', 'and no key is lost');
SELECT count(*) FROM weir.dead_letter d
WHERE d.stream = 'facts_keyed' AND d.sqlstate = '23505'
	AND NOT EXISTS (SELECT FROM facts_keyed t WHERE t.d = (d.staged_row ->> 'id')::int / 2)
SQL

##
## Duplicates in different partitions: one lands, whichever
##

WeirTest::create_source($node, 'pairs',
	columns => 'id int NOT NULL, at timestamptz', event_time => 'at');
sql('CREATE TABLE pairs_of (id int PRIMARY KEY)');
WeirTest::create_stream($node, 'pairs_of', 'SELECT p.id FROM pairs p',
	options => '{"max_dead_ratio": 1}', target => 'pairs_of');
$broker->produce('pairs', [ map { (qq(0\t{"id":$_,$at}), qq(1\t{"id":$_,$at})) } 1 .. 200 ],
	partition_field => 1);
WeirTest::wait_for($node, 'pairs_of');
WeirTest::compare($node, 'TABLE pairs_of', 'SELECT generate_series(1, 200)',
	'of two partitions, each id once');
dead_are('pairs_of', "SELECT i, 'target', '23505' FROM generate_series(1, 200) i",
	'and the other is a dead letter');

##
## A trigger that judges all there is: still the last of the shortest prefix
##

WeirTest::create_source($node, 'capped', columns => $abc, event_time => 'at');
sql(<<'SQL');
CREATE TABLE capped_rows (id int, v int);
CREATE FUNCTION cap() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF (SELECT sum(v) FROM public.capped_rows) > 3000 THEN
		RAISE EXCEPTION 'more than 3000 in all' USING ERRCODE = 'P0001';
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER cap AFTER INSERT ON capped_rows EXECUTE FUNCTION cap();
SQL
WeirTest::create_stream($node, 'capped_rows', 'SELECT c.id, c.v FROM capped c');
my ($sum, @under, @over) = (0);
my @capped;
for my $i (1 .. 60)
{
	my $v = 20 + int(rand(80));
	push @capped, qq({"id":$i,"v":$v,$at});
	if ($sum + $v > 3000)
	{
		push @over, "($i, 'target', 'P0001')";
	}
	else
	{
		push @under, "($i, $v)";
		$sum += $v;
	}
}
$broker->produce('capped', \@capped);
WeirTest::wait_for($node, 'capped_rows');
WeirTest::compare($node, 'TABLE capped_rows', 'VALUES ' . join(', ', @under),
	'rows up to a total');
dead_are('capped_rows', 'VALUES ' . join(', ', @over),
	'and those that would exceed it');

##
## Group keys that do not fit into an index
##

WeirTest::create_source($node, 'wide',
	columns => 'id int NOT NULL, k text, at timestamptz', event_time => 'at');
my %wide = (
	wide_windows => "SELECT w.window_start, d.k, count(*) AS n FROM wide d CROSS JOIN weir.tumble(d.at, '1 minute') w GROUP BY w.window_start, d.k",
	wide_running => 'SELECT d.k, count(*) AS n FROM wide d GROUP BY d.k',
	wide_keyed => 'SELECT d.k, d.id FROM wide d');
WeirTest::create_stream($node, $_, $wide{$_},
	$_ eq 'wide_keyed' ? (options => '{"key": ["k"]}') : ())
  for sort keys %wide;
my $random = join '', map { md5_hex($_) } 1 .. 300;
my @wide = map {
	my $k = $_ % 10 ? "k$_" : "k$_" . $random;
	qq({"id":$_,"k":"$k",$at})
} 1 .. 200;
$broker->produce('wide', \@wide);
WeirTest::wait_for($node, sort keys %wide);
for my $name (sort keys %wide)
{
	WeirTest::compare($node, "SELECT k FROM $name",
		"SELECT 'k' || i FROM generate_series(1, 200) i WHERE i % 10 <> 0",
		"$name: keys that fit");
	dead_are($name, <<'SQL', "$name: and those too large");
SELECT i, 'query', '54000' FROM generate_series(1, 200) i WHERE i % 10 = 0
SQL
}

##
## Too many: the query is at fault
##

WeirTest::create_source($node, 'many', columns => $abc, event_time => 'at');
$broker->produce('many', [ map { qq({"id":$_,$at}) } 1 .. 1000 ]);
WeirTest::sql_becomes($node,
	"SELECT fetched_offset FROM weir.stat_source WHERE source = 'many'",
	'1000', 'a source without a stream has read');
sub make_judge
{
	my ($condition) = @_;
	sql(<<SQL);
CREATE OR REPLACE FUNCTION judge(id int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS \$\$
BEGIN
	IF $condition THEN RAISE EXCEPTION 'judged'; END IF;
	RETURN id;
END \$\$
SQL
	return;
}
make_judge('id % 10 < 6');
my %many = (
	many_rows => 'SELECT m.id, judge(m.id) AS j FROM many m',
	many_running => 'SELECT m.id % 7 AS k, count(*) AS n, sum(judge(m.id)) AS s FROM many m GROUP BY m.id % 7',
	many_windows => "SELECT w.window_start, count(*) AS n, max(judge(m.id)) AS s FROM many m CROSS JOIN weir.tumble(m.at, '1 minute') w GROUP BY w.window_start");
my @many = sort keys %many;
WeirTest::create_stream($node, $_, $many{$_}) for @many;
WeirTest::create_stream($node, 'many_all', $many{many_rows},
	options => '{"max_dead_ratio": 1}');
has_failed($_, '55000', 'max_dead_ratio|SQLSTATE P0001') for @many;
is(applied($_), 0, "$_: nothing advanced") for @many;
is(sql("SELECT count(*) FROM $_"), 0, "$_: nor was written") for @many;
is(sql("SELECT count(*) FROM weir.dead_letter WHERE stream IN ('many_rows', 'many_running', 'many_windows')"),
	0, 'nor made a dead letter');
WeirTest::wait_for($node, 'many_all');
WeirTest::compare($node, 'SELECT id FROM many_all',
	'SELECT i FROM generate_series(1, 1000) i WHERE i % 10 >= 6',
	'with a ratio of 1 all that fails is a dead letter');
dead_are('many_all', "SELECT i, 'query', 'P0001' FROM generate_series(1, 1000) i WHERE i % 10 < 6",
	'all of it');

# fewer than half are too few to blame the query
make_judge('id % 10 < 4');
sql("SELECT weir.resume('$_')") for @many;
WeirTest::wait_for($node, @many);
for my $name (@many)
{
	my $from = '(SELECT i AS id, timestamptz \'2024-01-01 00:00Z\' AS at FROM generate_series(1, 1000) i WHERE i % 10 >= 4) m';
	WeirTest::compare($node, "TABLE $name",
		$many{$name} =~ s/FROM many m/FROM $from/r,
		"$name: repaired and resumed, it goes on exactly");
	dead_are($name, "SELECT i, 'query', 'P0001' FROM generate_series(1, 1000) i WHERE i % 10 < 4",
		"$name: the rest are dead letters");
}

##
## on_error => 'stop'
##

WeirTest::create_source($node, 'one', columns => $abc, event_time => 'at');
make_judge('id = 70');
sql('CREATE TABLE one_target (id int PRIMARY KEY CHECK (id <> 70))');
my %one = (
	one_rows => 'SELECT o.id, judge(o.id) AS j FROM one o',
	one_running => 'SELECT o.id % 7 AS k, count(*) AS n, sum(judge(o.id)) AS s FROM one o GROUP BY o.id % 7',
	one_target => 'SELECT o.id FROM one o',
	one_counts => 'SELECT o.id % 7 AS k, 1 / (10 - count(*)) AS n FROM one o GROUP BY o.id % 7');
my @one = sort keys %one;
WeirTest::create_stream($node, $_, $one{$_}, on_error => 'stop') for @one;
$broker->produce('one', [ map { qq({"id":$_,$at}) } 1 .. 49 ]);
WeirTest::wait_for($node, @one);
$broker->produce('one', [ map { qq({"id":$_,$at}) } 50 .. 70 ]);
has_failed($_, 'P0001', 'judged') for qw(one_rows one_running);
has_failed('one_target', '23514', 'check constraint');
has_failed('one_counts', '22012', 'division by zero');
cmp_ok(applied($_), '<=', 69, "$_: at the latest just before it") for @one;
is(sql("SELECT count(*) FROM weir.dead_letter WHERE source = 'one'"),
	0, 'no dead letter');
make_judge('false');
sql('ALTER TABLE one_target DROP CONSTRAINT one_target_id_check');
sql("SELECT weir.resume('$_')") for qw(one_rows one_running one_target);
$broker->produce('one', [ map { qq({"id":$_,$at}) } 71 .. 100 ]);
WeirTest::wait_for($node, qw(one_rows one_running one_target));
for my $name (qw(one_rows one_running one_target))
{
	WeirTest::compare($node, "TABLE $name",
		$one{$name} =~ s/FROM one o/FROM (SELECT generate_series(1, 100) AS id) o/r,
		"$name: repaired and resumed, it goes on exactly");
}
WeirTest::compare($node, 'TABLE one_counts',
	'SELECT k, 0 FROM generate_series(0, 6) k',
	'what has failed is as it was');

$node->stop;
done_testing();
