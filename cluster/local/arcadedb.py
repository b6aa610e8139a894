"""The embedded decision graph: ArcadeDB's bundled Java runtime as a child process, spoken to over Bolt."""

from __future__ import annotations

import platform
from pathlib import Path

from cluster.local.identity import ProcessIdentity, listening_ports
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

USER = "root"
"""The one user of the embedded graph."""

_DATABASE = "neo4j"
# The first start ever on a cold disk took 10-16 s; on a machine with five times the work it can do, over a minute.
_START_S = 180.0
_STOP_S = 10.0
_GLIBC = (2, 34)

_JAVA_FLAGS = (
    "-Xms64m",
    "-XX:+UseSerialGC",
    "-XX:+UseCompactObjectHeaders",
    "-XX:MaxDirectMemorySize=128m",
    "--add-modules=jdk.incubator.vector",
    "--enable-native-access=ALL-UNNAMED",
    "-Dfile.encoding=UTF8",
    "-Djava.awt.headless=true",
    "--add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED",
    "--add-opens=java.base/java.nio.channels.spi=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "-Dpolyglot.engine.WarnInterpreterOnly=false",
)


class ArcadeDb:
    """One graph server over one directory; every acknowledged transaction is on disk (fsync at each commit)."""

    name = "graph store"

    def __init__(self, directory: Path, *, port: int = 0, heap_mb: int = 256) -> None:
        """`port` 0 takes a free Bolt port, which then stays; `heap_mb` bounds the Java heap."""
        self._dir = directory
        self._port = port
        self._http_port = 0
        self._heap_mb = heap_mb
        self._child: Child | None = None
        self.password = ""

    @property
    def port(self) -> int:
        """The loopback Bolt port; 0 before the first start when none was asked for."""
        return self._port

    @property
    def address(self) -> str:
        """Bolt URI, without user and password."""
        return f"bolt://127.0.0.1:{self._port}"

    @property
    def identity(self) -> ProcessIdentity | None:
        """The running process; None when there is none."""
        return self._child.identity if self._child else None

    @property
    def is_alive(self) -> bool:
        """True while the process runs."""
        return self._child is not None and self._child.is_alive

    async def start(self) -> None:
        """`RETURN 1` is answered by the default database, and the server that listens is our child."""
        check_glibc()
        private_directory(self._dir)
        self.password = recorded_secret(self._dir / "password")
        self._port = self._port or free_port()
        self._http_port = free_port()
        launch = self._launch()
        end_leftover(launch)
        # With its port taken the server logs an error and lives on without Bolt.
        check_port_free(self._port, what=f"the {self.name}", key="ports.graph")
        write_private(self._dir / "jvm.args", self._arguments())
        child = spawn(launch)
        await await_ready(child, lambda: self._is_ready(child), name=self.name, within_s=_START_S)
        self._child = child

    async def stop(self) -> None:
        """The process is gone, its data written; harmless when it did not run."""
        if self._child is not None:
            await self._child.stop(grace_s=_STOP_S)
            self._child = None

    def kill(self) -> None:
        """The process was killed as by a crash; `start` brings it back and recovers its data."""
        if self._child is not None:
            self._child.kill()

    def _launch(self) -> Launch:
        java = package_directory("arcadedb_embedded") / "jre" / "bin" / "java"
        return Launch(
            name=self.name,
            argv=[str(java), f"@{self._dir / 'jvm.args'}"],
            cwd=self._dir,
            log=self._dir / "output",
            pid_file=self._dir / "pid",
            env={"LANG": "C.UTF-8", "HOME": str(self._dir)},
        )

    def _arguments(self) -> str:
        server = "-Darcadedb.server"
        lines = [
            f"-Xmx{self._heap_mb}m",
            *_JAVA_FLAGS,
            f"-XX:ErrorFile={self._dir}/hs_err_%p.log",
            f"{server}.rootPath={self._dir}",
            f"{server}.databaseDirectory={self._dir}/databases",
            f"{server}.rootPassword={self.password}",
            # `production` flushes each commit to disk; `development` does not.
            f"{server}.mode=production",
            f"{server}.httpIncomingHost=127.0.0.1",
            f"{server}.httpIncomingPort={self._http_port}",
            f"{server}.plugins=Bolt:com.arcadedb.bolt.BoltProtocolPlugin",
            "-Darcadedb.bolt.host=127.0.0.1",
            f"-Darcadedb.bolt.port={self._port}",
            f"-Darcadedb.bolt.defaultDatabase={_DATABASE}",
            f"{server}.defaultDatabases={_DATABASE}[{USER}]",
            "-cp",
            f"{package_directory('arcadedb_embedded')}/jars/*",
            "com.arcadedb.server.ArcadeDBServer",
        ]
        return "".join(f"{_quoted(line)}\n" for line in lines)

    async def _is_ready(self, child: Child) -> bool:
        # The Bolt port opens a second before the database exists: a port that answers proves nothing.
        if self._port not in listening_ports(child.pid):
            return False
        import neo4j
        import neo4j.exceptions

        driver = neo4j.AsyncGraphDatabase.driver(
            self.address, auth=(USER, self.password), connection_timeout=2, max_transaction_retry_time=0
        )
        try:
            await driver.execute_query("RETURN 1", database_=_DATABASE)
        except neo4j.exceptions.AuthError as error:
            raise StoreUnavailable(
                f"the graph in {self._dir} refuses the password in {self._dir / 'password'}; restore that file, or "
                "move the directory away and let the projector rebuild the graph from the log",
                path=str(self._dir),
            ) from error
        except (neo4j.exceptions.Neo4jError, neo4j.exceptions.DriverError, OSError):
            return False
        finally:
            await driver.close()
        return True


def _quoted(line: str) -> str:
    escaped = line.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def check_glibc() -> None:
    """Nothing happens when the C library is new enough for the bundled runtime.

    Raises:
        StoreUnavailable: it is older, or no glibc; names the version found and the way out.
    """
    library, version = platform.libc_ver()
    found: tuple[int, ...] = tuple(int(part) for part in version.split(".")[:2]) if library == "glibc" else ()
    if found < _GLIBC:
        raise StoreUnavailable(
            f"the embedded graph needs glibc {_GLIBC[0]}.{_GLIBC[1]} or newer, this machine has "
            f"{library or 'no glibc'} {version}; set FLEET_NEO4J_URI to a Neo4j server",
            found=f"{library} {version}".strip(),
        )
