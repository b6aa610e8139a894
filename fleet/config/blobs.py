"""Where blobs are kept, as settings say it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag
from pydantic.functional_validators import BeforeValidator

from fleet.config.values import AbsolutePath, PluginSettings, SecretReference, Settings, by_kind, kind_alone


class FileBlobSettings(Settings):
    """Blobs are files in the home of each node."""

    kind: Literal["file"] = "file"
    shared: bool = False
    """The home is a volume that all nodes mount; without it a fleet of several machines does not start."""
    limit_bytes: int | None = Field(default=200 << 30, ge=1 << 20)
    """Bytes on the disk; a further blob is refused (`store_full`), and stories wait until there is room. Null: none."""


class RedisBlobSettings(Settings):
    """Blobs lie in the log store, at most 64 MiB each, and in its memory."""

    kind: Literal["redis"]


class S3BlobSettings(Settings):
    """Blobs are objects of a bucket in an S3-compatible store, at most 256 MiB each."""

    kind: Literal["s3"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s@/?#]+/?$", max_length=500)]
    """Root of the store, `https://host[:port]`; `http` for this machine, or for another with `allow_http`."""
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    """The bucket, which has to be there."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,60}$")] = "us-east-1"
    """Region of the bucket; stores without regions take any."""
    prefix: Annotated[str, Field(pattern=r"^([A-Za-z0-9_-]{1,60}/){0,5}$")] = ""
    """What names of blobs begin with, ending in `/`, where the bucket holds other things too."""
    addressing: Literal["path", "host"] = "path"
    """Whether the bucket stands in the path (`https://host/bucket/`) or in front of the host."""
    access_key: SecretReference
    """`secret://<name>` of the key's name; secrets.yaml grants it to role devops for blobs.keep."""
    secret_key: SecretReference
    """`secret://<name>` of the key itself; granted alike."""
    session_token: SecretReference | None = None
    """`secret://<name>` of the token of keys that live for a while; unset for lasting ones."""
    allow_http: bool = False
    """Without TLS to another machine: prompts, code and reports then travel in clear text."""
    ca_file: AbsolutePath | None = None
    """Certificates of the authority that vouches for the store; unset trusts the usual ones."""
    timeout_s: int = Field(default=60, ge=1, le=600)
    """Time of one request with all of its answer."""
    tries: int = Field(default=5, ge=1, le=20)
    """Requests for one blob, while the store answers nothing, 429 or 5xx."""

    @property
    def options(self) -> dict[str, Any]:
        """What the store takes."""
        return self.model_dump(exclude={"kind"})


BlobSettings = Annotated[
    Annotated[FileBlobSettings, Tag("file")]
    | Annotated[RedisBlobSettings, Tag("redis")]
    | Annotated[S3BlobSettings, Tag("s3")]
    | Annotated[PluginSettings, Tag("plugin")],
    by_kind("file", "redis", "s3"),
    BeforeValidator(kind_alone),
]
