"""The contract of DeadLetters, on every adapter."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fleet.kernel.errors import InvalidInput, NotFound, OutcomeUnknown, from_wire
from fleet.kernel.ids import StreamId
from fleet.log.port import MAX_ATTEMPTS, Answer, Command, DeadLetter, DeadLetters, Delivery, Failure
from fleet.log.rules import encode_command
from tests.support.stores import Stores, command, new_stream

DONE = Answer(ok=True, result={"story_id": "st-one"})


def failure(stream: StreamId, version: int = 7, *, reason: str = "KeyError: 'title'") -> Failure:
    return Failure("projector", stream, version, code="log_corrupted", reason=reason, raw='{"title":"Zürich"}')


async def park(letters: DeadLetters, what: Failure) -> DeadLetter:
    """The letter after as many failures as it takes; none comes before."""
    for _ in range(MAX_ATTEMPTS - 1):
        assert await letters.failed(what) is None
    letter = await letters.failed(what)
    assert letter is not None
    return letter


@pytest.mark.rule("EV-22")
async def test_work_that_fails_five_times_becomes_one_letter_with_all_facts(stores: Stores) -> None:
    what = failure(new_stream())
    letter = await park(stores.letters, what)
    assert (letter.failure, letter.attempts) == (what, 5)
    assert 0 < letter.first_seen_ms <= letter.last_seen_ms
    assert await stores.twin().letters.letters() == [letter]
    assert await stores.twin().letters.parked("projector") == {what.stream: letter}


async def test_failure_after_parking_returns_the_same_letter_and_writes_nothing(stores: Stores) -> None:
    what = failure(new_stream())
    letter = await park(stores.letters, what)
    assert await stores.twin().letters.failed(replace(what, reason="another one")) == letter
    assert await stores.letters.letters() == [letter]


async def test_letter_holds_the_last_reason_before_it_was_parked(stores: Stores) -> None:
    stream = new_stream()
    for number in range(1, 5):
        await stores.letters.failed(failure(stream, reason=f"try {number}"))
    letter = await stores.letters.failed(failure(stream, reason="try 5"))
    assert letter is not None
    assert letter.failure.reason == "try 5"


async def test_each_stream_version_and_source_is_counted_by_itself(stores: Stores) -> None:
    one, two = new_stream(), new_stream()
    others = [failure(two), failure(one, 8), replace(failure(one), source="commands")]
    for what in others:
        for _ in range(4):
            assert await stores.letters.failed(what) is None
    assert await stores.letters.failed(failure(one)) is None
    for what in others:
        letter = await stores.letters.failed(what)
        assert letter is not None
        assert letter.failure == what
    assert len(await stores.letters.letters()) == 3


async def test_counts_outlive_the_process_that_counted(stores: Stores) -> None:
    what = failure(new_stream())
    for _ in range(4):
        assert await stores.twin().letters.failed(what) is None
    assert await stores.twin().letters.failed(what) is not None


@pytest.mark.rule("EV-22")
async def test_racing_callers_write_exactly_one_letter(stores: Stores) -> None:
    what = failure(new_stream())
    twins = [stores.twin().letters for _ in range(8)]
    answers = await asyncio.gather(*[twin.failed(what) for twin in twins])
    (letter,) = await stores.letters.letters()
    assert letter.attempts == 5
    assert answers.count(None) == 4
    assert [answer for answer in answers if answer] == [letter] * 4


async def test_parked_names_the_lowest_version_of_each_stream_of_that_source(stores: Stores) -> None:
    one, two = new_stream(), new_stream()
    await park(stores.letters, failure(one, 9))
    low = await park(stores.letters, failure(one, 3))
    other = await park(stores.letters, failure(two))
    await park(stores.letters, Failure("commands", one, 0, code="internal_error", reason="no"))
    assert await stores.letters.parked("projector") == {one: low, two: other}
    assert await stores.letters.parked("commands") == {}
    assert len(await stores.letters.letters()) == 4


async def test_letter_of_one_piece_of_work_is_found_until_it_is_retried(stores: Stores) -> None:
    what = Failure("notifications:desk-bot", new_stream(), 4, code="tool_failed", reason="bot answers 500")
    assert await stores.letters.letter(what.source, what.stream, 4) is None
    letter = await park(stores.letters, what)
    assert await stores.twin().letters.letter(what.source, what.stream, 4) == letter
    assert await stores.letters.letter("notifications:other", what.stream, 4) is None
    assert await stores.letters.letter(what.source, what.stream, 5) is None
    await stores.letters.retry(letter.letter_id)
    assert await stores.letters.letter(what.source, what.stream, 4) is None


async def test_letters_come_oldest_first(stores: Stores) -> None:
    written = [await park(stores.letters, failure(new_stream())) for _ in range(5)]
    found = await stores.letters.letters()
    assert sorted(found, key=lambda letter: letter.letter_id) == sorted(written, key=lambda letter: letter.letter_id)
    assert [letter.last_seen_ms for letter in found] == sorted(letter.last_seen_ms for letter in found)


@pytest.mark.rule("EV-22")
async def test_retry_forgets_letter_mark_and_count(stores: Stores) -> None:
    what = failure(new_stream())
    letter = await park(stores.letters, what)
    assert await stores.twin().letters.retry(letter.letter_id) == letter
    assert await stores.letters.letters() == []
    assert await stores.letters.parked("projector") == {}
    assert (await park(stores.letters, what)).attempts == 5


@pytest.mark.parametrize("letter_id", ["", "dl-00-000000000000", "dl-99-000000000000", "dl-00-*", "7-0", "x" * 500])
async def test_retry_of_an_unknown_letter_is_not_found(stores: Stores, letter_id: str) -> None:
    with pytest.raises(NotFound, match="fleet dlq list") as caught:
        await stores.letters.retry(letter_id)
    assert len(caught.value.message) < 200


async def test_letter_is_retried_once(stores: Stores) -> None:
    letter = await park(stores.letters, failure(new_stream()))
    await stores.letters.retry(letter.letter_id)
    with pytest.raises(NotFound):
        await stores.letters.retry(letter.letter_id)


async def abandoned(stores: Stores, sent: Command) -> Delivery:
    """The last delivery of a command whose consumer dies each time."""
    await stores.hasty_inbox.submit(sent)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        (delivery,) = await stores.hasty_inbox.take(f"dead/{attempt}", timeout_s=60)
        assert (delivery.command, delivery.attempts) == (sent, attempt)
    return delivery


async def set_aside(stores: Stores, sent: Command) -> DeadLetter:
    """The letter of a command that no consumer survived."""
    await abandoned(stores, sent)
    return await its_letter(stores)


async def its_letter(stores: Stores) -> DeadLetter:
    """The letter of what is set aside next; nothing is delivered meanwhile."""
    async with asyncio.timeout(60):
        while not (found := await stores.twin().letters.letters()):
            assert await stores.hasty_inbox.take("main/1", timeout_s=0.05) == []
    (letter,) = found
    return letter


@pytest.mark.rule("EV-22")
async def test_command_that_no_consumer_survives_becomes_one_letter_and_has_a_problem_as_its_answer(
    stores: Stores,
) -> None:
    sent = command(new_stream())
    letter = await set_aside(stores, sent)
    assert (letter.failure.source, letter.failure.stream, letter.failure.version) == ("commands", sent.stream, 0)
    assert (letter.failure.code, letter.failure.raw) == ("outcome_unknown", encode_command(sent))
    assert letter.attempts == 5
    assert 0 < letter.first_seen_ms <= letter.last_seen_ms
    answer = await stores.hasty_inbox.answer(sent.command_id, timeout_s=0)
    assert answer is not None
    assert (answer.ok, answer.request) == (False, sent.request)
    problem = from_wire(answer.problem)
    assert isinstance(problem, OutcomeUnknown)
    assert f"fleet dlq retry {letter.letter_id}" in problem.message
    assert problem.details["letter_id"] == letter.letter_id


async def test_command_that_is_set_aside_is_not_queued_again_by_a_repeated_request(stores: Stores) -> None:
    sent = command(new_stream())
    letter = await set_aside(stores, sent)
    await stores.hasty_inbox.submit(sent)
    assert await stores.hasty_inbox.take("main/1", timeout_s=0.2) == []
    assert await stores.letters.letters() == [letter]


async def test_command_queued_twice_is_set_aside_once(stores: Stores) -> None:
    sent = command(new_stream())
    await stores.hasty_inbox.submit(sent)
    await stores.hasty_inbox.submit(sent)
    async with asyncio.timeout(60):
        while await stores.hasty_inbox.answer(sent.command_id, timeout_s=0) is None:
            await stores.hasty_inbox.take("dead/1", timeout_s=0.1)
    assert await stores.hasty_inbox.take("main/1", timeout_s=0.4) == []
    assert len(await stores.letters.letters()) == 1


async def test_answer_that_comes_at_the_last_moment_stays_and_no_letter_is_written(stores: Stores) -> None:
    sent = command(new_stream())
    await stores.hasty_inbox.acknowledge(await abandoned(stores, sent), DONE)
    assert await stores.hasty_inbox.take("main/1", timeout_s=0.3) == []
    assert await stores.hasty_inbox.answer(sent.command_id, timeout_s=0) == DONE
    assert await stores.letters.letters() == []


async def test_late_answer_does_not_replace_that_of_a_command_set_aside(stores: Stores) -> None:
    sent = command(new_stream())
    last = await abandoned(stores, sent)
    letter = await its_letter(stores)
    await stores.hasty_inbox.acknowledge(last, DONE)
    answer = await stores.hasty_inbox.answer(sent.command_id, timeout_s=0)
    assert answer is not None
    assert not answer.ok
    assert await stores.letters.letters() == [letter]


@pytest.mark.rule("EV-22")
async def test_retried_command_is_delivered_and_answered(stores: Stores) -> None:
    sent = command(new_stream())
    letter = await set_aside(stores, sent)
    assert await stores.letters.retry(letter.letter_id) == letter
    assert await stores.letters.letters() == []
    assert await stores.hasty_inbox.answer(sent.command_id, timeout_s=0) is None
    (delivery,) = await stores.hasty_inbox.take("main/1", timeout_s=60)
    assert (delivery.command, delivery.attempts) == (sent, 1)
    await stores.hasty_inbox.acknowledge(delivery, DONE)
    assert await stores.hasty_inbox.answer(sent.command_id, timeout_s=0) == DONE


async def test_retried_command_that_fails_again_is_set_aside_again(stores: Stores) -> None:
    sent = command(new_stream())
    first = await set_aside(stores, sent)
    await stores.letters.retry(first.letter_id)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        (delivery,) = await stores.hasty_inbox.take("dead/9", timeout_s=60)
        assert delivery.attempts == attempt
    assert (await its_letter(stores)).letter_id == first.letter_id


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("", "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"command_id":"c","stream":"story:st-one","name":"n","principal":"user:ada"}', "body"),
        ('{"command_id":"c","stream":"story:st-one","name":1,"principal":"user:ada","body":{}}', "name is no str"),
        ('{"command_id":"c","stream":"nonsense","name":"n","principal":"user:ada","body":{}}', "stream id"),
    ],
    ids=["empty", "list", "field", "type", "stream"],
)
async def test_retry_of_what_is_no_command_says_why_and_keeps_the_letter(stores: Stores, raw: str, says: str) -> None:
    letter = await park(stores.letters, Failure("commands", new_stream(), 0, "invalid_input", "no command", raw))
    with pytest.raises(InvalidInput, match=says) as caught:
        await stores.letters.retry(letter.letter_id)
    assert caught.value.details["letter_id"] == letter.letter_id
    assert await stores.letters.letters() == [letter]
