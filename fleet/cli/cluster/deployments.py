"""`fleet deploy`: what runs where this fleet deploys, and its end by hand, over its HTTP front (LC-49)."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import httpx2

from cluster.local.record import find_running
from fleet.cli.exit_codes import DONE
from fleet.cli.local.local_principals import read_token
from fleet.cli.output import Output, shown
from fleet.cli.settings import needed_addresses, settings
from fleet.kernel.errors import InvalidTransition, NotFound, StoreUnavailable, Unauthenticated, from_wire

_ANSWER_S = 660.0
"""What ran before may take 600 s until it is ready."""
_HEADINGS = ("ENVIRONMENT", "RUNS", "ANSWERS", "HEALTHY", "SINCE", "STORY", "REVISION")


class Front(NamedTuple):
    """Where the front of a fleet answers, and as whom."""

    url: str
    token: str


def list_environments(output: Output, *, front: Front | None = None) -> int:
    """Every environment is printed, one a line."""
    items = _environments(front or _front())
    if not items:
        output.say("no environment is declared: see docs/deploy.md")
    else:
        _print_table(output, items)
    output.result({"environments": items})
    return DONE


def end_environment(
    output: Output,
    environment: str,
    action: Literal["stop", "rollback"],
    *,
    reason: str,
    revision: str | None = None,
    front: Front | None = None,
) -> int:
    """What runs in an environment has ended, or what ran before runs again.

    Args:
        revision: what is meant; None means what runs there when it is looked at.
    """
    at = front or _front()
    found = next((one for one in _environments(at) if one["environment"] == environment), None)
    if found is None:
        raise NotFound(f"there is no environment {environment!r}; `fleet deploy list` shows those that exist")
    wanted = revision or found["revision"]
    if wanted is None:
        raise InvalidTransition(f"nothing runs in {environment}", state="empty", event=action, allowed=[])
    body = {"reason": reason, "revision": wanted}
    key = f"deploy-{action}-{secrets.token_hex(8)}"
    result = _asked(at, "POST", f"{environment}/{action}", body=body, key=key)
    if result.get("status") == "pending":
        output.say(f"{environment} was changed; its story has it on record once its owner is there")
    else:
        output.say(f"{environment} runs {result['revision'] or 'nothing'}")
    output.result(result)
    return DONE


def _front() -> Front:
    found = settings()
    needed_addresses(found)
    running = find_running(found.home)
    if running is None or running.serve_url is None:
        raise StoreUnavailable("this fleet has no HTTP front: start one with `fleet up --detach`")
    try:
        return Front(running.serve_url, read_token(found.home))
    except OSError as error:
        raise Unauthenticated(f"the token of the local user cannot be read: {os.strerror(error.errno or 0)}") from error


def _environments(front: Front) -> list[dict[str, Any]]:
    return _asked(front, "GET", "")["items"]


def _asked(
    front: Front, method: str, path: str, *, body: Mapping[str, Any] | None = None, key: str | None = None
) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {front.token}"} | ({"Idempotency-Key": key} if key else {})
    url = f"/api/deployments/{path}".rstrip("/")
    try:
        with httpx2.Client(base_url=front.url, headers=headers, timeout=_ANSWER_S, trust_env=False) as client:
            answer = client.request(method, url, json=body)
            found: dict[str, Any] = answer.json()
    except (httpx2.HTTPError, ValueError) as error:
        raise StoreUnavailable(f"the front at {front.url} does not answer: {error}") from error
    if answer.is_error:
        known = {"code", "detail", "title", "type", "status", "instance", "retry"}
        details = {name: value for name, value in found.items() if name not in known}
        raise from_wire({"code": found.get("code"), "message": found.get("detail", ""), "details": details})
    return found


def _print_table(output: Output, items: list[dict[str, Any]]) -> None:
    rows = [_HEADINGS, *(_cells(item) for item in items)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    for number, row in enumerate(rows):
        output.say(shown("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()))
        if number and (told := items[number - 1]["ended"]):
            output.say(shown(f"  last ended by hand: {' '.join(told.split())}"))


def _cells(item: Mapping[str, Any]) -> tuple[str, ...]:
    healthy = {None: "-", True: "yes", False: "no"}[item["is_healthy"]]
    return (
        item["environment"],
        "yes" if item["is_running"] else "nothing",
        "yes" if item["answers"] else "no" if item["is_running"] else "-",
        healthy,
        item["since"] or "-",
        item["story_id"] or "-",
        (item["revision"] or "-")[:12],
    )
