# Nobody's objects take the place of PostgreSQL's, or of those that were
# meant.
#
# Proves: what weir generates calls no operator or function in a schema of the
# owner's path that fits the types better than PostgreSQL's, planted before a
# stream was made or while it runs.  A query and a filter mean what they meant
# when they were made: what text cannot pin (a better overload, a function
# without the argument that has a default, a new cast) is not called, but
# stops the stream or source with the reason, and it goes on when that is
# gone.  What cannot be stored is refused.  Functions of the owner run under
# the owner's search_path, and renames are followed.
#
# The oracle is each query over the stored rows, asked before anything is
# planted.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { rides => 1, moods => 1 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

# The test itself must not call what it plants.
$ENV{PGOPTIONS} = '-c search_path=pg_catalog';

sub sql { return WeirTest::sql($node, @_); }

my $alice = "SET SESSION AUTHORIZATION alice; SET search_path = planted, alice, public;\n";
sub as_alice { return sql($alice . $_[0]); }
sub error_as_alice { return WeirTest::sql_error($node, $alice . $_[0]); }

sql(<<'SQL');
CREATE EXTENSION citext SCHEMA public;
CREATE ROLE alice LOGIN;
CREATE SCHEMA alice AUTHORIZATION alice;
CREATE SCHEMA planted AUTHORIZATION alice;
GRANT ALL ON SCHEMA public TO PUBLIC;
GRANT USAGE ON FOREIGN SERVER kafka TO alice;
CREATE USER MAPPING FOR alice SERVER kafka;
SQL

# Operators of these names for all pairs of types, and functions of these
# names for each type; all of them raise.
my @types = qw(smallint integer bigint numeric real float8 text boolean
  timestamptz timestamp interval jsonb tid bigint[] tid[] float8[] public.citext);

sub plant
{
	my ($schema, $operators, $functions) = @_;
	sql(<<SQL);
SET client_min_messages = error;
DO \$do\$
DECLARE
	l text; r text; op text; f text;
	types text[] := '{@{[ join ',', @types ]}}';
BEGIN
	FOREACH l IN ARRAY types LOOP
		FOREACH f IN ARRAY '{@{[ join ',', @$functions ]}}'::text[] LOOP
			CONTINUE WHEN to_regprocedure(format('$schema.%I(%s)', f, l)) IS NOT NULL;
			EXECUTE format('CREATE FUNCTION $schema.%I(%s) RETURNS %2\$s LANGUAGE plpgsql AS
				\$x\$ BEGIN RAISE ''planted code ran''; END \$x\$', f, l);
		END LOOP;
		FOREACH r IN ARRAY types LOOP
			EXECUTE format('CREATE FUNCTION $schema.compared(%s, %s) RETURNS boolean LANGUAGE plpgsql AS
				\$x\$ BEGIN RAISE ''planted code ran''; END \$x\$', l, r);
			EXECUTE format('CREATE FUNCTION $schema.computed(%s, %s) RETURNS %1\$s LANGUAGE plpgsql AS
				\$x\$ BEGIN RAISE ''planted code ran''; END \$x\$', l, r);
			FOREACH op IN ARRAY '{@{[ join ',', @$operators ]}}'::text[] LOOP
				CONTINUE WHEN to_regoperator(format('$schema.%s(%s, %s)', op, l, r)) IS NOT NULL;
				EXECUTE format('CREATE OPERATOR $schema.%s (FUNCTION = $schema.%s, LEFTARG = %s, RIGHTARG = %s)',
					op, CASE WHEN op ~ '[<=>]' THEN 'compared' ELSE 'computed' END, l, r);
			END LOOP;
		END LOOP;
	END LOOP;
END \$do\$;
SQL
	return;
}

##
## Streams with every kind of generated expression
##

my $columns = <<'SQL';
id int NOT NULL, k text, c public.citext, v int, b bigint, n numeric, f real, d float8,
i interval, m money, ok boolean, dom alice.small, at timestamptz
SQL
# the first hundred are of another time than the rest
my @rides = map
{
	sprintf('{"id":%d,"k":"k%d","c":"%s%d","v":%d,"b":%d,"n":"%d.%d","f":%d.5,'
		  . '"d":%d.25,"i":"%d min","m":"%d.10","ok":%s,"dom":%d,"at":"2024-01-01T%02d:%02d:%02dZ"}',
		$_, $_ % 3, $_ % 2 ? 'C' : 'c', $_ % 4, $_ % 7, $_ * 3, $_, $_ % 10,
		$_, $_, $_, $_, $_ % 2 ? 'true' : 'false', $_ % 5,
		$_ < 100 ? 0 : 9, $_ / 60, $_ % 60)
} 0 .. 299;

my %query = (
	totals => <<'SQL',
SELECT k, count(*) AS n, count(v) AS nv, sum(v) AS sv, avg(v) AS av, sum(b) AS sb,
	avg(b) AS ab, sum(n) AS sn, avg(n) AS an, sum(f) AS sf, avg(f) AS af, sum(d) AS sd,
	avg(d) AS ad, sum(i) AS si, avg(i) AS ai, sum(m) AS sm, min(at) AS first, max(n) AS most,
	bool_and(ok) AS every, bool_or(ok) AS some, bit_and(v) AS bits, stddev(v) AS dv,
	variance(n) AS vn, count(*) FILTER (WHERE ok) AS fine
FROM rides GROUP BY k HAVING bool_or(ok)
SQL
	windows => <<'SQL',
SELECT w.window_start, w.window_end, c, dom, count(*) AS n, avg(n) AS an, max(c) AS mc
FROM rides, weir.hop(at, '1 minute', '20 seconds') w
GROUP BY w.window_start, w.window_end, c, dom
SQL
	tumbling => <<'SQL',
SELECT w.window_start, k, sum(v) AS s FROM rides, weir.tumble(at, '30 seconds') w
GROUP BY w.window_start, k
SQL
	all_rides => 'SELECT id, k, c, v, m, dom, at FROM rides WHERE ok',
	last_of => 'SELECT c, dom, id, n FROM rides',
	joined => <<'SQL',
SELECT r.id, z.name FROM rides r LEFT JOIN zones z ON z.id = r.v
WHERE r.ok AND EXISTS (SELECT FROM zones y WHERE y.id = r.v)
SQL
	called => 'SELECT id, twice(v) AS t, who() AS w FROM rides');
my %arg = (
	windows => ", emit => 'on_close', allowed_lateness => '10 seconds'",
	last_of => q(, options => '{"key": ["c", "dom"]}'));
my @streams = sort keys %query;

sql('CREATE DOMAIN alice.small AS int CHECK (VALUE < 100)');
as_alice(<<"SQL");
CREATE TABLE alice.zones (id int PRIMARY KEY, name citext);
INSERT INTO zones SELECT i, 'zone' || i FROM generate_series(0, 6, 2) i;
CREATE TABLE alice.stored ($columns);
CREATE FUNCTION alice.helped(v anyelement) RETURNS anyelement IMMUTABLE LANGUAGE plpgsql AS
	'BEGIN RETURN v OPERATOR(pg_catalog.+) v; END';
-- inlined by the planner
CREATE FUNCTION alice.twice(v anyelement) RETURNS anyelement IMMUTABLE LANGUAGE sql AS 'SELECT helped(v)';
CREATE FUNCTION alice.who() RETURNS text STABLE LANGUAGE sql AS \$\$ SELECT current_setting('search_path') \$\$;
SELECT weir.create_source('alice.rides', 'kafka', 'rides', \$\$ $columns \$\$,
	event_time => 'at', filter => 'id IS NOT NULL AND twice(id) >= 0');
SQL

# What the queries give over the first rows, and over all of them.
for my $n (100, 300)
{
	sql('TRUNCATE alice.stored');
	WeirTest::load_events($node, 'alice.stored', [ @rides[ 0 .. $n - 1 ] ], columns => $columns);
	for my $name (@streams)
	{
		my $query = $query{$name};
		$query =~ s/FROM rides/FROM stored/;
		$query = "SELECT DISTINCT ON (c, dom) c, dom, id, n FROM stored ORDER BY c, dom, id DESC"
		  if $name eq 'last_of';
		as_alice("CREATE TABLE alice.${name}_$n AS $query");
	}
}

# Results are compared by their texts: nobody's operators are asked.
sub check
{
	my ($n, $when) = @_;
	WeirTest::wait_for($node, @streams);
	WeirTest::close_windows($node, 'rides', @streams);
	for my $name (@streams)
	{
		my $texts = sql(<<SQL);
SELECT string_agg(format(CASE WHEN atttypid IN ('float8'::regtype, 'float4'::regtype)
	THEN 'round(%I::numeric, 3)::text' ELSE '%I::text' END, attname), ', ' ORDER BY attnum)
FROM pg_attribute WHERE attrelid = 'alice.${name}_$n'::regclass AND attnum > 0
SQL
		WeirTest::compare($node, "SELECT $texts FROM alice.$name",
			"SELECT $texts FROM alice.${name}_$n", "$when: $name");
	}
	is(sql('SELECT count(*) FROM weir.dead_letter'), 0, "$when: no dead letters");
	is( sql("SELECT stream, last_error FROM weir.stat_stream WHERE state <> 'running'"),
		'', "$when: all run");
	return;
}

# Names in a query are its user's own business; these are not in any.
plant('planted', [qw(+ - * / % ||)], []);
as_alice("SELECT weir.create_stream('$_', \$\$ $query{$_} \$\$, target => 'alice.$_'" . ($arg{$_} || '') . ')')
  for @streams;
$broker->produce('rides', [ @rides[ 0 .. 99 ] ]);
check(100, 'planted before');
is(sql('SELECT count(DISTINCT w) FROM alice.called'), 1, 'who() is asked under one path');

my @functions = qw(count sum avg min max bool_or bool_and bit_and stddev variance
  to_jsonb jsonb_build_object hash_record_extended float8_avg float8_var_samp
  numeric int8 float8 text timezone round unnest helped_not array_agg);
sql('DROP SCHEMA planted CASCADE; CREATE SCHEMA planted; GRANT USAGE ON SCHEMA planted TO PUBLIC');
plant($_, [qw(= <> < <= > >= + - * / % ||)], \@functions) for qw(planted public);
$broker->produce('rides', [ @rides[ 100 .. 199 ] ]);
WeirTest::wait_for($node, @streams);
as_alice("SELECT weir.pause('$_'), weir.resume('$_')") for @streams;
$broker->produce('rides', [ @rides[ 200 .. 299 ] ]);
check(300, 'planted meanwhile');

# Culprits are looked for by other statements, and a seek clears by others.
as_alice("SELECT weir.seek('$_', 'earliest')") for grep { $_ ne 'called' } @streams;
check(300, 'after a seek');
as_alice("SELECT count(*) FROM weir.explain('$_')") for @streams;
pass('what is compiled can be looked at');

as_alice("SELECT weir.drop_stream('$_', drop_target => true)") for @streams;
sql("DROP SCHEMA planted CASCADE; CREATE SCHEMA planted AUTHORIZATION alice");
sql(<<'SQL');
DO $$
DECLARE o record;
BEGIN
	SET LOCAL client_min_messages = error;
	FOR o IN SELECT oid::regprocedure AS f FROM pg_proc
		WHERE pronamespace = 'public'::regnamespace AND prosrc ~ 'planted code' LOOP
		EXECUTE 'DROP FUNCTION ' || o.f || ' CASCADE';
	END LOOP;
END $$;
SQL

##
## What a text cannot pin
##

as_alice(<<'SQL');
CREATE TYPE alice.mood AS ENUM ('sad', 'happy');
CREATE FUNCTION alice.any_f(v anyelement) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'any ' || v $$;
CREATE FUNCTION alice.with_default(v int, more int DEFAULT 1) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT v + more';
CREATE FUNCTION alice.variadic_f(VARIADIC v int[]) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT v[1] + v[2]';
CREATE FUNCTION alice.filter_f(v anyelement) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION alice.add_any(v mood, a anyelement) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT a::text';
CREATE OPERATOR alice.+ (FUNCTION = add_any, LEFTARG = mood, RIGHTARG = anyelement);
SELECT weir.create_source('alice.moods', 'kafka', 'moods', 'id int NOT NULL, mood mood');
SELECT weir.create_source('alice.filtered', 'kafka', 'moods', 'id int NOT NULL, mood mood', filter => 'filter_f(id)');
SQL
my %unpinned = (
	overload => [
		'SELECT id, any_f(id) AS r FROM moods', 'any 1',
		'FUNCTION alice.any_f(int) RETURNS text' ],
	defaults => [
		'SELECT id, with_default(id) AS r FROM moods', '2',
		'FUNCTION alice.with_default(int) RETURNS int' ],
	nested => [
		'SELECT id, (SELECT max(any_f(x)) FROM generate_series(id, id) x) AS r FROM moods', 'any 1',
		'FUNCTION alice.any_f(int) RETURNS text' ],
	grouped => [
		'SELECT id, max(any_f(id)) AS r FROM moods GROUP BY id HAVING any_f(count(*)::int) IS NOT NULL', 'any 1',
		'FUNCTION alice.any_f(int) RETURNS text' ],
	operators => [
		'SELECT id, mood + id AS r FROM moods', '1',
		'FUNCTION alice.add_int(v alice.mood, a int) RETURNS text',
		'OPERATOR alice.+ (FUNCTION = alice.add_int, LEFTARG = alice.mood, RIGHTARG = int)' ],
	cast_out => [
		'SELECT id, mood::text AS r FROM moods', 'happy',
		'FUNCTION alice.told(v alice.mood) RETURNS text',
		'CAST (alice.mood AS text) WITH FUNCTION alice.told(alice.mood)' ],
	cast_in => [
		"SELECT id, ('ha' || CASE WHEN id > 0 THEN 'ppy' END)::mood::text AS r FROM moods", 'happy',
		'FUNCTION alice.read(text) RETURNS alice.mood',
		'CAST (text AS alice.mood) WITH FUNCTION alice.read(text)' ]);

# Either this, or what was meant cannot be told from what is there now.
my %sqlstate = (defaults => '42725');
my $ids = 0;
for my $name (sort keys %unpinned)
{
	my ($query, $result, @created) = @{ $unpinned{$name} };
	as_alice("SELECT weir.create_stream('$name', \$\$ $query \$\$, target => 'alice.$name')");
	$broker->produce('moods', [qq({"id":1,"mood":"happy"})]) unless $ids++;
	WeirTest::wait_for($node, $name);
	is(sql("SELECT r FROM alice.$name WHERE id = 1 LIMIT 1"), $result, "$name: as it was meant");
	for my $created (@created)
	{
		my $body = $created =~ /^FUNCTION/
		  ? ' IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RAISE \'planted code ran\'; END $$' : '';
		as_alice("CREATE $created$body");
	}
	$broker->produce('moods', [qq({"id":1,"mood":"happy"})]);
	my $sqlstate = $sqlstate{$name} || '55000';
	WeirTest::sql_becomes($node,
		"SELECT state, last_error_sqlstate FROM weir.stat_stream WHERE stream = '$name'",
		"failed|$sqlstate", "$name: what was created later is not taken");
	like(
		sql("SELECT last_error FROM weir.stat_stream WHERE stream = '$name'"),
		$sqlstate{$name} ? qr/is not unique/ : qr/would not mean what it meant.*alice\./,
		"$name: the reason");
	like( error_as_alice("SELECT weir.explain('$name')"),
		qr/^$sqlstate/, "$name: nor by the user's own session");
	for my $created (reverse @created)
	{
		my $what = $created;
		$what =~ s/ RETURNS.*| WITH FUNCTION.*//;
		$what =~ s/\(FUNCTION.*/(alice.mood, int)/;
		as_alice("DROP $what");
	}
	as_alice("SELECT weir.resume('$name')");
	WeirTest::wait_for($node, $name);
	is(sql("SELECT DISTINCT r FROM alice.$name WHERE id = 1"), $result, "$name: goes on as it was meant");
	as_alice("SELECT weir.drop_stream('$name')");
}
is(sql('SELECT count(*) FROM weir.dead_letter'), 0, 'nothing planted has run');

# A call of a variadic function is kept as one.
as_alice("SELECT weir.create_stream('variadic', 'SELECT id, variadic_f(id, 5) AS r FROM moods', target => 'alice.variadic')");
as_alice('CREATE FUNCTION alice.variadic_f(int, int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RAISE \'planted code ran\'; END $$');
$broker->produce('moods', [qq({"id":1,"mood":"happy"})]);
as_alice("SELECT weir.pause('variadic'), weir.resume('variadic')");
WeirTest::wait_for($node, 'variadic');
is(sql('SELECT DISTINCT r FROM alice.variadic'), 6, 'variadic: as it was meant');
is(sql('SELECT count(*) FROM weir.dead_letter'), 0, 'nothing planted has run');

# The same of a filter.
as_alice("SELECT weir.create_stream('from_filtered', 'SELECT id, mood FROM filtered', target => 'alice.from_filtered')");
WeirTest::wait_for($node, 'from_filtered');
my $before = sql('SELECT count(*) FROM alice.from_filtered');
as_alice('CREATE FUNCTION alice.filter_f(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RAISE \'planted code ran\'; END $$');
$broker->produce('moods', [qq({"id":1,"mood":"happy"})]);
WeirTest::sql_becomes($node,
	"SELECT DISTINCT state, last_error_sqlstate FROM weir.stat_source WHERE source = 'filtered'",
	'stopped|55000', 'a filter: what was created later is not taken');
as_alice('DROP FUNCTION alice.filter_f(int)');
as_alice("SELECT weir.resume('alice.filtered')");
WeirTest::wait_for($node, 'from_filtered');
is(sql('SELECT count(*) FROM alice.from_filtered'), $before + 1, 'and the source goes on');
is(sql('SELECT count(*) FROM weir.dead_letter'), 0, 'nothing planted has run');

##
## What cannot be stored is refused; what can, is right
##

my %refused = (
	'NULLIF' => "SELECT id, NULLIF(c, 'C0') AS r FROM rides",
	'IS DISTINCT FROM' => "SELECT id FROM rides WHERE c IS DISTINCT FROM 'C0'",
	'CASE' => "SELECT id, CASE c WHEN 'C0' THEN 1 END AS r FROM rides",
	'USING' => 'SELECT id, x.y FROM rides JOIN names x USING (c)',
	'IN of rows' => 'SELECT id, (c, id) IN (SELECT n.c, n.y FROM names n) AS r FROM rides',
	'NATURAL' => 'SELECT x.y FROM rides NATURAL JOIN names x');
as_alice(<<'SQL');
CREATE TABLE alice.names (c citext, y int);
INSERT INTO alice.names VALUES ('C0', 1);
SQL
for my $what (sort keys %refused)
{
	like(error_as_alice("SELECT weir.create_stream('refused', \$\$ $refused{$what} \$\$)"),
		qr/^0A000.*cannot be stored/s, "$what of another's type is refused");
}
like( error_as_alice(q(SELECT weir.create_source('alice.refused', 'kafka', 'rides', 'c citext', filter => 'c IS DISTINCT FROM ''x''' ))),
	qr/^0A000.*cannot be stored/s, 'in a filter, too');
as_alice(<<'SQL');
SELECT weir.create_stream('stored_right', $$
	SELECT id, r.c = 'C0' AS eq, r.c IN ('C0', 'C9') AS listed, r.c IN (SELECT m.c FROM names m) AS sub,
		r.c = ANY (ARRAY['C0'::citext]) AS arr, CASE WHEN r.c = 'C0' THEN 1 END AS cas, r.c LIKE 'C%' AS pattern,
		r.c BETWEEN 'C0' AND 'C0' AS between_, n.y
	FROM rides r JOIN names n ON n.c = r.c $$, target => 'alice.stored_right')
SQL
WeirTest::wait_for($node, 'stored_right');
is(sql('SELECT DISTINCT eq, listed, sub, arr, cas, pattern, between_, y FROM alice.stored_right'),
	't|t|t|t|1|t|t|1', 'operators of another type are what they were');
is(sql('SELECT count(*) FROM alice.stored_right'),
	scalar(grep { $_ % 4 == 0 } 0 .. 299), 'for all rows');

##
## Renames
##

as_alice(<<'SQL');
CREATE FUNCTION alice.told(v mood) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'told' $$;
CREATE CAST (mood AS text) WITH FUNCTION told(mood);
SELECT weir.create_stream('renamed', 'SELECT id, mood::text AS r, mood + id AS s, any_f(id) AS t FROM moods', target => 'alice.renamed');
SQL
WeirTest::wait_for($node, 'renamed');
my $n = sql('SELECT count(*) FROM alice.renamed');
as_alice(<<'SQL');
ALTER FUNCTION told(mood) RENAME TO told_again;
ALTER FUNCTION any_f(anyelement) RENAME TO "Any f";
ALTER FUNCTION add_any(mood, anyelement) SET SCHEMA planted;
ALTER OPERATOR alice.+ (mood, anyelement) SET SCHEMA planted;
ALTER TYPE mood RENAME TO "Mood";
ALTER TABLE renamed SET SCHEMA planted;
SQL
sql('ALTER SCHEMA planted RENAME TO "Planted here"');
$broker->produce('moods', [qq({"id":1,"mood":"happy"})]);
WeirTest::wait_for($node, 'renamed');
as_alice("SELECT weir.pause('renamed'), weir.resume('renamed')");
$broker->produce('moods', [qq({"id":1,"mood":"happy"})]);
WeirTest::wait_for($node, 'renamed');
is(sql('SELECT count(*), min(r), max(r), min(s), min(t) FROM "Planted here".renamed'),
	$n + 2 . '|told|told|1|any 1', 'what a query uses may be renamed');
is(sql('SELECT count(*) FROM weir.dead_letter'), 0, 'no dead letters in all this');

$node->stop;
done_testing();
