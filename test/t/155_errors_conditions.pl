# Conditions that fail for some rows, of any cost, in any place.
#
# Proves: whatever the condition costs (less than weir's own, or 10,000), and
# wherever it stands (WHERE, ON, LATERAL, FILTER, group keys, arguments, the
# output), with 1 to 40 failing rows among 120 that came in several pieces,
# exactly these rows become dead letters, once, and the rest equals the oracle.
# Rows that failed in an earlier batch are not looked at again.  A condition
# that fails without any row fails the stream.  The workers do not grow.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { e => 2 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

my $rows = 120;
WeirTest::create_source(
	$node, 'e',
	columns => 'id int NOT NULL, at timestamptz',
	event_time => 'at',
	max_out_of_orderness => '1 hour');
sql(<<'SQL');
CREATE TABLE one (i int PRIMARY KEY);
INSERT INTO one VALUES (1);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE FUNCTION fussy(i int) RETURNS boolean IMMUTABLE COST 0.000001 LANGUAGE plpgsql AS $$
BEGIN
	IF i = 0 THEN RAISE EXCEPTION 'not 0'; END IF;
	RETURN true;
END $$;
CREATE FUNCTION fussy_dear(i int) RETURNS boolean IMMUTABLE COST 10000 LANGUAGE plpgsql AS $$
BEGIN
	IF i = 0 THEN RAISE EXCEPTION 'not 0'; END IF;
	RETURN true;
END $$;
SQL

# the query, M for the number of which each multiple fails; the SQLSTATE
my $windows = "CROSS JOIN weir.tumble(e.at, '10 seconds') w";
my %stream = (
	plain => [ 'SELECT e.id FROM e WHERE 100 / (e.id % M) > 0' ],
	cheap => [ 'SELECT e.id FROM e WHERE 1 / (e.id % M) IS NOT NULL' ],
	root => [ 'SELECT e.id FROM e WHERE sqrt(e.id % M - 0.5) IS NOT NULL', '2201F' ],
	domain => [ 'SELECT e.id FROM e WHERE (e.id % M)::positive IS NOT NULL', '23514' ],
	by_function => [ 'SELECT e.id FROM e WHERE fussy(e.id % M)', 'P0001' ],
	dear => [ 'SELECT e.id FROM e WHERE fussy_dear(e.id % M)', 'P0001' ],
	joined => [ 'SELECT e.id FROM one o JOIN e ON o.i = 1 AND 1 / (e.id % M) IS NOT NULL' ],
	sideways => [ 'SELECT e.id, l.q FROM e CROSS JOIN LATERAL (SELECT 100 / (e.id % M) AS q) l' ],
	output => [ 'SELECT e.id, 1 / (e.id % M) IS NOT NULL AS q FROM e' ],
	keyed => [ 'SELECT e.id, e.at FROM e WHERE 1 / (e.id % M) IS NOT NULL' ],
	filter => [ "SELECT w.window_start, count(*) FILTER (WHERE 1 / (e.id % M) IS NOT NULL) AS n FROM e $windows GROUP BY w.window_start" ],
	argument => [ "SELECT w.window_start, count(1 / (e.id % M)) AS n FROM e $windows GROUP BY w.window_start" ],
	grouped => [ 'SELECT 5 / (e.id % M) AS q, count(*) AS n FROM e GROUP BY 5 / (e.id % M)' ],
	windowed => [ "SELECT w.window_start, count(*) AS n FROM e CROSS JOIN weir.hop(e.at, '20 seconds', '10 seconds') w WHERE 1 / (e.id % M) IS NOT NULL GROUP BY w.window_start" ]);
my @streams = sort keys %stream;

sub oracle
{
	my ($query, $multiple, $last) = @_;
	my $from =
	  "(SELECT i AS id, timestamptz '2024-01-01 00:00Z' + i * interval '1 second' AS at FROM generate_series(1, $last) i WHERE i % $multiple <> 0 OFFSET 0) e";
	return $query =~ s/\bM\b/$multiple/gr =~ s/\bFROM e\b/FROM $from/r =~
	  s/\bJOIN e\b/JOIN $from/r;
}

# id 1 on; even ones in partition 0
sub produce
{
	my ($from, $to) = @_;
	$broker->produce(
		'e',
		[
			map {
				sprintf "%d\t{\"id\":%d,\"at\":%d}", $_ % 2, $_, 1704067200 + $_
			} $from .. $to
		],
		partition_field => 1);
	return;
}

# Several pieces, all there before the first stream is.
for my $piece (0 .. 3)
{
	produce($piece * 30 + 1, $piece * 30 + 30);
	WeirTest::sql_becomes($node,
		"SELECT sum(fetched_offset) FROM weir.stat_source WHERE source = 'e'",
		$piece * 30 + 30, "piece $piece is read");
}

my $last = $rows;
for my $multiple (120, 24, 17, 8, 3)
{
	WeirTest::create_stream(
		$node, $_,
		$stream{$_}[0] =~ s/\bM\b/$multiple/gr,
		$_ eq 'keyed' ? (options => '{"key": ["id"]}') : ())
	  for @streams;
	WeirTest::wait_for($node, @streams);

	# and a few more, in batches of their own, on the same blocks
	for (1 .. 3)
	{
		produce($last + 1, $last + 4);
		$last += 4;
		WeirTest::wait_for($node, @streams);
	}
	for my $name (@streams)
	{
		my ($query, $sqlstate) = @{ $stream{$name} };
		$sqlstate ||= '22012';
		WeirTest::compare($node, "TABLE $name",
			oracle($query, $multiple, $last),
			"$name, each ${multiple}th fails: the rest");
		WeirTest::compare(
			$node,
			"SELECT (staged_row ->> 'id')::int, reason, sqlstate FROM weir.dead_letter WHERE stream = '$name'",
			"SELECT i, 'query', '$sqlstate' FROM generate_series(1, $last) i WHERE i % $multiple = 0",
			"$name, each ${multiple}th fails: exactly these are dead letters");
	}
	is( sql(<<'SQL'), 0, "each ${multiple}th fails: no worker needs much memory");
SELECT count(*) FROM weir.stat_worker WHERE kind = 'stream' AND memory_bytes > 100000000
SQL
	is( sql(<<'SQL'), scalar @streams, "each ${multiple}th fails: the streams run, and tell the first dead letter");
SELECT count(*) FROM weir.stat_stream WHERE state = 'running'
	AND last_error ~ '^dead letter: ' AND last_error_sqlstate IS NOT NULL
	AND last_error_at IS NOT NULL
SQL
	sql("SELECT weir.drop_stream('$_', drop_target => true)") for @streams;
	sql('DELETE FROM weir.dead_letter');
}

##
## What fails without any row is not the rows' fault
##

sql("CREATE TABLE refusing (id int)");
WeirTest::create_stream($node, 'refusing', 'SELECT e.id FROM e');
WeirTest::wait_for($node, 'refusing');
my $before = sql('SELECT count(*) FROM refusing');
sql(<<'SQL');
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'nothing at all' USING ERRCODE = '22023'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON refusing EXECUTE FUNCTION refuse();
SQL
produce($last + 1, $last + 4);
WeirTest::sql_becomes($node,
	"SELECT state, last_error_sqlstate, last_error FROM weir.stat_stream WHERE stream = 'refusing'",
	'failed|22023|nothing at all', 'a statement that fails without any row');
is(sql('SELECT count(*) FROM refusing'), $before, 'nothing is written');
is(sql('SELECT count(*) FROM weir.dead_letter'), 0, 'nor a dead letter');
sql('DROP TRIGGER refuse ON refusing');
sql("SELECT weir.resume('refusing')");
WeirTest::wait_for($node, 'refusing');
is(sql('SELECT count(*) FROM refusing'), $before + 4, 'repaired, it goes on');

$node->stop;
done_testing();
