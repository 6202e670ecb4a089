# Groups that cannot be emitted.
#
# Proves: an error of the group stage (an output expression or a final cast
# out of range, HAVING or an output that divides by zero for some groups, a
# CHECK or a trigger of the target) belongs to no row: the rows stay in state,
# the group's target row stays as it was, groups_failed counts it, other
# groups are not affected.  It is tried again when the group changes, and at
# close; only a failure at close makes a dead letter, with reason "group",
# window and key.  This holds for tumbling and hopping windows, on change and
# on close, and running aggregates, and after the stream's worker was ended
# in between.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { g => 2, h => 1 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

my $columns = 'k text, v bigint, at timestamptz';
WeirTest::create_source(
	$node, 'g',
	columns => $columns,
	event_time => 'at',
	max_out_of_orderness => '1 hour');
sql("CREATE TABLE stored ($columns)");

# What a group's failing target row may look like: CHECK, a type too small,
# and a trigger that also looks at updates.
sql(<<'SQL');
CREATE TABLE checked (window_start timestamptz NOT NULL, k text, n bigint CHECK (n <= 3 OR k NOT LIKE 'bad%'),
	UNIQUE NULLS NOT DISTINCT (window_start, k));
CREATE TABLE checked_closed (LIKE checked INCLUDING ALL);
CREATE TABLE narrow (k text, s smallint, UNIQUE NULLS NOT DISTINCT (k));
CREATE TABLE triggered (window_start timestamptz NOT NULL, window_end timestamptz NOT NULL, k text, n bigint,
	UNIQUE NULLS NOT DISTINCT (window_start, window_end, k));
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.k LIKE 'bad%' AND NEW.n > 3 THEN
		RAISE EXCEPTION 'more than 3 for %', NEW.k;
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON triggered FOR EACH ROW EXECUTE FUNCTION refuse();
SQL
my $tumble = "CROSS JOIN weir.tumble(g.at, '1 minute') w";
my $group = 'GROUP BY w.window_start, g.k';

# Query; what a group has to be like to fail (over its count n, sum s and key
# k); the SQLSTATE.
my %stream = (
	overflow => [ <<SQL, 's > 2147483647', '22003' ],
SELECT w.window_start, g.k, sum(g.v)::int AS s FROM g $tumble $group
SQL
	overflow_closed => [ <<SQL, 's > 2147483647', '22003' ],
SELECT w.window_start, g.k, sum(g.v)::int AS s FROM g $tumble $group
SQL
	bigint_closed => [ <<SQL, 's * 5000000000 > 9223372036854775807', '22003' ],
SELECT w.window_start, g.k, sum(g.v)::bigint * 5000000000 AS s FROM g $tumble $group
SQL
	divided => [ <<SQL, 's = 4', '22012' ],
SELECT w.window_start, g.k, 100 / (sum(g.v) - 4) AS q FROM g $tumble $group
SQL
	held => [ <<SQL, 'n = 4', '22012' ],
SELECT w.window_start, g.k, count(*) AS n FROM g $tumble $group HAVING 100 / (count(*) - 4) > -60
SQL
	held_closed => [ <<SQL, 'n = 4', '22012' ],
SELECT w.window_start, g.k, count(*) AS n FROM g $tumble $group HAVING 100 / (count(*) - 4) > -60
SQL
	checked => [ <<SQL, "n > 3 AND k LIKE 'bad%'", '23514' ],
SELECT w.window_start, g.k, count(*) AS n FROM g $tumble $group
SQL
	checked_closed => [ <<SQL, "n > 3 AND k LIKE 'bad%'", '23514' ],
SELECT w.window_start, g.k, count(*) AS n FROM g $tumble $group
SQL
	triggered => [ <<SQL, "n > 3 AND k LIKE 'bad%'", 'P0001' ],
SELECT w.window_start, w.window_end, g.k, count(*) AS n
FROM g CROSS JOIN weir.hop(g.at, '2 minutes', '1 minute') w
GROUP BY w.window_start, w.window_end, g.k
SQL
	running => [ <<SQL, 's = 4', '22012' ],
SELECT g.k, count(*) AS n, 100 / (sum(g.v) - 4) AS q FROM g GROUP BY g.k
SQL
	narrow => [ <<SQL, 's > 32767', '22003' ],
SELECT g.k, sum(g.v) AS s FROM g GROUP BY g.k
SQL
);
my @streams = sort keys %stream;
WeirTest::create_stream($node, $_, $stream{$_}[0],
	/closed/ ? (emit => 'on_close') : ())
  for @streams;
my @changing = grep { !/closed/ } @streams;
my @windowed = grep { !/^(?:running|narrow)$/ } @streams;

# The same query over what is stored, without the groups that fail, and as
# they failed: window_start, window_end where there is one, k.
sub oracle
{
	my ($name, $only) = @_;
	my ($query, $fails) = @{ $stream{$name} };
	my ($keys) = $query =~ /GROUP BY ([^\n]*?)(?: HAVING|\n|$)/;
	my $from = '(SELECT * FROM stored) g';
	my ($joins) = $query =~ /FROM g\b(.*?)\bGROUP/s;
	my $flat = $keys =~ s/\b[wg]\.//gr;
	my $failing =
	  "SELECT $flat FROM (SELECT $keys, count(*) AS n, coalesce(sum(g.v), 0) AS s FROM $from $joins GROUP BY $keys) f WHERE $fails";
	return $failing if $only;
	my $matches = join ' AND ',
	  map { my $c = s/^[wg]\.//r; "x.$c IS NOT DISTINCT FROM $_" }
	  split /, /, $keys;
	return $query =~
	  s/FROM g\b(.*?)GROUP BY/FROM $from$1WHERE NOT EXISTS (SELECT FROM ($failing) x WHERE $matches) GROUP BY/sr;
}

# What a target has of groups that do not fail now.
sub good_part
{
	my ($name) = @_;
	my $failing = oracle($name, 1);
	my ($keys) = $failing =~ /^SELECT (.*?) FROM/;
	my $matches = join ' AND ',
	  map { "x.$_ IS NOT DISTINCT FROM t.$_" } split /, /, $keys;
	return "SELECT * FROM $name t WHERE NOT EXISTS (SELECT FROM ($failing) x WHERE $matches)";
}

# rows of the failing groups in a target, as text
sub failing_rows
{
	my ($name) = @_;
	my $failing = oracle($name, 1);
	my ($keys) = $failing =~ /^SELECT (.*?) FROM/;
	my $matches = join ' AND ',
	  map { "x.$_ IS NOT DISTINCT FROM t.$_" } split /, /, $keys;
	return sql("SELECT t FROM $name t WHERE EXISTS (SELECT FROM ($failing) x WHERE $matches) ORDER BY t::text");
}

# Rows that the streams find all at once: they are staged before anybody
# reads them.
sub produce_together
{
	my (@rows) = @_;
	sql("SELECT weir.pause('$_')") for @streams;
	WeirTest::sql_becomes($node,
		q{SELECT count(*) FROM weir.stat_worker WHERE kind = 'stream'}, '0');
	my $staged = 'SELECT sum(fetched_offset) FROM weir.stat_source';
	my $before = sql($staged);
	produce_only(@rows);
	WeirTest::sql_becomes($node, $staged, $before + @rows);
	sql("SELECT weir.resume('$_')") for @streams;
	WeirTest::wait_for($node, @streams);
	return;
}

sub produce
{
	produce_only(@_);
	WeirTest::wait_for($node, @streams);
	return;
}

sub produce_only
{
	my (@rows) = @_;
	my $i = 0;
	$broker->produce(
		'g',
		[
			map {
				sprintf qq(%d\t{"k":%s,"v":%s,"at":"2024-01-01T00:%02d:00Z"}),
				  $i++ % 2, defined $_->[0] ? "\"$_->[0]\"" : 'null', $_->[1],
				  $_->[2] || 0
			} @rows
		],
		partition_field => 1);
	sql('INSERT INTO stored VALUES '
		  . join(', ',
			map {
				sprintf "(%s, %s, '2024-01-01 00:%02d:00Z')",
				  WeirTest::literal($_->[0]), $_->[1], $_->[2] || 0
			} @rows));
	return;
}

sub compare_changing
{
	my ($when) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	for my $name (@changing)
	{
		WeirTest::compare($node, good_part($name), oracle($name),
			"$when: $name, other groups");
	}
	is( sql('SELECT count(*) FROM weir.dead_letter'),
		'0', "$when: no dead letter while they are open");
	return;
}

sub groups_failed
{
	my ($name) = @_;
	return sql("SELECT groups_failed FROM weir.stat_stream WHERE stream = '$name'");
}

##
## Good at first
##

# NULL is a key like others
produce(
	[ 'good', 1 ], [ 'good', 2, 1 ], [ undef, 1 ], [ 'bad', 1 ], [ 'bad', 1 ],
	[ 'bad2', 1, 1 ], [ 'bad3', 10 ], map { [ "other$_", $_ ] } 10 .. 40);
for my $name (@changing)
{
	WeirTest::compare($node, "TABLE $name",
		$stream{$name}[0] =~ s/FROM g\b/FROM stored g/r,
		"all are good: $name");
	is(groups_failed($name), 0, "$name: no group failed");
}
my %before = map { $_ => sql("SELECT t FROM $_ t WHERE k LIKE 'bad%' ORDER BY t::text") } @changing;

##
## Then some fail
##

# bad: n = 4, s = 4 at once, and not first 3; bad3: large
produce_together([ 'bad', 1 ], [ 'bad', 1 ], [ 'bad3', 2147483647 ], [ 'good', 3 ],
	[ 'new', 7, 1 ], [ 'other11', 2, 2 ]);
compare_changing('some fail');
for my $name (@changing)
{
	cmp_ok(groups_failed($name), '>', 0, "$name: groups failed are counted");
	my $rows = failing_rows($name);
	ok($rows ne '' && index("\n$before{$name}\n", "\n" . (split /\n/, $rows)[0] . "\n") >= 0,
		"$name: their target rows are as they were")
	  or diag("$rows\nbefore: $before{$name}");
	WeirTest::sql_becomes($node,
		"SELECT state, last_error_sqlstate FROM weir.stat_stream WHERE stream = '$name'",
		"running|$stream{$name}[2]", "$name: runs, and tells the error");
}

# Rows for other groups only: nothing changes for those that failed, also
# when the worker has forgotten.
for my $pid (WeirTest::worker_pids($node, 'stream'))
{
	sql("SELECT pg_terminate_backend($pid)");
}
produce([ 'good', 1 ], [ 'good', 1, 2 ]);
compare_changing('others change');

##
## They change, and are good again, or fail still
##

produce([ 'bad', 3 ], [ 'bad3', -2147483000 ], [ 'bad3', 5, 2 ],
	[ 'good', 5, 2 ]);
compare_changing('changed');
is( join(' ', map { failing_rows($_) eq '' ? $_ : () } @changing),
	'divided held narrow overflow running',
	'groups that are good again have the right row');

# and fail once more: each stream has one that does at its end
produce([ 'late1', 1 ], [ 'late1', 3 ], [ 'late4', 1, 2 ], [ 'late4', 1, 2 ],
	[ 'late4', 1, 2 ], [ 'late4', 1, 2 ], [ 'late9', 2147483647, 1 ],
	[ 'late9', 5, 1 ]);
compare_changing('others fail');

##
## Close
##

# One repairs its target before; then its groups come out right at close.
sql('ALTER TABLE checked DROP CONSTRAINT checked_check');
$stream{checked}[1] = 'false';
my %at_close = map { $_ => failing_rows($_) } @windowed;
WeirTest::close_windows($node, 'g', @streams);
for my $name (@windowed)
{
	my $failing = oracle($name, 1);
	my $has_end = $failing =~ /window_end/;
	WeirTest::compare($node, good_part($name), oracle($name),
		"closed: $name, groups that are good");
	is(failing_rows($name), $at_close{$name},
		"closed: $name, target rows of the others are as they were");
	is( sql(<<SQL), '', "closed: $name, each of the others is one dead letter");
WITH got AS (SELECT window_start, window_end, weir.dead_letter_text(payload)::jsonb ->> 'k' AS k, reason, sqlstate
	FROM weir.dead_letter WHERE stream = '$name' AND kafka_offset IS NULL AND kafka_partition IS NULL
		AND message <> '' AND source = 'g' AND staged_row IS NULL),
expected AS (SELECT window_start, window_start + interval '@{[ $has_end ? 2 : 1 ]} minutes', k, 'group', '$stream{$name}[2]'
	FROM ($failing) f)
(TABLE got EXCEPT ALL TABLE expected) UNION ALL (TABLE expected EXCEPT ALL TABLE got)
SQL
	is( sql(<<SQL), 't', "closed: $name, and counted");
SELECT open_windows = 0 AND groups = 0 AND rows_dead = 0 AND rows_late = 0
	AND rows_in = (SELECT count(*) FROM stored)
FROM weir.stat_stream WHERE stream = '$name'
SQL
}
ok( sql(<<'SQL') eq 't', 'there were such groups in all but one stream');
SELECT count(DISTINCT stream) = 8 FROM weir.dead_letter WHERE reason = 'group'
SQL
is(sql("SELECT string_agg(DISTINCT reason, ' ') FROM weir.dead_letter"),
	'group', 'and no other dead letters');

# A running aggregate has no close: repaired, the next change is right.
sql('ALTER TABLE narrow ALTER COLUMN s TYPE numeric');
$stream{narrow}[1] = 'false';
produce([ 'late9', 1, 3 ], [ 'bad', 1, 3 ], [ 'bad3', 1, 3 ], [ 'late1', 1, 3 ]);
for my $name (qw(narrow running))
{
	WeirTest::sql_becomes($node,
		"SELECT state FROM weir.stat_stream WHERE stream = '$name'",
		'running', "$name still runs");
	WeirTest::compare($node, good_part($name), oracle($name),
		"$name: right after the next change");
}

##
## on_error => 'stop' at close; the limit of dead letters
##

sub set_limit
{
	my ($value) = @_;
	$node->safe_psql('postgres',
		"ALTER SYSTEM SET weir.dead_letter_limit = $value");
	$node->reload;
	return;
}

# two of five groups can be emitted
WeirTest::create_source(
	$node, 'h',
	columns => $columns,
	event_time => 'at',
	max_out_of_orderness => '1 hour');
my $dividing = <<'SQL';
SELECT w.window_start, h.k, 10 / (count(*) - 2) AS q
FROM h CROSS JOIN weir.tumble(h.at, '1 minute') w GROUP BY w.window_start, h.k
SQL
set_limit(2);
WeirTest::create_stream($node, 'stops', $dividing,
	emit => 'on_close', on_error => 'stop');
WeirTest::create_stream($node, 'limited', $dividing, emit => 'on_close');
$broker->produce('h',
	[ map { qq({"k":"$_","v":1,"at":"2024-01-01T00:00:00Z"}) } qw(a a b c c d e e) ]);
WeirTest::wait_for($node, qw(stops limited));
sql("SELECT weir.advance_watermark('h')");
my $states = <<'SQL';
SELECT stream, state, last_error_sqlstate FROM weir.stat_stream
WHERE stream IN ('stops', 'limited') ORDER BY 1
SQL
WeirTest::sql_becomes($node, $states,
	"limited|failed|55000\nstops|failed|22012",
	'with on_error stop, or more than the limit, the stream fails');
is(sql('SELECT count(*) FROM stops'), 0, 'nothing is written');
is(sql('SELECT count(*) FROM limited'), 0, 'nor by the other');
is( sql(<<'SQL'), 0, 'and there is no dead letter');
SELECT count(*) FROM weir.dead_letter WHERE stream IN ('stops', 'limited')
SQL
set_limit(3);
sql("SELECT weir.resume('limited')");
WeirTest::wait_for($node, 'limited');
is(sql('SELECT k, q FROM limited ORDER BY 1'),
	"b|-10\nd|-10", 'with a limit that suffices it goes on');
is( sql(<<'SQL'), 'a c e', 'and each other group is a dead letter');
SELECT string_agg(weir.dead_letter_text(payload)::jsonb ->> 'k', ' ' ORDER BY payload)
FROM weir.dead_letter WHERE stream = 'limited' AND reason = 'group'
SQL

$node->stop;
done_testing();
