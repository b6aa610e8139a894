"""One repository on another machine, as git reaches it from a sandbox: over HTTP(S), with settings of ours alone.

The token is read by git from its file through an askpass program of ours; it is in no argument, variable or output. No
hook, redirect, submodule, credential helper or setting of the repository takes part.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from gitdir import GitDir

__all__ = ["AGAIN", "BAD_INPUT", "NO_PERMISSION", "OK", "REFUSED", "TOO_LARGE", "URL", "Ended", "Remote", "judged"]

OK, REFUSED, BAD_INPUT, TOO_LARGE, AGAIN, NO_PERMISSION = 0, 1, 2, 3, 75, 77
URL = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/[\x21-\x7e]*")
_NO_TOKEN = re.compile(
    r"authentication failed|could not read (username|password)|returned error: 40[13]|403 forbidden", re.I
)
# A program that is ended for the size of its file says nothing itself; damaged data are told of before this line.
_TOO_LARGE = re.compile(r"signal 25|file too large|ended with \d+: fatal: fetch-pack: invalid index-pack output$", re.I)
_UNKNOWN = re.compile(r"repository .* not found|returned error: (3\d\d|404)", re.I)
_FINAL = ("rejected]", "merge-base", "rev-parse", "couldn't find remote ref", "not our ref", "fsck")
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

    def __init__(self, git: GitDir, url: str, *, user: str, token: Path | None) -> None:
        self._git, self.url = git, url
        self._settings = [
            part for s in (*_SETTINGS, f"protocol.{url.partition(':')[0]}.allow=always") for part in ("-c", s)
        ]
        self._environment = {n: os.environ[n] for n in _PROXIES if n in os.environ}
        askpass = git.path / "askpass"
        askpass.write_text(_ASKPASS if token else "#!/bin/sh\nexit 1\n")
        askpass.chmod(0o700)
        self._environment |= {"GIT_ASKPASS": str(askpass), "FLEET_GIT_USER": user, "FLEET_GIT_TOKEN": str(token)}

    def ask(self, *argv: str) -> bytes:
        """What git says; GitFailed with its words."""
        return self._git.run(*self._settings, *argv, environment=self._environment)


def judged(words: str) -> Ended:
    """What git's own words mean for whoever asked."""
    if _NO_TOKEN.search(words):
        return Ended(NO_PERMISSION, words)
    if _TOO_LARGE.search(words):
        return Ended(TOO_LARGE, "the repository is larger than what is fetched")
    is_final = _UNKNOWN.search(words) or any(mark in words for mark in _FINAL)
    return Ended(REFUSED if is_final else AGAIN, words)
