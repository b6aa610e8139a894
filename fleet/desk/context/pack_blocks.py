"""The three blocks of what a role is told, as a reader of packs sees them (CX-22)."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.policy.roles import Role


@dataclass(frozen=True, slots=True)
class PackBlocks:
    """What is told, apart by where it comes from.

    Attributes:
        system: from configuration alone: how the role speaks and thinks, and the language (CX-27).
        context: the pack, byte for byte as its hash covers it and as models are sent it.
        tools: operations that the role may call, one tool a line.
    """

    system: str
    context: str
    tools: str

    @property
    def around(self) -> tuple[str, str]:
        """What stands around the pack."""
        return self.system, self.tools


def pack_blocks(text: str, *, role: Role, persona: str, language: str) -> PackBlocks:
    """The blocks around the text of a pack.

    Args:
        persona: the prompt of the role; the rules of one kind of work stand ahead of it once a model is asked.
        language: of the code of the story.
    """
    operations = (f"{tool}: {', '.join(sorted(grant.ops))}\n" for tool, grant in sorted(role.tools.items()))
    return PackBlocks(system=f"{persona}\n\nLanguage: {language}\n", context=text, tools="".join(operations))
