# A batch that would run for minutes, or for ever, ends when it must.
#
# Proves: pause of a stream, drop_stream, drop_source with cascade, seek,
# DROP EXTENSION, DROP DATABASE and the shutdown of the server end the running
# batch of a stream at once, whether the statement is at work in windows (a
# year by the second) or in a function of the user's, also one that catches
# what cancels it; so it is for the first batch and for the closing of
# windows.  A drop or seek that is rolled back changes nothing: the stream goes
# on by itself.  The other streams go on meanwhile.  So many windows are warned
# of when the stream is created, and a batch has no more rows than their
# windows allow.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { t => 1, many => 2 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

# What ends in the middle of a batch has a minute for it; the batch takes an
# hour, or all that is left of it.
sub at_once
{
	my ($what, $sql, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($rc, undef, $error) = WeirTest::try_psql($node, "SET statement_timeout = '60 s'; $sql", %opt);
	return is($rc, 0, $what) || diag($error, WeirTest::status($node));
}

# Is a batch of the stream under way?  Its transaction holds the stream's lock.
sub in_batch
{
	my ($stream, %opt) = @_;
	WeirTest::sql_becomes($node, <<SQL, 't', undef, %opt);
SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN weir.stat_worker w USING (pid)
WHERE w.kind = 'stream' AND w.stream = '$stream'
	AND l.locktype = 'object' AND l.mode = 'ExclusiveLock' AND l.granted
	AND a.state = 'active' AND clock_timestamp() - a.xact_start > '500 ms'
SQL
	return;
}

sub gone
{
	my ($stream, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return WeirTest::sql_becomes($node, <<SQL, '0', "$stream: its worker is gone", %opt);
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'weir stream' AND query ~ '^stream $stream( |\$)'
SQL
}

sub set_up
{
	my (%opt) = @_;
	WeirTest::sql($node, <<'SQL', %opt);
CREATE FUNCTION slow(v int) RETURNS int STABLE LANGUAGE plpgsql AS
'BEGIN IF v < 0 THEN PERFORM pg_sleep(3600); END IF; RETURN v; END';
CREATE FUNCTION stubborn(v int) RETURNS int STABLE LANGUAGE plpgsql AS
'BEGIN
	WHILE v < 0 LOOP
		BEGIN
			PERFORM pg_sleep(3600);
		EXCEPTION WHEN query_canceled THEN
			NULL;
		END;
	END LOOP;
	RETURN v;
END';
SQL
	return;
}

my %query = (
	years => "SELECT w.window_start, count(*) AS n FROM t s CROSS JOIN weir.hop(s.at, '365 days', '1 second') w WHERE s.v < 0 GROUP BY w.window_start",
	slow_rows => 'SELECT s.v, slow(s.v) AS slow FROM t s',
	slow_counts => 'SELECT slow(s.v) AS slow, count(*) AS n FROM t s GROUP BY 1',
	stubborn_rows => 'SELECT s.v, stubborn(s.v) AS slow FROM t s',
	plain => 'SELECT s.v FROM t s',
	plain_filtered => 'SELECT s.v FROM filtered s');

sub create
{
	my ($name, $like, %opt) = @_;
	return WeirTest::create_stream($node, $name, $query{ $like || $name }, %opt);
}

set_up();
WeirTest::create_source($node, 't', columns => 'v int, at timestamptz', event_time => 'at');
create('plain');
my ($rc, $out, $warning) = WeirTest::try_psql($node,
	"SELECT weir.create_stream('years', '" . ($query{years} =~ s/'/''/gr) . "')");
like($warning, qr/WARNING: .* 31536000 windows.*HINT/s, 'so many windows are warned of');
(undef, undef, $warning) = WeirTest::try_psql($node,
	"SELECT weir.create_stream('days', 'SELECT w.window_start, count(*) AS n FROM t s CROSS JOIN weir.hop(s.at, ''1 day'', ''10 seconds'') w GROUP BY 1')");
unlike($warning, qr/WARNING/, '8640 are not');
sql("SELECT weir.drop_stream('days')");
$broker->produce('t', [ map { qq({"v":$_,"at":"2024-01-01T00:00:00Z"}) } 1, 2, 3 ]);
WeirTest::wait_for($node, 'plain', 'years');
$broker->produce('t', ['{"v":-1,"at":"2024-01-01T00:00:01Z"}']);

##
## Windows: a year by the second
##

in_batch('years');
WeirTest::wait_for($node, 'plain');
is(sql('SELECT count(*) FROM plain'), 4, 'another stream goes on');
at_once('seek ends the batch', "SELECT weir.seek('years', 'earliest')");
in_batch('years');
at_once('a seek that is rolled back, too', "BEGIN; SELECT weir.seek('years', 'latest'); ROLLBACK");
in_batch('years');
at_once('pause', "SELECT weir.pause('years')");
gone('years');
is(sql("SELECT state FROM weir.stat_stream WHERE stream = 'years'"), 'paused', 'and it is paused');
sql("SELECT weir.resume('years')");
in_batch('years');
at_once('a drop that is rolled back', "BEGIN; SELECT weir.drop_stream('years'); ROLLBACK");
in_batch('years');
at_once('drop_stream', "SELECT weir.drop_stream('years', drop_target => true)");
gone('years');

##
## A function of the user's
##

for my $like (qw(slow_rows slow_counts stubborn_rows))
{
	create($like);
	in_batch($like);
	at_once("$like: seek", "SELECT weir.seek('$like', 'earliest')");
	in_batch($like);
	at_once("$like: seek, twice in a transaction",
		"BEGIN; SELECT weir.seek('$like', 'earliest'); SELECT weir.seek('$like', 'earliest'); COMMIT");
	in_batch($like);
	at_once("$like: pause", "SELECT weir.pause('$like')");
	gone($like);
	sql("SELECT weir.resume('$like')");
	in_batch($like);
	at_once("$like: drop_stream", "SELECT weir.drop_stream('$like')");
	gone($like);
}

# the closing of windows
WeirTest::create_stream($node, 'closing', "SELECT w.window_start, slow(min(s.v)) AS v FROM t s CROSS JOIN weir.tumble(s.at, '1 minute') w GROUP BY w.window_start",
	emit => 'on_close');
WeirTest::sql_becomes($node, "SELECT open_windows FROM weir.stat_stream WHERE stream = 'closing'", '1');
sql("SELECT weir.advance_watermark('t')");
in_batch('closing');
at_once('closing: seek', "SELECT weir.seek('closing', 'earliest')");
sql("SELECT weir.advance_watermark('t')");
in_batch('closing');
at_once('closing: drop_stream', "SELECT weir.drop_stream('closing')");
gone('closing');

# the source with all that read it
create($_) for qw(slow_rows slow_counts);
in_batch($_) for qw(slow_rows slow_counts);
at_once('a drop_source that is rolled back', "BEGIN; SELECT weir.drop_source('t', cascade => true); ROLLBACK");
in_batch($_) for qw(slow_rows slow_counts);
at_once('drop_source with cascade', "SELECT weir.drop_source('t', cascade => true)");
gone($_) for qw(slow_rows slow_counts plain);

# ingest, at work in a filter
WeirTest::create_source($node, 'filtered', topic => 't', columns => 'v int, at timestamptz',
	event_time => 'at', filter => 'stubborn(v) > 0');
create('filtered_rows', 'plain_filtered');
sub in_filter
{
	WeirTest::sql_becomes($node, <<'SQL');
SELECT count(*) > 0 FROM pg_stat_activity JOIN weir.stat_worker USING (pid)
WHERE kind IN ('ingest', 'catch_up') AND wait_event = 'PgSleep'
SQL
	return;
}
in_filter();
at_once('filter: pause of the source', "SELECT weir.pause('filtered')");
WeirTest::sql_becomes($node, "SELECT count(*) FROM weir.stat_worker WHERE kind = 'ingest'", '0', 'its worker is gone');
sql("SELECT weir.resume('filtered')");
in_filter();
at_once('filter: seek of a stream', "SELECT weir.seek('filtered_rows', 'earliest')");
in_filter();
at_once('filter: drop_source', "SELECT weir.drop_source('filtered', cascade => true)");
WeirTest::sql_becomes($node, "SELECT count(*) FROM weir.stat_worker WHERE kind <> 'launcher' AND kind <> 'manager'", '0', 'its workers are gone');

##
## Batches are bounded by what comes out of them
##

sql("ALTER SYSTEM SET weir.max_batch_rows = 3000");
$node->reload;
WeirTest::create_source($node, 'many', columns => 'v int, at timestamptz', event_time => 'at',
	max_out_of_orderness => '1 hour');
sql("SELECT weir.pause('many')");
my %many = (
	hops => "SELECT w.window_start, s.v, count(*) AS n FROM many s CROSS JOIN weir.hop(s.at, '100 seconds', '1 second') w GROUP BY w.window_start, s.v",
	same => "SELECT w.window_start, count(*) AS n FROM many s CROSS JOIN weir.hop(s.at, '100 seconds', '1 second') w GROUP BY w.window_start",
	hop_rows => "SELECT w.window_start, s.v FROM many s CROSS JOIN weir.hop(s.at, '100 seconds', '1 second') w",
	series => 'SELECT s.v, g FROM many s CROSS JOIN generate_series(1, s.v / 20) g');
WeirTest::create_stream($node, $_, $many{$_}) for sort keys %many;
WeirTest::create_stream($node, 'many_stored', 'SELECT s.v, s.at FROM many s');
$broker->produce('many',
	[ map { sprintf qq(%d\t{"v":%d,"at":%d}), $_ % 2, $_, 1704067200 + int($_ / 40) } 1 .. 2000 ],
	partition_field => 1);
sql("CREATE TABLE most (stream_id int PRIMARY KEY, n bigint, batches int, moves int)");
sql(<<'SQL');
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	INSERT INTO public.most SELECT NEW.stream_id, n, 1, (NEW.watermark IS DISTINCT FROM OLD.watermark)::int FROM (SELECT sum(a - b) AS n
		FROM ROWS FROM (unnest(NEW.applied_offsets), unnest(OLD.applied_offsets)) u (a, b)) s WHERE n > 0
	ON CONFLICT (stream_id) DO UPDATE SET n = greatest(most.n, excluded.n), batches = most.batches + 1, moves = most.moves + excluded.moves;
	RETURN NULL;
END $$;
CREATE TRIGGER note AFTER UPDATE ON weir_internal.stream_state FOR EACH ROW
WHEN (cardinality(OLD.applied_offsets) > 0) EXECUTE FUNCTION note();
SQL
sql("SELECT weir.resume('many')");
WeirTest::wait_for($node, sort(keys %many), 'many_stored');
for my $name (sort keys %many)
{
	WeirTest::compare($node, "TABLE $name", $many{$name} =~ s/FROM many s/FROM many_stored s/r, "$name: the rows are all there");
}
my %most = map { split /\|/ } split /\n/, sql('SELECT stream, n FROM most JOIN weir_internal.stream s USING (stream_id) CROSS JOIN LATERAL (SELECT s.name::text AS stream) x');
cmp_ok($most{hops}, '<=', 30, 'windows and groups: a batch has 30 rows of 100 windows at most');
cmp_ok(sql("SELECT moves FROM most JOIN weir_internal.stream USING (stream_id) WHERE name = 'hops'"), '>=', 2,
	'the watermark moves while a mark is read in parts');
cmp_ok($most{hop_rows}, '<=', 30, 'so it is with rows');
cmp_ok($most{same}, '>', 100, 'where windows are shared, more');
cmp_ok(sql("SELECT batches FROM most JOIN weir_internal.stream USING (stream_id) WHERE name = 'series'"), '>=', 10,
	'functions that return sets make for smaller batches, too');
sql("DROP TRIGGER note ON weir_internal.stream_state");
sql("ALTER SYSTEM RESET weir.max_batch_rows");
$node->reload;

##
## Databases, the extension, the server
##

sql('CREATE DATABASE other');
WeirTest::sql($node, 'CREATE EXTENSION weir', dbname => 'other');
WeirTest::create_server($node, $broker, dbname => 'other');
set_up(dbname => 'other');
WeirTest::create_source($node, 't', columns => 'v int, at timestamptz', event_time => 'at', dbname => 'other');
create('slow_other', 'slow_rows', dbname => 'other');
create('years_other', 'years', dbname => 'other');
in_batch($_, dbname => 'other') for qw(slow_other years_other);
at_once('DROP EXTENSION', 'DROP EXTENSION weir CASCADE', dbname => 'other');
gone($_) for qw(slow_other years_other);
sql('DROP DATABASE other');

sql('CREATE DATABASE other');
WeirTest::sql($node, 'CREATE EXTENSION weir', dbname => 'other');
WeirTest::create_server($node, $broker, dbname => 'other');
set_up(dbname => 'other');
WeirTest::create_source($node, 't', columns => 'v int, at timestamptz', event_time => 'at', dbname => 'other');
create('slow_other', 'slow_rows', dbname => 'other');
create('years_other', 'years', dbname => 'other');
in_batch($_, dbname => 'other') for qw(slow_other years_other);
at_once('DROP DATABASE', 'DROP DATABASE other');
gone($_) for qw(slow_other years_other);

WeirTest::create_source($node, 't', columns => 'v int, at timestamptz', event_time => 'at');
create($_) for qw(stubborn_rows slow_counts);
create('years_again', 'years');
in_batch($_) for qw(stubborn_rows slow_counts years_again);
$ENV{PGCTLTIMEOUT} = 60;
ok($node->stop('fast', fail_ok => 1), 'the server stops');

done_testing();
