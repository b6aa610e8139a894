"""What a run in the sandbox is asked to do, and how it ended (RC-1..RC-19)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fleet.digest import digest_of_json
from fleet.ids import Digest

__all__ = [
    "FINAL_STATUSES",
    "Artifact",
    "BlobMount",
    "Limits",
    "OutputStream",
    "RepoMount",
    "RunReason",
    "RunResult",
    "RunSpec",
    "RunStatus",
    "Usage",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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


class Limits(_Frozen):
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


class BlobMount(_Frozen):
    """A read-only file from the blob store at an absolute path inside, below /inputs."""

    kind: Literal["blob"] = "blob"
    blob: Digest
    target: Annotated[str, Field(pattern=r"^/inputs/[A-Za-z0-9._-]{1,100}$")]


class RepoMount(_Frozen):
    """The supervisor's staged copy of a repository's objects and refs (no config, no hooks), at /repo.git."""

    kind: Literal["repo"] = "repo"
    repo: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Name of the staged copy, as returned by `Forge.stage`."""


class RunSpec(_Frozen):
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
    """Named read-only toolchain of config/policy.yaml, or `env:<path>` for the repository's own (`--python ENV`)."""

    @property
    def digest(self) -> Digest:
        """`specDigest` of RC-12: same key and same digest is the same run."""
        return digest_of_json(self.model_dump(mode="json"))


class OutputStream(_Frozen):
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


class Artifact(_Frozen):
    """One declared output: its digest, or None when it is missing or over the cap."""

    path: str
    blob: Digest | None = None
    size_bytes: int = 0
    truncated: bool = False


class Usage(_Frozen):
    """What the run used; integers in milliseconds and bytes."""

    wall_ms: int = 0
    cpu_ms: int = 0
    max_memory_bytes: int = 0
    max_pids: int = 0


class RunResult(_Frozen):
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

    def artifact(self, path: str) -> Digest | None:
        """Digest of a declared artifact, None when the run left none."""
        return next((a.blob for a in self.artifacts if a.path == path), None)
