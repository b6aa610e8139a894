"""A mail server on loopback that speaks SMTP (RFC 5321), STARTTLS (RFC 3207) and AUTH PLAIN (RFC 4954)."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from typing import cast


@dataclass(frozen=True)
class Taken:
    """One mail that the server took."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    is_encrypted: bool
    user: str | None

    @property
    def mail(self) -> EmailMessage:
        """It, parsed."""
        return cast(EmailMessage, message_from_bytes(self.raw, policy=SMTP))


@dataclass
class MailStandIn:
    """What the server does, and what it saw.

    Args:
        tls: contexts of the server; None offers no TLS.
        is_implicit: TLS from the first byte.
        accounts: user and password of those who may log in; none asks nobody to.
    """

    tls: ssl.SSLContext | None = None
    is_implicit: bool = False
    accounts: dict[str, str] = field(default_factory=dict[str, str])
    refuses: frozenset[str] = frozenset()
    """Recipients that are not taken."""
    answers: dict[str, str] = field(default_factory=dict[str, str])
    """Answers to verbs in the place of the right ones, once each; `hang` gives none."""
    taken: list[Taken] = field(default_factory=list[Taken])
    said: list[str] = field(default_factory=list[str])
    """Lines that clients sent outside of mails."""
    port: int = 0


@asynccontextmanager
async def serving_mail(stand_in: MailStandIn) -> AsyncGenerator[MailStandIn]:
    """The server answers on a loopback port until the block ends."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        # A handler that ends by its cancellation is told of as a defect of the loop's.
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await _Talk(stand_in, reader, writer).run()
        writer.close()
        with suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()

    context = stand_in.tls if stand_in.is_implicit else None
    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    stand_in.port = server.sockets[0].getsockname()[1]
    try:
        yield stand_in
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Talk:
    def __init__(self, at: MailStandIn, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._at, self._reader, self._writer = at, reader, writer
        self._is_encrypted, self._user, self._sender = at.is_implicit, cast("str | None", None), ""
        self._recipients: list[str] = []

    async def run(self) -> None:
        await self._say("220 stand-in")
        while line := (await self._reader.readline()).decode("ascii").rstrip("\r\n"):
            self._at.said.append(line)
            verb = line.split(" ")[0].upper()
            if (answer := self._at.answers.pop(verb, None)) is not None:
                if answer == "hang":
                    await asyncio.Event().wait()
                await self._say(answer)
            elif verb == "QUIT":
                return
            else:
                await self._answer(verb, line)

    async def _say(self, text: str) -> None:
        self._writer.write(f"{text}\r\n".encode())
        await self._writer.drain()

    async def _answer(self, verb: str, line: str) -> None:
        match verb:
            case "EHLO":
                offers = ["stand-in", *self._offers()]
                for offer in offers[:-1]:
                    await self._say(f"250-{offer}")
                await self._say(f"250 {offers[-1]}")
            case "STARTTLS" if self._at.tls is not None:
                await self._say("220 go on")
                await self._writer.start_tls(self._at.tls)
                self._is_encrypted = True
            case "AUTH":
                await self._log_in(line)
            case "MAIL" if self._at.accounts and self._user is None:
                await self._say("530 log in")
            case "MAIL":
                self._sender, self._recipients = _path(line), []
                await self._say("250 ok")
            case "RCPT" if _path(line) in self._at.refuses:
                await self._say("550 T0P SECRET says no")
            case "RCPT":
                self._recipients.append(_path(line))
                await self._say("250 ok")
            case "DATA":
                await self._say("354 go on")
                raw = (await self._reader.readuntil(b"\r\n.\r\n"))[:-3].replace(b"\r\n..", b"\r\n.")
                mail = Taken(self._sender, tuple(self._recipients), raw, self._is_encrypted, self._user)
                self._at.taken.append(mail)
                await self._say("250 taken")
            case _:
                await self._say("500 what")

    def _offers(self) -> list[str]:
        found = ["STARTTLS"] if self._at.tls is not None and not self._is_encrypted else []
        return [*found, "AUTH PLAIN"] if self._at.accounts and self._is_encrypted else found

    async def _log_in(self, line: str) -> None:
        _, user, password = base64.b64decode(line.split(" ")[2]).decode().split("\x00")
        if self._at.accounts.get(user) != password:
            await self._say("535 T0P SECRET no such user")
            return
        self._user = user
        await self._say("235 welcome")


def _path(line: str) -> str:
    return line.partition("<")[2].partition(">")[0]
