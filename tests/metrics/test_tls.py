"""Series of certificates: those that can be told, those that can't, and those of servers afar."""

from __future__ import annotations

from dataclasses import replace

from mecexporter.errors import Reason
from mecexporter.state.observed import Fresh
from mecexporter.state.tls import CertificateFile, CertificateKind
from tests.metrics.scrape import values
from tests.worlds import NB, NOW, STANDBY, address, changed, healthy_central, healthy_compute, without

EXPIRY = "mec_tls_certificate_expiry_timestamp_seconds"
READABLE = "mec_tls_certificate_readable"


def test_a_file_that_cannot_be_read_has_no_time_and_is_counted() -> None:
    files = (
        CertificateFile(component="ovs", kind=CertificateKind.CERTIFICATE, path="/a", expires=NOW - 5),
        CertificateFile(component="ovs", kind=CertificateKind.CA, path="/b", expires=None, why="no /b"),
    )
    world = healthy_compute().with_part("certificates", Fresh(files, NOW))
    assert values(world, EXPIRY, "component", "kind", "path") == {("ovs", "certificate", "/a"): NOW - 5}
    assert values(world, READABLE, "component", "kind", "path") == {
        ("ovs", "certificate", "/a"): 1,
        ("ovs", "ca", "/b"): 0,
    }


def test_where_the_source_is_lost_nothing_is_said() -> None:
    lost = without(healthy_compute(), "certificates", reason=Reason.TIMEOUT)
    assert not values(lost, EXPIRY)
    assert not values(lost, READABLE)


def test_a_server_that_shows_one() -> None:
    source = f"{NB}@{address(NB, STANDBY)}"
    world = changed(healthy_central(), source, certificate_expires=NOW + 60)
    assert values(world, EXPIRY, "kind", "path", component=source) == {("certificate", ""): NOW + 60}
    assert not values(world, READABLE, component=source)
    assert not values(without(world, source), EXPIRY, component=source)
    assert not values(replace(world, applicable=world.applicable - {source}), EXPIRY, component=source)
