# What there is to run. `cargo run --release` and `cargo test` do the same as `just run` and `just test`.

set positional-arguments

# How long, and how many connections, `just wrk` measures with.
seconds := "10"
connections := "32"

_default:
    @just --list --unsorted

# Build with --release and serve the welcome site, or what is given: just run ./examples/site -l 127.0.0.1:8080
run *ARGS:
    cargo run --release -- "$@"

# Run the tests; a name picks some
test *ARGS:
    cargo test "$@"

# Run the lab under real supervisord, runit and s6 through reloads (RELOADS, default 10); installs them with apt-get
test-supervisors:
    .ci/run supervisors

# Build the static program for small hosts and reload it under live clients: just small [--suite] [--dev] [TARGET…|all]
small *ARGS:
    tests/small/run.py "$@"

# Boot machines with so many MB (64, 48, 32) that run it, x86_64 and ARM (needs qemu-system): just vm [--memory | --clocks] [--keep] [MB…]
vm *ARGS:
    tests/vm/run.py "$@"

# Run what needs root, namespaces, mounts or other programs; names pick some cases of tests/hosts
test-hosts *ARGS:
    cargo build --release --bins --examples
    tests/hosts/run.py "${CARGO_TARGET_DIR:-target}/release" "$@"

# Run curl, Python and Node clients, load tools, Chromium and slowhttptest against the programs; installs them with apt-get
test-clients:
    .ci/run clients

# Three servers with Redis between them behind HAProxy, reloaded, stopped and killed under load; installs them with apt-get
test-bus:
    .ci/run bus

# What is heard when the bus fails in each way of tests/bus/faults.py; writes docs/bus-faults.md (needs redis-server, haproxy, cc)
bus-faults *ARGS:
    cargo build --locked --release --features redis --bin handover --target-dir "${CARGO_TARGET_DIR:-target}/bus"
    tests/bus/run.py faults --write docs/bus-faults.md "$@"

# Start Redis, three servers and HAProxy, publish, reload all and print the counts; --stay waits (needs redis-server, haproxy)
bus-demo *ARGS:
    cargo build --locked --release --features redis --bin handover --target-dir "${CARGO_TARGET_DIR:-target}/bus"
    tests/bus/demo.py "$@"

# Run every command of the README in a fresh clone, also those that take minutes with --long (needs git, curl, wrk, ip, unshare)
test-readme *ARGS:
    tests/readme_commands.py "$@"

# Fuzz one target, or each of `cargo fuzz list` in turn; any toolchain will do: just fuzz [TARGET] [SECONDS]
fuzz TARGET="" SECONDS="60":
    #!/usr/bin/env bash
    set -euo pipefail
    if ! command -v cargo-fuzz >/dev/null; then
        echo "just fuzz: cargo-fuzz is not installed; cargo install cargo-fuzz (it needs a C++ compiler)" >&2
        exit 1
    fi
    # The sanitizers' flags are for nightly toolchains; with this a stable one takes them too.
    export RUSTC_BOOTSTRAP=1
    RUSTFLAGS="--cfg fuzzing" cargo run --quiet --locked --manifest-path fuzz/Cargo.toml --no-default-features --features server --example seeds
    for target in ${1:-$(cargo fuzz list)}; do
        cargo fuzz run "$target" -- -max_total_time="$2" -max_len=20000 -rss_limit_mb=1024 -malloc_limit_mb=512
    done

# Check what threads meet at with every order of their steps (LOOM_MAX_PREEMPTIONS=4: more of them); a name picks some models
loom *ARGS:
    cargo test --locked --release --manifest-path loom/Cargo.toml "$@"

# Write the manual pages and the completions of contrib/ anew, from the settings
manual:
    HANDOVER_RENEW=1 cargo test --lib manual

# A Debian package: of the release program, or of one that was built elsewhere: just deb [PROGRAM] [REVISION] (needs dpkg-dev)
deb *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    [ $# -gt 0 ] || cargo build --locked --release --bin handover
    packaging/deb/build "$@"

# An OpenWrt package of a static program: just ipk armv7-unknown-linux-musleabihf PROGRAM [ARCHITECTURE]
ipk *ARGS:
    packaging/ipk/build "$@"

# A tarball with checksum, of a static program that is built, or was elsewhere: just tarball [TARGET] [PROGRAM]
tarball *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    target=${1:-$(uname -m)-unknown-linux-musl}
    if [ $# -lt 2 ]; then
        if [ ! -d "$(rustc --print target-libdir --target "$target")" ]; then
            echo "just tarball: the toolchain has no $target: rustup target add $target, or give a program: just tarball $target PROGRAM" >&2
            exit 1
        fi
        RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --bin handover --target "$target"
    fi
    packaging/tarball "$target" "${2:-${CARGO_TARGET_DIR:-target}/$target/release/handover}"

# Lint manual pages, try completions, install, upgrade under load and remove the packages; installs what it needs with apt-get
test-packages:
    .ci/run packages

# Format, lints and documentation, all without a warning
check:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    cargo clippy --lib --bins --no-default-features -- -D warnings
    cargo clippy --package handover-websocket --all-features --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# Write the library's public API to docs/public-api.txt (needs a nightly toolchain; installs cargo-public-api)
public-api:
    .ci/public-api >docs/public-api.txt.new && [ -s docs/public-api.txt.new ] && mv docs/public-api.txt.new docs/public-api.txt

# Run the benchmarks: a request's cost end to end and its steps one by one; `just bench --bench micro head` picks some
bench *ARGS:
    cargo bench "$@"

# handover beside its peers, half an hour; --list, --only SERVERS, --workload WORKLOADS, --rounds N (needs wrk, python3)
bench-peers *ARGS:
    python3 benches/peers/run.py "$@"

# Push beside nchan, axum, ws, sockjs-tornado, Pushpin and a bare loop; --list, --only, --workload, --rounds N (needs python3)
bench-push *ARGS:
    python3 benches/push/run.py "$@"

# From publication to delivery, CPU a message and the most there can be: a log of its own, a bus, nchan with Redis (needs redis-server)
bench-bus *ARGS:
    cargo build --locked --release --features redis --bin handover --target-dir "${CARGO_TARGET_DIR:-target}/bus"
    tests/bus/bench.py "$@"

# Instructions a request outside the kernel, also for lighttpd and nginx (needs valgrind, python3)
instructions *ARGS:
    python3 benches/peers/instructions.py "$@"

# Measure /hello of examples/lab.rs with wrk; flags go to the lab: just wrk -w 2
wrk *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    if ! command -v wrk >/dev/null; then
        echo "just wrk: wrk is not installed; install it with your package manager" >&2
        echo "          (Debian, Ubuntu: apt-get install wrk; Fedora: dnf install wrk)" >&2
        exit 1
    fi
    cargo build --release --example lab
    # The kernel picks a free port; the lab says which, and when it is ready.
    coproc LAB { exec "${CARGO_TARGET_DIR:-target}/release/examples/lab" -l 127.0.0.1:0 "$@"; }
    lab=$LAB_PID
    trap 'kill "$lab" 2>/dev/null || true' EXIT
    exec {output}<&"${LAB[0]}"
    url=
    while read -r -u "$output" line; do
        echo "$line"
        case $line in
            "listening on http://"*) url=${url:-${line#listening on }} ;;
            "ready "*) break ;;
        esac
    done
    if [ -z "$url" ]; then
        echo "just wrk: the lab did not start" >&2
        exit 1
    fi
    wrk -t1 -c{{connections}} -d{{seconds}}s --latency "$url/hello"
    trap - EXIT
    kill "$lab"
    wait "$lab"

# All stages of .ci/run, or those that are named: just ci fmt clippy
ci *STAGES:
    .ci/run "$@"

# The lab against lighttpd, in turn, medians and ratios (needs wrk, lighttpd, python3): just bench-lighttpd [ROUNDS] [CONNECTIONS]
bench-lighttpd *ARGS:
    cargo build --release --examples
    python3 benches/lighttpd.py "$@"

# What the acceptor costs a request, and at which rate it would fill a core (needs wrk, python3): just bench-acceptor [ROUNDS]
bench-acceptor *ARGS:
    cargo build --release --examples
    python3 benches/acceptor.py "$@"

# Size, memory and instructions by profile and features; --publish (needs valgrind): just bench-profiles [--publish] [PROFILE...]
bench-profiles *ARGS:
    python3 benches/profiles.py "$@"

# What slow clients cost the others (needs python3)
bench-slow:
    cargo build --release --bins --examples
    python3 benches/slow_clients.py

# Two builds of this project in turn, ratios pair by pair: just bench-two-builds OLD NEW [ROUNDS], release directories
bench-two-builds *ARGS:
    python3 benches/two_builds.py "$@"

# Instructions of a request outside the kernel, of two builds; needs valgrind.
bench-instructions old new:
    python3 benches/instructions.py {{old}} {{new}}

# What the request log costs, in each form, on tmpfs and a disk: just bench-request-log [ROUNDS [DIRECTORY]] (needs wrk, python3)
bench-request-log *ARGS:
    python3 benches/request_log.py "$@"

# Four clients that pipeline at the service rate, and every worker blocked: the others' p99, /-/healthy (needs python3)
bench-fair *ARGS:
    cargo build --release --examples
    python3 benches/fair_share.py "$@"

# All that a client can make a server hold, at once, against --memory: p99 of the others, threads, peak (needs python3)
bench-hostile MEMORY="16M":
    cargo build --release --examples
    python3 benches/hostile.py {{MEMORY}}

# A wrong password beside an unknown user, for each kind of hash, and what a known one costs (needs python3, mkpasswd)
bench-passwords *ARGS:
    cargo build --release
    python3 benches/passwords.py "$@"

# Five reloads in each mode under keep-alive load: requests, failures, reconnects, p99 (needs python3)
reload-demo:
    cargo build --release --examples
    python3 benches/reload.py

# The same, and nginx and gunicorn beside it (apt-get install nginx gunicorn)
bench-reload:
    cargo build --release --examples
    python3 benches/reload.py peers
