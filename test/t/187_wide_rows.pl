# Rows that no page can hold, and the widest ones that one can.
#
# Proves: a record whose row is too big for a segment, with everything out of
# line that can be, is a dead letter, and those before and after it are
# staged; one with as many columns as a source can have, and values that are
# just not too big, goes all the way.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker =
  WeirBroker->embedded(topics => { map { ($_ => 1) } qw(names many texts) });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);
my $json = JSON::PP->new->canonical;

# names are 64 bytes each, and never out of line: 125 of them fit
WeirTest::create_source(
	$node, 'names',
	columns => 'id int, ' . join ', ',
	map { "n$_ name" } 1 .. 140);
WeirTest::create_stream($node, 'from_names', 'SELECT id, n1, n121 FROM names');
$broker->produce(
	'names',
	[
		map {
			my $id = $_;
			$json->encode(
				{ id => $id, map { ("n$_" => "v$_") } 1 .. ($id % 2 ? $id : 140) })
		} 1, 2, 121, 4, 125
	]);

# texts are out of line one by one, to 18 bytes each: 446 of them fit
WeirTest::create_source(
	$node, 'texts',
	columns => 'id int, ' . join ', ',
	map { "t$_ text" } 1 .. 500);
WeirTest::create_stream($node, 'from_texts',
	"SELECT id, length(t1) + length(t400) AS n FROM texts");
$broker->produce(
	'texts',
	[
		map {
			my $id = $_;
			$json->encode(
				{ id => $id, map { ("t$_" => join ',', map { $_ * $id } 1 .. 30) } 1 .. $id })
		} 400, 500, 440, 499, 401
	]);

# as many columns as there can be
WeirTest::create_source(
	$node, 'many',
	columns => join ', ',
	map { "c$_ bigint" } 1 .. 1593);
WeirTest::create_stream($node, 'from_many',
	'SELECT c1, c900, c1593 FROM many');
$broker->produce(
	'many',
	[
		map {
			my $n = $_;
			$json->encode({ c1593 => $n, map { ("c$_" => $n + $_) } 1 .. $n })
		} 1, 1100, 900, 1593, 985
	]);

WeirTest::wait_for($node, qw(from_names from_texts from_many));
is(WeirTest::sql($node, 'SELECT * FROM from_names ORDER BY id'),
	"1|v1|\n121|v1|v121\n125|v1|v121", 'names');
is(WeirTest::sql($node, 'SELECT id, n > 0 FROM from_texts ORDER BY id'),
	"400|t\n401|t\n440|t", 'texts');
is(WeirTest::sql($node, 'SELECT c1, c900, c1593 FROM from_many ORDER BY 1'),
	"2||1\n901|1800|900\n986|1885|985", 'as many columns as there can be');
is( WeirTest::sql($node, <<'SQL'),
SELECT source, array_agg(kafka_offset ORDER BY kafka_offset), array_agg(DISTINCT reason || sqlstate)
FROM weir.dead_letter WHERE message LIKE 'row is too big%' GROUP BY 1 ORDER BY 1
SQL
	"many|{1,3}|{decode54000}\nnames|{1,3}|{decode54000}\ntexts|{1,3}|{decode54000}",
	'the others are dead letters');

$node->stop;
done_testing();
