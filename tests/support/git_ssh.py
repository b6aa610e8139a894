"""A git server over SSH on loopback: a real SSH server that runs git's own programs for one key of one user."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import warnings
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    # It names ciphers that the library beneath calls old.
    warnings.simplefilter("ignore")
    import asyncssh


_PROGRAMS = frozenset({"git-upload-pack", "git-receive-pack"})


@dataclass
class SshGitServer:
    """Serves the bare repositories below `root`; `asked` are the commands of those who were let in."""

    root: Path
    port: int
    private_key: str
    """Of the one client that is let in, as OpenSSH writes it."""
    host_key: str
    """The server's public key: algorithm and key."""
    asked: list[str] = field(default_factory=list[str])


@contextlib.asynccontextmanager
async def serving_ssh(root: Path) -> AsyncGenerator[SshGitServer]:
    """The server, on a free port of loopback, until the block ends."""
    host, client = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    public = host.export_public_key().decode().split(" ")
    server = SshGitServer(root, 0, client.export_private_key().decode(), " ".join(public[:2]).strip())

    class OneUser(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return True

        def public_key_auth_supported(self) -> bool:
            return True

        def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
            return username == "git" and key.public_data == client.public_data

    async def handle(process: asyncssh.SSHServerProcess[bytes]) -> None:
        command = process.command or ""
        server.asked.append(command)
        words = shlex.split(command)
        if len(words) != 2 or words[0] not in _PROGRAMS:
            process.exit(127)
            return
        folder = root / words[1].lstrip("/")
        process.exit(await _relayed(process, words[0].removeprefix("git-"), str(folder)))

    acceptor = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=OneUser,
        server_host_keys=[host],
        process_factory=handle,
        encoding=None,
        agent_forwarding=False,
    )
    server.port = acceptor.get_port()
    try:
        yield server
    finally:
        acceptor.close()
        await acceptor.wait_closed()


async def _relayed(process: asyncssh.SSHServerProcess[bytes], *argv: str) -> int:
    """Exit code of one command of git whose streams are those of the client."""
    pipe = asyncio.subprocess.PIPE
    git = await asyncio.create_subprocess_exec("git", *argv, stdin=pipe, stdout=pipe, stderr=pipe)
    assert git.stdin is not None
    assert git.stdout is not None
    assert git.stderr is not None
    sending = asyncio.create_task(_pump(process.stdin, git.stdin))
    await asyncio.gather(_pump(git.stdout, process.stdout), _pump(git.stderr, process.stderr))
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    git.stdin.close()
    return await git.wait()


async def _pump(reader: Any, writer: Any) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
