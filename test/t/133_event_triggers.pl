# Event triggers of the database.
#
# Proves: neither an event trigger that adds a column to each new table, nor
# one that fails under a worker's search_path, be it enabled for good, gets at
# what weir makes for itself: segments and their views, states, rights on
# them.  What users make with weir, they see: the foreign table and the
# created target fire them, a target may get columns of theirs, which are
# never touched, and a source that would get columns behind Kafka's is
# refused with their reason.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { e => 1, later => 1, second => 1 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

# The first fires for tables only; the second for all there is.
sql(<<'SQL');
CREATE TABLE ddl_log (tag text, object text, who text DEFAULT current_user);
CREATE FUNCTION add_column() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_type = 'table' LOOP
		EXECUTE format('ALTER TABLE %s ADD COLUMN added timestamptz DEFAULT now()', r.objid::regclass);
	END LOOP;
END $$;
CREATE FUNCTION unqualified() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ddl_log SELECT command_tag, object_identity FROM pg_event_trigger_ddl_commands();
END $$;
CREATE EVENT TRIGGER add_column ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS')
	EXECUTE FUNCTION add_column();
CREATE EVENT TRIGGER unqualified ON ddl_command_end EXECUTE FUNCTION unqualified();
SQL

my $tumble = <<'SQL';
SELECT w.window_start, e.k, count(*) AS n FROM e CROSS JOIN weir.tumble(e.at, '1 minute') w
GROUP BY w.window_start, e.k
SQL

# Everything that makes relations: creation, detached streams, a stream of
# another role that may read some columns, a new start.
sub round
{
	my ($round) = @_;
	WeirTest::create_source($node, 'e', columns => 'id int, k text, at timestamptz',
		event_time => 'at');
	WeirTest::create_stream($node, 'e_rows', 'SELECT e.id, e.k FROM e');
	WeirTest::create_stream($node, 'e_keyed', 'SELECT e.id, e.k FROM e', options => '{"key": "k"}');
	WeirTest::create_stream($node, 'e_windows', $tumble);
	WeirTest::create_stream($node, 'e_closed', $tumble, emit => 'on_close');
	sql(<<'SQL');
GRANT SELECT (id, k) ON e TO reader;
SET ROLE reader;
SELECT weir.create_stream('e_reader', 'SELECT e.id FROM e');
SQL
	$broker->produce('e',
		[ map { sprintf '{"id":%d,"k":"%s","at":"2024-01-01T0%d:%02d:00Z"}', $_, $_ % 3, $round, $_ } 0 .. 29 ]);
	my @streams = qw(e_rows e_keyed e_windows e_closed e_reader);
	WeirTest::wait_for($node, @streams);
	for my $pid (WeirTest::worker_pids($node, 'ingest'))
	{
		sql("SELECT pg_terminate_backend($pid)");
	}
	sql("SELECT weir.seek('e_rows', 'earliest')");
	WeirTest::wait_for($node, @streams);
	my $n = $round * 30;
	is(sql('SELECT count(*) FROM e_rows'), $n, "round $round: rows");
	is(sql('SELECT count(*) FROM e_keyed'), 3, "round $round: keyed rows");
	is(sql('SELECT sum(n) FROM e_windows'), $n, "round $round: windows");
	is(sql('SELECT sum(n) FROM e_closed'), $n - 1, "round $round: closed windows");
	is(sql('SELECT count(*) FROM e_reader'), $n, "round $round: rows of another");
	is(sql(<<'SQL'), '', "round $round: nothing of weir's has a column too many");
SELECT attrelid::regclass FROM pg_attribute
WHERE attname = 'added' AND attrelid::regclass::text ~ '^weir'
SQL
	is(sql("SELECT string_agg(DISTINCT tag || ' ' || object, ', ') FROM ddl_log WHERE object ~ 'weir_internal'"),
		'', "round $round: nor was anybody told of it");
	return;
}

sql('CREATE ROLE reader; GRANT CREATE ON SCHEMA public TO reader; GRANT INSERT ON ddl_log TO reader');
round(1);
is(sql(<<'SQL'), 'e_closed, e_keyed, e_reader, e_rows, e_windows', 'the created targets fired, and have a column more');
SELECT string_agg(c.relname, ', ' ORDER BY c.relname) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE a.attname = 'added' AND c.relkind = 'r'
SQL
is(sql("SELECT count(*) FROM ddl_log WHERE object ~ 'public.e_rows' AND tag = 'CREATE TABLE'"), 1, 'users see what they make');
sql("SELECT weir.drop_stream(stream, drop_target => true) FROM weir.streams; SELECT weir.drop_source('e')");
WeirTest::sql_becomes($node, "SELECT count(*) FROM pg_class WHERE relname ~ '^segment'", 0, 'all can be dropped');

sql('ALTER EVENT TRIGGER add_column ENABLE ALWAYS; ALTER EVENT TRIGGER unqualified ENABLE ALWAYS');
round(2);

# A target that cannot be written is refused before it fails.
sql(<<'SQL');
CREATE FUNCTION add_not_null() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_type = 'table' LOOP
		EXECUTE format('ALTER TABLE %s ADD COLUMN needed int NOT NULL', r.objid::regclass);
	END LOOP;
END $$;
CREATE EVENT TRIGGER add_not_null ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
	EXECUTE FUNCTION add_not_null();
SQL
like(
	WeirTest::sql_error($node, "SELECT weir.create_stream('needy', 'SELECT e.id FROM e')"),
	qr/^\w{5}:? +column "needed" of target "needy" is NOT NULL/, 'a target that cannot be written is refused');
sql('DROP EVENT TRIGGER add_not_null');

# A column behind Kafka's is none that a record could give.
sql(<<'SQL');
CREATE FUNCTION add_to_foreign() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_type = 'foreign table' LOOP
		EXECUTE format('ALTER FOREIGN TABLE %s ADD COLUMN added timestamptz', r.objid::regclass);
	END LOOP;
END $$;
CREATE EVENT TRIGGER add_to_foreign ON ddl_command_end WHEN TAG IN ('CREATE FOREIGN TABLE')
	EXECUTE FUNCTION add_to_foreign();
SQL
like(
	WeirTest::sql_error($node, "SELECT weir.create_source('later', 'kafka', 'later', 'id int')"),
	qr/^55000.*DETAIL.*event trigger/s, 'a source with foreign columns is refused, with the reason');

# One that takes the table away, or gives it another name or place.
sql('DROP EVENT TRIGGER add_to_foreign; CREATE SCHEMA elsewhere');
for my $change ('RENAME TO another', 'SET SCHEMA elsewhere', 'DROP')
{
	my $command = $change eq 'DROP' ? 'DROP %2$s %1$s' : "ALTER %2\$s %1\$s $change";
	sql(<<"SQL");
CREATE OR REPLACE FUNCTION move() RETURNS event_trigger LANGUAGE plpgsql AS \$\$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_identity ~ '^public.moved' LOOP
		EXECUTE format('$command', r.objid::regclass, r.object_type);
	END LOOP;
END \$\$;
CREATE EVENT TRIGGER move ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'CREATE FOREIGN TABLE')
	EXECUTE FUNCTION move();
SQL
	for my $call ("weir.create_source('moved', 'kafka', 'later', 'id int')",
		"weir.create_stream('moved', 'SELECT e.id FROM e')",
		qq(weir.create_stream('moved', 'SELECT e.id FROM e', options => '{"key": "id"}')))
	{
		like(WeirTest::sql_error($node, "SELECT $call"),
			qr/^55000:? .*moved is not there after it was made.*DETAIL.*event trigger.*move/s, "$change: $call is refused, with the reason");
	}
	sql('DROP EVENT TRIGGER move');
}
is(sql("SELECT count(*) FROM pg_class WHERE relname IN ('moved', 'another')"), 0, 'and nothing is left');

# The extension itself, made where tables get columns.
my $in = { dbname => 'second' };
sql('CREATE DATABASE second');
WeirTest::sql($node, <<'SQL', %$in);
CREATE FUNCTION add_column() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_type = 'table' LOOP
		EXECUTE format('ALTER TABLE %s ADD COLUMN IF NOT EXISTS added timestamptz DEFAULT now()', r.objid::regclass);
	END LOOP;
END $$;
CREATE EVENT TRIGGER add_column ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
	EXECUTE FUNCTION add_column();
CREATE EXTENSION weir;
SQL
WeirTest::create_server($node, $broker, %$in);
WeirTest::create_source($node, 'second', columns => 'id int', %$in);
WeirTest::create_stream($node, 'second_rows', 'SELECT s.id FROM second s', %$in);
$broker->produce('second', [ map { qq({"id":$_}) } 1 .. 10 ]);
$broker->produce('second', ['bad']);
WeirTest::sql($node, "SELECT weir.wait_for('second_rows')", %$in);
is(WeirTest::sql($node, 'SELECT count(*), (SELECT count(*) FROM weir.dead_letter) FROM second_rows', %$in),
	'10|1', 'an extension made under an event trigger works');
is(WeirTest::sql($node, 'DELETE FROM weir.dead_letter RETURNING reason', %$in), 'decode', 'all of it');

$node->stop;
done_testing();
