"""How pytest-xdist deals the files out to its workers. A file is one worker's, so that its fixtures are made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    import pytest
    from xdist.remote import Producer

CROWDS = ("tests/faults/test_sources.py", "tests/e2e/test_databases.py", "tests/e2e/test_incidents.py")
"""Each runs several sites at once and judges how soon things are seen: they are one unit, never beside each other."""

LONGEST = (
    *CROWDS,
    "tests/lab/test_lab.py",
    "tests/e2e/test_failover.py",
    "tests/e2e/test_neutron_ovn.py",
    "tests/e2e/test_vfs.py",
    "tests/hwlab/test_hwlab.py",
    "tests/alerts/test_rules.py",
    "tests/test_cli.py",
    "tests/checks/test_vfs.py",
    "tests/e2e/test_identity.py",
    "tests/e2e/test_bad_input.py",
    "tests/e2e/test_security_groups.py",
    "tests/e2e/test_offload_guest.py",
    "tests/sources/test_ovs_flows_guest.py",
)
"""Files of over a minute and a half, the longest first: begun last, they would be waited for by idle workers."""


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """As `--dist loadfile`, but for the crowds."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "crowds" if file in CROWDS else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {file: number for number, file in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))
