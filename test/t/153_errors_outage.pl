# Outages, broken definitions, late rows, the limit of dead letters.
#
# Proves: an outage (a lock on the target, a connection, memory or disk that
# is not there, a deadlock, a cancelled or ended worker) makes a stream
# retry, and then its results are exact; its siblings go on.  A broken
# definition (a column of the target renamed, a dimension or a function
# dropped, a right revoked, the target dropped) makes it fail with the reason,
# nothing advances, and after the repair weir.resume() goes on exactly.  Late
# rows are counted, and kept unless late_rows is "drop"; a row late for some
# hopping windows counts in the others; allowed lateness is judged window by
# window; what WHERE or a join drops is not late.  A stream that reaches its
# limit of dead letters fails, skips nothing, and goes on after they are
# deleted.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(
	topics => { o => 2, d => 1, late => 1, limit => 1 });
my $node = WeirTest::start_node('main',
	conf => { 'weir.lock_timeout' => '200ms' });
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

sub has_state
{
	my ($stream, $state, $sqlstate, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::sql_becomes($node, <<SQL, "$state|$sqlstate", $name);
SELECT state, last_error_sqlstate FROM weir.stat_stream WHERE stream = '$stream'
SQL
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
## Outages
##

my $columns = 'id int NOT NULL, k int, v int, at timestamptz';
WeirTest::create_source(
	$node, 'o',
	columns => $columns,
	event_time => 'at',
	max_out_of_orderness => '10 minutes');
sql(<<'SQL');
CREATE TABLE mood (state text);
INSERT INTO mood VALUES (NULL);
CREATE FUNCTION moody(v int) RETURNS int STABLE LANGUAGE plpgsql AS $$
DECLARE
	s text;
BEGIN
	SELECT state INTO s FROM public.mood;
	IF s IS NOT NULL THEN
		RAISE EXCEPTION 'bad mood' USING ERRCODE = s;
	END IF;
	RETURN v;
END $$;
SQL
my $tumble = "CROSS JOIN weir.tumble(s.at, '1 minute') w";
my %query = (
	o_rows => 'SELECT s.id, moody(s.v) AS v FROM o s',
	o_windows => <<SQL,
SELECT w.window_start, s.k, count(*) AS n, sum(moody(s.v)) AS sum_v
FROM o s $tumble GROUP BY w.window_start, s.k
SQL
	o_having => <<'SQL',
SELECT s.k, count(*) AS n FROM o s GROUP BY s.k HAVING moody(count(*)::int) > 0
SQL
	o_sibling => 'SELECT s.id, s.v FROM o s');
my @o = qw(o_rows o_windows o_having);
WeirTest::create_stream($node, $_, $query{$_}) for sort keys %query;
my $n = 0;

sub produce
{
	$broker->produce(
		'o',
		[
			map {
				sprintf '{"id":%d,"k":%d,"v":%d,"at":%d}', $_, $_ % 7,
				  $_ * 13 % 100, 1704067200 + $_
			} $n .. $n + 99
		]);
	$n += 100;
	return;
}

my $stored = <<'SQL';
(SELECT i AS id, i % 7 AS k, i * 13 % 100 AS v, to_timestamp(1704067200 + i) AS at
 FROM generate_series(0, %d) i) s
SQL

sub exact
{
	my ($when, @streams) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::wait_for($node, @streams);
	my $from = sprintf $stored, $n - 1;
	for my $name (@streams)
	{
		WeirTest::compare($node, "TABLE $name",
			$query{$name} =~ s/FROM \w+ s\b/FROM $from/r, "$when: $name");
	}
	return;
}

produce();
exact('at first', @o, 'o_sibling');

for my $sqlstate (qw(53300 53200 53100 40P01 40001 08006 57014 57P03 58030 55P03))
{
	sql("UPDATE mood SET state = '$sqlstate'");
	produce();
	has_state($_, 'retrying', $sqlstate, "$_ retries after $sqlstate") for @o;
	exact('the sibling goes on', 'o_sibling') if $sqlstate eq '53300';
	sql('UPDATE mood SET state = NULL');
	produce();
	exact("after $sqlstate", @o);
}
ok( sql(<<'SQL') eq 't', 'retries are counted');
SELECT bool_and(retries >= 10) FROM weir.stat_stream WHERE stream <> 'o_sibling'
SQL
WeirTest::sql_becomes($node,
	"SELECT bool_and(state = 'running' AND next_retry_at IS NULL) FROM weir.stat_stream",
	't', 'all run again');

# a lock on the target, longer than weir.lock_timeout; for one that runs, and
# for one that is to close
my $blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN; LOCK TABLE o_rows, o_windows, o_having IN SHARE MODE');
produce();
has_state($_, 'retrying', '55P03', "$_ does not wait for a lock for ever") for @o;
exact('the sibling goes on', 'o_sibling');
produce();
$blocker->query_safe('COMMIT');
exact('after the lock', @o);
$blocker->query_safe('BEGIN; LOCK TABLE mood IN ACCESS EXCLUSIVE MODE');
produce();
has_state($_, 'retrying', '55P03', "$_ does not wait for a lock on what it reads") for @o;
$blocker->query_safe('COMMIT');
$blocker->quit;
exact('after that lock', @o);

# cancelled and ended
sql('SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = \'weir stream\'');
produce();
sql('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = \'weir stream\'');
produce();
exact('cancelled and ended', @o, 'o_sibling');
is(sql('SELECT count(*) FROM weir.dead_letter'),
	0, 'an outage makes no dead letter');

##
## Broken definitions
##

sql(<<'SQL');
CREATE ROLE owner LOGIN;
GRANT CREATE ON SCHEMA public TO owner;
GRANT SELECT ON mood TO owner;
CREATE TABLE dim (k int PRIMARY KEY, name text);
INSERT INTO dim SELECT i, 'n' || i FROM generate_series(0, 6) i;
CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 * 2; END';
GRANT SELECT ON dim TO owner;
SQL
WeirTest::create_source($node, 'd', columns => $columns, event_time => 'at',
	max_out_of_orderness => '10 minutes');
sql('GRANT SELECT ON d TO owner');
%query = (
	d_rows => 'SELECT s.id, m.name, twice(s.v) AS v FROM d s JOIN dim m ON m.k = s.k',
	d_windows => <<SQL,
SELECT w.window_start, m.name, count(*) AS n, sum(twice(s.v)) AS sum_v
FROM d s $tumble JOIN dim m ON m.k = s.k GROUP BY w.window_start, m.name
SQL
	d_closed => <<SQL,
SELECT w.window_start, m.name, count(*) AS n, sum(twice(s.v)) AS sum_v
FROM d s $tumble JOIN dim m ON m.k = s.k GROUP BY w.window_start, m.name
SQL
	d_running => <<'SQL',
SELECT m.name, sum(twice(s.v)) AS sum_v FROM d s JOIN dim m ON m.k = s.k GROUP BY m.name
SQL
	d_sibling => 'SELECT s.id FROM d s');
my @d = sort grep { $_ ne 'd_sibling' } keys %query;
for my $name (@d)
{
	my $emit = $name eq 'd_closed' ? ", emit => 'on_close'" : '';
	sql("SET ROLE owner; SELECT weir.create_stream('$name', "
		  . WeirTest::literal($query{$name}) . "$emit)");
}
WeirTest::create_stream($node, 'd_sibling', $query{d_sibling});
$n = 0;

sub produce_d
{
	$broker->produce(
		'd',
		[
			map {
				sprintf '{"id":%d,"k":%d,"v":%d,"at":%d}', $_, $_ % 7,
				  $_ * 13 % 100, 1704067200 + $_
			} $n .. $n + 99
		]);
	$n += 100;
	return;
}

# Broken by one statement, repaired by others.
sub broken
{
	my ($name, $break, $repair, $sqlstate, @streams) = @_;
	@streams = @d unless @streams;
	my %applied = map { $_ => applied($_) } @streams;
	my %rows = map { $_ => sql("SELECT count(*) FROM $_") } @streams;
	sql($break);
	produce_d();
	for my $stream (@streams)
	{
		WeirTest::sql_becomes($node, <<SQL, "failed|$sqlstate|t", "$name: $stream fails with $sqlstate");
SELECT state, last_error_sqlstate, last_error <> '' FROM weir.stat_stream WHERE stream = '$stream'
SQL
		like(WeirTest::sql_error($node, "SELECT weir.wait_for('$stream')"),
			qr/^55000.*has failed.*DETAIL/s, "$name: waiting for $stream is an error");
	}
	exact("$name: the sibling", 'd_sibling');
	produce_d();
	exact("$name: the sibling", 'd_sibling');

	# resumed without a repair, it fails again
	sql("SELECT weir.resume('$streams[0]')");
	WeirTest::sql_becomes($node,
		"SELECT state FROM weir.stat_stream WHERE stream = '$streams[0]'",
		'failed', "$name: resumed without a repair, $streams[0] fails again");
	for my $stream (@streams)
	{
		is(applied($stream), $applied{$stream}, "$name: $stream has not advanced");
	}
	sql($repair);
	for my $stream (@streams)
	{
		is( sql("SELECT count(*) FROM $stream"), $rows{$stream},
			"$name: $stream has not written");
		sql("SELECT weir.resume('$stream')");
	}
	my @exact = grep { $_ ne 'd_closed' } @streams;
	exact("$name, repaired", @exact);
	return;
}

produce_d();
exact('at first', grep { $_ ne 'd_closed' } @d);
broken(
	'a function dropped',
	'DROP FUNCTION twice(int)',
	q{CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 * 2; END'},
	'42883');
broken(
	'a dimension dropped',
	'DROP TABLE dim',
	q{CREATE TABLE dim (k int PRIMARY KEY, name text);
INSERT INTO dim SELECT i, 'n' || i FROM generate_series(0, 6) i;
GRANT SELECT ON dim TO owner},
	'42P01');
broken(
	'a column of the dimension dropped',
	'ALTER TABLE dim DROP COLUMN name',
	q{ALTER TABLE dim ADD COLUMN name text; UPDATE dim SET name = 'n' || k},
	'42703');
broken(
	'SELECT on the source revoked',
	'REVOKE SELECT ON d FROM owner',
	'GRANT SELECT ON d TO owner',
	'42501');
broken(
	'SELECT on the dimension revoked',
	'REVOKE SELECT ON dim FROM owner',
	'GRANT SELECT ON dim TO owner',
	'42501');
broken(
	'EXECUTE on a function revoked',
	'REVOKE EXECUTE ON FUNCTION twice(int) FROM PUBLIC',
	'GRANT EXECUTE ON FUNCTION twice(int) TO PUBLIC',
	'42501');
broken(
	'a column of the target renamed',
	"ALTER TABLE $_ RENAME COLUMN name TO label",
	"ALTER TABLE $_ RENAME COLUMN label TO name",
	'42703',
	$_)
  for qw(d_rows d_windows d_running);
broken(
	'the key of the target dropped',
	'DROP INDEX d_windows_window_start_name_idx',
	'CREATE UNIQUE INDEX ON d_windows (window_start, name) NULLS NOT DISTINCT',
	'42P10',
	'd_windows');
broken(
	'INSERT on the target revoked',
	'ALTER TABLE d_rows OWNER TO postgres',
	'GRANT INSERT ON d_rows TO owner',
	'42501',
	'd_rows');

# the target dropped: nothing to resume with
sql('DROP TABLE d_rows');
WeirTest::sql_becomes($node,
	"SELECT state FROM weir.stat_stream WHERE stream = 'd_rows'",
	'failed', 'the target dropped: its stream fails');
is(sql('SELECT count(*) FROM weir.dead_letter'),
	0, 'a broken definition makes no dead letter');
sql("SELECT weir.drop_stream('d_rows')");
produce_d();
WeirTest::close_windows($node, 'd', qw(d_windows d_closed d_running));
exact('without it, and closed', qw(d_windows d_closed d_running d_sibling));

##
## Late rows
##

WeirTest::create_source($node, 'late', columns => $columns, event_time => 'at');
my %late = (
	kept => [ 'tumble', '', '' ],
	dropped => [ 'tumble', '', ", late_rows => 'drop'" ],
	lenient => [ 'tumble', '', ", allowed_lateness => '1 minute'" ],
	hopping => [ 'hop', '', '' ],
	hopping_closed => [ 'hop', '', ", emit => 'on_close'" ],
	hopping_lenient => [ 'hop', '', ", allowed_lateness => '30 seconds'" ],
	chosen => [ 'tumble', 'WHERE s.v > 0', '' ],
	met => [ 'tumble', 'JOIN dim m ON m.k = s.k', '' ]);
for my $name (sort keys %late)
{
	my ($window, $where, $options) = @{ $late{$name} };
	my $call = $window eq 'tumble' ? "weir.tumble(s.at, '1 minute')" :
	  "weir.hop(s.at, '2 minutes', '1 minute')";
	sql("SELECT weir.create_stream('$name', "
		  . WeirTest::literal(
			"SELECT w.window_start, w.window_end, count(*) AS n FROM late s CROSS JOIN $call w $where GROUP BY w.window_start, w.window_end")
		  . "$options)");
}

# rows of id, minute and second, k, v
sub produce_late
{
	my (@rows) = @_;
	$broker->produce(
		'late',
		[
			map {
				sprintf '{"id":%d,"k":%d,"v":%d,"at":"2024-01-01T00:%sZ"}',
				  $_->[0], $_->[2] || 1, $_->[3] || 1, $_->[1]
			} @rows
		]);
	WeirTest::wait_for($node, sort keys %late);
	return;
}

# Rows that arrive together are not late for each other.
produce_late([ 1, '10:10' ], [ 2, '05:00' ], [ 3, '10:20' ]);
is(sql('SELECT count(*) FROM weir.dead_letter'),
	0, 'rows that arrive together are not late for each other');
is(sql("SELECT weir.watermark('kept') = '2024-01-01 00:10:20Z'"),
	't', 'the watermark');

# Now it is 10:20.  10:05 is on time; 09:30 is late for its minute, and for
# one of its two hopping windows; with a minute of lateness neither; 08:30 is
# late for all, but within 30 seconds for none either.
produce_late([ 4, '10:05' ], [ 5, '09:30' ], [ 6, '08:30' ],
	[ 7, '09:59', 1, -1 ], [ 8, '09:00', 99 ]);

sub late_rows
{
	my ($name) = @_;
	return sql(<<SQL);
SELECT (staged_row ->> 'id')::int, kafka_partition, kafka_offset,
	to_char(window_start AT TIME ZONE 'UTC', 'MI:SS'),
	to_char(window_end AT TIME ZONE 'UTC', 'MI:SS'), partly_applied, reason, coalesce(sqlstate, '-')
FROM weir.dead_letter WHERE stream = '$name' ORDER BY 1
SQL
}

# window_start, n
sub windows
{
	my ($name) = @_;
	return sql("SELECT to_char(window_start AT TIME ZONE 'UTC', 'MI') || '=' || n FROM $name ORDER BY window_start") =~
	  s/\n/ /gr;
}

my $all = <<'TEXT' =~ s/\n\z//r;
5|0|4|09:00|10:00|f|late|-
6|0|5|08:00|09:00|f|late|-
7|0|6|09:00|10:00|f|late|-
8|0|7|09:00|10:00|f|late|-
TEXT
is(late_rows('kept'), $all, 'late rows are dead letters');
is(windows('kept'), '05=1 10=3', 'and not in the results');
is(late_rows('dropped'), '', 'late_rows drop keeps none');
is(windows('dropped'), '05=1 10=3', 'with the same results');
is(late_rows('lenient'), '6|0|5|08:00|09:00|f|late|-',
	'within allowed_lateness a row is not late');
is(windows('lenient'), '05=1 09=3 10=3', 'and counts');
is(late_rows('hopping'), <<'TEXT' =~ s/\n\z//r, 'late for one hopping window, in time for the other');
5|0|4|08:00|10:00|t|late|-
6|0|5|07:00|10:00|f|late|-
7|0|6|08:00|10:00|t|late|-
8|0|7|08:00|10:00|t|late|-
TEXT
is(windows('hopping'), '04=1 05=1 09=6 10=3', 'where it counts');
is(late_rows('hopping_closed'), late_rows('hopping'), 'the same on close');
is(windows('hopping_closed'), '04=1 05=1', 'which are closed so far');
is(late_rows('hopping_lenient'), "6|0|5|07:00|09:00|t|late|-",
	'allowed lateness is judged window by window');
is(windows('hopping_lenient'), '04=1 05=1 08=4 09=6 10=3',
	'and counts where it is not late');
is(late_rows('chosen'), $all =~ s/^7.*\n//mr, 'what WHERE drops is not late');
is(late_rows('met'), $all =~ s/\n8.*//r, 'nor what a join drops');

my %n_late = (
	kept => 4,
	dropped => 4,
	lenient => 1,
	hopping => 4,
	hopping_closed => 4,
	hopping_lenient => 1,
	chosen => 3,
	met => 3);
for my $name (sort keys %n_late)
{
	my $dropped = $name eq 'chosen' || $name eq 'met' ? 1 : 0;
	WeirTest::sql_becomes($node,
		"SELECT rows_in, rows_late, rows_filtered, rows_dead FROM weir.stat_stream WHERE stream = '$name'",
		"8|$n_late{$name}|$dropped|0",
		"$name: late rows are counted, each once");
}

# A window that is closed is never written again, though rows for it come.
WeirTest::close_windows($node, 'late', sort keys %late);
my %closed = map { $_ => windows($_) } keys %late;
is($closed{hopping_closed}, '04=1 05=1 09=6 10=3', 'all closed');
produce_late([ 9, '10:30' ], [ 10, '05:30' ], [ 11, '20:00' ]);
for my $name (sort keys %late)
{
	is( windows($name) =~ s/ (?:19=1 )?20=1$//r, $closed{$name},
		"$name: a closed window is not written again");
}
WeirTest::sql_becomes($node,
	"SELECT rows_late, state FROM weir.stat_stream WHERE stream = 'kept'",
	'6|running', 'its late rows are counted');

##
## The limit of dead letters of a stream
##

WeirTest::create_source($node, 'limit', columns => $columns, event_time => 'at',
	max_out_of_orderness => '10 minutes');
%query = (
	limit_rows => 'SELECT s.id, 10 / s.v AS q FROM "limit" s',
	limit_windows => <<SQL);
SELECT w.window_start, sum(10 / s.v) AS q, count(*) AS n FROM "limit" s $tumble GROUP BY w.window_start
SQL
my @limit = sort keys %query;
WeirTest::create_stream($node, $_, $query{$_},
	options => '{"dead_letter_limit": 5}')
  for @limit;
my $n_limit = 0;
my @v;

sub produce_limit
{
	my ($bad) = @_;
	my @lines;
	for (1 .. 20)
	{
		my $v = $bad-- > 0 ? 0 : 2;
		push @v, "($n_limit, $v)";
		push @lines, sprintf '{"id":%d,"v":%d,"at":"2024-01-01T00:00:%02dZ"}',
		  $n_limit, $v, $n_limit % 60;
		$n_limit++;
	}
	$broker->produce('limit', \@lines);
	return;
}

produce_limit(5);
WeirTest::wait_for($node, @limit);
is(sql("SELECT count(*) FROM weir.dead_letter WHERE stream = '$_'"),
	5, "$_: as many dead letters as the limit allows")
  for @limit;
produce_limit(0);
WeirTest::wait_for($node, @limit);
my %stood = map { $_ => applied($_) } @limit;
produce_limit(1);
for my $name (@limit)
{
	WeirTest::sql_becomes($node,
		"SELECT state, last_error ~ 'limit of 5 dead letters' FROM weir.stat_stream WHERE stream = '$name'",
		'failed|t', "$name: one more, and it fails");
	is(sql("SELECT count(*) FROM weir.dead_letter WHERE stream = '$name'"),
		5, "$name: there is not one more");
	cmp_ok(applied($name), '<=', $stood{$name} + 1, "$name: nor is it skipped");
}
sql("DELETE FROM weir.dead_letter WHERE stream = 'limit_rows' AND dead_letter_id = (SELECT min(dead_letter_id) FROM weir.dead_letter WHERE stream = 'limit_rows')");
sql("DELETE FROM weir.dead_letter WHERE stream = 'limit_windows'");
sql("SELECT weir.resume('$_')") for @limit;
WeirTest::wait_for($node, @limit);
is( sql(<<'SQL'), "limit_rows|5\nlimit_windows|1", 'after some are deleted they go on');
SELECT stream, count(*) FROM weir.dead_letter WHERE stream ~ '^limit' GROUP BY 1 ORDER BY 1
SQL
for my $name (@limit)
{
	my $from = "(SELECT i AS id, v, timestamptz '2024-01-01 00:00Z' + i % 60 * interval '1 second' AS at FROM (VALUES "
	  . join(', ', @v) . ') x (i, v) WHERE v <> 0) s';
	WeirTest::compare($node, "TABLE $name",
		$query{$name} =~ s/FROM "limit" s/FROM $from/r,
		"$name: and skipped nothing");
}

$node->stop;
done_testing();
