"""Answers of commands as they lie in Redis (EV-10)."""

from __future__ import annotations

import json
from dataclasses import asdict

from fleet.ports import Answer

__all__ = ["decode_answer", "encode_answer"]


def encode_answer(answer: Answer) -> str:
    """The answer as JSON."""
    return json.dumps(asdict(answer))


def decode_answer(stored: bytes) -> Answer:
    """The answer of such JSON."""
    return Answer(**json.loads(stored))
