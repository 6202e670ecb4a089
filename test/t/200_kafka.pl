# A real Kafka that goes away, and comes back.
#
# Proves, on Apache Kafka with 4 partitions: records compressed by gzip,
# snappy, lz4 and zstd, side by side in the same partitions, are read alike.
# When the broker is stopped in mid-stream, or killed, the source goes to
# "retrying" and says what is wrong (SQLSTATE 08006), the streams stay as
# they are, and all goes on by itself when the broker is back, whether it is
# a short outage or one over which PostgreSQL was restarted too; windows on
# change and on close, a row stream and a running aggregate equal the oracle
# each time (I1, I2).  A partition that was idle is not while its broker is
# away, so no window closes for want of news, and is again afterwards (I4).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $kafka = WeirBroker->kafka(java_opts => ['-Xmx512m']);
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $kafka);

my %query = (
	windows => <<'SQL',
SELECT w.window_start, w.window_end, e.k, count(*) AS n, sum(e.v) AS sum_v,
	avg(e.v) AS avg_v
FROM events e CROSS JOIN weir.tumble(e.at, '10 seconds') w
GROUP BY w.window_start, w.window_end, e.k
SQL
	closed => <<'SQL',
SELECT w.window_start, w.window_end, count(*) AS n, max(e.id) AS last_id
FROM events e CROSS JOIN weir.hop(e.at, '20 seconds', '10 seconds') w
GROUP BY w.window_start, w.window_end
SQL
	rows => "SELECT e.id, e.k, e.v, e.at, e.txt FROM events e\n",
	running => <<'SQL');
SELECT e.k, count(*) AS n, sum(e.v) AS sum_v FROM events e GROUP BY e.k
SQL
my @streams = sort keys %query;

my @lines = WeirBroker::gen_lines('events',
	events => 40000, seed => 200, partitions => 4, keys => 10,
	disorder_ms => 2000);
my $sent = 0;

# The next n events, also for the oracle.
sub next_lines
{
	my ($n) = @_;
	my @chunk = @lines[ $sent .. $sent + $n - 1 ];
	$sent += $n;
	WeirTest::load_events($node, 'stored', [ map { s/^\d+\t//r } @chunk ]);
	return @chunk;
}

# Equal to the oracle; of what closes, the windows below the watermark.
sub all_equal
{
	my ($when) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::wait_for($node, @streams);
	for my $name (@streams)
	{
		my $oracle = $query{$name} =~ s/FROM events/FROM stored/r;
		$oracle = <<SQL if $name eq 'closed';
SELECT * FROM ($oracle) o WHERE window_end <=
	(SELECT min(m) - interval '2 seconds'
	 FROM (SELECT max(at) AS m FROM stored GROUP BY id % 4) p)
SQL
		WeirTest::compare($node, "SELECT * FROM $name", $oracle,
			"$when: $name");
	}
	return;
}

my $state = <<'SQL';
SELECT DISTINCT state FROM weir.stat_source
WHERE source = 'events' AND stream IS NULL
SQL

# The source says that the broker is away.
sub source_complains
{
	my ($when) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::sql_becomes($node, $state, 'retrying',
		"$when: the source is retrying");
	my $error = WeirTest::sql($node, <<'SQL');
SELECT DISTINCT last_error_sqlstate || ' ' || last_error
FROM weir.stat_source WHERE source = 'events' AND stream IS NULL
SQL
	like($error, qr/^08006 cannot reach .*"kafka"/, "$when: and says why");
	return;
}

##
## Codecs
##

$kafka->create_topic('events', 4, 'compression.type=producer');
WeirTest::create_events_source($node, 'events',
	max_out_of_orderness => '2 seconds',
	idle_timeout => undef);
WeirTest::create_stream($node, $_, $query{$_},
	$_ eq 'closed' ? (emit => 'on_close') : ())
  for @streams;
for my $codec (qw(none gzip snappy lz4 zstd))
{
	$kafka->produce('events', [ next_lines(2000) ],
		partition_field => 1, codec => $codec);
	all_equal("codec $codec");
}
WeirTest::sql_becomes($node, $state, 'running', 'the source runs');

# another source, to which nothing comes any more
my $idle = <<'SQL';
SELECT bool_and(idle) FROM weir.stat_source WHERE source = 'quiet'
SQL
$kafka->create_topic('quiet', 2);
$kafka->produce('quiet', [ map { s/^\d+\t//r } @lines[ 0 .. 9 ] ]);
WeirTest::create_events_source($node, 'quiet', idle_timeout => '500 ms');
WeirTest::create_stream($node, 'nothing', 'SELECT q.id FROM quiet q');

##
## Outages
##

my $producer = $kafka->producer('events', partition_field => 1);
for my $how (qw(stop kill9))
{
	my $when = $how eq 'stop' ? 'stopped' : 'killed';
	my $before = $sent;
	WeirTest::sql_becomes($node, $idle, 't', "$when: a quiet topic is idle");
	$producer->send(next_lines(6000));
	WeirTest::sql_becomes($node, "SELECT count(*) > $before FROM rows",
		't', "$when: in mid-stream");
	$kafka->$how;
	$producer->send(next_lines(2000));
	source_complains($when);
	WeirTest::sql_becomes(
		$node, <<'SQL', 'waiting|t', "$when: the streams stay, and wait for their source");
SELECT DISTINCT state, last_error ~ 'broker' FROM weir.stat_stream
SQL
	WeirTest::sql_becomes($node, $idle, 'f', "$when: nothing is idle");
	my $is_idle = 0;
	my $until = WeirTest::sql($node,
		"SELECT clock_timestamp() + interval '1.5 seconds'");
	WeirTest::poll(
		sub {
			my ($seen, $over) = split /\|/, WeirTest::sql($node,
				"SELECT ($idle), clock_timestamp() > '$until'" =~ s/;//r);
			$is_idle ||= $seen eq 't';
			return $over eq 't';
		});
	ok(!$is_idle, "$when: and nothing becomes so");

	$kafka->start;
	$producer->send(next_lines(2000));
	all_equal("$when, started again");
	WeirTest::sql_becomes($node, $state, 'running',
		"$when, started again: the source runs");
}

# PostgreSQL starts while there is no broker
my $before = $sent;
$producer->send(next_lines(6000));
WeirTest::sql_becomes($node, "SELECT count(*) > $before FROM rows",
	't', 'both down: in mid-stream');
$kafka->kill9;
$node->stop('immediate');
$node->start;
source_complains('both down');
like(
	WeirTest::sql_error($node, "SELECT weir.wait_for('rows', '300 ms')"),
	qr/^57014/,
	'both down: waiting has an end');
$kafka->start;
$producer->send(next_lines(2000));
$producer->finish;
all_equal('both up again');
WeirTest::sql_becomes($node, $state, 'running',
	'both up again: the source runs');

##
## The end
##

WeirTest::close_windows($node, 'events', @streams);
WeirTest::compare(
	$node, "SELECT * FROM $_",
	$query{$_} =~ s/FROM events/FROM stored/r,
	"after advance_watermark: $_") for @streams;
is( WeirTest::sql($node, 'SELECT count(*) FROM weir.dead_letter'),
	'0', 'no dead letters, none late');
unlike(slurp_file($node->logfile),
	qr/TRAP:|PANIC:|signal 11|signal 6/, 'no crash');

$node->stop;
$kafka->stop;
done_testing();
