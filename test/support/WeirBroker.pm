#-------------------------------------------------------------------------
#
# WeirBroker.pm
#	  Brokers, producers and topics for TAP tests.
#
#	my $b = WeirBroker->embedded(topics => { rides => 3 });
#	my $k = WeirBroker->kafka(config => { 'log.retention.ms' => 1000 });
#
# The embedded broker (test/support/broker.c) starts in milliseconds and is
# for functional tests; the real Kafka starts in seconds and is for all that
# the embedded one cannot do: read_committed, look-up by time, retention,
# topics deleted or grown, restarts that keep the data.  Both have the same
# methods where they can.
#
# Everything listens on 127.0.0.1 only, on free ports.  Every wait has a
# limit and polls for a condition.  Whatever goes wrong dies with a reason.
#
# Nothing may outlive the test, however it ends.  END stops what is left.
# If the test is killed before that, the embedded broker sees the end of
# its standard input, and a real Kafka is killed by its guard: a process
# that waits for the end of a pipe whose other end only the test has.
#
# A real Kafka lives in a directory: server.properties, data/, kafka.log,
# kafka.pid and bootstrap, the servers to connect to.  kafka.sh uses the
# same functions from the command line, without a guard.
#
#-------------------------------------------------------------------------

package WeirBroker;

use strict;
use warnings;

use Carp;
use Cwd qw(abs_path);
use Digest::MD5;
use Fcntl qw(:flock);
use File::Basename qw(dirname);
use File::Path qw(make_path);
use File::Spec;
use File::Temp;
use IO::Handle;
use IO::Select;
use IO::Socket::INET;
use POSIX qw(:sys_wait_h setsid);
use Time::HiRes qw(time);

# seconds that anything may take
our $timeout = $ENV{WEIR_TEST_TIMEOUT} || 120;

my $support = abs_path(dirname(__FILE__));
my $kafka_dir = abs_path("$support/../kafka");

# what END has to stop, and in which process
my %running;
my $owner = $$;

##
## Programs
##

# The path of one of our programs.
sub program
{
	my ($name) = @_;
	my $path = ($ENV{WEIR_SUPPORT_BUILD} || "$support/build") . "/$name";
	croak "there is no $path; run make in test/support first"
	  unless -x $path;
	return $path;
}

# fork and exec, with file handles for standard input, output and error;
# returns the process id
sub spawn
{
	my ($in, $out, $err, @command) = @_;
	my $pid = fork();
	croak "could not fork: $!" unless defined $pid;
	return $pid if $pid;

	# the child: nothing of the parent's must run, END above all
	local $SIG{__DIE__} = 'DEFAULT';
	if (   POSIX::dup2(fileno($in), 0)
		&& POSIX::dup2(fileno($out), 1)
		&& POSIX::dup2(fileno($err), 2))
	{
		no warnings 'exec';
		exec { $command[0] } @command;
	}
	print STDERR "could not run $command[0]: $!\n";
	POSIX::_exit(127);
}

sub dev_null
{
	open my $fh, '+<', File::Spec->devnull
	  or croak "could not open the null device: $!";
	return $fh;
}

# Runs a program to its end.  Returns what it wrote to standard output, as
# bytes; dies with what it wrote to standard error when it fails.
sub run
{
	my (@command) = @_;
	my $out = File::Temp->new;
	my $err = File::Temp->new;
	my $pid = spawn(dev_null(), $out, $err, @command);
	waitpid($pid, 0) == $pid or croak "could not wait for $command[0]: $!";
	my $status = $?;
	my $text = slurp($out->filename);
	croak "\"@command\" failed with status $status: "
	  . slurp($err->filename)
	  if $status != 0;
	return $text;
}

sub slurp
{
	my ($path) = @_;
	open my $fh, '<:raw', $path or croak "could not open $path: $!";
	local $/;
	my $text = <$fh>;
	close $fh or croak "could not read $path: $!";
	return defined $text ? $text : '';
}

sub spew
{
	my ($path, $text) = @_;
	open my $fh, '>:raw', $path or croak "could not open $path: $!";
	print $fh $text or croak "could not write $path: $!";
	close $fh or croak "could not write $path: $!";
	return;
}

# Polls until the function gives something true, and returns that; returns
# nothing when the time is over.
sub poll_until
{
	my ($function, $seconds) = @_;
	my $deadline = time() + (defined $seconds ? $seconds : $timeout);
	while (1)
	{
		my $result = $function->();
		return $result if $result;
		return if time() > $deadline;
		select(undef, undef, undef, 0.02);
	}
}

# True while the process is there; reaps it when it is our child.
sub is_alive
{
	my ($pid) = @_;
	return 0 if waitpid($pid, WNOHANG) == $pid;
	return 0 unless kill(0, $pid);

	# somebody else's child may be dead and not reaped yet
	my $stat = eval { slurp("/proc/$pid/stat") };
	return defined $stat && $stat =~ /\) Z [^)]*\z/ ? 0 : 1;
}

# Sends a signal and waits until the process is gone.
sub end_process
{
	my ($pid, $signal, $seconds) = @_;
	kill $signal, $pid;
	poll_until(sub { !is_alive($pid) }, $seconds)
	  or croak "process $pid does not end";
	return;
}

END
{
	local $?;
	if ($$ == $owner)
	{
		for my $broker (values %running)
		{
			eval { $broker->abandon; 1 } or warn $@;
		}
	}
}

##
## The embedded broker
##

# WeirBroker->embedded(topics => { name => partitions }, brokers => 1)
#
# A topic that is not created gets 4 partitions when a producer asks for it.
sub embedded
{
	my ($class, %opt) = @_;
	my $topics = delete $opt{topics} || {};
	my $brokers = delete $opt{brokers} || 1;
	croak "unknown options: @{[ sort keys %opt ]}" if %opt;

	pipe(my $child_in, my $in) or croak "could not make a pipe: $!";
	pipe(my $out, my $child_out) or croak "could not make a pipe: $!";
	$in->autoflush(1);
	my $pid = spawn(
		$child_in, $child_out, \*STDERR, program('broker'),
		'--until-eof', '--commands', '--brokers', $brokers,
		map { ('--topic', "$_:$topics->{$_}") } sort keys %$topics);
	close $child_in;
	close $child_out;

	my $self = bless {
		kind => 'embedded',
		pid => $pid,
		in => $in,
		out => $out,
		buffer => ''
	}, $class;
	$running{$pid} = $self;
	$self->{bootstrap} = $self->answer;
	return $self;
}

# the next line the embedded broker writes
sub answer
{
	my ($self) = @_;
	my $select = IO::Select->new($self->{out});
	while ($self->{buffer} !~ /\n/)
	{
		croak 'no answer from the embedded broker'
		  unless $select->can_read($timeout);
		my $got = sysread $self->{out}, $self->{buffer}, 4096,
		  length $self->{buffer};
		croak 'the embedded broker is gone' unless $got;
	}
	$self->{buffer} =~ s/^(.*)\n//;
	return $1;
}

# Has the embedded broker obey a command (see broker.c), for example
# 'down', 'up', 'topic t 3', 'fail 1 5 6'.
sub command
{
	my ($self, $command) = @_;
	croak 'only the embedded broker takes commands'
	  unless $self->{kind} eq 'embedded';
	local $SIG{PIPE} = 'IGNORE';
	print { $self->{in} } "$command\n"
	  or croak "the embedded broker is gone: $!";
	my $answer = $self->answer;
	croak "\"$command\": $answer" unless $answer eq 'ok';
	return;
}

##
## The real Kafka
##

# Where the jars are.
sub kafka_lib
{
	return $ENV{WEIR_KAFKA_LIB} || "$kafka_dir/lib";
}

# Why there can be no real Kafka here, or undef when there can.
sub kafka_missing
{
	return 'there is no java'
	  unless grep { -x "$_/java" } File::Spec->path;
	return 'its jars are not here; run test/kafka/kafka.sh fetch'
	  unless kafka_complete();
	return;
}

# the jars are there, and of this pom.xml
sub kafka_complete
{
	my $mark = kafka_lib() . '/.complete';
	return -e $mark && slurp($mark) eq pom_digest();
}

sub pom_digest
{
	return Digest::MD5::md5_hex(slurp("$kafka_dir/pom.xml")) . "\n";
}

# Gets the jars, unless they are there.
sub kafka_fetch
{
	my $lib = kafka_lib();
	make_path($lib);
	open my $lock, '>', "$lib/.lock" or croak "could not open a lock: $!";
	flock($lock, LOCK_EX) or croak "could not lock $lib: $!";
	return if kafka_complete();

	for my $old (glob("\Q$lib\E/*.jar"))
	{
		unlink $old or croak "could not remove $old: $!";
	}
	run('mvn', '-q', '-B', '-f', "$kafka_dir/pom.xml",
		'dependency:copy-dependencies', '-DincludeScope=runtime',
		'-DoutputDirectory=' . abs_path($lib));
	spew("$lib/.complete", pom_digest());
	return;
}

# A free port on 127.0.0.1.  Not one that the system could give to an
# outgoing connection while the broker is down, so below 32768.
sub free_port
{
	my %taken = map { $_ => 1 } @_;
	for (1 .. 1000)
	{
		my $port = 10240 + int(rand(32768 - 10240));
		next if $taken{$port};
		my $socket = IO::Socket::INET->new(
			LocalAddr => '127.0.0.1',
			LocalPort => $port,
			Proto => 'tcp',
			Listen => 1);
		next unless $socket;
		close $socket;
		return $port;
	}
	croak 'found no free port';
}

# WeirBroker->kafka(dir => path, config => { name => value },
#     sasl => { user => password }, java_opts => [ '-Xmx1g' ])
#
# Starts a real Kafka.  dir: default a temporary one; one that has a Kafka
# already is started again with its ports and data.  config: further lines
# of server.properties.  sasl: there is a second listener, sasl_bootstrap,
# that wants one of these with SASL_PLAINTEXT and PLAIN.
sub kafka
{
	my ($class, %opt) = @_;
	my $self = $class->kafka_in(%opt);
	$self->start;
	return $self;
}

# the same without starting it; guarded unless "guard" is 0
sub kafka_in
{
	my ($class, %opt) = @_;
	my $self = bless {
		kind => 'kafka',
		guarded => exists $opt{guard} ? delete $opt{guard} : 1,
		config => delete $opt{config} || {},
		sasl => delete $opt{sasl},
		java_opts => delete $opt{java_opts} || ['-Xmx1g']
	}, $class;
	my $dir = delete $opt{dir};
	croak "unknown options: @{[ sort keys %opt ]}" if %opt;

	if (!defined $dir)
	{
		$self->{tempdir} = File::Temp->newdir;
		$dir = $self->{tempdir}->dirname;
	}
	make_path($dir);
	$self->{dir} = abs_path($dir);
	return $self;
}

# the command line of a Java program out of the jars
sub java
{
	my ($self, @args) = @_;
	return (
		'java', @{ $self->{java_opts} },
		'-Dorg.slf4j.simpleLogger.defaultLogLevel=warn',
		'-Dorg.slf4j.simpleLogger.showDateTime=true',
		'-cp', kafka_lib() . '/*', @args);
}

# writes server.properties with new ports and formats the data directory
sub prepare
{
	my ($self) = @_;
	my $dir = $self->{dir};
	my $port = free_port();
	my $controller = free_port($port);
	my $bootstrap = "127.0.0.1:$port\n";
	my %config = (
		'process.roles' => 'broker,controller',
		'node.id' => 1,
		'controller.quorum.voters' => "1\@127.0.0.1:$controller",
		'controller.listener.names' => 'CONTROLLER',
		'listeners' =>
		  "PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller",
		'advertised.listeners' => "PLAINTEXT://127.0.0.1:$port",
		'listener.security.protocol.map' =>
		  'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,'
		  . 'SASL_PLAINTEXT:SASL_PLAINTEXT',
		'log.dirs' => "$dir/data",

		# a topic is there when a test made it, and never by itself
		'auto.create.topics.enable' => 'false',

		# after a crash the broker is let in again when its session is over
		'broker.session.timeout.ms' => 3000,
		'broker.heartbeat.interval.ms' => 500,

		# records keep for good, whatever their timestamps
		'log.retention.ms' => -1,
		'log.message.timestamp.after.max.ms' => '9223372036854775807',

		'offsets.topic.replication.factor' => 1,
		'offsets.topic.num.partitions' => 1,
		'transaction.state.log.replication.factor' => 1,
		'transaction.state.log.min.isr' => 1,
		'transaction.state.log.num.partitions' => 1,
		'share.coordinator.state.topic.replication.factor' => 1,
		'share.coordinator.state.topic.min.isr' => 1,
		'share.coordinator.state.topic.num.partitions' => 1,
		'group.initial.rebalance.delay.ms' => 0);
	if ($self->{sasl})
	{
		my $listener =
		  'SASL_PLAINTEXT://127.0.0.1:' . free_port($port, $controller);
		my $users = $self->{sasl};
		$config{'listeners'} .= ",$listener";
		$config{'advertised.listeners'} .= ",$listener";
		$config{'sasl.enabled.mechanisms'} = 'PLAIN';
		$config{'listener.name.sasl_plaintext.plain.sasl.jaas.config'} =
		  'org.apache.kafka.common.security.plain.PlainLoginModule required'
		  . join('', map { " user_$_=\"$users->{$_}\"" } sort keys %$users)
		  . ';';
		$bootstrap .= ($listener =~ s{.*/}{}r) . "\n";
	}
	%config = (%config, %{ $self->{config} });
	spew("$dir/server.properties.new",
		join '', map { "$_=$config{$_}\n" } sort keys %config);

	# a cluster id is 16 bytes in base 64; a random one tells clusters apart
	my @letters = ('A' .. 'Z', 'a' .. 'z', 0 .. 9);
	my $id = join('', map { $letters[ rand @letters ] } 1 .. 21) . 'A';
	run($self->java('kafka.tools.StorageTool', 'format', '-t', $id,
			'--ignore-formatted', '-c', "$dir/server.properties.new"));
	spew("$dir/bootstrap", $bootstrap);
	rename "$dir/server.properties.new", "$dir/server.properties"
	  or croak "could not rename server.properties: $!";
	return;
}

# The process id of the broker in that directory, or undef.  A pid file that
# is left from a crash does not count: the process must be this broker.
sub kafka_pid
{
	my ($dir) = @_;
	return unless -e "$dir/kafka.pid";
	my ($pid) = slurp("$dir/kafka.pid") =~ /^(\d+)$/ or return;
	return unless is_alive($pid);
	my $command = eval { slurp("/proc/$pid/cmdline") };
	return unless defined $command;
	return index($command, "$dir/server.properties") >= 0 ? $pid : undef;
}

# Starts the broker and returns when it answers.
sub start
{
	my ($self) = @_;
	if (my $missing = kafka_missing())
	{
		croak "no Kafka: $missing";
	}
	croak "it runs already in $self->{dir}" if kafka_pid($self->{dir});

	my $is_new = !-e "$self->{dir}/server.properties";
	for my $attempt (1 .. 5)
	{
		$self->prepare if $is_new;
		($self->{bootstrap}, $self->{sasl_bootstrap}) =
		  split /\n/, slurp("$self->{dir}/bootstrap");
		return if $self->try_start;

		# somebody else may have taken a port since we looked
		last
		  unless $is_new
		  && slurp("$self->{dir}/kafka.log") =~ /Address already in use/;
	}
	my @log = split /\n/, slurp("$self->{dir}/kafka.log");
	splice @log, 0, -20 if @log > 20;
	croak join "\n", 'Kafka did not start:', @log;
}

# true when the broker answers, false when it does not
sub try_start
{
	my ($self) = @_;
	my $dir = $self->{dir};
	my $deadline = time() + $timeout;
	open my $log, '>>', "$dir/kafka.log"
	  or croak "could not open $dir/kafka.log: $!";

	# a session of its own: a key that interrupts the test is not for it
	my $null = dev_null();
	my $pid = fork();
	croak "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		setsid();
		if (   POSIX::dup2(fileno($null), 0)
			&& POSIX::dup2(fileno($log), 1)
			&& POSIX::dup2(fileno($log), 2))
		{
			no warnings 'exec';
			exec $self->java('kafka.Kafka', "$dir/server.properties");
		}
		print STDERR "could not run java: $!\n";
		POSIX::_exit(127);
	}
	spew("$dir/kafka.pid", "$pid\n");
	$self->guard if $self->{guarded};
	$running{"$self"} = $self if $self->{guarded};

	while (is_alive($pid) && time() < $deadline)
	{
		my $rc = system(
			{ program('kadmin') } 'kadmin', '--bootstrap',
			$self->{bootstrap}, '--timeout', 2000, '--quiet', 'wait');
		croak 'interrupted' if $rc & 127;
		return 1 if $rc == 0 && is_alive($pid);
	}
	end_process($pid, 'KILL') if is_alive($pid);
	return 0;
}

# starts the process that kills the broker if we are killed
sub guard
{
	my ($self) = @_;
	return if $self->{guard};
	pipe(my $in, my $guard) or croak "could not make a pipe: $!";
	my $null = dev_null();
	spawn($in, $null, $null, $^X, "-I$support", '-MWeirBroker', '-e',
		'WeirBroker::be_guard(@ARGV)', $self->{dir});
	close $in;
	$self->{guard} = $guard;
	return;
}

sub be_guard
{
	my ($dir) = @_;
	setsid();
	1 while <STDIN>;
	my $pid = kafka_pid($dir);
	kill 'KILL', $pid if $pid;
	return;
}

# Ends the broker in an orderly way.  What it knows stays on disk.
sub stop
{
	my ($self) = @_;
	if ($self->{kind} eq 'embedded')
	{
		delete $running{ $self->{pid} };
		end_process($self->{pid}, 'TERM') if is_alive($self->{pid});
		close $self->{in};
		close $self->{out};
		return;
	}
	if (my $pid = kafka_pid($self->{dir}))
	{
		end_process($pid, 'TERM');
	}
	unlink "$self->{dir}/kafka.pid";
	delete $running{"$self"};
	return;
}

# Ends the broker as a crash does.
sub kill9
{
	my ($self) = @_;
	my $pid =
	  $self->{kind} eq 'kafka' ? kafka_pid($self->{dir}) : $self->{pid};
	end_process($pid, 'KILL') if $pid && is_alive($pid);
	unlink "$self->{dir}/kafka.pid" if $self->{kind} eq 'kafka';
	delete $running{ $self->{kind} eq 'kafka' ? "$self" : $self->{pid} };
	return;
}

# the quickest end, for END
sub abandon
{
	my ($self) = @_;
	$self->kill9;
	return;
}

sub restart
{
	my ($self) = @_;
	$self->stop;
	$self->start;
	return;
}

##
## Both
##

sub bootstrap
{
	return $_[0]->{bootstrap};
}

sub sasl_bootstrap
{
	return $_[0]->{sasl_bootstrap};
}

# Runs kadmin (see kadmin.c) and returns what it writes.
sub kadmin
{
	my ($self, @args) = @_;
	return run(program('kadmin'), '--bootstrap', $self->{bootstrap}, @args);
}

# Makes a topic: create_topic('rides', 3, 'cleanup.policy=compact').
sub create_topic
{
	my ($self, $topic, $partitions, @config) = @_;
	if ($self->{kind} eq 'embedded')
	{
		croak 'the embedded broker knows no configuration' if @config;
		$self->command("topic $topic $partitions");
	}
	else
	{
		$self->kadmin('create', $topic, $partitions, @config);
	}
	return;
}

sub delete_topic
{
	my ($self, @topics) = @_;
	$self->kadmin('delete', @topics);
	return;
}

sub add_partitions
{
	my ($self, $topic, $total) = @_;
	$self->kadmin('add-partitions', $topic, $total);
	return;
}

sub delete_records
{
	my ($self, $topic, $partition, $before) = @_;
	$self->kadmin('delete-records', $topic, $partition, $before);
	return;
}

# The offsets of a topic: a list, by partition, of [ low, end ].  With
# committed => 1, the end is where read_committed has to stop.
sub offsets
{
	my ($self, $topic, %opt) = @_;
	my @offsets;
	for my $line (split /\n/,
		$self->kadmin($opt{committed} ? '--committed' : (),
			'offsets', $topic))
	{
		my ($partition, $low, $high) = split /\t/, $line;
		$offsets[$partition] = [ $low, $high ];
	}
	return @offsets;
}

# the arguments of produce for such options
sub produce_args
{
	my ($self, $topic, %opt) = @_;
	my @args = ('--bootstrap', $self->{bootstrap}, '--topic', $topic);
	for my $flag (qw(partition_field key timestamp raw_escapes))
	{
		push @args, '--' . $flag =~ tr/_/-/r if delete $opt{$flag};
	}
	for my $name (qw(partition codec linger transactional commit_every
		abort_every))
	{
		my $value = delete $opt{$name};
		push @args, '--' . $name =~ tr/_/-/r, $value if defined $value;
	}
	my $headers = delete $opt{headers} || [];
	push @args, map { ('--header', $_) } @$headers;
	my $properties = delete $opt{properties} || {};
	push @args, map { ('-X', "$_=$properties->{$_}") }
	  sort keys %$properties;
	croak "unknown options: @{[ sort keys %opt ]}" if %opt;
	return @args;
}

# produce($topic, $lines, option => value, ...)
#
# Produces lines, given as a list reference or as one text, and returns when
# all are delivered.  The options are those of produce (see produce.c):
# partition, partition_field, key, timestamp, raw_escapes, codec, linger,
# transactional, commit_every, abort_every; headers => [ 'name=value' ];
# properties => { name => value } for librdkafka.
sub produce
{
	my ($self, $topic, $lines, %opt) = @_;
	my $producer = $self->producer($topic, %opt);
	$producer->send(ref $lines ? @$lines : $lines);
	$producer->finish;
	return;
}

# A producer that stays: ->send(@lines), ->finish, ->kill9.
sub producer
{
	my ($self, $topic, %opt) = @_;
	pipe(my $in, my $out) or croak "could not make a pipe: $!";
	binmode $out;
	my $pid = spawn($in, \*STDERR, \*STDERR, program('produce'),
		$self->produce_args($topic, %opt));
	close $in;
	return bless { pid => $pid, out => $out }, 'WeirBroker::Producer';
}

# gen('events', events => 1000, topic => 't', ...): generates into a topic;
# the options are those of gen, with _ for -; 1 for a flag
sub gen
{
	my ($self, $kind, %opt) = @_;
	run(gen_command($kind, bootstrap => $self->{bootstrap}, %opt));
	return;
}

# The same as lines "partition TAB payload", for produce.
sub gen_lines
{
	my ($kind, %opt) = @_;
	return split /\n/, run(gen_command($kind, %opt));
}

sub gen_command
{
	my ($kind, %opt) = @_;
	my %is_flag = map { $_ => 1 } qw(plain inline_campaign clean);
	my @args;
	for my $name (sort keys %opt)
	{
		push @args, '--' . $name =~ tr/_/-/r;
		push @args, $opt{$name} unless $is_flag{$name};
	}
	return (program('gen'), $kind, @args);
}

# consume($topic, isolation => 'read_uncommitted')
#
# All records of a topic, in order of partition and offset, each a hash of
# partition, offset, timestamp, key, payload (undef: null), headers (text).
# Needs kcat.
sub consume
{
	my ($self, $topic, %opt) = @_;
	my $isolation = delete $opt{isolation} || 'read_committed';
	croak "unknown options: @{[ sort keys %opt ]}" if %opt;
	my $bytes = run('/usr/bin/env', 'kcat', '-C', '-e', '-q', '-o',
		'beginning', '-b', $self->{bootstrap}, '-t', $topic,
		'-X', "isolation.level=$isolation", '-X', 'fetch.wait.max.ms=20',
		'-f', '%p\t%o\t%T\t%K\t%S\t%h\n%k%s\n');
	my @records;
	while ($bytes =~ /\G(\d+)\t(\d+)\t(-?\d+)\t(-?\d+)\t(-?\d+)\t(.*)\n/gc)
	{
		my ($key_len, $len) = ($4, $5);
		my $record = {
			partition => $1,
			offset => $2,
			timestamp => $3,
			headers => $6
		};
		my $at = pos $bytes;
		for ([ 'key', $key_len ], [ 'payload', $len ])
		{
			my ($name, $length) = @$_;
			next if $length < 0;
			$record->{$name} = substr $bytes, $at, $length;
			$at += $length;
		}
		pos($bytes) = $at + 1;
		push @records, $record;
	}
	return
	  sort {
		     $a->{partition} <=> $b->{partition}
		  || $a->{offset} <=> $b->{offset}
	  } @records;
}

##
## The command line: kafka.sh
##

my $usage = <<'USAGE';
usage: kafka.sh fetch                       get the jars, unless they are here
       kafka.sh start DIR [NAME=VALUE]...   start; prints the servers
       kafka.sh stop DIR
       kafka.sh kill DIR                    stop with SIGKILL
       kafka.sh status DIR                  exit status 0: it runs
       kafka.sh bootstrap DIR               prints the servers
       kafka.sh admin DIR COMMAND...        kadmin, see test/support/kadmin.c
USAGE

sub main
{
	my ($command, $dir, @args) = @_;
	$command = '' unless defined $command;
	if ($command eq 'fetch' && !defined $dir)
	{
		kafka_fetch();
		return 0;
	}
	if (!defined $dir
		|| $command !~ /^(start|stop|kill|status|bootstrap|admin)$/)
	{
		print STDERR $usage;
		return 2;
	}
	my $kafka = WeirBroker->kafka_in(
		dir => $dir,
		guard => 0,
		config => { map { split /=/, $_, 2 } $command eq 'start' ? @args : () });
	if ($command eq 'start')
	{
		$kafka->start;
		print $kafka->bootstrap, "\n";
	}
	elsif ($command eq 'stop')
	{
		$kafka->stop;
	}
	elsif ($command eq 'kill')
	{
		$kafka->kill9;
	}
	elsif ($command eq 'status')
	{
		return kafka_pid($kafka->{dir}) ? 0 : 1;
	}
	else
	{
		my ($servers) = split /\n/, slurp("$kafka->{dir}/bootstrap");
		if ($command eq 'bootstrap')
		{
			print "$servers\n";
		}
		else
		{
			exec program('kadmin'), '--bootstrap', $servers, @args
			  or croak "could not run kadmin: $!";
		}
	}
	return 0;
}

package WeirBroker::Producer;

use strict;
use warnings;

use Carp;

# Sends lines; each is on its way within milliseconds.
sub send
{
	my ($self, @lines) = @_;
	local $SIG{PIPE} = 'IGNORE';
	for my $line (@lines)
	{
		my $bytes = $line;
		utf8::encode($bytes) if utf8::is_utf8($bytes);
		$bytes .= "\n" unless $bytes =~ /\n\z/;
		print { $self->{out} } $bytes or croak "the producer is gone: $!";
	}
	$self->{out}->flush or croak "the producer is gone: $!";
	return;
}

# Waits until all is delivered, and dies if something is not.
sub finish
{
	my ($self) = @_;
	local $SIG{PIPE} = 'IGNORE';
	close $self->{out} or croak "the producer is gone: $!";
	waitpid($self->{pid}, 0) == $self->{pid}
	  or croak "could not wait for the producer: $!";
	croak "the producer failed with status $?" if $? != 0;
	return;
}

# Ends it as a crash does: an open transaction stays open.
sub kill9
{
	my ($self) = @_;
	kill 'KILL', $self->{pid};
	waitpid($self->{pid}, 0);
	close $self->{out};
	return;
}

1;
