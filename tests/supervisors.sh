#!/usr/bin/env bash
# Runs the lab under real supervisors, with the files of contrib/: start, reloads under load, stop. The supervisor must
# not notice a reload, and no request may fail.
#
#   tests/supervisors.sh [supervisord] [runit] [s6]     all three without an argument
#   RELOADS=0 tests/supervisors.sh                      start, serve and stop only
#
# It needs supervisor, runit, s6, wrk and curl (.ci/run supervisors installs them), and a lab: cargo build --release
# --example lab. Everything it writes is in a temporary directory, and what it starts it ends by pid.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

reloads=${RELOADS:-10}
lab=${LAB:-${CARGO_TARGET_DIR:-target}/release/examples/lab}
# Longer than anything takes here, and short enough to see a hang.
patience=30
# The command in the files of contrib/, for which the lab is put in.
shipped='/usr/local/bin/handover -c /etc/handover/handover.toml --reload exec --user nobody'

fail() {
    echo "supervisors: ${supervisor:-}: $*" >&2
    if [ -s "${log:-}" ]; then
        sed 's/^/    /' "$log" | tail -n 40 >&2
    fi
    exit 1
}

for tool in supervisord supervisorctl runsv sv s6-supervise s6-svc s6-svstat s6-svwait wrk curl; do
    command -v "$tool" >/dev/null || fail "$tool is not installed; .ci/run supervisors installs it"
done
[ -x "$lab" ] || fail "there is no $lab; build it: cargo build --release --example lab"
lab=$(realpath "$lab")

directory=$(mktemp -d)
# As root the user is dropped, as the files say, and that one has to reach the program and write its pid file.
user=
if [ "$(id -u)" -eq 0 ]; then
    user='--user nobody'
    cp "$lab" "$directory/lab"
    lab=$directory/lab
    mkdir "$directory/pids"
    chown nobody "$directory/pids"
    chmod 755 "$directory"
fi
cp contrib/handover.toml "$directory/handover.toml"
manager=
load=
cleanup() {
    for pid in $load $manager; do
        kill "$pid" 2>/dev/null || true
    done
    # The supervisor takes its child with it; runsv only when it is told so.
    if [ -d "$directory/runit" ]; then
        sv -w 5 force-shutdown "$directory/runit" >/dev/null 2>&1 || true
    fi
    if [ -d "$directory/s6" ]; then
        s6-svc -xk "$directory/s6" 2>/dev/null || true
    fi
    wait 2>/dev/null || true
    rm -rf "$directory"
}
trap cleanup EXIT

# until_holds COMMAND...: looks again and again until it holds.
until_holds() {
    local deadline=$((SECONDS + patience))
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.02
    done
}

# install_file FILE TARGET: a file of contrib/ with the lab in the place of the program, and on a free port. With a pid file,
# since that must not keep the server from its supervisor: a reload that changes the pid would.
install_file() {
    grep -qF "$shipped" "$1" || fail "$1 does not have the command '$shipped'"
    local command="$lab -c $directory/handover.toml --reload exec $user -l 127.0.0.1:0 -w 2"
    sed "s|$shipped|$command --pid-file ${directory}${user:+/pids}/$supervisor.pid|" "$1" >"$2"
}

is_listening() { grep -q 'listening on http://' "$log" 2>/dev/null; }
is_generation() { [[ $(curl -sS --max-time 5 "$url/pid" 2>&1) == "{\"pid\":$pid,\"generation\":$1}" ]]; }

# The rest speaks of a supervisor through these five functions, each with its own controls:
#   start: starts it, sets $manager and $log    pid_of: the pid as the supervisor sees it
#   reload, stop: by its own means              stopped: whether it says that the server ended well

supervisord_start() {
    log=$directory/supervisord/handover.log
    mkdir "$directory/supervisord"
    install_file contrib/supervisord/handover.conf "$directory/supervisord/handover.ini"
    sed -i "s|^stdout_logfile=.*|stdout_logfile=$log|" "$directory/supervisord/handover.ini"
    cat >"$directory/supervisord/supervisord.conf" <<CONF
[supervisord]
nodaemon=true
pidfile=$directory/supervisord/pid
logfile=$directory/supervisord/supervisord.log
childlogdir=$directory/supervisord
$([ "$(id -u)" -ne 0 ] || echo user=root)
[unix_http_server]
file=$directory/supervisord/socket
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://$directory/supervisord/socket
[include]
files = $directory/supervisord/handover.ini
CONF
    supervisord -c "$directory/supervisord/supervisord.conf" >/dev/null 2>&1 &
    manager=$!
}
supervisord_control() { supervisorctl -c "$directory/supervisord/supervisord.conf" "$@"; }
supervisord_pid_of() { supervisord_control pid handover; }
supervisord_reload() { supervisord_control signal HUP handover >/dev/null; }
supervisord_stop() { supervisord_control stop handover >/dev/null; }
supervisord_stopped() { grep -q 'stopped: handover (exit status 0)' "$directory/supervisord/supervisord.log"; }
# It says so when a program has ended by itself.
supervisord_unnoticed() { ! grep -q 'exited: handover' "$directory/supervisord/supervisord.log"; }
supervisord_end() { kill "$manager"; }

runit_start() {
    log=$directory/runit.log
    mkdir "$directory/runit"
    install_file contrib/runit/run "$directory/runit/run"
    # Also records that and how the server has ended.
    sed "1a echo \"\$1\" >>'$directory/runit/ended'" contrib/runit/finish >"$directory/runit/finish"
    chmod +x "$directory/runit/run" "$directory/runit/finish"
    runsv "$directory/runit" >"$log" 2>&1 &
    manager=$!
}
runit_pid_of() { sv status "$directory/runit" | sed -n 's/^run: .*(pid \([0-9]*\)).*/\1/p'; }
runit_reload() { sv hup "$directory/runit" >/dev/null; }
runit_stop() { sv -w 20 stop "$directory/runit" >/dev/null; }
runit_stopped() { [ "$(cat "$directory/runit/ended")" = 0 ]; }
runit_unnoticed() { [ ! -e "$directory/runit/ended" ]; }
runit_end() { sv exit "$directory/runit" >/dev/null; }

s6_start() {
    log=$directory/s6.log
    mkdir "$directory/s6"
    install_file contrib/s6/run "$directory/s6/run"
    cp contrib/s6/notification-fd contrib/s6/timeout-kill "$directory/s6"
    sed "1a echo \"\$1\" >>'$directory/s6/ended'" contrib/s6/finish >"$directory/s6/finish"
    chmod +x "$directory/s6/run" "$directory/s6/finish"
    s6-supervise "$directory/s6" >"$log" 2>&1 &
    manager=$!
    until_holds test -e "$directory/s6/supervise/control" || fail "s6-supervise did not start"
    s6-svwait -U -t "${patience}000" "$directory/s6" || fail "the readiness line did not come"
}
s6_pid_of() { s6-svstat -o pid "$directory/s6"; }
s6_reload() { s6-svc -h "$directory/s6"; }
s6_stop() { s6-svc -wD -T "${patience}000" -d "$directory/s6"; }
s6_stopped() { [ "$(cat "$directory/s6/ended")" = 0 ]; }
s6_unnoticed() { [ ! -e "$directory/s6/ended" ]; }
s6_end() { s6-svc -x "$directory/s6"; }

# Four keep-alive clients, each a request every few milliseconds. wrk does not try again: a connection that ends, a
# request that gets no answer and any answer but 2xx and 3xx is counted.
start_load() {
    printf 'function delay() return 5 end\n' >"$directory/light.lua"
    wrk -t1 -c4 -d1h -s "$directory/light.lua" "$url/hello" >"$directory/wrk" 2>&1 &
    load=$!
    # Before it has its handler it does not hear the INT that ends it.
    until_holds load_is_on || fail "wrk did not start: $(cat "$directory/wrk")"
    # A load needs time: each client has asked on its connection before the first reload.
    sleep 1
}
load_is_on() {
    local caught
    caught=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$load/status" 2>/dev/null) || return 1
    [ "$(cat "/proc/$load/comm")" = wrk ] && [ $((16#${caught:-0} & 2)) -ne 0 ]
}
end_load() {
    kill -INT "$load"
    wait "$load" || true
    load=
    requests=$(sed -n 's/^ *\([0-9]*\) requests in .*/\1/p' "$directory/wrk")
    [ "${requests:-0}" -gt 0 ] || fail "no request was answered: $(cat "$directory/wrk")"
    if grep -E 'Socket errors|Non-2xx' "$directory/wrk"; then
        fail "requests failed"
    fi
}

check() {
    supervisor=$1
    "${supervisor}_start"
    until_holds is_listening || fail "the server did not start"
    url=$(sed -n 's/.*listening on \(http:[^ ]*\)$/\1/p' "$log" | head -n 1)
    pid=$("${supervisor}_pid_of")
    [ -z "$user" ] || [ "$(stat -c %U "/proc/$pid")" = nobody ] || fail "it does not serve as nobody"
    is_generation 1 || fail "pid $pid does not serve $url: $(curl -sS "$url/pid" 2>&1)"
    start_load
    local reload
    for ((reload = 1; reload <= reloads; reload++)); do
        "${supervisor}_reload"
        until_holds is_generation $((reload + 1)) || fail "reload $reload: no generation $((reload + 1)) in $pid"
        [ "$("${supervisor}_pid_of")" = "$pid" ] || fail "reload $reload: the supervisor sees another pid"
    done
    "${supervisor}_unnoticed" || fail "the supervisor has noticed an end"
    end_load
    "${supervisor}_stop"
    until_holds "${supervisor}_stopped" || fail "the stop was not a clean one"
    ! kill -0 "$pid" 2>/dev/null || fail "process $pid is left"
    # The last line of the log.
    grep -q ' stopped: .* cut=0' "$log" || fail "the log does not end with a clean stop"
    "${supervisor}_end"
    wait "$manager" || true
    manager=
    echo "supervisors: $supervisor: $reloads reloads, $requests requests, none failed, pid $pid throughout"
}

supervisors=("$@")
if [ "$#" -eq 0 ]; then
    supervisors=(supervisord runit s6)
fi
for supervisor in "${supervisors[@]}"; do
    declare -F "${supervisor}_start" >/dev/null || fail "unknown; there are: supervisord, runit, s6"
done
for supervisor in "${supervisors[@]}"; do
    check "$supervisor"
done
