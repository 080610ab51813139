"""One line a record, whatever is in it; and which records are none of ours."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import sys
from typing import TYPE_CHECKING

import pytest
from aiohttp.http_exceptions import BadStatusLine
from hypothesis import given
from hypothesis import strategies as st

from mecexporter import logs
from tests.own_logging import restored

if TYPE_CHECKING:
    from collections.abc import Iterator

PAIR = re.compile(r'([^\s=]+)=("(?:[^"\\]|\\.)*"|[^\s"]+)(?: |$)')


def record(message: str = "finding opened", **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "mecexporter.app", "levelno": 30, "levelname": "WARNING", "msg": message})
    vars(made).update(extra)
    return made


def line(made: logging.LogRecord) -> str:
    return logs.KeyValue().format(made)


def read(text: str) -> dict[str, str]:
    """As whoever parses the log would."""
    assert "".join(m[0] for m in PAIR.finditer(text)) == text
    return {key: json.loads(value) if value.startswith('"') else value for key, value in PAIR.findall(text)}


def test_a_record_and_its_extras() -> None:
    made = record(check="system_id_changed", count=3, share=0.25, nothing=None, empty="")
    made.created, made.msecs = 1_800_000_000.25, 250.0
    assert line(made) == (
        'time=2027-01-15T08:00:00.250Z level=warning logger=mecexporter.app msg="finding opened" '
        'check=system_id_changed count=3 share=0.25 nothing=None empty=""'
    )


@given(st.text(), st.text())
def test_one_line_that_reads_back_as_it_was(message: str, value: str) -> None:
    made = record(message, subject=value)
    text = line(made)
    assert len(text.splitlines()) == 1
    assert text.isascii()
    assert text.isprintable()
    assert (read(text)["msg"], read(text)["subject"]) == (message, value)


@pytest.mark.parametrize("value", ["a=b", 'say "hi"', "back\\slash", "two words", "a\nb", "\x1b[31m", "名", "\udcff"])
def test_what_is_not_plain_is_quoted(value: str) -> None:
    assert read(line(record(why=value)))["why"] == value
    assert 'why="' in line(record(why=value))


def test_a_message_is_given_its_arguments() -> None:
    made = record("%s of %d")
    made.args = ("three", 4)
    assert 'msg="three of 4"' in line(made)


def test_a_traceback_is_one_value() -> None:
    made = record()
    try:
        divmod(1, 0)
    except ZeroDivisionError as error:
        error.add_note("and\na note")
        made.exc_info = sys.exc_info()
    text = line(made)
    assert len(text.splitlines()) == 1
    assert read(text)["traceback"].startswith("Traceback (most recent call last):\n")
    assert "by zero\nand\na note" in read(text)["traceback"]


@contextlib.contextmanager
def set_up() -> Iterator[io.StringIO]:
    """The program's own logging, and what it said; afterwards pytest's again."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, restored():
        patch.setattr(sys, "stderr", said)
        logs.set_up()
        yield said


def test_what_is_no_http_is_not_logged_but_a_bug_of_ours_is() -> None:
    with set_up() as said:
        server = logging.getLogger("aiohttp.server")
        for error in (BadStatusLine("\x16\x03\x01"), ZeroDivisionError("a bug")):
            server.error("Error handling request", exc_info=error)
        server.error("something else")
    first, second = said.getvalue().splitlines()
    assert "ZeroDivisionError: a bug" in read(first)["traceback"]
    assert read(second)["msg"] == "something else"


def test_each_reconnection_of_ovsdbapp_and_each_request_is_not() -> None:
    with set_up() as said:
        logging.getLogger("ovsdbapp.backend.ovs_idl").warning("reconnecting")
        logging.getLogger("aiohttp.access").info("GET /metrics")
        logging.getLogger("mecexporter").info("ours")
    (only,) = said.getvalue().splitlines()
    assert read(only)["msg"] == "ours"
