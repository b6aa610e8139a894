"""The request for a council: checked completely before anything is opened or spent (CN-1..CN-12)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import Field, ValidationError

from fleet.council.config import CouncilConfig
from fleet.council.roster import Member, build_roster, derive_seed, roster_problems
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest, EntityId, StoryId
from fleet.kernel.types import CouncilKind, Frozen, OutputKind


class RubricEntry(Frozen):
    """One thing that voters look at."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    text: Annotated[str, Field(min_length=1, max_length=2000)]
    weight: Annotated[int, Field(ge=1)] = 1


# Source: CN-6.
class Constraints(Frozen):
    """What the outcome is judged by, and how long it may take."""

    rubric: Annotated[tuple[RubricEntry, ...], Field(min_length=1, max_length=10)]
    requirements: tuple[Annotated[str, Field(min_length=1, max_length=2000)], ...] = ()
    metadata: dict[str, str] = Field(default_factory=dict)
    timeout_seconds: Annotated[int, Field(ge=1)] = 900

    @property
    def rubric_digest(self) -> Digest:
        """The rubric hash that is recorded with the council."""
        return digest_of_json(list(self.rubric))


class CouncilAllowance(Frozen):
    """What the council may use; `gpu_ms` None is unlimited (CN-8)."""

    tokens: Annotated[int, Field(gt=0)]
    wall_s: Annotated[int, Field(gt=0)]
    gpu_ms: Annotated[int, Field(ge=0)] | None = None


class CouncilRequest(Frozen):
    """A council that may be opened: every field is set, the roster obeys CN-12."""

    kind: CouncilKind = "selection"
    story_id: StoryId
    task_id: EntityId | None = None
    task_description: Annotated[str, Field(min_length=1, max_length=20_000)]
    role: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    num_agents: Annotated[int, Field(ge=3, le=9)]
    rounds: Annotated[int, Field(ge=0, le=2)]
    constraints: Constraints
    output_kind: OutputKind
    budget: CouncilAllowance
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    subject: Digest | None = None
    roster: Annotated[tuple[Member, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class KeptRequest:
    """The request of a council as it is kept: checked, with the criteria that the story had then."""

    request: CouncilRequest
    criteria: tuple[tuple[str, str], ...]
    """Id and text of each."""

    def to_json(self) -> dict[str, Any]:
        """The value that is stored."""
        return {"request": self.request.model_dump(mode="json"), "criteria": [list(c) for c in self.criteria]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> KeptRequest:
        """The stored value."""
        return cls(
            CouncilRequest.model_validate(value["request"]), tuple((str(i), str(t)) for i, t in value["criteria"])
        )

    @property
    def requirements(self) -> tuple[tuple[str, str], ...]:
        """Id and text of what the request demands."""
        return tuple((f"r-{n}", text) for n, text in enumerate(self.request.constraints.requirements, 1))

    @property
    def refs(self) -> tuple[str, ...]:
        """The ids that a text has to say something about (CN-31)."""
        return tuple(name for name, _ in (*self.requirements, *self.criteria))


def parse_request(document: Mapping[str, Any], config: CouncilConfig, *, council_id: str) -> CouncilRequest:
    """The request with its defaults filled in: sizes and roster from `config`, the seed from `council_id`.

    Raises:
        InvalidInput: something is wrong; `problems` lists every finding as {field, problem} (CN-12, GL-15).
    """
    filled = _filled(document, config, council_id)
    problems = _conflicts(document)
    try:
        request = CouncilRequest.model_validate(filled)
    except ValidationError as error:
        problems += [(_pointer(e["loc"]), e["msg"]) for e in error.errors(include_url=False)]
        raise _refused(problems) from error
    problems += [("/roster", problem) for problem in _rules(request, config)]
    if request.kind == "gate" and request.subject is None:
        problems.append(("/subject", "a gate needs the digest of what it is about"))
    if request.kind != "gate" and request.subject is not None:
        problems.append(("/subject", f"only a gate has a subject, not kind {request.kind}"))
    if request.kind == "estimate" and request.output_kind != "text":
        problems.append(("/output_kind", "an estimate is a value with a reason in words: text"))
    if problems:
        raise _refused(problems)
    return request


def _filled(document: Mapping[str, Any], config: CouncilConfig, council_id: str) -> dict[str, Any]:
    filled: dict[str, Any] = {
        "kind": "selection",
        "num_agents": config.voters_of(str(document.get("role"))),
        # An estimate has as many rounds as its rules allow: the one of first answers, and two after it (PL-80).
        "rounds": 2 if document.get("kind") == "estimate" else config.defaults.rounds,
        "seed": derive_seed(council_id),
        **document,
    }
    alias = filled.pop("max_iterations", None)
    if alias is not None and "rounds" not in document:
        filled["rounds"] = alias
    constraints = filled.get("constraints")
    if isinstance(constraints, Mapping):
        named = cast(Mapping[str, Any], constraints)
        filled["constraints"] = {"timeout_seconds": config.defaults.timeout_seconds, **named}
    if "roster" not in filled and isinstance(filled["num_agents"], int) and 1 <= filled["num_agents"] <= 9:
        filled["roster"] = _default_roster(filled, config)
    return filled


def _default_roster(filled: Mapping[str, Any], config: CouncilConfig) -> tuple[Member, ...]:
    role = filled.get("role")
    try:
        return build_roster(
            filled["kind"],
            filled.get("output_kind", "text"),
            proposer_role=role if isinstance(role, str) else "",
            num_agents=filled["num_agents"],
            config=config,
        )
    except (ValidationError, InvalidInput):
        # The bad role is reported by its own field; an empty roster would only say it twice.
        return ()


def _conflicts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    if "rounds" in document and "max_iterations" in document:
        return [("/max_iterations", "is another name of rounds: give only one of them")]
    return []


def _rules(request: CouncilRequest, config: CouncilConfig) -> tuple[str, ...]:
    return roster_problems(
        request.roster,
        kind=request.kind,
        output_kind=request.output_kind,
        num_agents=request.num_agents,
        config=config,
    )


def _pointer(location: tuple[int | str, ...]) -> str:
    return "/" + "/".join(str(part) for part in location)


def _refused(problems: list[tuple[str, str]]) -> InvalidInput:
    listed = "; ".join(f"{field}: {problem}" for field, problem in problems)
    return InvalidInput(
        f"the council was not opened: {listed}",
        problems=[{"field": field, "problem": problem} for field, problem in problems],
    )
