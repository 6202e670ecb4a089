# The regression tests of sql/ and expected/, as "make installcheck" runs
# them against any running server; one test each.

use strict;
use warnings;

use File::Basename qw(basename);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $build = $ENV{WEIR_BUILD};
my $node = WeirTest::start_node('regress', extension => 0);
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;

# 15 writes "test name ... ok", later versions "ok 1 - name"
my $out = `make -C '$build' installcheck PG_CONFIG='$ENV{PG_CONFIG}' 2>&1`;
my $status = $?;
my %seen;
for my $line (split /\n/, $out)
{
	my ($name, $ok);
	if ($line =~ /^(?:test|\s+)\s*(\w+)\s+\.\.\. (ok|FAILED)/)
	{
		($name, $ok) = ($1, $2 eq 'ok');
	}
	elsif ($line =~ /^((?:not )?ok) \d+\s+[-+] (\w+)/)
	{
		($name, $ok) = ($2, $1 eq 'ok');
	}
	next unless defined $name;
	$seen{$name} = 1;
	ok($ok, $name);
}
for my $file (glob("$build/sql/*.sql"))
{
	my $name = basename($file, '.sql');
	fail("$name did not run") unless $seen{$name};
}
if ($status != 0)
{
	my $diffs = "$build/regression.diffs";
	diag($out);
	diag(-e $diffs ? PostgreSQL::Test::Utils::slurp_file($diffs) : '');
	is($status, 0, 'make installcheck');
}
$node->stop;

done_testing();
