"""`python -m tests.lab`: a site to play with. See `--help`."""
# ruff: noqa: T201 - a command prints

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING

from tests.lab import incidents
from tests.lab.monitoring import PROGRAMS_WITH_MONITORING, Monitoring
from tests.lab.site import PROGRAMS, SETTLE_TIMEOUT, LabError, Site, down, labs, read_state, require
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab",
        description="A whole OVN site of real daemons on this machine, with exporters, Prometheus and Alertmanager.",
        epilog="Several labs can run at once; LAB=name says which one is meant.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="start a site, say how to play with it, end it on Ctrl-C")
    demo.add_argument("--name", help="lower-case letters and digits (default: a random one)")
    demo.add_argument("--bare", action="store_true", help="OVN only: no exporters, Prometheus and Alertmanager")
    begin = commands.add_parser("incident", help="bring an incident about", epilog=_catalogue(),
                                formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    begin.add_argument("name", metavar="NAME")
    begin.add_argument("--node", default="c1", help="default: c1")
    end = commands.add_parser("repair", help="do what an operator would do about an incident")
    end.add_argument("name", metavar="NAME")
    remove = commands.add_parser("down", help="take a lab away, whatever state it is in")
    remove.add_argument("name", nargs="?", metavar="LAB")
    commands.add_parser("list", help="the labs of this machine, and the incidents there are")
    arguments = parser.parse_args(argv)
    try:
        require({})
        _run(arguments)
    except (LabError, AssertionError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, LabError) else 1
    except KeyboardInterrupt:
        print("gone, nothing is left")
    return 0


def _run(arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "demo":
            _demo(arguments.name, bare=arguments.bare)
        case "incident":
            site = Site.attach(_running())
            incidents.begin(site, arguments.name, arguments.node)
            print(f"{arguments.node} of lab {site.name}: {incidents.find(arguments.name).what}")
        case "repair":
            site = Site.attach(_running())
            incidents.end(site, arguments.name)
            print(f"lab {site.name}: incident {arguments.name} is repaired")
        case "down":
            name = arguments.name or _running()
            _take_down(name)
            print(f"lab {name} is gone")
        case _:
            for name, owned in labs().items():
                print(f"{name}  {'runs' if owned else 'left behind: python -m tests.lab down ' + name}")
            print(_catalogue())


def _take_down(name: str) -> None:
    """Asks the process that runs the lab to end it; does it here if that process is dead."""
    if labs().get(name):
        os.kill(read_state(name)["owner"], signal.SIGTERM)
        wait_until(lambda: name not in labs(), SETTLE_TIMEOUT, f"lab {name} ends")
    else:
        down(name)


def _running() -> str:
    """The lab that is meant; LabError if that cannot be told."""
    if chosen := os.environ.get("LAB"):
        return chosen
    names = [name for name, owned in labs().items() if owned]
    if not names:
        raise LabError("no lab runs on this machine; start one: make demo")
    if len(names) > 1:
        raise LabError(f"several labs run here, say which one by LAB=name: {', '.join(sorted(names))}")
    return names[0]


def _catalogue() -> str:
    return "incidents:\n" + "\n".join(f"  {name:24} {incident.what}" for name, incident in incidents.INCIDENTS.items())


def _demo(name: str | None, *, bare: bool) -> None:
    require(PROGRAMS if bare else PROGRAMS_WITH_MONITORING)
    with Site(name) as site:
        print(f"lab {site.name} runs in {site.dir}\n")
        for node in site.nodes.values():
            print(f"{node.name}: ovs-vsctl --db={node.database} show")
        print(f"Southbound: ovn-sbctl --db={site.sb} show")
        print("what remedies and runbooks say can be pasted into a shell that stands for a node:")
        for node in site.nodes.values():
            print(f"  {node.name}: export OVS_RUNDIR={node.ovs_run} OVN_RUNDIR={node.ovn_run} OVN_SB_DB={site.sb}")
        print(f"a ping from VM to VM: ip netns exec {site.netns('vm1')} ping {site.vms['vm2'].address}")
        if bare:
            _wait(site)
            return
        with Monitoring(site) as monitoring:
            print()
            for exporter in monitoring.exporters.values():
                print(f"curl {exporter.url}/metrics")
                print(f"{sys.executable} -m mecexporter check --config {exporter.config}")
            print(f"Prometheus: {monitoring.prometheus.alerts_page()}")
            print(f"Alertmanager: amtool --alertmanager.url={monitoring.alertmanager.url} alert")
            _wait(site)


def _wait(site: Site) -> None:
    print(
        f"\nmake incident LAB={site.name} NAME=C2\nmake repair LAB={site.name} NAME=C2\n\nCtrl-C ends it.", flush=True
    )
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
