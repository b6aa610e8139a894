"""The words that a model adds to a compressed session: whether they can be used, and what they say of what matters.

The model is asked as a story asks it, by a role agent with the shipped prompt, and is shown what the compressor made.
The facts that were planted in the session are known here alone.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.figures import Figure
from benchmarks.sessions import LongSession, found_in
from fleet.context.compress import compress, with_prose
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ModelError, RateLimited
from fleet.models.engines.factory import ChatModels
from fleet.models.port import Agents
from fleet.models.profiles import load_models
from fleet.models.prompts.prompt import parse_prompts
from fleet.models.service.role_agent import LocalAgents, RoleAgent
from fleet.owner.duties.summaries import prose_request
from fleet.policy.roles import load_roles
from fleet.trees.memory import MemoryBlobStore

CONFIG = Path(__file__).parents[1] / "config"
ROLE = "architect"
_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class Words:
    """What came of asking for the words on one session."""

    session: str
    engine: str | None
    """None when no usable reply came."""
    is_used: bool
    """Whether the words name nothing that the session does not, and leave it short."""
    recall: float
    """The least share of a class of planted facts that the summary holds with them."""
    alone: float
    """The share of all planted facts that the words hold by themselves."""
    tokens: int
    seconds: float


async def measure(asked: Agents, profile: str, sessions: Sequence[LongSession]) -> list[Figure]:
    """The figures of one model on these sessions."""
    return figures_of(profile, [await words_of(asked, profile, session) for session in sessions])


def agents(profile: str) -> Agents:
    """The role agent that writes summaries, over the engines of the shipped configuration and this environment.

    Raises InvalidInput for a profile that config/models.yaml does not have.
    """
    models = load_models(yaml.safe_load((CONFIG / "models.yaml").read_text()))
    models.engine(profile)
    paths = [*CONFIG.glob("prompts/*.md"), *CONFIG.glob("prompts/roles/*.md")]
    agent = RoleAgent(
        load_roles(yaml.safe_load((CONFIG / "roles.yaml").read_text())).role(ROLE),
        models=ChatModels(models, environ=dict(os.environ)),
        policies=models,
        prompts=parse_prompts({path.relative_to(CONFIG).as_posix(): path.read_text() for path in paths}),
        blobs=MemoryBlobStore(),
        clock=SystemClock(),
    )
    return LocalAgents({ROLE: agent})


async def words_of(agents: Agents, profile: str | None, session: LongSession) -> Words:
    """One session: a reply that cannot be read or does not come counts as words that cannot be used."""
    found, started = compress(session.turns), time.perf_counter()
    request = prose_request(found, ROLE, profile)
    try:
        answer = await agents.ask(request, request_id=f"words/{session.name}", timeout_s=_TIMEOUT_S)
    except (ModelError, RateLimited):
        lost = min(found_in(found.text, session).values())
        return Words(session.name, None, False, lost, 0.0, 0, time.perf_counter() - started)
    words = str(answer.value["summary"])
    told = with_prose(found, session.turns, words)
    return Words(
        session=session.name,
        engine=answer.engine,
        is_used=told is not None,
        recall=min(found_in((told or found).text, session).values()),
        alone=_share(words, session),
        tokens=answer.usage.tokens_out,
        seconds=time.perf_counter() - started,
    )


def _share(text: str, session: LongSession) -> float:
    """Of all planted facts, those that the text holds."""
    counts = {kind: len(items) for kind, items in session.facts.items() if items}
    found = found_in(text, session)
    return sum(found[kind] * many for kind, many in counts.items()) / sum(counts.values())


def figures_of(profile: str, found: Sequence[Words]) -> list[Figure]:
    """What all sessions together say of the model."""
    engines = ", ".join(sorted({one.engine for one in found if one.engine})) or "none"
    answered, used = [one for one in found if one.engine], [one for one in found if one.is_used]
    name = f"compression, words of {profile}"
    told = f"{len(used)} used, {len(answered) - len(used)} left out, {len(found) - len(answered)} without a reply"
    alone = statistics.mean(one.alone for one in answered) if answered else 0.0
    return [
        Figure(f"{name}: summaries that hold them", 100 * len(used) / len(found), "%", note=f"{told}; by {engines}"),
        Figure(f"{name}: facts that survive beside them, least", 100 * min(one.recall for one in found), "%"),
        Figure(f"{name}: facts that they hold by themselves, mean", 100 * alone, "%", note="what a ledger is for"),
        Figure(f"{name}: seconds for one, median", statistics.median(one.seconds for one in found), "s"),
    ]
