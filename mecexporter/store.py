"""What outlives a restart, in one small file of state_dir: written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import tempfile
import threading
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from mecexporter.errors import MecExporterError
from mecexporter.state.ovn_db import Model  # noqa: TC001  # the file is read by these types
from mecexporter.state.ovs import OffloadRun  # noqa: TC001  # as Model
from mecexporter.state.world import Identity, Memory, Role, Version

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

FORGETTABLE = (*(str(role) for role in Role), "northd", "identity")
_FORMAT = 1
_MAX_BYTES = 4 << 20


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """The file's content, as JSON; times are Unix seconds.

    Attributes:
        findings: check -> subject -> first seen, of what was open.
    """

    format: int
    roles: frozenset[Role] = frozenset()
    northd: bool = False
    identity: Identity | None = None
    nb_cfg_seen_under: str | None = None
    id_file_seen: bool = False
    versions: dict[str, Version] = {}
    models: dict[str, Model] = {}
    offload: OffloadRun | None = None
    stale_chassis: dict[str, int] = {}
    findings: dict[str, dict[str, float]] = {}

    @classmethod
    def of(cls, memory: Memory, findings: dict[str, dict[str, float]]) -> Saved:
        """What is to be saved of a memory."""
        return cls(
            format=_FORMAT,
            roles=memory.roles,
            northd=memory.northd,
            identity=memory.identity,
            nb_cfg_seen_under=memory.nb_cfg_seen_under,
            id_file_seen=memory.id_file_seen,
            versions=dict(memory.versions),
            models=dict(memory.models),
            offload=memory.offload,
            stale_chassis=dict(memory.stale_chassis),
            findings=findings,
        )

    def memory(self) -> Memory:
        """The memory that was saved."""
        return Memory(
            roles=self.roles,
            northd=self.northd,
            identity=self.identity,
            nb_cfg_seen_under=self.nb_cfg_seen_under,
            id_file_seen=self.id_file_seen,
            versions=MappingProxyType(self.versions),
            models=MappingProxyType(self.models),
            offload=self.offload,
            stale_chassis=MappingProxyType(self.stale_chassis),
        )


class Store:
    """The file ``state.json`` of a directory.

    Args:
        directory: state_dir.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "state.json"
        self._written: Saved | None = None
        self._in_the_way = False
        self._claim: BinaryIO | None = None
        self._lock = threading.Lock()  # saves come from a thread, and from who stops or forgets

    def claim(self) -> bool:
        """Be the one who writes here, until this process ends; False where another is already."""
        try:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            claim = (self.path.parent / "lock").open("ab")
        except OSError:
            return True  # nobody can write, which save() says
        self._claim = claim
        try:
            self._give_away(claim.fileno())
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            claim.close()
            return False
        except OSError as error:  # NFS without locks, for one: better a service without this guard than none
            log.warning("state_dir can't be claimed", extra={"path": claim.name, "why": error.strerror})
        return True

    def load(self, *, keep_aside: bool = True) -> Saved:
        """Read the file; one that is torn or somebody else's is put aside, not overwritten.

        Args:
            keep_aside: False for who must not write at all.
        """
        try:
            with self.path.open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
            saved = _decode(content)
        except FileNotFoundError:
            return Saved(format=_FORMAT)
        except OSError as error:
            log.warning("state can't be read", extra={"path": str(self.path), "why": error.strerror})
            self._in_the_way = True
            return Saved(format=_FORMAT)
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            if keep_aside:
                self._put_aside(str(error))
            return Saved(format=_FORMAT)
        self._written = saved
        return saved

    def holds(self, saved: Saved) -> bool:
        """Whether that is what was written last."""
        return saved == self._written

    def save(self, saved: Saved) -> None:
        """Write the file if it would change, or is gone.

        Raises:
            MecExporterError: it can't be written; names path and reason.
        """
        with self._lock:
            there = os.path.exists(self.path)  # noqa: PTH110  # Path's raises where it may not look
            if not there or not self.holds(saved):
                self._write(saved)
                self._written = saved

    def _write(self, saved: Saved) -> None:
        if self._in_the_way:
            raise MecExporterError(f"{self.path} could not be read at start, and is not overwritten")
        content = msgspec.json.format(msgspec.json.encode(saved, order="deterministic"), indent=2)
        if len(content) > _MAX_BYTES:
            raise MecExporterError(f"{self.path} would have more than {_MAX_BYTES} bytes, and not be read again")
        try:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".state.")
            try:
                self._give_away(descriptor)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, self.path)  # noqa: PTH105  # the name is a string here
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)  # noqa: PTH108  # as above
                raise
        except OSError as error:
            raise MecExporterError(f"{self.path} can't be written: {error.strerror}") from None

    def _give_away(self, descriptor: int) -> None:
        """To the directory's owner: root forgets for a service that runs as another user."""
        if os.geteuid() == 0:
            owner = self.path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)

    def _put_aside(self, why: str) -> None:
        aside = self.path.with_name("state.json.unreadable")
        try:
            self.path.replace(aside)
        except OSError as error:
            self._in_the_way = True
            log.warning("state is not ours", extra={"path": str(self.path), "why": f"{why}; {error.strerror}"})
        else:
            log.warning("state was unreadable", extra={"path": str(self.path), "why": why, "kept_as": str(aside)})


def _decode(content: bytes) -> Saved:
    """Raises ValueError, as msgspec's own errors are."""
    if len(content) > _MAX_BYTES:
        raise ValueError(f"more than {_MAX_BYTES} bytes")
    saved = msgspec.json.decode(content, type=Saved)
    if saved.format != _FORMAT:
        raise ValueError(f"format {saved.format}, not {_FORMAT}")
    return saved


def forget(saved: Saved, what: str) -> Saved:
    """Without a role, ``northd`` or ``identity``; ``central`` drops northd too.

    Raises:
        MecExporterError: there is nothing of that name to forget.
    """
    if what not in FORGETTABLE:
        raise MecExporterError(f"{what!r} can't be forgotten: want one of {', '.join(FORGETTABLE)}")
    replace = msgspec.structs.replace
    if what == "identity":
        return replace(saved, identity=None, nb_cfg_seen_under=None, id_file_seen=False)
    if what == "northd":
        return replace(saved, northd=False)
    roles = saved.roles - {Role(what)}
    if what == Role.CENTRAL:
        return replace(saved, roles=roles, northd=False, models={}, stale_chassis={})
    return replace(saved, roles=roles)
