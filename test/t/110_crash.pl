# Killed at random moments, the results are exact (I1, I2, I3, I8).
#
# Proves: while events with disorder come into 4 partitions, some of them
# broken, processes end at random: the ingest worker, a stream worker, the
# manager or the launcher by pg_terminate_backend() or by SIGKILL (which is a
# crash of the server: all backends start again and staging is empty), the
# postmaster by SIGKILL (the server is started again, and recovers from WAL),
# or all in order (a fast restart).  In the end every stream equals the
# oracle: tumbling windows on change, hopping windows on close, a row stream
# with each id exactly once, a running aggregate; and each broken record is
# one dead letter.
#
# WEIR_TEST_SEEDS: which seeds to run ("1 2 3"), WEIR_TEST_CHUNKS: how many
# chunks of events.  A seed decides the events, who is killed, and after how
# much progress; the moment itself is chance.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my @seeds = split ' ', $ENV{WEIR_TEST_SEEDS} || '1 2 3';
my $chunks = $ENV{WEIR_TEST_CHUNKS} || 12;
my $chunk_size = 1000;

my $broker = WeirBroker->embedded;
my $node = WeirTest::start_node('main',
	conf => { 'weir.segment_size' => '256kB' });
WeirTest::create_server($node, $broker);

# how often each thing was done
my %done;

sub one_of
{
	my (@list) = @_;
	return $list[ int(rand @list) ];
}

# Kills one process of that kind; nothing when there is none just now.
sub kill_worker
{
	my ($kind) = @_;
	my $pid;
	WeirTest::poll(
		sub { $pid = one_of(WeirTest::worker_pids($node, $kind)) }, 10)
	  or return;
	kill 'KILL', $pid;
	$done{"kill $kind"}++;
	return;
}

sub terminate_worker
{
	my ($kind) = @_;
	my $pid;
	WeirTest::poll(
		sub { $pid = one_of(WeirTest::worker_pids($node, $kind)) }, 10)
	  or return;
	WeirTest::sql_if_up($node, "SELECT pg_terminate_backend($pid)");
	$done{"terminate $kind"}++;
	return;
}

my @actions = (
	(sub { kill_worker('ingest') }) x 2,
	(sub { kill_worker('stream') }) x 2,
	(sub { terminate_worker('ingest') }) x 2,
	(sub { terminate_worker('stream') }) x 3,
	sub { terminate_worker('manager') },
	sub { terminate_worker('launcher') },
	(
		sub {
			WeirTest::kill_postmaster($node);
			WeirTest::start_again($node);
			$done{'kill postmaster'}++;
		}
	) x 2,
	sub {
		$node->stop('immediate', fail_ok => 1);
		WeirTest::start_again($node);
		$done{'immediate stop'}++;
	},
	sub {
		$node->stop('fast', fail_ok => 1);
		WeirTest::start_again($node);
		$done{'fast stop'}++;
	});

# How many records the streams of a topic have applied, all together.
sub applied
{
	my ($topic) = @_;
	return WeirTest::sql_if_up($node, <<SQL);
SELECT coalesce(sum(p.applied_offset), 0)
FROM weir_internal.progress p JOIN weir_internal.stream USING (stream_id)
	JOIN weir_internal.source s USING (source_id)
WHERE s.topic = '$topic'
SQL
}

for my $seed (@seeds)
{
	srand($seed);
	%done = ();
	my $topic = "events_$seed";
	$broker->create_topic($topic, 4);
	my @lines = WeirBroker::gen_lines('events',
		events => $chunks * $chunk_size,
		seed => $seed,
		partitions => 4,
		disorder_ms => 2000,
		keys => 20);
	my @payloads = map { s/^\d+\t//r } @lines;

	WeirTest::create_events_source($node, $topic,
		max_out_of_orderness => '2 seconds');
	my %query = (
		tumbling => <<SQL,
SELECT w.window_start, w.window_end, e.k, count(*) AS n, sum(e.v) AS sum_v,
	avg(e.v) AS avg_v, min(e.v) AS min_v, max(e.v) AS max_v,
	stddev(e.v) AS stddev_v
FROM $topic e CROSS JOIN weir.tumble(e.at, '10 seconds') w
GROUP BY w.window_start, w.window_end, e.k
SQL
		hopping => <<SQL,
SELECT w.window_start, w.window_end, e.k, count(*) AS n, sum(e.v) AS sum_v
FROM $topic e CROSS JOIN weir.hop(e.at, '15 seconds', '5 seconds') w
GROUP BY w.window_start, w.window_end, e.k
SQL
		rows => "SELECT e.id, e.k, e.v, e.at, e.txt FROM $topic e\n",
		running => <<SQL);
SELECT e.k, count(*) AS n, sum(e.v) AS sum_v, stddev(e.v) AS stddev_v,
	max(e.at) AS last_at
FROM $topic e GROUP BY e.k
SQL
	my %stream = map { $_ => "${_}_$seed" } keys %query;
	for my $name (sort keys %query)
	{
		WeirTest::create_stream($node, $stream{$name}, $query{$name},
			emit => $name eq 'hopping' ? 'on_close' : 'on_change');
	}

	# every 97th line is followed by a broken one
	my $broken = 0;
	my $producer = $broker->producer($topic, partition_field => 1);
	my $least = 0;
	for my $chunk (0 .. $chunks - 1)
	{
		for my $i ($chunk * $chunk_size .. ($chunk + 1) * $chunk_size - 1)
		{
			$producer->send($lines[$i]);
			next unless $i % 97 == 0;
			$producer->send($i % 4 . qq(\t{"id":$i,"broken":));
			$broken++;
		}

		# until some of it is applied, by chance all or nothing
		$least += int(rand(4 * $chunk_size));
		WeirTest::poll(
			sub {
				my $n = applied($topic);
				return defined $n && $n >= $least;
			},
			2);
		one_of(@actions)->();
	}
	$producer->finish;

	WeirTest::poll(sub { WeirTest::sql_if_up($node, 'SELECT 1') })
	  or die 'the server does not come back';
	WeirTest::load_events($node, "stored_$seed", \@payloads);
	WeirTest::wait_for($node, values %stream);
	WeirTest::close_windows($node, $topic, values %stream);
	diag("seed $seed: "
		  . join(', ', map { "$_ $done{$_}" } sort keys %done));
	ok(scalar keys %done > 2, "seed $seed: things were killed");
	for my $name (sort keys %query)
	{
		WeirTest::compare(
			$node,
			"TABLE $stream{$name}",
			$query{$name} =~ s/FROM $topic/FROM stored_$seed/r,
			"seed $seed: $name");
	}
	is( WeirTest::sql($node, <<SQL),
SELECT count(*), count(DISTINCT (kafka_partition, kafka_offset)), string_agg(DISTINCT reason, ' ')
FROM weir.dead_letter WHERE source = '$topic'
SQL
		"$broken|$broken|decode", "seed $seed: dead letters");
	WeirTest::sql($node, "SELECT weir.drop_source('$topic', cascade => true)");
}

# The server log is where a bug shows that results do not.
my $log = slurp_file($node->logfile);
unlike($log, qr/TRAP:|PANIC:|signal 11|signal 6/, 'no other crash');

$node->stop;
done_testing();
