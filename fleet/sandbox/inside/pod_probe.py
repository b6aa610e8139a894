# ruff: noqa: PTH123
"""What a pod of a run holds, as one JSON object on standard output: item -> problem, empty when it holds.

Argument: a JSON object `{host, port}`: an address that answers the supervisor and may not answer a run.
Standard library alone.
"""

from __future__ import annotations

import json
import os
import socket
import sys

_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
_CONNECT_S = 3.0


def egress(host: str, port: int) -> str:
    """Empty when nothing can be connected to."""
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError:
        return ""
    return "a run can connect to the API server: the network plugin enforces no NetworkPolicy, or there is none"


def privileges() -> str:
    """Empty when the process is nobody special and can become nobody else."""
    with open("/proc/self/status", encoding="ascii") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    rules = {"NoNewPrivs": "1", "CapEff": "0" * 16, "Seccomp": "2"}
    wrong = [f"{name} is {status.get(name, 'unknown')}" for name, value in rules.items() if status.get(name) != value]
    return ", ".join(["the run is root"] * (os.getuid() == 0) + wrong)


def read_only() -> str:
    """Empty when the image cannot be changed."""
    writable = [path for path in ("/", "/usr", "/etc", "/fleet/inside") if _can_write(path)]
    return f"a run can write below {', '.join(writable)}" if writable else ""


def _can_write(folder: str) -> bool:
    try:
        os.close(os.open(f"{folder.rstrip('/')}/.probe", os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError:
        return False
    return True


def main() -> None:
    where = json.loads(sys.argv[1])
    has_token = os.access(_TOKEN, os.R_OK)
    report = {
        "egress_denied": egress(where["host"], where["port"]),
        "privileges": privileges(),
        "read_only_system": read_only(),
        "hidden_environment": "a run can read a token of the cluster" if has_token else "",
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
