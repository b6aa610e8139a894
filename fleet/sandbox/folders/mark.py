"""The mark beside the folder of a work session: what lies in it, while no command uses it.

A folder without a mark is dirty: a command was under way in it, or what it left was not understood. Marks are believed
within one boot only, where all that the kernel took is there; nothing is synced. No sandbox sees them. Beside the mark
lie the stamps of the folder as it was laid, which may be many, and are written once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError

from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest
from fleet.policy.runs.spec import LiveFolder
from fleet.sandbox.backends.stamps import Stamp
from fleet.trees.delta import Rows
from fleet.trees.tree import FileEntry

_NAME, _LAID, _NEW = "mark", "laid", ".new"
Known = dict[str, tuple[Stamp, FileEntry]]
"""Files of a folder as they were written or read last."""


class Mark(NamedTuple):
    """A folder that is clean."""

    place: LiveFolder
    base: Digest
    uid: int
    """Of the user to whom what lies in it belongs."""
    is_upper: bool
    """It is an upper layer over the base, else it holds the whole tree."""
    rows: Rows
    """What lies in it over its base."""
    known: Known


def put_laid(outer: Path, laid: Known) -> None:
    """The folder was laid with these files; no mark tells them again."""
    _put(outer, _LAID, _rows_of(laid))


def put_mark(outer: Path, mark: Mark, laid: Known) -> None:
    """The folder counts as clean from now on.

    Args:
        laid: as `put_laid` was told.
    """
    document = {
        "place": mark.place.model_dump(mode="json"),
        "base": str(mark.base),
        "uid": mark.uid,
        "is_upper": mark.is_upper,
        "rows": [(path, *entry) if entry else (path,) for path, entry in mark.rows.items()],
        "known": _rows_of({path: one for path, one in mark.known.items() if laid.get(path) is not one}),
        "lost": [path for path in laid if path not in mark.known],
    }
    _put(outer, _NAME, document)


def _rows_of(stamped: Known) -> list[tuple[object, ...]]:
    return [(path, *stamp, *entry) for path, (stamp, entry) in stamped.items()]


def _known_of(rows: Iterable[Sequence[Any]]) -> Known:
    return {path: (Stamp(*stamp), FileEntry(mode, Digest(blob))) for path, *stamp, mode, blob in rows}


def _put(outer: Path, name: str, document: object) -> None:
    new = outer / _NEW
    new.write_bytes(orjson.dumps(document))
    new.replace(outer / name)


def drop_mark(outer: Path) -> None:
    """The folder counts as dirty from now on."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(outer / _NAME)  # noqa: PTH108 - before each command; a Path costs more than the call


def read_mark(outer: Path) -> Mark | None:
    """What the folder's mark says; None for a folder that is dirty, or was marked by another version."""
    try:
        document: Mapping[str, Any] = orjson.loads((outer / _NAME).read_bytes())
        stamped = _known_of(orjson.loads((outer / _LAID).read_bytes()))
        for path in document["lost"]:
            del stamped[path]
        return Mark(
            place=LiveFolder.model_validate(document["place"]),
            base=Digest(document["base"]),
            uid=int(document["uid"]),
            is_upper=bool(document["is_upper"]),
            rows={row[0]: FileEntry(row[1], Digest(row[2])) if len(row) == 3 else None for row in document["rows"]},
            known=stamped | _known_of(document["known"]),
        )
    except (OSError, ValueError, TypeError, KeyError, IndexError, InvalidInput, ValidationError):
        return None
