"""`fleet project`, `fleet epic`, `fleet discovery`: what stories belong to, and goals that become stories."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fleet.cli.output import Output, guarded
from fleet.cli.parameters import AsJson

project = typer.Typer(help="Projects, which hold epics and stories.", no_args_is_help=True)
epic = typer.Typer(help="Epics of a project.", no_args_is_help=True)
discovery = typer.Typer(help="Goals that become requirements, questions and stories.", no_args_is_help=True)

ProjectArg = Annotated[str, typer.Argument(help="Id of a project.", metavar="PROJECT")]
EpicArg = Annotated[str, typer.Argument(help="Id of an epic.", metavar="EPIC")]
DiscoveryArg = Annotated[str, typer.Argument(help="Id of a discovery.", metavar="DISCOVERY")]
InProject = Annotated[str, typer.Option("--project", help="Id of a project.")]
Reason = Annotated[str, typer.Option(help="Why; 10 characters or more.")]
Description = Annotated[str, typer.Option(help="What it is about.")]


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, "")}


@project.command("create")
def project_create(
    title: Annotated[str, typer.Argument(help="Its name.")],
    description: Description = "",
    rigor: Annotated[str | None, typer.Option(help="L0 to L3, for stories that name none.")] = None,
    lifecycle: Annotated[str | None, typer.Option(help="For stories that name none.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a project with its built-in epic."""
    from fleet.cli.project.projects import create_project

    output = Output(as_json=as_json)
    text = _given(title=title, description=description, default_rigor=rigor, default_lifecycle=lifecycle)
    guarded(output, lambda: create_project(output, text))


@project.command("list")
def project_list(as_json: AsJson = False) -> None:
    """List all projects."""
    from fleet.cli.project.projects import list_projects

    output = Output(as_json=as_json)
    guarded(output, lambda: list_projects(output))


@project.command("show")
def project_show(project_id: ProjectArg, as_json: AsJson = False) -> None:
    """Show one project and its epics."""
    from fleet.cli.project.projects import show_project

    output = Output(as_json=as_json)
    guarded(output, lambda: show_project(output, project_id))


@project.command("archive")
def project_archive(project_id: ProjectArg, as_json: AsJson = False) -> None:
    """Close a project: it takes no more epics and stories."""
    from fleet.cli.project.projects import change_project

    output = Output(as_json=as_json)
    guarded(output, lambda: change_project(output, project_id, {"status": "archived"}))


@project.command("reopen")
def project_reopen(project_id: ProjectArg, as_json: AsJson = False) -> None:
    """Open an archived project again."""
    from fleet.cli.project.projects import change_project

    output = Output(as_json=as_json)
    guarded(output, lambda: change_project(output, project_id, {"status": "active"}))


@epic.command("create")
def epic_create(
    title: Annotated[str, typer.Argument(help="Its name.")],
    project_id: InProject = "pr-default",
    goal: Annotated[str, typer.Option(help="What it is to reach.")] = "",
    description: Description = "",
    priority: Annotated[int, typer.Option(help="1 is the highest, 10 the lowest.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Create an epic."""
    from fleet.cli.project.projects import create_epic

    output = Output(as_json=as_json)
    text = _given(title=title, description=description, goal=goal, priority=priority)
    guarded(output, lambda: create_epic(output, project_id, text))


@epic.command("list")
def epic_list(project_id: InProject = "pr-default", as_json: AsJson = False) -> None:
    """List the epics of a project."""
    from fleet.cli.project.projects import list_epics

    output = Output(as_json=as_json)
    guarded(output, lambda: list_epics(output, project_id))


@epic.command("show")
def epic_show(epic_id: EpicArg, as_json: AsJson = False) -> None:
    """Show one epic and its stories."""
    from fleet.cli.project.projects import show_epic

    output = Output(as_json=as_json)
    guarded(output, lambda: show_epic(output, epic_id))


@epic.command("archive")
def epic_archive(epic_id: EpicArg, reason: Reason = "", as_json: AsJson = False) -> None:
    """Close an epic: it takes no more stories, and those that it has go on."""
    from fleet.cli.project.projects import change_epic

    output = Output(as_json=as_json)
    guarded(output, lambda: change_epic(output, epic_id, {"status": "archived"}, reason=reason))


@epic.command("cancel")
def epic_cancel(epic_id: EpicArg, reason: Reason = "", as_json: AsJson = False) -> None:
    """Give up an epic, and its open stories with it."""
    from fleet.cli.project.projects import change_epic

    output = Output(as_json=as_json)
    guarded(output, lambda: change_epic(output, epic_id, {"status": "cancelled"}, reason=reason))


@discovery.command("ask")
def discovery_ask(
    goal: Annotated[str, typer.Argument(help="One line: what is wanted.")],
    project_id: InProject = "pr-default",
    language: Annotated[str, typer.Option(help="en, es, fr, de, pt or it.")] = "en",
    model: Annotated[str | None, typer.Option(help="Model profile that may help.")] = None,
    new: Annotated[bool, typer.Option("--new", help="There is no code yet: a scaffold comes first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a goal into requirements, questions and stories; nothing is created until you accept it."""
    from fleet.cli.project.projects import ask

    output = Output(as_json=as_json)
    guarded(output, lambda: ask(output, goal, project=project_id, language=language, model=model, is_empty=new))


@discovery.command("list")
def discovery_list(as_json: AsJson = False) -> None:
    """List all goals and what became of them."""
    from fleet.cli.project.projects import list_discoveries

    output = Output(as_json=as_json)
    guarded(output, lambda: list_discoveries(output))


@discovery.command("show")
def discovery_show(discovery_id: DiscoveryArg, as_json: AsJson = False) -> None:
    """Show one proposal with its open questions."""
    from fleet.cli.project.projects import show_discovery

    output = Output(as_json=as_json)
    guarded(output, lambda: show_discovery(output, discovery_id))


@discovery.command("answer")
def discovery_answer(
    discovery_id: DiscoveryArg,
    answers: Annotated[list[str], typer.Argument(help="qu-1=TEXT, as many as you like.")],
    as_json: AsJson = False,
) -> None:
    """Answer questions of a proposal; the answers stand in its stories."""
    from fleet.cli.project.projects import answer

    output = Output(as_json=as_json)
    guarded(output, lambda: answer(output, discovery_id, tuple(answers)))


@discovery.command("accept")
def discovery_accept(
    discovery_id: DiscoveryArg,
    note: Annotated[str, typer.Option(help="Why.")] = "",
    as_json: AsJson = False,
) -> None:
    """Take a proposal: its epic and its stories are created."""
    from fleet.cli.project.projects import accept

    output = Output(as_json=as_json)
    guarded(output, lambda: accept(output, discovery_id, note=note))


@discovery.command("reject")
def discovery_reject(discovery_id: DiscoveryArg, reason: Reason = "", as_json: AsJson = False) -> None:
    """Leave a proposal, with a reason; nothing is created."""
    from fleet.cli.project.projects import reject

    output = Output(as_json=as_json)
    guarded(output, lambda: reject(output, discovery_id, reason=reason))
