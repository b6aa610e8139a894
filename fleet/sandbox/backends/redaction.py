"""Takes the secrets of one run out of what it prints. A value split over two reads is found too (RC-35, RT-65)."""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection

from fleet.redaction.known_values import KNOWN_SECRET, forms_of
from fleet.redaction.redact import RedactingStream
from fleet.secrets.port import SecretDelivery

_MARK = KNOWN_SECRET.encode()


def forms_in(delivery: SecretDelivery | None) -> frozenset[str]:
    """Every form in which a program may print a value that this run was given."""
    if delivery is None:
        return frozenset()
    values = (*delivery.secret_env.values(), *delivery.secret_files.values())
    return frozenset[str]().union(*(forms_of(value.reveal()) for value in values))


class RedactingBytes:
    """What goes in comes out, line by line, without what looks like a secret. What is no text keeps its bytes."""

    def __init__(self) -> None:
        self._stream = RedactingStream()
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def feed(self, data: bytes) -> bytes:
        """The lines that are certain now."""
        return self._stream.feed(self._decoder.decode(data)).encode("utf-8", "surrogateescape")

    def flush(self) -> bytes:
        """The rest: the stream is over."""
        rest = self._stream.feed(self._decoder.decode(b"", final=True)) + self._stream.flush()
        return rest.encode("utf-8", "surrogateescape")


class StreamRedactor:
    """Takes every form of the secrets out of a stream. Only an end that may yet become one is held back.

    The output is that of one pass over the whole stream, however it was cut. It works on bytes, so that output that is
    no text keeps its bytes.
    """

    def __init__(self, forms: Collection[str]) -> None:
        self._forms = sorted({form.encode("utf-8", "surrogatepass") for form in forms}, key=lambda f: (-len(f), f))
        self._pattern = re.compile(b"|".join(map(re.escape, self._forms)))
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """The part of the stream that is certain now."""
        if not self._forms:
            return data
        self._held += data
        return self._release(self._certain_end())

    def flush(self) -> bytes:
        """The rest: the stream is over."""
        return self._release(len(self._held)) if self._held else b""

    def _release(self, end: int) -> bytes:
        ready, self._held = self._held[:end], self._held[end:]
        return self._pattern.sub(_MARK, ready)

    def _certain_end(self) -> int:
        end = self._first_open(0)
        for match in self._pattern.finditer(self._held):
            if match.start() >= end:
                break
            if match.end() > end:
                end = self._first_open(match.end())
        return end

    def _first_open(self, start: int) -> int:
        """Where the first end of the held bytes begins that is the begin of a form."""
        return min((self._open_at(form, start) for form in self._forms), default=len(self._held))

    def _open_at(self, form: bytes, start: int) -> int:
        at = self._held.find(form[:1], max(start, len(self._held) - len(form) + 1))
        while at >= 0 and not form.startswith(self._held[at:]):
            at = self._held.find(form[:1], at + 1)
        return at if at >= 0 else len(self._held)


class OutputRedactor:
    """Takes secrets out of what one stream of a run prints: values that the run was given, then the catalogue.

    This is the one place where output is looked at: whoever keeps, shows or records it takes it from here (CX-60).
    """

    def __init__(self, forms: Collection[str]) -> None:
        self._values, self._texts = StreamRedactor(forms), RedactingBytes()

    def feed(self, data: bytes) -> bytes:
        """The lines that are certain now."""
        return self._texts.feed(self._values.feed(data))

    def flush(self) -> bytes:
        """The rest: the stream is over."""
        return self._texts.feed(self._values.flush()) + self._texts.flush()
