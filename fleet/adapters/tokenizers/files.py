"""Tokenizers from `tokenizer.json` files and from weights, for the library `tokenizers`; nothing is ever fetched."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from fleet.adapters.tokenizers.gguf import tokenizer_of
from fleet.adapters.weights import FileWeightsStore
from fleet.context import TokenCounter
from fleet.errors import ConfigError
from fleet.models import TOKENIZER_FILE, TokenizerId, Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["FileTokenizers"]

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
        if (found := hashlib.sha256(data).hexdigest()) != tokenizer.sha256:
            raise _another(tokenizer, path, found)
        return _Counter(tokenizer.label, _read(lambda: _from_json(data), tokenizer, path))

    def _in_weights(self, tokenizer: TokenizerId, weights: Weights) -> Path:
        # A gigabyte: its bytes are compared once after it was pulled, and again when the file has changed.
        found = FileWeightsStore(self._root).look_now(weights)
        path = Path(found.path)
        if found.state == "wrong_digest":
            raise _another(tokenizer, path, "another one")
        if found.state != "present":
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
        self._counts: dict[bytes, int] = {}

    def count(self, text: str) -> int:
        key = hashlib.sha256(text.encode()).digest()
        known = self._counts.get(key)
        if known is None:
            known = len(self._tokenizer.encode(text, add_special_tokens=False))
            if len(self._counts) >= _KEPT:
                # Another thread may do the same: then a few counts are made again.
                self._counts = {}
            self._counts[key] = known
        return known


def _from_json(data: bytes) -> Tokenizer:
    from tokenizers import Tokenizer

    found = Tokenizer.from_buffer(data)
    # A file may ask to cut long texts off, or to fill short ones up.
    found.no_truncation()
    found.no_padding()
    return found


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


def _another(tokenizer: TokenizerId, path: Path, found: str) -> ConfigError:
    return ConfigError(
        f"{path} is not the file of tokenizer {tokenizer.name!r}: its sha256 is {found}, that of the configuration is "
        f"{tokenizer.sha256}. Put the right file there, or the digest of this one into config/models.yaml; stories "
        "that began with the other one still need it",
        **_facts(tokenizer, path, "wrong_digest"),
        found=found,
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
