"""One repository on another machine, as git reaches it from a sandbox over HTTP(S) or SSH, with our settings alone.

The token is read by git from its file through an askpass program of ours, the key by ssh; neither is in an argument,
variable or output. No hook, redirect, submodule, credential helper or setting of the repository takes part.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from git_ssh import HOST_KEY, ssh_environment
from gitdir import GitDir

OK, REFUSED, BAD_INPUT, TOO_LARGE, AGAIN, NO_PERMISSION = 0, 1, 2, 3, 75, 77
_URL = re.compile(r"(https?|ssh)://([A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?/[\x21-\x7e]*")
_NO_TOKEN = re.compile(
    r"authentication failed|could not read (username|password)|returned error: 40[13]|403 forbidden"
    r"|permission denied \(|load key ",
    re.I,
)
# A program that is ended for the size of its file says nothing itself; damaged data are told of before this line.
_TOO_LARGE = re.compile(r"signal 25|file too large|ended with \d+: fatal: fetch-pack: invalid index-pack output$", re.I)
_UNKNOWN = re.compile(
    r"repository (.* )?not found|returned error: (3\d\d|404)|does not appear to be a git repository"
    r"|cannot run ssh|host key verification failed",
    re.I,
)
_FINAL = ("rejected]", "merge-base", "rev-parse", "couldn't find remote ref", "not our ref", "fsck")
_HOST_KEY = re.compile(HOST_KEY)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_ASKPASS = (
    '#!/bin/sh\ncase "$1" in Username*) printf "%s" "$FLEET_GIT_USER" ;; *) exec cat "$FLEET_GIT_TOKEN" ;; esac\n'
)
_SETTINGS = (
    "credential.helper=",
    "http.followRedirects=false",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
    "protocol.allow=never",
    "push.gpgSign=false",
    "push.recurseSubmodules=no",
    "push.followTags=false",
    "transfer.credentialsInUrl=die",
    "transfer.bundleURI=false",
    "gc.auto=0",
    "maintenance.auto=false",
)


class Ended(NamedTuple):
    """How it ended: exit code and what to print."""

    code: int
    text: str


class Remote:
    """The repository at the address."""

    def __init__(self, git: GitDir, url: str, environment: dict[str, str]) -> None:
        self._git, self.url = git, url
        self._settings = [
            part for s in (*_SETTINGS, f"protocol.{url.partition(':')[0]}.allow=always") for part in ("-c", s)
        ]
        self._environment = {n: os.environ[n] for n in _PROXIES if n in os.environ} | environment

    def ask(self, *argv: str) -> bytes:
        """What git says; GitFailed with its words."""
        return self._git.run(*self._settings, *argv, environment=self._environment)


def add_remote_arguments(parser: argparse.ArgumentParser) -> None:
    """The address and what opens it: a token over HTTP(S), a private key over SSH."""
    parser.add_argument("--url", required=True)
    parser.add_argument("--user", default="git")
    parser.add_argument("--token", type=Path, help="file with the token, or with the private key")
    parser.add_argument("--host-key", action="append", default=[], help="key of an SSH host; may be given again")


def is_remote(options: argparse.Namespace) -> bool:
    """Whether the arguments name a repository as it can be asked here."""
    if not _URL.fullmatch(options.url):
        return False
    if not options.url.startswith("ssh://"):
        return "@" not in options.url and not options.host_key
    return options.token is not None and bool(options.host_key) and all(map(_HOST_KEY.fullmatch, options.host_key))


@contextlib.contextmanager
def open_remote(git: GitDir, options: argparse.Namespace) -> Generator[Remote]:
    """The repository of the arguments, for which `is_remote` holds; what opens it is gone afterwards."""
    if options.url.startswith("ssh://"):
        # Not beside git's own files, which a run may keep in its workspace.
        with tempfile.TemporaryDirectory(prefix="ssh-", dir="/tmp") as folder:
            yield Remote(git, options.url, ssh_environment(Path(folder), options.token, options.host_key))
    else:
        yield Remote(git, options.url, _askpass(git, options.user, options.token))


def _askpass(git: GitDir, user: str, token: Path | None) -> dict[str, str]:
    askpass = git.path / "askpass"
    askpass.write_text(_ASKPASS if token else "#!/bin/sh\nexit 1\n")
    askpass.chmod(0o700)
    return {"GIT_ASKPASS": str(askpass), "FLEET_GIT_USER": user, "FLEET_GIT_TOKEN": str(token)}


def judged(words: str) -> Ended:
    """What git's own words mean for whoever asked."""
    if _NO_TOKEN.search(words):
        return Ended(NO_PERMISSION, words)
    if _TOO_LARGE.search(words):
        return Ended(TOO_LARGE, "the repository is larger than what is fetched")
    is_final = _UNKNOWN.search(words) or any(mark in words for mark in _FINAL)
    return Ended(REFUSED if is_final else AGAIN, words)
