"""Finding the one JSON object in a reply."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from fleet.kernel.errors import ReplyMalformed

_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_MAX_STARTS = 20


def json_object(text: str) -> dict[str, Any]:
    """The reply's JSON object: the whole text, else a fenced block, else the first balanced braces that parse.

    Raises:
        ReplyMalformed: there is none, or it holds a float, NaN or a repeated key; `problems` says which (GL-12).
    """
    problem = "the reply holds no JSON object"
    for candidate in _candidates(text):
        try:
            # A line break in the midst of a text can mean nothing else: to take it as it stands is no guess.
            value = json.loads(
                candidate,
                strict=False,
                parse_float=_no_float,
                parse_constant=_no_float,
                object_pairs_hook=_unique_keys,
            )
        except (ValueError, RecursionError) as error:
            problem = f"the reply is no valid JSON: {error}"
            continue
        if isinstance(value, dict):
            return value  # pyright: ignore[reportUnknownVariableType]
    raise ReplyMalformed(problem, problems=[problem])


def _candidates(text: str) -> Iterator[str]:
    stripped = text.strip()
    if stripped.startswith("{"):
        yield stripped
    yield from (match.group(1).strip() for match in _FENCE.finditer(text))
    start = text.find("{")
    for _ in range(_MAX_STARTS):
        if start < 0:
            return
        end = _balanced_end(text, start)
        if end is not None:
            yield text[start:end]
        start = text.find("{", start + 1)


def _balanced_end(text: str, start: int) -> int | None:
    depth, in_string, escaped = 0, False, False
    for index in range(start, len(text)):
        char = text[index]
        if in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char in "{}":
            depth += 1 if char == "{" else -1
            if depth == 0:
                return index + 1
    return None


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"numbers must be whole, not {text}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is repeated")
    return value


_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07")
_MACHINE_LINE = re.compile(
    r"^(platform \w+ -- |rootdir: |configfile: |plugins: |cachedir: |Using --randomly-seed=|asyncio: mode=|cov-)"
)
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # Only the forms in which tools report their own time: a duration in an assertion is evidence and stays.
    (re.compile(r"\bin \d+\.\d+s\b(?: \(\d+:\d\d:\d\d\))?"), "in <time>"),
    (re.compile(r"^\s*\d+\.\d+s (call|setup|teardown)\b", re.MULTILINE), r"<time> \1"),
    (re.compile(r"\bat 0x[0-9a-fA-F]+\b"), "at <address>"),
    (re.compile(r"\b(pid|PID)([ =:]+)\d+\b"), r"\1\2<n>"),
    (re.compile(r"^==\d+==", re.MULTILINE), "==<n>=="),
)
_PYTHON_PATH = re.compile(r"(?<![\w./<>-])/(?:[\w.+@-]+/)*?(?:site-packages|dist-packages|lib/python3\.\d+)/")
_WORKSPACE_PATH = re.compile(r"(?<![\w./<>-])/workspace(?:/|\b)")
_HOST_PATH = re.compile(
    r"(?<![\w./<>-])/(?:tmp|var|home|root|usr|opt|private|Users|mnt|nix|run|proc|srv|data|work)(?:/[\w.+@-]+)*/([\w.+@-]+)"
)
_RULER = re.compile(r"^([=_-])\1{2,} (.*\S) \1{3,}$", re.MULTILINE)
_LINE = re.compile(r"^([=_-])\1{9,}$", re.MULTILINE)


def normalise_output(text: str) -> str:
    """The output without what changes from run to run or from machine to machine.

    Durations that tools report, memory addresses, process ids, absolute paths, terminal codes, the widths of rulers and
    the lines that describe the machine are replaced or left out; everything else stays as it is. Applying it twice
    changes nothing more.
    """
    plain = _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    lines = (line.rstrip() for line in plain.split("\n") if not _MACHINE_LINE.match(line))
    plain = "\n".join(lines)
    for pattern, replacement in _RULES:
        plain = pattern.sub(replacement, plain)
    plain = _PYTHON_PATH.sub("<python>/", plain)
    plain = _WORKSPACE_PATH.sub("", plain)
    plain = _HOST_PATH.sub(r"<path>/\1", plain)
    return _LINE.sub(lambda match: match.group(1) * 10, _RULER.sub(r"\1\1\1 \2 \1\1\1", plain)).strip("\n")
