"""Programs that tests deploy: small HTTP servers that do what their text says."""

from __future__ import annotations

import socket
from typing import Any

from fleet.policy.deploy import DeployTarget

ARGV = ("python", "app.py")
_APP = """
import http.server, os, sys
WELL, ERRORS, STARTS, DIES, LINKS = %(well)r, %(errors)r, %(starts)r, %(dies)r, %(links)r
SECRET = os.environ.get(%(prints)r, "")
print("starting", flush=True)
if SECRET:
    sys.stdout.write(SECRET[:5]); sys.stdout.flush()
    print(SECRET[5:], "ERROR for", SECRET, "y" * 560, flush=True)
if not STARTS:
    print("ERROR no database", flush=True)
    sys.exit(3)

if LINKS:
    os.remove(".fleet-door")
    os.symlink(LINKS, ".fleet-door")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == DIES:
            os._exit(4)
        metrics = "# HELP x\\nerrors_total{kind=\\"a\\"} %%d\\nerrors_total 0\\n" %% ERRORS
        said = metrics if self.path == "/metrics" else %(said)r
        if SECRET and not WELL and self.path == "/healthz":
            said = "x" * 290 + SECRET
        self.send_response(200 if WELL or self.path != "/healthz" else 503)
        self.end_headers()
        self.wfile.write(said.encode())
    def log_message(self, *_):
        pass

for number in range(ERRORS):
    print("ERROR number", number, flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


_AS_A_RULE: dict[str, Any] = {
    "said": "one",
    "well": True,
    "errors": 0,
    "starts": True,
    "dies": "",
    "links": "",
    "prints": "",
}


def app(**does: Any) -> bytes:
    """The program.

    Args:
        does: `said` is what it answers on `/`, `well` whether `/healthz` is, `errors` how many it counts and prints,
            `starts` whether it does not end at once, `dies` the path at which it ends, `links` what it puts a link to
            where the supervisor looks for its socket, `prints` a variable whose value it prints, and answers when it is
            not well.
    """
    return (_APP % (_AS_A_RULE | does)).encode()


def target_of(environment: str = "preview", **fields: Any) -> DeployTarget:
    """A target of short windows that these programs run in."""
    alive = {"name": "alive", "kind": "http", "target": "/healthz", "threshold": 0, "interval_s": 1, "window_s": 1}
    given = {
        "environment": environment,
        "argv": ARGV,
        "memory_mb": 128,
        "ready": {"within_s": 20},
        "monitor": {"window_s": 1, "checks": [alive]},
    }
    return DeployTarget.model_validate(given | fields)


def free_port() -> int:
    """A port of the loopback that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]
