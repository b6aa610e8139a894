"""How files of each language are read: what is no code in them, and the forms of definitions and imports.

Nothing here recurses or backtracks: every expression is linear in the text, with possessive repeats where it matters.
A full parser would know more, and would hand hostile source text the stack and the memory of this process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Role = Literal["source", "test", "document", "other"]


@dataclass(frozen=True, slots=True)
class Language:
    """One language. `definitions` have groups `indent` and `name`; `kind` words name what is defined."""

    name: str
    apart: re.Pattern[str] | None = None
    """Comments and texts; None: all of it is prose."""
    definitions: re.Pattern[str] | None = None
    kinds: Mapping[str, str] = field(default_factory=dict[str, str])
    """Keyword -> kind of symbol; `value` for what is in none."""
    imports: re.Pattern[str] | None = None
    """Groups `module`, and `names` where single names are taken from it."""
    nests: bool = False
    """Whether indentation says what lies in what."""


# `(?>(?:...)*)` and not `(?:...)*+`: before Python 3.11.4 the latter matches wrongly.
def _quoted(mark: str, *, over_lines: bool = False) -> str:
    stop = "" if over_lines else r"\n"
    return rf"{mark}[^{mark}\\{stop}]*+(?>(?:\\[\s\S][^{mark}\\{stop}]*+)*)(?:{mark}|$|(?=\n))"


def _tripled(mark: str) -> str:
    return rf"{mark * 3}[^{mark}\\]*+(?>(?:(?:\\[\s\S]|{mark}(?!{mark}{mark}))[^{mark}\\]*+)*)(?:{mark * 3}|\Z)"


_HASH = r"#[^\n]*"
_SLASHES = r"//[^\n]*|/\*[^*]*+(?>(?:\*(?!/)[^*]*+)*)(?:\*/|\Z)"
_BACKTICK = _quoted("`", over_lines=True)
_NAME = r"(?P<name>[A-Za-z_$][\w$]{0,99})"


def _one_of(*forms: str, flags: int = 0) -> re.Pattern[str]:
    return re.compile("|".join(forms), flags)


_PYTHON = Language(
    name="python",
    apart=_one_of(_tripled('"'), _tripled("'"), _quoted('"'), _quoted("'"), _HASH),
    definitions=re.compile(
        rf"^(?P<indent>[ \t]{{0,200}})(?:(?:async[ \t]+)?(?P<kind>def|class)[ \t]+{_NAME}"
        r"|(?P<value>[A-Za-z_]\w{0,99})[ \t]*(?::[^=\n]{0,300})?=(?!=))",
        re.MULTILINE,
    ),
    kinds=MappingProxyType({"def": "function", "class": "class"}),
    imports=re.compile(
        r"^[ \t]{0,200}(?:from[ \t]+(?P<module>[.\w]{1,300})[ \t]+import[ \t]*(?P<names>\([^)]{0,4000}|[^\n(]{0,1000})"
        r"|import[ \t]+(?P<modules>[\w., \t]{1,1000}))",
        re.MULTILINE,
    ),
    nests=True,
)
_SCRIPT = Language(
    name="javascript",
    apart=_one_of(_SLASHES, _quoted('"'), _quoted("'"), _BACKTICK),
    definitions=re.compile(
        r"^(?P<indent>[ \t]{0,200})(?:export[ \t]+)?(?:(?:default|declare|abstract|async)[ \t]+){0,4}"
        rf"(?P<kind>function|class|interface|type|enum|const|let|var)\b[ \t]*\*?[ \t]*{_NAME}",
        re.MULTILINE,
    ),
    kinds=MappingProxyType(
        {"function": "function", "class": "class", "interface": "type", "type": "type", "enum": "type"}
    ),
    imports=re.compile(r"""\b(?:from|import|require\()[ \t]{0,9}['"](?P<module>[^'"\n]{1,300})['"]"""),
)
_GO = Language(
    name="go",
    apart=_one_of(_SLASHES, _quoted('"'), _quoted("'"), _BACKTICK),
    definitions=re.compile(
        rf"^(?P<indent>)(?P<kind>func|type|var|const)[ \t]+(?:\([^)\n]{{0,200}}\)[ \t]*)?{_NAME}", re.MULTILINE
    ),
    kinds=MappingProxyType({"func": "function", "type": "type"}),
    imports=re.compile(
        r'^[ \t]{0,9}(?:import[ \t]+)?(?:[\w.]{1,100}[ \t]+)?"(?P<module>[\w./-]{1,300})"', re.MULTILINE
    ),
)
_RUST = Language(
    name="rust",
    apart=_one_of(_SLASHES, _quoted('"', over_lines=True)),
    definitions=re.compile(
        r"^(?P<indent>[ \t]{0,200})(?:pub(?:\([^)\n]{0,100}\))?[ \t]+)?(?:(?:async|const|unsafe|default)[ \t]+){0,4}"
        rf"(?P<kind>fn|struct|enum|trait|type|union|mod|static)[ \t]+{_NAME}",
        re.MULTILINE,
    ),
    kinds=MappingProxyType(
        {"fn": "function", "struct": "type", "enum": "type", "trait": "type", "type": "type", "union": "type"}
    ),
    imports=re.compile(r"^[ \t]{0,200}(?:pub[ \t]+)?(?:use|mod)[ \t]+(?P<module>[\w:]{1,300})", re.MULTILINE),
)
_PROSE = Language(name="prose")
_DATA = Language(name="data")

LANGUAGES: Mapping[str, Language] = MappingProxyType(
    {language.name: language for language in (_PYTHON, _SCRIPT, _GO, _RUST, _PROSE, _DATA)}
)
"""Every language by its name. Of `data` only the path is known."""

_BY_ENDING: Mapping[str, str] = {
    **dict.fromkeys((".py", ".pyi"), "python"),
    **dict.fromkeys((".js", ".jsx", ".ts", ".tsx", ".mjs", ".cjs"), "javascript"),
    ".go": "go",
    ".rs": "rust",
    **dict.fromkeys((".md", ".rst", ".txt", ".adoc"), "prose"),
    **dict.fromkeys((".html", ".css", ".sql", ".sh", ".toml", ".cfg", ".ini", ".yaml", ".yml"), "prose"),
}
_DOCUMENTS = frozenset({".md", ".rst", ".txt", ".adoc"})
_TEST_NAME = re.compile(r"test_.+|.+_test|.+[.-](?:test|spec)|tests?|conftest")
_TEST_FOLDERS = frozenset({"test", "tests", "testing", "__tests__", "spec"})


def language_of(path: str) -> Language:
    """The language that the path's ending names; `data` for what nobody reads as text."""
    return LANGUAGES[_BY_ENDING.get(_ending(path), "data")]


def role_of(path: str) -> Role:
    """What the file is for, by its path alone."""
    if _ending(path) in _DOCUMENTS:
        return "document"
    if language_of(path).definitions is None:
        return "other"
    folders = path.split("/")[:-1]
    is_test = _TEST_NAME.fullmatch(stem_of(path)) is not None or not _TEST_FOLDERS.isdisjoint(folders)
    return "test" if is_test else "source"


def stem_of(path: str) -> str:
    """The file's name without its ending."""
    return path.rsplit("/", 1)[-1].removesuffix(_ending(path))


def _ending(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    return f".{name.rsplit('.', 1)[1].lower()}" if "." in name[1:] else ""
