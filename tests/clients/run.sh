#!/usr/bin/env bash
# Drives the release program with clients that others have written: curl, requests, httpx, aiohttp, Node's fetch and
# http.Agent, undici, ab, wrk, h2load, Chromium; with subscribers: eventsource, httpx-sse; with WebSockets: kosoku, ws; with
# sockjs-client; and with slowhttptest. Every check is a line, ok or FAILED.
#
#   tests/clients/run.sh [GROUP …]     curl python node load reload browser push websocket sockjs slow; all without an argument
#   tests/clients/run.sh crowd         sockjs-client beside 10,000 others, on a machine that does nothing else
#   CLIENTS_TOOLS=DIR tests/clients/run.sh     keeps the packages of pip and npm
#
# The programs have to be installed (.ci/run clients does that) and built: cargo build --release --bins --examples.
# The packages, in pinned versions, go into a temporary directory like everything that is written here. What is started
# is ended by pid.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
    echo "FAILED  clients: $*" >&2
    exit 1
}

for tool in python3 curl node npm ab wrk h2load chromium chromedriver slowhttptest; do
    command -v "$tool" >/dev/null || fail "$tool is not installed; .ci/run clients installs it"
done
node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 18) ? 0 : 1)' ||
    fail "node is $(node --version), and undici needs 20.18 or newer"
for program in handover examples/lab examples/chat; do
    path=${CARGO_TARGET_DIR:-target}/release/$program
    [ -x "$path" ] || fail "there is no $path; build it: cargo build --release --bins --examples"
done

directory=$(mktemp -d)
checks=
cleanup() {
    if [ -n "$checks" ]; then
        kill "$checks" 2>/dev/null || true
        wait "$checks" 2>/dev/null || true
    fi
    rm -rf "$directory"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

tools=${CLIENTS_TOOLS:-$directory/tools}
mkdir -p "$tools"
tools=$(realpath "$tools")
# Each time, so that kept packages follow a changed list; it takes a second when nothing has changed.
[ -x "$tools/venv/bin/python" ] || python3 -m venv "$tools/venv"
"$tools/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
cp tests/clients/package.json "$tools"
npm install --prefix "$tools" --no-package-lock --no-audit --no-fund --no-update-notifier --loglevel=error >/dev/null

mkdir "$directory/work"
TMPDIR=$directory/work NODE_PATH=$tools/node_modules PYTHONDONTWRITEBYTECODE=1 \
    "$tools/venv/bin/python" tests/clients/run.py "$@" &
checks=$!
code=0
wait "$checks" || code=$?
checks=
exit "$code"
