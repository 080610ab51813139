"""Open vSwitch and OVN of other Debian suites, unpacked into a cache: `generation("trixie")` is ready to be run.

Nothing is installed: packages and the libraries that they need come through an apt configuration of our own, from the
mirror that the system uses, and the programs are told where their libraries are. With `environment()` the tests run
them, and so does `python -m tests.lab.generations sid COMMAND…` any command, such as pytest of a part.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.lab.openstack_releases import CACHE
from tests.lab.site import LabError, require

if TYPE_CHECKING:
    from pathlib import Path

SUITES = ("trixie", "sid")
"""OVS 3.5 with OVN 25.03, and OVS 4.0 with OVN 26.03 as this was written."""
PROGRAMS = ("openvswitch-common", "openvswitch-switch", "ovn-common", "ovn-central", "ovn-host")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_LOADER = f"{_LIBRARIES}/ld-linux-x86-64.so.2"
_SECONDS = 600


def generation(suite: str) -> Path:
    """The root of a suite's programs, unpacked if they are not there; a second process waits for the first.

    Raises:
        LabError: they can't be had.
    """
    require({"dpkg-deb": "dpkg", "patchelf": "patchelf"})
    root = CACHE / suite
    root.parent.mkdir(parents=True, exist_ok=True)
    with (root.parent / f"{suite}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "done").exists():
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            _unpack(suite, root)
            # What the package's scripts would do by update-alternatives.
            (root / "usr/sbin/ovs-vswitchd").symlink_to("../lib/openvswitch-switch/ovs-vswitchd")
            for program in _programs(root):
                _run("patchelf", "--set-interpreter", root / _LOADER, "--force-rpath", "--set-rpath",
                     root / _LIBRARIES, program)  # fmt: skip
            (root / "done").touch()
    return root


def mirror() -> str | None:
    """Debian's, as apt knows it; none where apt is not, or on another distribution."""
    if shutil.which("apt-get") is None:
        return None
    places = _run(
        "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Label: Debian",
        "Component: main",
    ).split()  # fmt: skip
    return places[0] if places else None


def environment(root: Path) -> dict[str, str]:
    """With which the lab runs a generation's programs, on its schemas."""
    return {"LAB_ROOT": str(root), "PATH": f"{root}/usr/sbin:{root}/usr/bin:{os.environ['PATH']}"}


def _unpack(suite: str, root: Path) -> None:
    apt = _apt(suite, root / "apt")
    _run(*apt, "update")
    plan = _run(*apt, "install", "--simulate", "--no-install-recommends", *PROGRAMS)
    wanted = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    wanted = [name for name in wanted if name in PROGRAMS or name.startswith("lib")]
    packages = root / "apt/packages"
    packages.mkdir()
    _run(*apt, "download", *wanted, cwd=packages)
    for package in packages.iterdir():
        _run("dpkg-deb", "--extract", package, root)
    shutil.rmtree(root / "apt")


def _apt(suite: str, directory: Path) -> list[str]:
    """apt-get with lists and state of its own, in which nothing is installed."""
    for name in ("lists/partial", "archives/partial"):
        (directory / name).mkdir(parents=True)
    (directory / "status").touch()
    place = mirror()
    if place is None:
        raise LabError("apt knows no mirror of Debian: run apt-get update; on another distribution there is none")
    (directory / "sources").write_text(f"deb {place} {suite} main\n")
    settings = {
        "Dir::Etc::SourceList": directory / "sources",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": directory / "lists",
        "Dir::State::Status": directory / "status",
        "Dir::Cache": directory,
        "APT::Sandbox::User": "root",
        "APT::Architectures": "amd64",
        "Acquire::Languages": "none",
    }
    return ["apt-get", "--quiet", *(f"--option={key}={value}" for key, value in settings.items())]


def _programs(root: Path) -> list[Path]:
    places = ("usr/sbin", "usr/bin", "usr/lib/openvswitch-switch")
    found = [path for place in places if (root / place).is_dir() for path in (root / place).iterdir()]
    return [path for path in found if not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF"]


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise LabError(f"{command[0]}: {done.stderr.strip()[-1000:]}")
    return done.stdout


def main(suite: str, *command: str) -> None:
    os.execvpe(command[0], command, os.environ | environment(generation(suite)))  # noqa: S606  # what one asked for


if __name__ == "__main__":
    main(*sys.argv[1:])
