"""When TLS certificates expire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Metric
from mecexporter.state.observed import Fresh
from mecexporter.state.tls import CertificateKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample

EXPIRY = Metric(
    name="mec_tls_certificate_expiry_timestamp_seconds",
    help=(
        "When the certificate expires, as Unix time; absent where that can't be told. component: who is told to use the"
        " file (mecexporter, ovs, ovn, ovn_northd, a database), or the server that shows it (path is empty). Of a chain"
        " the first to expire, of several CAs the last that may have issued the component's own."
    ),
    labels=("component", "kind", "path"),
)
READABLE = Metric(
    name="mec_tls_certificate_readable",
    help="Whether the certificates in the file could be read (1) or not (0).",
    labels=("component", "kind", "path"),
)


@collector(EXPIRY, READABLE, reads=lambda v: (v.world.certificates, v.world.databases, v.world.applicable))
def tls_certificates(view: View) -> Iterator[Sample]:
    """Files of this host, and what servers show us in the handshake."""
    world = view.world
    if "certificates" in world.applicable and isinstance(world.certificates, Fresh):
        for file in world.certificates.value:
            labels = {"component": file.component, "kind": file.kind, "path": file.path}
            yield READABLE(file.expires is not None, **labels)
            if file.expires is not None:
                yield EXPIRY(file.expires, **labels)
    for name, seen in world.databases.items():
        if name in world.applicable and isinstance(seen, Fresh) and seen.value.certificate_expires is not None:
            yield EXPIRY(seen.value.certificate_expires, component=name, kind=CertificateKind.CERTIFICATE, path="")
