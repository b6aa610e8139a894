"""What the command line prints: people read standard error, machines the last line of standard output."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.markup import escape

from fleet.cli.exit_codes import DONE, FAILED, exit_code
from fleet.kernel.errors import FleetError

if TYPE_CHECKING:
    from fleet.desk.planning import DamagedStory


def shown(text: object) -> str:
    """Text of people and models as the terminal may show it: markup escaped, control characters made visible."""
    visible = (c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in str(text))
    return escape("".join(visible))


def shown_name(text: object) -> str:
    """As `shown`, for a name in a line: a break within it, which would forge a line, is visible too."""
    return shown(text).replace("\n", "\\n")


class Output:
    """With `as_json` one JSON object is the last line of standard output; everything else goes to standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._plain = Console(stderr=as_json, highlight=False, soft_wrap=True)

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads what `say` prints, and nothing keeps it."""
        return self._plain.is_terminal

    @property
    def asks(self) -> bool:
        """Whether somebody at a terminal can be asked."""
        return not self.as_json and self.is_terminal and sys.stdin.isatty()

    async def ask(self, question: str) -> str:
        """What the person at the terminal writes on one line; nothing when the input ends. The fleet runs meanwhile."""
        self._plain.print(f"{question} ", end="")
        terminal, ready = sys.stdin.fileno(), asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(terminal, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(terminal)
        # A terminal gives one line a time; a buffered reader would keep what was pasted behind it.
        return os.read(terminal, 4096).decode(errors="replace").strip()

    def say(self, text: str) -> None:
        """Prints one line for people. It is markup of rich: text of people and models goes through `shown`."""
        self._plain.print(text)

    def note(self, text: str) -> None:
        """One line of progress, on standard error."""
        self.console.print(text)

    def result(self, value: dict[str, Any]) -> None:
        """The machine-readable result, printed only with `--json`."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, sort_keys=True, default=str) + "\n")
            sys.stdout.flush()

    def fail(self, error: FleetError) -> NoReturn:
        """One clear line and the exit code of the error."""
        self.console.print(f"[bold red]error[/] {shown(error.message)} [dim]({shown(error.code)})[/]")
        if self.as_json:
            sys.stdout.write(json.dumps({"error": error.to_wire()}, sort_keys=True, default=str) + "\n")
        raise SystemExit(exit_code(error))


def guarded(output: Output, body: Callable[[], int], *, continued_by: str = "the same command") -> NoReturn:
    """Run a command. Errors of ours end in one line, an interrupt in exit code 4 and with what continues it."""
    gc.enable()
    try:
        code = body()
    except FleetError as error:
        output.fail(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        # A fleet of the command's own takes the signal and cancels the command.
        output.note(f"interrupted; what was recorded is kept, {shown(continued_by)} continues it")
        output.result({"outcome": "interrupted"})
        raise SystemExit(4) from None
    raise SystemExit(code)


def name_damaged(output: Output, damaged: Sequence[DamagedStory]) -> int:
    """Names every story that was left out, with what to do. The exit code is 4 when there is one, else 0."""
    for story in damaged:
        why = f"story {story.story_id} is left out: {story.message}"
        output.note(f"[yellow]warning[/] {shown(why)} [dim]({shown(story.code)})[/]")
    if damaged:
        output.note(
            "the others are whole; `fleet audit verify` says what was altered, docs/troubleshooting.md what to do"
        )
    return FAILED if damaged else DONE
