"""`fleet budget`: limits, what is used and left, and who used it (MB-20..MB-31)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from typing import Any

from fleet.cli.endpoints import endpoints_of
from fleet.cli.exit_codes import DONE
from fleet.cli.local.local_principals import local_principal
from fleet.cli.output import Output, name_damaged, shown
from fleet.cli.settings import needed_addresses, settings
from fleet.desk.budgets import BudgetView, parse_key
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import StoryId
from fleet.report.usage import UsageSum
from fleet.story.allowance import BudgetLine
from fleet.story.commands.catalogue import parse_command
from fleet.wiring.desk.desk import open_budget_desk, open_desk

_BAR = 20
_MICROUSD = 1_000_000


def show_budget(output: Output, story_id: str | None, *, by: str | None) -> int:
    """Budgets are printed, of one story or of the platform today; with `by`, usage by that key."""
    key = parse_key(by) if by is not None else None
    story = StoryId(story_id) if story_id is not None else None

    async def body() -> int:
        fleet_settings = settings()
        async with open_budget_desk(endpoints_of(fleet_settings, needed_addresses(fleet_settings))) as desk:
            view = await (desk.today() if story is None else desk.story(story))
            usage = await desk.usage(story, by=key) if key is not None else ()
            damaged = desk.damaged
        if key is None:
            print_budgets(view, output)
        else:
            print_usage(key, usage, output)
        output.result(
            {
                "story_id": view.story_id,
                "day": view.day,
                "budgets": [{**asdict(line), "left": line.left} for line in view.lines],
                "usage": [asdict(row) for row in usage],
                "group_by": key,
            }
        )
        return name_damaged(output, damaged)

    return asyncio.run(body())


def set_limits(output: Output, story_id: str, *, scope: str, limits: Mapping[str, int | None], note: str) -> int:
    """The scope of the story has these limits; lowering counts at once, raising needs a person in role po."""
    kind, _, name = scope.partition(":")
    if not limits:
        raise InvalidInput("name a limit: --tokens, --cost-usd, --gpu-ms, --wall-ms, --calls, --output-tokens")

    async def body() -> int:
        fleet_settings = settings()
        async with open_desk(endpoints_of(fleet_settings, needed_addresses(fleet_settings))) as desk:
            result = await desk.require(
                StoryId(story_id),
                parse_command("set_budget", {"scope": kind, "id": name or None, "limits": dict(limits), "note": note}),
                principal=local_principal(),
                key=f"{story_id}/budget/{secrets.token_hex(8)}",
            )
        told = ", ".join(f"{key} {value if value is not None else 'unlimited'}" for key, value in limits.items())
        output.say(f"budget of {scope} of {story_id}: {told}; the story is {result['disposition']}")
        output.result(result)
        return DONE

    return asyncio.run(body())


def print_budgets(view: BudgetView, output: Output) -> None:
    """One line for each limit: a bar, what is used and reserved, and what is left."""
    output.say(f"[bold]{shown(view.story_id or 'all stories')}[/]" + ("" if view.story_id else f", {view.day} (UTC)"))
    for line in view.lines:
        output.say(f"  {_name(line):<34} {line.quantity:<14} {_bar(line)} {_figures(line)}")
    if not view.lines:
        output.say("  nothing is limited here, and nothing was used")


def _name(line: BudgetLine) -> str:
    return line.scope if line.scope in ("story", "platform") else f"{line.scope} {line.id}"


def _bar(line: BudgetLine) -> str:
    if line.limit is None:
        return " " * (_BAR + 2)
    used = line.spent + line.reserved
    full = _BAR if used >= line.limit else used * _BAR // line.limit
    colour = "red" if used >= line.limit else "yellow" if used * 5 >= line.limit * 4 else "green"
    return f"[{colour}]{'█' * full}[/]{'·' * (_BAR - full)}  "


def _figures(line: BudgetLine) -> str:
    held = f" + {_shown(line, line.reserved)} reserved" if line.reserved else ""
    end = f" of {_shown(line, line.limit)}, {_shown(line, line.left or 0)} left" if line.limit is not None else ""
    return f"{_shown(line, line.spent)}{held}{end}"


def _shown(line: BudgetLine, value: int) -> str:
    match line.quantity:
        case "cost_microusd":
            return f"{value / _MICROUSD:.4f} USD"
        case "gpu_ms" | "wall_ms":
            return f"{value / 1000:,.1f} s"
        case _:
            return f"{value:,}"


def print_usage(by: str, usage: Sequence[UsageSum], output: Output) -> None:
    """One line for each value of the key, with a bar of its tokens."""
    most = max((row.tokens_in + row.tokens_out for row in usage), default=0)
    for row in usage:
        tokens = row.tokens_in + row.tokens_out
        bar = "█" * (tokens * _BAR // most if most else 0)
        output.say(f"  {shown(row.key.ljust(28))} {bar:<{_BAR}}  {_usage_text(row)}")
    if not usage:
        output.say(f"  nothing was used by any {by}")


def _usage_text(row: UsageSum) -> str:
    parts: list[Any] = [f"{row.calls} calls", f"{row.tokens_in:,} in", f"{row.tokens_out:,} out"]
    parts += [f"{row.tokens_cached:,} cached"] if row.tokens_cached else []
    parts += [f"{row.gpu_ms / 1000:,.1f} s GPU"] if row.gpu_ms else []
    parts += [f"{row.cost_microusd / _MICROUSD:.4f} USD"] if row.cost_microusd else []
    parts += [f"{row.tokens_unpriced:,} unpriced tokens"] if row.tokens_unpriced else []
    return ", ".join(parts)


def parse_limits(text: str) -> dict[str, int]:
    """The limits of `tokens=N,cost_usd=N,...`.

    Raises:
        InvalidInput: a part has not this form.
    """
    limits: dict[str, int] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, value = part.partition("=")
        name = name.strip()
        try:
            limits |= {"cost_microusd": _microusd(value)} if name == "cost_usd" else {name: int(value)}
        except ValueError:
            raise InvalidInput(
                f"{part!r} is no limit: write tokens=200000 or cost_usd=1.50", field="budget", value=part
            ) from None
    return limits


def _microusd(text: str) -> int:
    """US dollars as 1e-6 USD; ValueError when it is no number from 0."""
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        raise ValueError(text) from None
    if not value.is_finite() or value < 0:
        raise ValueError(text)
    return int(value * _MICROUSD)


def given_limits(*, cost_usd: str | None, **limits: int | None) -> dict[str, int | None]:
    """The options that were given; InvalidInput when the money is no number from 0."""
    given = {name: value for name, value in limits.items() if value is not None}
    return {**given, **(parse_limits(f"cost_usd={cost_usd}") if cost_usd is not None else {})}
