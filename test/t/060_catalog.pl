# Definitions while data flows: looking, pausing, renaming, seeking, dumping.
#
# Proves, on the embedded broker: without preload CREATE EXTENSION refuses
# (rule 8); sample() gives the newest records of all partitions; a source
# without a stream shows a preview, with Kafka's columns, and keeps no lock
# on its segments after the scan (rule 4); pause and resume; wait_for
# (rule 9) and its refusals; renames under a running stream (rule 8);
# seek back restates the same result (rule 11); a dump restores into a
# paused database that goes on from where it was after adopt_database().

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support", "$FindBin::RealBin/../../support";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

##
## Without preload
##

my $bare = PostgreSQL::Test::Cluster->new('bare');
$bare->init(extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ]);
$bare->start;
like(WeirTest::sql_error($bare, 'CREATE EXTENSION weir'),
	qr/^55000.*shared_preload_libraries.*HINT:.*restart/s,
	'CREATE EXTENSION without preload');
is(WeirTest::sql($bare,
		"SELECT count(*) FROM pg_extension WHERE extname = 'weir'"),
	'0', 'and nothing is made');
$bare->stop;

my $broker = WeirBroker->embedded(topics => { rides => 2, empty => 1 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

##
## sample
##

my @lines = map { sprintf '%d	{"id": %d, "zone": %d, "at": "2024-01-01T00:%02d:00Z"}',
	$_ % 2, $_, $_ % 3, $_ } 0 .. 19;
$broker->produce('rides', \@lines, partition_field => 1,
	headers => ['origin=test']);

is(WeirTest::sql($node, "SELECT count(*) FROM weir.sample('kafka', 'rides', 100)"),
	'20', 'sample: all there is');
is(WeirTest::sql($node, "SELECT count(*), count(DISTINCT kafka_partition),
		min(kafka_offset) >= 7 FROM weir.sample('kafka', 'rides', n => 4)"),
	'4|2|t', 'sample: the newest of all partitions');
is(WeirTest::sql($node, "SELECT count(*) FROM weir.sample('kafka', 'empty')"),
	'0', 'sample: an empty topic');
is(WeirTest::sql($node, "SELECT payload::jsonb ->> 'id' FROM weir.sample('kafka', 'rides', 100)
		WHERE kafka_partition = 1 AND kafka_offset = 2"),
	'5', 'sample: payload as text');
like(WeirTest::sql_error($node, "SELECT * FROM weir.sample('kafka', 'rides', 0)"),
	qr/^22023/, 'sample: n');

##
## The preview of a source without streams
##

WeirTest::create_source($node, 'rides',
	columns => 'id bigint NOT NULL, zone int, at timestamptz',
	event_time => 'at', filter => 'zone <> 9');
WeirTest::sql_becomes($node, 'SELECT count(*) FROM rides', '20',
	'the preview shows what is staged');
is(WeirTest::sql($node, "SELECT id, zone, at = '2024-01-01 00:05Z',
		kafka_topic, kafka_partition, kafka_offset, kafka_timestamp IS NOT NULL
		FROM rides WHERE id = 5"),
	'5|2|t|rides|1|2|t', 'each column in its place');
is(WeirTest::sql($node, 'SELECT count(*) FROM rides a JOIN rides b USING (id)'),
	'20', 'scanned twice in a query');
is(WeirTest::sql($node, "SELECT count(*) FROM zones z, LATERAL
		(SELECT * FROM rides r WHERE r.zone = z.id LIMIT 1) x"
		=~ s/zones z/generate_series(0, 2) z(id)/r),
	'3', 'scanned again and again');
is(WeirTest::sql($node, "BEGIN; SELECT count(*) FROM rides;
		SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
		WHERE l.pid = pg_backend_pid()
		AND c.relnamespace = 'weir_internal'::regnamespace
		AND c.relname LIKE '%segment%'; COMMIT"),
	"20\n0", 'no lock on a segment after the scan');

##
## A stream; wait_for; pause and resume
##

WeirTest::sql($node, "CREATE TABLE zones (id int PRIMARY KEY, name text);
	INSERT INTO zones VALUES (0, 'a'), (1, 'b'), (2, 'c')");
WeirTest::create_stream($node, 'per_zone', <<'SQL');
SELECT w.window_start, z.name AS zone, count(*) AS n
FROM rides r CROSS JOIN weir.tumble(r.at, '10 minutes') w
	JOIN zones z ON z.id = r.zone
GROUP BY w.window_start, z.name
SQL
WeirTest::wait_for($node, 'per_zone');
my $result = 'SELECT window_start, zone, n FROM per_zone ORDER BY 1, 2';
is(WeirTest::sql($node, 'SELECT sum(n), count(*) FROM per_zone'), '20|6',
	'rows in their windows');
is(WeirTest::sql($node, "SELECT weir.watermark('per_zone') IS NULL"), 'f',
	'there is a watermark');
my $first = WeirTest::sql($node, $result);

like(WeirTest::sql_error($node, "BEGIN; SELECT weir.create_stream('new', 'SELECT id FROM rides');
		SELECT weir.wait_for('new')"),
	qr/^55000.*this transaction/s, 'wait_for: made in this transaction');
like(WeirTest::sql_error($node, "BEGIN ISOLATION LEVEL REPEATABLE READ;
		SELECT weir.wait_for('per_zone')"),
	qr/^25001/, 'wait_for: with an old snapshot');

WeirTest::sql($node, "SELECT weir.pause('per_zone')");
like(WeirTest::sql_error($node, "SELECT weir.wait_for('per_zone')"),
	qr/^55000.*paused.*HINT/s, 'wait_for: a paused stream');
$broker->produce('rides', '{"id": 100, "zone": 0, "at": "2024-01-01T00:19:00Z"}');
is(WeirTest::sql($node, 'SELECT sum(n) FROM per_zone'), '20',
	'a paused stream applies nothing');
WeirTest::sql($node, "SELECT weir.resume('per_zone')");
WeirTest::wait_for($node, 'per_zone');
is(WeirTest::sql($node, 'SELECT sum(n) FROM per_zone'), '21',
	'and goes on when resumed');
WeirTest::sql($node, "SELECT weir.pause('rides')");
like(WeirTest::sql_error($node, "SELECT weir.wait_for('per_zone')"),
	qr/^55000.*source is paused/s, 'wait_for: a paused source');
WeirTest::sql($node, "SELECT weir.resume('rides')");

##
## Renames, while rows come in
##

my $producer = $broker->producer('rides', partition_field => 1);
my $id = 200;
for my $rename ('ALTER FOREIGN TABLE rides RENAME TO trips',
	'ALTER FOREIGN TABLE trips RENAME COLUMN zone TO area',
	'ALTER TABLE zones RENAME TO areas',
	'ALTER TABLE areas RENAME COLUMN name TO label',
	'CREATE SCHEMA app; ALTER FOREIGN TABLE trips SET SCHEMA app')
{
	$producer->send(map { sprintf '%d	{"id": %d, "zone": %d, "at": "2024-01-01T00:18:00Z"}',
		$_ % 2, $_, $_ % 3 } $id .. $id + 9);
	$id += 10;
	WeirTest::sql($node, $rename);
}
$producer->finish;
WeirTest::wait_for($node, 'per_zone');
is(WeirTest::sql($node, 'SELECT sum(n) FROM per_zone'), '71',
	'renames lose nothing and fail nothing');
is(WeirTest::sql($node, "SELECT source, filter FROM weir.sources"),
	'trips|(area <> 9)', 'the definition has the new names');

##
## Seek back: the same again
##

my $before = WeirTest::sql($node, $result);
WeirTest::sql($node, "SELECT weir.seek('per_zone', 'earliest')");
WeirTest::wait_for($node, 'per_zone');
is(WeirTest::sql($node, $result), $before, 'sought to earliest: restated');

##
## Dump and restore
##

my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '--no-sync', '-f', $dump, '-d',
		$node->connstr('postgres') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump,
		'-d', $node->connstr('copy') ], 'restore');
my @copy = (dbname => 'copy');
is(WeirTest::sql($node, 'SELECT source, relation, streams FROM weir.sources', @copy),
	'trips|app.trips|{per_zone}', 'the source is there');
is(WeirTest::sql($node, "SELECT name, target, state = ('weir_internal.state_' || stream_id)::regclass
		FROM weir_internal.stream", @copy),
	'per_zone|per_zone|t', 'the stream is there, with its target and state');
is(WeirTest::sql($node, 'SELECT s.applied = m.applied FROM
		(SELECT sum(applied_offset) AS applied FROM weir_internal.progress) s,
		(SELECT 71 AS applied) m', @copy),
	't', 'and its progress');
$broker->produce('rides', '{"id": 300, "zone": 0, "at": "2024-01-01T00:18:00Z"}');
WeirTest::wait_for($node, 'per_zone');
is(WeirTest::sql($node, 'SELECT sum(n) FROM per_zone', @copy), '71',
	'the copy applies nothing by itself');
WeirTest::sql($node, 'SELECT weir.adopt_database()', @copy);
WeirTest::sql($node, "SELECT weir.wait_for('per_zone')", @copy);
is(WeirTest::sql($node, $result, @copy), WeirTest::sql($node, $result),
	'adopted, it goes on from where it was');
is(WeirTest::sql($node, "SELECT weir.create_source('more', 'kafka', 'rides', 'id int') IS NULL", @copy),
	'f', 'new definitions get new numbers');

##
## Drop
##

WeirTest::sql($node, "SELECT weir.drop_source('app.trips', cascade => true)");
WeirTest::sql_becomes($node, "SELECT count(*) FROM pg_class
	WHERE relnamespace = 'weir_internal'::regnamespace
	AND relname ~ '^state_'", '0', 'nothing is left of the stream');
WeirTest::sql($node, 'DROP DATABASE copy');
WeirTest::sql($node, 'DROP EXTENSION weir CASCADE');
is(WeirTest::sql($node, "SELECT count(*) FROM pg_namespace WHERE nspname = 'weir_internal'"),
	'0', 'nor of weir');

$node->stop;
done_testing();
