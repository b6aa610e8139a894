"""Which models may read the packs of a role: whose tokens count, and how many there is room for (CX-20, CX-21).

It is worked out once, when a story is created, and written down with it (GL-23): packs are built again after a crash,
and must have the same bytes then, whatever config/models.yaml has become meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fleet.kernel.types import Frozen
from fleet.models.engine_config import ActorEngine, EngineConfig, HttpEngine
from fleet.models.profiles import RUN_PROFILE, ModelsConfig, Policy
from fleet.models.weights import TokenizerId

PACK_READERS = "pack-readers"
"""Under this name a story's `config` holds the digest of its readers, beside those of the config files."""
PROMPT_FRAME_TOKENS = 1024
"""Upper guess of what a prompt holds beside the request's own texts: rules of the work, persona, seat, tools."""


class PackReader(NamedTuple):
    """A model that may read a pack."""

    tokenizer: TokenizerId | None
    room: int
    """Tokens that its context leaves for a pack."""


class ReadingEngine(Frozen):
    """What matters of an engine."""

    tokenizer: TokenizerId | None = None
    max_context: int
    max_output: int


class ReadingLink(Frozen):
    """One entry of a chain."""

    engine_id: str
    max_tokens: int | None = None
    """Of a reply, where the entry bounds it."""


class ReadingChain(Frozen):
    """The chain of one role."""

    links: tuple[ReadingLink, ...]
    pinned: bool = False


class PackReaders(Frozen):
    """The chains of all roles and policies as they were when the story was created."""

    engines: Mapping[str, ReadingEngine]
    roles: Mapping[str, ReadingChain]
    default: ReadingChain
    policies: Mapping[str, ReadingChain] = {}
    """By name, for seats whose policy is not that of their role; stories from before wrote none down."""

    def of(self, role: str, profile: str | None, policy: str | None = None) -> tuple[PackReader, ...]:
        """Return the models that may read what this role is told in a run. They are those of the model profile, in the
        order of its chain.

        Args:
            policy: answers instead of the role's own; of one that is not among these nobody is known.

        Engines that are not listed, such as recorded replies, are left out: nothing is known of them.
        """
        chain = self.roles.get(role, self.default) if policy is None else self.policies.get(policy)
        links = _links(chain, profile) if chain is not None else ()
        readers = ((link, self.engines[link.engine_id]) for link in links if link.engine_id in self.engines)
        return tuple(
            PackReader(
                engine.tokenizer,
                engine.max_context - min(link.max_tokens or engine.max_output, engine.max_output) - PROMPT_FRAME_TOKENS,
            )
            for link, engine in readers
        )


def _links(chain: ReadingChain, profile: str | None) -> Sequence[ReadingLink]:
    """As `ModelsConfig.chain_for` puts the engine of the run in front."""
    links = [link for link in chain.links if link.engine_id != RUN_PROFILE]
    if profile is not None and not (chain.pinned and links):
        first = chain.links[0].model_copy(update={"engine_id": profile})
        links = [first, *(link for link in links if link.engine_id != profile)]
    return links[:1] if chain.pinned else links


def pack_readers(
    models: ModelsConfig, policies: Mapping[str, Sequence[str]], *, environ: Mapping[str, str]
) -> PackReaders:
    """The readers of every role and of every policy.

    Args:
        policies: of each role, the names that its policy may have: the first that models.yaml knows is taken (MB-2).
        environ: of an engine for which it names another server or model the tokenizer is unknown.
    """
    return PackReaders(
        engines={engine.engine_id: _engine(engine, environ) for engine in models.engines},
        roles={role: _chain(models.policy_for(names[0], inherits=names[1:])) for role, names in policies.items()},
        default=_chain(models.policies["default"]),
        policies={name: _chain(policy) for name, policy in models.policies.items()},
    )


def _engine(engine: EngineConfig, environ: Mapping[str, str]) -> ReadingEngine:
    tokenizer = engine.tokenizer.id if engine.tokenizer is not None and not is_another_model(engine, environ) else None
    return ReadingEngine(tokenizer=tokenizer, max_context=engine.max_context, max_output=engine.max_output)


def is_another_model(engine: EngineConfig, environ: Mapping[str, str]) -> bool:
    """Whether the environment puts a model in the engine's place that the file does not know."""
    if isinstance(engine, ActorEngine):
        return engine.as_server(environ) is not None
    name = engine.model_env if isinstance(engine, HttpEngine) else None
    return bool(name) and environ.get(name, engine.model) != engine.model


def _chain(policy: Policy) -> ReadingChain:
    links = tuple(ReadingLink(engine_id=entry.engine_id, max_tokens=entry.max_tokens) for entry in policy.chain)
    return ReadingChain(links=links, pinned=policy.pinned)
