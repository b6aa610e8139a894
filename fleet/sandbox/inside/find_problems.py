"""Run one analyser of Go, Rust or Node and leave its findings as JSON (RC-64, RC-65, RC-79).

argv: the analyser (gofmt, vet, rustfmt, clippy, eslint), the file to write, and `--exit-zero` when findings are no
failure. An analyser that did not work leaves no file. Each reader takes only the documented form of its tool.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from result_files import Unreadable, json_lines, run_tool, text_of, write_findings

RAW = Path("out/analyser.txt")
SKIPPED = ("vendor/", "node_modules/", "out/", "target/", "coverage/")
Findings = list[dict[str, Any]]


@dataclass(frozen=True)
class Analyser:
    """A command line, the exit codes with which it worked, and the reader of what it says."""

    argv: tuple[str, ...]
    worked: tuple[int, ...]
    read: Callable[[str, Path], Findings]
    reads_errors: bool = False
    """Whether standard error belongs to what is read."""


def _finding(path: str, code: str, message: str, severity: str | None = None) -> dict[str, Any]:
    row = {"filename": path, "code": code, "message": message[:500]}
    return row | {"severity": severity} if severity else row


def _relative(path: str, root: Path) -> str:
    return path.removeprefix(f"{root}/").removeprefix("./")


def read_names(text: str, root: Path, code: str) -> Findings:
    """A list of files, one a line, that a formatter would change; Unreadable when a line names no file."""
    rows: Findings = []
    for line in dict.fromkeys(text.splitlines()):
        path = _relative(line, root)
        if not (root / path).is_file():
            raise Unreadable(f"{code} names no file: {line[:80]!r}")
        if not path.startswith(SKIPPED):
            rows.append(_finding(path, code, f"{code} would change this file"))
    return rows


def read_vet(text: str, root: Path) -> Findings:
    """The objects of `go vet -json`: package -> analyser -> diagnostics, with `# package` lines between them."""
    rest = "\n".join(line for line in text.splitlines() if not line.startswith("#")).strip()
    rows: Findings = []
    while rest:
        try:
            value, end = json.JSONDecoder().raw_decode(rest)
            rest = rest[end:].strip()
            for analysers in value.values():
                for name, diagnostics in analysers.items():
                    rows += [_vetted(name, one, root) for one in diagnostics]
        except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
            raise Unreadable(f"this is not what go vet -json says: {rest[:80]!r}") from error
    return rows


def _vetted(name: str, one: dict[str, Any], root: Path) -> dict[str, Any]:
    path = _relative(text_of(one, "posn").rsplit(":", 2)[0], root)
    return _finding(path, f"vet/{name}", text_of(one, "message"), "major")


def read_clippy(text: str, root: Path) -> Findings:
    """The compiler messages of cargo's JSON; Unreadable when it does not say that the build finished."""
    messages = json_lines(text)
    if not any(message.get("reason") == "build-finished" for message in messages):
        raise Unreadable("cargo does not say that the build finished")
    rows = [_linted(m["message"]) for m in messages if m.get("reason") == "compiler-message"]
    return [one for one in rows if one]


def _linted(message: Any) -> dict[str, Any] | None:
    try:
        level: Any = message["level"]
        code: Any = message["code"] and message["code"]["code"]
        spans: list[Any] = [span for span in message["spans"] if span["is_primary"]]
        if level not in ("warning", "error") or not code or not spans:
            return None  # notes, and the summing up of what was said before
        is_compiler_error = level == "error" and not code.startswith("clippy::")
        severity = "critical" if is_compiler_error else "major" if level == "error" else "minor"
        return _finding(str(spans[0]["file_name"]), str(code), str(message["message"]), severity)
    except (KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"no message of the compiler: {str(message)[:80]!r}") from error


def read_eslint(text: str, root: Path) -> Findings:
    """ESLint's JSON; its warnings are minor."""
    try:
        return [
            _finding(
                _relative(str(entry["filePath"]), root),
                str(one["ruleId"] or "syntax"),
                str(one["message"]),
                "minor" if one["severity"] == 1 else None,
            )
            for entry in json.loads(text)
            for one in entry["messages"]
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unreadable(f"this is not ESLint's JSON: {text[:80]!r}") from error


ANALYSERS = {
    "gofmt": Analyser(("gofmt", "-l", "."), (0,), lambda text, root: read_names(text, root, "gofmt")),
    "vet": Analyser(("go", "vet", "-json", "./..."), (0,), read_vet, reads_errors=True),
    "rustfmt": Analyser(
        ("cargo", "fmt", "--all", "--", "--check", "-l"), (0, 1), lambda text, root: read_names(text, root, "rustfmt")
    ),
    "clippy": Analyser(("cargo", "clippy", "--offline", "--workspace", "--message-format=json"), (0, 101), read_clippy),
    "eslint": Analyser(("node_modules/.bin/eslint", "-f", "json", "."), (0, 1), read_eslint),
}


def main(argv: list[str]) -> int:
    """Exit 1 when there are findings. The analyser's code, at least 1, when it did not work; 127 when it is missing."""
    analyser, target, is_lenient = ANALYSERS[argv[0]], Path(argv[1]), "--exit-zero" in argv
    RAW.parent.mkdir(exist_ok=True)
    code = run_tool(analyser.argv, stdout=RAW, reads_errors=analyser.reads_errors)
    text = RAW.read_text(errors="replace")
    if code not in analyser.worked:
        sys.stderr.write(text[-2000:] if analyser.reads_errors else "")
        return code
    try:
        rows = analyser.read(text, Path.cwd())
    except Unreadable as error:
        print(f"{argv[0]} left no result: {error}", file=sys.stderr)
        return code or 1
    write_findings(target, rows)
    for one in rows:
        print(f"{one['filename']}: {one['code']}: {one['message']}", file=sys.stderr)
    return 1 if rows and not is_lenient else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
