"""Definitions and errors in sources of many languages, and what a file that cannot be read does."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fleet.knowledge import syntax
from fleet.knowledge.syntax import MAX_BYTES, ask_definitions, language_at, read_file, read_syntax, tells_errors

SOURCES = {
    "a.js": (
        "class A {\n  constructor() {}\n  async f(x) {\n    const y = 1;\n  }\n  static g() {}\n}\nconst h = () => {\n"
        "  const z = 1;\n};\nfunction k() {}\nconst {a, b} = h;\n",
        [
            "class A 1-7",
            "method A.constructor 2-2",
            "method A.f 3-5",
            "method A.g 6-6",
            "value h 8-10",
            "function k 11-11",
        ],
    ),
    "a.ts": (
        "export interface I { m(): void }\nexport type T = string;\nexport default abstract class B<T> {\n"
        "  abstract z(): void;\n}\nenum E {A}\nnamespace N { export function q() {} }\n",
        [
            "type I 1-1",
            "method I.m 1-1",
            "type T 2-2",
            "class B 3-5",
            "method B.z 4-4",
            "type E 6-6",
            "type N 7-7",
            "method N.q 7-7",
        ],
    ),
    "a.go": (
        "package a\n\ntype (\n\tA struct{}\n\tB int\n)\nconst (\n\tX = 1\n\tY = 2\n)\nfunc (a *A) F() {}\n"
        "func G() {\n\tvar z int\n}\n",
        ["type A 4-4", "type B 5-5", "value X 8-8", "value Y 9-9", "method A.F 11-11", "function G 12-14"],
    ),
    "a.rs": (
        "pub struct S<T> { a: T }\nimpl<T> S<T> {\n  pub fn f(&self) {}\n}\ntrait Q { fn g(&self); }\n"
        "const C: i32 = 1;\n",
        ["type S 1-1", "method S.f 3-3", "type Q 5-5", "method Q.g 5-5", "value C 6-6"],
    ),
    "A.java": (
        "package x;\npublic class A<T> {\n  private int n = 1;\n  A() {}\n  int f() { return 1; }\n"
        "  static class B { void g() {} }\n}\n"
        "record R(int x) {}\n",
        [
            "class A 2-7",
            "value A.n 3-3",
            "method A.A 4-4",
            "method A.f 5-5",
            "class A.B 6-6",
            "method A.B.g 6-6",
            "class R 8-8",
        ],
    ),
    "a.cpp": (
        "template<class T> class A { void g(); int h() { return 1; } };\nint A::k(int *x) { f(1); return 1; }\n"
        "struct S;\n"
        "namespace n { void f() {} }\nint *q(void) { return 0; }\n",
        [
            "class A 1-1",
            "method A.g 1-1",
            "method A.h 1-1",
            "method A.k 2-2",
            "type n 4-4",
            "method n.f 4-4",
            "function q 5-5",
        ],
    ),
    "a.cs": (
        "namespace N {\n  class A {\n    int P {get;set;}\n    void F() {}\n  }\n}\n",
        ["type N 1-6", "class N.A 2-5", "value N.A.P 3-3", "method N.A.F 4-4"],
    ),
    "a.rb": (
        "module M\n  class A\n    def f\n    end\n    def self.g\n    end\n  end\nend\n",
        ["class M 1-8", "class M.A 2-7", "method M.A.f 3-4", "method M.A.g 5-6"],
    ),
    "a.py": (
        "X = 1\nclass A:\n    y: int = 2\n    def f(self):\n        z = 1\n        self.q = 2\nasync def g(): pass\n",
        ["value X 1-1", "class A 2-6", "value A.y 3-3", "method A.f 4-6", "function g 7-7"],
    ),
    "a.kt": ("class A { fun g() {} }\nobject O\n", ["class A 1-1", "method A.g 1-1", "class O 2-2"]),
    "a.php": ("<?php class A { function g() {} }\n", ["class A 1-1", "method A.g 1-1"]),
}


def test_definitions_of_many_languages():
    read = read_syntax([(path, text) for path, (text, _) in SOURCES.items()])
    told = {
        path: [f"{one.kind} {one.name} {one.line}-{one.end}" for one in syntax.symbols]
        for path, syntax in zip(SOURCES, read, strict=True)
    }
    assert told == {path: symbols for path, (_, symbols) in SOURCES.items()}
    assert not any(syntax.error or syntax.unread for syntax in read)


@pytest.mark.parametrize(
    ("path", "text", "line"),
    [
        ("a.js", "const a = '';\nfunction f( {\n}\n", 2),
        ("a.js", "function f() {\n  return 1;\n", 2),
        ("a.ts", "const x: = 3\n", 1),
        ("a.go", "package a\nfunc f() {\n\tx := \n}\n", 3),
        ("a.rs", "fn f() {\n let x = ;\n}\n", 2),
        ("A.java", "class A {\n void f() { return 1 }\n}\n", 2),
        ("a.json", '{\n "a": 1,\n}\n', 2),
        ("a.yaml", "a: [1, 2\n", 1),
        ("a.toml", "[a]\nb =\n", 2),
        ("a.rb", "def f\n  1\n", 1),
        ("a.json", '{"a": ""}\n', 0),
        ("a.yaml", "a:\nb: ''\nc:\n  - \n", 0),
        ("a.toml", "a = 1\n", 0),
        ("a.js", "for (;;) {}\nconst b = ``;\n", 0),
        ("a.js", "", 0),
        ("a.go", "package a\n\nfunc f() {}\n\n", 0),
    ],
)
def test_line_of_the_first_error(path: str, text: str, line: int):
    (read,) = read_syntax([(path, text)])
    assert (read.error, read.unread) == (line, "")


def test_what_is_not_read_says_why():
    large, other = read_syntax([("a.js", "x" * (MAX_BYTES + 1)), ("a.zig", "x")])
    assert large.unread == "it has more than 512 KiB"
    assert other.unread == "there is no grammar for its language"
    assert language_at("Makefile") == ""
    assert language_at(".py") == ""
    assert not tells_errors("a.h")


def test_deep_nesting_is_read_or_told_in_time_and_those_after_it_are_read():
    deep = [("a.js", "[" * 200_000 + "]" * 200_000), ("a.rs", "fn f(){" * 20_000), ("b.go", "package a\nfunc G() {}\n")]
    began = time.monotonic()
    read = read_syntax(deep)
    assert time.monotonic() - began < 60
    assert [one.name for one in read[2].symbols] == ["G"]
    assert not read[2].unread


@pytest.fixture
def none_waits() -> Iterator[None]:
    syntax._readers.end()
    yield
    syntax._readers.end()


def _waiting() -> list[int]:
    return [reader._process.pid for reader in syntax._readers._waiting]


def _is_there(pid: int) -> bool:
    """Whether a process with this number runs, or has ended and nobody has asked how."""
    return Path(f"/proc/{pid}").exists()


def test_processes_that_are_ended_are_told_and_not_started_without_end(
    none_waits: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("fleet.knowledge.syntax._WAIT_S", 0.001)
    read = read_syntax([("b.go", "package a\n")] * 5)
    assert [one.unread for one in read] == [
        *["reading it took too much time or memory"] * 3,
        *["too many files before it could not be read"] * 2,
    ]
    assert _waiting() == []


def test_the_same_process_reads_the_next_files(none_waits: None):
    (first,) = read_syntax([("a.js", "function f() {}\n")])
    (pid,) = _waiting()
    (second,) = read_syntax([("a.go", "package a\nfunc G() {}\n")])
    assert _waiting() == [pid]
    assert [first.symbols[0].name, second.symbols[0].name] == ["f", "G"]


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_died_or_hangs_is_replaced(
    none_waits: None, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
):
    read_syntax([("a.js", "")])
    (pid,) = _waiting()
    os.kill(pid, sent)
    monkeypatch.setattr("fleet.knowledge.syntax._WAIT_S", 5)
    lost, read = read_syntax([("a.js", "function f() {}\n"), ("b.js", "function g() {}\n")])
    assert [one.name for one in read.symbols] == ["g"]
    # Nothing says that a file is not what hangs; what is dead before it is asked had other reasons.
    assert lost.unread == ("" if sent == signal.SIGKILL else "reading it took too much time or memory")
    assert pid not in _waiting()
    assert not _is_there(pid)


def test_a_process_that_ends_while_it_is_asked_loses_no_file(none_waits: None, monkeypatch: pytest.MonkeyPatch):
    read_syntax([("a.js", "")])
    (pid,) = _waiting()
    os.kill(pid, signal.SIGKILL)
    # As if it had ended just after it was looked at.
    monkeypatch.setattr(syntax._Reader, "lives", True)
    (read,) = read_syntax([("a.js", "function f() {}\n")])
    assert [one.name for one in read.symbols] == ["f"]
    assert not _is_there(pid)


def test_calls_at_once_have_processes_of_their_own_up_to_the_limit(none_waits: None):
    with ThreadPoolExecutor(12) as threads:
        read = list(threads.map(lambda n: read_syntax([("a.js", f"function f{n}() {{}}\n" * 50)])[0], range(48)))
    assert [one.symbols[0].name for one in read] == [f"f{n}" for n in range(48)]
    assert 1 <= len(_waiting()) <= 4


def test_many_files_keep_their_order_over_processes_and_a_loss(none_waits: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fleet.knowledge.syntax._BATCH_BYTES", 1_000)
    monkeypatch.setattr("fleet.knowledge.syntax._WAIT_S", 10)
    files = [("python", f"def f{n}(): pass\n" * 10) for n in range(200)]
    files[77] = ("rust", "fn f(){" * 60_000)
    read = ask_definitions(files)()
    assert [n for n, one in enumerate(read) if not one.symbols or one.symbols[0].name != f"f{n}"] in ([], [77])
    assert len(read) == 200


def test_definitions_alone_look_for_no_error():
    (read,) = ask_definitions([("python", "def f(): pass\nx = = 1\n")])()
    assert [one.name for one in read.symbols] == ["f", "x"]
    assert read.error == 0


_OWNER = (
    "import sys; from fleet.knowledge import syntax\n"
    "syntax.read_syntax([('a.js', '')])\n"
    "print(syntax._readers._waiting[0]._process.pid, flush=True)\n"
)


@pytest.mark.parametrize("how", ["return", "killed"])
def test_a_process_ends_with_the_one_that_asked(how: str):
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER + "sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert _is_there(pid)
    if how == "killed":
        owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 10
    while _is_there(pid) and time.monotonic() < deadline and "\nState:\tZ" not in _status(pid):
        time.sleep(0.02)
    assert not _is_there(pid) or "\nState:\tZ" in _status(pid)


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_child_that_is_forked_has_processes_of_its_own(none_waits: None):
    read_syntax([("a.js", "")])
    code = (
        "import os, sys; from fleet.knowledge import syntax\n"
        "syntax.read_syntax([('a.js', '')])\n"
        "was = syntax._readers._waiting[0]._process.pid\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    ok = not syntax._readers._waiting and syntax.read_syntax([('a.js', 'function f() {}')])[0].symbols\n"
        "    syntax._readers.end()\n"
        "    os._exit(0 if ok else 1)\n"
        "_, status = os.waitpid(child, 0)\n"
        "(read,) = syntax.read_syntax([('a.js', 'function g() {}')])\n"
        "sys.exit(status or read.symbols[0].name != 'g' or syntax._readers._waiting[0]._process.pid != was)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("numbers", ["1, 300, 256 << 20", "60, 0, 256 << 20", "60, 300, 1"])
def test_a_process_without_work_or_too_old_or_large_ends(
    numbers: str, none_waits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text = Path(syntax.__file__).read_text()
    line = "_IDLE_S, _OLD_S, _LARGE = 60, 300, 256 << 20"
    assert line in text
    other = tmp_path / "syntax.py"
    other.write_text(text.replace(line, f"_IDLE_S, _OLD_S, _LARGE = {numbers}"))
    monkeypatch.setattr(syntax, "__file__", str(other))
    read_syntax([("a.js", "")])
    if numbers.startswith("1,"):
        (reader,) = syntax._readers._waiting
        assert reader._process.wait(10) == -signal.SIGALRM
    else:
        assert _waiting() == []
    assert read_syntax([("a.js", "function f() {}")])[0].symbols


def test_native_grammars_are_not_loaded_where_files_are_asked_about():
    # In a process of its own: tests below load them into this one.
    code = (
        "import sys; from fleet.knowledge.syntax import read_syntax; "
        "read_syntax([('a.js', 'function f() {}')]); sys.exit('ast_grep_py' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", SOURCES)
def test_process_that_reads_says_what_its_caller_is_told(path: str):
    text, expected = SOURCES[path]
    read = read_file(language_at(path), text)
    assert [f"{one.kind} {one.name} {one.line}-{one.end}" for one in read.symbols] == expected
    assert read == read_syntax([(path, text)])[0]


@pytest.mark.parametrize(
    ("language", "text", "line"),
    [
        ("toml", "a = 1\nb = \n", 2),
        ("toml", "a = 1\n", 0),
        ("toml", "a = '", 1),
        ("json", '{"a": }', 1),
        ("python", "x = 1\n", 0),
    ],
)
def test_line_that_is_no_valid_code_is_found_by_the_process_that_reads(language: str, text: str, line: int):
    assert read_file(language, text).error == line


def test_process_that_reads_answers_file_by_file_and_says_what_it_could_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    limits: list[int] = []
    waits: list[int] = []
    monkeypatch.setattr(resource, "setrlimit", lambda limit, _: limits.append(limit))
    monkeypatch.setattr(signal, "alarm", waits.append)
    asked = [["python", "def f(): pass\n"], ["cobol", "x"], ["python", "x" * (MAX_BYTES + 1)]]
    requests = [[True, asked], [False, [["python", "x = = 1\n"]]]]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(one) + "\n" for one in requests)))

    def failing(language: str, text: str, *, errors: bool) -> syntax.Syntax:
        if language == "cobol":
            raise RuntimeError("no grammar")
        return read_file(language, text, errors=errors)

    monkeypatch.setattr(syntax, "read_file", failing)
    # The process of the tests is older and larger than one that reads may be.
    monkeypatch.setattr(syntax, "_OLD_S", 1_000_000)
    monkeypatch.setattr(syntax, "_LARGE", 1 << 50)
    assert syntax.main() == 0
    one, two, three, stays, four, stays_still = map(json.loads, capsys.readouterr().out.splitlines())
    assert one == [[["function", "f", 1, 1]], 0, ""]
    assert two == [[], 0, "its grammar failed"]
    assert three[2] == "it has more than 512 KiB"
    assert four[1:] == [0, ""]
    assert stays is stays_still is True
    assert set(limits) >= {resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE}
    # Idle and at work in turn, and no signal comes when it has ended.
    assert waits == [60, 30, 60, 30, 60, 0]
