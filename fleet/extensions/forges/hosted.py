"""Which change requests a configuration means: GitHub, GitLab, Gitea, or files of this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, assert_never
from urllib.parse import unquote, urlsplit

from fleet.forge.local.change_requests import LocalChangeRequests
from fleet.forge.port import ChangeRequests, ForgeParts, ForgePlugin
from fleet.kernel.errors import ConfigError

if TYPE_CHECKING:
    from fleet.extensions.forges.http import TokenSource
    from fleet.forge.local.keyed import HostedApi


ForgeKind = Literal["github", "gitlab", "gitea", "local"]


def change_requests_for(
    kind: ForgeKind,
    url: str,
    *,
    token: TokenSource | None = None,
    timeout_s: float = 30.0,
    allow_http: bool = False,
) -> ChangeRequests:
    """Change requests of this forge; nothing is asked of it yet.

    Args:
        url: root of the REST interface (`https://api.github.com`, `https://<host>/api/v4`, `https://<host>/api/v1`),
            or for `local` the folder (or `file://` address) that the patch files go to.
        token: returns the current token, at once or when awaited; asked before each request. Unused for `local`.
        timeout_s: for one request with all of its answer.
        allow_http: whether a plain `http` address off this machine will do; the token is readable on the way.

    Raises:
        ConfigError: the address is of the wrong form, or a hosted forge comes without a token.
    """
    if kind == "local":
        return LocalChangeRequests(_folder(url))
    if token is None:
        raise ConfigError(f"forge {kind} needs a token: store one and name it", forge=kind)
    # Here, so that a process with local repositories alone loads no HTTP client.
    from fleet.extensions.forges.http import ForgeHttp
    from fleet.forge.local.keyed import HostedChangeRequests

    api, headers = _dialect(kind)
    http = ForgeHttp(
        url,
        forge=kind,
        token=token,
        headers=headers,
        timeout_s=timeout_s,
        allow_http=allow_http,
    )
    return HostedChangeRequests(api(http))


def _dialect(
    kind: Literal["github", "gitlab", "gitea"],
) -> tuple[Callable[..., HostedApi], Callable[[str], dict[str, str]]]:
    match kind:
        case "github":
            from fleet.extensions.forges.github import GitHubApi, github_headers

            return GitHubApi, github_headers
        case "gitlab":
            from fleet.extensions.forges.gitlab import GitLabApi, gitlab_headers

            return GitLabApi, gitlab_headers
        case "gitea":
            from fleet.extensions.forges.gitea import GiteaApi, gitea_headers

            return GiteaApi, gitea_headers
        case _:
            assert_never(kind)


def _folder(url: str) -> Path:
    parts = urlsplit(url)
    path = unquote(parts.path) if parts.scheme == "file" else url
    if not path or "\0" in path or ("://" in path and parts.scheme != "file"):
        raise ConfigError(f"{url[:200]!r} is no folder: name the one that patch files go to", url=url[:200])
    return Path(path).absolute()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedOptions:
    """The keys of `forge` in fleet.yaml that a hosted forge takes for itself."""

    url: str


def _hosted(kind: ForgeKind, options: HostedOptions, parts: ForgeParts) -> ChangeRequests:
    return change_requests_for(kind, options.url, token=parts.token)


GITHUB = ForgePlugin(name="github", options=HostedOptions, make=partial(_hosted, "github"))
GITLAB = ForgePlugin(name="gitlab", options=HostedOptions, make=partial(_hosted, "gitlab"))
GITEA = ForgePlugin(name="gitea", options=HostedOptions, make=partial(_hosted, "gitea"))
