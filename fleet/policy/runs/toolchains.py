"""Named read-only toolchains: section `toolchains` of config/policy.yaml (RC-34)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fleet.kernel.types import Frozen

Language = Literal["python", "node", "go", "rust"]
"""The languages that the pipeline can build and test (RC-41)."""

ToolchainName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,31}$")]


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
