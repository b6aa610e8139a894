"""Find in a session, by form alone, what has to survive its compression (CX-52, CX-53)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence

from fleet.context.item import one_line
from fleet.context.session import Fact, FactClass, HistoryTurn

_ID = re.compile(r"(?<![\w./-])(?:pr|ep|st|tk|pv|ac|de|qu|ap|rn|co|cd|ce|in|dg|rp)-[a-z0-9]+(?:-[a-z0-9]+)*(?![\w/-])")
_PATH = re.compile(
    r"(?<![\w./@:-])(?:[\w.-]+/)*[\w-][\w.-]*\.(?:py|pyi|ts|tsx|js|jsx|json|ya?ml|toml|md|rst|rs|go|java|kt|c|h|cc|cpp"
    r"|sql|sh|cfg|ini|txt|css|html|proto|rb|php|ipynb|lock|csv)\b(?![\w/])"
)
_DIFF_SIDE = re.compile(r"^(--- |\+\+\+ |diff --git (?=a/))[ab]/", re.MULTILINE)
_DIFF_OTHER = re.compile(r"^(diff --git \S+) b/\S+", re.MULTILINE)
_SECTIONS: Mapping[str, FactClass] = {
    "acceptance criteria": "criterion",
    "constraints": "constraint",
    "decisions": "decision",
    "open questions": "question",
    "your task": "instruction",
    "story": "instruction",
    "feedback": "instruction",
    "what fails now": "failure",
}
_HEADING = re.compile(r"#{1,4} (.+)")
_FENCE = re.compile(r"`{3,}")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'`(])")
_CUES: Sequence[tuple[FactClass, re.Pattern[str]]] = (
    ("question", re.compile(r"\?[\"')]*$")),
    (
        "decision",
        re.compile(
            r"(?i)\b(?:decid(?:e|ed|es|ing)|decision|chose|chosen|we (?:will )?use|agreed|rejected in favou?r"
            r"|superseded?|instead of)\b"
        ),
    ),
    (
        "promise",
        re.compile(r"\b(?:TODO|FIXME|(?i:i will|i'll|we will|next steps?|still (?:to|has|have|needs?)|not yet))\b"),
    ),
    (
        "constraint",
        re.compile(
            r"(?i)\b(?:must|never|shall|may not|is not allowed|are not allowed|forbidden|mandatory|at most|at least"
            r"|no more than)\b"
        ),
    ),
)
_FAILED = re.compile(r"(?:^|\s)(?:FAILED|ERROR)\b|\b\w*(?:Error|Exception)\b:?|^E\s{2,}\S|\b[Ff]ailed\b|\bpanicked\b")
_TEST = re.compile(r"(?<!\S)(?:[\w.-]+/)*[\w.-]+\.\w+::[\w:.\[\]-]+")
_PROSE = frozenset(["human", "task", "prompt", "reply", "reasoning", "answer", "question", "decision"])
_WHOLE: Mapping[str, FactClass] = {
    "human": "instruction",
    "answer": "instruction",
    "criterion": "criterion",
    "constraint": "constraint",
    "decision": "decision",
}


def ids_in(text: str) -> tuple[str, ...]:
    """The ids of entities in the text, each once, in order."""
    return tuple(dict.fromkeys(_ID.findall(text)))


def paths_in(text: str) -> tuple[str, ...]:
    """The paths of files within the repository, each once, in order; those of libraries and of the system are none."""
    paths = (path.removeprefix("./") for path in _PATH.findall(_DIFF_OTHER.sub(r"\1", _DIFF_SIDE.sub(r"\1", text))))
    return tuple(dict.fromkeys(path for path in paths if "site-packages" not in path))


def facts_of(turns: Sequence[HistoryTurn]) -> tuple[Fact, ...]:
    """Every fact of the session in order; of one that was said again the last wording, at its first place."""
    facts: dict[tuple[str, str], Fact] = {}
    for turn in turns:
        for fact in _facts(turn):
            facts[fact.kind, fact.key] = fact
    for fact in _open_ends(turns):
        facts[fact.kind, fact.key] = fact
    for turn in turns:
        if turn.kind == "question" and turn.status == "answered":
            facts.pop(("question", turn.id), None)
    return tuple(facts.values())


def facts_in(text: str) -> tuple[Fact, ...]:
    """The facts of one text, by its headings and the words of its sentences, each once."""
    return tuple({(fact.kind, fact.key): fact for fact in _in_prose(text)}.values())


def _facts(turn: HistoryTurn) -> Iterator[Fact]:
    whole = _WHOLE.get(turn.kind)
    if whole is not None:
        status = f" [{turn.status}]" if turn.status else ""
        named = f"{turn.id}{status}: " if turn.id else ""
        yield Fact(whole, turn.id or _key(turn.text), f"{named}{one_line(turn.text)}")
    elif turn.kind == "question":
        if turn.status != "answered":
            yield Fact("question", turn.id or _key(turn.text), f"{turn.id}: {one_line(turn.text)}".removeprefix(": "))
    elif turn.kind in _PROSE:
        yield from _in_prose(turn.text)


def _in_prose(text: str) -> Iterator[Fact]:
    """Facts of a text by its headings, and by the words of its sentences elsewhere; code in fences holds none."""
    section: FactClass | None = None
    is_code = False
    for line in text.splitlines():
        if _FENCE.match(line.strip()):
            is_code = not is_code
        elif heading := _HEADING.match(line):
            section = _SECTIONS.get(heading[1].strip().lower())
            is_code = False
        elif line.strip() and not is_code:
            yield from _in_section(line, section) if section else _by_words(line)


def _in_section(line: str, section: FactClass) -> Iterator[Fact]:
    said = line.strip().removeprefix("- ")
    named = _ID.match(said)
    yield Fact(section, named[0] if named else _key(said), said)


def _by_words(line: str) -> Iterator[Fact]:
    for sentence in _SENTENCE.split(line.strip()):
        said = sentence.strip().removeprefix("- ")
        kind = _kind_of(said)
        if kind is not None:
            yield Fact(kind, _key(said), said)


def _kind_of(said: str) -> FactClass | None:
    for kind, cue in _CUES:
        if cue.search(said):
            return kind
    return None


def _open_ends(turns: Sequence[HistoryTurn]) -> Iterator[Fact]:
    """Failures that no later run of the same command took back, and steps that were started and not finished."""
    last = {(turn.kind, turn.id): turn for turn in turns if turn.kind in ("run", "step")}
    for turn in last.values():
        if turn.kind == "step" and turn.status == "started":
            yield Fact("promise", turn.id or _key(turn.text), f"{turn.id} is not finished: {one_line(turn.text)}")
        elif turn.kind == "run" and turn.status == "failed":
            yield from _failures(turn)


def _failures(turn: HistoryTurn) -> Iterator[Fact]:
    lines = [line.strip() for line in turn.text.splitlines()]
    first = next((line for line in lines if _FAILED.search(line)), lines[0] if lines else "failed")
    tests = tuple(dict.fromkeys(test for line in lines if _FAILED.search(line) for test in _TEST.findall(line)))
    yield Fact("failure", turn.id or _key(first), f"{turn.id} fails: {first}".removeprefix(" fails: "))
    for test in tests:
        if test not in first and test not in turn.id:
            yield Fact("failure", test, test)


def _key(text: str) -> str:
    return hashlib.sha256(one_line(text).lower().encode()).hexdigest()[:16]
