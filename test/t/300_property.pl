# Random streams over random rows, against their recomputation.
#
# Proves, for a few hundred random queries of all that a stream accepts: the
# target equals the same SELECT over the stored rows (floats: to 1e-9 of the
# value), without the rows that were dead letters, and without those windows
# of a row for which it was late.  Rows come out of order, with NULLs, skew
# and ties; some come late; some make an expression fail; batches end
# anywhere; workers are terminated, streams paused and resumed under way.
#
# Every dead letter must have its cause: a row that is one for its query has
# the value that fails; a row that is late lies further back than
# max_out_of_orderness behind an earlier one of its own partition.
#
# WEIR_PROPERTY_SEED (default 1) begins another series, WEIR_PROPERTY_ROUNDS
# (default 12) makes it longer; a round is one source with STREAMS streams.
# A failing case prints its round's seed, its query and what differs.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use Test::More;
use WeirBroker;
use WeirTest;

my $first_seed = $ENV{WEIR_PROPERTY_SEED} || 1;
my $rounds = $ENV{WEIR_PROPERTY_ROUNDS} || 12;
my $streams = 20;

my $broker = WeirBroker->embedded;
my $node = WeirTest::start_node(
	'main',
	conf => {
		max_worker_processes => 60,
		'weir.segment_size' => '64kB',
		'weir.detach_timeout' => '200ms',
	});
WeirTest::create_server($node, $broker);

sub sql { return WeirTest::sql($node, @_) }

sub pick { return $_[ int rand @_ ] }

sub chance { return rand() < $_[0] }

##
## Rows
##

my $columns = <<'SQL';
p int NOT NULL, o bigint NOT NULL, at timestamptz, i int, b bigint, n numeric,
f float8, r real, t text, bo boolean, d date, iv interval, j jsonb, a int[]
SQL

# One row as JSON; "at" is in milliseconds of the epoch.
sub make_row
{
	my ($p, $o, $at) = @_;
	my %row = (
		i => int(rand 20) - 3,
		b => chance(0.1) ? 3_000_000_000_000 + int rand 1e6 : int rand 1000,
		n => '"' . pick('0.1', '-17.25', '1e20', '123456789.000001', '3') . '"',
		f => pick(0.25, -2.5, 1e6, 1_700_000_000_000 + int rand 100, 1e-3),
		r => pick(0.5, 3, 1.25, -7),
		t => '"' . pick('a', 'a', 'a', 'bb', 'B', '\u00e4', '', 'Z z') . '"',
		bo => pick('true', 'false'),
		d => '"2025-0' . (1 + int rand 9) . '-1' . int(rand 10) . '"',
		iv => '"' . pick('1 day', '90 minutes', '-3 hours', '2 mons') . '"',
		j => pick('{"k":"x"}', '{"k":1}', '[1,2]', '{}', '{"k":null}'),
		a => pick('[1]', '[]', '[3,2]'));
	delete $row{ pick(keys %row) } if chance(0.3);
	$row{ pick(keys %row) } = 'null' if chance(0.3);
	$row{at} = sprintf '"%s"', epoch_text($at);
	return sprintf '{"p":%d,"o":%d,%s}', $p, $o, join ',',
	  map { qq("$_":$row{$_}) } sort keys %row;
}

# Milliseconds of the epoch as an ISO text.
sub epoch_text
{
	my ($ms) = @_;
	my ($s, $m, $h, $day, $month, $year) = gmtime(int($ms / 1000));
	return sprintf '%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', $year + 1900,
	  $month + 1, $day, $h, $m, $s, $ms % 1000;
}

# instants near which clocks change, somewhere, and one where none does
my @bases = (
	1_743_292_800, 1_761_433_200, 1_741_500_000, 1_762_063_200,
	1_743_865_200, 1_750_000_000);

# All rows of a round, in the order of their production: [p, payload].
sub make_rows
{
	my ($partitions, $orderness) = @_;
	my $n = 150 + int rand 700;
	my $at = 1000 * (pick(@bases) + int rand 7200);
	my $step = pick(100, 2_000, 20_000, 60_000);
	my @next = (0) x $partitions;
	my @rows;
	for (1 .. $n)
	{
		$at += int rand $step unless chance(0.2);
		my $p = chance(0.5) ? 0 : int rand $partitions;
		my $back = int rand($orderness + 1);

		# far behind: late, unless its window is still open
		$back += int rand(40 * $step) if chance(0.02);
		push @rows, [ $p, make_row($p, $next[$p]++, $at - $back) ];
	}
	return @rows;
}

##
## Queries
##

my @zones = ('UTC', 'Europe/Paris', 'America/New_York', 'Australia/Lord_Howe');

# an expression, or one that fails for i = 0
sub divided
{
	my ($poison) = @_;
	return $poison ? '100 / s.i' : 's.i + 1';
}

sub condition
{
	my ($poison) = @_;
	return pick(
		's.i > 2', 's.t IS NOT NULL', 's.f < 100', 's.bo',
		"(s.i % 3 = 0 OR s.n IS NULL)", "s.j ? 'k'", 's.t <> \'a\'',
		divided($poison) . ' > 5',
		divided($poison) . ' IS NOT NULL',
		's.at IS NOT NULL');
}

# [expression, kind]: kind is exact or float
sub aggregate
{
	my ($poison) = @_;
	my $x = pick('s.i', 's.b', 's.n', divided($poison));
	my @of = (
		[ 'count(*)', 'exact' ],
		[ 'count(s.' . pick(qw(i t j)) . ')', 'exact' ],
		[ "sum($x)", 'exact' ],
		[ "avg($x)", 'exact' ],
		[ 'sum(s.f)', 'float' ],
		[ 'avg(s.f)', 'float' ],
		[ 'avg(s.r)', 'float' ],
		[ 'sum(s.iv)', 'exact' ],
		[ pick('min', 'max') . '(s.' . pick(qw(i n f r t d iv at a)) . ')',
			'exact' ],
		[ pick(qw(bool_and bool_or)) . '(s.bo)', 'exact' ],
		[ pick(qw(stddev variance var_pop stddev_pop)) . "($x)", 'exact' ],
		[ pick(qw(stddev variance var_pop stddev_samp)) . '(s.f)', 'float' ]);
	my $aggregate = pick(@of);
	my ($text, $kind) = @$aggregate;
	$text .= ' FILTER (WHERE ' . condition($poison) . ')' if chance(0.25);
	$text = "$text + 1" if $text =~ /^(count|sum\(s\.i)/ && chance(0.2);
	return [ $text, $kind ];
}

sub joins
{
	return pick(
		'', '', '',
		' LEFT JOIN dim ON dim.code = s.t',
		' JOIN dim ON dim.code = s.t AND s.i > 0',
		' CROSS JOIN LATERAL generate_series(1, s.i % 3) g');
}

sub group_key
{
	my ($joins, $poison) = @_;
	my @keys = (
		's.t', 's.i % 3', 's.bo', 's.d', "coalesce(s.t, '-')",
		"s.j ->> 'k'", 's.a', "date_trunc('hour', s.at, 'UTC')", 's.n',
		's.p', divided($poison));
	push @keys, 'dim.name' if $joins =~ /dim/;
	push @keys, 'g' if $joins =~ /series/;
	return pick(@keys);
}

sub window
{
	my $zone = pick(@zones);
	my @tumble = (
		'10 seconds', '1 minute', '15 minutes', '1 hour', '7 hours', '1 day',
		'1 week');
	my @hop = (
		[ '1 minute', '10 seconds' ], [ '1 hour', '20 minutes' ],
		[ '10 minutes', '4 minutes' ], [ '2 days', '1 day' ],
		[ '1 day', '6 hours' ]);
	my $at = pick('s.at', 's.at', 's.at', "(s.at AT TIME ZONE '$zone')");
	my $named = chance(0.5) ? ", timezone => '$zone'" : '';
	$named = '' if $at ne 's.at';
	$named .= ", origin => '2020-07-01 00:10'" if chance(0.2);
	return "weir.tumble($at, '" . pick(@tumble) . "'$named)" if chance(0.6);
	my ($size, $slide) = @{ pick(@hop) };
	return "weir.hop($at, '$size', '$slide'$named)";
}

# A random query: select ({SOURCE} and {ALSO} to be filled in),
# kinds of its columns, options, and what kind of stream it is.
sub make_query
{
	my $poison = chance(0.25);
	my $kind = pick(qw(row keyed running window window window window));
	my $joins = $kind eq 'keyed' ? '' : joins();
	my $where = chance(0.5) ? condition($poison) : 'true';
	my %arg;

	if ($kind eq 'row' || $kind eq 'keyed')
	{
		my @out = ('s.p', 's.o', divided($poison) . ' AS x',
			pick('s.t', 'upper(s.t) AS t', "s.j ->> 'k' AS t", 's.iv AS t'));
		push @out, 'dim.name' if $joins =~ /dim/;
		push @out, 'g' if $joins =~ /series/;
		if ($kind eq 'keyed')
		{
			push @out, 'coalesce(s.i, -9) % 4 AS k';
			$arg{options} = '{"key": ["p", "k"]}';
		}
		return {
			kind => $kind, poison => $poison, arg => \%arg,
			sql => 'SELECT ' . join(', ', @out)
			  . " FROM {SOURCE} s$joins WHERE $where AND {ALSO}",
			kinds => [ ('exact') x @out ]
		};
	}

	my %seen;
	my @keys = grep { !$seen{$_}++ } map { group_key($joins, $poison) }
	  1 .. ($kind eq 'running' ? 1 + int rand 2 : int rand 3);
	my @aggregates = map { aggregate($poison) } 1 .. 1 + int rand 4;
	my @out = map { "$keys[$_] AS key$_" } 0 .. $#keys;
	my @kinds = ('exact') x @keys;
	my $from = "{SOURCE} s$joins";
	my @group = @keys;
	if ($kind eq 'window')
	{
		$from = "{SOURCE} s CROSS JOIN " . window() . " w$joins";
		unshift @out, 'w.window_start', 'w.window_end';
		unshift @group, 'w.window_start', 'w.window_end';
		unshift @kinds, 'exact', 'exact';
		$arg{emit} = pick(qw(on_change on_close));
		$arg{allowed_lateness} = pick('0', '0', '1 minute', '1 hour');
	}
	for my $n (0 .. $#aggregates)
	{
		push @out, "$aggregates[$n][0] AS agg$n";
		push @kinds, $aggregates[$n][1];
	}
	my $having = !chance(0.25) ? ''
	  : ' HAVING ' . pick('count(*) > 2', 'sum(s.i) % 2 = 0', 'max(s.n) > 1');
	return {
		kind => $kind, poison => $poison, arg => \%arg,
		sql => 'SELECT ' . join(', ', @out) . " FROM $from WHERE $where AND {ALSO}"
		  . ' GROUP BY ' . join(', ', @group) . $having,
		kinds => \@kinds
	};
}

sub fill_in
{
	my ($q, $source, $condition) = @_;
	return $q->{sql} =~ s/\{SOURCE\}/$source/r =~ s/\{ALSO\}/$condition/r;
}

##
## One stream against its recomputation
##

# The query over the stored rows; what leaves some out comes first.
sub oracle
{
	my ($name, $q) = @_;
	my $rows = "(SELECT * FROM stored t WHERE NOT EXISTS (SELECT FROM weir.dead_letter d WHERE d.stream = '$name' AND d.reason <> 'late' AND (d.kafka_partition, d.kafka_offset) = (t.p, t.o)) OFFSET 0)";
	my $on_time = $q->{kind} ne 'window' ? 'true'
	  : "NOT EXISTS (SELECT FROM weir.dead_letter d WHERE d.stream = '$name' AND d.reason = 'late' AND (d.kafka_partition, d.kafka_offset) = (s.p, s.o) AND w.window_end <= d.window_end AND w.window_start >= d.window_start)";
	my $sql = fill_in($q, $rows, $on_time);
	$sql = "SELECT DISTINCT ON (p, k) * FROM ($sql) q ORDER BY p, k, o DESC"
	  if $q->{kind} eq 'keyed';
	return $sql;
}

# What differs: rows are matched by what is exact in them, then the floats.
sub difference
{
	my ($name, $q) = @_;
	my @kinds = @{ $q->{kinds} };
	my @exact = grep { $kinds[ $_ - 1 ] eq 'exact' } 1 .. @kinds;
	my @float = grep { $kinds[ $_ - 1 ] eq 'float' } 1 .. @kinds;
	my $names = join ', ', map { "c$_" } 1 .. @kinds;
	my $key = 'ROW(' . join(', ', map { "c$_" } @exact) . ')::text';
	my $far = join ' OR ', 'false', map {
		"(g.c$_ IS NULL) <> (e.c$_ IS NULL) OR abs(g.c$_ - e.c$_) > 1e-9 * greatest(abs(g.c$_), abs(e.c$_))"
	} @float;
	my $oracle = oracle($name, $q);
	my ($rc, $wrong, $error) = WeirTest::try_psql($node, <<SQL);
SET TimeZone = 'UTC';
WITH got AS (SELECT *, $key AS key, row_number() OVER (PARTITION BY $key) AS nr FROM (TABLE $name) t($names)),
expected AS (SELECT *, $key AS key, row_number() OVER (PARTITION BY $key) AS nr FROM ($oracle) t($names))
SELECT CASE WHEN e.key IS NULL THEN 'too much: ' || g::text
            WHEN g.key IS NULL THEN 'missing: ' || e::text
            ELSE 'differs: ' || g::text || ' expected: ' || e::text END
FROM got g FULL JOIN expected e ON g.key = e.key AND g.nr = e.nr
WHERE e.key IS NULL OR g.key IS NULL OR $far
ORDER BY 1 LIMIT 4
SQL
	return $rc == 0 ? $wrong : "the comparison failed: $error";
}

# Why the stream cannot be waited for; empty when all is applied.
sub wait_error
{
	my ($name) = @_;
	my ($rc, undef, $error) =
	  WeirTest::try_psql($node, "SELECT weir.wait_for('$name', '3 minutes')");
	return $rc == 0 ? '' : $error;
}

sub check
{
	my ($name, $q, $seed, $orderness) = @_;
	my $wrong = wait_error($name) || difference($name, $q);
	my $poison = $q->{poison} ? 't.i = 0' : 'false';
	my $causeless = sql(<<SQL);
SELECT count(*) FROM weir.dead_letter d
WHERE d.stream = '$name'
AND NOT EXISTS (SELECT FROM stored t
 WHERE (t.p, t.o) = (d.kafka_partition, d.kafka_offset)
 AND CASE d.reason WHEN 'late' THEN t.at < (SELECT max(e.at) FROM stored e WHERE e.p = t.p AND e.o < t.o) - interval '$orderness ms'
     ELSE $poison END)
SQL
	my $ok = is("$wrong/$causeless", '/0', "seed $seed: $name, $q->{kind}");
	diag(sprintf("%s\n%s", fill_in($q, 'src', 'true'),
			join ', ', map { "$_=$q->{arg}{$_}" } sort keys %{ $q->{arg} }))
	  unless $ok;
	return;
}

##
## Rounds
##

sub disturb
{
	my (@names) = @_;
	my $what = pick(qw(nothing nothing wait stream ingest pause));
	my $name = pick(@names);
	wait_error($name) if $what eq 'wait';
	sql("SELECT pg_terminate_backend(pid) FROM weir.stat_worker WHERE stream = '$name'")
	  if $what eq 'stream';
	sql("SELECT pg_terminate_backend(pid) FROM weir.stat_worker WHERE kind = 'ingest'")
	  if $what eq 'ingest';
	if ($what eq 'pause')
	{
		sql("SELECT weir.pause('$name')");
		sql("SELECT weir.resume('$name')");
	}
	return;
}

sub play_round
{
	my ($seed) = @_;
	srand $seed;
	my $partitions = 1 + int rand 4;
	my $orderness = pick(0, 1_000, 60_000, 600_000);
	my $topic = "topic$seed";
	my @rows = make_rows($partitions, $orderness);
	$broker->create_topic($topic, $partitions);
	WeirTest::set_conf($node, 'weir.max_batch_rows' => pick(7, 50, 1000));
	$node->reload;

	sql('CREATE TABLE IF NOT EXISTS dim (code text, name text)');
	sql("TRUNCATE dim; INSERT INTO dim VALUES ('a', 'A'), ('bb', 'two'), ('bb', 'twice'), ('Z z', NULL)");
	WeirTest::create_source(
		$node, 'src',
		topic => $topic, columns => $columns, event_time => 'at',
		max_out_of_orderness => "$orderness ms");
	my (%query, @names);
	for my $n (1 .. $streams)
	{
		my $q = make_query();
		my $name = "s${seed}_$n";
		my ($rc, undef, $error) = WeirTest::try_psql($node,
			'SELECT weir.create_stream('
			  . join(', ', WeirTest::literal($name),
				WeirTest::literal(fill_in($q, 'src', 'true')),
				map { "$_ => " . WeirTest::literal($q->{arg}{$_}) }
				  sort keys %{ $q->{arg} })
			  . ')');
		if ($rc != 0)
		{
			# refused with a reason is right, failing otherwise is not
			like($error, qr/HINT|ERROR:.*not supported/s,
				"seed $seed: refused");
			next;
		}
		$query{$name} = $q;
		push @names, $name;
	}

	while (@rows)
	{
		my @chunk = splice @rows, 0, 1 + int rand 200;
		$broker->produce($topic, [ map { "$_->[0]\t$_->[1]" } @chunk ],
			partition_field => 1);
		WeirTest::load_events($node, 'stored', [ map { $_->[1] } @chunk ],
			columns => $columns);
		disturb(@names);
	}
	sql("SELECT weir.advance_watermark('src')");
	check($_, $query{$_}, $seed, $orderness) for @names;

	sql("SELECT weir.drop_source('src', cascade => true)");
	sql("DROP TABLE $_") for 'stored', @names;
	return;
}

play_round($_) for $first_seed .. $first_seed + $rounds - 1;
$node->stop;
done_testing();
