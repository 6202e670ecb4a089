# A dump restores, whatever the way, into a database that goes on exactly.
#
# Proves: pg_dump and pg_restore, plain, custom and directory format, with
# several jobs, section by section, schema and data apart, without owners and
# privileges, bring back all of it; the restored database runs nothing until
# it is adopted, and then every result is that of the same SELECT over all
# rows.  A stream whose position is missing, or whose source is, has failed
# with the reason, and weir.seek() is the way out; what is restored in part is
# not adopted, nor are running aggregates without their state; the same
# database with a new extension is another one.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { events => 3 });
my $node = WeirTest::start_node('main',
	conf => { max_worker_processes => 80, max_wal_size => '1GB' });
my @payloads;

sub produce
{
	my ($n) = @_;
	my @lines = WeirBroker::gen_lines('events',
		events => $n, first => scalar @payloads, seed => 142,
		partitions => 3, disorder_ms => 500);
	$broker->produce('events', \@lines, partition_field => 1);
	push @payloads, map { s/^\d+\t//r } @lines;
	return;
}

my %queries = (
	sums => 'SELECT e.k, count(*) AS n, sum(e.v) AS s FROM events e GROUP BY e.k',
	windows => q{SELECT w.window_start, e.k, count(*) AS n FROM events e CROSS JOIN weir.tumble(e.at, '10 seconds') w GROUP BY w.window_start, e.k},
	rows => 'SELECT e.id, e.k FROM events e',
	latest => 'SELECT e.id, e.v FROM events e');
my @streams = sort keys %queries;

WeirTest::create_server($node, $broker);
WeirTest::create_events_source($node, 'events',
	max_out_of_orderness => '1 second');
WeirTest::sql($node, <<'SQL');
CREATE ROLE owner;
GRANT ALL ON SCHEMA public TO owner;
GRANT SELECT ON events TO owner;
SQL
for my $stream (@streams)
{
	my $options = $stream eq 'latest' ? q{, options => '{"key": "id"}'} : '';
	WeirTest::sql($node, ($stream eq 'sums' ? 'SET ROLE owner; ' : '')
		  . "SELECT weir.create_stream('$stream', " . WeirTest::literal($queries{$stream}) . "$options)");
}
produce(3000);
WeirTest::wait_for($node, @streams);

# The results of a database are those over all rows that were sent.
sub all_equal
{
	my ($name, $dbname) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::sql($node,
		"SELECT weir.wait_for(s, '$WeirTest::timeout s') FROM unnest('{@{[join ',', @streams]}}'::text[]) s",
		dbname => $dbname);
	WeirTest::sql($node, 'DROP TABLE IF EXISTS stored', dbname => $dbname);
	WeirTest::load_events($node, 'stored', \@payloads, dbname => $dbname);
	for my $stream (@streams)
	{
		WeirTest::compare($node, "TABLE $stream",
			$queries{$stream} =~ s/FROM events/FROM stored/r,
			"$name: $stream", dbname => $dbname);
	}
	return;
}

# Nothing runs, whatever has come meanwhile.
sub is_paused
{
	my ($name, $dbname) = @_;
	is(WeirTest::sql($node, <<SQL, dbname => $dbname), 'f|paused', "$name: nothing runs");
SELECT bool_or(kind <> 'manager' AND kind <> 'launcher'), (SELECT string_agg(DISTINCT state, ' ') FROM weir.stat_stream)
FROM weir.stat_worker
SQL
	return;
}

my $dir = $node->basedir;
my $from = $node->connstr('postgres');
$node->command_ok([ 'pg_dump', '--no-sync', '-f', "$dir/plain", '-d', $from ], 'pg_dump, plain');
$node->command_ok([ 'pg_dump', '--no-sync', '-Fc', '-f', "$dir/custom", '-d', $from ], 'pg_dump, custom');
$node->command_ok([ 'pg_dump', '--no-sync', '-Fd', '-j', '4', '-f', "$dir/directory", '-d', $from ], 'pg_dump, directory');
produce(500);

sub restore
{
	my ($name, $dbname, @args) = @_;
	$node->command_ok([ 'pg_restore', '-d', $node->connstr($dbname), @args ], "$name: pg_restore @args[0 .. $#args - 1]");
	return;
}

my @sections = map { [ "--section=$_", "$dir/custom" ] } qw(pre-data data post-data);
my %ways = (
	plain => sub {
		my ($dbname) = @_;
		$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/plain", '-d', $node->connstr($dbname) ], 'plain: psql');
	},
	custom_jobs => sub { restore('custom_jobs', @_, '-j', '4', "$dir/custom") },
	directory_jobs => sub { restore('directory_jobs', @_, '-j', '4', "$dir/directory") },
	one_transaction => sub { restore('one_transaction', @_, '-1', "$dir/custom") },
	sections => sub { restore('sections', $_[0], @$_) for @sections },
	section_jobs => sub { restore('section_jobs', $_[0], '-j', '4', @$_) for @sections },
	apart => sub {
		restore('apart', @_, '--schema-only', "$dir/custom");
		restore('apart', @_, '--data-only', '--disable-triggers', '-j', '4', "$dir/custom");
	},
	without_privileges => sub { restore('without_privileges', @_, '-x', '-j', '2', "$dir/custom") });
for my $way (sort keys %ways)
{
	WeirTest::sql($node, "CREATE DATABASE $way");
	$ways{$way}->($way);
	is_paused($way, $way);
	WeirTest::sql($node, 'GRANT SELECT ON events TO owner', dbname => $way)
	  if $way eq 'without_privileges';
	WeirTest::sql($node, 'SELECT weir.adopt_database()', dbname => $way);
	all_equal($way, $way);
	WeirTest::sql($node, "DROP DATABASE $way");
}

##
## Without owners the streams' owner has no right on what he writes
##

WeirTest::sql($node, 'CREATE DATABASE no_owner');
restore('no_owner', 'no_owner', '--no-owner', '-j', '4', "$dir/custom");
is_paused('no_owner', 'no_owner');
WeirTest::sql($node, 'SELECT weir.adopt_database()', dbname => 'no_owner');
WeirTest::sql_becomes($node,
	"SELECT state, last_error_sqlstate FROM weir.stat_stream WHERE stream = 'sums'",
	'failed|42501', 'without owners: failed with the reason', dbname => 'no_owner');
WeirTest::sql($node, <<'SQL', dbname => 'no_owner');
ALTER TABLE sums OWNER TO owner;
DO $$ BEGIN EXECUTE (SELECT format('ALTER TABLE %s OWNER TO owner', state) FROM weir_internal.stream WHERE name = 'sums'); END $$;
SELECT weir.resume('sums');
SQL
all_equal('without owners, repaired', 'no_owner');
WeirTest::sql($node, 'DROP DATABASE no_owner');

##
## Parts
##

# all but the data of one table of the catalog
sub restore_without
{
	my ($dbname, $table) = @_;
	WeirTest::sql($node, "CREATE DATABASE $dbname");
	my ($list) = run_command([ 'pg_restore', '-l', "$dir/custom" ]);
	open my $file, '>', "$dir/list" or die $!;
	print $file map { "$_\n" } grep { !/ TABLE DATA weir_internal $table / } split /\n/, $list;
	close $file or die $!;
	restore($dbname, $dbname, '-L', "$dir/list", "$dir/custom");
	return;
}

restore_without('no_position', 'stream_state');
is(WeirTest::sql($node, 'SELECT string_agg(DISTINCT state, $$ $$) FROM weir.stat_stream', dbname => 'no_position'),
	'failed', 'without positions all streams have failed');
WeirTest::sql($node, 'SELECT weir.adopt_database()', dbname => 'no_position');
like(WeirTest::sql($node, "SELECT DISTINCT state, last_error_sqlstate, last_error FROM weir.stat_stream", dbname => 'no_position'),
	qr/^failed\|55000\|its position is missing.*weir\.seek\(\)/, 'with the reason and the way out');
is(WeirTest::sql($node, "SELECT weir.resume('sums'); SELECT state FROM weir.stat_stream WHERE stream = 'sums'", dbname => 'no_position'),
	"\nfailed", 'resuming does not begin anew');
like(WeirTest::sql_error($node, "SELECT weir.seek('sums', '{\"0\": 10}')", dbname => 'no_position'),
	qr/^0A000/, 'what is not known is not ahead');
WeirTest::sql($node, "SELECT weir.seek(s, 'earliest') FROM unnest('{@{[join ',', @streams]}}'::text[]) s", dbname => 'no_position');
all_equal('positions sought', 'no_position');
WeirTest::sql($node, 'DROP DATABASE no_position');

restore_without('no_source', 'source');
is(WeirTest::sql($node, 'SELECT weir.adopt_database(); SELECT DISTINCT state, last_error FROM weir.stat_stream', dbname => 'no_source'),
	"\nfailed|its source is missing, as after a restore of a part", 'without sources');
WeirTest::sql($node, "SELECT weir.drop_stream(s) FROM unnest('{@{[join ',', @streams]}}'::text[]) s", dbname => 'no_source');
WeirTest::sql($node, 'DROP DATABASE no_source');

restore_without('no_stream', 'stream');
like(WeirTest::sql_error($node, 'SELECT weir.adopt_database()', dbname => 'no_stream'),
	qr/^55000: the database has not been restored completely.*state_\d+, state_\d+.*HINT/s, 'without streams it is not adopted');
WeirTest::sql($node, "SELECT weir.create_source('more', 'kafka', 'events', 'id int')", dbname => 'no_stream');
is(WeirTest::sql($node, "SELECT count(*) FROM weir.stat_worker WHERE kind NOT IN ('launcher', 'manager')", dbname => 'no_stream'),
	'0', 'nor by a new source');
WeirTest::sql($node, 'DROP DATABASE no_stream');

my $state = WeirTest::sql($node, "SELECT relname FROM weir_internal.stream m JOIN pg_class c ON c.oid = m.state WHERE m.name = 'sums'");
restore_without('no_state', $state);
like(WeirTest::sql_error($node, 'SELECT weir.adopt_database()', dbname => 'no_state'),
	qr/^55000: the database has not been restored completely.*without state: sums\..*HINT/s, 'without the state of aggregates it is not adopted');
WeirTest::sql($node, "SELECT weir.seek('sums', 'earliest'); SELECT weir.adopt_database()", dbname => 'no_state');
all_equal('aggregates made anew', 'no_state');
WeirTest::sql($node, 'DROP DATABASE no_state');

restore_without('no_cookie', 'cookie');
is_paused('no_cookie', 'no_cookie');
WeirTest::sql($node, 'SELECT weir.adopt_database()', dbname => 'no_cookie');
all_equal('without a cookie', 'no_cookie');

# a position that was never resolved beside state
WeirTest::sql($node, 'CREATE DATABASE never');
restore('never', 'never', "$dir/custom");
WeirTest::sql($node, 'UPDATE weir_internal.stream_state SET applied_offsets = NULL; SELECT weir.adopt_database()', dbname => 'never');
is(WeirTest::sql($node, 'SELECT DISTINCT state FROM weir.stat_stream', dbname => 'never'),
	'failed', 'not resolved, but with state or rows: not new');
WeirTest::sql($node, 'DROP DATABASE never');

# definitions alone
WeirTest::sql($node, 'CREATE DATABASE schema');
restore('schema', 'schema', '--schema-only', "$dir/custom");
WeirTest::sql($node, 'DROP FOREIGN TABLE events CASCADE; DROP TABLE sums, windows, rows, latest', dbname => 'schema');
WeirTest::create_events_source($node, 'events', dbname => 'schema',
	max_out_of_orderness => '1 second');
for my $stream (@streams)
{
	WeirTest::create_stream($node, $stream, $queries{$stream}, dbname => 'schema',
		$stream eq 'latest' ? (options => '{"key": "id"}') : ());
}
all_equal('definitions alone, made anew', 'schema');
WeirTest::sql($node, 'DROP DATABASE schema');

##
## Into the same database, after the extension has been dropped
##

WeirTest::sql($node, <<'SQL', dbname => 'no_cookie');
DROP EXTENSION weir CASCADE;
DROP TABLE sums, windows, rows, latest, stored;
DROP SCHEMA IF EXISTS weir_internal, weir CASCADE;
SQL
restore('again', 'no_cookie', "$dir/custom");
is_paused('again', 'no_cookie');
WeirTest::sql($node, 'SELECT weir.adopt_database()', dbname => 'no_cookie');
all_equal('into the same database', 'no_cookie');
all_equal('the original', 'postgres');

##
## Rows that another stream has written say nothing of a position
##

WeirTest::sql($node, <<'SQL');
CREATE SERVER dead FOREIGN DATA WRAPPER weir_kafka OPTIONS (bootstrap_servers 'localhost:1');
SELECT weir.create_source('later', 'dead', 'later', 'id bigint');
SELECT weir.create_stream('first', 'SELECT l.id FROM later l', target => 'shared');
SELECT weir.create_stream('second', 'SELECT e.id FROM events e', target => 'shared');
SQL
WeirTest::wait_for($node, 'second');
is(WeirTest::sql($node, "SELECT (SELECT count(*) FROM shared), state <> 'failed' FROM weir.stat_stream WHERE stream = 'first'"),
	scalar(@payloads) . '|t', 'a stream that shares its target and has not begun is new');

$node->stop;
done_testing();
