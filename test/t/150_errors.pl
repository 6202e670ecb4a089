# Bad input of each kind, from the topic to the dead letters.
#
# Proves: whatever a record has wrong (no JSON, a text after the document, no
# payload, no UTF-8, NUL and lone surrogates in a declared column, a wrong
# type, a value out of range, NOT NULL, CHECK, an event time that is NULL or
# infinite, an expression of the source that fails), it becomes one dead
# letter of the source, with reason, SQLSTATE, payload and offset, once, also
# when ingest reads it again; all else lands, deep documents, duplicate keys
# and messages of 4 MB too, and tombstones are counted and skipped.  With
# on_error => 'stop', or when the limit of dead letters is reached, the source
# stops and skips nothing.  An outage that a function of the source meets is
# retried, an error of its definition stops the source; neither makes a dead
# letter.
#
# For each source, rows_in = rows_staged + rows_filtered + rows_dead +
# rows_null, and the dead letters are as many as rows_dead.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(
	topics => {
		bad => 2,
		big => 4,
		filtered => 1,
		checked => 1,
		stopped => 1,
		stopped2 => 1,
		limited => 1,
		flaky => 1
	});
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

# The counters of a source add up, and are what was sent.
sub counts
{
	my ($source, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::sql_becomes($node, <<SQL, $expected, $name);
SELECT sum(rows_in), sum(rows_staged), sum(rows_filtered), sum(rows_dead),
	sum(rows_null), sum(rows_in) = sum(rows_staged) + sum(rows_filtered) +
		sum(rows_dead) + sum(rows_null)
FROM weir.stat_source WHERE source = '$source'
SQL
	return;
}

sub dead_letters
{
	my ($source) = @_;
	return sql(<<SQL);
SELECT kafka_partition, kafka_offset, reason, sqlstate
FROM weir.dead_letter WHERE source = '$source' AND stream IS NULL ORDER BY 1, 2
SQL
}

##
## Each kind
##

WeirTest::create_source(
	$node, 'bad',
	columns => <<'SQL',
id bigint NOT NULL, k text, v int CHECK (v <> 666), n numeric(8,2), u uuid,
b boolean, ts text[], j jsonb, at timestamptz, d text DEFAULT 'none'
SQL
	event_time => 'at',
	max_out_of_orderness => '1 hour');
WeirTest::create_stream($node, 'bad_rows',
	'SELECT b.id, b.k, b.v, b.n, b.u, b.b, b.ts, b.j, b.at, b.d FROM bad b');
WeirTest::create_stream($node, 'bad_sums', <<'SQL');
SELECT w.window_start, b.k, count(*) AS n, sum(b.v) AS sum_v
FROM bad b CROSS JOIN weir.tumble(b.at, '1 minute') w
GROUP BY w.window_start, b.k
SQL

# an event time that is good
my $at = '"at":"2024-01-01T00:00:00Z"';

# name, payload with the escapes of produce, reason and SQLSTATE
my @bad = (
	[ 'an object without end', qq({"id":1,$at), 'decode', '22P02' ],
	[ 'a string without end', qq({"id":1,$at,"k":"x}), 'decode', '22P02' ],
	[ 'no JSON at all', 'id=1', 'decode', '22P02' ],
	[ 'a bad literal', qq({"id":1,$at,"other":nul}), 'decode', '22P02' ],
	[ 'a text after', qq({"id":1,$at} x), 'decode', '22P02' ],
	[ 'two documents', qq({"id":1,$at}{"id":2,$at}), 'decode', '22P02' ],
	[ 'empty', '', 'decode', '22P02' ],
	[ 'blanks', '  ', 'decode', '22P02' ],
	[ 'a NUL alone', '\\0', 'decode', '22P02' ],
	[ 'a control character', qq({"id":1,$at,"k":"a\\x01"}), 'decode', '22P02' ],
	[ 'no UTF-8', qq({"id":1,$at,"k":"\\xff"}), 'decode', '22021' ],
	[ 'no UTF-8 elsewhere', qq({"id":1,$at,"other":"\\xc3"}), 'decode', '22021' ],
	[ 'overlong UTF-8', qq({"id":1,$at,"k":"\\xc0\\xaf"}), 'decode', '22021' ],
	[ 'a surrogate in UTF-8', qq({"id":1,$at,"k":"\\xed\\xa0\\x80"}), 'decode', '22021' ],
	[ 'NUL in a text', qq({"id":1,$at,"k":"a\\\\u0000b"}), 'decode', '22P05' ],
	[ 'NUL in jsonb', qq({"id":1,$at,"j":{"a":"\\\\u0000"}}), 'decode', '22P05' ],
	[ 'a lone surrogate', qq({"id":1,$at,"k":"\\\\ud800"}), 'decode', '22P02' ],
	[ 'a lone low surrogate', qq({"id":1,$at,"k":"\\\\udc00x"}), 'decode', '22P02' ],
	[ 'text for a number', qq({"id":1,$at,"v":"abc"}), 'decode', '22P02' ],
	[ 'true for a number', qq({"id":1,$at,"v":true}), 'decode', '22P02' ],
	[ 'an object for a number', qq({"id":1,$at,"v":{"a":1}}), 'decode', '22P02' ],
	[ 'a fraction for an integer', qq({"id":1,$at,"v":1.5}), 'decode', '22P02' ],
	[ 'a number for a boolean', qq({"id":1,$at,"b":7}), 'decode', '22P02' ],
	[ 'no uuid', qq({"id":1,$at,"u":"12"}), 'decode', '22P02' ],
	[ 'text for an array', qq({"id":1,$at,"ts":"{a"}), 'decode', '22P02' ],
	[ 'no time', '{"id":1,"at":"soon"}', 'decode', '22007' ],
	[ 'no such day', '{"id":1,"at":"2024-02-30"}', 'decode', '22008' ],
	[ 'an integer too large', qq({"id":1,$at,"v":2147483648}), 'decode', '22003' ],
	[ 'a bigint too large', qq({"id":9223372036854775808,$at}), 'decode', '22003' ],
	[ 'a numeric too large', qq({"id":1,$at,"n":1000000}), 'decode', '22003' ],
	[ 'a huge exponent', qq({"id":1,$at,"n":1e400000}), 'decode', '22003' ],
	[ 'no id', qq({$at}), 'constraint', '23502' ],
	[ 'id null', qq({"id":null,$at}), 'constraint', '23502' ],
	[ 'an array', '[1,2]', 'decode', '22023' ],
	[ 'a number', '42', 'decode', '22023' ],
	[ 'null', 'null', 'decode', '22023' ],
	[ 'CHECK', qq({"id":1,$at,"v":666}), 'constraint', '23514' ],
	[ 'no event time', '{"id":1}', 'constraint', '23502' ],
	[ 'event time null', '{"id":1,"at":null}', 'constraint', '23502' ],
	[ 'event time infinite', '{"id":1,"at":"infinity"}', 'constraint', '22008' ],
	[ 'event time -infinite', '{"id":1,"at":"-infinity"}', 'constraint', '22008' ]);

# What is unusual, and good; with the escapes of produce.
my @odd = (
	qq({"id":-1,$at,"id":-2,"v":1,"v":2}),
	qq({"id":-3,$at,"other":"\\\\u0000\\\\ud800","k":null,"d":null}),
	qq({"id":-4,$at,"v":"42","n":"12.345","b":"yes","j":"x"}),
	qq({"id":-5,$at,"other":) . '[' x 20000 . ']' x 20000 . '}',
	qq({"id":-6,$at,"k":"\\\\u00e9\\\\ud83d\\\\ude00","ts":["a",null]}),
	qq( {\\t"id" : -7,\\n$at }\\r\\n),
	qq({"id":-8,$at,"k":{"a":[1, 2]}}));

my (@lines, @good, @expected, @payload_of);
my @next = (0, 0);
my $id = 0;

sub send_bad
{
	my ($payload, $is_good) = @_;
	my $partition = $id % 2;
	push @lines, "$partition\t$payload";
	push @good, $payload if $is_good;
	return $partition . '|' . $next[$partition]++;
}

sub send_good
{
	$id++;
	send_bad(
		sprintf(
			'{"id":%d,"k":"k%d","v":%d,"n":%d.25,"at":"2024-01-01T00:%02d:00Z"}',
			$id, $id % 3, $id * 7 % 500, $id, $id % 60),
		1);
	return;
}

for my $bad (@bad)
{
	my ($name, $payload, $reason, $sqlstate) = @$bad;
	send_good() for 1 .. 3;
	push @expected, [ send_bad($payload), $reason, $sqlstate, $name, $payload ];
}
send_bad($_, 1) for @odd;
for (1 .. 5)
{
	send_bad('\N');
	send_good();
}
$broker->produce('bad', \@lines, partition_field => 1, raw_escapes => 1);
WeirTest::wait_for($node, qw(bad_rows bad_sums));

is( dead_letters('bad'),
	join("\n",
		map { join '|', @$_[ 0 .. 2 ] }
		sort { by_position($a->[0], $b->[0]) } @expected),
	'one dead letter for each bad record, with its reason');

sub by_position
{
	my ($x, $y) = @_;
	my ($xp, $xo) = split /\|/, $x;
	my ($yp, $yo) = split /\|/, $y;
	return $xp <=> $yp || $xo <=> $yo;
}

# The bytes that stand for a payload with escapes.
sub unescape
{
	my ($payload) = @_;
	my %escape =
	  ('\\' => '\\', n => "\n", t => "\t", r => "\r", 0 => "\0");
	$payload =~ s/\\(?:x(..)|(.))/defined $1 ? chr hex $1 : $escape{$2}/ge;
	return $payload;
}

for my $bad (@expected)
{
	my ($position, $reason, $sqlstate, $name, $payload) = @$bad;
	my ($partition, $offset) = split /\|/, $position;
	is( sql(<<SQL), "$sqlstate|$reason|bad||1|t|t|t|t", "dead letter: $name");
SELECT sqlstate, reason, kafka_topic, stream, topic_incarnation,
	encode(payload, 'hex') = '@{[ unpack 'H*', unescape($payload) ]}',
	message <> '', kafka_timestamp IS NOT NULL,
	staged_row IS NULL AND window_start IS NULL AND NOT coalesce(partly_applied, false)
FROM weir.dead_letter
WHERE source = 'bad' AND kafka_partition = $partition AND kafka_offset = $offset
SQL
}
is( sql(<<'SQL'), 't', 'dead_letter_text shows any payload');
SELECT bool_and(weir.dead_letter_text(payload) IS NOT NULL)
FROM weir.dead_letter WHERE source = 'bad'
SQL

# DEFAULT is what jsonb_populate_record does not know
my $columns = 'id bigint, k text, v int, n numeric(8,2), u uuid, b boolean, '
  . 'ts text[], j jsonb, at timestamptz, d text';
WeirTest::load_events($node, 'good',
	[ map { unescape($_) =~ s/[\n\t\r]/ /gr =~ s/"other":("[^"]*"|\[+\]+)/"other":0/r } @good ],
	columns => $columns);
sql("UPDATE good SET d = 'none' WHERE d IS NULL AND id <> -3");

# an object into text keeps the message's own spelling
sql(qq(UPDATE good SET k = '{"a":[1, 2]}' WHERE id = -8));
WeirTest::compare($node, 'TABLE bad_rows', 'TABLE good',
	'everything else lands');
WeirTest::compare($node, 'TABLE bad_sums', <<'SQL', 'and is counted');
SELECT w.window_start, b.k, count(*) AS n, sum(b.v) AS sum_v
FROM good b CROSS JOIN weir.tumble(b.at, '1 minute') w
GROUP BY w.window_start, b.k
SQL
my $n_good = @good;
my $n_bad = @expected;
counts(
	'bad',
	join('|', @lines + 0, $n_good, 0, $n_bad, 5, 't'),
	'the counters add up, tombstones too');
WeirTest::sql_becomes(
	$node,
	"SELECT stream, rows_in, rows_dead, rows_filtered, rows_late FROM weir.stat_stream WHERE stream ~ '^bad' ORDER BY 1",
	"bad_rows|$n_good|0|0|0\nbad_sums|$n_good|0|0|0",
	'the streams know nothing of them');

##
## Read again: a dead letter is written once
##

my $blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN; LOCK TABLE bad_rows, bad_sums IN SHARE MODE');
$broker->produce('bad',
	[ "0\tbroken", "1\tbroken too", map { "0\t" . $_ } grep { length } @good[ 0 .. 9 ] ],
	partition_field => 1);
my $count = "SELECT count(*) FROM weir.dead_letter WHERE source = 'bad'";
WeirTest::sql_becomes($node, $count, $n_bad + 2, 'two more');
for my $round (1 .. 2)
{
	my ($pid) = WeirTest::worker_pids($node, 'ingest');
	sql("SELECT pg_terminate_backend($pid)");
	WeirTest::sql_becomes($node, <<SQL);
SELECT count(*) > 0 FROM weir.stat_source
WHERE source = 'bad' AND state = 'running' AND kafka_partition = 0
	AND fetched_offset >= @{[ $next[0] + 11 ]}
	AND $pid <> ALL (SELECT pid FROM weir.stat_worker WHERE kind = 'ingest')
SQL
}
is(sql($count), $n_bad + 2, 'read again, they are there once');
$blocker->query_safe('COMMIT');
$blocker->quit;
WeirTest::wait_for($node, qw(bad_rows bad_sums));
is(sql('SELECT count(*) FROM bad_rows'),
	$n_good + 10, 'and so are the rows around them');
is(sql($count), $n_bad + 2, 'at the end too');

##
## Messages of 4 MB
##

WeirTest::create_source(
	$node, 'big',
	columns => 'id int NOT NULL, body text, at timestamptz',
	event_time => 'at');
WeirTest::create_stream($node, 'big_rows',
	'SELECT b.id, length(b.body) AS len, md5(b.body) AS hash FROM big b');
my $body = 'x' x (4 * 1024 * 1024);
my @big = (
	qq({"id":0,$at,"body":"$body"}), qq({"id":1,$at,"body":"$body"),
	qq({"id":"$body",$at}),
	qq({"id":3,$at,"body":) . '[' x 1_000_000 . ']' x 1_000_000 . '}');
$broker->produce(
	'big',
	[ map { "$_\t$big[$_]" } 0 .. $#big ],
	partition_field => 1);
WeirTest::wait_for($node, 'big_rows');
is( sql('SELECT id, len FROM big_rows ORDER BY 1'),
	"0|4194304\n3|2000000",
	'messages of 4 MB, and one with a million arrays in each other');
my @length = map { length } @big;
is( sql(<<'SQL'), "1|22P02|$length[1]\n2|22P02|$length[2]", 'and bad ones');
SELECT kafka_partition, sqlstate, length(payload)
FROM weir.dead_letter WHERE source = 'big' ORDER BY 1
SQL
is(sql("SELECT max(length(message)) < 10000 FROM weir.dead_letter WHERE source = 'big'"),
	't', 'whose message is not as long');

##
## Expressions of the source: filter, CHECK, DEFAULT, generated columns
##

WeirTest::create_source(
	$node, 'filtered',
	columns => 'id int NOT NULL, v int, w int, at timestamptz',
	event_time => 'at',
	filter => '100 / v > 3');
WeirTest::create_stream($node, 'filtered_rows',
	'SELECT f.id, f.v FROM filtered f');
$broker->produce(
	'filtered',
	[
		map {
			my $w = $_ % 11 == 0 ? '"bad"' : $_;
			sprintf '{"id":%d,"v":%d,"w":%s,%s}', $_, $_ % 50, $w, $at
		} 1 .. 500
	]);
WeirTest::wait_for($node, 'filtered_rows');
WeirTest::compare($node, 'TABLE filtered_rows', <<'SQL', 'what passes a filter');
SELECT i, i % 50 FROM generate_series(1, 500) i
WHERE i % 50 BETWEEN 1 AND 25 AND i % 11 <> 0
SQL
WeirTest::compare($node, <<'SQL', <<'ORACLE', 'dead are the rows for which it fails, and bad ones that it lets pass');
SELECT kafka_offset + 1, reason, sqlstate FROM weir.dead_letter
WHERE source = 'filtered'
SQL
SELECT i, 'decode', CASE i % 50 WHEN 0 THEN '22012' ELSE '22P02' END
FROM generate_series(1, 500) i
WHERE i % 50 = 0 OR i % 50 <= 25 AND i % 11 = 0
ORACLE
my $n_rows = sql('SELECT count(*) FROM filtered_rows');
my $n_dead = sql("SELECT count(*) FROM weir.dead_letter WHERE source = 'filtered'");
counts('filtered', join('|', 500, $n_rows, 500 - $n_rows - $n_dead, $n_dead, 0, 't'),
	'filtered rows are counted');

sql(<<'SQL');
CREATE FUNCTION refuse(v int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	IF v = 1 THEN RAISE EXCEPTION 'not this one'; END IF;
	RETURN true;
END $$;
CREATE DOMAIN percentage AS int CHECK (VALUE BETWEEN 0 AND 100);
SQL
WeirTest::create_source(
	$node, 'checked',
	columns => <<'SQL',
id int NOT NULL, v int CHECK (refuse(v)) CHECK (10 / (v - 2) < 100),
d int DEFAULT abs(-5), g int GENERATED ALWAYS AS (100 / (v - 3)) STORED,
p percentage, at timestamptz
SQL
	event_time => 'at');
WeirTest::create_stream($node, 'checked_rows',
	'SELECT c.id, c.v, c.d, c.g, c.p FROM checked c');
$broker->produce(
	'checked',
	[
		map {
			sprintf '{"id":%d,"v":%d,%s%s"p":%d}', $_, $_,
			  $_ == 6 ? '"d":7,' : '', "$at,", $_ * 20
		} 0 .. 7
	]);
WeirTest::wait_for($node, 'checked_rows');
is(sql('SELECT * FROM checked_rows ORDER BY id'),
	"0|0|5|-33|0\n4|4|5|100|80\n5|5|5|50|100", 'rows that pass');
is( dead_letters('checked'), <<'TEXT' =~ s/\n\z//r, 'and those that do not');
0|1|constraint|P0001
0|2|constraint|22012
0|3|decode|22012
0|6|constraint|23514
0|7|constraint|23514
TEXT

##
## on_error => 'stop'
##

WeirTest::create_source(
	$node, 'stopped',
	columns => 'id int NOT NULL, at timestamptz',
	event_time => 'at',
	on_error => 'stop');
WeirTest::create_stream($node, 'stopped_rows', 'SELECT s.id FROM stopped s');
sub ids
{
	return [ map { qq({"id":$_,$at}) } @_ ];
}
$broker->produce('stopped', ids(0 .. 99));
WeirTest::wait_for($node, 'stopped_rows');
$broker->produce('stopped', [ @{ ids(100 .. 149) }, 'broken', @{ ids(151 .. 199) } ]);
WeirTest::sql_becomes($node, <<'SQL', "stopped|22P02|t", 'a source that stops');
SELECT state, last_error_sqlstate, last_error ~ 'offset 150' FROM weir.stat_source
WHERE source = 'stopped' AND stream IS NULL
SQL
WeirTest::sql_becomes($node,
	"SELECT state FROM weir.stat_stream WHERE stream = 'stopped_rows'",
	'waiting', 'its stream waits');
like(WeirTest::sql_error($node, "SELECT weir.wait_for('stopped_rows')"),
	qr/^55000.*stopped.*DETAIL.*HINT/s, 'waiting for it is an error');
sql("SELECT weir.resume('stopped')");
WeirTest::sql_becomes($node,
	"SELECT DISTINCT state FROM weir.stat_source WHERE source = 'stopped'",
	'stopped', 'resumed, it stops again');
WeirTest::compare($node, 'SELECT id FROM stopped_rows WHERE id < 100',
	'SELECT generate_series(0, 99)', 'nothing is lost');
is(sql('SELECT count(*) FROM stopped_rows WHERE id > 150'), '0',
	'nor skipped');
is(sql("SELECT count(*) FROM weir.dead_letter WHERE source = 'stopped'"),
	'0', 'and there is no dead letter');

# past it
my $applied = sql(<<'SQL');
SELECT applied_offset FROM weir.stat_source WHERE source = 'stopped'
SQL
cmp_ok($applied, '<=', 150, 'it stands before the bad record');
sql(qq(SELECT weir.seek('stopped_rows', '{"0": 151}')));
sql("SELECT weir.resume('stopped')");
WeirTest::wait_for($node, 'stopped_rows');
WeirTest::compare($node, 'TABLE stopped_rows', <<SQL, 'seek goes past it, and no further');
SELECT i FROM generate_series(0, 199) i WHERE i NOT BETWEEN $applied AND 150
SQL

##
## The limit of dead letters
##

WeirTest::create_source(
	$node, 'limited',
	columns => 'id int NOT NULL, at timestamptz',
	event_time => 'at',
	options => '{"dead_letter_limit": 5}');
WeirTest::create_stream($node, 'limited_rows', 'SELECT l.id FROM limited l');
my $n_limited = 0;

sub limited
{
	my ($bad) = @_;
	my @lines;
	for (1 .. 10)
	{
		push @lines, @{ ids($n_limited++) };
		push @lines, "bad $n_limited" if $bad-- > 0;
	}
	$broker->produce('limited', \@lines);
	return;
}

limited(5);
WeirTest::wait_for($node, 'limited_rows');
is(sql("SELECT count(*) FROM weir.dead_letter WHERE source = 'limited'"),
	'5', 'as many dead letters as the limit allows');
limited(0);
WeirTest::wait_for($node, 'limited_rows');
limited(3);
WeirTest::sql_becomes($node,
	"SELECT state, last_error ~ 'limit' FROM weir.stat_source WHERE source = 'limited'",
	'stopped|t', 'one more stops the source');
is(sql("SELECT count(*) FROM weir.dead_letter WHERE source = 'limited'"),
	'5', 'and there are not more');
sql("DELETE FROM weir.dead_letter WHERE source = 'limited'");
sql("SELECT weir.resume('limited')");
WeirTest::wait_for($node, 'limited_rows');
WeirTest::compare($node, 'TABLE limited_rows',
	"SELECT generate_series(0, $n_limited - 1)",
	'after they are deleted it goes on, and skipped nothing');
is(sql("SELECT count(*) FROM weir.dead_letter WHERE source = 'limited'"),
	'3', 'nor any dead letter');

##
## Outages and broken definitions in ingest
##

sql(<<'SQL');
CREATE TABLE mood (state text);
INSERT INTO mood VALUES (NULL);
CREATE FUNCTION moody(v int) RETURNS boolean STABLE LANGUAGE plpgsql AS $$
DECLARE
	s text;
BEGIN
	SELECT state INTO s FROM public.mood;
	IF s IS NOT NULL THEN
		RAISE EXCEPTION 'bad mood' USING ERRCODE = s;
	END IF;
	RETURN v % 10 <> 0;
END $$;
SQL
WeirTest::create_source(
	$node, 'flaky',
	columns => 'id int NOT NULL, at timestamptz',
	event_time => 'at',
	filter => 'moody(id)');
WeirTest::create_stream($node, 'flaky_rows', 'SELECT f.id FROM flaky f');
my $n_flaky = 0;

sub flaky
{
	$broker->produce('flaky', ids($n_flaky .. $n_flaky + 99));
	$n_flaky += 100;
	return;
}

sub flaky_exact
{
	my ($name) = @_;
	WeirTest::wait_for($node, 'flaky_rows');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::compare($node, 'TABLE flaky_rows',
		"SELECT i FROM generate_series(0, $n_flaky - 1) i WHERE i % 10 <> 0",
		$name);
	return;
}

flaky();
flaky_exact('before');
for my $sqlstate (qw(53300 40P01 08006 57014 58030 55P03))
{
	sql("UPDATE mood SET state = '$sqlstate'");
	flaky();
	WeirTest::sql_becomes($node,
		"SELECT DISTINCT state, last_error_sqlstate FROM weir.stat_source WHERE source = 'flaky'",
		"retrying|$sqlstate", "$sqlstate in a filter is retried");
	sql('UPDATE mood SET state = NULL');
	flaky();
	flaky_exact("and then all is there ($sqlstate)");
}
sql('ALTER TABLE mood RENAME TO temper');
flaky();
WeirTest::sql_becomes($node,
	"SELECT DISTINCT state, last_error_sqlstate FROM weir.stat_source WHERE source = 'flaky'",
	'stopped|42P01', 'a table that a filter misses stops the source');
sql('ALTER TABLE temper RENAME TO mood');
flaky();
sql("SELECT weir.resume('flaky')");
flaky_exact('repaired and resumed, all is there');
is(sql("SELECT count(*) FROM weir.dead_letter WHERE source = 'flaky'"),
	'0', 'and no dead letter');

$node->stop;
done_testing();
