#!/usr/bin/perl
#-------------------------------------------------------------------------
#
# all.pl
#	  Runs suites side by side and counts their tests; see test/run.
#
#	all.pl --tmp DIRECTORY [--jobs N] [SUITE]...
#
# DIRECTORY has the tree (tree/), and takes the build (build/), a private
# installation (root/) and for each suite a directory with its output, its
# logs and its servers (suite.out, suite.err, suite/).
#
# A suite is a Perl script that writes TAP.  First are those that need no
# server: style, and build, which all the others wait for.  A suite that
# fails in any other way than by a test (a bad exit, a plan that is not met,
# no test at all, out of time) counts as one failed test more.
#
#-------------------------------------------------------------------------

use strict;
use warnings;

use File::Basename qw(basename);
use File::Path qw(make_path);
use Getopt::Long;
use POSIX qw(setpgid WNOHANG);
use TAP::Parser;
use Time::HiRes qw(time);

# seconds that a suite may take
my $time_limit = $ENV{WEIR_SUITE_TIMEOUT} || 900;

my $tmp;
my $jobs = 0;
GetOptions('tmp=s' => \$tmp, 'jobs=i' => \$jobs) && defined $tmp
  or die "usage: $0 --tmp DIRECTORY [--jobs N] [SUITE]...\n";
my @wanted = @ARGV;

my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
my $tree = "$tmp/tree";

# They mostly wait, so a small machine runs as many as a bigger one.
$jobs ||= 4;

##
## What there is to run
##

my @suites;

sub add_suite
{
	my ($name, $script, @needs) = @_;
	push @suites, { name => $name, script => $script, needs => \@needs };
	return;
}

add_suite('style', "$tree/test/suite/style.pl");
add_suite('build', "$tree/test/suite/build.pl");
add_suite('regress', "$tree/test/suite/regress.pl", 'build');
add_suite('pgtap', "$tree/test/suite/pgtap.pl", 'build');
add_suite('realdata', "$tree/test/realdata/flights.pl", 'build');
for my $script (sort glob("$tree/test/t/*.pl"))
{
	add_suite(basename($script, '.pl'), $script, 'build');
}

# Some can do without the real Kafka, and say so by asking for it.
if ($ENV{WEIR_NO_JAVA})
{
	@suites = grep {
		my $text = slurp($_->{script});
		$text !~ /WeirBroker->kafka\b/ || $text =~ /kafka_missing/
	} @suites;
}

if (@wanted)
{
	my %selected;
	for my $wanted (@wanted)
	{
		$wanted =~ s{^.*/|\.pl$}{}g;
		my $end = $wanted =~ /^\d+$/ ? '' : '(_|$)';
		my @found = grep { $_->{name} =~ /^\Q$wanted\E$end/ } @suites;
		die "there is no suite \"$wanted\"\n" unless @found;
		$selected{$_->{name}} = 1 for @found;
		$selected{$_} = 1 for map { @{ $_->{needs} } } @found;
	}
	@suites = grep { $selected{ $_->{name} } } @suites;
}

##
## Their environment
##

sub pg_config
{
	my ($what) = @_;
	my $value = `$pg_config --$what`;
	die "could not run $pg_config\n" if $? != 0;
	chomp $value;
	return $value;
}

my $pgxs_dir = pg_config('pgxs') =~ s{/makefiles/pgxs\.mk$}{}r;

# Debian has the modules and pg_regress in one version of PostgreSQL only;
# they can test others.
my $test_dir = $ENV{WEIR_PGXS_TEST_DIR} || "$pgxs_dir/test";

$ENV{PG_CONFIG} = $pg_config;
$ENV{WEIR_TREE} = $tree;
$ENV{WEIR_BUILD} = "$tmp/build";
$ENV{WEIR_ROOT} = "$tmp/root";
$ENV{WEIR_SUPPORT_BUILD} = "$tmp/build/test/support/build";
$ENV{PATH} = "$tmp/root" . pg_config('bindir') . ":$ENV{PATH}";
$ENV{PERL5LIB} = join ':', "$tree/test/support", "$test_dir/perl",
  grep { defined } $ENV{PERL5LIB};
$ENV{PG_REGRESS} = "$test_dir/regress/pg_regress";
$ENV{PG_TEST_PORT_DIR} = "$tmp/portlock";
$ENV{TMPDIR} = "$tmp/t";
$ENV{LC_ALL} = 'C.UTF-8';
delete @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS)};
delete @ENV{ grep { /^PG(?!_)/ } keys %ENV };
make_path($ENV{TMPDIR}, $ENV{PG_TEST_PORT_DIR});

##
## One suite
##

my %running;    # by process id
my %result;     # by name

sub start_suite
{
	my ($suite) = @_;
	my $name = $suite->{name};
	make_path("$tmp/$name.d");
	my $pid = fork();
	die "could not fork: $!\n" unless defined $pid;
	if ($pid == 0)
	{
		setpgid(0, 0);
		$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
		$ENV{TESTDIR} = "$tmp/$name.d";
		chdir "$tmp/$name.d" or die "could not change directory: $!\n";
		open STDOUT, '>', "$tmp/$name.out" or die "could not write: $!\n";
		open STDERR, '>', "$tmp/$name.err" or die "could not write: $!\n";
		exec $^X, $suite->{script} or die "could not run perl: $!\n";
	}
	setpgid($pid, $pid);
	$suite->{pid} = $pid;
	$suite->{started} = time;
	$running{$pid} = $suite;
	return;
}

sub slurp
{
	my ($path) = @_;
	open my $fh, '<:raw', $path or return '';
	local $/;
	my $text = <$fh>;
	return defined $text ? $text : '';
}

# Counts the tests of a suite that has ended, and says how it went.
sub finish_suite
{
	my ($suite, $status) = @_;
	my $name = $suite->{name};
	my ($passed, $failed, @complaints) = (0, 0);

	# what it may have left running
	kill 'KILL', -$suite->{pid};

	# the parser takes nothing for a mistake of its caller
	my $tap = slurp("$tmp/$name.out");
	my $parser = TAP::Parser->new({ tap => $tap eq '' ? "\n" : $tap });
	while (my $line = $parser->next)
	{
		next unless $line->is_test;
		if ($line->is_ok)
		{
			$passed++;
		}
		else
		{
			$failed++;
			push @complaints, $line->as_string;
		}
	}
	my @errors;
	if ($suite->{timed_out})
	{
		push @errors, "stopped after $time_limit seconds";
	}
	elsif ($status != 0 && $failed == 0)
	{
		push @errors, "ended with status $status";
	}
	push @errors, 'produced no test' if $passed + $failed == 0;
	push @errors, $parser->parse_errors
	  if !@errors && $failed == 0 && $parser->parse_errors;
	$failed++ if @errors;

	$result{$name} = { passed => $passed, failed => $failed };
	printf "%-28s %5d passed %3d failed  %6.1f s\n", $name, $passed, $failed,
	  time - $suite->{started};
	if ($failed)
	{
		print map { "    $_\n" } @complaints, map { "$name $_" } @errors;
		show_tail($name, $_, 40)
		  for "$tmp/$name.err", glob("$tmp/$name.d/tmp_check/log/regress_log_*");
	}
	return;
}

sub show_tail
{
	my ($name, $path, $n) = @_;
	my @lines = split /\n/, slurp($path);
	return unless @lines;
	splice @lines, 0, -$n if @lines > $n;
	print "    --- the end of ", basename($path), "\n";
	print map { "    $_\n" } @lines;
	return;
}

sub stop_all
{
	my ($signal) = @_;
	kill 'TERM', -$_ for keys %running;
	select undef, undef, undef, 2;
	kill 'KILL', -$_ for keys %running;
	print "interrupted\n";
	exit 1;
}

##
## All of them
##

$| = 1;
$SIG{$_} = \&stop_all for qw(INT TERM HUP);

my @waiting = @suites;
my $began = time;
while (@waiting || %running)
{
	my @later;
	for my $suite (@waiting)
	{
		my @needs = grep { !$result{$_} } @{ $suite->{needs} };
		if (!@needs && grep { $result{$_}{failed} } @{ $suite->{needs} })
		{
			$result{ $suite->{name} } = { passed => 0, failed => 1 };
			printf "%-28s did not run: @{$suite->{needs}} failed\n",
			  $suite->{name};
		}
		elsif (@needs || keys %running >= $jobs)
		{
			push @later, $suite;
		}
		else
		{
			start_suite($suite);
		}
	}
	@waiting = @later;

	while ((my $pid = waitpid(-1, WNOHANG)) > 0)
	{
		my $status = $?;
		my $suite = delete $running{$pid} or next;
		finish_suite($suite, $status);
	}
	for my $suite (values %running)
	{
		next if time - $suite->{started} < $time_limit;
		$suite->{timed_out} = 1;
		kill 'KILL', -$suite->{pid};
	}
	select undef, undef, undef, 0.05 if %running;
}

my ($passed, $failed) = (0, 0);
for my $result (values %result)
{
	$passed += $result->{passed};
	$failed += $result->{failed};
}
printf "%d suites in %d s\n", scalar keys %result, time - $began;
print "logs are in $tmp\n" if $failed;
print "$passed passed, $failed failed\n";
exit($failed == 0 && $passed > 0 ? 0 : 1);
