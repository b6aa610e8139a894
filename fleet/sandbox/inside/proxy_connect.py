"""Standard input and output become a connection through the proxy of the run: proxy_connect.py HOST PORT.

For programs that know no proxy, as `ssh` and its ProxyCommand. Exit: 0 the connection ended, 1 there is none.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

_CHUNK = 1 << 16
_MOST_HEAD = 1 << 14


class NoWay(Exception):
    """The proxy does not connect; the message says what it answered."""


def connected(proxy: str, host: str, port: str) -> socket.socket:
    """A connection to the host through the proxy. Raises NoWay, OSError."""
    place = urlsplit(proxy)
    far = socket.create_connection((place.hostname or "", place.port or 80), timeout=60)
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    far.sendall(f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode("ascii"))
    head = b""
    # One byte at a time: what comes after the head is the other side's first words already.
    while not head.endswith(b"\r\n\r\n"):
        byte = far.recv(1)
        if not byte or len(head) >= _MOST_HEAD:
            raise NoWay("the proxy ended the connection")
        head += byte
    status = head.split(b"\r\n", 1)[0].decode("ascii", "replace").split(" ")
    if len(status) < 2 or status[1] != "200":
        raise NoWay(f"the proxy answers {' '.join(status[1:])} for {name}")
    far.settimeout(None)
    return far


def relay(far: socket.socket) -> None:
    """Both directions until the other side has ended."""

    def outwards() -> None:
        # The other side may be gone first, which the reading half tells of.
        with contextlib.suppress(OSError):
            while data := os.read(0, _CHUNK):
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)

    threading.Thread(target=outwards, daemon=True).start()
    while data := far.recv(_CHUNK):
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]


def main(argv: Sequence[str]) -> int:
    """The exit codes of the module."""
    proxy = os.environ.get("https_proxy") or os.environ.get("http_proxy")
    try:
        if not proxy:
            raise NoWay("this run has no way out")
        with connected(proxy, *argv) as far:
            relay(far)
    except (NoWay, OSError, ValueError) as error:
        print(f"proxy_connect: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
