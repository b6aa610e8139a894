"""Validated identifiers. Each is a `str` that cannot be built from text outside its form (GL-8, GL-10, GL-13)."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from fleet.kernel.errors import InvalidInput

_ENTITY = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")
_PREFIXES = frozenset(
    [
        "pr",
        "ep",
        "st",
        "tk",
        "pv",
        "ac",
        "de",
        "qu",
        "ap",
        "rn",
        "co",
        "cd",
        "ce",
        "in",
        "dg",
        "rp",
        "se",
        "di",
        "ms",
        "dp",
    ]
)


class _Id(str):
    """A string of one form; building it from anything else raises InvalidInput naming the form."""

    __slots__ = ()
    form: ClassVar[re.Pattern[str]]
    max_length: ClassVar[int] = 200
    what: ClassVar[str]

    def __new__(cls, value: str) -> Self:
        if len(value) > cls.max_length or not cls.form.fullmatch(value):
            raise InvalidInput(
                f"{value[:100]!r} is no {cls.what}: it must match {cls.form.pattern}, at most {cls.max_length} long",
                value=value[:100],
                allowed=cls.form.pattern,
            )
        return super().__new__(cls, value)

    def __getnewargs__(self) -> tuple[str]:
        return (str(self),)

    @classmethod
    @lru_cache(maxsize=4096)
    def _validate(cls, value: str) -> Self:
        """The id of this text. Remembered: the same few ids stand in most events of a story."""
        try:
            return cls(value)
        except InvalidInput as error:
            raise ValueError(error.message) from error

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls._validate, core_schema.str_schema(), serialization=core_schema.to_string_ser_schema()
        )


class EntityId(_Id):
    """Id of any entity: a lower-case prefix and one or more parts joined by hyphens, 3..80 characters (GL-8)."""

    form = _ENTITY
    max_length = 80
    what = "id"


class StoryId(EntityId):
    """Id of a story, `st-...`."""

    form = re.compile(r"st(-[a-z0-9]+)+")
    what = "story id"


class Digest(_Id):
    """`sha256:<64 hex>` over stored bytes (GL-13)."""

    form = re.compile(r"sha256:[0-9a-f]{64}")
    max_length = 71
    what = "digest"

    @property
    def hex(self) -> str:
        """The 64 hexadecimal digits alone."""
        return self[7:]


class Principal(_Id):
    """`user:<id>`, `agent:<role-or-profile>-<nnn>` or `system:<service>` (GL-10)."""

    form = re.compile(r"user:[a-z0-9][a-z0-9._@-]*|agent:[a-z][a-z0-9_-]*-[0-9]{3}|system:[a-z][a-z0-9-]*")
    max_length = 120
    what = "principal"

    @property
    def kind(self) -> str:
        """`user`, `agent` or `system`."""
        return self.split(":", 1)[0]

    @property
    def is_human(self) -> bool:
        """True for a person."""
        return self.startswith("user:")


class StreamId(_Id):
    """`story:<id>`, `project:<id>` or `platform:main` (EV-1, EV-2)."""

    form = re.compile(r"(story:st|project:pr)(-[a-z0-9]+)+|platform:main")
    max_length = 100
    what = "stream id"

    @classmethod
    def of_story(cls, story_id: str) -> StreamId:
        """The stream of one story."""
        return cls(f"story:{story_id}")

    @property
    def entity(self) -> str:
        """The id after the colon."""
        return self.split(":", 1)[1]


class CommandId(_Id):
    """Deterministic id of a command: `<story>/<step>/<phase>`, or an Idempotency-Key scoped by principal (EV-16)."""

    form = re.compile(r"[\x21-\x7e]+")
    max_length = 250
    what = "command id"


class StepId(_Id):
    """Id of one journaled step within its story, e.g. `task-1/draft/developer-002`."""

    form = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
    max_length = 160
    what = "step id"


class RunKey(_Id):
    """64 hex digits: the key under which a receiver deduplicates (RC-53)."""

    form = re.compile(r"[0-9a-f]{64}")
    max_length = 64
    what = "run key"


SYSTEM = Principal("system:council")
"""The owner of a story, for what it does by itself."""


def derive_id(prefix: str, stream: str, command_id: str, ordinal: int = 0) -> EntityId:
    """The id of an entity made while handling a command: the same command gives the same id (GL-9).

    Args:
        prefix: one of the prefixes of GL-8, e.g. `tk`.
        ordinal: 0.. for the entities that one command makes.
    """
    assert prefix in _PREFIXES, prefix
    raw = hashlib.sha256(f"{stream}\x00{command_id}\x00{ordinal}".encode()).digest()
    return EntityId(f"{prefix}-{base64.b32encode(raw[:8]).decode().lower().rstrip('=')}")
