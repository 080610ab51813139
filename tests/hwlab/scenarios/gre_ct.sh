#!/bin/bash
# gre_ct.sh: GRE under connection tracking wholly in TC, in_hw. Needs --kernel custom (NET_TC_SKB_EXT). A third
# machine behind a veth, which has no offload, gives flows in TC software beside them.
# shellcheck disable=SC2016,SC2034,SC2046,SC2086,SC2119,SC2317 # check evaluates its words when it is called
# shellcheck source=tests/hwlab/guest/lib.sh
. /hwlab/lib.sh
load_offload
start_ovs max-idle=60000
two_hosts
ip link add v1 type veth peer name v1p; host c v1p 10.0.0.3/24; ip link set v1 up; ovs-vsctl add-port br0 v1
hw_counters 7777 999999
ovs-ofctl del-flows br0
ovs-ofctl add-flows br0 - <<'F'
table=0,priority=10,arp,actions=normal
table=0,priority=20,ip,nw_proto=47,ct_state=-trk,actions=ct(table=1,zone=7)
table=0,priority=10,ip,ct_state=-trk,actions=ct(table=1,zone=5)
table=1,priority=20,ip,nw_proto=47,ct_state=+trk+new,actions=ct(commit,zone=7,exec(set_field:0x2a->ct_mark)),normal
table=1,priority=20,ip,nw_proto=47,ct_state=+trk+est,actions=normal
table=1,priority=10,ip,ct_state=+trk+new,actions=ct(commit,zone=5),normal
table=1,priority=10,ip,ct_state=+trk+est,actions=normal
F
gre a 10.0.0.1 10.0.0.2 192.168.9.1/24; gre b 10.0.0.2 10.0.0.1 192.168.9.2/24
tc_filters() { tc -s "${@:2}" filter show dev "$1" ingress; }

say "traffic"
check "ping" ping_from a 10.0.0.2
check "ping through GRE" ping_from a 192.168.9.2
check "ping from the veth" ping_from c 10.0.0.2
wait_for 10 eval "flows | grep -q 'ct_state(0x22/0x22).*in_port(p1).*proto=47.*offloaded:yes, dp:tc'"
flows | grep proto=47
check "GRE to conntrack, offloaded" eval "flows | grep -q 'recirc_id(0).*in_port(p1).*proto=47.*offloaded:yes, dp:tc, actions:ct(zone=7)'"
check "established GRE, offloaded" eval "flows | grep -q 'ct_state(0x22/0x22).*in_port(p1).*proto=47.*offloaded:yes, dp:tc'"
check "nothing in the kernel datapath" eval "! flows type=ovs | grep 0x0800"
check "the veth's flows are in TC software" eval "flows | grep 'recirc_id(0).*in_port(v1).*0x0800' | grep dp:tc | grep -v offloaded:yes | grep -q 'actions:ct('"
check "filters of chain 0 and of a later chain, in_hw" eval "tc_filters p1 -j | jq -e '[.[] | select(.options.in_hw) | .chain] | (min == 0) and (max > 0)'"
check "conntrack knows GRE, with its mark" eval "ovs-appctl dpctl/dump-conntrack | grep -E '^(47|gre),' | grep -q mark=42"
for p in p1 v1; do
  record gre-ct.$p.filters.bin python3 /hwlab/record.py filters $p
  record gre-ct.$p.tc.txt tc_filters $p; record gre-ct.$p.tc.json tc_filters $p -j
done
record gre-ct.dump-flows.txt flows
record gre-ct.dump-conntrack.txt ovs-appctl dpctl/dump-conntrack -m
record gre-ct.conntrack.txt conntrack -L -o extended

say "GRE without conntrack (a stateless security group)"
ovs-ofctl del-flows br0
printf '%s\n' priority=20,ip,nw_proto=47,actions=normal priority=1,actions=normal | ovs-ofctl add-flows br0 -
check "ping through GRE" ping_from a 192.168.9.2
check "offloaded, without ct" eval "flows | grep 'ct_state(0/0),.*proto=47' | grep -q 'offloaded:yes, dp:tc, actions:p2'"
record gre-stateless.dump-flows.txt flows
record gre-stateless.filters.bin python3 /hwlab/record.py filters p1
finish
