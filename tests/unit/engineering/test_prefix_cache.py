"""Most of what a session sends is in the prefix cache of its engine: counted on blocks, as vLLM hashes them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from hashlib import blake2b

import pytest

from fleet.engineering.loop import Ask, Over, Recall, after_facts, after_summary, next_step
from fleet.engineering.state import Outcome, Session, SessionEnding, begin
from fleet.engineering.terms import terms_for
from fleet.engineering.tools import OFFERS
from fleet.engineering.transcript import messages_for
from fleet.kernel.digest import digest_of
from fleet.models.chat import ChatMessage, TokenUsage
from tests.unit.engineering.test_loop import BASE, said, turn

_BLOCK = 16 * 4
"""Characters of a block: 16 tokens of about 4."""
_FIRST = (
    "Work: engineer\n" + "".join(offer.model_dump_json() for offer in OFFERS) + "the task, the files, the rules. " * 250
)


class BlockCache:
    """An engine's prefix cache: a block is found when it and all before it were seen. Nothing is ever evicted."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self.asked = self.cached = 0

    def ask(self, prompt: str) -> None:
        """The prompt is read; whole blocks of a known prefix come from the cache."""
        chain, is_prefix = b"", True
        for block in (prompt[at : at + _BLOCK] for at in range(0, len(prompt), _BLOCK)):
            chain = blake2b(chain + block.encode(), digest_size=16).digest()
            is_prefix = is_prefix and len(block) == _BLOCK and chain in self._seen
            self.asked += len(block)
            self.cached += len(block) if is_prefix else 0
            self._seen.add(chain)

    @property
    def share(self) -> float:
        """Part of all prompts that came from the cache."""
        return self.cached / self.asked


def written(messages: tuple[ChatMessage, ...]) -> str:
    """The conversation as a template makes a text of it."""
    lines = (f"<{m.role}>{m.content}{[(u.name, u.arguments) for u in m.tool_uses] or ''}" for m in messages)
    return _FIRST + "".join(lines)


def worked(state: Session, draw: random.Random, cache: BlockCache) -> Iterator[Session]:
    """The states of an engineer at work: it reads most, edits a third of the time, and runs the tests after it."""
    while not isinstance(step := next_step(state), Over):
        if isinstance(step, Recall):
            state = after_facts(state, "-old\n+new\n" * 300)
        else:
            assert isinstance(step, Ask)
            cache.ask(written(messages_for(state, is_summary=step.is_summary)))
            if step.is_summary:
                state = after_summary(state, "what was done " * 120, TokenUsage(), latency_ms=1)
            else:
                state = _turn(state, draw)
        yield state


def _turn(state: Session, draw: random.Random) -> Session:
    number = len(state.turns) + 1
    kind = draw.choices(["read", "edit", "run"], [5, 3, 4])[0]
    text = "".join(draw.choices("abcdefgh \n", k=draw.randint(400, state.terms.run_chars)))
    if kind == "edit":
        reply = said(("edit", {"path": "a.py", "old": text[:300], "new": text[:400]}), text="I change it.")
        return turn(state, reply, Outcome("edit", text[:900], digest_of(f"{number}".encode())))
    args = {"path": f"f{number}.py"} if kind == "read" else {"command": f"make {number}"}
    return turn(state, said((kind, args), text="I look."), Outcome("result", text, state.head, brief="as before"))


@pytest.mark.parametrize(("window", "least"), [(32_768, 0.85), (65_536, 0.90), (131_072, 0.90)])
def test_share_of_the_prompt_that_the_engine_has_in_its_cache(window: int, least: float):
    shares = list[float]()
    for seed in range(5):
        cache, draw = BlockCache(), random.Random(seed)
        terms = terms_for(window=window, output=8_192, rigor="L1")
        state = begin(terms.model_copy(update={"prompt": len(_FIRST) // 3, "prompt_tokens": 10**9}), BASE)
        for found in worked(state, draw, cache):
            state = found
        ended = next_step(state)
        assert isinstance(ended, Over)
        assert ended.reason in (SessionEnding.TURNS_USED, SessionEnding.SUMMARISED_AGAIN)
        assert len(state.turns) >= 30, ended
        shares.append(cache.share)
    print(f"window {window}: {', '.join(f'{share:.3f}' for share in shares)}")  # noqa: T201
    assert min(shares) >= least, shares
