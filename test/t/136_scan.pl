# What reads staged rows, and the staging limit (I6).
#
# Proves: a scan of the source holds no segment, however long it stays open
# between two rows, and goes on to give whole rows, wide values too, after
# their segment was recycled.  A table that somebody does hold is set aside,
# and what is in it counts against the limit: at no time is more staged than
# the limit and one insert.  When all that the limit allows is held, ingest
# waits, and goes on by itself afterwards, with nothing lost.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $limit = 4 * 1024 * 1024;
my $one_insert = 1024 * 1024;

# A partition of the embedded broker keeps its last 5 MB only.
my $broker = WeirBroker->embedded(topics => { w => 1 });
my $node = WeirTest::start_node('main', conf => {
	'weir.staging_limit' => '4MB', 'weir.segment_size' => '256kB',
	'weir.ingest_memory' => '4MB' });
WeirTest::create_server($node, $broker);
WeirTest::create_source($node, 'w', columns => 'id int, wide text');
WeirTest::create_stream($node, 'w_rows', 'SELECT w.id, length(w.wide) AS n FROM w');

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

# Every tenth value is wide, and does not compress.
my $sent = 0;

sub produce
{
	my ($n) = @_;
	my @lines;
	for (1 .. $n)
	{
		my $wide = $sent % 10 == 0 ? join('', map { chr(97 + int rand 26) } 1 .. 6000) : 'x' x 100;
		push @lines, sprintf '{"id":%d,"wide":"%s"}', $sent++, $wide;
	}
	$broker->produce('w', \@lines);
	return;
}

my $most = 0;
my $size = <<'SQL';
SELECT coalesce(sum(pg_relation_size(oid) + coalesce(pg_relation_size(nullif(reltoastrelid, 0)), 0)), 0)
FROM pg_class WHERE relname ~ '^segment_\d+_\d+_\d+$'
SQL

# Waits until all is applied, and looks how much is staged meanwhile.
sub drain
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok( WeirTest::poll(
			sub {
				my $staged = WeirTest::sql_if_up($node, $size);
				$most = $staged if defined $staged && $staged > $most;
				return sql('SELECT count(*) FROM w_rows') == $sent;
			}),
		"$name: all arrives") or diag(WeirTest::status($node));
	cmp_ok($most, '<=', $limit + $one_insert, "$name: the limit is kept");
	is( sql('SELECT count(DISTINCT id), sum(n) FROM w_rows'),
		join('|', $sent, $sent / 10 * 6000 + $sent / 10 * 900), "$name: exactly");
	return;
}

produce(500);
drain('at first');

# With the stream paused the staged rows stay.
sql("SELECT weir.pause('w_rows')");
produce(100);
WeirTest::sql_becomes($node, 'SELECT count(*) >= 100 FROM w', 't', 'rows are staged');
my $n_tables = "SELECT count(*) FROM pg_class WHERE relname ~ '^segment_[0-9]+_0_[0-9]+\$'";
my $n_ring = sql($n_tables);
my $cursor = $node->background_psql('postgres');
my $one = $cursor->query_safe(<<'SQL');
BEGIN;
DECLARE c CURSOR FOR SELECT id, length(wide), wide IS NOT NULL FROM w WHERE kafka_offset >= 0;
FETCH 1 FROM c
SQL
like($one, qr/\d+\|\d+\|t/, 'a cursor over the source');
my $held = <<'SQL';
SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
	JOIN pg_stat_activity a USING (pid)
WHERE c.relname ~ '^segment' AND a.backend_type = 'client backend'
SQL
is(sql($held), 0, 'holds no segment');
sql("SELECT weir.resume('w_rows')");
WeirTest::wait_for($node, 'w_rows');
my $tables = sql("SELECT array_agg(oid ORDER BY oid) FROM pg_class WHERE relname ~ '^segment'");
for my $round (1 .. 3)
{
	produce(2000);
	drain("an open cursor, round $round");
}
is( sql("SELECT array_agg(oid ORDER BY oid) FROM pg_class WHERE relname ~ '^segment'"),
	$tables, 'no other table had to take a segment\'s place');
my @rest = split /\n/, $cursor->query_safe('FETCH ALL FROM c');
is(scalar(grep { !/^\d+\|(6000|100)\|t$/ } @rest), 0, 'the cursor goes on, with whole rows');
cmp_ok(scalar @rest, '>', 0, 'with those of the segment at hand at least');
is(sql($held), 0, 'and holds none afterwards');
$cursor->query_safe('COMMIT');

# Tables that are held.
my $lock_three = <<'SQL';
BEGIN;
DO $$
DECLARE
	r regclass;
BEGIN
	FOR r IN SELECT oid FROM pg_class WHERE relname ~ '^segment_\d+_0_\d+$' ORDER BY relname LIMIT 3 LOOP
		EXECUTE format('LOCK TABLE %s IN ACCESS SHARE MODE', r);
	END LOOP;
END $$
SQL
$cursor->query_safe($lock_three);
produce(4000);
drain('three tables held');
$cursor->query_safe('COMMIT');
produce(4000);
drain('and released');

$cursor->query_safe($lock_three =~ s/LIMIT 3//r);
produce(6500);
ok( WeirTest::poll(
		sub {
			my $staged = sql($size);
			$most = $staged if $staged > $most;
			return sql("SELECT state FROM weir.stat_source WHERE source = 'w'") eq 'back_pressure'
			  && $staged >= $limit / 2;
		}),
	'all tables held: ingest waits');
cmp_ok($most, '<=', $limit + $one_insert, 'all tables held: the limit is kept');
$cursor->query_safe('COMMIT');
drain('and all released');
WeirTest::sql_becomes($node, $n_tables, $n_ring, 'what was set aside goes');

$cursor->quit;
$node->stop;
done_testing();
