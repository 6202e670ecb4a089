# Staged rows are as closed as their source.
#
# Proves: who may read some columns of a source reads no others of its staged
# rows, by way of the views that his streams' statements read; and who may no
# longer read the source, or has no stream on it any more, reads none.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support", "$FindBin::RealBin/../../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { rides => 1 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);
WeirTest::create_source(
	$node, 'rides',
	columns => 'id int NOT NULL, hidden text, at timestamptz',
	event_time => 'at');
WeirTest::sql($node, <<'SQL');
CREATE ROLE part LOGIN;
CREATE ROLE whole LOGIN;
GRANT CREATE ON SCHEMA public TO part, whole;
GRANT SELECT (id) ON rides TO part;
GRANT SELECT ON rides TO whole;
SET ROLE part;
SELECT weir.create_stream('ids', 'SELECT r.id FROM rides r');
SET ROLE whole;
SELECT weir.create_stream('everything', 'SELECT r.id, r.hidden FROM rides r');
SQL
$broker->produce('rides', ['{"id":1,"hidden":"x","at":1704067200}']);
WeirTest::wait_for($node, qw(ids everything));
is(WeirTest::sql($node, 'SELECT * FROM ids, everything'), '1|1|x', 'both run');

# the views of segments that a role can read, with this column
sub readable
{
	my ($role, $column) = @_;
	return WeirTest::sql($node, <<SQL);
SELECT count(*) FROM pg_class c
WHERE relnamespace = 'weir_internal'::regnamespace AND relkind = 'v'
	AND relname LIKE 'segment%'
	AND has_column_privilege('$role', c.oid, '$column', 'SELECT')
SQL
}

is(readable('part', 'hidden'), 0, 'a column that is not granted is not read');
WeirTest::sql($node, "SELECT weir.drop_stream('ids')");
WeirTest::sql_becomes($node, <<'SQL', '0', 'nor is any without a stream');
SELECT count(*) FROM pg_class c
WHERE relnamespace = 'weir_internal'::regnamespace AND relkind = 'v'
	AND relname LIKE 'segment%' AND has_any_column_privilege('part', c.oid, 'SELECT')
SQL
WeirTest::sql($node, 'REVOKE SELECT ON rides FROM whole');
$broker->produce('rides', ['{"id":2,"hidden":"y","at":1704067200}']);
WeirTest::sql_becomes($node,
	"SELECT state FROM weir.stat_stream WHERE stream = 'everything'", 'failed');
is(readable('whole', 'hidden'), 0, 'nor when the right is revoked');

$node->stop;
done_testing();
