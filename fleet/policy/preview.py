"""The preview that a repository declares, whose pages stage e2e opens (RC-75)."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StrictBool, model_validator

from fleet.kernel.types import Frozen

_PATH = re.compile(r"/(?![/\\])[^\s\\#\x00-\x1f\x7f]*")


def _printable(text: str) -> str:
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in text):
        raise ValueError("must not hold control characters")
    return text


def _on_the_preview(path: str) -> str:
    if not _PATH.fullmatch(path):
        raise ValueError("must be a path of the preview: one slash first, no spaces, no #fragment, no other host")
    return path


Path = Annotated[str, Field(max_length=500), AfterValidator(_on_the_preview)]
Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Argument = Annotated[str, Field(max_length=1000), AfterValidator(_printable)]


class PreviewPage(Frozen):
    """One page of the preview and what has to be true of it."""

    path: Path
    status: Annotated[int, Field(strict=True, ge=200, le=599)] = 200
    """HTTP status of the document that is shown, after redirects within the preview."""
    text: Annotated[tuple[Line, ...], Field(max_length=10)] = ()
    """Texts that a person can see on the page, as they are shown."""
    selectors: Annotated[tuple[Line, ...], Field(max_length=10)] = ()
    """CSS selectors of elements that exist."""
    width: Annotated[int, Field(strict=True, ge=240, le=2560)] | None = None
    """Pixels of a window in which the page fits without being moved sideways; None: 1280, and it need not fit."""
    allow_errors: StrictBool = False
    """True: errors in the console and exceptions of scripts are no failure."""

    @property
    def name(self) -> str:
        """What the page's result is called, e.g. `/login at 390 px`."""
        return self.path if self.width is None else f"{self.path} at {self.width} px"


class Preview(Frozen):
    """How the repository is served for a look at it, at `http://127.0.0.1:<port>` of the sandbox's own network."""

    command: Annotated[tuple[Argument, ...], Field(min_length=1, max_length=64)]
    """Program and arguments, started in the repository's root, with `PORT` in its environment; no shell."""
    port: Annotated[int, Field(strict=True, ge=1024, le=65_535)]
    ready: Path = "/"
    """What answers with a status below 500 once the preview can be looked at."""
    ready_s: Annotated[int, Field(strict=True, ge=1, le=300)] = 30
    """Seconds that it may take until then."""
    page_s: Annotated[int, Field(strict=True, ge=1, le=60)] = 20
    """Seconds that a page may take."""
    pages: Annotated[tuple[PreviewPage, ...], Field(min_length=1, max_length=20)]

    @model_validator(mode="after")
    def _named_apart(self) -> Self:
        if not self.command[0]:
            raise ValueError("command must begin with the name of a program")
        names = [page.name for page in self.pages]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"pages lists {twice[:80]} twice: put both checks into one page, or give one a width")
        return self

    def request(self) -> dict[str, object]:
        """The document that the script inside the sandbox reads; each page with its `name`."""
        document = self.model_dump(mode="json")
        return {**document, "pages": [{**page.model_dump(mode="json"), "name": page.name} for page in self.pages]}
