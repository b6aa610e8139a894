"""Calls of actors carry on whose behalf they are made: into log lines, and into one span for each call."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Mapping
from typing import Any

from fleet.kernel.errors import FleetError
from fleet.telemetry.service import on_behalf_of, received

_LOG = logging.getLogger("actors.calls")
_MARK = "__carries_causes_of__"
"""On what a method became: the method as it was."""


def carrying_causes(shell: type[Any]) -> None:
    """Every public async method of the shell takes `caused_by` besides, as the resolver of actors sends it."""
    for name, method in inspect.getmembers(shell, inspect.iscoroutinefunction):
        if not name.startswith("_") and not hasattr(method, _MARK):
            setattr(shell, name, _carrying(method))


def _carrying(method: Any) -> Any:
    @functools.wraps(method)
    async def carried(self: Any, *args: Any, caused_by: Mapping[str, str] | None = None, **kwargs: Any) -> Any:
        if caused_by is None:
            return await method(self, *args, **kwargs)
        kind = str(self.name).split(":")[0]
        with on_behalf_of(received(caused_by)):
            try:
                with self.telemetry.served(f"{kind} {method.__name__}", **{"fleet.actor": self.name}):
                    return await method(self, *args, **kwargs)
            except FleetError as error:
                _LOG.warning("%s failed: %s", method.__name__, error.code)
                raise

    # Ray checks arguments before it sends them: against the signature of the innermost function that it can find.
    del carried.__wrapped__  # pyright: ignore[reportAttributeAccessIssue]
    found = inspect.signature(method)
    further = inspect.Parameter("caused_by", inspect.Parameter.KEYWORD_ONLY, default=None)
    carried.__signature__ = found.replace(  # pyright: ignore[reportAttributeAccessIssue]
        parameters=[*found.parameters.values(), further]
    )
    setattr(carried, _MARK, method)
    return carried
