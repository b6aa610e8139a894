"""Reports from the log: built at one version, rendered, and stored as a blob (RP-1..RP-3)."""

from __future__ import annotations

from typing import assert_never

from fleet.events.codec import decode
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import InvalidInput, StoryNotFound
from fleet.kernel.ids import Digest, StoryId, StreamId
from fleet.kernel.types import ReportFormat
from fleet.log.port import EventLog
from fleet.report.build import build_report
from fleet.report.model import ReportOptions, TechnicalReport
from fleet.report.render.html import render_html
from fleet.report.render.markdown import render_markdown
from fleet.story.evolve.story import fold
from fleet.trees.port import BlobStore


class ReportService:
    """Builds reports from the log alone, so that graph and cache may be lost (RP-40)."""

    def __init__(self, log: EventLog, blobs: BlobStore) -> None:
        self._log, self._blobs = log, blobs

    async def generate(
        self,
        story_id: StoryId,
        *,
        format: ReportFormat,
        as_of: int | None = None,
        options: ReportOptions | None = None,
    ) -> tuple[Digest, TechnicalReport, bytes]:
        """The report's digest, the report, and its bytes, which are stored under the digest.

        Same story, version, format and options give the same bytes.

        Args:
            as_of: version of the story, the latest when None.

        Raises:
            StoryNotFound: the story has no event.
            InvalidInput: the story has not reached `as_of`.
        """
        report = await self.build(story_id, as_of=as_of, options=options)
        data = render(report, format)
        return await self._blobs.put(data), report, data

    async def build(
        self, story_id: StoryId, *, as_of: int | None = None, options: ReportOptions | None = None
    ) -> TechnicalReport:
        """The report as a value; nothing is stored. See `generate`."""
        events = await self._log.read(StreamId.of_story(story_id), limit=as_of)
        state = fold(events)
        if state is None and (as_of is None or as_of > 0):
            raise StoryNotFound(
                f"there is no story {story_id}: `fleet story list` shows those there are", story_id=str(story_id)
            )
        if state is None or (as_of is not None and state.version != as_of):
            reached = state.version if state else 0
            raise InvalidInput(
                f"story {story_id} has no version {as_of}, it is at {reached}",
                field="as_of",
                value=as_of,
                version=reached,
            )
        return build_report(state, [(event, decode(event)) for event in events], options)


def render(report: TechnicalReport, format: ReportFormat) -> bytes:
    """The report in one format, as UTF-8 bytes; JSON is canonical (GL-13)."""
    match format:
        case "md":
            return render_markdown(report).encode()
        case "html":
            return render_html(report).encode()
        case "json":
            return canonical_json(report)
        case _:
            assert_never(format)
