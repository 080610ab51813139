"""The suites that drive Open vSwitch and OVN, on other generations of them; each is the test module as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.generations import SUITES, environment, generation, mirror

TREE = Path(__file__).parents[2]
MODULES = (
    "tests/sources",
    "tests/e2e/test_databases.py",
    "tests/e2e/test_failover.py",
    "tests/e2e/test_identity.py",
    "tests/e2e/test_incidents.py",
    "tests/e2e/test_churn.py",
    "tests/e2e/test_propagation.py",
)
NEWEST = SUITES[-1]
SHORT = (
    "tests/e2e/test_identity.py::test_a_reader_without_a_service_tells_the_incident",
    "tests/e2e/test_propagation.py::test_a_healthy_site_under_bumps_is_silent",
    "tests/sources/test_northd.py",
    "tests/sources/test_ovn_controller.py",
)
"""A part of each kind, for `make test`: within a minute on an idle machine."""

pytestmark = [pytest.mark.root, pytest.mark.timeout(2400)]


def passes(suite: str, *tests: str) -> None:
    command = [sys.executable, "-m", "pytest", "-m", "not long", "-q", "--no-header", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command,
        cwd=TREE,
        env=os.environ | environment(generation(suite)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=2300,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE)


def test_the_newest_generation_in_short() -> None:
    if mirror() is None:
        pytest.skip("apt knows no mirror of Debian, from which another generation would come")
    passes(NEWEST, *SHORT)


@pytest.mark.long
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("module", MODULES)
def test_suite_passes_on_a_generation(suite: str, module: str) -> None:
    passes(suite, module)


@pytest.mark.long
@pytest.mark.parametrize("suite", SUITES)
def test_generation_is_another_one(suite: str) -> None:
    root = generation(suite)
    of = {}
    for program in ("ovs-vswitchd", "ovsdb-server", "ovn-northd", "ovn-controller"):
        told = [
            subprocess.run([program, "--version"], env=os.environ | given, capture_output=True, text=True, check=True)
            for given in ({}, environment(root))
        ]
        of[program] = [done.stdout.splitlines()[0] for done in told]
    assert all(here != there for here, there in of.values()), of
