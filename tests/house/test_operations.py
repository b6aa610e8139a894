"""The page for operators names what exists, and names of the HTTP interface do not follow from the code."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi.routing import APIRoute

from fleet.config.blobs import S3BlobSettings
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.config.settings import ServeSettings
from fleet.kernel.clock import SystemClock
from fleet.telemetry.catalogue import CATALOGUE, EXPORTED_PREFIX
from serve_apps.llm.routes import build_llm
from serve_apps.routes.gateway import build_gateway

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
METHODS = {"get", "post", "put", "patch", "delete"}
EXPLICIT = {"operation_id", "include_in_schema"}
pytestmark = pytest.mark.rule("GL-24")


def test_every_metric_of_the_page_exists() -> None:
    named = set(re.findall(rf"`({EXPORTED_PREFIX}fleet_\w+)`", PAGE))
    assert len(named) > 8
    assert named - {EXPORTED_PREFIX + name for name in CATALOGUE} == set()


def test_every_key_of_the_bucket_is_described() -> None:
    keys = S3BlobSettings.model_fields.keys() - {"kind"}
    assert {key for key in keys if f"`{key}`" not in PAGE} == set()


def test_every_operation_names_its_id() -> None:
    calls = [
        (path.name, node.lineno, call)
        # The routes of /v1 are in no document of ours.
        for path in sorted(ROOT.glob("serve_apps/**/*.py"))
        if path.parent.name != "llm"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for call in node.decorator_list
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in METHODS
    ]
    unnamed = [(name, line) for name, line, call in calls if not {k.arg for k in call.keywords} & EXPLICIT]
    # FastAPI would take the id from the function's name; generated clients take their methods from the id.
    assert unnamed == []
    assert len(calls) > 150


def test_no_operation_is_declared_twice() -> None:
    # The first route answers, and the document describes the last.
    front, nothing = ConfigFiles(packaged_directory(), None).load("serve.yaml", ServeSettings), cast(Any, None)
    apps = (build_gateway(nothing, nothing, front), build_llm(nothing, nothing, front, clock=SystemClock()))
    found = Counter(
        (app.title, method, re.sub(r"\{\w+", "{", route.path))
        for app in apps
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    )
    assert [operation for operation, count in found.items() if count > 1] == []
    assert len(found) > 150


def test_no_schema_is_named_after_a_module() -> None:
    # Two models of one name in two modules would get the modules' names into the document.
    schemas = json.loads((ROOT / "docs" / "openapi.json").read_text())["components"]["schemas"]
    assert [name for name in schemas if "__" in name] == []
