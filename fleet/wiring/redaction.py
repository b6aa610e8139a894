"""The operator's own patterns of secrets, in use for the whole process (CX-76)."""

from __future__ import annotations

import time
from collections.abc import Callable

from fleet.config import ConfigFiles
from fleet.context import ContextConfig, check_speed, use_operator_patterns

__all__ = ["use_configured_redaction"]


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
