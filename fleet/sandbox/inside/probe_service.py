"""Ends with 0 when a side service of this sandbox can be used. Standard library only.

Usage: probe_service.py port PORT | redis PORT PASSWORD
"""

from __future__ import annotations

import socket
import sys


def main() -> int:
    """0 when something listens on the port, and for redis when it also takes the password."""
    kind, port = sys.argv[1], int(sys.argv[2])
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            if kind == "redis":
                connection.sendall(b"AUTH %s\r\nPING\r\n" % sys.argv[3].encode())
                return 0 if connection.makefile("rb").read(12) == b"+OK\r\n+PONG\r\n" else 1
    except OSError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
