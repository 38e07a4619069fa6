#!/usr/bin/env bash
# Builds the program as contrib/docker/Dockerfile does, in what .dockerignore leaves of the repository, without an engine: so
# nothing that a build needs is left out. It is not optimised, and static by the C library that is here, where an image has
# musl's. Prints where the program is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
    echo "context: $*" >&2
    exit 1
}

[ "$(head -n 1 .dockerignore | cut -c1)" = '#' ] && [ "$(sed -n '/^[^#]/p' .dockerignore | head -n 1)" = '*' ] ||
    fail ".dockerignore does not begin by leaving out everything"
command=$(sed -n 's/^RUN \(cargo build .*\)$/\1/p' contrib/docker/Dockerfile)
# shellcheck disable=SC2016
[ "$command" = 'cargo build --release --locked --bin handover --features=$FEATURES' ] || fail "the Dockerfile builds by '$command'"
# As it is where nobody says which.
command=${command% --features=*}
grep -qx 'COPY --from=build /src/target/release/handover /usr/local/bin/handover' contrib/docker/Dockerfile ||
    fail "the Dockerfile copies something else than what it builds"

output=$(realpath "${CARGO_TARGET_DIR:-target}")/context
target=$(rustc -vV | sed -n 's/^host: //p')
rm -rf "$output/src"
mkdir -p "$output/src"
# The patterns are expanded here as they are there.
mapfile -t kept < <(sed -n 's/^!//p' .dockerignore)
# shellcheck disable=SC2068
tar -cf - ${kept[@]} | tar -C "$output/src" -xf -
cd "$output/src"
# Its own target directory: to be in the repository's would be to be given what was left out.
CARGO_PROFILE_DEV_DEBUG=0 RUSTFLAGS="-C target-feature=+crt-static" CARGO_TARGET_DIR=$output/target ${command/ --release/} --offline --target "$target" >&2
echo "$output/target/$target/debug/handover"
