"""The engines of config/models.yaml as types (MB-1): where a model runs, what it takes, what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, Tag, model_validator
from pydantic_core import PydanticCustomError

from fleet.kernel.types import Frozen, MockMode
from fleet.models.presets import PRESETS, Capability, Dialect, Preset, ProviderPreset
from fleet.models.replies.tool_calls import TextToolForm
from fleet.models.routing.rate import RateCap
from fleet.models.weights import EnvironmentName, TokenizerFile, Weights


def _decimal_text(value: object) -> object:
    # YAML reads 0.2 as a float; requests carry decimals as text, so that their digest is the same everywhere (GL-12).
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Decimal = Annotated[str, BeforeValidator(_decimal_text), Field(pattern=r"^[0-9]+(\.[0-9]+)?$")]
EngineId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class Price(Frozen):
    """What an engine costs, in 1e-6 USD per million tokens."""

    in_microusd_per_mtok: Annotated[int, Field(ge=0)]
    out_microusd_per_mtok: Annotated[int, Field(ge=0)]


Strategy = Literal["auto", "draft", "assisted", "session", "cascade"]
"""How a developer works on an engine.

`draft` is one reply. `assisted` is one reply, the tests on what it made, and at most four replies that mend what
fails. `session` works with tools in the repository, turn by turn. `cascade` begins with one reply, and a
session goes on from its files where its evidence is not good. `auto` is what `fleet models probe` chose; `draft` for an
engine that was never probed.
"""


class _Engine(Frozen):
    engine_id: EngineId
    """Name of the engine; also the model profile that `--model` takes."""
    model: str
    """Model name sent to the engine; `auto` takes the only model that the server offers."""
    revision: str = ""
    """Version or digest of the weights, recorded with every reply."""
    tokenizer: TokenizerFile | None = None
    """Counts the tokens of packs as the model does; without one they are estimated (CX-20)."""
    max_context: Annotated[int, Field(ge=256)] = 32_768
    """Prompt and reply together, in tokens."""
    max_output: Annotated[int, Field(ge=1)] = 4096
    """Longest reply in tokens; a larger request is cut down to it."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs that the engine occupies."""
    max_concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    """Requests sent to the engine at one time by one process; the others wait."""
    max_waiting: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Requests that may wait in front of the engine (of one actor, where it runs in actors); more are told to come
    later."""
    rate_cap: RateCap | None = None
    """Most that is asked of the engine within a minute by one process: calls wait, and are told to come later when
    the wait is too long (MB-28)."""
    tenant_caps: dict[str, RateCap] = Field(default_factory=dict)
    """The same for each tenant at this engine; `*` is for tenants that are not named."""
    price: Price | None = None
    """What it costs; leave out only with `unpriced: true`."""
    unpriced: bool = False
    """Declares that there is no price, so that tokens bound its use (MB-20)."""
    external: bool = False
    """Data leaves the owner's machines (MB-10)."""
    capabilities: frozenset[Capability] = frozenset()
    """What the engine can do beyond plain text."""
    strategy: Strategy = "auto"
    """How a developer works on this engine: `draft`, `assisted`, `session`, `cascade`; `auto` is what its probe chose.

    A session asks much more of a model than a draft: calls of tools in their form, edits that fit, and a window of
    24,000 tokens at least.
    """
    tool_form: TextToolForm = "json"
    """How a model without the capability `tools` is asked to write its calls: JSON, labelled blocks, or an object
    that the engine holds to a schema (MB-14)."""

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if (self.price is None) == (not self.unpriced):
            raise ValueError(f"engine {self.engine_id!r} needs either a price or `unpriced: true`, not both")
        return self


KeyReference = Annotated[str, Field(pattern=r"^secret://[a-z][a-z0-9]{0,62}(-[a-z0-9]{1,62}){0,15}$", max_length=72)]


class HttpEngine(_Engine):
    """A model behind a server: any with the OpenAI wire format (a hosted one, vLLM, llama.cpp), or Anthropic's.

    What an entry with a preset does not set is the preset's: kind, address, variable of the key, context, capabilities,
    and whether data leaves the house.
    """

    kind: Literal["openai", "anthropic", "vllm", "local"]
    preset: Preset | None = None
    """The provider whose address, dialect and capabilities are taken where this entry does not set them."""
    base_url: str = ""
    """Address up to and including `/v1`; with a preset it may be left out."""
    base_url_env: EnvironmentName | None = None
    """Environment variable that replaces the address."""
    model_env: EnvironmentName | None = None
    """Environment variable that replaces the model name."""
    api_key_env: EnvironmentName | None = None
    """Environment variable that holds the key; the key itself never stands in a file."""
    api_key: KeyReference | None = None
    """Reference to the key in a secret store, as `secret://NAME`."""

    api: Literal["chat", "responses"] = "chat"
    """Of the two APIs of OpenAI: `responses` keeps what a model thought over calls of tools, and stores nothing."""
    thinking: Literal["adaptive"] | Annotated[int, Field(ge=1024)] | None = None
    """Of Anthropic's API: `adaptive`, or the most tokens that it thinks before it writes; they count as its reply."""

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "preset" not in value or value["preset"] is None:
            return value  # pyright: ignore[reportUnknownVariableType]
        entry: dict[str, Any] = {str(name): item for name, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if str(entry["preset"]) not in PRESETS:
            raise PydanticCustomError(
                "unknown_preset",
                "unknown preset '{name}': choose one of {choices}, or leave it out and set base_url",
                {"name": str(entry["preset"])[:64], "choices": ", ".join(PRESETS), "allowed": list(PRESETS)},
            )
        return {**_of_preset(PRESETS[entry["preset"]], entry), **entry}

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if not self.base_url:
            raise ValueError(f"engine {self.engine_id!r} needs `base_url`, or a `preset` that knows it")
        if self.tokenizer is not None and self.tokenizer.in_weights:
            raise ValueError(f"engine {self.engine_id!r} runs elsewhere and has no `weights` with a tokenizer in them")
        if self.api == "responses" and self.kind == "anthropic":
            raise ValueError(f"engine {self.engine_id!r} is of kind 'anthropic', which has one API; leave `api` out")
        if self.api_key and self.api_key_env:
            raise ValueError(f"engine {self.engine_id!r} names its key twice; keep either `api_key` or `api_key_env`")
        if self.preset and (PRESETS[self.preset].wire == "anthropic") != (self.kind == "anthropic"):
            raise ValueError(
                f"engine {self.engine_id!r} has kind {self.kind!r}, but preset {self.preset!r} is of kind "
                f"{PRESETS[self.preset].wire!r}; leave `kind` out"
            )
        return self

    @property
    def dialect(self) -> Dialect:
        """What the server takes; of an unknown one it is learned from its answers."""
        return PRESETS[self.preset].dialect if self.preset else Dialect()

    @property
    def headers(self) -> dict[str, str]:
        """Sent with every request."""
        return dict(PRESETS[self.preset].headers) if self.preset else {}

    @property
    def wants_key(self) -> bool:
        """Whether the server is known to refuse requests without a key."""
        return self.preset is not None and PRESETS[self.preset].key_variable is not None

    @property
    def how_to_give_a_key(self) -> str:
        """One sentence for messages about a missing or refused key."""
        if self.api_key:
            return f"store a valid key under {self.api_key} (config/secrets.yaml)"
        reference = PRESETS[self.preset].secret_name if self.preset else None
        or_secret = f", or put `api_key: secret://{reference}` in its entry" if reference else ""
        if self.api_key_env:
            return f"set {self.api_key_env} to a valid key{or_secret}"
        return "name a variable that holds it as `api_key_env`, or a secret as `api_key`"


def _of_preset(preset: ProviderPreset, entry: dict[str, Any]) -> dict[str, Any]:
    filled: dict[str, Any] = {
        "kind": preset.wire,
        "base_url": preset.base_url,
        "max_context": preset.max_context,
        "capabilities": preset.capabilities,
        "external": preset.external,
    }
    # A model may not write more than what its context holds.
    if "max_output" not in entry:
        filled["max_output"] = min(4096, preset.max_context // 2)
    return filled if entry.get("api_key") else {**filled, "api_key_env": preset.key_variable}


class LoraAdapter(Frozen):
    """An adapter that is loaded beside the base model."""

    name: EngineId
    path: str
    """Folder of the adapter on the engine's node."""


class ActorEngine(_Engine):
    """A model that runs in actors of this fleet: vLLM on GPUs (`vllm`), or llama.cpp on the CPU (`local`)."""

    kind: Literal["vllm", "local"]
    weights: Weights | None = None
    """The file to load, by digest; fetched with `fleet models pull`. Without it `path` names a folder or file."""
    path: str = ""
    """Folder (vLLM) or GGUF file (local) on the engine's node; `path_env` replaces it."""
    path_env: EnvironmentName | None = None
    path_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Digest of what lies at `path`, checked before every load."""
    base_url_env: EnvironmentName | None = None
    """Environment variable with the address of a server that runs already; while it is set, nothing is loaded here."""
    model_env: EnvironmentName | None = None
    """Environment variable with the name of one of several models of that server."""
    api_key_env: EnvironmentName | None = None
    """Environment variable with the key of that server."""
    replicas: Annotated[int, Field(ge=1, le=256)] = 1
    """Actors of this model; each holds the whole model."""
    tensor_parallel: Annotated[int, Field(ge=1, le=64)] = 1
    node_labels: dict[str, str] = Field(default_factory=dict)
    """Labels that the node of the engine must carry."""
    cpus: Annotated[float, Field(ge=0)] = 1
    """CPU cores that the actor reserves with Ray."""
    threads: Annotated[int, Field(ge=0, le=512)] = 0
    """Compute threads on a CPU; 0 takes all cores."""
    engine_args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the engine, as its own documentation names them."""
    lora: tuple[LoraAdapter, ...] = ()
    load_timeout_s: Annotated[int, Field(ge=1, le=7200)] = 900
    prompt_format: str = ""
    """Chat template where that of the weights is not to be used."""

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if self.weights is None and not self.path and not self.path_env:
            raise ValueError(f"engine {self.engine_id!r} needs `weights` or `path`, or `base_url` of a running server")
        pinned = self.weights.sha256 if self.weights else None
        if self.tokenizer is not None and self.tokenizer.in_weights and self.tokenizer.sha256 != pinned:
            raise ValueError(
                f"engine {self.engine_id!r} has its tokenizer in its weights: `weights` names the file, and both have "
                "the same `sha256`"
            )
        return self

    def as_server(self, environ: Mapping[str, str]) -> HttpEngine | None:
        """The server that `base_url_env` names in this environment; None while it is not set."""
        address = environ.get(self.base_url_env, "").strip() if self.base_url_env else ""
        if not address:
            return None
        # Nothing is known of the model there, its tokenizer neither.
        shared = self.model_dump(include=set(_Engine.model_fields) - {"tokenizer"})
        names = {"base_url_env": self.base_url_env, "model_env": self.model_env, "api_key_env": self.api_key_env}
        # A server of somebody else names its model as it likes.
        return HttpEngine.model_validate({**shared, **names, "kind": self.kind, "base_url": address, "model": "auto"})


class RecordedEngine(_Engine):
    """Replies of a real model, recorded before and looked up by request digest."""

    kind: Literal["recorded"]
    directory: str
    """Folder of the recordings."""


class MockReply(Frozen):
    """The two answers of a mock to one kind of work."""

    correct: str
    wrong: str


class MockEngine(_Engine):
    """A deterministic stand-in for tests of the team itself (CN-80..CN-87)."""

    kind: Literal["mock"]
    mode: MockMode = "excellent"
    """How well it works and votes."""
    replies: dict[str, MockReply] = Field(default_factory=dict)
    """Answers by kind of work; structured replies that are not listed are filled from their schema."""


ENGINE_KINDS = ("vllm", "openai", "anthropic", "local", "recorded", "mock")
"""The fleet's own; every other kind is that of a package."""


class PluginEngine(_Engine):
    """A model that an installed package brings; calls go out of the process that asks (docs/extending.md)."""

    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    """Name of the entry point."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """What the package takes; it checks them before the fleet starts."""
    api_key: KeyReference | None = None
    """Reference to the key in a secret store, as `secret://NAME`."""

    @model_validator(mode="before")
    @classmethod
    def _options_apart(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        entry = cast("dict[str, object]", value)
        if stray := sorted(entry.keys() - cls.model_fields.keys()):
            raise PydanticCustomError(
                "engine_kind",
                "kind '{kind}' is none of {known}; that of a package takes its settings under options, not beside "
                "them: {stray}",
                {"kind": str(entry.get("kind"))[:64], "known": ", ".join(ENGINE_KINDS), "stray": ", ".join(stray)},
            )
        return entry


AnyEngine = HttpEngine | ActorEngine | RecordedEngine | MockEngine | PluginEngine


def _where(value: object) -> str | None:
    """Which class an entry is: `vllm` and `local` with an address are servers of somebody else."""
    entry: dict[str, Any] = value if isinstance(value, dict) else vars(value)  # pyright: ignore[reportUnknownVariableType]
    if entry.get("preset") and "kind" not in entry:
        return "http"
    kind = entry.get("kind")
    if kind in ("vllm", "local"):
        return "http" if entry.get("base_url") or entry.get("preset") else "actor"
    if kind in ("openai", "anthropic"):
        return "http"
    return kind if kind in ENGINE_KINDS else "plugin" if isinstance(kind, str) else None


EngineConfig = Annotated[
    Annotated[HttpEngine, Tag("http")]
    | Annotated[ActorEngine, Tag("actor")]
    | Annotated[RecordedEngine, Tag("recorded")]
    | Annotated[MockEngine, Tag("mock")]
    | Annotated[PluginEngine, Tag("plugin")],
    Discriminator(
        _where,
        custom_error_type="engine_kind",
        custom_error_message="kind must be one of vllm, openai, anthropic, local, recorded, mock, or that of a package",
    ),
]
