"""`fleet deploy`: what runs where this fleet deploys, and its end by hand, over its HTTP front (LC-49)."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from cluster.local.record import find_running
from fleet.cli.exit_codes import DONE
from fleet.cli.local.local_principals import read_token
from fleet.cli.output import Output, shown
from fleet.cli.settings import needed_addresses, settings
from fleet.kernel.errors import InvalidTransition, NotFound, StoreUnavailable, Unauthenticated, from_wire
from fleet.web.answers import Unanswered, document_of
from fleet.web.http import HttpExchanges

_MOST_BYTES = 16 << 20
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
    present = next((one for one in _environments(at) if one["environment"] == environment), None)
    if present is None:
        raise NotFound(f"there is no environment {environment!r}; `fleet deploy list` shows those that exist")
    deployed = revision or present["revision"]
    if deployed is None:
        raise InvalidTransition(f"nothing runs in {environment}", state="empty", event=action, allowed=[])
    body = {"reason": reason, "revision": deployed}
    key = f"deploy-{action}-{secrets.token_hex(8)}"
    result = _asked(at, "POST", f"{environment}/{action}", body=body, key=key)
    if result.get("status") == "pending":
        output.say(f"{environment} was changed; its story has it on record once its owner is there")
    else:
        output.say(f"{environment} runs {result['revision'] or 'nothing'}")
    output.result(result)
    return DONE


def _front() -> Front:
    fleet_settings = settings()
    needed_addresses(fleet_settings)
    running = find_running(fleet_settings.home)
    if running is None or running.serve_url is None:
        raise StoreUnavailable("this fleet has no HTTP front: start one with `fleet up --detach`")
    try:
        return Front(running.serve_url, read_token(fleet_settings.home))
    except OSError as error:
        raise Unauthenticated(f"the token of the local user cannot be read: {os.strerror(error.errno or 0)}") from error


def _environments(front: Front) -> list[dict[str, Any]]:
    return _asked(front, "GET", "")["items"]


def _asked(
    front: Front, method: str, path: str, *, body: Mapping[str, Any] | None = None, key: str | None = None
) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {front.token}"} | ({"Idempotency-Key": key} if key else {})
    url = f"{front.url.rstrip('/')}/api/deployments/{path}".rstrip("/")
    http = HttpExchanges(timeout_s=_ANSWER_S)
    try:
        answer = asyncio.run(http.ask(method, url, headers=headers, json=body, most=_MOST_BYTES))
    except Unanswered as error:
        raise StoreUnavailable(f"the front at {front.url} does not answer: {error}") from error
    if (problem := document_of(answer.data)) is None:
        raise StoreUnavailable(f"the front at {front.url} answers {answer.status} without a document")
    if not answer.is_success:
        plain = {"code", "detail", "title", "type", "status", "instance", "retry"}
        details = {name: value for name, value in problem.items() if name not in plain}
        raise from_wire({"code": problem.get("code"), "message": problem.get("detail", ""), "details": details})
    return problem


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
