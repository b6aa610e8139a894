"""How git reaches a repository over SSH: one key, the host keys that the policy lists, and no file of anybody else.

The connection leaves through the proxy of the run, as everything else does. A host whose key is not listed, or that
asks for more than the key, is refused: nothing here is ever asked of a person.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

HOST_KEY = r"(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]+={0,3}"
"""One key as `ssh-keyscan` prints it, without the name of the host."""
_ALIAS = "repository"
_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "GlobalKnownHostsFile=/dev/null",
    f"HostKeyAlias={_ALIAS}",
    "CheckHostIP=no",
    "UpdateHostKeys=no",
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "PreferredAuthentications=publickey",
    "ForwardAgent=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "ControlMaster=no",
    "ControlPath=none",
    "ConnectTimeout=20",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "LogLevel=ERROR",
)


def ssh_environment(folder: Path, key: Path, host_keys: Sequence[str]) -> dict[str, str]:
    """Variables with which git starts `ssh` for this repository alone.

    Args:
        folder: gone with the run and read by nobody else; the key is copied there, as `ssh` wants it.
        host_keys: what the host has to prove to be; each of the form HOST_KEY.
    """
    hosts, own = folder / "known_hosts", folder / "identity"
    hosts.write_text("".join(f"{_ALIAS} {line}\n" for line in host_keys))
    own.touch(mode=0o600)
    # Providers of secrets strip the end of line, without which ssh does not take the key.
    own.write_bytes(key.read_bytes().rstrip() + b"\n")
    relay = shlex.join((sys.executable, "-IS", str(Path(__file__).with_name("proxy_connect.py")), "%h", "%p"))
    options = (*_OPTIONS, f"UserKnownHostsFile={hosts}", f"IdentityFile={own}", f"ProxyCommand={relay}")
    command = ["ssh", "-F", "/dev/null", "-T", *(part for option in options for part in ("-o", option))]
    return {"GIT_SSH_COMMAND": shlex.join(command), "GIT_SSH_VARIANT": "ssh", "HOME": os.fspath(folder)}
