# What the packages have in common; to be sourced, in the root of the repository.
#
# The same program and the same commit make the same package, byte for byte: names are sorted, all belong to root, and all
# times are that of the commit, or SOURCE_DATE_EPOCH.

fail() {
    echo "${0#"$PWD"/}: $*" >&2
    exit 1
}

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null) || SOURCE_DATE_EPOCH=$(stat -c %Y CHANGELOG.md)
fi
export SOURCE_DATE_EPOCH
maintainer=${MAINTAINER:-The handover contributors <maintainers@handover.example>}
output=${OUTPUT:-${CARGO_TARGET_DIR:-target}/packages}
# What a package is made of is for everybody to read, whatever the umask says.
umask 022

# machine PROGRAM: the ELF header's word for what it runs on, and how wide that is: "62 64", "40 32"
machine() {
    local magic
    [ -f "$1" ] || fail "there is no program $1"
    magic=$(od -An -tx1 -N6 "$1" | tr -d ' \n')
    case $magic in
        7f454c46*) ;;
        *) fail "$1 is no program: it does not begin as ELF does" ;;
    esac
    # The sixth byte is the order of the others.
    local endian=little
    [ "${magic:10:2}" = 01 ] || endian=big
    echo "$(od -An -tu2 --endian=$endian -j18 -N2 "$1" | tr -d ' ') $((0x${magic:8:2} * 32))"
}

# is_static PROGRAM: no loader and no library of the host is needed.
is_static() { ! LC_ALL=C readelf -lW "$1" | grep -q ' INTERP '; }

# copy MODE FILE TARGET: with the folders above it.
copy() {
    mkdir -p "$(dirname "$3")"
    cp "$2" "$3"
    chmod "$1" "$3"
}

# manual_and_completions ROOT PREFIX: below ROOT/PREFIX/share, pages compressed.
manual_and_completions() {
    local share=$1$2/share
    mkdir -p "$share/man/man1" "$share/man/man5"
    gzip -9nc contrib/man/handover.1 >"$share/man/man1/handover.1.gz"
    gzip -9nc contrib/man/handover.toml.5 >"$share/man/man5/handover.toml.5.gz"
    copy 644 contrib/completions/handover.bash "$share/bash-completion/completions/handover"
    copy 644 contrib/completions/_handover "$share/zsh/vendor-completions/_handover"
    copy 644 contrib/completions/handover.fish "$share/fish/vendor_completions.d/handover.fish"
}

# packed DIRECTORY NAMES...: a tar of them to stdout, compressed.
packed() {
    local directory=$1
    shift
    tar -C "$directory" --format=gnu --sort=name --owner=0 --group=0 --numeric-owner \
        --mtime="@$SOURCE_DATE_EPOCH" -cf - "$@" | gzip -9n
}
