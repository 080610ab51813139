"""The guests themselves, and the manifests: that what other tests build on is so."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import hwlab
from tests.hwlab import Guest, GuestError, connectx
from tests.hwlab.manifest import Dir, File, Link, Unreadable, parse, render, unpack

MANIFESTS = sorted(hwlab.FIXTURES.glob("*.manifest"))
SCENARIOS = hwlab.HERE / "scenarios"
needs_guest = pytest.mark.skipif(bool(hwlab.unavailable()), reason=hwlab.unavailable() or "-")


@pytest.fixture(scope="module")
def prepared() -> None:
    hwlab.prepare()


def scenario(name: str, share: Path, guest: Guest) -> None:
    shutil.copy(SCENARIOS / name, share)
    done = guest.run(name, timeout=200)
    assert done.returncode == 0, done.stdout


# -- manifests


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_manifest_is_laid_out_as_it_says(manifest: Path, tmp_path: Path) -> None:
    tree = parse(manifest.read_text())
    unpack(manifest, tmp_path)
    for name, entry in tree.items():
        path = tmp_path / name
        match entry:
            case Dir():
                assert path.is_dir()
            case Link(target):
                assert str(path.readlink()) == target
                if name.startswith("sys/"):
                    assert path.resolve(strict=True).is_relative_to(tmp_path), f"{name} leads out of the tree"
            case File(text):
                assert path.read_text() == text
            case Unreadable():
                with pytest.raises(OSError, match="Errno"):
                    path.read_text()


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_manifest_is_written_as_it_was_read(manifest: Path) -> None:
    tree = parse(manifest.read_text())
    assert parse(render(tree, "a header\n\nof three lines")) == tree


def test_unreadable_file_fails_as_in_the_kernel_or_with_eio(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("sys/phys_switch_id ! EOPNOTSUPP\nsys/speed ! EINVAL\nsys/other ! ENODEV\n")
    unpack(tmp_path / "m", tmp_path)
    for name, wanted in (("phys_switch_id", errno.EOPNOTSUPP), ("speed", errno.EINVAL), ("other", errno.EIO)):
        with pytest.raises(OSError, match="Errno") as caught:
            (tmp_path / "sys" / name).read_bytes()
        assert caught.value.errno in (wanted, errno.EIO)  # not every kernel has phys_switch_id


def test_line_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="line 2: sys/a b"):
        parse("# a comment\nsys/a b\n")


def test_hand_made_fixture_is_what_its_program_makes() -> None:
    assert (hwlab.FIXTURES / connectx.NAME).read_text() == connectx.manifest()


# -- preparing


def test_cannot_be_prepared_just_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hwlab, "unavailable", lambda: "making guests needs root")
    with pytest.raises(hwlab.CannotPrepareError, match="needs root"):
        hwlab.prepare.__wrapped__()


@needs_guest
@pytest.mark.usefixtures("prepared")
def test_two_do_not_prepare_at_once() -> None:
    with (hwlab.cache() / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = os.environ | {"PYTHON": sys.executable}
        with subprocess.Popen([hwlab.HERE / "prepare.sh"], env=environment, stderr=subprocess.PIPE, text=True) as other:
            assert other.stderr is not None
            assert "waiting for another run" in other.stderr.readline()
            assert other.poll() is None
            fcntl.flock(lock, fcntl.LOCK_UN)
            said = other.stderr.read()
    assert other.returncode == 0, said
    assert re.fullmatch(r"hwlab: ready in \d+ s: kernel \S+\n", said), "something was made again"


# -- guests


@needs_guest
@pytest.mark.usefixtures("prepared")
def test_exporter_runs_in_a_guest_with_vfs(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "roles: [compute]\nhost: {state_dir: /tmp/state}\n"
        "web: {listen: '127.0.0.1:9746', local_socket: /run/mecexporter.sock}\n"
    )
    (tmp_path / "scrape.py").write_text(
        "import urllib.request as r\nprint(r.urlopen('http://127.0.0.1:9746/metrics').read().decode())\n"
    )
    done = Guest(nic="igb", share=tmp_path).sh(
        """
        pf; vfs 4; vf_bind 0 vfio-pci; hold 0
        mec once --config config.yaml >once.prom
        python3 -m mecexporter run --config config.yaml >run.log 2>&1 &
        fresh() { python3 scrape.py >run.prom && grep -q 'source_up{source="sysfs"} 1' run.prom; }
        wait_for 90 fresh
        kill $!; wait $!
        python3 /hwlab/manifest.py pack >here.manifest
        """
    )
    assert done.returncode == 0, done.stdout
    for printed in ("once.prom", "run.prom"):
        text = (tmp_path / printed).read_text()
        assert 'mecexporter_source_up{source="sysfs"} 1' in text
        assert 'mecexporter_source_up{source="links"}' in text
        assert "0000:01:10.6" in text  # the last VF
    tree = parse((tmp_path / "here.manifest").read_text())
    assert {Path(name).name for name in tree if "/virtfn" in name} == {f"virtfn{n}" for n in range(4)}
    assert File("qemu-system-x86\n") in tree.values()


@needs_guest
@pytest.mark.usefixtures("prepared")
def test_switchdev_mode(tmp_path: Path) -> None:
    scenario("switchdev.sh", tmp_path, Guest(share=tmp_path))


@needs_guest
@pytest.mark.usefixtures("prepared")
def test_failing_script_tells_where(tmp_path: Path) -> None:
    done = Guest(share=tmp_path).sh('echo "$GREETING"; false; echo "not this"', env={"GREETING": "it's here"})
    assert (done.returncode, done.stdout.splitlines()) == (1, ["it's here", "failed: false"])


@needs_guest
@pytest.mark.usefixtures("prepared")
def test_guest_out_of_time(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match=r"out of time after 0\.5 s"):
        Guest(share=tmp_path).sh("sleep 60", timeout=0.5)


@needs_guest
@pytest.mark.long
@pytest.mark.usefixtures("prepared")
def test_life_of_vfs(tmp_path: Path) -> None:
    scenario("vfs.sh", tmp_path, Guest(nic="igb", share=tmp_path))


@needs_guest
@pytest.mark.long
@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("name", ["offload.sh", "scale.sh"])
def test_offload_to_tc(name: str, tmp_path: Path) -> None:
    scenario(name, tmp_path, Guest(share=tmp_path))


@needs_guest
@pytest.mark.long
@pytest.mark.usefixtures("prepared")
def test_statistics_of_representors_and_uplinks(tmp_path: Path) -> None:
    scenario("links.sh", tmp_path, Guest(share=tmp_path))


def test_shell_scripts_are_clean() -> None:
    scripts = sorted(path.relative_to(hwlab.TREE) for path in hwlab.HERE.rglob("*.sh"))
    done = subprocess.run(["shellcheck", "-x", *scripts], cwd=hwlab.TREE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
