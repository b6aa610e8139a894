"""Admission by a custom resource definition: its structural schema, its lists and its CEL rules.

The definitions of KubeRay v1.7.0 are read from the folder that FLEET_CRDS names, or from `shared/crds` beside the
project; without them the tests of admission are skipped.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

FILES = {"RayCluster": "rayclusters", "RayService": "rayservices", "RayJob": "rayjobs"}
FOLDER = Path(os.environ.get("FLEET_CRDS") or Path(__file__).resolve().parents[3] / "shared" / "crds")
Schema = Mapping[str, Any]
Visit = Callable[[str], None]
"""Told the path within the schema of everything that an object uses."""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
# The expressions of KubeRay v1.7.0, one for one; an unknown one fails the test.
_RULES: Mapping[str, Callable[[Any, Any], bool]] = {
    "self == oldSelf": lambda new, old: old is None or new == old,
    "self in ['ray.io/kuberay-operator', 'kueue.x-k8s.io/multikueue']": lambda new, old: (
        new in ("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue")
    ),
    "!((has(self.onSuccess) || has(self.onFailure)) && has(self.deletionRules))": lambda new, old: (
        not (("onSuccess" in new or "onFailure" in new) and "deletionRules" in new)
    ),
    "((has(self.onSuccess) && has(self.onFailure)) || has(self.deletionRules))": lambda new, old: (
        ("onSuccess" in new and "onFailure" in new) or "deletionRules" in new
    ),
    "!(has(self.jobStatus) && has(self.jobDeploymentStatus))": lambda new, old: (
        not ("jobStatus" in new and "jobDeploymentStatus" in new)
    ),
    "has(self.jobStatus) || has(self.jobDeploymentStatus)": lambda new, old: (
        "jobStatus" in new or "jobDeploymentStatus" in new
    ),
}


@cache
def known_schemas() -> dict[str, Any]:
    """Kind -> the schema of its version v1; empty without the definitions."""
    return {kind: _schema(FOLDER / f"ray.io_{name}.yaml") for kind, name in FILES.items()} if FOLDER.is_dir() else {}


def schemas() -> dict[str, Any]:
    """As `known_schemas`; the test is skipped without them."""
    return known_schemas() or pytest.skip("KubeRay's definitions are not there: name their folder in FLEET_CRDS")


def _schema(path: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document = yaml.load(path.read_bytes(), Loader=loader)  # noqa: S506 - a safe loader
    return next(v["schema"]["openAPIV3Schema"] for v in document["spec"]["versions"] if v["name"] == "v1")


def rules_of(schema: Schema) -> Iterator[str]:
    """Every CEL expression of a schema."""
    yield from (rule["rule"] for rule in schema.get("x-kubernetes-validations", ()))
    for inner in schema.get("properties", {}).values():
        yield from rules_of(inner)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from rules_of(schema[key])


def admit(
    manifest: Mapping[str, Any], schema: Schema, *, old: Any = None, visit: Visit = lambda path: None
) -> list[str]:
    """Every problem as `path: reason`; empty for what the API server takes. `old` is what it replaces."""
    body = {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind", "metadata")}
    before = {key: value for key, value in old.items() if key in body} if old else None
    return list(_problems(body, schema, "", "", before, visit))


def _problems(value: Any, schema: Schema, path: str, place: str, old: Any, visit: Visit) -> Iterator[str]:
    visit(place)
    if value is None:
        if not schema.get("nullable"):
            yield f"{path}: may not be null"
        return
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield f"{path}: must be a number or text"
        elif isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{path}: {value!r} does not match {schema['pattern']}"
        return
    wanted = schema.get("type")
    if wanted and (not isinstance(value, _TYPES[wanted]) or (isinstance(value, bool) and wanted != "boolean")):
        yield f"{path}: must be {wanted}, is {type(value).__name__}"
        return
    yield from _of_scalar(value, schema, path)
    for rule in schema.get("x-kubernetes-validations", ()):
        if not _RULES[rule["rule"]](value, old):
            yield f"{path}: {rule['message']}"
    if isinstance(value, dict):
        yield from _of_object(value, schema, path, place, old, visit)
    elif isinstance(value, list):
        yield from _of_list(value, schema, path, place, old, visit)


def _of_scalar(value: Any, schema: Schema, path: str) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is not one of {schema['enum']}"
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{path}: {value!r} does not match {schema['pattern']}"
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 1 << 40):
            yield f"{path}: has {len(value)} characters"
    elif isinstance(value, int | float) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{path}: {value} is out of range"


def _of_object(value: Any, schema: Schema, path: str, place: str, old: Any, visit: Visit) -> Iterator[str]:
    yield from (f"{path}.{name}: is missing" for name in schema.get("required", ()) if name not in value)
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    if schema.get("x-kubernetes-preserve-unknown-fields") or (not known and others is None):
        return
    for name, inner in value.items():
        before = old.get(name) if isinstance(old, dict) else None
        if name in known:
            yield from _problems(inner, known[name], f"{path}.{name}", f"{place}/{name}", before, visit)
        elif isinstance(others, dict):
            yield from _problems(inner, others, f"{path}.{name}", f"{place}/*", before, visit)
        elif not others:
            yield f"{path}.{name}: is unknown"


def _of_list(value: Any, schema: Schema, path: str, place: str, old: Any, visit: Visit) -> Iterator[str]:
    kind = schema.get("x-kubernetes-list-type")
    keys = schema.get("x-kubernetes-list-map-keys", [])
    if kind in ("set", "map"):
        seen = [json.dumps([i.get(k) for k in keys] if kind == "map" else i, sort_keys=True) for i in value]
        yield from (f"{path}: {entry} stands twice" for entry in sorted({s for s in seen if seen.count(s) > 1}))
    if len(value) < schema.get("minItems", 0):
        yield f"{path}: has too few items"
    for number, inner in enumerate(value):
        before = old[number] if isinstance(old, list) and number < len(old) else None
        yield from _problems(inner, schema.get("items", {}), f"{path}[{number}]", f"{place}/[]", before, visit)
