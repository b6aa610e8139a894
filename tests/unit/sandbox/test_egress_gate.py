"""The proxy without a sandbox: a listener of this process takes the place of the one inside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator, Callable, Sequence

import pytest

from fleet.sandbox.egress.proxy import EgressGate, EgressSettings, open_egress, system_resolver
from fleet.sandbox.egress.rules import HostRules
from tests.support.sandbox import eventually


async def loopback(_: str) -> Sequence[str]:
    return ["127.0.0.1"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


SETTINGS = EgressSettings(resolve=loopback, allow_addresses=("127.0.0.0/8",), idle_s=5, connect_s=2, resolve_s=0.1)


@contextlib.asynccontextmanager
async def opened(*hosts: str, settings: EgressSettings = SETTINGS) -> AsyncGenerator[tuple[EgressGate, int]]:
    """A gate that serves, and the port of its listener."""
    async with open_egress(HostRules.parse(hosts), settings) as gate:
        with socket.create_server(("127.0.0.1", 0)) as listener, inside(gate) as launcher:
            port: int = listener.getsockname()[1]
            socket.send_fds(launcher, [b"L"], [listener.fileno()])
            await eventually(lambda: gate.is_open)
        yield gate, port


def inside(gate: EgressGate) -> socket.socket:
    return socket.socket(fileno=os.dup(gate.inherited[0]))


async def ask(port: int, text: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    return answer.decode()


@contextlib.asynccontextmanager
async def server(answer: Callable[[bytes], bytes]) -> AsyncGenerator[int]:
    """An HTTP server that takes a body of five bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(await reader.readexactly(5)))
        await writer.drain()
        writer.close()

    one = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield one.sockets[0].getsockname()[1]
    one.close()
    await one.wait_closed()


async def test_body_of_a_plain_request_is_passed_on_and_no_byte_more() -> None:
    async with (
        server(lambda body: b"HTTP/1.1 200 OK\r\n\r\n" + body) as far,
        opened(f"a.example:{far}") as (gate, port),
    ):
        head = f"POST http://a.example:{far}/ HTTP/1.1\r\nContent-Length: 5\r\n\r\n"
        answer = await ask(port, head + "hello and more")

    assert answer.endswith("\r\n\r\nhello")
    assert gate.decisions[0].bytes_in == len(answer)


async def test_target_that_does_not_answer_is_recorded_with_its_address() -> None:
    far = free_port()
    async with opened(f"a.example:{far}") as (gate, port):
        answer = await ask(port, f"CONNECT a.example:{far} HTTP/1.1\r\n\r\n")

    assert answer.startswith("HTTP/1.1 502 ")
    assert [(d.reason, d.allowed, d.address) for d in gate.decisions] == [("connect_failed", False, "127.0.0.1")]


async def test_listed_address_is_reached_without_a_lookup() -> None:
    async with server(lambda body: body) as far, opened(f"127.0.0.1:{far}") as (gate, port):
        answer = await ask(port, f"POST http://127.0.0.1:{far}/ HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")

    assert answer == "hello"
    assert gate.decisions[0].allowed


async def test_lookup_that_takes_too_long_is_given_up() -> None:
    async def slow(_: str) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    settings = EgressSettings(resolve=slow, resolve_s=0.05)
    async with opened("a.example", settings=settings) as (gate, port):
        await ask(port, "CONNECT a.example:443 HTTP/1.1\r\n\r\n")

    assert [d.reason for d in gate.decisions] == ["not_resolved"]


async def test_client_that_hangs_up_early_is_recorded() -> None:
    async with opened("a.example") as (gate, port):
        with socket.create_connection(("127.0.0.1", port)):
            pass
        await eventually(lambda: bool(gate.decisions) and bool(gate.decisions[0].reason))

    assert [(d.reason, d.host) for d in gate.decisions] == [("malformed_request", "")]


@pytest.mark.parametrize("kind", ["datagram", "client", "two", "none"])
async def test_what_is_no_listener_is_not_served(kind: str) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    gate = EgressGate(HostRules.parse(("a.example",)), SETTINGS, ours, theirs.fileno())
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.socket(type=socket.SOCK_DGRAM) as datagram, socket.socket() as client:
            found = {"datagram": [datagram], "client": [client], "two": [listener, listener], "none": []}[kind]
            socket.send_fds(theirs, [b"L"], [one.fileno() for one in found])
        await asyncio.wait_for(gate.serve(), 60)

    assert not gate.is_open


async def test_resolver_of_the_machine_knows_localhost_and_no_reserved_name() -> None:
    resolve = system_resolver()

    assert "127.0.0.1" in await resolve("localhost")
    assert await resolve("nothing.invalid") == []
