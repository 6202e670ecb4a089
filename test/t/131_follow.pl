# A running source follows the catalog.
#
# Proves: whatever a compiled source took from the catalog (functions that
# are inlined or folded, in filter, DEFAULT, generated columns and CHECK, in
# functions and operators and casts that these use, in checks of domains; the
# attributes of composite types, in arrays and in each other; labels of enums;
# constraints of domains; rights), records sent after a change has committed
# are treated as it now is, records before it as it was.  The worker is the
# same one throughout, so it is no restart that does it.  Temporary tables
# that come and go change nothing.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { f => 1, g => 1 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

sql(<<'SQL');
CREATE FUNCTION fil(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 > 0';
CREATE FUNCTION gen(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 10';
CREATE FUNCTION deep(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1';
CREATE FUNCTION over_deep(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT deep($1)';
CREATE FUNCTION pl(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
CREATE FUNCTION def() RETURNS text STABLE LANGUAGE sql AS $$SELECT 'old'$$;
CREATE FUNCTION folded(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
CREATE FUNCTION chk(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 < 1000';
CREATE FUNCTION near(int, int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT abs($1 - $2) < 10';
CREATE OPERATOR ~=~ (FUNCTION = near, LEFTARG = int, RIGHTARG = int);
CREATE TYPE money_of AS (amount int);
CREATE FUNCTION money_of(int) RETURNS money_of IMMUTABLE LANGUAGE sql AS 'SELECT ROW($1)::money_of';
CREATE CAST (int AS money_of) WITH FUNCTION money_of(int);
CREATE FUNCTION dom_ok(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 < 100';
CREATE DOMAIN small AS int CHECK (dom_ok(VALUE));
CREATE DOMAIN free AS int;
CREATE TYPE inner_type AS (x int, y int);
CREATE TYPE pair AS (a int, b text, i inner_type);
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE COLLATION plain (provider = libc, locale = 'C');
SQL
WeirTest::create_source(
	$node, 'f',
	columns => <<'SQL',
id int NOT NULL CHECK (chk(id)), d text DEFAULT def(), e text DEFAULT folded('old'),
g int GENERATED ALWAYS AS (gen(id)) STORED, h int GENERATED ALWAYS AS (over_deep(id)) STORED,
p int GENERATED ALWAYS AS (pl(id)) STORED, o boolean GENERATED ALWAYS AS (id ~=~ 5) STORED,
m int GENERATED ALWAYS AS ((id::money_of).amount) STORED,
c pair, cs pair[], mood mood, s small, w free CHECK (w::text COLLATE plain < 'z')
SQL
	filter => 'fil(id)');
WeirTest::create_stream($node, 'f_rows', <<'SQL');
SELECT f.id, f.d, f.e, f.g, f.h, f.p, f.o, f.m, to_jsonb(f.c) AS c, to_jsonb(f.cs) AS cs,
	f.mood::text AS mood, f.s::int AS s, f.w::int AS w
FROM f
SQL

my $id = 0;

# Sends a record with the next id and these fields; returns that id.
sub send_record
{
	my ($fields) = @_;
	$id++;
	$broker->produce('f',
		[ qq({"id":$id) . ($fields ? ",$fields" : '') . '}' ]);
	return $id;
}

# What becomes of a record: its output, or its dead letter, or nothing.
sub becomes
{
	my ($fields, $columns, $expected, $name) = @_;
	my $sent = send_record($fields);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	WeirTest::wait_for($node, 'f_rows');
	my $got = sql("SELECT $columns FROM f_rows WHERE id = $sent");
	$got = sql(<<SQL) if $got eq '';
SELECT sqlstate FROM weir.dead_letter
WHERE convert_from(payload, 'UTF8')::jsonb ->> 'id' = '$sent'
SQL
	is($got, $expected, $name);
	return;
}

becomes('', 'd, e, g, h, p, o, m', 'old|old|10|2|1|t|1', 'before any change');
my ($worker) = WeirTest::worker_pids($node, 'ingest');

sql(q{CREATE OR REPLACE FUNCTION gen(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 100'});
becomes('', 'g', '200', 'a function of a generated column');

sql(q{CREATE OR REPLACE FUNCTION deep(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1000'});
becomes('', 'h', '1003', 'a function inlined into one that is inlined');

sql(q{CREATE OR REPLACE FUNCTION pl(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN -$1; END'});
becomes('', 'p', '-4', 'a function that is not inlined');

sql(q{CREATE OR REPLACE FUNCTION def() RETURNS text STABLE LANGUAGE sql AS $$SELECT 'new'$$});
becomes('', 'd', 'new', 'a function of a DEFAULT');

sql(q{CREATE OR REPLACE FUNCTION folded(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN 'new'; END$$});
becomes('', 'e', 'new', 'a function folded to a constant');

sql(q{CREATE OR REPLACE FUNCTION near(int, int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT abs($1 - $2) < 1'});
becomes('', 'o', 'f', 'the function of an operator');

sql(q{CREATE OR REPLACE FUNCTION money_of(int) RETURNS money_of IMMUTABLE LANGUAGE sql AS 'SELECT ROW(-$1)::money_of'});
becomes('', 'm', '-8', 'the function of a cast');

sql(q{CREATE OR REPLACE FUNCTION chk(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 <> 9'});
becomes('', 'id', '23514', 'a function of a CHECK');
becomes('', 'id', '10', 'which the next record passes');

sql(q{CREATE OR REPLACE FUNCTION fil(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 <> 11'});
becomes('', 'id', '', 'a function of the filter');
becomes('', 'id', '12', 'which the next record passes');

my $pair = '"c":{"a":1,"b":"x","i":{"x":1,"y":2,"z":3},"n":7,"aa":8}';
my $pairs = '"cs":[{"a":1,"b":"x","n":7,"aa":8,"i":{"x":1,"y":2,"z":3}}]';
becomes("$pair,$pairs", 'c, cs',
	'{"a": 1, "b": "x", "i": {"x": 1, "y": 2}}|[{"a": 1, "b": "x", "i": {"x": 1, "y": 2}}]',
	'a composite type');
sql('ALTER TYPE pair ADD ATTRIBUTE n int');
becomes("$pair,$pairs", 'c, cs',
	'{"a": 1, "b": "x", "i": {"x": 1, "y": 2}, "n": 7}|[{"a": 1, "b": "x", "i": {"x": 1, "y": 2}, "n": 7}]',
	'an attribute added');
sql('ALTER TYPE pair RENAME ATTRIBUTE a TO aa');
becomes("$pair,$pairs", 'c, cs',
	'{"b": "x", "i": {"x": 1, "y": 2}, "n": 7, "aa": 8}|[{"b": "x", "i": {"x": 1, "y": 2}, "n": 7, "aa": 8}]',
	'an attribute renamed');
sql('ALTER TYPE pair DROP ATTRIBUTE b');
becomes("$pair,$pairs", 'c, cs',
	'{"i": {"x": 1, "y": 2}, "n": 7, "aa": 8}|[{"i": {"x": 1, "y": 2}, "n": 7, "aa": 8}]',
	'an attribute dropped');
sql('ALTER TYPE inner_type ADD ATTRIBUTE z int, DROP ATTRIBUTE x');
becomes("$pair,$pairs", 'c, cs',
	'{"i": {"y": 2, "z": 3}, "n": 7, "aa": 8}|[{"i": {"y": 2, "z": 3}, "n": 7, "aa": 8}]',
	'attributes of a type in the type');
like(
	WeirTest::sql_error($node, 'ALTER TYPE pair ALTER ATTRIBUTE n TYPE bigint'),
	qr/^0A000/, 'the type of an attribute cannot change, as in any table');

becomes('"mood":"great"', 'id', '22P02', 'a label that is none');
sql(q{ALTER TYPE mood ADD VALUE 'great'});
becomes('"mood":"great"', 'mood', 'great', 'a label added');
sql(q{ALTER TYPE mood RENAME VALUE 'great' TO 'fine'});
becomes('"mood":"fine"', 'mood', 'fine', 'a label renamed');
becomes('"mood":"great"', 'id', '22P02', 'and its old name is none');

becomes('"s":99', 's', '99', 'a domain');
becomes('"s":100', 's', '23514', 'its check');
sql(q{CREATE OR REPLACE FUNCTION dom_ok(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 >= 100'});
becomes('"s":99', 's', '23514', 'a function of its check');
becomes('"s":100', 's', '100', 'and what it now passes');

becomes('"w":7', 'w', '7', 'a domain without a check');
sql('ALTER DOMAIN free ADD CONSTRAINT few CHECK (VALUE <> 8)');
becomes('"w":8', 'w', '23514', 'a constraint added');
sql('ALTER DOMAIN free DROP CONSTRAINT few');
becomes('"w":8', 'w', '8', 'a constraint dropped');
sql('ALTER DOMAIN free ADD CONSTRAINT few CHECK (VALUE < 5) NOT VALID');
becomes('"w":7', 'w', '23514', 'a constraint added that is not valid');
sql('ALTER DOMAIN free DROP CONSTRAINT few');
sql('ALTER COLLATION plain RENAME TO plainer');
becomes('"w":8', 'w', '8', 'a collation renamed');
sql('ALTER FUNCTION gen(int) RENAME TO generate');
becomes('', 'g', $id * 100 + 100, 'a function renamed');

# What is not the source's is not in its way, and no restart did all this.
sql(q{CREATE TEMPORARY TABLE t (a int PRIMARY KEY, b pair)});
becomes('', 'id', $id + 1, 'after a temporary table');
is(join(' ', WeirTest::worker_pids($node, 'ingest')),
	$worker, 'it is the same worker');

##
## Rights
##

sql(<<'SQL');
CREATE DOMAIN must AS int;
CREATE ROLE alice;
GRANT USAGE ON FOREIGN SERVER kafka TO alice;
GRANT CREATE ON SCHEMA public TO alice;
CREATE FUNCTION guarded(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 > 0';
SET ROLE alice;
SELECT weir.create_source('g', 'kafka', 'g', 'id int, n must', filter => 'public.guarded(id)');
SELECT weir.create_stream('g_rows', 'SELECT g.id FROM g');
SQL
$broker->produce('g', ['{"id":1,"n":1}']);
WeirTest::wait_for($node, 'g_rows');
sql('ALTER DOMAIN must SET NOT NULL');
$broker->produce('g', [ '{"id":-1,"n":1}', '{"id":7,"n":null}' ]);
WeirTest::wait_for($node, 'g_rows');
is(sql('SELECT kafka_offset, sqlstate FROM weir.dead_letter WHERE source = \'g\''),
	'2|23502', 'a domain that is NOT NULL now');
sql('ALTER DOMAIN must DROP NOT NULL');
sql('REVOKE EXECUTE ON FUNCTION guarded(int) FROM PUBLIC');
$broker->produce('g', ['{"id":2}']);
WeirTest::sql_becomes($node, <<'SQL', 'stopped|42501', 'a right taken back stops the source');
SELECT state, last_error_sqlstate FROM weir.stat_source WHERE source = 'g'
SQL
is(sql('SELECT string_agg(id::text, \' \') FROM g_rows'), '1',
	'which has read nothing with it');
sql(q{GRANT EXECUTE ON FUNCTION guarded(int) TO alice; SELECT weir.resume('g')});
WeirTest::wait_for($node, 'g_rows');
is(sql('SELECT string_agg(id::text, \' \' ORDER BY id) FROM g_rows'),
	'1 2', 'and nothing is lost');

$node->stop;
done_testing();
