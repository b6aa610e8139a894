"""What people read and write of proposals: stories, questions, answers."""

from __future__ import annotations

from fleet.cli.output import Output, shown
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import EntityId
from fleet.planning.discovery import DiscoveryProposal
from fleet.planning.project_state import Discovery


def parse_answers(given: tuple[str, ...]) -> dict[str, str]:
    """`qu-1=text` by question; InvalidInput for anything else."""
    found: dict[str, str] = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or name.strip() in found:
            raise InvalidInput(f"{item[:60]!r} is no answer: write qu-1=TEXT, each question once", field="answer")
        found[EntityId(name.strip())] = text.strip()
    return found


def show_proposal(output: Output, found: Discovery, proposal: DiscoveryProposal) -> None:
    """The proposal is printed: stories with criteria and what they need, then what is still to be answered."""
    source = "by a model" if found.source == "model" else "by rules"
    output.say(f"[bold]{shown(found.discovery_id)}[/] {shown(found.status)}, {shown(source)}: {shown(proposal.goal)}")
    if found.note:
        output.note(f"[dim]{shown(found.note)}[/]")
    for number, story in enumerate(proposal.stories, 1):
        needs = f" [dim](after {shown(', '.join(str(n + 1) for n in story.depends_on))})[/]" if story.depends_on else ""
        output.say(f"  {number}. {shown(story.title)}{needs}")
        for criterion in story.acceptance_criteria:
            output.say(f"     - {shown(criterion)}")
    for question in proposal.unanswered:
        where = f" (story {question.story + 1})" if question.story is not None else ""
        output.say(f"  ? {question.question_id}{where}: {shown(question.text)}")
