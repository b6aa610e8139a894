"""In-memory twin of the port DeadLetters."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.adapters.clock import SystemClock
from fleet.adapters.memory.inbox import MemoryInbox
from fleet.adapters.parking import letter_id_of, no_letter, retried_command, standing_still
from fleet.ids import StreamId
from fleet.ports import MAX_ATTEMPTS, Clock, DeadLetter, Failure, LetterSource

__all__ = ["MemoryDeadLetters"]

_COUNT_TTL_MS = 7 * 86_400_000


@dataclass(slots=True)
class _Count:
    attempts: int
    first_seen_ms: int
    last_seen_ms: int


class MemoryDeadLetters:
    """Counts and letters kept as long as the object. Implements the port DeadLetters.

    Args:
        clock: the store's clock, by which first and last seen are told.
        inbox: its commands that were set aside are letters too, and go back to it when they are retried.
    """

    def __init__(self, clock: Clock | None = None, *, inbox: MemoryInbox | None = None) -> None:
        self._clock = clock or SystemClock()
        self._inbox = inbox or MemoryInbox(self._clock)
        self._counts: dict[str, _Count] = {}
        self._letters: dict[str, DeadLetter] = {}

    async def failed(self, failure: Failure) -> DeadLetter | None:
        """One more attempt failed; the letter once it is parked."""
        letter_id = letter_id_of("00", failure.source, failure.stream, failure.version)
        if letter_id in self._letters:
            return self._letters[letter_id]
        count = self._counted(letter_id)
        if count.attempts < MAX_ATTEMPTS:
            return None
        letter = DeadLetter(letter_id, failure, count.attempts, count.first_seen_ms, count.last_seen_ms)
        self._letters[letter_id] = letter
        return letter

    def _counted(self, letter_id: str) -> _Count:
        now_ms = self._clock.now_ms()
        count = self._counts.get(letter_id)
        if count is None or count.last_seen_ms + _COUNT_TTL_MS <= now_ms:
            count = self._counts[letter_id] = _Count(0, now_ms, now_ms)
        count.attempts, count.last_seen_ms = count.attempts + 1, now_ms
        return count

    async def parked(self, source: LetterSource) -> dict[StreamId, DeadLetter]:
        """Streams at which this consumer stands still; none for `commands`, whose letters hold up nothing."""
        return standing_still([letter for letter in await self.letters() if letter.failure.source == source])

    async def letter(self, source: LetterSource, stream: StreamId, version: int) -> DeadLetter | None:
        """The letter of exactly this piece of work."""
        return self._letters.get(letter_id_of("00", source, stream, version))

    async def letters(self) -> list[DeadLetter]:
        """Every letter, oldest first."""
        found = [*self._letters.values(), *self._inbox.set_aside.values()]
        return sorted(found, key=lambda letter: (letter.last_seen_ms, letter.letter_id))

    async def retry(self, letter_id: str) -> DeadLetter:
        """Letter and count are gone; a command is back in its queue, and its answer is open again.

        Raises NotFound, and InvalidInput when what was set aside is no command; the letter stays then.
        """
        letter = self._letters.get(letter_id) or self._inbox.set_aside.get(letter_id)
        if letter is None:
            raise no_letter(letter_id)
        command = retried_command(letter)
        self._letters.pop(letter_id, None)
        self._counts.pop(letter_id, None)
        if command is not None:
            self._inbox.put_back(command, letter_id)
        return letter
