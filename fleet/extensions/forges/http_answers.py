"""What an answer of a forge means: its content as a model, or the error it stands for, with a hint when to repeat."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from fleet.forge.local.change_text import one_line
from fleet.kernel.errors import (
    CommitUnknown,
    FleetError,
    InvalidInput,
    NotFound,
    RateLimited,
    StoreUnavailable,
    ToolFailed,
    VersionConflict,
)
from fleet.web.answers import epoch_of, seconds_of
from fleet.web.http import HttpAnswer

M = TypeVar("M", bound=BaseModel)
_MAX_WAIT_S = 86_400
_MAX_SAID = 300


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as errors name it: never its token or its body."""

    forge: str
    method: str
    url: str
    token: str

    def __repr__(self) -> str:
        return f"Asked({self.method} {self.url})"

    @property
    def is_read(self) -> bool:
        """Whether nothing can have been written by it."""
        return self.method == "GET"

    def clean(self, text: str) -> str:
        """Text of the other side, made one line and without the token."""
        return one_line(text.replace(self.token, "***"), _MAX_SAID)

    def lost(self, why: str, **details: Any) -> FleetError:
        """No usable answer came: a read is repeated later, a write may have happened."""
        where = f"{self.forge} at {self.url} {why}"
        if self.is_read:
            return StoreUnavailable(f"{where}: repeat later", forge=self.forge, url=self.url, **details)
        return CommitUnknown(
            f"{where}, so it is not known whether the write happened: repeat the same call, it finds what is there",
            forge=self.forge,
            url=self.url,
            **details,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer: its bytes, and whether the forge says that another page follows."""

    asked: Asked
    data: bytes
    has_next: bool = False

    def as_one(self, model: type[M]) -> M:
        """The content as one object; StoreUnavailable or CommitUnknown when it is something else."""
        return self._model(model, self._json())

    def as_list(self, model: type[M]) -> list[M]:
        """The content as a list of objects."""
        found = self._json()
        if not isinstance(found, list):
            raise self.asked.lost("did not answer with a list", reason="malformed")
        return [self._model(model, item) for item in cast("list[Any]", found)]

    def _json(self) -> Any:
        try:
            return json.loads(self.data)
        except (ValueError, RecursionError):
            pass
        # Outside of the handler: the decoder's error holds the whole document.
        raise self.asked.lost("did not answer with JSON", reason="malformed")

    def _model(self, model: type[M], value: Any) -> M:
        try:
            return model.model_validate(value)
        except ValidationError as error:
            fields = ", ".join(sorted({".".join(map(str, e["loc"])) or "(all)" for e in error.errors()}))
        raise self.asked.lost(f"answered with unexpected fields ({fields[:200]})", reason="malformed")


def refusal(asked: Asked, response: HttpAnswer) -> FleetError:
    """Returns the error that a status of 300 or more stands for.

    Its details hold `retry_after_s` when the forge names a time.
    """
    status, said = response.status, asked.clean(_said(response.data))
    wait_s = _wait_s(response)
    details: dict[str, Any] = {"forge": asked.forge, "url": asked.url, "status": status}
    if wait_s is not None:
        details["retry_after_s"] = wait_s
    if status == 429 or (status == 403 and _is_rate_limit(response, said)):
        when = f"in {wait_s} s" if wait_s is not None else "later"
        return RateLimited(f"{asked.forge} limits the requests of this token ({said}): repeat {when}", **details)
    if status >= 500:
        if status == 503:
            return StoreUnavailable(f"{asked.forge} at {asked.url} is down ({said}): repeat later", **details)
        return asked.lost(f"failed with status {status} ({said})", **_without(details, "forge", "url"))
    make, mend = _MEANING.get(status, (ToolFailed, "look at the address and the version of the forge"))
    return make(f"{asked.forge} answered {asked.method} {asked.url} with {status} ({said}): {mend}", **details)


_NAMES = "name a repository, branch and commit that exist and that the token may see"
_MEANING: dict[int, tuple[Callable[..., FleetError], str]] = {
    400: (InvalidInput, "correct what it names"),
    401: (ToolFailed, "the token is not accepted; store a valid one"),
    403: (ToolFailed, "the token may not do this; give it write access to change requests and commit statuses"),
    404: (NotFound, _NAMES),
    409: (VersionConflict, "it exists already or moved; repeat"),
    410: (NotFound, _NAMES),
    413: (InvalidInput, "shorten the text"),
    422: (InvalidInput, "correct what it names"),
}


def _without(details: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in details.items() if name not in names}


def _is_rate_limit(response: HttpAnswer, said: str) -> bool:
    headers = response.headers
    return "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0" or "rate limit" in said.lower()


def _said(data: bytes) -> str:
    """The message in an error's body: `message` or `error`, with the entries of `errors` of GitHub."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return "no JSON"
    if not isinstance(document, dict):
        return "no message"
    fields = cast("dict[str, Any]", document)
    said = [_flat(fields[name]) for name in ("message", "error", "errors") if fields.get(name)]
    return "; ".join(said) or "no message"


def _flat(value: Any) -> str:
    match value:
        case list():
            return ", ".join(_flat(item) for item in cast("list[Any]", value)[:10])
        case {"message": str(message)}:
            return message
        case dict():
            return ", ".join(f"{k}: {str(v)[:200]}" for k, v in list(cast("dict[Any, Any]", value).items())[:10])
        case _:
            return str(value)[:1000]


def _wait_s(response: HttpAnswer) -> int | None:
    """Seconds until the forge takes requests again, 1 to 86,400, if it says so."""
    headers = response.headers
    if after := headers.get("retry-after"):
        return _bounded(seconds_of(after, date=headers.get("date")))
    is_spent = headers.get("x-ratelimit-remaining") == "0" or response.status == 429
    reset = _number(headers.get("x-ratelimit-reset") or headers.get("ratelimit-reset") or "")
    if not is_spent or reset is None:
        return None
    return _bounded(reset - (epoch_of(headers.get("date")) or time.time()))


def _bounded(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, min(_MAX_WAIT_S, math.ceil(seconds)))


def _number(text: str) -> float | None:
    return float(text) if text.strip().isdecimal() and len(text) < 16 else None
