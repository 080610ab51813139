"""Where flows are, on a real kernel: Open vSwitch with hardware offload in a guest, counted to the packet.

netdevsim, patched, takes the filters and reports as hardware's whatever the test told it to: real netlink, never proof
of hardware.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests import hwlab
from tests.hwlab import Guest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(hwlab.unavailable()), reason=hwlab.unavailable() or "-"),
]

# take NAME: one more read, by a user without privileges, kept under this name.
# told NAME DEVICES: iproute2's word on the same filters.
READING = r"""
mkfifo /tmp/ask
setpriv --reuid nobody --clear-groups python3 /hwlab/tc_flows.py </tmp/ask >/tmp/told 2>/tmp/why &
exec 9>/tmp/ask
taken=0
more() { [ "$(wc -l </tmp/told)" -gt $taken ]; }
take() {
    echo >&9
    wait_for 30 more || { cat /tmp/why; return 1; }
    taken=$((taken + 1))
    tail -n 1 /tmp/told >"/share/$1.json"
}
told() { for d in $2; do tc -s -j filter show dev $d ingress; done | jq -s add >"/share/$1.tc.json"; }
quiet() { for n in a b c; do ip netns exec $n sysctl -qw net.ipv6.conf.all.disable_ipv6=1 2>/dev/null || :; done; }
pings() { ip netns exec "$1" ping -q -c "$3" -i 0.05 -W 5 "$2"; }
in_tc() { [ "$(flows type=tc | grep -c "$1")" -ge "$2" ]; }
"""

ORDINARY = r"""
load_offload
start_ovs max-idle=600000
two_hosts; quiet
hw_counters 7777 999999
ovs-ofctl del-flows br0
printf '%s\n' arp,actions=normal icmp,actions=normal | ovs-ofctl add-flows br0 -

take start
warm() { ip netns exec a ping -q -c 1 -W 1 10.0.0.2; in_tc 'proto=1.*offloaded:yes' 2; }
wait_for 30 warm
take known
pings a 10.0.0.2 20
take pinged
hw_counters 8777 1999999
take moved

echo 0 >/sys/module/netdevsim/parameters/flower_accept
ovs-appctl revalidator/purge
refused() { ip netns exec a ping -q -c 1 -W 1 10.0.0.2; in_tc proto=1 2; }
wait_for 30 refused
take refused
pings a 10.0.0.2 10
take refused_pinged
told refused "p1 p2"

# The same flows under the same names, made again, have soon carried more than they had before.
ovs-appctl revalidator/purge
wait_for 30 refused
pings a 10.0.0.2 60
told again "p1 p2"
take again
"""

# Without Open vSwitch: what its filters look like for VLANs and bonds, and tracked GRE in software.
BY_HAND = r"""
echo 1 >/sys/module/netdevsim/parameters/flower_accept
for n in 5 6 7; do nsim $n q$n; ethtool -K q$n hw-tc-offload on; ip link set q$n up; done
tc qdisc add dev q5 clsact
rule() { tc filter add dev q5 "$@"; }
rule ingress prio 1 protocol 802.1q flower vlan_id 5 vlan_ethtype ip ip_proto 0x2f action drop
qinq="vlan_id 6 vlan_ethtype 802.1q cvlan_id 7 cvlan_ethtype ip"
rule ingress prio 2 protocol 802.1ad flower $qinq ip_proto sctp action drop
rule ingress prio 4 protocol ip flower ip_proto udp dst_port 67 action drop
rule ingress prio 5 protocol ip flower ip_proto udp dst_port 53 action drop
rule ingress prio 6 protocol ipv6 flower ip_proto icmpv6 type 135 action drop
rule ingress prio 7 protocol ip flower skip_hw ip_proto 0x2f action ct pipe action drop
rule ingress prio 8 chain 4 protocol ip flower ct_state +trk+est ip_proto tcp action drop
rule ingress prio 9 protocol ip flower ip_proto tcp action ct pipe action gact goto chain 4
rule egress prio 2 protocol 802.1q flower vlan_id 8 vlan_ethtype arp action drop
rule egress prio 1 protocol ip flower skip_hw ip_proto tcp action drop
rule ingress prio 10 protocol ip flower enc_key_id 5 enc_dst_port 4789 ip_proto tcp action drop
rule ingress prio 11 protocol ip flower ip_flags frag action drop
rule ingress prio 12 protocol ip matchall action drop
for n in 6 7; do tc qdisc add dev q$n ingress_block 9 ingress; done
tc filter add block 9 protocol ip flower ip_proto 0x2f skip_hw action ct pipe action drop
take by_hand
"""


@dataclass
class Reads:
    """What the guest left behind."""

    share: Path

    def classes(self, name: str, **wanted: Any) -> list[dict[str, Any]]:
        every: list[dict[str, Any]] = json.loads((self.share / f"{name}.json").read_text())
        return [c for c in every if all(c[key] == value for key, value in wanted.items())]

    def sum(self, name: str, field: str, **wanted: Any) -> int:
        return sum(c.get(field, 0) for c in self.classes(name, **wanted))

    def told(self, name: str, field: str) -> int:
        """Of all ICMP filters that iproute2 shows."""
        filters = json.loads((self.share / f"{name}.tc.json").read_text())
        with_options = [f["options"] for f in filters if "keys" in f.get("options", {})]
        icmp = [o for o in with_options if o["keys"].get("ip_proto") == "icmp"]
        assert len(icmp) == 2
        return sum(o["actions"][-1]["stats"].get(field, 0) for o in icmp)


ICMP = {"protocol": "icmp", "terminal": True}
HARDWARE = ICMP | {"path": "hardware"}
MISSED = ICMP | {"path": "software", "obstacle": "missed"}
SOFTWARE = ICMP | {"path": "software", "obstacle": "none"}


def run(share: Path, *parts: str, kernel: Literal["debian", "custom"] = "debian") -> Reads:
    hwlab.prepare()
    done = Guest(share=share, kernel=kernel).sh("\n".join((READING, *parts)), timeout=300)
    assert done.returncode == 0, done.stdout
    return Reads(share)


def test_flows_of_a_real_kernel(tmp_path: Path) -> None:
    reads = run(tmp_path, ORDINARY, BY_HAND)

    # Pings that the CPU carries though the filter is in hardware, each way; an IPv4 packet of 84 bytes.
    assert reads.sum("start", "flows", **ICMP) == 0
    assert reads.sum("known", "flows", **ICMP) == reads.sum("known", "flows", **HARDWARE) == 2
    assert reads.sum("known", "packets", **HARDWARE) == 2 * 7777
    assert reads.sum("known", "bytes", **HARDWARE) == 2 * 999999
    assert reads.sum("pinged", "packets", **MISSED) - reads.sum("known", "packets", **MISSED) == 40
    assert reads.sum("pinged", "bytes", **MISSED) - reads.sum("known", "bytes", **MISSED) == 40 * 84
    assert reads.sum("pinged", "packets", **HARDWARE) == 2 * 7777
    assert reads.sum("moved", "packets", **HARDWARE) == 2 * 8777
    assert reads.sum("moved", "bytes", **HARDWARE) == 2 * 1999999
    assert reads.sum("moved", "packets", **MISSED) == reads.sum("pinged", "packets", **MISSED)
    assert reads.classes("moved", ordinary=False), "ARP"

    # The hardware refuses.
    assert reads.sum("refused", "flows", **ICMP) == reads.sum("refused", "flows", **SOFTWARE) == 2
    assert reads.sum("refused_pinged", "packets", **SOFTWARE) - reads.sum("refused", "packets", **SOFTWARE) == 20
    assert reads.sum("refused_pinged", "packets", **SOFTWARE) == reads.told("refused", "packets")
    assert reads.sum("refused_pinged", "packets", **HARDWARE) == 2 * 8777, "gone, and not forgotten"

    # Made again.
    assert reads.told("again", "packets") > reads.told("refused", "packets"), "they have overtaken themselves"
    gained = reads.sum("again", "packets", **SOFTWARE) - reads.sum("refused_pinged", "packets", **SOFTWARE)
    assert gained == reads.told("again", "packets")

    # By hand.
    assert reads.sum("by_hand", "flows", port_kind="tunnel") == 1
    assert reads.sum("by_hand", "flows", port_kind="tunnel", protocol="tcp", path="hardware") == 1
    gre = reads.classes("by_hand", protocol="gre")
    assert {(c["path"], c["obstacle"], c["conntrack"], c["port"], c["flows"]) for c in gre if c["flows"]} == {
        ("hardware", "none", False, "", 1),
        ("software", "skip_hw", True, "q5", 1),
        ("software", "skip_hw", True, "q6,q7", 1),
    }
    assert reads.sum("by_hand", "flows", protocol="sctp", path="hardware") == 1
    assert reads.sum("by_hand", "flows", protocol="udp", ordinary=False) == 1, "DHCP"
    assert reads.sum("by_hand", "flows", protocol="udp", ordinary=True) == 1, "DNS"
    assert reads.sum("by_hand", "flows", protocol="icmp", ordinary=False) == 1, "neighbour discovery"
    assert reads.sum("by_hand", "flows", protocol="tcp", port_kind="internal") == 1, "an egress hook"
    assert reads.sum("by_hand", "flows", protocol="tcp", conntrack=True, terminal=True) == 1, "by its match"
    assert reads.sum("by_hand", "flows", protocol="tcp", conntrack=True, terminal=False) == 1
    assert reads.sum("by_hand", "flows", hidden=True, path="hardware", port_kind="other") == 1, (
        "fragments of whatever protocol"
    )
    assert reads.sum("by_hand", "flows", port_kind="internal", ordinary=False) == 1, "ARP behind a VLAN tag"


CONNTRACK = r"""
load_offload
start_ovs max-idle=600000
two_hosts
ip link add v1 type veth peer name v1p; host c v1p 10.0.0.3/24; ip link set v1 up; ovs-vsctl add-port br0 v1
quiet
hw_counters 7777 999999
track_gre
gre a 10.0.0.1 10.0.0.2 192.168.9.1/24; gre b 10.0.0.2 10.0.0.1 192.168.9.2/24
gre c 10.0.0.3 10.0.0.2 192.168.10.1/24
ip -n b link add g2 type gre local 10.0.0.2 remote 10.0.0.3
ip -n b address add 192.168.10.2/24 dev g2; ip -n b link set g2 up

take start
established() {
    ip netns exec a ping -q -c 3 -i 0.2 -W 1 192.168.9.2; ip netns exec c ping -q -c 3 -i 0.2 -W 1 192.168.10.2
    in_tc 'ct_state(0x22/0x22).*in_port(p[12]).*proto=47.*offloaded:yes' 3 &&
        in_tc 'ct_state(0x22/0x22).*in_port(v1).*proto=47' 1
}
wait_for 60 established
take known
pings a 192.168.9.2 20
take from_a
pings c 192.168.10.2 10
take from_c
"""


@pytest.mark.long
@pytest.mark.timeout(7800)  # the kernel is built first, if it never was
def test_gre_with_conntrack_in_tc(tmp_path: Path) -> None:
    hwlab.prepare_kernel()
    reads = run(tmp_path, CONNTRACK, kernel="custom")
    gre = {"protocol": "gre", "conntrack": True, "terminal": True}
    missed, software = gre | {"obstacle": "missed"}, gre | {"path": "software", "obstacle": "none"}
    assert reads.sum("known", "flows", **gre, path="hardware") >= 3
    assert reads.sum("known", "flows", protocol="gre", conntrack=True, terminal=False) >= 3, "chain 0"
    # Counted at the last chain alone; what comes from p1 and from p2.
    assert reads.sum("from_a", "packets", **missed) - reads.sum("known", "packets", **missed) == 40
    assert reads.sum("from_a", "packets", **software) == reads.sum("known", "packets", **software)
    # From the veth in TC software, back through p2's filter.
    assert reads.sum("from_c", "packets", **software) - reads.sum("from_a", "packets", **software) == 10
    assert (
        reads.sum("from_c", "packets", **missed, port="p2") - reads.sum("from_a", "packets", **missed, port="p2") == 10
    )
    assert {c["port"] for c in reads.classes("from_c", **software) if c["packets"]} == {"v1"}
