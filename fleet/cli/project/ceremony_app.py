"""`fleet ceremony`: councils review stories of a backlog, and a product owner decides on each."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.cli.output import Output
from fleet.cli.parameters import Reason, StoryArg, command

app = typer.Typer(help="Reviews of a backlog by councils, before work starts.", no_args_is_help=True)

CeremonyArg = Annotated[str, typer.Argument(help="Id of a review.", metavar="CEREMONY")]
StoryArgs = Annotated[list[str], typer.Argument(help="Ids of stories.", metavar="STORY...")]


@command(app, "create")
def ceremony_create(
    output: Output,
    stories: StoryArgs,
    project_id: Annotated[str, typer.Option("--project", help="Id of the project of all of them.")] = "pr-default",
) -> int:
    """Prepare a review of stories that nobody works on yet."""
    from fleet.cli.project.ceremonies import create

    return create(output, project_id, tuple(stories))


@command(app, "list")
def ceremony_list(output: Output) -> int:
    """List all reviews."""
    from fleet.cli.project.ceremonies import list_all

    return list_all(output)


@command(app, "show")
def ceremony_show(output: Output, ceremony_id: CeremonyArg) -> int:
    """Show one review: what each council said, the estimates, the decisions."""
    from fleet.cli.project.ceremonies import show

    return show(output, ceremony_id)


@command(app, "stories")
def ceremony_stories(
    output: Output,
    ceremony_id: CeremonyArg,
    stories: StoryArgs,
    add: Annotated[bool, typer.Option("--add", help="Keep the stories that it has.")] = False,
) -> int:
    """Give a review that has not begun other stories."""
    from fleet.cli.project.ceremonies import choose

    return choose(output, ceremony_id, tuple(stories), keeps=add)


@command(app, "start")
def ceremony_start(output: Output, ceremony_id: CeremonyArg) -> int:
    """Have the councils review and estimate each story; `show` has what they said."""
    from fleet.cli.project.ceremonies import change
    from fleet.projects.ceremonies import StartCeremony

    return change(output, StartCeremony(ceremony_id=ceremony_id))


@command(app, "approve")
def ceremony_approve(
    output: Output,
    ceremony_id: CeremonyArg,
    story_id: StoryArg,
    notes: Reason = "",
    concerns: Annotated[str | None, typer.Option(help="What is to be minded.")] = None,
    priority: Annotated[str | None, typer.Option(help="HIGH, MEDIUM or LOW; needs --priority-reason.")] = None,
    priority_reason: Annotated[str | None, typer.Option(help="Why this priority; 10 characters or more.")] = None,
    plan_of: Annotated[str | None, typer.Option(help="Council whose outline becomes a proposed plan.")] = None,
) -> int:
    """Say yes to a story; to one that is ready this is the consent to its scope."""
    from fleet.cli.project.ceremonies import change
    from fleet.projects.ceremonies import ApproveCeremonyStory

    said = {
        "po_notes": notes,
        "po_concerns": concerns,
        "priority_adjustment": priority,
        "priority_reason": priority_reason,
        "plan_of": plan_of,
    }
    given = {name: value for name, value in said.items() if value is not None}
    names = {"ceremony_id": ceremony_id, "story_id": story_id}
    return change(output, ApproveCeremonyStory.model_validate({**names, "approve": True, **given}))


@command(app, "reject")
def ceremony_reject(output: Output, ceremony_id: CeremonyArg, story_id: StoryArg, reason: Reason = "") -> int:
    """Say no to a story, with a reason; its reviews stay."""
    from fleet.cli.project.ceremonies import change
    from fleet.projects.ceremonies import RejectCeremonyStory

    body = {"ceremony_id": ceremony_id, "story_id": story_id, "approve": False, "reason": reason}
    return change(output, RejectCeremonyStory.model_validate(body))


@command(app, "complete")
def ceremony_complete(output: Output, ceremony_id: CeremonyArg) -> int:
    """End a review whose stories are all decided."""
    from fleet.cli.project.ceremonies import change
    from fleet.projects.ceremonies import CompleteCeremony

    return change(output, CompleteCeremony(ceremony_id=ceremony_id))


@command(app, "cancel")
def ceremony_cancel(output: Output, ceremony_id: CeremonyArg, reason: Reason = "") -> int:
    """Give a review up, with a reason; what was said in it stays on record."""
    from fleet.cli.project.ceremonies import change
    from fleet.projects.ceremonies import CancelCeremony

    return change(output, CancelCeremony(ceremony_id=ceremony_id, reason=reason))
