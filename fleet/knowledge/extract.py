"""Extracts what is known of one file from its bytes. Time and memory are linear in a bounded size.

The bytes are untrusted: nothing of them is run, and no expression or structure grows with how deep they nest.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from fleet.knowledge.facts import Definition, FileFacts
from fleet.knowledge.languages import Language
from fleet.knowledge.words import MAX_WORD, count_terms, words_in

MAX_BYTES = 512 << 10
"""Of a file; of a larger one only the path is known."""
_MAX_SYMBOLS, _MAX_IMPORTS, _MAX_TERMS = 2_000, 500, 4_000
_MAX_TEXT = 400
"""Characters of one quoted text that are read: longer ones are data."""
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")


def extract(language: Language, data: bytes) -> FileFacts:
    """What the bytes say when they are read in this language."""
    if len(data) > MAX_BYTES or b"\0" in data[:8192] or language.name == "data":
        return FileFacts()
    text = data.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.count("\n") + (not text.endswith("\n"))
    if language.apart is None:
        return FileFacts(lines=lines, prose=count_terms(words_in(text), limit=_MAX_TERMS))
    parts = _Parts()
    code = language.apart.sub(parts.set_aside, text)
    names = Counter(name for name in _IDENTIFIER.findall(code) if 1 < len(name) <= MAX_WORD)
    return FileFacts(
        lines=lines,
        symbols=tuple(islice(_symbols(language, code, lines), _MAX_SYMBOLS)),
        # JavaScript and Go quote the modules that they import.
        imports=tuple(dict.fromkeys(islice(_imports(language, code if language.nests else text), _MAX_IMPORTS))),
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


def _symbols(language: Language, code: str, lines: int) -> Iterator[Definition]:
    found = list(islice(_definitions(language, code), _MAX_SYMBOLS))
    ends = _ends(found, lines)
    owners: list[tuple[int, str]] = []
    for (indent, line, kind, name), end in zip(found, ends, strict=True):
        while owners and owners[-1][0] >= indent:
            owners.pop()
        owner = owners[-1][1] if owners and language.nests else ""
        qualified = f"{owner}.{name}"[-200:] if owner else name
        yield Definition("method" if owner and kind == "function" else kind, qualified, line, end)
        # Without a bound a file of ever deeper classes would cost the square of its size.
        if kind in ("class", "function") and len(owners) < 10:
            owners.append((indent, qualified))


def _definitions(language: Language, code: str) -> Iterator[tuple[int, int, str, str]]:
    """Indent, line, kind and name of each definition, in order."""
    assert language.definitions is not None
    line, seen = 1, 0
    for match in language.definitions.finditer(code):
        line, seen = line + code.count("\n", seen, match.start()), match.start()
        indent, value = match.group("indent"), match.groupdict().get("value")
        if value is None:
            yield len(indent.expandtabs(8)), line, language.kinds.get(match.group("kind"), "value"), match.group("name")
        elif not indent:
            yield 0, line, "value", value


def _ends(found: list[tuple[int, int, str, str]], lines: int) -> list[int]:
    """The last line of each: the one before the next definition that lies no deeper."""
    ends = [lines] * len(found)
    open_: list[int] = []
    for n, (indent, line, _, _) in enumerate(found):
        while open_ and found[open_[-1]][0] >= indent:
            ends[open_.pop()] = max(line - 1, found[n - 1][1])
        open_.append(n)
    return ends


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
