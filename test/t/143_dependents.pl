# What others make of weir's own relations is in nobody's way.
#
# Proves: an ordinary role cannot name what lies in weir_internal; the owner
# of a stream can, and whatever he makes that depends on segments (views,
# materialized views, rules, functions, policies, columns and arguments of
# their row types), their drop succeeds, the manager lives on, and so do the
# other streams; one that cannot be dropped keeps no other, and goes when it
# can.  Rights on the schema come and go with the streams of a role; on
# segments there are none.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { events => 1, others => 1 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);
for my $source (qw(events others))
{
	WeirTest::create_events_source($node, $source);
}
WeirTest::sql($node, <<'SQL');
CREATE ROLE anybody LOGIN;
CREATE ROLE owner LOGIN;
GRANT ALL ON SCHEMA public TO anybody, owner;
GRANT SELECT ON events TO owner;
SET ROLE owner;
SELECT weir.create_stream('counts', 'SELECT e.k, count(*) AS n FROM events e GROUP BY e.k');
RESET ROLE;
SELECT weir.create_stream('rest', 'SELECT o.k, count(*) AS n FROM others o GROUP BY o.k');
SQL
my $sent = 0;

sub produce
{
	my ($topic) = @_;
	$broker->produce($topic, [ map { '{"id":' . ++$sent . ',"k":"a","v":1,"at":"2024-01-01T00:00:00Z"}' } 1 .. 10 ]);
	return;
}

sub usage
{
	my ($role) = @_;
	return WeirTest::sql($node,
		"SELECT has_schema_privilege('$role', 'weir_internal', 'USAGE')");
}

# tables and views of segments of the source, and what was set aside
sub segments
{
	my ($source) = @_;
	return <<SQL;
SELECT count(*) FROM pg_class c
WHERE relnamespace = 'weir_internal'::regnamespace
	AND relname ~ '^(segment_${source}_|aside_)' AND relkind IN ('r', 'v')
SQL
}

produce('events');
produce('others');
WeirTest::wait_for($node, qw(counts rest));
is(WeirTest::sql($node, 'SELECT * FROM counts, rest'), 'a|10|a|10', 'both run');
is(usage('anybody'), 'f', 'an ordinary role has no right on the schema');
is(usage('owner'), 't', 'the owner of a stream has');
my $source = WeirTest::sql($node,
	"SELECT source_id FROM weir_internal.source WHERE relation = 'events'::regclass");
my $view = WeirTest::sql($node, <<SQL);
SELECT relname FROM pg_class WHERE relnamespace = 'weir_internal'::regnamespace
	AND relname ~ '^segment_${source}_0_\\d+_v\$' ORDER BY 1 LIMIT 1
SQL
my $state = WeirTest::sql($node, "SELECT state FROM weir_internal.stream WHERE name = 'counts'");

my @dependents = (
	'CREATE VIEW d_view AS SELECT id FROM weir_internal.%v',
	'CREATE VIEW d_view_of_table AS SELECT 1 AS one FROM weir_internal.%t',
	'CREATE VIEW d_view_of_view AS SELECT * FROM d_view',
	'CREATE MATERIALIZED VIEW d_matview AS SELECT id FROM weir_internal.%v WITH NO DATA',
	'CREATE TABLE d_rule (a int); CREATE RULE r AS ON INSERT TO d_rule DO ALSO SELECT count(*) FROM weir_internal.%v',
	'CREATE FUNCTION d_body() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM weir_internal.%v; END',
	'CREATE FUNCTION d_argument(weir_internal.%v) RETURNS int LANGUAGE sql AS $$SELECT 1$$',
	'CREATE TABLE d_policy (a int); CREATE POLICY p ON d_policy USING (EXISTS (SELECT FROM weir_internal.%v))',
	'CREATE TABLE d_column (a int, s weir_internal.%v)',
	'CREATE TABLE d_array (a int, s weir_internal.%t[])',
	'CREATE VIEW d_state AS SELECT * FROM %s');

for my $role (qw(anybody owner))
{
	for my $dependent (@dependents)
	{
		next if $dependent =~ /d_view_of_view/ && $role eq 'anybody';
		my $table = $view =~ s/_v$//r;
		my $sql = $dependent =~ s/%v/$view/gr =~ s/%t/$table/gr =~ s/%s/$state/gr;
		my $error = WeirTest::sql_error($node,
			"BEGIN; SET ROLE $role; SET search_path = public; $sql; COMMIT");
		like($error, qr/^42501: permission denied for schema weir_internal/,
			"$role: $sql")
		  if $role eq 'anybody';
		is($error, 'no error', "$role: $sql") if $role eq 'owner';
	}
}

##
## A column of the source is renamed: its segments are made anew
##

my ($manager) = WeirTest::worker_pids($node, 'manager');
WeirTest::sql($node, 'ALTER FOREIGN TABLE events RENAME COLUMN txt TO label');
WeirTest::sql($node, "SELECT weir.pause('events')");
WeirTest::sql_becomes($node,
	"SELECT count(*) FROM weir.stat_worker WHERE source = 'events' AND kind = 'ingest'", '0');
WeirTest::sql($node, "SELECT weir.resume('events')");
produce('events');
WeirTest::wait_for($node, 'counts');
is(WeirTest::sql($node, 'SELECT n FROM counts'), '20',
	'segments are made anew in spite of all that depends on them');
WeirTest::sql_becomes($node, <<'SQL', '0', 'which is gone with those replaced');
SELECT count(*) FROM pg_class WHERE relname IN ('d_view', 'd_view_of_view', 'd_matview')
SQL

##
## One that cannot be dropped: its dependent is locked
##

$view = WeirTest::sql($node, <<SQL);
SELECT relname FROM pg_class WHERE relnamespace = 'weir_internal'::regnamespace
	AND relname ~ '^segment_${source}_0_\\d+_v\$' ORDER BY 1 LIMIT 1
SQL
WeirTest::sql($node, "SET ROLE owner; CREATE VIEW d_locked AS SELECT id FROM weir_internal.$view");
my $blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN');
$blocker->query_safe("ALTER VIEW d_locked SET (security_barrier)");
WeirTest::sql($node, "SET lock_timeout = '60s'; SELECT weir.drop_source('events', cascade => true)");
is(WeirTest::sql($node, "SELECT count(*) FROM pg_class WHERE relname = 'd_state'"),
	'0', 'a view of the state goes with it');
WeirTest::sql_becomes($node, segments($source), qr/^[12]$/,
	'what can be dropped is, though a dependent of one is locked');
produce('others');
WeirTest::wait_for($node, 'rest');
is(WeirTest::sql($node, 'SELECT n FROM rest'), '20', 'other streams go on');
is(join(' ', WeirTest::worker_pids($node, 'manager')), $manager,
	'the manager lives');
$blocker->query_safe('COMMIT');
$blocker->quit;
WeirTest::sql_becomes($node, segments($source), '0',
	'the rest goes when it can, without any other event');
is(join(' ', WeirTest::worker_pids($node, 'manager')), $manager,
	'and the manager is the same still');
is(WeirTest::sql($node, "SELECT count(*) FROM d_policy, d_rule, d_column, d_array"),
	'0', 'tables stay, but for what depended');

##
## Rights come and go with streams
##

is(usage('owner'), 'f', 'without a stream the role has no right on the schema');
WeirTest::sql($node, <<'SQL');
GRANT SELECT ON others TO owner, anybody;
SET ROLE owner;
SELECT weir.create_stream('one', 'SELECT o.k, count(*) AS n FROM others o GROUP BY o.k');
SELECT weir.create_stream('two', 'SELECT o.id FROM others o');
SELECT weir.drop_stream('one');
SQL
is(usage('owner'), 't', 'while it has one, it has');
WeirTest::sql($node, 'REASSIGN OWNED BY owner TO anybody');
produce('others');
WeirTest::wait_for($node, 'two');
is(WeirTest::sql($node, 'SELECT count(*) FROM two'), $sent - 20, 'a new owner has it, too');
is(usage('anybody'), 't', 'for as long');
WeirTest::sql($node, 'REVOKE USAGE ON SCHEMA weir_internal FROM anybody');
WeirTest::sql($node, "SELECT weir.pause('two'); SELECT weir.resume('two')");
WeirTest::sql($node, "SELECT weir.stat_reset('two')");
WeirTest::sql_becomes($node, 'SELECT has_schema_privilege(\'anybody\', \'weir_internal\', \'USAGE\')', 't',
	'taken away, its worker asks for it again');

##
## Nothing is granted on segments: there is nothing to take back, and nothing
## in a dump
##

is(WeirTest::sql($node, <<'SQL'), '0', 'no rights on segments but of weir');
SELECT count(*) FROM pg_class c
WHERE relnamespace = 'weir_internal'::regnamespace AND relname ~ '^segment_'
	AND (relacl IS NOT NULL OR EXISTS (SELECT FROM pg_attribute a
		WHERE attrelid = c.oid AND attacl IS NOT NULL))
SQL
my ($dump) = run_command([ 'pg_dump', '--schema-only', '-d', $node->connstr('postgres') ]);
unlike($dump, qr/segment_\d/, 'a dump has nothing of segments');

$node->stop;
done_testing();
