"""Bytes that people take with them: never run, never shown as a page, and without secrets (AP-89, CX-60)."""

from __future__ import annotations

import asyncio

from fastapi import Response

from fleet.desk.shown_text import shown_bytes
from serve_apps.wire.redactions import REDACTIONS_HEADER, shown_counts


async def attachment(raw: bytes, name: str) -> Response:
    """The bytes for a browser to store under this name.

    Code and outputs are kept byte for byte: where secrets were taken out of a text, `X-Fleet-Redactions` says how many,
    and the bytes are not those of the digest.
    """
    shown, counts = await asyncio.to_thread(shown_bytes, raw)
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Security-Policy": "sandbox"}
    if counts:
        headers[REDACTIONS_HEADER] = shown_counts(counts)
    return Response(shown, media_type="application/octet-stream", headers=headers)
