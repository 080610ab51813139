#!/bin/bash
# scale.sh [FILTERS [VFS]]: many filters and many VFs on netdevsim, for parsers and benchmarks.
# Any kernel.
# shellcheck disable=SC2016,SC2034,SC2046,SC2086,SC2317 # check evaluates its words when it is called
# shellcheck source=tests/hwlab/guest/lib.sh
. /hwlab/lib.sh
FILTERS=${1:-1000}
VFS=${2:-128}
load_offload
nsim 1 p1; nsim 2 p2; ip link set p1 up; ip link set p2 up
ethtool -K p1 hw-tc-offload on; tc qdisc add dev p1 ingress
hw_counters 7777 999999

say "$FILTERS filters"
for ((i = 0; i < FILTERS; i++)); do
  printf 'filter add dev p1 ingress prio 2 protocol ip handle %d flower src_mac 02:00:00:00:%02x:%02x dst_mac 02:00:00:01:%02x:%02x ip_proto 0x2f src_ip 10.%d.%d.1 dst_ip 10.1.0.2 action ct commit zone %d pipe action mirred egress redirect dev p2\n' \
    $((i + 1)) $((i >> 8)) $((i & 255)) $((i >> 8)) $((i & 255)) $((i >> 8)) $((i & 255)) $((1 + i % 100))
done >/tmp/batch
check "added" tc -b /tmp/batch
check "all in_hw" eval '[ $(tc filter show dev p1 ingress | grep -c "  in_hw") = $FILTERS ]'
record "scale-$FILTERS.filters.bin" python3 /hwlab/record.py filters p1

say "$VFS VFs"
echo "$VFS" >/sys/kernel/debug/netdevsim/netdevsim1/max_vfs; echo "$VFS" >/sys/bus/netdevsim/devices/netdevsim1/sriov_numvfs
check "all in VF information" eval '[ $(ip -d -j link show p1 | jq ".[0].vfinfo_list | length") = $VFS ]'
record "scale-${VFS}vf.links.bin" python3 /hwlab/record.py links

finish
