"""What of an outcome is kept and shown: limits, redaction, the excerpt of RT-66."""

from __future__ import annotations

from typing import cast

from pydantic import JsonValue

from fleet.context import redact_json
from fleet.digest import canonical_json
from fleet.errors import ToolFailed
from fleet.ids import Digest
from fleet.ports import BlobStore
from fleet.services.known_secrets import KnownSecrets
from fleet.tools import EXCERPT_CHARS, ToolOutcome, excerpt_of, plain_text

__all__ = ["finished"]


async def finished(
    outcome: ToolOutcome, *, blobs: BlobStore, limit_bytes: int, secrets: KnownSecrets | None
) -> ToolOutcome:
    """The outcome as it is recorded: redacted, `text` an excerpt, the whole output a blob where the excerpt is less.

    Args:
        outcome: of a tool, which may hand over its whole output as `text`, or as a blob beside a text of its own.
        limit_bytes: of output and of data that are kept; of a longer output the first and last parts.

    Raises:
        ToolFailed: the data are over the limit, or no JSON; a tool pages what may be large.
    """
    whole = await _whole(outcome, blobs)
    secrets = secrets or KnownSecrets()
    whole = secrets.redact(whole).text
    kept = _within(plain_text(whole), limit_bytes)
    stored = await blobs.put(kept.encode()) if len(kept) > EXCERPT_CHARS or outcome.output else None
    shown = kept if outcome.output is None else secrets.redact(outcome.text).text or kept
    return outcome.model_copy(
        update={
            "text": excerpt_of(shown),
            "output": stored,
            "content": _checked(redact_json(_redacted(outcome.content, secrets)), limit_bytes),
            "reason": secrets.redact(outcome.reason).text,
        }
    )


async def _whole(outcome: ToolOutcome, blobs: BlobStore) -> str:
    if outcome.output is None:
        return outcome.text
    return (await blobs.get(Digest(outcome.output))).decode(errors="replace")


def _within(text: str, limit_bytes: int) -> str:
    data = text.encode(errors="replace")
    if len(data) <= limit_bytes:
        return data.decode()
    head, tail = limit_bytes * 6 // 10, limit_bytes * 3 // 10
    line = f"\n[... {len(data) - head - tail} bytes left out: over the output limit ...]\n"
    return data[:head].decode(errors="ignore") + line + data[-tail:].decode(errors="ignore")


def _redacted(value: JsonValue, secrets: KnownSecrets) -> JsonValue:
    """The data with every text in them redacted, names of fields too."""
    match value:
        case str():
            return secrets.redact(value).text
        case list():
            return [_redacted(item, secrets) for item in cast("list[JsonValue]", value)]
        case dict():
            items = cast("dict[str, JsonValue]", value).items()
            return {secrets.redact(name).text: _redacted(item, secrets) for name, item in items}
        case _:
            return value


def _checked(content: JsonValue, limit_bytes: int) -> JsonValue:
    try:
        size = len(canonical_json(content))
    except (TypeError, UnicodeEncodeError) as error:
        raise ToolFailed("the tool's data have no canonical form: use texts and integers") from error
    if size > limit_bytes:
        raise ToolFailed(
            f"the tool's data have {size} bytes, at most {limit_bytes}: ask for less", limit=limit_bytes, size=size
        )
    return content
