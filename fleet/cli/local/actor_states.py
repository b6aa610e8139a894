"""How every actor of a running fleet is, as Ray knows it: also those that have no process because no node fits them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from fleet.config.settings import has_node

_NAMESPACE = "fleet"
_ANSWER_S = 5.0
_MOST, _MOST_BYTES = 1_000, 64 << 20


class ActorLine(BaseModel):
    """One actor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    state: Literal["running", "starting", "restarting", "waiting"]
    why: str = ""
    """What it waits for."""


def read_actor_lines(dashboard_url: str, token: str) -> tuple[ActorLine, ...] | None:
    """Every actor of the fleet by name; None when the dashboard does not answer, which its own line tells."""
    from fleet.web.answers import Unanswered
    from fleet.web.http import HttpExchanges

    http = HttpExchanges(timeout_s=_ANSWER_S)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    query = {"detail": "true", "limit": str(_MOST)}

    async def rows(kind: str) -> list[dict[str, Any]]:
        url = f"{dashboard_url.rstrip('/')}/api/v0/{kind}"
        answer = await http.ask("GET", url, headers=headers, params=query, most=_MOST_BYTES)
        return json.loads(answer.data)["data"]["result"]["result"]

    async def lines() -> tuple[ActorLine, ...]:
        return actor_lines(await rows("actors"), await rows("nodes"))

    try:
        return asyncio.run(lines())
    except (Unanswered, ValueError, LookupError, TypeError):
        return None


def actor_lines(actors: Iterable[Mapping[str, Any]], nodes: Iterable[Mapping[str, Any]]) -> tuple[ActorLine, ...]:
    """The lines of rows as Ray's state interface gives them."""
    labels: list[dict[str, str]] = [node.get("labels") or {} for node in nodes if node.get("state") == "ALIVE"]
    ours = (row for row in actors if row.get("ray_namespace") == _NAMESPACE and row["state"] != "DEAD")
    return tuple(sorted((_line(row, labels) for row in ours), key=lambda line: line.name))


def _line(row: Mapping[str, Any], nodes: list[dict[str, str]]) -> ActorLine:
    name = str(row["name"])
    if row["state"] == "ALIVE":
        return ActorLine(name=name, state="running")
    labels: dict[str, str] = row.get("label_selector") or {}
    if not has_node(labels, nodes):
        words = ", ".join(f"label {key}={value}" for key, value in sorted(labels.items()))
        return ActorLine(name=name, state="waiting", why=f"for a node with {words or 'anything at all'}")
    if row.get("placement_group_id") and not row.get("pid"):
        amounts: dict[str, float] = row.get("required_resources") or {}
        words = ", ".join(f"{amount:g} {key}" for key, amount in sorted(amounts.items()) if "_group_" not in key)
        return ActorLine(name=name, state="waiting", why=f"for a node with {words or 'room for it'}")
    return ActorLine(name=name, state="restarting" if row["state"] == "RESTARTING" else "starting")
