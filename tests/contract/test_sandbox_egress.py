"""The way out of a run: real sandboxes, a real proxy, and decoys on the loopback of this machine (checks S11, S12)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fleet.kernel.errors import InvalidInput
from fleet.policy.runs.spec import EgressDecision, Limits, RunResult, RunSpec
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.egress.proxy import EgressSettings
from fleet.trees.memory import MemoryBlobStore
from tests.support.sandbox import SMALL, eventually, state_folder

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = {
    "allowed.example": ["127.0.0.1"],
    "a.sub.example": ["127.0.0.1"],
    "evil.example": ["127.0.0.1"],
    "rebound.example": ["127.0.0.1", "10.0.0.1"],
    "meta.example": ["169.254.169.254"],
    "private.example": ["10.1.2.3"],
    "local6.example": ["fd00::1"],
    "gone.example": [],
}
ASK = """
import json, socket, sys
answers = []
for parts in json.loads(sys.argv[1]):
    answer = b""
    with socket.create_connection(("127.0.0.1", 3128), timeout=15) as s:
        try:
            for n, part in enumerate(parts):
                s.sendall(part.encode("latin-1"))
                # Between the parts of a tunnel its opening is awaited.
                while n + 1 < len(parts) and not answer.endswith(b"\\r\\n\\r\\n"):
                    answer += s.recv(1)
            while not answer.endswith(b"pong") and (more := s.recv(65536)):
                answer += more
        except OSError as error:
            answer = repr(error).encode()
    answers.append(answer.decode("latin-1"))
print(json.dumps(answers))
"""


@dataclass
class Decoy:
    """A server on this machine's loopback; it answers HTTP, and `ping` with `pong` in a tunnel."""

    port: int = 0
    heard: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readexactly(4)
            if head == b"ping":
                self.heard.append(head)
                writer.write(b"pong")
            else:
                self.heard.append(head + await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
            await writer.drain()
        writer.close()


@dataclass
class World:
    """A backend whose resolver and addresses are those of the tests."""

    backend: BubblewrapBackend
    decoy: Decoy
    lookups: list[str]

    @property
    def hosts(self) -> tuple[str, ...]:
        port = self.decoy.port
        names = [n for n in NAMES if n not in ("evil.example", "a.sub.example")]
        return (*(f"{name}:{port}" for name in names), f".sub.example:{port}")

    async def run(self, argv: Sequence[str], *, hosts: Sequence[str] | None = None, **fields: Any) -> RunResult:
        spec = RunSpec(
            argv=tuple(argv), hosts=tuple(self.hosts if hosts is None else hosts), limits=fields.pop("limits", SMALL)
        )
        return await self.backend.run(spec, run_id=f"rn-egress-{id(spec)}", **fields)

    async def ask(self, *requests: str | list[str]) -> tuple[list[str], tuple[EgressDecision, ...]]:
        """Status lines of the answers, and the decisions of the run."""
        self.decoy.heard.clear()
        result = await self.run(("python", "-c", ASK, json.dumps([[r] if isinstance(r, str) else r for r in requests])))
        assert result.reason == "ok", result.stderr.text
        answers: list[str] = json.loads(result.stdout.text)
        return answers, result.egress


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncGenerator[World]:
    decoy, lookups = Decoy(), list[str]()
    server = await asyncio.start_server(decoy.serve, "127.0.0.1", 0)
    decoy.port = server.sockets[0].getsockname()[1]

    async def resolve(host: str) -> Sequence[str]:
        lookups.append(host)
        return NAMES[host]

    settings = EgressSettings(
        resolve=resolve, allow_addresses=("127.0.0.1/32",), header_s=1, idle_s=2, connect_s=2, max_connections=4
    )
    with state_folder() as folder:
        backend = BubblewrapBackend(folder, MemoryBlobStore(), egress=settings)
        health = await backend.health()
        if health.status == "down":
            pytest.skip(f"no sandbox can be built here: {'; '.join((*health.unmet, *health.mend))}")
        yield World(backend, decoy, lookups)
    server.close()
    await server.wait_closed()


def get(url: str, *fields: str) -> str:
    return "\r\n".join((f"GET {url} HTTP/1.1", *fields, "", ""))


def connect(authority: str) -> str:
    return f"CONNECT {authority} HTTP/1.1\r\n\r\n"


@pytest.mark.check("S11")
@pytest.mark.rule("RC-7")
async def test_listed_host_is_reached_by_plain_http_and_recorded(world: World) -> None:
    port = world.decoy.port
    answers, decisions = await world.ask(get(f"http://ALLOWED.example.:{port}/a?b", "Host: evil.example", "Accept: x"))

    assert answers[0].startswith("HTTP/1.1 200 OK")
    assert world.decoy.heard == [
        f"GET /a?b HTTP/1.1\r\nHost: allowed.example:{port}\r\nConnection: close\r\nAccept: x\r\n\r\n".encode()
    ]
    (decision,) = decisions
    assert decision.model_dump(exclude={"at_ms", "bytes_in", "bytes_out"}) == {
        "host": "allowed.example",
        "port": port,
        "allowed": True,
        "reason": "ok",
        "address": "127.0.0.1",
    }
    assert decision.bytes_in == len(answers[0])
    assert decision.bytes_out == len(world.decoy.heard[0])
    assert decision.at_ms > 1_700_000_000_000


@pytest.mark.check("S11")
@pytest.mark.rule("RC-7")
async def test_listed_host_is_reached_through_a_tunnel(world: World) -> None:
    answers, decisions = await world.ask([connect(f"a.sub.example:{world.decoy.port}"), "ping"])

    assert answers == ["HTTP/1.1 200 Connection established\r\n\r\npong"]
    assert [(d.allowed, d.bytes_out, d.bytes_in) for d in decisions] == [(True, 4, 4)]


@pytest.mark.check("S11")
@pytest.mark.rule("RC-7", "RT-59")
async def test_every_other_target_is_refused_and_the_decoy_hears_nothing(world: World) -> None:
    port = world.decoy.port
    cases = {
        connect(f"evil.example:{port}"): "host_not_listed",
        connect(f"EVIL.example.:{port}"): "host_not_listed",
        connect(f"127.0.0.1:{port}"): "address_literal",
        connect(f"[::ffff:127.0.0.1]:{port}"): "address_literal",
        connect(f"2130706433:{port}"): "address_literal",
        connect(f"0x7f000001:{port}"): "address_literal",
        connect(f"0177.0.0.1:{port}"): "address_literal",
        connect(f"allowed.example@evil.example:{port}"): "odd_host",
        connect("allowed.example:22"): "port_not_listed",
        connect(f"rebound.example:{port}"): "address_not_public",
        connect(f"meta.example:{port}"): "address_not_public",
        connect(f"private.example:{port}"): "address_not_public",
        connect(f"local6.example:{port}"): "address_not_public",
        connect(f"gone.example:{port}"): "not_resolved",
        get(f"http://evil.example:{port}/", f"Host: allowed.example:{port}"): "host_not_listed",
        get(f"http://allowed.example@evil.example:{port}/"): "odd_host",
        get("/", f"Host: allowed.example:{port}"): "malformed_request",
    }
    answers, decisions = await world.ask(*cases)

    assert [d.reason for d in decisions] == list(cases.values())
    assert not any(d.allowed for d in decisions)
    assert not any(a.startswith("HTTP/1.1 2") for a in answers)
    assert [a.partition(" ")[2][:3] for a in answers[:13]] == ["403"] * 13
    assert world.decoy.heard == []


@pytest.mark.check("S11")
@pytest.mark.rule("RT-59")
async def test_name_is_looked_up_once_for_a_connection(world: World) -> None:
    world.lookups.clear()
    await world.ask(get(f"http://allowed.example:{world.decoy.port}/"), connect(f"evil.example:{world.decoy.port}"))

    assert world.lookups == ["allowed.example"]


@pytest.mark.check("S11")
async def test_head_over_its_size_or_its_time_is_refused(world: World) -> None:
    port = world.decoy.port
    long = get(f"http://allowed.example:{port}/", "A: " + "x" * (17 << 10))
    answers, decisions = await world.ask(long, f"CONNECT allowed.example:{port} HTT")

    assert [a.partition(" ")[2][:3] for a in answers] == ["431", "408"]
    assert [d.reason for d in decisions] == ["header_too_large", "header_timeout"]
    assert world.decoy.heard == []


async def test_second_request_on_one_connection_goes_nowhere(world: World) -> None:
    port = world.decoy.port
    both = get(f"http://allowed.example:{port}/1") + get(f"http://allowed.example:{port}/2", "Host: evil.example")
    answers, decisions = await world.ask(both)

    assert len(world.decoy.heard) == 1
    assert len(decisions) == 1
    assert answers[0].count("HTTP/1.1 200") == 1


async def test_idle_tunnel_is_closed(world: World) -> None:
    answers, decisions = await world.ask(connect(f"allowed.example:{world.decoy.port}"))

    assert answers == ["HTTP/1.1 200 Connection established\r\n\r\n"]
    assert decisions[0].allowed


@pytest.mark.rule("RC-7")
async def test_connections_over_the_limit_are_refused(world: World) -> None:
    program = (
        "import socket\n"
        "all = [socket.create_connection(('127.0.0.1', 3128), timeout=10) for _ in range(6)]\n"
        "print(*sorted(s.recv(12).decode() for s in all), sep=',')"
    )
    result = await world.run(("python", "-c", program))

    assert result.stdout.text.strip() == ",".join(["HTTP/1.1 408"] * 4 + ["HTTP/1.1 503"] * 2)
    assert sorted(d.reason for d in result.egress) == ["header_timeout"] * 4 + ["too_many_connections"] * 2


@pytest.mark.check("S12")
@pytest.mark.rule("RC-7", "RC-31")
async def test_program_that_ignores_the_proxy_reaches_nothing(world: World) -> None:
    world.decoy.heard.clear()
    program = (
        "import socket, urllib.request as u\n"
        "def tried(work):\n"
        "    try:\n        work()\n        print('reached')\n"
        "    except OSError as error:\n        print('refused')\n"
        f"port = {world.decoy.port}\n"
        "tried(lambda: u.build_opener(u.ProxyHandler({})).open(f'http://127.0.0.1:{port}/', timeout=3))\n"
        "tried(lambda: socket.create_connection(('192.0.2.1', 80), timeout=3))\n"
        "tried(lambda: socket.getaddrinfo('allowed.example', 80))\n"
        "print(u.urlopen(f'http://allowed.example:{port}/', timeout=5).read().decode())\n"
    )
    result = await world.run(("python", "-c", program))

    assert result.stdout.text.split() == ["refused", "refused", "refused", "hi"], result.stderr.text
    assert len(world.decoy.heard) == 1


async def test_launcher_leaves_nothing_but_its_variables(world: World) -> None:
    program = (
        "import os, signal\n"
        "print(sorted(os.listdir('/proc/self/fd')), signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN)\n"
        "print(*sorted(f'{k}={v}' for k, v in os.environ.items() if 'proxy' in k.lower()))"
    )
    script = "grep -E 'SigIgn' /proc/self/status; ls /proc/self/fd | wc -l"
    shell = await world.run(("sh", "-c", script))
    result = await world.run(("python", "-c", program))

    # Whoever started the tests may ignore signals (nohup does), and that is inherited; the launcher adds none.
    own = int(Path("/proc/self/status").read_text().partition("SigIgn:")[2].split()[0], 16)
    python_ignores = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    assert int(shell.stdout.text.split()[1], 16) & ~(own & ~python_ignores) == 0
    assert "['0', '1', '2', '3']" in result.stdout.text
    assert "HTTPS_PROXY=http://127.0.0.1:3128" in result.stdout.text
    assert "no_proxy=localhost,127.0.0.1,::1" in result.stdout.text
    assert result.limits["network"] == "namespace+proxy"


@pytest.mark.check("S12")
async def test_run_without_hosts_has_no_proxy(world: World) -> None:
    result = await world.run(("sh", "-c", "env | grep -ci proxy"), hosts=())

    assert result.stdout.text == "0\n"
    assert result.egress == ()
    assert result.limits["network"] == "namespace"


async def test_missing_program_is_named_as_without_a_proxy(world: World) -> None:
    result = await world.run(("no-such-program",))

    assert (result.status, result.reason, result.exit_code) == ("error", "config", 127)


async def test_pattern_that_is_none_refuses_the_run(world: World) -> None:
    with pytest.raises(InvalidInput):
        await world.run(("true",), hosts=("*.example",))


async def test_cancelled_run_keeps_its_decisions_and_leaves_no_connection(world: World) -> None:
    program = (
        "import socket, time\n"
        "s = socket.create_connection(('127.0.0.1', 3128))\n"
        f"s.sendall(b'CONNECT allowed.example:{world.decoy.port} HTTP/1.1\\r\\n\\r\\n')\n"
        "print(s.recv(100), flush=True)\ntime.sleep(60)"
    )
    told: list[str] = []
    spec = RunSpec(
        argv=("python", "-c", program),
        hosts=world.hosts,
        limits=Limits.model_validate({**SMALL.model_dump(), "grace_s": 0}),
    )
    task = asyncio.create_task(world.backend.run(spec, run_id="rn-held", log=lambda line: told.append(line.line)))
    await eventually(lambda: bool(told), within_s=15)
    await world.backend.cancel("rn-held")
    result = await task

    assert result.reason == "cancelled"
    assert [(d.host, d.allowed) for d in result.egress] == [("allowed.example", True)]
