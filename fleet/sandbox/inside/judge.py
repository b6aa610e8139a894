"""Hold what a project's own test run says against what its code cannot write.

A runner that loads the project's code is a suspect. So each test file gets a test with a random name that must fail; a
run in which one of them does not fail says nothing. Then the tests that were there before run once more in a process
that never loads the project's code (`product_pipe`). What came of both stands in `out/judged.json`.

The request is the file that the variable JUDGE names: {"tests": {path: SHA-256}, "canaries": [paths] or null, "files":
{path: seconds} or null, "passed": [ids] or null}. With null all is tried: that is the measurement of a base, which says
what can be asked later.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).resolve().parent))

from processes import NO_CACHE, conceal, end_children
from product_pipe import ProductFinder, start_product
from stand_ins import ModuleStand

JUDGED = "out/judged.json"
_TEST_LIMIT_S, _BASE_S, _LEAST_S, _SLACK_S = 10, 60.0, 2.0, 20.0
_BASE_TEST_LIMIT_S = 3
"""On the base: what takes longer there is asked of nobody, so a test that can only hang costs no more than this."""
_TEST_MODULE = re.compile(r"test_.+\.py|.+_test\.py|tests?\.py")
_MOST_CANARIES = 300
_NOTHING = {"outcome": "missing"}


class Judge:
    """What is asked of one run of a project's tests, and what came of it."""

    def __init__(self, root: Path, request: Mapping[str, Any]) -> None:
        self.root = root
        self._tests: dict[str, str] = dict(request["tests"])
        self._asked: list[str] | None = request.get("canaries")
        self._files: dict[str, float] | None = request.get("files")
        self._passed = set(request["passed"]) if request.get("passed") is not None else None
        self._planted: dict[str, tuple[str, str, str]] = {}
        self._texts: dict[str, bytes] = {}
        self.said: dict[str, Any] = {"schema": 1, "canaries": {}, "piped": [], "late": [], "changed": []}

    @property
    def is_base(self) -> bool:
        """Whether the code is that of the base, of which nobody is suspicious."""
        return self._asked is None

    def plant(self) -> None:
        """Each test file that was there before has a test more, which must fail."""
        names = (
            self._asked if self._asked is not None else [p for p in self._tests if _TEST_MODULE.fullmatch(Path(p).name)]
        )
        for path in names[:_MOST_CANARIES]:
            file = self.root / path
            if file.is_symlink() or not file.is_file():
                continue
            name, one, two = f"test_{secrets.token_hex(6)}", secrets.token_hex(6), secrets.token_hex(6)
            self._texts[path] = file.read_bytes()
            test = f"\n\n\ndef {name}():\n    assert {one!r} == {two!r}\n"
            self._planted[path] = (name, one, two)
            file.write_bytes(self._texts[path] + test.encode())

    def settle(self, code: int, junit: Path) -> tuple[int, bool]:
        """The exit code without the planted tests, and whether the run can be believed.

        The files of the tests are as they were before.
        """
        changed = [p for p, text in self._texts.items() if self._now(p) != text + self._tail(p)]
        self._changed(changed)
        for path, text in self._texts.items():
            with contextlib.suppress(OSError):
                (self.root / path).unlink(missing_ok=True)
                (self.root / path).write_bytes(text)
        try:
            tree = ElementTree.parse(junit)  # noqa: S314 - in the sandbox, of a size that it limits
        except (OSError, ElementTree.ParseError):
            return code, self.is_base or not self._planted
        self.said["canaries"] = {path: self._taken(tree, *planted) for path, planted in self._planted.items()}
        failed = [path for path, how in self.said["canaries"].items() if how == "failed"]
        rest = [case for case in tree.iter("testcase") if any(child.tag in ("failure", "error") for child in case)]
        junit.unlink()
        tree.write(junit, encoding="utf-8", xml_declaration=True)
        if not failed:
            return code, self.is_base or not self._planted
        is_sound = self.is_base or len(failed) == len(self._planted)
        # Whoever reports a failed test and ends as if there were none speaks for neither.
        is_sound = is_sound and code not in (0, 5)
        if code == 1 and not rest:
            return (0 if next(tree.iter("testcase"), None) is not None else 5), is_sound
        return code, is_sound

    def _tail(self, path: str) -> bytes:
        name, one, two = self._planted[path]
        return f"\n\n\ndef {name}():\n    assert {one!r} == {two!r}\n".encode()

    def _now(self, path: str) -> bytes:
        try:
            return (self.root / path).read_bytes()
        except OSError:
            return b""

    def _changed(self, planted: Sequence[str]) -> None:
        """Which of the tests that were there before the run itself has changed."""
        rest = [p for p, digest in self._tests.items() if p not in self._texts and digest_of(self.root / p) != digest]
        self.said["changed"] = sorted({*planted, *rest})

    @staticmethod
    def _taken(tree: Any, name: str, one: str, two: str) -> str:
        how = "missing"
        for suite in tree.iter("testsuite"):
            for case in [c for c in suite if c.tag == "testcase" and c.get("name") == name]:
                said = "".join(child.get("message") or "" for child in case if child.tag == "failure")
                how = "failed" if one in said and two in said and how != "passed" else "passed"
                suite.remove(case)
        return how

    def ask(self, options: Sequence[str], *, spent_s: float, env: Mapping[str, str]) -> None:
        """Run the tests that were there before without the project's code in their process.

        On a base as many as there is time for; later those that passed there, all of a file or none.
        """
        if not self._tests:
            return
        request: dict[str, Any] = {"tests": self._tests, "options": list(options), "budget_s": _BASE_S}
        request |= {"limit_s": _TEST_LIMIT_S, "passed": sorted(self._passed) if self._passed is not None else None}
        if self._files is None:
            request["limit_s"] = _BASE_TEST_LIMIT_S
            self.said["piped"] = _held_outside(self.root, request, env, until_s=_BASE_S + 2 * _TEST_LIMIT_S)
            return
        files = self._chosen(max(_LEAST_S, 0.4 * spent_s))
        self.said["late"] = sorted(set(self._files) - set(files))
        limit_s = _SLACK_S + 5 * sum(self._files[name] for name in files)
        rows: dict[str, Any] = {}
        # A test that fails now and then has a second chance.
        for _ in range(2):
            if not files:
                break
            now = _held_outside(self.root, {**request, "files": files, "budget_s": None}, env, until_s=limit_s)
            rows |= {row["id"]: row for row in now if rows.get(row["id"], _NOTHING)["outcome"] != "passed"}
            files = sorted({name.partition("::")[0] for name, row in rows.items() if row["outcome"] != "passed"})
            if "" in files or any(row["id"] == "" for row in now):
                break
        self.said["piped"] = list(rows.values())

    def _chosen(self, budget_s: float) -> list[str]:
        """Files at random, as many as there is time for by what they took on the base."""
        assert self._files is not None
        names = [name for name in self._files if digest_of(self.root / name) == self._tests.get(name)]
        random.SystemRandom().shuffle(names)
        left, chosen = budget_s, list[str]()
        for name in names:
            if not chosen or self._files[name] <= left:
                chosen.append(name)
                left -= self._files[name]
        return sorted(chosen)


def digest_of(path: Path) -> str:
    """SHA-256 of a plain file, "" when there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() if not path.is_symlink() else ""
    except OSError:
        return ""


def judge_of(root: Path, env: Mapping[str, str]) -> Judge | None:
    """The judge that the environment asks for."""
    path = env.get("JUDGE")
    return Judge(root, json.loads(Path(path).read_bytes())) if path else None


def _held_outside(root: Path, request: Mapping[str, Any], env: Mapping[str, str], *, until_s: float) -> list[Any]:
    """What the process of the tests said, line by line, until it ended or the time was over."""
    reading, writing = os.pipe()
    argv = [sys.executable, "-I", *NO_CACHE, __file__, "--workspace", str(root), "--result", str(writing)]
    child = subprocess.Popen(
        argv,
        cwd=root,
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=(writing,),
    )
    os.close(writing)
    data, until, is_over = b"", time.monotonic() + until_s, True
    try:
        assert child.stdin is not None
        with contextlib.suppress(OSError):
            child.stdin.write(json.dumps(request).encode())
            child.stdin.close()
        while select.select([reading], [], [], max(0.0, until - time.monotonic()))[0]:
            part = os.read(reading, 1 << 16)
            if not part:
                is_over = False
                break
            data += part
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        end_children()
    rows: list[Any] = []
    for line in data.decode(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    if rows and "end" in rows[-1]:
        return rows[:-1]
    # Without an end there may be tests that nobody ran.
    return [*rows, {"id": "", "outcome": "late" if is_over else "lost", "s": 0}]


class Teller:
    """A pytest plugin that says how each test ended, and lets no code of the project in."""

    def __init__(
        self, stream: Any, finder: ProductFinder, roots: list[str], request: Mapping[str, Any], product: Any
    ) -> None:
        self._stream, self._finder, self._roots = stream, finder, roots
        self._until, self._product = time.monotonic() + (request["budget_s"] or 1e9), product
        self._limit_s: int = request["limit_s"]
        self._asked: list[str] | None = request["passed"]
        self._outcomes: dict[str, str] = {}
        self._started = 0.0

    def pytest_load_initial_conftests(self) -> None:
        """Modules of the tests are found; modules of the project are asked for first."""
        sys.path.extend(self._roots)
        self._first()

    def _first(self) -> None:
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(cast("Any", self._finder))
        sys.meta_path.insert(0, cast("Any", self._finder))

    def pytest_collectstart(self) -> None:
        """Whatever was put before us is behind us again."""
        self._first()

    def pytest_plugin_registered(self, plugin: Any) -> None:
        """No part of the project takes part in judging."""
        if isinstance(plugin, ModuleStand):
            raise RuntimeError("a module of the project would be a plug-in of its judge")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """What failed on the base is left out: nobody counts it, and it may take its whole time."""
        if self._asked is not None:
            asked = set(self._asked)
            items[:] = [item for item in items if item.nodeid in asked]

    def pytest_runtest_setup(self, item: Any) -> None:
        """A test has so many seconds."""
        self._started = time.monotonic()
        signal.signal(signal.SIGALRM, self._over)
        signal.alarm(self._limit_s)

    def _over(self, _number: int, _frame: Any) -> None:
        self._product.is_broken = True
        raise TimeoutError("too long")

    def pytest_runtest_logreport(self, report: Any) -> None:
        """One line for each test, at its end."""
        if report.failed or report.skipped:
            self._outcomes[report.nodeid] = "failed" if report.failed else "skipped"
        if report.when == "teardown":
            signal.alarm(0)
            outcome = self._outcomes.pop(report.nodeid, "passed")
            row = {"id": report.nodeid, "outcome": outcome, "s": round(time.monotonic() - self._started, 3)}
            self._stream.write(json.dumps(row).encode() + b"\n")
            self._stream.flush()

    def pytest_runtest_teardown(self, item: Any) -> None:
        """When the time is over the rest is left."""
        if time.monotonic() > self._until:
            item.session.shouldstop = "the time is over"


def run_outside(root: Path, result: int) -> None:
    """The process of the tests."""
    request = json.loads(sys.stdin.buffer.read())
    stream = os.fdopen(result, "wb")
    conceal()
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if entry != here]
    roots = [str(root), str(root / "src")]
    tests: dict[str, str] = request["tests"]
    trusted = _texts_of(root, tests)
    # The product says that its time is over before the test does: so it goes on to serve the tests behind that one.
    product = start_product(str(root), roots, limit_s=request["limit_s"] - 1)
    finder = ProductFinder(product, str(root), roots, trusted.__contains__)
    sys.meta_path.insert(0, cast("Any", finder))
    os.environ["PYTHONPATH"] = os.pathsep.join(roots)
    for name in ("product_pipe", "pipe_peer", "stand_ins", "processes"):
        sys.modules.pop(name, None)
    import pytest

    teller = Teller(stream, finder, roots, request, product)
    files: list[str] = request.get("files") or []
    code = int(pytest.main([*request["options"], *files], plugins=[teller]))
    stream.write(json.dumps({"end": code}).encode() + b"\n")
    stream.close()
    os._exit(0)


def _texts_of(root: Path, tests: Mapping[str, str]) -> dict[str, bytes]:
    """The trusted files as they are now; what is put in their place later is not what Python gets."""
    texts = {
        os.path.realpath(root / path): (root / path).read_bytes()
        for path, digest in tests.items()
        if path.endswith(".py") and digest_of(root / path) == digest
    }
    read = Path.read_bytes

    def read_bytes(self: Path) -> bytes:
        text = texts.get(str(self))
        return read(self) if text is None else text

    load = SourceFileLoader.get_data

    def get_data(self: SourceFileLoader, path: str) -> bytes:
        text = texts.get(str(path))
        return load(self, path) if text is None else text

    Path.read_bytes = read_bytes  # type: ignore[method-assign]
    SourceFileLoader.get_data = get_data  # type: ignore[method-assign, assignment]
    return texts


def main(argv: Sequence[str]) -> None:
    """Run the tests of standard input's request outside of the project's process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--result", type=int, required=True)
    options = parser.parse_args(argv)
    run_outside(options.workspace.resolve(), options.result)


if __name__ == "__main__":
    main(sys.argv[1:])
