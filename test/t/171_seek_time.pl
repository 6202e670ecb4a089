# Seek to a time, on Apache Kafka: where it leads, and what it may not do.
#
# Proves: behind a transaction's marker, whose offset has no timestamp, a seek
# to a time is judged by the records that were applied; so it is when their
# timestamps are in no order, and a record without one is never behind.  For a
# window stream the time is Kafka's, not the rows' own: rows that were late or
# early on their way into Kafka are in complete windows or in none, also in
# partitions that are added later.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $kafka = WeirBroker->kafka(java_opts => ['-Xmx512m']);
my $node = WeirTest::start_node('main', conf => { max_worker_processes => 40 });
WeirTest::create_server($node, $kafka);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

sub at
{
	my ($minute) = @_;
	return sql("SELECT timestamptz '2024-01-01Z' + $minute * interval '1 minute'");
}

# rows of partition, minute in Kafka, and minute of the event
my $id = 0;
sub produce
{
	my ($topic, $rows, %arg) = @_;
	$kafka->produce(
		$topic,
		[
			map {
				sprintf "%d\t%d\t" . '{"id":%d,"at":%.3f}', $_->[0],
				  1704067200000 + $_->[1] * 60000, ++$id,
				  1704067200 + $_->[2] * 60
			} @$rows
		],
		partition_field => 1, timestamp => 1, %arg);
	return;
}

sub create_source
{
	my ($name, %arg) = @_;
	WeirTest::create_source($node, $name,
		columns => 'id bigint NOT NULL, at timestamptz',
		event_time => 'at', %arg);
	return;
}

##
## Is a time ahead of what has been applied?
##

# How the last record of a partition comes to be unknown, or not the newest.
my %kinds = (
	behind_a_marker => sub {
		produce($_[0], [ map { [ $_ % 2, $_ / 10, $_ / 10 ] } 0 .. 99 ], transactional => "tx_$_[0]");
	},
	out_of_order => sub {
		produce($_[0], [ map { [ $_ % 2, (99 - $_) / 10, $_ / 10 ] } 0 .. 99 ]);
	});
for my $kind (sort keys %kinds)
{
	$kafka->create_topic($kind, 2);
	create_source($kind);
	WeirTest::create_stream($node, "${kind}_total", "SELECT s.kafka_partition AS p, count(*) AS n FROM $kind s GROUP BY s.kafka_partition");
	WeirTest::create_stream($node, "${kind}_rows", "SELECT s.id FROM $kind s");
	sql("CREATE TABLE ${kind}_table (id bigint)");
	WeirTest::create_stream($node, "${kind}_mine", "SELECT s.id FROM $kind s", target => "${kind}_table");
	my @streams = map { "${kind}_$_" } qw(total rows mine);
	$kinds{$kind}->($kind);
	WeirTest::wait_for($node, @streams);
	is(sql("SELECT string_agg(p || '=' || n, ' ' ORDER BY p) FROM ${kind}_total"), '0=50 1=50', "$kind: at first");
	my ($back, $ahead) = (at(5), at(10));
	like(WeirTest::sql_error($node, "SELECT weir.seek('${kind}_$_', '$back')"),
		qr/^0A000.*HINT/s, "$kind: $_ cannot be sought back to a time")
	  for qw(total mine);
	sql("SELECT weir.seek('${kind}_rows', '$back')");
	WeirTest::wait_for($node, "${kind}_rows");
	is(sql("SELECT count(*) FROM ${kind}_rows"), $kind eq 'out_of_order' ? 100 : 50,
		"$kind: rows are read again from there");
	sql("SELECT weir.seek('$_', '$ahead')") for @streams;

	# the broker has been asked where that is before more comes
	WeirTest::wait_for($node, @streams);
	produce($kind, [ [ 0, 9.95, 10 ], [ 1, 9.95, 10 ], [ 0, 10.5, 10.5 ], [ 1, 10.6, 10.6 ] ]);
	WeirTest::wait_for($node, @streams);
	is(sql("SELECT string_agg(p || '=' || n, ' ' ORDER BY p) FROM ${kind}_total"), '0=52 1=52',
		"$kind: what comes after the end is read, whatever its time")
	  or diag(sql("SELECT * FROM weir_internal.progress"));
}

##
## Windows: Kafka's time is not the rows' own
##

# Each row is a minute apart in Kafka, in both partitions; what the rows say:
# of an hour ago, up to three minutes ahead and behind, a year ago.
my %events = (
	delayed => sub { return $_[0] - 60 },
	mixed => sub { return $_[0] + ($_[0] % 7) - 3 },
	past => sub { return $_[0] - 366 * 1440 },
	same => sub { return $_[0] });
for my $kind (sort keys %events)
{
	my $event = $events{$kind};
	$kafka->create_topic($kind, 2);
	create_source($kind, max_out_of_orderness => $kind eq 'mixed' ? '6 minutes' : '0');
	my $query = <<SQL;
SELECT w.window_start, count(*) AS n FROM $kind s CROSS JOIN weir.tumble(s.at, '10 minutes') w
GROUP BY w.window_start
SQL
	WeirTest::create_stream($node, "${kind}_open", $query);
	WeirTest::create_stream($node, "${kind}_closed", $query, emit => 'on_close');
	my @streams = map { "${kind}_$_" } qw(open closed);
	my @rows = map { my $i = $_; map { [ $_, $i, $event->($i) ] } 0, 1 } 0 .. 119;
	produce($kind, \@rows);
	WeirTest::close_windows($node, $kind, @streams);
	my $correct = join ' ', map { sprintf '(%d,%d)', @$_ } windows(@rows);
	is(rows_of($_), $correct, "$kind: $_ at first") for @streams;

	# What is begun before the position stays, the rest is made anew; nothing
	# is ever wrong.
	sql("SELECT weir.seek('$_', '" . at(45) . "')") for @streams;
	WeirTest::close_windows($node, $kind, @streams);
	is(rows_of($_), $correct, "$kind: sought to a time, $_ is as it was") for @streams;
	sql("UPDATE $_ SET n = -1") for @streams;
	sql("SELECT weir.seek('$_', '" . at(45) . "')") for @streams;
	WeirTest::close_windows($node, $kind, @streams);
	for my $stream (@streams)
	{
		my @made = grep { $_->[1] != -1 } map { [ split /,/ ] } split / /, rows_of($stream) =~ s/[()]//gr;
		my %correct = map { $_->[0] => $_->[1] } windows(@rows);
		is(scalar(grep { $correct{ $_->[0] } != $_->[1] } @made), 0, "$kind: what $stream has made is complete");

		# the first window that can have no row from before the position
		my $first = $event->(45);
		$first += 9 if $kind eq 'mixed';
		my @expected = grep { $_->[0] * 10 >= $first } windows(@rows);
		cmp_ok(scalar(@made), '>=', scalar(@expected), "$kind: and $stream has made all that are");
	}
}

# number of the ten minutes and count, of rows
sub windows
{
	my (@rows) = @_;
	my %n;
	$n{ POSIX::floor($_->[2] / 10) }++ for @rows;
	return map { [ $_, $n{$_} ] } sort { $a <=> $b } keys %n;
}

sub rows_of
{
	my ($name) = @_;
	return sql(<<SQL);
SELECT coalesce(string_agg(format('(%s,%s)', extract(epoch FROM window_start - '2024-01-01Z')::bigint / 600, n), ' ' ORDER BY window_start), '')
FROM $name
SQL
}

##
## A partition that is added after the seek lacks nothing
##

$kafka->create_topic('grown', 1);
create_source('grown', idle_timeout => undef);
my $query = <<'SQL';
SELECT w.window_start, count(*) AS n FROM grown s CROSS JOIN weir.tumble(s.at, '10 minutes') w
GROUP BY w.window_start
SQL
WeirTest::create_stream($node, 'grown_open', $query);
produce('grown', [ map { [ 0, $_, $_ ] } 0 .. 29 ]);
WeirTest::wait_for($node, 'grown_open');
sql(q(SELECT weir.seek('grown_open', 'latest')));
WeirTest::wait_for($node, 'grown_open');
produce('grown', [ map { [ 0, $_, $_ ] } 30 .. 59 ]);
WeirTest::wait_for($node, 'grown_open');
my $before = rows_of('grown_open');
like($before, qr/\(4,10\) \(5,10\)$/, 'windows after a seek');
$kafka->add_partitions('grown', 2);
produce('grown', [ map { [ 1, $_, $_ + 300 ] } 60 .. 89 ]);
WeirTest::sql_becomes($node, "SELECT count(*) FROM weir_internal.progress JOIN weir_internal.stream USING (stream_id) WHERE name = 'grown_open'",
	2, 'a partition is found');
WeirTest::wait_for($node, 'grown_open');
is(rows_of('grown_open'), "$before (36,10) (37,10) (38,10)", 'a new partition takes nothing away');

is(sql("SELECT count(*) FROM weir.dead_letter WHERE reason <> 'late'"), 0, 'no dead letters');
$node->stop;
$kafka->stop;
done_testing();
