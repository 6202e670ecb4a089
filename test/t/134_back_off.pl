# Every path that is tried again backs off.
#
# Proves: a source or stream that fails at once is tried again later and
# later: by the time the delay has reached its maximum there were no more
# attempts than the doubling of the delay allows, and from then on one for
# each delay.  What others call meanwhile (creation, pause, resume, advance)
# does not shorten it, nor do failing workers each other's, nor does a failing
# one disturb the others; resume of the source itself does.  After the repair
# all is there, exactly.  A manager that cannot read the catalog leaves its
# workers alone and tries again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

# least time between an attempt and the next, in ms: none at first, then
# twice as much each time, up to the maximum
my @delays = (0, 100, 200, 400, 800, 1600, 1600, 1600);

my $broker = WeirBroker->embedded(topics => { bad => 1, worse => 1, good => 1, fine => 1, anew => 1 });
my $node = WeirTest::start_node('main', conf => {
	'weir.retry_delay' => '100ms', 'weir.retry_delay_max' => '1600ms',
	log_line_prefix => '%n ',
	'weir.lock_timeout' => '50ms' });
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

sub ids
{
	my ($from, $to) = @_;
	return [ map { qq({"id":$_}) } $from .. $to ];
}

# When the log has this error: epochs.
sub times_of
{
	my ($error) = @_;
	return WeirBroker::slurp($node->logfile) =~ /^([\d.]+) ERROR:  \Q$error\E/mg;
}

sub errors
{
	my ($error) = @_;
	my @times = times_of($error);
	return scalar @times;
}

sql(<<'SQL');
CREATE TABLE broken (name text);
CREATE FUNCTION works(what text) RETURNS boolean STABLE LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM public.broken WHERE name = what) THEN
		RAISE EXCEPTION '% is broken', what USING ERRCODE = '53000';
	END IF;
	RETURN true;
END $$;
INSERT INTO broken VALUES ('bad'), ('worse'), ('stream');
SQL
WeirTest::create_source($node, 'good', columns => 'id int');
WeirTest::create_stream($node, 'good_rows', 'SELECT g.id FROM good g');
$broker->produce('good', ids(1, 10));
WeirTest::wait_for($node, 'good_rows');
my $others = <<'SQL';
SELECT string_agg(w.pid || ' ' || s.epoch, ', ') FROM weir.stat_worker w
	JOIN weir.stat_source s ON s.source = w.source AND s.stream IS NULL
WHERE w.source = 'good' AND w.kind = 'ingest'
SQL
my $good = sql($others);

for my $name (qw(bad worse))
{
	WeirTest::create_source($node, $name, columns => "id int CHECK (works('$name'))");
	WeirTest::create_stream($node, "${name}_rows", "SELECT b.id FROM $name b");
	$broker->produce($name, ids(1, 10));
}
WeirTest::create_source($node, 'fine', columns => 'id int');
WeirTest::create_stream($node, 'fine_rows', "SELECT f.id FROM fine f WHERE works('stream')");
$broker->produce('fine', ids(1, 10));

my %failing = (
	bad => "stat_source WHERE source = 'bad' AND stream IS NULL",
	worse => "stat_source WHERE source = 'worse' AND stream IS NULL",
	stream => "stat_stream WHERE stream = 'fine_rows'");

# Others call, many times, until each has failed often enough.
my $n_calls = 0;
for my $what (sort keys %failing)
{
	ok( WeirTest::poll(
			sub {
				$n_calls++;
				sql("SELECT weir.pause('good_rows'); SELECT weir.resume('good_rows')");
				sql("SELECT weir.advance_watermark('good')") if $n_calls % 3 == 0;
				return errors("$what is broken") > @delays;
			}),
		"$what: is tried again and again");
}
cmp_ok($n_calls, '>', 10, 'while others call');
for my $what (sort keys %failing)
{
	WeirTest::sql_becomes($node, "SELECT state, last_error_sqlstate FROM weir.$failing{$what}",
		'retrying|53000', "$what: is retrying, with its reason");
	WeirTest::sql_becomes($node,
		"SELECT next_retry_at - last_error_at BETWEEN interval '$delays[-1] ms' * 0.9 AND interval '$delays[-1] ms' * 10 FROM weir.$failing{$what}",
		't', "$what: the delay has grown to its maximum");
	my @times = times_of("$what is broken");
	my @early = grep { ($times[ $_ + 1 ] - $times[$_]) * 1000 + 2 < ($delays[$_] // $delays[-1]) } 0 .. $#times - 1;
	is("@early", '', "$what: never before its time")
	  or diag(join ' ', map { int(1000 * ($_ - $times[0])) } @times);
}
is(sql($others), $good, 'and others are not disturbed');

sql("DELETE FROM broken WHERE name = 'bad'");
sql("SELECT weir.resume('bad')");
WeirTest::wait_for($node, 'bad_rows');
is(sql('SELECT count(*), sum(id) FROM bad_rows'), '10|55', 'repaired and resumed, all is there');
sql('DELETE FROM broken');
WeirTest::wait_for($node, qw(worse_rows fine_rows good_rows));
is(sql("SELECT count(*), sum(id) FROM $_"), '10|55', "$_: repaired, all is there")
  for qw(worse_rows fine_rows);
is(sql('SELECT count(*) FROM weir.dead_letter'), 0, 'no dead letters');

##
## A lock that is held for good
##

my $lock = $node->background_psql('postgres');
$lock->query_safe('BEGIN; ALTER FOREIGN TABLE fine RENAME TO finest');
my ($fine) = split /\n/, sql("SELECT pid FROM weir.stat_worker WHERE kind = 'ingest' AND source = 'fine'");
sql("SELECT pg_terminate_backend($fine)");
WeirTest::sql_becomes($node, "SELECT state, last_error_sqlstate FROM weir.stat_source WHERE source = 'fine' AND stream IS NULL",
	'retrying|55P03', 'an ingest worker waits for a lock for weir.lock_timeout');
is(sql($others), $good, 'others are not disturbed');
$lock->query_safe('ROLLBACK');
$broker->produce('fine', ids(11, 20));
WeirTest::wait_for($node, 'fine_rows');
is(sql('SELECT count(*), sum(id) FROM fine_rows'), '20|210', 'and goes on when it can');

##
## The manager
##

my ($manager) = WeirTest::worker_pids($node, 'manager');
my $workers = sql('SELECT array_agg(pid ORDER BY pid) FROM weir.stat_worker');
$lock->query_safe('BEGIN; LOCK TABLE weir_internal.source IN ACCESS EXCLUSIVE MODE');
my $failed = 'canceling statement due to lock timeout';
my $n_before = errors($failed);
$node->reload;
ok(WeirTest::poll(sub { errors($failed) > $n_before }), 'a manager that cannot read the catalog says so');
$broker->produce('good', ids(11, 20));
WeirTest::sql_becomes($node, 'SELECT count(*) FROM good_rows', '20', 'the workers go on meanwhile');
ok(WeirTest::poll(sub { errors($failed) > $n_before + 2 }), 'it tries again');
$lock->query_safe('COMMIT');
$lock->quit;
is(join(' ', WeirTest::worker_pids($node, 'manager')), $manager, 'and is still the same');
is(sql('SELECT array_agg(pid ORDER BY pid) FROM weir.stat_worker'), $workers, 'with the same workers');

WeirTest::create_source($node, 'anew', columns => 'id int');
WeirTest::create_stream($node, 'anew_rows', 'SELECT a.id FROM anew a');
$broker->produce('anew', ids(1, 10));
WeirTest::wait_for($node, 'anew_rows');
is(sql('SELECT count(*) FROM anew_rows'), 10, 'and it works');

$node->stop;
done_testing();
