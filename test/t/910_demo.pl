# make demo works.
#
# Proves: the demo runs to its end without a terminal, shows frames with rows
# in them, finds that what arrived is what was sent, and leaves no process
# and no file behind.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use File::Temp;
use IPC::Run;
use Test::More;
use WeirBroker;

# Built by the suite "build", so that nothing is compiled here.  The socket
# of its server needs a short path.
my $tmp = File::Temp->newdir(DIR => '/tmp', TEMPLATE => 'weirXXXXXX');
my ($out, $err) = ('', '');
my $ok = do
{
	local %ENV = (
		%ENV,
		TMPDIR => "$tmp",
		DEMO_SECONDS => 6,
		DEMO_RATE => 500);
	IPC::Run::run(
		[ 'make', '-s', '-C', $ENV{WEIR_BUILD}, 'demo', "PG_CONFIG=$ENV{PG_CONFIG}" ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(300));
};
ok($ok, 'it ends well') or diag(substr($out, -4000) . $err);
is($err, '', 'without complaints');
like($out, qr/^To look around meanwhile:  psql -h \S+ -U demo demo$/m,
	'it says how to look around');

my @frames = split /^(?=weir: Kafka to PostgreSQL)/m, $out;
cmp_ok(scalar @frames, '>=', 5, 'a frame a second');
like($frames[-1], qr/^tweets +running +[\d,]{5,}/m, 'the source runs');
like($frames[-1], qr/^  \Q$_\E +running +[\d,]{5,}/m, "$_ runs")
  for qw(english per_language words);
like($frames[-1], qr/^\d\d:\d\d:\d\d open +[\d,]+/m, 'windows are shown');
like($frames[-1], qr/^newest English tweets  \(of [\d,]{3,}\)$/m,
	'and tweets');

my @checks = $out =~ /^\S.*? +[\d,]+ +[\d,]+  (ok|DIFFERENT)/mg;
cmp_ok(scalar @checks, '>=', 14, 'it checks');
is(scalar(grep { $_ ne 'ok' } @checks), 0, 'and finds no difference');

is_deeply([ glob("$tmp/*") ], [], 'no file is left');
is(`ps -eo args | grep -F '$tmp' | grep -v grep`, '', 'and no process');

done_testing();
