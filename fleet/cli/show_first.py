"""A group of commands whose `show` may be left out."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class ShowFirst(TyperGroup):
    """`fleet budget ST` is `fleet budget show ST`; the other commands of the group are called by their names."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments, with `show` before them when they begin with no command of the group."""
        asks_for_help = bool(args) and args[0] in ctx.help_option_names
        if not asks_for_help and (not args or args[0] not in self.commands):
            args = ["show", *args]
        return super().parse_args(ctx, args)
