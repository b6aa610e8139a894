"""Patterns of secrets that an operator adds by config: bounded, tried on their samples, and never slow (CX-76)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fleet.kernel.errors import ConfigError
from fleet.kernel.types import Frozen
from fleet.redaction.bounded_expression import extent_of
from fleet.redaction.redact import operator_spans, placeholder
from fleet.redaction.secret_patterns import KINDS, SecretPattern

_MIN_CHARS = 4
_CORPUS_CHARS = 16 << 10
_MAX_S = 0.25
"""Processor time for one text of 16 KiB; a good expression takes a hundredth of it."""
_Text = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\n]*$")]


class OperatorPattern(BaseModel):
    """One form of secret that only this site knows; looked for within each line."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: Annotated[str, Field(pattern=r"^[A-Z][A-Z_]{2,38}[A-Z]$")]
    """What stands in the placeholder `[REDACTED:<name>]`."""
    expression: Annotated[str, Field(min_length=1, max_length=500)]
    """What is taken out: its group `secret`, or all of it. Every repetition needs a bound."""
    any_case: bool = False
    """Letters stand for both cases."""
    samples: Annotated[tuple[_Text, ...], Field(min_length=1, max_length=20)]
    """Texts in which it must be found."""
    harmless: Annotated[tuple[_Text, ...], Field(max_length=20)] = ()
    """Texts in which it must not be found."""

    @model_validator(mode="after")
    def _check(self) -> OperatorPattern:
        if self.name in KINDS:
            raise ValueError(f"{self.name} is a class of the catalogue, which cannot be changed: choose another name")
        try:
            extent = extent_of(self.expression)
            re.compile(self.expression)
        except (ValueError, re.error) as error:
            raise ValueError(f"expression of {self.name}: {error}") from error
        if extent.least < _MIN_CHARS:
            raise ValueError(f"expression of {self.name} matches less than {_MIN_CHARS} characters: make it longer")
        missed = [n for n, text in enumerate(self.samples) if not operator_spans(text, self.compiled)]
        if missed:
            raise ValueError(f"{self.name} is not found in its samples {', '.join(str(n + 1) for n in missed)}")
        hit = [n for n, text in enumerate(self.harmless) if operator_spans(text, self.compiled)]
        if hit:
            raise ValueError(f"{self.name} is found in its harmless texts {', '.join(str(n + 1) for n in hit)}")
        return self

    @property
    def compiled(self) -> SecretPattern:
        """As the catalogue's own ones; without anchors."""
        flags = re.MULTILINE | (re.IGNORECASE if self.any_case else 0)
        return SecretPattern(self.name, (), re.compile(self.expression, flags))


class OperatorRedaction(Frozen):
    """Part `redaction` of config/context.yaml: patterns in addition to the catalogue."""

    patterns: Annotated[tuple[OperatorPattern, ...], Field(max_length=50)] = ()

    @model_validator(mode="after")
    def _check(self) -> OperatorRedaction:
        names = [pattern.name for pattern in self.patterns]
        if len(set(names)) < len(names):
            raise ValueError("two patterns have the same name")
        for pattern in self.patterns:
            for name in (*KINDS, *names):
                if pattern.compiled.expression.search(placeholder(name)):
                    raise ValueError(f"{pattern.name} is found in {placeholder(name)}: make its expression narrower")
        return self


def check_speed(
    patterns: Sequence[OperatorPattern], *, seconds: Callable[[Callable[[], object]], float], max_s: float = _MAX_S
) -> None:
    """Returns when no pattern is slow on texts that almost match it.

    Args:
        seconds: carries the work out, and says how much processor time it took.

    Raises:
        ConfigError: one of them is.
    """
    for pattern in patterns:
        for text in _almost(pattern):
            took = min(seconds(lambda p=pattern, t=text: operator_spans(t, p.compiled)) for _ in range(2))
            if took > max_s:
                raise ConfigError(
                    f"redaction pattern {pattern.name} takes {took:.2f} s for {len(text)} characters, {max_s:g} s are "
                    "allowed: make its repetitions shorter, or begin it with a fixed text",
                    pattern=pattern.name,
                )


def _almost(pattern: OperatorPattern) -> list[str]:
    """Texts of 16 KiB of what the samples are made of, none of which need match."""
    parts = list[str]()
    for sample in pattern.samples:
        parts += [
            sample[:-1],
            sample[: len(sample) // 2],
            sample[len(sample) // 2 :],
            *islice(dict.fromkeys(sample), 8),
        ]
    return [(part * _CORPUS_CHARS)[:_CORPUS_CHARS] for part in dict.fromkeys(parts) if part]
