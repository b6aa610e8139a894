"""What is known of one file: a pure function of its bytes and its language, so it is made once and kept by digest."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import ValidationError

from fleet.kernel.ids import Digest
from fleet.kernel.types import Frozen
from fleet.knowledge.words import Terms

FORM = 2
"""Raised with every change of what is extracted: facts of another form are made anew."""

FactKey = str
"""`<form>:<language>:<64 hex digits>`."""


class Definition(NamedTuple):
    """A definition: its kind, its name with the classes around it, its first and last line from 1."""

    kind: str
    name: str
    line: int
    end: int


class FileFacts(Frozen):
    """Symbols, imports and words of one file; empty where the file is binary or too large to be read."""

    lines: int = 0
    symbols: tuple[Definition, ...] = ()
    imports: tuple[str, ...] = ()
    """Modules and single names as dotted paths; leading dots are relative to the file."""
    names: Terms = {}
    """Identifiers of the code as they are written, and how often."""
    prose: Terms = {}
    """Terms of comments, documentation and documents."""
    texts: Terms = {}
    """Terms of quoted texts."""


def fact_key(language: str, blob: Digest) -> FactKey:
    """Under which the facts of these bytes are kept when they are read as this language."""
    return f"{FORM}:{language}:{blob.hex}"


def language_in(key: FactKey) -> str:
    """The name of the language that a key says."""
    return key.split(":", 2)[1]


def blob_in(key: FactKey) -> Digest:
    """The digest of the bytes that a key is about."""
    return Digest(f"sha256:{key.rsplit(':', 1)[1]}")


def encode_facts(facts: FileFacts) -> bytes:
    """The bytes that `decode_facts` reads."""
    return facts.model_dump_json(exclude_defaults=True).encode()


def decode_facts(data: bytes) -> FileFacts | None:
    """The facts; None when the bytes are damaged, and the facts have to be made again."""
    try:
        return FileFacts.model_validate_json(data)
    except ValidationError:
        return None
