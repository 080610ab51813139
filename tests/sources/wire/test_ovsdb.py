import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.endpoint import Endpoint, TlsFiles
from mecexporter.sources.wire.ovsdb import Column, OvsdbClient, Shape, as_atom, as_map, as_optional, as_set
from tests.faults.servers import JSON, hostile, says
from tests.ports import free_port
from tests.sources.daemons import OvsdbServer, run, running, short_dir
from tests.sources.wire.test_jsonrpc import WANTED, answers, bounded, failure, patience

DB = "OVN_Southbound"
UUID = "0f5a4b6c-0000-4000-8000-000000000001"


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with short_dir() as directory:
        yield directory


def make_tls(directory: Path, name: str) -> TlsFiles:
    """A key and a certificate that is its own CA."""
    key, certificate = directory / f"{name}.key", directory / f"{name}.pem"
    run(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
        *("-subj", f"/CN={name}", "-keyout", str(key), "-out", str(certificate)),
    )
    return TlsFiles(key, certificate, certificate)


@pytest.fixture(scope="module")
def tls(directory: Path) -> TlsFiles:
    return make_tls(directory, "site")


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture(scope="module")
def server(directory: Path, tls: TlsFiles, ports: tuple[int, int]) -> Iterator[OvsdbServer]:
    server = OvsdbServer(
        directory,
        DB,
        *(f"--remote=ptcp:{ports[0]}:127.0.0.1", f"--remote=pssl:{ports[1]}:127.0.0.1"),
        *(f"--private-key={tls.private_key}", f"--certificate={tls.certificate}", f"--ca-cert={tls.ca_cert}"),
    )
    with running(server):
        for number in (1, 2):
            ctl(server, "chassis-add", f"h{number}", "geneve", f"172.31.0.{number}")
        ctl(server, "set", "Chassis", "h1", "hostname=node-1", 'external_ids:odd="a\\"b{ é"')
        yield server


def ctl(server: OvsdbServer, *args: str) -> str:
    return run("ovn-sbctl", f"--db=unix:{server.socket}", "--timeout=10", *args)


@pytest.fixture
def client(server: OvsdbServer) -> Iterator[OvsdbClient]:
    client = OvsdbClient(Endpoint.parse(f"unix:{server.socket}"), deadline=10)
    yield client
    client.close()


# --- a real server


async def test_rows_come_decoded_by_the_schema(client: OvsdbClient) -> None:
    wanted = ["name", "hostname", "encaps", "nb_cfg", "external_ids", "vtep_logical_switches"]
    rows = await client.select(DB, "Chassis", wanted, [("name", "==", "h1")])
    assert rows is not None
    [row] = rows
    [encap] = row.pop("encaps")  # a tuple though it holds one
    assert len(row.pop("_uuid")) == len(encap) == 36
    assert row == {
        "name": "h1",
        "hostname": "node-1",
        "nb_cfg": 0,
        "external_ids": {"odd": 'a"b{ é'},
        "vtep_logical_switches": (),
    }
    [encap_row] = await client.select(DB, "Encap", ["chassis_name"], [("_uuid", "==", ["uuid", encap])]) or []
    assert encap_row == {"_uuid": encap, "chassis_name": "h1"}


async def test_equal_rows_are_all_counted(client: OvsdbClient) -> None:
    rows = await client.select(DB, "Chassis", ["nb_cfg"])
    assert rows is not None
    assert [row["nb_cfg"] for row in rows] == [0, 0]
    assert await client.transact(DB, {"op": "select", "table": "Chassis", "where": [], "columns": ["nb_cfg"]}) == [
        [{"nb_cfg": 0}]  # the trap: without _uuid equal rows come as one
    ]


async def test_what_this_release_lacks_is_absent_and_no_error(client: OvsdbClient) -> None:
    rows = await client.select(DB, "Chassis", ["column_of_2031"])
    assert rows is not None
    assert [set(row) for row in rows] == [{"_uuid"}, {"_uuid"}]
    assert await client.select(DB, "Table_of_2031", ["name"]) is None


async def test_the_schema_tells_shapes_and_what_is_ephemeral(client: OvsdbClient) -> None:
    schema = await client.get_schema(DB)
    assert schema["Port_Binding"]["_uuid"] == schema["Chassis"]["name"] == Column(Shape.SCALAR)
    assert schema["Port_Binding"]["chassis"] == Column(Shape.OPTIONAL)
    assert schema["Port_Binding"]["mac"] == Column(Shape.SET)
    assert schema["Chassis"]["external_ids"] == Column(Shape.MAP)
    assert schema["Connection"]["is_connected"] == Column(Shape.SCALAR, ephemeral=True)
    assert (await client.get_schema("_Server"))["Database"]["sid"] == Column(Shape.OPTIONAL)


async def test_errors_name_the_table_or_the_database(client: OvsdbClient) -> None:
    select = {"op": "select", "table": "Chassis", "where": []}
    for call, name in (
        (client.transact("Nope", select), "Nope"),
        (client.get_schema("Nope"), "Nope"),
        (client.select("Nope", "Chassis", []), "Nope"),
        (client.transact(DB, select, select | {"table": "Nope"}), "Nope"),
        (client.select(DB, "Chassis", [], [("nope", "==", 1)]), "Chassis"),
        (client.transact(DB, select | {"columns": ["nope"]}), "Chassis"),
    ):
        error = await failure(call)
        assert error.reason is Reason.ANSWERED_ERROR
        assert name in error.why
        assert str(client.endpoint) in error.why
    assert await client.transact(DB, select, select)  # the connection is still good


@pytest.mark.parametrize("op", ["insert", "update", "mutate", "delete", "wait", "commit", "abort", "assert", None])
async def test_nothing_but_a_select_leaves_this_program(client: OvsdbClient, op: str | None) -> None:
    with pytest.raises(ValueError, match="only selects"):
        await client.transact(DB, {"op": "select", "table": "Chassis", "where": []}, {"op": op, "table": "Chassis"})


async def test_over_tcp_and_tls(
    server: OvsdbServer, client: OvsdbClient, tls: TlsFiles, ports: tuple[int, int], directory: Path
) -> None:
    wanted = await client.select(DB, "Chassis", ["name"])
    assert server.pid
    for endpoint in (f"tcp:127.0.0.1:{ports[0]}", f"ssl:127.0.0.1:{ports[1]}"):
        remote = OvsdbClient(Endpoint.parse(endpoint), tls=tls, deadline=10)
        assert await remote.select(DB, "Chassis", ["name"]) == wanted
        remote.close()

    secure = Endpoint.parse(f"ssl:127.0.0.1:{ports[1]}")
    stranger = make_tls(directory, "stranger")
    distrusting = OvsdbClient(secure, tls=stranger, deadline=10)
    error = await failure(distrusting.get_schema(DB))
    assert error.reason is Reason.GARBAGE
    assert "CERTIFICATE_VERIFY_FAILED" in error.why
    distrusted = OvsdbClient(secure, tls=TlsFiles(stranger.private_key, stranger.certificate, tls.ca_cert), deadline=10)
    assert (await failure(distrusted.get_schema(DB))).reason is Reason.CLOSED
    # TLS spoken to a server that does not.
    confused = OvsdbClient(Endpoint.parse(f"ssl:127.0.0.1:{ports[0]}"), tls=tls, deadline=2)
    assert (await failure(confused.get_schema(DB))).reason in (Reason.GARBAGE, Reason.CLOSED, Reason.TIMEOUT)


async def test_a_large_table_comes_whole_and_one_over_the_limit_does_not(
    server: OvsdbServer, client: OvsdbClient
) -> None:
    text = '"{\\é' * 100
    for batch in range(20):
        names = [f"as{batch}_{n}" for n in range(100)]
        rows = [{"op": "insert", "table": "Address_Set", "row": {"name": name, "addresses": text}} for name in names]
        run("ovsdb-client", "transact", f"unix:{server.socket}", json.dumps([DB, *rows], ensure_ascii=False))
    found = await client.select(DB, "Address_Set", ["name", "addresses"])  # 1.6 MB: parsed in a thread
    assert found is not None
    assert len({row["name"] for row in found}) == len(found) == 2000
    assert {row["addresses"] for row in found} == {(text,)}

    small = OvsdbClient(client.endpoint, deadline=10, max_bytes=1 << 20)
    assert (await failure(small.select(DB, "Address_Set", ["name", "addresses"]))).reason is Reason.TOO_LARGE
    assert len(await small.select(DB, "Chassis", ["name"]) or []) == 2
    small.close()


async def test_a_server_that_hangs_then_wakes_then_dies_then_comes_back(server: OvsdbServer) -> None:
    client = OvsdbClient(Endpoint.parse(f"unix:{server.socket}"), deadline=0.5)
    patient = OvsdbClient(client.endpoint, deadline=10)
    assert await patient.select(DB, "Chassis", ["name"])
    server.suspend()
    try:
        began = time.monotonic()
        assert (await failure(client.select(DB, "Chassis", ["name"]))).reason is Reason.TIMEOUT
        assert time.monotonic() - began < 2
    finally:
        server.resume()
    assert await patient.select(DB, "Chassis", ["name"])
    server.kill()
    assert (await failure(patient.select(DB, "Chassis", ["name"]))).reason in (Reason.REFUSED, Reason.CLOSED)
    assert (await failure(patient.select(DB, "Chassis", ["name"]))).reason is Reason.REFUSED
    server.start()
    assert await patient.select(DB, "Chassis", ["name"])
    patient.close()
    client.close()


# --- values


def test_values_of_the_wire() -> None:
    assert [as_atom(value) for value in ("a", 1, 0.5, True, ["uuid", UUID])] == ["a", 1, 0.5, True, UUID]
    assert as_set(["set", [["uuid", UUID], ["uuid", "x"]]]) == (UUID, "x")
    assert as_set("one") == ("one",)
    assert as_set(["uuid", UUID]) == (UUID,)
    assert (as_optional(["set", []]), as_optional(0)) == (None, 0)
    assert as_map(["map", [["k", "v"], ["u", ["uuid", UUID]]]]) == {"k": "v", "u": UUID}


@pytest.mark.parametrize(
    ("decode", "value"),
    [
        (as_atom, None),
        (as_atom, ["uuid", 1]),
        (as_atom, ["set", []]),
        (as_set, ["set", {}]),
        (as_set, {"a": 1}),
        (as_optional, ["set", [1, 2]]),
        (as_map, "a"),
        (as_map, ["map", [["k"]]]),
        (as_map, ["map", [["k", None]]]),
        (as_map, ["set", []]),
    ],
)
def test_what_is_no_value_is_garbage(decode: Any, value: object) -> None:
    with pytest.raises(SourceError, match="OVSDB sent ") as caught:
        decode(value)
    assert caught.value.reason is Reason.GARBAGE


# --- hostile peers


@pytest.mark.parametrize("name", JSON)
async def test_a_hostile_server(directory: Path, name: str) -> None:
    path = directory / "hostile.sock"
    async with hostile(path, JSON[name]) as server:
        client = OvsdbClient(Endpoint("unix", str(path)), deadline=patience(name), max_bytes=4 << 20)
        error = await bounded(lambda: client.select(DB, "Chassis", ["name"]), server)
        assert error.reason is WANTED[name]
        assert str(path) in error.why
        client.close()


SCHEMA = {"tables": {"Chassis": {"columns": {"name": {"type": "string"}}}}}


@pytest.mark.parametrize(
    "schema", [None, [], {}, {"tables": []}, {"tables": {"T": {}}}, {"tables": {"T": {"columns": {"c": {}}}}}]
)
async def test_a_schema_that_is_none(directory: Path, schema: object) -> None:
    path = directory / "hostile.sock"
    async with hostile(path, says(json.dumps({"id": 1, "error": None, "result": schema}).encode())):
        client = OvsdbClient(Endpoint("unix", str(path)))
        assert (await failure(client.get_schema(DB))).reason is Reason.GARBAGE
        client.close()


@pytest.mark.parametrize(
    "result",
    [
        *(None, {}, [], [None], [{}], [{"rows": None}], [{"rows": []}] * 2),
        *([{"rows": rows}] for rows in ([7], [{"name": "h1"}], [{"_uuid": ["uuid", UUID], "name": None}])),
    ],
)
async def test_results_that_are_none(directory: Path, result: object) -> None:
    def reply(got: list[dict[str, Any]]) -> bytes:
        return json.dumps({"id": got[-1]["id"], "error": None, "result": SCHEMA if len(got) == 1 else result}).encode()

    path = directory / "hostile.sock"
    async with hostile(path, answers(reply)):
        client = OvsdbClient(Endpoint("unix", str(path)))
        assert (await failure(client.select(DB, "Chassis", ["name"]))).reason is Reason.GARBAGE
        client.close()
