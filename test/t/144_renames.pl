# Renames under running streams, and renames that concern no stream.
#
# Proves: a target that is renamed or moved, itself or its schema, is followed
# by the running stream, also when another table takes its old name at once;
# so is whatever the query names; an error that is not the definition's keeps
# the rename from happening, instead of leaving a text that is stale; what
# concerns no definition, by anyone, holds no lock on weir's catalog, and
# keeps nobody from making sources and streams.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { events => 2 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);
WeirTest::create_events_source($node, 'events');
WeirTest::sql($node, <<'SQL');
CREATE ROLE anybody;
CREATE SCHEMA own AUTHORIZATION anybody;
GRANT ALL ON SCHEMA public TO anybody;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TYPE pair AS (a int, b int);
CREATE FUNCTION judge(v int) RETURNS mood IMMUTABLE LANGUAGE sql
	RETURN CASE WHEN v % 2 = 0 THEN 'good'::mood ELSE 'bad'::mood END;
CREATE TABLE a (v int PRIMARY KEY, label text);
CREATE TABLE b (v int PRIMARY KEY, p pair);
INSERT INTO a SELECT v, 'l' || v FROM generate_series(-1000, 1000) v;
INSERT INTO b SELECT v, row(v, v)::pair FROM generate_series(-1000, 1000) AS g (v);
SQL
my $query = q{SELECT e.id, a.label, (b.p).a AS pa FROM events e JOIN a ON a.v = e.v JOIN b ON b.v = e.v WHERE judge(e.v) = 'good'};
WeirTest::create_stream($node, 'joined', $query);
WeirTest::create_stream($node, 'sums', 'SELECT e.k, count(*) AS n, sum(e.v) AS s FROM events e GROUP BY e.k');
WeirTest::create_stream($node, 'latest', 'SELECT e.id, e.v FROM events e', options => '{"key": "id"}');
my @streams = qw(joined sums latest);

my @payloads;

sub produce
{
	my ($n) = @_;
	my @lines = WeirBroker::gen_lines('events', events => $n,
		first => scalar @payloads, seed => 144, partitions => 2);
	$broker->produce('events', \@lines, partition_field => 1);
	push @payloads, map { s/^\d+\t//r } @lines;
	return;
}

produce(200);
WeirTest::wait_for($node, @streams);

##
## Targets and states
##

my $pids = q{SELECT string_agg(pid::text, ' ' ORDER BY stream) FROM weir.stat_worker WHERE kind = 'stream' AND stream IN ('sums', 'latest')};
my $before = WeirTest::sql($node, $pids);
my $state = WeirTest::sql($node, "SELECT state FROM weir_internal.stream WHERE name = 'sums'");
for my $rename ('ALTER TABLE sums RENAME TO totals; ALTER TABLE latest RENAME TO newest',
	'CREATE SCHEMA app; ALTER TABLE totals SET SCHEMA app; ALTER TABLE newest SET SCHEMA app',
	'ALTER SCHEMA app RENAME TO "App"',
	'BEGIN; ALTER TABLE "App".totals RENAME TO old; CREATE TABLE "App".totals (LIKE "App".old INCLUDING ALL); ALTER TABLE "App".newest RENAME TO old_newest; CREATE TABLE "App".newest (LIKE "App".old_newest INCLUDING ALL); COMMIT',
	"ALTER TABLE $state SET SCHEMA \"App\"",
	'ALTER TABLE "App".state_' . ($state =~ /(\d+)/)[0] . ' RENAME TO kept')
{
	produce(100);
	WeirTest::sql($node, $rename);
	produce(100);
}
WeirTest::wait_for($node, @streams);
is(WeirTest::sql($node, $pids), $before, 'followed live: no worker has ended');
is(WeirTest::sql($node, q{SELECT count(*) FROM "App".totals, "App".newest}), '0',
	'tables that took the old names got nothing');
WeirTest::load_events($node, 'stored', \@payloads);
WeirTest::compare($node, 'TABLE "App".old', 'SELECT k, count(*), sum(v) FROM stored GROUP BY k', 'renamed target of an aggregate');
WeirTest::compare($node, 'TABLE "App".old_newest', 'SELECT id, v FROM stored', 'renamed target of an upsert');

##
## What the query names
##

for my $rename ('ALTER TABLE a RENAME TO a2', 'ALTER TABLE a2 RENAME COLUMN label TO title',
	'ALTER TYPE pair RENAME ATTRIBUTE a TO first', 'ALTER TYPE pair RENAME TO couple',
	q{ALTER TYPE mood RENAME VALUE 'good' TO 'fine'}, 'ALTER TYPE mood RENAME TO temper',
	'ALTER FUNCTION judge(int) SET SCHEMA "App"', 'ALTER SCHEMA "App" RENAME TO app2')
{
	produce(20);
	WeirTest::sql($node, $rename);
	WeirTest::sql_becomes($node, "SELECT state FROM weir.stat_stream WHERE stream = 'joined' AND state <> 'starting'",
		qr/running|waiting|catching/);
}
WeirTest::wait_for($node, @streams);
like(WeirTest::sql($node, "SELECT query FROM weir.streams WHERE stream = 'joined'"),
	qr/title.*\.first.*a2.*app2\.judge.*'fine'::public\.temper/s, 'the text has the new names');
WeirTest::sql($node, 'DROP TABLE stored');
WeirTest::load_events($node, 'stored', \@payloads);
WeirTest::compare($node, 'TABLE joined', "SELECT id, 'l' || v, v FROM stored WHERE v % 2 = 0", 'nothing is lost');
is(WeirTest::sql($node, "SELECT string_agg(DISTINCT name, ' ') FROM weir_internal.stream WHERE failed_message IS NOT NULL"),
	'', 'nothing has failed');

##
## A lock that is not got in time
##

my $blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN; LOCK TABLE b IN ACCESS EXCLUSIVE MODE');
like(WeirTest::sql_error($node, "SET lock_timeout = '300ms'; ALTER TABLE a2 RENAME TO a3"),
	qr/^55P03/, 'the rename fails');
is(WeirTest::sql($node, "SELECT to_regclass('a2') IS NOT NULL"), 't', 'and has not happened');
$blocker->query_safe('COMMIT');
WeirTest::sql($node, 'ALTER TABLE a2 RENAME TO a3');
produce(20);
WeirTest::wait_for($node, @streams);
like(WeirTest::sql($node, "SELECT query FROM weir.streams WHERE stream = 'joined'"),
	qr/\ba3\b/, 'when it happens, the text follows');

##
## What concerns no definition
##

WeirTest::sql($node, 'GRANT SELECT ON events TO anybody');
my $names = WeirTest::sql($node, "SELECT count(*) FROM weir.streams");
for my $sql (
	'CREATE TEMP TABLE a3 (v int); ALTER TABLE a3 RENAME TO x; ALTER TABLE x RENAME COLUMN v TO w',
	'CREATE TABLE own.a3 (v int, label text, id int); ALTER TABLE own.a3 RENAME COLUMN id TO w; ALTER TABLE own.a3 RENAME TO events',
	'CREATE TABLE own.t (title text); ALTER TABLE own.t RENAME title TO label; ALTER TABLE own.t SET SCHEMA public',
	'CREATE VIEW own.events AS SELECT 1 AS id; ALTER VIEW own.events RENAME TO e2; ALTER VIEW own.e2 RENAME COLUMN id TO v',
	'CREATE SEQUENCE own.s; ALTER SEQUENCE own.s RENAME TO s2',
	'CREATE TABLE own.i (v int PRIMARY KEY); ALTER INDEX own.i_pkey RENAME TO events',
	'CREATE FUNCTION own.judge(int) RETURNS int LANGUAGE sql AS $$SELECT 1$$; ALTER FUNCTION own.judge(int) RENAME TO j2; ALTER FUNCTION own.j2(int) SET SCHEMA public',
	'CREATE DOMAIN own.temper AS int; ALTER DOMAIN own.temper RENAME TO t2',
	q{CREATE TYPE own.mood AS ENUM ('good'); ALTER TYPE own.mood RENAME VALUE 'good' TO 'x'},
	'CREATE TYPE own.couple AS (first int); ALTER TYPE own.couple RENAME ATTRIBUTE first TO y; ALTER TYPE own.couple RENAME TO c2',
	'CREATE TABLE own.d (v int); DROP TABLE own.d')
{
	my $locks = WeirTest::sql($node, <<SQL);
BEGIN;
SET LOCAL ROLE anybody;
SET LOCAL client_min_messages = error;
$sql;
SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
WHERE l.pid = pg_backend_pid() AND c.relnamespace = 'weir_internal'::regnamespace;
ROLLBACK;
SQL
	is($locks, '0', "no lock on the catalog: $sql");
}

# an open transaction that has renamed a dimension keeps nobody else
$blocker->query_safe('BEGIN; ALTER TABLE a3 RENAME TO a4');
is(WeirTest::sql($node, <<'SQL'), "other\nfree", 'others make sources and streams meanwhile');
SET lock_timeout = '20s';
SELECT weir.create_source('other', 'kafka', 'events', 'id int');
SELECT weir.create_stream('free', 'SELECT o.id FROM other o');
SQL
$blocker->query_safe('COMMIT');
$blocker->quit;
produce(20);
WeirTest::wait_for($node, 'joined');
like(WeirTest::sql($node, "SELECT query FROM weir.streams WHERE stream = 'joined'"),
	qr/\ba4\b/, 'and the text follows');

$node->stop;
done_testing();
