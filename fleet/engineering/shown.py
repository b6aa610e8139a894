"""What an engineer is shown of files and outputs: whole lines, within a limit, between tags that they cannot close."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fleet.engineering.normal import normal_lines
from fleet.models.prompts.prompt import as_data
from fleet.redaction.redact import redact

_REPEATS = 3
_MAX_LINE = 2_000


def is_binary(data: bytes) -> bool:
    """Whether the bytes are no text: they hold NUL, or are not UTF-8."""
    if b"\0" in data[:65_536]:
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return True
    return False


def untrusted(text: str) -> str:
    """The text without secrets, and without what could close a tag of the prompt or end a turn (CX-60)."""
    return as_data(redact(text).text)


def fenced(name: str, text: str) -> str:
    """Material of the repository between tags: data, and no word to the model."""
    return f'<tool_result of="{name}">\n{untrusted(text)}\n</tool_result>'


def said_by(person: str, text: str) -> str:
    """What a person tells the engineer, between tags that neither it nor a file can close or forge."""
    return f'A person of your team says:\n<person_says who="{person}">\n{untrusted(text)}\n</person_says>'


def output_lines(text: str, *, command: str = "", known: Collection[str] = ()) -> list[str]:
    """The lines of an output in their normal form (`normal_lines`), long ones cut, repetitions folded."""
    return _folded([_cut_line(line) for line in normal_lines(text, command=command, known=known)])


def _cut_line(line: str) -> str:
    return line if len(line) <= _MAX_LINE else f"{line[:_MAX_LINE]} [... {len(line) - _MAX_LINE} characters more]"


def _folded(lines: Sequence[str]) -> list[str]:
    found, at = list[str](), 0
    while at < len(lines):
        end = at
        while end < len(lines) and lines[end] == lines[at]:
            end += 1
        if end - at >= _REPEATS and lines[at].strip():
            found += [lines[at], f"[the line above {end - at - 1} times more]"]
        else:
            found += lines[at:end]
        at = end
    return found


def cut_output(lines: Sequence[str], *, chars: int, output_id: str) -> str:
    """The lines within so many characters: two fifths from the start, the rest from the end, whole lines."""
    if sum(len(line) + 1 for line in lines) <= chars:
        return "\n".join(lines)
    head, room = list[str](), chars * 2 // 5
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        head.append(line)
    tail, room = list[str](), chars - sum(len(line) + 1 for line in head)
    for line in reversed(lines[len(head) :]):
        room -= len(line) + 1
        if room < 0:
            break
        tail.append(line)
    left = len(lines) - len(head) - len(tail)
    said = f"[... {left} lines left out: read output {output_id} from {len(head) + 1} ...]"
    return "\n".join([*head, said, *tail[::-1]])


def window(lines: Sequence[str], *, start: int, count: int | None, chars: int, what: str) -> str:
    """Lines of a text with their numbers, from line `start` on, as many as are asked for and fit.

    Args:
        what: the file or output, for the line that says how to go on.
    """
    total = len(lines)
    if start > total:
        return f"{what} has {total} lines; there is no line {start}."
    rows, room, end = list[str](), chars, start - 1
    for number, line in enumerate(lines[start - 1 :], start):
        if count is not None and len(rows) >= count:
            break
        row = f"{number:>6}  {_cut_line(line)}"
        room -= len(row) + 1
        if room < 0 and rows:
            break
        rows.append(row)
        end = number
    more = f"\n[{what} has {total} lines; go on with from={end + 1}]" if end < total and count is None else ""
    more = more or (f"\n[{what} has {total} lines]" if end < total else "")
    return "\n".join(rows) + more
