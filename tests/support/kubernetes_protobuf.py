"""What helm's typed client sends of a Secret: Kubernetes' protobuf form, read into the JSON form."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

MAGIC = b"k8s\0"
_NAME, _NAMESPACE, _VERSION, _LABELS = 1, 3, 6, 11


def secret_of(body: bytes) -> dict[str, Any]:
    """The Secret of a request; fields that helm does not send are left out."""
    (raw,) = (value for number, value in _fields(body[len(MAGIC) :]) if number == 2)
    metadata: dict[str, Any] = {}
    data: dict[str, str] = {}
    kind = ""
    for number, value in _fields(raw):
        if number == 1:
            metadata = _metadata(value)
        elif number == 2:
            key, content = _pair(value)
            data[key.decode()] = base64.b64encode(content).decode()
        elif number == 3:
            kind = value.decode()
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data, "type": kind}


def _metadata(raw: bytes) -> dict[str, Any]:
    names = {_NAME: "name", _NAMESPACE: "namespace", _VERSION: "resourceVersion"}
    found: dict[str, Any] = {"labels": {}}
    for number, value in _fields(raw):
        if number in names and value:
            found[names[number]] = value.decode()
        elif number == _LABELS:
            key, label = _pair(value)
            found["labels"][key.decode()] = label.decode()
    return found


def _pair(raw: bytes) -> tuple[bytes, bytes]:
    found = dict(_fields(raw))
    return found.get(1, b""), found.get(2, b"")


def _fields(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of every field; of numbers the content is empty."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        match tag & 7:
            case 0:
                _, at = _varint(raw, at)
                yield tag >> 3, b""
            case 2:
                size, at = _varint(raw, at)
                yield tag >> 3, raw[at : at + size]
                at += size
            case other:
                raise ValueError(f"wire type {other} is not read here")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (raw[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if raw[at - 1] < 0x80:
            return value, at
