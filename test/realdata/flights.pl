# Data that nobody here made up: the 336,776 departures of New York in 2013.
#
# Proves: the departures, in the order of their scheduled hours and shuffled
# within each hour (by a fixed rule), played through a real Kafka, joined
# with airlines and airports, give the same rows as the same queries over the
# loaded file: delays per carrier and hour, traffic per destination in
# overlapping windows, totals per carrier, every single departure, and the
# cancelled ones, whose delays are NULL.  None is late, lost, or doubled, none
# is a dead letter.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use IO::Uncompress::Unzip qw(unzip $UnzipError);
use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $data = $ENV{WEIR_REALDATA} || "$FindBin::RealBin/data";
die "there is no data; run test/realdata/fetch first\n"
  unless -e "$data/flights.csv.zip";

my $partitions = 4;
my $kafka = WeirBroker->kafka;
$kafka->create_topic('flights', $partitions);
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $kafka);

##
## The file, as it is
##

my $csv = PostgreSQL::Test::Utils::tempdir() . '/flights.csv';
unzip("$data/flights.csv.zip" => $csv) or die "could not unzip: $UnzipError\n";
WeirTest::sql($node, <<SQL);
CREATE TABLE airlines (carrier text PRIMARY KEY, name text NOT NULL);
CREATE TABLE airports (faa text PRIMARY KEY, name text NOT NULL, lat float8,
	lon float8, alt int, tz int, dst text, tzone text);
CREATE TABLE file (year int, month int, day int, dep_time int,
	sched_dep_time int, dep_delay int, arr_time int, sched_arr_time int,
	arr_delay int, carrier text, flight int, tailnum text, origin text,
	dest text, air_time int, distance int, hour int, minute int,
	time_hour timestamptz);
\\copy airlines FROM '$data/airlines.csv' WITH (FORMAT csv, HEADER)
\\copy airports FROM '$data/airports.csv' WITH (FORMAT csv, HEADER)
\\copy file FROM '$csv' WITH (FORMAT csv, HEADER, NULL 'NA')
CREATE TABLE loaded AS
SELECT time_hour + minute * interval '1 minute' AS at, carrier, flight,
	tailnum, origin, dest, dep_delay, arr_delay, distance FROM file;
ANALYZE;
SQL
is( WeirTest::sql($node,
		'SELECT count(*), count(*) FILTER (WHERE dep_delay IS NULL) FROM loaded'
	),
	'336776|8255',
	'departures, and cancelled ones');

##
## Through Kafka
##

# The columns of CREATE FOREIGN TABLE; the last ones have other names in the
# message, and one is left out when it is not known.
WeirTest::create_source(
	$node,
	'flights',
	columns => <<'SQL',
at timestamptz,
carrier text NOT NULL,
flight int,
tailnum text,
origin text OPTIONS (path '$.route.from'),
dest text OPTIONS (path '$.route.to'),
dep_delay int OPTIONS (path '$.delay.departure'),
arr_delay int OPTIONS (path '$.delay.arrival'),
distance int CHECK (distance > 0)
SQL
	event_time => 'at',
	max_out_of_orderness => '1 hour');

my %query = (
	delays => <<'SQL',
SELECT w.window_start, w.window_end, a.name AS carrier, count(*) AS departures,
	count(f.dep_delay) AS departed, avg(f.dep_delay) AS avg_delay,
	max(f.dep_delay) AS max_delay, stddev(f.dep_delay) AS stddev_delay,
	count(*) FILTER (WHERE f.dep_delay > 15) AS delayed
FROM flights f CROSS JOIN weir.tumble(f.at, '1 hour') w
	JOIN airlines a ON a.carrier = f.carrier
GROUP BY w.window_start, w.window_end, a.name
SQL
	destinations => <<'SQL',
SELECT w.window_start, w.window_end, o.name AS origin,
	coalesce(d.name, f.dest) AS destination, count(*) AS departures,
	sum(f.distance) AS distance, min(f.arr_delay) AS min_delay,
	bool_or(f.dep_delay IS NULL) AS any_cancelled
FROM flights f CROSS JOIN weir.hop(f.at, '3 hours', '1 hour') w
	JOIN airports o ON o.faa = f.origin
	LEFT JOIN airports d ON d.faa = f.dest
GROUP BY w.window_start, w.window_end, o.name, coalesce(d.name, f.dest)
SQL
	days => <<'SQL',
SELECT w.window_start, f.origin, count(*) AS departures,
	round(avg(f.dep_delay), 2) AS avg_delay
FROM flights f CROSS JOIN
	weir.tumble(f.at, '1 day', timezone => 'America/New_York') w
GROUP BY w.window_start, f.origin HAVING avg(f.dep_delay) > 20
SQL
	carriers => <<'SQL',
SELECT f.carrier, count(*) AS departures, avg(f.arr_delay) AS avg_delay,
	variance(f.arr_delay) AS variance_delay, min(f.at) AS first_at,
	max(f.at) AS last_at
FROM flights f GROUP BY f.carrier
SQL
	departures => <<'SQL',
SELECT f.at, f.carrier, f.flight, f.tailnum, f.origin, f.dest, f.dep_delay,
	f.arr_delay, f.distance
FROM flights f
SQL
	cancelled => <<'SQL');
SELECT f.at, f.carrier, f.flight, f.tailnum, f.origin, f.dest
FROM flights f WHERE f.dep_delay IS NULL
SQL
my @streams = sort keys %query;
WeirTest::create_stream($node, $_, $query{$_},
	$_ eq 'destinations' ? (emit => 'on_close') : ())
  for @streams;

# Out of order by less than an hour, the same way each time.
my $lines = WeirTest::sql($node, <<SQL);
COPY (
	SELECT n % $partitions, json_strip_nulls(json_build_object(
		'at', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
		'carrier', carrier, 'flight', flight, 'tailnum', tailnum,
		'route', json_build_object('from', origin, 'to', dest),
		'delay', json_build_object('departure', dep_delay,
			'arrival', arr_delay), 'distance', distance))
	FROM (SELECT *, row_number() OVER (ORDER BY date_trunc('hour', at),
			md5('weir' || l::text)) AS n
		FROM loaded l) s
	ORDER BY n) TO STDOUT
SQL
$kafka->produce('flights', $lines, partition_field => 1, codec => 'lz4');
my ($first) = split /\n/, $lines;
note($first);

WeirTest::wait_for($node, @streams);
WeirTest::close_windows($node, 'flights', @streams);

for my $name (@streams)
{
	WeirTest::compare($node, "TABLE $name",
		$query{$name} =~ s/FROM flights/FROM loaded/r, $name);
}
is( WeirTest::sql($node, 'SELECT sum(departures) FROM delays'),
	'336776', 'every departure is in a window');
is( WeirTest::sql($node,
		'SELECT sum(rows_late), sum(rows_dead) FROM weir.stat_stream'),
	'0|0',
	'none was late');
is(WeirTest::sql($node, 'SELECT count(*) FROM weir.dead_letter'),
	'0', 'no dead letters');

$node->stop;
$kafka->stop;
done_testing();
