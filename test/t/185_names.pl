# Whatever things are called, the results are the same.
#
# Proves: no name that PostgreSQL accepts, for a column of a source, a source,
# a schema, a role, an alias, a stream, a target, an output column, an
# aggregate, a dimension or its columns, collides with a name of weir's own or loses its quotes on the
# way: streams of all kinds give what their queries give over the stored rows,
# with late rows, rows that fail and windows that close, and the dead letters
# hold the rows as they are called.  The first round has the names that weir
# itself uses or once used; the others deal a pool of such names and odd ones
# at random.  A column called kafka_something is refused.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $rounds = 4;
my $broker = WeirBroker->embedded(
	topics => { map { ("topic$_" => 1) } 1 .. $rounds });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

# Names in texts that weir makes, then names that need care.
my @pool = (
	qw(tid r f s v src delta n k1 k2 x1 c1 s1 s2 a1 o1 o2 o3 window_start
	  window_end panes merged written removed ranked last winner late closed
	  touched cleared excluded t o d p w e rows groups deleted staged_row
	  group_key first_event r_partition r_offset r_timestamp r_place
	  s_partition dropped_1 weir weir_internal payload key path),
	'r$partition', 'r$offset', 'r$timestamp', 'r$place', 's$partition',
	'dropped$1', 'select', 'order', 'user', 'new', 'old', 'current_date',
	'E', 'xE', 'N', 'ON', 'Upper Case', 'a.b', '"', 'a"b"', '""', "'", "a'b",
	'$1', '$', '\\', 'a\\nb', '--', '/*', '%s', '%1$I', '@', 's.@', '{a,b}',
	'[0]', ' ', ' a ', "tab\t", "line\nbreak", 'Ünïcödé', '漢字', "\xF0\x9F\x98\x80",
	'x' x 63, "\xF0\x9F\x98\x80" x 15, 'X' x 62 . '"');

srand(185);

# n names, no two the same
sub deal
{
	my ($n) = @_;
	my @rest = @pool;
	return map { splice @rest, int(rand(@rest)), 1 } 1 .. $n;
}

sub ident
{
	my ($name) = @_;
	return '"' . $name =~ s/"/""/gr . '"';
}

# Rows of 200 seconds, in order of time; then rows an hour older.
my $epoch = 1704067200;
my @rows = map {
	{
		id => $_,
		at => $epoch + $_ / 2,
		k => 'k' . $_ % 5,
		v => $_ % 11 == 0 ? undef : ($_ * 7919) % 100 - 50,
		z => $_ % 40 == 7 ? 0 : $_ % 9 + 1
	}
} 1 .. 400;
my @late_rows = map {
	{
		id => $_,
		at => $epoch - 3600 + $_ % 3,
		k => 'k1',
		v => $_,
		z => 2
	}
} 401 .. 405;
my @roles = qw(id at k v z);

# JSON of a value; names here are bytes, and stay so.
sub json
{
	my ($value) = @_;
	my $text = JSON::PP->new->encode($value);
	utf8::downgrade($text);
	return $text;
}

# What round 1 is called; undef: dealt as in the others.
my %first = (
	columns => [qw(tid window_start v src k1 dropped$1)],
	outputs => [qw(r$partition r_partition o1 r$place tid)],
	targets => [qw(r excluded f s d o E merged src)],
	aliases => [qw(src f r)]);

sub round
{
	my ($round) = @_;
	my $is_first = $round == 1;
	my %c;
	@c{ @roles, 'gen' } =
	  map { ident($_) } $is_first ? @{ $first{columns} } : deal(6);
	my %json;
	@json{@roles} =
	  map { $c{$_} =~ s/^"|"$//gr =~ s/""/"/gr } @roles;
	my ($a, $w, $d) =
	  map { ident($_) } $is_first ? @{ $first{aliases} } : deal(3);
	my @streams =
	  map { ident("$_") } $is_first ? @{ $first{targets} } : deal(9);
	my ($source, $schema, $elsewhere, $dimension, $label, $check, $role, $least) =
	  map { ident($_) } deal(8);
	$least = ident('s.@') if $is_first;
	# a bare name is a source's or a stream's
	$source = ident("no stream $round") if grep { $_ eq $source } @streams;
	$label = ident('label') if $label eq $c{k};
	$_ = ident("$round " . substr($_, 1, 40) =~ s/"//gr)
	  for $schema, $elsewhere, $role;
	$check = ident('check') if grep { $check eq $_ } values %c;

	note("round $round: columns @c{@roles, 'gen'}, streams @streams");

	sql(<<SQL);
CREATE ROLE $role;
CREATE SCHEMA $schema;
CREATE SCHEMA $elsewhere;
GRANT CREATE, USAGE ON SCHEMA $schema, $elsewhere TO $role;
CREATE TABLE $elsewhere.$dimension ($c{k} text PRIMARY KEY, $label text);
INSERT INTO $elsewhere.$dimension VALUES ('k1', 'one'), ('k2', 'two'), ('k4', 'four');
GRANT SELECT ON $elsewhere.$dimension TO $role;
CREATE AGGREGATE $elsewhere.$least (int) (SFUNC = int4smaller, STYPE = int, SORTOP = <);
SQL

	my $columns = <<SQL;
$c{id} bigint NOT NULL, $c{at} timestamptz, $c{k} text, $c{v} int, $c{z} int,
$c{gen} int GENERATED ALWAYS AS ($c{z} * 2) STORED,
CONSTRAINT $check CHECK ($c{z} >= 0 AND $c{id} > 0)
SQL
	WeirTest::create_source(
		$node, "$schema.$source",
		topic => "topic$round",
		columns => $columns,
		event_time => $c{at},
		filter => "$c{k} <> 'never' OR $c{id} IS NULL",
		max_future_skew => undef);
	sql(<<SQL);
GRANT SELECT ($c{id}, $c{v}, $c{k}) ON $schema.$source TO $role;
CREATE TABLE $elsewhere.stored ($c{id} bigint, $c{at} timestamptz, $c{k} text,
	$c{v} int, $c{z} int, $c{gen} int);
SQL

	my @out = $is_first ? @{ $first{outputs} } : deal(5);
	my ($o1, $o2, $o3, $o4, $o5) = map { ident($_) } @out;
	# in its own round the last letters of a window's column count
	my $end = $is_first ? ident('windowE') : $o1;
	my $from = "$schema.$source AS $a";
	my $tumble = "CROSS JOIN LATERAL weir.tumble($a.$c{at}, '10 seconds') AS $w";
	my @query = (
		{
			query => <<SQL },
SELECT $a.$c{id} AS $o1, $a.$c{gen} AS $o2, $a.$c{at} AS $o3, $c{k} AS $o4
FROM $from WHERE $a.$c{v} IS NOT NULL
SQL
		{
			query => "SELECT $a.$c{id} % 7 AS $o1, $a.$c{v} AS $o2, $a.$c{k} AS $o3 FROM $from",
			options => { key => [ $out[0] ] },
			oracle => <<SQL },
SELECT DISTINCT ON ($a.$c{id} % 7) $a.$c{id} % 7, $a.$c{v}, $a.$c{k}
FROM $from ORDER BY $a.$c{id} % 7, $a.$c{id} DESC
SQL
		{
			query => <<SQL },
SELECT $c{id} AS $o1, $c{k} AS $o2, $d.$label AS $o3
FROM $from JOIN $elsewhere.$dimension AS $d USING ($c{k})
WHERE $c{k} <> 'k4'
SQL
		{
			windows => 1,
			query => <<SQL },
SELECT $w.window_start AS $o1, $w.window_end AS $o2, $a.$c{k} AS $o3,
	count(*) AS $o4, sum($a.$c{v}) AS $o5
FROM $from $tumble
GROUP BY $w.window_start, $w.window_end, $a.$c{k}
HAVING count(*) FILTER (WHERE $a.$c{v} > 0) > 1
SQL
		{
			windows => 1,
			emit => 'on_close',
			query => <<SQL },
SELECT $w.window_start AS $o1, $w.window_end AS $o2, $a.$c{id} % 2 AS $o3,
	max($a.$c{at}) AS $o4, avg($a.$c{gen}) + $elsewhere.$least($a.$c{z}) AS $o5
FROM $from CROSS JOIN LATERAL weir.hop($a.$c{at}, '30 seconds', '10 seconds') AS $w
GROUP BY $w.window_start, $w.window_end, $a.$c{id} % 2
SQL
		{
			query => <<SQL },
SELECT $a.$c{k} AS $o1, avg($a.$c{v}) AS $o2, min($a.$c{z}) AS $o3, stddev($a.$c{z}) AS $o4
FROM $from GROUP BY $a.$c{k}
HAVING count(*) > (SELECT min(length($d.$label)) FROM $elsewhere.$dimension AS $d)
SQL
		{
			windows => 1,
			query => <<SQL },
SELECT $w.window_end AS $end, $a.$c{v} AS $o2, count(*) AS $o3
FROM $from $tumble GROUP BY $w.window_end, $a.$c{v} HAVING count(*) < 2
SQL
		{
			dead => 1,
			query => "SELECT $a.$c{id} AS $o1, 100 / $a.$c{z} AS $o2 FROM $from",
			oracle =>
			  "SELECT $a.$c{id}, 100 / $a.$c{z} FROM $from WHERE $a.$c{z} <> 0"
		},
		{
			role => $role,
			query => "SELECT $c{v} AS $o1, count(*) AS $o2 FROM $schema.$source GROUP BY $c{v}"
		});
	for my $i (0 .. $#query)
	{
		my $query = $query[$i];
		my $options = json($query->{options} || {});
		my $args = join ', ', map { WeirTest::literal($_) } $streams[$i],
		  $query->{query};
		my $target = "$schema.$streams[$i]";
		$target = "$elsewhere.$streams[$i]" if $target eq "$schema.$source";
		$query->{target} = $target;
		my $as = $query->{role} ? "SET ROLE $query->{role};" : '';
		$query->{query} =~ s/\Q$schema.$source\E/$elsewhere.stored/g;
		$query->{oracle} ||= $query->{query};
		$query->{oracle} =~ s/\Q$schema.$source\E/$elsewhere.stored/g;
		my $emit = $query->{emit} || 'on_change';
		sql("$as SELECT weir.create_stream($args, target => "
			  . WeirTest::literal($target)
			  . ", emit => '$emit', options => "
			  . WeirTest::literal($options)
			  . ')');
	}

	my $send = sub {
		my @lines;
		my @values;
		for my $row (@_)
		{
			push @lines, json(
				{ map { ($json{$_} => $row->{$_}) } @roles });
			push @values,
			  "($row->{id}, to_timestamp($row->{at}), '$row->{k}', "
			  . (defined $row->{v} ? $row->{v} : 'NULL')
			  . ", $row->{z}, $row->{z} * 2)";
		}
		$broker->produce("topic$round", \@lines);
		WeirTest::wait_for($node, @streams);
		sql("INSERT INTO $elsewhere.stored VALUES " . join ', ', @values);
	};
	my $check_all = sub {
		my ($when) = @_;
		for my $i (0 .. $#query)
		{
			my $query = $query[$i];
			my $oracle = $query->{oracle};
			$oracle =~ s/\Q$elsewhere.stored\E/(SELECT * FROM $elsewhere.stored WHERE $c{id} <= 400)/
			  if $query->{windows};
			next if $query->{emit} && $when !~ /closed/;
			WeirTest::compare($node, "TABLE $query->{target}", $oracle,
				"round $round, stream $i $when");
		}
	};

	$send->(@rows[ 0 .. 149 ]);
	$send->(@rows[ 150 .. 399 ]);
	$check_all->('with all rows');
	$send->(@late_rows);
	WeirTest::close_windows($node, "$schema.$source", @streams);
	$check_all->('closed');

	for my $i (grep { $query[$_]->{windows} || $query[$_]->{dead} } 0 .. 8)
	{
		my $stream = WeirTest::literal($streams[$i] =~ s/^"|"$//gr =~ s/""/"/gr);
		my $which = $query[$i]->{windows} ? '> 400' : '<= 400';
		my $rest = $query[$i]->{dead} ? "AND $c{z} = 0" : '';
		WeirTest::compare(
			$node, <<SQL, <<SQL2, "round $round, stream $i: dead letters");
SELECT reason, staged_row - 'kafka_headers' FROM weir.dead_letter
WHERE stream = $stream
SQL
SELECT @{[ $query[$i]->{dead} ? "'query'" : "'late'" ]}, to_jsonb(s)
FROM $elsewhere.stored s WHERE $c{id} $which $rest
SQL2
	}
	is(sql("SELECT count(*) FROM $schema.$source"),
		405, "round $round: the source");
	sql(<<SQL);
SELECT weir.drop_source(@{[ WeirTest::literal("$schema.$source") ]}, cascade => true);
DELETE FROM weir.dead_letter;
SQL
	return;
}

round($_) for 1 .. $rounds;

##
## What is reserved
##

for my $name (qw(kafka_tid kafka_ kafka_dropped_1 kafka_offset))
{
	my $create = "SELECT weir.create_source('taken', 'kafka', 'topic1', '$name int')";
	like(
		WeirTest::sql_error($node, $create),
		qr/^42939: column name "$name" is reserved/,
		"$name is reserved");
}
WeirTest::create_source(
	$node, 'taken',
	topic => 'topic1',
	columns => 'a int');
like(
	WeirTest::sql_error(
		$node, 'ALTER FOREIGN TABLE taken RENAME COLUMN a TO kafka_tid'),
	qr/^42939: /,
	'for renames, too');

$node->stop;
done_testing();
