"""The report service over the in-memory log (RP-1..RP-3, RP-40)."""

from __future__ import annotations

import json

import pytest

from fleet.events.codec import encode
from fleet.events.report import ReportGenerated
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import InvalidInput, StoryNotFound
from fleet.kernel.ids import EntityId, StoryId
from fleet.kernel.types import ReportFormat
from fleet.log.memory import MemoryEventLog
from fleet.report.model import ReportOptions
from fleet.report.service.reports import ReportService
from fleet.trees.memory import MemoryBlobStore
from tests.support.story_events import STORY, StoryLog, story


async def service(log: StoryLog) -> tuple[ReportService, MemoryBlobStore]:
    events, blobs = MemoryEventLog(), MemoryBlobStore()
    await log.write_to(events)
    return ReportService(events, blobs), blobs


@pytest.mark.rule("RP-2", "RP-40")
@pytest.mark.parametrize(("format", "begins"), [("md", b"# Tech"), ("html", b"<!doctype html>"), ("json", b'{"')])
async def test_report_is_stored_under_its_digest_and_the_same_when_made_again(
    format: ReportFormat, begins: bytes
) -> None:
    log = story()
    reports, blobs = await service(log)
    digest, report, data = await reports.generate(STORY, format=format)
    assert data.startswith(begins)
    assert (await blobs.get(digest), digest_of(data)) == (data, digest)
    assert report.header.as_of == log.version
    rebuilt, _ = await service(log)
    assert await rebuilt.generate(STORY, format=format) == (digest, report, data)


async def test_report_as_of_an_earlier_version_does_not_see_what_came_later() -> None:
    reports, _ = await service(story())
    earlier = story(until="planned")
    _, report, _ = await reports.generate(STORY, format="md", as_of=earlier.version)
    assert (report.header.state, report.header.as_of) == ("DESIGN", earlier.version)


async def test_report_fits_the_event_that_records_it() -> None:
    log = story(until="docs")
    reports, _ = await service(log)
    digest, report, _ = await reports.generate(STORY, format="md", as_of=log.version)
    payload = ReportGenerated(
        report_id=EntityId("rp-one1"),
        report_digest=digest,
        as_of=log.version,
        format="md",
        stats=report.stats,
        traceability=report.traceability,
    )
    assert json.loads(encode(payload).body)["traceability"]["total"] == report.traceability.total


async def test_report_of_an_unknown_story_is_not_found() -> None:
    reports, _ = await service(story(until="created"))
    with pytest.raises(StoryNotFound):
        await reports.generate(StoryId("st-none0"), format="md")


@pytest.mark.parametrize("as_of", [0, 99])
async def test_report_of_a_version_that_is_not_reached_is_refused(as_of: int) -> None:
    reports, _ = await service(story(until="scored"))
    with pytest.raises(InvalidInput, match=f"no version {as_of}"):
        await reports.generate(STORY, format="md", as_of=as_of)


@pytest.mark.rule("RP-1")
async def test_options_reach_the_report() -> None:
    reports, _ = await service(story())
    report = await reports.build(STORY, options=ReportOptions(include_council=False))
    assert report.councils == ()
