#!/bin/sh
#
# kafka.sh
#	  Get, start and stop a real Apache Kafka for tests and benchmarks.
#
# The work is done in WeirBroker.pm, where TAP tests find it too; run it
# without arguments to see what it does.  The jars go to WEIR_KAFKA_LIB, by
# default lib/ beside this file.

here=$(cd "$(dirname "$0")" && pwd) || exit 1
exec perl -I"$here/../support" -MWeirBroker \
	-e 'exit WeirBroker::main(@ARGV)' -- "$@"
