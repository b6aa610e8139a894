"""The operator's own patterns of secrets, in use for the whole process (CX-76)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from fleet.config.files import ConfigFiles
from fleet.context.scope import ContextConfig
from fleet.models.profiles import ModelsConfig
from fleet.redaction.operator_patterns import check_speed
from fleet.redaction.redact import use_operator_patterns
from fleet.secrets.port import SecretValue
from fleet.secrets.service import KnownSecrets


def use_configured_redaction(files: ConfigFiles) -> None:
    """From here on this process takes out what `redaction` of context.yaml names, beside the shipped catalogue.

    Raises:
        ConfigError: a pattern is not bounded, fails its samples, or is slow; nothing changes then.
    """
    wanted = files.load("context.yaml", ContextConfig).redaction.patterns
    check_speed(wanted, seconds=_seconds)
    use_operator_patterns([pattern.compiled for pattern in wanted])


def _seconds(work: Callable[[], object]) -> float:
    started = time.thread_time()
    work()
    return time.thread_time() - started


_RUN_S = 86_400
"""A variable does not change while its process runs."""


def with_engine_keys(config: ModelsConfig, environ: Mapping[str, str], known_secrets: KnownSecrets) -> KnownSecrets:
    """The known secrets, from now on with the keys of the engines that stand in the environment."""
    names = sorted(name for engine in config.engines if isinstance(name := getattr(engine, "api_key_env", None), str))
    for name in names:
        if SecretValue.fits(text := environ.get(name, "")):
            known_secrets.register(SecretValue(text, name=name, provider="environment", version=None, ttl_s=_RUN_S))
    return known_secrets
