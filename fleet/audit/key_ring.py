"""Which key signs which checkpoints: a key is retired by the checkpoint that names its successor (EV-32).

That checkpoint is signed by both. Whoever trusts one of the two keys can so follow to the other, forward to what was
signed later and back to what was signed before; a key that is retired signs nothing after it, also in a thief's hands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fleet.audit.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from fleet.audit.loss import Loss, open_loss
from fleet.audit.note import NoteKey, SignCheck, note_text, open_note
from fleet.kernel.errors import InvalidInput, LogCorrupted


@dataclass(frozen=True, slots=True)
class _Span:
    """A key and the checkpoints that it signs; `last` is None for the key in use."""

    key: NoteKey
    first: int
    last: int | None


@dataclass(frozen=True, slots=True)
class _Handover:
    retired: NoteKey
    successor: NoteKey
    sequence: int


class KeyRing:
    """The keys of one notary, from the first on. Made with `trusting`."""

    def __init__(self, trusted: NoteKey, spans: tuple[_Span, ...]) -> None:
        self._trusted, self._spans = trusted, spans

    @classmethod
    def trusting(cls, key: NoteKey, handovers: Iterable[str] = (), *, check: SignCheck) -> KeyRing:
        """The keys that lead to this one and follow from it.

        Args:
            handovers: notes of checkpoints, in any order; one that is no handover, is not signed by both of its keys,
                or does not lead to a key of the ring is passed over.
        """
        ordered = sorted({h for note in handovers if (h := _handover(note, check))}, key=lambda h: h.sequence)
        before = {h.successor: h for h in ordered}
        # Of two that retire one key the later one is made with a stolen key.
        after = {h.retired: h for h in reversed(ordered)}
        chain: list[_Handover] = []
        passed = {key}
        while (earlier := before.get(chain[0].retired if chain else key)) and earlier.retired not in passed:
            passed.add(earlier.retired)
            chain.insert(0, earlier)
        while (later := after.get(chain[-1].successor if chain else key)) and later.successor not in passed:
            passed.add(later.successor)
            chain.append(later)
        return cls(key, tuple(_spans(chain)) or (_Span(key, 1, None),))

    @property
    def keys(self) -> tuple[NoteKey, ...]:
        """All of them, the one in use last."""
        return tuple(span.key for span in self._spans)

    def open(self, note: str, check: SignCheck) -> Checkpoint:
        """The checkpoint of a note that the right key has signed.

        Raises:
            InvalidInput: not of the form.
            LogCorrupted: not signed by a key of the ring, or by one that had been retired, or was not yet in use.
        """
        span = self._of(_origin(note))
        checkpoint = open_checkpoint(note, span.key, check)
        if checkpoint.handover is not None:
            open_note(note, checkpoint.handover.successor, check)
        if checkpoint.sequence < span.first or (span.last and checkpoint.sequence > span.last):
            raise LogCorrupted(
                f"checkpoint {checkpoint.sequence} is signed by {span.key.name}, which signs checkpoints "
                f"{span.first} to {span.last or 'the newest'}: a retired key was used",
                sequence=checkpoint.sequence,
            )
        return checkpoint

    def open_loss(self, note: str, check: SignCheck) -> Loss:
        """The record of an accepted loss that a key of the ring has signed. Raises as `open` does."""
        text = note_text(note)
        for span in self._spans:
            if f"\n— {span.key.name} " in note.removeprefix(text):
                loss = open_loss(note, span.key, check)
                if span.last is None or loss.sequence <= span.last:
                    return loss
        return open_loss(note, self._spans[-1].key, check)

    def _of(self, origin: str) -> _Span:
        named = [span for span in self._spans if span.key.name == origin]
        # What no key of the ring has signed is told of the one that the reader trusts.
        return named[0] if named else next(span for span in self._spans if span.key == self._trusted)


def is_handover(note: str) -> bool:
    """Whether the note has the form of a checkpoint that names a successor; nothing in it is checked."""
    return "\nsuccessor " in note and _parsed(note) is not None


def _origin(note: str) -> str:
    try:
        return parse_checkpoint(note_text(note)).origin
    except InvalidInput:
        return ""


def _parsed(note: str) -> Checkpoint | None:
    try:
        checkpoint = parse_checkpoint(note_text(note))
    except InvalidInput:
        return None
    return checkpoint if checkpoint.handover else None


def _handover(note: str, check: SignCheck) -> _Handover | None:
    checkpoint = _parsed(note)
    if checkpoint is None or checkpoint.handover is None:
        return None
    both = checkpoint.handover
    try:
        for key in (both.retired, both.successor):
            open_note(note, key, check)
    except LogCorrupted:
        return None
    return _Handover(both.retired, both.successor, checkpoint.sequence)


def _spans(chain: list[_Handover]) -> Iterator[_Span]:
    first = 1
    for handover in chain:
        yield _Span(handover.retired, first, handover.sequence)
        first = handover.sequence + 1
    if chain:
        yield _Span(chain[-1].successor, first, None)
