# Slow streams: isolation, bounded staging, and nothing lost (I6).
#
# Proves: a stream whose target is locked does not hold up its siblings,
# whether it gives up waiting (weir.lock_timeout) or not (then it is detached
# after weir.detach_timeout); when all streams are slow, ingest stops at the
# staging limit and goes on by itself; staged bytes never exceed the limit
# and one insert; after the release all drains and equals the oracle.  An
# open scan of the source relation, an idle transaction with an old snapshot
# and a pg_dump that does not get on do not hold up anything.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $limit = 1024 * 1024;

# a transaction stages 4,000 rows at most, of about 120 bytes here
my $one_insert = 512 * 1024;

my $broker = WeirBroker->embedded(topics => { events => 4 });
my $node = WeirTest::start_node(
	'main',
	conf => {
		'weir.staging_limit' => '1MB',
		'weir.segment_size' => '128kB',
		'weir.detach_timeout' => '500ms',
		'weir.lock_timeout' => '300ms'
	});
WeirTest::create_server($node, $broker);
WeirTest::create_events_source($node, 'events',
	max_out_of_orderness => '1 second');

my %query = (
	windows => <<'SQL',
SELECT w.window_start, w.window_end, e.k, count(*) AS n, sum(e.v) AS sum_v
FROM events e CROSS JOIN weir.tumble(e.at, '10 seconds') w
GROUP BY w.window_start, w.window_end, e.k
SQL
	running => <<'SQL',
SELECT e.k, count(*) AS n, sum(e.v) AS sum_v FROM events e GROUP BY e.k
SQL
	rows => 'SELECT e.id, e.k, e.txt FROM events e');
my @streams = sort keys %query;
WeirTest::create_stream($node, $_, $query{$_}) for @streams;

my $sent = 0;

# Several times as much as the ring holds: 30,000 rows are about 3.5 MB.
sub produce
{
	my @lines = WeirBroker::gen_lines('events',
		events => 30000, first => $sent, seed => 130, partitions => 4,
		disorder_ms => 1000);
	$sent += @lines;
	$broker->produce('events', \@lines, partition_field => 1);
	WeirTest::load_events($node, 'stored',
		[ map { s/^\d+\t//r } @lines ]);
	return;
}

# The most that was ever seen staged in one ring.
my $most = 0;

sub look_at_staging
{
	my $bytes = WeirTest::sql($node, <<'SQL');
SELECT coalesce(max(bytes), 0) FROM (
	SELECT sum(pg_relation_size(c.oid)) AS bytes
	FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace
	WHERE nspname = 'weir_internal' AND relname ~ '^segment_\d+_\d+_\d+$'
	GROUP BY substring(relname, '^segment_\d+_\d+')) r
SQL
	if ($bytes > $limit + $one_insert && $bytes > $most)
	{
		diag("staged: $bytes\n", WeirTest::sql($node, <<'SQL'));
SELECT relname, pg_relation_size(c.oid)
FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace
WHERE nspname = 'weir_internal' AND relname ~ '^segment_\d+_\d+_\d+$'
ORDER BY 1
SQL
	}
	$most = $bytes if $bytes > $most;
	return $bytes;
}

# Polls a condition and watches the staging meanwhile.
sub becomes
{
	my ($sql, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $ok = WeirTest::poll(
		sub {
			look_at_staging();
			return WeirTest::sql($node, $sql) eq 't';
		});
	ok($ok, $name) or diag(WeirTest::status($node));
	return;
}

# "all that was sent is in it", for streams that have a count of rows
my %count = (
	rows => 'SELECT count(*) FROM rows',
	windows => 'SELECT sum(n) FROM windows',
	running => 'SELECT sum(n) FROM running');

sub gets_all
{
	my ($name, $stream) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	becomes("SELECT ($count{$stream}) = $sent", "$name: $stream goes on");
	return;
}

sub all_equal
{
	my ($when) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::wait_for($node, @streams);
	WeirTest::compare(
		$node, "TABLE $_",
		$query{$_} =~ s/FROM events/FROM stored/r,
		"$when: $_ equals the oracle") for @streams;
	becomes(
		"SELECT bool_and(state = 'running') FROM weir.stat_stream",
		"$when: all run");
	becomes(
		'SELECT count(*) = 0 FROM weir.stat_source WHERE stream IS NOT NULL',
		"$when: all are attached");
	is($most <= $limit + $one_insert ? 'within' : $most,
		'within', "$when: staging stayed below its limit");
	return;
}

produce();
all_equal('unhindered');

##
## One stream is blocked
##

my $blocker = $node->background_psql('postgres');
for my $patience ('300ms', '0')
{
	my $when = $patience eq '0' ? 'blocked for good' : 'blocked, tries again';
	WeirTest::sql($node, "ALTER SYSTEM SET weir.lock_timeout = '$patience'");
	$node->reload;
	$blocker->query_safe('BEGIN; LOCK TABLE rows');
	produce();
	gets_all($when, 'windows');
	gets_all($when, 'running');
	becomes(
		"SELECT state IN ('retrying', 'catching_up', 'running') AND lag > 0 FROM weir.stat_stream WHERE stream = 'rows'",
		"$when: it is behind");
	if ($patience ne '0')
	{
		becomes(
			"SELECT last_error_sqlstate = '55P03' AND retries > 0 FROM weir.stat_stream WHERE stream = 'rows'",
			"$when: and says why");
	}
	produce();
	gets_all("$when, more", 'windows');
	$blocker->query_safe('COMMIT');
	all_equal("$when, released");
}

##
## All are blocked
##

$blocker->query_safe('BEGIN; LOCK TABLE rows, windows, running');
produce();
becomes(
	"SELECT bool_and(state = 'back_pressure') FROM weir.stat_source WHERE stream IS NULL",
	'all blocked: back pressure');
becomes(
	"SELECT bool_and(held_by IS NOT NULL) FROM weir.stat_source WHERE stream IS NULL",
	'all blocked: by whom');
produce();
my $fetched = 'SELECT sum(fetched_offset) FROM weir.stat_source WHERE stream IS NULL';
my $stood = WeirTest::sql($node, $fetched);
look_at_staging();
is(WeirTest::sql($node, $fetched), $stood, 'all blocked: ingest stands');
cmp_ok($stood, '<', $sent, 'all blocked: before the end');
$blocker->query_safe('COMMIT');
all_equal('all released');

##
## Readers
##

# an open cursor over the staged rows: it holds its segments
my $reader = $node->background_psql('postgres');
$reader->query_safe(
	'BEGIN; DECLARE c CURSOR FOR SELECT * FROM events; FETCH 1 FROM c');

# an old snapshot, with the source read in it
my $idle = $node->background_psql('postgres');
$idle->query_safe(
	'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM events');

# A dump into a pipe that nobody reads yet: it has its locks and its
# snapshot, and stands.
pipe(my $dump, my $dump_in) or die "could not make a pipe: $!";
my $dump_pid = WeirBroker::spawn(WeirBroker::dev_null(), $dump_in, \*STDERR,
	'pg_dump', '-d', $node->connstr('postgres'));
close $dump_in;
WeirTest::sql_becomes($node,
	"SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'COPY public.%' AND wait_event = 'ClientWrite'",
	't', 'a dump stands');
is( WeirTest::sql($node, <<'SQL'),
SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
	JOIN pg_class c ON c.oid = l.relation
WHERE query LIKE 'COPY public.%' AND relname ~ '^segment_'
SQL
	'0', 'it locks no segment');

for my $round (1 .. 2)
{
	produce();
	gets_all("readers, round $round", $_) for @streams;
}
$reader->query_safe('COMMIT');
$idle->query_safe('COMMIT');
my $dumped = do { local $/; <$dump> };
waitpid($dump_pid, 0);
is($?, 0, 'the dump succeeds');
unlike($dumped, qr/segment_\d+_/, 'it has no segment');
like($dumped, qr/^COPY public\.rows /m, 'but the targets');

# set-aside segments may have been seen beside those of the ring
$most = 0;
produce();
all_equal('readers gone');

is(WeirTest::sql($node, 'SELECT count(*) FROM weir.dead_letter'),
	'0', 'no dead letters');
$_->quit for $blocker, $reader, $idle;
$node->stop;
done_testing();
