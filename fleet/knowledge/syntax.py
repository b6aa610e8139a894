"""Definitions and syntax errors of source files, by the grammars of ast-grep, read in processes of their own.

The grammars are native code and the files are nobody's that we trust: what crashes, hangs or swells while a file is
read ends that process, never the one that asked. Such a process is started when it is first needed and stays for the
next files: until it has had nothing to do for a minute, has grown large or old, or the one that asked ends. This file
is that process too: it is run by its path, without the rest of the product, with nothing in its environment.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

MAX_BYTES = 512 << 10
"""Of a file that is read."""
_BATCH_BYTES = 256 << 10
"""Of the files that a process is given at a time where there are many: it must have time for all of them."""
_CPU_S, _WAIT_S, _MEMORY = 10, 30, 2 << 30
"""What a process may use for the files that it is given at a time, and how much memory ever."""
_IDLE_S, _OLD_S, _LARGE = 60, 300, 256 << 20
"""A process ends when it had nothing to do for so long, has used so much processor time, or holds so much."""
_MOST, _TOGETHER = 4, 2
"""Processes at a time, and those that read one tree."""
_MAX_SYMBOLS, _MAX_NAME = 2_000, 200
_LOSSES = 3
"""Files given at a time that may end the process that reads them; those after them are not read."""
_LANGUAGES: Mapping[str, str] = {
    **dict.fromkeys((".py", ".pyi"), "python"),
    **dict.fromkeys((".js", ".jsx", ".mjs", ".cjs"), "javascript"),
    **dict.fromkeys((".ts", ".mts", ".cts"), "typescript"),
    **dict.fromkeys((".cpp", ".cc", ".cxx", ".hpp", ".hh", ".hxx", ".h"), "cpp"),
    **dict.fromkeys((".yaml", ".yml"), "yaml"),
    **dict.fromkeys((".kt", ".kts"), "kotlin"),
    **{".tsx": "tsx", ".go": "go", ".rs": "rust", ".java": "java", ".c": "c", ".cs": "csharp", ".rb": "ruby"},
    **{".php": "php", ".swift": "swift", ".scala": "scala", ".json": "json", ".toml": "toml"},
}
_CLASSES = {"class_declaration": "class", "interface_declaration": "type", "enum_declaration": "type"}
_SCRIPT = {
    **_CLASSES,
    **dict.fromkeys(("function_declaration", "generator_function_declaration", "method_definition"), "function"),
    "variable_declarator": "value",
}
_TYPED = {
    **_SCRIPT,
    **dict.fromkeys(("type_alias_declaration", "internal_module"), "type"),
    "abstract_class_declaration": "class",
    **dict.fromkeys(("abstract_method_signature", "method_signature", "function_signature"), "function"),
}
_C = {
    "function_definition": "function",
    **dict.fromkeys(("struct_specifier", "union_specifier", "enum_specifier", "type_definition"), "type"),
    **dict.fromkeys(("preproc_def", "preproc_function_def"), "value"),
    "function_declarator": "function",
}
_KINDS: Mapping[str, Mapping[str, str]] = {
    "python": {"class_definition": "class", "function_definition": "function", "assignment": "value"},
    "javascript": {k: v for k, v in _SCRIPT.items() if k not in ("interface_declaration", "enum_declaration")},
    "typescript": _TYPED,
    "tsx": _TYPED,
    "go": {
        **dict.fromkeys(("function_declaration", "method_declaration"), "function"),
        **dict.fromkeys(("type_spec", "type_alias"), "type"),
        **dict.fromkeys(("const_spec", "var_spec"), "value"),
    },
    "rust": {
        **dict.fromkeys(("function_item", "function_signature_item", "macro_definition"), "function"),
        **dict.fromkeys(("struct_item", "enum_item", "trait_item", "type_item", "union_item", "mod_item"), "type"),
        **dict.fromkeys(("const_item", "static_item"), "value"),
        "impl_item": "",
    },
    "java": {
        **_CLASSES,
        **dict.fromkeys(("record_declaration", "annotation_type_declaration"), "class"),
        **dict.fromkeys(("method_declaration", "constructor_declaration"), "function"),
        "field_declaration": "value",
    },
    "c": _C,
    "cpp": {**_C, "class_specifier": "class", "namespace_definition": "type", "alias_declaration": "type"},
    "csharp": {
        **_CLASSES,
        **dict.fromkeys(("struct_declaration", "record_declaration"), "class"),
        **dict.fromkeys(("namespace_declaration", "delegate_declaration"), "type"),
        **dict.fromkeys(("method_declaration", "constructor_declaration"), "function"),
        "property_declaration": "value",
    },
    "ruby": {
        **dict.fromkeys(("class", "module"), "class"),
        **dict.fromkeys(("method", "singleton_method"), "function"),
    },
    "php": {
        **_CLASSES,
        "trait_declaration": "class",
        **dict.fromkeys(("function_definition", "method_declaration"), "function"),
    },
    "kotlin": {"class_declaration": "class", "object_declaration": "class", "function_declaration": "function"},
    "swift": {"class_declaration": "class", "protocol_declaration": "type", "function_declaration": "function"},
    "scala": {
        **dict.fromkeys(("class_definition", "object_definition"), "class"),
        "trait_definition": "type",
        "function_definition": "function",
    },
}
"""Kind of a node -> what it defines, by language; "" for what only lends its name to what lies in it."""
_OPAQUE = frozenset({"function", "value"})
"""A value that lies in one of these is local to it."""
_PARSED = frozenset({*_KINDS, "json", "yaml", "toml"}) - {"c", "cpp"}
"""Languages whose errors are told; macros make right C and C++ look wrong."""


class Symbol(NamedTuple):
    """A definition: what it is, its name with what it lies in, its first and last line from 1."""

    kind: str
    name: str
    line: int
    end: int


class Syntax(NamedTuple):
    """What one file holds."""

    symbols: tuple[Symbol, ...] = ()
    error: int = 0
    """First line that is no valid code; 0 when all of it is."""
    unread: str = ""
    """Why nothing is known of it; "" when it was read."""


def language_at(path: str) -> str:
    """The language that the ending of the path names; "" for one without a grammar here."""
    name = path.rpartition("/")[2]
    return _LANGUAGES.get(f".{name.rpartition('.')[2].lower()}", "") if "." in name[1:] else ""


def tells_errors(path: str) -> bool:
    """Whether a file with this name can be told to be no valid code."""
    return language_at(path) in _PARSED


def read_syntax(files: Sequence[tuple[str, str]]) -> list[Syntax]:
    """What each file, given as path and text, holds. It blocks for as long as that takes, half a minute for a loss.

    A file that ends the process that reads it is told as unread; those after it are read by another one.
    """
    return _read([(language_at(path), text) for path, text in files], errors=True)


def ask_definitions(files: Sequence[tuple[str, str]]) -> Callable[[], list[Syntax]]:
    """Begin to read what each of however many files defines; the function that is returned waits for it.

    Args:
        files: language and text of each. No errors are looked for; two processes share the files.
    """
    batches, size = list[list[tuple[str, str]]]([[]]), 0
    for language, text in files:
        if size > _BATCH_BYTES:
            batches.append([])
            size = 0
        batches[-1].append((language, text))
        size += len(text)
    threads = ThreadPoolExecutor(_TOGETHER, "grammars")
    reading = [threads.submit(_read, batch, errors=False) for batch in batches]
    threads.shutdown(wait=False)
    return lambda: [one for read in reading for one in read.result()]


def _read(files: Sequence[tuple[str, str]], *, errors: bool) -> list[Syntax]:
    read: list[Syntax] = []
    for _ in range(_LOSSES):
        if len(read) < len(files):
            read += _readers.ask(files[len(read) :], errors=errors)
            if len(read) < len(files):
                read.append(Syntax(unread="reading it took too much time or memory"))
    return read + [Syntax(unread="too many files before it could not be read")] * (len(files) - len(read))


class _Reader:
    """One process that reads files for as long as it lives; used by one thread at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
        )
        self.was_used = False
        self.stays = False
        """Whether it takes more files after those that it was last given."""

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def ask(self, files: Sequence[tuple[str, str]], *, errors: bool) -> tuple[list[Syntax], bool]:
        """What is known of the files up to the one at which the process ended, and whether time was up."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        limit = threading.Timer(_WAIT_S, stop)
        limit.daemon, rows, self.stays = True, list[Syntax](), False
        limit.start()
        try:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps([errors, files]).encode() + b"\n")
            self._process.stdin.flush()
            for row in self._process.stdout:
                if not row.endswith(b"\n"):
                    break
                if len(rows) == len(files):
                    self.stays = row == b"true\n"
                    break
                rows.append(_decoded(row))
        except BrokenPipeError:
            pass
        finally:
            limit.cancel()
        self.was_used = True
        self.stays = self.stays and not late.is_set()
        return rows, late.is_set()

    def end(self) -> None:
        """There is no such process afterwards."""
        self._process.kill()
        # What could not be written any more is of no interest.
        self._process.communicate()


class _Readers:
    """The processes that wait for files. A call takes one, or starts one; those above the limit wait for one."""

    def __init__(self) -> None:
        self.forget()
        atexit.register(self.end)
        # The other side of a pipe serves the process that made it alone.
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self._waiting, self._lock, self._free = list[_Reader](), threading.Lock(), threading.BoundedSemaphore(_MOST)

    def ask(self, files: Sequence[tuple[str, str]], *, errors: bool) -> list[Syntax]:
        """What is known of the first files, up to the one that no process could read."""
        with self._free:
            while True:
                reader = self._take()
                is_new = not reader.was_used
                rows, is_late = reader.ask(files, errors=errors)
                if reader.stays:
                    with self._lock:
                        self._waiting.append(reader)
                else:
                    reader.end()
                # One that had waited may have ended for its own reasons; a new one ends by the file.
                if rows or is_new or is_late:
                    return rows

    def _take(self) -> _Reader:
        while True:
            with self._lock:
                reader = self._waiting.pop() if self._waiting else None
            if reader is None:
                return _Reader()
            if reader.lives:
                return reader
            reader.end()

    def end(self) -> None:
        """No process waits any more."""
        with self._lock:
            ended, self._waiting = self._waiting, []
        for reader in ended:
            reader.end()


_readers = _Readers()


def _decoded(row: bytes) -> Syntax:
    symbols, error, unread = json.loads(row)
    return Syntax(tuple(Symbol(*one) for one in symbols), error, unread)


def read_file(language: str, text: str, *, errors: bool = True) -> Syntax:
    """What a file in this language holds, with its first error if `errors`; for a process that may be lost."""
    if language not in _PARSED and language not in _KINDS:
        return Syntax(unread="there is no grammar for its language")
    if len(text.encode(errors="replace")) > MAX_BYTES:
        return Syntax(unread=f"it has more than {MAX_BYTES >> 10} KiB")
    if language == "toml":
        return Syntax(error=_toml_error(text))
    from ast_grep_py import SgRoot  # noqa: PLC0415 - native code, which only that process loads

    root = SgRoot(text, language).root()
    symbols = tuple(_symbols(root, language)) if language in _KINDS else ()
    return Syntax(symbols, _error_line(root) if errors and language in _PARSED else 0)


def _toml_error(text: str) -> int:
    import tomllib  # noqa: PLC0415 - not needed by those who ask

    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = str(error).partition("line ")[2].partition(",")[0]
        return int(line) if line.isdecimal() else text.count("\n") + 1
    return 0


def _error_line(root: Any) -> int:
    """Finds the line of the smallest part that fits no rule, or of the first missing thing; 0 for neither."""
    bad = root.find_all({"rule": {"any": [{"kind": "ERROR"}, {"regex": "^$"}]}})
    spans = [
        (span.end.index - span.start.index, span.start.line + 1)
        for node in bad
        if node.kind() == "ERROR" or (node.parent() is not None and node.is_leaf() and not node.children())
        for span in [node.range()]
    ]
    return min(spans)[1] if spans else 0


def _symbols(root: Any, language: str) -> Iterator[Symbol]:
    kinds, open_, count = _KINDS[language], list[tuple[int, str, str]](), 0
    for node in root.find_all({"rule": {"any": [{"kind": kind} for kind in kinds]}}):
        span, kind = node.range(), kinds[node.kind()]
        while open_ and open_[-1][0] <= span.start.index:
            open_.pop()
        name = _name_of(node, language)[:_MAX_NAME]
        owner, around = (open_[-1][1], open_[-1][2]) if open_ else ("", "")
        if not name or (around in _OPAQUE and kind == "value") or _is_mention(node, language, around):
            continue
        qualified = f"{owner}.{name}" if owner else name
        # Without a bound a file of ever deeper classes would cost the square of its size.
        if len(open_) < 20:
            open_.append((span.end.index, qualified[-_MAX_NAME:], kind))
        if kind:
            is_method = kind == "function" and "." in qualified and around != "function"
            yield Symbol("method" if is_method else kind, qualified[-_MAX_NAME:], span.start.line + 1, _last(node))
            count += 1
            if count == _MAX_SYMBOLS:
                return


def _last(node: Any) -> int:
    end = node.range().end
    return int(end.line + (1 if end.column or not node.range().end.index else 0)) or 1


def _is_mention(node: Any, language: str, around: str) -> bool:
    """Whether it names something that is defined elsewhere, or in a part of which this is no definition."""
    kind = node.kind()
    if language == "python" and kind == "assignment":
        # Values of modules and classes; `self.x = 1` and keywords of calls are none.
        return node.field("left") is None or node.field("left").kind() != "identifier"
    if language in ("c", "cpp"):
        if kind == "function_declarator":
            parent = node.parent()
            return around == "function" or parent is None or parent.kind() not in ("declaration", "field_declaration")
        return kind.endswith("_specifier") and node.field("body") is None
    return False


def _name_of(node: Any, language: str) -> str:
    kind = node.kind()
    if kind == "impl_item":
        return str(node.field("type").text()).partition("<")[0] if node.field("type") else ""
    if kind == "assignment":
        return str(node.field("left").text()) if node.field("left") else ""
    if kind == "field_declaration" and language == "java":
        declarator = node.field("declarator")
        return str(declarator.field("name").text()) if declarator and declarator.field("name") else ""
    if kind in ("function_definition", "function_declarator", "type_definition") and language in ("c", "cpp"):
        return _declared(node)
    named = node.field("name")
    if named is None:
        kinds = ("identifier", "type_identifier", "simple_identifier", "constant", "name")
        named = next((child for child in node.children() if child.kind() in kinds), None)
    if named is None or named.kind() in ("object_pattern", "array_pattern"):
        return ""
    text = str(named.text())
    if kind == "method_declaration" and language == "go":
        return f"{_receiver(node)}.{text}"
    return text


def _receiver(node: Any) -> str:
    receiver = node.field("receiver")
    type_ = receiver.find(kind="type_identifier") if receiver else None
    return str(type_.text()) if type_ else ""


def _declared(node: Any) -> str:
    """The name within pointers, references and parameters around it."""
    for _ in range(20):
        inner = node.field("declarator") or (node.children()[-1] if node.kind() == "reference_declarator" else None)
        if inner is None:
            break
        node = inner
    return str(node.text()).replace("::", ".") if "identifier" in node.kind() or "name" in node.kind() else ""


def main() -> int:
    """Answer one line for each file, as soon as it is read: what comes after a loss is asked for again.

    After those that were given at a time another line says whether this process takes more.
    """
    for limit, most in ((resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))
    stays = True
    while stays:
        # Either of the two limits of time ends this process by a signal, whatever its native code is at.
        signal.alarm(_IDLE_S)
        asked = sys.stdin.readline()
        if not asked:
            break
        signal.alarm(_WAIT_S)
        resource.setrlimit(resource.RLIMIT_CPU, (int(_used_s()) + _CPU_S, _OLD_S + 2 * _CPU_S))
        errors, files = json.loads(asked)
        for language, text in files:
            try:
                read = read_file(language, text, errors=errors)
            except (RuntimeError, ValueError, RecursionError, MemoryError):
                read = Syntax(unread="its grammar failed")
            print(json.dumps(read), flush=True)
        stays = _used_s() < _OLD_S and _held() < _LARGE
        print(json.dumps(stays), flush=True)
    signal.alarm(0)
    return 0


def _held() -> int:
    """Bytes of memory that this process holds; what `getrusage` says may be those of the one that started it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return pages * resource.getpagesize()


def _used_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
