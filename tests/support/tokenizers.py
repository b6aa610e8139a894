"""Real tokenizers, trained here on the rules and texts of this repository: small, and the same on every machine."""

from __future__ import annotations

import hashlib
import json
import struct
from functools import cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from fleet.models.weights import TokenizerId, UrlSource, Weights

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("bytes", "words", "whole")
"""Pieces by an expression as of Llama 3 and Qwen; words with their space as of sentencepiece; no pieces at all."""
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@cache
def trained(kind: str = "bytes") -> bytes:
    """The `tokenizer.json` of this kind."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    found = Tokenizer(models.BPE(byte_fallback=kind != "bytes", unk_token=None if kind == "bytes" else "<unk>"))
    if kind == "bytes":
        split = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
        found.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
        found.decoder = decoders.ByteLevel()
    else:
        found.normalizer = normalizers.Replace(" ", "\u2581")
        if kind == "words":
            found.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    special = ["<s>", "<unk>", *([] if kind == "bytes" else [f"<0x{n:02X}>" for n in range(256)])]
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        special_tokens=special,
        initial_alphabet=alphabet if kind == "bytes" else [],
        show_progress=False,
    )
    found.train_from_iterator(_texts(), trainer)
    # As files of models have it: neither may change a count.
    found.enable_truncation(512)
    found.enable_padding(length=512)
    return found.to_str().encode()


def real(kind: str = "bytes") -> Tokenizer:
    """The tokenizer itself, to compare with."""
    found = Tokenizer.from_buffer(trained(kind))
    found.no_truncation()
    found.no_padding()
    return found


class Counter:
    """A TokenCounter over one of them that notes how much it was asked to count."""

    def __init__(self, kind: str = "bytes") -> None:
        self.name = id_of(kind).label
        self._tokenizer = real(kind)
        self.counted_bytes = 0

    def count(self, text: str) -> int:
        """The tokens of the text."""
        self.counted_bytes += len(text.encode())
        return len(self._tokenizer.encode(text, add_special_tokens=False))


def gguf(*, pre: str = "qwen2", kind: str = "gpt2") -> bytes:
    """The vocabulary of the kind `bytes` as it stands in a file of weights, with other values around it."""
    model = json.loads(trained())["model"]
    tokens = sorted(model["vocab"], key=lambda token: model["vocab"][token])
    values = [
        _entry("general.architecture", 8, _text("tiny")),
        _entry("tiny.rope.freq_base", 6, struct.pack("<f", 1e6)),
        _entry("tokenizer.ggml.model", 8, _text(kind)),
        _entry("tokenizer.ggml.pre", 8, _text(pre)),
        _entry("tokenizer.ggml.tokens", 9, _list(8, [_text(token) for token in tokens])),
        _entry("tokenizer.ggml.token_type", 9, _list(5, [struct.pack("<i", 1)] * len(tokens))),
        _entry("tokenizer.ggml.merges", 9, _list(8, [_text(" ".join(merge)) for merge in model["merges"]])),
        _entry("tokenizer.ggml.add_bos_token", 7, b"\0"),
    ]
    return b"GGUF" + struct.pack("<IQQ", 3, 1, len(values)) + b"".join(values) + b"tensors" * 100


def weights_with(data: bytes) -> Weights:
    """This file as config/models.yaml names it."""
    source = UrlSource(url="http://127.0.0.1:9/tiny.gguf")
    digest = hashlib.sha256(data).hexdigest()
    return Weights(file="tiny.gguf", sha256=digest, size_bytes=len(data), sources=(source,))


def _entry(key: str, kind: int, value: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + value


def _list(kind: int, items: list[bytes]) -> bytes:
    return struct.pack("<IQ", kind, len(items)) + b"".join(items)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def id_of(kind: str = "bytes") -> TokenizerId:
    """Its name and digest."""
    return TokenizerId(name=f"trained-{kind}", sha256=hashlib.sha256(trained(kind)).hexdigest())


def write(folder: Path, kind: str = "bytes") -> Path:
    """The file in this folder."""
    path = folder / "tokenizer.json"
    path.write_bytes(trained(kind))
    return path


def _texts() -> list[str]:
    files = [*sorted((ROOT / "docs").glob("*.md"))[:8], *sorted((ROOT / "fleet" / "context").glob("*.py"))]
    return [line for file in files for line in file.read_text().splitlines()]
