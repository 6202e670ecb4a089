# A stream catches up, and its worker fails at once.
#
# Proves: it is tried again later and later, never before its time, whatever
# others call and however often the stream's own worker is ended; the stream
# says why it does not get on, while the source and its other streams go on;
# when it can, it reads all, exactly, and the reason is gone.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my @delays = (0, 100, 200, 400, 800, 1600, 1600);
my $rows = 60000;

my $broker = WeirBroker->embedded(topics => { s => 1, o => 1 });
my $node = WeirTest::start_node('main', conf => {
	'weir.retry_delay' => '100ms', 'weir.retry_delay_max' => '1600ms',
	'weir.staging_limit' => '4MB', 'weir.segment_size' => '256kB',
	log_line_prefix => '%n ' });
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

sub failures
{
	return WeirBroker::slurp($node->logfile) =~ /^([\d.]+) ERROR:  broken/mg;
}

# Only the first rows fail, which the shared ring has no more.
sql(<<'SQL');
CREATE TABLE broken (one int);
CREATE FUNCTION works(id int) RETURNS boolean STABLE LANGUAGE plpgsql AS $$
BEGIN
	IF id < 10 AND EXISTS (SELECT FROM public.broken) THEN
		RAISE EXCEPTION 'broken' USING ERRCODE = '53000';
	END IF;
	RETURN true;
END $$;
SQL
WeirTest::create_source($node, 'o', columns => 'id int');
WeirTest::create_stream($node, 'o_rows', 'SELECT o.id FROM o');
WeirTest::create_source($node, 's', columns => 'id int CHECK (works(id))');
WeirTest::create_stream($node, 's_rows', 'SELECT s.id FROM s');
$broker->produce('s', [ map { qq({"id":$_}) } 1 .. $rows ]);
WeirTest::wait_for($node, 's_rows');
sql('INSERT INTO broken VALUES (1)');
WeirTest::create_stream($node, 's_late', 'SELECT s.id FROM s', options => '{"start_from": "earliest"}');

ok( WeirTest::poll(
		sub {
			sql($_) for map { "SELECT weir.pause('$_'); SELECT weir.resume('$_')" } qw(o_rows s_rows);
			sql(q(SELECT pg_terminate_backend(pid) FROM weir.stat_worker WHERE kind = 'stream' AND stream = 's_late'))
			  if (() = failures()) == 3;
			return (() = failures()) > @delays;
		}),
	'it is tried again and again');
my @times = failures();
my @early = grep { ($times[ $_ + 1 ] - $times[$_]) * 1000 + 2 < ($delays[$_] // $delays[-1]) } 0 .. $#times - 1;
is("@early", '', 'never before its time') or diag(join ' ', map { int(1000 * ($_ - $times[0])) } @times);
WeirTest::sql_becomes($node, q(SELECT last_error_sqlstate, last_error ~ 'broken' FROM weir.stat_stream WHERE stream = 's_late'),
	'53000|t', 'and the stream says why');
$broker->produce('s', [ qq({"id":@{[$rows + 1]}}) ]);
WeirTest::wait_for($node, 's_rows');
is(sql('SELECT count(*) FROM s_rows'), $rows + 1, 'others go on');

sql('TRUNCATE broken');
WeirTest::wait_for($node, 's_late');
is(sql('SELECT count(*), count(DISTINCT id) FROM s_late'), join('|', ($rows + 1) x 2), 'it reads all when it can');
WeirTest::sql_becomes($node, q(SELECT state, last_error IS NULL FROM weir.stat_stream WHERE stream = 's_late'),
	'running|t', 'and the reason is gone');

$node->stop;
done_testing();
