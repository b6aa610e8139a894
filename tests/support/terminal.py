"""A person at a terminal, as the output of a command sees one."""

from __future__ import annotations

from fleet.cli.output import Output


class Terminal(Output):
    """A person at a terminal who writes these lines, one to each question."""

    def __init__(self, *lines: str) -> None:
        super().__init__(as_json=False)
        self.lines, self.asked, self.said = list(lines), list[str](), list[str]()

    @property
    def asks(self) -> bool:
        """See `Output.asks`."""
        return True

    async def ask(self, question: str) -> str:
        """See `Output.ask`; nothing once there are no more lines."""
        self.asked.append(question)
        return self.lines.pop(0) if self.lines else ""

    def say(self, text: str) -> None:
        """See `Output.say`."""
        self.said.append(text)
