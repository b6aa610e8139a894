"""Labels of nodes, and what actors want of them, as Ray's label selectors say it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field

__all__ = ["LabelChoice", "LabelKey", "LabelValue", "has_node"]

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
LabelKey = Annotated[str, Field(pattern=rf"^([A-Za-z0-9.-]{{1,253}}/)?{_LABEL}$")]
LabelValue = Annotated[str, Field(pattern=rf"^{_LABEL}$")]
LabelChoice = Annotated[str, Field(pattern=rf"^!?({_LABEL}|in\({_LABEL}(, ?{_LABEL})*\))$")]
"""A value of a label, `!value`, `in(one,other)` or `!in(one,other)`."""

_CHOICE = re.compile(r"(?P<no>!?)(?:in\((?P<several>[^)]*)\)|(?P<one>.*))")


def has_node(wanted: Mapping[str, str], nodes: Iterable[Mapping[str, str]]) -> bool:
    """Whether one of these nodes, each given by its labels, is as wanted."""
    return any(all(_fits(choice, labels.get(key)) for key, choice in wanted.items()) for labels in nodes)


def _fits(choice: str, value: str | None) -> bool:
    found = _CHOICE.fullmatch(choice)
    assert found is not None, "every text has this form"
    several, one = found["several"], found["one"]
    allowed = [one] if several is None else [part.strip() for part in several.split(",")]
    # A node without the label is as good as one with another value, as Ray has it.
    return (value in allowed) != bool(found["no"])
