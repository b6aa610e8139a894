"""How the words of files are read in each language: what is no code in them, and how they import.

Nothing here recurses or backtracks: every expression is linear in the text, with possessive repeats where it matters.
Definitions are read by grammars, in a process that hostile source text may end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from fleet.knowledge.syntax import language_at

Role = Literal["source", "test", "document", "other"]


@dataclass(frozen=True, slots=True)
class Language:
    """One language, by what in its files is no code and by how it imports. Its grammar says what a file defines."""

    name: str
    """For code also that of the grammar."""
    apart: re.Pattern[str] | None = None
    """Comments and texts; None: all of it is prose."""
    imports: re.Pattern[str] | None = None
    """Groups `module`, and `names` where single names are taken from it."""
    quotes_imports: bool = False
    """Whether what it imports stands in quotes."""


# `(?>(?:...)*)` and not `(?:...)*+`: before Python 3.11.4 the latter matches wrongly.
def _quoted(mark: str, *, over_lines: bool = False) -> str:
    stop = "" if over_lines else r"\n"
    return rf"{mark}[^{mark}\\{stop}]*+(?>(?:\\[\s\S][^{mark}\\{stop}]*+)*)(?:{mark}|$|(?=\n))"


def _tripled(mark: str) -> str:
    return rf"{mark * 3}[^{mark}\\]*+(?>(?:(?:\\[\s\S]|{mark}(?!{mark}{mark}))[^{mark}\\]*+)*)(?:{mark * 3}|\Z)"


_HASH = r"#[^\n]*"
_SLASHES = r"//[^\n]*|/\*[^*]*+(?>(?:\*(?!/)[^*]*+)*)(?:\*/|\Z)"
_BACKTICK = _quoted("`", over_lines=True)


def _one_of(*forms: str, flags: int = 0) -> re.Pattern[str]:
    return re.compile("|".join(forms), flags)


_PYTHON = Language(
    name="python",
    apart=_one_of(_tripled('"'), _tripled("'"), _quoted('"'), _quoted("'"), _HASH),
    imports=re.compile(
        r"^[ \t]{0,200}(?:from[ \t]+(?P<module>[.\w]{1,300})[ \t]+import[ \t]*(?P<names>\([^)]{0,4000}|[^\n(]{0,1000})"
        r"|import[ \t]+(?P<modules>[\w., \t]{1,1000}))",
        re.MULTILINE,
    ),
)
_SCRIPT = Language(
    name="javascript",
    apart=_one_of(_SLASHES, _quoted('"'), _quoted("'"), _BACKTICK),
    imports=re.compile(r"""\b(?:from|import|require\()[ \t]{0,9}['"](?P<module>[^'"\n]{1,300})['"]"""),
    quotes_imports=True,
)
_GO = Language(
    name="go",
    apart=_one_of(_SLASHES, _quoted('"'), _quoted("'"), _BACKTICK),
    imports=re.compile(
        r'^[ \t]{0,9}(?:import[ \t]+)?(?:[\w.]{1,100}[ \t]+)?"(?P<module>[\w./-]{1,300})"', re.MULTILINE
    ),
    quotes_imports=True,
)
_RUST = Language(
    name="rust",
    apart=_one_of(_SLASHES, _quoted('"', over_lines=True)),
    imports=re.compile(r"^[ \t]{0,200}(?:pub[ \t]+)?(?:use|mod)[ \t]+(?P<module>[\w:]{1,300})", re.MULTILINE),
)
_JAVA = Language(
    name="java",
    apart=_one_of(_SLASHES, _tripled('"'), _quoted('"'), _quoted("'")),
    imports=re.compile(r"^[ \t]{0,200}import[ \t]+(?:static[ \t]+)?(?P<module>\w[\w.]{0,299}(?<!\.))", re.MULTILINE),
)
_C = Language(
    name="c",
    apart=_one_of(_SLASHES, _quoted('"'), _quoted("'")),
    imports=re.compile(r'^[ \t]{0,200}#[ \t]{0,20}include[ \t]{0,20}["<](?P<module>[^">\n]{1,300})[">]', re.MULTILINE),
    quotes_imports=True,
)
_CSHARP = Language(
    name="csharp",
    apart=_one_of(_SLASHES, _tripled('"'), _quoted('"'), _quoted("'")),
    imports=re.compile(
        r"^[ \t]{0,200}(?:global[ \t]+)?using[ \t]+(?:static[ \t]+)?(?P<module>\w[\w.]{0,299})[ \t]{0,20};",
        re.MULTILINE,
    ),
)
_RUBY = Language(
    name="ruby",
    apart=_one_of(_quoted('"', over_lines=True), _quoted("'", over_lines=True), _HASH),
    imports=re.compile(
        r"""^[ \t]{0,200}require(?:_relative)?[ \t]{0,20}\(?[ \t]{0,20}['"](?P<module>[^'"\n]{1,300})['"]""",
        re.MULTILINE,
    ),
    quotes_imports=True,
)
_PHP = Language(
    name="php",
    apart=_one_of(_SLASHES, _quoted('"', over_lines=True), _quoted("'", over_lines=True), _HASH),
    imports=re.compile(r"^[ \t]{0,200}use[ \t]+(?:(?:function|const)[ \t]+)?(?P<module>[\w\\]{1,300})", re.MULTILINE),
)
_PROSE = Language(name="prose")
_DATA = Language(name="data")
_ALIKE: Mapping[str, Language] = {
    **dict.fromkeys(("typescript", "tsx"), _SCRIPT),
    **dict.fromkeys(("kotlin", "scala", "swift"), _JAVA),
    "cpp": _C,
}
"""Languages that differ from another one in their grammar alone."""

LANGUAGES: Mapping[str, Language] = MappingProxyType(
    {
        **{
            language.name: language
            for language in (_PYTHON, _SCRIPT, _GO, _RUST, _JAVA, _C, _CSHARP, _RUBY, _PHP, _PROSE, _DATA)
        },
        **{name: replace(language, name=name) for name, language in _ALIKE.items()},
    }
)
"""Every language by its name. Of `data` only the path is known."""

_PROSE_ENDINGS = frozenset(
    {
        *(".md", ".rst", ".txt", ".adoc", ".html", ".css", ".sql", ".sh"),
        *(".toml", ".cfg", ".ini", ".yaml", ".yml"),
    }
)
_DOCUMENTS = frozenset({".md", ".rst", ".txt", ".adoc"})
_TEST_NAME = re.compile(r"test_.+|.+_(?:test|spec)|.+[.-](?:test|spec)|tests?|conftest|[A-Z]\w*Tests?")
_TEST_FOLDERS = frozenset({"test", "tests", "testing", "__tests__", "spec"})


def language_of(path: str) -> Language:
    """The language that the path's ending names; `data` for what nobody reads as text."""
    if _ending(path) in _PROSE_ENDINGS:
        return _PROSE
    return LANGUAGES.get(language_at(path), _DATA)


def role_of(path: str) -> Role:
    """What the file is for, by its path alone."""
    if _ending(path) in _DOCUMENTS:
        return "document"
    if language_of(path).apart is None:
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
