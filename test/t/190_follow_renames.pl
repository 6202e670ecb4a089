# A filter means the same columns, whatever they are called by now.
#
# Proves: columns that a filter names, renamed while the source runs, also in
# a ring, and functions that change names with others, all at once and one by
# one between two batches, do not change which records pass; a path stays with
# its column.  Without a record lost or read twice.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { f => 1 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

sql(<<'SQL');
CREATE FUNCTION pass(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 <> 3';
CREATE FUNCTION fail(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 = 3';
SQL
WeirTest::create_source(
	$node, 'f',
	columns => 'id int, a int, b int, c int',
	filter => 'a > 0 AND pass(id % 4)');
WeirTest::create_stream($node, 'f_rows', 'SELECT f.id, f.a, f.b, f.c FROM f');

my $id = 0;
my @passed;

# Eight records, half of which have a positive a, of which a quarter fails.
sub send_and_check
{
	my ($name) = @_;
	my @lines;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	for (1 .. 8)
	{
		my $a = $id % 2 || $id % 4 == 2 ? 1 : -1;
		push @lines, qq({"id":$id,"a":$a,"b":-7,"c":9});
		push @passed, "$id|$a|-7|9" if $a > 0 && $id % 4 != 3;
		$id++;
	}
	$broker->produce('f', \@lines);
	WeirTest::wait_for($node, 'f_rows');
	is(sql('SELECT id, a, b, c FROM f_rows ORDER BY id, a'),
		join("\n", @passed), $name);
	return;
}

send_and_check('before');
sql(<<'SQL');
BEGIN;
ALTER FOREIGN TABLE f RENAME COLUMN a TO t;
ALTER FOREIGN TABLE f RENAME COLUMN b TO a;
ALTER FOREIGN TABLE f RENAME COLUMN t TO b;
COMMIT;
SQL
send_and_check('two columns change names at once');
sql('ALTER FOREIGN TABLE f RENAME COLUMN b TO t');
sql('ALTER FOREIGN TABLE f RENAME COLUMN c TO b');
sql('ALTER FOREIGN TABLE f RENAME COLUMN a TO c');
sql('ALTER FOREIGN TABLE f RENAME COLUMN t TO a');
send_and_check('three columns one by one');
sql(<<'SQL');
BEGIN;
ALTER FUNCTION pass(int) RENAME TO t;
ALTER FUNCTION fail(int) RENAME TO pass;
ALTER FUNCTION t(int) RENAME TO fail;
COMMIT;
SQL
send_and_check('two functions change names');
is( sql("SELECT string_agg(DISTINCT state, ' ') FROM weir.stat_source"),
	'running', 'and the source runs');
is(sql('SELECT count(*) FROM weir.dead_letter'), '0', 'without dead letters');

$node->stop;
done_testing();
