"""The settings of a fleet (config/fleet.yaml and FLEET_* variables) and of its web front (config/serve.yaml)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic.functional_validators import AfterValidator

__all__ = [
    "AuditSettings",
    "DeploySettings",
    "FleetSettings",
    "LeaseSettings",
    "MemorySettings",
    "Neo4jSettings",
    "PortSettings",
    "RateSettings",
    "RaySettings",
    "ServeAppSettings",
    "ServeSettings",
    "Settings",
]


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused, the sentence under a field is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


def _redis_url(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must start with redis://, rediss:// or unix://")
    return value


def _bolt_uri(value: str) -> str:
    schemes = ("bolt://", "bolt+s://", "bolt+ssc://", "neo4j://", "neo4j+s://", "neo4j+ssc://")
    if not value.startswith(schemes):
        raise ValueError(f"must start with one of {', '.join(schemes)}")
    return value


def _absolute(value: Path) -> Path:
    if not value.is_absolute():
        raise ValueError("must be an absolute path")
    return value


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
BoltUri = Annotated[str, AfterValidator(_bolt_uri)]
Port = Annotated[int, Field(ge=0, le=65_535)]


class Neo4jSettings(Settings):
    """Where the decision graph is."""

    uri: BoltUri | None = None
    """Address of a Neo4j server; unset starts the embedded graph."""
    user: str = Field(default="neo4j", min_length=1)
    """User at that server."""
    password: SecretStr | None = None
    """Password of that user; better given as the variable than in a file."""
    database: str = Field(default="neo4j", min_length=1)
    """Name of the database."""

    @model_validator(mode="after")
    def _password_given(self) -> Self:
        if self.uri is not None and self.password is None:
            raise ValueError("uri is given without password; set FLEET_NEO4J_PASSWORD")
        return self


class PortSettings(Settings):
    """Loopback ports of the local fleet; 0 takes a free one at each start."""

    log: Port = 0
    """Embedded log store."""
    cache: Port = 0
    """Embedded cache store."""
    graph: Port = 0
    """Bolt port of the embedded graph."""
    gateway: Port = 0
    """HTTP front."""
    dashboard: Port = 0
    """Ray dashboard."""


class MemorySettings(Settings):
    """How much memory the parts of a local fleet may take, in MiB."""

    floor_mb: int = Field(default=2_048, ge=0)
    """A fleet does not start with less available memory than this."""
    cache_mb: int = Field(default=64, ge=8)
    """The embedded cache store evicts above this."""
    graph_heap_mb: int = Field(default=256, ge=128)
    """Java heap of the embedded graph."""
    object_store_mb: int = Field(default=100, ge=80)
    """Shared memory of Ray's object store."""


class RaySettings(Settings):
    """How the local Ray runs."""

    dashboard: bool = True
    """Start the Ray dashboard, on loopback."""
    cpus: int | None = Field(default=None, ge=1)
    """CPUs that Ray may plan with; unset takes those of the machine."""


class LeaseSettings(Settings):
    """Ownership of stories (EV-4)."""

    ttl_s: int = Field(default=15, ge=3)
    """A story whose owner was silent for so long has no owner."""
    renew_s: int = Field(default=5, ge=1)
    """How often an owner says that it lives."""
    sweep_s: int = Field(default=5, ge=1)
    """How often a council looks for stories without an owner."""

    @model_validator(mode="after")
    def _renewed_in_time(self) -> Self:
        if self.renew_s * 2 > self.ttl_s:
            raise ValueError("renew_s must be at most half of ttl_s, so that one lost renewal does not lose the story")
        return self


class AuditSettings(Settings):
    """Signed checkpoints over the log (EV-9)."""

    export: AbsolutePath | None = None
    """Directory of the exported checkpoints, best on another disk or machine; unset is `audit/exported` in the home."""
    interval_s: int = Field(default=60, ge=1)
    """Seconds between two checkpoints."""


class DeploySettings(Settings):
    """Deployments."""

    enabled: bool = False
    """Lifecycles may deploy; when false, stories of lifecycle `sdlc` get `sdlc-no-deploy` (LC-46)."""


class FleetSettings(Settings):
    """Everything that config/fleet.yaml may say; a FLEET_* variable wins over the file."""

    home: AbsolutePath
    """Directory of data, sockets, pid files and the addresses of a running fleet."""
    config: AbsolutePath | None = None
    """Directory whose files replace the packaged config files of the same name."""
    redis_url: RedisUrl | None = None
    """Log store (append-only, fsync at every write, no eviction); unset starts the embedded one."""
    cache_url: RedisUrl | None = None
    """Cache store; unset beside a given log store uses that same server, else starts the embedded one."""
    neo4j: Neo4jSettings = Neo4jSettings()
    ports: PortSettings = PortSettings()
    memory: MemorySettings = MemorySettings()
    ray: RaySettings = RaySettings()
    lease: LeaseSettings = LeaseSettings()
    deploy: DeploySettings = DeploySettings()
    audit: AuditSettings = AuditSettings()
    blobs: Literal["file", "redis"] = "file"
    """Where trees, prompts and reports are kept: files in the home, or the log store, at most 64 MiB each."""
    council_shards: int = Field(default=1, ge=1)
    """Number of council actors."""
    context_replicas: int = Field(default=1, ge=1)
    """Number of context actors."""
    pools: Mapping[str, Annotated[int, Field(ge=0, le=64)]] = {}
    """Number of agents by role or profile; a role that is not named has one."""
    start_timeout_s: int = Field(default=120, ge=10)
    """A fleet that is not ready after this is stopped again."""
    stop_timeout_s: int = Field(default=30, ge=1)
    """How long actors may take to finish when the fleet stops."""

    @property
    def needs_log(self) -> bool:
        """True when the embedded log store has to start."""
        return self.redis_url is None

    @property
    def needs_cache(self) -> bool:
        """True when the embedded cache store has to start."""
        return self.cache_url is None and self.redis_url is None

    @property
    def needs_graph(self) -> bool:
        """True when the embedded graph has to start."""
        return self.neo4j.uri is None


class RateSettings(Settings):
    """Rate caps per principal (AP-9)."""

    requests_per_minute: int = Field(ge=1)
    """HTTP requests."""
    streams: int = Field(ge=1)
    """Event streams open at once."""


class ServeAppSettings(Settings):
    """One Serve application."""

    replicas: int = Field(ge=1)
    """Number of processes that answer."""
    max_ongoing_requests: int = Field(ge=1)
    """Requests and open streams that one replica holds at once."""
    graceful_shutdown_s: int = Field(ge=0)
    """How long a redeployment or shutdown waits for open streams."""


class ServeSettings(Settings):
    """Everything that config/serve.yaml says; the port is `ports.gateway` of fleet.yaml."""

    host: str = Field(min_length=1)
    """Address on which the HTTP front listens; anything but loopback opens it to the network."""
    origins: tuple[str, ...]
    """Origins of other sites whose pages may call the API; empty allows none (AP-10)."""
    command_wait_s: int = Field(ge=0, le=60)
    """How long a command waits for its owner before 202 is answered (AP-4)."""
    request_timeout_s: int = Field(ge=1)
    """A request other than a stream ends after this."""
    max_body_bytes: int = Field(ge=1, le=1_048_576)
    """Larger bodies are refused (AP-9)."""
    heartbeat_s: int = Field(ge=1)
    """Silence after which a stream sends a comment (AP-102)."""
    stream_queue: int = Field(ge=1)
    """Events kept for a slow client before its stream is closed (AP-103)."""
    rate: RateSettings
    apps: Mapping[str, ServeAppSettings]
    """The applications by name."""
