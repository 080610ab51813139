#!/bin/bash
# kernel.sh: a custom kernel (kernel.config, the netdevsim patch built in) from the source that prepare.sh fetched. For what
# Debian's kernels lack (NET_TC_SKB_EXT: conntrack in TC). Optional; some 11 minutes on 2 cores, 2 GB while it runs.
# HWLAB_KEEP_TREE=1 keeps the build tree.
# shellcheck source=tests/hwlab/lib.sh
. "$(dirname "$0")/lib.sh"
[ -e "$CACHE/kernel/current/.done" ] || die "run prepare.sh first"
only_one
have_packages bc bison build-essential flex gcc-12 libelf-dev xz-utils

custom() {
    # shellcheck disable=SC2119 # all of it
    kernel_tree
    cd linux
    patch -p1 <"$LAB/netdevsim-flower.patch"
    make -s allnoconfig
    cat "$LAB/kernel.config" >>.config
    make -s olddefconfig
    # A symbol whose dependencies are not met is dropped in silence: name it here rather than in a guest.
    if grep '^CONFIG_' "$LAB/kernel.config" | grep -vxFf .config; then
        echo "kernel.config: these did not take"
        exit 1
    fi
    make -j"$(nproc)" bzImage
    cd ..
    cp linux/arch/x86/boot/bzImage vmlinuz
    cp linux/.config config
    make -s -C linux kernelrelease >version
    [ -n "${HWLAB_KEEP_TREE:-}" ] || rm -rf linux
}

stage custom "$(cat "$CACHE/kernel/current/version")" "$LAB/kernel.config" "$LAB/netdevsim-flower.patch" -- custom
say "custom kernel $(cat "$CACHE/custom/current/version")"
