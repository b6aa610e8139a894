"""Copies of the demo's recorded replies for stories whose gates a person decides: `python scripts/by_hand.py`.

A prompt says of each gate who granted it, with `(delegated)` behind a consent that a person gave in advance, and the
replies of examples/demo were recorded with delegated gates. For every prompt that says so there is a copy for each way
in which a person may have granted some of these gates; the reply is that of the model to the prompt with the word.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleet.models.chat import ChatRequest

REPLIES = Path(__file__).resolve().parents[1] / "examples" / "demo" / "replies"
_MARK = re.compile(r" \(delegated\)")


def variants(recording: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Copies of the recording whose prompts lack some of the marks."""
    text = json.dumps(recording["request"])
    marks = [found.span() for found in _MARK.finditer(text)]
    for kept in itertools.product((True, False), repeat=len(marks)):
        if all(kept):
            continue
        changed = text
        for (start, end), is_kept in reversed(list(zip(marks, kept, strict=True))):
            changed = changed if is_kept else changed[:start] + changed[end:]
        request = json.loads(changed)
        digest = ChatRequest.model_validate(request).digest
        yield {**recording, "request": request, "request_digest": str(digest)}


def main() -> int:
    """Write the copies that are not there."""
    written = 0
    for path in sorted(REPLIES.glob("*.json")):
        for made in variants(json.loads(path.read_text())):
            target = REPLIES / f"{made['request_digest'].removeprefix('sha256:')}.json"
            if not target.exists():
                target.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")
                written += 1
    print(f"{written} copies written", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
