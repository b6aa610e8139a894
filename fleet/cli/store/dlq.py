"""`fleet dlq`: work that failed each time it was tried, and its way back (EV-22)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fleet.cli.endpoints import endpoints_of
from fleet.cli.exit_codes import DONE
from fleet.cli.output import Output, shown
from fleet.cli.settings import needed_addresses, settings
from fleet.log.port import DeadLetter
from fleet.wiring.desk.desk import open_dead_letters
from fleet.wiring.endpoints import Endpoints

_HEADINGS = ("ID", "SOURCE", "STREAM", "VERSION", "CODE", "ATTEMPTS", "FIRST", "LAST")


def list_letters(output: Output) -> int:
    """Every dead letter is printed, the oldest first."""
    letters = asyncio.run(dead_letters(_endpoints()))
    if not letters:
        output.say("there is no dead letter: nothing is set aside")
    else:
        _print_table(output, letters)
    output.result({"letters": [_plain(letter) for letter in letters]})
    return DONE


def retry_letter(output: Output, letter_id: str) -> int:
    """The work of one letter is tried again."""
    letter = asyncio.run(_retry(_endpoints(), letter_id))
    output.say(shown(_told(letter)))
    output.result({"retried": _plain(letter)})
    return DONE


async def dead_letters(endpoints: Endpoints) -> list[DeadLetter]:
    """Every dead letter of a running fleet, the oldest first. StoreUnavailable."""
    async with open_dead_letters(endpoints) as letters:
        return await letters.letters()


async def _retry(endpoints: Endpoints, letter_id: str) -> DeadLetter:
    async with open_dead_letters(endpoints) as letters:
        return await letters.retry(letter_id)


def _endpoints() -> Endpoints:
    fleet_settings = settings()
    return endpoints_of(fleet_settings, needed_addresses(fleet_settings))


def _print_table(output: Output, letters: list[DeadLetter]) -> None:
    now_ms = int(time.time() * 1000)
    rows = [_HEADINGS, *(_cells(letter, now_ms) for letter in letters)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    for number, row in enumerate(rows):
        output.say(shown("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()))
        if number:
            output.say(f"  {shown(' '.join(letters[number - 1].failure.reason.split()))}")
    output.say("try one again with `fleet dlq retry ID`, once its cause is mended")


def _cells(letter: DeadLetter, now_ms: int) -> tuple[str, ...]:
    failure = letter.failure
    return (
        letter.letter_id,
        failure.source,
        failure.stream,
        str(failure.version) if failure.version else "-",
        failure.code,
        str(letter.attempts),
        _age(now_ms - letter.first_seen_ms),
        _age(now_ms - letter.last_seen_ms),
    )


def _age(passed_ms: int) -> str:
    """`12 s ago`, `3 min ago`, `5 h ago`, `9 d ago`. A clock that is behind gives `0 s ago`."""
    passed_s = max(passed_ms, 0) // 1000
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if passed_s >= 2 * length_s:
            return f"{passed_s // length_s} {unit} ago"
    return f"{passed_s} s ago"


def _told(letter: DeadLetter) -> str:
    failure = letter.failure
    if failure.source == "commands":
        return f"the command is back in the queue of {failure.stream}; its owner answers it"
    if failure.source.startswith("notifications:"):
        target = failure.source.partition(":")[2]
        return f"{target} is told of event {failure.version} of {failure.stream} at its next look, within half a minute"
    return f"the {failure.source} goes on with {failure.stream} from version {failure.version} at its next look"


def _plain(letter: DeadLetter) -> dict[str, Any]:
    failure = letter.failure
    return {
        "letter_id": letter.letter_id,
        "source": failure.source,
        "stream": failure.stream,
        "version": failure.version,
        "code": failure.code,
        "reason": failure.reason,
        "raw": failure.raw,
        "attempts": letter.attempts,
        "first_seen_ms": letter.first_seen_ms,
        "last_seen_ms": letter.last_seen_ms,
    }
