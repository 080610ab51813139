"""Guests with a real kernel and SR-IOV hardware that QEMU emulates: see README.md.

prepare()
done = Guest(nic="igb", share=tmp_path).sh("pf; vfs 4; mec once")
assert done.returncode == 0, done.stdout
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).parent
TREE = HERE.parents[1]
FIXTURES = TREE / "tests/fixtures/hw"
_SUITE = "bookworm"
_PREPARE_TIMEOUT = 1500.0  # seconds; on a bare machine it installs a compiler and QEMU first
_KERNEL_TIMEOUT = 7200.0
NETWORK_MAC = "52:54:00:aa:ff:01"
_TIMED_OUT = (124, 137)  # exit statuses of timeout(1): ended, and killed


class CannotPrepareError(Exception):
    """What a guest needs can't be had here; the text says why."""


class GuestError(Exception):
    """The guest came to no exit status: out of time, or its kernel died; with what it had printed until then."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a script in a guest said; its stderr is in stdout."""

    stdout: str
    returncode: int


def cache() -> Path:
    """Where all that is made lies: HWLAB_CACHE, or below the home directory."""
    return Path(os.environ.get("HWLAB_CACHE") or Path.home() / ".cache/mecexporter-hwlab").absolute()


def unavailable() -> str:
    """Why no guest can be prepared on this machine; '' where it can be tried."""
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    if release.get("VERSION_CODENAME") != _SUITE or platform.machine() != "x86_64":
        return f"guests are made on Debian 12 ({_SUITE}) on amd64 only"
    if os.geteuid() != 0:
        return "making guests needs root"
    return ""


@functools.cache
def prepare() -> None:
    """Installs and builds what is missing; a second with nothing to do. Processes that ask at once wait for another.

    Raises CannotPrepareError with the end of the log.
    """
    if why := unavailable():
        raise CannotPrepareError(why)
    _make("prepare.sh", _PREPARE_TIMEOUT)


def prepare_kernel() -> None:
    """The custom kernel, for `Guest(kernel="custom")`: minutes. Raises CannotPrepareError."""
    prepare()
    _make("kernel.sh", _KERNEL_TIMEOUT)


def _make(script: str, seconds: float) -> None:
    environment = os.environ | {"PYTHON": sys.executable, "HWLAB_CACHE": str(cache())}
    command = ["timeout", "-k", "30", str(seconds), str(HERE / script)]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        why = "out of time" if done.returncode in _TIMED_OUT else f"status {done.returncode}"
        raise CannotPrepareError(f"{script}: {why}\n{done.stderr}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A machine that runs one script as root. `prepare` comes first; several guests can run at once."""

    share: Path
    """Is /share in the guest, and writable."""
    nic: Literal["igb"] | None = None
    nics: int = 1
    kernel: Literal["debian", "custom"] = "debian"
    memory: int = 1024
    """Megabytes."""
    forward: Mapping[int, int] = field(default_factory=dict)
    """This machine's loopback port -> the guest's, and a network on which 10.0.2.2 is this machine's loopback."""

    def run(self, script: str, *args: str, timeout: float = 200, env: Mapping[str, str] | None = None) -> Result:
        """Runs a bash script that lies in the share, with the variables given.

        Raises GuestError.
        """
        assert (self.share / script).is_file(), f"no {script} in {self.share}"
        return self._run(shlex.join(["bash", f"/share/{script}", *args]), timeout, env or {})

    def sh(self, text: str, *, timeout: float = 200, env: Mapping[str, str] | None = None) -> Result:
        """Runs lines of bash with the functions of guest/lib.sh; it ends at the first that fails.

        Raises GuestError.
        """
        return self._run(
            f". /hwlab/lib.sh\nset -eE\ntrap 'echo \"failed: $BASH_COMMAND\"' ERR\n{text}", timeout, env or {}
        )

    def _run(self, job: str, timeout: float, env: Mapping[str, str]) -> Result:
        exports = [f"export {name}={shlex.quote(value)}" for name, value in env.items()]
        with tempfile.TemporaryDirectory(prefix="hwlab-") as name:
            control = Path(name, "control")
            for _ in range(2):
                shutil.rmtree(control, ignore_errors=True)
                shutil.copytree(HERE / "guest", control)
                for file in (HERE / "manifest.py", cache() / "programs/current/qemu-system-x86_64"):
                    shutil.copy(file, control)
                (control / "job").write_text("\n".join([*exports, job, ""]))
                status, out, noise = self._boot(Path(name), timeout)
                # Software emulation now and then loses an interrupt while the kernel probes its timers; and QEMU ends
                # itself where two of its threads meet over a device that comes or goes.
                probing = not (control / "started").exists() and "Kernel panic" in noise
                if not probing and "iotlb_to_section: Assertion" not in noise:
                    break
            ended = control / "status"
            if ended.exists() and (code := ended.read_text().strip()):
                return Result(out, int(code))
        why = f"out of time after {timeout:g} s" if status in _TIMED_OUT else "the guest died"
        raise GuestError(f"{why}\n--- it printed\n{out}\n--- its console, and QEMU\n{noise}")

    def _boot(self, directory: Path, seconds: float) -> tuple[int, str, str]:
        """Exit status of QEMU or of timeout(1), what the script printed, and what the kernel and QEMU did."""
        console = directory / "console"
        command = ["timeout", "-k", "5", str(seconds), *self._qemu(directory / "control", console)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        try:
            out, said = process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            process.wait()
        kernel = console.read_text(errors="replace") if console.exists() else ""
        return process.returncode, out, kernel + said

    def _qemu(self, control: Path, console: Path) -> list[str]:
        """Serial 1 is the kernel's console, serial 2 (stdout) the script's. KVM is not assumed: software emulation."""
        made = cache()
        kernel = made / ("custom/current/vmlinuz" if self.kernel == "custom" else "kernel/current/vmlinuz")
        shares = [
            _shared("rootfs", made / "rootfs/current/root", readonly=True),
            _shared("modules", made / "netdevsim/current/lib/modules", readonly=True),
            _shared("site", made / "site/current/site", readonly=True),
            _shared("tree", TREE / "mecexporter", readonly=True),
            _shared("control", control, readonly=False),
            _shared("share", self.share.resolve(), readonly=False),
        ]
        nics = [
            word
            for n in range(1, self.nics + 1 if self.nic else 1)
            for word in (
                *("-device", f"pcie-root-port,id=rp{n},slot={n},chassis={n}"),
                *("-device", f"{self.nic},bus=rp{n},mac=52:54:00:aa:00:{n:02x}"),
            )
        ]
        ports = "".join(f",hostfwd=tcp:127.0.0.1:{here}-:{there}" for here, there in self.forward.items())
        network = ("-netdev", f"user,id=net{ports}", "-device", f"virtio-net-pci,netdev=net,mac={NETWORK_MAC}")
        return [
            "qemu-system-x86_64",
            *("-M", "q35", "-accel", os.environ.get("HWLAB_ACCEL", "tcg,thread=multi"), "-cpu", "max", "-smp", "2"),
            *("-m", str(self.memory), "-display", "none", "-monitor", "none", "-no-reboot", "-nic", "none"),
            *("-serial", f"file:{console}", "-serial", "stdio"),
            *("-kernel", str(kernel), "-initrd", str(made / "initramfs/current/initramfs.gz")),
            *("-append", "console=ttyS0 quiet panic=-1 intel_iommu=on no_timer_check"),
            *("-device", "intel-iommu,intremap=on"),
            *(word for share in shares for word in share),
            *nics,
            *(network if self.forward else ()),
        ]


def _shared(tag: str, path: Path, *, readonly: bool) -> list[str]:
    where = str(path).replace(",", ",,")  # QEMU's quoting
    options = f"local,id={tag},path={where},security_model=none" + (",readonly=on" if readonly else "")
    return ["-fsdev", options, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
