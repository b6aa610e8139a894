"""Settings of the places that are told of what waits for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, Tag, field_validator, model_validator

from fleet.config.values import AbsolutePath, IpNetwork, PluginSettings, SecretReference, Settings, by_kind
from fleet.kernel.errors import FleetError
from fleet.kernel.types import NoticeKind
from fleet.policy.addresses import address_refusal
from fleet.policy.commands.http import target_of
from fleet.policy.secret_refs import SecretName

MailAddress = Annotated[str, Field(max_length=254, pattern=r"^[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$")]
"""An address without a name: nothing in it can end a line of a mail."""
_KINDS: tuple[NoticeKind, ...] = ("approval_requested", "time_limit_passed", "incident_opened")


class _Told(Settings):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
    """By which metrics, dead letters and the record of what it was told know it."""
    events: Annotated[tuple[NoticeKind, ...], Field(min_length=1)] = _KINDS
    """What it hears of: approval_requested, time_limit_passed, incident_opened."""
    projects: tuple[Annotated[str, Field(pattern=r"^pr(-[a-z0-9]+)+$")], ...] = ()
    """Projects that it hears of; none named is every project."""


class _TargetSettings(_Told):
    networks: tuple[IpNetwork, ...] = ()
    """Networks of yours that may be connected to although they are not public, as `127.0.0.0/8` or `10.1.2.0/24`."""
    timeout_s: int = Field(default=10, ge=1, le=60)
    """Time of one delivery."""
    ca_file: AbsolutePath | None = None
    """Certificates of the authority that vouches for the receiver; unset trusts the usual ones."""

    @property
    def options(self) -> dict[str, Any]:
        """What the target takes."""
        return self.model_dump(exclude={"kind", "name", "events", "projects", "secret"})


class WebhookTargetSettings(_TargetSettings):
    """One HTTP endpoint that gets a signed POST for each notification."""

    kind: Literal["webhook"]
    url: Annotated[str, Field(max_length=2_000)]
    """`https://host[:port]/path`; `http` only where `networks` says that the receiver is yours."""
    secret: SecretReference
    """`secret://<name>` of the key that bodies are signed with; granted to role devops for notifications.send."""

    @property
    def secret_name(self) -> SecretName | None:
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


class MailTargetSettings(_TargetSettings):
    """People who get a mail for each notification, through one mail server."""

    kind: Literal["mail"]
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$|^[0-9a-fA-F:]{2,45}$")]
    """Name or address of the mail server (SMTP)."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 587
    """Its port; 465 as a rule with `security: tls`."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """`starttls` turns to TLS before anything is said, `tls` speaks it from the start; `none` only in `networks`."""
    user: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")] | None = None
    """Who logs in; unset logs nobody in."""
    secret: SecretReference | None = None
    """`secret://<name>` of the user's password; granted to role devops for notifications.send."""
    sender: MailAddress
    """Address that mails come from."""
    recipients: Annotated[tuple[MailAddress, ...], Field(min_length=1, max_length=50)]
    """Addresses that mails go to; all of them see each other."""
    desk_url: Annotated[str, Field(max_length=500, pattern=r"^https?://[A-Za-z0-9.:\[\]/_-]+$")]
    """Address of the desk, which mails link to."""

    @property
    def secret_name(self) -> SecretName | None:
        """The name of the password's secret; None where nobody logs in."""
        return None if self.secret is None else self.secret.removeprefix("secret://")

    @model_validator(mode="after")
    def _may_be_reached(self) -> Self:
        if (self.user is None) != (self.secret is None):
            raise ValueError("user and secret belong together: give both, or none where nobody logs in")
        if self.security == "none" and self.user is not None:
            raise ValueError("security none would send the password in the clear; use starttls or tls")
        if self.security == "none" and not self.networks:
            raise ValueError("security is none; use starttls or tls, or list the network of the server under networks")
        if _is_numeric(self.host) and (why := address_refusal(self.host, allowed=self.networks)) is not None:
            raise ValueError(f"host is {why}; list its network under networks if it is yours")
        return self


class PluginTargetSettings(_Told, PluginSettings):
    """What an installed package tells."""

    secret: SecretReference | None = None
    """`secret://<name>` that the package needs; granted to role devops for notifications.send."""

    @property
    def secret_name(self) -> SecretName | None:
        """The name of the secret; None where it needs none."""
        return None if self.secret is None else self.secret.removeprefix("secret://")


TargetSettings = Annotated[
    Annotated[WebhookTargetSettings, Tag("webhook")]
    | Annotated[MailTargetSettings, Tag("mail")]
    | Annotated[PluginTargetSettings, Tag("plugin")],
    by_kind("webhook", "mail"),
]


class NotificationSettings(Settings):
    """Who is told outside of the fleet of approvals that wait, time limits that passed, and incidents (LC-80)."""

    targets: tuple[TargetSettings, ...] = ()
    """Places that are told: `kind: webhook` with `url` and `secret`, `kind: mail` with a server, or the kind of a
    package; none as shipped."""

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if twice := _repeated([target.name for target in self.targets]):
            raise ValueError(f"targets has {', '.join(twice)} more than once; give each its own name")
        return self


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _is_numeric(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
