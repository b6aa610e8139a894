"""A story with as many events as asked for: a plan, decisions, steps and transitions, as a team records them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import cycle, islice
from types import MappingProxyType

from fleet.events.codec import encode
from fleet.events.decision import DecisionAccepted, DecisionProposed
from fleet.events.envelope import Head
from fleet.events.payload import Payload
from fleet.events.plan import PlanAdopted, PlanProposed, Task
from fleet.events.step import Cost, PolicyRef, Provenance, Reserve, StepFinished, StepStarted
from fleet.events.story import AcceptanceCriterion, StoryCreated, StoryTransitioned
from fleet.events.task import TaskAdded
from fleet.kernel.digest import digest_of
from fleet.kernel.ids import CommandId, Digest, EntityId, Principal, RunKey, StepId, StoryId, StreamId
from fleet.log.port import Appended, AppendRequest, EventLog

TASK = EntityId("tk-large-1")
_PLAN = EntityId("pv-large")
_AUTHOR = Principal("agent:architect-001")
_TASKS, _DECISIONS, _BATCH = 40, 200, 100
_ROLES = ("developer", "developer", "qa", "devops", "data")
_MOVE_EVERY = 400
"""Events between two transitions of the story."""
_MOVES = (("BUILD", "tests_failed", "DESIGN"), ("DESIGN", "approve_design", "BUILD"))


async def write_story(
    log: EventLog, story_id: StoryId, *, events: int, config: Mapping[str, Digest] = MappingProxyType({})
) -> Head:
    """The log holds the story; where it ends.

    Args:
        config: what it is created with.
    """
    stream, head = StreamId.of_story(story_id), Head()
    payloads = list(islice(_payloads(story_id), events))
    assert isinstance(payloads[0], StoryCreated)
    payloads[0] = payloads[0].model_copy(update={"config": {**payloads[0].config, **config}})
    for start in range(0, len(payloads), _BATCH):
        request = AppendRequest(
            stream=stream,
            events=[encode(payload) for payload in payloads[start : start + _BATCH]],
            expected=head,
            command_id=CommandId(f"{story_id}/{start}"),
            actor=_AUTHOR,
            ts_ms=1_700_000_000_000 + start,
        )
        outcome = await log.append(request)
        assert isinstance(outcome, Appended)
        head = outcome.head
    return head


def _payloads(story_id: StoryId) -> Iterator[Payload]:
    yield _created()
    yield _plan(story_id)
    for n in range(_DECISIONS):
        yield _decision(n)
        yield DecisionAccepted(decision_id=EntityId(f"de-large-{n}"), by=_AUTHOR, as_role="architect")
    yield PlanAdopted(plan_id=_PLAN, version=1, decision_id=EntityId("de-large-0"))
    for task in _tasks(story_id):
        yield TaskAdded(plan_id=_PLAN, task=task)
    moves = cycle(_MOVES)
    number = 0
    while True:
        for _ in range(_MOVE_EVERY // 2):
            yield from _step(number)
            number += 1
        before, event, after = next(moves)
        yield StoryTransitioned(from_=before, event=event, to=after, loopback=False)


def _created() -> StoryCreated:
    criteria = [
        AcceptanceCriterion(ac_id=EntityId(f"ac-large-{n}"), text=f"Given cart {n}, its total is exact to the cent.")
        for n in range(10)
    ]
    return StoryCreated(
        project_id=EntityId("pr-bench"),
        epic_id=EntityId("ep-bench"),
        title="A long story",
        description="A story with as many events as it takes.",
        acceptance_criteria=tuple(criteria),
        constraints={"python": ">=3.11"},
        tags=("shop",),
        rigor="L1",
        lifecycle="agile",
        language="en",
        priority=1,
        requester=Principal("user:bench"),
        content_digest=_digest("content"),
        config={},
    )


def _tasks(story_id: StoryId) -> tuple[Task, ...]:
    return tuple(
        Task(
            task_id=EntityId(f"tk-large-{n}"),
            story_id=story_id,
            plan_id=_PLAN,
            title=f"Part {n} of the cart",
            description=f"Write part {n}: prices are integers of cents, and totals are rounded once, at the end.",
            role=_ROLES[n % len(_ROLES)],
            kind="code",
            estimated_hours=2,
            priority=n % 10 + 1,
            depends_on=(EntityId(f"tk-large-{n // 2}"),) if n else (),
            acceptance_refs=(EntityId(f"ac-large-{n % 10}"),),
            paths=(f"shop/part{n}.py",),
            risk="low",
        )
        for n in range(_TASKS)
    )


def _plan(story_id: StoryId) -> PlanProposed:
    return PlanProposed(
        plan_id=_PLAN,
        version=1,
        author=_AUTHOR,
        rationale="Small parts that can be tested each for itself.",
        tasks=_tasks(story_id),
        estimated_complexity="HIGH",
        content_digest=_digest("content"),
        plan_digest=_digest("plan"),
    )


def _decision(n: int) -> DecisionProposed:
    return DecisionProposed(
        decision_id=EntityId(f"de-large-{n}"),
        title=f"Decision {n} about the cart",
        rationale=f"Totals of part {n} are kept as integers, so that no rounding is ever done twice.",
        category="ARCHITECTURE" if n % 3 else "IMPLEMENTATION",
        origin_="agent",
        author=_AUTHOR,
        affects=(EntityId(f"tk-large-{n % _TASKS}"),),
    )


def _step(n: int) -> tuple[Payload, Payload]:
    step_id = StepId(f"step-{n}")
    started = StepStarted(
        step_id=step_id,
        kind="model",
        tool="model",
        op="draft",
        effect="PURE",
        task_id=EntityId(f"tk-large-{n % _TASKS}"),
        as_role="developer",
        principal=Principal("agent:developer-001"),
        request_digest=_digest(f"request {n}"),
        key=RunKey(_digest(f"key {n}").hex),
        deadline_ms=1_700_000_000_000,
        policy=PolicyRef(rule_id="models.ask", digest=_digest("policy")),
        reserve=Reserve(tokens=4096, wall_ms=600_000),
    )
    finished = StepFinished(
        step_id=step_id,
        outcome="succeeded",
        result_digest=_digest(f"result {n}"),
        cost=Cost(tokens_in=900, tokens_out=100, latency_ms=4000),
        provenance=Provenance(engine="recorded", model="coder-1.5b", prompt_digest=_digest(f"prompt {n}")),
    )
    return started, finished


def _digest(name: str) -> Digest:
    return digest_of(name.encode())
