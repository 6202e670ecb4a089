# weir: streaming ETL inside PostgreSQL.
#
#	make			build the extension
#	make install	install it into the PostgreSQL of PG_CONFIG
#	make installcheck	regression tests against a running server
#	make test		everything, on throw-away servers (installs what it needs)
#	make demo		the main job on an embedded broker

EXTENSION = weir
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" weir.control)

MODULE_big = weir
OBJS = $(patsubst %.c,%.o,$(wildcard src/*.c)) \
	$(patsubst %.cpp,%.o,$(wildcard src/*.cpp))

DATA_built = weir--$(EXTVERSION).sql
SQL_PARTS = $(sort $(wildcard install/*.sql))

REGRESS = $(sort $(patsubst sql/%.sql,%,$(wildcard sql/*.sql)))

PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -Wno-clobbered -ffp-contract=off \
	$(WEIR_CFLAGS)
PG_CXXFLAGS = -std=c++17 -O2 -fPIC -Wall -Wextra -Wno-unused-parameter \
	$(WEIR_CFLAGS)
SHLIB_LINK = -lrdkafka -lsimdjson -lstdc++ -lpthread -lm
EXTRA_CLEAN = weir--$(EXTVERSION).sql

# Link-time bitcode needs a matching clang, which a user need not have.
override with_llvm = no

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# A server built by a newer g++ may name an option this one lacks for C++.
override CXXFLAGS := $(filter-out -fexcess-precision=%,$(CXXFLAGS))

weir--$(EXTVERSION).sql: $(SQL_PARTS) weir.control
	cat $(SQL_PARTS) > $@

# Every object depends on every header: a header is a contract.
$(OBJS): $(wildcard src/*.h) Makefile

include test/test.mk
include demo/demo.mk
