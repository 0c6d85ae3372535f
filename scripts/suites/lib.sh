# shellcheck shell=bash
# What the suites share: a mount of their own when they are given no directory, and a look at the daemon afterwards.
#
# MOUNT_OPTIONS are further words for `mementofs mount` (an I/O mode), BRANCH_VIEW is a branch to make and to work in.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
program=${MEMENTOFS:-$project/target/release/mementofs}

# open_suite NAME [DIR [OPTION…]]: sets $base, a place for temporary files, and $dir, where the suite works.
open_suite() {
    need_packages fusermount3:fuse3
    base=$(mktemp -d "${TMPDIR:-/tmp}/mementofs-$1.XXXXXX")
    chmod 755 "$base"
    dir=${2:-}
    daemon=
    trap close_suite EXIT
    [ -z "$dir" ] || return 0
    mkdir "$base/mnt"
    # shellcheck disable=SC2086 # They are words.
    "$program" mount "$base/store" "$base/mnt" ${MOUNT_OPTIONS:-} "${@:3}"
    dir=$base/mnt
    if [ -n "${BRANCH_VIEW:-}" ]; then
        mkdir "$base/mnt/.memento/branches/$BRANCH_VIEW"
        dir=$base/mnt/.memento/branches/$BRANCH_VIEW
    fi
    daemon=$(daemon_of "$base/mnt")
}

# daemon_of MOUNTPOINT: the process that serves it.
daemon_of() {
    local found
    found=$(pgrep -f "mount -f .*$1( |\$)") || die "no daemon serves $1"
    head -n 1 <<<"$found"
}

# shellcheck disable=SC2329 # Called by the trap.
close_suite() {
    cd /
    if declare -F finish_suite >/dev/null; then finish_suite; fi
    "$program" umount --lazy "$base/mnt" >/dev/null 2>&1 || true
    rm -rf "$base"
}

# daemon_holds: what the daemon of the suite's mount holds: inodes, descriptors, memory in KiB.
daemon_holds() {
    printf '%s %s %s\n' "$(sed -n 's/^inodes_loaded //p' "$base/mnt/.memento/stats")" \
        "$(find "/proc/$daemon/fd" -mindepth 1 | wc -l)" "$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$daemon/status")"
}
