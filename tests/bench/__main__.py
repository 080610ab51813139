"""`python -m tests.bench`: what the exporter costs, as a table. Needs root, and some fifteen minutes."""
# ruff: noqa: T201 - a command prints

from __future__ import annotations

import argparse
import sys

from tests.bench.audit import on_a_pair
from tests.bench.datapaths import beside_vswitchd, of_text, of_the_kernel
from tests.bench.flows import of_flows
from tests.bench.ledgers import on_a_site
from tests.bench.links import of_links
from tests.bench.measure import all_checks, large_scrape, machine, on_a_node
from tests.bench.propagation import on_chassis
from tests.lab.site import PROGRAMS, LabError, require


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--interfaces", type=int, default=200, help="of the lab's node (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="of each of two measurements (default: %(default)s)")
    parser.add_argument(
        "--switches", type=int, default=10_000, help="of ten ports each, audited (default: %(default)s)"
    )
    parser.add_argument("--hosts", type=int, default=300, help="of a site whose VFs are read (default: %(default)s)")
    parser.add_argument("--chassis", type=int, default=3_000, help="that follow nb_cfg (default: %(default)s)")
    options = parser.parse_args()
    try:
        require(PROGRAMS)
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{machine()}; a lab node with {options.interfaces} VM interfaces, user-space datapath. CPU: of one core.\n")
    rows = [*all_checks(), *large_scrape(), *on_a_node(options.interfaces, options.seconds)]
    rows += on_a_pair(options.switches)
    rows += on_a_site(options.hosts)
    rows += of_flows()
    rows += of_links()
    rows += [*of_the_kernel(), *of_text(), *beside_vswitchd()]
    rows += on_chassis(options.chassis, seconds=options.seconds)
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    print(f"{'what':{widths[0]}}  {'measured':>{widths[1]}}  {'target':{widths[2]}}  how")
    for row in rows:
        print(f"{row.what:{widths[0]}}  {row.value:>{widths[1]}}  {row.target:{widths[2]}}  {row.how}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
