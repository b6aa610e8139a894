"""Take the recording that the landing page plays: `python scripts/landing.py HOME` after a run, with no fleet up there.

Its one story is written to serve_apps/ui/landing/recording.json as the interface publishes it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from cluster.local.valkey import StoreKind, Valkey
from fleet.events.codec import published
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.log import RedisEventLog

RECORDING = Path(__file__).resolve().parents[1] / "serve_apps" / "ui" / "landing" / "recording.json"


def main(arguments: list[str]) -> int:
    """0 when the recording is written."""
    if len(arguments) != 1 or not (Path(arguments[0]) / "log").is_dir():
        sys.stderr.write("name the home of a fleet that ran one story: python scripts/landing.py HOME\n")
        return 2
    events = asyncio.run(story_in(Path(arguments[0])))
    lines = ",\n".join(json.dumps(event, sort_keys=True, ensure_ascii=False) for event in events)
    RECORDING.write_text(f'{{"events": [\n{lines}\n]}}\n')
    return 0


async def story_in(home: Path) -> list[dict[str, Any]]:
    """The published events of the one story in this home."""
    store = Valkey(StoreKind.LOG, home / "log")
    await store.start()
    client = connect_redis(store.url)
    try:
        log = RedisEventLog(client)
        (stream,) = [name for name in await log.streams() if name.startswith("story:")]
        return [published(event) for event in await log.read(stream)]
    finally:
        await client.aclose()
        await store.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
