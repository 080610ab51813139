#!/bin/bash
# offload.sh: Open vSwitch offloads to TC, the patched netdevsim takes the rules and reports injected counters;
# connection tracking falls back to the kernel datapath. Needs --kernel debian (without NET_TC_SKB_EXT).
# shellcheck disable=SC2016,SC2034,SC2046,SC2086,SC2317 # check evaluates its words when it is called
# shellcheck source=tests/hwlab/guest/lib.sh
. /hwlab/lib.sh
load_offload
start_ovs max-idle=60000
two_hosts
hw_counters 7777 999999
tc_filters() { tc -s "$@" filter show dev p1 ingress; }
count() { flows "type=$1" | grep -c ufid; }

say "plain forwarding"
check "ping" ping_from a 10.0.0.2
check "IPv4 flows offloaded, in tc" wait_for 10 eval "flows | grep 0x0800 | grep -q 'offloaded:yes, dp:tc'"
flows | grep 0x0800
check "none in the kernel datapath" eval "! flows type=ovs | grep 0x0800"
check "the filter is in_hw" eval "tc_filters | grep -A8 'eth_type ipv4' | grep -q in_hw"
check "hardware counters are those injected" eval "tc_filters -j | jq -e 'any(.[].options.actions[]?; .stats.hw_packets == 7777 and .stats.hw_bytes == 999999)'"
record offload.filters.bin python3 /hwlab/record.py filters p1
record offload.tc.txt tc_filters; record offload.tc.json tc_filters -j
record offload.dump-flows.txt flows

say "hardware counters go on"
hw_counters 8888 1234567
check "the flow has them" wait_for 10 eval "flows | grep 0x0800 | grep -qE 'packets:88[89][0-9], '"

say "a rule the hardware refuses stays in TC software"
echo 0 >/sys/module/netdevsim/parameters/flower_accept; ovs-appctl revalidator/purge
check "ping" ping_from a 10.0.0.2
check "dp:tc without offloaded:yes" eval "flows | grep 0x0800 | grep dp:tc | grep -vq offloaded:yes"
check "the filter is not_in_hw" eval "tc_filters | grep -A8 'eth_type ipv4' | grep -q not_in_hw"
record offload-refused.filters.bin python3 /hwlab/record.py filters p1
record offload-refused.dump-flows.txt flows
echo 1 >/sys/module/netdevsim/parameters/flower_accept

say "connection tracking, and GRE through it"
ovs-ofctl del-flows br0
ovs-ofctl add-flows br0 - <<'F'
table=0,priority=10,arp,actions=normal
table=0,priority=10,ip,ct_state=-trk,actions=ct(table=1,zone=5)
table=1,priority=10,ip,ct_state=+trk+new,actions=ct(commit,zone=5),normal
table=1,priority=10,ip,ct_state=+trk+est,actions=normal
F
gre a 10.0.0.1 10.0.0.2 192.168.9.1/24; gre b 10.0.0.2 10.0.0.1 192.168.9.2/24
check "ping" ping_from a 10.0.0.2
check "ping through GRE" ping_from a 192.168.9.2
wait_for 10 eval "flows | grep -E 'ct\(|recirc_id\(0x[1-9a-f]' | grep 0x0800 | grep -q dp:ovs"
flows | grep 0x0800; for t in tc ovs offloaded non-offloaded; do echo "      type=$t: $(count $t)"; done
check "every CT flow is in the kernel datapath" eval "flows | grep -E 'ct\(|recirc_id\(0x[1-9a-f]' | grep 0x0800 | grep -q dp:ovs && ! flows type=tc | grep -E 'ct\('"
check "conntrack knows GRE" eval "ovs-appctl dpctl/dump-conntrack | grep -qE '^(47|gre),'"
record ct-fallback.dump-flows.txt flows
record ct-fallback.dump-conntrack.txt ovs-appctl dpctl/dump-conntrack -m
record ct-fallback.conntrack.txt conntrack -L -o extended
record ct-fallback.filters.bin python3 /hwlab/record.py filters p1
finish
