# The Kafka client by itself (src/kafka*.c), through test/modules/test_kafka.
#
# Proves, on the embedded broker: records arrive whole and in order from
# explicit offsets, and no stale ones after a stop; an outage, a refused
# login, a missing right and a lost offset are told apart; idle evidence ends
# when the broker falls silent; waiting can be interrupted; closing leaves
# neither threads nor descriptors, and no way of ending a session crashes the
# server (I7).
#
# Proves, on a real Kafka: end offsets are last stable ones; look-up by time;
# offsets below retention; topics deleted, grown, and not created by asking;
# a broker killed and started again loses and repeats nothing; SASL.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../support";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);
use WeirBroker;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION test_kafka');

# the session that has the clients
my $session = $node->background_psql('postgres');

sub sql
{
	my ($query) = @_;
	return $session->query_safe($query);
}

# Polls until the query gives that; the last result is the test's.
sub sql_becomes
{
	my ($query, $expected, $name) = @_;
	my $got;
	my $deadline = time + 60;
	while (($got = sql($query)) !~ $expected && time < $deadline)
	{
		usleep(100_000);
	}
	like($got, $expected, $name);
	return;
}

sub open_client
{
	my ($broker, $topic, @options) = @_;
	my $options = join ',', map { "'$_'" }
	  "bootstrap_servers=" . (ref $broker ? $broker->bootstrap : $broker),
	  'reconnect_backoff_max_ms=200', @options;
	return sql("SELECT kafka_open(ARRAY[$options], '$topic')");
}

# "partition:offset:payload ..." of the next n messages
sub consume
{
	my ($client, $n, $timeout) = @_;
	$timeout ||= 30000;
	return sql(<<SQL);
SELECT string_agg(concat_ws(':', partition, "offset",
  CASE kind WHEN 'record' THEN coalesce(payload, 'NULL') ELSE kind END,
  error), ' ' ORDER BY partition, "offset", kind)
FROM kafka_consume($client, $n, $timeout)
SQL
}

# The same of what comes until n of them are not ends: when new records come,
# how often the end is reached is a matter of luck.
sub records
{
	my ($client, $n) = @_;
	my @got;
	my $deadline = time + 60;
	while (@got < $n && time < $deadline)
	{
		push @got, grep { !/:eof$/ } split / /, consume($client, 100, 200);
	}
	return "@got";
}

my $process = 'SELECT threads, fds FROM kafka_process()';
sql("SELECT kafka_option('group_id', 'x')");    # loads the library
my $clean = sql($process);

##
## Options
##

is( sql(<<'SQL'),
SELECT string_agg(concat_ws('=', n, (kafka_option(n, '')).kind), ' ')
FROM unnest('{bootstrap_servers,sasl_password,ssl_key_pem,sasl_username,
  ssl_certificate_pem,plugin_library_paths,sasl_kerberos_principal,
  ssl_ca_location,debug,group_id,test_mock_num_brokers,stats_cb,
  bootstrap.servers}'::text[]) n
SQL
	'bootstrap_servers=server sasl_password=secret ssl_key_pem=secret '
	  . 'sasl_username=either ssl_certificate_pem=either '
	  . 'plugin_library_paths=superuser sasl_kerberos_principal=superuser '
	  . 'ssl_ca_location=superuser debug=superuser group_id=forbidden '
	  . 'test_mock_num_brokers=forbidden stats_cb=forbidden '
	  . 'bootstrap.servers=unknown',
	'kinds of options');
is(sql("SELECT near FROM kafka_option('sasl_pasword', '')"),
	'"sasl_password"', 'a near name');
is(sql("SELECT near IS NULL FROM kafka_option('colour', '')"),
	't', 'no near name');
is(sql("SELECT near IS NULL FROM kafka_option(repeat('x', 1000), '')"),
	't', 'no near name of a very long one');
like(
	sql("SELECT complaint FROM kafka_option('check_crcs', 'maybe')"),
	qr/invalid value for option "check_crcs": /,
	'a value is checked');
is( sql(<<'SQL'),
SELECT string_agg((kafka_option('ssl_ca_pem', v)).complaint, ',')
FROM unnest('{a,b}'::text[]) v
SQL
	'', 'a good value has no complaint');

my ($rc, $out, $err) =
  $node->psql('postgres', "SELECT kafka_open('{group_id=x}', 't')");
like($err, qr/option "group_id" cannot be set/, 'a forbidden option');
($rc, $out, $err) = $node->psql('postgres', "SELECT kafka_open('{}', 't')");
like($err, qr/option "bootstrap_servers" is not set/, 'no servers');
($rc, $out, $err) = $node->psql('postgres',
	"SELECT kafka_open('{bootstrap_servers=x,ssl_key_pem=topsecret,security_protocol=ssl}', 't')"
);
like($err, qr/cannot be used/, 'a bad key');
unlike($err, qr/topsecret/, 'a secret is not repeated');

##
## The embedded broker
##

my $broker =
  WeirBroker->embedded(topics => { rides => 2, other => 1 }, brokers => 2);
my $c = open_client($broker, 'rides');

like(
	sql("SELECT class, partition_count, cluster_id FROM kafka_request($c, 'metadata')"
	),
	qr/^ok\|2\|mockCluster/,
	'metadata');
$broker->produce(
	'rides',
	[ "0\tk\ta", "0\t\\N\tb", "0\tk2\t\\N", "0\t\\N\t" ],
	partition_field => 1,
	key => 1,
	raw_escapes => 1,
	headers => [ 'source=test', 'empty=' ]);
is(sql("SELECT offsets FROM kafka_request($c, 'low', 2)"),
	'{0,0}', 'low offsets');
is(sql("SELECT offsets FROM kafka_request($c, 'end', 2)"),
	'{4,0}', 'end offsets');
is(sql("SELECT offsets FROM kafka_request($c, 'time', 2, 4102444800000)"),
	'{4,0}', 'past the end is the end');
is( sql("SELECT class, sqlstate FROM kafka_request($c, 'end', 3)"),
	'unknown_topic|42704',
	'a partition too many');

sql("SELECT kafka_start($c, p, 0) FROM generate_series(0, 1) p");
is( sql(<<SQL),
SELECT string_agg(concat_ws(':', kind, partition, "offset",
  coalesce(key, 'NULL'), coalesce(payload, 'NULL'), headers), ' '
  ORDER BY partition, "offset")
FROM kafka_consume($c, 6)
SQL
	'record:0:0:k:a:source=test,empty= record:0:1:NULL:b:source=test,empty= '
	  . 'record:0:2:k2:NULL:source=test,empty= '
	  . 'record:0:3:NULL::source=test,empty= eof:0:4:NULL:NULL '
	  . 'eof:1:0:NULL:NULL',
	'key, null payload, empty payload, headers, ends');

my $at_end = "SELECT at_end, end_offset FROM kafka_at_end($c, 0)";
sql_becomes($at_end, qr/^t\|4$/, 'at the end by the statistics');
is( sql("SELECT as_of BETWEEN now() - interval '2 s' AND now() FROM kafka_at_end($c, 0)"
	),
	't',
	'and lately');

$broker->produce('rides', [ map { "0\tx$_" } 1 .. 5 ], partition_field => 1);
sql("SELECT kafka_serve($c, 1000)");
is( sql("SELECT at_end, end_offset FROM kafka_at_end($c, 0)"),
	'f|9', 'not at the end while records wait in the queue');
is(consume($c, 2), '0:4:x1 0:5:x2', 'a small batch');
sql("SELECT kafka_stop($c, 0)");
is(consume($c, 1, 500), '', 'nothing after a stop');
sql("SELECT kafka_start($c, 0, 7)");
is(consume($c, 3), '0:7:x4 0:8:x5 0:9:eof', 'started at another offset');
sql("SELECT kafka_start($c, 0, 8)");
is(consume($c, 2), '0:8:x5 0:9:eof', 'started anew without a stop');

# A leader moves.
sql_becomes($at_end, qr/^t/, 'at the end before the leader moves');
$broker->command('leader rides 0 2');
$broker->produce('rides', ["0\tmoved"], partition_field => 1);
is(records($c, 1), '0:9:moved', 'goes on after the leader moved');

# A hung broker: connections stay up, nothing is said.
sql_becomes($at_end, qr/^t/, 'at the end before the broker hangs');
kill 'STOP', $broker->{pid};
sql_becomes($at_end, qr/^f/, 'a silent broker is no evidence');
kill 'CONT', $broker->{pid};
sql_becomes($at_end, qr/^t/, 'evidence again');

# An outage.
$broker->command('down');
sql_becomes(
	"SELECT class, sqlstate, message FROM kafka_last_error($c)",
	qr/^transient\|08006\|cannot reach any broker of server "test": .*Connection refused$/,
	'an outage');
is(sql("SELECT at_end FROM kafka_at_end($c, 0)"),
	'f', 'an outage is no evidence');
my $begun = time;
is( sql("SELECT class, sqlstate FROM kafka_request($c, 'end', 2, 0, 1500)"),
	'transient|08006', 'a request in an outage');
cmp_ok(time - $begun, '<', 5, 'keeps its timeout');
$broker->command('up');
sql_becomes("SELECT class FROM kafka_last_error($c)",
	qr/^ok$/, 'the outage is over without a record');
$broker->produce('rides', ["0\tback"], partition_field => 1);
is(records($c, 1), '0:10:back', 'goes on after an outage');

# The right to read is taken away: said once, and librdkafka goes on trying.
sql_becomes($at_end, qr/^t/, 'at the end before the right is revoked');
$broker->command('fail 1 100 29');
my $denied;
WeirBroker::poll_until(
	sub {
		consume($c, 1, 200);
		$denied = sql(
			"SELECT class, sqlstate, message FROM kafka_last_error($c)");
		return $denied !~ /^ok/;
	},
	30);
is( $denied,
	'authorization|42501|no READ on topic "rides" of server "test"',
	'no right to read');
sql_becomes($at_end, qr/^t\|11$/, 'it is at the end, the leader says');
$broker->produce('rides', ["0\tdenied"], partition_field => 1);
sql_becomes($at_end, qr/^f\|12$/, 'a record that may not be read');
is(sql("SELECT kafka_serve($c, 1000)") . sql($at_end),
	'f|12', 'keeps it from the end');
$broker->command('heal 1');
$broker->produce('rides', ["0\tallowed"], partition_field => 1);
is(records($c, 2), '0:11:denied 0:12:allowed',
	'goes on when allowed again');
is(sql("SELECT class FROM kafka_last_error($c)"),
	'ok', 'and says so');

# An offset that is not there.
sql("SELECT kafka_start($c, 1, 1000)");
is(records($c, 1), '1:1000:error:offset_gone', 'an offset out of range');
like(
	sql("SELECT class, sqlstate, partition, \"offset\", message FROM kafka_last_error($c)"
	),
	qr/^offset_gone\|55000\|1\|1000\|offset 1000 of rides\[1\] is gone/,
	'its message');
$broker->produce('rides', [ "1\tlost", "0\tkept" ], partition_field => 1);
is(records($c, 1), '0:13:kept',
	'the partition is silent, the others go on');
is(sql("SELECT class FROM kafka_last_error($c)"),
	'offset_gone', 'data of others does not hide it');
sql("SELECT kafka_start($c, 1, 0)");
is(records($c, 1), '1:0:lost', 'started at an offset that is there');
is(sql("SELECT class FROM kafka_last_error($c)"), 'ok', 'all is well');

# Many records, in batches and through a queue that is far too small.
my $n = 12000;
$broker->produce('other', [ map { "line $_ " . ('x' x 100) } 1 .. $n ]);
my $s = sql(<<SQL);
SELECT kafka_open(ARRAY['bootstrap_servers=@{[ $broker->bootstrap ]}'],
  'other', 1, 1000000)
SQL
sql("SELECT kafka_start($s, 0, 0)");
is( sql(<<SQL), "$n|0|@{[ $n - 1 ]}|t", 'a batch after another');
SELECT count(*), min("offset"), max("offset"),
  bool_and(payload LIKE 'line ' || ("offset" + 1) || ' %')
FROM kafka_consume($s, $n)
SQL
is(consume($s, 1), "0:$n:eof", 'and the end');

# Several clients in one session, and none is left behind.
sql("SELECT kafka_close($s)");
sql("SELECT kafka_close($c)");
is(sql($process), $clean, 'no thread and no descriptor is left');

# Closing with the broker down, hanging, and in the middle of a request.
$c = open_client($broker, 'rides');
sql("SELECT kafka_start($c, 0, 0)");
kill 'STOP', $broker->{pid};
sql("SELECT class FROM kafka_request($c, 'end', 2, 0, 200)");
$begun = time;
sql("SELECT kafka_close($c)");
cmp_ok(time - $begun, '<', 4, 'closed while the broker hangs');
kill 'CONT', $broker->{pid};
sql_becomes($process, qr/^\Q$clean\E$/, 'the helper ends by itself');

# Waiting gives way to interrupts.
$broker->command('down');
$begun = time;
($rc, $out, $err) = $node->psql('postgres', <<SQL);
SET statement_timeout = '500ms';
SELECT kafka_open(ARRAY['bootstrap_servers=@{[ $broker->bootstrap ]}'], 'rides');
SELECT kafka_request(0, 'metadata', 0, 0, 60000);
SQL
like($err, qr/canceling statement/, 'a request is interrupted');
cmp_ok(time - $begun, '<', 10, 'at once');
$broker->command('up');

# Ends of sessions: by the client, by FATAL in the middle of waiting.
for my $how ('quit', 'terminate')
{
	my $other = $node->background_psql('postgres', on_error_stop => 0);
	$other->query("SELECT kafka_open(ARRAY['bootstrap_servers=@{[ $broker->bootstrap ]}'], 'rides');
SELECT kafka_start(0, 0, 0)");
	my $pid = $other->query('SELECT pg_backend_pid()');
	if ($how eq 'terminate')
	{
		$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
		eval { $other->{run}->finish; };
	}
	else
	{
		$other->quit;
	}
	ok( $node->poll_query_until(
			'postgres',
			"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid"),
		"session is gone: $how");
}
is(sql('SELECT 1'), '1', 'the server has not crashed');

# A login that the broker does not know.
$c = open_client($broker, 'rides', 'security_protocol=sasl_plaintext',
	'sasl_mechanisms=PLAIN', 'sasl_username=u', 'sasl_password=topsecret');
is( sql("SELECT class, sqlstate FROM kafka_request($c, 'metadata')"),
	'authentication|28000', 'a login is refused');
unlike(sql("SELECT message, hint FROM kafka_last_error($c)"),
	qr/topsecret/, 'without the password');
sql("SELECT kafka_close($c)");
$broker->stop;

##
## A real Kafka
##

SKIP:
{
	my $missing = WeirBroker::kafka_missing();
	if ($missing)
	{
		fail("a real Kafka: $missing");
		last SKIP;
	}

	my $kafka = WeirBroker->kafka(
		sasl => { etl => 'right' },
		config => { 'auto.create.topics.enable' => 'true' });

	# Transactions: the end is the last stable offset.
	$kafka->create_topic('tx', 1);
	my $c = open_client($kafka, 'tx');
	like(
		sql("SELECT class, partition_count, length(cluster_id) > 10 FROM kafka_request($c, 'metadata')"
		),
		qr/^ok\|1\|t$/,
		'metadata of a real broker');
	$kafka->produce('tx', [ 'a', 'b' ], transactional => 'one');
	$kafka->produce(
		'tx', [ 'gone1', 'gone2' ],
		transactional => 'two',
		commit_every => 2,
		abort_every => 1);
	sql_becomes("SELECT offsets FROM kafka_request($c, 'end', 1)",
		qr/^\{6\}$/, 'the end counts control records');
	sql("SELECT kafka_start($c, 0, 0)");
	is(consume($c, 3), '0:0:a 0:1:b 0:6:eof', 'no aborted records');
	sql_becomes("SELECT at_end, end_offset FROM kafka_at_end($c, 0)",
		qr/^t\|6$/, 'at the end behind an aborted transaction');

	my $open = $kafka->producer(
		'tx',
		transactional => 'three',
		commit_every => 0);
	$open->send('open1', 'open2');
	ok( WeirBroker::poll_until(
			sub { ($kafka->offsets('tx'))[0]->[1] == 8 }),
		'records of an open transaction are in the log');
	is(sql("SELECT offsets FROM kafka_request($c, 'end', 1)"),
		'{6}', 'the end is the last stable offset');
	is(sql("SELECT offsets FROM kafka_request($c, 'time', 1, 4102444800000)"),
		'{6}', 'also by a time past it');
	is(sql("SELECT offsets FROM kafka_request($c, 'time', 1, 0)"),
		'{0}', 'by the beginning of time');
	my $u = open_client($kafka, 'tx', 'isolation_level=read_uncommitted');
	is(sql("SELECT offsets FROM kafka_request($u, 'end', 1)"),
		'{8}', 'read_uncommitted: the high watermark');
	sql("SELECT kafka_close($u)");
	is(consume($c, 1, 1000), '', 'open transactions are not read');
	is(sql("SELECT at_end, end_offset FROM kafka_at_end($c, 0)"),
		't|6', 'still at the end, the stable one');
	$open->finish;
	is(records($c, 2), '0:6:open1 0:7:open2',
		'until they are committed');
	sql("SELECT kafka_close($c)");

	# By time, and below retention.
	$kafka->create_topic('timed', 2);
	$kafka->produce(
		'timed',
		[ map { "$_->[0]\t$_->[1]\tat $_->[1]" }
			  ([ 0, 1000 ], [ 0, 2000 ], [ 0, 3000 ], [ 1, 500 ]) ],
		partition_field => 1,
		timestamp => 1);
	$c = open_client($kafka, 'timed');
	is(sql("SELECT offsets FROM kafka_request($c, 'time', 2, 1500)"),
		'{1,1}', 'by time: the first at or after it, else the end');
	is(sql("SELECT offsets FROM kafka_request($c, 'time', 2, 2000)"),
		'{1,1}', 'by time: exactly');
	is(sql("SELECT offsets FROM kafka_request($c, 'time', 2, 400)"),
		'{0,0}', 'by time: before all');
	$kafka->delete_records('timed', 0, 2);
	is(sql("SELECT offsets FROM kafka_request($c, 'low', 2)"),
		'{2,0}', 'low after records were deleted');
	sql("SELECT kafka_start($c, 0, 1)");
	is(records($c, 1), '0:1:error:offset_gone', 'an offset below retention');
	like(sql("SELECT message FROM kafka_last_error($c)"),
		qr/^offset 1 of timed\[0\] is gone/, 'its message');

	# Growth.
	$kafka->add_partitions('timed', 3);
	is( sql("SELECT class, partition_count FROM kafka_request($c, 'metadata')"
		),
		'ok|3',
		'a partition more');
	sql("SELECT kafka_start($c, 2, 0)");
	$kafka->produce('timed', ['new'], partition => 2);
	is(records($c, 1), '2:0:new', 'and it can be read');
	sql("SELECT kafka_close($c)");

	# Asking creates no topic.
	$c = open_client($kafka, 'nowhere');
	is( sql("SELECT class, sqlstate, message FROM kafka_request($c, 'metadata')"
		),
		'unknown_topic|42704|topic "nowhere" does not exist on server "test"',
		'a topic that is not there');
	unlike($kafka->kadmin('topics'), qr/nowhere/, 'is not made by asking');
	sql("SELECT kafka_close($c)");

	# A topic deleted under the reader.
	$kafka->create_topic('brief', 1);
	$kafka->produce('brief', ['x']);
	$c = open_client($kafka, 'brief',
		'topic_metadata_refresh_interval_ms=1000',
		'topic_metadata_propagation_max_ms=1000');
	sql("SELECT kafka_start($c, 0, 0)");
	is(consume($c, 2), '0:0:x 0:1:eof', 'a topic is read');
	$kafka->delete_topic('brief');
	is(records($c, 1), '0:1:error:unknown_topic',
		'and deleted');
	is( sql("SELECT class, sqlstate FROM kafka_last_error($c)"),
		'unknown_topic|42704', 'its error');
	sql("SELECT kafka_close($c)");

	# A broker killed and started again.
	$kafka->create_topic('long', 1);
	$kafka->produce('long', [ map { "m$_" } 0 .. 99 ]);
	$c = open_client($kafka, 'long');
	sql("SELECT kafka_start($c, 0, 0)");
	is(sql("SELECT count(*) FROM kafka_consume($c, 101)"),
		'101', 'before the crash');
	$kafka->kill9;
	sql_becomes("SELECT class FROM kafka_last_error($c)",
		qr/^transient$/, 'the broker is down');
	$kafka->start;
	$kafka->produce('long', [ map { "m$_" } 100 .. 199 ]);
	sql('CREATE TEMP TABLE got AS SELECT * FROM kafka_consume(0, 0)');
	sql_becomes(<<SQL, qr/^199$/, 'the last record comes');
INSERT INTO got SELECT * FROM kafka_consume($c, 1000, 200);
SELECT max("offset") FROM got WHERE kind = 'record'
SQL
	is( sql(<<SQL), '100|100|199|t', 'nothing lost, nothing twice');
SELECT count(*), min("offset"), max("offset"),
  bool_and(payload = 'm' || "offset")
FROM got WHERE kind = 'record'
SQL
	is(sql("SELECT class FROM kafka_last_error($c)"),
		'ok', 'and all is well');
	sql("SELECT kafka_close($c)");

	# Logins.
	my @login = ('security_protocol=sasl_plaintext', 'sasl_mechanisms=PLAIN',
		'sasl_username=etl');
	$c = open_client($kafka->sasl_bootstrap, 'long', @login,
		'sasl_password=wrong');
	like(
		sql("SELECT class, sqlstate, message FROM kafka_request($c, 'metadata')"
		),
		qr/^authentication\|28000\|authentication failed at server "test": /,
		'a wrong password');
	sql("SELECT kafka_close($c)");
	$c = open_client($kafka->sasl_bootstrap, 'long', @login,
		'sasl_password=right');
	is(sql("SELECT class FROM kafka_request($c, 'metadata')"),
		'ok', 'the right password');
	sql("SELECT kafka_close($c)");
	$kafka->stop;
}

sql_becomes($process, qr/^\Q$clean\E$/, 'nothing is left in the end');
$session->quit;
$node->stop;
my $log = join "\n", grep { !/(LOG:  statement|STATEMENT):/ }
  split /\n/, slurp_file($node->logfile);
unlike($log, qr/topsecret|terminated by signal/,
	'no secret and no crash in the log')
  or diag($log);

done_testing();
