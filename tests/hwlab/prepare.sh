#!/bin/bash
# prepare.sh [--refresh]: everything a guest needs, below $HWLAB_CACHE (default ~/.cache/mecexporter-hwlab). Run as root on
# Debian 12. A second run does only what changed. --refresh asks the archive for newer packages. PYTHON: whose pip
# fetches the guest's Python packages.
# shellcheck source=tests/hwlab/lib.sh
. "$(dirname "$0")/lib.sh"

TREE=$(cd "$LAB/../.." && pwd)
PYTHON=$(realpath -s "${PYTHON:-$(command -v python3)}") # not resolved: a virtual environment is known by its link
GUEST_PYTHON=3.11 # Debian 12's
GUEST_PACKAGES=conntrack,ethtool,iproute2,iputils-ping,jq,kmod,openvswitch-switch,pciutils,procps,python3

[ "$(id -u)" = 0 ] || die "run as root"
# shellcheck source=/dev/null
if [ "$(. /etc/os-release; echo "${VERSION_CODENAME:-}")" != $SUITE ] || [ "$(dpkg --print-architecture)" != amd64 ]; then
    die "made for Debian 12 ($SUITE) on amd64"
fi
only_one

# The mirror that the system itself uses; HWLAB_MIRROR overrides it. Backports lie beside the suite on every mirror.
mirror() {
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format '$(ORIGIN) $(LABEL) $(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v suite=$SUITE '!found && $1 == "Debian" && $2 == "Debian" && $3 == suite && $4 == "main" { print $5; found = 1 }'
}
MIRROR=${HWLAB_MIRROR:-$(mirror)}
if [ -z "$MIRROR" ]; then # apt tells only what it has lists of
    logged apt-update apt-get -q -o DPkg::Lock::Timeout=300 update
    MIRROR=$(mirror)
fi
[ -n "$MIRROR" ] || die "no $SUITE main in the system's apt sources: set HWLAB_MIRROR to a Debian mirror"

have_packages build-essential busybox-static cpio gcc-12 kmod libelf-dev mmdebstrap patch xz-utils zstd

apt_index() {
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg suite
    mkdir -p archives/partial lists/partial none
    for suite in $SUITE $SUITE-backports; do echo "deb [signed-by=$keyring] $MIRROR $suite main"; done >sources.list
    # Only QEMU and its firmware come from backports; their libraries from the suite itself wherever it will do.
    printf '%s\n' "Package: qemu-system-x86 qemu-system-common qemu-system-data seabios ipxe-qemu" \
        "Pin: release n=$SUITE-backports" "Pin-Priority: 990" >preferences
    cat >"$CACHE/apt/apt.conf" <<CONF
Dir::Etc::sourcelist "$PWD/sources.list";
Dir::Etc::sourceparts "$PWD/none";
Dir::Etc::preferences "$PWD/preferences";
Dir::Etc::preferencesparts "$PWD/none";
Dir::State::lists "$PWD/lists";
Dir::Cache "$PWD";
Acquire::Languages "none";
APT::Sandbox::User "root";
CONF
    private_apt apt-get -q update
}

# Version 8 was the first with the igb NIC, the one PCI device QEMU has with SR-IOV and an upstream Linux driver.
has_qemu() { qemu-system-x86_64 -device help 2>/dev/null | grep '"igb"' >/dev/null; }
qemu() {
    ! has_qemu || return 0
    say "installing QEMU from $SUITE-backports"
    logged qemu private_apt apt-get "${INSTALL[@]}" qemu-system-x86
}

kernel_packages() {
    private_apt apt-get -q download "linux-image-$KVER=$DEBVER" "linux-headers-$KVER=$DEBVER" \
        "linux-headers-${KVER%-amd64}-common=$DEBVER" "linux-kbuild-${KVER%-amd64}=$DEBVER" "linux-source-$KERNEL_SERIES=$DEBVER"
    for deb in *.deb; do
        dpkg -x "$deb" .
        rm "$deb"
    done
    echo "$KVER" >version
    mv "boot/vmlinuz-$KVER" vmlinuz
    # The headers name their sibling by the path of an installed package: lead them to this folder instead.
    sed -i "s|/usr/src/|$PWD/usr/src/|" "usr/src/linux-headers-$KVER/Makefile"
    rm -rf boot usr/share
}

# Debian's kernels come without netdevsim.
netdevsim() {
    kernel_tree drivers/net/netdevsim
    patch -d linux -p1 <"$LAB/netdevsim-flower.patch"
    # No BTF: it would need pahole, and one that matches the kernel.
    make -C "$CACHE/kernel/current/usr/src/linux-headers-$KVER" M="$PWD/linux/drivers/net/netdevsim" \
        CONFIG_NETDEVSIM=m CONFIG_DEBUG_INFO_BTF_MODULES= modules
    # A module tree of hard links, with netdevsim where depmod gives it precedence: 'modprobe netdevsim' just works.
    mkdir -p lib/modules
    cp -al "$CACHE/kernel/current/lib/modules/$KVER" lib/modules/
    (cd "lib/modules/$KVER/kernel" && rm -r sound drivers/{gpu,hid,iio,media,scsi,staging,usb} drivers/net/wireless) # depmod reads all
    install -Dm644 -t "lib/modules/$KVER/updates" linux/drivers/net/netdevsim/netdevsim.ko
    depmod -b . "$KVER"
    rm -r linux
}

initramfs() {
    local tree=$CACHE/netdevsim/current module path applet n=0
    mkdir -p i/{bin,dev,lower,proc,root,sys,upper} "i/mods/$KVER"
    cp /bin/busybox i/bin/
    install -m755 "$LAB/guest/initramfs-init.sh" i/init
    for applet in cat echo insmod mkdir mount poweroff sh sleep switch_root uname; do ln -s busybox "i/bin/$applet"; done
    for module in virtio_pci 9pnet_virtio 9p overlay; do modprobe -d "$tree" -S "$KVER" -D $module; done |
        awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
        while read -r path; do
            n=$((n + 1))
            # shellcheck disable=SC2094 # another file, whose name is made of the first one's
            xz -dcf <"$path" >"i/mods/$KVER/$(printf %02d $n)-$(basename "$path" .xz)"
        done
    [ -n "$(ls "i/mods/$KVER")" ]
    (cd i && find . | cpio -o -H newc -R 0:0) | gzip >initramfs.gz
    rm -r i
}

rootfs() {
    mmdebstrap --variant=minbase --include="$GUEST_PACKAGES" --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' $SUITE root "$MIRROR"
    mkdir -p root/share root/hwlab root/lib/modules root/opt/site root/opt/tree/mecexporter
}

# What qemu.c stands for: a process that looks like a virtual machine's.
programs() { gcc -O1 -Wall -Werror -o qemu-system-x86_64 "$LAB/guest/qemu.c"; }

# The locked packages for the guest's Python, whatever Python asks for them here. `ovs` comes as source only; its
# Python part holds for any version, and a C part made for another is not found and not needed.
python_packages() {
    local lock=$TREE/requirements-dev.txt
    awk '/^[a-zA-Z]/ { keep = !/^ovs==/ } keep' "$TREE/requirements.txt" >wheels.txt
    grep -q '^pyroute2==' wheels.txt || awk '/^[a-zA-Z]/ { keep = /^pyroute2==/ } keep' "$lock" >>wheels.txt
    awk '/^[a-zA-Z]/ { keep = /^ovs==/ } keep' "$TREE/requirements.txt" >source.txt
    set -- "$PYTHON" -m pip --disable-pip-version-check install --no-deps --no-compile --require-hashes --target site
    "$@" --python-version $GUEST_PYTHON --only-binary=:all: -r wheels.txt
    "$@" --no-build-isolation -r source.txt
}

# Compiled by the guest's own Python: software emulation would take a minute for it at every start.
compiled_packages() {
    cp -al "$CACHE/python/current/site" site
    export ROOT=$CACHE/rootfs/current/root
    # shellcheck disable=SC2016 # the inner shell's own
    unshare -m sh -ec 'mount --bind site "$ROOT/opt/site"; chroot "$ROOT" python3 -m compileall -q -j2 /opt/site'
}

[ "${1:-}" != --refresh ] || rm -rf "$CACHE/apt"
# Old lists name packages that the archive no longer has: fetch them anew where something will be fetched.
if [ ! -e "$CACHE/kernel/current/.done" ] || ! has_qemu; then rm -rf "$CACHE/apt"; fi

# Two at a time, on two cores.
(
    stage rootfs $SUITE "$MIRROR" "$GUEST_PACKAGES" -- rootfs
    stage python "$TREE/requirements.txt" "$TREE/requirements-dev.txt" -- python_packages
    stage site "$(readlink "$CACHE/python/current")" "$(readlink "$CACHE/rootfs/current")" -- compiled_packages
) &
system=$!
stage apt "$MIRROR" $SUITE "$CACHE" -- apt_index
qemu
KVER=$(private_apt apt-cache pkgnames linux-image-$KERNEL_SERIES | sed -nE 's/^linux-image-([0-9.]+\+deb12-amd64)$/\1/p' | sort -V | tail -n 1)
[ -n "$KVER" ] || die "$SUITE-backports holds no linux-image-$KERNEL_SERIES: try --refresh"
DEBVER=$(private_apt apt-cache show "linux-image-$KVER" | sed -n '0,/^Version: /s/^Version: //p')
stage kernel "$KVER" "$DEBVER" "$CACHE" -- kernel_packages
stage netdevsim "$CACHE/kernel/current/usr/src/linux-headers-$KVER/.config" "$DEBVER" "$LAB/netdevsim-flower.patch" -- netdevsim
stage initramfs "$DEBVER" "$LAB/guest/initramfs-init.sh" -- initramfs
stage programs "$LAB/guest/qemu.c" -- programs
wait $system
say "ready in $SECONDS s: kernel $KVER"
