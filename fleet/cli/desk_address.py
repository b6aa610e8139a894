"""The address of the desk that lets its owner in: for the eyes of the person at this terminal alone."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlsplit

__all__ = ["desk_address", "is_desk_built"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def desk_address(url: str | None, token_file: Path, *, is_terminal: bool) -> str | None:
    """Where a browser finds the desk; with the token of the local user after `#`, which no browser sends anywhere.

    Without the token when nobody sits at a terminal (its output is kept in files), when the front is reached from
    other machines, and when there is no token. None when the fleet has no front. The desk takes the token out of the
    address at once (AP-1).
    """
    if url is None:
        return None
    token = _token(token_file) if is_terminal and urlsplit(url).hostname in _LOOPBACK else ""
    return f"{url}/#token={quote(token, safe='')}" if token else url


def _token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def is_desk_built() -> bool:
    """Whether the front of this installation has the pages of the desk; it reads them when it starts."""
    # Found and not imported: the front would load Ray.
    found = find_spec("serve_apps")
    return found is not None and found.origin is not None and _pages(Path(found.origin).parent).is_file()


def _pages(front: Path) -> Path:
    return front / "ui" / "dist" / "index.html"
