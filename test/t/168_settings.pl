# No setting changes what a source or stream means after it was made.
#
# Proves: every setting that ALTER DATABASE or ALTER ROLE can give to a worker
# is known: captured at creation, fixed in workers, or without an effect on a
# value; a new version's new setting fails this test.  Expressions of a source
# and of a stream give the same after all of those captured and fixed were
# changed for the database and for the workers' role and the workers have
# started anew; so do settings of modules and of users that a function reads.
# What is compiled is the same text in every session.  A value that is not
# possible any more stops a stream with the reason, and loses no row.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Utils;
use Test::More;
use WeirBroker;
use WeirTest;

my $broker = WeirBroker->embedded(topics => { texts => 1 });
my $node = WeirTest::start_node('main');
WeirTest::create_server($node, $broker);

sub sql { return WeirTest::sql($node, @_); }

##
## Every setting is in one list
##

# name => what a session has when it makes the stream, what the database gets
my %captured = (
	search_path => [ 'alice, public', 'public' ],
	TimeZone => [ 'Asia/Tokyo', 'America/New_York' ],
	DateStyle => [ 'German, DMY', 'SQL, MDY' ],
	IntervalStyle => [ 'iso_8601', 'sql_standard' ],
	array_nulls => [ 'off', 'on' ],
	backslash_quote => [ 'on', 'off' ],
	bytea_output => [ 'escape', 'hex' ],
	default_text_search_config => [ 'pg_catalog.german', 'pg_catalog.english' ],
	extra_float_digits => [ '-6', '3' ],
	lc_monetary => [ 'C.UTF-8', 'C' ],
	lc_numeric => [ 'C.UTF-8', 'C' ],
	lc_time => [ 'C.UTF-8', 'C' ],
	quote_all_identifiers => [ 'on', 'off' ],
	standard_conforming_strings => [ 'off', 'on' ],
	timezone_abbreviations => [ 'India', 'Default' ],
	transform_null_equals => [ 'on', 'off' ],
	xmlbinary => [ 'hex', 'base64' ],
	xmloption => [ 'document', 'content' ],

	# of modules and users
	'plpgsql.variable_conflict' => [ 'use_column', 'use_variable' ],
	'app.tenant' => [ 'acme', 'other' ]);

my %fixed = (
	client_encoding => 'LATIN1',
	default_transaction_deferrable => 'on',
	default_transaction_isolation => 'serializable',
	default_transaction_read_only => 'on',
	composite_type_mismatch => 'disabled',
	exit_on_error => 'on',
	gin_fuzzy_search_limit => '1',
	idle_in_transaction_session_timeout => '1',
	ignore_checksum_failure => 'on',
	lo_compat_privileges => 'on',
	lock_timeout => '1',
	restrict_nonsystem_relation_kind => 'view',
	row_security => 'off',
	session_replication_role => 'replica',
	statement_timeout => '1',
	synchronous_commit => 'on',
	transaction_timeout => '1',
	zero_damaged_pages => 'on');

# pattern => why it changes no value
my %no_matter = (
	'enable_.*|.*_cost|geqo.*|.*_collapse_limit|constraint_exclusion|plan_cache_mode|cursor_tuple_fraction|recursive_worktable_factor|default_statistics_target|effective_.*|.*parallel.*|jit.*|hash_mem_multiplier|(maintenance_|logical_decoding_)?work_mem|temp_buffers|debug_discard_caches' => 'plans and memory',
	'log_.*|client_min_messages|debug_.*print.*|debug_print_.*|trace_.*|track_.*|update_process_title|backtrace_functions|compute_query_id|event_source|application_name|lc_messages|escape_string_warning' => 'messages, logging, statistics',
	'commit_.*|wal_.*|vacuum_.*|deadlock_timeout|tcp_.*|client_connection_check_interval|idle_session_timeout|backend_flush_after|maintenance_io_concurrency|gin_pending_list_limit|temp_file_limit|post_auth_delay|pre_auth_delay' => 'how resources are used, and when',
	'default_table_access_method|default_tablespace|default_toast_compression|temp_tablespaces|allow_in_place_tablespaces|password_encryption|check_function_bodies|createrole_self_grant|icu_validation_level' => 'what is created, and where',
	'role|session_authorization|is_superuser|seed|transaction_(isolation|read_only|deferrable)' => 'of a session or transaction, cannot be given to one',
	'local_preload_libraries|session_preload_libraries|dynamic_library_path|extension_destdir|output_plugin_libraries|extension_control_path' => 'which code is loaded: a superuser\'s business',
	'synchronize_seqscans' => 'the order of rows that have none',
	'ignore_system_indexes|allow_system_table_mods' => 'repair of the system catalogs',
	'max_stack_depth' => 'how deep an expression may be nested',
	'stats_fetch_consistency' => 'how statistics are read');

my @unknown = grep {
	my $name = $_;
	!exists $captured{$name} && !exists $fixed{$name}
	  && !grep { $name =~ /^(?:$_)$/ } keys %no_matter;
} split /\n/, sql(<<'SQL');
SELECT name FROM pg_settings
WHERE context IN ('user', 'superuser', 'backend', 'superuser-backend') AND name NOT LIKE 'weir.%'
	AND name NOT LIKE '%.%'
ORDER BY 1
SQL
is("@unknown", '', 'every setting is captured, fixed, or without an effect on a value');

# What the server does not have is no part of this.
for my $name (keys %fixed)
{
	delete $fixed{$name}
	  unless sql("SELECT count(*) FROM pg_settings WHERE name = '$name'");
}

##
## A source and streams that show what they see
##

sql(<<'SQL');
CREATE ROLE alice LOGIN;
CREATE SCHEMA alice AUTHORIZATION alice;
GRANT USAGE ON FOREIGN SERVER kafka TO alice;
CREATE USER MAPPING FOR alice SERVER kafka;
SQL
my $names = join ',', sort keys %captured;
my $alice = "SET SESSION AUTHORIZATION alice;\n";
my $made_under = join '', map { my $v = $captured{$_}[0]; "SET $_ = "
	  . ($_ =~ /search_path|DateStyle/ ? $v : "'$v'") . ";\n" } grep { !/^plpgsql/ } sort keys %captured;
WeirTest::sql($node, "$alice SET search_path = alice, public;" . <<'SQL');
CREATE TABLE alice.conflict (v int);
INSERT INTO alice.conflict VALUES (1);
CREATE FUNCTION alice.conflicts() RETURNS text STABLE LANGUAGE plpgsql AS $$
DECLARE v int := 2; r text;
BEGIN SELECT v INTO r FROM alice.conflict; RETURN r; END $$;
CREATE FUNCTION alice.dynamic(text) RETURNS text STABLE LANGUAGE plpgsql AS $$
DECLARE r text;
BEGIN EXECUTE $1 INTO r; RETURN r; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
CREATE FUNCTION alice.attempt(text, text) RETURNS text STABLE LANGUAGE plpgsql AS $$
BEGIN RETURN alice.dynamic(format('SELECT %L::%s::text', $1, $2)); END $$;
CREATE FUNCTION alice.seen() RETURNS text STABLE LANGUAGE plpgsql AS $$
BEGIN RETURN (SELECT string_agg(name || '=' || coalesce(current_setting(name, true), '(none)'), '; ')
	FROM unnest(string_to_array(current_setting('app.names', true), ',')) name); END $$;
CREATE FUNCTION alice.kept() RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
	$$ BEGIN RETURN current_setting('app.tenant', true) = 'acme'; END $$;
CREATE TABLE alice.fired (id int);
CREATE FUNCTION alice.fire() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO alice.fired VALUES (NEW.id); RETURN NEW; END $$;
SQL

# One that only a superuser may set, who then becomes her.
my $make = "SET plpgsql.variable_conflict = '$captured{'plpgsql.variable_conflict'}[0]';\n"
  . $alice . $made_under . "SET app.names = '$names';\n" . <<'SQL';
SELECT weir.create_source('texts', 'kafka', 'texts', $$
	id int NOT NULL CHECK (alice.kept()), t text, at timestamptz, i interval, f float8, b bytea, a text[], m money,
	d text DEFAULT alice.seen() $$, filter => 'kept() AND id > 0');
SELECT weir.create_stream('shown', $$
	SELECT id, t, seen() AS seen, d AS source_seen, at, at::text AS at_text, i::text AS i_text, f::text AS f_text,
		b::text AS b_text, a::text AS a_text, m::text AS m_text,
		(id + 8 || '.03.2024 10:00 IST')::timestamptz - '2024-01-01Z'::timestamptz AS zone,
		(id + 1 || '/2/2024')::date - '2024-01-01'::date AS date,
		('-' || id || ' 1:00')::interval AS interval, extract(epoch FROM ('-' || id || ' 1:00')::interval) AS secs,
		('{NULL,' || id || '}')::text[] AS array,
		to_tsvector(t) AS tsv, quote_ident(lower(left(t, 1))) AS ident,
		attempt('<a/>x', 'xml') AS xml, xmlelement(name x, convert_to(id::text, 'UTF8'))::text AS xmlbin,
		to_char(at, 'TMMonth L D G') AS chars, conflicts() AS conflict,
		dynamic($q$SELECT 'a\nb'$q$) AS backslash, dynamic($q$SELECT 'a\'b'$q$) AS quote,
		dynamic('SELECT NULL::int = NULL') AS nulls, now()::text ~ '^[0-9]{4}-' AS iso
	FROM texts $$, target => 'alice.shown');
SELECT weir.create_stream('grouped', $$
	SELECT t, id % 1 AS one, max(f::text) AS f, max(at::text) AS at, min(i::text) AS i, min(seen()) AS seen,
		count(*) FILTER (WHERE at::text ~ '^[0-9]{4}-') AS iso
	FROM texts GROUP BY t, id % 1 HAVING kept() $$, target => 'alice.grouped');
CREATE TRIGGER fire BEFORE INSERT ON alice.shown FOR EACH ROW EXECUTE FUNCTION fire();
SQL
sql($make);
my @steps = map { sql("SELECT md5(string_agg(statement, '' ORDER BY step)) FROM weir.explain('$_')") }
  qw(shown grouped);

my $record = '"t":"Häuser \\u0041","at":"2024-03-09T12:00:00 IST","i":"-1 day 2:03:04","f":0.1234567890123,'
  . '"b":"\\\\x4142ff","a":["NULL",null,"x"],"m":"1234.5"';
$broker->produce('texts', [qq({"id":1,$record})]);
WeirTest::wait_for($node, qw(shown grouped));
is(sql('SELECT count(*) FROM alice.shown'), 1, 'a row is there')
  or BAIL_OUT(WeirTest::status($node));
my $shown = 'SELECT (to_jsonb(s) - \'{id,zone,date,interval,secs,array,xmlbin}\'::text[])::text FROM alice.shown s WHERE id = ';
my $more = 'SELECT zone - make_interval(days => id), date - id, array[1], md5(backslash) FROM alice.shown WHERE id = ';
my $first = sql($shown . 1);
my $first_more = sql($more . 1);
my $grouped = sql('SELECT to_jsonb(g) FROM alice.grouped g');
my $seen = sql('SELECT replace(seen, \'"\', \'\') FROM alice.shown');
my $source_seen = sql('SELECT replace(source_seen, \'"\', \'\') FROM alice.shown');
for my $name (sort keys %captured)
{
	like($seen, qr/(?:^|; )\Q$name=$captured{$name}[0]\E(?:;|$)/, "a stream sees $name as it was");
}
is($source_seen, $seen, 'and so does a source');

##
## Everything changes, and the workers start anew
##

# The commands that give a database or role the others.
sub change_all
{
	my ($whose) = @_;
	my $sql = '';
	for my $name (sort keys %captured)
	{
		my $v = $captured{$name}[1];
		$v = "'$v'" unless $name =~ /search_path|DateStyle/;
		$sql .= "ALTER $whose SET $name = $v;\n";
	}
	$sql .= "ALTER $whose SET $_ = '$fixed{$_}';\n" for sort keys %fixed;
	return $sql;
}

my $superuser = sql('SELECT current_user');
sql(change_all('DATABASE postgres') . change_all("ROLE \"$superuser\""));

# The test's own sessions go on as they were.
$ENV{PGOPTIONS} = join ' ', map { "-c $_" } 'default_transaction_isolation=read\\ committed', qw(default_transaction_read_only=off
  exit_on_error=off statement_timeout=0
  lock_timeout=0 idle_in_transaction_session_timeout=0 row_security=on
  session_replication_role=origin restrict_nonsystem_relation_kind= TimeZone=UTC DateStyle=ISO IntervalStyle=postgres
  client_encoding=UTF8 extra_float_digits=1 standard_conforming_strings=on);
my @now = map { sql("SELECT md5(string_agg(statement, '' ORDER BY step)) FROM weir.explain('$_')") }
  qw(shown grouped);
is("@now", "@steps", 'what is compiled is the same text in a session of other settings');
sql("SELECT weir.pause('$_'), weir.resume('$_')") for qw(shown grouped texts);
$broker->produce('texts', [qq({"id":2,$record})]);
WeirTest::wait_for($node, qw(shown grouped));
is(sql($shown . 2), $first, 'a stream gives the same');
is(sql($more . 2), $first_more, 'for other rows');
is(sql('SELECT to_jsonb(g) FROM alice.grouped g'), $grouped, 'so does one that groups');
is(sql('SELECT count(*) FROM alice.fired'), 2, 'triggers fire');
is(sql('SELECT count(*) FROM weir.dead_letter'), 0, 'no dead letters');

# The same after a restart of the server, and for a seek from a session.
$node->restart;
sql("SELECT weir.seek('grouped', 'earliest')");
$broker->produce('texts', [qq({"id":3,$record})]);
WeirTest::wait_for($node, qw(shown grouped));
is(sql($shown . 3), $first, 'a stream gives the same after a restart');
is(sql('SELECT to_jsonb(g) FROM alice.grouped g'), $grouped, 'and after a seek');

##
## A value that is not possible any more
##

sql(<<'SQL');
CREATE TEXT SEARCH CONFIGURATION alice.mine (COPY = pg_catalog.simple);
ALTER TEXT SEARCH CONFIGURATION alice.mine OWNER TO alice;
SET SESSION AUTHORIZATION alice;
SET search_path = alice, public;
SET app.tenant = 'acme';
SET default_text_search_config = 'alice.mine';
SELECT weir.create_stream('searched', 'SELECT id, to_tsvector(t) AS v FROM texts', target => 'alice.searched');
SQL
WeirTest::wait_for($node, 'searched');
sql("SELECT weir.pause('searched')");
sql('ALTER TEXT SEARCH CONFIGURATION alice.mine RENAME TO other');
sql("SELECT weir.resume('searched')");
$broker->produce('texts', [qq({"id":4,$record})]);
WeirTest::sql_becomes($node,
	"SELECT state, last_error_sqlstate FROM weir.stat_stream WHERE stream = 'searched'",
	'failed|55000', 'a value that is not possible any more stops the stream');
like(sql("SELECT last_error FROM weir.stat_stream WHERE stream = 'searched'"),
	qr/"default_text_search_config" can no longer have the value "alice\.mine"/, 'with the reason');
is(sql('SELECT count(*) FROM weir.dead_letter'), 0, 'no row is blamed');
sql('ALTER TEXT SEARCH CONFIGURATION alice.other RENAME TO mine');
sql("SELECT weir.resume('searched')");
WeirTest::wait_for($node, 'searched');
is(sql('SELECT count(*) FROM alice.searched'), 4, 'and none is lost');

# What a user may not set is not captured, though a session may take it.
sql(<<'SQL');
SET SESSION AUTHORIZATION alice;
SET search_path = alice, public;
SET app.tenant = 'acme';
SET plpgsql.variable_conflict = 'use_column';
SELECT weir.create_stream('unset', 'SELECT id, conflicts() AS c FROM texts', target => 'alice.unset');
SQL
like(sql("SELECT settings FROM weir_internal.stream WHERE name = 'unset'"),
	qr/plpgsql\.variable_conflict=use_variable/, 'a setting that its user may not set is not captured');

# Settings of users are theirs.
is(sql("SELECT count(*) FROM weir.streams, unnest(settings) s WHERE s ~ '^(app|plpgsql)'"),
	0, 'settings of modules and users are not shown to everybody');

$node->stop;
done_testing();
