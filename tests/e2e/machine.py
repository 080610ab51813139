"""A guest that does what it is told, with an exporter in it that is asked from outside."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Self

import yaml

from tests.lab.monitoring import get
from tests.ports import free_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.hwlab import Guest

SOON = 240
"""Seconds: the guest is emulated, and OpenStack's libraries alone take a minute to import there."""


class Machine:
    """One guest and its exporter.

    Args:
        share: what the two have in common, /share in the guest.
        guest: makes it, with a port forwarded.
        config: of the exporter, but for where it listens.
        before: lines of bash that come before the exporter's start.
        seconds: after which the guest is ended.
    """

    def __init__(
        self,
        share: Path,
        guest: Callable[[Mapping[int, int]], Guest],
        config: Mapping[str, Any],
        before: str,
        *,
        seconds: float = 500,
    ) -> None:
        self.share, port = share, free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._number = 0
        self._result: Any = None
        listening = {"web": {"listen": "0.0.0.0:9746", "local_socket": None}}
        (share / "config.yaml").write_text(yaml.safe_dump({**config, **listening}).replace("127.0.0.1", "10.0.2.2"))
        made = guest({port: 9746})
        script = f"""
            network
            {before}
            python3 -m mecexporter run --config /share/config.yaml >/share/exporter.log 2>&1 &
            EXPORTER=$!
            obey
            kill $EXPORTER
        """

        def work() -> None:
            try:
                self._result = made.sh(script, timeout=seconds)
            except Exception as error:  # noqa: BLE001  # told to the test, which runs elsewhere
                self._result = error

        self._thread = threading.Thread(target=work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.until(lambda: get(f"{self.url}/readyz") is not None, "the guest's exporter is ready")
        return self

    def __exit__(self, *_: object) -> None:
        (self.share / "todo").mkdir(exist_ok=True)
        (self.share / "todo/end").touch()
        self._thread.join(60)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for it as long as the guest is there."""
        wait_until(lambda: self._alive() and condition(), SOON, what)

    def _alive(self) -> bool:
        assert self._result is None, f"the guest has ended: {self._result}"
        return True

    def do(self, script: str) -> str:
        """Runs lines of bash in the guest, with the functions of guest/lib.sh."""
        self._number += 1
        todo, done = self.share / "todo" / str(self._number), self.share / "done" / str(self._number)
        todo.with_name(".next").write_text(script)
        todo.with_name(".next").rename(todo)
        self.until(done.exists, f"the guest has done: {script}")
        status, _, said = done.read_text().partition("\n")
        assert status == "0", f"{script}: {said}"
        return said

    def findings(self) -> dict[str, Any]:
        """The findings' document."""
        document: dict[str, Any] = json.loads(self._page("/api/v1/findings"))
        return document

    def series(self, name: str) -> list[str]:
        """Lines of the exposition."""
        return [line for line in self._page("/metrics").splitlines() if line.startswith((f"{name}{{", f"{name} "))]

    def _page(self, path: str) -> str:
        # One that is late is asked again: the processor is shared with all that the guest does, and is emulated.
        return wait_until(lambda: self._alive() and get(f"{self.url}{path}"), SOON, "the exporter answers") or ""
