"""Which OpenStack the lab runs: Debian's packages, or the newest releases in a virtual environment of the cache.

The cache outlives labs: what is slow to make and the same each time is made once for each set of versions.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.site import LabError, run

if TYPE_CHECKING:
    from collections.abc import Callable

REQUIREMENTS = Path(__file__).parents[1] / "tools" / "openstack-requirements.txt"
BUILD_REQUIREMENTS = Path(__file__).parents[2] / "requirements-build.txt"
CACHE = Path(os.environ.get("MECEXPORTER_LAB_CACHE", "~/.cache/mecexporter-lab")).expanduser()
PACKAGES = ("python3-neutron", "python3-nova", "python3-placement")  # all else that is needed, they need themselves
INSTALL_TIMEOUT = 900  # seconds; 75 on two idle cores


@dataclass(frozen=True)
class Release:
    """An interpreter that can import neutron, placement and nova, and what tells it from others."""

    name: str
    python: Path
    versions: str

    def program(self, module: str, *arguments: str | Path, main: str = "main") -> list[str | Path]:
        """What a console script does: not every package installs them."""
        return [self.python, "-c", f"import sys; from {module} import {main}; sys.exit({main}())", *arguments]


def debian() -> Release:
    """The release of the machine's own packages: on Debian 12 Neutron 21, Placement 8, Nova 26."""
    try:
        versions = run("dpkg-query", "--show", *PACKAGES)
    except (LabError, FileNotFoundError):
        raise LabError(f"packages are missing; install: apt-get install {' '.join(PACKAGES)}") from None
    return Release("debian", Path("/usr/bin/python3"), versions)


def newest() -> Release:
    """The locked releases of openstack-requirements.txt; made in the cache when they are first asked for."""
    lock = REQUIREMENTS.read_text()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    place = cached(f"newest-{version}-{digest(lock)}", _install)
    return Release("newest", place / "bin" / "python", f"{version}\n{lock}")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """A directory of the cache; `make` fills it if it is not there, once though several processes want it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    path, partial = CACHE / name, CACHE / f"{name}.partial"
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            shutil.rmtree(partial, ignore_errors=True)
            make(partial)
            partial.rename(path)
    return path


def _install(place: Path) -> None:
    """As `make venv` does it: `ovs` comes as source only, its build tools are locked too."""
    pip = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    for command in (
        [sys.executable, "-m", "venv", str(place)],
        [*pip, "--require-hashes", "-r", str(BUILD_REQUIREMENTS)],
        [*pip, "--require-hashes", "--no-build-isolation", "-r", str(REQUIREMENTS)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False)
        if done.returncode:
            raise LabError(f"cannot install OpenStack's newest releases: {done.stderr.strip()[-1000:]}")
