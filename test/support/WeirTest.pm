#-------------------------------------------------------------------------
#
# WeirTest.pm
#	  Servers with weir, and comparison with the oracle, for TAP tests.
#
#	my $node = WeirTest::start_node('main');
#	WeirTest::create_server($node, $broker);
#	WeirTest::create_events_source($node, 'events');
#	...
#	WeirTest::wait_for($node, 'per_key');
#	WeirTest::compare($node, 'TABLE per_key', $oracle, 'tumbling count');
#
# The oracle of a stream is its own query over a stored table: load_events()
# fills a table with the very lines that were produced, and since the window
# functions are ordinary functions the same SQL gives the right answer.
#
# Nothing here sleeps for an effect: every wait polls for a condition, and
# its limit is so wide that only a hang can reach it.
#
#-------------------------------------------------------------------------

package WeirTest;

use strict;
use warnings;

use Carp;
use File::Temp;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;

# seconds that a wait may take
our $timeout = $WeirBroker::timeout;

# The columns of what "gen events" makes (gen_events.c): for create_source
# and, without NOT NULL on the time, for the table of the oracle.
our $events_columns =
  'id bigint NOT NULL, k text, v int, at timestamptz, txt text';

# Many processes, short waits.  Full recovery after a crash, but no fsync:
# no test takes the power away.
my $conf = <<'CONF';
shared_preload_libraries = 'weir'
fsync = off
restart_after_crash = on
shared_buffers = 64MB
max_worker_processes = 40
max_connections = 50
log_line_prefix = '%m [%p] %b %q%a '
log_min_messages = info
log_statement = ddl
weir.retry_delay = 50ms
weir.retry_delay_max = 500ms
weir.lock_timeout = 1s
weir.detach_timeout = 1s
weir.end_offset_interval = 100ms
CONF

##
## Servers
##

# start_node(name, conf => { setting => value }, init => { ... },
#     extension => 0)
#
# A running server that preloads weir, with the extension in its database
# "postgres".  init: what PostgreSQL::Test::Cluster::init takes.
sub start_node
{
	my ($name, %opt) = @_;
	my $settings = delete $opt{conf} || {};
	my $init = delete $opt{init} || {};
	my $extension = exists $opt{extension} ? delete $opt{extension} : 1;
	croak "unknown options: @{[ sort keys %opt ]}" if %opt;

	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(%$init, extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ]);
	$node->append_conf('postgresql.conf', $conf);
	set_conf($node, %$settings);
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION weir') if $extension;
	return $node;
}

# Adds settings to postgresql.conf; the caller reloads or restarts.
sub set_conf
{
	my ($node, %settings) = @_;
	$node->append_conf('postgresql.conf', "$_ = '$settings{$_}'")
	  for sort keys %settings;
	return;
}

# Starts a server again after a crash.  What is left of the crashed one may
# still be there for a moment, so this is tried until it succeeds.
sub start_again
{
	my ($node) = @_;
	poll(
		sub {
			# a failed start may take the old postmaster for a running one
			$node->{_pid} = undef;
			return $node->start(fail_ok => 1);
		}) or croak 'the server does not start again';
	return;
}

# SIGKILL to the postmaster; returns when it is gone.
sub kill_postmaster
{
	my ($node) = @_;
	my $pid = postmaster_pid($node);
	$node->kill9;
	poll(sub { !WeirBroker::is_alive($pid) })
	  or croak 'the postmaster does not end';
	return;
}

# The process id of the postmaster, from its pid file.
sub postmaster_pid
{
	my ($node) = @_;
	my ($pid) =
	  WeirBroker::slurp($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	return $pid;
}

# The process ids of weir's workers of a kind (ingest, stream, catch_up,
# manager, launcher), in no order; none when the server cannot be asked.
sub worker_pids
{
	my ($node, $kind, %opt) = @_;
	my $where = $kind eq 'launcher' ? '' : 'AND datname = current_database()';
	my $out = sql_if_up($node, <<SQL, %opt);
SELECT pid FROM pg_stat_activity WHERE backend_type = 'weir $kind' $where
SQL
	return split /\n/, defined $out ? $out : '';
}

##
## Queries
##

# Runs SQL and returns its output; dies when it fails.
sub sql
{
	my ($node, $sql, %opt) = @_;
	return $node->safe_psql($opt{dbname} || 'postgres', $sql);
}

# Runs SQL that must fail.  Returns "SQLSTATE message", detail and hint on
# lines of their own, or "no error".
sub sql_error
{
	my ($node, $sql, %opt) = @_;
	my ($rc, $out, $err) = $node->psql($opt{dbname} || 'postgres',
		"\\set VERBOSITY verbose\n$sql");
	return 'no error' if $rc == 0;
	$err =~ s/^psql:<stdin>:\d+: //mg;
	$err =~ s/^ERROR:\s+//;
	$err =~ s/^LOCATION:.*\n?//mg;
	return $err;
}

# What SQL gives, or undef when the server cannot be asked just now.
sub sql_if_up
{
	my ($node, $sql, %opt) = @_;
	my ($rc, $out) = try_psql($node, $sql, %opt);
	return $rc == 0 ? $out : undef;
}

# Runs psql; returns its status, output and errors.  PostgreSQL::Test's own
# dies when there is no server and psql ends before it has read its input.
sub try_psql
{
	my ($node, $sql, %opt) = @_;
	my ($rc, $out, $err);
	eval {
		$rc = $node->psql(
			$opt{dbname} || 'postgres', $sql,
			stdout => \$out,
			stderr => \$err);
		1;
	} or return (2, '', "connection failed: $@");
	return ($rc, $out, $err);
}

# Polls until the function gives something true; returns that, or nothing
# when the time is over.
sub poll
{
	my ($function, $seconds) = @_;
	return WeirBroker::poll_until($function, $seconds || $timeout);
}

# Polls until the query gives that (default 't'; a pattern matches), also
# over a crash of the server.  A test of its own when it has a name; dies
# otherwise when it does not come.
sub sql_becomes
{
	my ($node, $sql, $expected, $name, %opt) = @_;
	my $got;
	$expected = 't' unless defined $expected;
	my $ok = poll(
		sub {
			$got = sql_if_up($node, $sql, %opt);
			return 0 unless defined $got;
			return ref $expected ? $got =~ $expected : $got eq $expected;
		});
	$got = '(no connection)' unless defined $got;
	diag("got: $got\nexpected: $expected\nquery: $sql") unless $ok;
	if (defined $name)
	{
		ok($ok, $name);
	}
	elsif (!$ok)
	{
		diag(status($node, %opt));
		croak "timed out: $sql";
	}
	return $ok;
}

# All there is to know when something does not go on.
sub status
{
	my ($node, %opt) = @_;
	my @text;
	for my $view (qw(stat_source stat_stream stat_worker dead_letter))
	{
		my $limit = $view eq 'dead_letter' ? 3 : 20;
		my $out = sql_if_up($node, <<SQL, %opt);
SELECT left(regexp_replace(jsonb_strip_nulls(to_jsonb(t))::text, '"', '', 'g'), 500)
FROM weir.$view t LIMIT $limit
SQL
		push @text, "$view:", defined $out ? $out : '(no connection)';
	}
	return join "\n", @text;
}

##
## Sources and streams
##

# The connection, as server "kafka".  The embedded broker lets a fetch sleep
# for all of fetch_wait_max_ms, whatever comes meanwhile.
sub create_server
{
	my ($node, $broker, %opt) = @_;
	my $name = $opt{name} || 'kafka';
	my $bootstrap = $broker->bootstrap;
	sql($node, <<SQL, %opt);
CREATE SERVER $name FOREIGN DATA WRAPPER weir_kafka
OPTIONS (bootstrap_servers '$bootstrap', reconnect_backoff_max_ms '200',
	fetch_wait_max_ms '100')
SQL
	return;
}

# A literal of a Perl value; undef is NULL.
sub literal
{
	my ($value) = @_;
	return 'NULL' unless defined $value;
	$value =~ s/'/''/g;
	return "'$value'";
}

# create_source($node, name, topic => ..., columns => ..., ...): arguments as
# those of weir.create_source; server defaults to kafka, topic to the name.
sub create_source
{
	my ($node, $name, %arg) = @_;
	my $dbname = delete $arg{dbname} || 'postgres';
	%arg = (server => 'kafka', topic => $name, %arg);
	my $args = join ', ', map { "$_ => " . literal($arg{$_}) } sort keys %arg;
	sql($node, 'SELECT weir.create_source(' . literal($name) . ", $args)",
		dbname => $dbname);
	return;
}

# A source of what "gen events" makes.
sub create_events_source
{
	my ($node, $name, %arg) = @_;
	create_source(
		$node, $name,
		columns => $events_columns,
		event_time => 'at',
		%arg);
	return;
}

# create_stream($node, name, query, emit => ..., ...)
sub create_stream
{
	my ($node, $name, $query, %arg) = @_;
	my $dbname = delete $arg{dbname} || 'postgres';
	my $args = join '', map { ", $_ => " . literal($arg{$_}) } sort keys %arg;
	sql( $node,
		'SELECT weir.create_stream('
		  . literal($name) . ', '
		  . literal($query)
		  . "$args)",
		dbname => $dbname);
	return;
}

# Waits until a stream has applied all that is in Kafka now; outlives
# crashes.  A failed stream ends the test.
sub wait_for
{
	my ($node, @streams) = @_;
	for my $stream (@streams)
	{
		my $error;
		my $deadline = time() + $timeout;
		while (1)
		{
			my ($rc, $out);
			($rc, $out, $error) = try_psql($node,
				'SELECT weir.wait_for('
				  . literal($stream)
				  . ", '$timeout s')");
			last if $rc == 0;
			my $is_outage =
			  $error =~ /connection|starting up|shutting down|terminat/
			  && $error !~ /is failed|is paused/;
			if (!$is_outage || time() > $deadline)
			{
				diag(status($node));
				croak "waiting for $stream: $error";
			}
			select(undef, undef, undef, 0.05);
		}
	}
	return;
}

# Closes what is open, and waits until the streams have done so.
sub close_windows
{
	my ($node, $source, @streams) = @_;
	sql($node, 'SELECT weir.advance_watermark(' . literal($source) . ')');
	wait_for($node, @streams);
	return;
}

##
## The oracle
##

# load_events($node, table, @payloads): a table of the rows that JSON
# payloads stand for, by PostgreSQL's own jsonb_populate_record.
# columns => ..., dbname => ... as first arguments in a hash reference.
sub load_events
{
	my ($node, $table, $payloads, %opt) = @_;
	my $columns = $opt{columns} || $events_columns;
	my $dbname = $opt{dbname} || 'postgres';
	my $file = File::Temp->new;
	binmode $file;
	for my $payload (@$payloads)
	{
		# the only two that COPY's csv format would not take as they are
		croak 'bad payload for the oracle' if $payload =~ /[\x01\x02\n]/;
		print $file $payload, "\n" or croak "could not write: $!";
	}
	close $file or croak "could not write: $!";
	chmod 0644, $file->filename;
	sql($node, <<SQL, dbname => $dbname);
CREATE TABLE IF NOT EXISTS $table ($columns);
CREATE TEMPORARY TABLE load (payload jsonb);
\\copy load FROM '@{[ $file->filename ]}' WITH (FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02')
INSERT INTO $table
SELECT r.* FROM load, jsonb_populate_record(NULL::$table, payload) r;
ANALYZE $table
SQL
	return;
}

# compare($node, query, oracle, name): one test, that both give the same
# rows, each as often as the other.  The columns are matched by position.
sub compare
{
	my ($node, $query, $oracle, $name, %opt) = @_;
	my $wrong = sql_if_up($node, <<SQL, %opt);
WITH got AS MATERIALIZED ($query), expected AS MATERIALIZED ($oracle)
(SELECT 'too much: ' || t::text FROM
 (TABLE got EXCEPT ALL TABLE expected ORDER BY 1 LIMIT 5) t)
UNION ALL
(SELECT 'missing: ' || t::text FROM
 (TABLE expected EXCEPT ALL TABLE got ORDER BY 1 LIMIT 5) t)
UNION ALL
SELECT 'the oracle has no row' WHERE NOT EXISTS (TABLE expected)
SQL
	if (!defined $wrong)
	{
		# once more, for the error
		my (undef, undef, $error) = try_psql($node,
			"SELECT count(*) FROM ($query) q, ($oracle) o", %opt);
		$wrong = "the comparison failed: $error";
	}
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $ok = is($wrong, '', $name);
	diag(status($node, %opt)) unless $ok;
	return $ok;
}

1;
