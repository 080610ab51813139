"""What files and /proc say of this host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mecexporter.errors import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class IdFile:
    """A small file that holds a system-id.

    Attributes:
        content: the id, '' where the file is empty, None where there is no file or it can't be read.
        trouble: why it could not be read (MISSING where it is simply not there), None if it was.
        why: the same for people, names path and user.
    """

    path: str
    content: str | None
    trouble: Reason | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """Files, versions and the signs by which roles are told.

    Attributes:
        kernel: its release.
        system_id_file: where ovs-ctl keeps the id.
        override_file: OVN's system-id-override.
        commandline_id: ovn-controller's ``-n``, None without it; commandline_why says why it can't be told.
        starts_from_file: what shows that ovs-ctl takes the id from the file on this host, None if nothing does.
        signs: ``compute``, ``northd`` or a database's name -> the path by which it shows.
    """

    kernel: str
    system_id_file: IdFile
    override_file: IdFile
    commandline_id: str | None
    commandline_why: str | None
    starts_from_file: str | None
    signs: Mapping[str, str]
