"""Files of TLS certificates that the daemons of this host are told to use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CertificateKind(StrEnum):
    """What a file is for; the ``kind`` label."""

    CERTIFICATE = "certificate"  # shown to others
    CA = "ca"  # what others show is held against it


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFile:
    """One file.

    Attributes:
        component: who is told to use it: ``mecexporter``; ``ovs`` (the SSL table of the local database: ovs-vswitchd,
            and ovn-controller unless its command line names files); ``ovn`` (that command line), ``ovn_northd``; or
            the database whose server it is.
        expires: Unix time (X.509 ``notAfter``), None where it can't be told.
        why: what keeps us from telling; None if nothing does.
    """

    component: str
    kind: CertificateKind
    path: str
    expires: float | None
    why: str | None = None
