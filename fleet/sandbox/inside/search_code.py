"""Search the workspace: text, symbols, references, outline, semantic, structure (RT-46). No project code is run.

Input, `/inputs/search.json`: {"op": ..., "query": text, "path": text, "max_results": n}, and `/inputs/symbols.json`
with the definitions of each file where the operation is about them: {path: [[kind, name, line, end], ...]}. One JSON
object on standard output: {"total": n, "items": [...]}. `semantic` ranks pieces of files by the words they share with
the query (BM25), no model is asked. `structure` takes a pattern of ast-grep and a language: `$A` is one node, `$$$A`
any number of them.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

MAX_FILE_BYTES = 2 << 20
MAX_LINE_CHARS = 400
MAX_RESULTS = 1_000
DEFAULT_RESULTS = 100
PIECE_LINES = 40
SKIPPED = {".git", "node_modules", "__pycache__", ".venv", "target", ".tox", ".mypy_cache", ".ruff_cache"}
SYMBOLS: dict[str, list[Symbol]] = {}
"""Definitions by path, as they were sent along."""


class Symbol(NamedTuple):
    """A definition: what it is, its name with the classes around it, where it begins and ends (lines from 1)."""

    kind: str
    name: str
    line: int
    end: int


def files(root: Path, below: str) -> Iterator[tuple[str, str]]:
    """Path and text of every text file below the path, sorted; links are not followed."""
    start = root if below in ("", ".") else root / below
    for path in sorted(_walk(start)):
        if not stat.S_ISREG(path.lstat().st_mode) or path.lstat().st_size > MAX_FILE_BYTES:
            continue
        data = path.read_bytes()
        if b"\0" not in data[:8192]:
            yield path.relative_to(root).as_posix(), data.decode(errors="replace")


def _walk(start: Path) -> Iterator[Path]:
    if not start.is_dir() or start.is_symlink():
        if start.is_file() and not start.is_symlink():
            yield start
        return
    for folder, folders, names in os.walk(start):
        folders[:] = [name for name in folders if name not in SKIPPED]
        yield from (Path(folder) / name for name in names)


def symbols_of(path: str) -> list[Symbol]:
    """The definitions of a file, in order."""
    return SYMBOLS.get(path, [])


def search_text(root: Path, request: dict[str, Any]) -> Iterator[dict[str, object]]:
    """Lines that match the regular expression; a query that is none is looked for as it stands."""
    try:
        pattern = re.compile(request["query"])
    except re.error:
        pattern = re.compile(re.escape(request["query"]))
    for path, text in files(root, request["path"]):
        for n, line in enumerate(text.split("\n"), 1):
            if pattern.search(line[: MAX_LINE_CHARS * 10]):
                yield {"path": path, "line": n, "text": line[:MAX_LINE_CHARS]}


def search_symbols(root: Path, request: dict[str, Any]) -> Iterator[dict[str, object]]:
    """Definitions whose name holds the query, whatever the letter case."""
    part = request["query"].casefold()
    for path, _ in files(root, request["path"]):
        for symbol in symbols_of(path):
            if part in symbol.name.casefold():
                yield _row(path, symbol)


def outline(root: Path, request: dict[str, Any]) -> Iterator[dict[str, object]]:
    """Every definition below the path."""
    for path, _ in files(root, request["path"]):
        yield from (_row(path, symbol) for symbol in symbols_of(path))


def _row(path: str, symbol: Symbol) -> dict[str, object]:
    return {"path": path, "line": symbol.line, "end": symbol.end, "kind": symbol.kind, "name": symbol.name}


def references(root: Path, request: dict[str, Any]) -> Iterator[dict[str, object]]:
    """Lines that hold the name as a word, and whether they define it."""
    name = request["query"].strip()
    pattern = re.compile(rf"(?<![\w$]){re.escape(name)}(?![\w$])")
    for path, text in files(root, request["path"]):
        if name not in text:
            continue
        defined = {s.line for s in symbols_of(path) if s.name.rpartition(".")[2] == name}
        for n, line in enumerate(text.split("\n"), 1):
            if pattern.search(line):
                yield {"path": path, "line": n, "text": line[:MAX_LINE_CHARS], "is_definition": n in defined}


def semantic(root: Path, request: dict[str, Any]) -> Iterator[dict[str, object]]:
    """Definitions and pieces of files, the best first (BM25, k1 1.2, b 0.75)."""
    query = set(words(request["query"]))
    pieces = list(_pieces(root, request["path"]))
    average = sum(sum(p["words"].values()) for p in pieces) / len(pieces) if pieces else 1
    counts = Counter(word for piece in pieces for word in query & piece["words"].keys())
    scored: list[tuple[float, dict[str, Any]]] = []
    for piece in pieces:
        length = sum(piece["words"].values())
        score = 0.0
        for word in query & piece["words"].keys():
            rarity = math.log(1 + (len(pieces) - counts[word] + 0.5) / (counts[word] + 0.5))
            often = piece["words"][word]
            score += rarity * often * 2.2 / (often + 1.2 * (0.25 + 0.75 * length / average))
        if score > 0:
            scored.append((score, piece))
    scored.sort(key=lambda pair: (-pair[0], pair[1]["path"], pair[1]["line"]))
    for score, piece in scored:
        row = {key: piece[key] for key in ("path", "line", "end", "name")}
        yield {**row, "score_milli": round(score * 1000), "text": piece["text"]}


def _pieces(root: Path, below: str) -> Iterator[dict[str, Any]]:
    for path, text in files(root, below):
        lines = text.split("\n")
        symbols = [s for s in symbols_of(path) if s.kind not in ("value", "class")]
        spans = [(s.name, s.line, s.end) for s in symbols if s.end > s.line]
        if not spans:
            spans = [("", n + 1, min(n + PIECE_LINES, len(lines))) for n in range(0, len(lines), PIECE_LINES)]
        for name, start, end in spans:
            body = "\n".join(lines[start - 1 : end])
            counted = Counter(words(f"{path} {name} {name} {body}"))
            shown = "\n".join(lines[start - 1 : start + 2])[:MAX_LINE_CHARS]
            yield {"path": path, "name": name, "line": start, "end": end, "text": shown, "words": counted}


def words(text: str) -> list[str]:
    """Words in lower case, parts of compound names too; a plural and its singular are one word."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+", text)
    return [part.lower().removesuffix("s") if len(part) > 3 else part.lower() for part in parts]


def structure(root: Path, request: dict[str, Any]) -> Iterator[dict[str, object]]:
    """Code whose syntax tree has the form of the pattern, by ast-grep."""
    start = root if request["path"] in ("", ".") else root / request["path"]
    command = ["ast-grep", "run", f"--pattern={request['query']}", f"--lang={request['language']}", "--json=stream"]
    command += [f"--globs=!**/{name}/**" for name in sorted(SKIPPED)] + ["--no-ignore=vcs", "--threads=2"]
    # Outside of the workspace: a configuration of ast-grep that lies there takes no part.
    with subprocess.Popen([*command, "--", str(start)], cwd="/", stdout=subprocess.PIPE) as search:
        assert search.stdout is not None
        for line in search.stdout:
            yield _matched(root, json.loads(line))
    if search.returncode not in (0, 1):
        sys.exit(search.returncode)


def _matched(root: Path, match: dict[str, Any]) -> dict[str, object]:
    begin, end = match["range"]["start"]["line"], match["range"]["end"]["line"]
    path = Path(match["file"]).relative_to(root).as_posix()
    return {"path": path, "line": begin + 1, "end": end + 1, "text": match["text"][:MAX_LINE_CHARS]}


def reindex(root: Path, request: dict[str, Any]) -> Iterator[dict[str, object]]:
    """Files and definitions by ending: what a search covers. Nothing is kept between calls."""
    counts: Counter[str] = Counter()
    defined: Counter[str] = Counter()
    for path, _ in files(root, "."):
        ending = Path(path).suffix or "(none)"
        counts[ending] += 1
        defined[ending] += len(symbols_of(path))
    for ending, number in sorted(counts.items()):
        yield {"ending": ending, "files": number, "symbols": defined[ending]}


OPERATIONS = {
    "text": search_text,
    "symbols": search_symbols,
    "references": references,
    "outline": outline,
    "semantic": semantic,
    "structure": structure,
    "reindex": reindex,
}


def main(root: Path = Path("/workspace"), inputs: Path = Path("/inputs")) -> int:
    """Exit 0 with the answer on standard output."""
    request: dict[str, Any] = {"query": "", "path": ".", **json.loads((inputs / "search.json").read_bytes())}
    if (table := inputs / "symbols.json").exists():
        SYMBOLS.update({path: [Symbol(*row) for row in rows] for path, rows in json.loads(table.read_bytes()).items()})
    limit = min(int(request.get("max_results") or DEFAULT_RESULTS), MAX_RESULTS)
    total = 0
    items: list[dict[str, object]] = []
    for item in OPERATIONS[request["op"]](root, request):
        total += 1
        if total <= limit:
            items.append(item)
    print(json.dumps({"total": total, "items": items}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
