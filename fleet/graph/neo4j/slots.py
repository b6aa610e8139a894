"""Two places for two projections in one database: labels of the second one end in `_b` (GR-7).

So constraints, indexes, statements and queries of both are the same text, and either can be dropped in batches.
"""

from __future__ import annotations

import re
from functools import cache

from fleet.graph.schema import NODES, Label

_SECOND = "_b"

SUFFIXES = ("", _SECOND)
"""What the labels of each place end in."""

_LABEL = re.compile(rf":({'|'.join(label for label in NODES if label != Label.PROJECTION)})\b")
_READ_LABEL = re.compile(r"labels\((\w+)\)\[0\]")


def suffix_of(projection: int) -> str:
    """What the labels of this projection end in; neighbours differ."""
    return SUFFIXES[(projection + 1) % 2]


@cache
def in_slot(text: str, suffix: str) -> str:
    """The statement over the labels of one place; labels that it returns are those of the schema."""
    if not suffix:
        return text
    return _READ_LABEL.sub(rf"replace(labels(\1)[0], '{suffix}', '')", _LABEL.sub(rf":\1{suffix}", text))


def label_of(stored: str) -> str:
    """The label as the schema names it."""
    return stored.removesuffix(_SECOND)


def labels_of(suffix: str) -> tuple[str, ...]:
    """The labels of one place, cursors first."""
    inside = [label for label in NODES if label not in (Label.CURSOR, Label.PROJECTION)]
    return tuple(f"{label}{suffix}" for label in (Label.CURSOR, *inside))
