# shellcheck shell=bash
# Shared by prepare.sh and kernel.sh; sourced, never run.
set -euo pipefail
# shellcheck disable=SC2034 # read by those that source this file
LAB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=$(realpath -m "${HWLAB_CACHE:-$HOME/.cache/mecexporter-hwlab}")
# shellcheck disable=SC2034 # as above
SUITE=bookworm
KERNEL_SERIES=6.12

say() { printf 'hwlab: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# stage NAME INPUT... -- FUNCTION: runs FUNCTION in the empty folder $CACHE/NAME/<hash of INPUTs>, once. An INPUT that is a
# file counts by its content, anything else (and FUNCTION, by its text) as it stands. NAME/current is the result.
stage() {
    local name=$1 inputs=() key dir status start=$SECONDS
    shift
    while [ "$1" != -- ]; do
        if [ -f "$1" ]; then inputs+=("$(sha256sum <"$1")"); else inputs+=("$1"); fi
        shift
    done
    shift
    key=$({ printf '%s\n' "${inputs[@]}"; declare -f "$1"; } | sha256sum | cut -c1-16)
    dir=$CACHE/$name/$key
    if [ ! -e "$dir/.done" ]; then
        rm -rf "$dir"
        mkdir -p "$dir"
        set +e # 'if (...)' would switch it off inside too
        (set -e; cd "$dir"; "$1") >"$dir.log" 2>&1
        status=$?
        set -e
        if [ $status != 0 ]; then
            tail -n 25 "$dir.log" >&2
            die "$name: failed, the whole log is $dir.log"
        fi
        touch "$dir/.done"
        say "$name: made in $((SECONDS - start)) s"
    fi
    ln -sfn "$key" "$CACHE/$name/current"
}

# private_apt PROGRAM ARG...: apt with a source list, pins, lists and archive of its own. Proxies and certificates set up
# in the system's apt.conf.d still hold; the system's own sources are neither read nor changed.
private_apt() {
    local program=$1
    shift
    "$program" -c "$CACHE/apt/apt.conf" "$@"
}

# kernel_tree [PATH...]: unpacks these files or folders of the kernel's source, or all of it, into ./linux
kernel_tree() {
    mkdir linux
    tar -xJf "$CACHE/kernel/current/usr/src/linux-source-$KERNEL_SERIES.tar.xz" -C linux --strip-components=1 \
        "${@/#/linux-source-$KERNEL_SERIES/}"
}

export DEBIAN_FRONTEND=noninteractive
INSTALL=(-q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends --no-remove)

# have_packages PACKAGE...: installs those that are missing, from the system's own sources.
have_packages() {
    local missing=() package
    for package; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    logged apt-update apt-get -q -o DPkg::Lock::Timeout=300 update
    logged host-packages apt-get "${INSTALL[@]}" "${missing[@]}"
}

# logged NAME COMMAND...: output to $CACHE/NAME.log, shown only if COMMAND fails
logged() {
    local name=$1 log=$CACHE/$1.log
    shift
    "$@" >"$log" 2>&1 || { tail -n 25 "$log" >&2; die "$name: failed, the whole log is $log"; }
}

only_one() {
    mkdir -p "$CACHE"
    exec 9>"$CACHE/lock"
    flock -n 9 || { say "waiting for another run on $CACHE"; flock 9; }
}
