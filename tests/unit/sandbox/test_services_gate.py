"""The supervisor's side of side services: what is believed of the shim inside, and how much of a log is kept."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from fleet.policy.runs.services import ServicePlan
from fleet.sandbox.backends.services import ServiceFailure, ServicesGate, bundled_programs, open_services
from fleet.trees.memory import MemoryBlobStore
from tests.support.secrets import SAMPLES

PLAN = ServicePlan(
    name="one",
    argv=("serve",),
    prepare=(),
    files={},
    env={},
    exported={"ONE_PORT": "1"},
    ready=("true",),
    timeout_s=1,
    folder="/tmp/fleet-services/one",
    paths=(),
    version=None,
    version_argv=(),
    install="",
    bundled=None,
)


def inside(gate: ServicesGate) -> socket.socket:
    """The shim's end of the socket, as it would inherit it."""
    return socket.socket(fileno=os.dup(gate.inherited[0]))


async def test_shim_is_sent_the_plan_and_its_silence_is_no_failure() -> None:
    async with open_services([PLAN]) as gate:
        with inside(gate) as shim:
            plans = json.loads(shim.makefile("rb").readline())

    assert plans[0]["exported"] == {"ONE_PORT": "1"}
    assert gate.failure is None


@pytest.mark.rule("RC-103")
@pytest.mark.parametrize(
    ("said", "failure"),
    [
        (b'{"service": "one", "why": "it died", "started": true}', ServiceFailure("one", "it died", started=True)),
        (b"\xff{", ServiceFailure("?", "its starter said nothing that can be read", started=True)),
        (b"[]", ServiceFailure("?", "its starter said nothing that can be read", started=True)),
        (b"{}", ServiceFailure("?", "its starter said nothing that can be read", started=True)),
    ],
    ids=["plain", "bytes", "list", "empty"],
)
async def test_word_of_the_shim_makes_the_run_void_whatever_it_is(said: bytes, failure: ServiceFailure) -> None:
    async with open_services([PLAN]) as gate:
        with inside(gate) as shim:
            shim.sendall(said)

    assert gate.failure == failure


async def test_log_of_a_service_keeps_its_end() -> None:
    blobs = MemoryBlobStore()
    async with open_services([PLAN]) as gate:
        for n in range(12):
            os.write(gate.inherited[1], b"%d" % (n % 10) * (32 << 10))
            while gate.take("one", _reading_end(gate)):
                pass
        os.write(gate.inherited[1], b"last words")

    (log,) = await gate.store_logs(blobs, forms=("last",))
    assert log.path == "services/one.log"
    assert log.size_bytes < (256 << 10) + 100
    assert log.blob is not None
    assert (await blobs.get(log.blob)).endswith(b" words")
    assert b"last" not in await blobs.get(log.blob)


@pytest.mark.rule("CX-60")
async def test_log_of_a_service_holds_no_secret_of_anybody() -> None:
    blobs, key = MemoryBlobStore(), SAMPLES["github"].text
    async with open_services([PLAN]) as gate:
        os.write(gate.inherited[1], f"up on \xff with {key} and tiger-value\n".encode("latin-1"))
        while gate.take("one", _reading_end(gate)):
            pass

    (log,) = await gate.store_logs(blobs, forms=("tiger-value",))
    assert log.blob is not None
    shown = b"up on \xff with [REDACTED:GITHUB] and [REDACTED:KNOWN_SECRET]\n"
    assert await blobs.get(log.blob) == shown
    assert log.size_bytes == len(shown)


def _reading_end(gate: ServicesGate) -> int:
    """The other end of the log's pipe: the descriptor of ours with the same inode."""
    wanted, write = os.fstat(gate.inherited[1]).st_ino, gate.inherited[1]
    for name in Path("/proc/self/fd").iterdir():
        number = int(name.name)
        try:
            status = os.fstat(number)
        except OSError:
            continue
        if status.st_ino == wanted and number != write:
            return number
    raise AssertionError("the pipe has no reading end")


def test_bundled_server_is_made_once_under_the_systems_name(tmp_path: Path) -> None:
    folder = bundled_programs(tmp_path)
    first = (folder / "redis-server").stat()

    assert bundled_programs(tmp_path) == folder
    assert (folder / "redis-server").stat().st_ino == first.st_ino
    assert first.st_mode & 0o777 == 0o755
