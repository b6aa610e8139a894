"""Where stories are deployed, and what of a deployment is watched: as declared in config/fleet.yaml (LC-49)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from shlex import split
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fleet.kernel.errors import InvalidInput
from fleet.kernel.types import Frozen
from fleet.policy.commands.deploy_kubernetes import ClusterPlace
from fleet.policy.secret_refs import parse_reference

_NAME = r"^[a-z][a-z0-9_-]{0,39}$"
_DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")


class HealthCheckSpec(Frozen):
    """One thing that is watched. In every window of `window_s` a number is measured; over `threshold` it breaches."""

    name: Annotated[str, Field(pattern=_NAME)]
    kind: Literal["http", "command", "metric", "log_pattern"]
    """The number is: of `http` and `command` the looks that failed, of `metric` its highest value, of `log_pattern`
    the lines that match."""
    target: Annotated[str, Field(min_length=1, max_length=1000)]
    """Of `http` a path (`/healthz`), of `metric` a path and a name (`/metrics#errors_total`), of `command` program and
    arguments without a shell, of `log_pattern` a regular expression."""
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """The highest number that is still healthy."""
    interval_s: Annotated[int, Field(ge=1, le=3600)] = 10
    """Seconds between two looks."""
    window_s: Annotated[int, Field(ge=1, le=3600)] = 60
    """Seconds after which the number is judged, and begins anew."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> HealthCheckSpec:
        if self.interval_s > self.window_s:
            raise ValueError(f"check {self.name}: interval_s {self.interval_s} is over window_s {self.window_s}")
        if self.kind in ("http", "metric") and not self.target.startswith("/"):
            raise ValueError(f"check {self.name}: target of kind {self.kind} is a path that begins with /")
        if self.kind == "metric" and not self.target.partition("#")[2]:
            raise ValueError(f"check {self.name}: write target as path and name of the metric, /metrics#errors_total")
        if self.kind == "command":
            self._require_argv()
        if self.kind == "log_pattern":
            _require_pattern(self.name, self.target)
        return self

    def _require_argv(self) -> None:
        try:
            if self.argv:
                return
        except ValueError as error:
            raise ValueError(f"check {self.name}: target cannot be split into program and arguments: {error}") from None
        raise ValueError(f"check {self.name}: target names no program")

    @field_validator("target")
    @classmethod
    def _can_be_split(cls, value: str) -> str:
        if any(ord(c) < 32 for c in value):
            raise ValueError("target is one line")
        return value

    @property
    def argv(self) -> tuple[str, ...]:
        """Of kind `command`: program and arguments."""
        return tuple(split(self.target))


def _require_pattern(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"check {name}: target is no regular expression: {error}") from None


class DeployReady(Frozen):
    """How a new deployment shows that it can be used."""

    path: Annotated[str, Field(pattern=r"^/[^\s#]{0,200}$")] = "/"
    """It answers this path with a status below 400."""
    within_s: Annotated[int, Field(ge=1, le=600)] = 60


class MonitorSpec(Frozen):
    """What is watched after a deployment, and for how long."""

    window_s: Annotated[int, Field(ge=1, le=86_400)] = 600
    """Seconds without a breach after which the deployment counts as healthy (LC-63)."""
    checks: Annotated[tuple[HealthCheckSpec, ...], Field(min_length=1, max_length=20)]

    @property
    def paths(self) -> tuple[str, ...]:
        """What is asked of the program by HTTP."""
        return tuple(check.target for check in self.checks if check.kind in ("http", "metric"))

    @model_validator(mode="after")
    def _has_each_name_once(self) -> MonitorSpec:
        names = [check.name for check in self.checks]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two checks are named {', '.join(doubled)}")
        return self


class DeployTarget(Frozen):
    """One environment, and how a story's tree gets there.

    Kind `process`: a program in a sandbox of the home's node. Kind `kubernetes`: pods of a cluster, of an own image.
    """

    environment: Annotated[str, Field(pattern=_NAME)]
    kind: Literal["process", "kubernetes"] = "process"
    kubernetes: ClusterPlace | None = None
    """Of kind `kubernetes`: where in which cluster, and in what image."""
    projects: tuple[str, ...] = ()
    """Projects whose stories are deployed there; none means all."""
    argv: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1, max_length=64)]
    """The program and its arguments, started in the root of the tree; never a shell string."""
    env: dict[Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]{0,63}$")], str] = Field(default_factory=dict)
    """Variables of the program, beside PORT."""
    secrets: dict[Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]{0,63}$")], str] = Field(default_factory=dict)
    """Variables that hold a secret, each by its reference: {DB_PASSWORD: secret://db-password}. Granted in secrets.yaml
    to role devops for environment.start; the value is put in place inside the sandbox, and nowhere else."""
    port: Annotated[int, Field(ge=1024, le=65_000)] = 8080
    """Where it listens inside its sandbox, or its pods; PORT tells it."""
    expose: Annotated[int, Field(ge=1024, le=65_535)] | None = None
    """Port on the loopback of the node where people reach it; None where nobody does. Of kind `process`."""
    ready: DeployReady = DeployReady()
    memory_mb: Annotated[int, Field(ge=32, le=65_536)] = 512
    rollback: Literal["previous", "none"] = "previous"
    """What happens when the first window breaches: what ran before runs again, or the story waits for a person."""
    monitor: MonitorSpec

    @model_validator(mode="after")
    def _fits_its_kind(self) -> DeployTarget:
        if (self.kind == "kubernetes") != (self.kubernetes is not None):
            raise ValueError("kind: kubernetes and the block kubernetes belong together: give both or neither")
        if self.kubernetes is None:
            return self
        if not _DNS_LABEL.fullmatch(self.environment):
            raise ValueError(f"environment {self.environment} of kind kubernetes names objects: use a-z, 0-9 and -")
        if self.expose is not None:
            raise ValueError("expose is a port of the fleet's node; in a cluster say kubernetes.service or .ingress")
        if any(_climbs(path) for path in (self.ready.path, *self.monitor.paths)):
            raise ValueError("a path with .. cannot be asked through the cluster: write it without")
        return self

    @model_validator(mode="after")
    def _keeps_secrets_apart(self) -> DeployTarget:
        for name, value in self.secrets.items():
            if _reference(value) is None:
                raise ValueError(f"secrets: {name} is no reference: write secret://<name>")
            if name in self.env or name == "PORT":
                raise ValueError(f"{name} is a variable already, and cannot be a secret too")
        if given := sorted(name for name, value in self.env.items() if _reference(value) is not None):
            raise ValueError(f"env: {given[0]} refers to a secret: list it under secrets")
        if any(_reference(argument) is not None for argument in self.argv):
            raise ValueError("argv refers to a secret: list it under secrets, and let the program read that variable")
        return self

    @property
    def service_name(self) -> str:
        """Of kind `kubernetes`: the Service that leads to what runs there."""
        return f"fleet-{self.environment}"

    @property
    def secret_names(self) -> tuple[str, ...]:
        """The secrets that its program is given, sorted."""
        return tuple(sorted({name for name in map(_reference, self.secrets.values()) if name is not None}))


def _climbs(path: str) -> bool:
    return any(part.lower().replace("%2e", ".") == ".." for part in re.split(r"[/\\]", path.partition("?")[0]))


def _reference(value: str) -> str | None:
    """The secret that is named; None for text. A malformed reference is an error that does not repeat it."""
    try:
        return parse_reference(value)
    except InvalidInput as error:
        raise ValueError(error.message) from None


@dataclass(frozen=True, slots=True)
class HealthSample:
    """What one look of a check found."""

    value: float
    """1 for a failed look and 0 for a good one of `http` and `command`; else the number itself."""
    detail: str = ""
    """For people: the status, the end of the output; written by the program that is watched."""


@dataclass(frozen=True, slots=True)
class Window:
    """What a check's samples of one window come to."""

    ok: bool
    value: float
    detail: str
    """Of the sample that tells most."""


def judged(check: HealthCheckSpec, samples: Sequence[HealthSample]) -> Window:
    """Whether the window is healthy. Without a sample it is not: missing evidence is failure (GL-18)."""
    if not samples:
        return Window(ok=False, value=0.0, detail="no look could be taken")
    worst = max(samples, key=lambda sample: sample.value)
    value = worst.value if check.kind == "metric" else sum(sample.value for sample in samples)
    return Window(ok=value <= check.threshold, value=value, detail=worst.detail)


def target_for(targets: Sequence[DeployTarget], project_id: str) -> DeployTarget | None:
    """Where the stories of a project are deployed: the first target that names it, else the first for all projects."""
    own = next((target for target in targets if project_id in target.projects), None)
    return own or next((target for target in targets if not target.projects), None)
