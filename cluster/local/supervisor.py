"""The supervisor of a local fleet: starts what is needed, watches it, restarts it, and stops all of it again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal, Protocol

from pydantic import SecretStr

from cluster.local.arcadedb import USER, ArcadeDb
from cluster.local.identity import ProcessIdentity, descendants, end_all
from cluster.local.preflight import check_given_stores, check_machine
from cluster.local.ray_head import Head, RayAddress, RayHead
from cluster.local.record import Addresses, HomeLock, Remains, RunningFleet, clean_stale, forget_fleet, save_fleet
from cluster.local.service import EmbeddedService
from cluster.local.valkey import StoreKind, Valkey
from fleet.config.settings import FleetSettings
from fleet.kernel.errors import FleetError, StoreUnavailable

State = Literal["starting", "ready", "restarting", "failed", "stopping", "stopped"]
Progress = Callable[[str, State], None]
"""Called with the name of a part and what it now does."""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_WATCH_S = 0.2
_RECORD_S = 2.0
_BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
_STEADY_S = 60.0
_ORPHANS_S = 2.0


class Hooks(Protocol):
    """What runs on top of the stores and Ray: actors and the HTTP front."""

    def check(self) -> None:
        """Nothing happens when `boot` can go well as far as files and ports say. Called before anything starts.

        Raises ConfigError naming file or port. May not import Ray, whose variables are not set by then.
        """
        ...

    async def boot(self, addresses: Addresses) -> str | None:
        """Actors and front are ready; returns the URL of the front. A raised FleetError stops the whole start."""
        ...

    async def stop(self, addresses: Addresses) -> None:
        """Actors have flushed what they hold; called before Ray stops, also after a `boot` that failed half-way."""
        ...


class NoHooks:
    """Nothing on top: stores (and Ray) alone."""

    def check(self) -> None:
        """Nothing to check."""

    async def boot(self, addresses: Addresses) -> str | None:
        """Nothing to start."""
        return None

    async def stop(self, addresses: Addresses) -> None:
        """Nothing to stop."""


def _silent(name: str, state: State) -> None:
    """Report nothing."""


class LocalFleet:
    """One fleet in one FLEET_HOME. `start`, then `supervise` until a signal, then `stop`; all from the main thread.

    Args:
        head: in the place of a `RayHead` made from the settings.
    """

    def __init__(
        self,
        settings: FleetSettings,
        *,
        hooks: Hooks | None = None,
        progress: Progress = _silent,
        with_ray: bool = True,
        head: Head | None = None,
    ) -> None:
        self._settings = settings
        self._home = settings.home
        self._hooks = hooks or NoHooks()
        self._progress = progress
        self._lock: HomeLock | None = None
        self._services: list[EmbeddedService] = []
        self._ray = (head or _ray_head(settings)) if with_ray else None
        self._running: RunningFleet | None = None
        self._addresses: Addresses | None = None
        self._recorded = Remains()
        self._starting: asyncio.Task[object] | None = None
        self._stop_asked = asyncio.Event()

    @property
    def running(self) -> RunningFleet | None:
        """The fleet as recorded, once it is ready."""
        return self._running

    @property
    def is_stop_asked(self) -> bool:
        """True once a signal or `ask_stop` came."""
        return self._stop_asked.is_set()

    async def start(self) -> RunningFleet:
        """The fleet is ready and recorded in `fleet.json`.

        Raises:
            ConfigError: home, memory, a file or a port is not as needed, or another fleet holds the home.
            StoreUnavailable: a part did not start, or a given address does not answer.
            In every case nothing that this call started is left.
        """
        self._lock = HomeLock(self._home)
        self._lock.take()
        self._listen()
        self._starting = asyncio.current_task()
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                return await self._start()
        except TimeoutError as error:
            await self.stop()
            raise StoreUnavailable(
                f"the fleet was not ready within {self._settings.start_timeout_s} s; look into {self._home}, or raise "
                "start_timeout_s (FLEET_START_TIMEOUT_S)"
            ) from error
        except BaseException:
            await self.stop()
            raise
        finally:
            self._starting = None

    async def _start(self) -> RunningFleet:
        clean_stale(self._home)
        check_machine(self._settings)
        self._hooks.check()
        await check_given_stores(self._settings)
        self._addresses = await self._start_parts()
        self._progress("actors", "starting")
        serve_url = await self._hooks.boot(self._addresses)
        self._progress("actors", "ready")
        self._record_remains()
        self._running = RunningFleet(
            home=self._home,
            supervisor=ProcessIdentity.of_self(),
            started_at_ms=time.time_ns() // 1_000_000,
            addresses=self._addresses,
            serve_url=serve_url,
            services=self._identities(),
        )
        save_fleet(self._running)
        return self._running

    async def _start_parts(self) -> Addresses:
        settings, home = self._settings, self._home
        log = Valkey(StoreKind.LOG, home / "log", port=settings.ports.log) if settings.needs_log else None
        cache = _cache(settings) if settings.needs_cache else None
        graph = _graph(settings) if settings.needs_graph else None
        self._services = [service for service in (log, cache, graph) if service is not None]
        ray_address = await self._start_all()
        redis_url = log.url if log else _given(settings.redis_url)
        cache_url = cache.url if cache else _given(settings.cache_url or settings.redis_url)
        return Addresses(
            redis_url=redis_url,
            cache_url=cache_url,
            neo4j_uri=graph.address if graph else settings.neo4j.uri or "",
            neo4j_user=USER if graph else settings.neo4j.user,
            neo4j_password=graph.password if graph else _given(settings.neo4j.password),
            neo4j_database=settings.neo4j.database if settings.neo4j.uri else "neo4j",
            ray_address=ray_address.address if ray_address else None,
            ray_token_path=ray_address.token_path if ray_address else None,
            dashboard_url=ray_address.dashboard_url if ray_address else None,
        )

    async def _start_all(self) -> RayAddress | None:
        try:
            async with asyncio.TaskGroup() as group:
                for service in self._services:
                    group.create_task(self._start_one(service))
                # The services launch their processes first and come up while Ray blocks this loop for seconds.
                await asyncio.sleep(0)
                self._record_remains()
                return self._start_ray()
        except BaseExceptionGroup as group:
            known = group.subgroup(FleetError)
            raise _leaf(known or group) from group

    async def _start_one(self, service: EmbeddedService) -> None:
        self._progress(service.name, "starting")
        await service.start()
        self._progress(service.name, "ready")

    def _start_ray(self) -> RayAddress | None:
        if self._ray is None:
            return None
        self._progress("ray", "starting")
        address = self._ray.start()
        self._record_remains()
        self._progress("ray", "ready")
        # Ray sets a SIGTERM handler of its own, which exits at once.
        self._listen()
        return address

    async def supervise(self) -> None:
        """Return when a stop was asked for (SIGTERM, SIGINT, `ask_stop`); until then dead services are restarted.

        Raises StoreUnavailable when Ray died: the actors are gone with it, and only a new start brings them back.
        """
        watchers = [asyncio.create_task(self._watch(service)) for service in self._services]
        watchers.append(asyncio.create_task(self._keep_record()))
        ends = [asyncio.create_task(self._stop_asked.wait()), asyncio.create_task(self._until_ray_dies())]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in done:
                end.result()
        finally:
            for watcher in (*watchers, *ends):
                watcher.cancel()
            await asyncio.gather(*watchers, *ends, return_exceptions=True)

    def ask_stop(self) -> None:
        """`supervise` returns soon; a `start` in progress is given up."""
        self._stop_asked.set()
        if self._starting is not None:
            self._starting.cancel()

    def _listen(self) -> None:
        for number in _STOP_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self.ask_stop)

    async def stop(self) -> None:
        """Nothing of the fleet runs, its home holds data only; harmless when nothing ran."""
        if self._addresses is not None:
            # Without Ray nobody is there to be stopped.
            if self._ray is None or self._ray.dead_part is None:
                self._progress("actors", "stopping")
                await self._stop_hooks(self._addresses)
            self._addresses = None
        if self._ray is not None and self._ray.temp_dir is not None:
            self._progress("ray", "stopping")
            self._ray.stop()
            # Workers whose raylet died are nobody's children any more; the record still names them.
            below = set(descendants(os.getpid()))
            end_all([process for process in self._recorded.processes if process not in below], grace_s=_ORPHANS_S)
            self._progress("ray", "stopped")
        await asyncio.gather(*(self._stop_one(service) for service in self._services))
        self._services = []
        self._running = None
        if self._lock is not None:
            forget_fleet(self._home)
            self._lock.release()
            self._lock = None
            for number in _STOP_SIGNALS:
                asyncio.get_running_loop().remove_signal_handler(number)

    async def _stop_hooks(self, addresses: Addresses) -> None:
        try:
            async with asyncio.timeout(self._settings.stop_timeout_s):
                await self._hooks.stop(addresses)
        except (FleetError, TimeoutError):
            # The log holds all that counts: what does not flush in time is found again at the next start.
            self._progress("actors", "failed")
        else:
            self._progress("actors", "stopped")

    async def _stop_one(self, service: EmbeddedService) -> None:
        await service.stop()
        self._progress(service.name, "stopped")

    async def _watch(self, service: EmbeddedService) -> None:
        failures, since = 0, time.monotonic()
        while True:
            await asyncio.sleep(_WATCH_S)
            if service.is_alive:
                continue
            failures = 0 if time.monotonic() - since > _STEADY_S else failures
            self._progress(service.name, "restarting")
            await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
            failures, since = failures + 1, time.monotonic()
            try:
                await service.start()
            except FleetError:
                self._progress(service.name, "failed")
                continue
            self._progress(service.name, "ready")
            self._renew_record()

    async def _until_ray_dies(self) -> Literal[True]:
        while self._ray is None or (dead := self._ray.dead_part) is None:
            await asyncio.sleep(_WATCH_S)
        self._progress("ray", "failed")
        raise StoreUnavailable(
            f"Ray's {dead} has ended, and every actor with it; nothing that was recorded is lost. Start the fleet "
            f"again with `fleet up`: it goes on with every open story. Ray's logs: {self._home / 'ray-logs'}",
            part=dead,
        )

    async def _keep_record(self) -> None:
        while True:
            await asyncio.sleep(_RECORD_S)
            self._record_remains()

    def _renew_record(self) -> None:
        self._record_remains()
        if self._running is not None:
            self._running = self._running.model_copy(update={"services": self._identities()})
            save_fleet(self._running)

    def _record_remains(self) -> None:
        remains = Remains(
            processes=tuple(descendants(os.getpid())), ray_temp_dir=self._ray.temp_dir if self._ray else None
        )
        if remains != self._recorded:
            remains.save(self._home)
            self._recorded = remains

    def _identities(self) -> dict[str, ProcessIdentity]:
        return {service.name: service.identity for service in self._services if service.identity is not None}


def _leaf(error: BaseException) -> BaseException:
    return _leaf(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _given(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def _cache(settings: FleetSettings) -> Valkey:
    directory = settings.home / "cache"
    return Valkey(StoreKind.CACHE, directory, port=settings.ports.cache, max_memory_mb=settings.memory.cache_mb)


def _graph(settings: FleetSettings) -> ArcadeDb:
    return ArcadeDb(settings.home / "graph", port=settings.ports.graph, heap_mb=settings.memory.graph_heap_mb)


def _ray_head(settings: FleetSettings) -> RayHead:
    return RayHead(
        settings.home,
        dashboard=settings.ray.dashboard,
        dashboard_port=settings.ports.dashboard,
        cpus=settings.ray.cpus,
        store_mb=settings.memory.object_store_mb,
    )


async def run_until_stopped(fleet: LocalFleet, *, on_ready: Callable[[RunningFleet], Awaitable[None]]) -> None:
    """The fleet ran from its start until it was asked to stop (also while it started), and is gone."""
    try:
        running = await fleet.start()
    except asyncio.CancelledError:
        if fleet.is_stop_asked:
            return
        raise
    try:
        await on_ready(running)
        await fleet.supervise()
    finally:
        await fleet.stop()


@asynccontextmanager
async def supervised(fleet: LocalFleet) -> AsyncGenerator[None]:
    """The block ran beside the supervision of a fleet that was started, and the fleet is gone.

    Raises:
        StoreUnavailable: Ray died; the block was cancelled.
        CancelledError: a signal asked for the stop; the block was cancelled.
    """
    block = asyncio.current_task()
    assert block is not None
    is_ended = False

    async def until_stopped() -> None:
        await fleet.supervise()
        if not is_ended:
            block.cancel()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(until_stopped())
            try:
                yield
            finally:
                is_ended = True
                fleet.ask_stop()
    except BaseExceptionGroup as found:
        raise _leaf(found) from None
    finally:
        await fleet.stop()
