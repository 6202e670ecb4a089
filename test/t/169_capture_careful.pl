# Types, operators and casts of users in every statement of a stream.
#
# Proves: streams whose keys and values are of types that are not
# PostgreSQL's, and whose targets' columns are reached by casts of users, go
# through all their statements, those for rows and groups that fail included,
# and are never taken to use something that was not meant.  The extension is
# not made in a schema in which somebody else has, or may put, something.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { rides => 1 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

sub sql { return WeirTest::sql($node, @_); }

# Each stream's target refuses a row or group, and takes its values by a cast.
my %query = (
	rows => 'SELECT id, c, m, p, m AS told FROM rides',
	keyed => 'SELECT c, m, p, l, id, m AS told FROM rides',
	running => 'SELECT c, p, l, count(*) AS id, max(m) AS m, min(c) AS least, max(m) AS told FROM rides GROUP BY c, p, l',
	on_change => "SELECT w.window_start, c, p, l, count(*) AS id, max(m) AS m, max(m) AS told
		FROM rides, weir.hop(at, '1 minute', '30 seconds') w GROUP BY 1, 2, 3, 4 HAVING count(*) > 0",
	on_close => "SELECT w.window_start, c, p, l, count(*) AS id, max(m) AS m, max(m) AS told
		FROM rides, weir.tumble(at, '1 minute') w GROUP BY 1, 2, 3, 4");
my %key = (keyed => '(c, m, p, l)', running => '(c, p, l)',
	on_change => '(window_start, c, p, l)', on_close => '(window_start, c, p, l)');
my $columns = 'id int, c citext, m mood, p pair, l ltree, at timestamptz';

sql(<<"SQL");
CREATE EXTENSION citext;
CREATE EXTENSION ltree;
CREATE TYPE mood AS ENUM ('sad', 'well', 'happy');
CREATE TYPE pair AS (a int, b citext);
CREATE TYPE told AS (t text);
CREATE FUNCTION tell(mood) RETURNS told IMMUTABLE LANGUAGE sql AS 'SELECT ROW(\$1::text)::told';
CREATE CAST (mood AS told) WITH FUNCTION tell(mood) AS ASSIGNMENT;
SELECT weir.create_source('rides', 'kafka', 'rides', '$columns', event_time => 'at');
SQL
for my $name (sort keys %query)
{
	my $window = $name =~ /^on_/ ? 'window_start timestamptz,' : '';
	my $unique = $key{$name} ? ", UNIQUE NULLS NOT DISTINCT $key{$name}" : '';
	my $options = $name eq 'keyed' ? q(, options => '{"key": ["c", "m", "p", "l"]}')
	  : $name eq 'on_close' ? ", emit => 'on_close'" : '';
	sql(<<"SQL");
CREATE TABLE $name ($window id int, c citext CHECK (c <> 'bad'), m mood, p pair, l ltree, least citext, told told $unique);
SELECT weir.create_stream('$name', \$\$ $query{$name} \$\$$options);
SQL
}
my @names = sort keys %query;
my @rides = map
{
	sprintf('{"id":%d,"c":"%s","m":"%s","p":{"a":%d,"b":"%s"},"l":"a.b%d","at":"2024-01-01T00:%02d:00Z"}',
		$_, $_ % 7 == 3 ? 'BAD' : $_ % 2 ? 'Good' : 'gOOd', $_ % 3 ? 'well' : 'happy',
		$_ % 2, $_ % 4 ? 'X' : 'x', $_ % 2, $_ / 20)
} 0 .. 99;
for my $from (0, 50)
{
	$broker->produce('rides', [ @rides[ $from .. $from + 49 ] ]);
	WeirTest::wait_for($node, @names);
}
WeirTest::close_windows($node, 'rides', @names);
sql('CREATE TABLE stored (' . $columns . ')');
WeirTest::load_events($node, 'stored', \@rides, columns => $columns);
sql("DELETE FROM stored WHERE c = 'bad'");
my %columns = map { $_ => $query{$_} =~ /SELECT (.*?)\s+FROM/s ? $1 : undef } @names;
for my $name (@names)
{
	my $query = $query{$name};
	$query =~ s/FROM rides/FROM stored/;
	$query = 'SELECT DISTINCT ON (c, m, p, l) c, m, p, l, id, m AS told FROM stored ORDER BY c, m, p, l, id DESC'
	  if $name eq 'keyed';
	my $what = 'lower(c::text) AS c, m::text AS m, lower(p::text) AS p, '
	  . ($name eq 'rows' ? 'NULL' : 'l::text') . ' AS l, id::int AS id, ';
	WeirTest::compare($node, "SELECT $what told::text FROM $name",
		"SELECT $what '(' || told::text || ')' FROM ($query) q", $name);
}
is(sql("SELECT string_agg(DISTINCT reason || ' ' || sqlstate, ', ') FROM weir.dead_letter WHERE stream = 'rows'"),
	'target 23514', 'rows that the target refuses are dead letters');
is(sql("SELECT count(*) FROM weir.stat_stream WHERE state <> 'running'"), 0, 'all run');
sql("SELECT weir.seek('$_', 'earliest')") for grep { $_ ne 'rows' } @names;
WeirTest::wait_for($node, @names);
sql("SELECT weir.pause('$_'), weir.resume('$_')") for @names;
WeirTest::wait_for($node, @names);
is(sql("SELECT count(*) FROM weir.stat_stream WHERE state <> 'running'"), 0, 'all run after a seek, and a new start');

##
## Before there is the extension
##

sql('CREATE ROLE mallory');
my %unclean = (
	function => 'CREATE SCHEMA weir; CREATE FUNCTION weir.f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$',
	operator => 'CREATE SCHEMA weir; CREATE OPERATOR weir.= (FUNCTION = pg_catalog.int4eq, LEFTARG = int, RIGHTARG = int)',
	owner => 'CREATE SCHEMA weir AUTHORIZATION mallory',
	grant => 'CREATE SCHEMA weir; GRANT CREATE ON SCHEMA weir TO mallory');
for my $what (sort keys %unclean)
{
	sql("CREATE DATABASE unclean_$what TEMPLATE template0");
	WeirTest::sql($node, $unclean{$what}, dbname => "unclean_$what");
	like(WeirTest::sql_error($node, 'CREATE EXTENSION weir', dbname => "unclean_$what"),
		qr/^55000: schema "weir" is not empty, or not a superuser's alone/, "a schema that others had ($what) is refused");
}
sql('CREATE DATABASE clean TEMPLATE template0');
WeirTest::sql($node, 'CREATE SCHEMA weir; CREATE EXTENSION weir; DROP EXTENSION weir; CREATE EXTENSION weir', dbname => 'clean');
pass('one that is empty is not');

$node->stop;
done_testing();
