"""Settings of the places that are told of what waits for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from fleet.config.values import AbsolutePath, IpNetwork, SecretReference, Settings
from fleet.errors import FleetError
from fleet.tools import SecretName, address_refusal
from fleet.tools.http_rules import target_of

__all__ = ["NotificationSettings", "WebhookTargetSettings"]

NoticeKind = Literal["approval_requested", "time_limit_passed", "incident_opened"]
_KINDS: tuple[NoticeKind, ...] = ("approval_requested", "time_limit_passed", "incident_opened")


class WebhookTargetSettings(Settings):
    """One HTTP endpoint that gets a signed POST for each notification."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
    """By which metrics, dead letters and the record of what it was told know it."""
    kind: Literal["webhook"]
    url: Annotated[str, Field(max_length=2_000)]
    """`https://host[:port]/path`; `http` only where `networks` says that the receiver is yours."""
    secret: SecretReference
    """`secret://<name>` of the key that bodies are signed with; granted to role devops for notifications.send."""
    events: Annotated[tuple[NoticeKind, ...], Field(min_length=1)] = _KINDS
    """What it hears of: approval_requested, time_limit_passed, incident_opened."""
    projects: tuple[Annotated[str, Field(pattern=r"^pr(-[a-z0-9]+)+$")], ...] = ()
    """Projects that it hears of; none named is every project."""
    networks: tuple[IpNetwork, ...] = ()
    """Networks of yours that may be connected to although they are not public, as `127.0.0.0/8` or `10.1.2.0/24`."""
    timeout_s: int = Field(default=10, ge=1, le=60)
    """Time of one delivery."""
    ca_file: AbsolutePath | None = None
    """Certificates of the authority that vouches for the receiver; unset trusts the usual ones."""

    @property
    def secret_name(self) -> SecretName:
        """The name of the key's secret."""
        return self.secret.removeprefix("secret://")

    @field_validator("url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        try:
            target_of(value)
        except FleetError as error:
            # Without the value: the path of a webhook is often a secret itself.
            raise ValueError("must be https://host[:port]/path without user and password") from error
        return value

    @model_validator(mode="after")
    def _may_be_reached(self) -> Self:
        target = target_of(self.url)
        if target.scheme == "http" and not self.networks:
            raise ValueError("url is plain http; give https, or list the network of the receiver under networks")
        if _is_numeric(target.host) and (why := address_refusal(target.host, allowed=self.networks)) is not None:
            raise ValueError(f"url leads to {why}; list its network under networks if it is yours")
        return self


class NotificationSettings(Settings):
    """Who is told outside of the fleet of approvals that wait, time limits that passed, and incidents (LC-80)."""

    targets: tuple[WebhookTargetSettings, ...] = ()
    """Places that are told, each with `name`, `kind: webhook`, `url` and `secret`; none as shipped."""

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if twice := _repeated([target.name for target in self.targets]):
            raise ValueError(f"targets has {', '.join(twice)} more than once; give each its own name")
        return self


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _is_numeric(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
