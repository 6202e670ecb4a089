# Large batches, and what weir.sample() finds.
#
# Proves, on Apache Kafka: batches of any codec, of a size that fits into
# weir.ingest_memory or weir.max_message_bytes, are read with the default
# settings, however small they are on the wire; one that does not fit stops
# the source with the setting to raise, instead of being tried for ever, and
# after a reload and weir.resume() it is read.  weir.sample(n) shows n records
# when there are so many, whatever markers, aborted records and holes of
# compaction lie between them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use File::Temp;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

plan skip_all => WeirBroker::kafka_missing() if WeirBroker::kafka_missing();

my $most = 120_000_000;
my $kafka = WeirBroker->kafka(
	java_opts => ['-Xmx1500m'],
	config => {
		'message.max.bytes' => $most,
		'replica.fetch.max.bytes' => $most,
		'socket.request.max.bytes' => 2 * $most,
		'log.cleaner.backoff.ms' => 100
	});
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $kafka);

sub sql
{
	return WeirTest::sql($node, @_);
}

##
## Batches
##

my %properties = (
	'message.max.bytes' => $most,
	'batch.size' => $most,
	'batch.num.messages' => 1000000,
	'queue.buffering.max.kbytes' => 400_000);

# One batch of n messages of so many bytes.  The producer sends what it has
# whenever it has to wait for more; for a file it does not.
sub produce_batch
{
	my ($topic, $codec, $n, $bytes, $text) = @_;
	my $filler = substr($text x ($bytes / length($text) + 1), 0, $bytes);
	my $file = File::Temp->new;
	print $file qq({"id":$_,"t":"$filler"}\n) for 1 .. $n;
	close $file or die "could not write: $!";
	open my $in, '<', $file->filename or die "could not read: $!";
	my $pid = WeirBroker::spawn($in, \*STDERR, \*STDERR,
		WeirBroker::program('produce'),
		$kafka->produce_args(
			$topic,
			codec => $codec,
			linger => 20000,
			properties => \%properties));
	waitpid($pid, 0);
	die "the producer failed with status $?" if $? != 0;
	return;
}

sub drop
{
	my ($topic) = @_;
	sql("SELECT weir.drop_stream('of_$topic', drop_target => true)");
	sql("SELECT weir.drop_source('$topic')");
	return;
}

# text that compresses a little only
srand(1);
my $random = join '', map { chr(ord('a') + int rand 26) } 1 .. 1_000_000;

my %batch = (
	zstd_many => [ 'zstd', 40, 1_000_000, 'x' ],
	zstd_one => [ 'zstd', 1, 60_000_000, 'y' ],
	lz4 => [ 'lz4', 80, 1_000_000, 'x' ],
	gzip => [ 'gzip', 80, 1_000_000, 'x' ],
	snappy => [ 'snappy', 80, 1_000_000, 'x' ],
	plain => [ 'none', 80, 1_000_000, $random ]);
for my $topic (sort keys %batch)
{
	my ($codec, $n, $bytes, $text) = @{ $batch{$topic} };
	$kafka->create_topic($topic, 1);
	produce_batch($topic, $codec, $n, $bytes, $text);
	WeirTest::create_source($node, $topic, columns => 'id int NOT NULL, t text');
	WeirTest::create_stream($node, "of_$topic",
		"SELECT s.id, length(s.t) AS len FROM $topic s");
	WeirTest::wait_for($node, "of_$topic");
	is(sql("SELECT count(*), min(len), max(len) FROM of_$topic"),
		"$n|$bytes|$bytes", "$topic: a batch of @{[ $n * $bytes / 1e6 ]} MB");
	drop($topic);
}

# with less memory than they need
WeirTest::set_conf($node,
	'weir.ingest_memory' => '4MB', 'weir.max_message_bytes' => '4MB');
$node->reload;
for my $topic (qw(zstd_many plain))
{
	WeirTest::create_source($node, $topic, columns => 'id int NOT NULL, t text');
	WeirTest::create_stream($node, "of_$topic",
		"SELECT s.id, length(s.t) AS len FROM $topic s");
	WeirTest::sql_becomes(
		$node, <<"SQL", qr/^stopped\|(?:54000|XX001)\|.*raise "weir.ingest_memory" or "weir.max_message_bytes"/, "$topic: too large, and the setting is named");
SELECT state, last_error_sqlstate, last_error FROM weir.stat_source WHERE source = '$topic'
SQL
	is( sql(<<"SQL"), 't', 'its stream says so, too');
SELECT state = 'waiting' AND last_error ~ 'weir.ingest_memory' FROM weir.stat_stream WHERE stream = 'of_$topic'
SQL
	like(WeirTest::sql_error($node, "SELECT weir.wait_for('of_$topic')"),
		qr/^55000.*source is stopped.*weir.ingest_memory/s, 'and wait_for');
}
WeirTest::set_conf($node, 'weir.ingest_memory' => '128MB');
$node->reload;
for my $topic (qw(zstd_many plain))
{
	sql("SELECT weir.resume('$topic')");
	WeirTest::wait_for($node, "of_$topic");
	is(sql("SELECT count(*) FROM of_$topic"),
		$batch{$topic}[1], "$topic: with more memory it is read");
	drop($topic);
}

##
## A sample
##

sub sample
{
	my ($topic, $n) = @_;
	return sql("SELECT string_agg(payload, ' ' ORDER BY kafka_partition, kafka_offset) FROM weir.sample('kafka', '$topic', $n)");
}

# every record a transaction
$kafka->create_topic('single', 1);
$kafka->produce('single', [ map { "r$_" } 1 .. 30 ],
	transactional => 'single', commit_every => 1);
is(sample('single', 10), join(' ', map { "r$_" } 21 .. 30), 'markers are no records');
is(sample('single', 30), join(' ', map { "r$_" } 1 .. 30), 'all there are');
is(sample('single', 31), join(' ', map { "r$_" } 1 .. 30), 'and no more');

# aborted ones at the end
$kafka->create_topic('aborted', 1);
$kafka->produce('aborted', [ map { "r$_" } 1 .. 15 ],
	transactional => 'good', commit_every => 1);
$kafka->produce('aborted', [ map { "gone$_" } 1 .. 500 ],
	transactional => 'bad', commit_every => 5, abort_every => 1);
is(sample('aborted', 10), join(' ', map { "r$_" } 6 .. 15), 'nor are aborted records');
is(sample('aborted', 100), join(' ', map { "r$_" } 1 .. 15), 'up to the beginning');

# compacted, two partitions, tombstones
$kafka->create_topic('compacted', 2, 'cleanup.policy=compact',
	'segment.ms=100', 'min.cleanable.dirty.ratio=0.001',
	'segment.bytes=1048576', 'max.compaction.lag.ms=100');
for my $round (1 .. 3)
{
	$kafka->produce(
		'compacted',
		[ map { "0\tk" . ($_ % 5) . "\tv$round.$_" } 1 .. 400 ],
		partition_field => 1,
		key => 1);
}
$kafka->produce('compacted', ["1\tlast\tone"], partition_field => 1, key => 1);
$kafka->produce('compacted', ["0\tend$_\tend$_"], partition_field => 1, key => 1)
  for 1, 2;
WeirTest::sql_becomes($node,
	"SELECT count(*) FROM weir.sample('kafka', 'compacted', 400)",
	qr/^[678]$/, 'all that compaction has left');

$node->stop;
$kafka->stop;
done_testing();
