"""Where and when a change comes from, and how nodes and relationships are written (GR-2, GR-5, GR-8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleet.events.envelope import StoredEvent
from fleet.graph.changes import GraphChange, NodeChange, RelationChange
from fleet.graph.schema import Label, Rel
from fleet.kernel.digest import canonical_json, digest_of

MAX_TEXT = 4000
"""Code points up to which a text is stored whole (GR-8)."""

_EXCERPT = 500

Ref = tuple[Label, str]
"""Label and id of a node."""

_LABEL_OF_PREFIX = {
    "st": Label.STORY,
    "tk": Label.TASK,
    "pv": Label.PLAN_VERSION,
    "rn": Label.RUN,
    "co": Label.COUNCIL,
    "de": Label.DECISION,
    "qu": Label.QUESTION,
    "ap": Label.APPROVAL,
}


def ref_of(entity_id: str) -> Ref | None:
    """The node that an id stands for, by its prefix (GL-8); None for other prefixes."""
    label = _LABEL_OF_PREFIX.get(entity_id.split("-", 1)[0])
    return None if label is None else (label, entity_id)


def texts(**named: str | None) -> dict[str, Any]:
    """Each text whole, or its first 500 characters and, as `<name>_digest`, its digest (GR-8)."""
    properties: dict[str, Any] = {}
    for name, value in named.items():
        if value is not None and len(value) > MAX_TEXT:
            properties |= {name: value[:_EXCERPT], f"{name}_digest": str(digest_of(value.encode()))}
        else:
            properties[name] = value
    return properties


@dataclass(frozen=True, slots=True)
class At:
    """The event: its stream, version and time, which is all that a graph change may know beside the payload."""

    stream: str
    version: int
    ts_ms: int

    @classmethod
    def of(cls, event: StoredEvent) -> At:
        """The context of a stored event."""
        return cls(str(event.stream), event.version, event.ts_ms)

    @property
    def entity(self) -> str:
        """Id of the story or project whose stream it is; `main` for the platform's."""
        return self.stream.split(":", 1)[1]

    @property
    def ref(self) -> Ref:
        """The story whose stream it is."""
        return Label.STORY, self.entity

    def describe(self, label: Label, node_id: str, /, **props: Any) -> NodeChange:
        """The node has these properties and is no stub any more."""
        return self.update(label, node_id, stub=False, **props)

    def update(self, label: Label, node_id: str, /, **props: Any) -> NodeChange:
        """The node of this stream has these properties."""
        owner = {"story_id": self.entity} if self.stream.startswith("story:") else {}
        return NodeChange(label, node_id, {**owner, "v": self.version, **_plain(props)})

    def story(self, **props: Any) -> NodeChange:
        """The story of the stream has these properties."""
        return self.update(Label.STORY, self.entity, version=self.version, **props)

    def scoped(self, part: str) -> str:
        """Id of something that has a name only within its story."""
        return f"{self.entity}/{part}"

    def actor(self, principal: str) -> NodeChange:
        """The principal is known by its kind and name, which every stream reads off the principal alone (GR-5).

        A person stays a stub until the platform's stream registers them.
        """
        kind, name = principal.split(":", 1)
        facts: dict[str, Any] = {"kind": "human" if kind == "user" else kind, "name": name}
        return NodeChange(Label.ACTOR, principal, facts if kind == "user" else {**facts, "stub": False})

    def by(
        self, rel: Rel, start: Ref, principal: str, /, key: dict[str, Any] | None = None, **props: Any
    ) -> tuple[GraphChange, ...]:
        """The actor, and the relationship that leads from `start` to it."""
        return self.actor(principal), link(rel, start, (Label.ACTOR, principal), key, **props)


def link(rel: Rel, start: Ref, end: Ref, /, key: dict[str, Any] | None = None, **props: Any) -> RelationChange:
    """The relationship from `start` to `end`."""
    return RelationChange(rel, *_split(start), *_split(end), key=key or {}, props=_plain(props))


def json_text(value: Any) -> str:
    """Canonical JSON of a value that a property cannot hold."""
    return canonical_json(value).decode()


def _split(ref: Ref) -> tuple[str, str]:
    return str(ref[0]), str(ref[1])


def _plain(props: dict[str, Any]) -> dict[str, Any]:
    return {name.rstrip("_"): _value(value) for name, value in props.items()}


def _value(value: Any) -> Any:
    match value:
        case tuple() | list():
            return [_value(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
        case str():
            return str(value)
        case _:
            return value
