"""What an http call may send and where a redirect may lead: pure rules of RT-59."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from fleet.kernel.errors import InvalidInput, PolicyDenied
from fleet.policy.addresses import host_is_listed
from fleet.policy.secret_refs import SCHEME

MAX_REDIRECTS = 5
PLAIN_HEADERS = frozenset(
    {"accept", "accept-language", "content-type", "if-match", "if-none-match", "if-modified-since", "prefer", "range"}
)
"""Headers that a call may set to text."""
CREDENTIAL_HEADERS = frozenset({"authorization", "private-token", "x-api-key", "x-auth-token"})
"""Headers that a call may set to a reference `secret://<name>`, and to nothing else."""
_URL = re.compile(
    r"(https?)://(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::([0-9]{1,5}))?(/[^\s\\#]*|\?[^\s\\#]*)?(?:#[^\s\\]*)?"
)
_VALUE = re.compile(r"[\t\x20-\x7e]{0,1024}")


class RequestTarget(NamedTuple):
    """Where a request goes; the host in lower case without brackets."""

    scheme: str
    host: str
    port: int
    path: str
    """With the query."""

    @property
    def authority(self) -> str:
        """Value of the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _port_of(self.scheme) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole address."""
        return f"{self.scheme}://{self.authority}{self.path}"


def _port_of(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def target_of(url: str) -> RequestTarget:
    """The parts of an http address. InvalidInput for another scheme, credentials, or what is no address."""
    match = _URL.fullmatch(url)
    port = int(match[3] or _port_of(match[1])) if match else 0
    if match is None or not 0 < port < 65_536 or not url.isascii():
        raise InvalidInput(
            "the address must be http(s)://host[:port]/path without credentials; correct it", field="url"
        )
    path = match[4] or "/"
    return RequestTarget(match[1], match[2].strip("[]").lower(), port, path if path.startswith("/") else f"/{path}")


def redirected(
    before: RequestTarget, location: str, *, hosts: Iterable[str], plain_hosts: Iterable[str] = ()
) -> RequestTarget:
    """Where the redirect leads.

    Raises:
        PolicyDenied: to a host that is not listed, to plain http where it is not listed, or to no http address.
    """
    try:
        after = target_of(_absolute(before, location))
    except InvalidInput as error:
        raise _denied(f"{before.host} redirects to what is no http address", host=before.host) from error
    check_target(after, hosts=hosts, plain_hosts=plain_hosts)
    return after


def check_target(target: RequestTarget, *, hosts: Iterable[str], plain_hosts: Iterable[str] = ()) -> None:
    """Return when the host is listed and the scheme is https or listed; PolicyDenied otherwise."""
    if not host_is_listed(target.host, hosts):
        raise _denied(
            f"host {target.host} is not listed under targets.hosts; list it if it should be", host=target.host
        )
    if target.scheme != "https" and not host_is_listed(target.host, plain_hosts):
        raise _denied(f"host {target.host} may be reached by https only", host=target.host)


def _denied(message: str, *, host: str) -> PolicyDenied:
    return PolicyDenied(message, rule_id="RT-59", host=host)


def _absolute(before: RequestTarget, location: str) -> str:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", location):
        return location
    if location.startswith("//"):
        return f"{before.scheme}:{location}"
    origin = f"{before.scheme}://{before.authority}"
    if location.startswith("/"):
        return origin + location
    if location.startswith("?"):
        return origin + before.path.split("?")[0] + location
    folder = posixpath.dirname(before.path.split("?")[0])
    return f"{origin}{folder.rstrip('/')}/{location}"


def checked_headers(given: Mapping[str, object]) -> dict[str, str]:
    """The headers of a call, names in lower case.

    Raises:
        InvalidInput: a name that is not on the lists, a value that is no header value, or a credential that stands in
            the arguments instead of a reference; the message does not repeat it.
    """
    headers: dict[str, str] = {}
    for given_name, value in given.items():
        name = given_name.lower()
        if name not in PLAIN_HEADERS | CREDENTIAL_HEADERS:
            allowed = ", ".join(sorted(PLAIN_HEADERS | CREDENTIAL_HEADERS))
            raise InvalidInput(f"header {given_name[:40]!r} cannot be set; a call may set {allowed}", field="headers")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise InvalidInput(f"header {name} must be one line of ASCII text", field="headers")
        if name in CREDENTIAL_HEADERS and not value.startswith(SCHEME):
            raise InvalidInput(f"header {name} takes a reference secret://<name>, never the value", field="headers")
        headers[name] = value
    return headers
