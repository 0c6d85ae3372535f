# shellcheck shell=bash
# What the suites share: a mount of their own when they are given no directory, and a look at the daemon afterwards.
#
# MOUNT_OPTIONS are the words for `mementofs mount`, by default those with which the kernel checks modes for several users;
# PRIVATE=1 mounts without them. BRANCH_VIEW is a branch to make and to work in as it is seen in .memento/branches;
# BRANCH_MOUNT is one to make and to mount by itself.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
program=${MEMENTOFS:-$project/target/release/mementofs}

# open_suite NAME [DIR]: sets $base, a place for temporary files, and $dir, where the suite works.
open_suite() {
    need_packages fusermount3:fuse3
    suite=$1
    base=$(mktemp -d "${TMPDIR:-/tmp}/$suite.XXXX") # Short: the address of a socket has 107 bytes.
    chmod 755 "$base"
    dir=${2:-}
    daemon=
    trap close_suite EXIT
    [ -z "$dir" ] || return 0
    mkdir "$base/mnt"
    local options=${MOUNT_OPTIONS:-}
    # An ordinary user's mount is checked by the kernel anyway.
    [ -n "$options" ] || [ -n "${PRIVATE:-}" ] || [ "$(id -u)" != 0 ] || options="-o allow_other"
    # shellcheck disable=SC2034 # For those that mount again.
    suite_options=$options
    # shellcheck disable=SC2086 # They are words.
    "$program" mount "$base/store" "$base/mnt" $options
    dir=$base/mnt
    if [ -n "${BRANCH_VIEW:-}" ]; then
        mkdir "$base/mnt/.memento/branches/$BRANCH_VIEW"
        dir=$base/mnt/.memento/branches/$BRANCH_VIEW
        if [ "$(id -u)" = 0 ]; then
            # Nobody else may go through the control directory.
            mkdir "$base/branch"
            mount --bind "$dir" "$base/branch"
            dir=$base/branch
        fi
    elif [ -n "${BRANCH_MOUNT:-}" ]; then
        mkdir "$base/mnt/.memento/branches/$BRANCH_MOUNT" "$base/branch"
        # shellcheck disable=SC2086
        "$program" mount "$base/store" "$base/branch" --branch "$BRANCH_MOUNT" $options
        dir=$base/branch
    fi
    daemon=$(daemon_of "$base/mnt")
    # What a daemon keeps for good it has after it was used once: threads, their stacks and their allocator's arenas.
    warm_up
    held=$(daemon_holds)
}

# daemon_of MOUNTPOINT: the process that serves it.
daemon_of() {
    local found
    found=$(pgrep -f "mount -f .*$1( |\$)") || die "no daemon serves $1"
    head -n 1 <<<"$found"
}

warm_up() {
    mkdir "$dir/warm-up"
    (cd "$dir/warm-up" && seq 2000 | xargs touch && head -c 40000000 /dev/zero | split -b 4000000 - large)
    echo "warm up" >"$dir/.memento/checkpoint"
    rm -r "$dir/warm-up"
    echo "warmed up" >"$dir/.memento/checkpoint"
    sync -f "$dir"
}

# daemon_holds: what the daemon of the suite's mount holds: inodes, descriptors, memory in KiB.
daemon_holds() {
    [ "$(id -u)" != 0 ] || echo 2 >/proc/sys/vm/drop_caches # The kernel gives back the inodes that nobody uses.
    printf '%s %s %s\n' "$(sed -n 's/^inodes_loaded //p' "$dir/.memento/stats")" \
        "$(find "/proc/$daemon/fd" -mindepth 1 | wc -l)" "$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$daemon/status")"
}

# suite_ends: the suite's files are gone; the daemon is to hold what it held at the start, within 10 %, as soon as it has
# had time to settle. Of inodes and descriptors, which are few, it may be as many as are counted on one hand.
suite_ends() {
    [ -n "$daemon" ] || return 0
    local now='' allowed=(5 5 2048) index over
    find "$dir" -mindepth 1 -maxdepth 1 -exec rm -rf {} +
    for _ in $(seq 8); do
        now=$(daemon_holds)
        over=
        for index in 0 1 2; do
            local -a before=() after=()
            read -ra before <<<"$held"
            read -ra after <<<"$now"
            local limit=$((before[index] / 10))
            [ "$limit" -ge "${allowed[index]}" ] || limit=${allowed[index]}
            [ $((after[index] - before[index])) -le "$limit" ] || over=yes
        done
        if [ -z "$over" ]; then
            say "ok $suite: the daemon holds $now (inodes, descriptors, KiB), at the start $held"
            return 0
        fi
        sleep 6 # A daemon at rest gives back what it kept; looking at it is work.
    done
    die "$suite: the daemon holds $now (inodes, descriptors, KiB), at the start $held"
}

# shellcheck disable=SC2329 # Called by the trap.
close_suite() {
    cd /
    if declare -F finish_suite >/dev/null; then finish_suite; fi
    [ ! -d "$base/branch" ] || umount -l "$base/branch" 2>/dev/null || "$program" umount --lazy "$base/branch" >/dev/null 2>&1 || true
    [ ! -d "$base/mnt" ] || "$program" umount --lazy "$base/mnt" >/dev/null 2>&1 || true
    rm -rf "$base"
}

# change_beside NAME: checkpoints and restores of other files go on in the suite's branch until stop_beside.
change_beside() {
    (
        while sleep "${2:-0.05}"; do
            mkdir -p "$dir/$1" && date +%N >"$dir/$1/file"
            # Requests have replies of their own: who reads `checkpoint` meanwhile never finds our command there.
            printf '{"do":"checkpoint","message":"%s"}' "$1" >"$dir/.memento/requests/$1"
            printf '{"do":"restore","ref":"@~1","path":"%s"}' "$1" >"$dir/.memento/requests/$1"
        done
    ) >/dev/null 2>&1 &
    beside=$!
}

# stop_beside: the changes end.
stop_beside() {
    [ -n "${beside:-}" ] || return 0
    kill "$beside" 2>/dev/null || true
    wait "$beside" 2>/dev/null || true
    beside=
}
