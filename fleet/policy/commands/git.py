"""Repositories on other machines: addresses of git, and which of them may be reached with what (RC-70, RT-58)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field

from fleet.kernel.errors import InvalidInput, PolicyDenied
from fleet.kernel.ids import Digest
from fleet.kernel.types import Frozen

_HOST = r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?"
_PATH = re.compile(r"(?:/[A-Za-z0-9_~][A-Za-z0-9_.~+-]*)+/?")
_URL = re.compile(rf"(https?|ssh)://(?:([A-Za-z0-9._-]+)@)?({_HOST})(?::([0-9]{{1,5}}))?(/.*)?", re.IGNORECASE)
_SCP = re.compile(rf"([A-Za-z0-9._-]+)@({_HOST}):(?!/)(.+)", re.IGNORECASE)
_PORTS = {"https": 443, "http": 80, "ssh": 22}
_MAX_LENGTH = 500

GitPlace = Annotated[str, Field(pattern=rf"^{_HOST}(:[0-9]{{1,5}})?(/[A-Za-z0-9_~][A-Za-z0-9_.~+-]*)*$")]
"""`host`, `host/owner` or `host/owner/name`, the port with it when it is not the usual one."""

HostKey = Annotated[
    str, Field(pattern=r"^(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]{20,1500}={0,3}$")
]
"""A public key of a host, without its name."""


class GitTarget(Frozen):
    """How repositories at one place are fetched and pushed to."""

    user: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")] = "git"
    """User name beside the token; GitHub takes any, GitLab `oauth2` or the token's own name."""
    credentials: Annotated[str, Field(pattern=r"^secret://")] | None = None
    """Secret with the token, or with the private key of an ssh address; grant it to roles for the operations of git.

    None asks without one, which over ssh nobody answers.
    """
    host_keys: tuple[HostKey, ...] = ()
    """Of ssh alone: what the host has to prove to be, as `ssh-keyscan` prints it without the host's name."""
    plain_http: bool = False
    """Whether `http` will do, which shows the token to everybody on the way."""


@dataclass(frozen=True, slots=True)
class GitAddress:
    """Where a repository is on another machine."""

    scheme: Literal["https", "http", "ssh"]
    host: str
    """In lower case."""
    port: int
    path: str
    """Begins with a slash and does not end with one."""
    user: str | None = None
    """Of ssh alone: a name in an https address would be a credential."""

    @property
    def authority(self) -> str:
        """`host:port`, as the network rules of a run name it."""
        return f"{self.host}:{self.port}"

    @property
    def place(self) -> str:
        """`host/owner/name`, as targets are listed; without the usual port and the ending `.git`."""
        host = self.host if self.port == _PORTS[self.scheme] else self.authority
        return f"{host}{self.path.removesuffix('.git')}"

    @property
    def url(self) -> str:
        """The one form of this address; equal for equal repositories."""
        user = f"{self.user}@" if self.user else ""
        host = self.host if self.port == _PORTS[self.scheme] else self.authority
        return f"{self.scheme}://{user}{host}{self.path}"


def git_address(text: str) -> GitAddress | None:
    """The address on another machine, None for a folder of this one or a `file://` address.

    Raises:
        InvalidInput: another kind of address, one with a password, token, query or odd characters.
    """
    if text.startswith(("/", ".", "~", "file://")) or not ("://" in text or "::" in text or _SCP.fullmatch(text)):
        return None
    return parse_git_address(text)


def parse_git_address(text: str) -> GitAddress:
    """As `git_address`, for what has to be on another machine; InvalidInput otherwise."""
    if len(text) <= _MAX_LENGTH:
        if match := _URL.fullmatch(text):
            scheme, user, host, port, path = match.groups()
            return _checked(text, scheme.lower(), user, host, port, path or "")
        if match := _SCP.fullmatch(text):
            return _checked(text, "ssh", match[1], match[2], None, f"/{match[3]}")
    raise _wrong(text)


def _checked(text: str, scheme: str, user: str | None, host: str, port: str | None, path: str) -> GitAddress:
    number = int(port) if port else _PORTS[scheme]
    names = path.split("/")
    is_odd = not _PATH.fullmatch(path) or ".." in names or "." in names or not 0 < number < 65_536 or ".." in host
    if is_odd or (user is not None and scheme != "ssh"):
        raise _wrong(text)
    return GitAddress(scheme, host.lower(), number, path.rstrip("/"), user)  # pyright: ignore[reportArgumentType]


def _wrong(text: str) -> InvalidInput:
    # The address may hold a token, and the message goes into logs: it is not repeated.
    shown = re.sub(r"//[^/@]*@", "//...@", text)[:100]
    return InvalidInput(
        f"{shown!r} is no address of a git repository: write https://host/owner/name.git or git@host:owner/name.git, "
        "without password or token (credentials stand in secrets.yaml), or name a folder",
        field="repo",
    )


def git_target(targets: Mapping[str, GitTarget], address: GitAddress) -> GitTarget | None:
    """What is listed for the address: of several places that hold it the narrowest; None when none does."""
    if address.path in ("", "/"):
        return None
    holding = [place for place in targets if f"{address.place}/".startswith(f"{place.removesuffix('.git')}/")]
    target = targets[max(holding, key=len)] if holding else None
    return None if target is None or (address.scheme == "http" and not target.plain_http) else target


def require_target(targets: Mapping[str, GitTarget], address: GitAddress, *, policy_digest: Digest) -> GitTarget:
    """How the policy lets the address be reached.

    Raises:
        PolicyDenied: it is not listed.
    """
    found = git_target(targets, address)
    if found is None:
        raise PolicyDenied(
            f"{address.url} is no listed repository: add {address.place!r} to targets.git of config/policy.yaml, or "
            "name a local clone",
            rule_id="target_not_listed",
            policy_digest=str(policy_digest),
            url=address.url,
        )
    return found


def require_local(
    folders: Mapping[str, tuple[str, ...]] | None, repo: str, *, project_id: str, policy_digest: Digest
) -> None:
    """Returns when stories of the project may work on this local repository.

    Args:
        folders: by project, or for every one under `*`; None lists nothing and lets each repository be named.

    Raises:
        PolicyDenied: it lies in none of the project's folders. The answer is the same whether it exists or not.
    """
    if folders is None:
        return
    listed = [folder for key in (project_id, "*") for folder in folders.get(key, ())]
    # What is not written in full means another folder for the owner than it does here, as `link/..` does.
    place = PurePosixPath(repo if set(repo) & set("%?#") else repo.removeprefix("file://"))
    if place.is_absolute() and ".." not in place.parts and any(place.is_relative_to(folder) for folder in listed):
        return
    raise PolicyDenied(
        f"{repo[:300]!r} lies in no folder of project {project_id}: name the full path of a repository in one, or add "
        "its folder to targets.local of config/policy.yaml",
        rule_id="target_not_listed",
        policy_digest=str(policy_digest),
        allowed=listed,
    )


def require_keys(address: GitAddress, target: GitTarget) -> None:
    """Returns when a run can ask about the repository; InvalidInput for an ssh address without key or host keys."""
    if address.scheme != "ssh":
        return
    given = (("credentials", target.credentials), ("host_keys", target.host_keys))
    if missing := [name for name, value in given if not value]:
        raise InvalidInput(
            f"{address.url} is an ssh address, and targets.git has no {' and no '.join(missing)} for "
            f"{address.place!r}: name the secret with the private key as credentials, and the keys of the host as "
            f"host_keys (`ssh-keyscan {address.host}` prints them; compare them with those that the host publishes), "
            "or give the https address",
            field="repo",
            missing=missing,
        )
