"""The desk's files at `/`: built once by `make desk`, served as they are, under a strict content policy (AP-1)."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

BUILT = Path(__file__).parent / "ui" / "dist"
"""Where `make desk` leaves the desk."""

CONTENT_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_NO_DESK = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>SWE Fleet</title></head>
<body><h1>SWE Fleet</h1>
<p>The fleet is up. Its desk is not built: run <code>make desk</code> in the source tree, and start the fleet again.</p>
<p>The HTTP interface is at <code>/api</code>; it wants a token.</p>
</body></html>
"""
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".map": "application/json",
    ".woff2": "font/woff2",
    ".ico": "image/x-icon",
}


@dataclass(frozen=True, slots=True)
class SiteFile:
    """One file as it is sent."""

    body: bytes
    media_type: str
    tag: str
    is_hashed: bool
    """Its name holds a hash of its content, so that it may be kept forever."""


def read_site(folder: Path = BUILT) -> Mapping[str, SiteFile]:
    """Path below `/` -> file; one plain page when nothing was built. Links out of the folder are left out."""
    if not (folder / "index.html").is_file():
        return {"": _file(Path("index.html"), _NO_DESK)}
    root = folder.resolve()
    files: dict[str, SiteFile] = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.resolve().is_relative_to(root):
            files[path.relative_to(root).as_posix()] = _file(path, path.read_bytes())
    return {"": files.pop("index.html"), **files}


def _file(path: Path, body: bytes) -> SiteFile:
    kind = _TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    is_hashed = path.parent.name == "assets" and "-" in path.stem
    return SiteFile(body, kind, f'"{hashlib.sha256(body).hexdigest()[:32]}"', is_hashed)


def site_routes(files: Mapping[str, SiteFile]) -> list[Route]:
    """A route for each file, so that any other path stays unknown."""
    return [_route(path, file) for path, file in files.items()]


def _route(path: str, file: SiteFile) -> Route:
    async def send(request: Request) -> Response:
        age = "public, max-age=31536000, immutable" if file.is_hashed else "no-cache"
        headers = {**_HEADERS, "ETag": file.tag, "Cache-Control": age}
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        return Response(file.body, media_type=file.media_type, headers=headers)

    # A brace in a file's name would be read as a parameter.
    assert "{" not in path, path
    return Route(f"/{path}", send, methods=["GET", "HEAD"], include_in_schema=False)
