# Errors of any SQLSTATE that only some rows raise, and how many are too many.
#
# Proves: what a row raises belongs to the row whatever its SQLSTATE (a syntax
# error of tsquery, P0002, XX000, a code of the user's own, 0A000, 42501 of row
# security), in the row stage, in the target, and in groups; what is raised
# without any row fails the stream, with the class of old: a dropped column, a
# revoked privilege; an outage is retried and makes no dead letter.
# max_dead_ratio holds over the last 100 rows, in batches of ten, or of one.
# The first dead letter of each SQLSTATE is told in last_error, and stays there
# while the stream runs.  The log does not quote statements of weir's own.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { c => 1, low => 1, single => 1, first => 1, g => 1 });
my $node = WeirTest::start_node('main');

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

# Row security does not bind a superuser, so the streams are another role's.
sql(<<'SQL');
CREATE ROLE etl;
GRANT CREATE, USAGE ON SCHEMA public TO etl;
SQL
WeirTest::create_server($node, $broker);
WeirTest::create_source(
	$node, 'c',
	columns => 'id int NOT NULL, t text, at timestamptz',
	event_time => 'at');
sql('GRANT SELECT ON c TO etl');
sql(<<'SQL');
SET ROLE etl;
CREATE FUNCTION raising(id int, code text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	IF id % 10 = 0 THEN RAISE EXCEPTION 'row %', id USING ERRCODE = code; END IF;
	RETURN id;
END $$;
CREATE FUNCTION refusing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.raising(NEW.id, TG_ARGV[0]);
	RETURN NEW;
END $$;
CREATE TABLE names (id int);
CREATE FUNCTION strictly(id int) RETURNS int STABLE LANGUAGE plpgsql AS $$
DECLARE
	found int;
BEGIN
	IF id % 10 <> 0 THEN RETURN id; END IF;
	SELECT n.id INTO STRICT found FROM public.names n;
	RETURN found;
END $$;
CREATE TABLE secured (id int);
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
ALTER TABLE secured FORCE ROW LEVEL SECURITY;
CREATE POLICY reads ON secured FOR SELECT USING (true);
CREATE POLICY writes ON secured FOR INSERT WITH CHECK (id % 10 <> 0);
SQL

# what fails for each tenth row
my %stream = (
	syntax => [ 'SELECT c.id, c.t::tsquery AS q FROM c', '42601', 'query' ],
	no_data => [ 'SELECT strictly(c.id) AS id FROM c', 'P0002', 'query' ],
	internal => [ "SELECT raising(c.id, 'XX000') AS id FROM c", 'XX000', 'query' ],
	own => [ "SELECT raising(c.id, 'AB123') AS id FROM c", 'AB123', 'query' ],
	own_99 => [ "SELECT raising(c.id, '99ZZZ') AS id FROM c WHERE raising(c.id, '99ZZZ') > 0", '99ZZZ', 'query' ],
	feature => [ "SELECT raising(c.id, '0A000') AS id FROM c", '0A000', 'query' ],
	undefined => [ "SELECT raising(c.id, '42P01') AS id FROM c", '42P01', 'query' ],
	keyed => [ "SELECT raising(c.id, '2F003') AS id FROM c", '2F003', 'query' ],
	windows => [ "SELECT w.window_start, c.id / 50 AS k, count(raising(c.id, '42704')) AS n FROM c CROSS JOIN weir.tumble(c.at, '1 minute') w GROUP BY w.window_start, c.id / 50", '42704', 'query' ],
	secured => [ 'SELECT c.id FROM c', '42501', 'target' ],
	triggered => [ 'SELECT c.id FROM c', 'ZZ001', 'target' ],
	triggered_55 => [ 'SELECT c.id FROM c', '55000', 'target' ]);
for my $name (grep { /triggered/ } sort keys %stream)
{
	sql("SET ROLE etl; CREATE TABLE $name (id int); CREATE TRIGGER refusing BEFORE INSERT ON $name FOR EACH ROW EXECUTE FUNCTION refusing('$stream{$name}[1]')");
}
sub create_as_etl
{
	my ($name, $query, $more) = @_;
	sql("SET ROLE etl; SELECT weir.create_stream('$name', \$\$ $query \$\$" . ($more || '') . ')');
	return;
}
create_as_etl($_, $stream{$_}[0],
	$_ eq 'keyed' ? q(, options => '{"key": ["id"]}') : '')
  for sort keys %stream;

# groups: one of ten fails when it is emitted
create_as_etl('groups',
	"SELECT c.id % 20 AS k, raising(c.id % 20, 'AB123') + count(*) AS n FROM c GROUP BY c.id % 20"
	  =~ s/raising\(c\.id % 20, /raising((c.id % 20)::int, /r);

sub produce
{
	my ($from, $to) = @_;
	$broker->produce('c',
		[ map { sprintf '{"id":%d,"t":"%s","at":1704067200}', $_, $_ % 10 ? 'a & b' : 'a & &' } $from .. $to ]);
	WeirTest::wait_for($node, sort(keys %stream), 'groups');
	return;
}
produce(1, 200);
produce(201, 230);

for my $name (sort keys %stream)
{
	my ($query, $sqlstate, $reason) = @{ $stream{$name} };
	my $good = '(SELECT i AS id, timestamptz \'2024-01-01 00:00Z\' AS at, \'a & b\'::text AS t FROM generate_series(1, 230) i WHERE i % 10 <> 0 OFFSET 0) c';
	WeirTest::compare($node, $name eq 'syntax' ? "SELECT id, q::text FROM $name" : "TABLE $name",
		"SELECT " . ($name eq 'syntax' ? 'id, q::text' : '*') . " FROM (" . ($query =~ s/FROM c\b/FROM $good/r) . ') q',
		"$name: the rest");
	WeirTest::compare(
		$node,
		"SELECT (staged_row ->> 'id')::int, reason, sqlstate FROM weir.dead_letter WHERE stream = '$name'",
		"SELECT i, '$reason', '$sqlstate' FROM generate_series(10, 230, 10) i",
		"$name: rows that raise $sqlstate are dead letters");
	is( sql("SELECT state, last_error_sqlstate, last_error ~ '^dead letter: ' AND last_error_at IS NOT NULL FROM weir.stat_stream WHERE stream = '$name'"),
		"running|$sqlstate|t", "$name: runs, and tells the first one");
}
WeirTest::compare($node, 'TABLE groups', <<'SQL', 'groups: those that do not fail');
SELECT i % 20 AS k, i % 20 + count(*) FROM generate_series(1, 230) i WHERE i % 10 <> 0 GROUP BY i % 20
SQL
is( sql("SELECT state, groups_failed > 0, last_error_sqlstate FROM weir.stat_stream WHERE stream = 'groups'"),
	'running|t|AB123', 'groups: the others are counted');

##
## Without any row
##

sql('ALTER TABLE own RENAME COLUMN id TO other');
sql('REVOKE INSERT ON no_data FROM etl');
$broker->produce('c', ['{"id":231,"t":"a","at":1704067200}']);
for my $case ([ 'own', '42703' ], [ 'no_data', '42501' ])
{
	WeirTest::sql_becomes($node,
		"SELECT state, last_error_sqlstate FROM weir.stat_stream WHERE stream = '$case->[0]'",
		"failed|$case->[1]", "$case->[0]: the definition is at fault");
}
is(sql("SELECT count(*) FROM weir.dead_letter WHERE (staged_row ->> 'id')::int = 231"),
	0, 'which makes no dead letter');

##
## Low rates
##

for my $name (qw(low single first))
{
	WeirTest::create_source($node, $name, columns => 'v int', event_time => undef);
	WeirTest::create_stream($node, "${name}_rows", "SELECT l.v FROM $name l");
	WeirTest::wait_for($node, "${name}_rows");
}

# n batches of so many rows each; ends when the stream has failed
sub batches
{
	my ($name, $n, $rows, $v) = @_;
	for my $i (1 .. $n)
	{
		$broker->produce($name, [ map { qq({"v":$v}) } 1 .. $rows ]);
		my ($rc, undef, $error) = WeirTest::try_psql($node,
			"SELECT weir.wait_for('${name}_rows', '$WeirTest::timeout s')");
		last if $rc != 0 && $error =~ /is failed|failed/;
		die $error if $rc != 0;
	}
	return;
}
for my $case ([ 'low', 10 ], [ 'single', 1 ])
{
	my ($name, $rows) = @$case;
	batches($name, 100 / $rows, $rows, 1);
	sql("ALTER TABLE ${name}_rows ADD CHECK (v < 0) NOT VALID");
	batches($name, 150 / $rows, $rows, 2);
	WeirTest::sql_becomes($node,
		"SELECT state, last_error_sqlstate, last_error ~ 'SQLSTATE 23514' FROM weir.stat_stream WHERE stream = '${name}_rows'",
		'failed|55000|t', "batches of $rows: too many fail");
	my $dead = sql("SELECT count(*) FROM weir.dead_letter WHERE stream = '${name}_rows'");
	cmp_ok($dead, '<=', 50, "batches of $rows: after half of the last 100");
	cmp_ok($dead, '>=', 50 - $rows, "batches of $rows: and not before");
	is(sql("SELECT count(*) FROM ${name}_rows"),
		100, "batches of $rows: what was good is there");
}
$broker->produce('first', ['{"v":1}']);
WeirTest::wait_for($node, 'first_rows');
sql('ALTER TABLE first_rows ADD CHECK (v <> 2)');
$broker->produce('first', ['{"v":2}']);
WeirTest::wait_for($node, 'first_rows');
$broker->produce('first', ['{"v":3}']);
WeirTest::wait_for($node, 'first_rows');
is( sql("SELECT state, last_error_sqlstate, last_error ~ 'first_rows_v_check' FROM weir.stat_stream WHERE stream = 'first_rows'"),
	'running|23514|t', 'the first dead letter of a kind is told, and stays');

##
## Groups that are closed
##

WeirTest::create_source($node, 'g', columns => 'k int, at timestamptz', event_time => 'at');
sql(<<'SQL');
CREATE TABLE some_groups (window_start timestamptz, k int, n bigint, UNIQUE NULLS NOT DISTINCT (window_start, k));
CREATE TABLE all_groups (LIKE some_groups INCLUDING ALL);
CREATE FUNCTION calling() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.k % TG_ARGV[0]::int = 0 THEN PERFORM public.no_more(NEW.k); END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER calling BEFORE INSERT ON some_groups FOR EACH ROW EXECUTE FUNCTION calling(10);
CREATE TRIGGER calling BEFORE INSERT ON all_groups FOR EACH ROW EXECUTE FUNCTION calling(1);
SQL
WeirTest::create_stream($node, $_,
	"SELECT w.window_start, g.k, count(*) AS n FROM g CROSS JOIN weir.tumble(g.at, '1 minute') w GROUP BY w.window_start, g.k",
	emit => 'on_close')
  for qw(some_groups all_groups);
$broker->produce('g', [ map { qq({"k":$_,"at":1704067200}) } 1 .. 150 ]);
WeirTest::wait_for($node, qw(some_groups all_groups));
sql("SELECT weir.advance_watermark('g')");
WeirTest::wait_for($node, 'some_groups');
WeirTest::compare($node, 'SELECT k FROM some_groups',
	'SELECT i FROM generate_series(1, 150) i WHERE i % 10 <> 0',
	'groups that can be closed, are');
is( sql("SELECT count(*), min(reason), min(sqlstate) FROM weir.dead_letter WHERE stream = 'some_groups'"),
	'15|group|42883', 'and the others are dead letters');
WeirTest::sql_becomes($node,
	"SELECT state, last_error_sqlstate, last_error ~ 'no_more' FROM weir.stat_stream WHERE stream = 'all_groups'",
	'failed|55000|t', 'when none can, the definition is at fault');
is(sql("SELECT count(*) FROM weir.dead_letter WHERE stream = 'all_groups'"),
	0, 'and none is lost');
sql("DROP TRIGGER calling ON all_groups");
sql("SELECT weir.resume('all_groups')");
WeirTest::wait_for($node, 'all_groups');
is(sql('SELECT count(*) FROM all_groups'), 150, 'repaired, all are there');

my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
unlike($log, qr/AS NOT MATERIALIZED/, 'no statement of weir\'s is in the log');

$node->stop;
done_testing();
