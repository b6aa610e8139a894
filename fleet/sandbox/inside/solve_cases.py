"""Run many small cases against one solution and record what each showed.

`--cases` holds {"solution", "setup", "cases": [{"id", "kind": "test" | "call", "code"}], "limit_s"}. Each case runs in
a process of its own with a limit of seconds: a test passes when it raises nothing, a call shows its value in a form
that is equal for equal values. Output `cases.json` in the folder of `--out`: id -> outcome, message, value. Exit 0 when
results were written, whatever the cases said.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
import traceback
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parent))

from processes import read_all

VALUE_CHARS = 4000
MESSAGE_CHARS = 600
_PIPE_BYTES = 1 << 20


def shown(value: Any, depth: int = 0) -> str:
    """The value as text: equal for equal values, without addresses, floats to 12 digits, sets in order."""
    if depth > 8:
        return "..."
    if isinstance(value, float):
        return f"{value:.12g}" if value == value else "nan"
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value)
        pairs = sorted(f"{shown(k, depth + 1)}: {shown(v, depth + 1)}" for k, v in items.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (set, frozenset)):
        kind = "set" if isinstance(value, set) else "frozenset"
        return f"{kind}({', '.join(sorted(shown(v, depth + 1) for v in cast('set[Any]', value)))})"
    if isinstance(value, (list, tuple)):
        opened, closed = ("[", "]") if isinstance(value, list) else ("(", ")")
        return opened + ", ".join(shown(v, depth + 1) for v in cast("list[Any]", value)) + closed
    return re.sub(r"\b0x[0-9a-fA-F]{4,}\b", "0x..", repr(value))


def run_case(case: dict[str, Any], setup: str, solution: str) -> dict[str, Any]:
    """What the case shows; runs in this process."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    names: dict[str, Any] = module.__dict__
    try:
        exec(compile(setup, "setup.py", "exec"), names)
        exec(compile(solution, "solution.py", "exec"), names)
    except BaseException as error:
        return {"outcome": "broken", "message": _message(error), "value": None}
    try:
        if case["kind"] == "call":
            value = shown(eval(compile(case["code"], "case.py", "eval"), names))
            return {"outcome": "passed", "message": "", "value": value[:VALUE_CHARS]}
        exec(compile(case["code"], "case.py", "exec"), names)
    except BaseException as error:
        failed = "failed" if isinstance(error, AssertionError) else "error"
        return {"outcome": failed, "message": _message(error), "value": f"raises {type(error).__name__}"}
    return {"outcome": "passed", "message": "", "value": None}


def _message(error: BaseException) -> str:
    lines = [line.strip() for line in traceback.format_exception_only(error) if line.strip()]
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename in ("solution.py", "setup.py")]
    place = f" (at {own[-1].filename} line {own[-1].lineno})" if own else ""
    return ((lines[-1] if lines else type(error).__name__) + place)[:MESSAGE_CHARS]


def in_child(case: dict[str, Any], setup: str, solution: str, limit_s: float) -> dict[str, Any]:
    """What the case shows, whatever becomes of the process that runs it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setsid()
        _quiet()
        data = json.dumps(run_case(case, setup, solution)).encode()
        with os.fdopen(writing, "wb") as stream:
            stream.write(data)
        os._exit(0)
    os.close(writing)
    try:
        data = read_all(reading, time.monotonic() + limit_s, most=_PIPE_BYTES)
    finally:
        os.close(reading)
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if data is None:
        return {"outcome": "timeout", "message": f"took longer than {limit_s:g} seconds", "value": "timeout"}
    try:
        return json.loads(data)
    except ValueError:
        return {"outcome": "error", "message": "the process ended without a result", "value": "ended"}


def _quiet() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)


def main(argv: Sequence[str]) -> int:
    """Run all cases of `--cases` and write `cases.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=Path, default=Path("/inputs/cases.json"))
    parser.add_argument("--out", type=Path, default=Path("/workspace/out"))
    options = parser.parse_args(argv)
    document = json.loads(options.cases.read_bytes())
    results = {
        case["id"]: in_child(case, document["setup"], document["solution"], document["limit_s"])
        for case in document["cases"]
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "cases.json").write_text(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
