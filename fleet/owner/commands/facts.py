"""What the owner knows of a story when a command on it is decided."""

from __future__ import annotations

from fleet.kernel.ids import CommandId
from fleet.owner.tools.decisions import roles_held
from fleet.owner.workbench import Workbench
from fleet.story.commands.command import Caller, Facts


def facts_for(bench: Workbench, command_id: CommandId, caller: Caller) -> Facts:
    """What a command with this id is decided on, as far as nothing has to be read for it."""
    return Facts(
        caller=caller,
        stream=bench.journal.stream,
        command_id=command_id,
        now_ms=bench.now_ms,
        fsm=bench.rules.fsm,
        planning=bench.rules.planning,
        held=roles_held(bench.journal.policy.policy, caller.principal, caller.roles),
        targets=bench.rules.targets,
    )
