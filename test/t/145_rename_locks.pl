# Renames of things that only have a name in common with what streams use.
#
# Proves: whoever renames a column, a type, a text search configuration or
# anything else whose name is in the texts of others' streams and filters, and
# does not commit, keeps nobody from pausing, seeking or dropping these, and
# no worker from saying that one has failed; nothing of others' is locked.
# Two renames that do concern one stream follow each other, and both are in
# its text; one that a text cannot follow, since its owner lacks a right
# meanwhile, does not happen.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { rides => 1 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);
sub sql { return WeirTest::sql($node, @_); }

sql(<<'SQL');
CREATE TABLE public.zones (id int PRIMARY KEY, name text);
INSERT INTO public.zones VALUES (1, 'one'), (2, 'two');
CREATE TABLE public.lines (id int PRIMARY KEY, label text);
INSERT INTO public.lines VALUES (1, 'red'), (2, 'blue');
CREATE ROLE anybody;
CREATE SCHEMA own AUTHORIZATION anybody;
GRANT CREATE ON SCHEMA public TO anybody;
SET ROLE anybody;
CREATE TABLE own.t (id int, name text);
CREATE TABLE own.of_t (x own.t);
CREATE TYPE own.c AS (id int);
CREATE TABLE own.of_c (x own.c[]);
CREATE TEXT SEARCH CONFIGURATION own.id (COPY = simple);
CREATE TEXT SEARCH DICTIONARY own.name (TEMPLATE = simple);
CREATE COLLATION own.name (locale = 'C');
SQL
WeirTest::create_source(
	$node, 'rides',
	columns => 'id int NOT NULL, name text, at timestamptz',
	event_time => 'at', filter => 'id > 0 AND name IS NOT NULL');
my $query = 'SELECT r.id, r.name, z.name AS zone, l.label FROM rides r JOIN zones z ON z.id = r.id JOIN lines l ON l.id = r.id';
WeirTest::create_stream($node, 'joined', $query);
WeirTest::create_stream($node, 'fails', 'SELECT r.id, r.name FROM rides r');
my $n = 0;

sub produce
{
	$broker->produce('rides', [ map { qq({"id":$_,"name":"n","at":1704067200}) } 1, 2 ]);
	$n += 2;
	return;
}
produce();
WeirTest::wait_for($node, qw(joined fails));

my @renames = (
	'ALTER TABLE own.t RENAME COLUMN id TO id2',
	'ALTER TABLE own.t RENAME COLUMN name TO name2',
	'ALTER TYPE own.c RENAME ATTRIBUTE id TO id2 CASCADE',
	'ALTER TEXT SEARCH CONFIGURATION own.id RENAME TO id2',
	'ALTER TEXT SEARCH DICTIONARY own.name SET SCHEMA public',
	'ALTER COLLATION own.name RENAME TO name2');

my $session = $node->background_psql('postgres');
my $pid = $session->query_safe('SELECT pg_backend_pid()');
for my $rename (@renames)
{
	$session->query_safe("BEGIN; SET LOCAL ROLE anybody; $rename;");
	is( sql(<<SQL), '', "$rename: nothing of others' is locked");
SELECT string_agg(coalesce(c.oid::regclass::text, l.classid::regclass || ' ' || l.objid), ' ')
FROM pg_locks l
	LEFT JOIN pg_class c ON c.oid = l.relation
	LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE l.pid = $pid AND (n.nspname = 'weir_internal'
	OR c.oid::regclass::text IN ('rides', 'zones', 'lines', 'joined', 'fails')
	OR l.locktype = 'object'
		AND l.classid IN (SELECT oid FROM pg_class WHERE relnamespace = 'weir_internal'::regnamespace))
SQL
	sql(<<'SQL');
SET lock_timeout = '10s';
SELECT weir.pause('joined'), weir.resume('joined'), weir.pause('rides'), weir.resume('rides'),
	weir.advance_watermark('rides', '2020-01-01');
SQL
	$session->query_safe('ROLLBACK');
}

# A stream fails meanwhile.
$session->query_safe('BEGIN; SET LOCAL ROLE anybody; ' . join('; ', @renames));
sql('ALTER TABLE fails RENAME name TO other');
WeirTest::sql_becomes($node,
	"SELECT state, last_error_sqlstate FROM weir.stat_stream WHERE stream = 'fails'",
	'failed|42703', 'what has failed is said');
sql("SET lock_timeout = '10s'; SELECT weir.drop_stream('fails', drop_target => true)");
$session->query_safe('COMMIT');

# Two at a time that do concern it: the second waits for the first.
$session->query_safe('BEGIN; ALTER TABLE zones RENAME TO areas; ALTER TABLE own.t RENAME COLUMN name2 TO label');
my $other = $node->background_psql('postgres');
my $other_pid = $other->query_safe('SELECT pg_backend_pid()');
$other->query_until(qr/begun/, "\\echo begun\nALTER TABLE lines RENAME TO routes;\n");
WeirTest::sql_becomes($node, "SELECT $pid = ANY (pg_blocking_pids($other_pid))", 't',
	'a second rename waits for the first');
sql("SET lock_timeout = '10s'; SELECT weir.pause('rides'), weir.resume('rides')");
$session->query_safe('COMMIT');
$session->quit;
$other->query_safe('SELECT 1');
$other->quit;
like(sql("SELECT query FROM weir.streams WHERE stream = 'joined'"),
	qr/public\.areas .*public\.routes /s, 'both are in the text');
sql("SELECT weir.pause('joined'), weir.resume('joined')");
produce();
WeirTest::wait_for($node, 'joined');
is(sql('SELECT count(*) FROM joined'), $n, 'and the stream goes on');

# A right that the owner lacks meanwhile keeps the text from following, so it
# keeps those who can grant it from renaming, and nobody else.
sql(<<'SQL');
CREATE ROLE owner;
CREATE SCHEMA dims;
CREATE TABLE dims.z (id int, name text);
INSERT INTO dims.z VALUES (1, 'one');
GRANT USAGE ON SCHEMA dims TO owner;
GRANT SELECT ON rides, dims.z TO owner;
GRANT CREATE ON SCHEMA public TO owner;
SET ROLE owner;
SELECT weir.create_stream('of_owner', 'SELECT r.id, z.name FROM rides r JOIN dims.z ON z.id = r.id', target => 'public.of_owner');
RESET ROLE;
REVOKE USAGE ON SCHEMA dims FROM owner;
SQL
like(WeirTest::sql_error($node, 'ALTER TABLE dims.z RENAME TO y'),
	qr/^42501.*role "owner".*permission denied for schema dims.*HINT/s, 'no rename that the text cannot follow');
sql('SET ROLE anybody; CREATE TABLE own.more (id int); CREATE TABLE own.of_more (x own.more); ALTER TABLE own.more RENAME COLUMN id TO z');
sql('GRANT USAGE ON SCHEMA dims TO owner; ALTER TABLE dims.z RENAME TO y');
produce();
sql("SELECT weir.resume('of_owner')");
WeirTest::wait_for($node, 'of_owner');
is(sql('SELECT count(*) FROM of_owner'), $n / 2, 'it follows when it can');

$node->stop;
done_testing();
