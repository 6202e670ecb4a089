# What can be said of the sources without a compiler.
#
# Proves: no whitespace errors (git diff --check); the C files are laid out as
# pg_bsd_indent does it; includes go one way
# (librdkafka behind kafka.h; ingest and stream meet in tables and shared
# memory only; simdjson in one file); spelling.

use strict;
use warnings;

use File::Basename qw(basename);
use Test::More;

my $tree = $ENV{WEIR_TREE};
chdir $tree or die "could not change directory: $!\n";

sub found
{
	my ($command, $name) = @_;
	my $out = `$command 2>&1`;
	is($out, '', $name);
	return;
}

# lines of files that match
sub lines
{
	my ($pattern, @files) = @_;
	my @found;
	for my $file (@files)
	{
		open my $fh, '<', $file or die "could not open $file: $!\n";
		while (my $line = <$fh>)
		{
			push @found, "$file:$.: $line" if $line =~ $pattern;
		}
	}
	return join '', @found;
}

# The tree is a copy without history: make it one commit that is not made.
my $git = "git --git-dir='$tree.git' --work-tree='$tree'";
`$git init -q && $git add -A -f 2>&1`;
is($?, 0, 'files listed');
my $empty = `$git hash-object -t tree /dev/null`;
chomp $empty;
found("$git diff --cached --check $empty", 'whitespace');

found('bash test/indent --check', 'layout of the C files');

my @sources = glob('src/*.c src/*.h src/*.cpp');
ok(@sources > 10, 'there are sources');
is( lines(
		qr/#include\s*<librdkafka/,
		grep { basename($_) !~ /^kafka(_\w+)?\.[ch]$/ } @sources),
	'',
	'only the Kafka client includes rdkafka.h');
is( lines(
		qr/#include\s*[<"]simdjson/,
		grep { basename($_) ne 'ingest_decode_json.cpp' } @sources),
	'',
	'only ingest_decode_json.cpp includes simdjson.h');
is( lines(
		qr/#include\s*"stream/,
		grep { basename($_) =~ /^ingest/ } @sources),
	'',
	'ingest does not include stream');
is( lines(
		qr/#include\s*"ingest/,
		grep { basename($_) =~ /^stream/ } @sources),
	'',
	'stream does not include ingest');
is( lines(
		qr/#include\s*"(?:api|catalog|ddl|dead|fdw|ingest|source|stream|worker)/,
		glob('src/kafka.h src/kafka_private.h')),
	'',
	'the Kafka client stands by itself');
is( lines(
		qr/#include\s*"(?:api|worker|ingest|stream|fdw)/,
		glob('src/catalog*.[ch] src/compat.h src/errors.[ch]')),
	'',
	'the catalog does not look up');

found("codespell .", 'spelling');

done_testing();
