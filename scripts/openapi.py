"""Write the OpenAPI and AsyncAPI documents of the HTTP front to docs/; `--check` only compares them (AP-11)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fleet.config.files import ConfigFiles, packaged_directory
from fleet.config.settings import ServeSettings
from fleet.kernel.clock import SystemClock
from serve_apps.llm.routes import build_llm
from serve_apps.routes.gateway import build_gateway
from serve_apps.stream.asyncapi import asyncapi_document

ROOT = Path(__file__).resolve().parents[1]
GATEWAY, MODELS, EVENTS = "openapi.json", "openapi-v1.json", "asyncapi.json"


def documents() -> dict[str, dict[str, Any]]:
    """File name -> document, as the running front serves it."""
    front = ConfigFiles(packaged_directory(), None).load("serve.yaml", ServeSettings)
    # What the routes stand on is asked for when a request comes, so that none is needed here.
    nothing: Any = None
    return {
        GATEWAY: build_gateway(nothing, nothing, front).openapi(),
        MODELS: build_llm(nothing, nothing, front, clock=SystemClock()).openapi(),
        EVENTS: asyncapi_document(),
    }


def main(arguments: list[str]) -> int:
    """Write the documents, or say which are out of date."""
    texts = {ROOT / "docs" / name: _text(document) for name, document in documents().items()}
    old = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    if "--check" not in arguments:
        for path in old:
            path.write_text(texts[path])
        return 0
    for path in old:
        sys.stderr.write(f"docs/{path.name} is out of date: run `python scripts/openapi.py`\n")
    return 1 if old else 0


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
