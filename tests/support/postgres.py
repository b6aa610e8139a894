"""A PostgreSQL of its own for tests: below a folder, on a free loopback port, with a password, never as root."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.sandbox import state_folder

_UNPRIVILEGED = 65_534


class PostgresAddress(NamedTuple):
    """Addresses of two accounts of one database."""

    owner: str
    reader: str


def postgres_programs() -> Path | None:
    """The folder of `postgres` and `initdb`; None where PostgreSQL is not installed."""
    found = [p for p in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True) if (p / "initdb").exists()]
    if found:
        return found[0]
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


@contextmanager
def postgres_server(programs: Path) -> Iterator[PostgresAddress]:
    """A server with an owner and with an account that may only read."""
    with state_folder() as folder:
        folder.mkdir()
        demoted = {"user": _UNPRIVILEGED, "group": _UNPRIVILEGED, "extra_groups": []} if os.getuid() == 0 else {}
        if demoted:
            os.chown(folder, _UNPRIVILEGED, _UNPRIVILEGED)
        password, data, port = secrets.token_hex(12), folder / "data", _free_port()
        words = folder / "words"
        words.write_text(password)
        words.chmod(0o644)
        quiet = {
            "check": True,
            "stdout": subprocess.DEVNULL,
            "cwd": folder,
            "env": {"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        }
        subprocess.run(
            [
                programs / "initdb",
                "-D",
                data,
                "-U",
                "owner",
                "-A",
                "scram-sha-256",
                f"--pwfile={words}",
                "-N",
                "-E",
                "UTF8",
            ],
            **quiet,  # type: ignore[call-overload]
            **demoted,
        )
        options = (
            f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories= -c fsync=off -c max_connections=20"
        )
        control = [programs / "pg_ctl", "-D", data, "-s", "-w", "-t", "60"]
        subprocess.run([*control, "-l", folder / "log", "-o", options, "start"], **quiet, **demoted)
        try:
            owner = f"postgresql://owner:{password}@127.0.0.1:{port}/postgres"
            yield PostgresAddress(owner, owner.replace("owner:", "reader:"))
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **quiet, **demoted)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
