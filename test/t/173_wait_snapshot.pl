# Waiting holds back nobody.
#
# Proves: a statement that only waits for a stream does not keep row versions
# from being removed that are made while it waits; one that also reads by its
# snapshot does, and reads what it should.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { t => 1 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

sub sql
{
	my ($sql) = @_;
	return WeirTest::sql($node, $sql);
}

WeirTest::create_source($node, 't', columns => 'id int');
WeirTest::create_stream($node, 'rows', 'SELECT t.id FROM t');
WeirTest::wait_for($node, 'rows');
sql('CREATE TABLE counted AS SELECT 1 AS n');

# the stream cannot write
my $blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN; LOCK TABLE rows IN SHARE MODE');
$broker->produce('t', '{"id":1}', partition => 0);

my %statement = (
	waits => q(SELECT weir.wait_for('rows', '10 minutes')),
	reads => q(SELECT weir.wait_for('rows', '10 minutes'), (SELECT sum(n) FROM counted)));
my %session;
my %pid;
for my $name (sort keys %statement)
{
	$session{$name} = $node->background_psql('postgres');
	$pid{$name} = $session{$name}->query_safe('SELECT pg_backend_pid()');
	$session{$name}->query_until(qr/started/, "\\echo started\n$statement{$name};\n\\echo ended\n");
}
WeirTest::sql_becomes($node,
	"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query ~ '^SELECT weir.wait_for'", 2,
	'two sessions wait');

# the version that is there is of the past when both are through
my $newest = sql('UPDATE counted SET n = n + 1; SELECT txid_current()');
for my $name (sort keys %statement)
{
	my $held = "SELECT coalesce(backend_xmin::text::bigint <= $newest, false) FROM pg_stat_activity WHERE pid = $pid{$name}";
	WeirTest::sql_becomes($node, $held, $name eq 'reads' ? 't' : 'f', "one that $name");
}
$blocker->query_safe('COMMIT');
$blocker->quit;
for my $name (sort keys %statement)
{
	my $out = $session{$name}->query_until(qr/ended/, '');
	unlike($out, qr/ERROR/, "one that $name goes on");
	is($out =~ s/.*\|(\d+).*/$1/sr, 1, 'and reads what was there') if $name eq 'reads';
	$session{$name}->quit;
}
is(sql('SELECT count(*) FROM rows'), 1, 'the stream has the row');

$node->stop;
done_testing();
