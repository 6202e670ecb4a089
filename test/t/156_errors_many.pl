# Many rows that fail in one batch.
#
# Proves: with one row in a hundred failing, in the row stage, by CHECK, NOT
# NULL, a domain, a unique index, an exclusion constraint, a foreign key, a
# trigger, a missing partition, in a row stream with or without a key, in a
# window, or one group in a hundred, exactly these become dead letters (or
# failed groups), the rest is in the target in the order in which it came, the
# target is hardly larger than one that refuses nothing, and the work is at
# most ten times that of a stream in which nothing fails.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $rows = $ENV{WEIR_TEST_ROWS} || 40000;

my $broker = WeirBroker->embedded(topics => { m => 4 });
my $node = WeirTest::start_node('main',
	conf => { 'weir.segment_size' => '32MB', 'weir.staging_limit' => '128MB' });
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

WeirTest::create_source(
	$node, 'm',
	columns => 'id int NOT NULL, v int, at timestamptz',
	event_time => 'at');

# v is 0 in one row of a hundred
sql(<<'SQL');
CREATE TABLE parents (v int PRIMARY KEY);
INSERT INTO parents SELECT generate_series(1, 99);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.v = 0 THEN RAISE EXCEPTION 'not 0'; END IF;
	RETURN NEW;
END $$;
CREATE TABLE good (id int PRIMARY KEY, v int);
CREATE TABLE good_keyed (LIKE good INCLUDING ALL);
CREATE TABLE checked (LIKE good INCLUDING ALL, CHECK (v <> 0), n bigserial);
CREATE TABLE not_null (LIKE good INCLUDING ALL);
ALTER TABLE not_null ALTER v SET NOT NULL;
CREATE TABLE domains (id int PRIMARY KEY, v positive);
CREATE TABLE uniques (LIKE good INCLUDING ALL, n bigserial);
CREATE TABLE excluded (id int, v int, EXCLUDE (id WITH =));
CREATE TABLE referring (id int PRIMARY KEY, v int REFERENCES parents);
CREATE TABLE triggered (LIKE good INCLUDING ALL);
CREATE TRIGGER refuse BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TABLE partitioned (id int, v int) PARTITION BY RANGE (v);
CREATE TABLE partition_of PARTITION OF partitioned FOR VALUES FROM (1) TO (100);
CREATE TABLE keyed (LIKE good INCLUDING ALL, CHECK (v <> 0));
CREATE TABLE row_stage (LIKE good INCLUDING ALL);
SQL

# the query, the reason and SQLSTATE, what to compare the work with
my $same = 'SELECT m.id, m.v FROM m';
my $doubled = 'SELECT CASE m.v WHEN 0 THEN m.id - 4 ELSE m.id END AS id, m.v FROM m';
my %stream = (
	good => [$same],
	good_keyed => [$same],
	good_windows => [ "SELECT w.window_start, count(*) AS n, sum(100 / (m.v + 1)) AS s FROM m CROSS JOIN weir.tumble(m.at, '1 minute') w GROUP BY w.window_start" ],
	good_groups => [ "SELECT m.id / 4 AS k, count(*) AS n, 100 / (min(m.v) + 1) AS q FROM m GROUP BY m.id / 4" ],
	row_stage => [ 'SELECT m.id, 100 / m.v AS v FROM m', 'query', '22012', 'good' ],
	checked => [ $same, 'target', '23514', 'good' ],
	not_null => [ 'SELECT m.id, nullif(m.v, 0) AS v FROM m', 'target', '23502', 'good' ],
	domains => [ $same, 'target', '23514', 'good' ],
	uniques => [ $doubled, 'target', '23505', 'good' ],
	excluded => [ $doubled, 'target', '23P01', 'good' ],
	referring => [ $same, 'target', '23503', 'good' ],
	triggered => [ $same, 'target', 'P0001', 'good' ],
	partitioned => [ $same, 'target', '23514', 'good' ],
	keyed => [ $same, 'target', '23514', 'good_keyed' ],
	overflowing => [ "SELECT m.v / 100 AS k, count(*) AS n, sum(CASE m.v WHEN 0 THEN 1.5e308 ELSE 1 END::float8) > 1e308 AS s FROM m GROUP BY m.v / 100" ],
	windows => [ "SELECT w.window_start, count(*) AS n, sum(100 / m.v) AS s FROM m CROSS JOIN weir.tumble(m.at, '1 minute') w GROUP BY w.window_start", 'query', '22012', 'good_windows' ],
	groups => [ "SELECT m.id / 4 AS k, count(*) AS n, 100 / min(m.v) AS q FROM m GROUP BY m.id / 4", undef, undef, 'good_groups' ]);

my @lines = map {
	sprintf "%d\t{\"id\":%d,\"v\":%d,\"at\":%d}", $_ % 4, $_, ($_ * 37 + 50) % 100,
	  1704067200 + $_ / 1000
} 1 .. $rows;
$broker->produce('m', \@lines, partition_field => 1);
WeirTest::sql_becomes($node,
	"SELECT sum(fetched_offset) FROM weir.stat_source WHERE source = 'm'",
	$rows, 'all are read');

# What the worker of a stream has used, from the kernel, which knows it at once.
sub cpu_ms
{
	my ($name) = @_;
	my $pid = sql("SELECT pid FROM weir.stat_worker WHERE kind = 'stream' AND stream = '$name'");
	my $stat = PostgreSQL::Test::Utils::slurp_file("/proc/$pid/stat");
	my @fields = split ' ', $stat =~ s/^.*\)//sr;
	return ($fields[11] + $fields[12]) * 1000 / POSIX::sysconf(POSIX::_SC_CLK_TCK());
}

# One after another: in the first batches, without other workers.
my %cpu;
my $xid = 0;
for my $name (sort keys %stream)
{
	my $before = sql('SELECT pg_current_xact_id()');
	WeirTest::create_stream($node, $name, $stream{$name}[0],
		$name =~ /keyed/ ? (options => '{"key": ["id"]}') : ());
	WeirTest::wait_for($node, $name);
	$cpu{$name} = cpu_ms($name);
	my $used = sql('SELECT pg_current_xact_id()') - $before;
	note("$name: $cpu{$name} ms, $used transaction ids, ",
		sql("SELECT batches || ' batches, longest ' || commit_ms_max FROM weir.stat_stream WHERE stream = '$name'"));
	cmp_ok($used, '<', $rows / 5, "$name: few transaction ids");
	sql("SELECT weir.pause('$name')");
}

sql("CREATE TABLE stored AS SELECT i AS id, (i * 37 + 50) % 100 AS v, to_timestamp(1704067200 + i / 1000) AS at FROM generate_series(1, $rows) i");
for my $name (grep { $stream{$_}[1] } sort keys %stream)
{
	my ($query, $reason, $sqlstate, $base) = @{ $stream{$name} };
	my $oracle = $query =~ s/FROM m\b/FROM (SELECT * FROM stored WHERE v <> 0 OFFSET 0) m/r;
	WeirTest::compare($node,
		$name =~ /windows/ ? "TABLE $name" : "SELECT id, v FROM $name",
		$oracle, "$name: the rest");
	WeirTest::compare($node,
		"SELECT (staged_row ->> 'id')::int, reason, sqlstate, kafka_offset FROM weir.dead_letter WHERE stream = '$name'",
		"SELECT id, '$reason', '$sqlstate', (id::bigint - 2) / 4 FROM stored WHERE v = 0",
		"$name: exactly those that fail are dead letters");
}
WeirTest::compare(
	$node,
	'SELECT k, n, q FROM groups',
	'SELECT id / 4, count(*), 100 / min(v) FROM stored GROUP BY 1 HAVING min(v) > 0',
	'groups: those that do not fail');
is(sql("SELECT groups_failed FROM weir.stat_stream WHERE stream = 'groups'"),
	sql('SELECT count(DISTINCT id / 4) FROM stored WHERE v = 0'),
	'groups: the others are counted');
WeirTest::compare($node, 'TABLE overflowing',
	'SELECT 0, count(*) + 1, true FROM stored WHERE v <> 0',
	'overflowing: a sum has room for one of them');
WeirTest::compare($node,
	"SELECT (staged_row ->> 'id')::int, reason, sqlstate FROM weir.dead_letter WHERE stream = 'overflowing'",
	"SELECT id, 'query', '22003' FROM stored WHERE v = 0 AND id > 50",
	'overflowing: and the others are dead letters');
for my $name (qw(checked uniques))
{
	is(sql("SELECT count(*) FROM (SELECT id, lag(id) OVER (PARTITION BY id % 4 ORDER BY n) AS last FROM $name) s WHERE id < last"),
		0, "$name: written in the order of staging");
}

# as large as what refuses nothing
sub size
{
	my ($name) = @_;
	return sql("SELECT sum(pg_relation_size(relid)) FROM (SELECT '$name'::regclass AS relid UNION SELECT inhrelid FROM pg_inherits WHERE inhparent = '$name'::regclass) t");
}
for my $name (grep { $stream{$_}[1] } sort keys %stream)
{
	# another column; foreign keys are looked at when all rows are written, so
	# the first attempt, which fails, has written all of them
	my $base = $name =~ /checked|uniques/ ? 1.25 : $name eq 'referring' ? 2 : 1;
	cmp_ok(size($name), '<', size($stream{$name}[3]) * $base * 1.25 + 65536,
		"$name: the target is not bloated");
}
for my $name (grep { $stream{$_}[3] } sort keys %stream)
{
	my $base = $cpu{ $stream{$name}[3] };
	$base = 50 if $base < 50;    # the clock ticks coarsely
	note(sprintf '%s: %.1f times the work', $name, $cpu{$name} / $base);
	cmp_ok($cpu{$name}, '<', 10 * $base,
		"$name: at most ten times the work");
}

$node->stop;
done_testing();
