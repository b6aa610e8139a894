"""Asking a model for a better proposal than that of the rules (PL-54)."""

from __future__ import annotations

from fleet.events.project import DiscoveryProposed
from fleet.kernel.errors import BudgetExceeded, FleetError, ModelError, RateLimited
from fleet.models.chat import AS_LONG_AS_FITS, Sampling
from fleet.models.port import AgentAnswer, AgentRequest
from fleet.owner.workbench import seat
from fleet.planning.coach_config import CoachConfig
from fleet.planning.discovery import DiscoveryProposal, discovery_schema, read_proposal
from fleet.planning.project_state import Discovery
from fleet.projects.documents import read_discovery
from fleet.projects.project_calls import ProjectCalls
from fleet.trees.port import BlobStore

PLANNER = seat("planner")
TRIES = 2
"""The proposal, and one repair of it."""
_TIMEOUT_S = 120.0
_TASK = """A product owner has one goal. Say what it takes: requirements that can be tested, questions about what the \
goal leaves open, and the smallest stories that together reach it, in the order in which they are built. The title of \
a story says who wants it and why, its description has fewer than 600 characters, and each acceptance criterion is \
one Given/When/Then sentence. `depends_on` names earlier stories by position, from 0."""


class Discoverer:
    """Makes one proposal of each goal. A model that fails or does not keep to the rules leaves that of the rules."""

    def __init__(self, calls: ProjectCalls, blobs: BlobStore, coach: CoachConfig) -> None:
        self._calls, self._blobs, self._coach = calls, blobs, coach

    async def propose(self, project_id: str, discovery: Discovery) -> DiscoveryProposed:
        """The proposal to record. A model error, or a day without room for the call, is no error here.

        Raises what the stores raise.
        """
        template = await read_discovery(self._blobs, discovery)
        answer: AgentAnswer | None = None
        problems: tuple[str, ...] = ()
        spent = (0, 0)
        for attempt in range(1, TRIES + 1):
            try:
                answer = await self._ask(project_id, discovery, problems, attempt)
            except (ModelError, RateLimited, BudgetExceeded) as error:
                return _of_rules(discovery, _told(error), answer, spent)
            spent = (spent[0] + answer.usage.tokens_in, spent[1] + answer.usage.tokens_out)
            proposal = read_proposal(answer.value, template, is_empty=discovery.is_empty, config=self._coach)
            if isinstance(proposal, DiscoveryProposal):
                return await self._of_model(discovery, proposal, answer, spent)
            problems = proposal
        note = f"the model's proposal did not keep to the rules: {'; '.join(problems)}"
        return _of_rules(discovery, note, answer, spent)

    async def _ask(self, project_id: str, discovery: Discovery, problems: tuple[str, ...], attempt: int) -> AgentAnswer:
        told = "\n".join(f"- {problem}" for problem in problems)
        start = "The folder is empty; a story that lays its skeleton is there already. " if discovery.is_empty else ""
        request = AgentRequest(
            kind="advise",
            role=PLANNER.role,
            principal=PLANNER.principal,
            shared=f"{_TASK}\n\n{start}Language of all texts: {discovery.language}\n<goal>\n{discovery.goal}\n</goal>",
            own=f"Your last answer had these problems:\n{told}" if told else "",
            sampling=Sampling(max_tokens=AS_LONG_AS_FITS, seed=attempt),
            model=discovery.model,
            json_schema=discovery_schema(),
        )
        return await self._calls.ask(
            project_id, request, request_id=f"{discovery.discovery_id}/propose-{attempt}", timeout_s=_TIMEOUT_S
        )

    async def _of_model(
        self, discovery: Discovery, proposal: DiscoveryProposal, answer: AgentAnswer, spent: tuple[int, int]
    ) -> DiscoveryProposed:
        return DiscoveryProposed(
            discovery_id=discovery.discovery_id,
            proposal_digest=await self._blobs.put(proposal.to_bytes()),
            source="model",
            engine=answer.engine,
            prompt_digest=answer.prompt,
            reply_digest=answer.reply,
            tokens_in=spent[0],
            tokens_out=spent[1],
        )


def _of_rules(discovery: Discovery, note: str, answer: AgentAnswer | None, spent: tuple[int, int]) -> DiscoveryProposed:
    return DiscoveryProposed(
        discovery_id=discovery.discovery_id,
        proposal_digest=discovery.proposal_digest,
        source="template",
        note=note[:1000],
        engine=answer.engine if answer else None,
        prompt_digest=answer.prompt if answer else None,
        reply_digest=answer.reply if answer else None,
        tokens_in=spent[0],
        tokens_out=spent[1],
    )


def _told(error: FleetError) -> str:
    return f"no model answered ({error.code}): {error.message}"
