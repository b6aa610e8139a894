"""A notification target: one JSON line for each notification, in a file that something else follows."""

import asyncio
import hmac
import json
import os
from pathlib import Path

from pydantic import BaseModel

from fleet.kernel.errors import ToolFailed
from fleet.notifications.port import Notification, NotificationTargetPlugin, TargetParts


class NoticeFileOptions(BaseModel):
    """The options of a target of kind `file` in fleet.yaml."""

    file: Path
    """Lines are appended to it."""


class NoticeFile:
    """Implements the port NotificationTarget. A repeat is a line with an id that was there before."""

    def __init__(self, file: Path, parts: TargetParts) -> None:
        self._file, self._secret = file, parts.secret

    async def send(self, notification: Notification) -> None:
        """The line is on disk, signed where the target has a secret."""
        line = json.dumps({"id": notification.delivery_id, "kind": notification.kind, **notification.body})
        if self._secret is not None:
            key = (await self._secret()).reveal()
            signature = hmac.new(key.encode(), line.encode(), "sha256").hexdigest()
            line = json.dumps({"signature": signature, "notice": line})
        await asyncio.to_thread(self._append, line)

    def _append(self, line: str) -> None:
        try:
            with self._file.open("a") as file:
                file.write(f"{line}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ToolFailed(f"{self._file} cannot be written: {error.strerror}; mend it") from error


def make(options: NoticeFileOptions, parts: TargetParts) -> NoticeFile:
    """The target of one entry of `notifications.targets`; nothing is opened."""
    return NoticeFile(options.file, parts)


PLUGIN = NotificationTargetPlugin(name="file", options=NoticeFileOptions, make=make)
