"""`fleet ceremony`: councils review stories of a backlog, and a product owner decides on each."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.cli.output import Output, guarded
from fleet.cli.parameters import AsJson, StoryArg

app = typer.Typer(help="Reviews of a backlog by councils, before work starts.", no_args_is_help=True)

CeremonyArg = Annotated[str, typer.Argument(help="Id of a review.", metavar="CEREMONY")]
StoryArgs = Annotated[list[str], typer.Argument(help="Ids of stories.", metavar="STORY...")]
Reason = Annotated[str, typer.Option(help="Why; 10 characters or more.")]


@app.command("create")
def ceremony_create(
    stories: StoryArgs,
    project_id: Annotated[str, typer.Option("--project", help="Id of the project of all of them.")] = "pr-default",
    as_json: AsJson = False,
) -> None:
    """Prepare a review of stories that nobody works on yet."""
    from fleet.cli.project.ceremonies import create

    output = Output(as_json=as_json)
    guarded(output, lambda: create(output, project_id, tuple(stories)))


@app.command("list")
def ceremony_list(as_json: AsJson = False) -> None:
    """List all reviews."""
    from fleet.cli.project.ceremonies import list_all

    output = Output(as_json=as_json)
    guarded(output, lambda: list_all(output))


@app.command("show")
def ceremony_show(ceremony_id: CeremonyArg, as_json: AsJson = False) -> None:
    """Show one review: what each council said, the estimates, the decisions."""
    from fleet.cli.project.ceremonies import show

    output = Output(as_json=as_json)
    guarded(output, lambda: show(output, ceremony_id))


@app.command("stories")
def ceremony_stories(
    ceremony_id: CeremonyArg,
    stories: StoryArgs,
    add: Annotated[bool, typer.Option("--add", help="Keep the stories that it has.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give a review that has not begun other stories."""
    from fleet.cli.project.ceremonies import choose

    output = Output(as_json=as_json)
    guarded(output, lambda: choose(output, ceremony_id, tuple(stories), keeps=add))


@app.command("start")
def ceremony_start(ceremony_id: CeremonyArg, as_json: AsJson = False) -> None:
    """Have the councils review and estimate each story; `show` has what they said."""
    from fleet.cli.project.ceremonies import change

    output = Output(as_json=as_json)
    guarded(output, lambda: change(output, ceremony_id, "start_ceremony", {}))


@app.command("approve")
def ceremony_approve(
    ceremony_id: CeremonyArg,
    story_id: StoryArg,
    notes: Annotated[str, typer.Option(help="Why; 10 characters or more.")] = "",
    concerns: Annotated[str | None, typer.Option(help="What is to be minded.")] = None,
    priority: Annotated[str | None, typer.Option(help="HIGH, MEDIUM or LOW; needs --priority-reason.")] = None,
    priority_reason: Annotated[str | None, typer.Option(help="Why this priority; 10 characters or more.")] = None,
    plan_of: Annotated[str | None, typer.Option(help="Council whose outline becomes a proposed plan.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say yes to a story; to one that is ready this is the consent to its scope."""
    from fleet.cli.project.ceremonies import change

    output = Output(as_json=as_json)
    said = {
        "po_notes": notes,
        "po_concerns": concerns,
        "priority_adjustment": priority,
        "priority_reason": priority_reason,
        "plan_of": plan_of,
    }
    body = {"story_id": story_id, "approve": True, **{name: value for name, value in said.items() if value is not None}}
    guarded(output, lambda: change(output, ceremony_id, "decide_ceremony_story", body))


@app.command("reject")
def ceremony_reject(ceremony_id: CeremonyArg, story_id: StoryArg, reason: Reason = "", as_json: AsJson = False) -> None:
    """Say no to a story, with a reason; its reviews stay."""
    from fleet.cli.project.ceremonies import change

    output = Output(as_json=as_json)
    body = {"story_id": story_id, "approve": False, "reason": reason}
    guarded(output, lambda: change(output, ceremony_id, "decide_ceremony_story", body))


@app.command("complete")
def ceremony_complete(ceremony_id: CeremonyArg, as_json: AsJson = False) -> None:
    """End a review whose stories are all decided."""
    from fleet.cli.project.ceremonies import change

    output = Output(as_json=as_json)
    guarded(output, lambda: change(output, ceremony_id, "complete_ceremony", {}))


@app.command("cancel")
def ceremony_cancel(ceremony_id: CeremonyArg, reason: Reason = "", as_json: AsJson = False) -> None:
    """Give a review up, with a reason; what was said in it stays on record."""
    from fleet.cli.project.ceremonies import change

    output = Output(as_json=as_json)
    guarded(output, lambda: change(output, ceremony_id, "cancel_ceremony", {"reason": reason}))
