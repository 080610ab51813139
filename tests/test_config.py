"""The configuration file: every key, every default, and each mistake with its exact words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mecexporter.checks.base import discover
from mecexporter.config import Config, Duration, Rate, Window, effective, load
from mecexporter.errors import ConfigError
from mecexporter.sources.ovn_db_sync import Audits
from mecexporter.yamlfile import MAX_BYTES

FIXTURES = Path(__file__).parent / "fixtures" / "config"
CONTRACT = FIXTURES / "contract.yaml"
"""The contract's own example: every key with its default."""
BAD = sorted((FIXTURES / "bad").glob("*.yaml"))
CHECKS = frozenset({"system_id_changed"})


def loaded(directory: Path, text: str | bytes) -> Config:
    path = directory / "mecexporter.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load(path, known_checks=CHECKS)


@pytest.mark.parametrize("path", BAD, ids=lambda p: p.stem)
def test_each_mistake_is_named_with_key_and_place(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(path, known_checks=CHECKS)
    assert str(caught.value).replace(str(path), "FILE") + "\n" == path.with_suffix(".error").read_text()


def test_each_error_text_belongs_to_a_fixture() -> None:
    assert {p.stem for p in (FIXTURES / "bad").glob("*.error")} == {p.stem for p in BAD}


def test_the_contracts_example_is_the_default() -> None:
    assert load(CONTRACT, known_checks=CHECKS) == Config()


def keys(data: Any, within: str = "") -> set[str]:
    if not isinstance(data, dict):
        return {within}
    return {within}.union(*(keys(value, f"{within}.{key}".removeprefix(".")) for key, value in data.items()))


def test_it_has_every_key_that_there_is() -> None:
    assert keys(yaml.safe_load(CONTRACT.read_text())) == keys(effective(Config()))


def test_what_is_effective_can_be_a_file(tmp_path: Path) -> None:
    text = yaml.safe_dump(effective(Config()))
    assert loaded(tmp_path, text) == Config()


@pytest.mark.parametrize("text", ["", "# only words\n", "---\n", "null\n", "{}\n"])
def test_nothing_given_is_all_defaults(tmp_path: Path, text: str) -> None:
    assert loaded(tmp_path, text) == Config()
    assert load(None, known_checks=CHECKS) == Config()


def test_keys_given_leave_their_neighbours_alone(tmp_path: Path) -> None:
    config = loaded(tmp_path, "ovn: {southbound: {peers: ['tcp:[2001:db8::1]:6642']}}\ngrace: {bridge: 500ms}\n")
    assert config.ovn.southbound.peers == ["tcp:[2001:db8::1]:6642"]
    assert config.ovn.southbound.database == Config().ovn.southbound.database
    assert config.grace.bridge == 0.5
    assert config.grace.identity == 120.0


@pytest.mark.parametrize(
    "text",
    [
        "roles: [compute, central, api]",
        "roles: []",
        "intervals: {live: 1s, audit: 1.5s, flows: 1000ms, openstack: 1d}",
        "ovs: {database: 'tcp:127.0.0.1:6640', system_id_policy: file}",
        "ovs: {database: 'ssl:[::1]:6640', system_id_policy: ignore, integration_bridge: br-ovn}",
        "ovn: {southbound: {database: 'ssl:a.example:6642, ssl:b.example:6642'}}",
        "ovn: {tls: {private_key: /k, certificate: /c, ca_certificate: /a}}",
        "openstack: {cloud: mycloud, scope: all}",
        "sources: {disable: [ovs, 'nova@cell 1', 'OVN_Southbound@ssl:192.0.2.1:6642', northd, conntrack]}",
        "checks: {disable: [system_id_changed]}",
        "offload: {ratio_low: 1, min_pps: 0.5, target: 2.5Tbps}",
        "web: {web_config: /w.yml, local_socket: null}",
        "findings: {limit: 1}",
        "grace: {bridge: &x 5s, identity: *x}",
        "ovn: {audit: {window: 22:00-05:30, logical_flows: true}}",
        "ovn: {northbound: {peers: ['tcp:a.example:6641,tcp:b.example:6641']}}",
        "\ufeffroles: auto",
    ],
)
def test_what_is_allowed(tmp_path: Path, text: str) -> None:
    loaded(tmp_path, text)


def test_every_check_can_be_disabled(tmp_path: Path) -> None:
    names = frozenset(c.name for c in discover())
    path = tmp_path / "f"
    path.write_text(yaml.safe_dump({"checks": {"disable": sorted(names)}}))
    assert set(load(path, known_checks=names).checks.disable) == names


class TestFiles:
    def test_none(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"^/.*/nowhere: No such file or directory$"):
            load(tmp_path / "nowhere", known_checks=CHECKS)

    def test_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r": Is a directory$"):
            load(tmp_path, known_checks=CHECKS)

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
    def test_one_that_we_may_not_read(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        path.write_text("")
        path.chmod(0o600)
        for directory in (tmp_path, *tmp_path.parents[:3]):
            directory.chmod(directory.stat().st_mode | 0o011)
        code = (
            "import os, sys; from pathlib import Path; from mecexporter import config; os.setgid(65534); "
            "os.setuid(65534); config.load(Path(sys.argv[1]), known_checks=frozenset())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.stderr.endswith(f"ConfigError: {path}: Permission denied\n")

    @pytest.mark.parametrize("content", [b"#" * (MAX_BYTES + 1), b"- a\n" * MAX_BYTES])
    def test_one_that_is_far_too_long(self, tmp_path: Path, content: bytes) -> None:
        with pytest.raises(ConfigError, match=rf": longer than {MAX_BYTES} bytes$"):
            loaded(tmp_path, content)

    def test_one_without_an_end(self) -> None:
        with pytest.raises(ConfigError, match=r"^/dev/zero: longer than"):
            load(Path("/dev/zero"), known_checks=CHECKS)


class TestBombs:
    """Small files that unfold into large ones."""

    @staticmethod
    def nested(shape: str, depth: int = 40) -> str:
        lines = ["nova:", "  cells:", "    a0: &a0 x"]
        for n in range(1, depth):
            inner = {"map": f"{{x: *a{n - 1}, y: *a{n - 1}}}", "list": f"[*a{n - 1}, *a{n - 1}]"}[shape]
            lines.append(f"    a{n}: &a{n} {inner}")
        return "\n".join(lines) + "\n"

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize("shape", ["map", "list"])
    def test_aliases_of_aliases(self, tmp_path: Path, shape: str) -> None:
        with pytest.raises(ConfigError, match=r"nova\.cells: expected `str`"):
            loaded(tmp_path, self.nested(shape))

    @pytest.mark.timeout(20)
    def test_merged_aliases(self, tmp_path: Path) -> None:
        lines = ["a0: &a0 {k0: 1}"] + [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: 1}}" for n in range(1, 12)]
        with pytest.raises(ConfigError, match="a0: no such key"):
            loaded(tmp_path, "\n".join(lines))

    @pytest.mark.timeout(20)
    def test_a_loop(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"nova\.cells: expected `str`"):
            loaded(tmp_path, "nova: {cells: &c {x: *c}}")

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000])
    def test_nesting_without_end(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(ConfigError):
            loaded(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("15s", 15), ("1.5m", 90), ("2h", 7200), ("1d", 86400), ("0s", 0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "5", "5 s", " 5s", "5s ", "5S", "-5s", "+5s", "5e3s", "5s\n", ".5s", 5, None, True, []]
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        Duration.parse(text)


@given(st.integers(0, 10**7), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_a_duration_is_written_as_it_is_read(number: int, unit: str) -> None:
    duration = Duration.parse(f"{number}{unit}")
    assert Duration.parse(str(duration)) == pytest.approx(duration, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "rate", "again"),
    [("40Gbps", 40e9, "40Gbps"), ("2.5Tbps", 2.5e12, "2500Gbps"), ("100bps", 100, "100bps"), ("1500kbps", 1.5e6, None)],
)
def test_rates(text: str, rate: float, again: str | None) -> None:
    assert Rate.parse(text) == rate
    assert Rate.parse(str(Rate.parse(text))) == rate
    if again:
        assert str(Rate.parse(text)) == again


def at(clock: str) -> float:
    """Seconds from midnight."""
    hours, minutes, seconds = (int(part) for part in f"{clock}:00".split(":")[:3])
    return 3600.0 * hours + 60 * minutes + seconds


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("01:00-05:30", "01:00", "05:30"),
        ("22:00-05:30", "22:00", "05:30"),
        ("00:00-23:59", "00:00", "23:59"),
        ("23:59-00:00", "23:59", "00:00"),
        ("12:00-12:00", "12:00", "12:00"),
    ],
)
def test_windows(text: str, begin: str, end: str) -> None:
    assert Window.parse(text).seconds == (at(begin), at(end))
    assert str(Window.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "01:00",
        "01:00-",
        "1:00-05:30",
        "01:00-5:30",
        "01:00-24:00",
        "01:60-05:30",
        "01:00 - 05:30",
        "01:00\u201305:30",
        "01:00-05:30\n",
        "-01:00-05:30",
        "01:00:00-05:30:00",
        "01-05",
        3660,
        None,
        True,
        ["01:00", "05:30"],
    ],
)
def test_what_is_no_window(text: object) -> None:
    with pytest.raises(ValueError, match="is no window: want two times of the day, such as 01:00-05:30"):
        Window.parse(text)


@given(st.lists(st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59)), min_size=2, max_size=2))
def test_whatever_two_times_are_a_window(times: list[str]) -> None:
    assert Window.parse("-".join(times)).seconds == (at(times[0]), at(times[1]))


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [
        pytest.param(
            "01:00-05:30", ["01:00", "03:00", "05:29:59"], ["00:59:59", "05:30", "12:00", "23:59"], id="by night"
        ),
        pytest.param(
            "22:00-05:30",
            ["22:00", "23:59:59", "00:00", "05:29:59"],
            ["05:30", "12:00", "21:59:59"],
            id="over midnight",
        ),
        pytest.param("22:00-00:00", ["22:00", "23:59:59"], ["00:00", "12:00", "21:59:59"], id="until midnight"),
        pytest.param("00:00-01:00", ["00:00", "00:59:59"], ["01:00", "23:59:59"], id="from midnight"),
        pytest.param("12:00-12:00", ["00:00", "11:59:59", "12:00", "23:59:59"], [], id="all day"),
        pytest.param(None, ["00:00", "12:00", "23:59:59"], [], id="none given"),
    ],
)
def test_when_an_audit_may_begin(tmp_path: Path, window: str | None, inside: list[str], outside: list[str]) -> None:
    config = loaded(tmp_path, yaml.safe_dump({"ovn": {"audit": {"window": window}}}))
    given = config.ovn.audit.window
    audits = Audits(every=300, window=given.seconds if given else None)
    assert [clock for clock in inside if not audits.may_begin(at(clock))] == []
    assert [clock for clock in outside if audits.may_begin(at(clock))] == []


@pytest.mark.parametrize(
    ("every", "window", "valid"), [(300, None, 900), (300, (1.0, 2.0), 172800), (86400, (1.0, 2.0), 259200)]
)
def test_an_audit_is_believed_until_the_next_can_have_been(
    every: float, window: tuple[float, float] | None, valid: float
) -> None:
    assert Audits(every=every, window=window).valid == valid


@pytest.mark.parametrize("window", ["22:00-05:30", "01:00-02:00"])
def test_a_window_is_shown_and_can_be_read_again(tmp_path: Path, window: str) -> None:
    config = loaded(tmp_path, yaml.safe_dump({"ovn": {"audit": {"window": window, "logical_flows": True}}}))
    assert effective(config)["ovn"]["audit"] == {"window": window, "logical_flows": True}
    assert type(effective(config)["ovn"]["audit"]["window"]) is str
    assert loaded(tmp_path, yaml.safe_dump(effective(config))) == config


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////var/lib/nova.sqlite", "sqlite:////var/lib/nova.sqlite"),
        ("mysql+pymysql://nova:secret@db/nova", "mysql+pymysql://nova:***@db/nova"),
        ("mysql+pymysql://nova:se%40cr/e:t@db/nova", "mysql+pymysql://nova:***@db/nova"),
        ("mysql+pymysql://:secret@db/nova", "mysql+pymysql://:***@db/nova"),
        ("mysql+pymysql://nova@db/nova", "mysql+pymysql://nova@db/nova"),
        ("mysql+pymysql://nova@db:3306/nova", "mysql+pymysql://nova@db:3306/nova"),
        ("mysql+pymysql://db/nova?user=nova&password=secret&x=1", "mysql+pymysql://db/nova?user=nova&password=***&x=1"),
        ("mysql+pymysql://db/nova?ssl_key_Passphrase=secret", "mysql+pymysql://db/nova?ssl_key_Passphrase=***"),
    ],
)
def test_passwords_are_masked(tmp_path: Path, url: str, shown: str) -> None:
    config = loaded(tmp_path, yaml.safe_dump({"nova": {"cells": {"cell1": url}}}))
    assert config.nova.cells == {"cell1": url}
    assert effective(config)["nova"]["cells"] == {"cell1": shown}
    assert "secret" not in str(effective(config))


@pytest.mark.parametrize(
    "url",
    [
        "mysql+pymysql://nova:pa@ss@db/nova",
        "mysql+pymysql://nova:@pass@db/nova",
        "mysql+pymysql://no@va:pass@db/nova",
        "mysql+pymysql://nova:pa@ss@db:3306/nova?charset=utf8",
        "mysql+pymysql://nova:se@cr/e:t@db/nova",
        "mysql+pymysql://nova:pa@s?s@db/nova",
        "mysql+pymysql://nova:pa@s/s?s@db/nova",
        "mariadb://nova:pa@s\n/s@db/nova",
    ],
)
def test_an_at_sign_in_a_password_would_make_a_host_of_its_rest(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, yaml.safe_dump({"nova": {"cells": {"cell1": "sqlite:////x", "edge-7": url}}}))
    assert "nova.cells.edge-7: more than one @: " in str(caught.value)
    assert not re.search(r"pa@|s@|@s|@cr|@va|ss@|va:", str(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        "mysql+pymysql://nova:pa%40s:s/w?o#rd@db:3306/nova_cell1?ssl_ca=/etc/ssl/a@b.crt&charset=utf8",
        "mysql://db/nova?ssl_ca=/a@b",
        "sqlite:////var/lib/a@b@c.sqlite",
    ],
)
def test_other_at_signs_are_allowed(tmp_path: Path, url: str) -> None:
    assert loaded(tmp_path, yaml.safe_dump({"nova": {"cells": {"c": url}}})).nova.cells == {"c": url}


def test_each_error_names_file_line_and_key_where_there_is_one() -> None:
    nameless = [p.stem for p in BAD if not re.match(r"FILE(:\d+){1,2}: \S", p.with_suffix(".error").read_text())]
    assert nameless == ["a_word", "control_character", "not_a_mapping", "not_utf8", "number_as_key"]
