"""`python -m tests.hwlab`: guests by hand. See `--help`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests import hwlab
from tests.hwlab import connectx

if TYPE_CHECKING:
    from collections.abc import Sequence

RECORDED: dict[str, Literal["igb"] | None] = {"vfs.sh": "igb", "switchdev.sh": None, "links.sh": None}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hwlab", description="Guests with SR-IOV hardware of QEMU's.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare", help="install and build what a guest needs")
    commands.add_parser("kernel", help="build the custom kernel, some 11 minutes")
    run = commands.add_parser("run", help="run a script in a guest")
    run.add_argument("--nic", choices=["igb"])
    run.add_argument("--kernel", choices=["debian", "custom"], default="debian")
    run.add_argument("--share", type=Path, help="a writable folder, /share in the guest (default: the script's)")
    run.add_argument("--timeout", type=float, default=300, help="seconds")
    run.add_argument("script", type=Path, help="such as tests/hwlab/scenarios/vfs.sh")
    run.add_argument("args", nargs=argparse.REMAINDER)
    commands.add_parser("record", help="take the fixtures in tests/fixtures/hw anew")
    arguments = parser.parse_args(argv)
    try:
        return _run(arguments)
    except (hwlab.CannotPrepareError, hwlab.GuestError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _run(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "prepare":
            hwlab.prepare()
        case "kernel":
            hwlab.prepare_kernel()
        case "run":
            hwlab.prepare()
            script: Path = arguments.script.resolve()
            share = (arguments.share or script.parent).resolve()
            guest = hwlab.Guest(share=share, nic=arguments.nic, kernel=arguments.kernel)
            done = guest.run(str(script.relative_to(share)), *arguments.args, timeout=arguments.timeout)
            sys.stdout.write(done.stdout)
            return done.returncode
        case "record":
            return record()
    return 0


def record() -> int:
    hwlab.prepare()
    (hwlab.FIXTURES / connectx.NAME).write_text(connectx.manifest())
    with tempfile.TemporaryDirectory() as name:
        share = Path(name)
        for script, nic in RECORDED.items():
            shutil.copy(hwlab.HERE / "scenarios" / script, share)
            done = hwlab.Guest(share=share, nic=nic).run(script, timeout=300, env={"RECORD": "/share/recorded"})
            sys.stdout.write(done.stdout)
            if done.returncode:
                return done.returncode
        shutil.copytree(share / "recorded", hwlab.FIXTURES, dirs_exist_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
