"""Repository knowledge on a real repository: time to index, to follow one changed file, and which files are found.

The repository is the folder that REPOSITORY names (an unpacked source distribution, for one), else this Python's own
library. What is asked for is told by its docstrings: one is taken out of each of the asked files, everywhere, and its
first paragraph is the question; the file that held it is the only right answer. ripgrep searches the very same files.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.figures import Figure, percentile
from fleet.kernel.ids import Digest
from fleet.knowledge import syntax
from fleet.knowledge.languages import role_of
from fleet.knowledge.service import CodeKnowledge
from fleet.knowledge.sqlite import SqliteFactStore
from fleet.knowledge.syntax import ask_definitions
from fleet.knowledge.words import terms_of
from fleet.trees.files import FileBlobStore
from fleet.trees.tree import FileEntry, decode_tree, encode_tree

QUESTIONS, CHANGES, TOP = 200, 40, 5
_SEED = 11
_LEFT_OUT = frozenset({"site-packages", "dist-packages", "__pycache__", ".git", "node_modules"})
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Asked:
    path: str
    text: str
    first_line: int
    last_line: int


async def measure(folder: Path) -> list[Figure]:
    """The figures; those of ripgrep are missing where it is not installed."""
    root = Path(os.environ.get("REPOSITORY") or sysconfig.get_path("stdlib"))
    files = await asyncio.to_thread(_files, root)
    asked = await asyncio.to_thread(_asked, files)
    for one in asked:
        files[one.path] = _without(files[one.path], one)
    blobs, store = FileBlobStore(folder / "blobs"), SqliteFactStore(folder / "facts.sqlite")
    entries = {path: FileEntry("100644", await blobs.put(data)) for path, data in files.items()}
    tree = await blobs.put(encode_tree(entries))
    knowledge, again = CodeKnowledge(blobs, store), CodeKnowledge(blobs, store)
    cold_s, _ = await _timed(lambda: knowledge.choose_files(tree, "first"))
    warm_s, _ = await _timed(lambda: again.choose_files(tree, "first"))
    parsed_s, _ = await _timed(lambda: asyncio.to_thread(_parse_all, files))
    listing_ms = [1000 * (await _timed(lambda: _listing_of(blobs, tree)))[0] for _ in range(CHANGES)]
    follow = [both async for both in _changes(knowledge, blobs, entries, [one.path for one in asked])]
    cpu_ms = [ms for _, ms in follow]
    follow_ms = [ms for ms, _ in follow]
    read_ms, started_ms = await asyncio.to_thread(_read_by_grammars, files)
    found_ms, ours = await _ours(knowledge, tree, asked)
    store.close()
    note = f"{len(files)} files, {sum(map(len, files.values())) / 1e6:.1f} MB of {root.name}"
    figures = [
        Figure("index a repository from nothing", cold_s, "s", "ast.parse of its Python files", parsed_s),
        Figure("index it again from what was kept", warm_s, "s", "from nothing", cold_s),
        _follow(50, follow_ms, listing_ms, note),
        _follow(95, follow_ms, listing_ms, note),
        Figure("follow one changed file, processor time p50", percentile(cpu_ms, 50), "ms", note="aim: below 100 ms"),
        Figure(
            "read one file by its grammar p50",
            percentile(read_ms, 50),
            "ms",
            "by a process that is started for it",
            percentile(started_ms, 50),
        ),
    ]
    return figures + await _against_ripgrep(folder / "sources", files, asked, found_ms, ours)


def _read_by_grammars(files: dict[str, bytes]) -> tuple[list[float], list[float]]:
    """Milliseconds for each of some files: by the process that stays, and by one for that file alone."""
    stays, started = list[float](), list[float]()
    program = [sys.executable, "-I", str(syntax.__file__)]
    for path in random.Random(_SEED).sample(sorted(path for path in files if path.endswith(".py")), CHANGES):
        text = files[path].decode(errors="replace")
        stays.append(_ms(lambda text=text: ask_definitions([("python", text)])()))
        request = json.dumps([False, [["python", text]]]).encode() + b"\n"
        started.append(
            _ms(lambda asked=request: subprocess.run(program, input=asked, capture_output=True, env={}, check=True))
        )
    return stays, started


def _ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def _follow(percent: int, follow_ms: list[float], listing_ms: list[float], note: str) -> Figure:
    name, yardstick = f"follow one changed file p{percent}", "reading the tree's listing alone"
    return Figure(name, percentile(follow_ms, percent), "ms", yardstick, percentile(listing_ms, percent), note)


async def _listing_of(blobs: FileBlobStore, tree: Digest) -> int:
    return len(decode_tree(await blobs.get(tree)))


async def _against_ripgrep(
    folder: Path, files: dict[str, bytes], asked: list[_Asked], found_ms: list[float], ours: list[list[str]]
) -> list[Figure]:
    program = shutil.which("rg")
    note = f"{len(asked)} questions" + ("" if program else "; ripgrep is not on the PATH")
    if program is None:
        return [
            Figure("choose files for a task p50", percentile(found_ms, 50), "ms", note=note),
            Figure("right file first", _hits(asked, ours, 1), "%", note=note),
            Figure(f"right file among the first {TOP}", _hits(asked, ours, TOP), "%", note=note),
        ]
    await asyncio.to_thread(_write_sources, folder, files)
    rows = [await _timed(lambda one=one: _ripgrep(program, folder, one.text)) for one in asked]
    rg_ms, theirs = [seconds * 1000 for seconds, _ in rows], [found for _, found in rows]
    who = "ripgrep, most keywords first"
    return [
        Figure("choose files for a task p50", percentile(found_ms, 50), "ms", who, percentile(rg_ms, 50)),
        Figure("right file first", _hits(asked, ours, 1), "%", who, _hits(asked, theirs, 1), note),
        Figure(f"right file among the first {TOP}", _hits(asked, ours, TOP), "%", who, _hits(asked, theirs, TOP), note),
    ]


def _files(root: Path) -> dict[str, bytes]:
    """Every regular file below the folder, but for what was installed or built there."""
    found: dict[str, bytes] = {}
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT)
        for name in sorted(names):
            path = Path(place, name)
            if path.is_file() and not path.is_symlink():
                found[path.relative_to(root).as_posix()] = path.read_bytes()
    return found


def _asked(files: dict[str, bytes]) -> list[_Asked]:
    """At most one question of each source, drawn by a fixed seed."""
    rng = random.Random(_SEED)
    drawn: list[_Asked] = []
    for path, data in files.items():
        if path.endswith(".py") and role_of(path) == "source":
            told = list(_told(path, data))
            if told:
                drawn.append(rng.choice(told))
    return rng.sample(drawn, min(QUESTIONS, len(drawn)))


def _told(path: str, data: bytes) -> Iterator[_Asked]:
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and (
            said := ast.get_docstring(node)
        ):
            text, place = " ".join(said.split("\n\n")[0].split()), node.body[0]
            if 6 <= len(text.split()) <= 40:
                yield _Asked(path, text, place.lineno, place.end_lineno or place.lineno)


def _without(data: bytes, one: _Asked) -> bytes:
    lines = data.split(b"\n")
    lines[one.first_line - 1 : one.last_line] = [b""] * (one.last_line - one.first_line + 1)
    return b"\n".join(lines)


def _parse_all(files: dict[str, bytes]) -> None:
    for path, data in files.items():
        if path.endswith(".py"):
            try:
                ast.parse(data)
            except (SyntaxError, ValueError):
                continue


async def _changes(
    knowledge: CodeKnowledge, blobs: FileBlobStore, entries: dict[str, FileEntry], paths: list[str]
) -> AsyncIterator[tuple[float, float]]:
    """Milliseconds, and those of the processor, from a tree with one changed file to an answer about it."""
    for number, path in enumerate(paths[:CHANGES]):
        data = await blobs.get(entries[path].blob) + f"\n\ndef changed_{number}(): ...\n".encode()
        changed = {**entries, path: FileEntry("100644", await blobs.put(data))}
        tree = await blobs.put(encode_tree(changed))
        before = time.process_time()
        seconds, found = await _timed(
            lambda tree=tree, number=number: knowledge.choose_files(tree, f"changed_{number}")
        )
        assert found[0].path == path, f"{path} was changed and {found[0].path} was found"
        yield seconds * 1000, (time.process_time() - before) * 1000


async def _ours(knowledge: CodeKnowledge, tree: Digest, asked: list[_Asked]) -> tuple[list[float], list[list[str]]]:
    await knowledge.choose_files(tree, "back to the tree")
    rows = [await _timed(lambda one=one: knowledge.choose_files(tree, one.text, limit=TOP)) for one in asked]
    return [seconds * 1000 for seconds, _ in rows], [[file.path for file in found] for _, found in rows]


def _write_sources(folder: Path, files: dict[str, bytes]) -> None:
    """The files that may be answers, and no others."""
    for path, data in files.items():
        if role_of(path) == "source":
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)


async def _ripgrep(program: str, folder: Path, text: str) -> list[str]:
    """The files with the most different keywords of the text, then with the most of them."""
    words = [w.lower() for w in re.findall(r"[A-Za-z_]\w\w+", text) if terms_of(w)]
    flags = [part for word in dict.fromkeys(words) for part in ("-e", word)]
    command = [program, "-oiF", "--no-heading", "--with-filename", "--no-line-number", "--no-ignore", *flags, "."]
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    found: dict[str, Counter[str]] = {}
    for line in printed.decode(errors="replace").splitlines():
        path, _, word = line.partition(":")
        found.setdefault(path.removeprefix("./"), Counter())[word.lower()] += 1
    return sorted(found, key=lambda path: (-len(found[path]), -found[path].total(), path))[:TOP]


def _hits(asked: list[_Asked], answers: list[list[str]], top: int) -> float:
    """Percent of the questions whose file is among the first answers."""
    return 100 * sum(one.path in found[:top] for one, found in zip(asked, answers, strict=True)) / len(asked)


async def _timed(work: Callable[[], Awaitable[_T]]) -> tuple[float, _T]:
    began = time.perf_counter()
    result = await work()
    return time.perf_counter() - began, result
