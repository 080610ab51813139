#!/bin/bash
# Statistics and features of representors and uplinks: a netdevsim in switchdev mode, a bond and a VLAN in Open vSwitch.
# Its driver tells no CPU hits (IFLA_OFFLOAD_XSTATS_CPU_HIT): nothing here has them.
# shellcheck disable=SC2016,SC2119,SC2317 # check evaluates its words when it is called
# shellcheck source=tests/hwlab/guest/lib.sh
. /hwlab/lib.sh
REPRESENTORS="p3_0 p3_1 p3_2"
links() { # shellcheck disable=SC2086 # several words
    "$@" python3 /hwlab/links.py p3 $REPRESENTORS
}
send() { python3 -c "import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('$1', 0))
for _ in range($2): s.send(b'\xff' * 12 + b'\x88\xb5' + b'\0' * ($3 - 14))"; }
ours() { jq -c --arg d "$1" '.statistics[$d] | [.rx_packets, .tx_packets, .rx_bytes, .tx_bytes, .rx_dropped, .tx_dropped]' links.json; }
theirs() { ip -j -s link show "$1" | jq -c '.[0].stats64 | [.rx.packets, .tx.packets, .rx.bytes, .tx.bytes, .rx.dropped + .rx.over_errors, .tx.dropped]'; }
same() { [ "$(ours "$1")" = "$(theirs "$1")" ]; }
load netdevsim bonding 8021q veth
cd /share || exit 1

say "switchdev mode, 3 VFs"
switchdev 3 p3 3
for device in p3 $REPRESENTORS; do
    echo 1 >"/proc/sys/net/ipv6/conf/$device/disable_ipv6"
    ip link set "$device" up
done
ethtool -K p3_1 hw-tc-offload on
ethtool -K p3_2 hw-tc-offload off
send p3_0 300 100
links env >links.json
cat links.json
for device in p3 $REPRESENTORS; do check "$device as ip shows it" same "$device"; done
check "p3_0 has sent, or dropped, each of 300" eval '[ "$(ours p3_0 | jq ".[1] + .[5]")" = 300 ]'
check "no CPU hits are told" eval '[ "$(jq .cpu_hit links.json)" = "{}" ]'
check "the feature of each" eval '[ "$(jq -c "[.tc_offload.p3_1, .tc_offload.p3_2]" links.json)" = "[true,false]" ]'
check "the PF is an uplink, its representors are none" eval '[ "$(jq -c .uplinks links.json)" = "[\"p3\"]" ]'
record netdevsim-switchdev.stats.bin python3 /hwlab/record.py stats
links setpriv --reuid=65534 --regid=65534 --clear-groups >nobody.json
check "nobody is told the same" diff links.json nobody.json
ip link set p3_2 name gone
links env >links.json
check "one that was renamed is left out" eval '[ "$(jq ".statistics | has(\"p3_2\")" links.json)" = false ]'
mount -o remount,ro /sys
check "with a read-only /sys" links env
mount -o remount,rw /sys

say "a bond and a VLAN, in Open vSwitch"
nsim 1 u1
nsim 2 u2
ip link show bond0 >/dev/null 2>&1 || ip link add bond0 type bond # the module makes one
for device in u1 u2; do ip link set $device master bond0; done
ip link set bond0 up
ip link add link bond0 name bond0.7 type vlan id 7
ip link add v1 type veth peer name v2
ip link add link v1 name v1.9 type vlan id 9
ip address add 192.0.2.7/24 dev v1.9
start_ovs
ovs-vsctl set open_vswitch . external_ids:system-id=x external_ids:ovn-remote=tcp:127.0.0.1:1 \
    external_ids:ovn-encap-type=geneve external_ids:ovn-encap-ip=192.0.2.7 other_config:tc-policy=skip_sw
ovs-vsctl add-br br-ex -- add-port br-ex bond0 -- add-br br-vlan -- add-port br-vlan bond0.7
send u1 40 60
cat >config.yaml <<'Y'
roles: [compute]
host: {state_dir: /tmp/state}
Y
mec once --config config.yaml >once.prom
grep -E '^mec_(uplink_packets|offload)' once.prom
uplinks() { grep '^mec_uplink_packets_total' once.prom | sed 's/.*device="\([^"]*\)".*/\1/' | sort -u | tr '\n' ' '; }
check "the bond by its members, the tunnels' address by the NIC below its VLAN" eval '[ "$(uplinks)" = "u1 u2 v1 " ]'
check "what is configured" eval 'grep -q "^mec_offload_enabled 1" once.prom && grep -q "tc_policy_info{policy=\"skip_sw\"} 1" once.prom'
check "which policy it took nobody has seen" eval '! grep -q tc_policy_running_info once.prom'
check "hw-tc-offload of an uplink" grep -q 'mec_offload_device_enabled{device="u1",pf=""}' once.prom

say "what runs"
policies() { grep -oE "Flow API Enabled|Using policy '[a-z_]+'" /tmp/ovs-vswitchd.log | tr '\n' ' '; }
check "it began with the policy of its start" eval '[ "$(policies)" = "Flow API Enabled Using policy '"'none'"' " ]'
ovs-vsctl set open_vswitch . other_config:hw-offload=false
ovs-vsctl set open_vswitch . other_config:hw-offload=true
check "and takes no other" eval '[ "$(policies)" = "Flow API Enabled Using policy '"'none'"' " ]'
finish
