"""What a page was really sent over its event streams, and whether it is what the AsyncAPI document says."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator

from tests.support.chromium import Page

_HEARD = "fleetHeard"
# A copy of every stream goes to the test; the page reads its own as always.
_LISTEN = """(() => {
  const before = window.fetch;
  let lines = 0;
  window.fetch = async (...asked) => {
    const answer = await before(...asked);
    const path = new URL(answer.url || location.href).pathname;
    if (path !== '/api/events/stream' || !answer.body) return answer;
    const [mine, theirs] = answer.body.tee();
    const line = ++lines + Math.random();
    void (async () => {
      const reader = mine.pipeThrough(new TextDecoderStream()).getReader();
      try {
        for (let piece = await reader.read(); !piece.done; piece = await reader.read())
          window.NAME(JSON.stringify([line, piece.value]));
      } catch { /* the line was cut */ }
    })();
    return new Response(theirs, { status: answer.status, headers: answer.headers });
  };
})()""".replace("NAME", _HEARD)


@dataclass
class StreamedEvents:
    """Frames of every stream that a page opened, as they came."""

    _texts: dict[float, str] = field(default_factory=dict[float, str])

    @classmethod
    async def of(cls, page: Page) -> StreamedEvents:
        """Listens to all documents that the page opens from now on."""
        found = cls()
        page.bindings[_HEARD] = found.heard
        await page.send("Runtime.addBinding", name=_HEARD)
        await page.send("Page.addScriptToEvaluateOnNewDocument", source=_LISTEN)
        return found

    def heard(self, payload: str) -> None:
        """One piece of one stream."""
        line, text = json.loads(payload)
        self._texts[line] = self._texts.get(line, "") + text

    def frames(self) -> list[dict[str, str]]:
        """Every whole frame that carried an event: its fields."""
        whole = [frame for text in self._texts.values() for frame in text.split("\n\n")[:-1]]
        fields = [dict(line.split(": ", 1) for line in frame.splitlines() if ": " in line) for frame in whole]
        return [frame for frame in fields if "data" in frame]


def problems_of(frame: dict[str, str], document: dict[str, Any]) -> list[str]:
    """What is wrong with one frame by the document; nothing when it is as described."""
    envelope: dict[str, Any] = json.loads(frame["data"])
    message = document["components"]["messages"].get(envelope["type"])
    if message is None:
        return [f"{envelope['type']} is in no message"]
    schema = message["payload"] | {"components": document["components"]}
    wrong = [f"{e.json_path}: {e.message[:200]}" for e in Draft202012Validator(schema).iter_errors(envelope)]
    if frame.get("event") != message["tags"][0]["name"]:
        wrong.append(f"group {frame.get('event')!r} is not {message['tags']}")
    if frame.get("id") != envelope["event_id"]:
        wrong.append(f"id {frame.get('id')!r} is not {envelope['event_id']!r}")
    return [f"{envelope['type']} {envelope['version']}: {one}" for one in wrong]
