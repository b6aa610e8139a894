"""What people read and write of proposals: goals, stories, questions, answers."""

from __future__ import annotations

from fleet.cli.local.local_principals import local_principal
from fleet.cli.output import Output, shown
from fleet.desk.planning import request_key
from fleet.desk.projects import ProjectDesk
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import EntityId, StoryId, derive_id
from fleet.planning.discovery import DiscoveryProposal
from fleet.planning.project_state import DEFAULT_PROJECT, Discovery
from fleet.projects.project_commands import AcceptDiscovery, AnswerDiscovery, Discover


def parse_answers(given: tuple[str, ...]) -> dict[str, str]:
    """`qu-1=text` by question; InvalidInput for anything else."""
    answers: dict[str, str] = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or name.strip() in answers:
            raise InvalidInput(f"{item[:60]!r} is no answer: write qu-1=TEXT, each question once", field="answer")
        answers[EntityId(name.strip())] = text.strip()
    return answers


def show_proposal(output: Output, discovery: Discovery, proposal: DiscoveryProposal) -> None:
    """The proposal is printed: stories with criteria and what they need, then what is still to be answered."""
    source = "by a model" if discovery.source == "model" else "by rules"
    output.say(
        f"[bold]{shown(discovery.discovery_id)}[/] {shown(discovery.status)}, {shown(source)}: {shown(proposal.goal)}"
    )
    if discovery.note:
        output.note(f"[dim]{shown(discovery.note)}[/]")
    for number, story in enumerate(proposal.stories, 1):
        needs = f" [dim](after {shown(', '.join(str(n + 1) for n in story.depends_on))})[/]" if story.depends_on else ""
        output.say(f"  {number}. {shown(story.title)}{needs}")
        for criterion in story.acceptance_criteria:
            output.say(f"     - {shown(criterion)}")
    for question in proposal.unanswered:
        where = f" (story {question.story + 1})" if question.story is not None else ""
        output.say(f"  ? {question.question_id}{where}: {shown(question.text)}")


async def answer_questions(projects: ProjectDesk, discovery_id: str, answers: dict[str, str]) -> None:
    """Answers stand in the stories of a proposal of the default project."""
    sent = AnswerDiscovery(discovery_id=discovery_id, answers=answers)
    key = f"{discovery_id}/answer-{digest_of_json(answers).hex[:12]}"
    await projects.require(DEFAULT_PROJECT, sent, principal=local_principal(), key=key)


async def request_proposal(
    projects: ProjectDesk, goal: str, repo: str | None, *, is_empty: bool, model: str | None
) -> str:
    """The discovery of this goal for this repository that was not rejected; it is asked for where there is none."""
    who = local_principal()
    stem = f"discover-{digest_of_json([goal, repo]).hex[:16]}"
    discoveries = (await projects.project(DEFAULT_PROJECT)).discoveries
    attempt = 1
    while True:
        key = f"{stem}-{attempt}"
        discovery_id = derive_id("di", f"project:{DEFAULT_PROJECT}", f"{who}/{key}")
        if discovery_id not in discoveries:
            break
        if discoveries[discovery_id].status != "rejected":
            return discovery_id
        attempt += 1
    sent = Discover(goal=goal, is_empty=is_empty, model=model or None)
    made = await projects.require(DEFAULT_PROJECT, sent, principal=who, key=key)
    return str(made["discovery_id"])


async def accept_proposal(
    projects: ProjectDesk, discovery: Discovery, *, rigor: str | None = None, note: str = ""
) -> Discovery:
    """The proposal is taken, and each of its stories is there."""
    who = local_principal()
    body = {"discovery_id": discovery.discovery_id, "note": note or "accepted beforehand with --yes po"}
    body |= {"rigor": rigor} if rigor else {}
    sent = AcceptDiscovery.model_validate(body)
    key = request_key(f"{discovery.discovery_id}/accept", {**sent.body(), "proposal": discovery.proposal_digest})
    await projects.require(DEFAULT_PROJECT, sent, principal=who, key=key)
    after, _ = await projects.discovery(DEFAULT_PROJECT, discovery.discovery_id)
    for story_id in after.story_ids:
        await projects.require_story(who, StoryId(story_id))
    return after
