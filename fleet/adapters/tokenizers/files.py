"""Tokenizers from `tokenizer.json` files, counted by the library `tokenizers`; nothing is ever fetched."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.context import TokenCounter
from fleet.errors import ConfigError
from fleet.models import TOKENIZER_FILE, TokenizerId

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
    """

    def __init__(self, paths: Mapping[str, Path], root: Path) -> None:
        self._paths, self._root = paths, root
        self._counters: dict[TokenizerId, TokenCounter] = {}

    async def counter(self, tokenizer: TokenizerId) -> TokenCounter:
        """See `Tokenizers.counter`."""
        if tokenizer not in self._counters:
            # Two that ask at once both read the file; the counts are the same.
            self._counters[tokenizer] = await asyncio.to_thread(self.load, tokenizer)
        return self._counters[tokenizer]

    def load(self, tokenizer: TokenizerId) -> TokenCounter:
        """The same, read now: for a start that is to fail when the file is not right."""
        path = self._path(tokenizer)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _missing(tokenizer, path, str(error.strerror)) from error
        found = hashlib.sha256(data).hexdigest()
        if found != tokenizer.sha256:
            raise ConfigError(
                f"{path} is not the tokenizer {tokenizer.name!r}: its sha256 is {found}, that of the configuration is "
                f"{tokenizer.sha256}. Put the right file there, or the digest of this one into config/models.yaml; "
                "stories that began with the other one still need it",
                **_facts(tokenizer, path, "wrong_digest"),
                found=found,
            )
        return _Counter(tokenizer.label, _read(data, tokenizer, path))

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


def _read(data: bytes, tokenizer: TokenizerId, path: Path) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError(
            f"tokenizer {tokenizer.name!r} needs the library `tokenizers`: install it with "
            "`pip install 'swe-fleet[tokenizers]'`, or take `tokenizer` out of the engine in config/models.yaml",
            **_facts(tokenizer, path, "missing_library"),
        ) from error
    try:
        found = Tokenizer.from_buffer(data)
    # The library raises nothing more special.
    except Exception as error:
        raise ConfigError(
            f"{path} is no tokenizer that the library `tokenizers` can read ({error}): name the `tokenizer.json` of "
            "the model",
            **_facts(tokenizer, path, "not_a_tokenizer"),
        ) from error
    # A file may ask to cut long texts off, or to fill short ones up.
    found.no_truncation()
    found.no_padding()
    return found


def _missing(tokenizer: TokenizerId, path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"the tokenizer {tokenizer.name!r} cannot be read from {path} ({why}): put the file with sha256 "
        f"{tokenizer.sha256} there, or fetch it with `fleet models pull` where its engine has `sources`. Stories that "
        "began with it are counted by nothing else",
        **_facts(tokenizer, path, "missing_tokenizer"),
    )


def _facts(tokenizer: TokenizerId, path: Path, reason: str) -> dict[str, str]:
    return {"tokenizer": tokenizer.name, "sha256": tokenizer.sha256, "file": str(path), "reason": reason}
