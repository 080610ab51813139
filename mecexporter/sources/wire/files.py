"""Small files, read without waiting, and errors that say who lacks what."""

from __future__ import annotations

import os
import pwd
import stat
from typing import TYPE_CHECKING

from mecexporter.errors import Reason, SourceError

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 64 << 10


def read_small(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """A small regular file.

    Raises:
        SourceError: MISSING, PERMISSION, TOO_LARGE, or GARBAGE where it is no regular file.
    """
    try:
        # Not blocking: a FIFO in the file's place would hold us for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise denied(path, "read") from None
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(Reason.MISSING, f"no {path}") from None
    except OSError as error:
        raise SourceError(Reason.GARBAGE, f"{path}: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SourceError(Reason.GARBAGE, f"{path} is no regular file")
        content = os.read(descriptor, max_bytes + 1)
    except OSError as error:
        raise SourceError(Reason.GARBAGE, f"{path}: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(content) > max_bytes:
        raise SourceError(Reason.TOO_LARGE, f"{path} has more than {max_bytes} bytes")
    return content


def denied(path: Path, action: str) -> SourceError:
    """PERMISSION in words: who may not do what, and which file or directory stands in the way.

    Args:
        path: what was to be used.
        action: ``read`` or ``connect to``.
    """
    uid = os.geteuid()
    try:
        user = f"user {pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        user = f"uid {uid}"
    # From the root down, so that the first obstacle is the one named.
    for directory in reversed(path.absolute().parents):
        if not os.access(directory, os.X_OK, effective_ids=True):
            return SourceError(
                Reason.PERMISSION, f"{user} may not {action} {path}: lacks search (x) on {_modes(directory)}"
            )
    bit, name = (os.R_OK, "read (r)") if action == "read" else (os.W_OK, "write (w)")
    if not os.access(path, bit, effective_ids=True):
        return SourceError(Reason.PERMISSION, f"{user} may not {action} {path}: lacks {name} on {_modes(path)}")
    why = "though its mode allows it: a sandbox, AppArmor or SELinux forbids it"
    return SourceError(Reason.PERMISSION, f"{user} may not {action} {path} {why}")


def _modes(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:  # it went away meanwhile
        return str(path)
    return f"{path} ({stat.filemode(status.st_mode)}, owner {status.st_uid}, group {status.st_gid})"
