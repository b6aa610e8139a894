"""What settings are made of: their base, and values of one form."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, cast

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, SecretStr, model_validator
from pydantic.functional_validators import AfterValidator

from fleet.kernel.errors import InvalidInput
from fleet.policy.secret_refs import parse_reference


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused, the sentence under a field is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


PluginName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]


class PluginSettings(Settings):
    """What an installed package brings, by the name of its entry point (docs/extending.md)."""

    kind: PluginName
    options: Mapping[str, JsonValue] = {}
    """What the package takes; it checks them before the fleet starts."""

    @model_validator(mode="before")
    @classmethod
    def _options_apart(cls, value: object) -> object:
        if isinstance(value, Mapping):
            given = cast("Mapping[str, object]", value)
            if stray := sorted(given.keys() - cls.model_fields.keys()):
                raise ValueError(
                    f"{given.get('kind')!r} is no kind of the fleet's own; that of a package takes its settings under "
                    f"options, not beside them: {', '.join(stray)}"
                )
        return cast(object, value)


def by_kind(*shipped: str) -> Discriminator:
    """Which variant a value is: that with the tag of its kind, or the one with the tag `plugin`."""

    def tag(value: object) -> str | None:
        given = cast("Mapping[str, object]", value) if isinstance(value, Mapping) else vars(value)
        kind = given.get("kind")
        if not isinstance(kind, str):
            return None
        return kind if kind in shipped else "plugin"

    listed = ", ".join(repr(kind) for kind in shipped)
    return Discriminator(
        tag,
        custom_error_type="kind",
        custom_error_message=f"'kind' must be one of {listed}, or what an installed package brings",
    )


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


def _network(value: str) -> str:
    ip_network(value)
    return value


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
BoltUri = Annotated[str, AfterValidator(_bolt_uri)]
IpNetwork = Annotated[str, AfterValidator(_network)]
Port = Annotated[int, Field(ge=0, le=65_535)]


def _reference(value: str) -> str:
    with suppress(InvalidInput):
        if parse_reference(value) is not None:
            return value
    raise ValueError("must name a secret of secrets.yaml as secret://<name>, never hold the token itself")


SecretReference = Annotated[str, AfterValidator(_reference)]
"""`secret://<name>`: settings name secrets and never hold them."""


def kind_alone(value: object) -> object:
    """A variant that is given as text alone is that kind with its defaults."""
    return {"kind": value} if isinstance(value, str) else value
