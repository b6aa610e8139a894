"""What a run in the sandbox is asked to do, and how it ended (RC-1..RC-19)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fleet.kernel.digest import digest_of_json
from fleet.kernel.ids import Digest, StoryId
from fleet.kernel.types import Frozen

RunStatus = Literal["pending", "running", "passed", "failed", "error", "timeout", "cancelled"]
FINAL_STATUSES: frozenset[str] = frozenset({"passed", "failed", "error", "timeout", "cancelled"})

RunReason = Literal[
    "ok",
    "exit_nonzero",
    "signal",
    "oom_killed",
    "pids_limit",
    "disk_limit",
    "output_limit",
    "timeout",
    "idle_timeout",
    "cancelled",
    "config",
    "image_unavailable",
    "mount_refused",
    "sandbox_lost",
    "service_unavailable",
]
"""The closed list of RC-14..RC-19; exactly one is authoritative for a run."""


class Limits(Frozen):
    """What the run may use. Always applied; `RunResult.limits` says by which mechanism (RC-30)."""

    overall_s: Annotated[int, Field(ge=1, le=14_400)] = 600
    """Wall time until everything of the run is killed, in seconds."""
    idle_s: Annotated[int, Field(ge=1, le=14_400)] = 600
    """Seconds without any output until the run is killed."""
    memory_bytes: Annotated[int, Field(ge=16 << 20)] = 1 << 30
    """Resident memory of all processes of the run together, in bytes."""
    pids: Annotated[int, Field(ge=1, le=4096)] = 256
    """Processes and threads at one time."""
    disk_bytes: Annotated[int, Field(ge=1 << 20)] = 1 << 30
    """Bytes below the writable workspace."""
    file_bytes: Annotated[int, Field(ge=1 << 20)] = 256 << 20
    """Largest single file, in bytes."""
    output_bytes: Annotated[int, Field(ge=1024)] = 10 << 20
    """Bytes of standard output and error together until the run is ended with `output_limit`."""
    cpu_millis: Annotated[int, Field(ge=100, le=64_000)] = 2_000
    """Thousandths of a CPU (RC-6)."""
    grace_s: Annotated[int, Field(ge=0, le=300)] = 10
    """Seconds between SIGTERM to the command and SIGKILL to everything, when the run is cancelled (RC-24)."""


class BlobMount(Frozen):
    """A read-only file from the blob store at an absolute path inside, below /inputs."""

    kind: Literal["blob"] = "blob"
    blob: Digest
    target: Annotated[str, Field(pattern=r"^/inputs/[A-Za-z0-9._-]{1,100}$")]


class RepoMount(Frozen):
    """The supervisor's staged copy of a repository's objects and refs (no config, no hooks), at /repo.git."""

    kind: Literal["repo"] = "repo"
    repo: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Name of the staged copy, as returned by `Forge.stage`."""


class ServiceReady(Frozen):
    """How it is found out that a side service can be used: this command ends with 0."""

    argv: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]
    timeout_s: Annotated[int, Field(ge=1, le=600)] = 60


class ServiceSpec(Frozen):
    """A program beside the command, in the same sandbox and under the same limits (RC-101..RC-104)."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    """A recipe of config/policy.yaml (`redis`, `postgres`, `neo4j`), or `command` for a program of its own."""
    version: str | None = None
    env_prefix: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,31}$")]
    """`<PREFIX>_HOST`, `<PREFIX>_PORT` and `<PREFIX>_URL` tell the command where it is."""
    argv: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """The program of kind `command`; empty for a recipe."""
    ready: ServiceReady | None = None
    """None takes that of the recipe."""


class Grantee(Frozen):
    """For whom and for what a run may use secrets (RT-65); set by the product, never by a caller."""

    role: str
    tool: str
    op: str


class LiveFolder(Frozen):
    """Where the commands of a work session run: a folder that a node keeps between them.

    The folder is a cache of the recorded files. Each run begins with `RunSpec.tree`, whatever lies in it.
    """

    story: StoryId
    session: Annotated[str, Field(min_length=1, max_length=400)]
    """Its name in the story; two sessions never have one folder at the same time."""
    root: Digest
    """The whole tree that the session began with: what a run leaves is recorded as a delta over it."""


class RunSpec(Frozen):
    """One command over one tree: it starts from `tree` at /workspace and ends in `RunResult.tree_out`.

    A run never changes its input tree. With `keep_tree` false the tree it leaves is not recorded (a test run).
    """

    argv: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]
    """Program and arguments, never a shell string."""
    tree: Digest | None = None
    """The tree at /workspace; None starts with an empty directory."""
    env: dict[Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]{0,63}$")], str] = Field(default_factory=dict)
    """Variables beside the fixed ones; loader and proxy variables are refused."""
    mounts: tuple[Annotated[BlobMount | RepoMount, Field(discriminator="kind")], ...] = ()
    limits: Limits = Limits()
    artifacts: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """Paths relative to /workspace that are stored after the run; a missing one is listed as missing."""
    keep_tree: bool = False
    """Record the workspace's files (without `discard` paths) as a tree after the run."""
    discard: tuple[str, ...] = ("test-reports", "coverage", "out")
    """Top-level names that never belong to the recorded tree: the shim's own outputs."""
    toolchain: str = "python"
    """Named read-only toolchain of config/policy.yaml, `env:<path>` for the repository's own (`--python ENV`), or
    `layer:<language>:<key>` for one that the fleet made from the repository's lockfile."""
    cwd: str = "."
    """Folder below /workspace in which the command starts."""
    stdin: Digest | None = None
    """Blob that the command reads as its standard input, at most 10 MB; None is an empty input."""
    hosts: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """Reachable through the egress proxy: `host`, `host:port` or `.suffix`; without a port 443. None: no network."""
    services: Annotated[tuple[ServiceSpec, ...], Field(max_length=4)] = ()
    grantee: Grantee | None = None
    """Who may have the `secret://` references that stand in `argv` and `env`; None allows none."""
    interactive: bool = False
    """The command's input stays open and is written while it runs (port SandboxSessions); then `stdin` is None."""

    folder: Annotated[LiveFolder | None, Field(exclude=True)] = None
    """None: a folder of its own. It says how a run is carried out, not what it is, and so it is in no digest."""

    @property
    def digest(self) -> Digest:
        """`specDigest` of RC-12: same key and same digest is the same run.

        What a specification of the first version did not have counts only where it says something, so that runs which
        were recorded then keep their digests.
        """
        return digest_of_json(self.document)

    @property
    def document(self) -> dict[str, Any]:
        """The specification as JSON, without what a later version added and this one leaves at its default.

        Its canonical JSON has the digest `digest`.
        """
        whole = self.model_dump(mode="json")
        for model, values in ((self, whole), (self.limits, whole["limits"])):
            for name in _SINCE_SECOND_VERSION & values.keys():
                if getattr(model, name) == type(model).model_fields[name].default:
                    del values[name]
        return whole


_SINCE_SECOND_VERSION = frozenset(
    {"cpu_millis", "grace_s", "cwd", "stdin", "hosts", "services", "grantee", "interactive"}
)


class OutputStream(Frozen):
    """Head and tail of one stream as text (undecodable bytes replaced), and where all of it is."""

    head: str = ""
    tail: str = ""
    total_bytes: int = 0
    truncated: bool = False
    blob: Digest | None = None

    @property
    def text(self) -> str:
        """Head and tail together, with a line naming what was left out between them."""
        if not self.truncated:
            return self.head + self.tail
        return (
            f"{self.head}\n[... {self.total_bytes - len(self.head) - len(self.tail)} bytes left out ...]\n{self.tail}"
        )


class Artifact(Frozen):
    """One declared output: its digest, or None when it is missing or over the cap."""

    path: str
    blob: Digest | None = None
    size_bytes: int = 0
    truncated: bool = False


class Usage(Frozen):
    """What the run used; integers in milliseconds and bytes."""

    wall_ms: int = 0
    cpu_ms: int = 0
    max_memory_bytes: int = 0
    max_pids: int = 0


class EgressDecision(Frozen):
    """One connection that a run asked the egress proxy for."""

    host: str
    port: int
    allowed: bool
    reason: str
    """`ok`, or which rule refused it."""
    address: str | None = None
    """The checked address that was connected to."""
    bytes_out: int = 0
    bytes_in: int = 0
    at_ms: int = 0


class RunResult(Frozen):
    """How a run ended. A program that is missing, fails or hits a limit is a result; its partial output is kept."""

    status: RunStatus
    reason: RunReason
    exit_code: int | None
    """The real exit code; 128 + signal when killed; None when no process was started."""
    stdout: OutputStream = OutputStream()
    stderr: OutputStream = OutputStream()
    artifacts: tuple[Artifact, ...] = ()
    tree_in: Digest | None = None
    tree_out: Digest | None = None
    usage: Usage = Usage()
    limits: dict[str, str] = Field(default_factory=dict)
    """Limit -> mechanism that enforced it, e.g. `{"memory": "watchdog", "pids": "rlimit"}`."""
    backend: str = ""
    image: Digest | None = None
    """Digest of the toolchain's description (RC-34)."""
    log: Digest | None = None
    """Blob of all lines of both streams as NDJSON (RC-35), redacted; None when nothing was printed."""
    unmet: tuple[str, ...] = ()
    """What the backend could not enforce and `allow_weak_isolation` waived (RC-32)."""
    egress: tuple[EgressDecision, ...] = ()
    """Every connection that was asked for, in order; the last of at most 1,000."""

    def artifact(self, path: str) -> Digest | None:
        """Digest of a declared artifact, None when the run left none."""
        return next((a.blob for a in self.artifacts if a.path == path), None)
