"""Conntrack on Debian's kernel, which TC does not take there: what fell back is seen by netlink, by root and by nobody.

The sources are asked in a guest, before and after a number of packets that is known.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests import hwlab
from tests.hwlab import Guest

if TYPE_CHECKING:
    from pathlib import Path

PINGS = 20
ETHERNET_GRE_PING = 14 + 20 + 4 + 84
"""Bytes on the wire of a ping in GRE; connection tracking does not count Ethernet's."""

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(hwlab.unavailable()), reason=hwlab.unavailable() or "-"),
]

READER = """
import json, sys, time
from dataclasses import asdict
from pathlib import Path
from mecexporter.sources.conntrack import ConntrackSource
from mecexporter.sources.ovs_flows import OvsFlowsSource

flows = OvsFlowsSource(Path("/run/openvswitch"), None, 60)
conntrack = ConntrackSource(Path("/proc"), Path("/sys"), 60)
flows._read({}, [], True), conntrack._all()
print("ready", flush=True)
sys.stdin.readline()
table, cpu = flows._read({}, [], True)
found = conntrack._all()
gre = found.gre and {
    "entries": found.gre.entries[list(found.gre.entries)[1]],
    "packets": found.gre.software and found.gre.software.packets,
    "bytes": found.gre.software and found.gre.software.bytes,
}
print(json.dumps({
    "flows": [asdict(of) | {"flows": n} for of, n in table.flows.items()],
    "totals": [asdict(of) | {"packets": n.packets, "bytes": n.bytes} for of, n in table.totals.items()],
    "entries": found.entries, "limit": found.limit, "gre": gre,
    "said": conntrack._said, "offloaded": found.offloaded and sum(found.offloaded.values()),
}), flush=True)
"""

SCRIPT = """
load_offload; load nf_conntrack_netlink
sysctl -q -w net.netfilter.nf_conntrack_acct=1
start_ovs max-idle=600000
two_hosts
for h in a b; do  # router solicitations would go through GRE
  ip netns exec $h sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
done
track_gre
gre a 10.0.0.1 10.0.0.2 192.168.9.1/24; gre b 10.0.0.2 10.0.0.1 192.168.9.2/24
ping_from a 192.168.9.2

mkfifo root.go nobody.go
python3 reader.py <root.go >root.out & exec 3>root.go
setpriv --reuid=65534 --regid=65534 --clear-groups python3 reader.py <nobody.go >nobody.out & exec 4>nobody.go
for who in root nobody; do wait_for 240 grep -q ready $who.out; done
ip netns exec a ping -q -c PINGS -i 0.2 192.168.9.2 >ping.out
echo >&3; echo >&4
wait
flows | grep 0x0800
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What root's and nobody's sources said."""
    hwlab.prepare()
    share: Path = tmp_path_factory.mktemp("share")
    share.chmod(0o755)
    (share / "reader.py").write_text(READER)
    done = Guest(share=share).sh(SCRIPT.replace("PINGS", str(PINGS)), timeout=550)
    assert done.returncode == 0, done.stdout
    assert f"{PINGS} received" in (share / "ping.out").read_text()
    said = {who: (share / f"{who}.out").read_text().splitlines() for who in ("root", "nobody")}
    return {who: json.loads(lines[1]) for who, lines in said.items()}


@pytest.mark.parametrize("who", ["root", "nobody"])
def test_packets_of_gre_under_conntrack_are_counted_in_the_kernel(seen: dict[str, Any], who: str) -> None:
    carried = {of["protocol"]: of for of in seen[who]["totals"] if of["packets"]}
    assert carried.keys() == {"gre"}
    packets = sum(of["packets"] for of in seen[who]["totals"])
    assert packets == 2 * PINGS, "there and back, each once, though each passed two flows"
    assert sum(of["bytes"] for of in seen[who]["totals"]) == packets * ETHERNET_GRE_PING
    gre = [of for of in seen[who]["flows"] if of["protocol"] == "gre"]
    assert all(of["conntrack"] and of["path"] == "software" and of["layer"] == "kernel" for of in gre)
    assert {of["port"] for of in gre} == {"p1", "p2"}
    assert {of["terminal"] for of in gre} == {True, False}


def test_root_sees_gre_in_connection_tracking(seen: dict[str, Any]) -> None:
    packets = 2 * PINGS
    assert seen["root"]["said"] == {}
    assert seen["root"]["gre"] == {"entries": 1, "packets": packets, "bytes": packets * (ETHERNET_GRE_PING - 14)}
    assert seen["root"]["offloaded"] == 0


def test_nobody_sees_how_full_it_is(seen: dict[str, Any]) -> None:
    assert seen["nobody"]["said"] == dict.fromkeys(("offloaded", "GRE"), "the kernel says: Operation not permitted")
    assert seen["nobody"]["gre"] is None
    assert seen["nobody"]["offloaded"] is None
    assert seen["nobody"]["entries"] >= 1
    assert seen["nobody"]["limit"] == seen["root"]["limit"] > 1000
