#!/bin/bash
# kernel_flows.sh: flows of the kernel's datapath as it tells them by netlink, beside what ovs-appctl says of them:
# conntrack, GRE, tunnels, VLANs, what ovs-vswitchd handles itself, and what TC does not know. Needs --kernel debian.
# shellcheck disable=SC2016,SC2034,SC2046,SC2086,SC2317 # check evaluates its words when it is called
# shellcheck source=tests/hwlab/guest/lib.sh
. /hwlab/lib.sh
load openvswitch nf_conntrack nf_conntrack_netlink ip_gre veth geneve act_mirred sch_ingress cls_flower
sysctl -q -w net.netfilter.nf_conntrack_acct=1 net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
start_ovs hw-offload=false max-idle=60000
ovs-vsctl add-br br0; ip link set br0 up
for n in 1 2; do
  ip link add "q$n" type veth peer name "q${n}p"; ip link set "q$n" up; ovs-vsctl add-port br0 "q$n"
done
host a q1p 10.0.0.1/24; host b q2p 10.0.0.2/24
for h in a b; do ip netns exec $h sysctl -q -w net.ipv6.conf.all.disable_ipv6=1; done
ovs-vsctl add-port br0 gnv -- set interface gnv type=geneve options:remote_ip=flow options:key=flow
kernel() { flows type=ovs; }

say "conntrack, and GRE through it"
track_gre
ovs-ofctl add-flows br0 - <<'F'
table=0,priority=10,ip,ct_state=-trk,actions=ct(table=1,zone=5)
table=1,priority=10,ip,ct_state=+trk+new,actions=ct(commit,zone=5),normal
table=1,priority=10,ip,ct_state=+trk+est,actions=normal
F
gre a 10.0.0.1 10.0.0.2 192.168.9.1/24; gre b 10.0.0.2 10.0.0.1 192.168.9.2/24
check "ping" ping_from a 10.0.0.2
check "ping through GRE" ping_from a 192.168.9.2
check "GRE to conntrack in the kernel's datapath" eval "kernel | grep -q 'proto=47.*dp:ovs, actions:ct(zone=7)'"
# Nothing has moved between two rounds of ovs-vswitchd's own over all flows.
settled() {
  kernel | grep -o 'packets:[0-9]*' >/tmp/one
  ovs-appctl revalidator/wait
  kernel | grep -o 'packets:[0-9]*' | cmp - /tmp/one
}
wait_for 20 settled
record kernel-ct.dump-flows.txt kernel
record kernel-ct.flows.bin python3 /hwlab/record.py flows ovs-system
record kernel-ct.vports.bin python3 /hwlab/record.py vports ovs-system
record kernel-ct.datapaths.bin python3 /hwlab/record.py datapaths
record kernel-ct.dpctl-show.txt ovs-appctl dpctl/show
record kernel-ct.conntrack.bin python3 /hwlab/record.py conntrack
record kernel-ct.conntrack.txt conntrack -L -o extended,id

say "what else there is"
ovs-ofctl del-flows br0; ovs-appctl revalidator/purge
ovs-ofctl add-flows br0 - <<'F'
priority=30,arp,actions=controller,normal
priority=29,icmp,actions=controller
priority=28,udp,tp_dst=7001,actions=mod_nw_ttl:9,set_field:10.9.9.9->tun_dst,set_field:77->tun_id,output:gnv
priority=28,udp,tp_dst=7002,actions=mod_vlan_vid:5,output:q2
priority=28,udp,tp_dst=7003,actions=check_pkt_larger(1000)->NXM_NX_REG0[0],resubmit(,5)
priority=28,udp,tp_dst=7004,actions=set_field:0x5->pkt_mark,resubmit(,6)
priority=28,udp,tp_dst=7005,actions=output(port=q2,max_len=100)
priority=28,udp,tp_dst=7006,actions=sample(probability=32768,collector_set_id=1),output:q2
priority=28,udp,tp_dst=7007,actions=dec_ttl(1),output:q2
priority=28,udp,tp_dst=67,actions=output:q2
priority=28,udp,tp_dst=7008,actions=drop
priority=28,tcp,actions=clone(ct(commit,zone=3),output:q1),output:q2
priority=28,udp,tp_dst=7009,dl_vlan=9,actions=strip_vlan,output:q2
table=5,reg0=0x1,actions=output:q2
table=5,actions=output:q2,output:gnv
table=6,pkt_mark=0x5,actions=output:q2
F
ovs-vsctl -- --id=@i create ipfix targets='"127.0.0.1:4739"' \
  -- --id=@b get bridge br0 -- create Flow_Sample_Collector_Set id=1 bridge=@b ipfix=@i >/tmp/ipfix
cat >/tmp/send.py <<'P'
import socket, struct, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("q1p", 0))
mac = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")
def send(proto, payload, vlan=b"", kind=0x0800):
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, proto, 0, bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)))
    total = sum(struct.unpack(">10H", ip)); total = (total >> 16) + (total & 0xFFFF); total = ~(total + (total >> 16)) & 0xFFFF
    ip = ip[:10] + struct.pack(">H", total) + ip[12:]
    raw.send(mac[0] + mac[1] + vlan + struct.pack(">H", kind) + ip + payload)
def udp(port, source=1000, size=10):
    return struct.pack(">HHHH", source, port, 8 + size, 0) + bytes(size)
for _ in range(3):
    for port in (*range(7001, 7009), 67):
        send(17, udp(port))
    send(17, udp(7009), vlan=struct.pack(">HH", 0x8100, 9))
    send(1, bytes((8, 0, 0xf7, 0xff)) + bytes(8))
    send(6, struct.pack(">HHIIHHHH", 1000, 80, 1, 0, 0x5002, 1000, 0, 0))
P
ip netns exec a python3 /tmp/send.py
wait_for 20 settled # the first packets have made the flows that the others pass
ip netns exec a python3 /tmp/send.py
wait_for 20 settled
check "a tunnel" eval "kernel | grep -q 'set(tunnel('"
check "a sample" eval "kernel | grep -q 'flow_sample('"
check "what ovs-vswitchd does itself" eval "kernel | grep -q 'userspace(pid=.*controller('"
check "a packet's length" eval "kernel | grep -q 'check_pkt_len('"
check "a mark" eval "kernel | grep 'actions:.*skb_mark'"
check "a VLAN" eval "kernel | grep -q 'encap(eth_type(0x0800),.*pop_vlan'"
check "a part of a packet" eval "kernel | grep -q 'trunc(100)'"
kernel
record kernel-other.dump-flows.txt kernel
record kernel-other.flows.bin python3 /hwlab/record.py flows ovs-system
record kernel-other.vports.bin python3 /hwlab/record.py vports ovs-system
finish
