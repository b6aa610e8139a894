"""Compress a long session without losing what matters: extractive, by structure, without a model (CX-50..CX-57)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fleet.context.budget import estimate_tokens
from fleet.context.extract import facts_of, ids_in, paths_in
from fleet.context.item import one_line
from fleet.context.session import FACT_CLASSES, Fact, FactClass, HistoryTurn

MIN_RATIO = 0.6
"""The part of the tokens that has to go (CX-51)."""
LONG_TOKENS = 8000
_WINDOW_SHARE = 20
"""The window takes one in so many of the tokens that there were."""
_TITLES: Mapping[FactClass, str] = {
    "instruction": "Instructions",
    "criterion": "Acceptance criteria",
    "constraint": "Constraints",
    "decision": "Decisions",
    "question": "Open questions",
    "failure": "What still fails",
    "promise": "What is still to do",
    "id": "Also named",
    "path": "Files",
}
PROSE = "## In short (a model wrote this; nothing of it is on record)"
"""Heading of a model's words."""
_LISTED: tuple[FactClass, ...] = ("id", "path")


@dataclass(frozen=True, slots=True)
class CompressedSession:
    """What is left of a session: `ledger` word for word, `summary` of the work by numbers, `window` of its last turns.

    Attributes:
        covers_from: version of the first turn.
        ratio: part of the tokens that went, 0..1.
        recall: by class, items of the source that are in the text, 0..1. One below 1 is not to be used (CX-55).
        target_missed: the largest class, where a long session could not be made small enough.
    """

    ledger: str
    summary: str
    window: str
    covers_from: int
    covers_to: int
    tokens_before: int
    tokens_after: int
    recall: Mapping[str, float]
    target_missed: str | None
    digest: str

    @property
    def text(self) -> str:
        """All of it, as a pack shows it."""
        return "\n\n".join(part for part in (self.ledger, self.summary, self.window) if part) + "\n"

    @property
    def is_whole(self) -> bool:
        """Whether nothing is lost that has to survive."""
        return all(share == 1 for share in self.recall.values())

    @property
    def ratio(self) -> float:
        """1 - after / before; 0 for an empty session."""
        return 1 - self.tokens_after / self.tokens_before if self.tokens_before else 0.0


def compress(turns: Sequence[HistoryTurn], *, count: Callable[[str], int] = estimate_tokens) -> CompressedSession:
    """The session in far fewer tokens, with every fact of CX-52 word for word. Pure: same turns, same text.

    Args:
        count: tokens of a text, by the tokenizer of the model that reads it.
    """
    facts = _with_names(turns, facts_of(turns))
    source = "\n".join(turn.text for turn in turns)
    before = count(source)
    ledger, summary = _ledger(facts), _summary(turns)
    window = _window(turns, "\n".join([ledger, summary]), tokens=before // _WINDOW_SHARE, count=count)
    text = "\n\n".join(part for part in (ledger, summary, window) if part) + "\n"
    recall = recall_of(turns, text)
    after = count(text) if turns else 0
    is_missed = before >= LONG_TOKENS and after > (1 - MIN_RATIO) * before
    return CompressedSession(
        ledger=ledger,
        summary=summary,
        window=window,
        covers_from=turns[0].version if turns else 0,
        covers_to=turns[-1].version if turns else 0,
        tokens_before=before,
        tokens_after=after,
        recall=recall,
        target_missed=_largest(facts) if is_missed else None,
        digest=_digest(text),
    )


def with_prose(
    session: CompressedSession,
    turns: Sequence[HistoryTurn],
    prose: str,
    *,
    count: Callable[[str], int] = estimate_tokens,
) -> CompressedSession | None:
    """The session with a model's words in front of its own summary. None when they may not be used (CX-53, CX-56).

    They are one marked paragraph, and never part of the ledger. They may name no id and no path that the turns do not
    name, and may not make a long session miss its target.
    """
    words = one_line(prose).lstrip("#-*> ")
    source = "\n".join(f"{turn.id} {turn.text}" for turn in turns)
    is_invented = not {*ids_in(words)} <= {*ids_in(source)} or not {*paths_in(words)} <= {*paths_in(source)}
    if not words or is_invented:
        return None
    summary = "\n\n".join(part for part in (f"{PROSE}\n{words}", session.summary) if part)
    told = replace(session, summary=summary)
    after = count(told.text)
    is_too_long = session.tokens_before >= LONG_TOKENS and after > (1 - MIN_RATIO) * session.tokens_before
    recall = recall_of(turns, told.text)
    told = replace(told, tokens_after=after, recall=recall, digest=_digest(told.text))
    return told if told.is_whole and not is_too_long else None


def recall_of(turns: Sequence[HistoryTurn], text: str) -> dict[str, float]:
    """By class, the part of the session's items that the text holds; 1 for a class without items (CX-54)."""
    plain = one_line(text)
    items_of: dict[str, list[str]] = {kind: [] for kind in FACT_CLASSES}
    for fact in facts_of(turns):
        items_of[fact.kind].append(one_line(fact.line))
    source = "\n".join(f"{turn.id} {turn.text}" for turn in turns)
    items_of["id"], items_of["path"] = list(ids_in(source)), list(paths_in(source))
    ids, paths = set(ids_in(text)), set(paths_in(text))
    held: dict[str, Callable[[str], bool]] = {"id": ids.__contains__, "path": paths.__contains__}
    return {kind: _share(items, held.get(kind, plain.__contains__)) for kind, items in items_of.items()}


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _share(items: Sequence[str], holds: Callable[[str], bool]) -> float:
    return sum(map(holds, items)) / len(items) if items else 1.0


def _with_names(turns: Sequence[HistoryTurn], facts: Sequence[Fact]) -> list[Fact]:
    """The facts, and every id and path that none of them names."""
    source = "\n".join(f"{turn.id} {turn.text}" for turn in turns)
    said = "\n".join(fact.line for fact in facts)
    ids, paths = set(ids_in(said)), set(paths_in(said))
    named = [Fact("id", name, name) for name in ids_in(source) if name not in ids]
    return [*facts, *named, *(Fact("path", path, path) for path in paths_in(source) if path not in paths)]


def _ledger(facts: Sequence[Fact]) -> str:
    parts = list[str]()
    seen = set[str]()
    for kind in FACT_CLASSES:
        lines = [fact.line for fact in facts if fact.kind == kind and fact.line not in seen]
        seen.update(lines)
        if lines:
            body = ", ".join(lines) if kind in _LISTED else "\n".join(f"- {line}" for line in lines)
            parts.append(f"## {_TITLES[kind]}\n{body}")
    return "\n\n".join(parts)


def _summary(turns: Sequence[HistoryTurn]) -> str:
    """What was left out, by numbers: runs by how they ended; files with the digest of what was last seen of them."""
    runs: dict[str, list[int]] = {}
    files: dict[str, tuple[str, str]] = {}
    for turn in turns:
        if turn.kind == "run":
            ends = runs.setdefault(turn.id or "run", [0, 0])
            ends[turn.status == "failed"] += 1
        elif turn.kind in ("file", "diff") and turn.id:
            files[turn.id] = ("changed" if turn.kind == "diff" else "read", _short_digest(turn.text))
    lines = [f"- {name}: {good} passed, {bad} failed" for name, (good, bad) in runs.items()]
    lines += [f"- {path} {how}, {digest}" for path, (how, digest) in files.items()]
    return "\n".join(["## What was done", *lines]) if lines else ""


def _window(turns: Sequence[HistoryTurn], said: str, *, tokens: int, count: Callable[[str], int]) -> str:
    """The last turns, whole, newest first until the budget is full, in chronological order (CX-30).

    A call and its result are kept or left together (CX-31).
    """
    kept, used = list[str](), 0
    plain = one_line(said)
    for pair in reversed(_pairs(turns)):
        new = [turn for turn in pair if (text := one_line(turn.text)) and text not in plain]
        used += sum(count(turn.text) + 4 for turn in new)
        if used > tokens:
            break
        kept += [f"[{turn.kind}] {turn.text.strip()}" for turn in reversed(new)]
    return "\n".join(["## Latest", *reversed(kept)]) if kept else ""


def _pairs(turns: Sequence[HistoryTurn]) -> list[list[HistoryTurn]]:
    """The turns in their order, each call with its result: turns of one event, and a prompt with the reply to it."""
    pairs = list[list[HistoryTurn]]()
    for turn in turns:
        last = pairs[-1][-1] if pairs else None
        is_result = last is not None and (last.version == turn.version or (last.kind, turn.kind) == ("prompt", "reply"))
        if is_result:
            pairs[-1].append(turn)
        else:
            pairs.append([turn])
    return pairs


def _largest(facts: Sequence[Fact]) -> str:
    sizes = {kind: sum(len(fact.line) for fact in facts if fact.kind == kind) for kind in FACT_CLASSES}
    return max(sizes, key=lambda kind: sizes[kind])


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
