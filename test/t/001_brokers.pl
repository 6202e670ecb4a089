# The brokers, the producer and the generators that other tests stand on.
#
# Proves, on the embedded broker: what is produced comes out as it went in
# (keys, headers, nulls, any byte); a producer outlives an outage without
# loss, repetition or change of order; a line that is written to a producer
# is there at once; injected errors reach clients.
#
# Proves, on a real Kafka: every codec; aborted and open transactions are
# not for read_committed; topics are created, grown, emptied, deleted and
# made again; data and ports survive an orderly stop and SIGKILL; a login;
# nothing is left when a test is killed.
#
# Proves, of the generators: event n of a seed is always the same; the right
# answer that "gen ysb" writes is that of its events.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use File::Temp;
use Test::More;
use WeirBroker;

# "partition:offset:payload" of records, for comparison
sub summary
{
	return map { "$_->{partition}:$_->{offset}:$_->{payload}" } @_;
}

sub payloads
{
	return map { $_->{payload} } @_;
}

# what a piece of code dies with
sub complaint
{
	my ($code) = @_;
	return eval { $code->(); 1 } ? 'nothing' : $@;
}

# Polls until the topic has that many records, and returns all.
sub consume_n
{
	my ($broker, $topic, $n) = @_;
	my @records;
	WeirBroker::poll_until(
		sub { (@records = $broker->consume($topic)) >= $n }, 30);
	return @records;
}

##
## The embedded broker
##

my $embedded = WeirBroker->embedded(topics => { one => 1, two => 2 });
like($embedded->bootstrap, qr/^127\.0\.0\.1:\d+$/, 'listens on loopback');

$embedded->produce('two', [qw(a b c d e)]);
is_deeply(
	[ summary($embedded->consume('two')) ],
	[qw(0:0:a 0:1:c 0:2:e 1:0:b 1:1:d)],
	'partitions take turns');
is_deeply([ $embedded->offsets('two') ],
	[ [ 0, 3 ], [ 0, 2 ] ], 'offsets by partition');

$embedded->create_topic('bytes', 2);
$embedded->produce(
	'bytes',
	[
		"1\t1700000000123\tk\\t\\x01\tp\\n\\0\\\\\\xff",
		"1\t1700000000124\t\\N\t\\N",
		"0\t1700000000125\t\t"
	],
	partition_field => 1,
	timestamp => 1,
	key => 1,
	raw_escapes => 1,
	headers => [ 'h=1', 'h=2' ]);
is_deeply(
	[ $embedded->consume('bytes') ],
	[
		{
			partition => 0,
			offset => 0,
			timestamp => 1700000000125,
			headers => 'h=1,h=2',
			key => '',
			payload => ''
		},
		{
			partition => 1,
			offset => 0,
			timestamp => 1700000000123,
			headers => 'h=1,h=2',
			key => "k\t\x01",
			payload => "p\n\0\\\xff"
		},
		{
			partition => 1,
			offset => 1,
			timestamp => 1700000000124,
			headers => 'h=1,h=2'
		}
	],
	'timestamps, keys, headers, escapes and nulls');

$embedded->create_topic('keyed', 8);
$embedded->produce('keyed', [ map { "k" . $_ % 5 . "\t$_" } 1 .. 50 ],
	key => 1);
my %partitions_of;
$partitions_of{ $_->{key} }{ $_->{partition} } = 1
  for $embedded->consume('keyed');
is_deeply(
	[ map { scalar keys %$_ } values %partitions_of ],
	[ (1) x 5 ],
	'a key has one partition');

# the producer stays open: the line must not wait for more
$embedded->create_topic('live', 1);
my $producer = $embedded->producer('live');
$producer->send('first');
is_deeply([ payloads(consume_n($embedded, 'live', 1)) ],
	['first'], 'a line is sent at once');
$embedded->command('down');
$producer->send(map { "line $_" } 1 .. 100);
$embedded->command('up');
$producer->finish;
is_deeply(
	[ payloads($embedded->consume('live')) ],
	[ 'first', map { "line $_" } 1 .. 100 ],
	'nothing is lost or repeated by an outage');

# 29 is TOPIC_AUTHORIZATION_FAILED
$embedded->command('error one 29');
like(complaint(sub { $embedded->produce('one', ['x']) }),
	qr/producer failed/, 'an injected error fails the producer');
$embedded->command('error one 0');
$embedded->produce('one', ['x']);
is_deeply([ payloads($embedded->consume('one')) ],
	['x'], 'and is over when it is taken back');

like(complaint(sub { $embedded->command('nonsense') }),
	qr/unknown command/, 'unknown commands are refused');
like(complaint(sub { $embedded->produce('one', ['no tab'], key => 1) }),
	qr/producer failed/, 'a line without its key is refused');

##
## The generators
##

my @events = WeirBroker::gen_lines('events',
	events => 300, seed => 5, partitions => 3, disorder_ms => 2000);
is(scalar @events, 300, 'as many events as asked for');
is_deeply(
	[
		WeirBroker::gen_lines('events',
			first => 200, events => 100, seed => 5, partitions => 3,
			disorder_ms => 2000)
	],
	[ @events[ 200 .. 299 ] ],
	'an event does not depend on those before it');
isnt(
	(WeirBroker::gen_lines('events', events => 1, seed => 6))[0],
	(WeirBroker::gen_lines('events', events => 1, seed => 5))[0],
	'but on the seed');
$embedded->create_topic('events', 3);
$embedded->gen('events', events => 300, seed => 5, partitions => 3,
	disorder_ms => 2000, topic => 'events');
is_deeply(
	[
		map { "$_->{partition}\t$_->{payload}" }
		  $embedded->consume('events')
	],
	[
		map { my $p = $_; grep { /^$p\t/ } @events } 0 .. 2
	],
	'the same into a topic');

my $dir = File::Temp->newdir;
my @views = WeirBroker::gen_lines('ysb', events => 300000, partitions => 4,
	ads_file => "$dir/ads", oracle => "$dir/oracle");
my %campaign = map { split /\t/ } split /\n/, WeirBroker::slurp("$dir/ads");
my %count;
for (@views)
{
	next unless /"event_type":"view"/;
	my ($ad) = /"ad_id":"([^"]*)"/;
	my ($ms) = /"event_time":"(\d+)"/;
	$count{ "$campaign{$ad}\t" . ($ms - $ms % 10000) }++;
}
is(scalar keys %campaign, 1000, '1,000 ads');
is_deeply(
	[ sort map { "$_\t$count{$_}" } keys %count ],
	[ sort split /\n/, WeirBroker::slurp("$dir/oracle") ],
	'the right answer is that of the events');
is(scalar keys %count, 300, '3 windows of 100 campaigns');

my @tweets = WeirBroker::gen_lines('tweets', events => 2000, plain => 1);
ok((grep { !/"timestamp_ms":"\d+"\}$/ } @tweets) > 0, 'some are broken');
ok((grep { /^\{"created_at":.*"user":\{[^}]*"lang":"en"/ } @tweets) > 600,
	'many are English');
is( scalar(
		grep { !/"user":\{[^}]*"lang":"\w\w"/ }
		  WeirBroker::gen_lines('tweets', events => 2000, clean => 1)),
	0,
	'none is broken if it shall be clean');

$embedded->stop;
like(
	complaint(
		sub {
			$embedded->kadmin('--timeout', 300, 'wait');
		}),
	qr/no broker answers/,
	'a stopped broker does not answer');

##
## The real Kafka
##

SKIP:
{
	if (my $missing = WeirBroker::kafka_missing())
	{
		fail("a real Kafka: $missing");
		last SKIP;
	}

	my $kafka = WeirBroker->kafka(sasl => { etl => 'secret' });

	for my $codec (qw(none gzip snappy lz4 zstd))
	{
		$kafka->create_topic($codec, 1, "compression.type=producer");
		my @lines = map { "$codec $_ " . 'x' x 100 } 1 .. 500;
		$kafka->produce($codec, \@lines, codec => $codec);
		is_deeply([ payloads($kafka->consume($codec)) ],
			\@lines, "codec $codec");
	}
	like(complaint(sub { $kafka->create_topic('gzip', 1) }),
		qr/already exists/, 'a topic cannot be created twice');
	like(complaint(sub { $kafka->offsets('nowhere') }),
		qr/does not exist/, 'no topic appears by asking for it');

	# transactions of 2 records; the second and the fourth are aborted
	$kafka->create_topic('tx', 1);
	$kafka->produce('tx', [ 1 .. 8 ],
		transactional => 'a', commit_every => 2, abort_every => 2);
	is_deeply([ payloads($kafka->consume('tx')) ],
		[ 1, 2, 5, 6 ], 'committed records');
	is_deeply(
		[
			payloads(
				$kafka->consume('tx', isolation => 'read_uncommitted'))
		],
		[ 1 .. 8 ],
		'all records');
	is_deeply([ $kafka->offsets('tx') ],
		[ [ 0, 12 ] ], 'markers have offsets too');

	# an open transaction holds the last stable offset
	my $open = $kafka->producer('tx', transactional => 'b');
	$open->send('open');
	ok( WeirBroker::poll_until(
			sub { ($kafka->offsets('tx'))[0][1] == 13 }, 30),
		'an open transaction writes');
	is_deeply([ $kafka->offsets('tx', committed => 1) ],
		[ [ 0, 12 ] ], 'and holds the last stable offset');
	$kafka->produce('tx', ['after']);
	is_deeply([ payloads($kafka->consume('tx')) ],
		[ 1, 2, 5, 6 ], 'and all that comes after it');
	$open->finish;
	is_deeply([ payloads($kafka->consume('tx')) ],
		[ 1, 2, 5, 6, 'open', 'after' ], 'until it ends');

	# retention, growth, recreation
	$kafka->create_topic('life', 2);
	$kafka->produce('life', [ 0 .. 9 ]);
	$kafka->delete_records('life', 0, 3);
	is_deeply([ $kafka->offsets('life') ],
		[ [ 3, 5 ], [ 0, 5 ] ], 'records deleted before an offset');
	$kafka->delete_records('life', 1, -1);
	is_deeply([ $kafka->offsets('life') ],
		[ [ 3, 5 ], [ 5, 5 ] ], 'all records deleted');
	$kafka->add_partitions('life', 3);
	$kafka->produce('life', ['new'], partition => 2);
	is_deeply(
		[ summary($kafka->consume('life')) ],
		[qw(0:3:6 0:4:8 2:0:new)],
		'a partition more');
	$kafka->delete_topic('life');
	unlike($kafka->kadmin('topics'), qr/^life\t/m, 'topic deleted');
	$kafka->create_topic('life', 1);
	is_deeply([ $kafka->offsets('life') ], [ [ 0, 0 ] ], 'and made again');

	# restarts
	my $bootstrap = $kafka->bootstrap;
	my @before = $kafka->consume('gzip');
	$kafka->restart;
	is($kafka->bootstrap, $bootstrap, 'same port after a restart');
	is_deeply([ $kafka->consume('gzip') ], \@before, 'and same data');
	my $through = $kafka->producer('life');
	$through->send(1 .. 10);
	is(scalar(consume_n($kafka, 'life', 10)), 10, 'written before a crash');
	$kafka->kill9;
	$through->send(11 .. 20);
	$kafka->start;
	$through->finish;
	is($kafka->bootstrap, $bootstrap, 'same port after SIGKILL');
	is_deeply([ payloads($kafka->consume('life')) ],
		[ 1 .. 20 ], 'and a producer goes on where it was');

	# a login
	my %login = (
		'bootstrap.servers' => $kafka->sasl_bootstrap,
		'security.protocol' => 'SASL_PLAINTEXT',
		'sasl.mechanisms' => 'PLAIN',
		'sasl.username' => 'etl',
		'sasl.password' => 'secret');
	$kafka->create_topic('sasl', 1);
	$kafka->produce('sasl', ['in'], properties => \%login);
	is_deeply([ payloads($kafka->consume('sasl')) ], ['in'], 'logged in');
	$login{'sasl.password'} = 'wrong';
	like(
		complaint(
			sub {
				$kafka->kadmin((map { ('-X', "$_=$login{$_}") } keys %login),
					'--timeout', 2000, 'wait');
			}),
		qr/Authentication failed/,
		'a wrong password is refused');

	# a test that is killed leaves nothing behind
	my $victim_dir = File::Temp->newdir;
	my $victim = WeirBroker::spawn(
		WeirBroker::dev_null(),
		WeirBroker::dev_null(),
		\*STDERR,
		$^X,
		"-I$FindBin::RealBin/../support",
		'-MWeirBroker',
		'-e',
		'$b = WeirBroker->embedded;'
		  . '$k = WeirBroker->kafka(dir => $ARGV[0]);'
		  . 'WeirBroker::spew("$ARGV[0]/pids", "$b->{pid}\n");'
		  . 'select undef, undef, undef, 600',
		$victim_dir->dirname);
	ok(WeirBroker::poll_until(sub { -s "$victim_dir/pids" }),
		'another test starts brokers');
	my $kafka_pid = WeirBroker::kafka_pid($victim_dir->dirname);
	my ($embedded_pid) = WeirBroker::slurp("$victim_dir/pids") =~ /(\d+)/;
	ok(WeirBroker::is_alive($kafka_pid), 'its Kafka runs');
	WeirBroker::end_process($victim, 'KILL');
	ok(WeirBroker::poll_until(sub { !WeirBroker::is_alive($kafka_pid) }, 30),
		'its Kafka ends with it');
	ok( WeirBroker::poll_until(
			sub { !WeirBroker::is_alive($embedded_pid) }, 30),
		'and its embedded broker');

	$kafka->stop;
	is(WeirBroker::kafka_pid($kafka->{dir}), undef, 'stopped');
}

done_testing();
