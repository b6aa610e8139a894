"""The numbered rules of the specification (docs/spec), who cites them, and their anchors in the documentation.

`report` prints the table by family, and `report FAMILY...` also names the rules of those families that no test cites.
Both fail when code, a test or a document cites a rule that the specification does not define. As a hook of mkdocs the
module gives each rule an anchor, and turns the ids that pages cite into links.
"""

from __future__ import annotations

import ast
import posixpath
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SPECIFICATION = ROOT / "docs" / "spec"
# Where rules are cited; built files and the packages of the desk are not searched.
_FOLDERS = ("actors", "benchmarks", "cluster", "config", "docs", "examples", "fleet", "scripts", "serve_apps", "tests")
_SUFFIXES = frozenset({".cypher", ".md", ".proto", ".py", ".ts", ".tsx", ".yaml", ".yml"})
_SKIPPED = frozenset({"node_modules", "static", "dist", "__pycache__"})
# Its samples cite rules that do not exist.
_SAMPLES = "tests/house/test_rules.py"
_ID = r"[A-Z]{2}-[0-9]+"
_CITED = re.compile(rf"(?<![\w-])({_ID})(?![\w-])")
_BOLD = re.compile(rf"\*\*({_ID})\*\*")
_COMPREHENSION = (ast.ListComp, ast.GeneratorExp)
_ROW = re.compile(rf"^\|\s*({_ID})\b[^|]*\|", re.MULTILINE)
_DEFINITION = re.compile(rf"^(- \*\*|\|\s*)({_ID})\b")
# Fenced blocks, code and links keep their text.
_KEPT = re.compile(r"(^```.*?^```$|`[^`\n]*`|\[[^\]\n]*\]\([^)\n]*\)|<[^>\n]+>)", re.MULTILINE | re.DOTALL)


def rules_of(text: str) -> set[str]:
    """Every id that a specification file defines: in bold, or in the first column of a table."""
    return {*_BOLD.findall(text), *_ROW.findall(text)}


def definition_of(line: str) -> re.Match[str] | None:
    """What a line of the specification defines, if anything; the second group is the id."""
    return _DEFINITION.match(line)


def in_order(ids: set[str]) -> list[str]:
    """By family, then by number."""
    return sorted(ids, key=lambda rule: (rule[:2], int(rule[3:])))


@cache
def pages_of_rules(folder: Path = SPECIFICATION) -> dict[str, str]:
    """Id -> name of the page that defines it."""
    return {rule: path.name for path in sorted(folder.glob("*.md")) for rule in rules_of(path.read_text())}


def known_rules(folder: Path = SPECIFICATION) -> list[str]:
    """Every id of the specification."""
    return in_order(set(pages_of_rules(folder)))


def mentions(root: Path = ROOT) -> dict[str, list[str]]:
    """Id -> `file:line` of every place in code, tests, configuration and documents that names it."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in texts(root):
        name = path.relative_to(root).as_posix()
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for rule in _CITED.findall(line) if name != _SAMPLES else ():
                found[rule].append(f"{name}:{number}")
    return dict(found)


def texts(root: Path = ROOT) -> Iterator[Path]:
    """Every file that may cite a rule."""
    yield from sorted(root.glob("*.md"))
    for folder in _FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in _SUFFIXES and not _SKIPPED & set(path.parts):
                yield path


def citations(folder: Path) -> dict[str, list[str]]:
    """Cited id -> `file:line` of every citation, read from the syntax trees without importing a test."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.rglob("*.py")):
        for rule, line in cited_in(path.read_text()):
            found[rule].append(f"{path.relative_to(folder.parent)}:{line}")
    return dict(found)


def cited_in(source: str) -> Iterator[tuple[str, int]]:
    """Every (id, line) in a `...mark.rule("LC-1", ...)` of this module, or of a table that such marks are made from."""
    tree = ast.parse(source)
    tables = {
        t.id: n.value for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)
    }
    rows_of = {
        id(m): _rows(node, tables) for node in ast.walk(tree) if isinstance(node, _COMPREHENSION) for m in _marks(node)
    }
    for mark in _marks(tree):
        for argument in mark.args:
            yield from _ids_of(argument, mark.lineno, rows_of.get(id(mark), []))


def _marks(tree: ast.AST) -> list[ast.Call]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if ast.unparse(call.func).endswith("mark.rule")]


def _rows(node: ast.ListComp | ast.GeneratorExp, tables: Mapping[str, ast.expr]) -> list[ast.AST]:
    """Everything in the tables that a comprehension goes through."""
    names = [n.id for part in node.generators for n in ast.walk(part.iter) if isinstance(n, ast.Name)]
    return [n for name in names if name in tables for n in ast.walk(tables[name])]


def _ids_of(argument: ast.expr, line: int, rows: list[ast.AST]) -> Iterator[tuple[str, int]]:
    if isinstance(argument, ast.Constant):
        yield str(argument.value), line
        return
    texts = [(n.value, n.lineno) for n in rows if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    found = [(text, at) for text, at in texts if re.fullmatch(_ID, text)]
    yield from found or [(f"not a literal: {ast.unparse(argument)}", line)]


def unknown_citations(found: Mapping[str, list[str]], known: list[str]) -> list[str]:
    """One line per cited id that no specification file defines."""
    return [f"{rule} ({', '.join(places)})" for rule, places in sorted(found.items()) if rule not in set(known)]


def table(found: Mapping[str, list[str]], known: list[str]) -> str:
    """Rules, cited rules and the share of them, by family."""
    lines = [f"{'family':<8}{'rules':>7}{'cited':>7}{'share':>8}"]
    families = sorted({rule[:2] for rule in known})
    for family in [*families, "all"]:
        members = [rule for rule in known if family in ("all", rule[:2])]
        cited = sum(rule in found for rule in members)
        lines.append(f"{family:<8}{len(members):>7}{cited:>7}{cited / len(members):>8.0%}")
    return "\n".join(lines)


def uncited(found: Mapping[str, list[str]], known: list[str], families: list[str]) -> str:
    """The rules of these families that no test cites, one line per family."""
    return "\n".join(
        f"{family} without a test: {' '.join(r for r in known if r[:2] == family and r not in found) or 'none'}"
        for family in families
    )


def report(families: list[str]) -> int:
    """Print the table; 1 when somebody cites a rule that does not exist."""
    known, found = known_rules(), citations(ROOT / "tests")
    sys.stdout.write(table(found, known) + "\n")
    if families:
        sys.stdout.write(uncited(found, known, families) + "\n")
    wrong = unknown_citations(found, known) + unknown_citations(mentions(), known)
    for line in wrong:
        sys.stderr.write(f"no such rule in docs/spec: {line}\n")
    return 1 if wrong else 0


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs: rules get an anchor where they are defined, and a link where they are cited."""
    name = page.file.src_uri
    if not name.startswith(("spec/", "design/")):
        return markdown
    return with_links(markdown, page=name)


def with_links(text: str, *, page: str) -> str:
    """The Markdown of a page below docs/, with an anchor for each rule that it defines and links for the others."""
    pieces = _KEPT.split(text)
    return "".join(piece if i % 2 else _linked(piece, page, pieces, i) for i, piece in enumerate(pieces))


def _linked(piece: str, page: str, pieces: list[str], index: int) -> str:
    starts_line = index == 0 or pieces[index - 1].startswith("```")
    lines = piece.split("\n")
    return "\n".join(_linked_line(line, page, starts=i > 0 or starts_line) for i, line in enumerate(lines))


def _linked_line(line: str, page: str, *, starts: bool) -> str:
    def link(match: re.Match[str]) -> str:
        target = pages_of_rules().get(match.group(1))
        if target is None:
            return match.group()
        address = posixpath.relpath(f"spec/{target}", posixpath.dirname(page))
        return f"[{match.group()}]({address}#{match.group().lower()})"

    defined = definition_of(line) if starts and page.startswith("spec/") else None
    if defined is None:
        return line if line.startswith("#") else _CITED.sub(link, line)
    head, rule = defined.groups()
    return f'{head}<span id="{rule.lower()}">{rule}</span>' + _CITED.sub(link, line[defined.end() :])


def main(arguments: list[str]) -> int:
    """Run `report [FAMILY...]`."""
    match arguments:
        case ["report", *families]:
            return report(families)
        case _:
            sys.stderr.write((__doc__ or "") + "\n")
            return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
