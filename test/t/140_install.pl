# Databases come and go, and weir with them.
#
# Proves: without preload everything says so (55000, with a hint); workers
# come with CREATE EXTENSION and go with DROP EXTENSION; two databases are
# independent; DROP, RENAME and copying of a database in which streams run do
# not hang, and the streams go on; a copy, and a restored dump, come up
# paused until adopt_database(), and then go on exactly once; weir.autostart;
# too few worker slots are a warning with the number needed; a standby has
# no workers until it is promoted, and goes on exactly once then.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { events => 2 });
my $sent = 0;
my @payloads;

# Sends the next n events.
sub produce
{
	my ($n) = @_;
	my @lines = WeirBroker::gen_lines('events',
		events => $n, first => $sent, seed => 140, partitions => 2,
		disorder_ms => 500);
	$broker->produce('events', \@lines, partition_field => 1);
	push @payloads, map { s/^\d+\t//r } @lines;
	$sent += $n;
	return;
}

my $windows = <<'SQL';
SELECT w.window_start, e.k, count(*) AS n, sum(e.v) AS sum_v
FROM events e CROSS JOIN weir.tumble(e.at, '10 seconds') w
GROUP BY w.window_start, e.k
SQL
my $closed = <<'SQL';
SELECT w.window_start, w.window_end, count(*) AS n
FROM events e CROSS JOIN weir.hop(e.at, '20 seconds', '10 seconds') w
GROUP BY w.window_start, w.window_end
SQL

# Two streams of the events in a database.
sub set_up
{
	my ($node, $dbname) = @_;
	WeirTest::sql($node, 'CREATE EXTENSION IF NOT EXISTS weir',
		dbname => $dbname);
	WeirTest::create_server($node, $broker, dbname => $dbname);
	WeirTest::create_events_source($node, 'events',
		max_out_of_orderness => '1 second', dbname => $dbname);
	WeirTest::create_stream($node, 'windows', $windows, dbname => $dbname);
	WeirTest::create_stream($node, 'rows', 'SELECT e.id, e.at FROM events e',
		dbname => $dbname);
	WeirTest::create_stream($node, 'closed', $closed,
		emit => 'on_close', dbname => $dbname);
	return;
}

sub wait_all
{
	my ($node, $dbname) = @_;
	for my $stream (qw(windows rows closed))
	{
		WeirTest::sql($node,
			"SELECT weir.wait_for('$stream', '$WeirTest::timeout s')",
			dbname => $dbname);
	}
	return;
}

# All that was sent is in the streams of that database, once.
sub all_equal
{
	my ($node, $dbname, $name) = @_;
	wait_all($node, $dbname);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::sql($node, 'DROP TABLE IF EXISTS stored', dbname => $dbname);
	WeirTest::load_events($node, 'stored', \@payloads, dbname => $dbname);
	WeirTest::compare(
		$node, 'TABLE windows',
		$windows =~ s/FROM events/FROM stored/r,
		"$name: windows",
		dbname => $dbname);
	WeirTest::compare($node, 'TABLE rows', 'SELECT id, at FROM stored',
		"$name: rows",
		dbname => $dbname);
	my $watermark = WeirTest::sql($node, "SELECT weir.watermark('closed')",
		dbname => $dbname);
	WeirTest::compare(
		$node, 'TABLE closed',
		"SELECT * FROM ("
		  . ($closed =~ s/FROM events/FROM stored/r)
		  . ") q WHERE window_end <= '$watermark'",
		"$name: closed windows",
		dbname => $dbname);
	return;
}

# a statement that waits for others has this long
my $no_hang = 'SET statement_timeout = \'60s\'';

##
## Without preload
##

my $node = WeirTest::start_node(
	'bare',
	conf => { shared_preload_libraries => '' },
	extension => 0);
like(WeirTest::sql_error($node, 'CREATE EXTENSION weir'),
	qr/^55000.*shared_preload_libraries.*HINT/s,
	'no extension without preload');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'weir'");
$node->restart;
set_up($node, 'postgres');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
for my $call (
	q{weir.create_source('x', server => 'kafka', topic => 'x', columns => 'a int')},
	q{weir.create_stream('x', 'SELECT e.id FROM events e')},
	q{weir.pause('rows')},
	q{weir.resume('rows')},
	q{weir.drop_stream('rows')},
	q{weir.drop_source('events')},
	q{weir.seek('rows', 'earliest')},
	q{weir.wait_for('rows')},
	q{weir.advance_watermark('events')},
	q{weir.adopt_database()},
	q{weir.stat_reset()})
{
	my ($name) = $call =~ /^([\w.]+)/;
	like(WeirTest::sql_error($node, "SELECT $call"),
		qr/^55000.*HINT/s, "$name without preload");
}
is( WeirTest::sql($node,
		"SELECT count(*) FROM weir.tumble(now(), '1 minute')"),
	'1',
	'window functions need none');
$node->stop;

##
## One server, more databases
##

produce(3000);
$node = WeirTest::start_node('main', extension => 0);
WeirTest::sql($node, "CREATE DATABASE $_ TEMPLATE template0") for qw(one two);

my $managers =
  q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'weir manager'};

# the launcher's look into each database is one for a moment
WeirTest::sql_becomes($node, $managers, '0',
	'no manager without an extension');
set_up($node, $_) for qw(one two);
WeirTest::sql_becomes($node, $managers, '2', 'a manager a database');
produce(1000);
all_equal($node, $_, "database $_") for qw(one two);

# rolled back is not created
WeirTest::sql($node, 'BEGIN; CREATE EXTENSION weir; ROLLBACK');
WeirTest::sql($node, 'CREATE EXTENSION weir');
WeirTest::sql_becomes($node, $managers, '3', 'CREATE EXTENSION starts one');
WeirTest::sql($node, 'DROP EXTENSION weir');
WeirTest::sql_becomes($node, $managers, '2', 'DROP EXTENSION ends it');

# with all that depends on it, while it runs
produce(1000);
WeirTest::sql($node, "$no_hang; DROP EXTENSION weir CASCADE",
	dbname => 'two');
WeirTest::sql_becomes(
	$node,
	q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^weir' AND datname = 'two'},
	'0',
	'DROP EXTENSION CASCADE ends all workers');
WeirTest::sql($node, 'DROP TABLE windows, rows, closed', dbname => 'two');
set_up($node, 'two');
produce(1000);
all_equal($node, 'two', 'made again');
all_equal($node, 'one', 'not touched');

# drop a database in which streams run
$broker->produce('events', [], partition_field => 1);
WeirTest::sql($node, "$no_hang;\nDROP DATABASE two");
is( WeirTest::sql($node,
		"SELECT count(*) FROM pg_database WHERE datname = 'two'"),
	'0',
	'DROP DATABASE does not hang');
produce(1000);
all_equal($node, 'one', 'another is gone');

WeirTest::sql($node, "$no_hang;\nALTER DATABASE one RENAME TO uno");
produce(1000);
all_equal($node, 'uno', 'renamed');

# one that cannot be dropped goes on
my $holder = $node->background_psql('uno');
my $error = WeirTest::sql_error($node, "$no_hang;\nDROP DATABASE uno");
like($error, qr/^55006/, 'a database in use is not dropped');
$holder->quit;
produce(1000);
all_equal($node, 'uno', 'and goes on');

##
## Copies are paused
##

sub is_paused
{
	my ($dbname, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::sql_becomes(
		$node,
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'weir manager' AND datname = '$dbname'",
		'1',
		"$name: there is a manager");
	my $count = 'SELECT count(*) FROM rows';
	my $before = WeirTest::sql($node, $count, dbname => $dbname);
	is( WeirTest::sql(
			$node, 'SELECT DISTINCT state FROM weir.stat_stream',
			dbname => $dbname),
		'paused',
		"$name: it comes up paused");
	produce(1000);
	wait_all($node, 'uno');
	is(WeirTest::sql($node, $count, dbname => $dbname),
		$before, "$name: and reads nothing");
	is( WeirTest::sql(
			$node,
			"SELECT count(*) FROM weir.stat_worker WHERE kind NOT IN ('launcher', 'manager')",
			dbname => $dbname),
		'0',
		"$name: without workers");
	return;
}

WeirTest::sql($node, "$no_hang;\nCREATE DATABASE copy TEMPLATE uno");
is_paused('copy', 'a copy');
all_equal($node, 'uno', 'the copied one goes on');
WeirTest::sql($node, 'SELECT weir.adopt_database()', dbname => 'copy');
produce(1000);
all_equal($node, 'copy', 'the adopted copy');
all_equal($node, 'uno', 'and the one it was copied from');

# a dump while rows come in: of one snapshot, so consistent in itself
my $dump = File::Temp->new;
my $live = $broker->producer('events', partition_field => 1);
my @lines = WeirBroker::gen_lines('events',
	events => 20000, first => $sent, seed => 140, partitions => 2,
	disorder_ms => 500);
$live->send(@lines);
system_or_bail('pg_dump', '-f', $dump->filename, '-d',
	$node->connstr('uno'));
$live->finish;
push @payloads, map { s/^\d+\t//r } @lines;
$sent += @lines;
WeirTest::sql($node, 'CREATE DATABASE restored TEMPLATE template0');
system_or_bail('psql', '-X', '-q', '-o', '/dev/null', '-v',
	'ON_ERROR_STOP=1', '-f', $dump->filename, '-d',
	$node->connstr('restored'));
is_paused('restored', 'a restored dump');
WeirTest::sql($node, 'SELECT weir.adopt_database()', dbname => 'restored');
produce(1000);
all_equal($node, 'restored', 'the adopted dump');
is( WeirTest::sql(
		$node, 'SELECT count(*) FROM weir.dead_letter',
		dbname => 'restored'),
	'0',
	'without dead letters');
WeirTest::sql($node, "$no_hang;\nDROP DATABASE $_") for qw(copy restored);

##
## Autostart, and a restart
##

$node->append_conf('postgresql.conf', 'weir.autostart = off');
$node->restart;
is(WeirTest::sql($node, 'SHOW weir.autostart'), 'off', 'autostart is off');
produce(1000);
is( WeirTest::sql($node,
		q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^weir (manager|ingest|stream)'}
	),
	'0',
	'so nothing starts');
is( WeirTest::sql(
		$node, 'SELECT DISTINCT state FROM weir.stat_stream',
		dbname => 'uno'),
	'paused',
	'and says so');
$node->append_conf('postgresql.conf', 'weir.autostart = on');
$node->reload;
all_equal($node, 'uno', 'autostart is on again');
$node->restart;
produce(1000);
all_equal($node, 'uno', 'a restart');
$node->stop;

##
## Too few worker slots
##

# logical replication's launcher, weir's, a manager, and one more
my $small = WeirTest::start_node('small',
	conf => { max_worker_processes => 4 });
WeirTest::create_server($small, $broker);
WeirTest::create_events_source($small, 'events',
	max_out_of_orderness => '1 second');
my (undef, undef, $warning) = WeirTest::try_psql($small,
	q{SELECT weir.create_stream('rows', 'SELECT e.id, e.at FROM events e')});
like($warning, qr/WARNING:.*HINT:.*max_worker_processes/s,
	'create_stream warns of too few worker slots');
WeirTest::poll(
	sub {
		slurp_file($small->logfile) =~
		  /WARNING:  no free background worker slot.*?HINT:  Increase max_worker_processes/s;
	});
like(
	slurp_file($small->logfile),
	qr/no free background worker slot/,
	'and so does the server log');
$small->append_conf('postgresql.conf', 'max_worker_processes = 20');
$small->restart;
WeirTest::wait_for($small, 'rows');
is(WeirTest::sql($small, 'SELECT count(*) FROM rows'),
	$sent, 'with more slots it runs');
$small->stop;

##
## A standby
##

my $primary =
  WeirTest::start_node('primary', init => { allows_streaming => 1 });
set_up($primary, 'postgres');
wait_all($primary, 'postgres');
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
produce(2000);
wait_all($primary, 'postgres');

# The workers commit asynchronously: one commit that waits for the disk
# writes all of it out for the standby.
WeirTest::sql($primary,
	'SET synchronous_commit = on; CREATE TABLE written_out ()');
$primary->wait_for_catchup($standby);
is( WeirTest::sql($standby,
		q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^weir'}),
	'0',
	'a standby has no workers');
is(WeirTest::sql($standby, 'SELECT count(*) FROM rows'),
	$sent, 'it has the results');
is( WeirTest::sql($standby, 'SELECT count(*) FROM weir.stat_stream'),
	'3',
	'the views can be read');
like(WeirTest::sql_error($standby, q{SELECT weir.pause('rows')}),
	qr/^25006|^55000/, 'and nothing can be changed');

# the primary ends with work under way
my $last = $broker->producer('events', partition_field => 1);
my @more = WeirBroker::gen_lines('events',
	events => 10000, first => $sent, seed => 140, partitions => 2,
	disorder_ms => 500);
push @payloads, map { s/^\d+\t//r } @more;
$sent += @more;
$last->send(@more);
WeirTest::sql_becomes($primary, "SELECT count(*) > $sent - 9000 FROM rows");
$primary->stop('immediate');
$standby->promote;
$last->finish;
produce(1000);
all_equal($standby, 'postgres', 'promoted');
is( WeirTest::sql($standby, 'SELECT count(*) FROM weir.dead_letter'),
	'0',
	'without dead letters');
$standby->stop;

done_testing();
