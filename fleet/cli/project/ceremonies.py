"""Backlog reviews from the command line (AP-80, PL-60..PL-70); the JSON is that of the HTTP interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.cli.exit_codes import DONE
from fleet.cli.output import Output, shown
from fleet.cli.project.work import send, with_projects
from fleet.desk.projects import ProjectDesk
from fleet.events.codec import rfc3339
from fleet.planning.backlog_review import BacklogReview
from fleet.planning.project_state import Ceremony
from fleet.projects.ceremonies import CeremonyCommand, ChooseCeremonyStories, OpenCeremony

Said = Mapping[tuple[str, str], BacklogReview]


def create(output: Output, project: str, stories: tuple[str, ...]) -> int:
    """A review of these stories is being prepared."""

    async def work(desk: ProjectDesk) -> int:
        made = await send(desk, project, OpenCeremony(story_ids=stories))
        return await _shown(output, desk, made["ceremony_id"])

    return with_projects(work)


def choose(output: Output, ceremony_id: str, stories: tuple[str, ...], *, keeps: bool) -> int:
    """The review is of these stories; with `keeps` also of those that it had."""

    async def work(desk: ProjectDesk) -> int:
        project, ceremony, _ = await desk.ceremony(ceremony_id)
        chosen = tuple(dict.fromkeys((*ceremony.story_ids, *stories))) if keeps else stories
        await send(desk, project, ChooseCeremonyStories(ceremony_id=ceremony_id, story_ids=chosen))
        return await _shown(output, desk, ceremony_id)

    return with_projects(work)


def change(output: Output, sent: CeremonyCommand) -> int:
    """The command was done on the review, which is printed as it is then."""

    async def work(desk: ProjectDesk) -> int:
        project, _, _ = await desk.ceremony(sent.ceremony_id)
        await send(desk, project, sent)
        return await _shown(output, desk, sent.ceremony_id)

    return with_projects(work)


def show(output: Output, ceremony_id: str) -> int:
    """One review is printed as it is now."""

    async def work(desk: ProjectDesk) -> int:
        return await _shown(output, desk, ceremony_id)

    return with_projects(work)


def list_all(output: Output) -> int:
    """Every review is printed, one a line."""

    async def work(desk: ProjectDesk) -> int:
        ceremonies = [(s.project_id, c) for s in await desk.projects() for c in s.ceremonies.values()]
        for _, one in ceremonies:
            output.say(f"{one.ceremony_id}  {one.status:<11} {_decided(one)}")
        if not ceremonies:
            output.say("there is no review yet; `fleet ceremony create STORY...` prepares one")
        output.result({"ceremonies": [_head(project, one) for project, one in ceremonies]})
        return DONE

    return with_projects(work)


async def _shown(output: Output, desk: ProjectDesk, ceremony_id: str) -> int:
    project, ceremony, said = await desk.ceremony(ceremony_id)
    output.say(f"[bold]{shown(ceremony.ceremony_id)}[/] {shown(ceremony.status)}, {shown(_decided(ceremony))}")
    if ceremony.reason is not None:
        output.say(f"  reason: {shown(ceremony.reason)}")
    for story_id in ceremony.story_ids:
        _say_story(output, ceremony, story_id, said)
    stories = [_story(ceremony, story_id, said) for story_id in ceremony.story_ids]
    output.result({**_head(project, ceremony), "stories": stories})
    return DONE


def _decided(ceremony: Ceremony) -> str:
    count = len(ceremony.story_ids)
    return f"{len(ceremony.decisions)} of {count} {'story' if count == 1 else 'stories'} decided"


def _say_story(output: Output, ceremony: Ceremony, story_id: str, said: Said) -> None:
    decided, estimate = ceremony.decisions.get(story_id), ceremony.estimates.get(story_id)
    points = f", {estimate.points} points" if estimate is not None and estimate.points is not None else ""
    output.say(f"  {story_id}  {decided.result if decided else 'PENDING'}{points}")
    for role in ceremony.councils:
        event, review = ceremony.reviews.get((story_id, role)), said.get((story_id, role))
        if event is not None and event.failed is not None:
            output.say(f"    {shown(role)}: [red]no review[/], {shown(event.failed)}")
        if review is not None:
            _say_review(output, role, review)
    if decided is not None:
        output.say(f"    po: {shown(decided.po_notes or decided.reason or '')}")


def _say_review(output: Output, role: str, review: BacklogReview) -> None:
    output.say(f"    {shown(role)}: {shown(review.feedback)}")
    for mark, lines in (("!", review.risks), ("?", review.questions)):
        for line in lines:
            output.say(f"      {mark} {shown(line)}")
    for task in review.plan:
        hours = f", {task.estimated_hours} h" if task.estimated_hours else ""
        output.say(f"      - {shown(task.title)} ({shown(task.role)}{hours})")


def _head(project: str, ceremony: Ceremony) -> dict[str, Any]:
    return {
        "ceremony_id": ceremony.ceremony_id,
        "project_id": project,
        "status": ceremony.status,
        "councils": list(ceremony.councils),
        "opened_at": rfc3339(ceremony.opened_ms),
        "reason": ceremony.reason,
        "story_ids": list(ceremony.story_ids),
    }


def _story(ceremony: Ceremony, story_id: str, said: Said) -> dict[str, Any]:
    decided, estimate = ceremony.decisions.get(story_id), ceremony.estimates.get(story_id)
    reviews = [
        (role, ceremony.reviews[story_id, role]) for role in ceremony.councils if (story_id, role) in ceremony.reviews
    ]
    words = ("po_notes", "po_concerns", "priority_adjustment", "priority_reason", "reason", "plan_id")
    return {
        "story_id": story_id,
        "result": decided.result if decided else "PENDING",
        "reviews": [
            {"role": role, "review": _json(said.get((story_id, role))), "failed": event.failed}
            for role, event in reviews
        ],
        "estimate": estimate.model_dump(mode="json", include={"points", "converged", "iqr", "rounds", "values"})
        if estimate
        else None,
        **{name: getattr(decided, name, None) for name in words},
    }


def _json(review: BacklogReview | None) -> dict[str, Any] | None:
    return review.model_dump(mode="json") if review is not None else None
