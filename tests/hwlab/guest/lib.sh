# shellcheck shell=bash
# Functions for scripts in the guest: '. /hwlab/lib.sh'. A script of checks ends with 'finish'.
failures=0
say() { printf '\n== %s (%s s)\n' "$*" "$(cut -d. -f1 /proc/uptime)"; }

# check WHAT COMMAND...: one line, ok or FAIL; finish counts the failures.
check() {
    local what=$1
    shift
    if "$@" >/tmp/check 2>&1; then
        echo "ok    $what"
    else
        echo "FAIL  $what"
        sed 's/^/      /' /tmp/check | head -n 20
        failures=$((failures + 1))
    fi
}
finish() {
    say "$failures failed"
    [ $failures = 0 ]
    exit
}

# wait_for SECONDS COMMAND...: until COMMAND succeeds
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { echo "not in time: $*" >&2; return 1; }
        sleep 0.2
    done
}
wait_uptime() { while [ "$(cut -d. -f1 /proc/uptime)" -lt "$1" ]; do sleep 0.2; done; }

# record NAME COMMAND...: keeps COMMAND's output as $RECORD/NAME, if there is a folder to record into
record() {
    local name=$1
    shift
    [ -z "${RECORD:-}" ] || { mkdir -p "$RECORD"; "$@" >"$RECORD/$name"; }
}

# load MODULE...: nothing to do on the custom kernel, where all is built in
load() { [ ! -d "/lib/modules/$(uname -r)" ] || modprobe -a "$@"; }
load_offload() {
    load psample macsec cls_flower sch_ingress act_mirred act_ct act_gact act_vlan act_pedit act_csum act_tunnel_key \
        act_skbedit openvswitch nf_conntrack ip_gre veth netdevsim
}

# mec ARG...: the exporter of the tree under test; in the background say it in full, for $! to be its own pid
mec() { python3 -m mecexporter "$@"; }

# network: of a guest with ports forwarded; 10.0.2.2 is the loopback of the machine that runs it
network() {
    local dev
    load virtio_net
    dev=$(basename "$(dirname "$(grep -l 52:54:00:aa:ff:01 /sys/class/net/*/address)")")
    ip addr add 10.0.2.15/24 dev "$dev"
    ip link set "$dev" up
    ip link set lo up
}

# obey: runs each script that appears as /share/todo/N, in order, until one is called 'end'; its exit status and what it
# said come to be /share/done/N. They run in this shell, and know what those before them have set
obey() {
    local n=1 code
    set +eE
    trap - ERR
    mkdir -p /share/todo /share/done
    until [ -e /share/todo/end ]; do
        if [ -e "/share/todo/$n" ]; then
            # shellcheck disable=SC1090 # comes when it comes
            . "/share/todo/$n" >/tmp/said 2>&1
            code=$?
            { echo $code; cat /tmp/said; } >/share/done/.now
            mv /share/done/.now "/share/done/$n"
            n=$((n + 1))
        else
            sleep 0.1
        fi
    done
}

## SR-IOV: the igb NIC. Its netdev is pf0, those of its VFs pf0v0, pf0v1, ... PF is its address.
PF=0000:01:00.0
PF_DIR=/sys/bus/pci/devices/$PF
UUID=11111111-2222-4333-8444-555555555555

netdev_of() { ls "/sys/bus/pci/devices/$1/net"; }
name_netdev() { # ADDRESS NAME: there is no udev here
    wait_for 10 netdev_of "$1"
    [ "$(netdev_of "$1")" = "$2" ] || ip link set "$(netdev_of "$1")" name "$2"
}

# pf: drivers loaded, the PF there and up
pf() {
    load igb igbvf vfio-pci
    name_netdev $PF pf0
    ip link set pf0 up
}

# vfs NUMBER: so many VFs, each on the host's driver; 0 removes them
vfs() {
    local n
    echo "$1" >$PF_DIR/sriov_numvfs
    for ((n = 0; n < $1; n++)); do name_netdev "$(vf "$n")" "pf0v$n"; done
}
vf() { basename "$(readlink "$PF_DIR/virtfn$1")"; }                 # INDEX: its address
vf_group() { basename "$(readlink "$PF_DIR/virtfn$1/iommu_group")"; } # INDEX
vf_driver() { basename "$(readlink "$PF_DIR/virtfn$1/driver")"; }     # INDEX

# vf_bind INDEX DRIVER: vfio-pci, igbvf, or none
vf_bind() {
    local address
    address=$(vf "$1")
    [ ! -e "$PF_DIR/virtfn$1/driver" ] || echo "$address" >"$PF_DIR/virtfn$1/driver/unbind"
    case $2 in
        none) return ;;
        igbvf) echo >"$PF_DIR/virtfn$1/driver_override" ;;
        *) echo "$2" >"$PF_DIR/virtfn$1/driver_override" ;;
    esac
    echo "$address" >/sys/bus/pci/drivers_probe
    wait_for 10 test -e "$PF_DIR/virtfn$1/driver"
    [ "$2" != igbvf ] || name_netdev "$address" "pf0v$1"
}

# vf_info INDEX FIELD: what the PF's netlink tells of a VF: address, vlan_list[0].vlan, spoofchk, trust, link_state
vf_info() { ip -j -d link show pf0 | jq -r ".[0].vfinfo_list[] | select(.vf == $1) | .$2"; }

# hold INDEX [UUID]: a process that is to /proc what a virtual machine's QEMU is has the VF open; HELD_BY is its pid
hold() {
    local group uuid=${2:-$UUID}
    group=$(vf_group "$1")
    python3 /hwlab/hold.py "$group" "$(vf "$1")" -- /hwlab/qemu-system-x86_64 /usr/bin/qemu-system-x86_64 \
        -name guest=instance-0000000a,debug-threads=on -S -machine pc-q35-7.2,usb=off -uuid "$uuid" -no-user-config \
        -device "vfio-pci,host=$(vf "$1"),id=hostdev0" >/dev/null 2>&1 &
    HELD_BY=$!
    wait_for 10 grep -q ^qemu-system-x86 /proc/$HELD_BY/comm
}
# release: the virtual machine ends
release() {
    kill "$HELD_BY"
    wait "$HELD_BY" 2>/dev/null || : # ended by a signal
}

# unplug, replug: the PF leaves the PCI bus, and is found again without VFs
unplug() { echo 1 >$PF_DIR/remove; }
replug() {
    echo 1 >/sys/bus/pci/rescan
    pf
}

## netdevsim
# nsim ID NAME: a netdevsim device with one port, the port renamed to NAME
nsim() {
    local dir=/sys/bus/netdevsim/devices/netdevsim$1/net
    echo "$1 1" >/sys/bus/netdevsim/new_device
    wait_for 5 test -d "$dir" && ip link set "$(ls "$dir")" name "$2"
}

# switchdev ID NAME NUMBER: a netdevsim in switchdev mode with so many VFs; their representors are NAME_0, NAME_1, ...
switchdev() {
    local dir=/sys/bus/netdevsim/devices/netdevsim$1 device n=0
    load netdevsim
    nsim "$1" "$2"
    echo "$3" >"$dir/sriov_numvfs"
    devlink dev eswitch set "netdevsim/netdevsim$1" mode switchdev
    for device in "$dir"/net/*; do
        case $(cat "$device/phys_port_name") in
            pf*vf*)
                ip link set "$(basename "$device")" name "$2_$n"
                n=$((n + 1))
                ;;
        esac
    done
}

# host NS DEVICE ADDRESS: a namespace that plays a machine
host() {
    ip netns add "$1"
    ip -n "$1" link set lo up
    ip link set "$2" netns "$1"
    ip -n "$1" link set "$2" up
    ip -n "$1" address add "$3" dev "$2"
}

# nsim_link DEVICE NS NS_DEVICE: a cable between a netdevsim port here and one in a namespace
nsim_link() {
    local here there a b
    here=$(cat "/sys/class/net/$1/ifindex")
    there=$(ip -n "$2" -j link show "$3" | jq '.[0].ifindex')
    exec {a}</proc/self/ns/net {b}<"/run/netns/$2"
    echo "$a:$here $b:$there" >/sys/bus/netdevsim/link_device
    exec {a}<&- {b}<&-
}

# hw_counters PACKETS BYTES: what the patched netdevsim reports for every flower rule; raise, never lower
hw_counters() {
    echo "$1" >/sys/module/netdevsim/parameters/flower_hw_pkts
    echo "$2" >/sys/module/netdevsim/parameters/flower_hw_bytes
}

# two_hosts: 'a' (10.0.0.1) and 'b' (10.0.0.2) on the bridge br0 through the netdevsim ports p1 and p2
two_hosts() {
    local port
    nsim 1 p1
    nsim 2 h1
    nsim 3 h2
    nsim 4 p2
    host a h1 10.0.0.1/24
    host b h2 10.0.0.2/24
    nsim_link p1 a h1
    nsim_link p2 b h2
    for port in p1 p2; do
        ethtool -K $port hw-tc-offload on
        ip link set $port up
    done
    ovs-vsctl add-br br0 -- add-port br0 p1 -- add-port br0 p2
    ip link set br0 up
}

## Open vSwitch
# start_ovs [KEY=VALUE...]: with hw-offload and the other_config given. Started before about 10 s of uptime, OVS 3.1 runs
# with 0 handler threads and drops every upcall: hence the wait.
start_ovs() {
    local pair
    wait_uptime 12
    ovsdb-tool create /tmp/conf.db /usr/share/openvswitch/vswitch.ovsschema
    ovsdb-server /tmp/conf.db --remote=punix:/run/openvswitch/db.sock --pidfile --detach --log-file=/tmp/ovsdb-server.log \
        2>/dev/null
    ovs-vsctl --no-wait init
    for pair in hw-offload=true "$@"; do ovs-vsctl --no-wait set open_vswitch . "other_config:$pair"; done
    ovs-vswitchd --pidfile --detach --log-file=/tmp/ovs-vswitchd.log 2>/dev/null
}
flows() { ovs-appctl dpctl/dump-flows -m "$@"; }

# gre NS LOCAL REMOTE ADDRESS: a GRE tunnel g1 in a namespace
gre() {
    ip -n "$1" link add g1 type gre local "$2" remote "$3"
    ip -n "$1" address add "$4" dev g1
    ip -n "$1" link set g1 up
}

# track_gre: br0's rules so that GRE passes connection tracking, and ARP as usual; what else is to pass, the caller adds
track_gre() {
    ovs-ofctl del-flows br0
    ovs-ofctl add-flows br0 - <<'F'
table=0,priority=10,arp,actions=normal
table=0,priority=20,ip,nw_proto=47,ct_state=-trk,actions=ct(table=1,zone=7)
table=1,priority=20,ip,nw_proto=47,ct_state=+trk+new,actions=ct(commit,zone=7),normal
table=1,priority=20,ip,nw_proto=47,ct_state=+trk+est,actions=normal
F
}

# ping_from NS ADDRESS: 8 pings; fails unless at least one is answered (the first may be lost to ARP or an upcall)
ping_from() { ip netns exec "$1" ping -q -c 8 -i 0.3 "$2"; }
