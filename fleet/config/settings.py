"""The settings of a fleet (config/fleet.yaml and FLEET_* variables) and of its web front (config/serve.yaml)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, Tag, model_validator
from pydantic.functional_validators import BeforeValidator

from fleet.config.blobs import BlobSettings, FileBlobSettings
from fleet.config.notifications import NotificationSettings
from fleet.config.values import (
    AbsolutePath,
    BoltUri,
    IpNetwork,
    PluginSettings,
    Port,
    RedisUrl,
    SecretReference,
    Settings,
    by_kind,
    kind_alone,
)
from fleet.kernel.documents import WrongKey, WrongKeys
from fleet.policy.deploy import DeployTarget
from fleet.policy.runs.isolation import WaivableItem

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
LabelKey = Annotated[str, Field(pattern=rf"^([A-Za-z0-9.-]{{1,253}}/)?{_LABEL}$")]
LabelValue = Annotated[str, Field(pattern=rf"^{_LABEL}$")]
LabelChoice = Annotated[str, Field(pattern=rf"^!?({_LABEL}|in\({_LABEL}(, ?{_LABEL})*\))$")]
"""A value of a label, `!value`, `in(one,other)` or `!in(one,other)`."""

_CHOICE = re.compile(r"(?P<no>!?)(?:in\((?P<several>[^)]*)\)|(?P<one>.*))")


def has_node(choices: Mapping[str, str], nodes: Iterable[Mapping[str, str]]) -> bool:
    """Whether one of these nodes, each given by its labels, is as wanted."""
    return any(all(_fits(choice, labels.get(key)) for key, choice in choices.items()) for labels in nodes)


def _fits(choice: str, value: str | None) -> bool:
    match = _CHOICE.fullmatch(choice)
    assert match is not None, "every text has this form"
    several, one = match["several"], match["one"]
    allowed = [one] if several is None else [part.strip() for part in several.split(",")]
    # A node without the label is as good as one with another value, as Ray has it.
    return (value in allowed) != bool(match["no"])


class ObservabilitySettings(Settings):
    """Log lines and traces of every process; metrics are always there (docs/observability.md)."""

    log_form: Literal["auto", "json", "text"] = "auto"
    """Form of log lines: JSON, readable text, or `auto`: text on a terminal and JSON elsewhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Records below this level are left out."""
    otlp_endpoint: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$", max_length=500)] | None = None
    """Collector that takes traces over OTLP/HTTP, `http://host:4318`; unset is OTEL_EXPORTER_OTLP_ENDPOINT, or none."""
    otlp_headers: SecretStr | None = None
    """Headers for the collector as `name=value,name=value`; unset is OTEL_EXPORTER_OTLP_HEADERS."""
    trace_file: AbsolutePath | None = None
    """File that traces are appended to, one document of OTLP in JSON a line."""
    sample_percent: Annotated[int, Field(ge=0, le=100)] = 100
    """Share of the stories whose trace is kept; all processes keep the same ones."""

    @property
    def has_traces(self) -> bool:
        """Whether spans go anywhere."""
        return self.otlp_endpoint is not None or self.trace_file is not None


class DeploySettings(Settings):
    """Deployments."""

    # Source: LC-46.
    enabled: bool = False
    """Lifecycles may deploy; when false, stories of lifecycle `sdlc` get `sdlc-no-deploy`."""
    # Source: LC-49.
    targets: tuple[DeployTarget, ...] = ()
    """Where stories are deployed, how, and what is watched then; the first that fits a story's project."""

    @model_validator(mode="after")
    def _has_somewhere_to_deploy(self) -> Self:
        names = [target.environment for target in self.targets]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two targets have environment {', '.join(doubled)}")
        ports = [target.expose for target in self.targets if target.expose is not None]
        if doubled := sorted({port for port in ports if ports.count(port) > 1}):
            raise ValueError(f"two targets have the port {doubled[0]} under expose")
        if self.enabled and not self.targets:
            raise ValueError("enabled is true and no target is declared: list one under deploy.targets")
        return self


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


class LlamaSettings(Settings):
    """What runs small models on the CPU of a machine (engines of kind `local`)."""

    python: AbsolutePath | None = None
    """Interpreter that has `llama_cpp`, used instead of a binary; replies that follow a schema are slower with it."""
    server: AbsolutePath | None = None
    """A `llama-server` binary of llama.cpp; unset is that of `fleet models pull --engine`, or on the PATH."""


class ModelsSettings(Settings):
    """Models that run in actors of the fleet."""

    serve: tuple[str, ...] = ()
    """Engines of models.yaml, of kind `vllm` or `local` without `base_url`, that are loaded with the fleet."""
    python: AbsolutePath | None = None
    """Interpreter of their actors, where vLLM has an environment of its own; unset is that of the fleet."""


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


class BubblewrapBackendSettings(Settings):
    """Runs are held by bubblewrap: no root, no daemon, no image."""

    kind: Literal["bubblewrap"] = "bubblewrap"


class ContainerBackendSettings(Settings):
    """Runs are held by containers of an engine on the node, made of the node's own /usr: no image is pulled."""

    kind: Literal["podman", "docker"]


class KubernetesBackendSettings(Settings):
    """Runs are Jobs of a Kubernetes cluster, one each; the cluster pulls their image."""

    kind: Literal["kubernetes"]
    image: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,200}@sha256:[0-9a-f]{64}$")
    """Image of the runs by digest (`name@sha256:...`): it holds Python 3 as `python3` and the programs of the team."""
    namespace: str = Field(default="swe-fleet-runs", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    """Where the Jobs are made; it should hold nothing else."""
    url: str = "https://kubernetes.default.svc"
    """Address of the API server; `http` for `kubectl proxy` on this machine alone."""
    token_file: AbsolutePath | None = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    """Token of the account that makes the Jobs, read at each call; null asks without one (`kubectl proxy`)."""
    ca_file: AbsolutePath | None = Path("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")
    """Certificate of the cluster's authority; null trusts the usual ones."""
    runtime_class: str | None = None
    """Runtime of the pods, such as `gvisor`; unset is that of the cluster."""
    seccomp_profile: str | None = None
    """Profile on the nodes that filters system calls; unset is the runtime's default."""
    node_labels: Mapping[str, str] = {}
    """Runs are placed only on nodes with these labels."""
    has_user_namespaces: bool = False
    """The nodes can give each pod a user namespace of its own."""
    max_parallel: int = Field(default=16, ge=1, le=1_000)
    """Jobs at one time for each supervisor; more runs wait."""
    start_timeout_s: int = Field(default=180, ge=1, le=3_600)
    """How long a pod may take until it runs: nodes may have to be added, images be pulled."""
    max_input_bytes: int = Field(default=16 << 20, ge=1 << 20, le=256 << 20)
    """Tree and inputs of one run, packed; they are kept in the cluster's store as long as the run goes on."""
    max_return_bytes: int = Field(default=8 << 20, ge=1 << 20, le=256 << 20)
    """What one run may give back, packed; keep it below the size at which nodes rotate logs (10 MiB as a rule)."""


SandboxBackendSettings = Annotated[
    Annotated[BubblewrapBackendSettings, Tag("bubblewrap")]
    | Annotated[ContainerBackendSettings, Tag("podman")]
    | Annotated[ContainerBackendSettings, Tag("docker")]
    | Annotated[KubernetesBackendSettings, Tag("kubernetes")]
    | Annotated[PluginSettings, Tag("plugin")],
    by_kind("bubblewrap", "podman", "docker", "kubernetes"),
    BeforeValidator(kind_alone),
]


class SessionDiskSettings(Settings):
    """What work sessions and environments may take on the disk of each node. What is not in use makes room."""

    bases_bytes: int = Field(default=20 << 30, ge=1 << 20)
    """Bytes of base folders: one for each tree, and where the fleet is root for each story."""
    folders_bytes: int = Field(default=20 << 30, ge=1 << 20)
    """Bytes of what sessions wrote over their bases, or of their whole folders where overlays are refused."""
    folders: int = Field(default=200, ge=1, le=10_000)
    """Folders that are kept between commands."""
    idle_s: int = Field(default=7_200, ge=60)
    """Seconds until a folder that no command used goes."""
    layers_bytes: int = Field(default=20 << 30, ge=1 << 20)
    """Bytes of environment layers, the packages of lockfiles; of those not in use the one goes first that was used
    longest ago."""
    layers_idle_s: int = Field(default=86_400, ge=60)
    """Seconds after its last run for which a layer counts as in use, because its story may be waiting."""


class RegistrySettings(Settings):
    """Where the packages of one language come from when the environment of a repository is made."""

    url_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]{0,63}$")] | None = None
    """Variable of the fleet that holds the address, with a name and password where it wants them; it is recorded
    nowhere. Unset: what pip, npm or go of this machine are set up for."""
    hosts: tuple[Annotated[str, Field(min_length=1, max_length=260)], ...] = ()
    """Further hosts that packages are sent from: `host`, `host:port` or `.suffix`."""


class SandboxSettings(Settings):
    """The sandbox of every node."""

    backend: SandboxBackendSettings = BubblewrapBackendSettings()
    """What holds the runs: `kind` bubblewrap, podman, docker, kubernetes, or that of a package; the name alone is
    enough where nothing else is to be said."""

    disk: SessionDiskSettings = SessionDiskSettings()
    registries: Mapping[Literal["python", "node", "go", "rust"], RegistrySettings] = {}
    """By language. The one run that fetches what a lockfile asks for reaches these alone."""
    max_waiting: int = Field(default=64, ge=0, le=10_000)
    """Runs that wait beside those under way, which are two for each core; one more is refused and may come later."""
    # Source: RC-32.
    allow_weak_isolation: bool = False
    """Runs may start where the items of `waived` cannot be enforced; every result then names them."""
    waived: tuple[WaivableItem, ...] = ()
    """What may be missing; time, memory, processes and output are always enforced."""

    @model_validator(mode="after")
    def _said_twice(self) -> Self:
        if self.allow_weak_isolation != bool(self.waived):
            raise ValueError("allow_weak_isolation: true and the list waived belong together; give both or neither")
        return self


BranchName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$")]

ActorKind = Literal["council", "role", "context", "sandbox", "projector", "notary", "engine"]


class LocalForgeSettings(Settings):
    """Change requests are files of this machine, for the repository that the story works on."""

    kind: Literal["local"]
    folder: AbsolutePath | None = None
    """Where they are written; unset is `change-requests` in the home."""
    base: BranchName = "main"
    """Branch that the change shall be merged into."""


_PUSHED_TO = (
    r"^(https://[A-Za-z0-9.-]+(:[0-9]{1,5})?/|git@[A-Za-z0-9.-]+:|ssh://git@[A-Za-z0-9.-]+(:[0-9]{1,5})?/)"
    r"[A-Za-z0-9._~-][A-Za-z0-9._~/-]*$"
)


_Repository = Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)+$", max_length=300)]


class _RemoteForge(Settings):
    base: BranchName = "main"
    """Branch that the change shall be merged into."""
    git: Annotated[str, Field(pattern=_PUSHED_TO)] | None = None
    """Address that git pushes branches to, `https://<host>/owner/name.git`, or `git@<host>:owner/name.git` with key and
    host keys in targets.git of policy.yaml; unset pushes none: something else must."""
    git_user: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")] = "git"
    """User name beside the token; GitHub takes any, GitLab `oauth2` or the token's own name."""


class HostedForgeSettings(_RemoteForge):
    """Change requests are made at a forge, over its REST interface."""

    kind: Literal["github", "gitlab", "gitea"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$", max_length=500)]
    """Root of the interface: `https://api.github.com`, `https://<host>/api/v4`, `https://<host>/api/v1`."""
    repository: _Repository
    """`owner/name`; GitLab takes any number of groups."""
    token: SecretReference
    """`secret://<name>`; secrets.yaml grants it to role devops for git.open_change_request (and git.push_branch)."""

    @property
    def options(self) -> dict[str, Any]:
        """What the forge takes."""
        return {"url": self.url}


class PluginForgeSettings(_RemoteForge, PluginSettings):
    """Change requests are made where an installed package makes them."""

    repository: _Repository | None = None
    """`owner/name` at the forge; unset is the repository of the story."""
    token: SecretReference | None = None
    """`secret://<name>`; secrets.yaml grants it to role devops for git.open_change_request (and git.push_branch)."""

    @model_validator(mode="after")
    def _may_push(self) -> Self:
        if self.git is not None and self.git.startswith("https://") and self.token is None:
            raise ValueError("git is an https address, and pushing there takes a token: give token too")
        return self


ForgeSettings = Annotated[
    Annotated[LocalForgeSettings, Tag("local")]
    | Annotated[HostedForgeSettings, Tag("github")]
    | Annotated[HostedForgeSettings, Tag("gitlab")]
    | Annotated[HostedForgeSettings, Tag("gitea")]
    | Annotated[PluginForgeSettings, Tag("plugin")],
    by_kind("local", "github", "gitlab", "gitea"),
    BeforeValidator(kind_alone),
]


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
    llama: LlamaSettings = LlamaSettings()
    models: ModelsSettings = ModelsSettings()
    deploy: DeploySettings = DeploySettings()
    audit: AuditSettings = AuditSettings()
    sandbox: SandboxSettings = SandboxSettings()
    observability: ObservabilitySettings = ObservabilitySettings()
    notifications: NotificationSettings = NotificationSettings()
    forge: ForgeSettings | None = None
    """Where stories open their change requests: `kind` local, github, gitlab, gitea, or that of a package; unset opens
    none."""
    blobs: BlobSettings = FileBlobSettings()
    """Where trees, prompts and reports are kept: `kind` file, redis, s3, or that of a package; the name alone is enough
    where nothing else is to be said."""
    council_shards: int = Field(default=1, ge=1)
    """Number of council actors."""
    pools: Mapping[str, Annotated[int, Field(ge=0, le=64)]] = {}
    """Number of agents by role or profile; unnamed, a shipped role has one, and so has your own
    when tasks may go to it."""
    placement: Mapping[ActorKind, Mapping[LabelKey, LabelChoice]] = {}
    """Labels of the nodes of a kind of actor, as `{sandbox: {pool: sandbox}}`; a kind that is not named goes anywhere.

    A value may be `!spot`, `in(a,b)` or `!in(a,b)`. Labels of an engine in models.yaml win over those here.
    """
    start_timeout_s: int = Field(default=300, ge=10)
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
    """Event streams open at once; answers of `/v1` that are under way."""


class ServeAppSettings(Settings):
    """One Serve application."""

    replicas: int = Field(ge=1)
    """Number of processes that answer."""
    max_ongoing_requests: int = Field(ge=1)
    """Requests and open streams that one replica holds at once."""
    graceful_shutdown_s: int = Field(ge=0)
    """How long a redeployment or shutdown waits for open streams."""


class ChatFrontSettings(Settings):
    """What `/v1` offers, to whom, and for how long a reply may take (AP-122)."""

    also_offered: tuple[str, ...] = ()
    """Engines of kind `recorded` and `mock` that are offered too; those of real models always are."""
    roles: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Engine -> roles of which a caller needs one; an engine that is not named is open to every principal."""
    timeout_s: int = Field(default=600, ge=1, le=3600)
    """Time of one reply, its wait for an engine included."""


RPC_MESSAGE_BYTES = 4 * 2**20
"""Longer messages of gRPC are refused before they are read as a whole; what is in one is bound by `max_body_bytes`."""
PROXY_ENVIRONMENT: Mapping[str, str] = {
    "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(RPC_MESSAGE_BYTES),
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_apps.patience:http_proxy_callback",
}
"""How the proxies of Ray Serve guard the doors; set before Ray starts, on every node."""


class ServeSettings(Settings):
    """Everything that config/serve.yaml says; the port is `ports.gateway` of fleet.yaml."""

    host: str = Field(min_length=1)
    """Address on which the HTTP front listens; anything but loopback opens it to the network."""
    # Source: AP-10.
    origins: tuple[str, ...]
    """Origins of other sites whose pages may call the API; empty allows none."""
    # Source: AP-9.
    max_body_bytes: int = Field(ge=1, le=1_048_576)
    """Larger bodies are refused."""
    # Source: AP-102.
    heartbeat_s: int = Field(ge=1)
    """Silence after which a stream sends a comment."""
    # Source: AP-103.
    stream_queue: int = Field(ge=1)
    """Events kept for a slow client before its stream is closed."""
    # Source: CX-18.
    incident_override_s: int = Field(default=0, ge=0, le=3600)
    """How long a read that a po or architect opened with `X-Fleet-Override` may last; 0 allows no override."""
    rate: RateSettings
    chat: ChatFrontSettings = ChatFrontSettings()
    rpc_port: int | None = Field(default=None, ge=1, le=65_535)
    """Port of gRPC; null leaves it off. Ray Serve listens there on every address, without TLS (docs/api.md)."""
    # Source: AP-96.
    metrics_networks: tuple[IpNetwork, ...] = ("127.0.0.0/8", "::1/128")
    """Networks whose hosts may read `/metrics` of the front, without a token; an empty list closes it."""
    apps: Mapping[Literal["gateway", "llm"], ServeAppSettings]
    """The applications by name."""

    @model_validator(mode="after")
    def _apps_are_whole(self) -> ServeSettings:
        if lacking := sorted({"gateway", "llm"} - self.apps.keys()):
            raise WrongKeys([WrongKey("apps", f"{' and '.join(lacking)} must be given")])
        return self

    @model_validator(mode="after")
    def _rpc_is_meant(self) -> ServeSettings:
        if self.rpc_port is not None and self.host in ("127.0.0.1", "localhost", "::1"):
            raise ValueError(
                "rpc_port: Ray Serve listens for gRPC on every address of the machine, without TLS; set host to "
                "0.0.0.0 to say that this is meant, or leave rpc_port out"
            )
        return self
