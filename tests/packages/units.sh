#!/usr/bin/env bash
# Looks at the files of contrib/ with what reads them: systemd's own check, a shell, and the program for what it is asked to do.
#
#   tests/packages/units.sh PROGRAM
#
# supervisord, runit and s6 themselves are tried by tests/supervisors.sh; OpenWrt's file by tests/packages/openwrt.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
    echo "units: $*" >&2
    exit 1
}

program=$(realpath "${1:?usage: tests/packages/units.sh PROGRAM}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for script in contrib/runit/{run,finish} contrib/s6/{run,finish} contrib/openwrt/handover.init packaging/*/{postinst,prerm} \
    packaging/deb/postrm; do
    sh -n "$script" || fail "$script is no shell script"
    [ -x "$script" ] || fail "$script is not executable"
done
for config in contrib/handover.toml contrib/openwrt/handover.toml; do
    # What is served may not be here.
    sed 's|^root = .*|root = "/tmp"|' "$config" >"$work/handover.toml"
    "$program" -c "$work/handover.toml" --check >/dev/null || fail "$config is wrong"
    # And what is off in it is right as well; logs and history would be the packaged service's.
    sed -e 's|^#\([a-z[]\)|\1|' -e 's|^root = .*|root = "/tmp"|' -e "s|/var/l[a-z]*/handover|$work|" "$config" >"$work/handover.toml"
    "$program" -c "$work/handover.toml" --check >/dev/null || fail "what $config has off is wrong"
done
# Each command that is shipped starts with the same words.
for file in contrib/runit/run contrib/s6/run contrib/supervisord/handover.conf; do
    grep -qF '/usr/local/bin/handover -c /etc/handover/handover.toml --reload exec --user nobody' "$file" || fail "$file has another command"
done

# With the program in the place that the unit names.
for unit in handover.service handover.socket; do
    sed "s|/usr/local/bin/handover|$program|" "contrib/systemd/$unit" >"$work/$unit"
done
said=$(systemd-analyze verify --man=no "$work/handover.service" "$work/handover.socket" 2>&1 | grep -F handover || true)
[ -z "$said" ] || fail "systemd says of the units: $said"
echo "units: scripts, configurations and systemd's units are right"
