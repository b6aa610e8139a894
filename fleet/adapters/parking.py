"""What every adapter does alike when work is set aside: ids of letters, the form of commands, the words (EV-22)."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from typing import Any, cast

from fleet.errors import FleetError, InvalidInput, NotFound, OutcomeUnknown
from fleet.ids import CommandId, Principal, StreamId
from fleet.ports import Answer, Command, DeadLetter, Failure

__all__ = [
    "NOWHERE",
    "command_failure",
    "decode_command",
    "encode_command",
    "letter_id_of",
    "malformed_failure",
    "no_letter",
    "partition_in",
    "retried_command",
    "set_aside",
    "set_aside_by",
    "standing_still",
]

NOWHERE = StreamId("platform:main")
"""Where a command is filed whose own stream cannot be read."""

_LETTER_ID = re.compile(r"dl-(\d{2})-[0-9a-f]{12}")


def letter_id_of(partition: str, *what: str | int) -> str:
    """`dl-NN-<12 hex>`: the same work gets the same id, so that it can never have two letters at once."""
    raw = hashlib.sha256("\x00".join(str(part) for part in what).encode()).hexdigest()
    return f"dl-{partition}-{raw[:12]}"


def partition_in(letter_id: str) -> str | None:
    """NN of a letter's id; None when the text is no such id."""
    found = _LETTER_ID.fullmatch(letter_id)
    return found.group(1) if found else None


def encode_command(command: Command) -> str:
    """The command as JSON, as it lies in the queue."""
    return json.dumps(asdict(command))


def decode_command(raw: str | bytes) -> Command:
    """The command of such JSON. Raises InvalidInput saying why it is none."""
    try:
        document: dict[str, Any] = json.loads(raw)
        return Command(
            command_id=CommandId(document["command_id"]),
            stream=StreamId(document["stream"]),
            name=_of_type(document, "name", str),
            principal=Principal(document["principal"]),
            body=_of_type(document, "body", dict),
            trace_id=str(document.get("trace_id", "")),
        )
    except (ValueError, KeyError, TypeError, FleetError) as error:
        raise InvalidInput(f"this is no command: {type(error).__name__}: {error}", value=str(raw[:100])) from error


def _of_type(document: dict[str, Any], name: str, wanted: type) -> Any:
    value = document[name]
    if not isinstance(value, wanted):
        raise TypeError(f"{name} is no {wanted.__name__}")
    return value


def command_failure(command: Command, *, attempts: int) -> Failure:
    """Why a command that is delivered again and again is set aside."""
    return Failure(
        source="commands",
        stream=command.stream,
        version=0,
        code=OutcomeUnknown.code,
        reason=f"command {command.name} was delivered {attempts} times, and each time its consumer ended or hung "
        "before it had answered",
        raw=encode_command(command),
    )


def malformed_failure(raw: str, error: FleetError) -> Failure:
    """Why an entry of the queue that is no command is set aside."""
    return Failure(source="commands", stream=_stream_in(raw), version=0, code=error.code, reason=error.message, raw=raw)


def _stream_in(raw: str) -> StreamId:
    try:
        return StreamId(json.loads(raw)["stream"])
    except (ValueError, KeyError, TypeError, FleetError):
        return NOWHERE


def set_aside(command: Command, letter_id: str, *, attempts: int) -> Answer:
    """The answer of a command that became a dead letter: nobody knows whether it was carried out (EV-22)."""
    error = OutcomeUnknown(
        f"command {command.name} on {command.stream} was delivered {attempts} times and never answered: it is set "
        f"aside as {letter_id}. Look at the story, then let it run again with `fleet dlq retry {letter_id}`",
        letter_id=letter_id,
        command_id=str(command.command_id),
        attempts=attempts,
    )
    return Answer(ok=False, problem=error.to_wire(), request=command.request)


def set_aside_by(answer: Answer) -> str | None:
    """The letter because of which this answer was given; None for the answer of an owner."""
    details = cast("dict[str, Any]", answer.problem.get("details") or {})
    found = details.get("letter_id")
    return found if isinstance(found, str) else None


def retried_command(letter: DeadLetter) -> Command | None:
    """The command that goes back to the queue when this letter is retried; None when the log has the work itself.

    Raises InvalidInput when what was set aside is no command: no retry can mend it.
    """
    if letter.failure.source != "commands":
        return None
    try:
        return decode_command(letter.failure.raw)
    except InvalidInput as error:
        raise InvalidInput(
            f"dead letter {letter.letter_id} cannot be retried: {error.message}; send a correct command instead",
            letter_id=letter.letter_id,
        ) from error


def standing_still(letters: list[DeadLetter]) -> dict[StreamId, DeadLetter]:
    """For each stream the letter of its lowest version; a command (version 0) holds up nothing behind it."""
    ordered = sorted(letters, key=lambda letter: -letter.failure.version)
    return {letter.failure.stream: letter for letter in ordered if letter.failure.version > 0}


def no_letter(letter_id: str) -> NotFound:
    """The error for a letter that does not exist, or exists no longer."""
    return NotFound(
        f"there is no dead letter {letter_id[:100]!r}; `fleet dlq list` shows those that exist",
        letter_id=letter_id[:100],
    )
