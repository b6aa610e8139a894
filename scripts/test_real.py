"""The suites of the stores against real servers: contract, projection and the fast faults (`make test-real`).

`FLEET_REDIS_URL` and `FLEET_NEO4J_URI` name the servers. Without either, the machine's own `redis-server` is
started on a free port of the loopback for the run, and ended afterwards. With `--wide`, the tests of `make test-wide`
run at the same time, against servers of their own. Other arguments go to pytest.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from scripts import run_tests

_START_S = 10.0
_NAMES = ("FLEET_REDIS_URL", "FLEET_NEO4J_URI", "FLEET_NEO4J_USER", "FLEET_NEO4J_PASSWORD")


def main(arguments: list[str]) -> int:
    """The exit status of pytest; 5 when there is no real server to test against."""
    given = {name: value for name in _NAMES if (value := os.environ.pop(name, ""))}
    if "FLEET_REDIS_URL" in given or "FLEET_NEO4J_URI" in given:
        return run(arguments, given)
    if shutil.which("redis-server") is None:
        print(
            "There is no real server to test against: install redis-server, or set FLEET_REDIS_URL or FLEET_NEO4J_URI.",
            file=sys.stderr,
        )
        return 5
    with tempfile.TemporaryDirectory(prefix="fleet-real-") as folder, own_redis(Path(folder)) as url:
        return run(arguments, {"FLEET_REDIS_URL": url})


def run(arguments: list[str], servers: Mapping[str, str]) -> int:
    """The status of these suites, which are judged by the rule of the default tests.

    Args:
        servers: variables that the suites of the stores find in their environment, and no other lane does.
    """
    wide = run_tests.WIDES if "--wide" in arguments else ()
    rest = [one for one in arguments if one != "--wide"]
    real = {**servers, "FLEET_TEST_REAL": "1"}
    return run_tests.run_apart((*wide, run_tests.REAL), rest, {run_tests.REAL: real})


@contextmanager
def own_redis(folder: Path) -> Iterator[str]:
    """URL of the machine's redis-server, with fsync at every write and a password."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    password = secrets.token_hex(16)
    config = folder / "redis.conf"
    config.write_text(
        f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {folder}\nappendonly yes\nappendfsync always\n"
        'maxmemory-policy noeviction\nsave ""\n'
    )
    config.chmod(0o600)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["redis-server", str(config)], stdout=log, stderr=subprocess.STDOUT)
    try:
        _await(server, port)
        yield f"redis://:{password}@127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(10)


def _await(server: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("redis-server did not start; run it by hand to see why")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
