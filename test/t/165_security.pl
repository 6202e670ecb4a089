# Whose code runs as whom, and who sees what.
#
# Proves: expressions of a source (CHECK, DEFAULT, filter, generated columns)
# and of a stream (query, triggers, CHECK and defaults of its target) run as
# their owner with the search_path of their creation, in a security-restricted
# context: no way to another role, no temporary table, no LISTEN, no deferred
# trigger that would run at commit as the worker's user, no object that is not
# the owner's to use.  Objects that shadow those of PostgreSQL, in a schema
# that comes first for everybody, are never called by weir's own statements.
# Secrets of user mappings are shown to nobody else: not by a view, an error,
# pg_stat_activity, nor by the server's log at its most talkative.  Staged
# rows, state and dead letters are their owner's.  Who does not own a stream
# or source cannot pause, resume, seek, drop or explain it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $secret = 'hush-5ecret-hush';
my $broker = WeirBroker->embedded(
	topics => { rides => 1, shadowed => 1, deferred => 1, guarded => 1 });

# PostgreSQL itself logs statements, with what stands in them.
my $node = WeirTest::start_node(
	'main',
	conf => {
		log_statement => 'none',
		log_min_error_statement => 'panic',
		log_min_messages => 'debug1',
		'weir.kafka_log_level' => 'debug'
	});
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

sub sql_as
{
	my ($role, $sql) = @_;
	return WeirTest::sql($node, "SET SESSION AUTHORIZATION $role;\n$sql");
}

sub error_as
{
	my ($role, $sql) = @_;
	return WeirTest::sql_error($node, "SET SESSION AUTHORIZATION $role;\n$sql");
}

sub produce
{
	my ($topic, @ids) = @_;
	$broker->produce($topic,
		[ map { qq({"id":$_,"at":"2024-01-01T00:00:00Z"}) } @ids ]);
	return;
}

my $columns = 'id int NOT NULL, at timestamptz';
sql(<<SQL);
CREATE ROLE alice LOGIN;
CREATE ROLE bob LOGIN;
CREATE SCHEMA alice AUTHORIZATION alice;
CREATE SCHEMA bob AUTHORIZATION bob;
ALTER ROLE alice SET search_path = alice, public;
ALTER ROLE bob SET search_path = bob, public;
GRANT USAGE ON FOREIGN SERVER kafka TO alice;
CREATE USER MAPPING FOR alice SERVER kafka OPTIONS (sasl_username 'alice', sasl_password '$secret');
CREATE TABLE bob.private (v int);
CREATE TABLE public.attempts (place text, what text, result text, who text, path text);
GRANT INSERT, SELECT ON public.attempts TO alice;
SQL

##
## The owner's code
##

# What code of alice tries, from wherever it is called, and who it is then.
sql_as('alice', <<'SQL');
SET search_path = alice, public;
CREATE TABLE mine (v int);
CREATE FUNCTION attempt(place text, statement text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	result text := 'done';
BEGIN
	BEGIN
		EXECUTE statement;
	EXCEPTION WHEN OTHERS THEN
		result := SQLSTATE;
	END;
	INSERT INTO public.attempts VALUES (place, statement, result, current_user,
		current_setting('search_path'));
END $$;
CREATE FUNCTION attempts(place text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM alice.attempt(place, s) FROM unnest(ARRAY[
		'SET ROLE postgres', 'RESET ROLE', 'SET LOCAL ROLE bob',
		'SET SESSION AUTHORIZATION postgres', 'RESET SESSION AUTHORIZATION',
		'SELECT pg_catalog.set_config(''role'', ''postgres'', false)',
		'CREATE TEMPORARY TABLE t (v int)', 'LISTEN x', 'DISCARD ALL',
		'SELECT * FROM bob.private', 'CREATE ROLE carol SUPERUSER',
		'ALTER SYSTEM SET work_mem = ''1MB''',
		'UPDATE weir_internal.stream SET owner = ''alice''',
		'SELECT * FROM weir_internal.progress',
		'INSERT INTO weir.dead_letter DEFAULT VALUES',
		'SELECT pg_catalog.pg_read_file(''postgresql.conf'')',
		'SELECT 1 / count(*) FROM weir.dead_letter WHERE owner::text <> ''alice''',
		'INSERT INTO alice.mine VALUES (1)']) s;
	RETURN true;
END $$;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM alice.attempts('trigger of the target');
	RETURN NEW;
END $$;
-- called "immutable", so that it may stand anywhere
CREATE FUNCTION who(v int) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
	r text;
BEGIN
	BEGIN
		PERFORM set_config('role', 'postgres', true);
		r := 'escaped as ' || current_user;
	EXCEPTION WHEN OTHERS THEN
		r := SQLSTATE;
	END;
	RETURN current_user || ' ' || current_setting('search_path') || ' '
		|| current_setting('TimeZone') || ' ' || current_setting('DateStyle') || ' ' || r;
END $$;
CREATE FUNCTION passes(v int) RETURNS boolean IMMUTABLE LANGUAGE sql AS
	$$ SELECT alice.who(v) = 'alice alice, public Asia/Tokyo German, DMY 42501' $$;
CREATE TABLE rides_of (id int, who text, source_who text, d text,
	default_who text DEFAULT alice.who(0), CHECK (alice.passes(id)));
CREATE TRIGGER tell BEFORE INSERT ON rides_of FOR EACH ROW EXECUTE FUNCTION tell();
SET TimeZone = 'Asia/Tokyo';
SET DateStyle = 'German';
SELECT weir.create_source('rides', 'kafka', 'rides', $$
	id int NOT NULL CHECK (alice.attempts('CHECK of the source')),
	source_who text GENERATED ALWAYS AS (who(id)) STORED,
	d text DEFAULT who(1), at timestamptz $$,
	event_time => 'at', filter => 'passes(id)');
SELECT weir.create_stream('rides_of', 'SELECT r.id, who(r.id) AS who, r.source_who, r.d FROM rides r WHERE passes(r.id)',
	target => 'rides_of');
SELECT weir.create_stream('who_counts', 'SELECT who(r.id) AS who, count(*) AS n, max(who(r.id)) AS most
	FROM rides r GROUP BY who(r.id) HAVING passes(count(*)::int)');
SQL
produce('rides', 1 .. 2);
WeirTest::wait_for($node, qw(rides_of who_counts));
my $who = 'alice alice, public Asia/Tokyo German, DMY 42501';
is( sql('SELECT id, who, source_who, d, default_who FROM alice.rides_of ORDER BY id'),
	join("\n", map { join '|', $_, ($who) x 4 } 1 .. 2),
	'who it is: in a row stream, generated column, DEFAULT, default of the target');
is(sql('SELECT * FROM alice.who_counts'), "$who|2|$who", 'in an aggregate');
is( sql("SELECT rows_in, rows_filtered, rows_dead FROM weir.stat_source WHERE source = 'rides'"),
	'2|0|0', 'in the filter');
is( sql(<<'SQL'), "CHECK of the source\ntrigger of the target", 'each place has tried');
SELECT DISTINCT place FROM attempts ORDER BY 1
SQL
is( sql(<<'SQL'), '', 'as its owner, with the search_path of its creation');
SELECT * FROM attempts
WHERE who <> 'alice' OR path NOT IN ('alice, public', 'pg_catalog, alice, public')
SQL
is( sql(<<'SQL'), '', 'what would leave the role or the context is refused');
SELECT DISTINCT place, what, result FROM attempts
WHERE result = 'done' AND what <> 'INSERT INTO alice.mine VALUES (1)'
SQL
is( sql(<<'SQL'), '22012', 'the dead letters of others cannot be counted');
SELECT DISTINCT result FROM attempts WHERE what LIKE '%weir.dead_letter WHERE%'
SQL
is(sql('SELECT count(*) FROM alice.mine') > 0 ? 'written' : 'not written',
	'written', 'what its owner may do is done');
is(sql("SELECT count(*) FROM pg_roles WHERE rolname = 'carol'"), 0, 'no new role');

##
## At commit, the worker is itself again: nothing of the owner's may run then
##

my %deferring = (
	deferred_by_set => 'DEFERRABLE INITIALLY IMMEDIATE',
	deferred_by_table => 'DEFERRABLE INITIALLY DEFERRED');
sql_as('alice', <<'SQL');
SET search_path = alice, public;
SELECT weir.create_source('deferred', 'kafka', 'deferred', 'id int NOT NULL, at timestamptz', event_time => 'at');
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.attempts VALUES ('commit', TG_TABLE_NAME, 'done', current_user, '');
	RETURN NULL;
END $$;
CREATE FUNCTION defer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	SET CONSTRAINTS ALL DEFERRED;
	RETURN NEW;
END $$;
SQL
for my $name (sort keys %deferring)
{
	sql_as('alice', <<SQL);
SET search_path = alice, public;
SELECT weir.create_stream('$name', 'SELECT d.id FROM deferred d');
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON $name
	$deferring{$name} FOR EACH ROW EXECUTE FUNCTION at_commit();
CREATE TRIGGER defer BEFORE INSERT ON $name FOR EACH ROW EXECUTE FUNCTION defer();
SQL
}
produce('deferred', 1 .. 2);
for my $name (sort keys %deferring)
{
	WeirTest::sql_becomes($node,
		"SELECT state, last_error_sqlstate FROM weir.stat_stream WHERE stream = '$name'",
		'failed|42501', "$name: a deferred trigger of the target is refused");
}
is( sql("SELECT * FROM attempts WHERE place = 'commit' AND who <> 'alice'"),
	'', 'and none has run at commit');

# The same from a CHECK of the source that writes a table.
sql_as('alice', <<'SQL');
SET search_path = alice, public;
CREATE TABLE noted (id int);
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON noted
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit();
CREATE FUNCTION note(id int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO alice.noted VALUES (id);
	RETURN true;
END $$;
SELECT weir.create_source('deferred_check', 'kafka', 'deferred', 'id int NOT NULL CHECK (alice.note(id)), at timestamptz', event_time => 'at');
SELECT weir.create_stream('deferred_check_rows', 'SELECT d.id FROM deferred_check d');
SQL
WeirTest::sql_becomes($node,
	"SELECT DISTINCT state, last_error_sqlstate FROM weir.stat_source WHERE source = 'deferred_check'",
	'stopped|42501', 'nor one from a CHECK of the source');
is( sql("SELECT * FROM attempts WHERE place = 'commit' AND who <> 'alice'"),
	'', 'none has run at commit either');

##
## Shadows of PostgreSQL's own functions and operators
##

sql(<<'SQL');
CREATE SCHEMA shadow;
GRANT USAGE ON SCHEMA shadow TO PUBLIC;
SQL
my @shadows = (
	[ 'bigint', 'bigint', '=' ], [ 'bigint', 'bigint', '<' ],
	[ 'bigint', 'integer', '=' ], [ 'integer', 'integer', '=' ],
	[ 'timestamptz', 'timestamptz', '<=' ],
	[ 'timestamptz', 'timestamptz', '>' ], [ 'name', 'text', '=' ],
	[ 'text', 'text', '=' ], [ 'oid', 'oid', '=' ]);
sql("CREATE FUNCTION shadow.op(a $_->[0], b $_->[1]) RETURNS boolean LANGUAGE plpgsql AS "
	  . "'BEGIN RAISE EXCEPTION ''shadow seen by %'', current_user; END'; "
	  . "CREATE OPERATOR shadow.$_->[2] (LEFTARG = $_->[0], RIGHTARG = $_->[1], FUNCTION = shadow.op)")
  for grep { $_->[2] eq '=' } @shadows;
sql("CREATE FUNCTION shadow.op_$_->[3](a $_->[0], b $_->[1]) RETURNS boolean LANGUAGE plpgsql AS "
	  . "'BEGIN RAISE EXCEPTION ''shadow seen by %'', current_user; END'; "
	  . "CREATE OPERATOR shadow.$_->[2] (LEFTARG = $_->[0], RIGHTARG = $_->[1], FUNCTION = shadow.op_$_->[3])")
  for map { [ @{ $shadows[$_] }, $_ ] }
  grep { $shadows[$_][2] ne '=' } 0 .. $#shadows;
sql("CREATE FUNCTION shadow.$_ LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''shadow seen by %'', current_user; END'")
  for 'unnest(bigint[]) RETURNS SETOF bigint', 'now() RETURNS timestamptz',
  'lower(text) RETURNS text', 'to_jsonb(anyelement) RETURNS jsonb',
  'set_config(text, text, boolean) RETURNS text',
  'coalesce_sum(bigint) RETURNS bigint';
sql(<<'SQL');
ALTER DATABASE postgres SET search_path = shadow, public, pg_catalog;
ALTER ROLE postgres SET search_path = shadow, public, pg_catalog;
SQL
$node->restart;

# Its own search_path is no better; what it means is its own affair, but the
# statements that weir adds are not.
sql_as('alice', <<'SQL');
SET search_path = pg_catalog;
SELECT weir.create_source('alice.shadowed', 'kafka', 'shadowed', 'id int NOT NULL, k text, at timestamptz', event_time => 'at');
SET search_path = shadow, alice, public, pg_catalog;
SELECT weir.create_stream('shadow_windows', 'SELECT w.window_start, s.k, count(*) AS n, sum(s.id) AS sum_id, avg(s.id) AS avg_id,
	stddev(s.id) AS dev, min(s.at) AS first FROM alice.shadowed s CROSS JOIN weir.tumble(s.at, ''5 seconds'') w GROUP BY w.window_start, s.k', target => 'alice.shadow_windows');
SELECT weir.create_stream('shadow_hops', 'SELECT w.window_start, w.window_end, s.k, count(*) AS n
	FROM alice.shadowed s CROSS JOIN weir.hop(s.at, ''10 seconds'', ''5 seconds'') w GROUP BY w.window_start, w.window_end, s.k', emit => 'on_close', target => 'alice.shadow_hops');
SELECT weir.create_stream('shadow_keyed', 'SELECT s.id, s.k FROM alice.shadowed s', options => '{"key": ["id"]}', target => 'alice.shadow_keyed');
SQL
$broker->produce('shadowed', [
	(map { sprintf '{"id":%d,"k":"k%d","at":"2024-01-01T00:00:%02dZ"}', $_, $_ % 3, $_ } 0 .. 29),
	'{"id":"broken"}' ]);
my @shadow = qw(shadow_windows shadow_hops shadow_keyed);
WeirTest::wait_for($node, @shadow);
sql("SELECT weir.advance_watermark('shadowed')");
$broker->produce('shadowed', [ '{"id":30,"k":"k0","at":"2024-01-01T00:00:00Z"}' ]);
WeirTest::wait_for($node, @shadow);
is( sql(<<'SQL'), '6|435|30', 'results are right for all that');
SELECT (SELECT pg_catalog.count(*) FROM (SELECT DISTINCT window_start FROM alice.shadow_windows) w),
	(SELECT pg_catalog.sum(sum_id) FROM alice.shadow_windows),
	(SELECT pg_catalog.max(id) FROM alice.shadow_keyed)
SQL

unlike(slurp_file($node->logfile), qr/shadow seen by/,
	'no shadow was called by anybody');
sql(<<'SQL');
ALTER DATABASE postgres RESET search_path;
ALTER ROLE postgres RESET search_path;
SQL

##
## Secrets
##

for my $role (qw(alice bob postgres))
{
	for my $view (qw(sources streams stat_source stat_stream stat_worker dead_letter))
	{
		unlike(sql_as($role, "SELECT * FROM weir.$view"), qr/\Q$secret\E/,
			"$role does not see the secret in weir.$view");
	}
	unlike(sql_as($role, 'SELECT * FROM pg_stat_activity'),
		qr/\Q$secret\E/, "nor in pg_stat_activity");
	next if $role eq 'postgres';
	unlike(sql_as($role, 'SELECT * FROM pg_foreign_server; SELECT * FROM pg_foreign_table'),
		qr/\Q$secret\E/, 'nor in the catalogs');
}
unlike(sql_as('bob', 'SELECT * FROM pg_user_mappings'),
	qr/\Q$secret\E/, 'a mapping is not shown to others');
like(error_as('bob', 'SELECT umoptions FROM pg_user_mapping'),
	qr/^42501/, 'nor is its table');
unlike(
	WeirTest::sql_error($node, <<SQL), qr/\Q$secret\E/, 'an option that is refused is not quoted');
ALTER USER MAPPING FOR alice SERVER kafka OPTIONS (ADD sasl_pasword '$secret')
SQL
unlike(slurp_file($node->logfile), qr/\Q$secret\E/, 'and the log knows nothing of it');

##
## Staged rows, state, dead letters
##

sql_as('alice', <<'SQL');
SET search_path = alice, public;
SELECT weir.create_source('guarded', 'kafka', 'guarded', 'id int NOT NULL, hidden text DEFAULT ''hidden'', at timestamptz', event_time => 'at');
SELECT weir.create_stream('guarded_counts', 'SELECT g.id, count(*) AS n FROM alice.guarded g GROUP BY g.id');
GRANT USAGE ON SCHEMA alice TO bob;
GRANT SELECT ON alice.guarded TO bob;
SQL
sql_as('bob', "SELECT weir.create_stream('bobs', 'SELECT g.id, 10 / g.id AS q FROM alice.guarded g', target => 'bob.bobs')");
produce('guarded', 0 .. 9);
$broker->produce('guarded', ['broken']);
WeirTest::wait_for($node, qw(guarded_counts bobs));
is(sql_as('bob', 'SELECT string_agg(stream || reason, \' \') FROM weir.dead_letter'),
	'bobsquery', 'bob sees the dead letters of his stream');
is( sql_as('alice', "SELECT string_agg(reason, ' ') FROM weir.dead_letter WHERE source = 'guarded'"),
	'decode', 'alice those of her source');
is(sql_as('bob', "DELETE FROM weir.dead_letter; SELECT count(*) FROM weir.dead_letter"),
	0, 'each deletes the own');
is( sql("SELECT count(*) FROM weir.dead_letter WHERE source = 'guarded'"),
	1, 'and no other');

my $relations = <<'SQL';
SELECT string_agg(c.oid::regclass::text, ' ') FROM pg_class c
WHERE relnamespace = 'weir_internal'::regnamespace AND relkind IN ('r', 'v')
	AND (relname LIKE 'segment%' OR relname LIKE 'state\_%')
	AND NOT has_table_privilege('bob', c.oid, 'SELECT')
SQL
my @closed = split / /, sql($relations);
cmp_ok(scalar @closed, '>', 5, 'there are segments and states');
like(error_as('bob', "SELECT * FROM $_"), qr/^42501/, "bob does not read $_")
  for @closed;
is( sql(<<'SQL'), 0, 'no segment itself, and no state of another, is readable');
SELECT count(*) FROM pg_class c
WHERE relnamespace = 'weir_internal'::regnamespace AND relkind = 'r'
	AND relowner <> 'bob'::regrole AND has_table_privilege('bob', c.oid, 'SELECT')
	AND NOT (relname = 'dead_letter' AND relrowsecurity)
SQL

##
## Control
##

for my $call (
	"pause('guarded_counts')", "resume('guarded_counts')",
	"seek('guarded_counts', 'earliest')", "drop_stream('guarded_counts')",
	"wait_for('guarded_counts')", "explain('guarded_counts')",
	"watermark('guarded_counts')", "stat_reset('guarded_counts')",
	"pause('guarded')", "resume('guarded')", "advance_watermark('guarded')",
	"drop_source('guarded')", "drop_source('guarded', cascade => true)",
	"stat_reset('guarded')", 'adopt_database()')
{
	like(error_as('bob', "SELECT weir.$call"), qr/^42501/, "bob cannot $call");
}
like(error_as('alice', "SELECT weir.pause('bobs')"), qr/^42501/,
	'nor the owner of the source a stream of bob');
like(error_as('bob', "SELECT weir.create_source('x', 'kafka', 'guarded', 'id int')"),
	qr/^42501/, 'and without USAGE on the server he makes no source');
produce('guarded', 10 .. 19);
WeirTest::wait_for($node, qw(guarded_counts bobs));
is(sql('SELECT count(*) FROM bob.bobs'), 19, 'all go on');

$node->stop;
done_testing();
