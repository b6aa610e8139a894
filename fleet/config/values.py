"""What settings are made of: their base, and values of one form."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic.functional_validators import AfterValidator

from fleet.kernel.errors import InvalidInput
from fleet.policy.secret_refs import parse_reference


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
