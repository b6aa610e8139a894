"""Extracts what is known of files from their bytes. Time and memory are linear in a bounded size.

The bytes are untrusted: nothing of them is run, and no expression or structure here grows with how deep they nest.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from fleet.knowledge.facts import Definition, FileFacts
from fleet.knowledge.languages import Language
from fleet.knowledge.syntax import MAX_BYTES, ask_definitions
from fleet.knowledge.words import MAX_WORD, count_terms, words_in

_MAX_IMPORTS, _MAX_TERMS = 500, 4_000
_MAX_TEXT = 400
"""Characters of one quoted text that are read: longer ones are data."""
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")


def extract(files: Sequence[tuple[Language, bytes]]) -> list[FileFacts]:
    """What the bytes of each file say when they are read in its language.

    It blocks while other processes read the definitions. A file that ends such a process has none.
    """
    texts = [_text_of(language, data) for language, data in files]
    sources = [
        (n, (language.name, text))
        for n, ((language, _), text) in enumerate(zip(files, texts, strict=True))
        if text is not None and language.apart is not None
    ]
    # Words are counted here while the definitions are read by other processes.
    definitions = ask_definitions([source for _, source in sources])
    facts = [
        FileFacts() if text is None else _facts(language, text)
        for (language, _), text in zip(files, texts, strict=True)
    ]
    for (n, _), syntax in zip(sources, definitions(), strict=True):
        facts[n] = facts[n].model_copy(update={"symbols": tuple(Definition(*one) for one in syntax.symbols)})
    return facts


def _text_of(language: Language, data: bytes) -> str | None:
    if len(data) > MAX_BYTES or b"\0" in data[:8192] or language.name == "data":
        return None
    return data.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def _facts(language: Language, text: str) -> FileFacts:
    lines = text.count("\n") + (not text.endswith("\n"))
    if language.apart is None:
        return FileFacts(lines=lines, prose=count_terms(words_in(text), limit=_MAX_TERMS))
    parts = _Parts()
    code = language.apart.sub(parts.set_aside, text)
    names = Counter(name for name in _IDENTIFIER.findall(code) if 1 < len(name) <= MAX_WORD)
    return FileFacts(
        lines=lines,
        imports=tuple(
            dict.fromkeys(islice(_imports(language, text if language.quotes_imports else code), _MAX_IMPORTS))
        ),
        names=dict(islice(names.items(), _MAX_TERMS)),
        prose=count_terms(words_in("\n".join(parts.prose)), limit=_MAX_TERMS),
        texts=count_terms(words_in("\n".join(parts.texts)), limit=_MAX_TERMS),
    )


class _Parts:
    """What is no code, collected while it is taken out of the text."""

    def __init__(self) -> None:
        self.prose: list[str] = []
        self.texts: list[str] = []

    def set_aside(self, match: re.Match[str]) -> str:
        """Line ends alone, so that what is left keeps its lines."""
        found = match.group()
        if found[0] not in "\"'`" or _stands_alone(match):
            self.prose.append(found)
        else:
            self.texts.append(found[:_MAX_TEXT])
        return "\n" * found.count("\n")


def _stands_alone(match: re.Match[str]) -> bool:
    """Whether nothing stands before it on its line, as with a docstring."""
    start = match.start()
    before = match.string[max(match.string.rfind("\n", 0, start) + 1, start - 80) : start]
    return not before.strip()


def _imports(language: Language, text: str) -> Iterator[str]:
    assert language.imports is not None
    for match in language.imports.finditer(text):
        groups = match.groupdict()
        if modules := groups.get("modules"):
            yield from (part.split()[0] for part in modules.split(",") if part.split())
        elif names := groups.get("names"):
            module = groups["module"]
            taken = [part.split()[0] for part in names.strip("( ").split(",") if part.split()]
            yield from (f"{module}{'' if module.endswith('.') else '.'}{name}" for name in taken[:100])
        else:
            yield groups["module"]
