# README.md and ARCHITECTURE.md say what is true.
#
# Proves: the five-minute tour works, statement by statement, and gives what
# it shows; every function, view, column and setting of the extension stands
# in the README, and the settings' defaults are right (those that tests leave
# alone); ARCHITECTURE.md has a charter for each file of src, and for no other.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use Cwd qw(abs_path);
use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $top = abs_path("$FindBin::RealBin/../..");
my $readme = WeirBroker::slurp("$top/README.md");
my $broker = WeirBroker->embedded(topics => { rides => 1 });
my $node = WeirTest::start_node('main', extension => 0);

##
## The tour: a block of sql, then what it shows, blocks of text
##

my ($tour) = $readme =~ /^## A five-minute tour\n(.*?)^## /ms
  or die 'README.md has no tour';
my @blocks = map { [ /\A(\w*)\n(.*)\z/s ] } $tour =~ /^```(.*?)^```$/msg;

# Lines as people see them: without what aligns them at the right.
sub visible
{
	my ($text) = @_;
	$text =~ s/[ \t]+$//mg;
	return $text;
}

# One session, so that \set and \setenv last.  Programs of the tour are
# called by their place in the tree.
my $psql = "\\set ON_ERROR_STOP 1\n\\cd $top\n\\set bootstrap "
  . $broker->bootstrap . "\n\\setenv KAFKA :bootstrap\n";
my $mark = 'the end of block';
my $n = 0;
my $produce = WeirBroker::program('produce');
for my $block (grep { $_->[0] eq 'sql' } @blocks)
{
	my $sql = $block->[1] =~ s{test/support/build/produce}{$produce}gr;
	$psql .= "$sql\\echo $mark " . $n++ . "\n";
}
$psql .= "\\q\n";

my ($out, $err) = ('', '');
my $ok = IPC::Run::run(
	[ 'psql', '-X', '-d', $node->connstr('postgres') . ' options=-ctimezone=UTC' ],
	'<', \$psql, '>', \$out, '2>', \$err);
ok($ok, 'the tour runs to its end') or diag($err);
like($out, qr/$mark @{[ $n - 1 ]}\n/, 'all of it');

$n = -1;
for my $block (@blocks)
{
	my ($kind, $text) = @$block;
	$n++ if $kind eq 'sql';
	next if $kind ne 'text';
	my ($shown) = $n == 0 ? $out =~ /\A(.*?)^$mark 0$/ms :
	  $out =~ /^$mark @{[ $n - 1 ]}$(.*?)^$mark $n$/ms;
	$shown = visible(defined $shown ? $shown : '');
	$text = visible($text);
	ok(index($shown, $text) >= 0, "block $n shows what the README says")
	  or diag("expected:\n$text\ngot:\n$shown");
}

##
## The reference: nothing is left out
##

# Those of the query's results that the README does not name.
sub left_out
{
	my ($sql) = @_;
	my @names = split /\n/, WeirTest::sql($node, $sql);
	cmp_ok(scalar @names, '>', 5, 'there is something to look for');
	return join ', ', grep { $readme !~ /(?<![\w.])\Q$_\E(?!\w)/ } @names;
}

is(left_out("SELECT DISTINCT 'weir.' || proname FROM pg_proc "
		  . "WHERE pronamespace = 'weir'::regnamespace"),
	'', 'every function');
is(left_out("SELECT 'weir.' || relname FROM pg_class "
		  . "WHERE relnamespace = 'weir'::regnamespace AND relkind IN ('r', 'v')"),
	'', 'every view');
is(left_out("SELECT DISTINCT '`' || proargname || '`' FROM pg_proc, "
		  . "unnest(proargnames[1:pronargs]) AS proargname "
		  . "WHERE proname IN ('create_source', 'create_stream')"),
	'', 'every argument of create_source and create_stream');
is(left_out("SELECT name FROM pg_settings WHERE name LIKE 'weir.%'"),
	'', 'every setting');

for my $view (qw(sources streams stat_source stat_stream stat_worker dead_letter))
{
	my ($section) = $readme =~ /^### weir\.$view\n(.*?)^##/ms;
	my @named = defined $section ? $section =~ /^\| `(\w+)` \|/mg : ();
	is( join("\n", @named),
		WeirTest::sql($node, "SELECT attname FROM pg_attribute WHERE attrelid = "
			  . "'weir.$view'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"),
		"weir.$view: its columns");
}

for my $row (split /\n/, WeirTest::sql($node, <<'SQL'))
SELECT name || ' ' || current_setting(name)
FROM pg_settings WHERE name LIKE 'weir.%' AND source = 'default' ORDER BY 1
SQL
{
	my ($name, $value) = split / /, $row;
	my ($default) = $readme =~ /^\| `\Q$name\E` \| ([^|]*) \|/m;
	$default =~ s/[ ,]//g if defined $default;
	is($default, $value, "default of $name");
}

##
## The files
##

my %file = map { m{([^/]+)$} ? ($1 => 1) : () } glob("$top/src/*");
my %named = map { $_ => 1 }
  WeirBroker::slurp("$top/ARCHITECTURE.md") =~ /`(\w+\.(?:c|cpp|h))`/g;
is(join(' ', sort grep { /\.(?:c|cpp)$/ && !$named{$_} } keys %file),
	'', 'every file of src has a charter in ARCHITECTURE.md');
is(join(' ', sort grep { !$file{$_} } keys %named),
	'', 'and exists');

$node->stop;
done_testing();
