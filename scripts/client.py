"""Write the typed part of `swe_fleet_client` from docs/openapi.json; `make setup` does it after the document changed.

Standard library only. What it writes is not committed.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
OPENAPI = ROOT / "docs" / "openapi.json"
CLIENT = ROOT / "swe_fleet_client"
_HEAD = '"""{text} Written by `python scripts/client.py` from docs/openapi.json."""\n\n'
_SIMPLE = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


def main() -> int:
    """The client is what the document says."""
    for name, text in generated(json.loads(OPENAPI.read_text())).items():
        (CLIENT / name).write_text(text)
    return 0


def generated(document: dict[str, Any]) -> dict[str, str]:
    """File name -> text."""
    return {"models.py": _models(document["components"]["schemas"]), "operations.py": _operations(document)}


def _models(schemas: dict[str, Any]) -> str:
    names = [name for name, schema in sorted(schemas.items()) if _is_plain(name) and "properties" in schema]
    others = [name for name in sorted(schemas) if _is_plain(name) and name not in names]
    parts = [f"{name} = {_type(schemas[name], '')}" for name in others] + [_model(n, schemas[n]) for n in names]
    head = _HEAD.format(text="What the interface takes and gives.")
    imports = "from __future__ import annotations\n\nfrom typing import Any, Literal, NotRequired, TypedDict\n\n\n"
    return head + imports + "\n\n".join(part.rstrip() for part in parts) + "\n"


def _is_plain(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name)


def _model(name: str, schema: dict[str, Any]) -> str:
    needed = schema.get("required", [])
    fields = {key: _field(value, key in needed) for key, value in schema["properties"].items()}
    if not all(_is_plain(key) for key in fields):
        body = "".join(f'        "{key}": {_quoted(kind)},\n' for key, kind in fields.items())
        return f'{name} = TypedDict(\n    "{name}",\n    {{\n{body}    }},\n)\n'
    text = (schema.get("description") or f"{name}.").strip().splitlines()[0].replace('"""', "'''")
    body = "".join(f"    {key}: {kind}\n" for key, kind in fields.items()) or "    pass\n"
    return f'class {name}(TypedDict):\n    """{text}"""\n\n{body}'


def _quoted(kind: str) -> str:
    # Names that come later in the file are named, not used.
    inner = kind.removeprefix("NotRequired[").removesuffix("]") if kind.startswith("NotRequired[") else kind
    return f"NotRequired[{json.dumps(inner)}]" if inner != kind else json.dumps(kind)


def _field(schema: Any, is_needed: bool) -> str:
    kind = _type(schema, "")
    return kind if is_needed else f"NotRequired[{kind}]"


def _type(schema: Any, prefix: str) -> str:
    """The Python type of a JSON schema; `prefix` stands before names of models."""
    if not isinstance(schema, dict) or not schema:
        return "Any"
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"{prefix}{name}" if _is_plain(name) else "Any"
    if "const" in schema:
        return f"Literal[{schema['const']!r}]"
    if "enum" in schema:
        return f"Literal[{', '.join(repr(value) for value in schema['enum'])}]"
    if parts := schema.get("anyOf") or schema.get("oneOf"):
        found = dict.fromkeys(_type(part, prefix) for part in parts)
        return "Any" if "Any" in found else " | ".join(found)
    match schema.get("type"):
        case "array":
            return f"list[{_type(schema.get('items'), prefix)}]"
        case "object":
            return f"dict[str, {_type(schema.get('additionalProperties'), prefix)}]"
        case str(name):
            return _SIMPLE.get(name, "Any")
        case _:
            return "Any"


class _Operation(NamedTuple):
    name: str
    method: str
    path: str
    document: dict[str, Any]


def _all(document: dict[str, Any]) -> Iterator[_Operation]:
    for path, item in sorted(document["paths"].items()):
        for method, found in sorted(item.items()):
            end = f"_{re.sub(r'[^a-zA-Z0-9]', '_', path.removeprefix('/'))}_{method}"
            yield _Operation(found["operationId"].removesuffix(end), method.upper(), path, found)


def _operations(document: dict[str, Any]) -> str:
    found = [one for one in _all(document) if one.path != "/api/events/stream"]
    names = [one.name for one in found]
    assert len(set(names)) == len(names), sorted(n for n in names if names.count(n) > 1)
    head = _HEAD.format(text="Every operation of the interface as a typed method.")
    imports = (
        "from __future__ import annotations\n\nfrom typing import Any, Literal\n\n"
        "from swe_fleet_client import models as m\nfrom swe_fleet_client.calling import Calling\n\n\n"
    )
    text = "One method for each operation; `key` repeats a command, `if_match` guards it."
    start = f'class Operations(Calling):\n    """{text}"""\n\n'
    return head + imports + start + "\n".join(_method(one) for one in found)


def _method(one: _Operation) -> str:
    places = re.findall(r"\{(\w+)(?::\w+)?\}", one.path)
    given = {p["name"]: _type(p.get("schema"), "m.") for p in one.document.get("parameters", []) if p["in"] == "path"}
    queries = [p for p in one.document.get("parameters", []) if p["in"] == "query"]
    is_command = one.method != "GET"
    named = [_parameter(query) for query in queries]
    content = one.document.get("requestBody", {}).get("content", {}).get("application/json")
    if content is not None:
        named.insert(0, f"body: {_type(content['schema'], 'm.')}")
    elif is_command:
        named.insert(0, "body: Any = None")
    named += ["key: str | None = None", "if_match: str | None = None"] if is_command else []
    signature = ", ".join(
        ["self", *(f"{place}: {given.get(place, 'str')}" for place in places), *(["*", *named] if named else [])]
    )
    path = re.sub(r"\{(\w+)(?::\w+)?\}", r"{self._part(\1)}", one.path)
    sent = [f'"{one.method}"', f'f"{path}"' if places else f'"{path}"']
    if queries:
        sent.append("query={" + ", ".join(f'"{q["name"]}": {_name(q["name"])}' for q in queries) + "}")
    sent += ["body=body", "key=key", "if_match=if_match"] if is_command else []
    kind, call = _answer(one.document)
    text = (one.document.get("description") or one.document.get("summary") or one.name).strip().splitlines()[0]
    return (
        f"    def {one.name}({signature}) -> {kind}:\n"
        f'        """{text}"""\n'
        f"        return self.{call}({', '.join(sent)})\n"
    )


def _parameter(query: dict[str, Any]) -> str:
    kind = _type(query.get("schema"), "m.")
    if query.get("required"):
        return f"{_name(query['name'])}: {kind}"
    return f"{_name(query['name'])}: {kind if kind.endswith('| None') or kind == 'Any' else f'{kind} | None'} = None"


def _name(name: str) -> str:
    plain = re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower()
    return f"{plain}_" if keyword.iskeyword(plain) else plain


def _answer(document: dict[str, Any]) -> tuple[str, str]:
    for status in ("200", "201", "202"):
        content = document["responses"].get(status, {}).get("content", {})
        if schema := content.get("application/json", {}).get("schema"):
            return _type(schema, "m."), "_json"
        if status in document["responses"] and "application/json" not in content:
            return "bytes", "_bytes"
    return "Any", "_json"


if __name__ == "__main__":
    raise SystemExit(main())
