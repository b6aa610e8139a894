"""What makes a house hard to find one's way in is counted, and only falls."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ("fleet", "serve_apps", "actors", "cluster")
MOST_PACKAGES, MOST_MODULES, MOST_FOLDERS, MOST_IMPORTS, MOST_WORDS, SMALL = 34, 15, 8, 20, 20, 80

CEILINGS = {
    "small modules with one importer in their folder": 10,
    "lines with `pyright: ignore`": 94,
    "parameters of any mapping in story, owner and desk": 21,
    "public class names that several modules define": 18,
    "docstrings with a long first sentence": 4,
}
"""How many there are today. A rise fails; a fall by more than a twentieth has to be written down here."""

CROWDED = {
    "actors": 18,
    "fleet/context": 20,
    "fleet/desk": 18,
    "fleet/events": 19,
    "fleet/owner/duties": 21,
    "fleet/planning": 16,
    "fleet/report": 16,
    "fleet/sandbox/inside": 55,
    "fleet/story": 23,
    "fleet/story/commands": 16,
    "serve_apps/routes": 32,
    "serve_apps/wire": 16,
}
"""Folders with more modules or folders than a reader surveys, and how many."""

WIDE = {
    "fleet/bench/service/council.py": 21,
    "fleet/cli/app.py": 25,
    "fleet/cli/story/goal.py": 22,
    "fleet/cli/story/run.py": 29,
    "fleet/cli/story/stories.py": 22,
    "fleet/desk/stories.py": 31,
    "fleet/desk/tools/desk.py": 24,
    "fleet/graph/effects/table.py": 23,
    "fleet/owner/commands/handler.py": 30,
    "fleet/owner/duties/councils.py": 28,
    "fleet/owner/duties/delivery.py": 24,
    "fleet/owner/journal/journal.py": 27,
    "fleet/owner/story_owner.py": 22,
    "fleet/sandbox/backends/bubblewrap/backend.py": 32,
    "fleet/sandbox/backends/containers/backend.py": 26,
    "fleet/sandbox/backends/kubernetes/backend.py": 25,
    "fleet/story/evolve/story.py": 22,
    "fleet/wiring/council.py": 47,
    "fleet/wiring/desk/desk.py": 36,
    "fleet/wiring/desk/projects.py": 22,
    "fleet/wiring/sandbox/services.py": 25,
    "fleet/wiring/sandbox/tools.py": 24,
    "serve_apps/parts.py": 24,
    "serve_apps/routes/gateway.py": 50,
}
"""Modules that import more modules of this repository than a reader follows, and how many."""

NOUNS = frozenset({"finding", "key_ring", "planning", "routing"})
"""Names in -ing of things that are called so."""


@cache
def trees() -> dict[str, ast.Module]:
    """The modules by path."""
    paths = sorted(p for folder in CODE for p in (ROOT / folder).rglob("*.py") if "node_modules" not in p.parts)
    return {str(p.relative_to(ROOT)): ast.parse(p.read_text()) for p in paths if not p.name.endswith("_pb2.py")}


def fleet() -> dict[str, ast.Module]:
    """The modules of `fleet/` by path."""
    return {path: tree for path, tree in trees().items() if path.startswith("fleet/")}


def module_of(path: str) -> str:
    """The dotted name of a module."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def imports() -> dict[str, frozenset[str]]:
    """Which modules of this repository each module imports, by path."""
    paths = {module_of(path): path for path in trees()}

    def named(tree: ast.Module) -> Iterator[str]:
        for node in ast.walk(tree):
            match node:
                case ast.ImportFrom(module=str(module)):
                    yield module
                    yield from (f"{module}.{alias.name}" for alias in node.names)
                case ast.Import():
                    yield from (alias.name for alias in node.names)
                case _:
                    pass

    is_empty = {path for path, tree in trees().items() if len(tree.body) <= 1 and path.endswith("__init__.py")}
    return {
        path: frozenset(paths[name] for name in named(tree) if name in paths) - {path} - is_empty
        for path, tree in trees().items()
    }


def crowded() -> dict[str, int]:
    """Folders over the limits: their modules, or their folders where only these are too many."""
    modules = Counter(str(Path(path).parent) for path in trees() if not path.endswith("__init__.py"))
    folders = Counter(str(Path(folder).parent) for folder in {str(Path(path).parent) for path in trees()})
    many = {folder: n for folder, n in folders.items() if n > MOST_FOLDERS and folder not in (".", "fleet")}
    return many | {folder: n for folder, n in modules.items() if n > MOST_MODULES}


def wide() -> dict[str, int]:
    """Modules that import more than the limit."""
    return {path: len(found) for path, found in imports().items() if len(found) > MOST_IMPORTS}


def satellites() -> list[str]:
    """Small modules of `fleet/` that one module alone imports, of the same folder: a reader needs both together."""
    importers: dict[str, set[str]] = {}
    for path, found in imports().items():
        for one in found:
            importers.setdefault(one, set()).add(path)
    return [
        path
        for path in fleet()
        if len((ROOT / path).read_text().splitlines()) < SMALL
        and len(by := importers.get(path, set())) == 1
        and Path(path).parent == Path(next(iter(by))).parent
    ]


def ignored_types() -> list[str]:
    """Lines of `fleet/` that the type checker is told to pass over."""
    return [p for p in fleet() for line in (ROOT / p).read_text().splitlines() if "pyright: ignore" in line]


def untyped_bodies() -> list[str]:
    """Parameters that are any mapping, where a story is decided, owned and shown."""

    def of(path: str, tree: ast.Module) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                yield from (
                    f"{path}:{node.name}"
                    for a in arguments
                    if a.annotation and "dict[str, Any]" in ast.unparse(a.annotation)
                )

    places = ("fleet/story/", "fleet/owner/", "fleet/desk/")
    return [one for path, tree in fleet().items() if path.startswith(places) for one in of(path, tree)]


def classes_of_one_name() -> list[str]:
    """Public class names that more than one module of `fleet/` defines."""
    names = Counter(
        node.name
        for tree in fleet().values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    return [name for name, times in names.items() if times > 1]


def _docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text


def first_sentence(docstring: str) -> str:
    """What a docstring begins with, up to the end of its sentence."""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return re.split(r"(?<=[.!?:])\s", paragraph, maxsplit=1)[0]


def long_sentences() -> list[str]:
    """Docstrings of `fleet/` whose first sentence has more words than one takes in at once."""
    texts = (first_sentence(text) for tree in fleet().values() for text in _docstrings(tree))
    return [text for text in texts if len(text.split()) > MOST_WORDS]


COUNTS = {
    "small modules with one importer in their folder": satellites,
    "lines with `pyright: ignore`": ignored_types,
    "parameters of any mapping in story, owner and desk": untyped_bodies,
    "public class names that several modules define": classes_of_one_name,
    "docstrings with a long first sentence": long_sentences,
}


@pytest.mark.parametrize("what", COUNTS)
def test_figure_of_the_house_never_rises(what: str) -> None:
    there, ceiling = COUNTS[what](), CEILINGS[what]
    some = "; ".join(there[:5])
    assert len(there) <= ceiling, f"{what}: it was {ceiling}, now {len(there)}: take back what was added ({some}; ...)"
    least = ceiling - max(1, ceiling // 20)
    assert len(there) >= least, f"{what}: it was {ceiling}, now {len(there)}: lower the figure in CEILINGS"


def _judged(there: dict[str, int], listed: dict[str, int], limit: str) -> None:
    more = [f"{name}: {n}, was {listed.get(name, 'within')}" for name, n in there.items() if n > listed.get(name, 0)]
    assert more == [], f"the limit is {limit}: split along a natural seam"
    gone = sorted(listed.keys() - there.keys())
    assert gone == [], f"within the limit of {limit} now: take them out of the list"


def test_folder_holds_what_a_reader_surveys() -> None:
    _judged(crowded(), CROWDED, f"{MOST_MODULES} modules and {MOST_FOLDERS} folders")


def test_module_imports_what_a_reader_follows() -> None:
    _judged(wide(), WIDE, f"{MOST_IMPORTS} modules")


def test_fleet_has_at_most_so_many_packages() -> None:
    assert len({path.split("/")[1] for path in fleet() if path.count("/") > 1}) <= MOST_PACKAGES


def test_module_is_named_for_a_thing() -> None:
    names = {path for path in fleet() if Path(path).stem.endswith("ing") and Path(path).stem not in NOUNS}
    assert sorted(names) == [], "name it by a noun, or by a verb for what its functions do"


def _literals(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ...]]:
    for node in nodes:
        match node:
            case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple(elts=values)) if len(values) > 2:
                yield tuple(ast.unparse(value) for value in values)
            case _:
                pass


def test_closed_name_that_packages_share_is_spelled_once() -> None:
    shared = Path("fleet/kernel/types.py")
    known = set(_literals(ast.walk(trees()[str(shared)])))
    again = [
        f"{path}: {' | '.join(values)}"
        for path, tree in trees().items()
        if path != str(shared)
        for values in _literals(ast.walk(tree))
        if values in known
    ]
    assert again == [], f"import the name from {shared}"
    named = Counter(
        values
        for tree in fleet().values()
        for values in _literals(node.value for node in tree.body if isinstance(node, ast.Assign))
    )
    twice = [" | ".join(values) for values, times in named.items() if times > 1]
    assert twice == [], f"two modules name the same choice: define it in {shared}"
    assert len(known) > 20
