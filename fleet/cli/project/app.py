"""`fleet project`, `fleet epic`, `fleet discovery`: what stories belong to, and goals that become stories."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fleet.cli.output import Output
from fleet.cli.parameters import Note, Reason, command

project = typer.Typer(help="Projects, which hold epics and stories.", no_args_is_help=True)
epic = typer.Typer(help="Epics of a project.", no_args_is_help=True)
discovery = typer.Typer(help="Goals that become requirements, questions and stories.", no_args_is_help=True)

ProjectArg = Annotated[str, typer.Argument(help="Id of a project.", metavar="PROJECT")]
EpicArg = Annotated[str, typer.Argument(help="Id of an epic.", metavar="EPIC")]
DiscoveryArg = Annotated[str, typer.Argument(help="Id of a discovery.", metavar="DISCOVERY")]
InProject = Annotated[str, typer.Option("--project", help="Id of a project.")]
Description = Annotated[str, typer.Option(help="What it is about.")]


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, "")}


@command(project, "create")
def project_create(
    output: Output,
    title: Annotated[str, typer.Argument(help="Its name.")],
    description: Description = "",
    rigor: Annotated[str | None, typer.Option(help="L0 to L3, for stories that name none.")] = None,
    lifecycle: Annotated[str | None, typer.Option(help="For stories that name none.")] = None,
) -> int:
    """Create a project with its built-in epic."""
    from fleet.cli.project.projects import create_project

    text = _given(title=title, description=description, default_rigor=rigor, default_lifecycle=lifecycle)
    return create_project(output, text)


@command(project, "list")
def project_list(output: Output) -> int:
    """List all projects."""
    from fleet.cli.project.projects import list_projects

    return list_projects(output)


@command(project, "show")
def project_show(output: Output, project_id: ProjectArg) -> int:
    """Show one project and its epics."""
    from fleet.cli.project.projects import show_project

    return show_project(output, project_id)


@command(project, "archive")
def project_archive(output: Output, project_id: ProjectArg) -> int:
    """Close a project: it takes no more epics and stories."""
    from fleet.cli.project.projects import change_project

    return change_project(output, project_id, {"status": "archived"})


@command(project, "reopen")
def project_reopen(output: Output, project_id: ProjectArg) -> int:
    """Open an archived project again."""
    from fleet.cli.project.projects import change_project

    return change_project(output, project_id, {"status": "active"})


@command(epic, "create")
def epic_create(
    output: Output,
    title: Annotated[str, typer.Argument(help="Its name.")],
    project_id: InProject = "pr-default",
    goal: Annotated[str, typer.Option(help="What it is to reach.")] = "",
    description: Description = "",
    priority: Annotated[int, typer.Option(help="1 is the highest, 10 the lowest.")] = 5,
) -> int:
    """Create an epic."""
    from fleet.cli.project.projects import create_epic

    text = _given(title=title, description=description, goal=goal, priority=priority)
    return create_epic(output, project_id, text)


@command(epic, "list")
def epic_list(output: Output, project_id: InProject = "pr-default") -> int:
    """List the epics of a project."""
    from fleet.cli.project.projects import list_epics

    return list_epics(output, project_id)


@command(epic, "show")
def epic_show(output: Output, epic_id: EpicArg) -> int:
    """Show one epic and its stories."""
    from fleet.cli.project.projects import show_epic

    return show_epic(output, epic_id)


@command(epic, "archive")
def epic_archive(output: Output, epic_id: EpicArg, reason: Reason = "") -> int:
    """Close an epic: it takes no more stories, and those that it has go on."""
    from fleet.cli.project.projects import change_epic

    return change_epic(output, epic_id, {"status": "archived"}, reason=reason)


@command(epic, "cancel")
def epic_cancel(output: Output, epic_id: EpicArg, reason: Reason = "") -> int:
    """Give up an epic, and its open stories with it."""
    from fleet.cli.project.projects import change_epic

    return change_epic(output, epic_id, {"status": "cancelled"}, reason=reason)


@command(discovery, "ask")
def discovery_ask(
    output: Output,
    goal: Annotated[str, typer.Argument(help="One line: what is wanted.")],
    project_id: InProject = "pr-default",
    language: Annotated[str, typer.Option(help="en, es, fr, de, pt or it.")] = "en",
    model: Annotated[str | None, typer.Option(help="Model profile that may help.")] = None,
    new: Annotated[bool, typer.Option("--new", help="There is no code yet: a scaffold comes first.")] = False,
) -> int:
    """Turn a goal into requirements, questions and stories; nothing is created until you accept it."""
    from fleet.cli.project.projects import ask

    return ask(output, goal, project=project_id, language=language, model=model, is_empty=new)


@command(discovery, "list")
def discovery_list(output: Output) -> int:
    """List all goals and what became of them."""
    from fleet.cli.project.projects import list_discoveries

    return list_discoveries(output)


@command(discovery, "show")
def discovery_show(output: Output, discovery_id: DiscoveryArg) -> int:
    """Show one proposal with its open questions."""
    from fleet.cli.project.projects import show_discovery

    return show_discovery(output, discovery_id)


@command(discovery, "answer")
def discovery_answer(
    output: Output,
    discovery_id: DiscoveryArg,
    answers: Annotated[list[str], typer.Argument(help="qu-1=TEXT, as many as you like.")],
) -> int:
    """Answer questions of a proposal; the answers stand in its stories."""
    from fleet.cli.project.projects import answer

    return answer(output, discovery_id, tuple(answers))


@command(discovery, "accept")
def discovery_accept(
    output: Output,
    discovery_id: DiscoveryArg,
    note: Note = "",
) -> int:
    """Take a proposal: its epic and its stories are created."""
    from fleet.cli.project.projects import accept

    return accept(output, discovery_id, note=note)


@command(discovery, "reject")
def discovery_reject(output: Output, discovery_id: DiscoveryArg, reason: Reason = "") -> int:
    """Leave a proposal, with a reason; nothing is created."""
    from fleet.cli.project.projects import reject

    return reject(output, discovery_id, reason=reason)
