"""First program of a run that may reach listed hosts: hands a listening socket out, then becomes the command.

Usage: egress_launcher.py FD COMMAND...   FD is the inherited socket to the supervisor. Standard library only.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

ADDRESS = ("127.0.0.1", 3128)
PROXY = "http://127.0.0.1:3128"
LOCAL = "localhost,127.0.0.1,::1"


def main() -> None:
    """Replace this process by the command; 125 when the supervisor is gone, 126 and 127 as a shell has them."""
    command = sys.argv[2:]
    with socket.socket(fileno=int(sys.argv[1])) as supervisor, socket.create_server(ADDRESS, backlog=128) as listener:
        supervisor.settimeout(20)
        try:
            socket.send_fds(supervisor, [b"L"], [listener.fileno()])
            answer = supervisor.recv(1)
        except OSError:
            answer = b""
    if not answer:
        sys.exit(125)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        os.environ[name] = os.environ[name.upper()] = PROXY
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = LOCAL
    os.environ["NODE_USE_ENV_PROXY"] = "1"
    # Python ignores these, and an ignored signal stays ignored in the command.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"launcher: failed to execute {command[0]}: {error.strerror}\n")
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main()
