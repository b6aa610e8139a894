"""A Lua script that is sent by its digest, and in full when the server does not know it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError

from fleet.adapters.redis.connection import Send, Word

__all__ = ["Script"]


class Script:
    """One script. It runs whole or, when a check of its own refuses, without any write."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, send: Send, keys: Sequence[str], words: Sequence[Word]) -> Any:
        """The script's reply; a server whose scripts were flushed gets it anew."""
        try:
            return await send("EVALSHA", self._sha, len(keys), *keys, *words)
        except NoScriptError:
            return await send("EVAL", self._text, len(keys), *keys, *words)
