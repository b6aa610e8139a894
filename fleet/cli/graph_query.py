"""`fleet graph ask`: a named query of the decision graph (GR-80..GR-94)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

from rich.markup import escape

from fleet.cli.exit_codes import DONE
from fleet.cli.fleet_hooks import endpoints_of
from fleet.cli.output import Output
from fleet.cli.settings import needed_addresses, settings
from fleet.errors import InvalidInput
from fleet.graph import plan_query
from fleet.wiring import make_graph

__all__ = ["ask_graph", "parameters"]

_NUMBERS = frozenset({"limit", "skip", "depth", "now_ms", "older_than_s", "from", "to"})
_NEEDS_TIME = "unanswered_questions"


def ask_graph(output: Output, name: str, given: Sequence[str]) -> int:
    """The rows of the query are printed, one a line; with `--json` as one list.

    Raises:
        InvalidInput: no query has this name, or it does not take these parameters.
    """
    params = parameters(given)
    if name == _NEEDS_TIME:
        params.setdefault("now_ms", time.time_ns() // 10**6)
    plan_query(name, params)

    async def body() -> list[dict[str, Any]]:
        found = settings()
        graph = make_graph(endpoints_of(found, needed_addresses(found)))
        try:
            return await graph.query(name, params)
        finally:
            await graph.close()

    rows = asyncio.run(body())
    for row in rows:
        output.say(escape(json.dumps(row, ensure_ascii=False, default=str)))
    if not rows:
        output.say("nothing found")
    output.result({"query": name, "rows": rows})
    return DONE


def parameters(given: Sequence[str]) -> dict[str, Any]:
    """`name=value` as parameters of a query; numbers where a parameter is one."""
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidInput(f"{text[:100]!r} is no parameter: write name=value, as in story_id=st-auth-7")
        is_number = name in _NUMBERS and value.isascii() and value.isdigit() and len(value) < 20
        found[name] = int(value) if is_number else value
    return found
