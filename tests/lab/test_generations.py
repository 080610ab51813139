"""The suites that drive Open vSwitch and OVN, on other generations of them; each is the test module as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.generations import SUITES, environment, generation

TREE = Path(__file__).parents[2]
MODULES = (
    "tests/sources",
    "tests/e2e/test_databases.py",
    "tests/e2e/test_failover.py",
    "tests/e2e/test_identity.py",
)

pytestmark = [pytest.mark.long, pytest.mark.root, pytest.mark.timeout(2400)]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("module", MODULES)
def test_suite_passes_on_a_generation(suite: str, module: str) -> None:
    command = [sys.executable, "-m", "pytest", "-m", "not long", "-q", "--no-header", "-p", "no:cacheprovider", module]
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
