"""The local token file: the person at this machine, and the bearer token that stands for them (AP-1)."""

from __future__ import annotations

import getpass
import json
import os
import re
import secrets
from pathlib import Path

from fleet.desk.principals import hash_token
from fleet.kernel.ids import Principal

ROLES = ("admin", "architect", "po", "qa", "devops", "developer", "data")


def local_principal() -> Principal:
    """`user:<login name>` of whoever runs the command."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    plain = re.sub(r"[^a-z0-9._@-]", "-", name.lower()).strip("-._@") or "local"
    return Principal(f"user:{plain}")


def ensure_principals(path: Path) -> Path:
    """The file lists the local user with every team role; the token lies beside it, readable by the user alone."""
    token_file = path.with_name("token")
    if path.exists() and token_file.exists():
        return token_file
    token = secrets.token_urlsafe(32)
    entry = {"principal": local_principal(), "roles": list(ROLES), "token_sha256": hash_token(token), "enabled": True}
    _write(token_file, token + "\n")
    _write(path, json.dumps([entry], indent=2) + "\n")
    return token_file


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def read_token(home: Path) -> str:
    """The bearer token of the local user."""
    return (home / "token").read_text().strip()
