"""Incident 4 on a real kernel: real Open vSwitch with hardware offload in a guest, its flows judged by the exporter.

netdevsim, patched, takes the filters, and what hardware carries is injected: real netlink, never proof of hardware. It
is no PCI device either: /sys is that of a ConnectX made by hand, in which its ports are two VFs' representors.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests import hwlab
from tests.e2e.machine import Machine
from tests.hwlab import Guest, connectx
from tests.hwlab.manifest import unpack

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.root,
    # Minutes of two cores for the emulated processors. What each check says has quicker tests, and so has what is read.
    pytest.mark.long,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(hwlab.unavailable()), reason=hwlab.unavailable() or "-"),
]

CHECKS = {"offload_disabled", "offload_ratio_low", "offload_gre_conntrack"}

# /sys is copied, for the shared directory is slow. GRE has rules of its own, so that the flows show the protocol. What
# hardware carries is raised time and again.
BEFORE = """
    cp -a /share/nic /tmp/nic
    load_offload; load nf_conntrack_netlink
    start_ovs max-idle=600000
    two_hosts
    for h in a b; do
      ip netns exec $h sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    done
    ovs-vsctl set Interface p1 external_ids:iface-id=port-of-a -- set Interface p2 external_ids:iface-id=port-of-b
    gre a 10.0.0.1 10.0.0.2 192.168.9.1/24; gre b 10.0.0.2 10.0.0.1 192.168.9.2/24
    stateless() {
      ovs-ofctl del-flows br0
      printf '%s\\n' priority=20,ip,nw_proto=47,actions=normal priority=1,actions=normal | ovs-ofctl add-flows br0 -
    }
    stateful() { track_gre; ovs-ofctl add-flow br0 priority=1,actions=normal; }
    stateless
    ip netns exec a ping -q -i 0.01 192.168.9.2 >/dev/null 2>&1 &
    N=10000
    carry() {
      while :; do N=$((N + 10000)); hw_counters $N $((N * 100)); ping_from a 10.0.0.2 >/dev/null 2>&1 || :; done
    }
    carry & CARRIES=$!
"""


def judged(machine: Machine) -> tuple[set[str], set[str], set[str]]:
    """Of the three checks: those that found something, those that cannot tell, those that say all is well."""
    document = machine.findings()
    found = {f["check"] for f in document["findings"]}
    unknown = {u["check"] for u in document["unknown"]}
    return found & CHECKS, unknown & CHECKS, set(document["ok"]) & CHECKS


def said(machine: Machine, check: str) -> str:
    """The summary and the remedy of its one finding, or of none."""
    return "".join(f["summary"] + f["remedy"] for f in machine.findings()["findings"] if f["check"] == check)


def test_gre_falls_out_of_hardware_and_comes_back(tmp_path: Path) -> None:
    hwlab.prepare()
    named = connectx.manifest().replace("enp3s0f0r0", "p1").replace("enp3s0f0r1", "p2")
    (tmp_path / "manifest").write_text(named)
    unpack(tmp_path / "manifest", tmp_path / "nic")
    config = {
        "roles": ["compute"],
        "intervals": {"live": "3s", "flows": "5s"},
        "host": {"sysfs": "/tmp/nic/sys", "state_dir": "/tmp/state"},  # noqa: S108  # the guest's
        "ovs": {"integration_bridge": "br0"},
        "offload": {"min_pps": 50},
    }
    with Machine(
        tmp_path, lambda forward: Guest(share=tmp_path, forward=forward), config, BEFORE, seconds=1100
    ) as machine:
        # Healthy, under load.
        machine.until(lambda: judged(machine) == (set(), set(), CHECKS), "all is well")
        machine.until(lambda: machine.series("mec_offload_hit_ratio") != [], "there is traffic to judge")

        # A stateful security group: this kernel's TC does no connection tracking, the flows stay in its datapath.
        machine.do("stateful; kill $CARRIES")
        fallen = {"offload_gre_conntrack", "offload_ratio_low"}
        machine.until(lambda: judged(machine) == (fallen, set(), CHECKS - fallen), "incident 4 is found")
        words = said(machine, "offload_gre_conntrack")
        assert "from p1 (port port-of-a)" in words
        assert re.search("openstack port set .* port-of-a", words)
        gre = [s for s in machine.series("mec_datapath_software_packets_total") if 'protocol="gre"' in s]
        why = {s.partition('reason="')[2].partition('"')[0] for s in gre if 'conntrack="1"' in s}
        assert "conntrack_gre" in why
        assert why <= {"conntrack_gre", "unknown"}, "not known while a source has no answer: the processor is emulated"

        # Stateless again, and hardware carries it.
        machine.do("stateless; N=1000000; carry & CARRIES=$!")
        machine.until(lambda: judged(machine) == (set(), set(), CHECKS), "all is well again")

        # Offload is switched off for the next start, and kept out of hardware.
        machine.do("ovs-vsctl set Open_vSwitch . other_config:hw-offload=false")
        machine.until(lambda: judged(machine)[0] == {"offload_disabled"}, "offload is off")
        assert "other_config:hw-offload=true" in said(machine, "offload_disabled")
        machine.do("ovs-vsctl set Open_vSwitch . other_config:hw-offload=true other_config:tc-policy=skip_hw")
        machine.until(lambda: "tc-policy is skip_hw" in said(machine, "offload_disabled"), "the policy forbids it")
        machine.do("ovs-vsctl remove Open_vSwitch . other_config tc-policy")
        machine.until(lambda: judged(machine) == (set(), set(), CHECKS), "it is put right")

        # Nobody says what is configured.
        machine.do("kill -STOP $(cat /run/openvswitch/ovsdb-server.pid)")
        machine.until(lambda: judged(machine) == (set(), CHECKS, set()), "none of it can be told")
        machine.do("kill -CONT $(cat /run/openvswitch/ovsdb-server.pid)")
        machine.until(lambda: judged(machine) == (set(), set(), CHECKS), "all is well at last")
