"""The numbered rules of the specification, and the tests that cite them.

`generate SPEC_DIR` writes tests/rules.txt from the specification's files, `report` prints the table by family and
`report FAMILY...` also names the rules of those families that no test cites.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "tests" / "rules.txt"
_ID = r"[A-Z]{2}-[0-9]+"
_BOLD = re.compile(rf"\*\*({_ID})\*\*")
_COMPREHENSION = (ast.ListComp, ast.GeneratorExp)
_ROW = re.compile(rf"^\|\s*({_ID})\b[^|]*\|", re.MULTILINE)


def rules_of(text: str) -> set[str]:
    """Every id that a specification file defines: in bold, or in the first column of a table."""
    return {*_BOLD.findall(text), *_ROW.findall(text)}


def in_order(ids: set[str]) -> list[str]:
    """By family, then by number."""
    return sorted(ids, key=lambda rule: (rule[:2], int(rule[3:])))


def known_rules(path: Path = LIST) -> list[str]:
    """The committed list, so that a clone needs no specification beside it."""
    return path.read_text().split()


def citations(folder: Path) -> dict[str, list[str]]:
    """Cited id -> `file:line` of every citation, read from the syntax trees without importing a test."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.rglob("*.py")):
        for rule, line in cited_in(path.read_text()):
            found[rule].append(f"{path.relative_to(folder.parent)}:{line}")
    return dict(found)


def cited_in(source: str) -> Iterator[tuple[str, int]]:
    """Every (id, line) in a `...mark.rule("XX-1", ...)` of this module, or of a table that such marks are made from."""
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


def generate(specification: Path) -> int:
    """Write the list of ids again."""
    ids = {rule for path in specification.glob("*.md") for rule in rules_of(path.read_text())}
    LIST.write_text("\n".join(in_order(ids)) + "\n")
    sys.stderr.write(f"{len(ids)} rules\n")
    return 0


def report(families: list[str]) -> int:
    """Print the table; 1 when a test cites a rule that does not exist."""
    known, found = known_rules(), citations(ROOT / "tests")
    sys.stdout.write(table(found, known) + "\n")
    if families:
        sys.stdout.write(uncited(found, known, families) + "\n")
    wrong = unknown_citations(found, known)
    for line in wrong:
        sys.stderr.write(f"no such rule: {line}\n")
    return 1 if wrong else 0


def main(arguments: list[str]) -> int:
    """Run `generate SPEC_DIR` or `report [FAMILY...]`."""
    match arguments:
        case ["generate", folder]:
            return generate(Path(folder))
        case ["report", *families]:
            return report(families)
        case _:
            sys.stderr.write((__doc__ or "") + "\n")
            return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
