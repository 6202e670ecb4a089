# A clock that is set while the server runs.
#
# Proves: when the time of day goes back by hours, as an administrator or NTP
# may set it, nothing waits until it is as late again: records of a trickle are
# staged, streams apply them, batch_interval goes on, a quiet partition stays
# idle and holds no window open, and what was to be tried again is tried again
# after its delay, workers that ended among it.  When it goes forward, all goes
# on as well.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $shift_file = PostgreSQL::Test::Utils::tempdir() . '/shift';

sub shift_clock
{
	my ($seconds) = @_;
	open my $file, -e $shift_file ? '+<' : '>', $shift_file or die "$shift_file: $!";
	syswrite $file, pack('q', $seconds) or die "$shift_file: $!";
	close $file;
	return;
}

my $broker = WeirBroker->embedded(topics => { e => 2, bad => 1, fine => 1 });
shift_clock(0);
my $node;
{
	local $ENV{LD_PRELOAD} = WeirBroker::program('clock.so');
	local $ENV{CLOCK_SHIFT} = $shift_file;
	$node = WeirTest::start_node('main', conf => {
		'weir.retry_delay' => '100ms', 'weir.retry_delay_max' => '400ms' });
}
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

my $window = q(e CROSS JOIN weir.tumble(e.at, '1 minute') w GROUP BY w.window_start);
WeirTest::create_source($node, 'e', columns => 'id int, at timestamptz',
	event_time => 'at', max_out_of_orderness => '0', idle_timeout => '300 ms');
WeirTest::create_stream($node, 'e_rows', 'SELECT e.id FROM e');
WeirTest::create_stream($node, 'e_paced', 'SELECT e.id FROM e', batch_interval => '200 ms');
WeirTest::create_stream($node, 'e_closed', "SELECT w.window_start, count(*) AS n FROM $window", emit => 'on_close');

# One row a minute to a partition, in a trickle.
my %minute = (0 => 0, 1 => 0);
my $id = 0;

sub produce
{
	my ($partition, $n) = @_;
	for (1 .. $n)
	{
		$id++;
		$broker->produce('e',
			[ sprintf '%d	{"id":%d,"at":"2024-01-01T%02d:%02d:00Z"}', $partition, $id,
				int($minute{$partition} / 60), $minute{$partition} % 60 ],
			partition_field => 1);
		$minute{$partition}++;
		WeirTest::wait_for($node, 'e_rows');
	}
	return;
}

sql('CREATE TABLE broken AS SELECT 1 AS one');
sql(<<'SQL');
CREATE FUNCTION works() RETURNS boolean STABLE LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM public.broken) THEN
		RAISE EXCEPTION 'broken' USING ERRCODE = '53000';
	END IF;
	RETURN true;
END $$
SQL
WeirTest::create_source($node, 'bad', columns => 'id int CHECK (works())');
WeirTest::create_stream($node, 'bad_rows', 'SELECT b.id FROM bad b');
WeirTest::create_source($node, 'fine', columns => 'id int');
WeirTest::create_stream($node, 'fine_rows', 'SELECT f.id FROM fine f WHERE works()');
$broker->produce($_, ['{"id":0}']) for qw(bad fine);

produce(1, 1);
produce(0, 5);
my $n_retried = 1;
for my $shift (-36000, 72000, -3600)
{
	WeirTest::sql_becomes($node, "SELECT state FROM weir.stat_source WHERE source = 'bad' AND stream IS NULL", 'retrying');
	WeirTest::sql_becomes($node, "SELECT state FROM weir.stat_stream WHERE stream = 'fine_rows'", 'retrying');
	produce(0, 3);
	my $before = sql('SELECT extract(epoch FROM now())::int');
	shift_clock($shift);
	is(sql("SELECT abs(extract(epoch FROM clock_timestamp()) - $before) > 3000"), 't', "$shift: the clock was set");

	produce(0, 5);
	WeirTest::wait_for($node, qw(e_paced));
	is(sql('SELECT count(*), sum(id) FROM e_paced'), $id . '|' . $id * ($id + 1) / 2, "$shift: rows go on");
	WeirTest::sql_becomes($node, 'SELECT count(*) FROM e_closed', $minute{0} - 1,
		"$shift: the quiet partition is idle, and windows are closed");

	my ($pid) = split /\n/, sql("SELECT pid FROM weir.stat_worker WHERE kind = 'ingest' AND source = 'e'");
	sql("SELECT pg_terminate_backend($pid)");
	produce(0, 1);
	sql('TRUNCATE broken');
	WeirTest::wait_for($node, qw(bad_rows fine_rows));
	is(sql("SELECT count(*) FROM $_"), $n_retried, "$shift: $_: what failed is tried again") for qw(bad_rows fine_rows);
	sql('INSERT INTO broken VALUES (1)');
	$broker->produce($_, ['{"id":1}']) for qw(bad fine);
	$n_retried++;
}
is(sql('SELECT count(*) FROM weir.dead_letter'), 0, 'no dead letters');

$node->stop;
done_testing();
