# Where reading may begin, and what is not there.
#
# Proves: explicit offsets, of the source, of a stream and of a seek, are taken
# only where the topic has them, the end included; past the end, in a partition
# that is not there, or deleted, they are refused with the reason, and nothing
# is read from elsewhere.  After the records have come, weir.resume() goes on
# exactly there.  A partition without a leader does not keep the others from
# being read, whether the stream is old or new; it is named with the broker's
# words, holds the watermark, and is read by itself when it has a leader, from
# where the stream was to begin.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(
	topics => { t => 2, own => 2, src => 1, none => 1, lost => 3, fresh => 3 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

sub sql
{
	return WeirTest::sql($node, @_);
}

my %sent;

# n more records, with the topic's own numbers, into one partition
sub produce
{
	my ($topic, $partition, $n) = @_;
	my $from = $sent{"$topic/$partition"} || 0;
	$broker->produce(
		$topic,
		[
			map {
				sprintf qq(%d\t{"id":%d,"at":%d}), $partition, $_,
				  1704067200 + $_
			} $from .. $from + $n - 1
		],
		partition_field => 1);
	$sent{"$topic/$partition"} = $from + $n;
	return;
}

sub ids
{
	my ($table, $p) = @_;
	return sql("SELECT min(id) || '..' || max(id) || ':' || count(*) FROM $table WHERE p = $p");
}

my $columns = 'id int, at timestamptz';

sub query
{
	return "SELECT s.id, s.kafka_partition AS p FROM $_[0] s";
}

sub stream_is
{
	my ($stream, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::sql_becomes($node, <<"SQL", $expected, $name);
SELECT state || ' ' || coalesce(last_error_sqlstate, '') || ' ' || coalesce(last_error, '')
FROM weir.stat_stream WHERE stream = '$stream'
SQL
	return;
}

##
## Offsets of a stream
##

produce('t', $_, 10) for 0, 1;
WeirTest::create_source($node, 't', columns => $columns, event_time => 'at');
my %start = (
	at_end => '{"0": 10, "1": 10}',
	inside => '{"0": 4}',
	past => '{"0": 100}',
	far_past => '{"1": 9223372036854775807}',
	no_partition => '{"0": 3, "2": 0}');
WeirTest::create_stream($node, $_, query('t'),
	options => qq({"start_from": $start{$_}}))
  for sort keys %start;
stream_is('past',
	qr/^failed 22023 offset 100 of t\[0\] is past its end \(available 0\.\.10\)/,
	'past the end is refused');
stream_is('far_past', qr/^failed 22023 .* is past its end/, 'far past it, too');
stream_is('no_partition',
	qr/^failed 22023 partition 2 of topic "t" does not exist on server "kafka": it has 2 partitions/,
	'and a partition that is not there');
like(WeirTest::sql_error($node, "SELECT weir.wait_for('past')"),
	qr/^55000.*has failed.*past its end/s, 'waiting for it is an error');
WeirTest::wait_for($node, 'at_end', 'inside');
is(ids('inside', 0), '4..9:6', 'offsets that are there');
is(ids('inside', 1), '0..9:10', 'and the beginning of what is not named');
is(sql('SELECT count(*) FROM at_end'), '0', 'the end is there');
is(sql("SELECT count(*) FROM weir.stat_source WHERE source = 't' AND stream IS NULL AND state = 'running'"),
	'2', 'the source runs');

produce('t', 0, 110);
WeirTest::wait_for($node, 'at_end', 'inside');
is(ids('at_end', 0), '10..119:110', 'from the end on');
is(sql('SELECT count(*) FROM past'), '0', 'nothing was read from elsewhere');
sql("SELECT weir.resume('past')");
WeirTest::wait_for($node, 'past');
is(ids('past', 0), '100..119:20', 'resumed, exactly from there');
sql("SELECT weir.resume('far_past')");
stream_is('far_past', qr/^failed 22023/, 'what is still not there is refused again');

##
## A seek
##

for my $case (
	[ '{"1": 500}', qr/offset 500 of t\[1\] is past its end \(available 0\.\.10\)/ ],
	[ '{"7": 1}', qr/partition 7 of topic "t" does not exist/ ])
{
	my ($to, $reason) = @$case;
	sql("SELECT weir.seek('at_end', '$to'), weir.resume('at_end')");
	stream_is('at_end', qr/^failed 22023 $reason/, "a seek to $to is refused");
	is(sql('SELECT count(*) FROM at_end'), '110', 'nothing is read');
}
sql(q(SELECT weir.seek('at_end', '{"0": 120, "1": 10}')));
sql("SELECT weir.resume('at_end')");
produce('t', 1, 5);
WeirTest::wait_for($node, 'at_end');
is(ids('at_end', 1), '10..14:5', 'sought to where there is something');

##
## Offsets of a source
##

produce('src', 0, 10);
WeirTest::create_source($node, 'src',
	columns => $columns, start_from => '{"0": 100}');
WeirTest::sql_becomes($node, <<'SQL', 'stopped|22023|offset 100 of src[0] is past its end (available 0..10)', 'a source without a stream stops');
SELECT state, last_error_sqlstate, last_error FROM weir.stat_source WHERE source = 'src'
SQL
WeirTest::create_stream($node, 'of_src', query('src'));
like(WeirTest::sql_error($node, "SELECT weir.wait_for('of_src')"),
	qr/^55000.*source is stopped.*past its end/s, 'waiting for its stream is an error');
produce('src', 0, 110);
sql("SELECT weir.resume('src')");
WeirTest::wait_for($node, 'of_src');
is(ids('of_src', 0), '100..119:20', 'resumed, exactly from there');

WeirTest::create_source($node, 'none',
	columns => $columns, start_from => '{"0": 0, "3": 1}');
WeirTest::create_stream($node, 'of_none', query('none'));
WeirTest::sql_becomes($node, <<'SQL', 'stopped|22023|partition 3 of topic "none" does not exist on server "kafka": it has 1 partitions', 'a partition that is not there stops the source');
SELECT state, last_error_sqlstate, last_error FROM weir.stat_source WHERE source = 'none'
SQL
produce('none', 0, 3);
sql("SELECT weir.seek('of_none', 'earliest'), weir.resume('none')");
WeirTest::wait_for($node, 'of_none');
is(ids('of_none', 0), '0..2:3', 'a seek starts elsewhere');

# one whose offsets are not there any more for a new stream goes on
WeirTest::create_stream($node, 'of_src_again', query('src'),
	options => '{"start_from": "earliest"}');
WeirTest::wait_for($node, 'of_src_again', 'of_src');
is(ids('of_src_again', 0), '0..119:120', 'a stream with a start of its own');

##
## A partition without a leader
##

produce('lost', $_, 10) for 0 .. 2;
WeirTest::create_source($node, 'lost', columns => $columns, event_time => 'at',
	idle_timeout => '100 ms');
WeirTest::create_stream($node, 'old', query('lost'));
WeirTest::create_stream($node, 'old_windows', <<'SQL', emit => 'on_close');
SELECT w.window_start, count(*) AS n FROM lost s CROSS JOIN weir.tumble(s.at, '5 seconds') w
GROUP BY w.window_start
SQL
WeirTest::wait_for($node, 'old', 'old_windows');
$node->stop;
$broker->command('leader lost 2 -1');
produce('lost', $_, 10) for 0, 1;
$node->start;
WeirTest::sql_becomes($node, 'SELECT count(*) FROM old WHERE p < 2', '40',
	'the partitions with a leader are read');
WeirTest::sql_becomes(
	$node, <<'SQL', qr/^retrying\|08006\|cannot reach the leader of lost\[2\] of server "kafka": Broker: Leader not available$/, 'the one without is named, with the broker\'s words');
SELECT DISTINCT state, last_error_sqlstate, last_error FROM weir.stat_source
WHERE source = 'lost' AND stream IS NULL
SQL
stream_is('old', qr/^waiting 08006 cannot reach the leader of lost\[2\]/,
	'its streams say why they wait');
is(sql("SELECT lag IS NULL FROM weir.stat_stream WHERE stream = 'old'"),
	't', 'the lag is not known');
like(WeirTest::sql_error($node, "SELECT weir.wait_for('old', '2 seconds')"),
	qr/^57014.*cannot reach the leader of lost\[2\]/s, 'wait_for names it');
my $mark = sql("SELECT weir.watermark('old_windows')");
WeirTest::create_stream($node, 'young', query('lost'));
WeirTest::create_stream($node, 'latest', query('lost'),
	options => '{"start_from": "latest"}');
WeirTest::sql_becomes($node, 'SELECT count(*) FROM young WHERE p < 2', '40',
	'a new stream reads them, too');
WeirTest::sql_becomes($node, <<'SQL', '2');
SELECT count(*) FROM weir_internal.progress JOIN weir_internal.stream USING (stream_id)
WHERE name = 'latest' AND applied_offset > 0
SQL
produce('lost', 0, 5);
WeirTest::sql_becomes($node, 'SELECT count(*) FROM latest', '5',
	'and one from the latest');
is(sql("SELECT weir.watermark('old_windows')"), $mark, 'the watermark holds');

$broker->command('leader lost 2 1');
produce('lost', 2, 10);
WeirTest::wait_for($node, 'old', 'young', 'old_windows', 'latest');
is(ids('old', 2), '0..19:20', 'with a leader again it is read by itself');
is(ids('young', 2), '0..19:20', 'by the new stream from its beginning');
is(sql('SELECT count(*) FROM latest WHERE p < 2'), '5',
	'by the one from the latest no more of the others');
WeirTest::sql_becomes($node, <<'SQL', 't', 'all is well');
SELECT bool_and(state = 'running' AND last_error IS NULL) FROM weir.stat_source WHERE source = 'lost'
SQL
stream_is('old', 'running  ', 'and so is the stream');
is(sql('SELECT count(*) = count(DISTINCT (p, id)) FROM old'), 't', 'nothing twice');

# from the very first start
produce('fresh', $_, 10) for 0 .. 2;
$broker->command('leader fresh 1 -1');
WeirTest::create_source($node, 'fresh', columns => $columns);
WeirTest::create_stream($node, 'first', query('fresh'));
WeirTest::create_stream($node, 'first_offsets', query('fresh'),
	options => '{"start_from": {"0": 5, "1": 5}}');
WeirTest::create_stream($node, 'first_wrong', query('fresh'),
	options => '{"start_from": {"1": 50}}');
WeirTest::sql_becomes($node,
	'SELECT (SELECT count(*) FROM first), (SELECT count(*) FROM first_offsets)',
	'20|15', 'a new source reads what it can');
$broker->command('leader fresh 1 1');
WeirTest::wait_for($node, 'first', 'first_offsets');
is(ids('first', 1), '0..9:10', 'and then the rest');
is(ids('first_offsets', 1), '5..9:5', 'from the offset it was to begin at');
stream_is('first_wrong', qr/^failed 22023 offset 50 of fresh\[1\] is past its end/,
	'one that turns out to be wrong is refused then');
is(sql('SELECT count(*) FROM first_wrong WHERE p = 1'), '0', 'with nothing read there');

##
## A broker that is away
##

my $two = WeirBroker->embedded(topics => { shared => 4 }, brokers => 2);
WeirTest::create_server($node, $two, name => 'two');
for my $p (0 .. 3)
{
	$two->command("leader shared $p @{[ $p % 2 + 1 ]}");
}
$two->produce('shared',
	[ map { ($_ % 4) . qq(\t{"id":$_}) } 0 .. 39 ], partition_field => 1);
$two->command('down 2');
WeirTest::create_source($node, 'shared', server => 'two', columns => $columns);
WeirTest::create_stream($node, 'half', query('shared'));
WeirTest::sql_becomes($node, 'SELECT count(*) FROM half', '20',
	'what the other broker has is read');
WeirTest::sql_becomes(
	$node, <<'SQL', qr/^retrying\|08006\|cannot reach the leader of shared\[1\] of server "two": .*(?:Connection refused|Timed out|Disconnected|disconnected)/, 'the partition is named, with what happened');
SELECT DISTINCT state, last_error_sqlstate, last_error FROM weir.stat_source
WHERE source = 'shared' AND stream IS NULL
SQL
$two->command('up 2');
WeirTest::wait_for($node, 'half');
is(sql('SELECT count(*), count(DISTINCT id) FROM half'), '40|40',
	'and the rest when it is back');
WeirTest::sql_becomes($node, <<'SQL', 't', 'all is well');
SELECT bool_and(state = 'running' AND last_error IS NULL) FROM weir.stat_source WHERE source = 'shared'
SQL

$node->stop;
done_testing();
