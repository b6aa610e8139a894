"""Test output as it may stand in a prompt: the same run gives the same bytes on every machine."""

from __future__ import annotations

import re

__all__ = ["normalise_output"]

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
    return _LINE.sub(lambda found: found.group(1) * 10, _RULER.sub(r"\1\1\1 \2 \1\1\1", plain)).strip("\n")
