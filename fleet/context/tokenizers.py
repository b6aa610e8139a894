"""Tokenizers of models: files of the tokenizers library and GGUF."""

from __future__ import annotations

import asyncio
import hashlib
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

from cachetools import LRUCache

from fleet.context.token_counter import TokenCounter
from fleet.kernel.errors import ConfigError
from fleet.models.weight_sources.files import FileWeightsStore
from fleet.models.weights import TOKENIZER_FILE, TokenizerId, Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

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
    """The tokenizer of the weights. ValueError when it is of a kind that is not known here, or the file is damaged."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    try:
        with path.open("rb") as file:
            metadata = _metadata(file)
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"it breaks off or is damaged: {error}") from error
    kind, pieces = metadata.get("model"), _PIECES.get(str(metadata.get("pre")))
    if kind != "gpt2" or pieces is None:
        raise ValueError(
            f"its tokenizer is of kind {kind}/{metadata.get('pre')}, known are gpt2/{', gpt2/'.join(_PIECES)}"
        )
    vocabulary = {token: number for number, token in enumerate(metadata["tokens"])}
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["merges"]]
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
    metadata: dict[str, Any] = {}
    for _ in range(_number(file, "<Q")):
        key = _string(file)
        value = _value(file, _number(file, "<I"))
        group, _, name = key.rpartition(".")
        if group == "tokenizer.ggml" and name in _WANTED:
            metadata[name] = value
    return metadata


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


_KEPT = 20_000
"""Counts that are remembered of one tokenizer: the lines of some hundred packs, in about 3 MB."""


class FileTokenizers:
    """Implements the port Tokenizers.

    Args:
        paths: by sha256, where the files are that the configuration names.
        root: folder of weights, where a file that was pulled lies in a folder named by its digest, also one that the
            configuration does not name any more: stories that began with it are still counted by it.
        weights: by sha256, files of weights with a tokenizer inside.
    """

    def __init__(
        self, paths: Mapping[str, Path], root: Path, *, weights: Mapping[str, Weights] = MappingProxyType({})
    ) -> None:
        self._paths, self._root, self._weights = paths, root, weights
        self._counters: dict[TokenizerId, TokenCounter] = {}

    async def counter(self, tokenizer: TokenizerId) -> TokenCounter:
        """See `Tokenizers.counter`."""
        if tokenizer not in self._counters:
            # Two that ask at once both read the file; the counts are the same.
            self._counters[tokenizer] = await asyncio.to_thread(self.load, tokenizer)
        return self._counters[tokenizer]

    def load(self, tokenizer: TokenizerId) -> TokenCounter:
        """The same, read now: for a start that is to fail when the file is not right."""
        weights = self._weights.get(tokenizer.sha256)
        if weights is not None:
            path = self._in_weights(tokenizer, weights)
            return _Counter(tokenizer.label, _read(lambda: tokenizer_of(path), tokenizer, path))
        path = self._path(tokenizer)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _missing(tokenizer, path, str(error.strerror)) from error
        if (digest := hashlib.sha256(data).hexdigest()) != tokenizer.sha256:
            raise _another(tokenizer, path, digest)
        return _Counter(tokenizer.label, _read(lambda: _from_json(data), tokenizer, path))

    def _in_weights(self, tokenizer: TokenizerId, weights: Weights) -> Path:
        # A gigabyte: its bytes are compared once after it was pulled, and again when the file has changed.
        look = FileWeightsStore(self._root).look_now(weights)
        path = Path(look.path)
        if look.state == "wrong_digest":
            raise _another(tokenizer, path, "another one")
        if look.state != "present":
            raise _missing(tokenizer, path, "the weights are not here")
        return path

    def _path(self, tokenizer: TokenizerId) -> Path:
        pulled = self._root / tokenizer.sha256 / TOKENIZER_FILE
        return pulled if pulled.exists() else self._paths.get(tokenizer.sha256, pulled)


class _Counter:
    """Counts by one tokenizer and remembers what it counted, by the digest of the text."""

    def __init__(self, name: str, tokenizer: Tokenizer) -> None:
        self.name = name
        self._tokenizer = tokenizer
        self._counts, self._lock = LRUCache[bytes, int](_KEPT), threading.Lock()

    def count(self, text: str) -> int:
        key = hashlib.sha256(text.encode()).digest()
        with self._lock:
            count = self._counts.get(key)
        if count is None:
            count = len(self._tokenizer.encode(text, add_special_tokens=False))
            with self._lock:
                self._counts[key] = count
        return count


def _from_json(data: bytes) -> Tokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(data)
    # A file may ask to cut long texts off, or to fill short ones up.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read(read: Callable[[], Tokenizer], tokenizer: TokenizerId, path: Path) -> Tokenizer:
    try:
        return read()
    except ImportError as error:
        raise ConfigError(
            f"tokenizer {tokenizer.name!r} needs the library `tokenizers`: install it with "
            "`pip install 'swe-fleet[tokenizers]'`, or take `tokenizer` out of the engine in config/models.yaml",
            **_facts(tokenizer, path, "missing_library"),
        ) from error
    # The library raises nothing more special.
    except Exception as error:
        raise ConfigError(
            f"{path} holds no tokenizer that can be used ({error}): name the `tokenizer.json` of the model",
            **_facts(tokenizer, path, "not_a_tokenizer"),
        ) from error


def _another(tokenizer: TokenizerId, path: Path, digest: str) -> ConfigError:
    return ConfigError(
        f"{path} is not the file of tokenizer {tokenizer.name!r}: its sha256 is {digest}, that of the configuration is "
        f"{tokenizer.sha256}. Put the right file there, or the digest of this one into config/models.yaml; stories "
        "that began with the other one still need it",
        **_facts(tokenizer, path, "wrong_digest"),
        found=digest,
    )


def _missing(tokenizer: TokenizerId, path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"the tokenizer {tokenizer.name!r} cannot be read from {path} ({why}): put the file with sha256 "
        f"{tokenizer.sha256} there, or fetch it with `fleet models pull` where its engine has `sources`. Stories that "
        "began with it are counted by nothing else",
        **_facts(tokenizer, path, "missing_tokenizer"),
    )


def _facts(tokenizer: TokenizerId, path: Path, reason: str) -> dict[str, str]:
    return {"tokenizer": tokenizer.name, "sha256": tokenizer.sha256, "file": str(path), "reason": reason}
