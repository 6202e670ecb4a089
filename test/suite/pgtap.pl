# The pgTAP files of test/pgtap, each in a new database of one server.
#
# A file creates the extensions it needs (weir, pgtap), plans and tests; it
# is run by psql, which ends at the first error outside of a test.

use strict;
use warnings;

use File::Basename qw(basename);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TAP::Parser;
use Test::More;
use WeirTest;

my $node = WeirTest::start_node('pgtap', extension => 0);
my @files = glob("$ENV{WEIR_TREE}/test/pgtap/*.sql");

for my $file (@files)
{
	my $name = basename($file, '.sql');
	my $dbname = "pgtap_$name";
	$node->safe_psql('postgres',
		"CREATE DATABASE $dbname TEMPLATE template0");
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run(
		[
			'psql', '-X', '-q', '-A', '-t', '-P', 'pager=off',
			'-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($dbname),
			'-f', $file
		],
		'>' => \$out,
		'2>' => \$err);

	my $parser = TAP::Parser->new({ tap => $out eq '' ? "\n" : $out });
	my $n = 0;
	while (my $line = $parser->next)
	{
		next unless $line->is_test;
		$n++;
		ok($line->is_ok, "$name: " . ($line->description =~ s/^- //r));
	}
	my @errors = $parser->parse_errors;
	push @errors, 'no test' unless $n;
	push @errors, 'psql failed' unless $ok;
	is("@errors", '', "$name is complete");
	diag($out) if @errors || $parser->has_problems;
	diag($err) if $err ne '' && (@errors || $parser->has_problems);
	$node->safe_psql('postgres', "DROP DATABASE $dbname WITH (FORCE)");
}
$node->stop;

done_testing();
