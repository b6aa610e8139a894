"""Named read-only toolchains: section `toolchains` of config/policy.yaml (RC-34)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple, cast

from pydantic import Field, model_validator

from fleet.kernel.types import Frozen

Language = Literal["python", "node", "go", "rust"]
"""The languages that the pipeline can build and test (RC-41)."""

ToolchainName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,31}$")]


OWN_TOOLCHAIN = "python"
"""The fleet's own programs, which a story has that names none."""


def toolchain_of_runs(named: str, packages: str | None) -> str:
    """The programs of a story's runs: those that it was started with, else those that its base asks for."""
    return packages or named if named == OWN_TOOLCHAIN else named


LAYER_PREFIX = "layer:"
_LAYER = re.compile(r"layer:(python|node|go|rust):([0-9a-f]{24})")


class LayerName(NamedTuple):
    """A toolchain with the packages of one lockfile, which a node keeps under this name."""

    language: Language
    key: str
    """Of lockfile and programs."""

    @property
    def text(self) -> str:
        """The name as runs have it."""
        return f"{LAYER_PREFIX}{self.language}:{self.key}"


def layer_named(text: str) -> LayerName | None:
    """The layer that a toolchain of this name has; None for one without."""
    match = _LAYER.fullmatch(text)
    return LayerName(cast(Language, match[1]), match[2]) if match else None


class ToolchainConfig(Frozen):
    """Which programs runs of this toolchain see, beside the Python that runs the product's own scripts."""

    language: Language
    folder: Annotated[str, Field(pattern=r"^/[^\x00]*[^/\x00]$")] | None = None
    """Absolute path of an installation with a folder `bin`; none: what the system has."""

    @model_validator(mode="after")
    def _has_no_folder_for_python(self) -> ToolchainConfig:
        if self.language == "python" and self.folder is not None:
            raise ValueError("the python toolchain is made from the fleet's own; use --python ENV for another one")
        return self


DEFAULT_TOOLCHAINS: Mapping[str, ToolchainConfig] = {
    "python": ToolchainConfig(language="python"),
    "node": ToolchainConfig(language="node"),
    "go": ToolchainConfig(language="go"),
    "rust": ToolchainConfig(language="rust"),
}
"""What holds when nothing else is configured: one toolchain per language, of what the system has."""
