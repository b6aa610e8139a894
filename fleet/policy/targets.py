"""What tools may address outside the workspace, as config/policy.yaml lists it (RT-20, RT-58..RT-64, RT-70)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fleet.kernel.types import Frozen
from fleet.policy.commands.git import GitPlace, GitTarget
from fleet.policy.mcp_servers import McpServer

# A password in the file itself is refused: between scheme and host there is a user at the most.
_DATABASE_URL = r"^[a-z][a-z0-9+]*://([^\s@:/]+@)?[^\s@]+$"


class DatabaseTarget(Frozen):
    """A database that tools may address."""

    allow_write: bool = False
    """Whether statements that change it may be asked for (RT-60)."""
    kind: Literal["postgresql", "redis", "neo4j"] | None = None
    """What answers there; None for a database that is listed and has no address yet."""
    url: Annotated[str, Field(pattern=_DATABASE_URL)] | None = None
    """Its address without a password, or `secret://<name>` for an address that holds one; of a read-only account."""
    write_url: Annotated[str, Field(pattern=_DATABASE_URL)] | None = None
    """Of the account that may change it; None: that of `url`."""

    @model_validator(mode="after")
    def _check(self) -> DatabaseTarget:
        if (self.url is None) != (self.kind is None):
            raise ValueError("kind and url go together: say what answers at the address")
        if self.write_url is not None and not self.allow_write:
            raise ValueError("write_url is for a database with allow_write: true")
        return self


class ClusterTarget(Frozen):
    """The cluster of one environment; context and account are fixed here and by no call (RT-62)."""

    context: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,199}$")]
    """Name of the context in the kubeconfig."""
    kubeconfig: Annotated[str, Field(pattern=r"^secret://")]
    """Secret that holds the kubeconfig; grant it to roles for kubectl and helm."""
    server: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?$")]
    """`host` or `host:port` of its API server: all that a run reaches."""


class CloudTarget(Frozen):
    """An account of a cloud. What a call reaches and who it is there stand here and in no argument (RT-70)."""

    hosts: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]
    """What the program reaches: exact names, or `.suffix` for all names below it."""
    credentials: Annotated[str, Field(pattern=r"^secret://")]
    """Secret with short-lived credentials: for aws a credentials file, for gcloud an access token, for az a service
    principal as JSON."""
    env: dict[Annotated[str, Field(pattern=r"^(AWS_DEFAULT_REGION|CLOUDSDK_[A-Z_]+|AZURE_DEFAULTS_[A-Z_]+)$")], str] = (
        Field(default_factory=dict)
    )
    """Region, project and the like."""


class Targets(Frozen):
    """What tools may address outside the workspace. What is not listed is refused; the shipped lists are empty."""

    hosts: tuple[str, ...] = ()
    """Exact names in lower case, or `.suffix` for all names below it (RT-59)."""
    git: dict[GitPlace, GitTarget] = Field(default_factory=dict[GitPlace, GitTarget])
    """Repositories: `host`, `host/owner` or `host/owner/name` (RC-70, RT-58)."""
    local: dict[str, tuple[Annotated[str, Field(pattern=r"^/")], ...]] | None = None
    """Folders with the local repositories that stories may work on, by project; `*` is every project. Left out, a po
    names any repository that the fleet's user can read."""
    databases: dict[str, DatabaseTarget] = Field(default_factory=dict)
    images: tuple[str, ...] = ()
    """By digest: `name@sha256:...` (RT-61)."""
    namespaces: tuple[str, ...] = ()
    """`<environment>/<namespace>` (RT-62)."""
    clusters: dict[str, ClusterTarget] = Field(default_factory=dict)
    """By environment."""
    clouds: dict[Literal["aws", "gcloud", "az"], CloudTarget] = Field(
        default_factory=dict[Literal["aws", "gcloud", "az"], CloudTarget]
    )
    """Accounts, by the program that reaches them."""
    charts: tuple[str, ...] = ()
    mcp_servers: tuple[str, ...] = ()
    mcp: dict[str, McpServer] = Field(default_factory=dict)
    """How listed MCP servers are reached, and which of their tools were approved (RT-64)."""

    def names(self, kind: str) -> tuple[str, ...]:
        """What is listed of this kind of target, sorted."""
        listed: dict[str, Iterable[str]] = {
            "host": self.hosts,
            "repository": self.git,
            "database": self.databases,
            "image": self.images,
            "namespace": self.namespaces,
            "chart": self.charts,
            "mcp_server": self.mcp_servers,
        }
        return tuple(sorted(listed[kind]))

    @property
    def environment(self) -> str | None:
        """The environment that every story is for: the only one with a cluster; None when there are none or several."""
        return next(iter(self.clusters)) if len(self.clusters) == 1 else None
