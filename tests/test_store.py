"""state_dir: one file, whole or not at all, and never somebody else's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.errors import MecExporterError
from mecexporter.state.ovn_db import Model
from mecexporter.state.ovs import OffloadRun
from mecexporter.state.world import Identity, Memory, Role, Version
from mecexporter.store import FORGETTABLE, Saved, Store, forget
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MEMORY = Memory(
    roles=frozenset({Role.COMPUTE, Role.CENTRAL}),
    northd=True,
    identity=Identity(
        system_id='a "b" \n名',
        origin="ovsdb",
        since=1_800_000_000.25,
        settings={
            "ovn-remote": "ssl:192.0.2.10:6642",
            "ovn-bridge-mappings": "physnet1:br-ex",
            "hostname": "compute-1",
        },
    ),
    nb_cfg_seen_under="x",
    id_file_seen=True,
    versions={"ovs": Version(version="3.1.0", first_seen=1.5)},
    models={"OVN_Northbound@local": Model.STANDALONE, "OVN_Southbound@tcp:[2001:db8::1]:6642": Model.CLUSTERED},
    offload=OffloadRun(process="b007/9", hw_offload=True, tc_policy="none", offload=True, policy="skip_sw"),
)
FINDINGS = {"system_id_changed": {"compute-1": 1_800_000_001.5}}


def saved() -> Saved:
    return Saved.of(MEMORY, FINDINGS)


def fresh() -> Saved:
    return Saved(format=1)


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def in_child(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run in another process, as what is tried there would cost this one its rights or limits."""
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60, check=False)


def claims(directory: Path) -> bool:
    """Whether it can be claimed now; lets go of it again."""
    store = Store(directory)
    got = store.claim()
    if store._claim is not None:
        store._claim.close()
    return got


def test_it_knows_what_it_holds(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not store.holds(saved())
    store.save(saved())
    assert store.holds(saved())
    assert not store.holds(fresh())
    again = Store(tmp_path)
    again.load()
    assert again.holds(saved())


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    Store(tmp_path).save(saved())
    loaded = Store(tmp_path).load()
    assert loaded == saved()
    assert loaded.memory() == MEMORY
    assert loaded.findings == FINDINGS


def test_nothing_of_a_running_proof_is_kept() -> None:
    proving = replace(MEMORY, healthy_id="x", healthy_since=5.0)
    assert Saved.of(proving, {}).memory() == MEMORY


def test_nothing_there_is_nothing_known(tmp_path: Path) -> None:
    assert Store(tmp_path / "not yet").load() == fresh()


def test_the_directory_is_made_when_it_is_first_needed(tmp_path: Path) -> None:
    store = Store(tmp_path / "a" / "b")
    store.load()
    assert not (tmp_path / "a").exists()
    store.save(saved())
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o750


def test_only_the_owner_reads_the_file_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(saved())
    store.save(fresh())
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert files(tmp_path) == {"state.json"}


def test_the_file_is_for_people_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(saved())
    content = json.loads(store.path.read_text())
    assert content["identity"]["system_id"] == 'a "b" \n名'
    assert "\n  " in store.path.read_text()


def test_what_does_not_change_is_not_written(tmp_path: Path) -> None:
    Store(tmp_path).save(saved())
    store = Store(tmp_path)
    before = store.path.stat()
    store.save(store.load())
    store.save(saved())
    assert (store.path.stat().st_ino, store.path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


FOREIGN: dict[str, bytes] = {
    "empty": b"",
    "torn": b'{"format": 1, "roles": ["comp',
    "binary": bytes(range(256)),
    "not an object": b"[1, 2]",
    "without a format": b"{}",
    "too new": b'{"format": 2, "roles": ["compute"], "something": {"else": 1}}',
    "of the wrong form": b'{"format": 1, "identity": "me"}',
    "of an unknown model": b'{"format": 1, "models": {"OVN_Northbound@local": "sharded"}}',
    "of an unknown role": b'{"format": 1, "roles": ["gateway"]}',
    "nested without end": b'{"format": 1, "x": ' + b"[" * 200_000,
    "far too large": b'{"format": 1, "x": "' + b"a" * (5 << 20) + b'"}',
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_file_survives(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    store.path.write_bytes(content)
    assert store.load() == fresh()
    assert "state was unreadable" in caplog.text
    store.save(saved())
    assert (tmp_path / "state.json.unreadable").read_bytes() == content
    assert Store(tmp_path).load() == saved()


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_who_must_not_write_leaves_it_where_it_is(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    store.path.write_bytes(content)
    assert store.load(keep_aside=False) == fresh()
    assert store.path.read_bytes() == content
    assert files(tmp_path) == {"state.json"}


def test_keys_of_a_later_release_of_this_format_do_not_disturb(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(b'{"format": 1, "northd": true, "news": [1]}')
    assert Store(tmp_path).load().northd


def test_a_directory_in_its_place_is_not_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.path.mkdir()
    assert store.load() == fresh()
    with pytest.raises(MecExporterError, match="could not be read at start, and is not overwritten"):
        store.save(saved())
    assert store.path.is_dir()


AS_NOBODY = """
import os, sys
from pathlib import Path
from mecexporter.errors import MecExporterError
from mecexporter.store import Saved, Store
store = Store(Path(sys.argv[1]))
os.setgid(65534); os.setuid(65534)
print(store.load() == Saved(format=1))
try:
    store.save(Saved(format=1, northd=True))
except MecExporterError as error:
    print(error)
"""


CLAIMS_AS_NOBODY = """
import os, sys
from pathlib import Path
from mecexporter.store import Store
os.setgid(65534); os.setuid(65534)
print(Store(Path(sys.argv[1])).claim())
"""
CLAIMS_AND_WAITS = """
import sys
from pathlib import Path
from mecexporter.store import Store
store = Store(Path(sys.argv[1]))
print(store.claim(), flush=True)
sys.stdin.read()
"""


def test_one_at_a_time_keeps_its_state_here_until_it_ends(tmp_path: Path) -> None:
    directory = tmp_path / "not yet"
    child = subprocess.Popen(
        [sys.executable, "-c", CLAIMS_AND_WAITS, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "True\n"
            assert not claims(directory)
            assert claims(tmp_path), "another directory"
            assert Store(directory).load() == fresh(), "reading needs no claim"
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait(20)
    assert claims(directory)


def test_where_there_are_no_locks_it_works_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_args: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    assert claims(tmp_path)
    assert "state_dir can't be claimed" in caplog.text


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
class TestRights:
    @pytest.fixture(autouse=True)
    def _open(self, tmp_path: Path) -> None:
        for path in (tmp_path, *tmp_path.parents[:3]):
            path.chmod(path.stat().st_mode | 0o011)

    def test_a_file_that_we_may_not_read_is_not_overwritten(self, tmp_path: Path) -> None:
        Store(tmp_path).save(saved())
        tmp_path.chmod(0o777)
        done = in_child(AS_NOBODY, str(tmp_path))
        assert done.stdout.splitlines() == [
            "True",
            f"{tmp_path}/state.json could not be read at start, and is not overwritten",
        ], done.stderr
        assert "state can't be read" in done.stderr
        assert Store(tmp_path).load() == saved()

    def test_what_root_writes_is_the_directorys_owners(self, tmp_path: Path) -> None:
        """Root forgets for a service that runs as another user, which must be able to go on."""
        os.chown(tmp_path, 65534, 65534)
        assert claims(tmp_path)
        Store(tmp_path).save(saved())
        owners = {
            (p.name, p.stat().st_uid, p.stat().st_gid, stat.S_IMODE(p.stat().st_mode)) for p in tmp_path.iterdir()
        }
        assert {o[:3] for o in owners} == {("state.json", 65534, 65534), ("lock", 65534, 65534)}
        assert ("state.json", 65534, 65534, 0o600) in owners
        done = in_child(AS_NOBODY, str(tmp_path))
        assert done.stdout.splitlines() == ["False"], done.stderr
        assert Store(tmp_path).load() == Saved(format=1, northd=True)

    def test_a_claim_where_nobody_can_write_stands_in_nobodys_way(self, tmp_path: Path) -> None:
        done = in_child(CLAIMS_AS_NOBODY, str(tmp_path))
        assert done.stdout == "True\n", done.stderr

    def test_a_directory_that_we_may_not_write(self, tmp_path: Path) -> None:
        done = in_child(AS_NOBODY, str(tmp_path))
        assert done.stdout.splitlines() == ["True", f"{tmp_path}/state.json can't be written: Permission denied"]
        assert files(tmp_path) == set()


FULL_DISK = """
import resource, sys
from pathlib import Path
from mecexporter.errors import MecExporterError
from mecexporter.store import Saved, Store
store = Store(Path(sys.argv[1]))
before = store.load()
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
try:
    store.save(Saved(format=1, nb_cfg_seen_under="x" * 4000))
except MecExporterError as error:
    print(error)
"""


def test_what_was_saved_survives_a_disk_that_is_full(tmp_path: Path) -> None:
    Store(tmp_path).save(saved())
    done = in_child(FULL_DISK, str(tmp_path))
    assert done.stdout == f"{tmp_path}/state.json can't be written: File too large\n", done.stderr
    assert Store(tmp_path).load() == saved()
    assert files(tmp_path) == {"state.json"}


def test_what_somebody_deleted_is_written_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    store.save(saved())
    shutil.rmtree(tmp_path / "state")
    store.save(saved())
    assert Store(tmp_path / "state").load() == saved()
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").symlink_to("state")
    with pytest.raises(MecExporterError, match="can't be written"):
        store.save(saved())


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    Store(tmp_path).save(saved())
    assert MEMORY.identity is not None
    many = {f"ovn-{n}": "x" * 20 for n in range(100_000)}  # external_ids may hold anything
    store = Store(tmp_path)
    with pytest.raises(MecExporterError, match="more than 4194304 bytes"):
        store.save(Saved.of(replace(MEMORY, identity=replace(MEMORY.identity, settings=many)), FINDINGS))
    assert Store(tmp_path).load() == saved()
    assert files(tmp_path) == {"state.json"}


def test_once_there_is_room_again_it_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(MecExporterError, match="No space left on device"):
            store.save(saved())
    store.save(saved())
    assert Store(tmp_path).load() == saved()


WRITES_FOR_EVER = """
import itertools, sys
from pathlib import Path
from mecexporter.store import Saved, Store
store = Store(Path(sys.argv[1]))
for n in itertools.count():
    store.save(Saved(format=1, nb_cfg_seen_under=str(n % 10) * 200_000))
"""


def test_killed_in_the_middle_the_file_is_whole(tmp_path: Path) -> None:
    for n in range(5):
        store = Store(tmp_path)
        before = store.path.stat().st_ino if store.path.exists() else 0
        child = subprocess.Popen([sys.executable, "-c", WRITES_FOR_EVER, str(tmp_path)])
        try:
            # Killed as soon as it has begun, and each time a little later in its round.
            wait_until(lambda: store.path.exists() and store.path.stat().st_ino != before, 20, "the first write")  # noqa: B023  # called here
            for _ in range(n * 40):
                store.path.stat()
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait(20)
        loaded = store.load(keep_aside=False).nb_cfg_seen_under
        assert loaded is not None
        assert len(loaded) == 200_000
        assert len(set(loaded)) == 1


def test_two_at_once_leave_one_of_both(tmp_path: Path) -> None:
    contents = [Saved(format=1, nb_cfg_seen_under=str(n) * 50_000) for n in range(8)]
    stores = [Store(tmp_path) for _ in range(4)]

    def work(n: int) -> None:
        stores[n % 4].save(contents[n % 8])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    assert Store(tmp_path).load() in contents
    assert files(tmp_path) == {"state.json"}


FORGOTTEN: dict[str, Callable[[Memory], Any]] = {
    "compute": lambda m: replace(m, roles=frozenset({Role.CENTRAL})),
    "central": lambda m: replace(m, roles=frozenset({Role.COMPUTE}), northd=False, models={}),
    "api": lambda m: m,
    "northd": lambda m: replace(m, northd=False),
    "identity": lambda m: replace(m, identity=None, nb_cfg_seen_under=None, id_file_seen=False),
}


@pytest.mark.parametrize("what", FORGETTABLE)
def test_forgetting_drops_that_and_nothing_else(what: str) -> None:
    kept = forget(saved(), what)
    assert kept.memory() == FORGOTTEN[what](MEMORY)
    assert kept.findings == FINDINGS


def test_nothing_else_can_be_forgotten() -> None:
    with pytest.raises(MecExporterError, match="'everything' can't be forgotten: want one of compute, central, api"):
        forget(saved(), "everything")
