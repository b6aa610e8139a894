"""How every actor of a running fleet is, as Ray knows it: also those that have no process because no node fits them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from fleet.config.settings import has_node

if TYPE_CHECKING:
    import httpx2

_NAMESPACE = "fleet"
_ANSWER_S = 5.0
_MOST = 1_000


class ActorLine(BaseModel):
    """One actor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    state: Literal["running", "starting", "restarting", "waiting"]
    why: str = ""
    """What it waits for."""


def read_actor_lines(dashboard_url: str, token: str) -> tuple[ActorLine, ...] | None:
    """Every actor of the fleet by name; None when the dashboard does not answer, which its own line tells."""
    import httpx2

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx2.Client(base_url=dashboard_url, headers=headers, timeout=_ANSWER_S, trust_env=False) as client:
            return actor_lines(_rows(client, "actors"), _rows(client, "nodes"))
    except (httpx2.HTTPError, ValueError, LookupError, TypeError):
        return None


def _rows(client: httpx2.Client, kind: str) -> list[dict[str, Any]]:
    answer = client.get(f"/api/v0/{kind}", params={"detail": "true", "limit": _MOST}).raise_for_status()
    return answer.json()["data"]["result"]["result"]


def actor_lines(actors: Iterable[Mapping[str, Any]], nodes: Iterable[Mapping[str, Any]]) -> tuple[ActorLine, ...]:
    """The lines of rows as Ray's state interface gives them."""
    labels: list[dict[str, str]] = [node.get("labels") or {} for node in nodes if node.get("state") == "ALIVE"]
    ours = (row for row in actors if row.get("ray_namespace") == _NAMESPACE and row["state"] != "DEAD")
    return tuple(sorted((_line(row, labels) for row in ours), key=lambda line: line.name))


def _line(row: Mapping[str, Any], nodes: list[dict[str, str]]) -> ActorLine:
    name = str(row["name"])
    if row["state"] == "ALIVE":
        return ActorLine(name=name, state="running")
    wanted: dict[str, str] = row.get("label_selector") or {}
    if not has_node(wanted, nodes):
        words = ", ".join(f"label {key}={value}" for key, value in sorted(wanted.items()))
        return ActorLine(name=name, state="waiting", why=f"for a node with {words or 'anything at all'}")
    if row.get("placement_group_id") and not row.get("pid"):
        amounts: dict[str, float] = row.get("required_resources") or {}
        words = ", ".join(f"{amount:g} {key}" for key, amount in sorted(amounts.items()) if "_group_" not in key)
        return ActorLine(name=name, state="waiting", why=f"for a node with {words or 'room for it'}")
    return ActorLine(name=name, state="restarting" if row["state"] == "RESTARTING" else "starting")
