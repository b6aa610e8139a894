"""The normal form of what a command printed: the same on another machine, on another day, under another load.

It is what a model is shown, live and in a replay. What changes from run to run is replaced; what may be evidence stays.
Lines that stand so in a file that the command names are the file's, and are shown as they are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby

from fleet.models.replies.json_reply import normalise_output

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07")
_TIME = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"
_DATE = r"(?:[A-Z][a-z]{2},? )?(?:[A-Z][a-z]{2} +\d{1,2}|\d{1,2} [A-Z][a-z]{2})"
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # How long it took, in the forms in which a shell and runners of tests report it.
    (re.compile(r"^(real|user|sys)(\s+)(?:\d+m)?\d+[.,]\d+s?$"), r"\1\2<time>"),
    (re.compile(r"^((?:ok|FAIL|---|===)\s.*?)[\t ]\(?\d+(?:\.\d+)?s\)?$"), r"\1 <time>"),
    (
        re.compile(r"\b(duration_ms:?|Time:|Duration|elapsed:?|took)(\s+)\d+(?:\.\d+)?(?: ?(?:ms|s|sec|seconds)\b)?"),
        r"\1\2<time>",
    ),
    (re.compile(r"[(\[]\d+(?:\.\d+)? ?(?:ms|s|sec|seconds)[)\]]"), "(<time>)"),
    (re.compile(r"\b\d+(?:\.\d+)? (?:n|u|\u00b5|m)?sec per loop"), "<time> per loop"),
    # When it was, where a line begins with it or says nothing else: a date within a line may be what is tested.
    (re.compile(rf"^(\[?){_TIME}"), r"\1<time>"),
    (re.compile(rf"^{_DATE},? (?:\d{{4}} )?\d\d:\d\d:\d\d(?: [AP]M)?(?: [A-Z]{{2,4}})?(?: \d{{4}})?$"), "<time>"),
    # Who ran it, and when its files were made.
    (
        re.compile(
            r"^([-dlbcps][-rwxsStT]{9})[.+@]?\s+\d+\s+\S+\s+\S+\s+(\d+)\s+"
            r"(?:[A-Z][a-z]{2}\s+\d+\s+[\d:]+|\d{4}-\S+ \S+(?: [+-]\d{4})?)\s(.+)$"
        ),
        r"\1 \2 \3",
    ),
    (re.compile(r"^total \d+[KMG]?$"), "total <n>"),
    (re.compile(r"\b([ug]id|groups)=\d+(?:\([\w.-]+\))?"), r"\1=<n>"),
    # What the system hands out: ports, process ids, names of temporary files.
    (
        re.compile(
            r"\b(127\.0\.0\.1|0\.0\.0\.0|localhost|\[::1?\]):(?:3276[89]|327[7-9]\d|32[89]\d\d|3[3-9]\d{3}|[4-6]\d{4})\b"
        ),
        r"\1:<port>",
    ),
    (re.compile(r"\b([Pp]ort[ =:]+)(?:3276[89]|327[7-9]\d|32[89]\d\d|3[3-9]\d{3}|[4-6]\d{4})\b"), r"\1<port>"),
    (re.compile(r"(\bline \d+:)\s+\d+ (Killed|Aborted|Terminated|Segmentation fault)\b"), r"\1 <n> \2"),
    (re.compile(r"^(\[\d+\]) \d+$"), r"\1 <n>"),
    (re.compile(r"(<path>/)(?:tmp[a-z0-9_]{8}|tmp\.[A-Za-z0-9]{6,12})\b"), r"\1<name>"),
    (re.compile(r"(<path>/pytest-)\d+\b"), r"\1<n>"),
)
_NUMBERED = re.compile(r"^(?:\s*\d+(?:\t|[:-]|  ?)|[^\s:]+[:-]\d+[:-]|[-+ ]|[^\s:]+:)")
"""What `cat -n`, `grep -n` and `diff` put before a line of a file."""
_UNORDERED = re.compile(
    r"(?:^|[\s;&|(`])(?:find|fd|rg|du|g?rep\s+(?:\S+\s+)*?-\w*[rR]\w*|ls\s+(?:\S+\s+)*?-\w*[fU]\w*)\b"
    r"|\b(?:listdir|scandir|iterdir|r?glob|os\.walk)\b"
)
_ORDERED = re.compile(r"[|;]\s*sort\b|\bsorted\(")
_PATH = re.compile(
    r"^(?:\d+\s+)?(?P<path>\.{0,2}[\w@+-][\w.@+-]*(?:/[\w.@+-]+)*|\./\S+|\.)(?:[:-](?P<line>\d+))?(?:[:-].*)?$"
)


def normal_lines(text: str, *, command: str = "", known: Collection[str] = ()) -> list[str]:
    """The lines of an output in their normal form.

    Args:
        text: as it was printed; of a line that was drawn again and again the last state counts.
        command: the shell line; one that lists a folder in no order has the listed paths in theirs.
        known: lines of the files that it names.
    """
    settled = "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in _ANSI.sub("", text).split("\n"))
    lines: list[str] = []
    for is_kept, group in groupby(settled.split("\n"), key=lambda line: _is_of_file(line, known)):
        printed = list(group)
        lines += [line.rstrip() for line in printed] if is_kept else _normal(printed)
    if _UNORDERED.search(command) and not _ORDERED.search(command):
        lines = list(_in_order(lines))
    return "\n".join(lines).strip("\n").split("\n")


def _is_of_file(line: str, known: Collection[str]) -> bool:
    if not line.strip():
        return True
    return line in known or ((prefix := _NUMBERED.match(line)) is not None and line[prefix.end() :] in known)


def _normal(printed: Sequence[str]) -> list[str]:
    found = normalise_output("\n".join(printed))
    return [_ruled(line) for line in found.split("\n")] if found else []


def _ruled(line: str) -> str:
    for pattern, replacement in _RULES:
        line = pattern.sub(replacement, line)
    return line


def _in_order(lines: Sequence[str]) -> Iterator[str]:
    """Each run of lines that begin with a path, by path and line: in which order a folder lists its files says
    nothing."""
    for is_path, group in groupby(lines, key=lambda line: _PATH.match(line) is not None):
        found = list(group)
        yield from sorted(found, key=_place) if is_path else found


def _place(line: str) -> tuple[str, int, str]:
    found = _PATH.match(line)
    assert found is not None, "only lines with a path are put in order"
    return found["path"], int(found["line"] or 0), line
