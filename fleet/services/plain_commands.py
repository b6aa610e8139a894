"""Commands on stories that are decided from the story, the body and the caller alone, by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fleet.events import Payload
from fleet.ports import Command
from fleet.services.archiving import archive_story
from fleet.services.budget_requests import decide_budget
from fleet.services.context_commands import change_context
from fleet.services.decision_commands import DECISION_COMMANDS
from fleet.services.ending_deployments import end_deployment
from fleet.services.plan_adoption import adopt_plan
from fleet.services.plan_versions import reject_plan, request_derivation, write_plan
from fleet.services.task_actions import act_on_task
from fleet.services.task_commands import release_claim, update_task
from fleet.services.tool_requests import request_claim
from fleet.services.tool_run_requests import request_cancel
from fleet.services.workbench import Workbench
from fleet.story import Caller

__all__ = ["PLAIN", "Plain"]

Plain = Callable[[Workbench, Command, Caller], Awaitable[tuple[Payload, ...]]]
PLAIN: Mapping[str, Plain] = {
    "cancel_run": request_cancel,
    "set_budget": decide_budget,
    "claim_task": request_claim,
    "release_task": release_claim,
    "update_task": update_task,
    "act_on_task": act_on_task,
    "write_plan": write_plan,
    "derive_tasks": request_derivation,
    "adopt_plan": adopt_plan,
    "reject_plan": reject_plan,
    "archive_story": archive_story,
    "end_deployment": end_deployment,
    "change_context": change_context,
    **DECISION_COMMANDS,
}
