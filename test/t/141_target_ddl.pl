# DDL that turns the tables of a stream into what creation refuses.
#
# Proves: whatever is done to a target, its partitions, a state table or a
# view that the query reads, the stream fails with the reason before it
# writes anything wrong, with no row to apply as well; after the repair and
# weir.resume() its result is that of the same SELECT over all rows.  What a
# crash would empty is refused by the command itself.  Creation refuses each
# of these, too, and what is temporary.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { events => 2 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);
WeirTest::create_events_source($node, 'events');

my $groups = 'SELECT e.k, count(*) AS n, sum(e.v) AS s FROM events e GROUP BY e.k';
my $rows = 'SELECT e.id, e.k FROM events e';
my $upserts = 'SELECT e.id, e.k FROM events e';
my @key = (options => '{"key": "id"}');
my $deferred = qr/^0A000 constraint "c\w*" of target "\w+" is INITIALLY DEFERRED/;

WeirTest::sql($node, <<'SQL');
CREATE ROLE owner LOGIN;
GRANT ALL ON SCHEMA public TO owner;
CREATE TABLE keys (k text PRIMARY KEY);
CREATE TABLE dims (v int, weight int);
INSERT INTO dims SELECT v, v FROM generate_series(-1000, 1000) v;
CREATE VIEW dim_view AS SELECT v FROM dims;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RETURN CASE WHEN to_jsonb(NEW) ->> 'k' = (SELECT max(k) FROM keys) THEN NULL ELSE NEW END;
END $$;
SQL

# name => [query, arguments, break, reason, repair]; %t is the target, %s the
# state table.
my %cases = (
	no_key => [ $groups, [], 'DROP INDEX %t_k_idx',
		qr/^42P1[06] target "no_key" has no unique index over the key/,
		'CREATE UNIQUE INDEX ON %t (k) NULLS NOT DISTINCT' ],
	partial_key => [ $groups, [],
		'DROP INDEX %t_k_idx; CREATE UNIQUE INDEX %t_k_idx ON %t (k) NULLS NOT DISTINCT WHERE n > 2',
		qr/^42P10 .* no unique index/,
		'DROP INDEX %t_k_idx; CREATE UNIQUE INDEX ON %t (k) NULLS NOT DISTINCT' ],
	other_key => [ $groups, [],
		'DROP INDEX %t_k_idx; CREATE UNIQUE INDEX %t_k_idx ON %t (k, n) NULLS NOT DISTINCT',
		qr/^42P10 .* no unique index/,
		'DROP INDEX %t_k_idx; CREATE UNIQUE INDEX ON %t (k) NULLS NOT DISTINCT' ],
	distinct_nulls => [ $groups, [],
		'DROP INDEX %t_k_idx; CREATE UNIQUE INDEX %t_k_idx ON %t (k)',
		qr/^42P10 .* no unique index/,
		'DROP INDEX %t_k_idx; CREATE UNIQUE INDEX ON %t (k) NULLS NOT DISTINCT' ],
	deferrable_key => [ $groups, [],
		'DROP INDEX %t_k_idx; ALTER TABLE %t ADD CONSTRAINT c_k UNIQUE NULLS NOT DISTINCT (k) DEFERRABLE INITIALLY IMMEDIATE',
		qr/^42P10 .* no unique index/,
		'ALTER TABLE %t DROP CONSTRAINT c_k; CREATE UNIQUE INDEX ON %t (k) NULLS NOT DISTINCT' ],
	deferred_unique => [ $groups, [],
		'ALTER TABLE %t ADD CONSTRAINT c_u UNIQUE (s) DEFERRABLE INITIALLY DEFERRED',
		$deferred, 'ALTER TABLE %t DROP CONSTRAINT c_u' ],
	deferred_key => [ $rows, [],
		'ALTER TABLE %t ADD CONSTRAINT c FOREIGN KEY (k) REFERENCES keys DEFERRABLE INITIALLY DEFERRED NOT VALID',
		$deferred, 'ALTER TABLE %t DROP CONSTRAINT c' ],
	altered_constraint => [ $rows, [],
		'ALTER TABLE %t ADD CONSTRAINT c FOREIGN KEY (k) REFERENCES keys DEFERRABLE NOT VALID; ALTER TABLE %t ALTER CONSTRAINT c INITIALLY DEFERRED',
		$deferred, 'ALTER TABLE %t DROP CONSTRAINT c' ],
	referenced => [ $groups, [],
		'CREATE TABLE refers (k text CONSTRAINT c REFERENCES %t (k) DEFERRABLE INITIALLY DEFERRED)',
		$deferred, 'DROP TABLE refers' ],
	deferred_trigger => [ $rows, [],
		'CREATE CONSTRAINT TRIGGER c AFTER INSERT ON %t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION nothing()',
		qr/^42501 constraint "c" of target "deferred_trigger" is INITIALLY DEFERRED/,
		'DROP TRIGGER c ON %t' ],
	instead => [ $groups, [],
		'CREATE RULE r AS ON INSERT TO %t DO INSTEAD NOTHING',
		qr/^0A000 target "instead" has a rule/, 'DROP RULE r ON %t' ],
	also_deleted => [ $rows, [],
		'CREATE RULE r AS ON UPDATE TO %t WHERE new.id = 1 DO INSTEAD DELETE FROM keys',
		qr/^0A000 target "also_deleted" has a rule/, 'DROP RULE r ON %t' ],
	parent => [ $groups, [], 'CREATE TABLE child () INHERITS (%t)',
		qr/^0A000 table "child" inherits from target "parent"/,
		'DROP TABLE child' ],
	adopted => [ $rows, [],
		'CREATE TABLE child2 (LIKE %t); ALTER TABLE child2 INHERIT %t',
		qr/^0A000 table "child2" inherits/, 'ALTER TABLE child2 NO INHERIT %t' ],
	hidden => [ $groups, [],
		'ALTER TABLE %t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY p ON %t USING (n < 3) WITH CHECK (true)',
		qr/^0A000 row security of target "hidden" may hide rows/,
		'DROP POLICY p ON %t; CREATE POLICY p ON %t USING (true)' ],
	restricted => [ $groups, [],
		'CREATE POLICY a ON %t USING (true); CREATE POLICY r ON %t AS RESTRICTIVE FOR DELETE USING (n > 1); ALTER TABLE %t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY',
		qr/^0A000 row security/, 'ALTER TABLE %t NO FORCE ROW LEVEL SECURITY' ],
	lost_column => [ $groups, [], 'ALTER TABLE %t RENAME n TO m',
		qr/^42703 target "lost_column" has no column "n"/,
		'ALTER TABLE %t RENAME m TO n' ],
	other_column => [ $groups, [],
		'ALTER TABLE %t ADD must int NOT NULL DEFAULT 0; ALTER TABLE %t ALTER must DROP DEFAULT',
		qr/^23502 column "must" of target .* is NOT NULL and has no default/,
		'ALTER TABLE %t ALTER must SET DEFAULT 0' ],
	generated => [ $groups, [],
		'ALTER TABLE %t DROP n; ALTER TABLE %t ADD n bigint GENERATED ALWAYS AS (s) STORED',
		qr/^428C9 column "n" of target "generated" is generated always/,
		undef ],
	retyped => [ $groups, [], 'ALTER TABLE %t ALTER n TYPE bytea USING NULL',
		qr/^42804 column "n" .* is of type bytea, but the query gives bigint/,
		undef ],
	folded_key => [ 'SELECT e.v / 3.0 AS third, count(*) AS n FROM events e GROUP BY 1', [],
		'DELETE FROM %t; ALTER TABLE %t ALTER third TYPE int',
		qr/^42804 column "third" .* is of type integer, but the key of the stream is of type numeric/,
		undef ],
	state_trigger => [ $groups, [],
		'CREATE TRIGGER t BEFORE UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION nothing()',
		qr/^42P16 state table "state_\d+" is not as the stream needs it: It has a trigger/,
		'DROP TRIGGER t ON %s' ],
	state_referenced => [ $groups, [],
		'CREATE TABLE refers_to_state (k text REFERENCES %s (k1))',
		qr/^42P16 state table .*: It has a trigger/, 'DROP TABLE refers_to_state' ],
	state_rule => [ $upserts, \@key,
		'CREATE RULE r AS ON INSERT TO %s DO INSTEAD NOTHING',
		qr/^0A000 state table "state_\d+" has a rule/, 'DROP RULE r ON %s' ],
	state_index => [ $groups, [],
		q{ALTER TABLE %s RENAME k1 TO k2},
		qr/^42P16 state table .*: It has no column "k1"/,
		q{ALTER TABLE %s RENAME k2 TO k1} ],
	state_type => [
		'SELECT e.k, sum(d.weight) AS s FROM events e JOIN dims d ON d.v = e.v GROUP BY e.k',
		[], 'ALTER TABLE dims ALTER weight TYPE numeric(12,3) USING weight + 0.25',
		qr/^42804 column "s" of the query of stream "state_type" was of type bigint and is of type numeric now/,
		undef ],
	view => [ 'SELECT e.id, v.v FROM events e JOIN dim_view v ON v.v = e.v', [],
		'CREATE OR REPLACE VIEW dim_view AS SELECT v FROM events',
		qr/^0A000 a continuous query cannot use a view that reads a source/,
		'CREATE OR REPLACE VIEW dim_view AS SELECT v FROM dims' ],
	skipped_row => [ $rows, [],
		'CREATE TRIGGER t BEFORE INSERT ON %t FOR EACH ROW EXECUTE FUNCTION skip()',
		qr/^0A000 a trigger of target public\.skipped_row skips rows/,
		'DROP TRIGGER t ON %t' ],
	skipped_upsert => [ $upserts, \@key,
		'CREATE TRIGGER t BEFORE INSERT ON %t FOR EACH ROW EXECUTE FUNCTION skip()',
		qr/^0A000 a trigger of target public\.skipped_upsert skips rows/,
		'DROP TRIGGER t ON %t' ],
	skipped_group => [ $groups, [],
		'CREATE TRIGGER t BEFORE UPDATE ON %t FOR EACH ROW EXECUTE FUNCTION skip()',
		qr/^0A000 a trigger of target public\.skipped_group skips rows/,
		'ALTER TABLE %t DISABLE TRIGGER t' ],
	partition => [ $groups, [ target => 'parts' ],
		'ALTER TABLE parts_1 ADD CONSTRAINT c_p UNIQUE (s) DEFERRABLE INITIALLY DEFERRED',
		qr/^0A000 constraint "c_p" of target "parts_1" is INITIALLY DEFERRED/,
		'ALTER TABLE parts_1 DROP CONSTRAINT c_p' ]);

WeirTest::sql($node, <<'SQL');
CREATE TABLE parts (k text, n bigint, s bigint, UNIQUE NULLS NOT DISTINCT (k)) PARTITION BY HASH (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY LIST (k);
CREATE TABLE parts_2_a PARTITION OF parts_2 DEFAULT;
SQL

my @payloads;

sub produce
{
	my ($n) = @_;
	my @lines = WeirBroker::gen_lines('events',
		events => $n, first => scalar @payloads, seed => 141,
		partitions => 2);
	$broker->produce('events', \@lines, partition_field => 1);
	push @payloads, map { s/^\d+\t//r } @lines;
	return;
}

# The owner is an ordinary role: superusers pass row security.
sub as_owner
{
	my ($sql) = @_;
	return WeirTest::sql($node, "SET ROLE owner; $sql");
}

WeirTest::sql($node, <<'SQL');
GRANT SELECT ON events, dims, dim_view TO owner;
GRANT REFERENCES ON keys TO owner;
ALTER TABLE dims OWNER TO owner;
ALTER VIEW dim_view OWNER TO owner;
ALTER TABLE parts OWNER TO owner;
ALTER TABLE parts_1 OWNER TO owner;
ALTER TABLE parts_2 OWNER TO owner;
ALTER TABLE parts_2_a OWNER TO owner;
SQL
produce(300);
for my $name (sort keys %cases)
{
	my ($query, $args) = @{ $cases{$name} };
	my %args = @$args;
	as_owner("SELECT weir.create_stream('$name', " . WeirTest::literal($query)
		  . join('', map { ", $_ => " . WeirTest::literal($args{$_}) } sort keys %args)
		  . ')');
}
WeirTest::wait_for($node, sort keys %cases);

sub filled_in
{
	my ($name, $sql) = @_;
	my ($target, $state) = split /\|/, WeirTest::sql($node,
		"SELECT target, state FROM weir_internal.stream WHERE name = '$name'");
	$state = '' unless defined $state;
	return $sql =~ s/%t/$target/gr =~ s/%s/$state/gr;
}

##
## Broken while nothing comes
##

as_owner(filled_in($_, $cases{$_}[2])) for sort keys %cases;
for my $name (grep { !/^skipped/ } sort keys %cases)
{
	WeirTest::sql_becomes($node,
		"SELECT state = 'failed', last_error_sqlstate || ' ' || last_error FROM weir.stat_stream WHERE stream = '$name'",
		qr/^t\|@{[ $cases{$name}[3] =~ s{^\(\?\^:\^}{(?^:}r ]}/,
		"$name: fails with the reason");
}

##
## What triggers skip shows when rows come; a trigger that skips none is fine
##

WeirTest::sql($node, 'INSERT INTO keys SELECT max(k) FROM no_key; GRANT SELECT ON keys TO owner');
WeirTest::sql($node, "SET ROLE owner; SELECT weir.create_stream('touched', " . WeirTest::literal($groups) . ");
	CREATE TRIGGER t BEFORE INSERT OR UPDATE ON touched FOR EACH ROW EXECUTE FUNCTION nothing()");
produce(300);
for my $name (grep { /^skipped/ } sort keys %cases)
{
	WeirTest::sql_becomes($node,
		"SELECT state = 'failed', last_error_sqlstate || ' ' || last_error FROM weir.stat_stream WHERE stream = '$name'",
		qr/^t\|@{[ $cases{$name}[3] =~ s{^\(\?\^:\^}{(?^:}r ]}/,
		"$name: fails with the reason");
}
WeirTest::wait_for($node, 'touched');

##
## Resumed without a repair it fails again, and has written nothing
##

WeirTest::sql($node, "SELECT weir.resume('instead'), weir.resume('hidden')");
produce(300);
WeirTest::sql_becomes($node,
	"SELECT string_agg(state, ' ') FROM weir.stat_stream WHERE stream IN ('instead', 'hidden')",
	'failed failed', 'resumed without a repair');

##
## Repaired
##

for my $name (sort keys %cases)
{
	my ($query, undef, undef, undef, $repair) = @{ $cases{$name} };
	next unless defined $repair;
	as_owner(filled_in($name, $repair));
	WeirTest::sql($node, "SELECT weir.resume('$name')");
}
WeirTest::load_events($node, 'stored', \@payloads);
for my $name (grep { defined $cases{$_}[4] } sort keys %cases)
{
	my $query = $cases{$name}[0];
	WeirTest::wait_for($node, $name);
	my $list = $query eq $groups ? 'k, n, s' : '*';
	WeirTest::compare($node,
		filled_in($name, "SELECT $list FROM %t"),
		$query =~ s/FROM events/FROM stored/r, "$name: repaired, exact");
}

##
## What a crash would empty is refused at once
##

for my $sql ('ALTER TABLE no_key SET UNLOGGED',
	filled_in('no_key', 'ALTER TABLE %s SET UNLOGGED'),
	'ALTER TABLE parts_1 SET UNLOGGED',
	'ALTER TABLE parts_2_a SET UNLOGGED',
	q{CREATE UNLOGGED TABLE parts_2_b PARTITION OF parts_2 FOR VALUES IN ('b')},
	q{CREATE UNLOGGED TABLE new_part (LIKE parts_2); ALTER TABLE parts_2 ATTACH PARTITION new_part FOR VALUES IN ('b')},
	q{DO $$BEGIN ALTER TABLE no_key SET UNLOGGED; END$$},
	q{CREATE FOREIGN DATA WRAPPER nil; CREATE SERVER nil FOREIGN DATA WRAPPER nil; CREATE FOREIGN TABLE parts_2_f PARTITION OF parts_2 FOR VALUES IN ('b') SERVER nil})
{
	like(WeirTest::sql_error($node, "BEGIN; $sql"),
		qr/^0A000.*as durable as.*HINT:.*drop_stream/s, $sql =~ s/\n.*//sr);
}
is(WeirTest::sql($node, 'CREATE TABLE free (a int); ALTER TABLE free SET UNLOGGED; SELECT 1'),
	'1', 'a table of no stream may');

##
## Creation refuses the same
##

for my $name (qw(instead hidden deferred_unique parent no_key))
{
	WeirTest::sql($node, "SELECT weir.drop_stream('$name')");
	as_owner(
		$name eq 'no_key' ? 'DROP INDEX no_key_k_idx'
		: $name eq 'hidden' ? 'ALTER POLICY p ON hidden USING (n < 3)'
		: $cases{$name}[2] =~ s/%t/$name/gr);
	my $error = WeirTest::sql_error($node,
		"SET ROLE owner; SELECT weir.create_stream('$name', " . WeirTest::literal($groups) . ')');
	$error =~ s/^(\w{5}): /$1 /;
	like($error, $cases{$name}[3], "$name: refused at creation");
}

##
## Nothing temporary
##

my $stream = 'SELECT weir.create_stream(';
for my $case (
	[ 'CREATE TEMP TABLE tt (id bigint, k text)', "'tt', '$rows'", 'a new name' ],
	[ 'CREATE TEMP TABLE keys (id bigint, k text)', "'x', '$rows', target => 'keys'", 'a name hidden' ],
	[ 'CREATE TEMP TABLE tt (id bigint, k text)', "'x', '$rows', target => 'pg_temp.tt'", 'pg_temp' ],
	[ '', "'x', '$rows', target => 'pg_temp.tt'", 'pg_temp that is none' ],
	[ 'SET search_path = pg_temp; CREATE TEMP TABLE z (a int)', q{'x', 'SELECT e.id FROM public.events e'}, 'created in pg_temp' ],
	[ 'CREATE FUNCTION pg_temp.f(int) RETURNS int IMMUTABLE LANGUAGE sql AS $$SELECT 1$$', q{'x', 'SELECT pg_temp.f(e.v) AS f FROM events e'}, 'function' ],
	[ 'CREATE FUNCTION pg_temp.f(int) RETURNS int IMMUTABLE LANGUAGE sql AS $$SELECT 1$$', q{'x', 'SELECT e.k, count(*) AS n FROM events e GROUP BY e.k HAVING sum(pg_temp.f(e.v)) > 0'}, 'function in HAVING' ],
	[ 'CREATE DOMAIN pg_temp.d AS int', q{'x', 'SELECT e.v::pg_temp.d AS d FROM events e'}, 'domain' ],
	[ 'CREATE TYPE pg_temp.t AS (a int)', q{'x', 'SELECT e.id FROM events e WHERE (row(e.v)::pg_temp.t).a > 0'}, 'type' ],
	[ 'CREATE FUNCTION pg_temp.s(int) RETURNS SETOF int IMMUTABLE LANGUAGE sql AS $$SELECT 1$$', q{'x', 'SELECT e.id, s FROM events e, pg_temp.s(e.v) s'}, 'function in FROM' ],
	[ 'CREATE TEMP TABLE dims (v int)', q{'x', 'SELECT e.id FROM events e JOIN dims d ON d.v = e.v'}, 'dimension' ],
	[ 'CREATE TEMP VIEW tv AS SELECT 1 AS v', q{'x', 'SELECT e.id FROM events e JOIN tv d ON d.v = e.v'}, 'view' ])
{
	my ($before, $args, $name) = @$case;
	like(WeirTest::sql_error($node, "SET client_min_messages = error; $before;\n$stream$args)"),
		qr/^(0A000|42P01|3F000): .*(temp|does not exist)/is, "temporary: $name");
}
is(WeirTest::sql($node, "SELECT count(*) FROM weir.streams WHERE stream IN ('x', 'tt')"),
	'0', 'and nothing is made');
WeirTest::sql($node, "CREATE TEMP TABLE k2 (id bigint); CREATE SCHEMA other;
	SELECT weir.create_stream('k2', '$rows', target => 'other.k2')");
WeirTest::wait_for($node, 'k2');
is(WeirTest::sql($node, 'SELECT count(*) FROM other.k2'), scalar @payloads,
	'with its schema there is no doubt');

$node->stop;
done_testing();
