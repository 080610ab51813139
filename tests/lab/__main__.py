"""`python -m tests.lab`: a site to play with. See `--help`."""
# ruff: noqa: T201 - a command prints

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tests.lab import incidents
from tests.lab.central import DATABASES, NAMES, PORTS, VIP, Central, Cluster, Pair
from tests.lab.monitoring import PROGRAMS_WITH_MONITORING, RULES, E, Monitoring, Watch
from tests.lab.site import PROGRAMS, SETTLE_TIMEOUT, LabError, Site, down, labs, read_state, require
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

SITES: dict[str, type[Site]] = {site.kind: site for site in (Site, Pair, Cluster)}
TITLES = {
    Site.kind: "compute nodes (make demo)",
    Pair.kind: "an active and a standby (make demo SITE=pair)",
    Cluster.kind: "three members of a cluster (make demo SITE=cluster)",
}
EXAMPLES = {Site.kind: "C2", Pair.kind: "F1", Cluster.kind: "R1"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab",
        description="An OVN site of real daemons on this machine, with exporters, Prometheus and Alertmanager.",
        epilog="Several labs can run at once; LAB=name says which one is meant.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="start a site, say how to play with it, end it on Ctrl-C")
    demo.add_argument("--site", choices=SITES, default=Site.kind, help="what kind of site (default: compute nodes)")
    demo.add_argument("--name", help="lower-case letters and digits (default: a random one)")
    demo.add_argument("--bare", action="store_true", help="OVN only: no exporters, Prometheus and Alertmanager")
    begin = commands.add_parser("incident", help="bring an incident about", epilog=_catalogue(),
                                formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    begin.add_argument("name", metavar="NAME")
    begin.add_argument("--node", help="of compute nodes; default: c1")
    end = commands.add_parser("repair", help="do what an operator would do about an incident")
    end.add_argument("name", metavar="NAME")
    shell = commands.add_parser("shell", help="a shell on a host of a control plane: runbooks' commands can be pasted")
    shell.add_argument("host")
    shell.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND", help="in place of a shell")
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
            _demo(_make(arguments.site, arguments.name), bare=arguments.bare)
        case "incident":
            site = _attach()
            incidents.begin(site, arguments.name, arguments.node)
            where = f"{arguments.node or 'c1'} of lab" if site.nodes else "lab"
            print(f"{where} {site.name}: {incidents.find(arguments.name).what}")
        case "repair":
            site = _attach()
            incidents.end(site, arguments.name)
            print(f"lab {site.name}: incident {arguments.name} is repaired")
        case "shell":
            _shell(_attach(), arguments.host, arguments.argv)
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


def _make(kind: str, name: str | None) -> Site:
    """A pair has TLS besides: the exporter of a host without servers asks so."""
    return Pair(name, tls=True) if kind == Pair.kind else SITES[kind](name)


def _attach() -> Site:
    """The lab that is meant, as a site of its kind."""
    name = _running()
    return SITES[read_state(name)["kind"]].attach(name)


def _shell(site: Site, host: str, argv: list[str]) -> NoReturn:
    """Becomes that shell."""
    hosts = site.hosts if isinstance(site, Central) else {}
    if host not in hosts:
        raise LabError(
            f"no host is named {host}; there are {', '.join(hosts) or 'none: the demo prints its own shells'}"
        )
    command = hosts[host].shell(*argv)
    here = f"{Path(sys.executable).parent}:{hosts[host].env['PATH']}"  # where `mecexporter` is
    os.execvpe(command[0], command, hosts[host].env | {"PATH": here, "PYTHONPATH": str(RULES.parent)})  # noqa: S606 - no shell between


def _catalogue() -> str:
    lines = []
    for kind, catalogue in incidents.CATALOGUES.items():
        lines.append(f"incidents of a site of {TITLES[kind]}:")
        lines += [f"  {name:24} {incident.what}" for name, incident in catalogue.items()]
    return "\n".join(lines)


def _demo(site: Site, *, bare: bool) -> None:
    require(PROGRAMS if bare else PROGRAMS_WITH_MONITORING)
    with site:
        print(f"lab {site.name} runs in {site.dir}\n")
        if isinstance(site, Central):
            _show_central(site, bare=bare)
        else:
            _show_compute(site, bare=bare)


def _show_central(site: Central, *, bare: bool) -> None:
    for host in site.hosts.values():
        for db in DATABASES if host.running("nb") else ():
            show = "cluster/status " + NAMES[db] if isinstance(site, Cluster) else "ovsdb-server/sync-status"
            print(f"{host.name}: ovs-appctl -t {host.control(db)} {show}")
        if host.running("ovn-northd"):
            print(f"{host.name}: OVN_RUNDIR={host.dir} ovn-appctl -t ovn-northd status")
    print("what runbooks say can be pasted into a shell on a host:")
    for host in site.hosts.values():
        print(f"  LAB={site.name} {sys.executable} -m tests.lab shell {host.name}")
    if isinstance(site, Pair):
        print(f"the clients' address is {VIP}, at {site.ca.name} now; a client of it, on {site.cc.name}:")
        print(f"  ip netns exec {site.cc.netns} ovn-nbctl --timeout=10 --db=tcp:{VIP}:{PORTS['nb']} --wait=sb sync")
    if bare:
        _wait(site)
        return
    with Watch(site, site.exporters(site.open_office())) as watch:
        _show_watch(watch)
        _wait(site)


def _show_watch(watch: Watch[E]) -> None:
    print()
    for exporter in watch.exporters.values():
        print(f"curl {exporter.url}/metrics")
        print(f"{sys.executable} -m mecexporter check --config {exporter.config}")
    print(f"Prometheus: {watch.prometheus.alerts_page()}")
    print(f"Alertmanager: amtool --alertmanager.url={watch.alertmanager.url} alert")


def _show_compute(site: Site, *, bare: bool) -> None:
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
        _show_watch(monitoring)
        _wait(site)


def _wait(site: Site) -> None:
    name = EXAMPLES[site.kind]
    print(f"\nmake incident LAB={site.name} NAME={name}\nmake repair LAB={site.name} NAME={name}\n")
    print("Ctrl-C ends it.", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
