"""What is taken out of prompts and replies before they are kept for replay (CX-60)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fleet.context.secrets import redact_secrets
from fleet.models import ModelsConfig
from fleet.ports import SecretValue
from fleet.services.known_secrets import KnownSecrets

__all__ = ["recording_redaction"]

_RUN_S = 86_400
"""A variable does not change while its process runs."""


def recording_redaction(config: ModelsConfig, environ: Mapping[str, str], known: KnownSecrets) -> Callable[[str], str]:
    """Takes out the keys of the engines, in every form in which a program prints them, and what looks like a secret.

    The digest of a request is that of the request as sent: what is taken out does not change what replays.
    """
    names = sorted(name for engine in config.engines if isinstance(name := getattr(engine, "api_key_env", None), str))
    for name in names:
        if SecretValue.fits(text := environ.get(name, "")):
            known.register(SecretValue(text, name=name, provider="environment", version=None, ttl_s=_RUN_S))

    def redact(text: str) -> str:
        return redact_secrets(known.redact(text).text)

    return redact
