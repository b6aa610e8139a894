"""The errors of all secret providers, and the check of what a source holds.

They are raised outside of every `except` block that caught a decoding error: that one holds what it could not decode,
and would hang on ours.
"""

from __future__ import annotations

from typing import Any, cast

from fleet.kernel.errors import NotFound, PolicyDenied, StoreUnavailable
from fleet.secrets.port import MAX_SECRET_BYTES, SecretValue


class NamedProvider:
    """One provider by its label: makes its values and its errors.

    Args:
        label: name of the provider in config and audit.
        ttl_s: seconds for which its values may be used.
    """

    def __init__(self, label: str, *, ttl_s: int) -> None:
        self.label = label
        self.ttl_s = ttl_s

    def value(self, name: str, data: bytes, *, version: str | None) -> SecretValue:
        """The bytes as a value; StoreUnavailable when they cannot be one."""
        text = decoded(data)
        if text is None or not SecretValue.fits(text):
            raise self.broken(
                name, f"its value is empty, no UTF-8 text, holds a NUL, or has more than {MAX_SECRET_BYTES} bytes"
            )
        return SecretValue(text, name=name, provider=self.label, version=version, ttl_s=self.ttl_s)

    def not_found(self, name: str, why: str) -> NotFound:
        """The source has no such secret."""
        return NotFound(
            f"secret {name!r} is not at provider {self.label}: {why}; store it there or mend config/secrets.yaml",
            secret=name,
            provider=self.label,
        )

    def refused(self, name: str, why: str) -> PolicyDenied:
        """The source refuses us, or is not safe to read."""
        return PolicyDenied(
            f"secret {name!r} of provider {self.label} must not be used: {why}",
            rule_id="RT-65",
            secret=name,
            provider=self.label,
        )

    def broken(self, name: str, why: str, *, status: int | None = None) -> StoreUnavailable:
        """The source does not answer, or not what it should."""
        details = {"secret": name, "provider": self.label} | ({} if status is None else {"status": status})
        return StoreUnavailable(
            f"secret {name!r} cannot be read from provider {self.label}: {why}; mend it and repeat", **details
        )


def decoded(data: bytes) -> str | None:
    """The bytes as text, None when they are no UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def as_mapping(value: object) -> dict[str, Any] | None:
    """A JSON object, None for everything else."""
    return cast(dict[str, Any], value) if isinstance(value, dict) else None
