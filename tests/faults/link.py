"""A TCP link to a server, over TCP or on a unix socket, that can fail as networks do: what is under way hangs."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path


class Link:
    """Forwards connections from a port of its own; ``address`` is what to connect to, as OVSDB writes it."""

    def __init__(self, target: int | Path) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.address = f"tcp:127.0.0.1:{self.port}"
        self._sockets: list[socket.socket] = []
        self._flows = threading.Event()  # of the connections that are there; after a freeze new ones have another
        self._flows.set()
        self._frozen: list[threading.Event] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name=f"link {self.address}", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.mend()
        for s in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()

    def freeze(self) -> None:
        """Hold back all that is sent over the connections that are there, as a firewall that has forgotten them."""
        self._flows.clear()
        self._frozen.append(self._flows)
        self._flows = threading.Event()
        self._flows.set()

    def mend(self) -> None:
        """Let what was held back pass."""
        while self._frozen:
            self._frozen.pop().set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = self._connect()
                except OSError:
                    near.close()
                    continue
                self._sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink, self._flows), daemon=True).start()

    def _connect(self) -> socket.socket:
        if isinstance(self._target, int):
            return socket.create_connection(("127.0.0.1", self._target), 5)
        far = socket.socket(socket.AF_UNIX)
        far.connect(str(self._target))
        return far

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, flows: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                flows.wait()
                sink.sendall(data)
        for s in (source, sink):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
