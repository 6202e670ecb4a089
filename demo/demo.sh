#!/usr/bin/env bash
#-------------------------------------------------------------------------
#
# demo.sh
#	  make demo: the main job on an embedded broker, to look at.
#
# Installs what is missing (as root on Debian; else it says what is), builds
# weir, and starts a throw-away PostgreSQL and the embedded broker.  Then
# demo/pipeline.sql defines the streams, the generator of tweets produces a
# few minutes of history and goes on live, and the tables are shown filling
# until Ctrl-C or for DEMO_SECONDS.  At the end, what the streams made of it
# is compared with what the generator says it has sent.
#
# Everything lives in one temporary directory: the data, the socket (no TCP
# port is opened), and a copy of the PostgreSQL installation made of links,
# with weir in it.  So nothing but packages is installed on the machine, and
# nothing is left behind.  PostgreSQL refuses to run as root; then its user
# is "postgres".
#
#	DEMO_SECONDS	how long; default until Ctrl-C
#	DEMO_RATE		tweets a second, default 1000
#	DEMO_HISTORY	seconds of history before them, default 150
#	PG_CONFIG		of the PostgreSQL to use
#
# On a terminal each frame takes the place of the one before; elsewhere they
# follow one another.  The exit status is 0 only when rows arrived and the
# comparison at the end found no difference.
#
#-------------------------------------------------------------------------
set -u -o pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${MAKE:=make}" "${PG_CONFIG:=pg_config}"
seconds=${DEMO_SECONDS:-}
rate=${DEMO_RATE:-1000}
history=${DEMO_HISTORY:-150}
history_rate=100				# tweets a second of history
partitions=8					# the embedded broker keeps 5 MB of each

dir=
server_up=
broker_pid=
gen_pid=
on_screen=
stopping=
status=1

say()
{
	printf '%s\n' "$*"
}

fail()
{
	leave_screen
	printf 'demo: %s\n' "$*" >&2
	exit 1
}

# fail, and show the end of a log
fail_log()
{
	local log=$1

	shift
	leave_screen
	printf 'demo: %s\n' "$*" >&2
	[ -r "$log" ] && tail -n 25 "$log" >&2
	exit 1
}

##
## Cleaning up
##

leave_screen()
{
	[ -n "$on_screen" ] || return 0
	printf '\033[?7h\033[?25h\033[?1049l'
	on_screen=
}

enter_screen()
{
	[ -t 1 ] || return 0
	printf '\033[?1049h\033[?25l\033[?7l\033[2J'
	on_screen=1
}

stop_generator()
{
	[ -n "$gen_pid" ] || return 0
	kill "$gen_pid" 2>/dev/null
	wait "$gen_pid" 2>/dev/null
	gen_pid=
}

clean_up()
{
	trap '' INT TERM HUP
	leave_screen
	stop_generator
	if [ -n "$server_up" ]; then
		as_user "$bin/pg_ctl" -D "$dir/data" -m fast -t 30 stop >/dev/null 2>&1 ||
			as_user "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1
	fi
	if [ -n "$broker_pid" ]; then
		kill "$broker_pid" 2>/dev/null
		wait "$broker_pid" 2>/dev/null
	fi
	[ -n "$dir" ] && rm -rf "$dir"
	exit "$status"
}

trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 143' TERM
trap 'exit 130' INT

##
## Packages
##

# NN is PostgreSQL's major version.
packages="make gcc g++ libc6-dev pkg-config postgresql-NN
	postgresql-server-dev-NN librdkafka-dev libsimdjson-dev"

pg_version()
{
	"$PG_CONFIG" --version 2>/dev/null | sed -n -E 's/^PostgreSQL ([0-9]+).*/\1/p'
}

# The newest PostgreSQL that this Debian offers.
debian_version()
{
	apt-cache pkgnames postgresql-server-dev- 2>/dev/null |
		sed -n -E 's/^postgresql-server-dev-([0-9]+)$/\1/p' | sort -n | tail -n 1
}

missing_packages()
{
	local p

	for p in ${packages//NN/$1}; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] ||
			printf '%s ' "$p"
	done
}

# Is all there that packages would bring?
have_all()
{
	local program include

	[ -n "$(pg_version)" ] || return 1
	[ -x "$("$PG_CONFIG" --bindir)/initdb" ] || return 1
	[ -r "$("$PG_CONFIG" --pgxs)" ] || return 1
	for program in gcc g++ pkg-config; do
		command -v "$program" >/dev/null || return 1
	done
	include=$("$PG_CONFIG" --includedir-server)
	printf '#include <%s>\n' postgres.h librdkafka/rdkafka.h librdkafka/rdkafka_mock.h |
		gcc -fsyntax-only -I"$include" -x c - 2>/dev/null || return 1
	printf '#include <simdjson.h>\n' | g++ -fsyntax-only -x c++ - 2>/dev/null
}

# apt-get, thrice if need be: servers of packages have bad moments, too
apt()
{
	local try

	export DEBIAN_FRONTEND=noninteractive
	for try in 1 2 3; do
		apt-get -q -o Acquire::Retries=3 "$@" >"$dir/apt.log" 2>&1 </dev/null && return
		sleep "$try"
	done
	fail_log "$dir/apt.log" "apt-get $1 failed"
}

install_packages()
{
	local version missing

	have_all && return
	command -v apt-get >/dev/null ||
		fail "needed: make, gcc, g++, pkg-config, PostgreSQL 15 or newer with its server" \
			"headers, librdkafka and simdjson with theirs"
	if [ "$(id -u)" -eq 0 ]; then
		say "installing packages ..."
		apt update
	fi
	version=$(pg_version)
	[ -n "$version" ] || version=$(debian_version)
	[ -n "$version" ] || fail "apt knows no postgresql-server-dev-NN; try apt-get update"
	missing=$(missing_packages "$version")
	[ -n "$missing" ] ||
		fail "$packages are installed, but not all they should bring is found"
	[ "$(id -u)" -eq 0 ] ||
		fail "please install what is missing: apt-get install $missing"
	# shellcheck disable=SC2086
	apt install -y --no-install-recommends $missing
	have_all || fail "$missing were installed, but not all they should bring is found"
}

##
## Build, and a PostgreSQL with weir in it
##

build()
{
	local log=$dir/build.log

	say "building weir for $("$PG_CONFIG" --version) ..."
	# no bitcode: the server runs with jit = off
	"$MAKE" -j "$(nproc)" -C "$top" PG_CONFIG="$PG_CONFIG" with_llvm=no >"$log" 2>&1 ||
		fail_log "$log" "the build failed"
	"$MAKE" -j "$(nproc)" -C "$top/test/support" >"$log" 2>&1 ||
		fail_log "$log" "the build of the broker and the generators failed"
}

# PostgreSQL finds its files relative to its programs: copies of these below
# another root, with links to all else, make an installation to add to.
install_privately()
{
	local log=$dir/build.log
	local bindir sharedir pkglibdir libdir p

	bindir=$("$PG_CONFIG" --bindir)
	sharedir=$("$PG_CONFIG" --sharedir)
	pkglibdir=$("$PG_CONFIG" --pkglibdir)
	libdir=$("$PG_CONFIG" --libdir)
	bin=$dir/root$bindir
	mkdir -p "$bin" "$dir/root$sharedir" "$dir/root$pkglibdir" "$dir/root$libdir" &&
		for p in postgres initdb pg_ctl psql; do
			cp "$bindir/$p" "$bin/$p" || return
		done &&
		cp -as "$sharedir/." "$dir/root$sharedir/" &&
		ln -s "$pkglibdir"/*.so "$dir/root$pkglibdir/" &&
		rm -f "$dir/root$pkglibdir"/weir.so "$dir/root$sharedir"/extension/weir[.-]* ||
		fail "could not copy the PostgreSQL installation"
	# one that is not the system's may look for libpq beside its programs
	if [ "${libdir#/usr/lib}" = "$libdir" ]; then
		ln -sf "$libdir"/*.so* "$dir/root$libdir/" || fail "could not link the libraries"
	fi
	"$MAKE" -C "$top" PG_CONFIG="$PG_CONFIG" with_llvm=no DESTDIR="$dir/root" install >"$log" 2>&1 ||
		fail_log "$log" "make install failed"
}

# Runs a command as the user that PostgreSQL runs as.
as_user()
{
	if [ "$user" = "$(id -un)" ]; then
		"$@"
	else
		setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups "$@"
	fi
}

start_server()
{
	local log=$dir/server.log

	(cd "$dir" && as_user "$bin/initdb" -D "$dir/data" -U demo --auth=trust \
		--encoding=UTF8 --locale=C.UTF-8) >"$dir/initdb.log" 2>&1 ||
		fail_log "$dir/initdb.log" "initdb failed"
	cat >>"$dir/data/postgresql.conf" <<-EOC
		shared_preload_libraries = 'weir'
		listen_addresses = ''
		unix_socket_directories = '$dir'
		unix_socket_permissions = 0700
		max_worker_processes = 16
		jit = off
		timezone = 'UTC'
		log_timezone = 'UTC'
	EOC
	# Ctrl-C is for this script, so the server gets a session of its own.
	server_up=1
	(cd "$dir" && as_user setsid -w "$bin/pg_ctl" -D "$dir/data" -l "$log" -w -t 60 start) \
		>"$dir/start.log" 2>&1 || fail_log "$log" "PostgreSQL did not start"
	"$bin/psql" -qX -d "$connect dbname=postgres" -c 'CREATE DATABASE demo' >"$dir/psql.log" 2>&1 ||
		fail_log "$dir/psql.log" "could not create the database"
}

# psql on the demo's database
sql()
{
	"$bin/psql" -XAtq -v ON_ERROR_STOP=1 -d "$connect dbname=demo" "$@"
}

start_broker()
{
	local tries=0

	setsid "$support/broker" --topic "twitter:$partitions" \
		>"$dir/bootstrap" 2>"$dir/broker.log" </dev/null &
	broker_pid=$!
	until [ -s "$dir/bootstrap" ]; do
		kill -0 "$broker_pid" 2>/dev/null && [ $((tries += 1)) -lt 200 ] ||
			fail_log "$dir/broker.log" "the broker did not start"
		sleep 0.05
	done
	bootstrap=$(head -n 1 "$dir/bootstrap")
}

# Event n is the same in every run but for its time: the history has numbers
# from 0, the live tweets go on from there.
start_generator()
{
	local n=$((history * history_rate))

	setsid "$support/gen" tweets --events "$n" --partitions "$partitions" \
		--start-ms $(($(date +%s%3N) - history * 1000)) \
		--step-us $((1000000 / history_rate)) \
		--bootstrap "$bootstrap" --topic twitter 2>"$dir/gen.log" ||
		fail_log "$dir/gen.log" "the generator failed"
	setsid "$support/gen" tweets --rate "$rate" --first "$n" --partitions "$partitions" \
		--bootstrap "$bootstrap" --topic twitter 2>"$dir/gen.log" &
	gen_pid=$!
}

##
## The view
##

# Sets lines and columns to the size of the screen.
screen_size()
{
	local size

	lines=32
	columns=100
	if [ -n "$on_screen" ] && size=$(stty size 2>/dev/null </dev/tty); then
		lines=${size% *}
		columns=${size#* }
		[ "$lines" -gt 0 ] 2>/dev/null || lines=24
		[ "$columns" -gt 0 ] 2>/dev/null || columns=80
	fi
}

# Shows one frame.  The first line that frame.sql gives is for the next call:
# the counters, to tell rates from.  Those of some seconds ago are kept.
show_frame()
{
	local text line n=0 out=
	local bold='' dim='' plain=''

	screen_size
	if [ -n "$on_screen" ]; then
		bold=$'\033[1m' dim=$'\033[2m' plain=$'\033[0m'
	fi
	if ! text=$(sql -v lines="$lines" -v columns="$columns" -v running="$SECONDS" \
		-v before="${ticks[0]}" -v bold="$bold" -v dim="$dim" -v plain="$plain" \
		-v look="$look" -f "$top/demo/frame.sql" 2>"$dir/frame.log"); then
		# the server may be restarting: somebody tries what happens then
		text="{}"$'\n'"PostgreSQL does not answer: $(tail -n 1 "$dir/frame.log")"
	else
		rows_seen=$(sed -n -E '1s/.*"rows" *: *([0-9]+).*/\1/p' <<<"$text")
		ticks+=("${text%%$'\n'*}")
		[ "${#ticks[@]}" -gt 3 ] && ticks=("${ticks[@]:1}")
	fi
	text=${text#*$'\n'}
	if [ -z "$on_screen" ]; then
		printf '%s\n\n' "$text"
		return
	fi
	while IFS= read -r line; do
		[ $((n += 1)) -gt "$lines" ] && break
		[ "$n" -gt 1 ] && out+=$'\n'
		out+="$line"$'\033[K'
	done <<<"$text"
	printf '\033[H%s\033[J' "$out"
}

show_until_stopped()
{
	local due

	trap 'stopping=1' INT
	SECONDS=0
	rows_seen=0
	ticks=('{}')
	enter_screen
	due=$(date +%s%3N)
	while [ -z "$stopping" ]; do
		show_frame
		[ -n "$seconds" ] && [ "$SECONDS" -ge "$seconds" ] && break
		kill -0 "$gen_pid" 2>/dev/null || {
			[ -n "$stopping" ] && break
			fail_log "$dir/gen.log" "the generator has ended"
		}
		if [ "$SECONDS" -ge 30 ] && [ "${rows_seen:-0}" -eq 0 ]; then
			fail_log "$dir/server.log" "no rows after 30 seconds"
		fi
		due=$((due + 1000))
		nap=$((due - $(date +%s%3N)))
		if [ "$nap" -gt 0 ]; then
			sleep "$((nap / 1000)).$(printf '%03d' $((nap % 1000)))"
		else
			due=$(date +%s%3N)
		fi
	done
	trap 'exit 130' INT
	leave_screen
}

##
## The check
##

# What the generator sent, as JSON: {"broken": n, "no lang": n, "en": n, ...}.
# It is run again, and of each partition as many events are counted as stand
# in Kafka.  Nothing of weir or PostgreSQL is involved.
recount()
{
	local counts most

	counts=$("$support/kadmin" --bootstrap "$bootstrap" offsets twitter |
		sort -n | cut -f 3 | tr '\n' ' ') || return
	most=$(tr ' ' '\n' <<<"$counts" | sort -n | tail -n 1)
	"$support/gen" tweets --events $((most * partitions)) --partitions "$partitions" |
		LC_ALL=C awk -F '\t' -v counts="$counts" '
			BEGIN { split(counts, wanted, " ") }
			seen[$1]++ >= wanted[$1 + 1] { next }
			match($0, /"lang":"[a-z]+","default_profile":true/) {
				n[substr($0, RSTART + 8, index(substr($0, RSTART + 8), "\"") - 1)]++
				next
			}
			/"default_profile":true/ { n["no lang"]++; next }
			{ n["broken"]++ }
			END {
				for (i in n)
					out = out sprintf("%s\"%s\": %d", out == "" ? "" : ", ", i, n[i])
				print "{" out "}"
			}'
}

check()
{
	local expected stream bad

	stop_generator
	say "stopped; checking what arrived ..."
	for stream in english per_language words; do
		sql -c "SELECT weir.wait_for('$stream', '1 minute')" >/dev/null 2>"$dir/check.log" ||
			fail_log "$dir/check.log" "stream $stream has not applied all"
	done
	expected=$(recount) && [ "$expected" != '{}' ] ||
		fail "could not count what was sent"
	sql -v expected="$expected" -f "$top/demo/check.sql" >"$dir/check.out" 2>"$dir/check.log" ||
		fail_log "$dir/check.log" "the check failed"
	# its first line is the number of differences
	bad=$(head -n 1 "$dir/check.out")
	tail -n +2 "$dir/check.out"
	[ "$bad" = 0 ] || fail "$bad differences"
}

##
## The demo
##

case $seconds$rate$history in
*[!0-9]*) fail "DEMO_SECONDS, DEMO_RATE and DEMO_HISTORY are whole numbers" ;;
esac

# a socket's path has to be short
base=${TMPDIR:-/tmp}
[ "${#base}" -le 60 ] || base=/tmp
dir=$(mktemp -d "$base/weir-demo.XXXXXX") || fail "could not make a temporary directory"

for v in PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGSERVICE PGSERVICEFILE PGOPTIONS PGDATA \
	PGPASSWORD PGPASSFILE PGSYSCONFDIR PGTZ PGDATESTYLE MAKEFLAGS MFLAGS MAKELEVEL; do
	unset "$v"
done
export PGCLIENTENCODING=UTF8 PSQLRC=/dev/null PSQL_PAGER=

install_packages
user=$(id -un)
if [ "$(id -u)" -eq 0 ]; then
	user=postgres
	id "$user" >/dev/null 2>&1 || user=nobody
	chown "$user" "$dir"
fi
support=$top/test/support/build
connect="host=$dir user=demo"
look="psql -h $dir -U demo demo"

build
install_privately
say "starting PostgreSQL and the broker ..."
start_server
start_broker
sql -v bootstrap="$bootstrap" -f "$top/demo/pipeline.sql" >"$dir/psql.log" 2>&1 ||
	fail_log "$dir/psql.log" "demo/pipeline.sql failed"
say "To look around meanwhile:  $look"
start_generator
show_until_stopped
check
status=0
exit 0
