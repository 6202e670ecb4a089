# Transactions of Kafka's: only what is committed counts.
#
# Proves, on Apache Kafka: records of aborted transactions are never seen,
# not even broken ones as dead letters; markers leave the offsets whole, so
# lag reaches 0 whatever the last transaction was, also after a restart.  An
# open transaction holds lag and end at the last stable offset, with all that
# is behind it: wait_for() waits for nothing that cannot be read, the
# partition holds the watermark, and when the transaction ends everything
# comes, nothing late.  One whose producer died is aborted by the broker, and
# that goes unnoticed.  A stream from "latest" begins at the last stable
# offset.  The option isolation_level 'read_uncommitted' reads all.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $kafka = WeirBroker->kafka(
	java_opts => ['-Xmx512m'],
	config =>
	  { 'transaction.abort.timed.out.transaction.cleanup.interval.ms' => 500 }
);
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $kafka);
$kafka->create_topic('events', 2);
WeirTest::create_events_source($node, 'events',
	max_out_of_orderness => '1 second',
	idle_timeout => undef);

my %query = (
	windows => <<'SQL',
SELECT w.window_start, e.k, count(*) AS n, sum(e.v) AS sum_v
FROM events e CROSS JOIN weir.tumble(e.at, '10 seconds') w
GROUP BY w.window_start, e.k
SQL
	closed => <<'SQL',
SELECT w.window_start, w.window_end, count(*) AS n, sum(e.v) AS sum_v
FROM events e CROSS JOIN weir.tumble(e.at, '10 seconds') w
GROUP BY w.window_start, w.window_end
SQL
	rows => 'SELECT e.id, e.k, e.v FROM events e');
my @streams = sort keys %query;
WeirTest::create_stream($node, $_, $query{$_},
	$_ eq 'closed' ? (emit => 'on_close') : ())
  for @streams;

my @lines = WeirBroker::gen_lines('events',
	events => 13000, seed => 210, partitions => 2, disorder_ms => 1000);
my $made = 0;

sub take
{
	my ($n) = @_;
	$made += $n;
	return @lines[ $made - $n .. $made - 1 ];
}

sub store
{
	WeirTest::load_events($node, 'stored', [ map { s/^\d+\t//r } @_ ]);
	return;
}

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
	(SELECT min(m) - interval '1 second'
	 FROM (SELECT max(at) AS m FROM stored GROUP BY id % 2) p)
SQL
		WeirTest::compare($node, "SELECT * FROM $name", $oracle,
			"$when: $name");
	}
	return;
}

# applied, fetched and end of the source are those offsets, and nothing lags
sub at_offsets
{
	my ($when, @offsets) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $expected = join "\n", map { "$_|$offsets[$_]|$offsets[$_]|0" } 0 .. 1;
	WeirTest::sql_becomes($node, <<'SQL', $expected,
SELECT kafka_partition, applied_offset, end_offset, lag FROM weir.stat_source
WHERE source = 'events' AND stream IS NULL ORDER BY 1
SQL
		"$when: offsets, no lag");
	WeirTest::sql_becomes($node, <<'SQL', '0|0', "$when: no stream lags");
SELECT min(lag), max(lag) FROM weir.stat_stream
SQL
	return;
}

sub ends
{
	return map { $_->[1] } $kafka->offsets('events', @_);
}

##
## Aborted transactions
##

# every third is aborted, the last one too; some in them are broken
my @chunk = take(6000);
my (@sent, @good);
for my $i (0 .. $#chunk)
{
	if (int($i / 100) % 3 == 2)
	{
		push @sent, $i % 10 == 0 ? $i % 2 . qq(\t{"id":$i,) : $chunk[$i];
	}
	else
	{
		push @sent, $chunk[$i];
		push @good, $chunk[$i];
	}
}
$kafka->produce('events', \@sent,
	partition_field => 1, transactional => 'first',
	commit_every => 100, abort_every => 3);
store(@good);
all_equal('every third aborted');
my @ends = ends();
cmp_ok($ends[0] + $ends[1], '>', 6000, 'markers have offsets');
at_offsets('every third aborted', @ends);
is( WeirTest::sql($node, <<'SQL'),
SELECT sum(rows_in), sum(rows_dead) FROM weir.stat_source
WHERE stream IS NULL
SQL
	'4000|0', 'nothing of an aborted transaction was read');

# the position behind markers survives
$node->stop('immediate');
$node->start;
at_offsets('restarted', @ends);
all_equal('restarted');
@chunk = take(1000);
$kafka->produce('events', \@chunk,
	partition_field => 1, transactional => 'first');
store(@chunk);
all_equal('restarted, more');

##
## An open transaction
##

# in partition 0 only; then plain records in both, further on in time
@ends = ends();
my @open = grep { /^0/ } take(1000);
my $open = $kafka->producer('events', partition_field => 1,
	transactional => 'second');
$open->send(@open);
WeirTest::poll(sub { (ends())[0] == $ends[0] + @open })
  or die 'the open transaction writes nothing';
my @behind = take(4000);
$kafka->produce('events', \@behind, partition_field => 1);
my @readable = grep { /^1/ } @behind;
store(@readable);
is_deeply([ ends(committed => 1) ],
	[ $ends[0], $ends[1] + @readable ],
	'open: the end is the last stable offset');
all_equal('open');
at_offsets('open', $ends[0], $ends[1] + @readable);
is( WeirTest::sql($node, <<'SQL'),
SELECT watermark_held_by FROM weir.stat_stream WHERE stream = 'closed'
SQL
	'0', 'open: its partition holds the watermark');

# whoever starts at the end now still gets what is not committed yet
WeirTest::create_stream($node, 'late_comer', $query{rows},
	options => '{"start_from": "latest"}');
WeirTest::wait_for($node, 'late_comer');
is(WeirTest::sql($node, 'SELECT count(*) FROM late_comer'),
	'0', 'open: nothing after the end');
$open->finish;
store(@open, grep { /^0/ } @behind);
all_equal('committed');
at_offsets('committed', ends());
WeirTest::wait_for($node, 'late_comer');
WeirTest::load_events($node, 'stored_late',
	[ map { s/^\d+\t//r } @open, grep { /^0/ } @behind ]);
WeirTest::compare(
	$node, 'TABLE late_comer',
	$query{rows} =~ s/FROM events/FROM stored_late/r,
	'a stream from the latest begins at the last stable offset');

##
## A producer that dies
##

@ends = ends();
my $dying = $kafka->producer(
	'events',
	partition_field => 1,
	transactional => 'third',
	properties => { 'transaction.timeout.ms' => 3000 });
my @lost = take(500);
$dying->send(@lost);
WeirTest::poll(
	sub {
		my ($end0, $end1) = ends();
		return $end0 + $end1 == $ends[0] + $ends[1] + @lost;
	}) or die 'the dying transaction writes nothing';
$dying->kill9;
@behind = take(500);
$kafka->produce('events', \@behind, partition_field => 1);
store(@behind);
my ($end0, $end1) = ends();
WeirTest::poll(
	sub {
		my ($stable0, $stable1) = ends(committed => 1);
		($end0, $end1) = ends();
		return $stable0 == $end0 && $stable1 == $end1;
	}) or die 'the broker does not abort the transaction';
all_equal('producer dead');
at_offsets('producer dead', $end0, $end1);
is(WeirTest::sql($node, 'SELECT count(*) FROM weir.dead_letter'),
	'0', 'no dead letters, none late');

##
## All of it
##

WeirTest::sql($node, <<SQL);
CREATE SERVER dirty FOREIGN DATA WRAPPER weir_kafka
OPTIONS (bootstrap_servers '@{[ $kafka->bootstrap ]}',
	isolation_level 'read_uncommitted')
SQL
WeirTest::create_events_source($node, 'everything',
	server => 'dirty', topic => 'events');
WeirTest::create_stream($node, 'all_rows',
	'SELECT e.id, e.k, e.v FROM everything e');
WeirTest::load_events($node, 'stored_all',
	[ map { s/^\d+\t//r } grep { /\}$/ } @sent, @lines[ 6000 .. 6999 ],
		@open, @lines[ 8000 .. 11999 ], @lost, @behind ]);
WeirTest::wait_for($node, 'all_rows');
WeirTest::compare(
	$node, 'TABLE all_rows',
	'SELECT id, k, v FROM stored_all',
	'read_uncommitted reads all');
is( WeirTest::sql($node, <<'SQL'),
SELECT count(*) FROM weir.dead_letter WHERE source = 'everything'
SQL
	'200', 'and what is broken, too');

$node->stop;
$kafka->stop;
done_testing();
