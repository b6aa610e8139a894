"""Secrets in the environment."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fleet.secrets.port import SecretValue
from fleet.secrets.providers.failures import NamedProvider


def variable_of(name: str, *, prefix: str) -> str:
    """The variable of a secret: `FLEET_SECRET_DEPLOY_TOKEN` for `deploy-token`."""
    return prefix + name.upper().replace("-", "_")


class EnvironmentSecrets:
    """Variables that begin with a prefix, read at each call. Implements the port SecretProvider.

    The environment names no versions.

    Args:
        label: name of this provider in config and audit.
        environ: the variables, as they are at the time of the call.
        prefix: what all variables of secrets begin with.
        names: the secrets that are served from there.
        ttl_s: seconds for which a value may be used.
    """

    def __init__(
        self, label: str, environ: Mapping[str, str], *, prefix: str, names: Collection[str], ttl_s: int
    ) -> None:
        self._source = NamedProvider(label, ttl_s=ttl_s)
        self._environ = environ
        self._prefix = prefix
        self._names = frozenset(names)

    @property
    def label(self) -> str:
        """Name of this provider in config and audit."""
        return self._source.label

    async def resolve(self, name: str, *, as_role: str, tool: str, op: str) -> SecretValue:
        """The value that the variable holds now."""
        if name not in self._names:
            raise self._source.not_found(name, "config does not list it there")
        variable = variable_of(name, prefix=self._prefix)
        text = self._environ.get(variable)
        if text is None:
            raise self._source.not_found(name, f"variable {variable} is not set")
        # Bytes that are no text come in as lone surrogates; they go out as what they were and are refused.
        return self._source.value(name, text.encode("utf-8", "surrogateescape"), version=None)
