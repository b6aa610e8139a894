"""The environments of one node: what runs in each, what ran before, and both again after a restart (LC-49).

Invariant: the file of an environment names what is to run there and what a rollback goes back to. It is replaced whole
once the new program is ready, so that whoever starts after a crash finds the one or the other, never nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fleet.deploy.local.instance import Instance
from fleet.deploy.port import EndedRevision, Occupancy, Placed, Standing
from fleet.kernel.clock import Clock
from fleet.kernel.errors import ConfigError, StoreUnavailable
from fleet.kernel.ids import RunKey
from fleet.policy.deploy import HealthCheckSpec, HealthSample
from fleet.sandbox.port import ServingBackend
from fleet.sandbox.service.runs import RunSecrets
from fleet.secrets.service import KnownSecrets

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_CHUNK = 1 << 16
_MOST = 100
"""Connections at one time; more wait."""


class Door:
    """Passes bytes on, both ways, and looks at none of them.

    Args:
        connect: a connection to what runs now; None where nothing does.
    """

    def __init__(self, port: int, connect: Callable[[], Awaitable[Streams | None]]) -> None:
        self.port, self._connect = port, connect
        self._room = asyncio.Semaphore(_MOST)
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """People can come. Raises ConfigError when somebody else has the port. Idempotent."""
        if self._server is None:
            try:
                self._server = await asyncio.start_server(self._came, "127.0.0.1", self.port)
            except OSError as error:
                raise ConfigError(
                    f"port {self.port} of this node cannot be used: {error.strerror}; end what has it, or declare "
                    "another one under expose of the deploy target",
                    port=self.port,
                ) from error

    async def close(self) -> None:
        """Nobody comes any more, and who is there is sent away."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._room:
            with contextlib.closing(writer), contextlib.suppress(OSError):
                inside = await self._connect()
                if inside is None:
                    return
                with contextlib.closing(inside[1]):
                    await asyncio.gather(_pump(reader, inside[1]), _pump(inside[0], writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


@dataclass(frozen=True)
class Kept:
    """One environment. It is replaced as a whole, once what runs there has changed."""

    current: Placed | None = None
    previous: Placed | None = None
    since_ms: int = 0
    """When the current one became ready."""
    ended: EndedRevision | None = None
    """What a person ended there last."""

    def ended_by(self, told: str) -> EndedRevision | None:
        """What is kept of who ended what runs there; what was kept before, when nobody says anything."""
        return EndedRevision(self.current.key, told) if told and self.current is not None else self.ended


KEPT = TypeAdapter(Kept)


def key_of(placed: Placed | None) -> RunKey | None:
    """Of what runs; None where nothing does."""
    return placed.key if placed else None


def standing_of(kept: Kept) -> Standing:
    """How the environment stands."""
    if kept.current is None:
        return Standing("nothing")
    return Standing("running", key=kept.current.key, previous=key_of(kept.previous))


@dataclass(eq=False)
class _Environment:
    kept: Kept
    current: Instance | None = None
    door: Door | None = None
    """Where people come in: at the port of the target of what runs, and only while something runs."""
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)


class ProcessDeployments:
    """Implements the port Deployments with programs in sandboxes of this node.

    Args:
        root: folder of the environments' files; what they name is started again by `resume`.
        declared: the environments that are; what ran in another one does not come back.
        secrets: gives programs those that their targets name; None refuses targets that name any.
    """

    def __init__(
        self,
        backend: ServingBackend,
        clock: Clock,
        root: Path,
        *,
        declared: Collection[str] = (),
        secrets: RunSecrets | None = None,
    ) -> None:
        self._backend, self._clock, self._root = backend, clock, root
        self._secrets = secrets or RunSecrets(None, KnownSecrets())
        self._declared = frozenset(declared)
        self._environments: dict[str, _Environment] = {}

    async def resume(self) -> None:
        """Start again what was to run when the last process of this name ended. What is undeclared now stays off."""
        for name in sorted(self._declared):
            environment = self._environment(name)
            async with environment.changing:
                if environment.kept.current is not None:
                    await self._move_door(environment, await self._door(environment, environment.kept.current))

    async def keep(self) -> None:
        """`resume`, and `close` when this is cancelled."""
        await self.resume()
        try:
            await asyncio.Event().wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """Nothing runs any more; it comes back with `resume`."""
        environments = list(self._environments.values())
        self._environments.clear()
        await asyncio.gather(*(_shut(env) for env in environments))

    async def deploy(self, placed: Placed) -> Standing:
        """See the port."""
        slot = self._environment(placed.target.environment)
        async with slot.changing:
            old = slot.current
            if old is not None and old.placed.key == placed.key:
                return standing_of(slot.kept)
            why = await self._taken_over(slot, placed, replace(slot.kept, current=placed, previous=slot.kept.current))
            if why is not None:
                return Standing(
                    "failed", key=key_of(slot.kept.current), previous=key_of(slot.kept.previous), detail=why
                )
            return standing_of(slot.kept)

    async def standing(self, environment: str) -> Standing:
        """See the port."""
        slot = self._environment(environment)
        # Whoever asks whether a deployment happened that is just being made has to wait for it.
        async with slot.changing:
            return standing_of(slot.kept)

    async def occupancy(self, environment: str) -> Occupancy:
        """See the port."""
        slot = self._environment(environment)
        kept, current = slot.kept, slot.current
        return Occupancy(
            running=kept.current,
            since_ms=kept.since_ms if kept.current else 0,
            answers=current is not None and await current.answers(),
            previous=key_of(kept.previous),
            ended=kept.ended,
        )

    async def roll_back(self, environment: str, *, failed: RunKey, told: str = "") -> Standing:
        """See the port."""
        slot = self._environment(environment)
        async with slot.changing:
            old, before = slot.current, slot.kept.previous
            if old is None or old.placed.key != failed:
                return standing_of(slot.kept)
            ended = slot.kept.ended_by(told)
            if before is None:
                await self._emptied(environment, slot, ended)
                return Standing("nothing")
            why = await self._taken_over(slot, before, Kept(before, ended=ended))
            if why is not None:
                return Standing("failed", key=failed, previous=before.key, detail=why)
            return standing_of(slot.kept)

    async def sample(self, environment: str, check: HealthCheckSpec) -> HealthSample:
        """See the port."""
        current = self._environment(environment).current
        if current is None:
            return HealthSample(value=float("inf"), detail=f"nothing runs in {environment}")
        return await current.sample(check)

    async def stop(self, environment: str, *, only: RunKey | None = None, told: str = "") -> Standing:
        """See the port."""
        slot = self._environment(environment)
        async with slot.changing:
            if only in (None, key_of(slot.kept.current)):
                await self._emptied(environment, slot, slot.kept.ended_by(told))
            return standing_of(slot.kept)

    # What is kept.

    def _environment(self, name: str) -> _Environment:
        environment = self._environments.get(name)
        if environment is None:
            kept = self._read(name)
            environment = self._environments[name] = _Environment(kept)
            if kept.current is not None:
                environment.current = self._instance(kept.current, was_ready=True)
                environment.current.begin()
        return environment

    def _instance(self, placed: Placed, *, was_ready: bool = False) -> Instance:
        return Instance(self._backend, self._clock, placed, secrets=self._secrets, was_ready=was_ready)

    async def _taken_over(self, slot: _Environment, placed: Placed, kept: Kept) -> str | None:
        """None once it runs in place of what ran before, which has ended. Else why not, and all is as it was."""
        fresh = self._instance(placed)
        # Before it starts: what it may not have and a port that somebody else has are no fault of the program.
        await fresh.require_secrets()
        door = await self._door(slot, placed)
        old = slot.current
        try:
            why = await self._started(fresh)
            if why is None:
                self._switch(slot, fresh, kept)
        finally:
            # People come in where the target of what runs has its door, also after a failure.
            if slot.current is fresh:
                await self._move_door(slot, door)
            else:
                await fresh.end()
                if door is not None and door is not slot.door:
                    await door.close()
        if why is None and old is not None:
            await old.end()
        return why

    async def _started(self, fresh: Instance) -> str | None:
        """None once it is ready; else why it is not, and nothing of it is left."""
        fresh.begin()
        try:
            why = await fresh.ready()
        except BaseException:
            await fresh.end()
            raise
        if why is not None:
            await fresh.end()
        return why

    def _switch(self, slot: _Environment, fresh: Instance, kept: Kept) -> None:
        kept = replace(kept, since_ms=self._clock.now_ms())
        self._write(fresh.placed.target.environment, kept)
        slot.kept, slot.current = kept, fresh

    async def _emptied(self, name: str, slot: _Environment, ended: EndedRevision | None) -> None:
        kept = Kept(ended=ended)
        if ended is None:
            with contextlib.suppress(FileNotFoundError):
                self._path(name).unlink()
        else:
            self._write(name, kept)
        slot.kept = kept
        await _shut(slot)

    async def _door(self, slot: _Environment, placed: Placed) -> Door | None:
        """The open door that the target of a program declares; the one that is there where it has that port."""
        port = placed.target.expose
        if port is None:
            return None
        if slot.door is not None and slot.door.port == port:
            return slot.door
        door = Door(port, partial(_connect, slot))
        await door.open()
        return door

    async def _move_door(self, slot: _Environment, door: Door | None) -> None:
        """People come in by this door, and by no other."""
        old, slot.door = slot.door, door
        if old is not None and old is not door:
            await old.close()

    def _path(self, name: str) -> Path:
        return self._root / f"{name}.json"

    def _read(self, name: str) -> Kept:
        try:
            return KEPT.validate_json(self._path(name).read_bytes())
        except FileNotFoundError:
            return Kept()
        except (OSError, ValidationError) as error:
            raise StoreUnavailable(f"{self._path(name)} does not say what runs in {name}: {error}") from error

    def _write(self, name: str, kept: Kept) -> None:
        path = self._path(name)
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh = path.with_suffix(".new")
            with fresh.open("wb") as file:
                file.write(KEPT.dump_json(kept))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError as error:
            raise StoreUnavailable(f"what runs in {name} cannot be written down: {error}") from error


async def _connect(slot: _Environment) -> Streams | None:
    return await slot.current.connect() if slot.current is not None else None


async def _shut(slot: _Environment) -> None:
    old, slot.current = slot.current, None
    door, slot.door = slot.door, None
    if door is not None:
        await door.close()
    if old is not None:
        await old.end()
