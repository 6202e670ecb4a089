# Builds weir without a warning, and what the tests need; installs it.
#
# Proves: the extension, the test module and the programs of test/support
# build with -Wall -Wextra -Werror; "make install" puts the extension where
# a server of that installation loads it, with no symbol missing.

use strict;
use warnings;

use File::Basename qw(basename);
use File::Path qw(make_path);
use Test::More;

my ($tree, $build, $root) = @ENV{qw(WEIR_TREE WEIR_BUILD WEIR_ROOT)};
my $pg_config = $ENV{PG_CONFIG};

sub output
{
	my ($command) = @_;
	my $out = `$command 2>&1`;
	return ($? == 0, $out);
}

sub works
{
	my ($command, $name) = @_;
	my ($ok, $out) = output($command);
	ok($ok, $name) or diag("$command\n$out");
	return $ok;
}

# A private copy of the installation: a server finds its files relative to
# its own program.  WEIR_INSTALLATION names a directory that has all of it.
my @dirs;
for my $what (qw(bindir pkglibdir sharedir))
{
	my ($ok, $dir) = output("$pg_config --$what");
	chomp $dir;
	die "could not run $pg_config: $dir\n" unless $ok;
	push @dirs, $dir;
}
@dirs = ($ENV{WEIR_INSTALLATION}) if $ENV{WEIR_INSTALLATION};
for my $dir (@dirs)
{
	next if -e "$root$dir";
	make_path("$root$dir");
	works("cp -a '$dir/.' '$root$dir/'", 'a copy of ' . basename($dir));
}
my $lib = `$pg_config --pkglibdir`;
my $share = `$pg_config --sharedir`;
chomp($lib, $share);
unlink "$root$lib/weir.so", glob("$root$share/extension/weir*");

works("cp -a '$tree' '$build'", 'a copy of the tree');
my $processors = `getconf _NPROCESSORS_ONLN` + 0 || 2;
my $make = "make -s -j$processors -C '$build' PG_CONFIG='$pg_config'";
my @c_flags = ("with_llvm=no", "DESTDIR='$root'");

works("$make @c_flags WEIR_CFLAGS=-Werror", 'weir builds without a warning')
  and works("$make @c_flags install", 'make install')
  or BAIL_OUT('weir cannot be tested');

my $server = `$pg_config --bindir`;
chomp $server;
my ($ok, $missing) = output(
	"LD_BIND_NOW=1 ldd -r '$root$lib/weir.so' | grep 'undefined symbol' | "
	  . "awk '{print \$3}' | sort -u");
my ($ok2, $defined) =
  output("nm -D --defined-only '$root$server/postgres' | awk '{print \$3}'");
my %defined = map { s/@.*//r => 1 } split /\n/, $defined;
is( join(' ',
		grep { !$defined{$_} } map { s/@.*//r =~ s/\W//gr } split /\n/,
		$missing),
	'',
	'the library misses no symbol');

works("make -s -j$processors -C '$build/test/support' "
	  . "CFLAGS='-O2 -g -Werror'",
	'brokers, producers and generators');
for my $module (glob("$build/test/modules/*"))
{
	my ($name) = $module =~ m{([^/]+)$};
	works(
		"make -s -C '$module' PG_CONFIG='$pg_config' @c_flags "
		  . "COPT=-Werror all install",
		"test module $name");
}

done_testing();
