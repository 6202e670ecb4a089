# Dead letters: their limit, their count, their locks.
#
# Proves: the limit is about the letters that are there.  What is rolled back
# was not counted; what was deleted, by whom and how ever, counts no more,
# as soon as the deleting transaction has committed; a source and a stream
# stop at the same number with the same SQLSTATE and have skipped nothing.
# The count survives restarts and pg_dump.  At any time the count is what
# counting gives.
#
# Nobody who may read and delete letters can hold up a worker with them:
# with every lock taken that a role can get, and a transaction open that has
# deleted letters, other sources and streams go on, and workers start.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(
	topics => { src => 1, str => 1, late => 1, held => 1, other => 1 });
my $node = WeirTest::start_node('main', conf => {
	'weir.retry_delay' => '100ms', 'weir.retry_delay_max' => '1s' });
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

# The count is right, for everybody.
sub counted
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( sql(<<'SQL'), '', $name);
SELECT source_id, stream_id, counted, there FROM
	(SELECT source_id, stream_id, sum(letters) AS counted
		FROM weir_internal.dead_letter_count GROUP BY 1, 2) c
	FULL JOIN (SELECT source_id, coalesce(stream_id, 0) AS stream_id, count(*) AS there
		FROM weir.dead_letter GROUP BY 1, 2) d USING (source_id, stream_id)
WHERE coalesce(counted, 0) <> coalesce(there, 0)
SQL
	return;
}

##
## A source and a stream at the same limit
##

my %id = (src => 0, str => 0);

# Good and bad records, mixed; bad ones of "src" are no documents, those of
# "str" divide by zero.
sub produce
{
	my ($topic, $good, $bad) = @_;
	my @lines;
	while ($good > 0 || $bad > 0)
	{
		push @lines, sprintf('{"id":%d,"v":1}', $id{$topic}++) if $good-- > 0;
		push @lines, $topic eq 'src' ? 'bad' : '{"id":-1,"v":0}' if $bad-- > 0;
	}
	$broker->produce($topic, \@lines);
	return;
}

WeirTest::create_source($node, 'src', columns => 'id int, v int',
	options => '{"dead_letter_limit": 50}');
WeirTest::create_stream($node, 'src_rows', 'SELECT s.id FROM src s');
WeirTest::create_source($node, 'str', columns => 'id int, v int');
WeirTest::create_stream($node, 'str_rows',
	'SELECT s.id, 1 / s.v AS q FROM str s',
	options => '{"dead_letter_limit": 50, "max_dead_ratio": 1}');

my %states = (
	src => "SELECT state, last_error_sqlstate FROM weir.stat_source WHERE source = 'src'",
	str => "SELECT state, last_error_sqlstate FROM weir.stat_stream WHERE stream = 'str_rows'");
my %stopped = (src => 'stopped|55000', str => 'failed|55000');
my %name = (src => 'src', str => 'str_rows');
my %where = (src => "source = 'src'", str => "stream = 'str_rows'");

for my $topic (qw(src str))
{
	my $letters = "SELECT count(*) FROM weir.dead_letter WHERE $where{$topic}";

	# a nightly clean-up: far more letters than the limit, never so many at once
	for my $night (1 .. 4)
	{
		produce($topic, 20, 40);
		WeirTest::wait_for($node, "${topic}_rows");
		is(sql($letters), 40, "$topic: letters of night $night");
		counted('and they are counted');
		sql("DELETE FROM weir.dead_letter WHERE $where{$topic}");
		counted('those deleted, too');
	}
	produce($topic, 10, 50);
	WeirTest::wait_for($node, "${topic}_rows");
	is(sql($letters), 50, "$topic: as many as the limit");
	sql("BEGIN; DELETE FROM weir.dead_letter; ROLLBACK");
	sql("BEGIN; SAVEPOINT s; DELETE FROM weir.dead_letter; ROLLBACK TO s; COMMIT");
	produce($topic, 10, 1);
	WeirTest::sql_becomes($node, $states{$topic}, $stopped{$topic},
		"$topic: one more, and it stops; what was deleted and rolled back is there");
	is(sql($letters), 50, "$topic: and has not written it");
	counted('nor counted');
	is( sql(<<SQL), '1', "$topic: one letter is deleted");
WITH d AS (DELETE FROM weir.dead_letter WHERE dead_letter_id =
	(SELECT max(dead_letter_id) FROM weir.dead_letter WHERE $where{$topic}) RETURNING dead_letter_id)
SELECT count(*) FROM d
SQL
	sql("SELECT weir.resume('$name{$topic}')");
	WeirTest::wait_for($node, "${topic}_rows");
	is(sql($letters), 50, "$topic: then it goes on");
	is(sql("SELECT count(DISTINCT id), count(*) FROM ${topic}_rows"),
		"$id{$topic}|$id{$topic}", 'and has skipped nothing');
	counted('and counts');
}

# A failing source reads its letters again each time: they count once.
sql("DELETE FROM weir.dead_letter WHERE source = 'src'");
my $lock = $node->background_psql('postgres');
my $letters_of_src = "SELECT count(*) FROM weir.dead_letter WHERE source = 'src'";
$lock->query_safe('BEGIN; LOCK TABLE src_rows IN ACCESS EXCLUSIVE MODE');
produce('src', 5, 50);
WeirTest::sql_becomes($node, $letters_of_src, 50, 'letters of rows that are not applied yet');
my ($ingest) = split /\n/, sql("SELECT pid FROM weir.stat_worker WHERE kind = 'ingest' AND source = 'src'");
sql("SELECT pg_terminate_backend($ingest)");
WeirTest::sql_becomes($node, "SELECT pid <> $ingest FROM weir.stat_worker WHERE kind = 'ingest' AND source = 'src'");
$lock->query_safe('COMMIT');
produce('src', 5, 0);
WeirTest::wait_for($node, 'src_rows');
is(sql($letters_of_src), 50, 'read again, letters are not counted again');
counted('the count knows it');

# Many rows of the count are put together.
for my $i (1 .. 3)
{
	sql("DELETE FROM weir.dead_letter WHERE dead_letter_id = (SELECT min(dead_letter_id) FROM weir.dead_letter WHERE source = 'src')")
	  for 1 .. 20;
	produce('src', 1, 1);
	WeirTest::wait_for($node, 'src_rows');
}
cmp_ok(
	sql("SELECT count(*) FROM weir_internal.dead_letter_count c JOIN weir_internal.source s USING (source_id) WHERE s.relation = 'src'::regclass AND c.stream_id = 0"),
	'<', 60, 'rows of the count are put together');
counted('without losing any');

##
## Late rows into a locked target: nothing is counted that is not there
##

WeirTest::create_source($node, 'late', columns => 'id int, at timestamptz',
	event_time => 'at');
WeirTest::create_stream($node, 'late_counts', <<'SQL', options => '{"dead_letter_limit": 50}');
SELECT w.window_start, count(*) AS n FROM late l CROSS JOIN weir.tumble(l.at, '1 minute') w
GROUP BY w.window_start
SQL
$broker->produce('late', ['{"id":0,"at":"2024-01-01T12:00:00Z"}']);
WeirTest::wait_for($node, 'late_counts');
sql("ALTER SYSTEM SET weir.lock_timeout = '50ms'");
$node->reload;
$lock->query_safe('BEGIN; LOCK TABLE late_counts IN ACCESS EXCLUSIVE MODE');
my @late = ('{"id":1,"at":"2024-01-01T13:00:00Z"}');
push @late, map { qq({"id":$_,"at":"2024-01-01T10:00:00Z"}) } 2 .. 11;
$broker->produce('late', \@late);
WeirTest::sql_becomes($node,
	"SELECT retries >= 7 FROM weir.stat_stream WHERE stream = 'late_counts'",
	't', 'late rows, again and again, into a target that is locked');
is( sql("SELECT state, last_error_sqlstate FROM weir.stat_stream WHERE stream = 'late_counts'"),
	'retrying|55P03', 'do not reach the limit');
$lock->query_safe('COMMIT');
WeirTest::wait_for($node, 'late_counts');
is( sql("SELECT count(*) FROM weir.dead_letter WHERE stream = 'late_counts'"),
	sql("SELECT rows_late FROM weir.stat_stream WHERE stream = 'late_counts'"),
	'each late row is one letter');
counted('which is counted');
sql('ALTER SYSTEM RESET weir.lock_timeout');
$node->reload;

##
## Every lock that a role can get
##

sql(<<'SQL');
CREATE ROLE mallory LOGIN;
GRANT USAGE ON FOREIGN SERVER kafka TO mallory;
GRANT CREATE ON SCHEMA public TO mallory;
SET ROLE mallory;
SELECT weir.create_source('held', 'kafka', 'held', 'id int');
SELECT weir.create_stream('held_rows', 'SELECT h.id FROM held h');
SQL
$broker->produce('held', [ '{"id":1}', 'bad', 'bad', '{"id":2}' ]);
WeirTest::wait_for($node, 'held_rows');
is(sql('SET ROLE mallory; SELECT count(*) FROM weir.dead_letter'), '2', 'a role sees its own letters');

my $mallory = $node->background_psql('postgres');
$mallory->query_safe(<<'SQL');
SET ROLE mallory;
CREATE VIEW public.through AS SELECT * FROM weir.dead_letter;
BEGIN;
DO $$
DECLARE
	relation text;
	mode text;
BEGIN
	FOR relation, mode IN
		SELECT c.oid::regclass, m FROM pg_class c, unnest(ARRAY['ACCESS SHARE', 'ROW SHARE',
			'ROW EXCLUSIVE', 'SHARE UPDATE EXCLUSIVE', 'SHARE', 'SHARE ROW EXCLUSIVE',
			'EXCLUSIVE', 'ACCESS EXCLUSIVE']) m
		WHERE c.relkind IN ('r', 'v', 'p', 'm') AND (c.oid = 'public.through'::regclass
			OR c.relnamespace IN ('weir'::regnamespace, 'weir_internal'::regnamespace))
	LOOP
		BEGIN
			EXECUTE format('LOCK TABLE %s IN %s MODE NOWAIT', relation, mode);
		EXCEPTION WHEN insufficient_privilege OR lock_not_available THEN
			NULL;
		END;
	END LOOP;
END $$
SQL
my $deleted = $mallory->query_safe('WITH d AS (DELETE FROM weir.dead_letter RETURNING 1) SELECT count(*) FROM d');
like($deleted, qr/^2$/m, 'a transaction is open that has deleted letters');
is( sql(<<'SQL'), '', 'no lock that a worker would have to wait for');
SELECT DISTINCT l.relation::regclass, l.mode FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid() AND l.granted
	AND l.locktype = 'relation' AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
	AND l.relation::regclass::text LIKE 'weir%'
SQL

# A source with dead letters is made, runs, and starts again; so does mallory's.
WeirTest::create_source($node, 'other', columns => 'id int');
WeirTest::create_stream($node, 'other_rows', 'SELECT o.id FROM other o');
$broker->produce('other', [ '{"id":1}', 'bad' ]);
$broker->produce('held', [ '{"id":3}', 'bad' ]);
WeirTest::wait_for($node, qw(other_rows held_rows));
for my $worker (WeirTest::worker_pids($node, 'ingest'))
{
	sql("SELECT pg_terminate_backend($worker)");
}
WeirTest::sql_becomes($node, 'SELECT count(*) FROM weir.stat_worker WHERE kind = \'ingest\'', 5);
$broker->produce('other', [ '{"id":2}', 'bad' ]);
$broker->produce('held', [ '{"id":4}', 'bad' ]);
WeirTest::wait_for($node, qw(other_rows held_rows));
is(sql("SELECT count(*) FROM weir.dead_letter WHERE source = 'other'"),
	'2', 'others write their letters and start again');
is(sql('SELECT count(*) FROM held_rows'), '4', 'so does the source of the role itself');
$mallory->query_safe('COMMIT');
is(sql("SELECT count(*) FROM weir.dead_letter WHERE source = 'held'"),
	'2', 'and what it has deleted is gone at its commit');
counted('all is counted');
$mallory->quit;
$lock->quit;

##
## TRUNCATE, restart, dump
##

sql(q(SET session_replication_role = replica; DELETE FROM weir.dead_letter WHERE dead_letter_id = (SELECT min(dead_letter_id) FROM weir.dead_letter)));
counted('a letter that a session in the role of a replica deletes');

my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'dumped');
sql('CREATE DATABASE copy TEMPLATE template0');
$node->command_ok([ 'pg_restore', '--no-acl', '-d', $node->connstr('copy'), $dump ], 'restored');
my $sum = 'SELECT source_id, stream_id, sum(letters) FROM weir_internal.dead_letter_count GROUP BY 1, 2 HAVING sum(letters) <> 0 ORDER BY 1, 2';
is(WeirTest::sql($node, $sum, dbname => 'copy'), sql($sum), 'the count came along');
sql("SELECT weir.drop_stream('other_rows'); SELECT weir.drop_source('other')");
WeirTest::sql_becomes($node, <<'SQL', '0', 'what is dropped is not counted any more');
SELECT count(*) FROM weir_internal.dead_letter_count c
WHERE NOT EXISTS (SELECT FROM weir_internal.source s WHERE s.source_id = c.source_id)
SQL
is(sql("SELECT count(*) FROM weir.dead_letter WHERE source = 'other'"), '2', 'its letters stay');
sql('TRUNCATE weir_internal.dead_letter');
counted('TRUNCATE counts, too');
produce('src', 10, 50);
WeirTest::wait_for($node, 'src_rows');
is(sql("SELECT count(*) FROM weir.dead_letter WHERE source = 'src'"), '50', 'and there is room again');

$node->stop;
done_testing();
