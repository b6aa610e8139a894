"""The tokenizer inside a GGUF file of weights: its vocabulary and merges stand in front of the tensors.

Source: the GGUF specification, version 2 and 3 (ggml, docs/gguf.md).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["tokenizer_of"]

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_WANTED = frozenset({"model", "pre", "tokens", "merges"})
_LONGEST = 1 << 24
"""Bytes of a string and items of a list; a damaged file may ask for any number."""
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PIECES = {"qwen2": _QWEN2}
"""By the name that the file gives its way of cutting texts into pieces; only those that were compared are here."""


def tokenizer_of(path: Path) -> Tokenizer:
    """The tokenizer of the weights; ValueError when it is of a kind that is not known here, or the file is damaged."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    try:
        with path.open("rb") as file:
            found = _metadata(file)
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"it breaks off or is damaged: {error}") from error
    kind, pieces = found.get("model"), _PIECES.get(str(found.get("pre")))
    if kind != "gpt2" or pieces is None:
        raise ValueError(
            f"its tokenizer is of kind {kind}/{found.get('pre')}, known are gpt2/{', gpt2/'.join(_PIECES)}"
        )
    vocabulary = {token: number for number, token in enumerate(found["tokens"])}
    merges = [tuple(merge.split(" ", 1)) for merge in found["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(pieces), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    return tokenizer


def _metadata(file: IO[bytes]) -> Mapping[str, Any]:
    """What the file says of its tokenizer, by the last part of the key."""
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it is no GGUF file")
    _number(file, "<I")
    _number(file, "<Q")
    found: dict[str, Any] = {}
    for _ in range(_number(file, "<Q")):
        key = _string(file)
        value = _value(file, _number(file, "<I"))
        group, _, name = key.rpartition(".")
        if group == "tokenizer.ggml" and name in _WANTED:
            found[name] = value
    return found


def _value(file: IO[bytes], kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        items, count = _number(file, "<I"), _bounded(_number(file, "<Q"))
        return [_value(file, items) for _ in range(count)]
    if kind not in _NUMBERS:
        raise ValueError(f"it holds a value of the unknown kind {kind}")
    return _number(file, _NUMBERS[kind])


def _string(file: IO[bytes]) -> str:
    return file.read(_bounded(_number(file, "<Q"))).decode()


def _number(file: IO[bytes], form: str) -> Any:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _bounded(length: int) -> int:
    if length > _LONGEST:
        raise ValueError(f"it holds a value of {length} bytes or items: it is damaged")
    return length
