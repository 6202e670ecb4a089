# test/test.mk
#	Targets that run tests on throw-away servers; see test/run.
#
#	make test			every suite; T="style 100" for some of them
#	make check-style	what needs no server
#	make test-realdata	departures of a year, played through Kafka
#	make test-versions	regress and TAP on PostgreSQL 16, 17 and 18

T =

test:
	bash test/run $(T)

check-style:
	bash test/run style

test-realdata:
	bash test/run realdata

test-versions:
	bash test/versions

.PHONY: test check-style test-realdata test-versions
