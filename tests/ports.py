"""Ports for servers that a test starts."""

import socket


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, and nobody else's until this process ends.

    It stays bound: the kernel gives it to no one who asks for any port, and yet to whoever asks for this one with
    SO_REUSEADDR, as servers do (socket(7)). Two that only look for a port may find the same one before either listens.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port: int = holder.getsockname()[1]
    holder.detach()
    return port
