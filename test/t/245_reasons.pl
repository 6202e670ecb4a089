# Every state has a reason, and nothing is shown that is not known.
#
# Proves: in an outage a source is retrying, its streams wait, both with the
# reason, and the lag is the true one or NULL, never less; when it is over no
# error is left.  The server log has one line when it begins and one when it
# ends, also for a host that cannot be found.  An error of ingest that lasts
# shows the same way, over the restarts of its worker.  What has no worker
# slot says so, and how many it takes.  On a standby everything says why it
# stands still, counters are NULL, and every function that changes something,
# or waits, is refused with 25006 at once.  The age of replayed records is
# shown as it is.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { t => 2, old => 1, disk => 2 });
my $node = WeirTest::start_node('main',
	init => { allows_streaming => 1 });
WeirTest::create_server($node, $broker);

sub sql
{
	return WeirTest::sql($node, @_);
}

sub source_becomes
{
	my ($source, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::sql_becomes($node, <<"SQL", $expected, $name);
SELECT DISTINCT state || ' ' || coalesce(last_error_sqlstate, '') || ' ' || coalesce(last_error, '')
FROM weir.stat_source WHERE source = '$source' AND stream IS NULL
SQL
	return;
}

sub stream_becomes
{
	my ($stream, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::sql_becomes($node, <<"SQL", $expected, $name);
SELECT state || ' ' || coalesce(last_error_sqlstate, '') || ' ' || coalesce(last_error, '')
FROM weir.stat_stream WHERE stream = '$stream'
SQL
	return;
}

sub produce
{
	my ($topic, $n) = @_;
	$broker->produce($topic, [ map { qq({"id":$_}) } 1 .. $n ]);
	return;
}

# lines of the server log since a place that match
sub log_lines
{
	my ($from, $pattern) = @_;
	my $log = substr slurp_file($node->logfile), $from;
	return scalar grep { $_ =~ $pattern && $_ !~ /client backend/ }
	  split /\n/, $log;
}

##
## An outage
##

WeirTest::create_source($node, 't', columns => 'id int');
WeirTest::create_stream($node, 'rows', 'SELECT s.id FROM t s');
produce('t', 20);
WeirTest::wait_for($node, 'rows');
WeirTest::sql_becomes($node,
	"SELECT lag, lag_time FROM weir.stat_stream WHERE stream = 'rows'",
	'0|00:00:00', 'no lag');
my $begun = -s $node->logfile;
$broker->command('down');
source_becomes('t',
	qr/^retrying 08006 cannot reach any broker of server "kafka": /,
	'an outage');
stream_becomes('rows',
	qr/^waiting 08006 cannot reach any broker of server "kafka": /,
	'its stream waits, and says for what');
WeirTest::sql_becomes($node,
	"SELECT lag IS NULL AND lag_time IS NULL FROM weir.stat_stream WHERE stream = 'rows'",
	't', 'the lag of the stream is not known');
is(sql("SELECT bool_and(lag IS NULL AND end_offset = 10) FROM weir.stat_source WHERE source = 't'"),
	't', 'nor that of the source');
like(WeirTest::sql_error($node, "SELECT weir.wait_for('rows', '100 ms')"),
	qr/^57014.*DETAIL:.*waiting: cannot reach any broker/s, 'wait_for says why');
my $seconds = 6;
my $until = sql("SELECT clock_timestamp() + interval '$seconds s'");
WeirTest::sql_becomes($node, "SELECT clock_timestamp() > '$until'");
is(log_lines($begun, qr/source "t" waits: cannot reach any broker/),
	1, 'one line in the log when it begins');
is(log_lines($begun, qr/cannot reach|Connect to|brokers are down|exited with/),
	1, 'and no other');
$broker->command('up');
source_becomes('t', 'running  ', 'it is over, without a record');
stream_becomes('rows', 'running  ', 'for the stream, too');
is(log_lines($begun, qr/source "t" goes on after \d+ s/), 1, 'one line when it ends');
WeirTest::sql_becomes($node,
	"SELECT lag FROM weir.stat_stream WHERE stream = 'rows'", '0',
	'the lag is known again');

# a host that is not there, noticed while the broker is away, and at a start
$broker->command('down');
source_becomes('t', qr/^retrying 08006/, 'away again');
$begun = -s $node->logfile;
sql(q(ALTER SERVER kafka OPTIONS (SET bootstrap_servers 'no-such-host.invalid:9092')));
source_becomes('t', qr/^retrying 08006 .*no-such-host/, 'a host that cannot be found');
$until = sql("SELECT clock_timestamp() + interval '$seconds s'");
WeirTest::sql_becomes($node, "SELECT clock_timestamp() > '$until'");
cmp_ok(log_lines($begun, qr/no-such-host|cannot reach|exited with/),
	'<=', 2, 'does not fill the log');
$broker->command('up');
sql("ALTER SERVER kafka OPTIONS (SET bootstrap_servers '@{[ $broker->bootstrap ]}')");
source_becomes('t', 'running  ', 'the right one is noticed');
produce('t', 20);
WeirTest::wait_for($node, 'rows');
is(sql('SELECT count(*) FROM rows'), '40', 'nothing is lost');

##
## No room on the disk
##

sql(<<'SQL');
CREATE FUNCTION room(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
$$BEGIN RETURN true; END$$
SQL
WeirTest::create_source($node, 'disk', columns => 'id int CHECK (room(id))');
WeirTest::create_stream($node, 'disk_rows', 'SELECT s.id FROM disk s');
produce('disk', 40);
WeirTest::wait_for($node, 'disk_rows');
sql(<<'SQL');
CREATE OR REPLACE FUNCTION room(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
$$BEGIN RAISE 'no space left' USING ERRCODE = '53100'; END$$
SQL
produce('disk', 100);
source_becomes('disk', qr/^(?:retrying|starting) 53100 no space left/, 'no room');
stream_becomes('disk_rows', qr/^waiting 53100 no space left/, 'the stream says so');

# over some restarts of the worker
my $epoch = sql("SELECT max(epoch) FROM weir.stat_source WHERE source = 'disk'");
my ($wrong, $looks) = ('', 0);
WeirTest::poll(
	sub {
		my $got = sql(<<'SQL');
SELECT coalesce((SELECT sum(lag) FROM weir.stat_source WHERE source = 'disk' HAVING count(lag) = 2), 100) || ' '
	|| coalesce(lag, 100) || ' ' || (coalesce(lag_time > '0', true)) || ' ' || (last_error IS NOT NULL)
FROM weir.stat_stream WHERE stream = 'disk_rows'
SQL
		$wrong .= "$got; " if $got ne '100 100 true true';
		$looks++;
		return sql("SELECT max(epoch) > $epoch + 3 FROM weir.stat_source WHERE source = 'disk'") eq 't';
	});
cmp_ok($looks, '>', 3, 'looked at it several times');
is($wrong, '', 'the lag is the true one or NULL, and there is an error');
sql(<<'SQL');
CREATE OR REPLACE FUNCTION room(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
$$BEGIN RETURN true; END$$
SQL
WeirTest::wait_for($node, 'disk_rows');
is(sql('SELECT count(*) FROM disk_rows'), '140', 'all is read in the end');
source_becomes('disk', 'running  ', 'and no error is left');
stream_becomes('disk_rows', 'running  ', 'nor with the stream');

##
## Old records
##

$broker->produce('old', ["1000000000000\t{\"id\":1}"], timestamp => 1);
WeirTest::create_source($node, 'old', columns => 'id int');
WeirTest::create_stream($node, 'old_rows', 'SELECT s.id FROM old s');
WeirTest::wait_for($node, 'old_rows');
WeirTest::sql_becomes($node, <<'SQL', 't', 'the age of a record of 2001');
SELECT visible_ms_p50 / (extract(epoch FROM now()) * 1000 - 1000000000000) BETWEEN 0.8 AND 1.25
FROM weir.stat_stream WHERE stream = 'old_rows'
SQL

##
## A standby
##

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is( WeirTest::sql($standby, <<'SQL'),
SELECT DISTINCT state, last_error_sqlstate, last_error ~ 'standby', rows_in, staging_bytes, lag
FROM weir.stat_source WHERE source = 't'
SQL
	'paused|25006|t|||', 'sources of a standby');
is( WeirTest::sql($standby, <<'SQL'),
SELECT state, last_error_sqlstate, last_error ~ 'standby', rows_in, batches, lag
FROM weir.stat_stream WHERE stream = 'rows'
SQL
	'paused|25006|t|||', 'and streams');
for my $call (
	"pause('t')", "resume('t')", "seek('rows', 'earliest')",
	"advance_watermark('t')", "wait_for('rows')", "drop_stream('rows')",
	"drop_source('t')", 'adopt_database()',
	"create_source('n', server => 'kafka', topic => 'n', columns => 'a int')",
	"create_stream('n', 'SELECT s.id FROM t s')")
{
	like(WeirTest::sql_error($standby, "SELECT weir.$call"),
		qr/^25006: .*standby\nHINT: /s, "$call on a standby");
}
like(
	WeirTest::sql_error($node,
		"SET default_transaction_read_only = on; SELECT weir.pause('t')"),
	qr/^25006: cannot execute weir\.pause\(\) in a read-only transaction\nHINT: /s,
	'nor in a read-only transaction');
$standby->stop;
is(sql("SELECT state FROM weir.stat_stream WHERE stream = 'rows'"),
	'running', 'the primary goes on');

##
## No worker slots
##

WeirTest::set_conf($node, max_worker_processes => 6);
$node->restart;
WeirTest::sql_becomes($node, <<'SQL', qr/^[1-9]\d*\|t\|t$/, 'what has no worker says why');
SELECT count(*), bool_and(last_error_sqlstate = '53400'),
	bool_and(last_error ~ 'weir needs 7 workers .* increase "max_worker_processes"')
FROM (SELECT state, last_error_sqlstate, last_error FROM weir.stat_source WHERE stream IS NULL
	UNION ALL SELECT state, last_error_sqlstate, last_error FROM weir.stat_stream) x
WHERE state IN ('starting', 'waiting')
SQL
is(sql(<<'SQL'), '0', 'nothing else stands still');
SELECT count(*)
FROM (SELECT state FROM weir.stat_source WHERE stream IS NULL
	UNION ALL SELECT state FROM weir.stat_stream) x
WHERE state NOT IN ('starting', 'waiting', 'running', 'catching_up')
SQL

$node->stop;
done_testing();
