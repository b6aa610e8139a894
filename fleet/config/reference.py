"""The table of all settings for docs/configuration.md, written from the models themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import PydanticUndefined

from fleet.config.environment import Key, settings_keys
from fleet.config.settings import ServeSettings

# What the loader works out, so that the model has no default of its own.
_DEFAULT_TEXTS = {"home": "`$XDG_STATE_HOME/swe-fleet`, else `~/.local/state/swe-fleet`"}
_FLEET_HEAD = "| key in fleet.yaml | variable | default | meaning |\n|---|---|---|---|"
_SERVE_HEAD = "| key in serve.yaml | meaning |\n|---|---|"


def settings_reference() -> str:
    """Markdown tables of every key of fleet.yaml and serve.yaml: variable, default and sentence."""
    fleet = "\n".join(_fleet_rows())
    serve = "\n".join(f"| `{key.name}` | {_sentence(key)} |" for key in settings_keys(ServeSettings))
    return f"{_FLEET_HEAD}\n{fleet}\n\n{_SERVE_HEAD}\n{serve}\n"


def _fleet_rows() -> Iterator[str]:
    for key in settings_keys():
        yield f"| `{key.name}` | `{key.variable}` | {_default(key)} | {_sentence(key)} |"


def _sentence(key: Key) -> str:
    text = " ".join((key.field.description or "").split())
    return text.replace("|", "\\|")


def _default(key: Key) -> str:
    if key.name in _DEFAULT_TEXTS:
        return _DEFAULT_TEXTS[key.name]
    value: Any = key.field.get_default(call_default_factory=True)
    if value is None:
        return "unset"
    assert value is not PydanticUndefined, f"{key.name} has neither a default nor a text for it"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
